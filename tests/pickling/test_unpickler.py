"""What mfstore's unpickler makes of a pickle is what CPython's makes of it, or the same error."""

import _thread
import copyreg
import datetime
import decimal
import fractions
import gc
import io
import pickle
import random
import signal
import struct
import sys
import uuid
import weakref
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pickling import test_pickler as graphs
from tests.pickling.test_pickler import build, shape
from tests.rigs.pickles import dumps, loads, loads_in_parts, unpickler

START = b"\x80\x05"
ERRORS = pickle.UnpicklingError, EOFError
HERE = "tests.pickling.test_unpickler"


@dataclass
class Record:
    name: str
    values: list = field(default_factory=list)
    default: int = 3


@dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    value: object


class Guarded:
    """Its attributes are not what lies in its dict."""

    def __init__(self, value):
        self.__dict__["value"] = value

    value = property(lambda self: ("read", self.__dict__["value"]))

    def __setattr__(self, name, value):
        raise AttributeError(name)


class SetsState:
    def __init__(self):
        self.log = []

    def __getstate__(self):
        return {"x": 1}

    def __setstate__(self, state):
        self.log = [state]


class Early:
    """Has an attribute before its state comes."""

    def __new__(cls):
        made = super().__new__(cls)
        made.first = 1
        return made


class StateByInstance:
    """Says only in the instance how it takes its state."""

    def __new__(cls):
        made = super().__new__(cls)
        made.__setstate__ = partial(setattr, made, "taken")
        return made

    def __reduce_ex__(self, protocol):
        return StateByInstance, (), {"a": 1}


class Keyword:
    def __new__(cls, *, size):
        made = super().__new__(cls)
        made.size = size
        return made

    def __getnewargs_ex__(self):
        return (), {"size": self.size}


class Extends(list):
    def extend(self, items):
        self.calls = [*getattr(self, "calls", []), len(items)]
        super().extend(items)


class Appends:
    def __init__(self):
        self.items = []

    def append(self, item):
        self.items.append(item)

    def __reduce__(self):
        return Appends, (), None, iter(self.items)


class Sets(dict):
    def __setitem__(self, key, value):
        super().__setitem__(key, (value, "set"))


class Adds:
    def __init__(self):
        self.items = []

    def add(self, item):
        self.items.append(item)


class Zone(datetime.tzinfo):
    def utcoffset(self, when):
        return datetime.timedelta(hours=1)

    def __repr__(self):
        return "zone"


def many_kinds():
    utc, berlin = datetime.UTC, datetime.timezone(datetime.timedelta(hours=1), "berlin")
    shared = ["shared"]
    return [
        None, True, False, 0, 255, 256, 65535, 65536, -1, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63), 2**63,
        2**64, -(2**64), 2**3000, -(2**3000), 1.5, -0.0, float("inf"), 1j, "", "a", "é", "€", "\U0001f600", "ascii" * 9,
        "ünïcödé" * 50, "日本語" * 50, "mixed ünd ascii € \U0001f600" * 20, "lone \ud800 surrogate" * 5, "x" * 300,
        "€" * 300, b"", b"a", b"b" * 300, bytearray(b""), bytearray(b"ab"), [], [1], list(range(100)), (), (1,), (1, 2),
        (1, 2, 3), (1, 2, 3, 4), ([],), ([], []), ([], [], []), ([], [], [], []), {}, {"a": 1}, {"a": 1, "b": 2},
        {number: str(number) for number in range(100)}, set(), {1}, {"a", "b"}, set(range(100)), frozenset(),
        frozenset({1, 2}), [shared, shared, {"again": shared}], int, Record, len, Ellipsis, NotImplemented, type(None),
        Record("r", [1, 2]), Record("empty"), Frozen("f", [1]), Guarded(7), SetsState(), Early(), StateByInstance(),
        Keyword(size=4), Extends([1, 2, 3]), Appends(), Sets(a=1), Counter("abca"), OrderedDict(a=1, b=2),
        deque([1, 2], 5), decimal.Decimal("1.50"), fractions.Fraction(1, 3), uuid.UUID(int=5), ValueError("v"),
        datetime.date(2024, 2, 29), datetime.date(2024, 12, 31), datetime.time(1, 2, 3, 4), datetime.time(1, tzinfo=utc),
        datetime.datetime(2024, 2, 29, 23, 59, 59, 999999), datetime.datetime(2024, 1, 31, fold=1),
        datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31), datetime.datetime(2024, 1, 1, tzinfo=utc),
        datetime.datetime(2024, 1, 1, tzinfo=berlin), datetime.datetime(2024, 1, 1, tzinfo=Zone()),
        datetime.timedelta(-5, 3, 1), datetime.timedelta(999999999), berlin, range(5), slice(1, 2),
        complex(1, 2), copyreg.__newobj__, dumps, {"deep": [({"er": [1]},)]},
    ]  # fmt: skip


