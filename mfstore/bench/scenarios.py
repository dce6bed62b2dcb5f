"""What is measured: scenarios, and the profiles that are made of them.

A scenario is some objects (or bundles of artifacts) of some sizes, moved in some way; its operations run one after the
other on the same objects, so that what was put is what is read back and compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from mfstore.bench.mixes import MIXED, Mix
from mfstore.errors import InvalidKey
from mfstore.settings import ENGINES

OBJECTS, ARTIFACTS = "objects", "artifacts"
OPERATIONS = {OBJECTS: ("put", "get", "head", "list", "delete"), ARTIFACTS: ("save", "load")}
"""Of each layer, in the order in which they run."""
SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
SIZE_LETTERS = {"K": "KiB", "M": "MiB", "G": "GiB"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One point of the grid."""

    layer: str
    """``objects``: bytes by key, as the backend has them. ``artifacts``: bundles in a store."""
    sizes: tuple[tuple[int, int], ...]
    """(bytes, how many): of the objects, or of the artifacts of one bundle."""
    operations: tuple[str, ...]
    concurrency: int | None = None
    """Requests at once (S3) or threads (elsewhere); None: mfstore's own choice."""
    compressible: int = 0
    """Per cent of the bytes that a compressor can remove."""
    duplicate: int = 0
    """Artifacts: per cent of the bytes of each bundle that the store holds already."""
    engine: str | None = None
    """S3: ``native``, ``aiobotocore``, or the name of a peer; None: mfstore's own choice."""
    failure: int = 0
    """Objects on S3: per cent of first tries that fail with 500; half as many of the second, and so on."""
    bundles: int = 1
    """Artifacts: how many bundles, each a save and a load."""
    mix: Mix | None = None
    """Objects: what is done to them once they are there, in place of one operation after the other."""

    @property
    def count(self) -> int:
        """Objects, or artifacts of one bundle."""
        return sum(count for _, count in self.sizes)

    @property
    def size(self) -> int:
        """Bytes of them all."""
        return sum(size * count for size, count in self.sizes)

    @property
    def load(self) -> str:
        """What is moved, for people."""
        text = " + ".join(f"{count} x {size_text(size)}" for size, count in self.sizes)
        return text if self.layer == OBJECTS else f"{self.bundles} x ({text})"

    @property
    def name(self) -> str:
        """All that distinguishes it, for people."""
        parts = [self.load]
        parts += [self.mix.name] if self.mix else []
        parts += [f"at {self.concurrency}"] if self.concurrency else []
        parts += [f"{self.compressible} % compressible"] if self.compressible else []
        parts += [f"{self.duplicate} % duplicate"] if self.duplicate else []
        parts += [f"{self.failure} % failing"] if self.failure else []
        parts += [self.engine] if self.engine else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Axes:
    """A grid: the product of these."""

    layer: str
    sizes: tuple[tuple[tuple[int, int], ...], ...]
    operations: tuple[str, ...]
    concurrency: tuple[int | None, ...] = (None,)
    compressible: tuple[int, ...] = (0,)
    duplicate: tuple[int, ...] = (0,)
    engines: tuple[str | None, ...] = (None,)
    failure: tuple[int, ...] = (0,)
    bundles: int = 1

    def scenarios(self) -> Iterator[Scenario]:
        """The points; not those with more requests at once than there are objects, which equal another."""
        grid = product(self.sizes, self.compressible, self.duplicate, self.failure, self.concurrency, self.engines)
        for sizes, compressible, duplicate, failure, concurrency, engine in grid:
            found = Scenario(
                self.layer, sizes, self.operations, concurrency, compressible, duplicate, engine, failure, self.bundles
            )
            if self.layer == ARTIFACTS or concurrency is None or concurrency <= found.count or concurrency == 1:
                yield found


@dataclass(frozen=True, slots=True)
class Profile:
    """Axes that belong together, and how long one operation of one scenario may take."""

    name: str
    axes: tuple[Axes, ...]
    seconds: float

    def scenarios(self) -> list[Scenario]:
        """All points, once each."""
        return list(dict.fromkeys(found for axes in self.axes for found in axes.scenarios()))


