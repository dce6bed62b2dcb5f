"""Files to write of which nothing comes when a ``with`` block ends in an exception, and what is put on top of them:
text, and compression as fsspec has it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

TEXT = ("encoding", "errors", "newline")
"""Arguments of ``open`` that are about text."""


class Discardable(io.IOBase):
    """A file that is there when it is closed, and never once it is discarded."""

    def discard(self) -> None:
        """Store nothing. The file is closed then."""
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class TextFile(Discardable, io.TextIOWrapper):
    """Text on top of a file that can be discarded."""

    def discard(self) -> None:
        """Store nothing."""
        below: Any = self.buffer
        below.discard()

    def __del__(self) -> None:
        """Not as io's own, which would close the file below, and so publish half of it."""


class CompressedFile(Discardable, io.BufferedIOBase):
    """What is written goes compressed to a file that can be discarded, and is there with it when this is closed."""

    def __init__(self, compressing: Any, file: Any) -> None:
        super().__init__()
        self._compressing, self._file = compressing, file

    def writable(self) -> bool:
        """Whether it is open."""
        return not self.closed

    def write(self, data: Buffer) -> int:
        """Take all of ``data``."""
        self._compressing.write(data)
        return memoryview(data).nbytes

    def close(self) -> None:
        """Store it. If that fails, nothing of it is stored."""
        if self.closed:
            return
        try:
            self._compressing.close()
            self._file.close()
        except BaseException:
            self._file.discard()
            raise
        finally:
            super().close()

    def discard(self) -> None:
        """Store nothing."""
        self._file.discard()
        super().close()

    def __del__(self) -> None:
        if not self.closed:
            self._file.__del__()  # says that nothing is stored


def written_as(file: Any, path: str, compression: str | None, text: Mapping[str, Any] | None) -> Any:
    """A file to write, through ``compression`` ("infer": as the path says), and as ``text`` if that says how."""
    from fsspec.compression import compr
    from fsspec.core import get_compression

    codec = get_compression(path, compression)
    found: Any = file if codec is None else CompressedFile(compr[codec](file, mode="w"), file)
    return found if text is None else TextFile(found, **text)
