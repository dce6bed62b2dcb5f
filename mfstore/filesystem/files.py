"""Open files of a store's file system, and what appears together at the end of a transaction."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from fsspec.spec import AbstractBufferedFile
from fsspec.transaction import Transaction

from mfstore.errors import MfstoreWarning, Refused, Unsupported
from mfstore.filesystem.writing import ANY, Staged, StreamedBytes, set_ref, set_refs, store_bytes

if TYPE_CHECKING:
    from types import TracebackType

    from mfstore.filesystem.content import AnyContent
    from mfstore.filesystem.entries import Catalog, Entry
    from mfstore.format.digests import Key
    from mfstore.store import Store

WRITTEN_TOGETHER = 8 << 20
"""Bytes of a file that are kept until they are stored. A file that is no longer is stored when it is closed."""


class Files(Protocol):
    """What a file needs of the file system that it is of."""

    @property
    def store(self) -> Store:
        """The store."""

    @property
    def catalog(self) -> Catalog:
        """What is in it."""

    def opened(self, path: str) -> tuple[Entry, AnyContent]:
        """A file and its bytes."""

    def writable(self, path: str, *, look: bool = False, exclusive: bool = False) -> Entry | None:
        """What is at a path that is to be written."""


class StoreFile(AbstractBufferedFile):
    """A file in a store.

    What is read is what the path stood for when it was opened. What is written is stored meanwhile, and appears when
    the file is closed, whole; if the ``with`` block ends by an exception, it does not.
    """

    def __init__(
        self, fs: Files, path: str, mode: str = "rb", block_size: int | str | None = None,
        autocommit: bool = True, cache_type: str = "readahead", cache_options: dict[str, Any] | None = None,
        *, size: int | None = None, note: dict[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        self._content: AnyContent | None = None
        self._note = note
        self._current: str | None = ANY
        self._stream: StreamedBytes | None = None
        self._staged: Staged | None = None
        self.is_discarded = False
        if mode == "rb":
            entry, self._content = fs.opened(path)
            self.details = entry.info() | {"size": self._content.size}
            size = self._content.size
        elif mode in ("wb", "xb", "ab"):
            self._prepare(fs, path, mode)
            size = None
        super().__init__(
            fs, path, mode, block_size or "default", autocommit, cache_type, cache_options, size=size, **kwargs
        )
        if mode != "rb":
            self.blocksize = WRITTEN_TOGETHER
            if self._content is not None:
                self.loc = self._content.size

    def _prepare(self, fs: Files, path: str, mode: str) -> None:
        """Look at what is there now, of a file that is to be written. PathExists, PathIsReadOnly and the like."""
        entry = fs.writable(path, look=mode != "wb", exclusive=mode == "xb")
        if mode == "xb":
            self._current = None
        elif mode == "ab":
            self._current = None if entry is None else entry.key
            if entry is not None:
                self._content = fs.catalog.content(entry)

    # ---- reading ------------------------------------------------------------------------

    def _fetch_range(self, start: int, end: int) -> bytes:
        assert self._content is not None
        return self._content.read(*self._content.clip(start, end))

    # ---- writing ------------------------------------------------------------------------

    def write(self, data: Any) -> int:
        """Write bytes. What is long goes on block by block, so that it is not held twice."""
        view = memoryview(data).cast("B")
        if view.nbytes <= self.blocksize:
            return int(super().write(view))
        for at in range(0, view.nbytes, self.blocksize):
            super().write(view[at : at + self.blocksize])
        return view.nbytes

    def _upload_chunk(self, final: bool = False) -> bool:
        block = self.buffer.getvalue()
        if self._stream is None and not final:
            self._stream = StreamedBytes(self.fs.store.handle, self._before())
        if self._stream is not None:
            if block:
                self._stream.write(block)
            key = self._stream.finish() if final else None
        else:
            (key,) = store_bytes(self.fs.store.handle, [self._all(block)])
        if final:
            self._stage(key)
        return True

    def _all(self, block: bytes) -> Iterator[bytes]:
        yield from self._before()
        if block:
            yield block

    def _before(self) -> Iterable[bytes]:
        """What the file had, if this is behind it."""
        return () if self._content is None else self._content.blocks()

    def _stage(self, key: Key | None) -> None:
        assert key is not None
        self._stream = None
        self._staged = Staged(self.path, key, self._note, self._current)
        if self.autocommit:
            self.commit()

    def commit(self) -> None:
        """Make what was written appear."""
        set_ref(self.fs.store.refs, self.staged())
        self._staged = None

    def staged(self) -> Staged:
        """What is stored and does not appear yet. The file is closed."""
        if not self.closed and self._staged is None:
            self.close()
        if self._staged is None:
            raise Refused(f"a file of the transaction could not be stored when it was closed: {self.path!r}")
        return self._staged

    def discard(self) -> None:
        """Nothing of what was written appears."""
        self.is_discarded = True
        self._abandon()

    def _abandon(self) -> None:
        stream, self._stream, self._staged = self._stream, None, None
        self.closed = True
        if stream is not None:
            stream.abandon()

    def close(self) -> None:
        """End it: what was written appears, or in a transaction will. If it cannot be stored, nothing of it does."""
        try:
            super().close()
        finally:
            if self._stream is not None:
                self._abandon()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.writable():
            self.discard()
        self.close()

    def __del__(self) -> None:
        if self.closed or "r" in getattr(self, "mode", "r"):
            return
        self.discard()
        warnings.warn(
            f"a file was written and never closed, so nothing of it is stored: {self.path}", MfstoreWarning,
            stacklevel=2, source=self,
        )  # fmt: skip


class StoreTransaction(Transaction):
    """Files that are written within it appear at its end, or none of them.

    All of them are stored before the first one appears. Then they appear one by one: a reader may see some of them for
    as long as that takes. If one cannot be set, the others are what they were again. Only an end of the process in
    between leaves some of them new, each of which is whole. A file whose own ``with`` block ended by an exception,
    which went no further, is none of them.
    """

    def start(self) -> None:
        """Begin it. Unsupported within another one."""
        if self.fs._intrans:
            raise Unsupported(
                "a transaction within a transaction of the same file system", backend=self.fs.store.backend.url,
                hint="End that one first, or use another instance: skip_instance_cache=True",
            )  # fmt: skip
        super().start()

    def complete(self, commit: bool = True) -> None:
        """End it."""
        files: list[StoreFile] = [*self.files]
        self.files.clear()
        try:
            if commit:
                set_refs(self.fs.store, [file.staged() for file in files if not file.is_discarded])
        finally:
            for file in files:
                file.discard()
            super().complete(commit=False)
