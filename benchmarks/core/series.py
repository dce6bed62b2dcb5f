"""Series of ten versions of one object, of which is known what changed from each to the next."""

import importlib.util
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

VERSIONS = 10
STEPS = range(1, VERSIONS)
SEED = 20261


class Version(NamedTuple):
    """One version of an object."""

    value: object
    changed: bytes | None = None
    """What no earlier version contains, by construction: new rows, cells, lines. None: everything, in the first one."""


Maker = Callable[[np.random.Generator, float], Iterator[Version]]


@dataclass(frozen=True)
class Series:
    """Ten versions that are the same in every process: same seed, same libraries, same bytes."""

    name: str
    description: str
    make: Maker
    needs: str
    """A package of the extra ``bench`` that the series cannot do without; "" if numpy and pandas are enough."""
    itemsize: int
    """Of numbers that are also to be compared with shuffle and zstd of every version; 0: not."""

    @property
    def available(self) -> bool:
        return not self.needs or importlib.util.find_spec(self.needs) is not None

    def versions(self, scale: float = 1.0, seed: int = SEED, count: int = VERSIONS) -> Iterator[Version]:
        """The versions one by one, with ``scale`` times the rows. Making one leaves the one before as it is."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        return islice(self.make(rng, scale), count)


REGISTERED: list[Series] = []


def series(description: str, needs: str = "", itemsize: int = 0) -> Callable[[Maker], Maker]:
    """Of a generator of versions, a series of its name."""

    def register(make: Maker) -> Maker:
        REGISTERED.append(Series(make.__name__.replace("_", "-"), description, make, needs, itemsize))
        return make

    return register


def scaled(count: int, scale: float, least: int = 20) -> int:
    """``count`` at full scale, and not so few that nothing is left to change."""
    return max(round(count * scale), least)
