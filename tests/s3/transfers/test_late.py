"""What the scheduler does as time passes: what is late, what waits, and how it ends early. The clock is simulated as
well."""

import pytest

from mfstore.errors import BackendError
from mfstore.s3.calls import Reply
from mfstore.s3.transfers import ending, scheduler
from mfstore.s3.transfers.retry import RetryPolicy
from tests.rigs import simulated_s3
from tests.rigs.simulated_s3 import BIG, SimulatedChannel, SimulatedS3, simulated_client

MIB = 1 << 20


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Retries at once."""
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)


class Clock:
    """The simulation's time: it passes only while the scheduler waits."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(simulated_s3, "time", clock)
    for module in (scheduler, ending):
        monkeypatch.setattr(module, "monotonic", clock.monotonic)
    return clock


def answers_late(monkeypatch, clock, late):
    """``late(call)`` tells by how many seconds its answer is."""
    poll = SimulatedChannel.poll

    def patient(channel, timeout):
        waiting = [
            item for item in channel._queue if not isinstance(item, Reply) and clock.now < item[1] + late(item[0])
        ]
        channel._queue = [item for item in channel._queue if item not in waiting]
        found = poll(channel, timeout)
        channel._queue += waiting
        return found

    monkeypatch.setattr(SimulatedChannel, "poll", patient)


def test_the_last_one_is_asked_for_twice_when_it_is_late(clock, monkeypatch):
    world = SimulatedS3({f"k{i}": b"%d" % i for i in range(40)})
    first = []

    def late(call):
        if call.key == "k7" and not first:
            first.append(call)
        return 3600.0 if call in first else 0.0

    answers_late(monkeypatch, clock, late)
    result = simulated_client(world).get_many(list(world.objects)).wait()
    assert [o.data for o in result] == list(world.objects.values())
    assert (result.stats.hedged, result.stats.requests) == (1, 41) and clock.now < 1010


def test_a_second_request_that_cannot_be_made_leaves_the_first(clock, monkeypatch):
    world = SimulatedS3({f"k{i}": b"%d" % i for i in range(40)})
    answers_late(monkeypatch, clock, lambda call: 10.0 if call.key == "k7" else 0.0)
    submit, sent, refused = SimulatedChannel.submit, set(), []

    def once(channel, calls):
        refused.extend(call.key for call in calls if call.key in sent)
        if refused:
            raise BackendError("not again")
        sent.update(call.key for call in calls)
        submit(channel, calls)

    monkeypatch.setattr(SimulatedChannel, "submit", once)
    result = simulated_client(world).get_many(list(world.objects)).wait()
    assert [o.data for o in result] == list(world.objects.values()) and {*refused} == {"k7"}
    assert (result.stats.hedged, result.stats.requests) == (0, 40)


def test_one_that_was_refused_is_late_by_its_second_try_only(clock, monkeypatch):
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 10.0)
    world = SimulatedS3({f"k{i}": b"%d" % i for i in range(40)}, plan={7: 503, 20: 500})
    answers_late(monkeypatch, clock, lambda call: 0.15)
    result = simulated_client(world).get_many(list(world.objects)).wait()
    assert [o.data for o in result] == list(world.objects.values())
    assert (result.stats.hedged, result.stats.requests) == (0, 42) and clock.now > 1010


# ---- what waits ------------------------------------------------------------------------------


def pumped(result, times):
    """The scheduler after so many turns, and the outcomes nobody has taken from it."""
    running = result._start()
    return running, [outcome for _ in range(times) for outcome in running.pump(0.01)]


def rest(running, waiting):
    """Take what waits, and run to the end."""
    while True:
        for outcome in waiting:
            running.handed_out(outcome)
            yield outcome
        if running.done:
            return
        waiting = running.pump(0.01)


def test_what_is_known_of_objects_counts_as_memory_while_it_waits(clock, monkeypatch):
    world, late = SimulatedS3({f"k{i}": b"x" for i in range(5000)}), [1e9]
    answers_late(monkeypatch, clock, lambda call: late[0] if call.key == "k0" else 0.0)
    running, waiting = pumped(simulated_client(world, memory=MIB, concurrency=4).head_many(world.objects), 3000)
    assert 100 < world.count < MIB // 2048 + 10
    late[0] = 0.0
    assert len({outcome.key for outcome in rest(running, waiting)}) == world.count == 5000
    assert running.admission.budget.used == 0


def test_pages_of_a_listing_count_as_memory_while_they_wait(clock, monkeypatch):
    world, late = SimulatedS3({f"{prefix}/{i:04}": b"x" for prefix in "abc" for i in range(3000)}), [1e9]
    answers_late(monkeypatch, clock, lambda call: late[0] if call.params["Prefix"] == "a/" else 0.0)
    client = simulated_client(world, memory=MIB)
    running, waiting = pumped(client.list(["a/", "b/", "c/"], page=100)._start(), 300)
    assert 10 < world.count < 25, "of 60 pages"
    late[0] = 0.0
    assert sum(len(outcome.data.objects) for outcome in rest(running, waiting)) == 9000
    assert running.admission.budget.used == 0


# ---- ending early ---------------------------------------------------------------------------


def test_giving_up_an_upload_is_asked_for_again_when_it_is_refused(clock, monkeypatch):
    monkeypatch.setattr(ending, "sleep", clock.sleep)
    world = SimulatedS3()
    abort, refused = world._AbortMultipartUpload, iter([503, 500])

    def reluctant(call):
        status = next(refused, None)
        return world._error(status, "SlowDown") if status else abort(call)

    world._AbortMultipartUpload = reluctant
    running, _ = pumped(simulated_client(world).put_many({"big": BIG}, stream=True), 1)
    assert world.uploads
    running.close()
    assert not world.uploads and next(refused, None) is None


def test_a_slow_consumer_does_not_use_up_the_time_for_retries(monkeypatch, clock):
    world, poll, held = SimulatedS3({f"k{i}": b"x" for i in range(40)}, plan={30: 503}), SimulatedChannel.poll, []

    def one(channel, timeout):
        held.extend(poll(channel, timeout if not held else 0))
        found = held[:1]
        del held[:1]
        return found

    monkeypatch.setattr(SimulatedChannel, "poll", one)
    for outcome in simulated_client(world, retry_seconds=0.3, concurrency=64).get_many(list(world.objects)):
        if outcome.index == 10:
            clock.now += 0.5
