"""A benchmark by the tasks of a fleet: each is a client, and all begin at the same time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mfstore.bench.clients import ClientReport, decode_request, take_part
from mfstore.fleet.request import Request
from mfstore.fleet.shards import Shard


@dataclass(frozen=True, slots=True)
class Measured:
    """What the clients of a benchmark brought."""

    reports: tuple[ClientReport, ...]

    def __str__(self) -> str:
        return f"measured by {len(self.reports)} clients"


def measure_shard(request: Request, shard: Shard) -> Measured:
    """Be one of the clients. Another try of a task that was lost is Refused: the others have measured without it."""
    asked = decode_request(request.measurement)
    return Measured((take_part(replace(asked, number=shard.number - 1, clients=shard.of)),))
