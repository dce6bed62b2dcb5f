"""Into which parts the work of a fleet is cut. What decides is pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mfstore.format.progress import SHARDS as DIGITS
from mfstore.maintenance.metaflow.known_format import shard_of_flow

if TYPE_CHECKING:
    from mfstore.fleet.request import Request


class Shard(NamedTuple):
    """One part of the work."""

    number: int
    """The first is 1."""
    of: int
    flows: tuple[str, ...] = ()
    """Of a root: the flows in it, whole: what their runs share lies by flow."""

    @property
    def digits(self) -> Sequence[str]:
        """Of a store: the first two digits of the names in it."""
        return DIGITS[self.number - 1 :: self.of]

    def __str__(self) -> str:
        return f"part {self.number} of {self.of}" + (f" ({', '.join(self.flows)})" if self.flows else "")


def cut_root(flows: Collection[str], count: int) -> list[Shard]:
    """The flows in at most so many parts; at least one part. Nothing tells how large flows are before they are listed.
    Flows of which collections remember files together are in one part, as far as that goes, so that each part reads
    little that others read."""
    names = sorted(flows, key=lambda flow: (shard_of_flow(flow), flow))
    number = max(1, min(count, len(names)))
    cuts = [len(names) * part // number for part in range(number + 1)]
    return [Shard(part + 1, number, tuple(names[cuts[part] : cuts[part + 1]])) for part in range(number)]


def cut_store(request: Request) -> list[Shard]:
    """The parts of a store. Whoever verifies less than every byte reads all recipes for it: one part."""
    count = 1 if request.action == "verify" and request.level != "full" else request.shards
    return [Shard(number, count) for number in range(1, count + 1)]
