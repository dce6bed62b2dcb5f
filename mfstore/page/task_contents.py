"""What ``data.json`` says of what a task stored, in both profiles, as a page tells it. Without I/O."""

from __future__ import annotations

import json
import re
from typing import Any

from mfstore.errors import CorruptObject
from mfstore.page.facts import Content, Part

_CLASS = re.compile(r"<class '(.*)'>")


def task_content(data: bytes) -> Content:
    """The artifacts of a task, without those that Metaflow keeps for itself; their keys say which are equal.
    CorruptObject where it is not what Metaflow writes."""
    try:
        document: Any = json.loads(data)
        objects, infos = document["objects"], document.get("info") or {}
        parts = tuple(
            _part(name, key, infos.get(name) or {}) for name, key in sorted(objects.items()) if name[0] != "_"
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise CorruptObject("data.json is not what Metaflow writes") from None
    sizes = [part.size for part in parts]
    return Content("task", sum(size or 0 for size in sizes) if None not in sizes else None, parts=parts)


def _part(name: str, key: Any, info: dict[str, Any]) -> Part:
    if not isinstance(key, str):
        raise TypeError
    size = info.get("size")
    return Part(name, type_of(str(info.get("type", ""))), size if type(size) is int and size >= 0 else None, key)


def type_of(told: str) -> str:
    """``<class 'numpy.ndarray'>`` is ``numpy.ndarray``."""
    found = _CLASS.fullmatch(told)
    return found[1] if found else told
