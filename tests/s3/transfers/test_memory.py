"""How much memory the results of one bulk operation take, and what becomes of it: against a simulated S3."""

import asyncio
import gc
import os

import pytest

from mfstore.s3.calls import Reply
from mfstore.s3.transfers.outcomes import Outcome
from mfstore.s3.transfers.retry import RetryPolicy
from mfstore.s3.transfers.scheduler import FEWEST_CALLS
from tests.rigs.simulated_s3 import BIG, MIB, SimulatedChannel, SimulatedS3, simulated_client


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Retries at once: what is tested is which calls are made, not when."""
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)


@pytest.mark.slow
def test_memory_is_bounded_by_the_budget():
    world = SimulatedS3({f"k{i}": BIG[: 8 * MIB] for i in range(20)})
    result = simulated_client(world, memory=32 * MIB).get_many([f"k{i}" for i in range(20)])
    for outcome in result:
        assert len(outcome.data) == 8 * MIB
        del outcome
        gc.collect()
    # One body beyond the budget: the oldest item always gets its memory, so that there is no deadlock.
    assert result.stats.memory <= 40 * MIB


@pytest.fixture
def bodies_last(monkeypatch):
    """Announcements come at once, bodies when nothing else is to come: as over a network. Says how many were on their
    way."""
    poll, resume = SimulatedChannel.poll, SimulatedChannel.resume
    under_way = []

    def announcements_first(channel, timeout):
        bodies = [item for item in channel._queue if isinstance(item, Reply)]
        if len(bodies) == len(channel._queue):
            return poll(channel, timeout)
        channel._queue = [item for item in channel._queue if not isinstance(item, Reply)]
        replies = poll(channel, timeout)
        channel._queue += bodies
        return replies

    def counted(channel, call, target, stop=None, skip=0):
        resume(channel, call, target, stop, skip)
        under_way.append(len({item.call.key for item in channel._queue if isinstance(item, Reply)}))

    monkeypatch.setattr(SimulatedChannel, "poll", announcements_first)
    monkeypatch.setattr(SimulatedChannel, "resume", counted)
    return under_way


def test_as_many_objects_are_fetched_side_by_side_as_the_memory_holds(bodies_last):
    world = SimulatedS3({f"k{i}": BIG[: 8 * MIB] for i in range(20)})
    list(simulated_client(world, memory=32 * MIB).get_many([f"k{i}" for i in range(20)]))
    assert max(bodies_last) == 4


@pytest.mark.parametrize("ordered", [True, False])
def test_no_result_takes_memory_that_one_before_it_will_need(monkeypatch, ordered):
    """Of results in order; else what is announced first, and held until its turn, would leave few places."""
    number, places, handed_out, ahead = 24, 4, [0], []
    poll, resume = SimulatedChannel.poll, SimulatedChannel.resume

    def last_answered_first(channel, timeout):
        held = channel._queue
        asked = [item for item in held if not isinstance(item, Reply)]
        channel._queue = asked[-1:] or held
        replies = poll(channel, timeout)
        channel._queue += [item for item in held if item is not asked[-1]] if asked else []
        return replies

    def noted(channel, call, target, stop=None, skip=0):
        ahead.append(int(call.key) - handed_out[0])
        resume(channel, call, target, stop, skip)

    monkeypatch.setattr(SimulatedChannel, "poll", last_answered_first)
    monkeypatch.setattr(SimulatedChannel, "resume", noted)
    world = SimulatedS3({f"{i}": BIG[: 2 * MIB] for i in range(number)})
    client = simulated_client(world, memory=places * 2 * MIB)
    for outcome in client.get_many([*world.objects], ordered=ordered):
        handed_out[0] += 1
        del outcome
    assert len(ahead) == number and (max(ahead) <= places) == ordered  # the oldest never waits


@pytest.mark.second
def test_objects_that_wait_for_memory_take_few_connections(bodies_last):
    world = SimulatedS3({f"k{i}": BIG[: 4 * MIB] for i in range(10)})
    list(simulated_client(world, memory=8 * MIB - 1, concurrency=16).get_many([f"k{i % 10}" for i in range(100)]))
    assert world.most <= 16 + FEWEST_CALLS


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_the_caller_lets_go_is_gone_before_more_is_fetched(monkeypatch, asynchronous):
    world = SimulatedS3({f"gone{i}": BIG[: 3 * MIB] for i in range(8)})
    poll, had, alive = SimulatedChannel.poll, set(), []

    def watching(channel, timeout):
        gc.collect()
        alive.append(sum(isinstance(item, Outcome) and item.key in had for item in gc.get_objects()))
        return poll(channel, timeout)

    monkeypatch.setattr(SimulatedChannel, "poll", watching)

    async def all_of(result):
        async for outcome in result:
            had.add(outcome.key)
            del outcome

    client = simulated_client(world, memory=3 * MIB)
    if asynchronous:
        ready = os.eventfd(1)
        monkeypatch.setattr(SimulatedChannel, "fileno", lambda _: ready)
        try:
            asyncio.run(all_of(client.aget_many([*world.objects])))
        finally:
            os.close(ready)
    else:
        for outcome in client.get_many([*world.objects]):
            had.add(outcome.key)
            del outcome
    assert len(had) == 8 and len(alive) > 8 and not any(alive)


def test_what_is_kept_of_results_stays_as_it_was():
    data = {f"k{i}": BIG[i : i + 3 * MIB] for i in range(40)}
    result = simulated_client(SimulatedS3(data), memory=12 * MIB).get_many([*data])
    kept = {}
    for place, outcome in enumerate(result):
        if place % 3 == 0:
            kept[outcome.key] = outcome.data
        elif place % 3 == 1:
            kept[outcome.key] = memoryview(outcome.data)[:]
    assert len(kept) == 27 and all(data[key] == found for key, found in kept.items())


@pytest.mark.second
def test_one_object_larger_than_the_budget_is_fetched():
    world = SimulatedS3({"big": BIG, "a": b"1"})
    assert [o.data for o in simulated_client(world, memory=MIB).get_many(["a", "big", "a", "big"])] == [
        b"1",
        BIG,
        b"1",
        BIG,
    ]


def test_interleaved_ranges_in_order_end_when_they_need_more_than_the_memory():
    world = SimulatedS3({f"o{i}": bytes([i]) * MIB for i in range(20)})
    items = [(f"o{i}", part * 65536, 65536) for part in range(16) for i in range(20)]
    outcomes = simulated_client(world, memory=MIB, concurrency=2).get_ranges(items)
    assert [o.item for o in outcomes] == items