@pytest.mark.parametrize("value", many_kinds(), ids=lambda value: f"{type(value).__name__}"[:20])
def test_each_kind(value):
    stream = dumps(value)
    expected = pickle.loads(stream)
    for back in (loads(stream), loads_in_parts(stream), loads_in_parts(stream, parts=7)):
        assert type(back) is type(expected)
        assert shape(back) == shape(expected)
        assert dumps(back) == dumps(expected)


def test_all_kinds_in_one():
    stream = dumps(many_kinds())
    expected = shape(pickle.loads(stream))
    assert shape(loads(stream)) == expected
    assert shape(loads_in_parts(stream, parts=11)) == expected


def test_identity_in_random_graphs():
    for seed in range(1000):
        stream = dumps(build(random.Random(seed)))
        expected = shape(pickle.loads(stream))
        assert shape(loads(stream)) == expected, seed
        if seed % 8 == 0:
            assert shape(loads_in_parts(stream, parts=1 + seed % 5)) == expected, seed


# ---- damage ---------------------------------------------------------------------------

KNOWN = {(graphs.__name__, name) for name in ("Plain", "Reduces", "List", "Dict", "Slots")}


class Only(pickle.Unpickler):
    """Finds a few harmless classes, whatever a damaged pickle asks for."""

    def find_class(self, module, name):
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError("unknown")
        # One of its own: damaged pickles give states to classes too.
        return type(name, (super().find_class(module, name),), {"__slots__": ()} if name == "Slots" else {})


def verdict(load, *args):
    """The shape of an object, or the kind of error."""
    try:
        return shape(load(*args))
    except ERRORS:
        return "no pickle"
    except Exception as error:
        return type(error)


def by_cpython(stream):
    return Only(io.BytesIO(stream)).load()


def texts_and_numbers():
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.sets(st.text())
        ),
        max_leaves=20,
    )


@settings(max_examples=60, deadline=None)
@given(texts_and_numbers())
def test_any_plain_object(value):
    stream = dumps(value)
    assert loads(stream) == value == loads_in_parts(stream, parts=3)
    assert dumps(loads(stream)) == stream


def damaged(rng, stream):
    """A stream with a few of its bytes changed, left out, doubled or taken from another place."""
    out = bytearray(stream)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(2, len(out))
        what = rng.randrange(5)
        if what == 0:
            out[at] = rng.randrange(256)
        elif what == 1:
            out[at] = rng.choice(b"NKMJGhj\x94(]}tuesabR\x81\x92\x93\x85\x86\x87\x8f\x90\x91\x8c01.\x97\x96")
        elif what == 2:
            del out[at : at + rng.randrange(1, 4)]
        else:
            low = rng.randrange(2, len(out))
            out[at:at] = out[low : low + rng.randrange(1, 6)]
        if len(out) < 4:
            break
    return bytes(out)


def test_damaged_pickles_have_the_same_verdict():
    rng = random.Random(5)
    verdicts = Counter()
    streams = [dumps(build(random.Random(seed))) for seed in range(300)]
    for number in range(4000):
        stream = damaged(rng, streams[number % len(streams)])
        own = unpickler(Only)
        if not own.looks_through([stream]):
            # CPython's would go on until it meets what is wrong.
            assert type(verdict(loads_in_parts, stream, Only, 1 + number % 9)) is not list, stream
            continue
        expected = verdict(by_cpython, stream)
        found = verdict(own.load, [stream])
        assert found == expected, stream
        if number % 4 == 0:
            assert verdict(loads_in_parts, stream, Only, 1 + number % 9) == expected, stream
        verdicts[found if isinstance(found, (str, type)) else "read"] += 1
    assert min(verdicts["read"], verdicts["no pickle"]) > 100


