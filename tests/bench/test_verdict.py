"""What a measurement is bound by, on sites made up here: each has one narrow place, and is known by it."""

from dataclasses import dataclass, replace
from math import inf

import pytest

from mfstore.bench.ceilings import Ceilings
from mfstore.bench.link import Link
from mfstore.bench.measure import NEVER_HELD, InFlight, Slices, Spread, Tail, Usage
from mfstore.bench.results import Cell
from mfstore.bench.scenarios import ARTIFACTS, OBJECTS, Scenario
from mfstore.bench.verdict import Site, judge
from mfstore.host.control_group import GroupCounts

KIB, MIB = 1 << 10, 1 << 20
CORES = 4
CEILINGS = Ceilings(CORES, 5e9, 18e9, 3e9, 1e9, 2e9, 3e9, 1e9, 10e9)
SECONDS = 10.0


@dataclass(frozen=True)
class World:
    """A place, and the machine beside it. Requests take ``away`` and ``service`` seconds, and their bytes what a
    connection takes; whatever is shared has a limit, behind which they queue."""

    away: float = 0.0002
    service: float = 0.001
    connection: float = inf
    bandwidth: float = inf
    requests: float = inf
    """Per second, that the service carries out."""
    refused: float = 0.0
    """Share of requests that are answered 503."""
    own_cpu: float = 20e-6
    """Seconds for an object."""
    core_seconds: float = 0.0
    """Of them, those that one thread alone can spend."""
    neighbours: float = 0.0
    """Cores that other programs keep busy."""
    waited: float | None = None
    """Share of the time for which this process had to wait for a CPU."""
    pressure: float | None = None
    group: GroupCounts = NEVER_HELD
    kind: str = "s3"
    loopback: bool = False
    quota: float | None = None
    linked: bool = True
    engine: str = "native"

    @property
    def site(self):
        least = self.away + self.service
        link = Link(self.away, None, least) if self.linked and self.kind == "s3" else None
        return Site(self.kind, self.loopback, link, self.quota, None, CORES)

    def cell(self, operation="get", size=4 * KIB, at_once=1, chosen=None, layer=OBJECTS, **more):
        """``chosen`` says how many mfstore had under way by itself."""
        number = chosen or at_once
        alone = self.away + self.service + size / self.connection
        rate = min(
            number / alone, self.bandwidth / size, self.requests, CORES / self.own_cpu,
            1 / self.core_seconds if self.core_seconds else inf,
        )  # fmt: skip
        took = number / rate
        answered = self.away + self.service + (took - alone if rate < self.bandwidth / size else 0)
        count = int(rate * SECONDS)
        fields = {
            "latency": spread_at(took), "first_byte": spread_at(answered if operation == "get" else None),
            "slices": Slices(1.0, tuple([rate * size] * 10), tuple([rate] * 10)), "tail": Tail(SECONDS, SECONDS),
            "in_flight": InFlight(number, number, tuple([float(number)] * 10)) if chosen else None,
        }  # fmt: skip
        usage = Usage(
            SECONDS, rate * self.own_cpu * SECONDS, min(rate * self.own_cpu + self.neighbours, CORES) * SECONDS,
            1 << 20, rate * self.core_seconds * SECONDS, times(self.waited), times(self.pressure), self.group,
        )  # fmt: skip
        scenario = Scenario(
            layer, ((size, 10_000),), ("put", "get"), None if chosen else at_once,
            engine=None if self.engine == "native" else self.engine,
        )  # fmt: skip
        return Cell(**{
            "scenario": scenario, "number": 0, "operation": operation, "engine": self.engine, "objects": count,
            "failed": 0, "wanted": count, "bytes": count * size, "usage": usage, "verified": 0, "retries": 0,
            "throttled": int(count * self.refused), "failures": 0, "requests": {"any": count}, "stored": None,
            **fields, **more,
        })  # fmt: skip

    def grid(self, operation="get", sizes=(4 * KIB,), numbers=(1, 4, 16, 64)):
        return [self.cell(operation, size, number) for size in sizes for number in numbers]


