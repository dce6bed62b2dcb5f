"""Arrays and tensors: where their bytes lie, and what they are; as npy and npz."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO

from mfstore.exporting.formats import NPY, NPZ, unfit
from mfstore.exporting.streams import Content, write
from mfstore.pickling.symbols import Slot
from mfstore.records import NamedTuple
from mfstore.safetensors.dtypes import CODES, numpy_dtype
from mfstore.safetensors.header import is_text
from mfstore.views.arrays import ArraySymbols, array_of
from mfstore.views.tensors import TensorSymbols, tensor_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from mfstore.views.parts import ArtifactParts
    from mfstore.views.view import View

LONGEST_NAME = (1 << 16) - 1 - len(".npy")
"""Bytes of a name in an archive."""
NATIVE = 1
"""What numpy says of its own types; 2 of those that other packages register, which a file of numpy cannot name."""


class StoredArray(NamedTuple):
    """An array, or a tensor, as it is stored."""

    parts: ArtifactParts
    node: Any
    kind: str
    """Name of the type of its elements, as of ``safetensors.dtypes``; of other types as numpy has it."""
    dtype: Any
    """Of an array its type in numpy; None of a tensor."""
    shape: tuple[int, ...]
    order: str
    """"C" or "F"."""
    data: Slot | Buffer | None
    """Its bytes in this order; None where it has to be made for them."""

    def content(self, made: Callable[[Any], Any]) -> Content:
        """Its bytes; where it has to be made, those of what ``made`` makes of the object."""
        data = self.data
        if isinstance(data, Slot):
            return Content(self.parts, data)
        if data is not None:
            return Content(None, lambda: data)
        return Content(None, lambda: _memory(made(self.parts.objects([self.node])[0]), self.order))


def stored_arrays(named: Mapping[str, tuple[ArtifactParts, Any]]) -> dict[str, StoredArray | None]:
    """What each of the nodes is that is an array or a tensor; None of others. Types are made together, once each."""
    arrays = {
        name: (parts, one)
        for name, (parts, node) in named.items()
        if (one := array_of(node)) is not None and _is_shape(one.shape)
    }
    dtypes = _dtypes(arrays.values())
    found: dict[str, StoredArray | None] = {}
    for name, (parts, node) in named.items():
        if name in arrays:
            array = arrays[name][1]
            dtype = dtypes[id(array.dtype)]
            # A pickle may say anything to be one.
            found[name] = _of_array(parts, array, dtype) if hasattr(dtype, "hasobject") else None
        else:
            tensor = tensor_of(node)
            found[name] = None if tensor is None or not _is_shape(tensor.shape) else _of_tensor(parts, tensor)
    return found


def _is_shape(shape: tuple[Any, ...]) -> bool:
    """Whether it is one: a pickle may say anything."""
    return all(type(size) is int and size >= 0 for size in shape)


def _dtypes(arrays: Iterable[tuple[ArtifactParts, ArraySymbols]]) -> dict[int, Any]:
    by_parts: dict[int, tuple[ArtifactParts, dict[int, Any]]] = {}
    for parts, array in arrays:
        by_parts.setdefault(id(parts), (parts, {}))[1][id(array.dtype)] = array.dtype
    made: dict[int, Any] = {}
    for parts, nodes in by_parts.values():
        made |= zip(nodes, parts.objects(list(nodes.values())), strict=True)
    return made


def _of_array(parts: ArtifactParts, array: ArraySymbols, dtype: Any) -> StoredArray:
    nbytes = prod(array.shape) * dtype.itemsize
    data = array.data
    # Of one axis both orders are the same.
    order = "F" if array.order.upper() == "F" and sum(size != 1 for size in array.shape) > 1 else "C"
    whole = data is not None and not dtype.hasobject and len(data) == nbytes
    return StoredArray(parts, array.node, dtype.name, dtype, array.shape, order, data if whole else None)


def _of_tensor(parts: ArtifactParts, tensor: TensorSymbols) -> StoredArray:
    name = getattr(tensor.dtype, "full_name", "").removeprefix("torch.")
    data, nbytes = tensor.data, tensor.nbytes
    if data is None or not nbytes or tensor.meaning != {} or not _is_contiguous(tensor):
        return StoredArray(parts, tensor.node, name, None, tensor.shape, "C", None)
    start = tensor.offset * (tensor.itemsize or 0)
    end = start + nbytes
    part = data.part(start, end) if isinstance(data, Slot) else memoryview(data)[start:end]
    whole = start >= 0 and end <= len(data)
    return StoredArray(parts, tensor.node, name, None, tensor.shape, "C", part if whole else None)


def _is_contiguous(tensor: TensorSymbols) -> bool:
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _memory(array: Any, order: str) -> Any:
    """The bytes of an array in this order, whichever it has in memory."""
    import numpy as np

    found: Any = np.ascontiguousarray(array if order == "C" else array.T).reshape(-1).view(np.uint8)
    return memoryview(found)


# ---- npy and npz ----------------------------------------------------------------------------------------------------


def write_npy(view: View, out: BinaryIO) -> None:
    """An array as ``np.save`` writes it, without pickle."""
    found = view.symbols()
    array = None if found is None else stored_arrays({"": found})[""]
    if array is None:
        raise unfit(view, NPY, f"it is a {view.type}, and no array")
    write(npy(view, NPY, "", array), out)


def write_npz(view: View, out: BinaryIO, named: Mapping[str, tuple[ArtifactParts, Any]] | None) -> None:
    """Arrays by name as ``np.savez`` writes them, one after the other."""
    if not named:
        raise unfit(view, NPZ, f"it is a {view.type}, and no arrays by name")
    for name in named:
        if (why := _no_member(name, named)) is not None:
            raise unfit(view, NPZ, f"{name!r:.80} {why}")
    arrays = stored_arrays(named)
    # All are looked at before the first is written.
    planned = {name: npy(view, NPZ, name, _array(view, NPZ, name, array)) for name, array in arrays.items()}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, contents in planned.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                write(contents, member)  # type: ignore[arg-type]


def _no_member(name: Any, names: Container[Any]) -> str | None:
    """Why an archive cannot have a file of this name, as which another would be read, or which would be unpacked
    elsewhere; None where it can."""
    if not isinstance(name, str):
        return "is no text, as names in an npz are"
    if "\0" in name or not is_text(name) or len(name.encode()) > LONGEST_NAME:
        return "is no name of a file"
    if ".." in name.replace("\\", "/").split("/"):
        return "leads out of the directory into which an archive is unpacked"
    if name.endswith(".npy") and name.removesuffix(".npy") in names:
        return "is what numpy.load takes for the name without .npy"
    return None


def _array(view: View, called: str, name: str, array: StoredArray | None) -> StoredArray:
    if array is None:
        raise unfit(view, called, f"the part {name!r:.80} is no array")
    return array


def npy(view: View, called: str, name: str, array: StoredArray) -> Sequence[Content]:
    """The header and the bytes of an array."""
    import numpy as np

    of_what = f"the array {name!r:.80}" if name else "the array"
    dtype = array.dtype
    if dtype is None:
        code = CODES.get(array.kind)
        if code is None and array.kind != "complex128":  # which safetensors alone lacks
            raise unfit(view, called, f"numpy has no type like that of {of_what}, {array.kind or 'a tensor'}")
        dtype = np.dtype("c16") if code is None else numpy_dtype(code, name)
    if dtype.hasobject or dtype.kind == "T":
        raise unfit(view, called, f"the items of {of_what} are objects, which would be pickled")
    if dtype.isbuiltin > NATIVE:
        raise unfit(view, called, f"a file of numpy cannot say the type of {of_what}, {dtype.name}")
    start = _npy_header(np, dtype, array)
    if start is None:
        raise unfit(view, called, f"the names of the fields of {of_what} are beyond Latin-1")
    contents = [Content(None, lambda: start)]
    if prod(array.shape) * dtype.itemsize:
        contents.append(array.content(_as_numpy))
    return contents


def _npy_header(np: Any, dtype: Any, array: StoredArray) -> bytes | None:
    """Of the oldest version that can say it, as numpy chooses it; None where none of the public ones can."""
    fields = {
        "descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": array.order == "F", "shape": array.shape
    }  # fmt: skip
    for write_header in (np.lib.format.write_array_header_1_0, np.lib.format.write_array_header_2_0):
        header = io.BytesIO()
        with suppress(ValueError):
            write_header(header, fields)
            return header.getvalue()
    return None


def _as_numpy(found: Any) -> Any:
    import numpy as np

    return found if isinstance(found, np.ndarray) else found.detach().cpu().resolve_conj().resolve_neg().numpy()


def named_parts(view: View) -> Iterator[tuple[Any, tuple[ArtifactParts, Any]]]:
    """The parts of a bundle or a dict with their symbols."""
    if view.kind not in ("bundle", "mapping"):
        return
    for name, part in view.items():
        found = part.symbols()
        if found is not None:
            yield name, found
