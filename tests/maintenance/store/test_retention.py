"""Which values of refs stay: the calendar, their own time, and a brake; against a slow reading of docs/gc.md."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import mfstore
from mfstore import errors
from mfstore.cli import main
from mfstore.durations import seconds, ttl_of
from mfstore.format.refs import RefEntry
from mfstore.maintenance.store.collecting.retention import RefVersion, Retention, plan_refs, unclear_ttls
from mfstore.maintenance.store.collecting.told import retention_text
from tests.rigs.gc import noise

DAY = 86400.0
NOW = datetime(2026, 11, 30, 14, 30, tzinfo=UTC).timestamp()
SCHEMAS = Path(__file__).parents[3] / "docs" / "schema"


def value(number, ago, ttl=None):
    """A value that was set so many days ago."""
    return RefEntry(mfstore.Key(f"{number:064x}"), NOW - ago * DAY, None if ttl is None else {"ttl": ttl})


def left(history, name="models/x", **retention):
    """The values that stay, by number."""
    changes = plan_refs({name: RefVersion("e", tuple(history))}, Retention(**retention), NOW)
    kept = changes[0].kept if changes else tuple(history)
    return [number for number, entry in enumerate(history) if entry in kept]


def test_durations_have_units():
    assert [seconds(text) for text in ("30d", "1.5 h", " 90min", "5s", "2w")] == [30 * DAY, 5400, 5400, 5, 14 * DAY]
    for bad in ("30", 30, "d", "30x", "-1d", "", None, "1d1h", ["30d"], "٣d"):
        with pytest.raises(errors.InvalidKey, match="no duration"):
            seconds(bad)
    assert ttl_of(None) is None and ttl_of({"auc": 1}) is None and ttl_of({"ttl": "1d"}) == DAY


def test_the_calendar():
    hours = [value(n, (99 - n) / 24) for n in range(100)]  # set every hour, the last one now
    assert left(hours, keep_hourly=3) == [97, 98, 99]
    assert left(hours, keep_daily=3) == [60, 84, 99]  # 14:30 now; the last of a day is that of 23:30
    assert left(hours, keep_monthly=5) == [99]
    assert left(hours, keep_last=2, keep_daily=2) == [84, 98, 99]
    assert left([value(0, 90), value(1, 60), value(2, 30)], keep_monthly=2) == [
        0,
        2,
    ]  # the first of October and its last
    assert left(hours, keep_daily=1, pinned=("models/*",)) == list(range(100))


def test_refs_of_a_series_go_by_the_calendar_too():
    refs = {f"runs/{n:02d}": RefVersion("e", (value(n, n / 2),)) for n in range(20)}
    changes = plan_refs(refs, Retention(keep_daily=3, series=("runs/*",)), NOW)
    assert {*refs} - {change.name for change in changes if not change.kept} == {"runs/00", "runs/02", "runs/04"}


def test_values_say_how_long_they_stay():
    assert left([value(0, 40), value(1, 31, "30d"), value(2, 1)]) == [0, 2]  # without any policy
    assert left([value(0, 40), value(1, 31, "32d"), value(2, 1)], keep_last=1) == [1, 2]
    assert left([value(0, 40), value(1, 31, "soon"), value(2, 1)], keep_last=1) == [1, 2]
    assert left([value(0, 40), value(1, 31), value(2, 31, "30d")]) == []  # with the newest goes the ref
    assert left([value(0, 40, "90d"), value(1, 31), value(2, 31, "30d")], keep_age=1000 * DAY) == [0]
    assert left([value(0, 40), value(1, 31, "30d")], pinned=("models/x",)) == [0, 1]
    series = {"series": ("models/*",), "keep_age": DAY}
    assert left([value(0, 31, "30d")], **series) == [] and left([value(0, 31, "32d")], **series) == [0]
    refs = {
        name: RefVersion("e", (value(0, 1, ttl),)) for name, ttl in (("a", "1d"), ("b", "x"), ("c", None), ("d", 5))
    }
    assert unclear_ttls(refs) == ["b", "d"]


TTLS = st.sampled_from((None, None, None, "1d", "100d", "x"))
HISTORIES = st.lists(st.tuples(st.floats(0, 400), TTLS), min_size=1, max_size=12)
SMALL = st.none() | st.integers(1, 4)


@settings(max_examples=300, deadline=None)
@given(HISTORIES, st.fixed_dictionaries({f"keep_{kind}": SMALL for kind in (
    "last", "hourly", "daily", "weekly", "monthly", "yearly")}), st.none() | st.sampled_from((DAY, 100 * DAY)))  # fmt: skip
def test_any_policy_keeps_what_the_documentation_says(history, numbers, age):
    history = [value(number, ago, ttl) for number, (ago, ttl) in enumerate(sorted(history, key=lambda h: -h[0]))]

    def ends(entry):
        ttl = (entry.note or {}).get("ttl")
        return {None: None, "x": float("inf")}.get(ttl, entry.time + seconds(ttl) if ttl not in (None, "x") else None)

    def period(kind, entry):
        date = datetime.fromtimestamp(entry.time, UTC)
        return {"hourly": (date.date(), date.hour), "daily": date.date(), "weekly": date.isocalendar()[:2],
                "monthly": (date.year, date.month), "yearly": date.year}[kind]  # fmt: skip

    lasting = [n for n, entry in enumerate(history) if ends(entry) is not None and ends(entry) > NOW]
    alive = [n for n, entry in enumerate(history) if ends(entry) is None or ends(entry) > NOW]
    expected = set(lasting)
    if len(history) - 1 in alive:
        expected.add(alive[-1])
        if age is None and not any(numbers.values()):
            expected |= set(alive)
        expected |= set(alive[-(numbers["keep_last"] or 0) :] if numbers["keep_last"] else [])
        for at, number in enumerate(alive):
            until = history[alive[at + 1]].time if at + 1 < len(alive) else float("inf")
            if age is not None and until >= NOW - age:
                expected.add(number)
        for kind in ("hourly", "daily", "weekly", "monthly", "yearly"):
            periods = []
            for number in reversed(alive):
                if period(kind, history[number]) not in periods:
                    periods.append(period(kind, history[number]))
                    if len(periods) <= (numbers[f"keep_{kind}"] or 0):
                        expected.add(number)
    assert left(history, keep_age=age, **numbers) == sorted(expected)


@pytest.mark.parametrize("bad", [{"keep_daily": 0}, {"keep_yearly": -1}])
def test_a_calendar_that_makes_no_sense(bad):
    with pytest.raises(errors.InvalidKey):
        Retention(**bad)


def test_a_policy_in_words():
    assert retention_text(Retention()) == "keep all values of refs; no value for longer than its ttl"
    many = Retention(keep_last=1, keep_daily=7, keep_age=30 * DAY, series=("runs/*",), pinned=("prod/*",))
    assert retention_text(many) == (
        "keep of each ref the last 1 value, the last of each of 7 days, what was current within 30 days; refs like runs/* "
        "go by this too; no value for longer than its ttl; all of refs like prod/*"
    )


def test_what_is_over_its_time_goes_from_a_store(tmp_path, monkeypatch):
    store = mfstore.open(tmp_path / "store")
    trial, kept = store.put(noise(1)), store.put(noise(2))
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() - 31 * DAY)
    store.refs.set("models/trial", trial, note={"ttl": "30d"})
    store.refs.set("models/kept", kept, note={"ttl": "60d"})
    monkeypatch.undo()
    store.put(noise(3), "models/new", note={"ttl": "1d"})
    plan = store.plan_gc(grace=0, max_drop=0.3)
    assert [change.name for change in plan.decision.refs] == ["models/trial"] and not plan.decision.refs[0].kept
    with pytest.raises(errors.Refused, match=r"1 key would be condemned at once, 33% of all: more than 30%"):
        plan.execute()
    assert store.exists(trial) and "models/trial" in store.refs
    store.plan_gc(grace=0, max_drop=0.5).execute()
    store.plan_gc(grace=0, max_drop=0.0).execute()  # what is condemned already is no brake
    assert not store.exists(trial) and store.exists(kept) and sorted(store.refs) == ["models/kept", "models/new"]
    with pytest.raises(errors.Refused, match="between 0 and 1"):
        store.plan_gc(max_drop=30)


@pytest.mark.parametrize("bad", ["30", 30, "soon", None])
def test_a_time_that_nobody_understands_is_told_before_anything_is_stored(tmp_path, bad):
    store = mfstore.open(tmp_path / "store")
    for work in (
        lambda note: store.put(1, "models/x", note=note),
        lambda note: store.save({"a": 1}, "models/x", note=note),
        lambda note: store.put_bytes(b"x", "models/x", note=note),
    ):
        with pytest.raises(errors.InvalidNote, match="the ttl of a ref is no duration"):
            work({"ttl": bad})
    assert not [*store.keys()]
    key = store.put(1, note={"ttl": bad})  # of what no ref names it is a note like any other
    with pytest.raises(errors.InvalidNote):
        store.refs.set("models/x", key, note={"ttl": bad})
    assert not store.refs


def test_json_is_what_its_schema_says(tmp_path):
    schema = json.loads((SCHEMAS / "gc-store.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    store = mfstore.open(tmp_path / "store")
    for number in range(3):
        store.put(noise(number), "models/x")
    for more in ((), ("-l",), ("--max-drop", "1%"), ("--execute", "-l"), ("--execute",)):
        command = ["gc", "-s", str(tmp_path / "store"), "--keep-last", "1", "--grace", "0s", "--json", *more]
        result = CliRunner().invoke(main, command, catch_exceptions=False)
        document = json.loads(result.stdout)
        jsonschema.validate(document, schema)
        assert bool(document["refusal"]) is ("--max-drop" in more)
    assert document["executed"]["deleted"]["recipes"] == 2
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "more": 1}, schema)
