"""Numbers as people say them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfstore.display.amounts import age, count, date, duration, size

NOW = 1_780_000_000.0
DAY = 86400.0


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
        (12_345_678, "12.3 MB"), (5e12, "5.0 TB"), (5e15, "5000.0 TB"), (-1500, "-1.5 kB"),
    ],
)  # fmt: skip
def test_bytes(number, told):
    assert size(number) == told


@given(st.floats(0, 1e15))
def test_bytes_have_few_digits(number):
    figures, unit = size(number).split()
    assert unit == "TB" or float(figures) < 1000
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert abs(float(figures) * factor - number) <= 0.0501 * factor * (10 if unit == "B" else 1)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "just now"), (4, "just now"), (-4, "just now"), (30, "30 seconds ago"), (119, "119 seconds ago"),
        (120, "2 minutes ago"), (7199, "119 minutes ago"), (7200, "2 hours ago"), (2 * DAY, "2 days ago"),
        (59 * DAY, "59 days ago"), (61 * DAY, "2 months ago"), (729 * DAY, "23 months ago"), (731 * DAY, "2 years ago"),
        (-7200, "in 2 hours"),
    ],
)  # fmt: skip
def test_ages(seconds, told):
    assert age(NOW - seconds, NOW) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0.0 ms"), (6.12e-6, "6.1 \N{MICRO SIGN}s"), (0.0004, "0.4 ms"), (1, "1.0 s"), (59.94, "59.9 s"), (59.96, "1 min"), (125, "2 min 5 s"),
        (3599.6, "1 h"), (12_000, "3 h 20 min"), (3 * DAY, "3 days"),
    ],
)  # fmt: skip
def test_durations(seconds, told):
    assert duration(seconds) == told


def test_counts():
    assert [count(1, "ref"), count(12_000, "ref"), count(2, "entry", "entries")] == [
        "1 ref",
        "12,000 refs",
        "2 entries",
    ]


@pytest.mark.parametrize("never", [1e30, -1e30, float("nan"), float("inf")])
def test_a_time_that_no_calendar_has_is_told_all_the_same(never):
    """Times in a store are whatever its writers' clocks said."""
    assert date(never) and age(never, NOW)
