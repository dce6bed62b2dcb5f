"""Pickles that would have numpy, pandas or Arrow touch memory that is not theirs, or take any amount of it: refused."""

import collections
import copyreg
import pickle
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mfstore._core.pickler import BUFFER
from mfstore.allow import Allow
from mfstore.errors import CorruptObject, UnsafeObject
from mfstore.format.recipes import Segment
from mfstore.pickling.safe.loading import load

FROM_BUFFER = np.empty(1).__reduce_ex__(5)[0]
EMPTY, (KIND, _, CODE) = np.empty(1, object).__reduce__()[:2]
OBJECTS, INTEGERS = np.dtype(object), np.dtype("i8")


class Call:
    """Pickles as a call of a function, after which its state is set."""

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self):
        return (self.function, self.args) if self.state is None else (self.function, self.args, self.state)


def made(value, allow=None):
    return load(allow or Allow(), [value if isinstance(value, bytes) else pickle.dumps(value, 4)], (), ())


def array(shape=None, dtype=None, items=None):
    return Call(EMPTY, np.ndarray, (0,), b"b", state=shape and (1, shape, dtype, False, items))


def range_of(start, stop):
    return Call(INDEX, pd.RangeIndex, {"start": start, "stop": stop, "step": 1})


INDEX = pd.RangeIndex(1).__reduce__()[0]
BLOCK = pd.DataFrame({"a": [1]})._mgr.blocks[0].__reduce__()[0]
INTERVALS = pd.IntervalIndex.from_breaks([0, 1]).__reduce__()[0]


class Frame:
    """Pickles as a frame of these blocks."""

    def __init__(self, blocks, *axes):
        self.blocks, self.axes = blocks, axes

    def __reduce__(self):
        manager = Call(pd.DataFrame()._mgr.__reduce__()[0], tuple(self.blocks), list(self.axes))
        return copyreg.__newobj__, (pd.DataFrame,), {"_mgr": manager, "_typ": "dataframe"}

    __class__ = pd.DataFrame  # what the pickler compares


def test_an_array_does_not_get_a_state_twice():
    # numpy frees what it had, also where another array looks at it.
    first = pickle.dumps(array((2,), INTEGERS, bytes(16)), 2)[:-1]
    second = pickle.dumps((1, (1,), OBJECTS, False, [None]), 2)[2:-1]
    assert (made(first + b".") == 0).all()
    with pytest.raises(CorruptObject, match="twice"):
        made(first + second + b"b.")


def test_what_an_array_will_be_is_not_looked_at_before_it_is_that():
    inner = array()
    words = pd.Categorical(["a"])
    build, (kind, checksum, _), _ = words.__reduce__()
    codes = Call(build, kind, checksum, None, state=(words.dtype, inner))
    inner.state = (1, (2,), OBJECTS, False, [codes, 1 << 40])
    with pytest.raises(CorruptObject, match="refers to itself"):
        made(inner)
    # In a tuple that is there by the time.
    inner.state = (1, (3,), OBJECTS, False, [codes.state, codes, 1 << 40])
    with pytest.raises(CorruptObject, match="refers to itself"):
        made(inner)


def test_an_array_within_itself_loads():
    value = np.empty(3, object)
    value[:] = [value, [value], pd.Timestamp("2020-01-01")]
    found = made(value)
    assert found[0] is found and found[1][0] is found and found[2] == value[2]