@pytest.mark.parametrize(
    "ops",
    [
        b".", b"0.", b"1.", b"(.", b"((.", b"(0.", b"K\x01(.", b"K\x01(0.", b"\x94.", b"(\x94.", b"K\x01(\x94.", b"e.", b"(e.",
        b"]e.", b"](e.", b"](K\x01e.", b"(]K\x01e.", b"a.", b"]a.", b"](K\x01a.", b"(]K\x01a.", b"K\x01K\x02a.", b"u.", b"(u.",
        b"}(u.", b"}(K\x01u.", b"}(K\x01K\x02u.", b"(}K\x01K\x02u.", b"}(]K\x02u.", b"]K\x01K\x02s.", b"s.", b"}K\x01s.",
        b"}K\x01K\x02s.", b"}(K\x01K\x02s.", b"](K\x00K\x02u.", b"(K\x00K\x02u.", b"\x8f(K\x01\x90.", b"(K\x01\x90.", b"\x8f\x90.",
        b"\x8f(]\x90.", b"}(K\x01\x90.", b"(K\x01\x91.", b"\x91.", b"(]\x91.", b"t.", b"(t.", b"(K\x01(t.", b"\x85.", b"\x86.",
        b"\x87.", b"(\x85.", b"K\x01(\x85.", b"K\x01(K\x02\x86.", b"R.", b"K\x01R.", b"K\x01K\x02R.", b"K\x01)R.", b"K\x01(K\x02tR.",
        b"K\x01K\x02\x85R.", b"(K\x02\x85R.", b"(K\x02\x85\x94R.", b"\x81.", b"K\x01)\x81.", b"K\x01K\x02\x81.", b"\x92.",
        b"K\x01)}\x92.", b"(K\x01)}\x92.", b"b.", b"K\x01b.", b"K\x01Nb.", b"K\x01}b.", b"K\x01NN\x86b.", b"K\x01K\x02b.",
        b"K\x01}(\x8c\x01aK\x02ub.", b"}(\x8c\x01aK\x02ub.", b"\x93.", b"\x8c\x01a\x93.", b"\x8c\x01aK\x01\x93.", b"K\x01\x8c\x01a\x93.",
        b"\x8c\x02\xff\xff.", b"\x8c\x02\xc3(.", b"\x8c\x09aaaaaaa\xc3(.", b"\x8c\x0aaaaaaaa\xed\xa0\x80.", b"\x97.", b"\x8a\x00.",
        b"\x8b\x00\x00\x00\x00.", b"\x8a\x01\xff.", b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00.", b"K\x01.rest", b"N0N.", b"(NN1N.",
    ],
)  # fmt: skip
def test_each_way_to_be_wrong(ops):
    expected = verdict(by_cpython, START + ops)
    assert verdict(loads, START + ops, Only) == expected
    assert verdict(loads_in_parts, START + ops, Only) == expected


@pytest.mark.parametrize(
    "ops",
    [
        b"", b"N", b"K", b"M\x00", b"J\x00\x00", b"G\x00", b"\x8c\x05abc", b"X\x05\x00\x00\x00a", b"C\x05a",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", b"\x8e\x09" + bytes(7) + b"a",
        b"B\xff\xff\xff\xffa", b"\x8b\xff\xff\xff\xff.", b"\x8a\xff", b"h", b"h\x00.", b"j\x00\x00\x00\x00.", b"N\x94h\x01.",
        b"Q.", b"P0\n.", b"I1\n.", b"\x82\x01.", b"\x95\x02\0\0\0\0\0\0\0N.", b"\x80\x04N.", b"N2.", b"q\x00.", b"\xff.", b"\x98.",
    ],
)  # fmt: skip
def test_what_it_does_not_read_is_told_before_anything_is_made(ops):
    assert not unpickler().looks_through([START + ops])
    # A stream that comes in parts ends in an error.
    with pytest.raises(ERRORS):
        loads_in_parts(START + ops, parts=2)


@pytest.mark.parametrize("stream", [b"", b"\x80", b"N.", b"\x80\x04N.", b"(lp0\n."])
def test_other_protocols_are_left_alone(stream):
    assert not unpickler().looks_through([stream])
    assert not unpickler().begins(stream)


def test_every_end_that_comes_too_soon():
    stream = dumps(many_kinds()[:60])
    for end in range(len(stream)):
        assert not unpickler().looks_through([stream[:end]])
    for end in range(2, len(stream), 7):
        with pytest.raises(ERRORS):
            loads_in_parts(stream[:end], parts=5)


def test_it_reads_once():
    own = unpickler()
    assert own.looks_through([dumps(1)])
    assert own.load([dumps(1)]) == 1
    with pytest.raises(RuntimeError, match="one pickle"):
        own.load([dumps(1)])


def test_a_pickle_that_changes_meanwhile_is_an_error():
    stream = bytearray(dumps([["a"], "a", "a"]))
    own = unpickler()
    assert own.looks_through([stream])
    stream[stream.index(b"h") : stream.index(b"h") + 2] = b"h\x7f"
    with pytest.raises(pickle.UnpicklingError, match="not found at index 127"):
        own.load([stream])


# ---- what is asked of classes -----------------------------------------------------------


def test_classes_are_found_as_the_unpickler_it_stands_for_does():
    asked = []

    class Notes(pickle.Unpickler):
        def find_class(self, module, name):
            asked.append((module, name))
            return super().find_class(module, name)

    stream = dumps([Record("a"), Record, Record("b")])
    assert loads(stream, Notes)[1] is Record
    assert asked == [(HERE, "Record")]


def test_finding_a_class_is_audited():
    seen = []

    def hook(event, args):
        if event == "pickle.find_class" and hook.on:
            seen.append(args)

    hook.on = True
    sys.addaudithook(hook)  # there is no way to take it back
    try:
        loads(dumps(Record("a")))
    finally:
        hook.on = False
    assert seen == [(HERE, "Record")]


def test_what_is_found_is_not_asked_for_its_name():
    class Lazy:
        def __getattr__(self, name):
            raise RuntimeError("not bound yet")

    lazy = Lazy()

    class Finds(pickle.Unpickler):
        def find_class(self, module, name):
            return lazy

    assert loads(START + b"\x8c\x01m\x8c\x04lazy\x93.", Finds) is lazy


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        ("no_such_module", "x", ModuleNotFoundError),
        (HERE, "nothing", AttributeError),
        (HERE, "Record.no", AttributeError),
    ],
)
def test_what_is_not_there(module, name, error):
    stream = START + b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)) + b"\x93."
    with pytest.raises(error):
        loads(stream)


