"""How much memory results may take before they are handed out."""

from __future__ import annotations

from dataclasses import dataclass

from mfstore.s3.aws.pages import Page
from mfstore.s3.transfers.outcomes import Outcome

OUTCOME = 2 << 10
"""Bytes of memory an outcome takes with the headers of its response."""


@dataclass(slots=True)
class Budget:
    """Bytes results may take before they are handed out."""

    limit: int
    used: int = 0
    most: int = 0

    def take(self, size: int) -> None:
        """Reserve (or, negative, give back)."""
        self.used += size
        if self.used > self.most:
            self.most = self.used

    def fits(self, size: int) -> bool:
        """Whether so much more is allowed. One job always is."""
        return self.used == 0 or self.used + size <= self.limit


def held(outcome: Outcome) -> int:
    """Bytes an outcome takes while it waits to be handed out."""
    data = outcome.data
    size = len(data) if isinstance(data, (bytes, memoryview)) else 0
    return max(size, data.memory if isinstance(data, Page) else 0, OUTCOME)
