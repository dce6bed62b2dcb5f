"""What a pickle would make, as symbols, and evaluated: the same as unpickling it."""

import collections
import datetime
import decimal
import fractions
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore._core.pickler import BUFFER
from mfstore.pickling.streams import finder
from mfstore.views.data import (
    ARRAY,
    MAPPING,
    OBJECT,
    SEQUENCE,
    VALUE,
    attributes_of,
    entries_of,
    kind_of,
    shape_of,
    type_of,
)
from mfstore.views.evaluation import Evaluation, copied, slots_of
from mfstore.views.symbols import STATE, Made, Slot, Step, call, read_symbols, symbol
from mfstore.views.tensors import tensor_of

CREATED = []


class Counted:
    """Notes each object that is made of it."""

    def __new__(cls, *args):
        CREATED.append(args)
        return super().__new__(cls)

    def __init__(self, *args):
        self.args = args


class Slotted:
    __slots__ = ("a", "b")


class Stateful:
    def __setstate__(self, state):
        self.got = state


class Named(collections.namedtuple("Named", "x y")):
    __slots__ = ()


class Items(list):
    pass


class Odd(dict):
    def __reduce__(self):
        return Odd, (), {"note": 1}, iter([1, 2]), iter([("k", "v")])

    def extend(self, items):
        self.extended = items


def symbols_of(obj, protocol=5):
    return read_symbols([pickle.dumps(obj, protocol)], ())


def evaluated(root):
    return Evaluation(finder(pickle.Unpickler), lambda slot: None).of(root)


def again(obj):
    return evaluated(symbols_of(obj))


plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4) | st.binary(max_size=4)
)
hashable = plain | st.dates() | st.decimals(allow_nan=False) | st.tuples(st.dates(), plain)
trees = st.recursive(
    hashable | st.frozensets(hashable, max_size=3) | st.builds(bytearray, st.binary(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(hashable, inner, max_size=3),
        st.builds(Items, st.lists(inner, max_size=2)), st.builds(collections.deque, st.lists(inner, max_size=2)),
        st.builds(collections.OrderedDict, st.dictionaries(plain, inner, max_size=2)), st.sets(hashable, max_size=2),
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(trees)
def test_what_is_evaluated_is_what_unpickling_makes(obj):
    shared = [obj, obj]
    found, expected = again(shared), pickle.loads(pickle.dumps(shared, 5))
    assert found == expected and type(found[0]) is type(obj)
    assert (found[0] is found[1]) == (expected[0] is expected[1])


@pytest.mark.parametrize("obj", [
    int, len, ..., NotImplemented, range(3), 1 + 2j, slice(1, 2), datetime.UTC, fractions.Fraction(1, 3),
    decimal.Decimal("1.5"), collections.Counter("aab"), collections.defaultdict(list, {1: [2]}), Named(1, [2]),
    datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
])  # fmt: skip
def test_objects_of_the_standard_library(obj):
    assert again(obj) == obj and type(again(obj)) is type(obj)


def test_states_are_set_as_pickle_does():
    slotted, stateful = Slotted(), Stateful()
    slotted.a = [1]
    stateful.__dict__["x"] = 5
    found = again([slotted, stateful, Odd()])
    assert found[0].a == [1] and not hasattr(found[0], "b")
    assert found[1].got == {"x": 5}
    assert found[2] == {"k": "v"} and (found[2].note, found[2].extended) == (1, [1, 2])


def test_what_holds_itself_is_made():
    holder, ordered, counted = [], collections.OrderedDict(), Counted()
    pair = (holder, ordered, counted)
    holder.append(pair)
    ordered["me"] = ordered
    counted.me = counted
    found = again(pair)
    assert found[0][0] is found and found[1]["me"] is found[1] and found[2].me is found[2]


def test_depth_is_not_limited_by_the_stack_of_python():
    deep = []
    for _ in range(5000):
        deep = [deep]
    body = b"\x80\x05" + b"]" * 5001 + b"a" * 5000 + b"."
    found, depth = evaluated(read_symbols([body], ())), 0
    while found:
        (found,) = found
        depth += 1
    assert depth == 5000


def test_nothing_is_made_before_it_is_evaluated():
    body = {"one": Counted(1), "two": [Counted(2)], "three": 3}
    data = pickle.dumps(body)
    CREATED.clear()
    root = read_symbols([data], ())
    assert root["three"] == 3 and type(root["two"][0]) is Made and not CREATED
    evaluated(root["one"])
    assert len(CREATED) == 1


def test_what_is_plain_is_copied_at_once():
    shared = [1]
    root = symbols_of([{"a": shared, "b": shared, "c": bytearray(b"x")}, Counted(1), datetime.date(2026, 1, 1)])
    found = copied(root[0])
    assert found == root[0] and found["a"] is found["b"] is not root[0]["a"] and found["c"] is not root[0]["c"]
    deep = []
    for _ in range(5000):
        deep = [deep]
    assert [copied(one) for one in (root, root[1], 5, [Slot(0, BUFFER, 0, 1)], [root[1].function], deep)] == [None] * 6


def test_a_missing_class_is_met_when_it_is_evaluated():
    data = pickle.dumps([Counted(1), 5]).replace(b"Counted", b"Missing")
    root = read_symbols([data], ())
    assert evaluated(root[1]) == 5 and type_of(root[0]) == f"{__name__}.Missing"
    with pytest.raises(AttributeError, match="Missing"):
        evaluated(root[0])


def test_kinds_and_parts():
    counted = Counted(7)
    root = symbols_of(
        {"o": collections.OrderedDict(a=1), "l": Items([4, 5]), "c": counted, "d": datetime.date(2026, 1, 1)}
    )
    kinds = [kind_of(node) for node in (root, *root.values(), b"x")]
    assert kinds == [MAPPING, MAPPING, SEQUENCE, OBJECT, VALUE, ARRAY]
    assert entries_of(root["o"]) == (["a"], [1]) and entries_of(root["l"]).nodes == [4, 5]
    assert attributes_of(root["c"]) == {"args": (7,)} and slots_of(root) == []
    assert type_of(root["o"]) == "collections.OrderedDict" and type_of(root["d"]) == "datetime.date"


def test_rows_of_a_tensor_are_the_same_over_fewer_bytes():
    """As torch pickles a tensor of a typed storage, which mfstore writes as one buffer."""
    slot = Slot(0, BUFFER, 0, 4 * 1000)
    untyped = Made(call("operator", "methodcaller", "untyped_storage"), (Made(call("functools", "partial"), (slot,)),))
    kind, dtype = symbol("torch.storage", "TypedStorage"), symbol("torch", "float32")
    state = kind, (), {"wrap_storage": untyped, "dtype": dtype}, None
    storage = Made(Made(symbol("functools", "partial"), (kind,), steps=[Step(STATE, state)]))

    def tensor(offset, shape, strides):
        return tensor_of(call("torch._utils", "_rebuild_tensor_v2", storage, offset, shape, strides, False, {}))

    found = tensor(40, (20, 10), (10, 1))
    assert (found.dtype, found.nbytes, shape_of(found.node)) == (dtype, 800, (20, 10))
    rows = found.rows(5, 8)
    assert [(part.start, part.end) for part in slots_of(rows)] == [(4 * 90, 4 * 120)]
    assert rows.args[1:] == (0, (3, 10), (10, 1), False, {})
    assert slots_of(found.node) == [slot]
    assert tensor(0, (10, 20), (1, 10)).rows(5, 8) is None and tensor(0, (), ()).rows(0, 1) is None
    parameter = call("torch._utils", "_rebuild_parameter", found.node, True, {})
    assert tensor_of(parameter) == found