def test_names_of_attributes_are_interned():
    back = loads(dumps([Record("a"), Guarded(1)]))
    for made in back:
        assert all(name is sys.intern(name) for name in vars(made))


def test_attributes_go_past_what_the_class_says_of_them():
    back = loads(dumps(Guarded(5)))
    assert back.value == ("read", 5)
    assert vars(loads(dumps(Early()))) == {"first": 1}
    assert loads(dumps(StateByInstance())).taken == {"a": 1}
    assert loads(dumps(SetsState())).log == [{"x": 1}]
    assert loads(dumps(Extends([1, 2]))).calls == [2]
    assert loads(dumps(Sets(a=1)))["a"] == (1, "set")
    # What looks like a set and is none.
    stream = START + b"".join(b"\x8c" + bytes([len(part)]) + part for part in (HERE.encode(), b"Adds"))
    assert loads(stream + b"\x93)R(K\x01K\x02\x90.").items == [1, 2]


def test_a_class_that_changes_meanwhile():
    class Changes:
        pass

    def change(value):
        Changes.__setstate__ = lambda self, state: self.__dict__.update(state, changed=value)
        return value

    class Finds(pickle.Unpickler):
        def find_class(self, module, name):
            return {"Changes": Changes, "change": change}[name]

    def found(name):
        return b"\x8c\x01m\x8c" + bytes([len(name)]) + name + b"\x93"

    one = found(b"Changes") + b")\x81}(\x8c\x01aK\x01\x8c\x01bK\x02ub"
    stream = START + b"(" + one + one + found(b"change") + b"K\x07\x85R" + one + b"t."
    first, second, _, third = loads(stream, Finds)
    assert vars(first) == vars(second) == {"a": 1, "b": 2}
    assert vars(third) == {"a": 1, "b": 2, "changed": 7}


