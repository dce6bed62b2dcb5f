"""What all parts of a save work with, and what they count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfstore.display.shown import Shown
from mfstore.records import NamedTuple, dataclass, field

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.display.cards import Card, Cell
    from mfstore.format.digests import Digest
    from mfstore.host.workers import Workers
    from mfstore.loading.fetch import Fetcher
    from mfstore.loading.reliance import Reliance
    from mfstore.loading.verified import VerifiedRanges
    from mfstore.saving.guard import Guard
    from mfstore.saving.index import ChunkIndex


class SaveContext(NamedTuple):
    """What one handle hands to each of its saves. A named tuple: a frozen dataclass of so many fields takes 2 ms of
    each program's start."""

    backend: Backend
    workers: Workers
    chunk_index: ChunkIndex
    fetcher: Fetcher
    """Reads chunks back."""
    reliance: Reliance
    """Tells which stored chunks an acknowledgement may rely on."""
    verified: VerifiedRanges
    guard: Guard
    digest: Digest
    algorithm: int
    """Number of ``digest``."""
    compress: str
    """As of ``Knobs``."""
    memory: int
    """Bytes of extra memory that one save may hold."""
    delta: bool = True
    """Whether chunks may be stored as deltas."""
    record: bool = True
    """Whether recipes say by whom and with what they were made."""


@dataclass(slots=True, repr=False)
class SessionStats(Shown):
    """What one operation did, or all operations of a handle since it was opened. Sizes in bytes."""

    artifacts: int = 0
    """Artifacts saved."""
    logical: int = 0
    """Bytes of the artifacts saved."""
    duplicate: int = 0
    """Of those, bytes already stored."""
    stored: int = 0
    """Bytes written."""
    objects: int = 0
    """Objects written."""
    codecs: dict[str, int] = field(default_factory=dict)
    """Newly stored artifact bytes by codec."""
    loaded: int = 0
    """Bytes of the artifacts loaded."""
    saves: int = 0
    """Operations that stored something, each however many artifacts."""
    loads: int = 0
    """Operations that loaded something; of many keys, each counts."""
    saving: float = 0.0
    """Seconds that saves took, from their first object on."""
    committing: float = 0.0
    """Of these, seconds in which everything was written or sent."""
    loading: float = 0.0
    """Seconds that loads took, without looking up their recipes."""

    def _card(self) -> Card:
        from mfstore.display.amounts import count, size
        from mfstore.display.cards import Card

        facts: list[tuple[str, Cell | str]] = []
        if self.artifacts or self.stored:
            saved = f"{count(self.artifacts, 'artifact')}, {size(self.logical)}"
            if self.duplicate:
                saved += f", of which {size(self.duplicate)} were there already"
            facts.append(("saved here", saved))
            facts.append(("written", f"{size(self.stored)} in {count(self.objects, 'object')}"))
        if self.codecs:
            facts.append(("codecs", ", ".join(f"{name} {size(taken)}" for name, taken in self.codecs.items())))
        if self.loaded:
            facts.append(("loaded here", size(self.loaded)))
        return Card("this handle", facts=tuple(facts), notes=() if facts else ("Nothing was saved or loaded.",))
