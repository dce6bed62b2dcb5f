"""Blobs of a datastore root in a directory: ``<path>``, and ``<path>_meta`` for its metadata.

A task of a local flow has few small files, and the local backend with what it needs takes longer to import than all of
them to write. So what goes as it should is done here, in plain calls of the system; the backend is made for what does
not, which it meets again and says in its words, and where files are to be synced.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from mfstore.metaflow.stock.blob_storage import METADATA_SUFFIX, BlobStorage, NewBlob, StoredBlob, parsed_metadata
from mfstore.metaflow.stock.encoding import GZIP_TRAILER_BYTES

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.local import LocalBackend
    from mfstore.metaflow.stock.blob_storage import Metadata

READ_BYTES = 1 << 20
"""Of a file that is read here. The backend reads longer ones, into memory that is not cleared first."""
READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
TEMPORARY = ".tmp-"
"""Begins the names of files that are being written, as the backend's."""

_numbers = count()  # of this process, and of no storage: those are pickled, which Python 3.14 refuses for a counter


class LocalBlobs(BlobStorage):
    """``root`` tells the root now; ``fsync`` is the local backend's policy."""

    remote = False

    def __init__(self, root: Callable[[], str], fsync: str) -> None:
        self._root = root
        self._fsync = fsync
        self._made: tuple[str, LocalBackend] | None = None
        self._token = os.urandom(4).hex()

    def _backend(self) -> LocalBackend:
        root = self._root()
        if self._made is None or self._made[0] != root:
            from mfstore.backends.local import LocalBackend

            # Links to other disks are the owner's: the tree is not a store that strangers write to.
            self._made = root, LocalBackend(root, fsync=self._fsync, sweep=False, follow_links=True)
        return self._made[1]

    def read(self, paths: Sequence[str]) -> Iterator[tuple[str, StoredBlob | None]]:
        for path in paths:
            data = self._get(path)
            yield path, None if data is None else StoredBlob(data, len(data), self._metadata(path))

    def tails(self, paths: Sequence[str]) -> list[StoredBlob | None]:
        return [self._tail(path) for path in paths]

    def put(self, blobs: Iterable[NewBlob]) -> list[NewBlob]:
        if self._fsync != "none":
            with self._backend().batch() as batch:
                for new in blobs:
                    for path, parts in _files(new):
                        batch.put(path, parts)
                batch.commit()
        else:
            for new in blobs:
                for path, parts in _files(new):
                    try:
                        self._write(path, parts)
                    except OSError:
                        self._backend().put(path, parts)
        return []

    def _write(self, path: str, parts: Sequence[Buffer]) -> None:
        target = self._place(path)
        directory = target.rpartition("/")[0]
        temporary = f"{directory}/{TEMPORARY}{os.getpid()}-{self._token}{next(_numbers):x}"
        try:
            # Made in here, so that an interrupt in between leaves no file behind.
            with open(_new_file(temporary), "wb", buffering=0) as file:
                for part in parts:
                    left = memoryview(part).cast("B")
                    while left:
                        left = left[file.write(left) :]
            os.rename(temporary, target)  # noqa: PTH104
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise

    def _place(self, path: str) -> str:
        """Where it lies. BackendError for what does not lie below the root."""
        if path.startswith("/") or ".." in path or "\0" in path:
            self._backend().exists_many([path])
        return f"{self._root()}/{path}"

    def _get(self, path: str) -> bytes | None:
        """A whole file; None where there is none."""
        found = self._opened(path, 0)
        if found is not None and found[1] <= READ_BYTES and len(found[0]) == found[1]:
            return found[0]
        if found is None:
            return None
        from mfstore.errors import NotFound

        try:
            return self._backend().get(path)
        except NotFound:
            return None

    def _tail(self, path: str) -> StoredBlob | None:
        found = self._opened(path, GZIP_TRAILER_BYTES)
        if found is None:
            return None
        data, size = found
        if size < 0:
            from mfstore.errors import NotFound

            backend = self._backend()
            try:
                size = backend.head(path).size
                start = max(0, size - GZIP_TRAILER_BYTES)
                data = bytes(backend.get_range(path, start, size - start))
            except NotFound:
                return None
        return StoredBlob(data, size, self._metadata(path))

    def _opened(self, path: str, last: int) -> tuple[bytes, int] | None:
        """The last so many bytes of a file, for 0 the first ``READ_BYTES``, and its size, -1 for what only the backend
        can tell; None where there is no file."""
        try:
            fd = os.open(self._place(path), READ_FILE)
        except FileNotFoundError:
            return None
        except OSError:
            return b"", -1
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                return b"", -1
            size = info.st_size
            if not last:
                return (os.read(fd, size + 1) if size <= READ_BYTES else b""), size
            data = os.pread(fd, last, max(0, size - last))
            return (data, size) if len(data) == min(last, size) else (b"", -1)
        except OSError:
            return b"", -1
        finally:
            os.close(fd)

    def _metadata(self, path: str) -> Metadata:
        return parsed_metadata(self._get(path + METADATA_SUFFIX))


def _new_file(path: str) -> int:
    try:
        return os.open(path, NEW_FILE, 0o666)
    except FileNotFoundError:
        os.makedirs(path.rpartition("/")[0], exist_ok=True)  # noqa: PTH103
        return os.open(path, NEW_FILE, 0o666)


def _files(new: NewBlob) -> Iterator[tuple[str, Sequence[Buffer]]]:
    """The files of a blob, in the order in which they are to appear: who sees it must see what it is."""
    if new.metadata:
        yield new.path + METADATA_SUFFIX, [json.dumps(new.metadata).encode()]
    yield new.path, new.parts
