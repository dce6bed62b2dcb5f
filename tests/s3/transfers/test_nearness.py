"""How many long bodies flow at once, by what was measured: made-up measurements, and a simulated S3 that makes them
up."""

import math

import pytest

from mfstore.s3.transfers.nearness import (
    MEASURED_BYTES,
    NEAR_SECONDS,
    SLOWED,
    SLOWED_BODIES,
    THREAD_BANDWIDTH,
    Nearby,
    Nearness,
)
from tests.rigs.simulated_s3 import BIG, MIB, SimulatedChannel, SimulatedS3, simulated_client

AT_ONCE = 0.0003


def near(rate=0.0, threads=2):
    found = Nearness(threads)
    found.answered(AT_ONCE)
    if rate:
        found.brought(64 * MIB, 64 * MIB / rate)
    return found


def test_until_something_is_measured_nothing_is_limited():
    assert Nearness().enough() is None


def test_far_away_nothing_is_limited_however_fast():
    far = Nearness()
    far.answered(0.03)
    far.brought(64 * MIB, 0.01)
    assert far.enough() is None
    far.answered(NEAR_SECONDS)
    assert far.enough() == 2


@pytest.mark.parametrize(
    ("rate", "threads", "enough"),
    [(0.0, 2, 2), (0.0, 4, 4), (2e9, 2, 2), (2e9, 4, 4), (300e6, 2, 5), (300e6, 4, 9), (50e6, 2, 25), (1e6, 2, 1250)],
)
def test_near_as_many_are_enough_as_fill_the_threads_at_the_rate_of_one(rate, threads, enough):
    assert near(rate, threads).enough() == enough
    assert not rate or enough == max(threads, math.ceil(threads * THREAD_BANDWIDTH / rate))


def test_connections_that_share_the_machine_open_no_more():
    found = near(800e6)
    for _ in range(1000):
        found.brought(64 * MIB, 64 * MIB / (800e6 / found.enough()))
    assert found.enough() == 2


def test_the_best_rate_counts_until_all_are_much_slower():
    found = near(1e9)
    for _ in range(SLOWED_BODIES - 1):
        found.brought(8 * MIB, 8 * MIB / 50e6)
    found.brought(8 * MIB, 8 * MIB / (1e9 / SLOWED))
    for _ in range(SLOWED_BODIES - 1):
        found.brought(8 * MIB, 8 * MIB / 50e6)
    assert found.enough() == 2
    found.brought(8 * MIB, 8 * MIB / 40e6)
    assert found.rate == pytest.approx(50e6) and found.enough() == 25


def test_short_bodies_tell_no_rate():
    found = near()
    found.brought(MEASURED_BYTES - 1, 1.0)
    assert found.rate == 0.0


def test_no_time_at_all_is_a_rate_too():
    found = near()
    found.brought(64 * MIB, -1.0)
    assert found.enough() == 2


def test_of_several_buckets_the_one_that_needs_most_decides():
    nearby = Nearby()
    assert nearby.enough(["fast"]) is None
    nearby.of("fast").answered(AT_ONCE)
    nearby.of("slow").answered(AT_ONCE)
    nearby.of("slow").brought(64 * MIB, 64 * MIB / 100e6)
    assert nearby.enough(["fast"]) == 2 and nearby.enough(["fast", "slow"]) == 13
    assert nearby.measured(["slow"]) and not nearby.measured(["fast", "slow"])
    assert nearby.enough(["fast", "unknown"]) is None


def test_not_more_buckets_are_remembered_than_some():
    nearby = Nearby()
    for number in range(10 * Nearby.MOST):
        nearby.of(str(number))
    assert len(nearby.known) <= Nearby.MOST


# ---- the scheduler ----------------------------------------------------------------------


@pytest.fixture
def bodies_last(monkeypatch):
    """Bodies come when no other answer is to come. Says how many were under way whenever one more was."""
    poll, resume, submit = SimulatedChannel.poll, SimulatedChannel.resume, SimulatedChannel.submit
    flowing = []

    def is_body(item):
        return not isinstance(item, tuple) or item[0].target is not None

    def others_first(channel, timeout):
        bodies = [item for item in channel._queue if is_body(item)]
        if len(bodies) < len(channel._queue):
            channel._queue = [item for item in channel._queue if not is_body(item)]
            replies = poll(channel, timeout)
            channel._queue += bodies
            return replies
        channel._queue, later = bodies[:1], bodies[1:]
        replies = poll(channel, timeout)
        channel._queue += later
        return replies

    def counted(what):
        def call(channel, *arguments):
            what(channel, *arguments)
            flowing.append(sum(map(is_body, channel._queue)))

        return call

    monkeypatch.setattr(SimulatedChannel, "poll", others_first)
    monkeypatch.setattr(SimulatedChannel, "resume", counted(resume))
    monkeypatch.setattr(SimulatedChannel, "submit", counted(submit))
    return flowing


def world_of(first_byte, rate, objects=6, size=16 * MIB):
    world = SimulatedS3({f"k{number}": BIG[:size] for number in range(objects)})
    world.first_byte, world.rate = first_byte, rate
    return world


def got(world, client=None, **arguments):
    client = client or simulated_client(world, **arguments)
    found = {outcome.key: outcome.data for outcome in client.get_many(list(world.objects), ordered=False)}
    assert found == world.objects
    return client


def test_near_and_fast_few_bodies_flow_whole(bodies_last):
    world = world_of(AT_ONCE, 4e9)
    client = got(world)
    assert max(bodies_last) == 2
    world.log.clear()
    got(world, client)
    assert max(bodies_last) == 2 and len(world.log) == len(world.objects)


def test_near_and_slow_more_flow_as_soon_as_one_has_come(bodies_last):
    client = got(world_of(AT_ONCE, 50e6))
    first = bodies_last.index(3)
    assert set(bodies_last[:first]) <= {0, 1, 2} and max(bodies_last) >= 10
    assert client.transfers._nearby.of("b").enough() in (
        25,
        26,
    )  # the rate is a quotient of times that are no round ones


def test_far_away_as_many_flow_as_there_is_room_for(bodies_last):
    got(world_of(0.03, 1e9))
    assert max(bodies_last) == 12


def test_a_fixed_concurrency_is_kept_to_near_too(bodies_last):
    got(world_of(AT_ONCE, 4e9), concurrency=6)
    assert max(bodies_last) >= 6


def test_pieces_of_a_range_into_the_callers_memory_are_few_near_a_server(bodies_last):
    world = world_of(AT_ONCE, 4e9, objects=1, size=40 * MIB)
    client, place = simulated_client(world), bytearray(40 * MIB)
    client.get_into(("k0", 0, 20 * MIB), memoryview(place)[: 20 * MIB])
    bodies_last.clear()
    client.get_into(("k0", 0, 40 * MIB), memoryview(place))
    assert place == BIG and max(bodies_last) == 2 and len(world.log) == 5
