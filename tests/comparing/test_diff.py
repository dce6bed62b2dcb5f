"""What differs between two things that are stored: told as counting by hand tells it, with only what differs read."""

import collections
import datetime
import json
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import mfstore
from mfstore.backends.s3.backend import S3Backend
from mfstore.cli import main
from mfstore.comparing import jobs, lanes
from mfstore.comparing.report import ADDED, CHANGED, LINES_TOLD, REMOVED
from mfstore.errors import CorruptObject, NotFound
from mfstore.pickling.evaluation import slots_of
from mfstore.views.parts import objects_together
from tests.rigs.damage import wrapped
from tests.rigs.parts import CountingBackend

ROWS = 12_000
"""So that columns are segments."""


@pytest.fixture
def store():
    return mfstore.open("memory://")


@pytest.fixture
def diff(store):
    return lambda old, new: store.diff(store.put(old), store.put(new))


def told(found):
    """Where something differs, how, and in how many rows."""
    return {entry.where: (entry.change, entry.rows) for entry in found}


def values(found):
    return {entry.where: (entry.old and entry.old.value, entry.new and entry.new.value) for entry in found}


# ---- containers ---------------------------------------------------------------------------


def test_a_bundle_tells_of_its_artifacts(store):
    store.save({"auc": 0.91, "gone": 1, "kept": [1], "n": float("nan")}, ref="runs/1")
    store.save({"auc": 0.93, "kept": [1], "new": "x", "n": float("nan")}, ref="runs/2")
    found = store.diff("runs/1", "runs/2")
    assert values(found) == {"auc": ("0.91", "0.93"), "gone": ("1", None), "new": (None, "'x'")}
    assert [entry.change for entry in found] == [CHANGED, REMOVED, ADDED]
    assert found.same == 2 and bool(found) and len(found) == 3 and [e.path for e in found.of(ADDED)] == [("new",)]
    assert (found.old_key, found.new_key) == (store.refs["runs/1"], store.refs["runs/2"])
    same = store.diff("runs/1", "runs/1")
    assert not same and same.same == 4 and same.summary == "the same key"
    with pytest.raises(NotFound):
        store.diff("runs/1", "runs/3")


def test_artifacts_that_are_the_same_are_not_read():
    backend = CountingBackend()
    store = wrapped(backend)
    big = np.random.default_rng(0).random(200_000)
    keys = [store.save({"big": big, "n": n, "frame": pd.DataFrame({"big": big})}) for n in (1, 2)]
    backend.reads.clear()
    found = store.diff(*keys)
    assert told(found) == {"n": (CHANGED, None)} and found.same == 2 and not backend.reads


def test_a_bundle_and_a_dict_are_compared_by_their_names(store):
    found = store.diff(store.save({"a": 1, "b": 2}), store.put({"a": 1, "b": 3}))
    assert values(found) == {"b": ("2", "3")} and found.same == 1
    other = store.diff(store.save({"a": 1}), store.put([1]))
    assert told(other) == {"a": (REMOVED, None), ".": (ADDED, None)}


def test_notes_are_compared_field_by_field(store):
    old = store.put(1, note={"auc": 0.91, "tags": ["a"], "by": {"team": "risk", "who": "x"}, "none": {}})
    new = store.put(2, note={"auc": 0.93, "tags": ["a"], "by": {"team": "risk"}, "new": None, "none": {}})
    assert values(store.diff(old, new)) == {
        ".": ("1", "2"), "(note)/auc": ("0.91", "0.93"), "(note)/by/who": ("'x'", None), "(note)/new": (None, "None"),
    }  # fmt: skip
    assert values(store.diff(old, store.put(3))).keys() >= {"(note)/auc", "(note)/by/team"}


class Model:
    def __init__(self, **attributes):
        self.__dict__ |= attributes


