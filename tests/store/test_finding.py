"""Refs by what their notes say, and tables of them."""

import sys
from datetime import date, datetime, timedelta

import numpy as np
import pytest

import mfstore
from mfstore import errors, provenance, refs
from mfstore.conditions import conditions, values_at
from mfstore.format.recipes import recipe_path
from mfstore.settings import resolve
from mfstore.store import Store
from tests.store.test_notes import CountingFarAway

NOTE = {
    "auc": 0.91, "seed": 7, "name": "churn-7", "tags": ["trial", 1], "metrics": {"f1": 0.5, "by": {"de": 1}},
    "ok": True, "none": None, "a.b": 1, "layers": [{"size": 3}, {"size": 4}],
}  # fmt: skip


@pytest.mark.parametrize(
    "condition",
    [
        {"auc": 0.91}, {"seed": 7.0}, {"auc": (">", 0.9)}, {"auc": (">", np.float32(0.5))}, {"seed": np.int64(7)},
        {"auc": [(">", 0.9), ("<", 0.92)]}, {"auc": ("<=", 0.91), "seed": (">=", 7)}, {"seed": ("!=", 8)},
        {"name": ("<", "d")}, {"name": ("contains", "-7")}, {"tags": ("contains", "trial")}, {"tags": ["trial", 1]},
        {"tags": ("contains", 1)}, {"seed": ("in", [6, 7])}, {"seed": ("in", {7})}, {"seed": ("not in", [6])},
        {"metrics.f1": 0.5}, {"metrics.by.de": ("<", 2)}, {"metrics": ("contains", "f1")}, {"ok": True},
        {"none": None}, {"a.b": 1}, {"layers.1.size": 4}, {"metrics": {"f1": 0.5, "by": {"de": 1.0}}}, {},
    ],
    ids=str,
)  # fmt: skip
def test_conditions_that_hold(condition):
    assert all(one.holds(NOTE) for one in conditions(condition))


@pytest.mark.parametrize(
    "condition",
    [
        {"auc": 0.9}, {"auc": (">", 0.91)}, {"auc": [(">", 0.9), ("<", 0.91)]}, {"seed": ("!=", 7)}, {"gone": 1},
        {"gone": ("!=", 1)}, {"gone": ("not in", [1])}, {"gone": None}, {"name": (">", 3)}, {"seed": ("<", "8")},
        {"ok": 1}, {"ok": ("<", 2)}, {"seed": True}, {"none": ("<", 1)}, {"tags": ("contains", "tri")},
        {"seed": ("contains", 7)}, {"metrics.f1.x": 1}, {"a": 1}, {"a.b.c": 1}, {"layers.2.size": 4},
        {"layers.x": 1}, {"tags": ["trial"]}, {"metrics": {"f1": 0.5}}, {"seed": ("in", ["7", True])},
    ],
    ids=str,
)  # fmt: skip
def test_conditions_that_do_not(condition):
    assert not all(one.holds(NOTE) for one in conditions(condition))


@pytest.mark.parametrize(
    "wrong",
    [
        {"a": ("~", 1)}, {"a": (">",)}, {"a": ("in", "abc")}, {"a": ("in", 3)}, {3: 1}, [("a", 1)], "a>1",
        {"a": ">0.85"}, {"a": np.array([3, 4])},
    ],
)  # fmt: skip
def test_what_is_no_condition(wrong):
    with pytest.raises(errors.InvalidKey):
        conditions(wrong)


def test_a_text_that_looks_like_a_condition():
    with pytest.raises(errors.InvalidKey, match=r"Write \('>', 0.85\); if the text is meant: \('==', '> 0.85'\)"):
        conditions({"auc": "> 0.85"})
    (one,) = conditions({"name": ("==", "> 0.85")})
    assert one.holds({"name": "> 0.85"}) and conditions({"name": "<b>"})[0].holds({"name": "<b>"})


def test_a_name_with_dots_and_a_path_are_both_looked_at():
    assert values_at({"a.b": 1, "a": {"b": 2}}, "a.b") == [1, 2]


@pytest.fixture(params=["near", "far"])
def store(request, tmp_path):
    if request.param == "near":
        return mfstore.open(tmp_path / "store", fsync="none")
    return Store("far", CountingFarAway(), resolve(), create=True, algorithm="blake3")


def trials(store):
    for depth, auc in [(3, 0.88), (5, 0.91), (8, 0.93)]:
        store.put({"depth": depth}, ref=f"models/tree-{depth}", note={"auc": auc, "tags": ["trial"]})
    store.put("other", ref="other/x", note={"auc": 0.99})
    store.put("plain", ref="models/plain")


def names(found):
    return [one.ref for one in found]


def test_refs_by_their_notes(store):
    trials(store)
    assert names(store.find("models/", where={"auc": (">", 0.9)})) == ["models/tree-5", "models/tree-8"]
    assert names(store.find(where={"auc": (">", 0.9)})) == ["models/tree-5", "models/tree-8", "other/x"]
    assert names(store.find("models/tree-*", where={"tags": ("contains", "trial"), "auc": 0.88})) == ["models/tree-3"]
    everything = list(store.find("models/"))
    assert names(everything) == ["models/plain", "models/tree-3", "models/tree-5", "models/tree-8"]
    assert [one.note for one in everything[:2]] == [None, {"auc": 0.88, "tags": ["trial"]}]
    assert everything[0].key == store.refs["models/plain"]
    assert list(store.find("nothing/")) == [] and list(mfstore.open("memory://").find()) == []


