"""The last of each hour, day, week, month and year, against the calendar."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from mfstore.maintenance.periods import PERIODS, last_of_periods, period_of

NAMES = {
    "hourly": lambda d: (d.date(), d.hour), "daily": lambda d: d.date(), "weekly": lambda d: d.isocalendar()[:2],
    "monthly": lambda d: (d.year, d.month), "yearly": lambda d: d.year,
}  # fmt: skip
TIMES = st.floats(0, 4e9, allow_nan=False)


@given(TIMES, TIMES, st.sampled_from(PERIODS))
def test_periods_are_those_of_the_calendar(one, other, kind):
    dates = [datetime.fromtimestamp(moment, UTC) for moment in (one, other)]
    same = NAMES[kind](dates[0]) == NAMES[kind](dates[1])
    assert (period_of(kind, one) == period_of(kind, other)) is same


@given(st.lists(TIMES, max_size=30), st.dictionaries(st.sampled_from(PERIODS), st.none() | st.integers(0, 6)))
def test_the_last_of_the_latest_periods(times, wanted):
    times.sort(reverse=True)
    names = {kind: [NAMES[kind](datetime.fromtimestamp(moment, UTC)) for moment in times] for kind in PERIODS}
    expected = set()
    for kind, number in wanted.items():
        firsts = [n for n, name in enumerate(names[kind]) if name not in names[kind][:n]]
        expected |= set(firsts[: number or 0])
    found = last_of_periods(times, wanted)
    assert found.keys() == expected
    assert all(wanted.get(kind) for kind in found.values())


def test_times_that_no_calendar_has():
    times = [float("inf"), 1e300, 5.0, -1e300, float("nan")]
    assert last_of_periods(times, {"monthly": 3}).keys() == {0, 1, 2}
    assert last_of_periods(times, {"daily": 9}).keys() == {0, 1, 2, 3, 4}
