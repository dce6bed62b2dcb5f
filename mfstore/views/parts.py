"""One artifact, of which parts are read: its body once, and of its segments what is asked for."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from mfstore._core.memory import FreshBytes, fresh_bytearray
from mfstore._core.pickler import BUFFER, BYTEARRAY, BYTES
from mfstore.errors import MfstoreError
from mfstore.format.recipes import INLINE, PICKLE
from mfstore.loading.artifacts import first_chunks
from mfstore.loading.fetch import targets
from mfstore.loading.unloadable import unloadable
from mfstore.pickling.evaluation import Evaluation, copied, slots_of
from mfstore.pickling.streams import finder
from mfstore.pickling.symbols import Slot, read_symbols
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.format.recipes import Artifact, Recipe
    from mfstore.loading.artifacts import Loading
    from mfstore.loading.fetch import WantedChunk

R = TypeVar("R")

BODY = -1
"""Number of the slot that stands for the body of raw bytes."""


class Opaque:
    """A pickle that symbols cannot be read of: one in which a class is made, and then an object of it."""


class _Piece(NamedTuple):
    """Bytes ``low`` to ``high`` of a chunk, and where they go."""

    low: int
    high: int
    target: memoryview


class _Reading(NamedTuple):
    """What is to be read, and what gives it once it is."""

    wanted: list[WantedChunk]
    finish: Callable[[], dict[int, Any]]


class ArtifactParts:
    """An artifact as what its pickle would make, and the objects of parts of that.

    What fails without its digests compared is read again and compared, as damage may be the reason.

    ``first`` is ``first_chunks`` of the recipe, for who has many of its artifacts.
    """

    def __init__(self, how: Loading, recipe: Recipe, number: int, first: Mapping[str, int] | None = None) -> None:
        self.artifact: Artifact = recipe.artifacts[number]
        self.number = number
        """Of the artifact, in its recipe."""
        self._how = how
        self._recipe = recipe
        self._first = (first or first_chunks(recipe))[self.artifact.name]
        self._lock = Lock()
        self._root: tuple[Any] | None = None
        self._behind: list[int] = []
        """Where in the artifact's chunks those of each segment begin, and their end; once it is needed."""

    @property
    def is_raw(self) -> bool:
        """Whether it was stored as bytes, without pickle."""
        return self.artifact.encoding != PICKLE

    @property
    def is_read(self) -> bool:
        """Whether ``root`` is there without reading anything."""
        return self._root is not None

    @property
    def is_here(self) -> bool:
        """Whether ``root`` is told by the recipe."""
        if self.is_read or self.artifact.literal is not None:
            return True
        body = self._recipe.placements[self._first : self._first + self.artifact.body_chunks]
        return all(placement.pack == INLINE and not placement.pieces for placement in body)

    @property
    def root(self) -> Any:
        """What the artifact is made of (``read_symbols``). Raw bytes are a slot. Read when it is first asked for."""
        with self._lock:
            if self._root is None:
                self._root = (self._read_root(),)
            return self._root[0]

    def _read_root(self) -> Any:
        artifact = self.artifact
        if artifact.encoding != PICKLE:
            return Slot(BODY, BYTES, 0, artifact.body_length)
        try:
            return self._verified(self._symbols)
        except MfstoreError:
            raise
        except Exception:
            # Of whatever class: what is really there is for who loads it to say.
            return Opaque()

    def _symbols(self, how: Loading) -> Any:
        if how.safe is None:
            return read_symbols([self._body(how)], self.artifact.segments)
        from mfstore.pickling.safe.loading import safe_symbols

        return safe_symbols(how.safe, [self._body(how)], self.artifact.segments)[0]

    def _body(self, how: Loading) -> bytes:
        if self.artifact.literal is not None:
            return self.artifact.literal
        body = FreshBytes(self.artifact.body_length)
        chunks = self.artifact.chunks[: self.artifact.body_chunks]
        how.fetcher.fill(self._recipe, targets(body, self._first, chunks), how.verify)
        return body.value

    def _verified(self, work: Callable[[Loading], R]) -> R:
        try:
            return work(self._how)
        except Exception:
            if self._how.verify:
                raise
            return work(self._how._replace(verify=True))

    def objects(self, nodes: Sequence[Any]) -> list[Any]:
        """The objects of nodes of ``root``, or of nodes made from such. Their segments are read together. Raises
        NotLoadable, or what reading raises."""
        if len(nodes) == 1 and (made := copied(nodes[0])) is not None:
            return [made]
        try:
            return self._verified(lambda how: self._objects(nodes, how))
        except Exception as error:
            raise (told := unloadable(error, self._recipe, self.artifact)) from told.__cause__

    def _objects(self, nodes: Sequence[Any], how: Loading) -> list[Any]:
        return self._made(nodes, self._fill(slots_of(*nodes), how))

    def _made(self, nodes: Sequence[Any], memory: dict[int, Any]) -> list[Any]:
        evaluation: Evaluation
        if self._how.safe is None:
            evaluation = Evaluation(finder(pickle.Unpickler), lambda slot: memory.pop(id(slot)))
        else:
            from mfstore.pickling.safe.loading import SafeEvaluation

            evaluation = SafeEvaluation(self._how.safe, lambda slot: memory.pop(id(slot)))
        return [evaluation.of(node) for node in nodes]

    def read(self, slots: Sequence[Slot]) -> dict[int, Any]:
        """What each slot stands for, by its ``id``: memory, bytes, a text or a bytearray. They are read together."""
        return self._verified(lambda how: self._fill(slots, how))

    def _fill(self, slots: Sequence[Slot], how: Loading) -> dict[int, Any]:
        reading = self._prepare(slots, how)
        how.fetcher.fill(self._recipe, reading.wanted, how.verify)
        return reading.finish()

    def _prepare(self, slots: Sequence[Slot], how: Loading) -> _Reading:
        whole = {slot.number: slot for slot in slots if self._is_whole(slot)}
        segments = how.segments.prepare(self._recipe, self.artifact, self._first, how.verify, how.map, only=whole)
        made = dict(zip(sorted(whole), segments, strict=True))
        wanted: list[WantedChunk] = [chunk for segment in made.values() for chunk in segment.wanted]
        pieces: dict[int, list[_Piece]] = {}
        memories: dict[int, Any] = {}
        for slot in slots:
            if slot.number not in whole or not self._is_whole(slot):
                memory = self._memory(slot)
                memories[id(slot)] = memory
                self._divide(slot, memoryview(memory), pieces)
        scratch: list[tuple[_Piece, bytearray]] = []
        for number, parts in pieces.items():
            chunk = self.artifact.chunks[number]
            if len(parts) == 1 and parts[0].high - parts[0].low == chunk.usize:
                wanted.append((self._first + number, chunk, parts[0].target))
                continue
            # Only some of this chunk is wanted, or in several places; it is decoded and checked once.
            decoded = bytearray(chunk.usize)
            wanted.append((self._first + number, chunk, memoryview(decoded)))
            scratch += [(piece, decoded) for piece in parts]

        def finish() -> dict[int, Any]:
            wanted.clear()
            for piece, decoded in scratch:
                piece.target[:] = memoryview(decoded)[piece.low : piece.high]
            return {
                id(slot): self._value(slot, memories[id(slot)])
                if id(slot) in memories
                else made[slot.number].value(True)
                for slot in slots
            }

        return _Reading(wanted, finish)

    def _memory(self, slot: Slot) -> Any:
        return fresh_bytearray(len(slot)) if slot.kind == BYTEARRAY else FreshBytes(len(slot))

    def _value(self, slot: Slot, memory: Any) -> Any:
        if slot.kind == BUFFER:
            return memoryview(memory)
        return memory if isinstance(memory, bytearray) else memory.value

    def _is_whole(self, slot: Slot) -> bool:
        if slot.number == BODY:
            return False
        return slot.start == 0 and slot.end == self.artifact.segments[slot.number].length

    def chunks_of(self, number: int) -> tuple[int, int]:
        """The chunks of a segment, or of the body: number of the first one in the artifact, and behind the last."""
        if number == BODY:
            return 0, self.artifact.body_chunks
        if not self._behind:
            lengths = (segment.chunks for segment in self.artifact.segments)
            self._behind = list(accumulate(lengths, initial=self.artifact.body_chunks))
        return self._behind[number], self._behind[number + 1]

    def chunk_lengths(self, number: int) -> list[int]:
        """Bytes of each chunk of a segment, or of the body, in order."""
        if self.artifact.literal is not None:
            return [len(self.artifact.literal)]
        first, last = self.chunks_of(number)
        return [chunk.usize for chunk in self.artifact.chunks[first:last]]

    def _divide(self, slot: Slot, memory: memoryview, pieces: dict[int, list[_Piece]]) -> None:
        """Say which bytes of which chunks, by their numbers in the artifact, are the slot's."""
        if self.artifact.literal is not None:
            memory[:] = self.artifact.literal[slot.start : slot.end]
            return
        first, last = self.chunks_of(slot.number)
        at = 0
        for number in range(first, last):
            chunk = self.artifact.chunks[number]
            low, high = max(slot.start - at, 0), min(slot.end - at, chunk.usize)
            if low < high:
                begin = at + low - slot.start
                target = memory[begin : begin + high - low]
                pieces.setdefault(number, []).append(_Piece(low, high, target))
            at += chunk.usize
            if at >= slot.end:
                break