def test_memory_is_of_one():
    objects = np.array(["a", 1], object)
    with pytest.raises(CorruptObject, match="no bytes"):
        made(Call(FROM_BUFFER, objects, INTEGERS, (2,), "C"))
    writable = bytearray(16)
    numbers = Call(FROM_BUFFER, writable, INTEGERS, (2,), "C")
    assert (made(pickle.dumps([numbers], 5))[0] == 0).all()
    for other in (writable, Call(pa.py_buffer, writable), Call(FROM_BUFFER, writable, INTEGERS, (2,), "C")):
        with pytest.raises(CorruptObject, match="shares memory"):
            made(pickle.dumps([numbers, other], 5))
    # A segment, of which a memo makes two.
    body = b"\x80\x05(" + b"\x8e" + (8).to_bytes(8, "little") + b"\x94"
    kind = pickle.dumps(np.dtype("i8"), 2)[2:-1]
    call = f"c{FROM_BUFFER.__module__}\n_frombuffer\n(".encode() + b"%s" + kind + b"K\x01\x85X\x01\x00\x00\x00CtR"
    body += call % b"h\x00" + call % b"h\x00" + b"l."
    with pytest.raises(CorruptObject, match="shares memory"):
        load(
            Allow(),
            [body],
            [Segment(kind=BUFFER, at=12, length=8, itemsize=8, row=0, chunks=1)],
            iter([memoryview(bytearray(8))]),
        )


@pytest.mark.parametrize("codes", [[-100], [128], [0, 1], [0, 0], [True], ["a"]])
@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_codes_of_a_union_are_within(codes, kind):
    fields = [pa.field("a", pa.int8())]
    with pytest.raises(CorruptObject, match="its codes"):
        made(Call(pa.union, fields, kind, codes))
    with pytest.raises(CorruptObject, match="its codes"):
        made(Call(getattr(pa, f"{kind}_union"), fields, codes))
    assert made(pa.union(fields, kind, [5])).type_codes == [5]


@pytest.mark.parametrize(
    "value",
    [
        Call(pa.lib.binary, -5),
        Call(np.dtype, np.record, False, True, state=(3, "|", (OBJECTS, (2,)), None, None, 16, 8, 63)),
        Frame([Call(BLOCK, np.zeros((1 << 30, 0)), slice(0, 1 << 30, 1), 2)], range_of(0, 1 << 30), range_of(0, 0)),
        Frame([Call(BLOCK, np.zeros((1, 0)), slice(0, 1 << 30, 1), 2)], range_of(0, 1), range_of(0, 0)),
        Call(INTERVALS, pd.IntervalIndex, {"left": range_of(0, 1 << 40), "right": range_of(1, (1 << 40) + 1), "closed": "left"}),
        Call(INDEX, pd.MultiIndex, {"levels": [range_of(0, 1 << 40)], "codes": [np.zeros(1, "i1")]}),
        Call(INDEX, pd.Index, {"data": np.arange(2), "dtype": "category"}),
        b"\x80\x04\x95" + b"\xff" * 7 + b"\x3fN.",  # a frame of the pickle
        b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00a\x98.",  # a buffer made read-only
    ],
    ids=lambda value: getattr(getattr(value, "function", None), "__name__", type(value).__name__),
)  # fmt: skip
def test_it_is_refused_before_it_takes_memory(value):
    with pytest.raises(CorruptObject):
        made(value)


def test_what_data_is_called_with_is_looked_at_in_every_way_to_call_it():
    for function, args in [
        (copyreg.__newobj__, (np.memmap, "x")), (copyreg.__newobj__, (np.ndarray, (1,), "O")),
        (copyreg._reconstructor, (np.ndarray, object, None)), (np.ndarray, ((1,), "O", b"12345678")),
    ]:  # fmt: skip
        pickled = pickle.dumps(Call(print, *args), 2).replace(
            b"__builtin__\nprint", f"{function.__module__}\n{function.__name__}".encode()
        )
        with pytest.raises(UnsafeObject, match="is not called"):
            made(pickled)
        # It is not for anybody to list either.
        with pytest.raises(UnsafeObject, match="is not called"):
            made(pickled, Allow(np.ndarray, np.memmap))


def test_what_mfstore_makes_itself_it_makes_so_though_it_is_listed():
    frame = pd.DataFrame({"a": [1, 2]})
    assert made(frame, Allow(pd.DataFrame, "numpy.dtype")).equals(frame)
    wrong = Frame([Call(BLOCK, np.zeros((1, 2)), np.array([7]), 2)], range_of(0, 1), range_of(0, 2))
    with pytest.raises(CorruptObject, match="its columns"):
        made(wrong, Allow(pd.DataFrame))


