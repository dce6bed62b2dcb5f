"""Short ways of the pickler write what the long ones would."""

import datetime
import decimal
import gc
import os
import pickle
import pickletools
import sys
import threading
import weakref
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfstore._core.cycles import without_search
from mfstore._core.pickler import BUFFER, Joined, Pickler
from mfstore.errors import NotSerializable
from mfstore.pickling.streams import _known_types, dump
from tests.rigs.pickles import REMEMBERED, dumps, loads

KEPT = 65536


def names(stream):
    return [opcode.name for opcode, _, _ in pickletools.genops(stream)]


class Short1:
    pass


class Long11:
    def __reduce_ex__(self, protocol):
        return super().__reduce_ex__(protocol)


class Slotted:
    __slots__ = ("__dict__", "x")


class Stated:
    def __getstate__(self):
        return {"state": "own"}


class Lying:
    def __getattr__(self, name):
        if name == "__getnewargs__":
            return tuple
        raise AttributeError(name)


class Numbers(list):
    pass


@pytest.mark.parametrize("attributes", [{}, {"x": 1}, {"x": [1], "y": {"z": (1, [2])}}])
def test_an_instance_is_written_as_its_reduction_says(attributes):
    streams = []
    for cls in (Short1, Long11):
        one = cls()
        one.__dict__.update(attributes)
        again = [one, one, one.__dict__]
        streams.append(dumps(again).replace(cls.__name__.encode(), b"-"))
        back = pickle.loads(dumps(again))
        assert back[0] is back[1] and back[0].__dict__ == attributes
        assert back[2] == attributes
    assert streams[0] == streams[1]


class Zone(datetime.tzinfo):
    """A zone of nobody's: its own code runs."""

    def utcoffset(self, when):
        return datetime.timedelta(minutes=7)

    def __repr__(self):
        return "Zone()"


ZONES = st.sampled_from([None, datetime.UTC, datetime.timezone(datetime.timedelta(hours=2), "two"), Zone()])
VALUES = st.one_of(
    st.datetimes(timezones=ZONES, allow_imaginary=True),
    st.dates(),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.sampled_from([decimal.Decimal("NaN"), decimal.Decimal("-sNaN12"), decimal.Decimal("1" * 2000)]),
    st.sampled_from([datetime.datetime(2020, 1, 1, fold=1), datetime.time(1, fold=1, tzinfo=datetime.UTC)]),
)


@given(st.lists(VALUES, max_size=8))
def test_dates_and_decimals_are_written_as_their_reductions_say(values):
    kinds = {datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal}
    streams = []
    for reducers in ({}, dict.fromkeys(kinds, lambda value: value.__reduce_ex__(5))):
        joined = Joined()
        Pickler(joined, reducers, (*kinds, datetime.tzinfo), {datetime.tzinfo: None}).dump([values, values[::-1]])
        streams.append(joined.all())
    assert streams[0] == streams[1]
    assert repr(pickle.loads(streams[0])[0]) == repr(pickle.loads(pickle.dumps(values)))


def arrays_of(dtype):
    numbers = np.arange(5040).astype(dtype)
    yield from (numbers[:0], numbers[:1].reshape(()), numbers, numbers[::2], numbers.reshape(70, 72).T)
    yield from (
        numbers[:24].reshape(2, 3, 4),
        numbers[:24].reshape(2, 3, 4).transpose(2, 1, 0),
        numbers[:3].reshape(3, 1),
    )
    yield from (numbers[:1].reshape((1,) * 8), numbers[:1].reshape((1,) * 9), numbers.view(np.recarray))
    readonly = numbers[:9].copy()
    readonly.flags.writeable = False
    yield readonly
    yield np.resize(numbers, 65536 // numbers.itemsize)
    yield np.resize(numbers, 65536 // numbers.itemsize - 1)


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "<i4", ">i4", "f2", "f8", "c8", "g", "G", "M8[s]", "S3", "U2", "O", "i4,f8"]
)
def test_arrays_are_written_as_their_reducer_says(dtype):
    given = list(arrays_of(dtype))
    values = [given, given[::-1], [np.zeros(2, dtype), {"x": np.ones(3, dtype)}]]
    known = _known_types()
    assert known.arrays is not None
    streams = []
    for arrays in (known.arrays, None):
        joined = Joined()
        Pickler(joined, known.reducers, known.values, known.once, arrays=arrays).dump(values)
        streams.append(joined.all())
    assert streams[0] == streams[1]
    back = pickle.loads(streams[0])
    assert all(one.flags.f_contiguous >= two.flags.f_contiguous for one, two in zip(back[0], given, strict=True))
    assert [one.tolist() for one in back[0]] == [one.tolist() for one in given]
    assert back[0][0] is back[1][-1]


