"""Small plain values have the keys that the store's pickler gives them."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mfstore.errors import CorruptObject
from mfstore.format.recipes import LITERAL_LIMIT
from mfstore.metaflow.packed.bundles import Saved, key_of, load, save
from mfstore.metaflow.packed.plain import content_key, load_inline, plain_info, plain_key, plain_pickle
from mfstore.metaflow.roots.packed_keys import INLINE_PREFIX, PackedArtifact, inline_key, inline_pickle

TEXTS = st.text(max_size=3) | st.sampled_from(["a", "b", "x" * 140, "x" * 160, "\ud800"])
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=3)
VALUES = st.recursive(
    ATOMS,
    lambda parts: (
        st.lists(parts, max_size=4)
        | st.dictionaries(TEXTS | st.integers(), parts, max_size=4)
        | st.tuples(parts)
        | st.tuples(parts, parts)
        | st.sets(st.integers(), max_size=2)
    ),
    max_leaves=8,
)


class Text(str):
    __slots__ = ()


def twice(made):
    return [made, made]


@settings(deadline=None, max_examples=300)
@given(VALUES)
@example((["middle"], None))
@example([{"a": [1, 2, {"x": None}]}, ()])
@example(twice([1]))
@example(twice("".join(["a", "b"])))
@example(["".join(["a", "b"]), "".join(["a", "b"])])
@example(twice({}))
@example(Text("a"))
@example(1 << 63)
@example(-(1 << 63))
@example(list(range(40)))
@example([[[[[[]]]]]])
@example(["x" * 160, {"x" * 160: "x" * 160}])
@example(["x" * 1000, "y" * 8, "z" * 160])
@example(list(range(1500)))
@example({number: number for number in range(1200)})
@example([{"name": f"step{number}", "next": [f"step{number + 1}"], "doc": ""} for number in range(40)])
def test_the_key_is_the_one_that_the_store_gives(value):
    key = plain_key(value)
    if key is None:
        pickled = plain_pickle(value)
        assert pickled is None or content_key(pickled) == key_of(value)
        return
    assert key == key_of(value)
    found = load_inline(key)
    assert repr(found) == repr(value) and type(found) is type(value)
    saved = save(_no_store, [("x", value)], {})
    assert saved == {"x": Saved(key, plain_info(value, len(inline_pickle(key)), None))}
    assert [(name, repr(one)) for name, one in load(_no_store, [PackedArtifact("x", key, None)])] == [
        ("x", repr(value))
    ]


def _no_store():
    raise AssertionError("the store is asked for")


@pytest.mark.parametrize(
    "value", [None, True, 7, -(2**40), 1.5, math.inf, "Trivial", [], {}, ["a", "b"], {"a": 1}, (["middle"], None)]
)
def test_what_tasks_save_is_plain(value):
    assert plain_key(value) is not None


@pytest.mark.parametrize("length", [LITERAL_LIMIT - 20, LITERAL_LIMIT - 5, LITERAL_LIMIT, LITERAL_LIMIT + 1, 8000])
def test_the_key_of_a_longer_value_is_the_one_that_the_store_gives(length):
    value = ["x" * length]
    assert content_key(plain_pickle(value)) == key_of(value)


def test_what_contains_itself_or_is_long_is_not():
    loop = []
    loop.append(loop)
    deep = []
    for _ in range(10_000):
        deep = [deep]
    assert plain_pickle(deep) is plain_pickle(loop) is plain_pickle("x" * 10_000) is plain_pickle([0] * 5000) is None
    assert plain_pickle(["x" * 4000, "y" * 5000]) is None
    assert plain_key(deep) is None
    assert plain_key(loop) is plain_key("x" * 200) is plain_key(list(range(200))) is plain_key(Text("a")) is None


def test_a_key_that_holds_no_pickle_is_damage():
    with pytest.raises(CorruptObject):
        load_inline(inline_key(b"\x80\x05no"))
    with pytest.raises(ValueError, match="no pickle lies"):
        load_inline("0" * 64)
    assert inline_key(b"").startswith(INLINE_PREFIX)
