"""Which formats there are, which of them what is stored fits, and which one is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from mfstore._core.pickler import TEXT
from mfstore.errors import InvalidKey, NotSerializable, WrongArgument
from mfstore.pickling.symbols import Slot, called
from mfstore.safetensors.shards import is_index
from mfstore.views.arrays import array_of
from mfstore.views.arrow import arrow_table
from mfstore.views.data import OBJECT, entries_of, is_plain, kind_of
from mfstore.views.frames import frame_of, series_of
from mfstore.views.polars_frames import polars_frame
from mfstore.views.tensors import tensor_of

if TYPE_CHECKING:
    from mfstore.views.view import View

PICKLE, NPY, NPZ, PARQUET, SAFETENSORS = "pickle", "npy", "npz", "parquet", "safetensors"
CSV, JSON, TEXTS, BYTES = "csv", "json", "text", "bytes"
SUFFIXES = {
    ".pkl": PICKLE, ".pickle": PICKLE, ".npy": NPY, ".npz": NPZ, ".parquet": PARQUET, ".safetensors": SAFETENSORS,
    ".csv": CSV, ".json": JSON, ".txt": TEXTS, ".bin": BYTES,
}  # fmt: skip
"""What a path means by its end."""
FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))


def chosen(view: View, path: str, given: str | None) -> str:
    """The format that is meant: the one given; of bytes and texts what they are, whatever the path is called, unless
    that says pickle; else what the path says. InvalidKey for a format that is none, WrongArgument where nothing says
    one."""
    if given is not None:
        if given not in FORMATS:
            raise InvalidKey("no such format", found=f"{given!r:.40}", hint=f"One of {', '.join(FORMATS)}")
        return given
    by_name = SAFETENSORS if is_index(path) else SUFFIXES.get(PurePosixPath(path).suffix.lower())
    if by_name == PICKLE and not view.is_raw:
        return PICKLE  # what is in it is not looked at: it may be as long as anything
    itself = content_of(view)
    if itself is not None:
        return itself
    if by_name is None:
        raise WrongArgument(
            "nothing says in which format", found=path, hint=f"format={fitting(view)[0]!r}, or a path that ends so"
        )
    return by_name


def node_of(view: View) -> Any:
    """Of what it would be made; None for a bundle."""
    found = view.symbols()
    return None if found is None else found[1]


def content_of(view: View) -> str | None:
    """Of bytes and texts, which of the two; None of anything else."""
    node = node_of(view)
    if isinstance(node, str) or (isinstance(node, Slot) and node.kind == TEXT):
        return TEXTS
    return BYTES if isinstance(node, (Slot, bytes, bytearray)) else None


def fitting(view: View) -> Sequence[str]:
    """The formats that what is stored fits, the most telling first. Pickle fits all but bytes that were stored as they
    are."""
    if (itself := content_of(view)) is not None:
        return (itself,) if view.is_raw else (itself, PICKLE)
    found = view.symbols()
    if found is None:
        parts = [part.symbols() for part in view.values()]
        return (*_of_many([part[1] for part in parts if part is not None]), PICKLE)
    node = found[1]
    if frame_of(node) is not None or arrow_table(node) is not None or polars_frame(node) is not None:
        return PARQUET, CSV, PICKLE
    if series_of(node) is not None:
        return CSV, PICKLE
    if (array := array_of(node)) is not None and isinstance(array.items, list):
        return (PICKLE,)
    if array is not None or tensor_of(node) is not None:
        return NPY, PICKLE
    if view.kind == "mapping":
        if is_of_safetensors(node):
            return SAFETENSORS, NPZ, PICKLE
        return (*_of_many(list(entries_of(node).nodes)), *((JSON,) if _says_json(node) else ()), PICKLE)
    if is_empty_of_safetensors(node):
        return SAFETENSORS, PICKLE
    return (JSON, PICKLE) if _says_json(node) else (PICKLE,)


def is_of_safetensors(node: Any) -> bool:
    """Whether it is what ``put_safetensors`` stores."""
    return called(node) == "collections.OrderedDict" and isinstance(node.state, dict) and "metadata" in node.state


def is_empty_of_safetensors(node: Any) -> bool:
    """Whether it is what is stored of a file without tensors: a dict without items, which has attributes alone."""
    return is_of_safetensors(node) and not node.args and kind_of(node) == OBJECT


def _of_many(nodes: Sequence[Any]) -> Sequence[str]:
    if nodes and all(tensor_of(node) is not None for node in nodes):
        return SAFETENSORS, NPZ
    if nodes and all(array_of(node) is not None or tensor_of(node) is not None for node in nodes):
        return NPZ, SAFETENSORS
    return ()


def _says_json(node: Any) -> bool:
    """Whether it seems to be what JSON can say, by what is outermost of it."""
    if isinstance(node, dict):
        return all(isinstance(name, str) and _may_be_json(value) for name, value in node.items())
    return all(map(_may_be_json, node)) if isinstance(node, (list, tuple)) else _may_be_json(node)


def _may_be_json(node: Any) -> bool:
    return isinstance(node, (dict, list, tuple)) or (is_plain(node) and not isinstance(node, (bytes, complex)))


def unfit(view: View, format: str, why: str, hint: str | None = None) -> NotSerializable:  # noqa: A002
    """What is raised for what a format cannot hold."""
    others = [one for one in fitting(view) if one != format]
    if hint is None and others:
        hint = f"What fits: {' or '.join(others)}"
    return NotSerializable(f"it cannot be written as {format}: {why}", key=view.key, hint=hint)
