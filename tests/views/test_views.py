"""Parts of what is stored: the same as the parts of all of it, with only their bytes read."""

import datetime
import pickle
import shutil
from contextlib import suppress

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pandas.testing import assert_frame_equal, assert_series_equal

import mfstore
from mfstore.backends.s3.backend import S3Backend
from mfstore.errors import CorruptObject, NotFound, NotLoadable, WrongArgument
from mfstore.loading.artifacts import first_chunks
from mfstore.views.data import type_of
from mfstore.views.ipc import NotAStream, read_layout
from mfstore.views.ipc_rows import rows_of
from mfstore.views.parts import ArtifactParts
from tests import ROOT
from tests.rigs.damage import wrapped
from tests.rigs.html import EVIL, harmless
from tests.rigs.parts import CountingBackend

GOLDEN = ROOT / "tests" / "golden"
ROWS = 12_000
"""So that columns are segments."""


@pytest.fixture
def store():
    return mfstore.open("memory://")


@pytest.fixture
def view(store):
    return lambda obj: store.view(store.put(obj))


def frame():
    random = np.random.default_rng(1)
    half = ROWS // 2
    return pd.DataFrame({
        "a": np.arange(float(ROWS)), "b": random.random(ROWS), "c": range(ROWS),
        "text": [f"text {number} of many" if number % 7 else None for number in range(ROWS)],
        "kind": pd.Categorical(["x", "y"] * half), "whole": pd.array([1, None] * half, "Int64"),
        "time": pd.date_range("2020", periods=ROWS, freq="s"),
        "zoned": pd.date_range("2020", periods=ROWS, tz="UTC", freq="s"),
        "object": pd.Series([[1], "x"] * half, dtype=object), "period": pd.period_range("2020", periods=ROWS, freq="s"),
        "flag": [True, False] * half, "half": random.random(ROWS).astype("f4"),
        "sparse": pd.arrays.SparseArray([0, 1] * half),
    })  # fmt: skip


FRAMES = {
    "plain": frame,
    "by time": lambda: frame()[["a", "text", "time"]].set_index("time"),
    "by text": lambda: frame()[["a", "b", "text"]].dropna().set_index("text"),
    "by two": lambda: frame()[["a", "text", "kind"]].set_index(["kind", "a"]),
    "of rows": lambda: pd.DataFrame(np.random.default_rng(2).random((ROWS, 4)), columns=list("abcd"), copy=False),
}


@pytest.mark.parametrize("made", FRAMES.values(), ids=FRAMES)
def test_frames(view, made):
    whole = made()
    found = view(whole)
    assert found.columns == found.keys() == list(whole.columns)
    assert (
        found.shape == whole.shape and len(found) == len(whole) and found.type == f"{pd.DataFrame.__module__}.DataFrame"
    )
    for name in whole.columns:
        assert_series_equal(found[name], whole[name])
    end = len(whole)
    for rows in (slice(10, 20), slice(-33, -13), slice(5, 5), slice(None, None, 5000), slice(end, 0, -4001)):
        assert_frame_equal(found[rows], whole[rows])
    names = [*whole.columns[::2], whole.columns[-1]]
    assert_frame_equal(found[names], whole[names])
    assert_frame_equal(found.load(rows=slice(3, 9), columns=names), whole[names][3:9])
    assert_frame_equal(found[np.arange(end) % 1000 == 0], whole[np.arange(end) % 1000 == 0])
    assert_frame_equal(found.load(), whole)
    with pytest.raises(NotFound, match="no column 'nope'"):
        found["nope"]


def test_columns_of_one_name_and_of_several_levels(view):
    data = np.random.default_rng(0).random((9000, 3))
    whole = pd.DataFrame(data, columns=["a", "b", "a"])
    assert_frame_equal(view(whole)["a"], whole["a"])
    assert_series_equal(view(whole)["b"], whole["b"])
    whole = pd.DataFrame(data, columns=pd.MultiIndex.from_tuples([("x", 1), ("x", 2), ("y", 1)]))
    assert_frame_equal(view(whole)["x"], whole["x"])
    assert_series_equal(view(whole)["x", 2], whole["x", 2])


