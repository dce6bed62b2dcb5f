"""Values that are written once: dtypes and timezones, whatever objects they are."""

import datetime
import pickle
import pickletools
import zoneinfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.rigs.pickles import REMEMBERED, dumps
from tests.rigs.soak import lasting


def another(dtype):
    """The same dtype, another object."""
    return pickle.loads(pickle.dumps(dtype))


def own(array):
    """The same array with a dtype of its own."""
    return array.copy().view(another(array.dtype))


def built(stream):
    """How many objects are given a state in a pickle, as each dtype is that is written in full."""
    return sum(opcode.name == "BUILD" for opcode, _, _ in pickletools.genops(stream))


def test_the_dtype_of_many_small_arrays_is_written_once():
    arrays = {f"layer {n}": np.full(100, float(n)) for n in range(1000)}
    stream = dumps(arrays)
    assert built(stream) == 1
    assert len(stream) < 1000 * (800 + 60)
    back = pickle.loads(stream)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())
    assert dumps({name: own(array) for name, array in arrays.items()}) == stream
    assert dumps(back) == stream
    assert built(dumps([np.float64(n) for n in range(100)])) == 1


def test_the_timezone_of_many_times_is_written_once():
    def times(zone):
        return [datetime.datetime(2013, 1, 1, n % 24, tzinfo=zone()) for n in range(100)]

    for zone in (
        lambda: datetime.timezone(datetime.timedelta(minutes=90)),
        lambda: datetime.timezone(datetime.timedelta(minutes=90), "its name"),
        lambda: zoneinfo.ZoneInfo("Europe/Berlin"),
        lambda: zoneinfo.ZoneInfo.no_cache("Europe/Berlin"),
    ):
        stream, kept = dumps(times(zone)), zone()
        assert dumps(times(lambda kept=kept: kept)) == stream
        # Of a hundred timezones 99 are references: an opcode and a byte, where the shortest has 17 bytes.
        assert len(stream) < 100 * 32
        back = pickle.loads(stream)
        assert [str(time) for time in back] == [str(time) for time in times(zone)]
        assert back[0].tzinfo is back[99].tzinfo


class Zone(datetime.tzinfo):
    def __init__(self, name=""):
        self.name = name


def test_values_with_attributes_are_objects():
    shared = Zone("a")
    back = pickle.loads(dumps([shared, Zone("a"), shared]))
    assert back[0] is back[2] is not back[1]


def test_dtypes_are_one_only_when_nothing_differs():
    """Equal dtypes that numpy loads differently: aligned or not, and with what was noted in them."""
    noted = [np.dtype("f8", metadata={"unit": unit}) for unit in ("m", "s", "m")]
    aligned = np.dtype([("a", "i1"), ("b", "i4")], align=True)
    plain = np.dtype({"names": ["a", "b"], "formats": ["i1", "i4"], "offsets": [0, 4], "itemsize": 8})
    assert aligned == plain
    for kinds in ([*noted, np.dtype("f8")], [aligned, plain, another(aligned)], [np.dtype(">i4"), np.dtype("<i4")]):
        back = pickle.loads(dumps(kinds))
        assert [pickle.dumps(dtype) for dtype in back] == [pickle.dumps(dtype) for dtype in kinds]
        assert [dtype.metadata for dtype in back] == [dtype.metadata for dtype in kinds]
        assert dumps(back) == dumps(kinds)


class Unit:
    """Counts how often instances are pickled."""

    pickled = 0

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        Unit.pickled += 1
        return Unit, (self.name,)


@pytest.mark.parametrize(
    "within",
    [lambda dtype: dtype, lambda dtype: np.dtype([("a", "i4"), ("b", dtype)]), lambda dtype: np.dtype((dtype, (2,)))],
    ids=["itself", "in a field", "of a subarray"],
)
def test_metadata_of_a_dtype_stay_whose_they_are(within):
    def noted():
        return within(np.dtype("f8", metadata={"units": []}))

    def metadata(dtype):
        return (dtype.fields["b"][0] if dtype.names else dtype.base).metadata

    one = noted()
    back = pickle.loads(dumps([one, noted(), one]))
    metadata(back[0])["units"].append("m")
    assert [metadata(dtype)["units"] for dtype in back] == [["m"], [], ["m"]]
    assert dumps([one, one]) == dumps(pickle.loads(dumps([one, one])))


def test_metadata_of_a_dtype_are_pickled_once():
    dtype = np.dtype("f8", metadata={"unit": Unit("m")})
    before = Unit.pickled
    assert pickle.loads(dumps(np.zeros(3, dtype))).dtype.metadata["unit"].name == "m"
    assert Unit.pickled == before + 1


def test_dtypes_within_dtypes_take_time_in_proportion():
    deep = np.dtype("f8")
    for _ in range(60):
        deep = np.dtype([("a", deep), ("b", "i1")])
    assert pickle.loads(dumps([deep, another(deep)]))[1] == deep


def test_as_many_values_as_texts_are_remembered():
    """When that many are, all are forgotten, and whichever object comes next is written anew."""
    kinds = [np.dtype(f"S{n}") for n in range(REMEMBERED)]
    back = pickle.loads(dumps([*kinds, kinds[0], np.dtype("f8"), kinds[0], another(kinds[0])]))
    assert back[0] is back[REMEMBERED]
    assert back[0] is not back[REMEMBERED + 2] is back[REMEMBERED + 3]


@pytest.mark.second
@settings(max_examples=lasting(60), deadline=None)
@given(data=st.data())
def test_what_is_one_object_does_not_decide_the_pickle(data):
    """Arrays, scalars, times and sets over a few dtypes and timezones, once shared and once each with its own."""
    dtypes = data.draw(st.lists(hnp.scalar_dtypes() | hnp.array_dtypes(allow_subarrays=False), min_size=1, max_size=3))
    zones = [datetime.UTC, zoneinfo.ZoneInfo("Asia/Kolkata")]
    value = st.one_of(
        st.sampled_from(dtypes),
        st.sampled_from(dtypes).map(lambda dtype: np.zeros(3, dtype)),
        st.sampled_from(dtypes).map(lambda dtype: np.zeros((), dtype)[()]),
        st.sampled_from(zones).map(lambda zone: datetime.datetime(2013, 1, 1, tzinfo=zone)),
        st.frozensets(st.sampled_from([*dtypes, *zones]), max_size=3),
        st.frozensets(st.tuples(st.sampled_from(zones), st.integers(0, 2)), max_size=3),
    )
    items = data.draw(st.lists(value, max_size=12))

    def apart(item):
        return own(item) if isinstance(item, np.ndarray) else pickle.loads(pickle.dumps(item))

    stream = dumps(items)
    assert dumps([apart(item) for item in items]) == stream
    back = pickle.loads(stream)
    assert dumps(back) == stream
