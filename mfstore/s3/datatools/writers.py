"""Objects as files to write, for ``S3.open_write``."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mfstore.errors import Conflict
from mfstore.s3.bulk.streaming import StreamedUpload
from mfstore.s3.datatools.exceptions import metaflow_errors

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

    from mfstore.s3.bulk.client import BulkClient


class ObjectWriter(io.BufferedIOBase):
    """A file that becomes an object when it is closed, and nothing when a ``with`` block ends in an exception, when
    ``abort`` is called, or when it is forgotten. Parts are sent while the program goes on."""

    def __init__(
        self, client: BulkClient, url: str, name: str, *, overwrite: bool = True,
        metadata: Mapping[str, str] | None = None, options: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.name = name
        self.mode = "wb"
        self.stored: bool | None = None
        """After ``close``: whether the object was stored. False: it existed, and overwrite was False."""
        self._overwrite = overwrite
        self._upload = StreamedUpload(client, url, new=not overwrite, metadata=metadata, options=options)

    def writable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._upload.written

    @metaflow_errors()
    def write(self, data: Buffer) -> int:
        """Take all of ``data``. Raises what went wrong with earlier parts; then nothing will be stored."""
        if self.closed:
            raise ValueError("write to a closed file")
        try:
            return self._upload.write(data)
        except BaseException:
            if self._upload.ended:
                super().close()
            raise

    @metaflow_errors()
    def close(self) -> None:
        """Store the object. Errors as ``S3.put``; then nothing was stored, unless the error says that it is unknown. A
        forked child only lets go of it."""
        if self.closed:
            return
        try:
            if not self._upload.inherited:
                self.stored = self._finish()
        finally:
            super().close()

    def _finish(self) -> bool:
        try:
            self._upload.finish()
        except Conflict:
            if self._overwrite:
                raise
            return False
        return True

    def abort(self) -> None:
        """Store nothing, and give back what was sent. The file is closed then."""
        if self.closed:
            return
        if not self._upload.inherited:
            self._upload.abort()
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        # io's own would close the file, and so publish half an object.
        with suppress(Exception):
            self.abort()