# ---- arrays and buffers ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f8", ">f4", "M8[ns]", "c16", "S3", "U2", "?", "i2,f8"])
@pytest.mark.parametrize("shape_of", [(6,), (2, 3), (6, 1), (0,), (), (1, 2, 3)])
def test_arrays(dtype, shape_of):
    array = np.arange(int(np.prod(shape_of)), dtype="u1").astype(dtype).reshape(shape_of)
    for one in (array, np.asfortranarray(array)):
        back, expected = loads(dumps(one)), pickle.loads(dumps(one))
        assert back.tobytes() == expected.tobytes()
        assert (back.dtype, back.shape, back.strides) == (expected.dtype, expected.shape, expected.strides)
        for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS", "WRITEABLE", "ALIGNED", "OWNDATA"):
            assert back.flags[flag] == expected.flags[flag]


def test_the_memory_of_a_flat_array_stays_as_long_as_it():
    back = loads(dumps(np.arange(50.0)))
    owner = back
    while isinstance(owner, np.ndarray):
        owner = owner.base
    with pytest.raises(BufferError):
        memoryview(owner).obj.clear()


def test_an_array_that_does_not_fit_its_buffer_is_the_same_error():
    stream = dumps(np.arange(50, dtype="i4"))
    for number in (49, 51):
        wrong = stream.replace(b"K\x32\x85", b"K" + bytes([number]) + b"\x85")
        assert wrong != stream
        with pytest.raises(ValueError, match="reshape"):
            loads(wrong)


def test_buffers_that_lie_elsewhere():
    stream = START + b"(\x97\x97\x97t."
    given_back = [bytearray(b"a"), "text", b"b"]
    assert all(map(lambda one, other: one is other, loads(stream, buffers=given_back), given_back))
    for buffers in (None, [], given_back[:2]):
        with pytest.raises(pickle.UnpicklingError):
            loads(stream, buffers=buffers)


# ---- memory ---------------------------------------------------------------------------


class Copies:
    """A copy of what it is made from."""

    alive = 0
    most = 0

    def __init__(self, part):
        self.size = len(part.held)
        Copies.most = max(Copies.most, Part.alive)

    def __reduce__(self):
        return Copies, (Part(),)


class Part:
    alive = 0

    def __init__(self):
        Part.alive += 1
        self.held = "held"

    def __reduce__(self):
        return Part, ()

    def __del__(self):
        Part.alive -= 1


def test_what_an_object_is_made_from_does_not_outlive_it():
    stream = dumps([Copies(Part()) for _ in range(32)])
    Copies.most = 0
    assert len(loads(stream)) == 32
    assert Copies.most == 1
    # CPython's unpickler keeps all of them.
    pickle.loads(stream)
    assert Copies.most == 32


def test_what_is_referred_to_lives_until_then():
    part = Part()
    stream = dumps([[part], 1, [part], 2, [part]])
    back = loads(stream)
    assert back[0][0] is back[2][0] is back[4][0]
    seen = weakref.ref(back[0][0])
    del back
    assert seen() is None


def test_what_is_referred_to_lives_no_longer():
    class Finds(pickle.Unpickler):
        def find_class(self, module, name):
            return {"part": Part, "alive": lambda: Part.alive}[name]

    alive = b"\x8c\x01m\x8c\x05alive\x93)R"
    stream = START + b"(\x8c\x01m\x8c\x04part\x93)R\x940" + b"h\x000" + alive + b"h\x000" + alive + b"t."
    before = Part.alive
    assert loads(stream, Finds) == (before + 1, before)


def test_nothing_is_left_of_what_fails():
    before = Part.alive
    stream = dumps([Part(), [Part()], {"a": Part()}])
    gc.collect()
    assert Part.alive == before
    with pytest.raises(ERRORS):
        loads(stream[:-1] + b"(.")
    with pytest.raises(ERRORS):
        loads_in_parts(stream[:-1])
    assert Part.alive == before


