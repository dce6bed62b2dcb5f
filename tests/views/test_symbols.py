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
from mfstore.pickling.evaluation import Evaluation, copied, slots_of
from mfstore.pickling.streams import finder
from mfstore.pickling.symbols import STATE, Made, Slot, Step, call, read_symbols, symbol
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
from mfstore.views.tensors import sparse_tensor, tensor_of

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
    for _ in range(200_000):
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


SLOT = Slot(0, BUFFER, 0, 4 * 1000)


def storage(held=SLOT, dtype="float32"):
    """As mfstore pickles a typed storage of torch: as one buffer."""
    untyped = Made(call("operator", "methodcaller", "untyped_storage"), (Made(call("functools", "partial"), (held,)),))
    kind = symbol("torch.storage", "TypedStorage")
    state = kind, (), {"wrap_storage": untyped, "dtype": symbol("torch", dtype)}, None
    return Made(Made(symbol("functools", "partial"), (kind,), steps=[Step(STATE, state)]))


def tensor(offset, shape, strides, *more, held=SLOT, name="_rebuild_tensor_v2", dtype="float32"):
    more = more or (False, {})
    return tensor_of(call("torch._utils", name, storage(held, dtype), offset, shape, strides, *more))


def spans(node):
    return [(part.start, part.end) for part in slots_of(node)]


def test_rows_of_a_tensor_are_the_same_over_fewer_bytes():
    found = tensor(40, (20, 10), (10, 1))
    assert (found.dtype.name, found.nbytes, shape_of(found.node)) == ("float32", 800, (20, 10))
    rows = found.rows(5, 8)
    assert spans(rows) == [(4 * 90, 4 * 120)] and spans(found.alone()) == [(160, 960)]
    assert rows.args[1:] == (0, (3, 10), (10, 1), False, {})
    assert slots_of(found.node) == [SLOT] and tensor(0, (100, 10), (10, 1)).alone() is None
    assert tensor(0, (), ()).rows(0, 1) is None and spans(tensor(7, (), ()).alone()) == [(28, 32)]
    across = tensor(3, (10, 20), (1, 10)).rows(5, 8)
    assert spans(across) == [(4 * 8, 4 * (8 + 2 + 190 + 1))] and across.args[1:4] == (0, (3, 20), (1, 10))
    assert spans(found.rows(4, 4)) == [(160, 200)] and tensor(990, (20, 10), (10, 1)).rows(19, 20) is None
    inline = tensor(4, (5, 2), (2, 1), held=bytearray(64)).rows(2, 4)
    assert inline.args[1:4] == (8, (2, 2), (2, 1)) and not slots_of(inline)


def test_what_a_tensor_is_within():
    plain = tensor(40, (20, 10), (10, 1)).node
    parameter = tensor_of(call("torch._utils", "_rebuild_parameter", plain, True, {}))
    assert (parameter.inner, parameter.requires_grad, parameter.attributes) == (plain, True, [])
    assert parameter.alone().function is parameter.node.function and parameter.rows(0, 2).function is plain.function
    for kind, is_cut in (("Tensor", True), ("Masked", False)):
        wrapped = call(
            "torch._tensor", "_rebuild_from_type_v2", plain.function, symbol("torch", kind), plain.args, {"note": "a"}
        )
        found = tensor_of(wrapped)
        assert (found.shape, found.attributes, type_of(wrapped)) == ((20, 10), [{"note": "a"}], f"torch.{kind}")
        assert (found.rows(0, 2) is not None) is is_cut and found.alone().args[3] == {"note": "a"}
        both = tensor_of(call("torch._utils", "_rebuild_parameter_with_state", wrapped, True, {}, {"tag": 1}))
        assert both.attributes == [{"tag": 1}, {"note": "a"}] and (both.rows(0, 2) is not None) is is_cut
        assert spans(both.alone()) == [(160, 960)]


def test_tensors_of_other_types():
    later = tensor(8, (4, 2), (2, 1), False, {}, symbol("torch", "float8_e5m2"), name="_rebuild_tensor_v3")
    assert (later.dtype.name, later.nbytes, spans(later.rows(1, 2)), later.meaning) == (
        "float8_e5m2",
        8,
        [(10, 12)],
        {},
    )
    scheme = symbol("torch", "per_tensor_affine"), 0.5, 0
    each = symbol("torch", "per_channel_affine"), [0.5] * 4, [0] * 4, 0
    for quantiser, expected in ((scheme, [(2, 4)]), (each, None)):
        found = tensor(0, (4, 2), (2, 1), quantiser, True, {}, name="_rebuild_qtensor", dtype="qint8")
        rows = found.rows(1, 2)
        assert (found.nbytes, found.requires_grad, found.meaning) == (8, True, quantiser)
        assert rows is None if expected is None else spans(rows) == expected
    assert tensor(0, (4, 2), (2, 1), dtype="made_up").rows(0, 1) is None
    elsewhere = call("torch.storage", "_load_from_bytes", SLOT)  # as of a device: an archive of torch's own
    assert tensor_of(call("torch._utils", "_rebuild_tensor_v2", elsewhere, 0, (4,), (1,), False, {})).rows(0, 1) is None


def test_sparse_tensors_have_a_shape():
    parts = [tensor(0, (3,), (1,)).node for _ in range(3)]
    layout, size = call("torch.serialization", "_get_layout", "torch.sparse_csc"), call("torch", "Size", (5, 6))
    node = call("torch._utils", "_rebuild_sparse_tensor", layout, (*parts, size))
    assert (kind_of(node), shape_of(node), type_of(node)) == (ARRAY, (5, 6), "torch.Tensor")
    assert list(sparse_tensor(node).parts) == ["ccol_indices", "row_indices", "values"]
    assert sparse_tensor(call("torch._utils", "_rebuild_sparse_tensor", layout, (1, 2))) is None


def test_modules_have_parameters_buffers_and_modules_as_attributes():
    state = {
        "training": True,
        "_parameters": {"w": 1},
        "_buffers": call("collections", "OrderedDict"),
        "_modules": {"0": 2},
    }
    module = Made(symbol("m", "Net"), new=True, steps=[Step(STATE, state)])
    assert (kind_of(module), attributes_of(module)) == (OBJECT, {"w": 1, "0": 2, "training": True})
    for odd in ({"_modules": {"w": 2}}, {"_modules": {7: 2}}, {"_modules": call("m", "Modules")}, {"w": 3}):
        module = Made(symbol("m", "Net"), new=True, steps=[Step(STATE, {**state, **odd})])
        assert attributes_of(module) == {**state, **odd}
