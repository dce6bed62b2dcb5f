"""Arrays of Arrow: what is written of a slice, and that nothing else of an array shows in what is written."""

import copyreg
import pickle
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore.pickling.arrow import ArrowArrays
from mfstore.pickling.streams import dump
from tests.rigs.pickles import dumps
from tests.rigs.soak import lasting

COUNT = 200


class Noted(pa.ExtensionType):
    """A type of an application's own."""

    def __init__(self):
        super().__init__(pa.list_(pa.int64()), "mfstore.tests.noted")

    def __arrow_ext_serialize__(self):
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, stored, serialized):
        return cls()


def numbers(kind):
    return lambda: pa.array(range(COUNT), kind)


def some(kind, item):
    """Of ten values one is missing, the first ones and the last ones are there."""
    return lambda: pa.array([None if at % 10 == 5 else item(at) for at in range(COUNT)], kind)


CUT = {
    "int64": numbers(pa.int64()),
    "float": some(pa.float64(), float),
    "half": lambda: pa.array(np.arange(COUNT, dtype=np.float16)),
    "date": numbers(pa.date32()),
    "time": numbers(pa.timestamp("us", "UTC")),
    "decimal": some(pa.decimal128(30, 2), Decimal),
    "bool": some(pa.bool_(), lambda at: at % 3 == 0),
    "bool, all there": lambda: pa.array([at % 3 == 0 for at in range(COUNT)]),
    "fixed bytes": some(pa.binary(5), lambda at: b"%5d" % at),
    "text": some(pa.string(), lambda at: "é" * (at % 7)),
    "large text": some(pa.large_string(), str),
    "bytes": some(pa.binary(), lambda at: b"x" * at),
    "list": some(pa.list_(pa.string()), lambda at: [str(at), None] * (at % 3)),
    "large list": some(pa.large_list(pa.bool_()), lambda at: [True, False, None][: at % 4]),
    "list of lists": some(pa.list_(pa.list_(pa.int16())), lambda at: [[at], [], [1, None]]),
    "fixed list": some(pa.list_(pa.int32(), 3), lambda at: [at, None, 1]),
    "map": some(pa.map_(pa.string(), pa.int64()), lambda at: [(str(at), None), ("b", at)]),
    "struct": some(pa.struct({"a": pa.int64(), "b": pa.list_(pa.string())}), lambda at: {"a": at, "b": None}),
    "dictionary": lambda: some(pa.string(), lambda at: f"word {at % 9}")().dictionary_encode(),
    "dictionary of structs": lambda: pa.DictionaryArray.from_arrays(
        pa.array([at % 5 for at in range(COUNT)], pa.int8()), pa.array([{"a": at} for at in range(5)])
    ),
    "uuid": lambda: pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([b"%16d" % at for at in range(COUNT)], pa.binary(16))
    ),
    "of an application": lambda: pa.ExtensionArray.from_storage(Noted(), pa.array([[at, 1] for at in range(COUNT)])),
}
COPIED = {
    "union": lambda: pa.UnionArray.from_sparse(
        pa.array([0, 1] * (COUNT // 2), pa.int8()), [numbers(pa.int64())(), numbers(pa.float64())()]
    ),
    "runs": lambda: pa.RunEndEncodedArray.from_arrays(pa.array(range(1, COUNT + 1), pa.int32()), numbers(pa.int64())()),
    "views": some(pa.string_view(), lambda at: f"a text that is longer than a view {at}"),
    "views of lists": some(pa.list_view(pa.int64()), lambda at: [at]),
    "struct of views": some(
        pa.struct({"a": pa.string_view()}), lambda at: {"a": f"no longer than this is a view {at}"}
    ),
    "nothing": lambda: pa.nulls(COUNT),
}
ALL = CUT | COPIED
KINDS = {name: made() for name, made in ALL.items()}
"""One of each, of which no test asks anything but for slices."""


def fresh(array):
    """An equal array that is nobody's slice."""
    if isinstance(array, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(pa.array(array.indices.to_pylist(), array.indices.type), array.dictionary)
    if isinstance(array, pa.ExtensionArray):
        return pa.ExtensionArray.from_storage(array.type, pa.array(array.storage.to_pylist(), array.type.storage_type))
    return pa.array(array.to_pylist(), array.type)


spans = st.tuples(st.integers(0, COUNT), st.integers(0, COUNT))


@settings(max_examples=lasting(300))
@given(st.sampled_from(list(ALL)), spans, spans)
def test_a_slice_comes_back(kind, span, again):
    array = KINDS[kind].slice(*span).slice(*again)
    back = pickle.loads(dumps(array))
    back.validate(full=True)
    assert back.type == array.type
    assert back.equals(array)
    assert dumps(back) == dumps(array)


@settings(max_examples=lasting(150))
@given(st.sampled_from(list(CUT)), spans)
def test_a_slice_is_written_as_an_equal_array_that_is_none(kind, span):
    array = KINDS[kind].slice(*span)
    assert dumps(array) == dumps(fresh(array))


@pytest.mark.parametrize("kind", CUT)
def test_an_array_that_is_no_slice_is_written_as_arrow_says(kind):
    array = CUT[kind]()

    class AsArrow:
        def __reduce_ex__(self, protocol):
            return array.__reduce_ex__(protocol)

    assert dumps([array, 1]) == dumps([AsArrow(), 1])


@pytest.mark.parametrize("kind", COPIED)
def test_what_is_not_cut_is_copied_without_the_rest(kind):
    assert len(dumps(KINDS[kind].slice(3, 10))) <= len(dumps(COPIED[kind]().slice(0, 10))) + 8
    assert kind in ("nothing", "views", "struct of views") or len(dumps(KINDS[kind].slice(3, 10))) < 600


@pytest.mark.parametrize("kind", ALL)
def test_what_was_asked_before_changes_nothing(kind):
    """How many values are missing is counted when somebody asks."""
    for array in (ALL[kind](), ALL[kind]().slice(3, 100)):
        before = dumps(array)
        assert array.null_count >= 0
        assert dumps(array) == before


def test_what_was_asked_of_a_result_changes_nothing():
    for array in (pc.take(CUT["int64"](), pa.array([5, None])), pc.filter(CUT["text"](), pc.is_valid(CUT["text"]()))):
        before = dumps(array)
        assert array.null_count >= 0
        assert dumps(array) == before


def test_bits_that_say_that_all_is_there_are_not_written():
    array = pa.Array.from_buffers(pa.int64(), 8, [pa.py_buffer(b"\xff"), pa.py_buffer(bytes(64))])
    assert dumps(array) == dumps(pa.array([0] * 8))


def test_what_lies_behind_the_last_value_is_not_written():
    bits, data = pa.py_buffer(b"\xfd\xff\xff"), pa.py_buffer(b"abcdef")
    array = pa.Array.from_buffers(pa.int8(), 3, [bits, data])
    assert array.null_count == 1
    assert dumps(array) == dumps(pa.Array.from_buffers(pa.int8(), 3, [pa.py_buffer(b"\x05"), pa.py_buffer(b"abc")]))


def test_of_the_words_of_a_dictionary_only_those_that_it_has_are_written():
    words = pa.array([f"word {at}" for at in range(COUNT)])
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), words.slice(5, 3))
    assert dumps(array) == dumps(pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), pa.array(words[5:8].to_pylist())))


