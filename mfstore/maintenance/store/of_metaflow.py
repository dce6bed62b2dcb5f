"""A store below a Metaflow root: what its runs need is written down in the root, and nowhere in the store."""

from __future__ import annotations

import os

from mfstore.errors import Refused
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER


def refuse_store_of_metaflow(url: str) -> None:
    """Refused for the store of a Metaflow root, by its name: without the root all of it would seem to be garbage."""
    path = url.removeprefix("file://")
    # As it is called, however it was reached: from inside, by a link to it, or as a link.
    for place in (path,) if "://" in path else (os.path.abspath(path), os.path.realpath(path)):  # noqa: PTH100
        root, _, name = place.rstrip("/").rpartition("/")
        if name == STORE_FOLDER:
            raise Refused(
                "this store belongs to a datastore root of Metaflow, whose runs need what no ref here names",
                backend=url,
                hint=f"Collect it with its root: mfstore gc --metaflow {root} --keep-age …",
            )
