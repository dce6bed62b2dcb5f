"""Ways of storing versions one after the other: what each adds to what is stored already."""

import inspect
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import NamedTuple, Protocol

import numpy as np
import zstandard
from blake3 import blake3
from fastcdc.fastcdc_cy import fastcdc_cy

import mfstore
from benchmarks.core.series import Version
from mfstore.format.packs import FOOTER, decode_footer
from mfstore.store import Store

LEVEL = 3
"""Of zstd, for every peer."""
PICKLE = 5


class Added(NamedTuple):
    """What one version adds, in bytes."""

    data: int
    index: int
    """What finds and describes data: index fragments and the trailers of packs. Not counted of the other peers."""


class Peer(Protocol):
    """One way of storing the versions of one series."""

    name: str
    cpu: float
    """Seconds of this process in it. The pickle that others are given is made before; mfstore makes its own."""

    def add(self, version: Version, stream: bytes) -> Added:
        """Store one more version; ``stream`` is its ordinary pickle."""

    def close(self) -> None:
        """Check what can be checked, and remove what was written."""


class Timed:
    """What peers that keep nothing on disk share."""

    name = ""

    def __init__(self) -> None:
        self.cpu = 0.0
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)

    def add(self, version: Version, stream: bytes) -> Added:
        begin = process_time()
        data = self.stored(version, stream)
        self.cpu += process_time() - begin
        return Added(data, 0)

    def stored(self, version: Version, stream: bytes) -> int:
        raise NotImplementedError

    def squeezed(self, data: bytes | memoryview) -> int:
        """Bytes after zstd, or without it when it gains nothing."""
        return min(len(self.compressor.compress(data)), len(data))

    def close(self) -> None:
        pass


class Whole(Timed):
    """Each version's pickle, compressed."""

    name = "whole"

    def stored(self, version: Version, stream: bytes) -> int:
        return self.squeezed(stream)


class Chunked(Timed):
    """FastCDC on the pickle; each new chunk compressed."""

    def __init__(self, name: str, least: int, average: int, most: int) -> None:
        super().__init__()
        self.name, self.sizes = name, (least, average, most)
        self.known: set[bytes] = set()

    def stored(self, version: Version, stream: bytes) -> int:
        added, view = 0, memoryview(stream)
        for chunk in fastcdc_cy(stream, *self.sizes, fat=False):
            data = view[chunk.offset : chunk.offset + chunk.length]
            digest = blake3(data).digest()
            if digest not in self.known:
                self.known.add(digest)
                added += self.squeezed(data)
        return added


class Changed(Timed):
    """What truly changed, compressed: what no way of storing can do much better than."""

    name = "changed"

    def stored(self, version: Version, stream: bytes) -> int:
        return self.squeezed(stream if version.changed is None else version.changed)


class Shuffled(Timed):
    """Each version's arrays, their bytes shuffled, compressed: what stores of numbers do."""

    name = "shuffled"

    def __init__(self, itemsize: int) -> None:
        super().__init__()
        self.itemsize = itemsize

    def stored(self, version: Version, stream: bytes) -> int:
        return sum(
            self.squeezed(np.ascontiguousarray(array).view(np.uint8).reshape(-1, self.itemsize).T.tobytes())
            for array in arrays_of(version.value)
        )


def arrays_of(value: object) -> Iterator[np.ndarray]:
    """The arrays in nested dicts."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from arrays_of(part)


TAKES_BASE = "base" in inspect.signature(Store.put).parameters
"""Whether this mfstore can be told which earlier artifact a new one resembles."""


class Mfstore:
    """A store of its own in a directory, opened anew for each version, as the tasks of successive runs do."""

    def __init__(self, name: str, based: bool, options: dict[str, object]) -> None:
        self.name, self.based, self.options = name, based, options
        self.cpu = 0.0
        self.root = Path(tempfile.mkdtemp(prefix="mfstore-bench-"))
        self.before = Added(0, 0)
        self.key: mfstore.Key | None = None

    def add(self, version: Version, stream: bytes) -> Added:
        begin = process_time()
        store = mfstore.open(self.root, fsync="none", **self.options)
        base = {"base": self.key} if self.based and self.key is not None else {}
        self.key = store.put(version.value, **base)
        self.cpu += process_time() - begin
        now = held(self.root)
        added = Added(now.data - self.before.data, now.index - self.before.index)
        self.before = now
        return added

    def close(self) -> None:
        try:
            report = mfstore.open(self.root).verify("full")
            if report.findings:
                raise AssertionError(f"what {self.name} stored is not whole: {report.findings}")
        finally:
            shutil.rmtree(self.root)


def held(root: Path) -> Added:
    """What lies in a store: recipes and packs without their trailers, and what finds and describes them."""
    data = index = 0
    for kind in ("recipes", "packs", "index"):
        for path in (root / kind).rglob("*"):
            if path.is_file():
                size = path.stat().st_size
                described = trailer(path, size) if kind == "packs" else size if kind == "index" else 0
                data, index = data + size - described, index + described
    return Added(data, index)


def trailer(path: Path, size: int) -> int:
    """Bytes at a pack's end that say what is in it."""
    with open(path, "rb") as file:
        file.seek(-FOOTER.size, os.SEEK_END)
        at, _ = decode_footer(file.read(), size)
    return size - at


KIB = 1 << 10


def peers(itemsize: int, options: dict[str, object]) -> list[Peer]:
    """All that one series is stored by. ``options`` are mfstore's."""
    chosen: list[Peer] = [
        Mfstore("mfstore", False, options),
        Chunked("fastcdc", 16 * KIB, 64 * KIB, 256 * KIB),
        Chunked("restic", 512 * KIB, 1024 * KIB, 8192 * KIB),
        Whole(),
        Changed(),
    ]
    if TAKES_BASE:
        chosen.insert(1, Mfstore("mfstore based", True, options))
    return [*chosen, Shuffled(itemsize)] if itemsize else chosen


def pickled(value: object) -> bytes:
    """The ordinary pickle."""
    return pickle.dumps(value, PICKLE)