@pytest.mark.parametrize(
    ("starts", "texts"),
    [((2, 3, 5), b"??abc"), ((0, 1, 3), b"abc??"), ((0, 1, 3, 3), b"abc"), ((1, 2, 4, 9), b"?abc?????")],
)
def test_texts_that_share_their_memory_are_written_without_what_is_not_theirs(starts, texts):
    buffers = [None, pa.py_buffer(np.array(starts, np.int32)), pa.py_buffer(texts)]
    array = pa.Array.from_buffers(pa.string(), 2, buffers)
    assert array.to_pylist() == ["a", "bc"]
    assert dumps(array) == dumps(pa.array(["a", "bc"]))


def test_tables_and_batches_are_written_without_the_rest():
    table = pa.table({kind: KINDS[kind] for kind in ("int64", "text", "list", "dictionary")})
    batch = table.to_batches()[0]
    for part in (table.slice(5, 9), batch.slice(5, 9), table["text"].slice(5, 9)):
        assert len(dumps(part)) < len(dumps(table)) / 4
        back = pickle.loads(dumps(part))
        back.validate(full=True)
        assert back.equals(part)


def test_numbers_and_texts_of_a_slice_are_not_copied():
    large = pa.array(["x" * 1000] * 10_000)
    before, most = pa.total_allocated_bytes(), []

    class Nowhere:
        def body(self, block):
            pass

        def payload(self, kind, data, itemsize, row, at):
            most.append(pa.total_allocated_bytes() - before)

    dump(large.slice(5000, 4000), Nowhere())
    assert len(most) == 1
    assert most[0] < 100_000


def test_a_class_that_says_how_it_is_pickled_is_asked(monkeypatch):
    array = CUT["of an application"]()
    kind = type(array)
    monkeypatch.setitem(copyreg.dispatch_table, kind, lambda array: (len, (["registered"] * 3,)))
    assert pickle.loads(dumps(array)) == 3
    monkeypatch.delitem(copyreg.dispatch_table, kind)
    assert pickle.loads(dumps(array)).equals(array)

    class Own(Noted):
        def __arrow_ext_class__(self):
            return OwnArray

    class OwnArray(pa.ExtensionArray):
        def __reduce__(self):
            return len, (["own"] * 7,)

    assert pickle.loads(dumps(pa.ExtensionArray.from_storage(Own(), array.storage))) == 7


def test_a_release_that_says_more_is_not_read():
    class Later:
        def __reduce__(self):
            return len, (("type", 1, 0, 0, [], [], None, "more"),)

    class Lib:
        Array = Later

        def __getattr__(self, name):
            return getattr(pa.lib, name)

    assert ArrowArrays(Lib())(Later()) is NotImplemented
