"""Asking a second time for what is late, when little else is left."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable
from functools import partial
from typing import TYPE_CHECKING

from mfstore.records import dataclass, field

if TYPE_CHECKING:
    from mfstore.s3.calls import Call

HEDGE_SHARE = 0.05
HEDGE_FLOOR = 0.2
"""The last 5 % of small requests are asked for twice when they take longer than three times the 95th percentile, and
at least 0.2 s: S3 answers 1 in 1000 requests after more than 118 ms, a second connection usually at once."""
LOOK_SECONDS = 0.1
"""Between two looks at what is late."""
HEDGED_BYTES = 1 << 20
"""A call that moved more says nothing of how long a small one takes."""
EVIDENCE = 20
"""Durations without which nothing counts as slow; the last 200 are remembered."""


@dataclass(slots=True)
class Hedges:
    """How long small calls take, and the pairs of which the second was sent because the first was late. A call's own
    half of a pair is ``Try.hedge``: the second one."""

    next_look: float = 0.0
    """time.monotonic() of the next look at what is late."""
    recent: deque[float] = field(default_factory=partial(deque, maxlen=200))
    """Seconds that small calls took."""
    first_of: dict[int, Call] = field(default_factory=dict)
    """By the id of the second of a pair: the first."""

    def slow(self) -> float:
        """Seconds beyond which a call is late; infinite without evidence."""
        if len(self.recent) < EVIDENCE:
            return float("inf")
        ordered = sorted(self.recent)
        return max(HEDGE_FLOOR, 3 * ordered[int(len(ordered) * 0.95)])

    def _room(self, items: int) -> int:
        return max(1, int(HEDGE_SHARE * items)) - len(self.first_of)

    def most(self, items: int) -> int:
        """While more than so many are left none is asked for twice."""
        return max(2 * self._room(items), 2)

    def late(self, flying: Iterable[Call], announced: Container[int], items: int, now: float) -> list[Call]:
        """Those of the calls in flight, at the end of an operation of ``items``, that are worth a second one: none
        while more than a few are left."""
        small = [
            call for call in flying
            if call.tag.hedge is None and call.operation in ("GetObject", "HeadObject") and call.target is None
            and id(call) not in announced and call.tag.part is None and call.tag.job.error is None
        ]  # fmt: skip
        room = self._room(items)
        if not small or room <= 0 or len(small) > self.most(items):
            return []
        slow = self.slow()
        # A try that follows a refusal is late by its own time: the wait before it was ours.
        return [call for call in small if now - call.tag.sent > slow][:room]

    def pair(self, call: Call, second: Call) -> None:
        """``second`` is sent beside ``call``."""
        call.tag.hedge = second
        self.first_of[id(second)] = call

    def part(self, call: Call) -> Call | None:
        """A pair is one no more: the other of ``call``."""
        second = call.tag.hedge
        other = self.first_of.pop(id(second), None) if call is second else second
        self.first_of.pop(id(second), None)
        call.tag.hedge = None
        return other
