"""What a benchmark will do, before it does it. No storage here."""

import lzma
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfstore.bench import payloads
from mfstore.bench.plan import AROUND, LASTING_BYTES, LASTING_KEYS, Forecast, Prices, most_keys, plan
from mfstore.bench.scenarios import (
    ARTIFACTS,
    OBJECTS,
    OPERATIONS,
    Axes,
    Overrides,
    Scenario,
    adapted,
    metaflow,
    parse_size,
    profile,
    size_text,
)
from mfstore.errors import InvalidKey

MIB = 1 << 20
SCENARIOS = st.builds(
    Scenario,
    st.just(OBJECTS),
    st.lists(st.tuples(st.integers(1, 300 * MIB), st.integers(1, 5000)), min_size=1, max_size=3).map(tuple),
    st.lists(st.sampled_from(OPERATIONS[OBJECTS]), min_size=1, unique=True).map(tuple),
    st.sampled_from([None, 1, 16]),
)


def objects(size, count, *operations, concurrency=None):
    return Scenario(OBJECTS, ((size, count),), operations, concurrency)


def total(*scenarios):
    return plan(scenarios).forecast


def test_requests_of_small_objects_are_known_exactly():
    found = total(objects(4096, 2500, *OPERATIONS[OBJECTS]))
    assert found.fewest == found.most
    warm = 16
    assert found.most == {
        "PutObject": 2500 + warm + 1, "GetObject": 2500 + warm + 1, "HeadObject": 2500 + warm + 8,
        "ListObjectsV2": 3 + 2, "DeleteObjects": 3 + 1, "ListMultipartUploads": 1, "GetBucketVersioning": 1,
    }  # fmt: skip
    assert found.sent == found.received == (2500 + warm) * 4096 + 16


def test_repetitions_take_as_often_as_much():
    once, often = (plan([objects(4096, 100, "put", "get")], repeat=times) for times in (1, 3))
    assert often.forecast.most["PutObject"] == 3 * (once.forecast.most["PutObject"] - 1) + 1
    assert often.forecast.sent == 3 * (once.forecast.sent - 16) + 16
    assert often.peak == once.peak