def test_rows_by_labels(view):
    whole = frame()[["a", "time"]].set_index("time")
    assert_frame_equal(view(whole)["2020-01-01 00:00:05":"2020-01-01 00:00:07"], whole[5:8])


@pytest.mark.parametrize("index", [
    slice(np.int64(1), np.int64(3)), slice("2020-01-02", "2020-01-04"), slice("2020-01-04", "2020-01-02", -1),
    slice(1.0, 3.0), slice(True, None), [True, False] * 3, [np.True_] * 6, lambda frame: frame.columns[0],
])  # fmt: skip
@pytest.mark.parametrize("labels", [range(6), np.arange(6) / 2, pd.date_range("2020", periods=6)], ids=type)
def test_what_pandas_takes_as_rows_is_taken_so(view, labels, index):
    whole = pd.DataFrame({"a": range(6), "b": list("abcdef")}, index=labels)
    try:
        expected = whole[index]
    except (TypeError, KeyError) as error:
        with pytest.raises(type(error)):
            view(whole)[index]
    else:
        assert view(whole)[index].equals(expected)


def test_columns_named_by_intervals(view):
    whole = pd.DataFrame(np.arange(6).reshape(2, 3), columns=pd.interval_range(0, 3))
    assert_series_equal(view(whole)[0.5], whole[0.5])
    assert_frame_equal(view(whole)[list(whole.columns[:2])], whole[list(whole.columns[:2])])
    with pytest.raises(NotFound):
        view(whole)[[("a", 1)]]


def test_objects_in_order_f(view):
    whole = np.asfortranarray(np.array([[str(number), number] for number in range(10)], dtype=object))
    stored = view(whole)
    for index in [0, slice(2, 5), (slice(1, 4), 0), (0, slice(1, 2)), (slice(None), -1)]:
        np.testing.assert_array_equal(stored[index], whole[index])
    frame = pd.DataFrame(whole, copy=False)
    assert_frame_equal(view(frame)[2:5], frame[2:5])
    assert_series_equal(view(frame)[1], frame[1])


def test_an_entry_is_found_and_parts_are_told_without_a_look_at_the_others(store, monkeypatch):
    asked = []
    objects = ArtifactParts.objects
    monkeypatch.setattr(
        ArtifactParts, "objects", lambda parts, nodes: asked.append(len(nodes)) or objects(parts, nodes)
    )
    view = store.view(store.put({(number, "a"): [number] for number in range(50)}))
    assert view[3, "a"][0].load() == 3
    assert not [count for count in asked if count > 1]
    assert [part.load() for part in view.values()] == [[number] for number in range(50)]
    assert [count for count in asked if count > 1] == [50]


def test_series(view):
    whole = frame().set_index("text")
    for name in whole.columns:
        found = view(whole[name])
        assert len(found) == ROWS and found.type == f"{pd.Series.__module__}.Series"
        assert_series_equal(found[4:9], whole[name][4:9])
    assert view(whole["a"])["text 8 of many"] == 8.0
    assert view(whole["a"].reset_index(drop=True))[8] == 8.0
    with pytest.raises(NotFound, match="no row 'other'"):
        view(whole["a"])["other"]


@pytest.mark.parametrize("whole", [
    np.arange(50_000.0).reshape(1000, 50), np.asfortranarray(np.arange(50_000.0).reshape(1000, 50)),
    np.arange(10), np.arange(100_000).reshape(10, 100, 100), np.arange(100_000)[::2], np.zeros((0, 3)), np.array(5),
    np.array([[1, "a"], [2, "b"]], object), np.arange(40_000).astype("M8[s]"), np.arange(40_000) * (1 + 1j),
], ids=lambda array: f"{array.dtype}{array.shape}")  # fmt: skip
def test_arrays(view, whole):
    found = view(whole)
    assert (found.shape, found.dtype, found.type) == (whole.shape, whole.dtype, "numpy.ndarray")
    assert whole.dtype == object or found.nbytes == whole.nbytes
    indexes = [(), ...]
    if whole.size:
        indexes += [slice(1, 3), 0, -1, np.int64(1), slice(None, None, -2), slice(2, 0), [0, 1], None, slice(1, 99999)][
            : 10 * whole.ndim
        ]
    if whole.ndim == 2 and whole.size:
        indexes += [(slice(None), 1), (0, 1), (slice(0, 2), slice(0, 1)), (slice(None), slice(1, 2)), (..., 1)]
    for index in indexes:
        part, expected = found[index], whole[index]
        assert type(part) is type(expected), index
        np.testing.assert_array_equal(part, expected)
    if whole.ndim:
        with pytest.raises(IndexError):
            found[len(whole)]
    np.testing.assert_array_equal(np.asarray(found), whole)


