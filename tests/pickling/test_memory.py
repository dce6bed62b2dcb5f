"""What pickling holds beside the object: of what reducers make, no more than one part at a time."""

import array
import gc
import io
import itertools
import pickle
import tracemalloc
import weakref
from collections import OrderedDict, deque
from decimal import Decimal
from functools import partial
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow
import pytest
import scipy.sparse

from mfstore._core.graph import counts_references
from mfstore.errors import NotSerializable
from mfstore.pickling.streams import dump
from tests.rigs.pickles import dumps

PART = 256 << 10
PARTS = 32
BESIDE = 4 << 20
"""Bytes that pickling takes for itself: two blocks of the body, tables, the list of a part of an array of objects."""
KEPT = 8 << 20
"""Bytes of texts and bytes that only the pickler holds, to compare others with. Of what is more it holds digests."""
WORDS = np.array([f"word {number}" for number in range(1000)], object)


class Nowhere:
    """A sink that keeps nothing, but asks for each part of what it is given, and for what Arrow holds meanwhile."""

    def __init__(self):
        self.arrow = 0

    def body(self, block):
        assert block

    def payload(self, kind, data, itemsize, row, at):
        self.arrow = max(self.arrow, pyarrow.total_allocated_bytes())
        if not hasattr(data, "read"):
            assert memoryview(data).nbytes
            return
        for start in range(0, data.nbytes, PART):
            assert data.read(start, min(start + PART, data.nbytes))


class Copies:
    """What it holds, pickled as a copy that ``made`` makes."""

    def __init__(self, held, made):
        self.held, self.made = held, made

    def __getstate__(self):
        return {"held": self.made(self.held)}


class Calls:
    """What it holds, pickled as the argument of a call, as blocks of a frame are."""

    def __init__(self, held):
        self.held = held

    def __reduce_ex__(self, protocol):
        return list, ((pickle.PickleBuffer(bytes(self.held)),),)


class Slots:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


SERIAL = itertools.count()


def numbers(count):
    """No two of them are equal: of equal texts and bytes only the first is written."""
    return np.arange(count, dtype=np.int64) + (next(SERIAL) << 32)


def objects(count):
    return WORDS[np.arange(count) % len(WORDS)]


def chunked(chunk):
    """A column of two Arrow chunks, which pandas joins to pickle it."""
    return pd.DataFrame({"a": pd.Series(pd.arrays.ArrowExtensionArray(pyarrow.chunked_array([chunk, chunk])))})


def coordinates():
    count = PART // 24
    return scipy.sparse.coo_array((numbers(count) * 1.0, (numbers(count) % 999, numbers(count) % 1000)))


