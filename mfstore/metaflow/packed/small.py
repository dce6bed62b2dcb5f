"""Small artifacts in bundles of a directory, read and written without the store, which takes a process longer to import
than all that a task of a tiny flow does. Each task reads one: what Metaflow says of the flow's graph, which the run's
parameters have.

What is read here is whole: its bytes have the digest that the bundle's key is, or that is there a chunk's. Whatever
else there is to say (no such bundle, damage, another version, what is longer) the store says, which looks again.

What is written here are the bytes that the store writes, but for the time that the description says. Written is only
what is not there, into a store that is, that was never collected, neither before nor afterwards, and that asks for
nothing of its writers. All else is the store's.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from blake3 import blake3

from mfstore import __version__
from mfstore.metaflow.packed.plain import ARTIFACT, CHUNK, LITERAL, PICKLE
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER
from mfstore.provenance import PYTHON, task, user
from mfstore.settings import expire_days, records

MOST_BYTES = 64 << 10
"""Of a recipe, and of a chunk as it is stored, that is read here."""
MOST_CHUNK = 8 << 10
"""Bytes of a chunk that is read here: of the graph of a flow of fifteen steps or more, which each of its tasks reads.
A task that reads and hands on one of 1.6 KB takes 90 million instructions less so, as it imports no store."""
MOST_CONTENT = 3 << 10
"""Bytes of the content of a bundle that is written here: the store compresses tables of 4 KiB."""
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_STATE = "gc/state"
"""Of a store that was collected."""

# As mfstore.format.recipes has them, which takes longer to import than all of this module to run.
_HEADER = struct.Struct("<4sBBBBIIIIQQQQQ")
_CONTENT = struct.Struct("<4sBBHI")
_PLACEMENT = struct.Struct("<IBBHQII")
_PACK_BYTES = 32
_SEAL = slice(56, 64)
_BUNDLE, _BLAKE3 = 2, 1


def load_small(root: str, bundle: str) -> dict[str, bytes]:
    """The pickles of the artifacts of a bundle, by their names, where each of them lies in its recipe as it is, or is a
    short chunk in a pack; none where that cannot be told here. ``root`` is a datastore root."""
    folder = f"{root}/{STORE_FOLDER}"
    if len(bundle) != 64 or "/" in bundle or not _allows(folder, "read"):
        return {}
    data = _read(f"{folder}/recipes/{bundle[:2]}/{bundle}")
    content = _content(data, bundle) if data is not None else b""
    if data is None or not content:
        return {}
    found, chunks = _artifacts(content)
    if not chunks:
        return found
    try:
        pickles = _in_packs(folder, data, [*chunks.values()])
    except (OSError, struct.error):
        return {}
    return {**found, **dict(zip(chunks, pickles, strict=True))} if pickles else {}


def _content(data: bytes, bundle: str) -> bytes:
    """That of a whole recipe; empty where it is anything else."""
    if len(data) < _HEADER.size:
        return b""
    magic, version, flags, algorithm, _, length, *_ = _HEADER.unpack_from(data)
    content = data[_HEADER.size : _HEADER.size + length]
    whole = (magic, version, flags, algorithm) == (b"MFSR", 1, 0, _BLAKE3) and blake3(content).hexdigest() == bundle
    return content if whole else b""


def save_small(root: str, pickles: Mapping[str, bytes], types: Mapping[str, str]) -> str | None:
    """Store a bundle of pickles of at most ``plain.LITERAL_BYTES``, by the names of their artifacts, as ``types`` are.
    The bundle; None where it is not for this module to store. Nothing is synced."""
    folder = f"{root}/{STORE_FOLDER}"
    names = {name.encode("utf-8", "surrogatepass"): name for name in pickles}
    parts = [_CONTENT.pack(b"MFSC", _BUNDLE, _BLAKE3, 0, len(pickles))]
    for name in sorted(names):
        pickled = pickles[names[name]]
        parts += (ARTIFACT.pack(len(name), PICKLE, LITERAL, 0, 0, len(pickled)), name, pickled)
    content = b"".join(parts)
    if len(content) > MOST_CONTENT or expire_days() or not _may_write(folder):
        return None
    bundle = blake3(content).hexdigest()
    recipe = _sealed(content, [types[names[name]] for name in sorted(names)])
    path = f"{folder}/recipes/{bundle[:2]}/{bundle}"
    try:
        if _exists(path):
            if not _is_whole(_read(path) or b"", content):
                return None
        else:
            _write(folder, bundle, recipe)
    except OSError:
        return None
    # Had a collection begun before this could be seen, it would be known here.
    return bundle if _may_write(folder) else None


def _may_write(folder: str) -> bool:
    try:
        return _allows(folder, "write") and not _exists(f"{folder}/{_STATE}")
    except OSError:
        return False


def _exists(path: str) -> bool:
    """OSError where that cannot be told."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _sealed(content: bytes, types: list[str]) -> bytes:
    """The whole recipe."""
    about = json.dumps({"types": types, **_made()}, separators=(",", ":")).encode()
    tables = content + about
    fields = (
        b"MFSR", 1, 0, _BLAKE3, 0, len(content), len(about), 0, 0, 0, len(tables), len(tables),
        int.from_bytes(os.urandom(8)),
    )  # fmt: skip
    unsealed = _HEADER.pack(*fields, 0) + tables
    return unsealed[: _SEAL.start] + _seal_of(unsealed) + tables


def _seal_of(recipe: bytes) -> bytes:
    from mfstore._core.memory import xxh3

    tables = xxh3(recipe[_SEAL.stop :])
    return xxh3(recipe[: _SEAL.start] + tables.to_bytes(8, "little")).to_bytes(8, "little")


