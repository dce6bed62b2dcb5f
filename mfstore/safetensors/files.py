"""Files of safetensors, and dicts of tensors, as what is stored: an ordered dict of arrays, each in memory of its own.

What a file says besides is in attributes of the dict, as torch keeps that of a ``state_dict``: ``metadata``, and
``header`` where it is not the one that the safetensors package would write.
"""

from __future__ import annotations

import os
import stat
import sys
from collections import OrderedDict
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from mfstore.errors import Conflict, CorruptObject, NotSerializable, Unsupported, WrongArgument
from mfstore.safetensors.dtypes import CODES, TYPES, numpy_dtype
from mfstore.safetensors.header import METADATA, PREFIX, Header, decode, encode, header_length, is_text, laid_out
from mfstore.safetensors.shards import is_index, of_index

OUT_OF_LINE = 65536
"""Bytes from which the pickler takes what is read a part at a time."""
Source = str | os.PathLike[str] | Mapping[str, Any]


def tensors_of(source: Source, metadata: Mapping[str, str] | None = None) -> OrderedDict[str, Any]:
    """What is stored of a file, or of a dict of arrays and tensors."""
    if isinstance(source, Mapping):
        return _of_mapping(source, metadata or {})
    if not isinstance(source, (str, os.PathLike)):
        raise WrongArgument(
            "tensors are a file, or a dict of them by name", found=type(source).__name__,
            hint="Of a model of torch: put_safetensors(model.state_dict())",
        )  # fmt: skip
    if metadata is not None:
        raise WrongArgument("a file has its own metadata", hint="Leave out metadata=, or give the dict of its tensors")
    return of_index(source, _of_file) if is_index(source) else _of_file(source)


