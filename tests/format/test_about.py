"""Descriptions of recipes, and notes."""

import enum
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfstore.errors import CorruptObject, InvalidNote
from mfstore.format.about import (
    NOTE_LIMIT,
    Made,
    begin_about,
    decode_about,
    encode_about,
    encode_note,
    time_of,
    with_note,
)

MADE = Made("ann@host", "3.12.1", "0.2.0", {"numpy": "2.1"}, 1700000000.123)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**1000), 2**1000) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text("abc", max_size=3), plain, max_size=4))
def test_a_note_is_what_json_reads(note):
    assert json.loads(encode_note(note)) == note


def test_types_note_and_record():
    note = encode_note({"auc": 0.5})
    about = decode_about(encode_about(["int", "str"], note, MADE), 2)
    assert about == (("int", "str"), {"auc": 0.5}, MADE)
    assert decode_about(encode_about(["int"]), 1) == (("int",), None, None)
    assert begin_about(["int"], note, MADE) + time_of(MADE.time) == encode_about(["int"], note, MADE)
    assert begin_about(["int"], note, None) + b"}" == encode_about(["int"], note)


def test_another_note_leaves_what_a_newer_version_wrote():
    stored = b'{"types":["int"],"later":[1],"made":{"by":"x","also":2}}'
    again = json.loads(with_note(stored, b'{"a":1}'))
    assert again == {"types": ["int"], "later": [1], "made": {"by": "x", "also": 2}, "note": {"a": 1}}
    timed = b'{"types":["int"],"note":{"a":1},"made":{"time":1.500}}'
    assert with_note(timed, b'{"a":1}') == timed
    assert with_note(timed, b'{"a":true}') != timed
    assert decode_about(stored, 1).made == ("x", "", "", {}, 0.0)


class Colour(enum.StrEnum):
    RED = "red"


def test_values_that_stand_for_plain_ones():
    note = {
        "f32": np.float32(0.5), "f64": np.float64(0.25), "int": np.int64(3), "bool": np.bool_(True),
        "zero": np.array(2.0), "tuple": (1, 2), "enum": Colour.RED,
    }  # fmt: skip
    assert json.loads(encode_note(note)) == {
        "f32": 0.5, "f64": 0.25, "int": 3, "bool": True, "zero": 2.0, "tuple": [1, 2], "enum": "red",
    }  # fmt: skip


def deep():
    found = []
    for _ in range(100):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("note", "named"),
    [
        ({"loss": math.nan}, r"note\['loss'\] is not finite"),
        ({"a": [1, {"b": math.inf}]}, r"note\['a'\]\[1\]\['b'\] is not finite"),
        ({"a": [1, {"b": np.float32("nan")}]}, r"note\['a'\]\[1\]\['b'\] is not finite"),
        ({"a": {3: 4}}, r"note\['a'\] has a key that is no text"),
        ({"x": {1, 2}}, r"note\['x'\] is nothing that JSON can say.*found set"),
        ({"x": np.ones(2)}, r"note\['x'\] is nothing that JSON can say.*found ndarray"),
        ({"x": b"1"}, r"note\['x'\] is nothing"),
        ({"x": "\ud800"}, r"note\['x'\] holds a text that is not valid Unicode"),
        ({"x": 1 << 2000}, r"note\['x'\] is a number"),
        ({"x": "y" * NOTE_LIMIT}, "too long"),
        ({"x": deep()}, "too deep"),
        ([("a", 1)], "a note is a dict"),
        ("tag", "a note is a dict"),
    ],
    ids=str,
)
def test_what_is_no_note_is_refused_by_its_place(note, named):
    with pytest.raises(InvalidNote, match=named):
        encode_note(note)


@pytest.mark.parametrize(
    "stored",
    [
        b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"types":["int","int"]}', b'{"types":[1]}', b'{"types":"int"}',
        b'{"types":["int"],"note":[]}', b'{"types":["int"],"note":3}', b'{"types":["int"],"made":3}',
        b'{"types":["int"],"made":{"by":3}}', b'{"types":["int"],"made":{"libraries":[]}}',
        b'{"types":["int"],"made":{"libraries":{"a":1}}}', b'{"types":["int"],"made":{"time":"now"}}',
        b'{"types":["int"],"made":{"time":NaN}}', b'{"types":["int"],"made":{"time":true}}',
    ],
)  # fmt: skip
def test_what_is_no_description(stored):
    with pytest.raises(CorruptObject):
        decode_about(stored, 1)
