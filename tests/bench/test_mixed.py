"""Mixed workloads: draws, schedules and pools as pure functions; loops by a clock of their own; and on real storage."""

import csv
import gzip
import itertools
import json
import threading
from collections import Counter
from dataclasses import asdict, replace
from statistics import mean, pstdev

import pytest

from mfstore.bench.measure import Row, spread
from mfstore.bench.mixes import SHARES, Mix, draws, parse_rate, parse_shares, schedule
from mfstore.bench.pace import NOT_BEGUN, Clock, Event, Loop, pace, responses
from mfstore.bench.plan import plan
from mfstore.bench.pool import Pool
from mfstore.bench.repetitions import together
from mfstore.bench.report import label, pace_lines
from mfstore.bench.scenarios import OBJECTS, OPERATIONS, Scenario, mixed
from mfstore.errors import InvalidKey
from mfstore.testing import FaultProxy, NetworkFault, actions
from tests.bench.test_report import cell
from tests.bench.test_run import cloud, keys, mfstore  # noqa: F401

# ---- what is drawn, and when -----------------------------------------------------------------------


def test_shares_are_exact_in_every_round_and_the_same_for_a_seed():
    shares = parse_shares(SHARES)
    assert shares == (("get", 45), ("put", 15), ("delete", 10), ("head", 30))
    mix = Mix(shares, 1000)
    found = list(itertools.islice(draws(mix, 7), 1000))
    for round_of_20 in (found[at : at + 20] for at in range(0, 1000, 20)):
        assert Counter(round_of_20) == {"get": 9, "put": 3, "delete": 2, "head": 6}
    assert len({tuple(found[at : at + 20]) for at in range(0, 1000, 20)}) > 45
    assert found == list(itertools.islice(draws(mix, 7), 1000)) != list(itertools.islice(draws(mix, 8), 1000))


@pytest.mark.parametrize("text", ["", "get", "get=", "get=-1", "get=1,get=2", "list=1", "put=0", "put=1,delete=2"])
def test_what_is_no_mix_is_refused(text):
    with pytest.raises(InvalidKey):
        parse_shares(text)


def test_rates():
    assert (parse_rate("200/s"), parse_rate("200"), parse_rate("30/min"), parse_rate("1.5/s")) == (200, 200, 0.5, 1.5)
    for text in ("", "/s", "0/s", "-3/s", "nan/s", "inf", "1/day", "1e9/s"):
        with pytest.raises(InvalidKey):
            parse_rate(text)


def test_arrivals():
    mix = Mix((("get", 1),), 20_000, 200.0)
    times = schedule(mix, 3)
    assert len(times) == 20_000 and times == sorted(times) == schedule(mix, 3)
    assert times[0] >= 0 and times[-1] <= 100
    gaps = [after - before for before, after in itertools.pairwise(times)]
    # Exponential gaps deviate by their mean.
    assert mean(gaps) == pytest.approx(1 / 200, rel=0.01) and pstdev(gaps) == pytest.approx(1 / 200, rel=0.05)
    even = Mix((("get", 1),), 5, 10.0, "constant")
    assert schedule(even, 0) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert schedule(even, 0, phase=0.5) == pytest.approx([0.05, 0.15, 0.25, 0.35, 0.45])


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_the_parts_of_several_clients_are_the_mix(of):
    mix = Mix((("get", 1),), 1000, 50.0)
    parts = [mix.part(number, of) for number in range(of)]
    assert sum(part.total for part in parts) == 1000 and sum(part.rate for part in parts) == pytest.approx(50.0)
    assert all(part.seconds == pytest.approx(mix.seconds) for part in parts)


# ---- objects that are there ------------------------------------------------------------------------


def test_what_is_read_is_not_deleted():
    pool = Pool(range(3), 0)
    held = {pool.read() for _ in range(100)}
    assert held == {0, 1, 2} and pool.take() is None
    pool = Pool(range(2), 0)
    number = pool.read()
    assert pool.take() == 1 - number
    assert pool.take() is None, "the last one stays: something has to be there to be read"
    new = pool.new()
    assert pool.read() == number != new
    pool.stored(new)
    assert len(pool) == 2 and sorted(pool.left_over()) == [0, 1, 2], "nobody said that it was deleted"
    pool.deleted(1 - number)
    assert sorted(pool.left_over()) == sorted([number, new])


def test_threads_never_see_an_object_come_or_go():
    pool, there, lock, wrong = Pool(range(40), 1), set(range(40)), threading.Lock(), []

    def work(seed):
        for operation in itertools.islice(draws(Mix(parse_shares("get=5,put=2,delete=2"), 1), seed), 2000):
            taken = pool.take() if operation == "delete" else None
            if operation == "get":
                number = pool.read()
                wrong.extend([number] if number not in there else [])
                pool.left(number)
            elif taken is None:
                number = pool.new()
                with lock:
                    there.add(number)
                pool.stored(number)
            else:
                with lock:
                    there.remove(taken)
                pool.deleted(taken)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and sorted(pool.left_over()) == sorted(there)


