"""Pickles that any Python reads: with no names of mfstore, and none of the codes of one process's registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from mfstore.pickling.streams import dump

if TYPE_CHECKING:
    from mfstore.views.view import View

READ = 8 << 20


def write_pickle(view: View, out: BinaryIO) -> None:
    """An object, which is loaded, as one pickle in one stream."""
    sink = _FileSink(out)
    dump(view.load(), sink)
    sink.end()


class _FileSink:
    """Writes the body with each payload where it belongs. Of what the pickler hands over a body comes in blocks, each
    after the payloads within it."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._at = 0
        self._payloads: list[tuple[int, Any]] = []

    def body(self, block: bytes) -> None:
        """The next bytes of the body."""
        view, start = memoryview(block), self._at
        for at, data in self._payloads:
            self._out.write(view[self._at - start : at - start])
            self._at = at
            self._write(data)
        self._payloads.clear()
        self._out.write(view[self._at - start :])
        self._at = start + len(view)

    def payload(self, kind: int, data: Any, itemsize: int, row: int, at: int) -> None:
        """What lies at ``at`` of the body."""
        self._payloads.append((at, data))

    def end(self) -> None:
        """What the last payload is, if the body ended before it."""
        self.body(b"")

    def _write(self, data: Any) -> None:
        if hasattr(data, "read"):
            for start in range(0, data.nbytes, READ):
                self._out.write(data.read(start, min(start + READ, data.nbytes)))
        else:
            self._out.write(data)
