"""Whether mfstore is used in this process."""

import importlib
import os
import sys

OFF = ("0", "false", "no", "off")


def load(module):
    """The module, or None when mfstore is switched off (``METAFLOW_MFSTORE=0``, in the environment or in Metaflow's
    configuration) or cannot be loaded, which is then said once."""
    from metaflow.metaflow_config_funcs import from_conf

    if str(from_conf("MFSTORE", "1")).lower() in OFF:
        return None
    try:
        importlib.import_module("mfstore.metaflow.needs")
        return importlib.import_module(module)
    except Exception as error:
        if os.environ.get("METAFLOW_MFSTORE_WARNED") is None:
            # The processes this one starts have the same to say.
            os.environ["METAFLOW_MFSTORE_WARNED"] = "1"
            print(f"mfstore cannot be loaded ({error}); Metaflow's own storage is used.", file=sys.stderr)
        return None
