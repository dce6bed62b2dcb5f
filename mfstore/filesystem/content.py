"""The bytes of one file: of what was stored as bytes these, of any other object its pickle. Ranges are read alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from mfstore._core.pickler import BYTES
from mfstore.format.recipes import PICKLE
from mfstore.loading.artifacts import ArtifactReader
from mfstore.pickling.symbols import Slot
from mfstore.views.parts import ArtifactParts, read_together

if TYPE_CHECKING:
    from mfstore.format.digests import Key
    from mfstore.format.recipes import Recipe
    from mfstore.handle import Handle

BYTES_TYPES = ("bytes", "bytearray")
"""Types of which a file is what is in them, and not their pickle."""
BLOCK = 8 << 20
"""Bytes that are read at a time where all are wanted, in a directory."""

Range = tuple[int, int]


class Content:
    """One artifact as a file. What is read is compared with its digests as the store was opened."""

    def __init__(self, handle: Handle, key: Key, recipe: Recipe, number: int) -> None:
        """NotSigned where the store takes what is signed alone, and this is not."""
        if handle.trust is not None:
            handle.require_signed([key])
        self._handle = handle
        self._how = handle.loading(None, True)
        self._recipe = recipe
        self._number = number
        self._parts: ArtifactParts | None = None
        self._node: Slot | bytes | None = None
        """Where the bytes are, or they themselves. None: the file is the stream of the artifact."""
        artifact = recipe.artifacts[number]
        if artifact.encoding == PICKLE and recipe.described.types[number] in BYTES_TYPES:
            root = self._of_parts().root
            if isinstance(root, Slot):
                self._node = root
            elif isinstance(root, (bytes, bytearray)):
                self._node = bytes(root)
        self._reader = ArtifactReader(self._how, recipe, number) if self._node is None else None
        self.size = artifact.size if self._node is None else len(self._node)

    def _of_parts(self) -> ArtifactParts:
        if self._parts is None:
            self._parts = ArtifactParts(self._how, self._recipe, self._number)
        return self._parts

    def clip(self, start: int | None, end: int | None) -> Range:
        """A range as slices have it: from the end where it is negative, and none beyond it."""
        low, high, _ = slice(start, end).indices(self.size)
        return low, max(low, high)

    def read(self, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end``, both of which lie in the file."""
        began = perf_counter()
        if isinstance(self._node, bytes):
            found = self._node[start:end]
        elif self._reader is not None:
            found = self._reader.read(start, end)
        else:
            (slot,) = self.slots([(start, end)])
            found = bytes(self._of_parts().read([slot])[id(slot)])
        self._handle.count((1, end - start, perf_counter() - began))
        return found

    def slots(self, ranges: Sequence[Range]) -> list[Slot]:
        """Ranges as parts of a segment, or of the body."""
        assert isinstance(self._node, Slot)
        base = self._node
        return [Slot(base.number, BYTES, base.start + start, base.start + end) for start, end in ranges]

    def blocks(self) -> Iterator[bytes]:
        """All of the file, a few MiB at a time."""
        capabilities = self._handle.backend.capabilities
        size = 2 * capabilities.span if capabilities.remote else BLOCK
        if self._reader is not None:
            ranges = self._reader.blocks(size)
        else:
            ranges = ((start, min(start + size, self.size)) for start in range(0, self.size, size))
        for start, end in ranges:
            yield self.read(start, end)

    @property
    def of_body(self) -> bool:
        """Whether the file is the body of raw bytes, so that ranges are parts of it."""
        return self._node is None and self._recipe.artifacts[self._number].encoding != PICKLE

    def prepared(self, ranges: Sequence[Range]) -> tuple[ArtifactParts, list[Slot]] | None:
        """Ranges that may be read with those of other files; None of what is here, or is read by itself."""
        if self.of_body:
            return self._of_parts(), [Slot(-1, BYTES, start, end) for start, end in ranges]
        return (self._of_parts(), self.slots(ranges)) if isinstance(self._node, Slot) else None


def read_ranges(wanted: Sequence[tuple[Content, Sequence[Range]]]) -> list[list[bytes]]:
    """The ranges of each file, all read together: what lies close by is one request, and no chunk is read twice."""
    shared = [content.prepared(ranges) for content, ranges in wanted]
    memories = iter(read_together([one for one in shared if one is not None]))
    found: list[list[bytes]] = []
    for (content, ranges), one in zip(wanted, shared, strict=True):
        if one is None:
            found.append([content.read(start, end) for start, end in ranges])
        else:
            memory = next(memories)
            found.append([bytes(memory[id(slot)]) for slot in one[1]])
    return found