class ArrayInFile:
    """An array that lies in a file, and is read a part at a time, as it is stored."""

    __slots__ = ("_file", "_start", "dtype", "nbytes", "shape")

    def __init__(self, file: _File, start: int, dtype: Any, shape: tuple[int, ...], nbytes: int) -> None:
        self._file = file
        self._start = start
        self.dtype = dtype
        self.shape = shape
        self.nbytes = nbytes

    def read(self, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` of it. Conflict if the file has changed since its header was read."""
        return self._file.read(self._start + start, self._start + end)


class _File:
    """A file that is opened for each read: models come in hundreds. It is not mapped, since the process ends that reads
    a map of what another one has cut off."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = str(Path(path).absolute())
        with self._opened() as file:
            self._known = _state(file)
        self.size = self._known[0]

    def _opened(self) -> FileIO:
        # A pipe without a writer is no reason to wait.
        return FileIO(self._path, opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))

    def read(self, start: int, end: int) -> bytes:
        with self._opened() as file:
            file.seek(start)
            data = file.read(end - start)
            while len(data) < end - start and (more := file.read(end - start - len(data))):
                data += more  # a read of more than 2 GiB gives no more than these
            if len(data) < end - start or _state(file) != self._known:
                raise Conflict("the file has changed while it was stored", found=self._path,
                               hint="Store it when its writer is done")  # fmt: skip
        return data


def _state(file: FileIO) -> tuple[int, ...]:
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise Unsupported("tensors are read from a regular file", found=str(file.name),
                          hint="put_file stores what a pipe or a device gives, as bytes")  # fmt: skip
    return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino


def _of_file(path: str | os.PathLike[str]) -> OrderedDict[str, Any]:
    """Arrays of the file, which must not change as long as they are used: short ones, and others as they lie there."""
    import numpy as np

    file = _File(path)
    length = header_length(file.read(0, min(PREFIX, file.size)), file.size)
    raw = file.read(PREFIX, PREFIX + length)
    header = decode(raw, file.size - PREFIX - length)
    dtypes = {tensor.name: numpy_dtype(tensor.code, tensor.name) for tensor in header.tensors}
    arrays: dict[str, Any] = {}
    for tensor in header.tensors:
        dtype, start, nbytes = dtypes[tensor.name], PREFIX + length + tensor.start, tensor.end - tensor.start
        if nbytes < OUT_OF_LINE:
            arrays[tensor.name] = np.frombuffer(file.read(start, start + nbytes), dtype).reshape(tensor.shape)
        else:
            arrays[tensor.name] = ArrayInFile(file, start, dtype, tensor.shape, nbytes)
    as_usual = encode(laid_out([tensor[:3] for tensor in header.tensors], header.metadata))[PREFIX:]
    return _noted(arrays, header.metadata, None if as_usual == raw else raw)


def _of_mapping(given: Mapping[str, Any], metadata: Mapping[str, str]) -> OrderedDict[str, Any]:
    for name, value in metadata.items():
        if not (isinstance(name, str) and isinstance(value, str) and is_text(name) and is_text(value)):
            raise WrongArgument("metadata are texts by their names", found=f"{name!r}: {value!r:.80}")
    arrays = {}
    for name, value in given.items():
        if not isinstance(name, str) or name == METADATA or not is_text(name):
            raise WrongArgument("tensors have names, which are texts", found=f"{name!r:.80}")
        arrays[name] = as_array(value, name)
    header = laid_out([(name, CODES[one.dtype.name], one.shape) for name, one in arrays.items()], metadata)
    return _noted({tensor.name: arrays[tensor.name] for tensor in header.tensors}, metadata, None)


def as_array(value: Any, name: str) -> Any:
    """An array or a tensor as a plain array in C order whose type safetensors has. NotSerializable for what is none,
    or says more than its elements do (a mask)."""
    import numpy as np

    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = _of_torch(torch, value, name)
    is_array = isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray)
    if not is_array or value.dtype.hasobject or value.dtype.name not in CODES:
        what = f"an array of {value.dtype}" if is_array else f"a {type(value).__name__}"
        raise NotSerializable(
            f"safetensors has no tensor like {name!r:.80}, {what}",
            hint=f"It has {', '.join(CODES)}; put stores any object",
        )
    value = value.view(np.ndarray)
    if value.dtype.byteorder == ">" or (value.dtype.byteorder == "=" and sys.byteorder == "big"):
        value = value.astype(value.dtype.newbyteorder("<"))
    return value if value.flags.c_contiguous else value.copy(order="C")


def _of_torch(torch: Any, tensor: Any, name: str) -> Any:
    """A tensor as an array of the same memory, where it lies in that of this machine in one piece."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_meta or kind not in CODES:
        how = "nested" if tensor.is_nested else "without data (meta)" if tensor.is_meta else str(tensor.layout)
        raise NotSerializable(
            f"safetensors has no tensor like {name!r:.80}, of {tensor.dtype} and {how}",
            hint="Make it dense, and of another type; put stores any tensor",
        )
    tensor = tensor.detach().cpu().contiguous().resolve_conj().resolve_neg()
    code = CODES[kind]
    if not TYPES[code].of_ml_dtypes:
        return tensor.numpy()
    # numpy does not know it: as numbers of its length, which are then called what they are.
    whole = {8: torch.uint8, 16: torch.int16}[TYPES[code].bits]
    return tensor.view(whole).numpy().view(numpy_dtype(code, name))


def _noted(arrays: Mapping[str, Any], metadata: Mapping[str, str], header: bytes | None) -> OrderedDict[str, Any]:
    made: Any = OrderedDict(arrays)
    made.metadata = dict(metadata)
    if header is not None:
        made.header = header
    return made  # type: ignore[no-any-return]


def header_of(raw: object, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> Header | None:
    """The header that a file had from which these tensors, by code and shape, were stored; None where ``raw``
    is not theirs: they are others by now, or it is none."""
    if not isinstance(raw, bytes):
        return None
    nbytes = sum(laid_out([(name, *one)], {}).nbytes for name, one in tensors.items())
    try:
        header = decode(raw, nbytes)
    except CorruptObject:
        return None
    return header if {tensor.name: tensor[1:3] for tensor in header.tensors} == dict(tensors) else None