def tables():
    text = [f"text {number}" if number % 7 else None for number in range(ROWS)]
    whole = pa.table({
        "a": pa.array(range(ROWS)), "text": text, "kind": pa.array(["x", "y"] * (ROWS // 2)).dictionary_encode(),
        "list": [[1]] * ROWS, "flag": [True, None] * (ROWS // 2), "time": pa.array([datetime.datetime(2020, 1, 1)] * ROWS),
    })  # fmt: skip
    parts = [whole.slice(5, 4000), whole.slice(7000, 4900)]
    return {
        "table": whole,
        "slice": whole.slice(13, 9000),
        "chunks": pa.concat_tables(parts),
        "batch": whole.to_batches()[0],
    }


@pytest.mark.parametrize("name", tables())
def test_tables_of_arrow(view, name):
    whole = tables()[name]
    found = view(whole)
    assert found.columns == whole.schema.names and found.shape == (whole.num_rows, whole.num_columns)
    for column in found.columns:
        assert found[column].equals(whole[column])
    for start, stop in [(0, 5), (4003, 4020), (17, 3990), (3900, 5990), (7, 7)]:
        part = found[start:stop]
        part.validate(full=True)
        assert part.equals(whole.slice(start, stop - start)), (start, stop)
    assert found[["text", "a"]].equals(whole.select(["text", "a"]))
    if name == "table":
        assert view(whole["text"])[5:10].equals(whole["text"][5:10]) and view(whole["a"])[5] == whole["a"][5]


def test_bundles_and_containers(store):
    weights = {"w1": np.arange(20_000.0).reshape(200, 100), "w2": np.ones(3), (1, 2): 3, np.int64(5): [1, np.ones(3)]}
    key = store.save({"weights": weights, "score": 0.5, "raw": b"abc" * 10_000, "text": "äb" * 50_000}, ref="runs/1")
    found = store.view("runs/1")
    assert found.kind == "bundle" and found.keys() == ["raw", "score", "text", "weights"] and len(found) == 4
    assert "raw" in found and "other" not in found and found.key == key
    inner = found["weights"]
    assert inner.kind == "mapping" and inner.keys() == list(weights) and len(inner) == 4 and "w1" in inner
    np.testing.assert_array_equal(inner["w1"][10:20], weights["w1"][10:20])
    assert inner[1, 2].load() == 3 and inner[5][0].load() == 1 and inner[5][1][:2].tolist() == [1.0, 1.0]
    assert [part.type for part in inner[5]] == ["int", "numpy.ndarray"] and len(inner[5][::2]) == 1
    assert (found["raw"][5:9], found["raw"][-1]) == (b"cabc", 99)
    assert (found["text"].load(), found["text"].kind) == ("äb" * 50_000, "value")
    assert found["score"].load() == 0.5
    assert {name: view.type for name, view in found.items()} == {
        "raw": "bytes", "score": "float", "text": "str", "weights": "dict"
    }  # fmt: skip
    loaded = inner.load()
    assert list(loaded) == list(weights) and loaded[(1, 2)] == 3
    assert set(found.load()) == set(found)
    with pytest.raises(NotFound, match="no part 'other'.*It has raw, score"):
        found["other"]
    with pytest.raises(IndexError):
        inner[5][2]
    with pytest.raises(TypeError, match="has no parts"):
        found["score"][0]
    with pytest.raises(TypeError, match="no table"):
        inner["w1"].columns  # noqa: B018
    summary = {part.name: part for part in inner.summary()}
    assert (summary["w1"].shape, summary["w1"].nbytes, summary[1, 2].value) == ((200, 100), 160_000, "3")


def test_raw_bytes(store):
    key = store.put_bytes(bytes(range(256)) * 400)
    assert store.view(key)[255:258] == bytes([255, 0, 1]) and len(store.view(key)) == 102_400
    assert store.view(store.put_bytes(b"abc"))[1:] == b"bc"


def test_a_view_goes_to_another_process_with_its_store(tmp_path):
    store = mfstore.open(tmp_path / "store")
    weights = {"w": np.arange(20_000.0), np.int64(5): [1, {"deep": "x"}]}
    key = store.save({"weights": weights})
    for view in (store.view(key), store.view(key)["weights"]["w"], store.view(key)["weights"][5][1]):
        again = pickle.loads(pickle.dumps(view))
        assert repr(again) == repr(view) and again.key == key
    assert again["deep"].load() == "x"


class Model:
    def __init__(self):
        self.coefficients = np.arange(5000.0)
        self.name = "m"


def test_attributes_of_objects(view):
    found = view(Model())
    assert found.kind == "object" and found.keys() == ["coefficients", "name"]
    assert found["coefficients"][3:5].tolist() == [3.0, 4.0] and found["name"].load() == "m"
    assert found.load().name == "m"


def test_what_cannot_be_made_does_not_keep_others_from_it(store, monkeypatch):
    key = store.put({"model": Model(), "array": np.arange(5000.0)})
    monkeypatch.delattr(f"{__name__}.Model")
    found = store.view(key)
    assert found["array"][2:4].tolist() == [2.0, 3.0] and found["model"]["coefficients"][4] == 4.0
    with pytest.raises(NotLoadable, match="Model") as caught:
        found["model"].load()
    assert caught.value.missing == f"{__name__}.Model" and caught.value.key == key


def test_what_a_class_made_within_the_pickle_is_needed_for_is_loaded_whole(store):
    pytest.importorskip("cloudpickle")

    class Local:
        value = 5

    found = store.view(store.put({"local": Local(), "array": np.ones(5)}, pickler="cloudpickle"))
    assert (found.kind, found.type) == ("value", "dict")
    assert found.load()["local"].value == 5
    with pytest.raises(TypeError, match="load"):
        found["array"]
    arrays = store.put({"call": lambda: 5, "array": np.arange(50_000)}, pickler="cloudpickle")
    assert store.view(arrays)["array"][7:9].tolist() == [7, 8] and store.view(arrays)["call"].load()() == 5


def test_a_tensor_gives_rows(view):
    torch = pytest.importorskip("torch")
    whole = torch.arange(40_000, dtype=torch.float32).reshape(400, 100)
    found = view({"w": whole, "part": whole[10:20], "t": whole.T, "p": torch.nn.Parameter(whole)})
    assert found["w"].shape == (400, 100) and found["w"].dtype == torch.float32 and found["w"].nbytes == 160_000
    for name, expected in (("w", whole), ("part", whole[10:20]), ("t", whole.T), ("p", whole)):
        assert torch.equal(found[name][3:7], expected[3:7]) and torch.equal(found[name][-1], expected[-1])


def test_damage_is_told(store):
    key = store.put(np.random.default_rng(0).random(100_000))
    found = store.view(key)
    backend = store.backend
    for info in list(backend.list("packs/")):
        data = bytearray(backend.get(info.key))
        data[len(data) // 2] ^= 1
        backend.put(info.key, [bytes(data)])
    with pytest.raises(CorruptObject):
        found[:]


class BadOnce(CountingBackend):
    """What is read of a pack first is damaged, once."""

    bad = True

    def get_range(self, key, start, length):
        data = bytearray(super().get_range(key, start, length))
        if self.bad:
            data[:] = bytes(len(data))
            self.bad = False
        return memoryview(data)


def test_what_fails_unverified_is_read_again_and_verified():
    backend = BadOnce()
    whole = [{"text": "word " * 50_000, "number": 5}]
    key = wrapped(backend).put(whole)
    backend.bad = True
    assert wrapped(backend).view(key, verify=False)[0].load() == whole[0]
    assert not backend.bad


def test_rows_read_their_chunks_only():
    backend = CountingBackend()
    store = wrapped(backend)
    whole = np.random.default_rng(0).random((8000, 100))
    key = store.put(whole)
    found = store.view(key)
    assert found.shape == (8000, 100)
    backend.reads.clear()
    np.testing.assert_array_equal(found[4000:4010], whole[4000:4010])
    assert sum(length for _, _, length in backend.reads) < 600_000 < whole.nbytes / 10


class FarAway(CountingBackend):
    """As S3 has its capabilities; notes whole reads too."""

    def __init__(self):
        super().__init__(**S3Backend.capabilities._asdict())
        self.puts = []

    def get(self, key):
        data = super().get(key)
        self.reads.append((key, 0, len(data)))
        return data

    def put(self, key, parts):
        self.puts.append(key)
        super().put(key, parts)


def test_a_column_far_away_takes_two_requests_and_its_bytes():
    backend = FarAway()
    random = np.random.default_rng(0)
    whole = pd.DataFrame({name: random.random(1_100_000) for name in "abcd"})
    key = wrapped(backend).put(whole)
    store = wrapped(backend)
    store.exists(key)  # the store's description is known
    backend.reads.clear()
    column = store.view(key)["c"]
    assert_series_equal(column, whole["c"])
    recipe, data = backend.reads
    assert recipe[0].startswith("recipes/") and data[0].startswith("packs/")
    assert recipe[2] + data[2] <= 1.1 * column.nbytes


def test_a_bundle_far_away_tells_all_shapes_in_one_request():
    backend = FarAway()
    random = np.random.default_rng(0)
    made = {f"frame{number}": pd.DataFrame({"a": random.random(20_000)}) for number in range(4)}
    store = wrapped(backend)
    key = store.save(made | {"other": list(range(100))})
    backend.reads.clear()
    found = store.view(key)
    assert [found[name].shape for name in made] == [(20_000, 1)] * 4
    assert len(backend.reads) == 1
    assert_frame_equal(found["frame1"].load(), made["frame1"])
    assert store.load(key, ["other"])["other"] == list(range(100))


def test_a_view_shows_names_types_shapes_and_sizes(store):
    key = store.save({"weights": {"w": np.zeros((1000, 100)), "rate": 0.1, EVIL: 1}, "score": 0.5}, ref="runs/1")
    text = repr(store.view("runs/1"))
    assert text.startswith("view runs/1\n") and "weights" in text and "800." in text
    text = repr(store.view(key)["weights"])
    assert "1,000 \N{MULTIPLICATION SIGN} 100" in text and "800.0 kB" in text and "0.1" in text
    harmless(store.view("runs/1")["weights"])
    assert repr(store.view("runs/1")["score"]).split()[-2:] == ["value", "0.5"]
    strided = pd.DataFrame(np.random.default_rng(0).random((ROWS, 4)), copy=False)
    assert "one takes as much" in repr(store.view(store.put(strided)))


def test_only_what_is_shown_of_parts_is_looked_at(store, monkeypatch):
    looked = []
    monkeypatch.setattr("mfstore.views.view.type_of", lambda node: looked.append(1) or type_of(node))
    view = store.view(store.put([[number] for number in range(1000)]))
    assert "and 995 more" in repr(view)
    assert "and 980 more" in view._repr_html_()
    assert len(looked) < 50 and len(view.summary()) == 1000
    bundle = store.view(store.save({f"a{number}": number for number in range(30)}))
    assert "and 10 more" in bundle._repr_html_()


def test_each_artifact_of_a_bundle_is_found_once(store, monkeypatch):
    counted = []
    original = first_chunks

    def counting(recipe):
        counted.append(recipe)
        return original(recipe)

    for module in ("mfstore.views.view", "mfstore.views.parts", "mfstore.comparing.stored"):
        monkeypatch.setattr(f"{module}.first_chunks", counting)
    keys = [store.save({f"a{number}": [number, added] for number in range(20)}) for added in (0, 1)]
    view = store.view(keys[0])
    assert sorted(part.load() for part in view.values()) == [[number, 0] for number in range(20)]
    assert [part.name for part in view.summary()] == view.keys()
    assert len(counted) == 1
    assert len(store.diff(*keys)) == 20 and len(counted) == 3


def test_columns_are_a_list_of_names(view):
    stored = view(pd.DataFrame({"ab": [1], "a": [2], "b": [3]}))
    with pytest.raises(WrongArgument, match="columns=\\['ab'\\]"):
        stored.load(columns="ab")
    assert list(stored.load(columns=("ab", "b"))) == ["ab", "b"]


def test_a_table_shows_its_columns(view):
    whole = frame()[["a", "text", "kind", "time"]].astype({"text": "string[pyarrow]"})
    told = [line.split() for line in repr(view(whole)).splitlines()[4:]]
    assert told[:2] == [["column", "type", "data"], ["a", "float64", "96.0", "kB"]]
    assert told[3:] == [["kind", type(whole["kind"].array).__module__ + ".Categorical", "12.0", "kB"], told[4]]
    assert [row[0] for row in told[2::2]] == ["text", "time"] and all(row[-1] == "kB" for row in told[1:])
    assert "pyarrow.ChunkedArray" in repr(view(tables()["table"]))
    found = view(pl.DataFrame(polars_values()))
    assert "column" not in repr(found)
    assert found.columns and "decimal" in found._repr_html_()


def test_showing_a_table_makes_nothing_of_others(view, monkeypatch):
    found = view(pd.DataFrame({Named("a"): np.arange(20_000.0)}))
    monkeypatch.setattr(Named, "__setstate__", None, raising=False)  # what is made would raise
    assert "20,000" in repr(found) and "Named" not in repr(found)


class Named:
    def __init__(self, name):
        self.name = name


def test_what_cannot_be_read_is_shown_all_the_same():
    backend = FarAway()
    store = wrapped(backend)
    found = store.view(store.put([bytes(range(200)) * n for n in range(1, 500)]))
    for info in list(backend.list("packs/")):
        backend.delete_many([info.key])
    assert "list" in repr(found)


def polars_values():
    numbers, half = range(ROWS), ROWS // 2
    return {
        "a": np.random.default_rng(0).random(ROWS),
        "text": [f"text number {number} is long" if number % 3 else None for number in numbers],
        "kind": pl.Series(["x", "y"] * half, dtype=pl.Categorical), "fixed": pl.Series(["u", "v"] * half, dtype=pl.Enum(["u", "v"])),
        "list": [[1, 2]] * ROWS, "flag": [True, None] * half, "struct": [{"x": 1, "y": "abc"}] * ROWS, "none": [None] * ROWS,
        "array": pl.Series([[1, 2]] * ROWS, dtype=pl.Array(pl.Int8, 2)), "time": pl.Series(numbers).cast(pl.Datetime("us")),
        "decimal": pl.Series([1] * ROWS, dtype=pl.Decimal(10, 2)), "lists": [["a", None], []] * half, "bytes": [b"abc"] * ROWS,
    }  # fmt: skip


@pytest.mark.parametrize("rows", [ROWS, 6], ids=["segment", "body"])
def test_frames_of_polars(view, rows):
    whole = pl.DataFrame(polars_values())[:rows]
    found = view(whole)
    assert (found.columns, found.shape, found.type) == (whole.columns, whole.shape, "polars.dataframe.frame.DataFrame")
    for name in whole.columns:
        column = found[name]
        assert column.equals(whole[name], null_equal=True) and column.dtype == whole[name].dtype, name
    assert found[["text", "a"]].equals(whole[["text", "a"]])
    assert found.load(rows=slice(2, 4), columns=["kind"]).equals(whole[["kind"]][2:4])
    assert found[1:3].equals(whole[1:3]) and found.load().equals(whole)
    with pytest.raises(NotFound, match="no column 'nope'"):
        found["nope"]


def test_no_columns_of_polars(view):
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    assert view(frame)[[]].equals(frame[[]])
    assert view(frame).load(columns=[]).equals(frame.select([]))


def test_a_column_of_polars_reads_little_else():
    backend = FarAway()
    random = np.random.default_rng(0)
    whole = pl.DataFrame({name: random.random(200_000) for name in "abcdefgh"})
    store = wrapped(backend)
    found = store.view(store.put(whole))
    backend.reads.clear()
    assert found["c"].equals(whole["c"])
    first, second = backend.reads
    assert first[2] + second[2] < 0.25 * whole.estimated_size()


@pytest.mark.parametrize("rows", [ROWS, 60], ids=["segment", "body"])
def test_rows_of_each_column_of_polars(view, rows):
    whole = pl.DataFrame(polars_values())[:rows]
    found = view(whole)
    for chosen in (slice(3, 17), slice(8, 16), slice(-5, None), slice(1, 2), slice(rows, None, -(rows // 3))):
        for name in whole.columns:
            part, expected = found.load(rows=chosen, columns=[name]), whole[chosen].select(name)
            assert part.equals(expected, null_equal=True) and part.schema == expected.schema, (name, chosen)
            assert part[name].null_count() == expected[name].null_count()
        assert found[chosen].equals(whole[chosen], null_equal=True)


def test_rows_of_polars_read_little_else():
    store = wrapped(CountingBackend())
    rows = 600_000
    whole = pl.DataFrame({
        "a": np.random.default_rng(0).random(rows), "b": np.arange(rows) % 100 == 0,
        "text": pl.Series(np.arange(rows)).cast(pl.String) + " is a number of rows", "none": pl.Series([None, 1] * (rows // 2)),
    })  # fmt: skip
    found = store.view(store.put(whole))
    assert found.shape == (rows, 4)  # where batches lie is read here
    for chosen in (
        slice(10, 20), slice(-10, None), slice(5, 5), slice(rows, None), slice(None, None, 90_001), slice(rows, 0, -90_001),
        slice(rows // 2 - 5, rows // 2 + 5), slice(1, rows // 2),
    ):  # fmt: skip
        assert found[chosen].equals(whole[chosen]) and found[chosen].schema == whole.schema
        assert found.load(rows=chosen, columns=["b"]).equals(whole[chosen].select("b"))
    for start in (10, 299_995, 300_005):
        store.backend.reads.clear()
        assert found[start : start + 10].equals(whole[start : start + 10])
        assert 0 < sum(length for _, _, length in store.backend.reads) < 700_000  # chunks, of 20 MB


def layout_of(stream):
    return read_layout(lambda start, end: stream[start:end], len(stream))


def test_a_stream_that_is_none_is_told_as_such():
    stream = pl.DataFrame(
        {"a": [1, 2, 3], "b": ["x", "y", "a text that is longer"], "c": [[1], [], [None]]}
    ).__getstate__()
    broken = [stream[:size] for size in range(0, len(stream), 7)]
    broken += [stream[:at] + bytes([stream[at] ^ 0xFF]) + stream[at + 1 :] for at in range(0, len(stream), 3)]
    for data in broken:
        with suppress(NotAStream):
            layout = layout_of(data)
            [*layout.parts(range(len(layout.columns)))]
            rows_of(layout, range(len(layout.columns)), 0, 2, lambda start, end, data=data: data[start:end])
    with pytest.raises(NotAStream):
        layout_of(b"no stream at all")


def test_columns_of_a_stream_of_several_batches():
    batches = [pa.record_batch({"a": pa.array([1, 2, None]), "b": ["x", None, "z"]})] * 3
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    stream = sink.getvalue().to_pybytes()
    layout = layout_of(stream)
    assert layout.rows == 9
    pieces = [one if isinstance(one, bytes) else stream[slice(*one)] for one in layout.parts([1])]
    assert pl.read_ipc_stream(b"".join(pieces), columns=["b"])["b"].to_list() == ["x", None, "z"] * 3
    for rows, batches, before in (
        ((0, 1), 1, 0), ((2, 4), 2, 0), ((3, 6), 1, 3), ((7, 9), 1, 6), ((0, 9), 3, 0), ((4, 4), 0, 3), ((9, 9), 0, 9),
    ):  # fmt: skip
        kept, skipped = layout.between(*rows)
        assert (len(kept.messages) - 1, skipped) == (batches, before)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0.dev0", "0.2.0.dev1"])
def test_parts_of_what_was_written_before(version, tmp_path, store):
    shutil.copytree(GOLDEN / f"store-{version}", tmp_path / "store")
    older = mfstore.open(tmp_path / "store", create=False)
    looked = 0
    for key in older.keys():
        recipe = older.handle.recipe(key)
        for number, artifact in enumerate(recipe.artifacts):
            parts = ArtifactParts(older.handle.loading(True, True), recipe, number)
            (made,) = parts.objects([parts.root])
            whole = older.load(key, artifact.name) if artifact.name else older.get(key)
            assert store.put(made) == store.put(whole), (key, artifact.name)
            looked += 1
    assert looked > 20