def of_polars():
    polars = pytest.importorskip("polars")  # 50 MB: in no extra of the tests
    return polars.DataFrame({"a": numbers(PART // 16), "b": numbers(PART // 16)})


KINDS = {
    "strided": lambda: numbers(PART // 4)[::2],
    "transposed and strided": lambda: numbers(PART // 4).reshape(-1, 8)[::2].T,
    "padded": lambda: np.zeros(PART // 16, np.dtype([("a", "i8"), ("b", "i4")], align=True)),
    "bfloat16": lambda: numbers(PART // 4).view(ml_dtypes.bfloat16)[::2],
    "objects": lambda: objects(PART // 4),
    "objects by column": lambda: objects(PART // 4).reshape(-1, 8).T,
    "texts of numpy": lambda: objects(PART // 32).astype(np.dtypes.StringDType()),
    "BytesIO": lambda: io.BytesIO(numbers(PART // 8).tobytes()),
    "a copy in a bytearray": lambda: Copies(numbers(PART // 8), lambda held: bytearray(held)),
    "a copy of an array": lambda: Copies(numbers(PART // 8), np.copy),
    "a copy in a list": lambda: Copies(numbers(PART // 32), lambda held: held.tolist()),
    "a copy in dicts": lambda: Copies(range(PART // 256), lambda held: [{"a": (number, [])} for number in held]),
    "a copy within a copy": lambda: Copies(numbers(PART // 8), lambda held: (Copies(held, np.copy), {1: held.copy()})),
    "a buffer in a call": lambda: Calls(numbers(PART // 8)),
    "slots": lambda: [Slots((number, 1)) for number in range(PART // 256)],
    "deque": lambda: deque(range(PART // 8)),
    "ordered dict": lambda: OrderedDict.fromkeys(range(PART // 64)),
    "frame": lambda: pd.DataFrame(numbers(PART // 8).reshape(-1, 8)),
    "frame of every other row": lambda: pd.DataFrame(numbers(PART // 4).reshape(-1, 8)).iloc[::2],
    "frame of many columns": lambda: pd.DataFrame({str(at): numbers(PART // 512) for at in range(64)}),
    "frame of objects": lambda: pd.DataFrame({"a": pd.Series(objects(PART // 8), dtype=object)}),
    "frame of two chunks": lambda: chunked(pyarrow.array(numbers(PART // 16))),
    "frame of two chunks of text": lambda: chunked(pyarrow.array(objects(PART // 16))),
    "table": lambda: pyarrow.table({"a": numbers(PART // 16), "b": objects(PART // 16)}),
    "slice of a table": lambda: pyarrow.table({"a": numbers(PART // 8), "b": objects(PART // 8)}).slice(9, PART // 16),
    "slice of views": lambda: pyarrow.array(objects(PART // 8), pyarrow.string_view()).slice(9, PART // 32),
    "sparse": coordinates,
    "sparse rows": lambda: coordinates().tocsr(),
    "nested": lambda: {"a": [numbers(PART // 4)[::2]], "b": (Copies(numbers(PART // 8), np.copy), [bytearray(99)])},
}

BY_VALUE = {
    "masked": lambda: np.ma.masked_array(numbers(PART // 8), False),
    "records": lambda: numbers(PART // 8).view([("a", "i8"), ("b", "i8")]).view(np.recarray),
    "matrix": lambda: numbers(PART // 8).reshape(-1, 8).view(np.matrix),
    "array.array": lambda: array.array("q", numbers(PART // 8).tobytes()),
    "a copy in bytes": lambda: Copies(numbers(PART // 8), lambda held: held.tobytes()),
    "a copy in text": lambda: Copies(numbers(PART // 8).tobytes(), lambda held: held.decode("latin-1")),
    "polars": of_polars,
}
"""What comes as texts and bytes, which are known again by their content."""


def peak_of(obj):
    """Bytes that were held at once beside the object, as Python, numpy and Arrow account for them."""
    sink, before = Nowhere(), pyarrow.total_allocated_bytes()
    tracemalloc.start()
    try:
        dump(obj, sink)
        return tracemalloc.get_traced_memory()[1] + max(0, sink.arrow - before)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_parts_one_is_held_at_a_time(kind):
    one, many = KINDS[kind](), [KINDS[kind]() for _ in range(PARTS)]
    dump(one, Nowhere())  # what is made once for each class
    assert peak_of(many) <= peak_of(one) + BESIDE


@pytest.mark.parametrize("kind", BY_VALUE)
def test_of_texts_and_bytes_few_are_held(kind):
    one, many = BY_VALUE[kind](), [BY_VALUE[kind]() for _ in range(3 * PARTS)]
    dump(one, Nowhere())
    assert peak_of(many) <= peak_of(one) + BESIDE + KEPT


@pytest.mark.parametrize("form", [np.ndarray.tobytes, lambda held: held.tobytes().decode("latin-1")])
def test_what_is_no_longer_held_is_known_again(form):
    first, second = numbers(PART // 8), numbers(PART // 8)
    others = [Copies(numbers(PART // 8), form) for _ in range(KEPT // PART)]
    again = [Copies(first, form), Copies(second, form), *others, Copies(first, form), Copies(second, form)]
    assert len(dumps(again)) - len(dumps(again[:-2])) < 100
    for before, after in zip(again, pickle.loads(dumps(again)), strict=True):
        assert after.held == form(before.held)


@pytest.mark.parametrize(
    "array",
    [
        objects(9),
        objects(8).reshape(2, 4).T,
        objects(24).reshape(2, 3, 4)[:, ::2],
        objects(24).reshape(2, 3, 4).transpose(1, 0, 2),
        np.array("a", object),
        np.empty((0, 3), object),
        np.array([["a", None], [[1, 2], np.arange(3)]], object),
        np.zeros((2, 2), [("a", object), ("b", "i4", 2)], order="F"),
        np.array(["a", "b" * 99], np.dtypes.StringDType()),
        np.array(["a", None], np.dtypes.StringDType(na_object=None)),
        objects(65536),
        objects(65537),
        objects(2 * 65536 + 1),
    ],
)
def test_arrays_of_objects_are_pickled_as_numpy_does_it(array):
    class AsNumpy:
        def __reduce_ex__(self, protocol):
            return array.__reduce_ex__(protocol)

    assert dumps([array, 1]) == dumps([AsNumpy(), 1])


@pytest.mark.parametrize("count", [0, 1, 2, 65535, 65536, 65537, 131072])
def test_items_of_subclasses_of_lists_and_dicts(count):
    for obj in (deque(range(count)), OrderedDict.fromkeys(range(count))):
        assert pickle.loads(dumps(obj)) == obj


def test_what_a_weak_reference_finds_again_is_shared():
    alive = weakref.WeakValueDictionary()

    class Finds:
        def __reduce_ex__(self, protocol):
            thing = alive.setdefault(1, Found())
            return list, ([thing],)

    one, other = pickle.loads(dumps([Finds(), Finds()]))
    assert one[0] is other[0]


def test_the_state_is_set_of_what_a_reducer_has_made():
    """The object is written once, and not once more for what sets its state."""
    found = pickle.loads(dumps(Copies(None, lambda held: [SetsState(), SetsState()])))
    assert [vars(one) for one in found.held] == [{"state": {"a": 1}}] * 2


def test_the_state_is_set_of_a_value():
    found = pickle.loads(dumps(ValueWithState("1.5")))
    assert (found, found.state) == (Decimal("1.5"), 7)


class ValueWithState(Decimal):
    __slots__ = ("state",)

    def __reduce_ex__(self, protocol):
        return ValueWithState, (str(self),), 7, None, None, set_state


class SetsState:
    def __reduce_ex__(self, protocol):
        return SetsState, (), {"a": 1}, None, None, set_state


def set_state(obj, state):
    obj.state = state


@pytest.mark.parametrize("keep", [list, weakref.WeakSet])
def test_what_lets_itself_be_found_while_it_is_asked_is_shared(keep):
    """By counted references, or by weak ones, of which there are none before."""
    registry = keep()

    class Registers(Found):
        def __reduce_ex__(self, protocol):
            (registry.append if keep is list else registry.add)(self)
            return list, ()

    def found(held):
        return next(iter(registry), None) or Registers()

    one, other = pickle.loads(dumps([Copies(None, found), Copies(None, found)]))
    assert one.held is other.held


def test_what_some_library_may_find_again_is_remembered():
    """Objects of classes in C whose module is not known, and of classes that come from one of these."""

    class Mixed(scipy.sparse.csr_array, partial):
        pass

    assert counts_references(scipy.sparse.csr_array, {"builtins"})
    assert not counts_references(partial, {"builtins"})
    assert not counts_references(Mixed, {"builtins"})
    assert counts_references(Mixed, {"builtins", "functools"})
    assert not counts_references(type(iter([])), {"builtins"})  # says so, and is not there


def test_an_object_that_its_state_leads_back_to_is_one():
    one = Leads()
    back = pickle.loads(dumps(Copies(one, lambda held: [Leads(), held])))
    for found in back.held:
        assert found.back.back is found


class Found:
    pass


class Leads:
    """Its state, made anew, leads back to it."""

    def __getstate__(self):
        back = Found()
        back.back = self
        return {"back": back}


def test_arguments_may_be_of_a_subclass_of_tuple():
    class Called:
        def __reduce_ex__(self, protocol):
            return complex, Pair(1.0, 2.0)

    assert pickle.loads(dumps(Called())) == 1 + 2j


class Pair(NamedTuple):
    real: float
    imaginary: float


def test_a_failure_leaves_nothing_behind():
    made = []

    def copy(held):
        if len(made) == 3:
            raise ValueError("no more")
        made.append(weakref.ref(found := held.copy()))
        return found

    with pytest.raises(NotSerializable):
        dump([Copies(numbers(PART // 8), copy) for _ in range(4)], Nowhere())
    gc.collect()
    assert [found() for found in made] == [None] * 3
