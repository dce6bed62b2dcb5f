"""Who holds what: bytes that some holders need, added up by the labels of these.

A holder is what needs bytes: a run, a ref, an artifact. It has any number of labels: a run has its tags. Of a label,
bytes are its *own* if all who need them have it: they would go if all of its holders did. They are *shared* if others
need them too. What two runs of one flow share is the flow's own.

Bytes come as items, each with the numbers of the sets of labels that its holders have. Most items have one.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mfstore.maintenance.spill import KeyedRows, Spill

OPEN_CLAIMS = 200_000
"""Of items, those that are in memory, 0.2 kB each; the others are in a temporary file."""
KNOWN_UNIONS = 4096
"""Groups of holders of which is remembered what their labels have in common: many items have the same."""
SMALL_UNION = 32
"""Holders in such a group."""


class Label(NamedTuple):
    """What holders are put together by."""

    name: str | None
    """None: they have no such thing, or it is not known."""
    unknown: bool = False
    """With None: that it is not known."""


NONE = Label(None)
UNKNOWN = Label(None, True)
Holders = int | set[int]
"""One set of labels by its number, or several."""


@dataclass(frozen=True, slots=True)
class LabelTotal:
    """Bytes that holders with a label hold."""

    label: Label
    own: int
    """What only they hold."""
    shared: int
    """What others hold as well."""


@dataclass(frozen=True, slots=True)
class Totals:
    """All bytes that were added up: ``own``, ``shared`` and ``unheld`` are apart from each other, and all of them."""

    labels: tuple[LabelTotal, ...]
    own: int
    """What is the own of a label; once, also where it is of several."""
    shared: int
    """What is held, and no label's own; once."""
    unheld: int
    """What nobody holds."""


class LabelSets:
    """The sets of labels that holders have, each once and by number."""

    def __init__(self) -> None:
        self._numbers: dict[frozenset[Label], int] = {}
        self.sets: list[frozenset[Label]] = []

    def number(self, labels: Iterable[Label]) -> int:
        """The number of this set, which is not empty."""
        wanted = frozenset(labels)
        found = self._numbers.get(wanted)
        if found is None:
            found = self._numbers[wanted] = len(self.sets)
            self.sets.append(wanted)
        return found

    def of(self, name: str | None) -> int:
        """The number of the set of this label alone; None: of having none."""
        return self.number((NONE if name is None else Label(name),))


class Claims:
    """Which holders claim which items, in folders that are read one by one and in the order of items, which are bytes.
    Beyond some they are in a temporary file."""

    def __init__(self, spill: Spill) -> None:
        self._rows = KeyedRows(spill, OPEN_CLAIMS)

    @property
    def folders(self) -> set[str]:
        """Every folder in which something is claimed."""
        return self._rows.flows

    def claim(self, folder: str, items: Iterable[bytes], holder: int) -> None:
        """Holders with this set of labels need these items."""
        rows = self._rows.here(folder)
        more = 0
        for item in items:
            known = rows.get(item)
            if known is None:
                rows[item] = holder
                more += 1
            elif known.__class__ is set:
                before = len(known)
                known.add(holder)
                more += len(known) - before
            elif known != holder:
                rows[item] = {known, holder}
                more += 1
        self._rows.grew(more)

    def in_order(self, folder: str) -> Iterator[tuple[bytes, Holders]]:
        """Every item of a folder that is claimed, and by whom."""
        last: bytes | None = None
        holders: Holders = 0
        for item, more in self._rows.in_order(folder):
            if item != last:
                if last is not None:
                    yield last, holders
                last, holders = item, more
            elif more != holders:
                holders = each_of(holders) | each_of(more)
        if last is not None:
            yield last, holders

    def joined(self, folder: str, sizes: Iterable[tuple[bytes, int]]) -> Iterator[tuple[bytes, int, Holders | None]]:
        """Each of these items, which come in order, its size, and who claims it; None: nobody."""
        claims = self.in_order(folder)
        claimed = next(claims, None)
        for item, size in sizes:
            while claimed is not None and claimed[0] < item:
                claimed = next(claims, None)
            yield item, size, claimed[1] if claimed is not None and claimed[0] == item else None


def each_of(holders: Holders) -> set[int]:
    """The numbers, also of one alone."""
    return holders if isinstance(holders, set) else {holders}


class Tally:
    """Adds up what is held."""

    def __init__(self, sets: LabelSets) -> None:
        self._sets = sets
        self._alone = array("Q")
        """What holders with one set of labels hold and nobody else, by its number."""
        self._own: dict[Label, int] = {}
        self._shared: dict[Label, int] = {}
        self._all_own = self._all_shared = self._unheld = 0
        self._unions: dict[frozenset[int], tuple[frozenset[Label], frozenset[Label]]] = {}

    def add(self, size: int, holders: Holders | None) -> None:
        """Count the bytes of an item, or of several that the same hold. None: nobody does."""
        if holders is None:
            self._unheld += size
        elif isinstance(holders, set):
            self._add_several(size, holders)
        else:
            if holders >= len(self._alone):
                self._alone.frombytes(bytes(8 * (holders + 1 - len(self._alone))))
            self._alone[holders] += size

    def add_all(self, found: Iterable[tuple[bytes, int, Holders | None]]) -> None:
        """Count items, as ``Claims.joined`` gives them."""
        for _, size, holders in found:
            self.add(size, holders)

    def _add_several(self, size: int, holders: Collection[int]) -> None:
        key = frozenset(holders)
        known = self._unions.get(key)
        if known is None:
            sets = [self._sets.sets[number] for number in key]
            common = frozenset.intersection(*sets)
            known = common, frozenset().union(*sets) - common
            if len(self._unions) >= KNOWN_UNIONS:
                self._unions.clear()
            if len(key) <= SMALL_UNION:
                self._unions[key] = known
        common, others = known
        for label in common:
            self._own[label] = self._own.get(label, 0) + size
        for label in others:
            self._shared[label] = self._shared.get(label, 0) + size
        if common:
            self._all_own += size
        else:
            self._all_shared += size

    @property
    def counted(self) -> int:
        """All bytes so far."""
        return self._all_own + self._all_shared + self._unheld + sum(self._alone)

    def totals(self) -> Totals:
        """What was counted, by label, in no order."""
        own = dict(self._own)
        for labels, size in zip(self._sets.sets, self._alone, strict=False):
            for label in labels if size else ():
                own[label] = own.get(label, 0) + size
        found = (
            LabelTotal(label, own.get(label, 0), self._shared.get(label, 0))
            for label in own.keys() | self._shared.keys()
        )
        return Totals(tuple(found), self._all_own + sum(self._alone), self._all_shared, self._unheld)
