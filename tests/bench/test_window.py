"""Measurements that last as long as they are told to: what is in their figures, and what is not."""

import pytest

from mfstore.bench import window
from mfstore.bench.measure import Row, Usage
from mfstore.bench.recording import Traffic
from mfstore.bench.window import Lasting, gather


@pytest.fixture
def clock(monkeypatch):
    """Time passes when a row comes."""
    now = [100.0]

    class Meter:
        def __init__(self):
            self.begin = now[0]

        def read(self):
            return Usage(now[0] - self.begin, 0.0, None, 0)

    monkeypatch.setattr(window, "monotonic", lambda: now[0])
    monkeypatch.setattr(window, "Meter", Meter)
    return now


def coming(clock, traffic, number, seconds, ended):
    """Objects one after the other, each with a request; ``ended`` notes that the source was closed."""
    try:
        for index in range(number):
            clock[0] += seconds
            traffic.requests["GetObject"] += 1
            yield Row(index, clock[0] - seconds, seconds, None, 10, 1, 10, None)
    finally:
        ended.append(True)


def test_the_warm_up_and_what_ends_late_are_left_out(clock):
    traffic, ended, seen = Traffic(), [], []
    found = gather(coming(clock, traffic, 50, 0.5, ended), traffic, Lasting(15.0, 5.0), lambda: seen.append(1))
    assert (len(seen), ended) == (50, [True])
    assert (found.begin, found.usage.wall) == (105.0, 15.5)
    assert [row.number for row in found.rows] == list(range(10, 41))
    assert found.traffic.requests["GetObject"] == 31
    assert found.steadiness.warm_up == 5.0
    assert found.steadiness.steady


def test_without_a_duration_all_counts(clock):
    traffic = Traffic()
    found = gather(coming(clock, traffic, 50, 0.5, []), traffic, None, lambda: None)
    assert (len(found.rows), found.usage.wall, found.steadiness) == (50, 25.0, None)
    assert found.traffic.requests["GetObject"] == 50


@pytest.mark.parametrize("seconds", [100.0, 4.0])
def test_objects_that_take_longer_than_the_window_are_counted_whole(clock, seconds):
    traffic = Traffic()
    found = gather(coming(clock, traffic, 1, seconds, []), traffic, Lasting(1.0, 5.0), lambda: None)
    assert (len(found.rows), found.begin, found.usage.wall) == (1, 100.0, seconds)
    assert not found.steadiness.steady
    assert found.traffic.requests["GetObject"] == 1
