"""What a run will ask of the place, known before it starts: steps, requests, bytes, cost. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mfstore.backends.buckets import COALESCED_SPAN, INLINE_BYTES
from mfstore.bench.link import REQUESTS
from mfstore.bench.mixes import MIXED, Mix
from mfstore.bench.payloads import new_bytes
from mfstore.bench.scenarios import ARTIFACTS, OBJECTS, OPERATIONS, Scenario
from mfstore.s3.calls import SHORT_BODY
from mfstore.s3.transfers.deletions import KEYS_PER_DELETE
from mfstore.s3.transfers.downloads import SHORTEST_PIECE
from mfstore.s3.transfers.uploads import LONGEST_SINGLE_PUT, part_size
from mfstore.saving.packing import PACK_SHARE

MEMORY = 256 << 20
"""For the stores that are measured, whatever the environment says: where packs end depends on it."""
PACK_BYTES = MEMORY // PACK_SHARE
LISTING_PAGE = 1000
"""Objects of one page of a listing."""
WARM, WARM_SIZE = 16, 64 << 10
"""Objects moved before each measured operation, of at most so many bytes: connections, signing keys and code are
then there."""
LASTING_KEYS, LASTING_BYTES = 100_000, 4 << 30
"""What lies there at once, at most, when operations go on for a time: then the first objects are stored again."""
FREE = ("DeleteObjects", "AbortMultipartUpload")
READS = ("GetObject", "HeadObject", "GetBucketVersioning")
"""How services charge: these at the price of GET, the free ones not at all, all others at the price of PUT."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Requests by botocore's name of the operation, at least and at most, and bytes of objects."""

    fewest: Mapping[str, int] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=dict)
    sent: int = 0
    received: int = 0

    def __add__(self, other: Forecast) -> Forecast:
        return Forecast(
            Counter(self.fewest) + Counter(other.fewest),
            Counter(self.most) + Counter(other.most),
            self.sent + other.sent,
            self.received + other.received,
        )

    def __mul__(self, times: int) -> Forecast:
        return Forecast(
            {name: count * times for name, count in self.fewest.items()},
            {name: count * times for name, count in self.most.items()},
            self.sent * times,
            self.received * times,
        )

    def priced(self, kind: str) -> int:
        """At most so many requests at the price of ``put`` or ``get``."""
        return sum(
            count for name, count in self.most.items() if name not in FREE and (name in READS) == (kind == "get")
        )


NO_REQUESTS = Forecast()


