"""Graphs of objects whose pickling is subtle: identity, cycles, order, and code that runs meanwhile."""

import pickle
import random

import numpy as np
import pytest

import mfstore
from mfstore.errors import NotSerializable
from tests.rigs.pickles import dumps


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with mfstore.open(tmp_path_factory.mktemp("shared") / "store", fsync="none") as store:
        yield store


class Holder:
    def __init__(self, inner):
        self.inner = inner


class Children(list):
    """A list whose reconstructor takes the object that holds it."""

    def __init__(self, parent):
        self.parent = parent

    def __reduce__(self):
        return Children, (self.parent,), None, iter(self)


def set_value(obj, state):
    obj.value = state


class WithSetter:
    def __reduce__(self):
        return WithSetter, (), self.value, None, None, set_value


class View:
    """Its state is an attribute of another object, to which nothing else holds a counted reference."""

    def __init__(self, of):
        self.of = of

    def __getstate__(self):
        return {"data": self.of.inner}


class Shrinks:
    def __init__(self, holder):
        self.holder = holder

    def __reduce__(self):
        self.holder.pop("a", None)
        self.holder["b"] = 5
        return int, ()


class Node:
    def __init__(self):
        self.near = set()


def test_objects_reached_through_their_own_arguments_are_written_once(shared):
    parent = Holder(None)
    parent.inner = Children(parent)
    parent.inner += [1, 2]
    back = shared.get(shared.put(parent.inner))
    assert list(back) == [1, 2]
    assert back.parent.inner is back


def test_state_setters(shared):
    obj = WithSetter()
    obj.value = [1]
    assert shared.get(shared.put([obj]))[0].value == [1]
    assert shared.get(shared.put([WithSetter.__new__(WithSetter), obj][1:]))[0].value == [1]


def test_sharing_through_getstate_is_kept_whoever_else_holds_a_reference(shared):
    def make():
        holder = Holder([1])
        return [holder, View(holder)]

    one = make()
    key = shared.put(one)
    kept = one[0].inner
    assert shared.put(one) == key
    del kept
    back = shared.get(key)
    assert back[1].data is back[0].inner


def test_mutable_scalars_and_values_with_attributes_are_shared(shared):
    record = np.zeros(2, [("a", "i4")])[0]
    back = shared.get(shared.put([record, record]))
    assert back[0] is back[1]


def test_a_dict_that_changes_while_it_is_pickled_is_refused(store):
    holder = {}
    holder["a"] = Shrinks(holder)
    with pytest.raises(NotSerializable, match="changed"):
        store.put(holder)


def test_graphs_with_sets_of_objects_take_time_in_proportion(shared):
    """Every node in the set of every other: ordering must not pickle the graph once per path through it."""
    nodes = [Node() for _ in range(60)]
    for node in nodes:
        node.near.update(nodes)
    back = shared.get(shared.put(nodes))
    assert all(len(node.near) == 60 and back[0] in node.near for node in back)
    chain = frozenset([1, "a"])
    for _ in range(200):
        chain = frozenset([chain, 2, "b"])
    assert shared.get(shared.put(chain)) == chain


def test_sets_of_objects_have_one_key_whatever_the_hash_seed(python):
    """Elements lie in the order of their own pickles, also those of a set's subclass and inside of other elements."""
    code = (
        "import collections, dataclasses, enum, fractions, ipaddress, mfstore\n"
        "E = enum.Enum('E', 'a b c d e f'); P = collections.namedtuple('P', 'x y')\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class D: x: object\n"
        "class S(set): pass\n"
        "class F(frozenset): pass\n"
        "s = mfstore.open('memory://')\n"
        "names = [str(i) for i in range(9)]\n"
        "values = [{*E}, {P(n, 1) for n in names}, {D(n) for n in names}, {ipaddress.ip_address(i) for i in range(9)},\n"
        "    {(E.a, 'x'), (E.b, 'y'), (E.c, 'z')}, S('abcdef'), F(map(D, names)), {int, str, dict, len, mfstore.open},\n"
        "    {D(frozenset(map(D, names[n:]))) for n in range(7)}, {1, 'a', E.a, D('x'), None, fractions.Fraction(1, 3)}]\n"
        "print(*[s.put(value) for value in values])\n"
    )
    seen = {tuple(python(code, env={"PYTHONHASHSEED": seed}).split()) for seed in ("0", "1", "2")}
    assert len(seen) == 1 and len(set(*seen)) == 10


class Long:
    def __init__(self, text):
        self.text = text