def test_arrays_that_are_small_take_no_reducer():
    known = _known_types()
    asked = []
    reducers = {np.ndarray: lambda array: (asked.append(array), known.reducers.exact[np.ndarray](array))[1]}
    Pickler(Joined(), reducers, known.values, known.once, arrays=known.arrays).dump([np.zeros(3), np.zeros((2, 9)).T])
    assert not asked
    Pickler(Joined(), reducers, known.values, known.once, arrays=known.arrays).dump([np.zeros(9)[::2], np.zeros(9000)])
    assert len(asked) == 2


class Unnamed(datetime.tzinfo):
    def __reduce__(self):
        raise ValueError("this one not")


def test_where_a_zone_fails():
    with pytest.raises(
        NotSerializable, match=r"at obj\.<datetime\.datetime\.__reduce__>\[1\]: ValueError: this one not"
    ):
        dumps(datetime.datetime(2020, 1, 1, tzinfo=Unnamed()))


class Leading:
    """Gives what another object holds, and keeps no reference of its own to it."""

    def __init__(self, to):
        self.to = to

    def __getstate__(self):
        return {"at": vars(self.to)["at"], "all": vars(self.to)}


@pytest.mark.parametrize("at", [[1], {"x": []}, {1, 2}, ([],), bytearray(b"x"), Short1()], ids=type)
def test_what_was_written_before_foreign_code_ran_is_known_to_it(at):
    holder = Short1()
    holder.at = at
    back = pickle.loads(dumps([holder, [[] for _ in range(100)], Leading(holder), Leading(holder)]))
    assert back[0].at is back[2].at is back[3].at
    assert back[2].all is back[3].all and back[2].all["at"] is back[2].at


def test_what_was_written_before_the_graph_was_looked_through_is_known():
    many = [[] for _ in range(530_000)]
    many += [many[5], many[-1]]
    holder = Short1()
    holder.at = many[7]
    for more, plain in (([], True), ([Leading(holder)], False)):
        back = pickle.loads(dumps([many, *more, many[529_990]]))
        assert back[0][530_000] is back[0][5] and back[0][530_001] is back[0][529_999]
        assert back[-1] is back[0][529_990]
        assert plain or back[1].at is back[0][7]


def test_tuples_that_lead_to_themselves():
    inner, one, two = [], [1], [2]
    outer = ((inner, one), {"two": (two,)})
    inner += [outer, outer[0], outer[1]["two"]]
    for value in (outer, [outer], (outer,), {"x": outer[0]}):
        back = pickle.loads(dumps(value))
        assert pickletools.optimize(dumps(back)) == pickletools.optimize(dumps(value))
    back = pickle.loads(dumps(outer))
    assert back[0][0][0] is back and back[0][0][1] is back[0] and back[0][0][2] is back[1]["two"]


@given(st.lists(st.text(st.characters(exclude_categories=[]), max_size=300), max_size=6))
def test_texts_are_written_as_python_encodes_them(texts):
    stream = dumps(texts)
    assert pickle.loads(stream) == texts
    for text in texts:
        assert text.encode("utf-8", "surrogatepass") in stream


def test_texts_that_are_not_ascii_stay_as_they_are():
    texts = [f"\u20ac {number}" for number in range(20)]
    before = [sys.getsizeof(text) for text in texts]
    dumps(texts)
    assert [sys.getsizeof(text) for text in texts] == before


def test_an_instance_that_leads_back_to_itself():
    one = Short1()
    one.me, one.all = one, [one.__dict__]
    back = pickle.loads(dumps(one))
    assert back.me is back and back.all[0]["me"] is back and back.all[0]["all"] is back.all


@pytest.mark.parametrize("cls", [Slotted, Stated, Lying, Numbers])
def test_a_class_with_ways_of_its_own_goes_by_them(cls):
    one = cls()
    one.x = 7
    assert vars(pickle.loads(dumps(one))) == vars(pickle.loads(pickle.dumps(one, 5)))
    assert getattr(pickle.loads(dumps(one)), "x", None) == getattr(pickle.loads(pickle.dumps(one, 5)), "x", None)


def test_an_instance_may_say_itself_how_it_is_reduced():
    one = Short1()
    one.__reduce_ex__ = lambda protocol: (int, ("7",))
    assert pickle.loads(dumps(one)) == 7


@given(st.sets(st.integers(-(1 << 70), 1 << 70) | st.integers(-300, 70000), max_size=70))
def test_sets_of_numbers_are_written_in_their_order(numbers):
    stream = dumps(numbers)
    assert pickle.loads(stream) == numbers
    written = [
        value for opcode, value, _ in pickletools.genops(stream) if type(value) is int and opcode.name != "PROTO"
    ]
    assert written == sorted(numbers)
    assert stream == dumps({number + 0 for number in list(numbers)[::-1]})


def test_numbers_take_no_more_bytes_than_in_an_ordinary_pickle():
    edges = [sign * (1 << bits) + more for bits in range(70) for sign in (1, -1) for more in (-1, 0, 1)]
    for number in edges:
        assert dumps(number)[2:] == pickle.dumps(number, 5).replace(b"\x80\x05\x95", b"")[-len(dumps(number)) + 2 :]
        assert pickle.loads(dumps(number)) == number


