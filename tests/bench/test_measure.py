"""The numbers of a benchmark add up: on rows made up here, and against numpy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfstore.bench.measure import (
    Meter,
    Row,
    Steadiness,
    Usage,
    quantile,
    slices,
    spread,
    tail,
    thirds,
    under_way,
)
from mfstore.bench.recording import Flights

SECONDS = st.floats(0, 50, allow_nan=False)
ROWS = st.lists(
    st.builds(
        lambda number, start, seconds, size, error: Row(number, 100 + start, seconds, None, 0 if error else size, 1, 0, error),
        st.integers(0, 1000), SECONDS, SECONDS, st.integers(0, 1 << 40), st.sampled_from([None, None, None, "broken"]),
    ),
    max_size=40,
)  # fmt: skip


@pytest.mark.slow
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0, 1))
def test_quantiles_are_numpys(values, share):
    expected = float(np.quantile(values, share))
    assert quantile(sorted(values), share) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.lists(st.floats(0, 1e6), max_size=2000))
def test_quantiles_that_too_few_rows_lie_beyond_are_not_given(values):
    found = spread(values)
    assert (found.p50 is None) == (found.max is None) == (not values)
    assert (found.p90 is None) == (len(values) < 10)
    assert (found.p99 is None) == (len(values) < 100)
    assert (found.p999 is None) == (len(values) < 1000)
    assert found.count == len(values)
    known = [value for value in (found.p50, found.p90, found.p99, found.p999, found.max) if value is not None]
    assert known == sorted(known)
    if values:
        assert len(found.curve) == 101
        assert (found.curve[0], found.curve[50], found.curve[100]) == (min(values), found.p50, max(values))


@given(ROWS)
def test_slices_lose_nothing_and_invent_nothing(rows):
    """Over a time that all rows lie in, and whole slices, the slices hold every byte and every end."""
    found = slices(rows, 100.0, 201.0)
    good = [row for row in rows if row.error is None]
    if not any(row.seconds for row in rows):
        assert found.bytes == ()
        return
    assert (found.seconds, len(found.bytes), len(found.objects)) == (1.0, 101, 101)
    total = sum(row.size for row in good)
    assert sum(found.bytes) * found.seconds == pytest.approx(total, rel=1e-6, abs=1e-3)
    assert sum(found.objects) * found.seconds == pytest.approx(len(good))
    assert all(value >= 0 for value in found.bytes)


@given(ROWS, st.floats(0.5, 60))
def test_the_last_slice_is_left_out_when_it_is_incomplete(rows, seconds):
    found = slices(rows, 100.0, 100.0 + seconds)
    if found.bytes:
        assert found.seconds == (1.0 if seconds >= 3 else 0.1)
        assert seconds - found.seconds < len(found.bytes) * found.seconds <= seconds + 1e-6
        assert sum(found.bytes) * found.seconds <= sum(row.size for row in rows) * (1 + 1e-6) + 1e-3


def test_one_row_over_two_and_a_half_slices():
    found = slices([Row(0, 10.5, 2.0, None, 400, 1, 0, None)], 10.0, 14.0)
    assert found.bytes == (100, 200, 100, 0)
    assert found.objects == (0, 0, 1, 0)


@given(ROWS)
def test_the_tail_begins_when_nothing_is_left_to_start(rows):
    found = tail(rows, 100.0)
    assert 0 <= found.first_done <= found.last_done
    assert 0 <= found.share <= 1
    if rows:
        assert found.last_done == pytest.approx(max(row.start + row.seconds for row in rows) - 100)
        last = max(row.start for row in rows) - 100
        assert found.first_done >= last or math.isclose(found.first_done, last, abs_tol=1e-9)


def test_the_tail_of_rows_one_after_the_other_is_none():
    rows = [Row(number, 10.0 + number, 1.0, None, 1, 1, 0, None) for number in range(5)]
    assert tail(rows, 10.0).share == 0
    late = Row(5, 10.0, 10.0, None, 1, 1, 0, None)
    assert tail([*rows, late], 10.0).share == pytest.approx(0.5)


def test_usage_adds_times_and_takes_the_larger_peak():
    assert Usage(1, 2, 3, 40) + Usage(10, 20, 30, 4) == Usage(11, 22, 33, 40)
    assert (Usage(1, 2, None, 4) + Usage(1, 1, 1, 1)).machine is None


def test_the_meter_sees_cpu_and_memory():
    meter = Meter()
    room = bytearray(200 << 20)
    room[:: 1 << 12] = b"x" * (len(room) >> 12)
    used = meter.read()
    assert used.rss > 200 << 20
    assert 0 < used.cpu <= 8 * used.wall + 0.1
    del room
    assert Meter().read().rss < used.rss


def test_requests_under_way_over_time():
    found = Flights(begin=100.0, _last=100.0)
    found.change(4, 100.0)
    found.change(2, 100.025)
    found.change(-6, 100.055)
    assert found.most == 6
    assert sum(found.bins) == pytest.approx(4 * 0.025 + 6 * 0.03)
    assert found.mean(100.0, 100.02) == pytest.approx(4)
    assert found.mean(100.03, 100.05) == pytest.approx(6)
    assert found.mean(99.0, 99.5) == found.mean(100.2, 101.0) == 0


def test_thirds_and_whether_they_are_steady():
    rows = [Row(number, 10 + number / 10, 0.05, None, 1, 1, 0, None) for number in range(90)]
    even = thirds(rows, 10.0, 19.0)
    assert even == pytest.approx((10, 10, 10))
    assert Steadiness(1.0, even).steady
    faster = thirds([row for row in rows if row.number % 2 or row.number > 60], 10.0, 19.0)
    assert not Steadiness(1.0, faster).steady
    assert thirds(rows[:11], 10.0, 19.0) == () and not Steadiness(1.0, ()).steady
    failed = [row._replace(error="broken") for row in rows]
    assert thirds(failed, 10.0, 19.0) == ()


@given(ROWS)
def test_objects_under_way_by_littles_law(rows):
    mean, most, parts = under_way(rows, 100.0, 201.0, 1.0, 101)
    assert mean * 101 == pytest.approx(sum(row.seconds for row in rows), abs=1e-6)
    assert sum(parts) == pytest.approx(sum(row.seconds for row in rows), abs=1e-6)
    assert most <= len(rows) and max(parts) <= most + 1e-9
