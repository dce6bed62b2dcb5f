"""What the requests of one client came to, as values and for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfstore.display.amounts import count, duration, size
from mfstore.display.cards import Card, Grid
from mfstore.display.prometheus import Family, counter, text_of
from mfstore.display.shown import Shown

if TYPE_CHECKING:
    from mfstore.s3.transfers.scheduler import TransferCounts


@dataclass(frozen=True, slots=True, repr=False)
class ClientMetrics(Shown):
    """What a client has done since it was made, by all of its operations, in this process. Sizes in bytes."""

    requests: Mapping[tuple[str, str], int]
    """Requests that have ended, each try counted, by S3's operation and by how it ended: ``ok``, the status of the
    answer (``503``), or what came in place of one (``reset``, ``stall``, ``first-byte`` and so on)."""
    begun: int
    """Requests sent."""
    retries: int
    """Of them, tries after the first."""
    throttled: int
    """Answers by which the service asked to slow down."""
    hedged: int
    """Second requests for what was late."""
    received: int
    """Bytes of bodies that came, headers not counted."""
    sent: int
    """Bytes of bodies that went."""
    verified: int
    """Bytes whose checksum the service gave and was compared."""
    verify_failures: int
    """Bodies that differed from it."""
    seconds: float
    """Of all operations, added up: two that run side by side count twice."""

    def families(self) -> list[Family]:
        """As metrics of Prometheus, without labels of whose they are."""
        return [
            Family(
                "mfstore_s3_requests_total", "counter", "Requests to S3 that ended, by operation and by how.",
                [({"operation": operation, "result": result}, n) for (operation, result), n in self.requests.items()],
            ),
            counter("mfstore_s3_retries_total", "Requests to S3 that were tried again.", self.retries),
            counter("mfstore_s3_throttled_total", "Answers by which S3 asked to slow down.", self.throttled),
            counter("mfstore_s3_hedged_total", "Second requests for what was late.", self.hedged),
            counter("mfstore_s3_received_bytes_total", "Bytes of bodies that came from S3.", self.received),
            counter("mfstore_s3_sent_bytes_total", "Bytes of bodies that went to S3.", self.sent),
            counter("mfstore_s3_verified_bytes_total", "Bytes compared with S3's checksum.", self.verified),
            counter("mfstore_s3_verify_failures_total", "Bodies that are not as S3 sums them.", self.verify_failures),
            counter("mfstore_s3_operation_seconds_total", "Seconds that operations took, added up.", self.seconds),
        ]  # fmt: skip

    def prometheus(self) -> str:
        """As text of Prometheus."""
        return text_of(self.families())

    @property
    def summary(self) -> str:
        """Requests and bytes, in a few words."""
        parts = [count(self.begun, "request"), f"{size(self.received)} came", f"{size(self.sent)} went"]
        parts += [f"{count(self.throttled, 'time')} slowed down"] if self.throttled else []
        return ", ".join(parts)

    def _card(self) -> Card:
        more = ((self.retries, "tried again"), (self.throttled, "slowed down"), (self.hedged, "hedged"))
        requests = ", ".join([f"{self.begun:,}", *(f"{number:,} {what}" for number, what in more if number)])
        facts = [
            ("requests", requests), ("came", size(self.received)), ("went", size(self.sent)),
            ("took", duration(self.seconds)),
        ]  # fmt: skip
        if self.verified:
            failures = f", {self.verify_failures:,} differed" if self.verify_failures else ""
            facts.append(("verified", size(self.verified) + failures))
        rows = tuple((operation, result, f"{n:,}") for (operation, result), n in sorted(self.requests.items()))
        return Card("metrics", "", tuple(facts), (Grid(("request", "ended", ""), rows, (2,)),) if rows else ())


def client_metrics(counts: TransferCounts) -> ClientMetrics:
    """What was counted."""
    return ClientMetrics(
        requests=dict(sorted(counts.answers.items())), begun=counts.requests, retries=counts.retries,
        throttled=counts.throttled, hedged=counts.hedged, received=counts.moved - counts.sent, sent=counts.sent,
        verified=counts.verified, verify_failures=counts.verify_failures, seconds=counts.seconds,
    )  # fmt: skip
