"""Artifacts of the stock form, loaded safely: Metaflow itself would unpickle them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mfstore.errors import UnsafeObject
from mfstore.pickling.safe.loading import load

if TYPE_CHECKING:
    from mfstore.allow import Allow

_PICKLES = ("gzip+pickle-v2", "gzip+pickle-v4", "pickle-v2", "pickle-v4")
"""Encodings that are pickles. The blob of any is handed over unpacked."""
_OLDEST = "gzip+pickle-v2"
"""Of artifacts of which nothing is said."""


def load_safely(
    artifacts: Iterable[tuple[str, str, Mapping[str, Any]]],
    load_blobs: Callable[[Iterable[str]], Iterable[tuple[str, bytes]]],
    allow: Allow,
) -> Iterator[tuple[str, Any]]:
    """What ``TaskDataStore.load_artifacts`` gives for artifacts, each given by its name, its key and what ``data.json``
    says of it, if they are data or on the list. UnsafeObject for the others, and for what a serializer of an extension
    has stored."""
    wanted: dict[str, list[str]] = {}
    for name, key, info in artifacts:
        encoding = info.get("encoding", _OLDEST)
        if encoding not in _PICKLES:
            raise UnsafeObject(
                f"artifact {name!r} is no pickle: what reads it is code of an extension of Metaflow's", found=encoding,
                hint="Without METAFLOW_MFSTORE_SAFE it is loaded",
            )  # fmt: skip
        wanted.setdefault(key, []).append(name)
    for key, blob in load_blobs(wanted):
        for name in wanted[key]:
            try:
                yield name, load(allow, [blob], (), ())
            except UnsafeObject as error:
                error.artifact = name
                error.add_note(f"in artifact {name!r}")
                raise
