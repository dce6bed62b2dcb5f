"""A mixed workload: which operations, in which shares, how fast. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from math import gcd
from random import Random

from mfstore.errors import InvalidKey

MIXED = "mixed"
"""The operation that all operations of a mix together are called."""
SHARES = "get=45,put=15,delete=10,stat=30"
"""Where nothing is said: those of warp."""
MOST = 100_000
"""Operations of a closed loop, at most, where nothing is said: what it may take is told before it starts."""
MIXABLE = ("get", "put", "delete", "head")
ALIASES = {"stat": "head"}
"""warp's words for mfstore's."""
ARRIVALS = ("poisson", "constant")
CLOSED_THREADS, OPEN_THREADS = 16, 256
"""Operations at once, where nothing is said. An open loop has to begin operations while others hang; more than so many
wait, and are counted as waiting."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Operations on objects that exist, drawn in given shares."""

    shares: tuple[tuple[str, int], ...]
    """(operation, weight)."""
    total: int
    """Operations in all, at most: the time limit may end it earlier."""
    rate: float | None = None
    """Open loop: operations per second that begin, whatever became of the earlier ones. None, a closed loop: each
    thread begins one when its last has ended."""
    arrivals: str = "poisson"
    """Open loop: ``poisson``, as many clients that know nothing of each other; ``constant``, at equal distances."""

    @property
    def seconds(self) -> float | None:
        """How long the schedule of an open loop is; None of a closed one."""
        return None if self.rate is None else self.total / self.rate

    @property
    def expected(self) -> dict[str, int]:
        """Of each operation how many there are when all are carried out, rounded up."""
        weight = sum(share for _, share in self.shares)
        return {name: -(-self.total * share // weight) for name, share in self.shares}

    @property
    def name(self) -> str:
        """For people: ``get=45,put=15 at 200/s``."""
        text = ",".join(f"{name}={share}" for name, share in self.shares)
        return text if self.rate is None else f"{text}, {self.rate:g}/s {self.arrivals}"

    def part(self, number: int, of: int) -> Mix:
        """What one of several clients does of it: all parts together are the mix."""
        total = self.total * (number + 1) // of - self.total * number // of
        return Mix(self.shares, total, self.rate and self.rate * total / self.total, self.arrivals)


def parse_shares(text: str) -> tuple[tuple[str, int], ...]:
    """``get=45,put=15,delete=10,stat=30`` as shares. InvalidKey for what no pool can bear."""
    shares: dict[str, int] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, share = word.partition("=")
        name = ALIASES.get(name.strip(), name.strip())
        if name not in MIXABLE or not share.strip().isdecimal() or name in shares:
            raise InvalidKey(
                "not a share of a mix", found=repr(word), expected="such as get=45,put=15,delete=10,stat=30"
            )
        shares[name] = int(share)
    shares = {name: share for name, share in shares.items() if share}
    if not shares:
        raise InvalidKey("a mix without operations", found=repr(text), expected="such as get=75,put=25")
    if shares.get("delete", 0) > shares.get("put", 0):
        raise InvalidKey(
            "a mix that deletes more than it stores runs out of objects", found=repr(text),
            hint="Let put have at least the share of delete",
        )  # fmt: skip
    return tuple(shares.items())


def parse_rate(text: str) -> float:
    """``200/s``, ``200``, ``30/min`` as operations per second. InvalidKey for anything else."""
    number, _, unit = text.strip().partition("/")
    seconds = {"": 1, "s": 1, "min": 60, "h": 3600}.get(unit.strip())
    try:
        rate = float(number) / (seconds or 0)
    except (ValueError, ZeroDivisionError):
        rate = 0.0
    if not 0 < rate < 1e6:
        raise InvalidKey("not a rate", found=repr(text), expected="such as 200/s or 30/min")
    return rate


def draws(mix: Mix, seed: int) -> Iterator[str]:
    """The operations, one after the other, without end. Shares are exact in every round of as many draws as the shares
    need, not only in the long run: two runs then differ by what was measured alone."""
    divisor = gcd(*(share for _, share in mix.shares))
    deck = [name for name, share in mix.shares for _ in range(share // divisor)]
    for turn in count():
        Random(f"{seed}/{turn}").shuffle(deck := [*deck])
        yield from deck


def schedule(mix: Mix, seed: int, phase: float = 0.0) -> list[float]:
    """When the operations of an open loop begin, in seconds from its start. Poisson arrivals are drawn as sorted
    uniform ones: a Poisson process of which the number is known is that, and the plan is then exact. Constant ones of
    several clients differ by ``phase``, a share of the distance."""
    assert mix.rate is not None, "only an open loop has one"
    if mix.arrivals == "constant":
        return [(number + phase) / mix.rate for number in range(mix.total)]
    random = Random(f"{seed}/arrivals")
    return sorted(random.uniform(0.0, mix.total / mix.rate) for _ in range(mix.total))
