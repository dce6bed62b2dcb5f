"""What a copy did, or would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mfstore.display.shown import Shown
from mfstore.records import dataclass

if TYPE_CHECKING:
    from mfstore.display.cards import Card, Cell

OnConflict = Literal["raise", "skip", "overwrite"]
Outcome = Literal["new", "updated", "same", "kept", "overwritten"]


@dataclass(frozen=True, slots=True)
class CopiedRef:
    """What became of one ref."""

    name: str
    outcome: Outcome
    """"new": the destination had none of this name. "updated": its history went on from there. "same": it had all of
    it. Of one that the destination has set to something else: "kept" as it was there, or "overwritten"."""
    values: int
    """Values that its history got."""
    keys: int
    """Keys that were copied for it, and for no ref before it."""
    bytes: int
    """Bytes that were sent for these."""


@dataclass(frozen=True, slots=True, repr=False)
class Copied(Shown):
    """What ``Store.copy_to`` did, or with ``dry_run`` would do. Sizes are in bytes."""

    source: str
    """Where it was copied from."""
    destination: str
    keys: int
    """Keys that were copied."""
    there: int
    """Keys that the destination had."""
    chunks: int
    """Chunks that were sent in packs."""
    packs_whole: int
    """Packs that went as they are."""
    objects: int
    """Objects that were written: packs, parts of the index and recipes. Of a dry run packs and recipes, about."""
    sent: int
    """Their bytes. Of a dry run those of chunks and recipes, as they are stored at the source."""
    refs: tuple[CopiedRef, ...] = ()
    signatures: int = 0
    """Signatures of keys that were copied."""
    holds: int = 0
    """Holds that were copied."""
    done: bool = True
    """Whether it was done."""

    @property
    def kept(self) -> tuple[str, ...]:
        """The refs that the destination has set to something else, and that were left so."""
        return tuple(ref.name for ref in self.refs if ref.outcome == "kept")

    def _card(self) -> Card:
        from mfstore.display.amounts import count, size
        from mfstore.display.cards import Card, Grid

        told = f"{size(self.sent)} in {count(self.objects, 'object')}, with {count(self.chunks, 'chunk')}"
        facts: list[tuple[str, Cell | str]] = [
            ("from", self.source),
            ("keys", f"{self.keys:,}, and {self.there:,} were there already"),
            ("sent" if self.done else "to send", told),
        ]
        if self.signatures or self.holds:
            facts.append(("with", f"{count(self.signatures, 'signature')}, {count(self.holds, 'hold')}"))
        rows = tuple((ref.name, ref.outcome, f"{ref.values:,}", f"{ref.keys:,}", size(ref.bytes)) for ref in self.refs)
        grid = Grid(("ref", "", "values", "keys", "bytes"), rows[:SHOWN], more=max(0, len(rows) - SHOWN))
        return Card(
            "copied" if self.done else "to copy", f"to {self.destination}", facts=tuple(facts),
            grids=(grid,) if rows else (),
        )  # fmt: skip


SHOWN = 50
"""Refs that are listed; ``refs`` has all."""