def test_the_note_of_the_key_counts_where_the_ref_has_none(store):
    key = store.put(1, note={"a": 1})
    store.refs["x"] = key
    assert names(store.find(where={"a": 1})) == ["x"]
    store.put(1, ref="x", note={"a": 2})
    store.put(1, note={"a": 3})
    assert names(store.find(where={"a": 2})) == ["x"] and names(store.find(where={"a": 3})) == []
    assert names(store.find(where={"a": ("in", [2, 3])}, history=True)) == ["x@0", "x@1"]


def test_since(store, monkeypatch):
    key = store.put(1)
    now = datetime(2026, 11, 30, 12).timestamp()
    for name, ago in (("old", 48 * 3600), ("new", 1800)):
        monkeypatch.setattr(refs.time, "time", lambda at=now - ago: at)
        store.refs[name] = key
    monkeypatch.setattr(refs.time, "time", lambda: now)
    for since in ("1h", "31m", "1d", "2026-11-30", date(2026, 11, 30), datetime(2026, 11, 30), timedelta(hours=1),
                  now - 3600):  # fmt: skip
        assert names(store.find(since=since)) == ["new"], since
    assert names(store.find(since="3d")) == ["new", "old"] and names(store.find(since=now)) == []
    for wrong in ("yesterday", [], "2x"):
        with pytest.raises(errors.InvalidKey, match="since"):
            list(store.find(since=wrong))


def test_requests_are_made_in_bulk():
    class Bulk(CountingFarAway):
        def get_many(self, keys):
            keys = list(keys)
            self.asked.append(("get_many", len(keys)))
            return super().get_many(keys)

        def list(self, prefix):
            self.asked.append(("list", prefix))
            return super().list(prefix)

    store = Store("far", Bulk(), resolve(), create=True, algorithm="blake3")
    for number, key in enumerate(store.put_many([{"n": n} for n in range(200)])):
        store.refs.set(f"runs/{number:03}", key, note={"n": number} if number % 2 else None)
    store.backend.asked.clear()
    assert len(list(store.find("runs/", where={"n": (">", 100)}))) == 50
    bulk = [ask for ask in store.backend.asked if ask[0] != "get"]
    assert bulk == [("list", "refs/runs%2F"), ("get_many", 200), ("get_many", 100)]
    store.backend.asked.clear()
    assert len(store.table("runs/")) == 200
    bulk = [ask for ask in store.backend.asked if ask[0] != "get"]
    assert bulk == [("list", "refs/runs%2F"), ("get_many", 200), ("get_many", 200)]
    assert len([ask for ask in store.backend.asked if ask[0] == "get"]) == 400  # which get_many made


def test_a_table(store):
    trials(store)
    store.put([2], ref="models/deep", note={"size": 1, "metrics": {"f1": 0.5, "by": {"de": 1}}, "empty": {}})
    found = store.table("models/tree-*")
    assert list(found.columns) == ["ref", "key", "time", "size", "creator", "auc", "tags"]
    assert list(found["ref"]) == ["models/tree-3", "models/tree-5", "models/tree-8"]
    assert list(found["auc"]) == [0.88, 0.91, 0.93]
    assert list(found["size"]) == [store.stat(key).size for key in found["key"]]
    assert set(found["creator"]) == {provenance.user()}
    assert str(found["time"].dt.tz) == "UTC"
    assert found["time"][0].timestamp() == int(store.refs.log("models/tree-3")[0].time)
    deep = store.table("models/deep")
    assert list(deep.columns)[5:] == ["note.size", "metrics.f1", "metrics.by.de", "empty"]
    assert list(store.table(["other/x", "models/deep"])["ref"]) == ["other/x", "models/deep"]
    assert list(store.table(where={"auc": (">", 0.9)}, since="1h")["ref"]) == [
        "models/tree-5", "models/tree-8", "other/x",
    ]  # fmt: skip
    assert list(store.table("nothing").columns) == ["ref", "key", "time", "size", "creator"]
    with pytest.raises(errors.NotFound, match="no ref 'gone'"):
        store.table(["models/deep", "gone"])
    with pytest.raises(errors.WrongArgument):
        store.table([3])


def test_a_table_of_what_a_ref_was(store):
    for run in range(3):
        store.put([run], ref="models/a", note={"run": run})
    store.put("longer name", ref="models/ab")
    assert list(store.table("models/a")["ref"]) == ["models/a"]  # not what only begins so
    found = store.table("models/a", history=True)
    assert list(zip(found["ref"], found["run"], strict=True)) == [
        ("models/a@0", 2),
        ("models/a@1", 1),
        ("models/a@2", 0),
    ]
    assert store.get(found["ref"][2]) == [0]


def test_what_is_gone_or_damaged_is_told(store):
    key = store.put("x", ref="a")
    store.backend.delete(recipe_path(key))
    with pytest.raises(errors.NotFound, match=key):
        list(store.find())
    store.backend.put("refs/a", [b"damage"])
    with pytest.raises(errors.CorruptObject):
        list(store.find())


def test_a_table_without_pandas_says_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(errors.Unsupported, match="pip install pandas"):
        store.table()
    assert list(store.find()) == []