def test_paths_lead_through_dicts_lists_and_attributes(diff):
    old = {"m": Model(coef=1, name="a"), "deep": {"a": [{"b": 1}, {"c": (1, [2])}]}, ("k", 1): 1, 5: 0, None: 1}
    new = {"m": Model(coef=2, name="a"), "deep": {"a": [{"b": 1}, {"c": (1, [3])}]}, ("k", 1): 2, 5: 1, None: 2}
    found = diff(old, new)
    assert values(found) == {
        "m/coef": ("1", "2"), "deep/a/1/c/1": ("[2]", "[3]"), "('k', 1)": ("1", "2"), "5": ("0", "1"),
        "None": ("1", "2"),
    }  # fmt: skip
    assert {type(part) for entry in found for part in entry.path} == {str, int}


def test_the_order_of_a_dict_and_sharing_are_no_difference(diff):
    shared = [1, {}]
    found = diff({"a": 1, "b": [shared, shared]}, {"b": [[1, {}], [1, {}]], "a": 1})
    assert not found and "nothing differs but how it is stored" in str(found)


@pytest.mark.parametrize("old, new, expected", [
    ([1, 2, 3], [1, 5, 3], {".": (CHANGED, 1)}),
    ([1, 2, 3, 4], [0, 1, 2, 3, 4], {".": (CHANGED, 0)}),
    ([1, 2, 3, 4], [0, 1, 2, 3, 5], {".": (CHANGED, 4)}),
    ([[1], [2], [3]], [[1], [3]], {"1": (REMOVED, None)}),
    ([[1], [3]], [[1], [2], [3]], {"1": (ADDED, None)}),
    ([[1], [2], [3]], [[1], [4], [5], [3]], {"1": (CHANGED, 1), "2": (ADDED, None)}),
    ([[1], None], [[1], 1.0], {"1": (CHANGED, None)}),
    (1, True, {".": (CHANGED, None)}),
    ({1, 2}, {1, 3}, {".": (CHANGED, None)}),
    ({datetime.date(2020, 1, 1)}, {datetime.date(2020, 1, 1)}, {}),
    (collections.Counter("aab"), collections.Counter("aabb"), {"b": (CHANGED, None)}),
    (collections.OrderedDict(a=1), collections.OrderedDict(a=2), {"a": (CHANGED, None)}),
    (collections.OrderedDict(a=1), {"a": 1, "b": 2}, {".": (CHANGED, None), "b": (ADDED, None)}),
    (Model(), Model(a=1), {"a": (ADDED, None)}),
    (Model(a=1), datetime.date(2020, 1, 1), {".": (CHANGED, None)}),
    (collections.defaultdict(list, a=1), collections.defaultdict(int, a=1), {".": (CHANGED, None)}),
    ([float("nan"), np.float64("nan")], [float("nan"), np.float64("nan")], {}),
    (b"abc", bytearray(b"abc"), {".": (CHANGED, None)}),
    (pd.Series([1.0, None]), [1.0], {".": (CHANGED, None)}),
])  # fmt: skip
def test_containers_and_values(diff, old, new, expected):
    assert told(diff(old, new)) == expected


small = st.sampled_from([None, True, 0, 1, 1.0, float("nan"), "", "a", b"a", (), datetime.date(2020, 1, 1)])
trees = st.recursive(
    small,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner), st.dictionaries(st.sampled_from(["a", 1, (1, "x")]), inner),
        st.builds(collections.deque, st.lists(inner, max_size=2)), st.builds(Model, a=inner), st.builds(Model),
        st.builds(collections.OrderedDict, st.dictionaries(st.just("a"), inner)), st.frozensets(small, max_size=2),
    ),
    max_leaves=4,
)  # fmt: skip


def equal(old, new):
    """What Python says, but for types and what is not a number."""
    if type(old) is not type(new):
        return False
    if isinstance(old, Model):
        return equal(old.__dict__, new.__dict__)
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(equal(old[name], new[name]) for name in old)
    if isinstance(old, (list, tuple, collections.deque)):
        return len(old) == len(new) and all(map(equal, old, new))
    if isinstance(old, frozenset):
        return {(type(one), repr(one)) for one in old} == {(type(one), repr(one)) for one in new}
    return old == new or (old != old and new != new)