@given(SCENARIOS)
def test_what_goes_on_for_a_time_has_a_limit_of_what_lies_there_at_once(scenario):
    number, whole = most_keys(scenario), scenario.size
    assert number >= scenario.count and number % scenario.count == 0  # a mix of sizes stays one
    assert number == scenario.count or (number <= LASTING_KEYS and whole * (number // scenario.count) <= LASTING_BYTES)
    lasting = plan([scenario], lasting=True)
    assert lasting.peak >= plan([scenario]).peak
    assert lasting.peak <= max(LASTING_BYTES, whole) + (16 << 16)


def test_large_objects_go_in_parts():
    found = total(objects(100 * MIB, 2, "put"))
    assert (found.most["CreateMultipartUpload"], found.most["UploadPart"], found.most["CompleteMultipartUpload"]) == (
        2,
        14,
        2,
    )
    assert found.most["PutObject"] == 2 + AROUND.most["PutObject"]
    found = total(objects(100 * MIB, 2, "get"))
    assert (found.fewest["GetObject"], found.most["GetObject"]) == (2 + 2 + 1, 2 * 13 + 2 + 1)
    found = total(objects(100 * MIB, 2, "get", concurrency=1))
    assert found.fewest["GetObject"] == found.most["GetObject"]


def test_what_has_to_be_done_is_planned_and_not_measured():
    steps = plan([objects(4096, 5, "get")]).steps
    assert [(step.operation, step.measured) for step in steps] == [("put", False), ("get", True), ("delete", False)]
    steps = plan([Scenario(ARTIFACTS, ((1024, 5),), ("load",))]).steps
    assert [(step.operation, step.measured) for step in steps] == [("save", False), ("load", True)]


@pytest.mark.slow
@given(st.lists(SCENARIOS, max_size=4))
def test_a_plan_is_the_sum_of_its_steps(scenarios):
    found = plan(scenarios)
    for name in found.forecast.most:
        each = sum(step.forecast.most.get(name, 0) for step in found.steps)
        assert found.forecast.most[name] == each + AROUND.most.get(name, 0)
        assert found.forecast.fewest.get(name, 0) <= found.forecast.most[name]
    assert found.forecast.sent - AROUND.sent == sum(step.forecast.sent for step in found.steps)
    stored = [scenario.size for scenario in scenarios]
    assert found.peak >= max(stored, default=0)
    measured = [(step.number, step.operation) for step in found.steps if step.measured]
    wanted = [(number, name) for number, scenario in enumerate(scenarios) for name in scenario.operations]
    assert sorted(measured) == sorted(wanted)


def test_cost():
    forecast = Forecast(
        {},
        {"PutObject": 1000, "ListObjectsV2": 1000, "GetObject": 3000, "HeadObject": 1000, "DeleteObjects": 9},
        5,
        2 * 10**9,
    )
    assert Prices(0.005, 0.0004, 0.09).cost(forecast) == pytest.approx(2 * 0.005 + 4 * 0.0004 + 2 * 0.09)
    assert Prices(put=0.005).cost(forecast) == pytest.approx(0.01)
    assert Prices().cost(forecast) is None


def test_the_metaflow_grid():
    """Every mix of its own benchmarks, once for each rate of failure."""
    found = metaflow(large=5 << 30).scenarios()
    assert len(found) == (6 * 5 * 3 - 1) * 4
    assert {scenario.failure for scenario in found} == {0, 10, 50, 90}
    assert {scenario.sizes for scenario in found} >= {
        ((1, 10_000), (MIB, 500), (5 << 30, 10)), ((1, 1),), ((MIB, 1),), ((5 << 30, 1),),
    }  # fmt: skip


def test_more_requests_at_once_than_objects_are_not_asked_for():
    grid = Axes(OBJECTS, (((MIB, 10),), ((1024, 100),)), ("put",), concurrency=(1, 16, 64))
    assert [(scenario.count, scenario.concurrency) for scenario in grid.scenarios()] == [
        (10, 1),
        (100, 1),
        (100, 16),
        (100, 64),
    ]


def test_wishes_replace_axes():
    overrides = Overrides(
        sizes=(2048,), count=7, concurrency=(1, 2), compressible=(0, 90), duplicate=(50,), operations=("put", "save")
    )
    found = adapted(profile("quick"), overrides, cloud=False).scenarios()
    of_objects = [scenario for scenario in found if scenario.layer == OBJECTS]
    assert {(scenario.sizes, scenario.concurrency, scenario.compressible) for scenario in of_objects} == {
        (((2048, 7),), at, part) for at in (1, 2) for part in (0, 90)
    }  # fmt: skip
    assert {scenario.operations for scenario in found} == {("put",), ("save",)}
    assert {scenario.duplicate for scenario in found if scenario.layer == ARTIFACTS} == {50}


def test_elsewhere_than_on_s3_nothing_fails_on_purpose():
    assert {scenario.failure for scenario in adapted(metaflow(), Overrides(), cloud=False).scenarios()} == {0}
    assert {
        scenario.failure for scenario in adapted(metaflow(), Overrides(peers=("boto3",)), cloud=True).scenarios()
    } == {0}
    for overrides in (Overrides(engines=("native",)), Overrides(failure=(10,)), Overrides(peers=("boto3",))):
        with pytest.raises(InvalidKey, match="clouds only"):
            adapted(profile("quick"), overrides, cloud=False)


def test_peers_only_put_and_get():
    found = adapted(profile("quick"), Overrides(peers=("boto3",)), cloud=True).scenarios()
    assert {scenario.layer for scenario in found} == {OBJECTS}
    assert {scenario.engine for scenario in found} == {None, "boto3"}
    assert {scenario.operations for scenario in found} == {("put", "get")}


@pytest.mark.parametrize(
    "overrides",
    [Overrides(operations=("gett",)), Overrides(engines=("curl",)), Overrides(peers=("boto3",), failure=(10,))],
)
def test_wishes_that_make_no_sense(overrides):
    with pytest.raises(InvalidKey):
        adapted(profile("quick"), overrides, cloud=True)
    with pytest.raises(InvalidKey):
        profile("fast")


@given(st.integers(1, 1 << 44))
def test_sizes_are_read_as_they_are_written(size):
    assert parse_size(size_text(size)) == size
    assert parse_size(f" {size} ") == size


def test_sizes_of_people():
    assert [parse_size(text) for text in ("64KiB", "64k".upper(), "1 MB", "2G")] == [65536, 65536, 10**6, 2 << 30]
    for text in ("", "KiB", "0", "-1", "1.5MB", "1XB", "1 KiB x"):
        with pytest.raises(InvalidKey):
            parse_size(text)


# ---- the bytes ---------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.integers(0, 300_000), st.integers(0, 100), st.integers())
def test_payloads_have_their_size_and_depend_on_the_seed(size, compressible, seed):
    first = payloads.payload(size, compressible, seed, "a")
    assert len(first) == size
    assert first == payloads.payload(size, compressible, seed, "a")
    if size >= 16:
        assert first != payloads.payload(size, compressible, seed, "b")


@pytest.mark.slow
@pytest.mark.parametrize("compressible", [0, 25, 50, 90, 100])
@pytest.mark.parametrize("shrink", [lambda data: zlib.compress(data, 1), lzma.compress])
def test_payloads_shrink_by_what_was_asked(compressible, shrink):
    size = MIB
    stored = len(shrink(payloads.payload(size, compressible, "x"))) / size
    assert stored == pytest.approx(1 - compressible / 100, abs=0.02)


@pytest.mark.parametrize("sizes", [((1024, 200),), ((100_000, 3), (1, 2))])
@pytest.mark.parametrize("duplicate", [0, 50, 90, 100])
def test_bundles_share_what_was_asked(sizes, duplicate):
    scenario = Scenario(ARTIFACTS, sizes, ("save",), duplicate=duplicate, bundles=3)
    bundles = [payloads.bundle(scenario, 0, number) for number in range(3)]
    assert [sum(map(len, found.values())) for found in bundles] == [scenario.size] * 3
    new = 0
    for name, data in bundles[1].items():
        base = bundles[0][name]
        same = next((at for at in range(len(data)) if data[at] != base[at]), len(data))
        new += len(data) - same
    assert new == pytest.approx(payloads.new_bytes(scenario), abs=4)
    assert payloads.new_bytes(scenario) == pytest.approx(scenario.size * (100 - duplicate) / 100, rel=0.01, abs=2)
