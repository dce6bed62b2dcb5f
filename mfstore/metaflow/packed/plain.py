"""Small plain values of the packed profile: most of what a task saves, and all that many tasks do (numbers, names,
flags, short lists of them).

They lie in their keys, and Python's own pickler makes of them what mfstore's does, but for frames. So a task that saves
and loads no others needs nothing of the store, which takes longer to import than Metaflow's own datastore takes for the
whole task.
"""

from __future__ import annotations

import pickle
from typing import Any

from mfstore.metaflow.roots.packed_keys import INLINE_PICKLE_BYTES, encoding_in, inline_key, inline_pickle

_ATOMS = (type(None), bool, float)
_MOST_PARTS = 40
"""Texts and containers in one value; also ends the look at what is nested deep."""
_HEADER = b"\x80\x05"
_FRAME = b"\x95"
_FRAME_BYTES = 9


def plain_key(obj: object) -> str | None:
    """The key of a small plain value, as ``bundles.key_of``; None for any other."""
    if not _is_plain(obj, set()):
        return None
    pickled = pickle.dumps(obj, 5)
    if pickled.startswith(_FRAME, len(_HEADER)):
        pickled = _HEADER + pickled[len(_HEADER) + _FRAME_BYTES :]
    return inline_key(pickled) if len(pickled) <= INLINE_PICKLE_BYTES else None


def _is_plain(obj: Any, seen: set[str | int]) -> bool:
    """``seen`` are the texts, and the identities of the containers, that were met before this."""
    kind = type(obj)
    if kind is int:
        return bool(-(1 << 63) <= obj < 1 << 63)
    if kind in _ATOMS:
        return True
    if kind is str:
        if len(obj) > INLINE_PICKLE_BYTES or obj in seen:
            return False  # mfstore's pickler has equal texts once, Python's has the same text once
        seen.add(obj)
        return True
    if kind not in (list, dict, tuple) or max(len(obj), len(seen)) > _MOST_PARTS or id(obj) in seen:
        return False
    seen.add(id(obj))
    if kind is dict:
        return all(_is_plain(part, seen) for pair in obj.items() for part in pair)
    # mfstore's pickler remembers no tuples of atoms, Python's remembers them.
    if kind is tuple and not any(type(part) in (list, dict) for part in obj):
        return False
    return all(_is_plain(part, seen) for part in obj)


def plain_info(key: str, obj: object) -> dict[str, Any]:
    """What ``data.json`` says of a value with this ``plain_key``."""
    source = {"source": "mfstore"}
    size = len(inline_pickle(key))
    return {"size": size, "type": str(type(obj)), "encoding": encoding_in(None), "serializer_info": source}


def load_inline(key: str) -> Any:
    """The value whose pickle lies in its key. CorruptObject when that is none, ValueError when none lies there."""
    pickled = inline_pickle(key)
    try:
        return pickle.loads(pickled)
    except (pickle.UnpicklingError, EOFError):
        from mfstore.pickling.streams import load_literal

        return load_literal(pickled)