def test_what_is_referred_to_is_remembered_when_texts_are_forgotten():
    rows = [{"key": str(number)} for number in range(REMEMBERED + 1000)]
    stream = dumps(rows)
    assert stream.count(b"\x8c\x03key") == 1
    # A reference of two bytes, since little was ahead of the list.
    assert names(stream).count("BINGET") == len(rows) - 1
    assert pickle.loads(stream) == rows


def test_all_texts_are_forgotten_when_too_many_were_referred_to():
    for kept in (KEPT, KEPT + 1):
        twice = [str(number) for number in range(kept)] * 2
        others = [f"-{number}" for number in range(REMEMBERED + 1 - kept)]
        stream = dumps([*twice, *others, "0"])
        assert stream.count(b"\x8c\x010") == (1 if kept == KEPT else 2)


def test_copies_of_arrays_do_not_live_to_the_end():
    seen = []

    class Sink:
        def body(self, block):
            pass

        def payload(self, kind, data, itemsize, row, at):
            assert kind == BUFFER and all(one() is None for one in seen)
            seen.append(weakref.ref(data))

    dump([np.zeros((200, 200))[:, ::2] for _ in range(4)], Sink())
    assert len(seen) == 4


@pytest.fixture
def searching():
    before = gc.get_threshold()
    gc.enable()
    yield
    assert gc.isenabled()
    assert gc.get_threshold() == before
    assert before[0]


def held_back():
    return gc.get_threshold()[0] == (1 << 31) - 1


def test_no_cycles_are_searched_for_during_a_call(searching):
    assert without_search(held_back)
    assert without_search(lambda value, *, more: value + more, 1, more=2) == 3
    assert without_search(lambda: (without_search(held_back), held_back())) == (True, True)
    with pytest.raises(ZeroDivisionError):
        without_search(lambda: 1 / 0)


def test_a_search_that_is_held_back_does_not_happen(searching):
    def make():
        before = gc.get_stats()[0]["collections"]
        kept = [[] for _ in range(100_000)]
        return len(kept), gc.get_stats()[0]["collections"] - before

    assert without_search(make)[1] == 0
    assert make()[1] > 0


@pytest.fixture
def overlapping():
    """A call of another thread that has begun, and what ends it."""
    inside, leave = threading.Event(), threading.Event()
    other = threading.Thread(target=without_search, args=(lambda: (inside.set(), leave.wait()),))
    other.start()
    inside.wait()

    def end():
        leave.set()
        other.join()

    yield end
    end()


def test_the_last_of_calls_that_overlap_lets_the_search_go_on(searching, overlapping):
    without_search(int)
    assert held_back()
    overlapping()
    assert not held_back()


def test_what_its_user_switched_off_stays_off(searching):
    gc.disable()
    without_search(int)
    assert not gc.isenabled()
    gc.enable()


def test_what_its_user_switches_off_meanwhile_stays_off(searching, overlapping):
    gc.disable()
    overlapping()
    assert not gc.isenabled()
    gc.enable()


def test_what_its_user_switches_on_meanwhile_stays_on(searching):
    gc.disable()
    without_search(gc.enable)
    assert gc.isenabled()


@pytest.mark.parametrize("threshold", [12345, 0])
def test_thresholds_of_its_user_stay(searching, threshold):
    before = gc.get_threshold()
    gc.set_threshold(threshold)
    without_search(int)
    assert gc.get_threshold()[0] == threshold
    for meanwhile in (54321, 0):
        gc.set_threshold(threshold)
        without_search(gc.set_threshold, meanwhile)
        assert gc.get_threshold()[0] == meanwhile
    gc.set_threshold(*before)


def test_a_child_of_a_fork_searches(searching, overlapping):
    child = os.fork()
    if child == 0:
        without_search(int)
        os._exit(1 if held_back() else 0)
    overlapping()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("key", ["k" * 70_000, b"k" * 70_000])
def test_a_value_is_held_while_its_key_is_written(key):
    taken = {key: Short1(), "b": 1}
    gone = weakref.ref(taken[key])
    seen = []

    class Sink:
        def body(self, block):
            pass

        def payload(self, kind, data, itemsize, row, at):
            del taken[key]
            taken["other"] = None
            seen.append(gone() is None)

    with pytest.raises(RuntimeError, match="changed during iteration"):
        Pickler(Sink()).dump(taken)
    assert seen == [False]


class Ordered:
    """Its attributes lie in a subclass of dict."""

    def __new__(cls):
        made = super().__new__(cls)
        made.__dict__ = OrderedDict()
        return made


class OrderedState(Ordered):
    def __getstate__(self):
        return dict(self.__dict__)


@pytest.mark.parametrize("kind", [Ordered, OrderedState])
def test_attributes_in_another_dict(kind):
    made = kind()
    vars(made).update(b=1, a=[2])
    for read in (pickle.loads, loads):
        back = read(dumps(made))
        assert type(vars(back)) is OrderedDict
        assert list(vars(back).items()) == [("b", 1), ("a", [2])]