def test_references_are_counted():
    stream = dumps(many_kinds())
    loads(stream)
    objects = None, True, 1, "", (), Record, datetime.datetime, datetime.UTC, np.ndarray
    before = [sys.getrefcount(one) for one in objects]
    for _ in range(200):
        loads(stream)
    for one, count in zip(objects, before, strict=True):
        assert abs(sys.getrefcount(one) - count) < 150, one


def test_tuples_of_atoms_are_nothing_to_search_for_cycles():
    nested = (1, "a", None), (2.5, (3, b"b")), ([], 1), (1,)
    back = loads(dumps(list(nested)))
    assert [gc.is_tracked(one) for one in back] == [False, False, True, False]
    assert not gc.is_tracked(back[1][1])


def test_lists_grow_by_batches():
    """The pickler ends a batch after 65 536 items; another list of the same length may be referred to meanwhile."""
    numbers = list(range(150_000))
    shared = numbers[:70_000]
    shared.append(shared)
    back = loads(dumps([numbers, shared]))
    assert back[0] == numbers
    assert back[1][:-1] == shared[:-1]
    assert back[1][-1] is back[1]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="searches for cycles begin between bytecodes alone since 3.12")
def test_a_list_that_is_emptied_while_it_grows():
    """A search for cycles may begin whenever a list is made, and run anybody's code."""
    items = [None] * 1000
    armed, held = [], []

    def clear(phase, info):
        if armed:
            armed.clear()
            items.clear()

    def make():
        held.extend([] for _ in range(200))  # so that the next list is a new one
        while gc.get_count()[0] < 10:
            held.append([])
        armed.append(1)
        gc.set_threshold(1)
        return items

    class Finds(pickle.Unpickler):
        def find_class(self, module, name):
            return make

    numbers = b"".join(b"K" + bytes([number]) for number in range(20))
    stream = START + b"\x8c\x01m\x8c\x04make\x93)R(" + numbers + b"e."
    before = gc.get_threshold()
    gc.set_threshold(10**6)
    gc.callbacks.append(clear)
    try:
        back = loads(stream, Finds)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(clear)
    assert back is items
    assert back[-20:] == list(range(20))


def test_deep_nesting_takes_no_stack():
    depth = 200_000
    stream = START + b"]" * depth + b"a" * (depth - 1) + b"."
    back = loads(stream)
    for _ in range(depth - 1):
        (back,) = back
    assert back == []


def test_a_handler_of_a_signal_runs_meanwhile():
    reached = []

    class Finds(pickle.Unpickler):
        def find_class(self, module, name):
            return {"signal": _thread.interrupt_main, "reached": reached.append}[name]

    class InterruptionError(Exception):
        pass

    def handler(signum, frame):
        raise InterruptionError

    # Nothing of Python runs after the signal has come.
    stream = START + b"](\x8c\x01m\x8c\x07reached\x93\x940\x8c\x01m\x8c\x06signal\x93"
    stream += dumps(int(signal.SIGUSR2))[2:-1] + b"\x85R" + b"K\x01" * 300_000 + b"h\x00N\x85Re."
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with pytest.raises(InterruptionError):
            loads(stream, Finds)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert not reached


@pytest.mark.parametrize("size", [2**20, 2**18 - 1, 2**18, 2**18 + 1])
def test_long_texts_and_bytes(size):
    value = [b"b" * size, "t" * size, "\u0439" * (size // 2), bytearray(size), 1.5]
    stream = START + b"(" + b"".join([
        b"\x8e" + struct.pack("<Q", size) + value[0], b"\x8d" + struct.pack("<Q", size) + value[1].encode(),
        b"X" + struct.pack("<I", size // 2 * 2) + value[2].encode(), b"\x96" + struct.pack("<Q", size) + value[3],
        dumps(1.5)[2:-1], b"l."[1:].replace(b".", b"t."),
    ])  # fmt: skip
    # None that mfstore's pickler writes into a body.
    assert not unpickler().looks_through([stream]) and not unpickler().begins(stream[:1000])
    assert unpickler().load([stream]) == tuple(value) == loads_in_parts(stream, parts=100_003)
