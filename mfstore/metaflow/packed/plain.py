"""Small plain values of the packed profile: most of what a task saves, and all that many tasks do (numbers, names,
flags, short lists of them, and what Metaflow itself says of the flow's graph).

Python's own pickler makes of them what mfstore's does, but for frames. So a task that saves and loads only those that
lie in their keys, or that it has of its input already, needs nothing of the store, which takes longer to import than
Metaflow's own datastore takes for the whole task.
"""

from __future__ import annotations

import pickle
import struct
from typing import TYPE_CHECKING, Any

from mfstore.metaflow.roots.packed_keys import INLINE_PICKLE_BYTES, encoding_in, inline_key, inline_pickle

if TYPE_CHECKING:
    from mfstore.allow import Allow

_ATOMS = (type(None), bool)
_MOST_BYTES = 8 << 10
"""Of a pickle that is made here. The graph of a flow of ten steps takes 2 KB, 150 microseconds of CPU, and to import
the store 30 ms. No pickle of these is cut: the shortest chunk of a longer one has 16 KiB."""
_MOST_PARTS = 1000
"""Texts, numbers and containers in one value; also ends the look at what is long. Of a longer list Python's pickler
writes so many at a time, mfstore's all."""
_MOST_DEPTH = 40
_HEADER = b"\x80\x05"
_FRAME = b"\x95"
_FRAME_BYTES = 9

# As mfstore.format.recipes has them, which takes longer to import than all of this module to run.
LITERAL_BYTES = 1 << 10
"""Of the longest pickle that lies in a recipe as it is."""
_ONE_ARTIFACT = struct.pack("<4sBBHI", b"MFSC", 1, 1, 0, 1)
ARTIFACT = struct.Struct("<HBBIIQ")
CHUNK = struct.Struct("<32sI")
PICKLE, LITERAL = 1, 1


class _NotPlain(Exception):
    """Not a small plain value."""


def plain_pickle(obj: object) -> bytes | None:
    """The pickle of a small plain value, as mfstore's pickler makes it; None for any other."""
    try:
        obj = _Copy().of(obj, 0)
    except _NotPlain:
        return None
    pickled = pickle.dumps(obj, 5)
    if pickled.startswith(_FRAME, len(_HEADER)):
        pickled = _HEADER + pickled[len(_HEADER) + _FRAME_BYTES :]
    return pickled if len(pickled) <= _MOST_BYTES else None


class _Copy:
    """Copies one plain value, so that equal texts in it are the same: mfstore's pickler has equal ones once, Python's
    the same one."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._containers: set[int] = set()
        self._left = _MOST_PARTS

    def of(self, obj: Any, depth: int) -> Any:
        """The copy. _NotPlain for what mfstore's pickler may write in another way, or what is long."""
        self._left -= 1
        kind = type(obj)
        if kind is str:
            if len(obj) > _MOST_BYTES:
                raise _NotPlain
            return self._texts.setdefault(obj, obj)
        if kind is int:
            if not -(1 << 63) <= obj < 1 << 63:
                raise _NotPlain
            return obj
        if kind in _ATOMS or kind is float:
            return obj
        if kind not in (list, dict, tuple) or len(obj) > self._left or depth > _MOST_DEPTH:
            raise _NotPlain
        if id(obj) in self._containers:
            raise _NotPlain
        self._containers.add(id(obj))
        if kind is dict:
            return {self.of(key, depth): self.of(value, depth + 1) for key, value in obj.items()}
        # mfstore's pickler remembers no tuples of atoms, Python's remembers them.
        if kind is tuple and not any(type(part) in (list, dict) for part in obj):
            raise _NotPlain
        return kind([self.of(part, depth + 1) for part in obj])


def plain_key(obj: object) -> str | None:
    """The key of a small plain value that lies in it, as ``bundles.key_of``; None for any other."""
    pickled = plain_pickle(obj)
    return inline_key(pickled) if pickled is not None and len(pickled) <= INLINE_PICKLE_BYTES else None


def content_key(pickled: bytes) -> str:
    """The key of a ``plain_pickle`` that is longer than those that are their own keys, as ``bundles.key_of``."""
    from blake3 import blake3

    if len(pickled) <= LITERAL_BYTES:
        content = ARTIFACT.pack(0, PICKLE, LITERAL, 0, 0, len(pickled)) + pickled
    else:
        chunk = CHUNK.pack(blake3(pickled).digest(), len(pickled))
        content = ARTIFACT.pack(0, PICKLE, 0, 0, 1, len(pickled)) + chunk
    return blake3(_ONE_ARTIFACT + content).hexdigest()


def plain_info(obj: object, size: int, bundle: str | None) -> dict[str, Any]:
    """What ``data.json`` says of a value whose pickle has so many bytes and lies in a bundle, or in its key."""
    source = {"source": "mfstore"}
    return {"size": size, "type": str(type(obj)), "encoding": encoding_in(bundle), "serializer_info": source}


def load_inline(key: str, safe: Allow | None = None) -> Any:
    """The value whose pickle lies in its key, with ``safe`` if it is data or on this list. CorruptObject when that is
    none, ValueError when none lies there, UnsafeObject."""
    pickled = inline_pickle(key)
    if safe is not None:
        from mfstore.pickling.safe.loading import load

        return load(safe, [pickled], (), ())
    try:
        return pickle.loads(pickled)
    except (pickle.UnpicklingError, EOFError):
        from mfstore.pickling.streams import load_literal

        return load_literal(pickled)
