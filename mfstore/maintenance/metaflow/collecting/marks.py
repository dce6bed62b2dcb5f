"""Which blobs the runs of a root refer to, by what becomes of the runs: for each a few bits, in the order of keys, so
that they are compared with what is stored flow by flow and key by key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from mfstore.maintenance.metaflow.listed_digests import packed_by_flow, packed_key
from mfstore.maintenance.spill import KeyedRows, Spill

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.listed_blobs import BlobName

OPEN_MARKS = 200_000
"""Blobs that are in memory, 0.2 kB each; the others are in a temporary file."""

KEPT, DUE, LATER = 1, 2, 4
"""Runs that stay refer to a blob, runs that go now, runs that go later."""
FORMER_KEPT, FORMER_DUE, FORMER_LATER = 8, 16, 32
"""A migrated artifact of theirs was that before, and a metadata service may still name it."""
MIGRATED, RIPENING = 64, 128
"""A migration left it behind, and it may go for that now, or later."""
ANY_KEPT = KEPT | FORMER_KEPT
ANY_DUE = DUE | FORMER_DUE | MIGRATED
ANY_LATER = LATER | FORMER_LATER | RIPENING


class BlobMarks:
    """What is marked of each blob."""

    def __init__(self) -> None:
        self._rows = KeyedRows(Spill(), OPEN_MARKS, packed_key)

    def mark(self, flow: str, keys: Iterable[str], mark: int) -> None:
        """Mark these blobs of a flow."""
        marks = self._rows.here(flow)
        before = len(marks)
        for key in keys:
            marks[key] = marks.get(key, 0) | mark
        self._rows.grew(len(marks) - before)

    def in_order(self, flow: str) -> Iterator[tuple[bytes, int]]:
        """The marks of the blobs of a flow, by their packed keys, in the order of these. A blob may come several times,
        each time with some of its marks."""
        return self._rows.in_order(flow)

    def of(self, names: Collection[BlobName]) -> dict[BlobName, int]:
        """What is marked of these."""
        found = dict.fromkeys(names, 0)
        for flow, wanted in packed_by_flow(names).items():
            for key, mark in self.in_order(flow):
                if key in wanted:
                    found[wanted[key]] |= mark
        return found