# ---- loops -----------------------------------------------------------------------------------------


class FakeClock(Clock):
    """Time passes by sleeping and by working, and not otherwise."""

    time = 1000.0

    def now(self):
        return self.time

    def sleep_until(self, when):
        self.time = max(self.time, when)


def simulated(total, seconds=1e9, rate=None, stall=0.0):
    """Events of one thread, whose operations take 1 ms, of which number 500 stalls."""
    clock = FakeClock()

    def perform(operation, number):
        begin = clock.time
        clock.time += 0.001 + (stall if number == 500 else 0.0)
        return Event(operation, Row(number, begin, clock.time - begin, None, 1, 1, 0, None))

    times = None if rate is None else schedule(Mix((("get", 1),), total, rate, "constant"), 0)
    loop = Loop(itertools.repeat("get"), total, perform, threads=1, seconds=seconds, times=times, clock=clock)
    found = []
    loop.serve(found.append)
    return [row for _, row in [*found, *loop.left()]], loop


def test_a_stall_that_a_closed_loop_hides_is_seen_in_an_open_one():
    """A second in which nothing is answered, in a measurement of four: a quarter of what users ask for meets it."""
    closed, _ = simulated(2000, stall=1.0)
    assert len(closed) == 2000
    assert responses(closed).p99 == pytest.approx(0.001) and responses(closed).max == pytest.approx(1.001)
    rows, loop = simulated(2000, seconds=4.0, rate=500, stall=1.0)
    response, service = responses(rows), spread([row.seconds for row in rows])
    assert (service.p99, response.max) == (pytest.approx(0.001), pytest.approx(1.001))
    # 500 came while it stalled, and as many again until those were done, at twice the rate.
    late = [row for row in rows if row.response > 0.0015]
    assert len(late) == pytest.approx(1000, abs=5) and response.p50 == pytest.approx(0.001, abs=0.003)
    assert response.p99 > 0.9
    found = pace(500, "constant", loop.begin + 4.0, rows)
    assert (found.scheduled, found.done, found.failed, found.not_begun) == (2000, 2000, 0, 0)
    assert found.waiting == pytest.approx(500, abs=2) and found.under_way == 1
    assert found.reached and found.waiting_at_end <= 1


def test_a_rate_that_cannot_be_followed_is_not_reached():
    """2000/s of a service that does 1000/s, for two seconds and the one after in which what waits may begin."""
    rows, loop = simulated(4000, seconds=2.0, rate=2000)
    found = pace(2000, "constant", loop.begin + 2.0, rows)
    assert not found.reached and found.scheduled == 4000
    assert found.done == pytest.approx(3000, abs=2) and found.not_begun == 4000 - found.done
    assert found.waiting_at_end == pytest.approx(2000, abs=2)
    never = [row for row in rows if row.error == NOT_BEGUN]
    assert [row.number for row in never] == list(range(found.done, 4000))
    # Left out, the worst would be missing: those that began waited 1.5 s at most.
    assert responses(rows).p99 == pytest.approx(1.5, abs=0.05) and responses(rows).count == 4000
    scenario = {"sizes": [[4096, 10]], "layer": "objects"}
    (line, _) = pace_lines([{"pace": asdict(found), "scenario": scenario}])
    assert "NOT REACHED" in line and f"{found.not_begun} never begun" in line


def test_a_round_that_is_not_the_median_one_counts_when_it_failed():
    rows, loop = simulated(40, seconds=2.0, rate=20)
    kept = pace(20, "constant", loop.begin + 2.0, rows)
    rounds = [
        replace(cell(seconds=seconds), pace=replace(kept, reached=seconds < 12), failed=seconds == 12)
        for seconds in (10, 11, 12)
    ]
    (found,) = together(rounds)
    assert (found.pace.reached, found.failed) == (True, 0), "the median one"
    assert (found.missed, found.repeats.missed, found.repeats.failed) == (1, 1, 1)
    assert [one.missed for one in rounds] == [0, 0, 1]
    (line, _) = pace_lines([found.to_dict()])
    assert "NOT REACHED in 1 of 3 rounds" in line and "1 FAILED" in label(found.to_dict())


def test_in_an_open_loop_operations_begin_while_others_hang():
    """Ten operations at once, though the first nine end only when all have begun."""
    all_there = threading.Barrier(10)

    def perform(operation, number):
        all_there.wait(timeout=60)
        return Event(operation, Row(number, 0.0, 0.0, None, 0, 1, 0, None))

    loop = Loop(itertools.repeat("get"), 10, perform, threads=10, seconds=60.0, times=[0.0] * 10)
    assert sorted(row.number for _, row in loop.events()) == list(range(10))
    assert loop.left() == []


