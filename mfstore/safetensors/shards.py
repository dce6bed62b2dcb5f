"""Models in several files: the index that says in which of them each tensor lies."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from mfstore.errors import CorruptObject
from mfstore.safetensors.header import unique_names

SUFFIX = ".safetensors.index.json"
LONGEST = 100_000_000
"""Bytes of an index, as of a header."""


def is_index(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of an index."""
    return os.fspath(path).endswith(SUFFIX)


def files_of(raw: bytes) -> dict[str, list[str]]:
    """The names of the files that an index names, each with its tensors. CorruptObject for what is no index, or names
    a file that does not lie beside it."""
    try:
        said = json.loads(raw, object_pairs_hook=unique_names)
    except (ValueError, RecursionError) as error:
        _refuse(f"no JSON: {error}")
    places = said.get("weight_map") if type(said) is dict else None
    if type(places) is not dict:
        _refuse("it has no weight_map")
    files: dict[str, list[str]] = {}
    for name, file in places.items():
        if type(file) is not str or not _is_beside(file):
            _refuse(f"the tensor {name!r:.80} lies in {file!r:.80}, which is no file beside it")
        files.setdefault(file, []).append(name)
    return files


def of_index(path: str | os.PathLike[str], read: Any) -> OrderedDict[str, Any]:
    """All tensors of the files that an index names. ``read`` reads one of them."""
    index = Path(path)
    if index.stat().st_size > LONGEST:
        _refuse("it is too long")
    raw = index.read_bytes()
    tensors: Any = OrderedDict()
    shards: dict[str, Any] = {}
    for file, names in files_of(raw).items():
        found = read(index.parent / file)
        if found.keys() != {*names}:
            odd = sorted(found.keys() ^ {*names})[0]
            _refuse(f"{file} and it do not agree on where the tensor {odd!r:.80} is")
        tensors.update(found)
        shards[file] = found.__dict__
    first = next(iter(shards.values()), None)
    tensors.metadata = {} if first is None else dict(first["metadata"])
    tensors.index, tensors.shards = raw, shards
    return tensors  # type: ignore[no-any-return]


def shards_of(state: Mapping[str, Any], names: object) -> tuple[bytes, dict[str, list[str]], Mapping[str, Any]] | None:
    """Of what ``of_index`` has made, by its attributes and the names of its tensors: the index, its files, and what
    each file said. None for what came from no index, or has other tensors by now."""
    raw, shards = state.get("index"), state.get("shards")
    if not isinstance(raw, bytes) or not isinstance(shards, dict):
        return None
    files = files_of(raw)
    if {name for one in files.values() for name in one} != names:
        return None
    return raw, files, {file: said for file, said in shards.items() if isinstance(said, dict)}


def _is_beside(file: str) -> bool:
    # Whoever may write to a store says where an export writes: there, and nowhere else.
    plain = file.endswith(".safetensors") and not file.startswith(".")
    return plain and file.isprintable() and not {*"/\\"} & {*file}


def _refuse(why: str) -> NoReturn:
    raise CorruptObject(f"no index of a safetensors model: {why}", hint="put_safetensors takes its files one by one")
