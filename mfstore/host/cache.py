"""The cache of this host, for all processes of one user: a directory that settings name, or one for temporary files.

Here is what holds small objects there, of which every task of a flow reads the same few. What is large is kept in
ranges (``ranges.py``), where a directory is named.

Entries carry a digest of themselves and are dropped when it does not fit. Whoever reads one knows by its name what it
must be: blobs are named by their content, other objects by their ETag. That something is cached does not tell that it
is still stored.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from mfstore.errors import InvalidKey
from mfstore.host.file_systems import make_private
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.host.ranges import RangeCache

LARGEST = 16 << 10
"""Bytes of the largest entry. Metaflow's own artifacts take 4 to 300, a task's data.json 3000."""
SHARD = 64
"""Entries of each of 256 directories; the older half goes when there are more: 16 000 entries, at most 256 MB."""
INDEX_LARGEST, INDEX_SHARD = 1 << 20, 2
"""The same of parts of an index: its root takes 430 kB, so 220 MB."""
METAFLOW, INDEX, CONTENTS = "metaflow", "index", "contents"
"""Where small objects, and contents of artifacts, lie below the directory of the cache."""
_SMALL = re.compile(r"[0-9a-f]{2}/([0-9a-f]{62}|\.[0-9a-f]{62}\.lock|\.[0-9]+-[0-9a-f]{12})")
"""Names of small objects, of their locks and of files that become one. Nothing else is ever removed."""
PATIENCE = 5.0
"""Seconds that a process waits for another one that reads the same. A slow request takes one."""


class HostCache:
    """Entries in ``directory``; None caches nothing. A cache that cannot be used is no error."""

    def __init__(self, directory: str | None, largest: int = LARGEST, shard: int = SHARD) -> None:
        self.root = None if directory is None else Path(directory)
        """Where its entries lie."""
        self.hits = self.misses = 0
        """How often what was asked for was there, and how often it was not. Threads that ask at once may be missed."""
        self._largest = largest
        self._shard = shard

    def get(self, name: str) -> bytes | None:
        """What was put under ``name``, if it is still there and whole."""
        if self.root is None:
            return None
        try:
            entry = self._path(name).read_bytes()
        except OSError:
            self.misses += 1
            return None
        data = entry[32:]
        if entry[:32] != _digest(name, data):
            self.misses += 1
            return None
        self.hits += 1
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep ``data`` for a while, if it is small enough."""
        if self.root is None or len(data) > self._largest:
            return
        path = self._path(name)
        temporary = path.with_name(f".{os.getpid()}-{os.urandom(6).hex()}")
        with suppress(OSError):
            make_private(str(path.parent))
            self._make_room(path.parent)
            try:
                temporary.write_bytes(_digest(name, data) + data)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def get_or_read(self, name: str, read: Callable[[], bytes]) -> bytes:
        """What is remembered under ``name``, or what ``read`` gives, which is then remembered. Of processes that begin
        together one reads, and the others wait for it for a few seconds. What is too large to be remembered they read
        each for themselves, and do not wait."""
        if self.root is None:
            return read()
        found = self.get(name)
        if found is not None:
            return found
        too_large = f"{name} is too large"
        if self.get(too_large) is None:
            with self._alone(name):
                found = self.get(name)
                if found is None and self.get(too_large) is None:
                    found = read()
                    if len(found) > self._largest:
                        self.put(too_large, b"")
                    self.put(name, found)
        return read() if found is None else found

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """No other process is in here with the same name, unless it takes too long, or files cannot be locked."""
        path = self._path(name)
        path = path.with_name(f".{path.name}.lock")
        try:
            make_private(str(path.parent))
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield
            return
        try:
            end = monotonic() + PATIENCE
            while monotonic() < end:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    sleep(0.01)
                except OSError:
                    break
            yield
        finally:
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()

    def _path(self, name: str) -> Path:
        assert self.root is not None
        digest = sha256(name.encode()).hexdigest()
        return self.root / digest[:2] / digest[2:]

    def _make_room(self, directory: Path) -> None:
        entries = list(os.scandir(directory))
        if len(entries) < self._shard:
            return
        ages = []
        for entry in entries:
            with suppress(OSError):
                ages.append((entry.stat().st_mtime, entry.path))
        for _, path in sorted(ages)[: len(ages) // 2]:
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108


def _digest(name: str, data: bytes) -> bytes:
    return sha256(name.encode() + b"\0" + data).digest()


def host_cache(setting: str | None) -> HostCache:
    """The cache in the directory of ``setting``, by default one in the temporary directory that nobody else may read;
    the empty text is no cache. InvalidKey for a directory that others may write to."""
    path = _directory(setting)
    return HostCache(None if path is None else str(path / METAFLOW))


def index_cache(setting: str | None) -> HostCache:
    """As ``host_cache``, of parts of the indexes of stores."""
    path = _directory(setting)
    return HostCache(None if path is None else str(path / INDEX), INDEX_LARGEST, INDEX_SHARD)


class Cache(NamedTuple):
    """All that this host keeps for its user."""

    root: Path
    ranges: RangeCache
    """Contents of artifacts."""

    def small_objects(self) -> tuple[int, int]:
        """How many small objects there are, and their bytes."""
        sizes = [info.st_size for _, info in self._small()]
        return len(sizes), sum(sizes)

    def clear(self) -> None:
        """Remove all of it."""
        self.ranges.clear()
        for path, _ in self._small():
            with suppress(OSError):
                path.unlink()

    def _small(self) -> Iterator[tuple[Path, os.stat_result]]:
        for part in (METAFLOW, INDEX):
            for path in (self.root / part).glob("*/*"):
                if not _SMALL.fullmatch("/".join(path.parts[-2:])):
                    continue
                with suppress(OSError):
                    info = path.lstat()
                    if stat.S_ISREG(info.st_mode):
                        yield path, info


def open_cache(setting: str | None, limit: int) -> Cache | None:
    """The cache in the directory of ``setting``, of which contents take up to ``limit`` bytes; None: there is none, or
    it cannot be used. InvalidKey as of ``host_cache``."""
    from mfstore.host.ranges import RangeCache

    path = _directory(setting)
    return None if path is None else Cache(path, RangeCache(path / CONTENTS, limit))


def _directory(setting: str | None) -> Path | None:
    if setting == "":
        return None
    try:
        path = Path(setting).expanduser() if setting else Path(tempfile.gettempdir()) / f"mfstore-{os.getuid()}"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except (OSError, RuntimeError):  # the second: nobody knows where the home is
        return None
    # Entries name pickles: nobody else may have made the directory, or may write to it.
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or not stat.S_ISDIR(status.st_mode):
        if setting:
            found, hint = f"{setting} with mode {stat.filemode(status.st_mode)}", f"chmod 700 {setting}"
            if not stat.S_ISDIR(status.st_mode):
                found, hint = f"{setting}, a link", f"Name where it leads: {path.resolve()}"
            elif status.st_uid != os.getuid():
                found, hint = f"{setting}, of user {status.st_uid}", f"Name a directory of user {os.getuid()}"
            raise InvalidKey(
                "cache or MFSTORE_CACHE must be a directory of this user's that nobody else may use",
                found=found, hint=hint,
            )  # fmt: skip
        return None
    if setting and os.path.exists(path / "mfstore.json"):  # noqa: PTH110
        raise InvalidKey(
            "cache or MFSTORE_CACHE is a directory of its own, from which files are removed",
            found=f"{setting}, where a store is", hint=f"mkdir -m 700 {setting}-cache, or any other place",
        )  # fmt: skip
    return path