def test_an_error_in_a_thread_ends_the_loop():
    def perform(operation, number):
        raise PermissionError("no")

    loop = Loop(itertools.repeat("get"), 10**6, perform, threads=4, seconds=60.0)
    with pytest.raises(PermissionError):
        list(loop.events())
    assert threading.active_count() < 50


# ---- the plan, and what comes of it ----------------------------------------------------------------


def test_the_plan_of_a_mix_is_an_upper_limit():
    (scenario,) = mixed([Scenario(OBJECTS, ((4096, 50),), OPERATIONS[OBJECTS])], Mix(parse_shares(SHARES), 2000))
    steps = plan([scenario]).steps
    assert [(step.operation, step.measured) for step in steps] == [("put", False), ("mixed", True), ("delete", False)]
    forecast = steps[1].forecast
    assert forecast.fewest == {}
    assert forecast.most == {"GetObject": 900, "PutObject": 500, "DeleteObjects": 200, "HeadObject": 600}
    assert (forecast.sent, forecast.received) == (500 * 4096, 900 * 4096)


def _results(done):
    return json.loads(done.stdout)


def test_a_mix_in_a_directory(tmp_path):
    rows = tmp_path / "rows.csv.gz"
    done = mfstore(
        str(tmp_path / "place"), "--mix", "get=3,put=2,delete=1", "--total", "600", "--size", "4KiB", "--count", "40",
        "--seconds", "120", "--yes", "--json", "--rows", str(rows),
    )  # fmt: skip
    cells = {cell["operation"]: cell for cell in _results(done)["cells"]}
    assert {name: cell["objects"] for name, cell in cells.items()} == {
        "get": 300,
        "put": 200,
        "delete": 100,
        "mixed": 600,
    }
    assert cells["get"]["verified"] == cells["get"]["bytes"] == 300 * 4096 and cells["put"]["bytes"] == 200 * 4096
    assert cells["mixed"]["latency"]["count"] == 600 and cells["mixed"]["verdict"] and not cells["get"]["verdict"]
    with gzip.open(rows, "rt") as file:
        assert Counter(row["operation"] for row in csv.DictReader(file)) == {"get": 300, "put": 200, "delete": 100}
    assert not (tmp_path / "place").exists()


def test_a_rate_that_is_not_reached_is_no_success(tmp_path):
    done = mfstore(
        str(tmp_path), "--rate", "100000/s", "--total", "3000", "--size", "4KiB", "--count", "10", "--concurrency", "1",
        "--repeat", "2", "--yes", code=1,
    )  # fmt: skip
    assert "NOT REACHED in 2 of 2 rounds" in done.stdout and (
        "rate was not reached" in done.stderr or "failed" in done.stderr
    )


@pytest.mark.server
def test_one_stall_of_a_server_in_an_open_and_in_a_closed_loop(cloud, unhedged):  # noqa: F811
    """One thread; one request hangs for two seconds. The schedule has 100 requests in that time, and each waits."""
    name, server = cloud
    found = {}
    for loop in ([], ["--rate", "50/s", "--arrivals", "constant"]):
        fault = NetworkFault(
            action=actions.Stall(2.0, "request"), method="GET", path=r"/objects/0/[0-9a-f]{2}/", nth=40
        )
        with FaultProxy(server.url, [fault]) as proxy:
            done = mfstore(
                f"s3://{name}/below", "--endpoint-url", proxy.url, "--mix", "get=1", *loop, "--total", "200",
                "--size", "4KiB", "--count", "10", "--concurrency", "1", "--seconds", "120", "--yes", "--json",
                code=(0, 1) if loop else 0,  # a machine that is busy cannot follow
            )  # fmt: skip
        found[bool(loop)] = _results(done)["cells"][-1]
    closed, opened = found[False], found[True]
    assert closed["objects"] == opened["pace"]["scheduled"] == 200 and closed["pace"] is None
    assert closed["latency"]["max"] > 1.9 and opened["latency"]["max"] > 1.9
    # Of the 100 whose time came meanwhile at least 70 waited for more than half a second.
    assert opened["latency"]["curve"][80] > 0.5 and opened["pace"]["waiting"] >= 90
    assert closed["latency"]["curve"][95] < opened["latency"]["curve"][80]
    assert opened["pace"]["service"]["curve"][95] < opened["latency"]["curve"][80]
    assert keys(cloud) == ["mine/data"]


@pytest.mark.parametrize(
    "options",
    [["--total", "5"], ["--mix", "get=1", "--operation", "put"], ["--mix", "get=1", "--rate", "x"], ["--mix", "zap=1"]],
)
def test_what_does_not_go_together_is_said(tmp_path, options):
    mfstore(str(tmp_path), *options, "--yes", code=(1, 2))