def spread_at(seconds):
    if seconds is None:
        return Spread(0, None, None, None, None, None, ())
    return Spread(1000, seconds, seconds, seconds, seconds, seconds, (seconds,) * 101)


def times(share):
    return None if share is None else share * SECONDS


FAR = World(away=0.06)
FULL = {"neighbours": 4.0, "waited": 0.5, "pressure": 0.9}


def words(cells, world):
    return [judge(cell, CEILINGS, world.site, cells).bound for cell in cells]


@pytest.mark.parametrize(
    ("world", "operation", "sizes", "expected"),
    [
        pytest.param(FAR, "get", (4 * KIB,), ["latency"] * 4, id="latency"),
        pytest.param(FAR, "put", (4 * KIB,), ["latency"] * 4, id="latency of puts"),
        pytest.param(replace(FAR, **FULL), "get", (4 * KIB,), ["latency"] * 4, id="latency, with busy neighbours"),
        pytest.param(replace(FAR, linked=False, **FULL), "put", (4 * KIB,), ["latency"] * 4, id="the same, unmeasured"),
        pytest.param(
            World(away=0.001, service=0.05), "get", (4 * KIB,), ["latency"] * 4, id="a slow service that scales"
        ),
        pytest.param(
            replace(FAR, requests=250), "get", (4 * KIB,), ["latency"] * 3 + ["network or service"],
            id="a service with so many requests per second",
        ),
        pytest.param(
            replace(FAR, bandwidth=1e9, connection=1e9), "get", (16 * MIB,), ["latency"] * 2 + ["network or service"] * 2,
            id="bandwidth",
        ),
        pytest.param(replace(FAR, connection=5e6), "get", (4 * MIB,), ["per-connection rate"] * 4, id="per connection"),
        pytest.param(
            replace(FAR, connection=5e6), "put", (4 * KIB, 4 * MIB, 32 * MIB),
            ["latency"] * 4 + ["per-connection rate"] * 8, id="per connection, of puts, over sizes",
        ),
        pytest.param(
            replace(FAR, connection=5e6, **FULL), "put", (4 * MIB,), ["per-connection rate"] * 4,
            id="per connection, with busy neighbours",
        ),
        pytest.param(replace(FAR, refused=0.05), "get", (4 * KIB,), ["throttling"] * 4, id="throttled by the service"),
        pytest.param(
            replace(FAR, group=GroupCounts(100, 60, 4.0), quota=0.5, **FULL), "get", (4 * KIB,), ["cpu quota"] * 4,
            id="throttled by the control group",
        ),
        pytest.param(
            World(own_cpu=0.01, service=0.02, quota=1.5), "get", (4 * KIB,), ["latency"] + ["cpu quota"] * 3,
            id="the quota of the control group",
        ),
        pytest.param(
            replace(FAR, group=GroupCounts(100, 6, 0.1), quota=3.5), "get", (4 * KIB,), ["latency"] * 4,
            id="hardly throttled by it",
        ),
        pytest.param(World(service=0.02, own_cpu=0.01), "get", (4 * KIB,), ["latency"] * 2 + ["cpu"] * 2, id="all cores"),
        pytest.param(
            World(own_cpu=0.001, core_seconds=0.001), "get", (4 * KIB,), ["latency"] + ["one core"] * 3, id="one core"
        ),
        pytest.param(
            World(own_cpu=0.001, core_seconds=0.001, **FULL), "get", (4 * KIB,), ["latency"] + ["one core"] * 3,
            id="one core, with busy neighbours",
        ),
        pytest.param(
            World(requests=500, loopback=True, neighbours=4.0, pressure=0.9), "get", (4 * KIB,),
            ["other programs"] * 4, id="the server shares the machine",
        ),
        pytest.param(
            World(requests=500, loopback=True, neighbours=4.0, pressure=0.01), "get", (4 * KIB,),
            ["network or service"] * 4, id="all cores at work, and nobody waited for one",
        ),
        pytest.param(World(requests=500, **FULL), "get", (4 * KIB,), ["other programs"] * 4, id="busy neighbours"),
        pytest.param(
            World(requests=500, neighbours=4.0, waited=0.01, pressure=0.9), "get", (4 * KIB,),
            ["network or service"] * 4, id="busy neighbours that were not in the way",
        ),
        pytest.param(World(bandwidth=2.5e9, loopback=True), "get", (16 * MIB,), ["loopback"] * 4, id="loopback"),
        pytest.param(World(bandwidth=14e9), "get", (64 * MIB,), ["hash"] * 4, id="hash"),
        pytest.param(World(kind="directory", bandwidth=0.9e9), "put", (16 * MIB,), ["disk"] * 4, id="disk, by bytes"),
        pytest.param(World(kind="directory", requests=200), "put", (4 * KIB,), ["disk"] * 4, id="disk, by files"),
        pytest.param(
            World(kind="directory", service=0.02), "put", (4 * KIB,), ["latency"] * 4, id="a file system far away"
        ),
        pytest.param(World(kind="directory", service=0.02, own_cpu=0.01), "get", (4 * KIB,), ["latency"] * 2 + ["cpu"] * 2,
            id="files, all cores",
        ),
        pytest.param(
            World(kind="directory", bandwidth=5e8, group=GroupCounts(memory_refused=5000)), "get", (16 * MIB,),
            ["memory limit"] * 4, id="a memory limit",
        ),
        pytest.param(World(bandwidth=1e9, requests=400), "get", (4 * MIB,), ["network or service"] * 4, id="network"),
    ],
)  # fmt: skip
def test_sites_by_number_of_requests_at_once(world, operation, sizes, expected):
    cells = world.grid(operation, sizes)
    assert words(cells, world) == expected
    for cell in cells:
        found = judge(cell, CEILINGS, world.site, cells)
        assert found.because and found.advice


