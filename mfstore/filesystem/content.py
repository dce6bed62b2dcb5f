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
    from mfstore.format.manifest import TreeEntry
    from mfstore.format.recipes import Recipe
    from mfstore.handle import Handle
    from mfstore.trees.tree import Tree

BYTES_TYPES = ("bytes", "bytearray")
"""Types of which a file is what is in them, and not their pickle."""
BLOCK = 8 << 20
"""Bytes that are read at a time where all are wanted, of a store in a directory."""

Range = tuple[int, int]


def clipped(size: int, start: int | None, end: int | None) -> Range:
    """A range as slices have it: from the end where it is negative, and none beyond it."""
    low, high, _ = slice(start, end).indices(size)
    return low, max(low, high)


class TreeContent:
    """A file of a tree."""

    def __init__(self, handle: Handle, tree: Tree, entry: TreeEntry) -> None:
        self._handle = handle
        self.tree = tree
        self.entry = entry
        self.size = entry.size

    def clip(self, start: int | None, end: int | None) -> Range:
        """A range as slices have it."""
        return clipped(self.size, start, end)

    def read(self, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end``, both of which lie in the file."""
        return self.tree.read(self.entry.path, start, end)

    def blocks(self) -> Iterator[bytes]:
        """All of the file, a few MiB at a time."""
        for start, end in _even_blocks(self._handle, self.size):
            yield self.read(start, end)


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
        """A range as slices have it."""
        return clipped(self.size, start, end)

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
        if self._reader is not None:
            ranges = self._reader.blocks(_block(self._handle))
        else:
            ranges = _even_blocks(self._handle, self.size)
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


AnyContent = Content | TreeContent


def _block(handle: Handle) -> int:
    """Bytes that are read at a time where all are wanted."""
    capabilities = handle.backend.capabilities
    return 2 * capabilities.span if capabilities.remote else BLOCK


def _even_blocks(handle: Handle, size: int) -> Iterator[Range]:
    block = _block(handle)
    return ((start, min(start + block, size)) for start in range(0, size, block))


def read_ranges(wanted: Sequence[tuple[Content | TreeContent, Sequence[Range]]]) -> list[list[bytes]]:
    """The ranges of each file, all read together: what lies close by is one request, and no chunk is read twice. Those
    in trees are read tree by tree."""
    found: list[list[bytes]] = [[] for _ in wanted]
    shared: list[tuple[int, tuple[ArtifactParts, list[Slot]]]] = []
    of_trees: dict[Tree, list[int]] = {}
    for number, (content, ranges) in enumerate(wanted):
        if isinstance(content, TreeContent):
            of_trees.setdefault(content.tree, []).append(number)
        elif (prepared := content.prepared(ranges)) is not None:
            shared.append((number, prepared))
        else:
            found[number] = [content.read(start, end) for start, end in ranges]
    memories = read_together([prepared for _, prepared in shared])
    for (number, (_, slots)), memory in zip(shared, memories, strict=True):
        found[number] = [bytes(memory[id(slot)]) for slot in slots]
    for tree, numbers in of_trees.items():
        read = iter(tree.read_ranges([one for number in numbers for one in _in_tree(*wanted[number])]))
        for number in numbers:
            found[number] = [next(read) for _ in wanted[number][1]]
    return found


def _in_tree(content: Content | TreeContent, ranges: Sequence[Range]) -> Iterator[Range]:
    """Ranges of a file as ranges of what all files of its tree hold."""
    assert isinstance(content, TreeContent)
    at = content.entry.offset
    return ((at + start, at + end) for start, end in ranges)