def test_what_cannot_be_ordered_is_stored_all_the_same(shared):
    """Elements that are long, lead back to themselves, lie too deep, or fail when they are pickled by themselves."""
    nodes = [Node(), Node()]
    for node in nodes:
        node.near.update(nodes)
    deep = frozenset([Long("end"), 1])
    for _ in range(30):
        deep = frozenset([Holder(deep), 1])
    for value in ({Long("a" * 20_000), Long("b" * 200_000)}, set(nodes), deep):
        assert len(shared.get(shared.put(value))) == 2
    with pytest.raises(NotSerializable, match=r"\{...\}.inner"):
        shared.put({Holder(i for i in ()), 1})


@pytest.mark.parametrize("value", ["é" * 600_000, "a" * 1_200_000, b"\xe9" * 1_200_000])
def test_long_values_that_are_equal_are_written_once(shared, value):
    again = value[:5] + value[5:]
    other = value[:-1] + value[:1] * 2
    back = shared.get(shared.put([value, again, other]))
    assert back == [value, value, other]
    assert back[0] is back[1]


@pytest.mark.slow
def test_a_large_plain_graph_keeps_its_sharing(shared):
    """Beyond the point where objects reached once are no longer remembered."""
    twice = [1, 2]
    graph = [{"n": [n]} for n in range(300_000)] + [twice, (twice, {"t": twice}), twice]
    graph.append(graph)
    back = shared.get(shared.put(graph))
    assert back[300_000] is back[300_001][0] is back[300_001][1]["t"] is back[300_002]
    assert back[300_003] is back
    assert back[299_999] == {"n": [299_999]}


class Plain:
    pass


class Reduces:
    def __init__(self, a):
        self.a = a

    def __reduce__(self):
        return Reduces, (self.a,), {"x": self.__dict__.get("x")}


class List(list):
    pass


class Dict(dict):
    pass


class Slots:
    __slots__ = ("p", "q")


def build(rng):
    """A random graph with shared parts and cycles."""
    pool = []

    def pick():
        if pool and rng.random() < 0.6:
            return rng.choice(pool)
        return rng.choice([None, 1, "s", f"t{rng.randint(0, 3)}", b"q", 1.5, (1, 2), ()])

    def slots():
        obj = Slots()
        obj.p, obj.q = pick(), pick()
        return obj

    def plain(cls, *args):
        obj = cls(*args)
        obj.x = pick()
        return obj

    makers = [
        lambda: [pick() for _ in range(rng.randint(0, 4))],
        lambda: {rng.choice("abcd"): pick() for _ in range(rng.randint(0, 3))},
        lambda: tuple(pick() for _ in range(rng.randint(0, 5))),
        lambda: plain(Plain),
        lambda: plain(Reduces, pick()),
        lambda: plain(List, [pick(), pick()]),
        lambda: plain(Dict, {"a": pick()}),
        slots,
        lambda: frozenset([rng.randint(0, 3), (1, rng.randint(0, 2))]),
        lambda: bytearray(b"x"),
    ]
    for _ in range(rng.randint(1, 14)):
        pool.append(rng.choice(makers)())
    for _ in range(rng.randint(0, 6)):
        obj = rng.choice(pool)
        if isinstance(obj, list):
            obj.append(pick())
        elif isinstance(obj, dict):
            obj[rng.choice("xyz")] = pick()
        elif isinstance(obj, Plain):
            setattr(obj, rng.choice("uvw"), pick())
        elif isinstance(obj, Slots):
            obj.q = pick()
    return rng.choice([pool[-1], pool, pool[:2], {"r": pool[0], "p": pool[-1]}, (pool[0], pool[-1], pool)])


def shape(root):
    """Types, values, and which positions are the same mutable object."""
    numbers, found = {}, []

    def walk(obj):
        if not isinstance(obj, (tuple, frozenset, str, bytes, int, float, type(None))):
            if id(obj) in numbers:
                found.append(numbers[id(obj)])
                return
            numbers[id(obj)] = len(numbers)
        found.append(type(obj).__name__)
        if isinstance(obj, (list, tuple)):
            found.append(len(obj))
            for item in obj:
                walk(item)
        elif isinstance(obj, dict):
            for key, value in obj.items():
                found.append(key)
                walk(value)
        elif isinstance(obj, Slots):
            walk(obj.p)
            walk(obj.q)
        elif not hasattr(obj, "__dict__"):
            found.append(repr(sorted(obj, key=repr) if isinstance(obj, frozenset) else obj))
        for key, value in getattr(obj, "__dict__", {}).items():
            found.append(key)
            walk(value)

    walk(root)
    return found


def test_identity_is_what_the_standard_pickle_makes_of_it():
    for seed in range(4000):
        obj = build(random.Random(seed))
        ours = dumps(obj)
        back = pickle.loads(ours)
        assert shape(back) == shape(pickle.loads(pickle.dumps(obj, 5))), seed
        assert dumps(back) == ours, seed