def read_together(wanted: Sequence[tuple[ArtifactParts, Sequence[Slot]]]) -> list[dict[int, Any]]:
    """``read`` of several artifacts, of any recipes: they share reads."""
    if not wanted:
        return []
    how = wanted[0][0]._how
    try:
        readings = [parts._prepare(slots, how) for parts, slots in wanted]
        chunks = [(parts._recipe, reading.wanted) for (parts, _), reading in zip(wanted, readings, strict=True)]
        how.fetcher.fill_all(chunks, how.verify)
        chunks.clear()
        return [reading.finish() for reading in readings]
    except MfstoreError:
        # Each by itself: what fails is read again and compared with its digests, and says which artifact it is.
        return [parts.read(slots) for parts, slots in wanted]


def objects_together(wanted: Sequence[tuple[ArtifactParts, Sequence[Any]]]) -> list[list[Any]]:
    """``objects`` of several artifacts, of which each recipe's are read together."""
    memories: list[dict[int, Any]] = [{} for _ in wanted]
    grouped: dict[int, list[int]] = {}
    for number, (parts, _) in enumerate(wanted):
        grouped.setdefault(id(parts._recipe), []).append(number)
    try:
        for numbers in grouped.values():
            first = wanted[numbers[0]][0]
            readings = [wanted[number][0]._prepare(slots_of(*wanted[number][1]), first._how) for number in numbers]
            chunks = [chunk for reading in readings for chunk in reading.wanted]
            first._how.fetcher.fill(first._recipe, chunks, first._how.verify)
            chunks.clear()
            for number, reading in zip(numbers, readings, strict=True):
                memories[number] = reading.finish()
        return [parts._made(nodes, memory) for (parts, nodes), memory in zip(wanted, memories, strict=True)]
    except Exception:
        # Each by itself: what fails is read again and compared with its digests, and says which artifact it is.
        memories.clear()
        return [parts.objects(nodes) for parts, nodes in wanted]
