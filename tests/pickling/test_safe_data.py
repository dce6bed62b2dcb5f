"""What safe loading promises to load, loads: equal to what unpickling gives."""

import array
import collections
import datetime
import decimal
import fractions
import ipaddress
import pathlib
import pickle
import types
import uuid
import zoneinfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mfstore
from mfstore.allow import Allow
from mfstore.pickling.safe.loading import load

TIMES = pd.to_datetime(["2020-01-01", "2021-06-01"])
PLAIN = [
    None, True, 1 << 80, -3, 1.5, 1j, "text", "é\ud800", b"bytes", bytearray(b"more"), (), (1, ("a",)), [[1], {"a": None}],
    {1, 2}, frozenset(["a"]), range(3), slice(1, None, 2), Ellipsis, NotImplemented, type(None), int, {"types": [list, float]},
    datetime.date(2020, 2, 29), datetime.time(3, 4, 5, 6, fold=1), datetime.timedelta(-1, 3, 4),
    datetime.datetime(2020, 1, 31, 23, 59, 59, 999999), datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    datetime.timezone(datetime.timedelta(hours=2), "there"), decimal.Decimal("-1.50"), decimal.Decimal("NaN").copy_abs,
    fractions.Fraction(-1, 3), uuid.UUID(int=7), pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:/x"),
    pathlib.Path("x"), ipaddress.ip_address("1.2.3.4"), ipaddress.ip_address("::1"), collections.OrderedDict(b=1, a=[2]),
    collections.defaultdict(list, a=[1]), collections.Counter("abca"), collections.deque([1, 2], 5),
    array.array("d", [1, 2]), types.SimpleNamespace(a=1, b=[2]), {datetime.date(2020, 1, 1): 1, (1, uuid.UUID(int=3)): 2},
]  # fmt: skip
PLAIN = [value for value in PLAIN if not callable(value) or isinstance(value, (type, collections.defaultdict))]
NEWER = (
    [np.array(["", "x" * 100], np.dtypes.StringDType())]
    if hasattr(np, "dtypes") and hasattr(np.dtypes, "StringDType")
    else []
)
RECORD = np.dtype([("a", "i4"), ("b", "f8"), ("c", "U3"), ("d", "M8[ms]"), ("e", "i2", (2, 3))], align=True)
ARRAYS = [
    np.arange(3), np.arange(100000, dtype=np.float32), np.arange(6).reshape(2, 3).T, np.array(5), np.zeros(0), np.zeros((3, 0)),
    np.array([1, "a", None, [2]], object), np.array(["a", "bc"]), np.array([b"a"]), np.array([True]), np.array([1j]),
    np.array(["2020", "NaT"], "M8[ns]"), np.array([1, 2], "m8[25s]"), np.array(["2020"], "M8[D]"), np.arange(3, dtype=">i4"),
    np.array([1, 2], np.longdouble), np.zeros(2, RECORD), np.zeros(2, "V3"), *NEWER,
    np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1.0, 2], mask=[0, 1], fill_value=7.0),
    np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), np.zeros(2, [("a", "O"), ("b", "i4")]),
    np.dtype("f8"), np.dtype(">f8"), RECORD, np.dtype("M8[25s]"), np.dtype(("f4", (2, 3))), np.dtype("O"), np.float32,
    np.float64(1.5), np.int8(-3), np.bool_(True), np.str_("x"), np.bytes_(b"x"), np.datetime64("2020-01-01"),
    np.timedelta64(3, "s"), np.longdouble(1), np.void(b"abc"), np.array([(1, 2.0)], "i4,f8")[0], np.complex64(1j),
    np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [8, 0], "itemsize": 20}),
    np.dtype({"names": ["a"], "formats": ["i4"], "titles": ["title"]}), np.dtype("i4", metadata={"unit": "m"}),
]  # fmt: skip
FRAME = pd.DataFrame({
    "ints": [1, 2], "floats": [1.0, None], "more": [3, 4], "texts": ["x", None], "times": TIMES,
    "words": pd.Categorical(["u", None], ["v", "u"], ordered=True), "nullable": pd.array([1, None], "Int64"),
    "flags": pd.array([True, None], "boolean"), "numbers": pd.array([1.5, None], "Float32"),
    "strings": pd.array(["x", None], "string"), "python": pd.array(["x", None], "string[python]"),
    "zoned": TIMES.tz_localize("UTC"), "months": pd.period_range("2020", periods=2, freq="M"),
    "ranges": pd.interval_range(0, 2), "arrow": pd.array([1, None], pd.ArrowDtype(pa.int64())),
    "objects": pd.Series([1, "a"], dtype=object), "spans": pd.to_timedelta([1, 2], "D"),
})  # fmt: skip
FRAMES = [
    FRAME, FRAME.set_index("words"), FRAME.T, pd.DataFrame(), pd.DataFrame({"a": [1]}, index=["x"]), FRAME[["ints", "texts"]],
    pd.DataFrame(np.arange(6).reshape(2, 3), columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)])),
    *(FRAME[name] for name in FRAME), pd.Series([1, 2], name="q", index=["a", "b"]), pd.Series([], dtype=float),
    pd.RangeIndex(3), pd.Index([1, 2], name="n"), pd.Index(["a"]), pd.date_range("2020", periods=3, tz="Europe/Berlin"),
    pd.date_range("2020", periods=3, freq="MS"), pd.timedelta_range("1D", periods=2), pd.period_range("2020", periods=2),
    pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["x", "y"]), pd.CategoricalIndex(["a"]),
    pd.IntervalIndex.from_breaks([0, 1, 2]), pd.Timestamp("2020-01-01", tz="UTC"), pd.Timestamp("2020-01-01 03:00"),
    pd.Timedelta("1D"), pd.NaT, pd.NA, pd.Period("2020", "M"), pd.Interval(0, 1), pd.CategoricalDtype(["a"]),
    pd.DatetimeTZDtype("ns", "UTC"), pd.Int64Dtype(), pd.offsets.MonthEnd(2), pd.StringDtype(), pd.PeriodDtype("M"),
    pd.Categorical(["a", "b"]), pd.array([1, None], "Int64"), pd.array(["x", None], "string"), TIMES.array,
    pd.arrays.IntervalArray.from_breaks([0, 1]), pd.IntervalDtype("int64", "left"), pd.ArrowDtype(pa.int64()),
]  # fmt: skip
TABLE = pa.table({
    "a": [1, 2], "b": ["x", None], "c": [[1], [2]], "d": [{"x": 1}, None], "e": [b"x", b""],
    "f": pa.array(["a", "a"]).dictionary_encode(), "g": pa.array([True, None]), "h": pa.array([1, 2], pa.decimal128(5, 2)),
    "i": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())), "j": pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)),
    "k": pa.array([1, 2], pa.timestamp("us", "UTC")), "l": pa.nulls(2), "m": pa.array([[1], []], pa.large_list(pa.int8())),
    "n": pa.array(["x", "a text that is long enough"], pa.string_view()),
})  # fmt: skip
TABLES = [
    TABLE, TABLE.slice(1), pa.table({}), pa.array([1, 2]), pa.array(["x", None, "yz"]).slice(1), pa.chunked_array([[1], [2]]),
    pa.record_batch({"a": [1]}), pa.schema([("a", pa.int64()), ("t", pa.timestamp("us", "UTC"))], metadata={"k": "v"}),
    pa.int64(), pa.list_(pa.int64()), pa.dictionary(pa.int32(), pa.string()), pa.scalar(5), pa.py_buffer(b"abc"),
    pa.struct([("a", pa.int32())]), pa.uuid(), pa.array([1, 1, 2], pa.int32()), pa.array([1.5], pa.float16()),
    pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
    pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]),
]  # fmt: skip


