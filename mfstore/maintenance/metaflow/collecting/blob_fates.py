"""What becomes of the blobs of a root: what is stored, compared with what the runs refer to."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from mfstore.maintenance.metaflow.collecting.amounts import RootAmount
from mfstore.maintenance.metaflow.collecting.marks import (
    ANY_DUE,
    ANY_KEPT,
    ANY_LATER,
    FORMER_KEPT,
    FORMER_LATER,
    KEPT,
    LATER,
    MIGRATED,
    BlobMarks,
)
from mfstore.maintenance.metaflow.listed_digests import unpacked_key
from mfstore.maintenance.spill import in_blocks, merged

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.listed_blobs import BlobName


@dataclass(slots=True)
class _Amount:
    objects: int = 0
    size: int = 0

    def add(self, objects: int, size: int) -> None:
        self.objects += objects
        self.size += size

    @property
    def total(self) -> RootAmount:
        return RootAmount(self.objects, self.size)


@dataclass(slots=True)
class BlobFates:
    """Which blobs go, and how much the others are; with the metadata files of each."""

    go: set[BlobName] = field(default_factory=set)
    """Those that only runs refer to which go now."""
    freed: _Amount = field(default_factory=_Amount)
    """How much these are."""
    migrated: _Amount = field(default_factory=_Amount)
    """Among them what migrations left behind."""
    soon: _Amount = field(default_factory=_Amount)
    """Those that only runs refer to which go, now or later, and that stay for now."""
    shared: _Amount = field(default_factory=_Amount)
    """Those that runs which go refer to, and runs that stay."""
    unreferred: _Amount = field(default_factory=_Amount)
    """Those that no run refers to."""
    former: _Amount = field(default_factory=_Amount)
    """Those that stay because migrated artifacts were that before."""


def blob_fates(holdings: Holdings, marks: BlobMarks, held: Collection[str]) -> BlobFates:
    """What becomes of each blob that is stored, or of which metadata is left. Nothing goes of the flows ``held``."""
    fates = BlobFates()
    for flow in sorted(holdings.blobs.flows | holdings.metas.flows):
        for key, mark, is_blob, objects, size in _stored(holdings, marks, flow):
            stay, go, later = mark & ANY_KEPT, mark & ANY_DUE, mark & ANY_LATER
            # Metadata alone is what an interrupted collection leaves of a blob.
            goes = go and not stay and not later and flow not in held
            if goes:
                fates.go.add((flow, unpacked_key(key)))
                fates.freed.add(objects, size)
                if mark & MIGRATED:
                    fates.migrated.add(objects, size)
            elif go or later:
                (fates.shared if stay else fates.soon).add(objects, size)
            elif not stay and is_blob:
                fates.unreferred.add(objects, size)
            if mark & (FORMER_KEPT | FORMER_LATER) and not mark & (KEPT | LATER) and not goes:
                fates.former.add(objects, size)
    return fates


def _stored(holdings: Holdings, marks: BlobMarks, flow: str) -> Iterator[tuple[bytes, int, bool, int, int]]:
    """Each blob of a flow by its packed key: its marks, whether it is there itself, and the number and bytes of its
    objects."""
    parts = (
        ((key, 0, size) for key, size in holdings.blobs.sizes(flow)),
        ((key, 1, size) for key, size in holdings.metas.sizes(flow)),
        ((key, 2, mark) for key, mark in marks.in_order(flow)),
    )
    rows: Iterator[tuple[bytes, int, int]] = merged(map(in_blocks, parts))
    for key, group in groupby(rows, itemgetter(0)):
        mark = objects = size = 0
        is_blob = False
        for _, what, value in group:
            if what == 2:
                mark |= value
            else:
                objects += 1
                size += value
                is_blob |= what == 0
        if objects:
            yield key, mark, is_blob, objects, size