def _is_whole(recipe: bytes, content: bytes) -> bool:
    """Whether this is a recipe of that content as it is written here, whatever its description says."""
    if len(recipe) < _HEADER.size or recipe[_HEADER.size :][: len(content)] != content:
        return False
    described = len(recipe) - _HEADER.size - len(content)
    lengths = (len(content), described, 0, 0, 0, len(content) + described, len(content) + described)
    return _HEADER.unpack_from(recipe)[:12] == (b"MFSR", 1, 0, _BLAKE3, 0, *lengths) and (
        _seal_of(recipe) == recipe[_SEAL]
    )


def _made() -> dict[str, Any]:
    """What a description says of how something was made, of what needs no class of a library."""
    if not records():
        return {}
    fields = {"by": task() or user(), "python": PYTHON, "mfstore": __version__, "libraries": {}}
    return {"made": {**fields, "time": round(time.time(), 3)}}


def _write(folder: str, bundle: str, data: bytes) -> None:
    """A file that is whole when it can be seen; no link leads elsewhere. OSError."""
    opened = [os.open(folder, _FOLDER)]
    try:
        for name in ("recipes", bundle[:2]):
            try:
                opened.append(os.open(name, _FOLDER, dir_fd=opened[-1]))
            except FileNotFoundError:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=opened[-1])
                opened.append(os.open(name, _FOLDER, dir_fd=opened[-1]))
        within = opened[-1]
        temporary = f".tmp-{os.getpid()}-{os.urandom(8).hex()}"
        try:
            # Made in here, so that an interrupt in between leaves no file behind.
            opened.append(os.open(temporary, _NEW_FILE, 0o666, dir_fd=within))
            if os.write(opened[-1], data) != len(data):
                raise OSError("the disk is full")
            os.rename(temporary, bundle, src_dir_fd=within, dst_dir_fd=within)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=within)
            raise
    finally:
        for fd in opened:
            os.close(fd)


def _artifacts(content: bytes) -> tuple[dict[str, bytes], dict[str, tuple[bytes, int]]]:
    """Pickles that lie in it, and of others the digest and length of their one chunk; none of both where there is
    anything else. By its digest it is what was stored, so that its lengths need no look."""
    magic, kind, _, _, count = _CONTENT.unpack_from(content)
    if (magic, kind) != (b"MFSC", _BUNDLE):
        return {}, {}
    found = {}
    chunks = {}
    at = _CONTENT.size
    for _ in range(count):
        name, encoding, flags, n_segments, n_chunks, length = ARTIFACT.unpack_from(content, at)
        at += ARTIFACT.size + name
        text = content[at - name : at].decode("utf-8", "surrogatepass")
        if (encoding, flags) == (PICKLE, LITERAL):
            found[text] = content[at : at + length]
            at += length
        elif (encoding, flags, n_segments, n_chunks) == (PICKLE, 0, 0, 1) and length <= MOST_CHUNK:
            chunks[text] = CHUNK.unpack_from(content, at)
            at += CHUNK.size
        else:
            return {}, {}
    return found, chunks


def _in_packs(folder: str, recipe: bytes, chunks: list[tuple[bytes, int]]) -> list[bytes]:
    """Chunks of a recipe, by digest and length; none where one is not as it should be. OSError, struct.error.

    Where they lie is believed: only the right bytes have the right digest."""
    from mfstore import errors
    from mfstore._core.codec import NONE, ZSTD, Codec

    content, about, n_packs = _HEADER.unpack_from(recipe)[5:8]
    packs = _HEADER.size + content + about
    found = []
    for number, (digest, length) in enumerate(chunks):
        place = packs + n_packs * _PACK_BYTES + number * _PLACEMENT.size
        pack, codec, width, _, offset, size, _ = _PLACEMENT.unpack_from(recipe, place)
        if codec not in (NONE, ZSTD) or size > MOST_BYTES or offset >> 63:
            return []
        name = recipe[packs + pack * _PACK_BYTES :][:_PACK_BYTES].hex()
        chunk = bytearray(length)
        try:
            encoded = _read_part(f"{folder}/packs/{name[:2]}/{name}", offset, size)
            Codec(errors).decode(encoded, chunk, [(0, size, codec, width, 0, length)])
        except errors.MfstoreError:
            return []
        if blake3(chunk).digest() != digest:
            return []
        found.append(bytes(chunk))
    return found


def _allows(folder: str, operation: str) -> bool:
    """Whether a program that knows no features may do this in the store."""
    found = _description(folder)
    return found is not None and found.get(operation) == []


@cache
def _description(folder: str) -> dict[str, Any] | None:
    """The features that the store asks for; None where there is no store of this format and digest."""
    try:
        found: Any = json.loads(_read(f"{folder}/mfstore.json") or b"")
        if (found["format"], found["version"], found["hash"]) == ("mfstore", 1, "blake3"):
            return dict(found["features"])
    except (ValueError, KeyError, TypeError):
        pass
    return None


def _read_part(path: str, offset: int, size: int) -> bytes:
    """So many bytes of a file, or fewer. OSError."""
    fd = os.open(path, _FILE)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


def _read(path: str) -> bytes | None:
    """A small file; None for any other."""
    try:
        fd = os.open(path, _FILE)
    except OSError:
        return None
    try:
        data = os.read(fd, MOST_BYTES + 1)
        return data if len(data) <= MOST_BYTES else None
    except OSError:
        return None
    finally:
        os.close(fd)