def same(one, other):
    """Whether two objects are alike, of the same types all the way down."""
    assert type(one) is type(other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    return pickle.dumps(one) == pickle.dumps(other) or repr(one) == repr(other)


@pytest.fixture(scope="module")
def store():
    return mfstore.open(f"memory://safe-data-{uuid.uuid4().hex}")


@pytest.mark.parametrize("value", [*PLAIN, *ARRAYS, *FRAMES, *TABLES], ids=lambda value: f"{type(value).__name__}")
def test_data_loads_as_it_was(store, value):
    key = store.put(value)
    safe, plain = store.get(key, safe=True), store.get(key)
    assert same(safe, plain)
    if not isinstance(value, (pd.DataFrame, pd.Series)):
        # Equal in all that a pickle says. Types of pandas also say what they have been asked.
        assert store.put(safe) == store.put(plain)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("values", [PLAIN, ARRAYS, FRAMES, TABLES], ids=["plain", "arrays", "frames", "tables"])
def test_pickles_of_cpython_load_too(values, protocol):
    for value in values:
        try:
            data = pickle.dumps(value, protocol)
        except (TypeError, pickle.PicklingError, ValueError, AttributeError):
            continue  # not by this protocol
        if protocol < 2 and type(value).__module__.partition(".")[0] in ("pandas", "pyarrow"):
            continue
        assert same(load(Allow(), [data], (), ()), pickle.loads(data)), value
