"""Memory that others own, as bytes."""

from __future__ import annotations

import re
from typing import Any

from mfstore.errors import NotSerializable

_NAMES = re.compile(r":[^:]*:")
_ADDRESSES = re.compile(r"[OPXz&]|Z(?![fdg])")
"""In a buffer's format (PEP 3118), without the names of fields: objects and pointers; Zd is a complex number."""


def bytes_of(data: Any) -> memoryview:
    """The memory of ``data``, in place, byte by byte. NotSerializable (a TypeError) for what is not memory in one
    piece, and for memory that holds addresses: of the objects in an array, say, which are worth nothing elsewhere."""
    kind = type(data).__name__
    try:
        view = memoryview(data)
    except (TypeError, ValueError, BufferError) as error:
        # numpy's datetime64 has no format.
        hint = "Give array.view('i8'), or pickle it" if hasattr(data, "dtype") else "Give bytes"
        raise NotSerializable(f"cannot store a {kind} as bytes: {error}", hint=hint) from None
    if _ADDRESSES.search(_NAMES.sub("", view.format)):
        raise NotSerializable(
            f"the memory of this {kind} holds addresses of objects in this process, not the objects",
            found=f"format {view.format!r:.80}", hint="Pickle it: store.put(), or pickle.dumps()",
        )  # fmt: skip
    if not view.nbytes:
        return memoryview(b"")
    if not view.c_contiguous:
        raise NotSerializable(
            f"the memory of this {kind} is not in one piece, in C order", found=f"strides {view.strides}",
            hint="Give numpy.ascontiguousarray(…), or pickle it: store.put() keeps shape and order",
        )  # fmt: skip
    return view.cast("B")