def _each(sizes: Sequence[int], budget: int, most: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """As many objects of each size as fit ``budget`` bytes: at least 4, at most ``most``."""
    return tuple(((size, max(4, min(most, budget // size))),) for size in sizes)


LARGEST_BUNDLE = 1 << 30
"""Bytes of one bundle at most, whatever count is asked for: a bundle is saved from memory."""
KIB, MIB = 1 << 10, 1 << 20

QUICK = Profile(
    "quick",
    (
        Axes(OBJECTS, _each((4 * KIB, MIB), 48 * MIB, 300), OPERATIONS[OBJECTS]),
        Axes(ARTIFACTS, (((KIB, 500),), ((16 * MIB, 1),)), OPERATIONS[ARTIFACTS], duplicate=(0, 90), bundles=3),
    ),
    seconds=4,
)
"""Under a minute on two cores and a local disk: enough to see that it works, and the order of magnitude."""
ADMIN = Profile(
    "admin",
    (
        Axes(
            OBJECTS, _each((KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB), 256 * MIB, 2000), OPERATIONS[OBJECTS],
            concurrency=(1, 4, 16, 64, 256),
        ),
        Axes(
            ARTIFACTS, (((KIB, 1000),), ((MIB, 64),), ((64 * MIB, 1),)), OPERATIONS[ARTIFACTS], bundles=5,
            compressible=(0, 50, 90), duplicate=(0, 50, 100),
        ),
    ),
    seconds=20,
)  # fmt: skip
"""Sizes and numbers of parallel requests: where throughput stops growing is what the place can do."""
MANY = (0, 1, 10, 50, 500, 10_000)
METAFLOW_LARGE = 256 * MIB


def metaflow(large: int = METAFLOW_LARGE) -> Profile:
    """The grid of Metaflow's own S3 benchmarks (its test/data/s3): small objects of 1 B by medium ones of 1 MiB by
    ``large`` ones (there 5 GiB), each mix with 0, 10, 50 and 90 % of the first tries failing."""
    mixes = tuple(
        tuple((size, count) for size, count in ((1, small), (MIB, medium), (large, big)) if count)
        for small, medium, big in product(MANY, MANY[:5], MANY[:3])
        if small + medium + big
    )
    return Profile("metaflow", (Axes(OBJECTS, mixes, ("put", "get", "head"), failure=(0, 10, 50, 90)),), seconds=60)


def profile(name: str, large: int = METAFLOW_LARGE) -> Profile:
    """The profile of that name. InvalidKey when there is none."""
    found = {"quick": QUICK, "admin": ADMIN, "metaflow": metaflow(large)}.get(name)
    if found is None:
        raise InvalidKey("no such profile", found=repr(name), expected="quick, admin or metaflow")
    return found


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the caller wants otherwise than the profile has it; None leaves it."""

    sizes: tuple[int, ...] | None = None
    count: int | None = None
    concurrency: tuple[int, ...] | None = None
    compressible: tuple[int, ...] | None = None
    duplicate: tuple[int, ...] | None = None
    engines: tuple[str, ...] | None = None
    failure: tuple[int, ...] | None = None
    operations: tuple[str, ...] | None = None
    peers: tuple[str, ...] = ()
    """Other clients, beside which mfstore is measured: putting and getting objects, without injected failures."""


def adapted(found: Profile, overrides: Overrides, *, cloud: bool) -> Profile:
    """The profile with other axes. Engines, failures and peers are of clouds (``cloud``: whether it is one): elsewhere
    asking for them is InvalidKey, and what a profile has of them is left out."""
    if not cloud and (overrides.engines or overrides.failure or overrides.peers):
        hint = "Leave out --engine, --failure and --peers"
        raise InvalidKey("engines, injected failures and peers exist for clouds only", hint=hint)
    if unknown := set(overrides.engines or ()) - set(ENGINES):
        raise InvalidKey("no such engine", found=", ".join(sorted(unknown)), expected=", ".join(ENGINES))
    if overrides.peers and overrides.failure:
        raise InvalidKey("peers are measured without injected failures", hint="Leave out --failure or --peers")
    known = {name for names in OPERATIONS.values() for name in names}
    if overrides.operations and (unknown := set(overrides.operations) - known):
        raise InvalidKey("no such operation", found=", ".join(sorted(unknown)), expected=", ".join(sorted(known)))
    changed = (_adapted(axes, overrides, cloud) for axes in found.axes)
    return replace(found, axes=tuple(axes for axes in changed if axes.operations))


def _adapted(axes: Axes, overrides: Overrides, cloud: bool) -> Axes:
    sizes = axes.sizes
    if overrides.sizes is not None:
        sizes = _each(overrides.sizes, 256 * MIB, 1000)
    of_objects = axes.layer == OBJECTS
    if overrides.count is not None:
        most = overrides.count
        sizes = tuple(
            tuple((size, most if of_objects else max(1, min(most, LARGEST_BUNDLE // size))) for size, _ in mix)
            for mix in sizes
        )
    wanted = overrides.operations
    if overrides.peers:
        wanted = tuple(name for name in ("put", "get") if wanted is None or name in wanted)
    return replace(
        axes,
        sizes=sizes,
        concurrency=overrides.concurrency or axes.concurrency,
        compressible=overrides.compressible or axes.compressible,
        duplicate=axes.duplicate if of_objects or overrides.duplicate is None else overrides.duplicate,
        engines=(*(overrides.engines or axes.engines), *overrides.peers),
        failure=(overrides.failure or axes.failure) if cloud and of_objects and not overrides.peers else (0,),
        operations=tuple(name for name in axes.operations if wanted is None or name in wanted),
    )


def mixed(scenarios: Sequence[Scenario], mix: Mix) -> list[Scenario]:
    """The scenarios with objects, each as the pool of a mix."""
    found = [scenario for scenario in scenarios if scenario.layer == OBJECTS]
    return list(dict.fromkeys(replace(scenario, operations=(MIXED,), mix=mix) for scenario in found))


def size_text(size: int) -> str:
    """Bytes as the option takes them: ``64 KiB``."""
    for unit in ("GiB", "MiB", "KiB"):
        if size >= SIZE_UNITS[unit] and size % SIZE_UNITS[unit] == 0:
            return f"{size // SIZE_UNITS[unit]} {unit}"
    return f"{size} B"


def parse_size(text: str) -> int:
    """``4096``, ``64KiB``, ``1 MB``, ``16M`` as bytes. InvalidKey for anything else."""
    found = re.fullmatch(r"\s*([1-9][0-9]*)\s*([A-Za-z]*)\s*", text)
    number, unit = found.groups() if found else ("", "")
    unit = SIZE_LETTERS.get(unit, unit) or "B"
    if not number or unit not in SIZE_UNITS:
        raise InvalidKey("a size is a number and a unit", found=repr(text), expected="such as 4096, 64KiB, 1MB or 16M")
    return int(number) * SIZE_UNITS[unit]
