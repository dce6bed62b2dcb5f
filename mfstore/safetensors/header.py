"""The header of a safetensors file, between bytes and values. Nothing that it says is believed before it is checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NoReturn

from mfstore.errors import CorruptObject
from mfstore.records import NamedTuple
from mfstore.safetensors.dtypes import RANKS, TYPES

PREFIX = 8
"""Bytes of the header's length, at the beginning of a file."""
LONGEST = 100_000_000
"""Bytes of a header: what the safetensors package takes, too."""
METADATA = "__metadata__"
"""The name that no tensor has: texts by their names."""
ALIGNMENT = 8
MOST_AXES = 64
"""What numpy takes."""
_MOST = 1 << 63
_HINT = "It was cut off, or no program that writes the format has written it. put_file stores it as it is"


class Tensor(NamedTuple):
    """One tensor of a file."""

    name: str
    code: str
    """Of its type."""
    shape: tuple[int, ...]
    start: int
    """Where its bytes begin, from the end of the header."""
    end: int


class Header(NamedTuple):
    """What a file says of itself."""

    tensors: tuple[Tensor, ...]
    """In the order of the header."""
    metadata: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes behind the header."""
        return max((tensor.end for tensor in self.tensors), default=0)


def header_length(prefix: bytes, file_size: int) -> int:
    """How long the header is of a file of so many bytes that begins so. CorruptObject where it cannot be."""
    if len(prefix) < PREFIX:
        _refuse("it is shorter than the length of a header")
    length = int.from_bytes(prefix[:PREFIX], "little")
    if length > LONGEST:
        _refuse(f"its header would have {length} bytes, and at most {LONGEST} are allowed")
    if length > file_size - PREFIX:
        _refuse(f"its header would have {length} bytes, and it ends before")
    return length


def decode(raw: bytes, nbytes: int) -> Header:
    """The header of a file that has ``nbytes`` behind it, all of which are a tensor's, and none of two. CorruptObject
    for any other."""
    if not raw.startswith(b"{"):
        _refuse("its header does not begin as one")
    try:
        said = json.loads(raw.decode("utf-8"), object_pairs_hook=unique_names, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        _refuse(f"its header is not JSON: {error}")
    metadata = said.pop(METADATA, None)
    metadata = {} if metadata is None else metadata
    if type(metadata) is not dict or not all(type(value) is str and is_text(value) for value in metadata.values()):
        _refuse(f"{METADATA} is not texts by their names")
    tensors = tuple(_tensor_said(name, given) for name, given in said.items())
    if not all(map(is_text, (*metadata, *said))):
        _refuse("a name in its header is no text")
    at = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != at:
            what = "overlaps another one" if tensor.start < at else "does not begin where the one before it ends"
            _refuse(f"the tensor {tensor.name!r:.80} {what}")
        at = tensor.end
    if at != nbytes:
        _refuse(f"its tensors have {at} bytes, and {nbytes} follow the header")
    return Header(tensors, metadata)


def encode(header: Header) -> bytes:
    """The beginning of a file: the length of the header and the header, as the safetensors package writes it."""
    said: dict[str, Any] = {METADATA: dict(header.metadata)} if header.metadata else {}
    for tensor in header.tensors:
        said[tensor.name] = {
            "dtype": tensor.code, "shape": list(tensor.shape), "data_offsets": [tensor.start, tensor.end]
        }  # fmt: skip
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(PREFIX, "little") + text


def laid_out(tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]) -> Header:
    """The header of a file of tensors, given by name, code and shape, as the safetensors package lays them out: long
    types first, and those of one type by name."""
    placed, at = [], 0
    for name, code, shape in sorted(tensors, key=lambda one: (-RANKS[one[1]], one[0])):
        end = at + prod(shape) * TYPES[code].bits // 8
        placed.append(Tensor(name, code, shape, at, end))
        at = end
    return Header(tuple(placed), metadata)


def _tensor_said(name: str, given: Any) -> Tensor:
    if type(given) is not dict or not {"dtype", "shape", "data_offsets"} <= given.keys():
        _refuse(f"the tensor {name!r:.80} lacks a type, a shape or its place")
    code, shape, place = given["dtype"], given["shape"], given["data_offsets"]
    if type(code) is not str or code not in TYPES:
        _refuse(f"the tensor {name!r:.80} has a type that is none: {code!r:.40}")
    if type(shape) is not list or len(shape) > MOST_AXES or not all(map(_is_size, shape)):
        _refuse(f"the tensor {name!r:.80} has a shape that is none")
    if type(place) is not list or len(place) != 2 or not all(map(_is_size, place)) or place[1] < place[0]:
        _refuse(f"the tensor {name!r:.80} has a place that is none")
    # Of axes that numpy cannot multiply there is no array, even where another one has no length.
    if prod(size for size in shape if size) >= _MOST:
        _refuse(f"the tensor {name!r:.80} has a shape that is none")
    bits = prod(shape) * TYPES[code].bits
    if bits % 8 or bits // 8 != place[1] - place[0]:
        _refuse(f"the tensor {name!r:.80} has {place[1] - place[0]} bytes, and its shape takes another number")
    return Tensor(name, code, tuple(shape), *place)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


def is_text(value: str) -> bool:
    """Whether it can be written in UTF-8: JSON can say half a character."""
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of JSON. ValueError for one that has a name twice, of which two readers may take another one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _refuse(why: str) -> NoReturn:
    raise CorruptObject(f"no safetensors file: {why}", hint=_HINT)