def test_attributes_of_containers_are_told():
    ordered = collections.OrderedDict(a=1)
    ordered.more = 2
    assert made(ordered) == ordered and made(ordered).more == 2
    ordered.move_to_end = 3
    with pytest.raises(CorruptObject, match="an attribute that is a method"):
        made(ordered)
    with pytest.raises(UnsafeObject, match="deque that has attributes"):
        made(pickle.dumps(collections.deque([1]), 2)[:-1] + b"}X\x01\x00\x00\x00aK\x01sb.")


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_many_of_old_protocols_stay_many(protocol):
    for values in ([uuid.UUID(int=number) for number in range(50)], [pd.Series([number]) for number in range(5)]):
        found = made(pickle.dumps(values, protocol))
        assert list(map(str, found)) == list(map(str, values))


def arrow(value, **changes):
    """An array as Arrow pickles it, with parts of that changed."""
    build, (parts,) = value.__reduce__()
    names = "kind", "length", "missing", "offset", "buffers", "children", "words"
    return Call(build, tuple((dict(zip(names, parts, strict=True)) | changes).values()))


NOTHING = pa.py_buffer(b"")
LISTS = pa.array([[1], [2, 3]])
VIEWS = pa.array(["x", None, "a text that is long enough"], pa.string_view())
BLOCKS = pa.ExtensionArray.from_storage(
    pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2]], pa.list_(pa.int8(), 2))
)
UNION = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
WILD = pa.py_buffer(b"\xff" * 48)


@pytest.mark.parametrize(
    "value",
    [
        arrow(UNION, buffers=[WILD, UNION.buffers()[1]]), arrow(UNION, buffers=[None, None]), arrow(UNION, buffers=[]),
        arrow(UNION, buffers=[None, NOTHING]), arrow(UNION, length=1 << 40), arrow(VIEWS, buffers=[None, None]),
        arrow(VIEWS, buffers=[None, NOTHING]), arrow(VIEWS, buffers=[VIEWS.buffers()[0], WILD]), arrow(VIEWS, offset=7),
        arrow(BLOCKS, offset=7), arrow(BLOCKS, offset=1 << 53), arrow(LISTS, kind=pa.list_(pa.string())),
        arrow(LISTS, children=[pa.array([[1]]).__reduce__()[1][0]]), arrow(LISTS, children=[]), arrow(LISTS, buffers=[None, WILD]),
    ],
    ids=lambda value: str(value.args[0][0]),
)  # fmt: skip
def test_arrays_of_arrow_are_looked_at_before_arrow_relies_on_them(value):
    # Arrow itself ends the process over most of these, or reads wherever they say.
    with pytest.raises((CorruptObject, pa.ArrowInvalid, ValueError)):
        made(value)


def test_arrays_of_arrow_that_have_no_items_begin_nowhere():
    assert made(arrow(LISTS, length=0, buffers=[None, WILD])).flatten().to_pylist() == []
    assert (
        made(arrow(pa.array(["a"]), length=0, buffers=[None, WILD, NOTHING])).cast(pa.large_string()).to_pylist() == []
    )
    for value in (LISTS, VIEWS, UNION, BLOCKS, pa.array(["a", "b"]), pa.array([1, None]), pa.nulls(3)):
        for part in (value.slice(0, 0), value.slice(1, 0), value.slice(1)):
            assert made(part).equals(part)


def test_types_of_arrow_are_not_nested_without_end():
    deep = shared = pa.int8()
    for _ in range(120):
        deep = pa.list_(deep)
    for _ in range(20):
        shared = Call(pa.struct, [Call(pa.field, "a", shared), Call(pa.field, "b", shared)])
    for kind in (deep, shared):
        with pytest.raises(CorruptObject, match="nested too deeply"):
            made(kind)