@pytest.mark.parametrize(
    ("world", "size", "chosen", "expected"),
    [
        (FAR, 4 * KIB, 256, "latency"),
        (replace(FAR, **FULL), 4 * KIB, 256, "latency"),
        (replace(FAR, requests=1000), 4 * KIB, 256, "network or service"),
        (replace(FAR, bandwidth=1e8), 16 * MIB, 64, "network or service"),
        (World(requests=500, **FULL), 4 * KIB, 16, "other programs"),
        (World(own_cpu=0.001, core_seconds=0.001), 4 * KIB, 64, "one core"),
        (World(service=0.004), 4 * KIB, 8, "latency"),
    ],
)
def test_sites_when_mfstore_chooses_how_many_at_once(world, size, chosen, expected):
    cell = world.cell("get", size, chosen=chosen)
    found = judge(cell, CEILINGS, world.site, [cell])
    assert found.bound == expected
    if expected == "latency":
        assert f"mfstore had {chosen} requests under way" in found.because


def ramped(world, size, numbers, rates):
    """A cell in which so many were under way in each slice, and brought so much."""
    cell = world.cell("get", size, chosen=max(numbers))
    return replace(
        cell, in_flight=InFlight(sum(numbers) / len(numbers), max(numbers), tuple(map(float, numbers))),
        slices=Slices(1.0, tuple(rate * size for rate in rates), tuple(map(float, rates))),
    )  # fmt: skip


def test_what_was_seen_on_the_way_to_the_number_that_mfstore_chose():
    unknown = replace(FAR, linked=False)
    numbers = [8, 16, 24, 32, 48, 64, 64, 64, 64, 64]
    grew = ramped(unknown, 4 * KIB, numbers, [number * 16 for number in numbers])
    found = judge(grew, CEILINGS, unknown.site, [grew])
    assert (found.bound, "from 8 to 64" in found.because) == ("latency", True)
    stayed = ramped(unknown, 4 * KIB, numbers, [300] * 10)
    assert judge(stayed, CEILINGS, unknown.site, [stayed]).bound == "network or service"
    each = replace(unknown, connection=5e6)
    flowed = ramped(each, 4 * MIB, numbers, numbers)
    assert judge(flowed, CEILINGS, each.site, [flowed]).bound == "per-connection rate"
    ended = replace(grew, tail=Tail(3.0, SECONDS))  # afterwards there was nothing left to start
    assert judge(ended, CEILINGS, unknown.site, [ended]).bound == "network or service"


