"""What a bulk operation did: counted, and shown to people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mfstore.display.amounts import count, duration, size
from mfstore.display.cards import Card, Cell, Grid, code_cell
from mfstore.display.shown import Shown
from mfstore.s3.transfers.scheduler import TransferCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mfstore.s3.transfers.outcomes import Outcome

MOVING = ("get_many", "get_ranges", "put_many", "copy")
"""Operations that move bytes, here or at the service. The others have no speed: a head tells how large an object is."""
SHOWN = 10
"""Failed items, or outcomes, that are listed."""


MOST_LATENCIES = 2 * 4096
"""Of the latencies that are kept every second one goes when there are so many."""


@dataclass(slots=True, repr=False)
class BulkStats(Shown, TransferCounts):
    """What a bulk operation did, so far. Times are seconds, sizes bytes."""

    engine: str
    """"native" or "aiobotocore"."""
    operation: str
    """The method that was called."""
    items: int = 0
    """Outcomes handed out."""
    failed: int = 0
    """Of them, those with an error."""
    bytes: int = 0
    """Sizes of those without, added up."""
    latencies: list[float] = field(default_factory=list)
    """Seconds per successful item: all of them up to ``SAMPLE``, then every ``stride``-th."""
    slowest: list[tuple[float, str]] = field(default_factory=list)
    """Seconds and keys of the five that took longest."""
    stride: int = 1

    SAMPLE = MOST_LATENCIES // 2

    def add(self, outcome: Outcome) -> None:
        """Count one item."""
        self.items = items = self.items + 1
        if outcome.error is not None:
            self.failed += 1
            return
        self.bytes += outcome.size
        seconds = outcome.seconds
        if self.stride == 1 or items % self.stride == 0:
            latencies = self.latencies
            latencies.append(seconds)
            if len(latencies) >= MOST_LATENCIES:
                del latencies[::2]
                self.stride *= 2
        slowest = self.slowest
        if len(slowest) < 5 or seconds > slowest[-1][0]:
            slowest.append((seconds, outcome.key))
            slowest.sort(reverse=True)
            del slowest[5:]

    @property
    def speed(self) -> float:
        """Bytes per second; 0.0 of an operation that moves none, such as ``head_many``."""
        return self.bytes / self.seconds if self.seconds and self.operation in MOVING else 0.0

    def _card(self) -> Card:
        return stats_card(self)

    def percentile(self, share: float) -> float:
        """Seconds within which ``share`` (0 to 1) of the successful items ended; 0.0 without any."""
        if not self.latencies:
            return 0.0
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = (
            "engine", "operation", "items", "failed", "bytes", "requests", "retries", "throttled", "hedged", "verified",
            "verify_failures", "seconds", "concurrency", "memory",
        )  # fmt: skip
        return {
            **{name: getattr(self, name) for name in names},
            "bytes_per_second": self.speed,
            "p50": self.percentile(0.5),
            "p90": self.percentile(0.9),
            "p99": self.percentile(0.99),
            "slowest": [{"key": key, "seconds": seconds} for seconds, key in self.slowest],
        }


def stats_card(stats: BulkStats, notes: tuple[str, ...] = ()) -> Card:
    """The numbers of an operation."""
    moves = stats.operation in MOVING
    items = count(stats.items, "item") + (f", {stats.failed:,} failed" if stats.failed else "")
    facts: list[tuple[str, Cell | str]] = [("items", Cell(items, look="bad" if stats.failed else ""))]
    if moves:
        speed = f"{size(stats.bytes)} in {duration(stats.seconds)}: {size(stats.speed)}/s"
        facts.append(("moved", Cell(speed, f"{stats.bytes:,} bytes")))
    else:
        facts.append(("took", duration(stats.seconds)))
        if stats.bytes:
            facts.append(("objects", Cell(f"of {size(stats.bytes)} in all", f"{stats.bytes:,} bytes")))
    if stats.latencies:
        facts.append(("per item", ", ".join(f"p{n} {duration(stats.percentile(n / 100))}" for n in (50, 90, 99))))
    requests = f"{stats.requests:,}, at most {stats.concurrency:,} at once"
    more = ((stats.retries, "tried again"), (stats.throttled, "slowed down"), (stats.hedged, "hedged"))
    facts.append(("requests", ", ".join([requests, *(f"{number:,} {what}" for number, what in more if number)])))
    if stats.verified:
        differed = f", {stats.verify_failures:,} differed" if stats.verify_failures else ""
        facts.append(("verified", Cell(size(stats.verified) + differed, look="bad" if differed else "")))
    slowest = ", ".join(f"{key} {duration(seconds)}" for seconds, key in stats.slowest[:3])
    if slowest:
        facts.append(("slowest", code_cell(slowest)))
    return Card(stats.operation, f"by {stats.engine}", tuple(facts), notes=notes)


def result_card(stats: BulkStats, outcomes: Sequence[Outcome]) -> Card:
    """The same with the items that failed, as far as outcomes are remembered; of few outcomes, all of them."""
    card = stats_card(stats)
    failed = [(outcome.key, outcome.error) for outcome in outcomes if outcome.error is not None]
    if failed:
        rows = tuple((code_cell(key), Cell(error.message, str(error))) for key, error in failed[:SHOWN])
        grid = Grid(("failed", "why"), rows, more=len(failed) - len(rows))
    elif 0 < len(outcomes) <= SHOWN:
        grid = Grid(
            ("key", "size", "took"),
            tuple((code_cell(one.key, one.url), size(one.size), duration(one.seconds)) for one in outcomes),
            (1, 2),
        )
    else:
        return card
    return card._replace(grids=(grid,))
