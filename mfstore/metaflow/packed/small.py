"""Small artifacts in bundles of a directory, read without the store, which takes a process longer to import than all
that a task of a tiny flow does. Each task reads one: what Metaflow says of the flow's graph.

What is read here is whole: its bytes have the digest that the bundle's key is. Whatever else there is to say (no such
bundle, damage, another version, artifacts with chunks) the store says, which looks again.
"""

from __future__ import annotations

import json
import os
import struct
from functools import cache
from typing import Any

from blake3 import blake3

from mfstore.metaflow.roots.packed_keys import STORE_FOLDER

MOST_BYTES = 64 << 10
"""Of a recipe that is read here."""
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

# As mfstore.format.recipes has them, which takes longer to import than all of this module to run.
_HEADER = struct.Struct("<4sBBBBIIIIQQQQQ")
_CONTENT = struct.Struct("<4sBBHI")
_ARTIFACT = struct.Struct("<HBBIIQ")
_BUNDLE, _BLAKE3, _PICKLE, _LITERAL = 2, 1, 1, 1


def load_small(root: str, bundle: str) -> dict[str, bytes]:
    """The pickles of the artifacts of a bundle, by their names, where all of them lie in its recipe as they are; none
    where that cannot be told here. ``root`` is a datastore root."""
    folder = f"{root}/{STORE_FOLDER}"
    if len(bundle) != 64 or "/" in bundle or not _may_read(folder):
        return {}
    data = _read(f"{folder}/recipes/{bundle[:2]}/{bundle}")
    if data is None or len(data) < _HEADER.size:
        return {}
    magic, version, flags, algorithm, _, length, *_ = _HEADER.unpack_from(data)
    content = data[_HEADER.size : _HEADER.size + length]
    if (magic, version, flags, algorithm) != (b"MFSR", 1, 0, _BLAKE3) or blake3(content).hexdigest() != bundle:
        return {}
    magic, kind, _, _, count = _CONTENT.unpack_from(content)
    if (magic, kind) != (b"MFSC", _BUNDLE):
        return {}
    return _literals(content, count)


def _literals(content: bytes, count: int) -> dict[str, bytes]:
    """By its digest it is what was stored, so that its lengths need no look."""
    found = {}
    at = _CONTENT.size
    for _ in range(count):
        name, encoding, flags, _, _, length = _ARTIFACT.unpack_from(content, at)
        at += _ARTIFACT.size + name
        if (encoding, flags) != (_PICKLE, _LITERAL):
            return {}
        found[content[at - name : at].decode("utf-8", "surrogatepass")] = content[at : at + length]
        at += length
    return found


@cache
def _may_read(folder: str) -> bool:
    """Whether a program that knows no features may read the store."""
    try:
        found: Any = json.loads(_read(f"{folder}/mfstore.json") or b"")
        return (found["format"], found["version"], found["features"]["read"]) == ("mfstore", 1, [])
    except (ValueError, KeyError, TypeError):
        return False


def _read(path: str) -> bytes | None:
    """A small file; None for any other."""
    try:
        fd = os.open(path, _READ_FILE)
    except OSError:
        return None
    try:
        data = os.read(fd, MOST_BYTES + 1)
        return data if len(data) <= MOST_BYTES else None
    except OSError:
        return None
    finally:
        os.close(fd)