SMALL = wrapped(CountingBackend())


@settings(max_examples=80, deadline=None)
@given(trees, trees)
def test_there_are_differences_where_python_finds_one(old, new):
    assert bool(SMALL.diff(SMALL.put([old]), SMALL.put([new]))) != equal(old, new)
    assert not SMALL.diff(SMALL.put([new]), SMALL.save({"x": [new]})).of(CHANGED)
    both = SMALL.diff(SMALL.put({"a": old, "b": new}), SMALL.put({"b": new, "a": old}))
    assert not both


def test_values_of_libraries_are_shown(diff):
    old = [datetime.date(2020, 1, 1), np.float64(0.5), Model]
    new = [datetime.date(2020, 1, 2), np.float64(0.25), collections.OrderedDict]
    found = diff([*old, []], [*new, []])
    assert values(found) == {"0": ("2020-01-01", "2020-01-02"), "1": ("0.5", "0.25"), "2": ("", "")}


def test_what_holds_itself_and_what_is_nested_deeply(diff):
    def ring(last):
        one = {"n": last}
        one["me"] = [one]
        return one

    def deep(last):
        made = [last]
        for _ in range(400):
            made = [made, {}]
        return made

    assert told(diff(ring(1), ring(2))) == {"n": (CHANGED, None)}
    assert told(diff([ring(1), []], [ring(1)])) == {"1": (REMOVED, None)}
    (entry,) = diff(deep(1), deep(2))
    assert entry.path == (0,) * 400


# ---- texts and bytes ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, bytes, bytearray])
@pytest.mark.parametrize("length", [100, 1_000_000])
def test_of_texts_the_stretch_that_differs(diff, kind, length):
    text = np.random.default_rng(3).bytes(length // 2).hex()
    make = {str: str, bytes: str.encode, bytearray: lambda one: bytearray(one.encode())}[kind]
    middle = length // 2
    (entry,) = diff(make(text), make(text[:middle] + "ABC" + text[middle:]))
    assert (entry.nbytes, entry.old.nbytes, entry.new.nbytes) == (3, length, length + 3)
    (entry,) = diff(make(text), make(text[:middle] + "A" + text[middle + 1 : -1] + "B"))
    assert entry.nbytes == length - middle


def test_of_long_texts_chunks_are_counted(store, monkeypatch):
    monkeypatch.setattr("mfstore.comparing.stretches.BLOCK", 1 << 16)
    data = np.random.default_rng(4).bytes(4_000_000)
    keys = [store.put_bytes(data), store.put_bytes(b"x" + data[:-1] + b"y")]
    (entry,) = store.diff(*keys)
    assert 2 <= entry.nbytes < 2_000_000 and entry.old.type == "bytes"


# ---- arrays -------------------------------------------------------------------------------


def counted(old, new):
    """Rows that differ, by numpy."""
    differ = (old != new) & ~((old != old) & (new != new))
    return int(differ.reshape(len(old), -1).any(axis=1).sum()), int(differ.sum())


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["f8", "f4", "i2", "c16", "?", "M8[s]", "U3", "f2"]), st.sampled_from([(40_000,), (9000, 5), (8, 5000)]),
    st.sampled_from("CF"), st.sampled_from("CF"), st.lists(st.integers(0, 10**9), max_size=5), st.sampled_from([1 << 15, 1 << 24]),
)  # fmt: skip
def test_arrays_are_counted_as_numpy_counts_them(dtype, shape, order, other, changed, block):
    store = wrapped(CountingBackend())
    old = np.random.default_rng(1).integers(0, 100, shape).astype(dtype)
    if old.dtype.kind in "fM":
        old.reshape(-1)[::7] = np.array("NaN" if old.dtype.kind == "f" else "NaT").astype(old.dtype)
    new = old.copy()
    for at in changed:
        new.reshape(-1)[at % new.size] = np.array(77).astype(dtype)
    expected = counted(old, new)
    with pytest.MonkeyPatch.context() as patch:
        for module in (jobs, lanes):
            patch.setattr(module, "BLOCK", block)
        found = store.diff(
            store.put({"x": np.asarray(old, order=order)}), store.put({"x": np.asarray(new, order=other)})
        )
    if expected == (0, 0):
        assert not found and found.same == 1
    else:
        (entry,) = found
        assert (entry.rows, entry.nbytes) == (expected[0], expected[1] * old.itemsize)


