"""How fast bytes may move: so many per second, in both directions together, of all connections of an event loop."""

from __future__ import annotations

import asyncio
import time

BURST_SECONDS = 0.05
"""What may move at once, after a pause: a loop that comes late by some milliseconds does not fall behind. As in
src/http/pace.h."""


class Pace:
    """``rate`` bytes per second. Used in one loop."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._paid = 0.0
        """When all that has moved had its time (time.monotonic())."""

    async def moved(self, size: int) -> None:
        """``size`` bytes were received, or are about to be sent: wait until they had their time."""
        now = time.monotonic()
        self._paid = max(self._paid, now) + size / self._rate
        if (pause := self._paid - BURST_SECONDS - now) > 0:
            await asyncio.sleep(pause)
