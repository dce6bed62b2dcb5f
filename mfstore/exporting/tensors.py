"""Tensors by name as a file of safetensors, from their segments to the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from mfstore.exporting.arrays import StoredArray, stored_arrays
from mfstore.exporting.formats import SAFETENSORS, is_of_safetensors, node_of, unfit
from mfstore.exporting.streams import Content, write
from mfstore.safetensors.dtypes import CODES
from mfstore.safetensors.files import as_array, header_of
from mfstore.safetensors.header import METADATA, PREFIX, Header, encode, is_text, laid_out
from mfstore.safetensors.shards import shards_of
from mfstore.views.data import MAPPING, OBJECT

if TYPE_CHECKING:
    from mfstore.views.parts import ArtifactParts
    from mfstore.views.view import View


def write_safetensors(
    view: View, out: BinaryIO, named: Mapping[str, tuple[ArtifactParts, Any]] | None,
    metadata: Mapping[str, str] | None, said: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Tensors by name. What came from a file is that file again, to the byte, unless there is other ``metadata``.
    ``said``: what the file said, where that is not in the attributes of the whole."""
    if named is None:
        hint = "Of a model of torch: put_safetensors(model.state_dict())" if view.kind == OBJECT else None
        raise unfit(view, SAFETENSORS, f"it is a {view.type}, and no tensors by name", hint)
    arrays = stored_arrays(named)
    told = {name: _told(view, name, array) for name, array in arrays.items()}
    said = _texts_in(attributes(view) if said is None else said)
    header = header_of(said.get("header"), told) if metadata is None else None
    start = None if header is None else said["header"]
    if header is None:
        if metadata is None:
            metadata = said.get("metadata", {})
        header = laid_out([(name, *one) for name, one in told.items()], _texts(view, metadata))
    start = encode(header) if start is None else len(start).to_bytes(PREFIX, "little") + start
    write([Content(None, lambda: start), *_contents(header, arrays)], out)


def _contents(header: Header, arrays: Mapping[str, StoredArray | None]) -> list[Content]:
    found = []
    for tensor in sorted(header.tensors, key=lambda tensor: (tensor.start, tensor.end)):
        array = arrays[tensor.name]
        if array is None or tensor.start == tensor.end:
            continue
        # Others than little-endian ones in C order are made, and turned.
        if array.order != "C" or (array.dtype is not None and array.dtype.byteorder == ">"):
            array = array._replace(data=None, order="C")
        found.append(array.content(partial(as_array, name=tensor.name)))
    return found


def _told(view: View, name: str, array: StoredArray | None) -> tuple[str, tuple[int, ...]]:
    """The code of its type, and its shape."""
    if not isinstance(name, str) or name == METADATA or not is_text(name):
        raise unfit(view, SAFETENSORS, f"{name!r:.80} is the name of no tensor")
    if array is None:
        kind = view[name].kind
        hint = f"Export that part: store.view(key)[{name!r}], or --part {name}" if kind == MAPPING else None
        raise unfit(view, SAFETENSORS, f"the part {name!r:.80} is no tensor", hint)
    if array.kind not in CODES:
        raise unfit(view, SAFETENSORS, f"it has no type like that of {name!r:.80}, {array.kind or 'unknown'}")
    return CODES[array.kind], array.shape


def shards(
    view: View, named: Mapping[str, tuple[ArtifactParts, Any]]
) -> tuple[bytes, dict[str, Callable[[BinaryIO, Mapping[str, str] | None], None]]]:  # fmt: skip
    """The index of a model in several files, and by the name of each of these what writes it."""
    found = shards_of(attributes(view), {*named})
    if found is None:
        raise unfit(view, SAFETENSORS, "it did not come in several files, by an index", "Export it as one file")
    index, files, said = found

    def write_one(file: str, out: BinaryIO, metadata: Mapping[str, str] | None) -> None:
        part = {name: named[name] for name in files[file]}
        write_safetensors(view, out, part, metadata, said.get(file, {}))

    return index, {file: partial(write_one, file) for file in files}


def attributes(view: View) -> Mapping[str, Any]:
    """What was said, beside its tensors, by the file from which it was stored."""
    node = node_of(view)
    if not is_of_safetensors(node):
        return {}
    return node.state  # type: ignore[no-any-return]


def _texts_in(said: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = said.get("metadata")
    plain = isinstance(metadata, dict) and all(map(_is_text, (*metadata, *metadata.values())))
    return {**said, "metadata": metadata if plain else {}}


def _is_text(value: Any) -> bool:
    return type(value) is str and is_text(value)


def _texts(view: View, metadata: Any) -> Mapping[str, str]:
    for name, value in metadata.items():
        if not (_is_text(name) and _is_text(value)):
            raise unfit(view, SAFETENSORS, f"its metadata are texts by their names, not {name!r:.40}: {value!r:.40}")
    return metadata  # type: ignore[no-any-return]
