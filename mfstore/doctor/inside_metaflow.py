"""``python -m mfstore.doctor.inside_metaflow`` prints, as JSON in its last line, what Metaflow is set up for."""

from __future__ import annotations

import json
import sys
from typing import Any

KINDS = ("local", "s3", "azure", "gs")
"""Datastores whose storages mfstore replaces."""
SWITCH = "metaflow_extensions.mfstore.switch"


def told() -> dict[str, Any]:
    """Version, who stores what, and the configuration that this process has from Metaflow."""
    import metaflow
    from metaflow import metaflow_config
    from metaflow.metaflow_config_funcs import from_conf
    from metaflow.plugins import DATASTORES

    kind = metaflow_config.DEFAULT_DATASTORE
    root = None
    for storage in DATASTORES:
        if kind == storage.TYPE:
            root = storage.get_datastore_root_from_config(lambda *_: None, create_on_absent=False)
    off = getattr(sys.modules.get(SWITCH), "OFF", ())
    storages = {storage.TYPE: storage.__module__ for storage in DATASTORES if storage.TYPE in KINDS}
    return {
        "storages": {**storages, "metaflow.S3": metaflow.S3.__module__},
        "note": _note() if storages["local"].startswith("mfstore.") else "",
        "switched_off": str(from_conf("MFSTORE", "1")).lower() in off,
        "profile": from_conf("MFSTORE_PROFILE"),
        "datastore": kind,
        "root": root,
        "metadata": metaflow_config.DEFAULT_METADATA,
    }


def _note() -> str:
    """What mfstore says of this release of Metaflow."""
    from mfstore.metaflow.hooks.rebinding import METHODS, kept, release_note

    return release_note(kept(METHODS))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(told()) + "\n")
