"""Files to write, which become objects when they are closed or their transaction ends."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fsspec.transaction import Transaction

from mfstore.errors import Conflict, MfstoreWarning, PathExists, Unsupported
from mfstore.host.written_files import Discardable
from mfstore.s3.bulk.streaming import SMALLEST_COPIED, StreamedUpload
from mfstore.s3.filesystem.errors import as_kind, file_errors

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.s3.transfers.outcomes import Outcome


class S3WriteFile(Discardable, io.BufferedIOBase):
    """A file that becomes an object when it is closed, with ``autocommit`` False when ``commit`` is called. Nothing
    comes of it when a ``with`` block ends in an exception, by ``discard``, or when it is forgotten; what was there
    before is still there then. It takes some 40 MiB of memory, however long it is."""

    def __init__(
        self, fs: Any, path: str, mode: str, *, autocommit: bool, options: Mapping[str, Any],
        metadata: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.fs, self.path, self.mode, self.autocommit = fs, path, mode, autocommit
        self.blocksize = fs.default_block_size
        self.kwargs = dict(options)
        self._upload: StreamedUpload | None = StreamedUpload(
            fs.client, fs.split(path).url, new=mode == "xb", options=options, metadata=metadata
        )
        self._before = 0

    @file_errors
    def go_on(self, outcome: Outcome) -> None:
        """Begin with what is there, which a HEAD has told of."""
        upload = self.upload
        if outcome.size >= SMALLEST_COPIED:
            upload.go_on(outcome.size, outcome.headers["etag"])
        elif outcome.size:
            upload.write(self.fs.cat_file(self.path))

    @property
    def name(self) -> str:
        """The path."""
        return self.path

    @property
    def full_name(self) -> str:
        """The path as a URL."""
        return str(self.fs.unstrip_protocol(self.path))

    @property
    def loc(self) -> int:
        """As ``tell``."""
        return self.tell()

    def writable(self) -> bool:
        """True, while it is open."""
        return not self.closed

    def readable(self) -> bool:
        """False."""
        return False

    def seekable(self) -> bool:
        """False."""
        return False

    def tell(self) -> int:
        """How long the object is by now."""
        return self._upload.written if self._upload is not None else self._before

    def flush(self, force: bool = False) -> None:
        """Nothing to do: parts go when they are full, and the rest when it is closed."""

    @file_errors
    def write(self, data: Buffer) -> int:
        """Take all of ``data``. Raises what went wrong with earlier parts; then nothing will be stored."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        assert self._upload is not None
        try:
            return self._upload.write(data)
        finally:
            if self._upload.ended:
                self._let_go()

    @file_errors
    def close(self) -> None:
        """Store the object, or, without ``autocommit``, send what can be sent of it. PathExists of a file that was to
        be new; other errors as of ``S3FileSystem.pipe``. A forked child only lets go of it."""
        if self.closed:
            return
        if self._upload is None or self._upload.inherited:
            self._let_go()
            return
        try:
            if self.autocommit:
                self._store()
            else:
                self._upload.send_rest()
                super().close()
        except BaseException:
            self.discard()
            raise

    @file_errors
    def commit(self) -> None:
        """Store the object of a file that was opened with ``autocommit`` False, and closed."""
        if self._upload is not None:
            self._store()

    def _store(self) -> None:
        assert self._upload is not None
        try:
            self._upload.finish()
        except Conflict as error:
            if self.mode == "xb":
                raise as_kind(PathExists, error) from error.__cause__
            raise
        self.stored()

    @property
    def upload(self) -> StreamedUpload:
        """What sends it. Unsupported when nothing is to be sent any more."""
        if self._upload is None:
            raise Unsupported("this file was stored or discarded", key=self.path)
        return self._upload

    def stored(self) -> None:
        """The object is there: it is to be listed again."""
        self.fs.invalidate_cache(self.path)
        self._let_go()

    def discard(self) -> None:
        """Store nothing, and give back what was sent. The file is closed then."""
        if self._upload is not None and not self._upload.inherited:
            self._upload.abort()
        self._let_go()

    def _let_go(self) -> None:
        if self._upload is not None:
            self._before, self._upload = self._upload.written, None
        super().close()

    def __del__(self) -> None:
        # io's own would close the file, and so publish half an object.
        with suppress(AttributeError):
            if not self.closed and self._upload is not None and not self._upload.inherited and self.autocommit:
                warnings.warn(
                    f"{self.full_name} was not closed, so nothing of it is stored", MfstoreWarning, stacklevel=2
                )
        with suppress(Exception):
            self.discard()

    def __reduce__(self) -> Any:
        raise Unsupported("a file that is written does not pickle", key=self.path)


class S3Transaction(Transaction):
    """Files written in a transaction: those of less than a part go in one bulk operation when it ends."""

    def complete(self, commit: bool = True) -> None:
        """Store all files, or none. When one of them fails the others may be stored: S3 has no more."""
        files = list(self.files)
        if commit and files:
            small = [file for file in files if isinstance(file, S3WriteFile) and file.mode == "wb" and _is_small(file)]
            by_url = {file.upload.url: file for file in small}  # of several for one path the last counts, as it would
            if len(small) > 1 and len(by_url) == len(small):
                try:
                    _store_together(self.fs, list(by_url.values()))
                except BaseException:
                    super().complete(commit=False)  # and nothing is deferred any more
                    raise
                stored = set(small)
                self.files.clear()
                self.files.extend(file for file in files if file not in stored)
        super().complete(commit)


def _is_small(file: S3WriteFile) -> bool:
    return file._upload is not None and file._upload.whole is not None


@file_errors
def _store_together(fs: Any, files: list[S3WriteFile]) -> None:
    for outcome in fs.client.put_many([file.upload.whole for file in files], stream=True):
        files[outcome.index].stored()