@pytest.mark.parametrize("columns", [(), (3,)], ids=["items", "rows"])
def test_rows_put_in_or_taken_out_are_no_changes_of_others(diff, columns):
    old = np.random.default_rng(5).random((30_000, *columns))
    new = np.concatenate([old[:10_000], old[:7], old[10_000:]])
    row = old[0].nbytes
    for pair, shape in (((old, new), new.shape), ((new, old), old.shape)):
        (entry,) = diff(*pair)
        assert (entry.rows, entry.nbytes, entry.new.shape) == (0, 7 * row, shape)
    new[-1] = 0
    (entry,) = diff(old, new)
    assert entry.rows == 20_000


@pytest.mark.parametrize("old, new, rows", [
    (np.zeros((2, 3)), np.zeros((3, 2)), None),
    (np.zeros(3, "f4"), np.zeros(3, "f8"), None),
    (np.array(1.0), np.array(2.0), 1),
    (np.zeros((0, 3)), np.zeros((2, 3)), 0),
    (np.array([1, "a", None], object), np.array([1, "b", None], object), 1),
    (np.array([(1, 2.0)], "i4,f8"), np.array([(1, 3.0)], "i4,f8"), 1),
    (np.zeros((2, 2, 2), order="F"), np.ones((2, 2, 2), order="F"), 8),
    (np.zeros((2, 2, 2), order="F"), np.ones((2, 2, 2)), None),
    (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 3], mask=[0, 0]), None),
])  # fmt: skip
def test_arrays_of_all_kinds(diff, old, new, rows):
    (entry,) = diff(old, new)
    assert (entry.change, entry.rows) == (CHANGED, rows)


def test_only_chunks_that_differ_are_read():
    backend = CountingBackend()
    store = wrapped(backend)
    old = np.random.default_rng(6).random(2_000_000)
    new = old.copy()
    new[1_000_000] = 5
    keys = [store.put(old), store.put(new)]
    backend.reads.clear()
    (entry,) = store.diff(*keys)
    assert entry.rows == 1
    assert sum(length for _, _, length in backend.reads) < old.nbytes / 4


def test_what_differs_in_many_artifacts_is_read_together_and_in_bounded_memory(monkeypatch):
    random = np.random.default_rng(9)
    store = wrapped(CountingBackend(**S3Backend.capabilities._asdict()))
    keys = [store.save({f"a{n}": random.random(20_000) for n in range(20)}) for _ in range(2)]
    store.backend.reads.clear()
    assert [entry.rows for entry in store.diff(*keys)] == [20_000] * 20
    assert len(store.backend.reads) <= 4
    held = []

    def noted(wanted):
        held.append(sum(len(slot) for _, nodes in wanted for slot in slots_of(*nodes)))
        return objects_together(wanted)

    monkeypatch.setattr(jobs, "objects_together", noted)
    monkeypatch.setattr(jobs, "BLOCK", 1 << 20)
    monkeypatch.setattr(lanes, "BLOCK", 1 << 20)
    before = store.session.loaded
    assert len(store.diff(*keys)) == 20
    assert max(held) <= 1 << 19 and len(held) >= 12 and sum(held) == store.session.loaded - before == 2 * 20 * 160_000


# ---- tables -------------------------------------------------------------------------------