@dataclass(frozen=True, slots=True)
class Prices:
    """In any currency; None is not known."""

    put: float | None = None
    """Of 1000 PUT, POST and LIST requests."""
    get: float | None = None
    """Of 1000 GET and HEAD requests."""
    gigabyte: float | None = None
    """Of 10⁹ bytes read."""

    def cost(self, forecast: Forecast) -> float | None:
        """Of a forecast, at most and without retries; None when no price is known."""
        if self.put is None and self.get is None and self.gigabyte is None:
            return None
        requests = forecast.priced("put") * (self.put or 0.0) + forecast.priced("get") * (self.get or 0.0)
        return requests / 1000 + forecast.received / 1e9 * (self.gigabyte or 0.0)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of one scenario."""

    scenario: Scenario
    number: int
    """Of the scenario: its objects lie under it."""
    operation: str
    measured: bool
    """False for what only has to be done: to have objects, and to be rid of them."""
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """The steps in order."""

    steps: tuple[Step, ...]
    lasting: bool = False
    """Operations go on for a time: how many requests and bytes they take shows when they have. The forecast is of one
    pass over the objects."""
    repeat: int = 1
    """All steps are done so often, one after the other: what changes with time meets all scenarios alike."""
    clients: int = 1
    """So many machines do all of it at the same time, but share the operations of a mix."""

    @property
    def forecast(self) -> Forecast:
        """Of the whole run, with the look at the place before and after it."""
        total = AROUND
        for step in self.steps:
            total += step.forecast * (self.repeat * (1 if step.operation == MIXED else self.clients))
        return total

    @property
    def peak(self) -> int:
        """Bytes stored at once, at most."""
        most = max((_stored_at_once(step.scenario, self.lasting) for step in self.steps), default=0)
        return most * self.clients


_AROUND = {
    "PutObject": 1,
    "GetObject": 1,
    "HeadObject": REQUESTS,
    "ListObjectsV2": 2,
    "DeleteObjects": 1,
    "ListMultipartUploads": 1,
    "GetBucketVersioning": 1,
}
AROUND = Forecast(_AROUND, _AROUND, 16, 16)
"""Whether the bucket keeps versions, whether all operations are allowed, and what an empty request takes, before;
looking for what is left, after."""


def plan(scenarios: Iterable[Scenario], *, lasting: bool = False, repeat: int = 1, clients: int = 1) -> BenchPlan:
    """What running the scenarios takes, on S3: elsewhere requests cost nothing, bytes are the same."""
    steps = tuple(step for number, scenario in enumerate(scenarios) for step in _steps(number, scenario))
    return BenchPlan(steps, lasting, repeat, clients)


def _steps(number: int, scenario: Scenario) -> Iterable[Step]:
    if scenario.mix is not None:
        yield Step(scenario, number, "put", False, _object_requests(scenario, "put") + warm_up(scenario, "put"))
        yield Step(scenario, number, MIXED, True, _mixed_requests(scenario, scenario.mix))
        yield Step(scenario, number, "delete", False, _rest_of_mix(scenario, scenario.mix))
        return
    for operation in OPERATIONS[scenario.layer]:
        measured = operation in scenario.operations
        if scenario.layer == ARTIFACTS:
            if measured or operation == "save":
                yield Step(scenario, number, operation, measured, _artifact_requests(scenario, operation))
        elif measured or operation in ("put", "delete"):
            warm = warm_up(scenario, operation) if measured or operation == "put" else NO_REQUESTS
            yield Step(scenario, number, operation, measured, _object_requests(scenario, operation) + warm)


def warm_objects(scenario: Scenario) -> tuple[int, int]:
    """How many objects the warm-up of a scenario has, and their size."""
    return min(WARM, scenario.count), min(WARM_SIZE, max(size for size, _ in scenario.sizes))


def warm_up(scenario: Scenario, operation: str) -> Forecast:
    """The requests before those that are measured."""
    count, size = warm_objects(scenario)
    if operation == "put":
        return _exactly({"PutObject": count}, sent=count * size)
    if operation == "get":
        return _exactly({"GetObject": count}, received=count * size)
    return _exactly({"HeadObject": count}) if operation == "head" else NO_REQUESTS


def _object_requests(scenario: Scenario, operation: str) -> Forecast:
    total = NO_REQUESTS
    if operation == "put":
        for size, count in scenario.sizes:
            each = _put(size)
            total += _exactly({name: many * count for name, many in each.items()}, sent=size * count)
    elif operation == "get":
        for size, count in scenario.sizes:
            most = 1 if size <= SHORT_BODY or scenario.concurrency == 1 else -(-size // SHORTEST_PIECE)
            total += Forecast({"GetObject": count}, {"GetObject": count * most}, 0, size * count)
    elif operation == "head":
        total = _exactly({"HeadObject": scenario.count})
    else:
        keys = scenario.count + warm_objects(scenario)[0]
        name, page = ("ListObjectsV2", LISTING_PAGE) if operation == "list" else ("DeleteObjects", KEYS_PER_DELETE)
        total = _exactly({name: -(-keys // page)})
    return total


def _mixed_requests(scenario: Scenario, mix: Mix) -> Forecast:
    """All that the mix may take: a time limit may end it after any of its operations."""
    counts, most = mix.expected, Counter[str]()
    # A delete that finds no object free is a put, and one request deletes one object.
    puts, gets = counts.get("put", 0) + counts.get("delete", 0), counts.get("get", 0)
    most["DeleteObjects"], most["HeadObject"] = counts.get("delete", 0), counts.get("head", 0)
    largest = max(size for size, _ in scenario.sizes)
    for name, many in _put(largest).items():
        most[name] += many * puts
    most["GetObject"] = gets * (1 if largest <= SHORT_BODY else -(-largest // SHORTEST_PIECE))
    return Forecast({}, {name: many for name, many in most.items() if many}, puts * largest, gets * largest)


def _rest_of_mix(scenario: Scenario, mix: Mix) -> Forecast:
    keys = scenario.count + warm_objects(scenario)[0]
    most = keys + mix.expected.get("put", 0) + mix.expected.get("delete", 0)
    return Forecast({"DeleteObjects": 1}, {"DeleteObjects": -(-most // KEYS_PER_DELETE)})


def _exactly(requests: Mapping[str, int], sent: int = 0, received: int = 0) -> Forecast:
    return Forecast(requests, requests, sent, received)


def _put(size: int) -> dict[str, int]:
    """The requests that store one object."""
    if size <= LONGEST_SINGLE_PUT:
        return {"PutObject": 1}
    return {"CreateMultipartUpload": 1, "UploadPart": -(-size // part_size(size)), "CompleteMultipartUpload": 1}


OPENED = {"GetObject": 1}
"""To open a store that is there: its description."""


def _artifact_requests(scenario: Scenario, operation: str) -> Forecast:
    """Of the store on S3. How many chunks shrink below the size of those that lie in a recipe, and where packs end,
    the bytes themselves decide: between the fewest and the most."""
    rounds = scenario.bundles
    if operation == "load":
        packs = -(-scenario.size // PACK_BYTES) + (1 if scenario.duplicate else 0)
        most = OPENED["GetObject"] + 1 + 2 * (-(-scenario.size // (COALESCED_SPAN // 2)) + packs)
        return Forecast({"GetObject": 2 * rounds}, {"GetObject": most * rounds}, 0, scenario.size * rounds)
    total = _saves(scenario.size, 1) + _saves(new_bytes(scenario), rounds)
    # The first save of a store writes its description and tries whether conditions are kept.
    founding = Forecast(
        {"GetObject": 2, "ListObjectsV2": 1, "PutObject": 1},
        {"GetObject": 3, "ListObjectsV2": 3, "PutObject": 4, "DeleteObjects": 2},
    )
    # To be rid of the store: its objects are listed and deleted.
    objects = 3 + (rounds + 1) * (3 + scenario.size // PACK_BYTES)
    pages = -(-objects // LISTING_PAGE)
    removal = Forecast({"ListObjectsV2": 1, "DeleteObjects": 1}, {"ListObjectsV2": pages, "DeleteObjects": pages})
    return total + founding + removal


def _saves(size: int, rounds: int) -> Forecast:
    """So many saves of bundles with ``size`` new bytes each."""
    if not size:
        return Forecast({"GetObject": rounds}, {"GetObject": rounds, "HeadObject": rounds})
    most: Counter[str] = Counter({"PutObject": 1, "GetObject": 1})
    if size > INLINE_BYTES // 2:
        # A pack ends at the chunk that fills it: there may be one more than the bytes need.
        packs = -(-size // PACK_BYTES) + (1 if size > PACK_BYTES else 0)
        most += Counter({"PutObject": 1 + packs, "HeadObject": packs})
        if size > LONGEST_SINGLE_PUT:
            parts = -(-size // part_size(min(size, PACK_BYTES))) + 2 * packs
            most += Counter({"CreateMultipartUpload": packs, "UploadPart": parts, "CompleteMultipartUpload": packs})
    return Forecast(
        {"PutObject": rounds, "GetObject": rounds}, {name: count * rounds for name, count in most.items()},
        size * rounds, 0,
    )  # fmt: skip


def most_keys(scenario: Scenario) -> int:
    """Of a scenario of objects that goes on for a time: how many there are before the first is stored again."""
    rounds = min(LASTING_KEYS // scenario.count, LASTING_BYTES // max(scenario.size, 1))
    return scenario.count * max(rounds, 1)


def most_bundles(scenario: Scenario) -> int:
    """Of a scenario of artifacts that goes on for a time: how many bundles are saved at most."""
    return max(scenario.bundles, min(LASTING_KEYS, LASTING_BYTES // max(new_bytes(scenario), 1)))


def _stored_at_once(scenario: Scenario, lasting: bool) -> int:
    if scenario.layer == OBJECTS:
        count, size = warm_objects(scenario)
        rounds = most_keys(scenario) // scenario.count if lasting else 1
        grown = _mixed_requests(scenario, scenario.mix).sent if scenario.mix else 0
        return scenario.size * rounds + count * size + grown
    return scenario.size + new_bytes(scenario) * (most_bundles(scenario) if lasting else scenario.bundles)


def summary(steps: Sequence[Step]) -> str:
    """How many scenarios and measurements, for people."""
    scenarios = len({step.number for step in steps})
    measured = sum(step.measured for step in steps)
    return f"{scenarios} scenario{'s' if scenarios != 1 else ''}, {measured} measurements"