def test_a_rate_that_grows_only_while_connections_are_made_is_none_that_waits():
    """The first answers come after a round trip; of what takes long, that is many slices."""
    numbers = [60, 120, 180, 256, 256, 256, 256, 256, 256, 256]
    rates = [30, 60, 120, 250, 260, 255, 250, 260, 250, 255]
    crowded = ramped(replace(FAR, requests=250), 4 * KIB, numbers, rates)
    assert judge(crowded, CEILINGS, FAR.site, [crowded]).bound == "network or service"
    unknown = replace(FAR, linked=False, requests=125)
    late = ramped(unknown, 4 * KIB, numbers, rates)  # two seconds each
    assert judge(late, CEILINGS, unknown.site, [late]).bound == "network or service"


def test_as_many_at_once_as_bring_anything():
    world = replace(FAR, requests=250)
    cells = world.grid()
    found = judge(cells[2], CEILINGS, world.site, cells)
    assert (found.bound, found.advice) == ("latency", "16 at once are as many as bring anything here")


def test_more_objects_are_the_advice_where_all_were_under_way():
    cell = FAR.cell("get", chosen=200)
    few = replace(cell, scenario=replace(cell.scenario, sizes=((4 * KIB, 200),)))
    assert judge(few, CEILINGS, FAR.site, [few]).advice.startswith("More objects in one call")


def test_a_rate_that_differs_between_sizes_is_not_the_connections():
    """Small objects are slow for another reason: a server that reads them from disks, say."""
    slow, fast = replace(FAR, connection=2e6), replace(FAR, connection=50e6)
    cells = [*slow.grid("get", (256 * KIB,)), *fast.grid("get", (16 * MIB,))]
    assert words(cells, FAR)[:4] == ["latency"] * 4


def test_fifteen_fifty_nine_one_hundred_and_ninety_four():
    """At 60 ms, with another process that kept the CPUs busy: it was called other programs."""
    busy = Usage(4.0, 0.4, 8.0, 1 << 20, 0.3, None, 3.9)
    cells = [
        replace(
            FAR.cell("get", at_once=number), usage=busy, objects=int(rate * 4), latency=spread_at(0.066 * slower)
        )
        for number, rate, slower in ((1, 15, 1.0), (4, 59, 1.02), (16, 194, 1.25))
    ]  # fmt: skip
    two = replace(CEILINGS, cpus=2)
    for link in (Link(0.0002, None, 0.061), None):
        site = Site("s3", loopback=True, link=link, cores=2)
        assert [judge(cell, two, site, cells).bound for cell in cells] == ["latency"] * 3
    # Each alone: without anything to compare, an empty request tells.
    site = Site("s3", loopback=True, link=Link(0.0002, None, 0.061), cores=2)
    assert [judge(cell, two, site).bound for cell in cells] == ["latency"] * 3


@pytest.mark.parametrize(
    ("bound", "kind", "cell"),
    [
        ("failures", "s3", FAR.cell(retries=100)),
        ("unknown", "s3", replace(FAR.cell(), usage=Usage(0.05, 0.01, None, 1))),
        ("one core", "s3", World(own_cpu=0.0011, engine="aiobotocore").cell(at_once=1, engine="aiobotocore")),
        ("one core", "directory", World(own_cpu=0.0011, kind="directory").cell()),
        ("disk", "directory", World(kind="directory").cell("save", layer=ARTIFACTS)),
        ("latency", "s3", replace(FAR, linked=False).cell()),
    ],
)
def test_other_words(bound, kind, cell):
    found = judge(cell, CEILINGS, Site(kind, loopback=False))
    assert found.bound == bound
    assert found.because and found.advice


def test_injected_failures_are_called_so():
    cell = FAR.cell(retries=1000)
    injected = replace(cell, scenario=replace(cell.scenario, failure=10))
    assert "on purpose" in judge(injected, CEILINGS, FAR.site).advice
    assert "log" in judge(cell, CEILINGS, FAR.site).advice