def frame():
    half = ROWS // 2
    return pd.DataFrame({
        "a": np.arange(float(ROWS)), "b": np.ones(ROWS), "c": range(ROWS),
        "text": [f"text {number} of many" if number % 7 else None for number in range(ROWS)],
        "kind": pd.Categorical(["x", "y"] * half), "whole": pd.array([1, None] * half, "Int64"),
        "time": pd.date_range("2020", periods=ROWS, freq="s"),
        "zoned": pd.date_range("2020", periods=ROWS, tz="UTC", freq="s"),
        "object": pd.Series(["1", "x"] * half, dtype=object), "period": pd.period_range("2020", periods=ROWS, freq="s"),
        "flag": [True, False] * half, "arrow": pd.Series(range(ROWS), dtype="int32[pyarrow]"),
        "sparse": pd.arrays.SparseArray([0, 1] * half),
    })  # fmt: skip


def changed_frame():
    new = frame()
    new.loc[5, "a"] = np.nan
    new.loc[[1, 8, 9000], "text"] = "new"
    new.loc[7, "text"] = "was none"
    new.loc[4, "kind"] = "y"
    new.loc[3, "whole"] = 4
    for name in ("time", "zoned", "period"):
        new.loc[2:3, name] = pd.NaT
    new.loc[6, "object"] = None
    new.loc[8:9, "flag"] = True
    new.loc[8, "arrow"] = None
    new["sparse"] = pd.arrays.SparseArray([1, 1] * (ROWS // 2))
    new["c"] = new["c"].astype("f4")
    new["new"] = 1
    return new.drop(columns="b")


CHANGED_ROWS = {
    "a": 1, "c": None, "text": 4, "kind": 1, "whole": 1, "time": 2, "zoned": 2, "object": 1, "period": 2, "flag": 1,
    "arrow": 1, "sparse": ROWS // 2,
}  # fmt: skip


@pytest.mark.parametrize("block", [1 << 14, 1 << 24])
def test_columns_of_frames(diff, monkeypatch, block):
    for module in ("jobs", "lanes", "columns"):
        monkeypatch.setattr(f"mfstore.comparing.{module}.BLOCK", block)
    found = diff({"frame": frame()}, {"frame": changed_frame()})
    expected = {f"frame/{name}": (CHANGED, rows) for name, rows in CHANGED_ROWS.items()}
    assert told(found) == expected | {"frame/b": (REMOVED, None), "frame/new": (ADDED, None)}
    (column,) = (entry for entry in found if entry.where == "frame/c")
    assert (column.old.dtype, column.new.dtype, column.old.shape) == ("int64", "float32", (ROWS,))
    assert {entry.where: entry.old.dtype for entry in found if entry.old}["frame/whole"] == "Int64"


def test_frames_whose_rows_lie_together(diff):
    old = np.random.default_rng(7).random((ROWS, 3))
    new = old.copy()
    new[5, 1] = 2
    new[[7, 9], 2] = 3
    rows, copied = pd.DataFrame(new, columns=list("xyz"), copy=False), pd.DataFrame(new, columns=list("xyz")).copy()
    for other in (rows, copied):
        found = diff(pd.DataFrame(old, columns=list("xyz"), copy=False), other)
        assert told(found) == {"y": (CHANGED, 1), "z": (CHANGED, 2)} and found.same == 1
    swapped = diff(*(pd.DataFrame(old, columns=list(names), copy=False) for names in ("xyz", "yxz")))
    assert told(swapped) == {"x": (CHANGED, ROWS), "y": (CHANGED, ROWS)}


def test_columns_that_lie_in_between_each_other_are_read_once(monkeypatch):
    for module in (jobs, lanes):
        monkeypatch.setattr(module, "BLOCK", 1 << 19)
    backend = CountingBackend()
    store = wrapped(backend)
    old = np.random.default_rng(10).random((ROWS, 8))
    keys = [store.put(pd.DataFrame(one, copy=False)) for one in (old, old + 1)]
    backend.reads.clear()
    assert told(store.diff(*keys)) == {str(column): (CHANGED, ROWS) for column in range(8)}
    assert sum(length for _, _, length in backend.reads) < 6 * old.nbytes


def test_what_cannot_be_divided_is_loaded_once(store, monkeypatch):
    for module in ("jobs", "columns"):
        monkeypatch.setattr(f"mfstore.comparing.{module}.BLOCK", 1 << 12)
    random = np.random.default_rng(11)
    old, new = (pd.DataFrame({"x": pd.arrays.SparseArray(random.integers(0, 9, 50_000))}) for _ in range(2))
    keys = [store.put(old), store.put(new)]
    before = store.session.loaded
    (entry,) = store.diff(*keys)
    assert entry.rows == int((old.x.to_numpy() != new.x.to_numpy()).sum())
    assert store.session.loaded - before < 3 * store.stat(keys[0]).size


def test_rows_that_are_added_are_told_once(diff):
    old = frame()[["a", "text", "time"]]
    found = diff(old, pd.concat([old, old[:5]], ignore_index=True))
    assert told(found) == {".": (CHANGED, None)}
    assert [side.shape for side in (found.entries[0].old, found.entries[0].new)] == [(ROWS, 3), (ROWS + 5, 3)]
    assert told(diff(old, old[10:].reset_index(drop=True))) == {".": (CHANGED, None)}
    assert told(diff(old, old[10:])) == {".": (CHANGED, None), "(index)": (CHANGED, None)}


def test_indexes_names_and_notes_of_frames(diff):
    old = frame()[["a", "time"]]
    by_time = old.set_index("time")
    later = by_time.set_index(by_time.index + pd.Timedelta(1, "s"))
    later.attrs["note"] = 1
    assert told(diff(by_time, later)) == {"(index)": (CHANGED, ROWS), "(attrs)/note": (ADDED, None)}
    assert told(diff(by_time, by_time.rename_axis("t"))) == {"(index)/name": (CHANGED, None)}
    assert told(diff(old, by_time.reset_index(drop=True))) == {"time": (REMOVED, None)}
    twice = pd.DataFrame(np.ones((3, 3)), columns=["a", "a", 1])
    other = twice.copy()
    other.iloc[0, 1] = 2
    assert told(diff(twice, other)) == {"a#2": (CHANGED, 1)}


def test_parts_of_complex_numbers_are_compared_though_one_is_not_a_number(diff):
    old = np.full(ROWS, complex(np.nan, 1.0))
    new = old.copy()
    new[5:8] = complex(np.nan, 2.0), complex(1.0, 1.0), complex(-np.nan, 1.0)
    (found,) = diff(old, new)
    assert (found.rows, found.nbytes) == (2, 32)


def test_series(diff):
    old = pd.Series(np.arange(float(ROWS)), name="q")
    new = old.copy()
    new[5] = np.nan
    assert told(diff(old, new)) == {".": (CHANGED, 1)}
    assert told(diff(old, old.rename("r"))) == {"(name)": (CHANGED, None)}
    assert told(diff(old.astype("str"), new.astype("str"))) == {".": (CHANGED, 1)}


@pytest.mark.parametrize("make", [pa.table, pa.RecordBatch.from_pydict, lambda one: pa.chunked_array([one["s"]])])
def test_tables_of_arrow(diff, make):
    old = {"n": list(range(ROWS)), "s": [f"text {n}" for n in range(ROWS)], "l": [[n] for n in range(ROWS)]}
    old["f"] = [float("nan")] * ROWS
    new = {name: list(column) for name, column in old.items()}
    new["s"][5], new["s"][6], new["l"][7], new["f"][8] = None, "", [1, 2], 0.0
    found = diff(make(old), make(new))
    if len(found) == 1:
        assert told(found) == {".": (CHANGED, 2)}
    else:
        assert told(found) == {"s": (CHANGED, 2), "l": (CHANGED, 1), "f": (CHANGED, 1)} and found.same == 1


def test_without_what_makes_columns_they_are_told_as_changed(diff, monkeypatch):
    def missing(*_):
        raise ModuleNotFoundError("No module named 'pandas'", name="pandas")

    old, new = frame()[["a", "text"]], frame()[["a", "text"]] * 2
    monkeypatch.setattr("mfstore.views.parts.finder", lambda _: missing)
    (entry,) = diff({"x": old, "y": 1}, {"x": new, "y": 1})
    assert (entry.where, entry.change, entry.rows) == ("x", CHANGED, None)


def test_damage_is_told(store):
    old = np.random.default_rng(8).random(100_000)
    keys = [store.put(old), store.put(old + 1)]
    for info in list(store.backend.list("packs/")):
        data = bytearray(store.backend.get(info.key))
        data[len(data) // 2] ^= 1
        store.backend.put(info.key, [bytes(data)])
    with pytest.raises(CorruptObject) as caught:
        store.diff(*keys)
    assert keys[0] in caught.value.__notes__[-1]


# ---- what is seen -------------------------------------------------------------------------


def test_as_json_and_text(store):
    old = {"a\x1b[31m/b": 1, "x": np.zeros(3), "n": 1}
    keys = [store.put(old), store.put(old | {"a\x1b[31m/b": "\x1b", "x": np.ones(3), "new": [], "n": "<b>"})]
    found = store.diff(*keys)
    document = json.loads(json.dumps(found.to_dict()))
    assert [entry["path"] for entry in document["entries"]] == [["a\x1b[31m/b"], ["x"], ["n"], ["new"]]
    assert document["entries"][1] == {
        "path": ["x"], "change": "changed", "rows": 3, "nbytes": 24,
        "old": {"type": "numpy.ndarray", "dtype": "float64", "shape": [3], "nbytes": 24, "value": ""},
        "new": {"type": "numpy.ndarray", "dtype": "float64", "shape": [3], "nbytes": 24, "value": ""},
    }  # fmt: skip
    assert document["same"] == 0 and document["old"]["key"] == keys[0]
    text = str(found)
    assert text.isprintable() or "\x1b" not in text
    assert "a\\x1b[31m\\/b" in text and "3 of 3 rows, 24 B" in text and "float64[3] 24 B" in text
    assert "<b>" not in found._repr_html_() and "&lt;b&gt;" in found._repr_html_()
    assert "\x1b" not in repr(found) and repr(found).startswith("Diff ")


def test_many_differences_are_told_in_part(diff):
    found = diff(dict.fromkeys(range(100), 0), dict.fromkeys(range(100), 1))
    assert len(found) == 100 and str(found).endswith(f"and {100 - LINES_TOLD} more")
    assert len(repr(found).splitlines()) <= 10


def test_the_command():
    with mfstore.open(f"memory://{uuid4()}") as store:
        store.save({"auc": 0.91, "x\x1b": 1}, ref="runs/1")
        store.save({"auc": 0.93, "x\x1b": 1}, ref="runs/2")

        def run(*args):
            done = CliRunner().invoke(main, ["diff", *args], env={"MFSTORE_STORE": store.url}, catch_exceptions=False)
            return done.exit_code, done.stdout, done.stderr

        code, out, _ = run("runs/1", "runs/2")
        assert code == 0 and out.splitlines()[0] == "runs/1 -> runs/2: 1 changed, 1 part the same"
        assert out.split()[-4:] == ["~", "auc", "0.91", "0.93"]
        assert json.loads(run("runs/1", "runs/2", "--json")[1]) == store.diff("runs/1", "runs/2").to_dict()
        assert run("runs/1", "runs/1")[1] == "runs/1 -> runs/1: the same key\n"
        code, _, err = run("runs/1", "nope")
        assert code == 1 and "nope" in err


def test_rows_of_objects_are_told_whatever_their_order(diff):
    old = np.array([[str(number), number] for number in range(10)], dtype=object)
    new = old.copy()
    new[3, 1], new[7] = 99, None
    for one, other in [(old, new), (np.asfortranarray(old), np.asfortranarray(new)), (old, np.asfortranarray(new))]:
        assert told(diff(one, other)) == {".": (CHANGED, 2)}
    assert not diff(old, np.asfortranarray(old))
    frames = [pd.DataFrame(np.asfortranarray(one), copy=False) for one in (old, new)]
    assert {entry.where: entry.rows for entry in diff(*frames)} == {"0": 1, "1": 2}
