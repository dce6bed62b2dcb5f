"""The short way to the usual small artifact gives what the long one gives, or nothing."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfstore import errors
from mfstore._core.codec import Codec
from mfstore.format import recipes
from mfstore.format.about import encode_about
from mfstore.format.digests import BLAKE3, SHA256, digest_function
from mfstore.format.recipes import BUNDLE, ONE, PICKLE, RAW, Artifact

CODEC = Codec(errors)


def recipe(literal, kind=ONE, encoding=PICKLE, algorithm=BLAKE3, name=""):
    """Key and recipe of one literal."""
    content = recipes.encode_content(kind, algorithm, [Artifact(name, encoding, len(literal), literal)])
    parts = recipes.encode(algorithm, content, encode_about(["int"]), [], [], [], CODEC)
    return digest_function(algorithm)(content).hex(), b"".join(parts)


@given(st.binary(max_size=recipes.LITERAL_LIMIT), st.sampled_from([BLAKE3, SHA256]))
def test_it_gives_the_literal(literal, algorithm):
    key, data = recipe(literal, algorithm=algorithm)
    assert recipes.literal_of(data, key) == literal
    assert recipes.decode(data, CODEC, bytes.fromhex(key)).artifacts[0].literal == literal
    assert recipes.literal_of(data, "0" * 64) is None


@pytest.mark.parametrize("other", [{"kind": BUNDLE, "name": "a"}, {"encoding": RAW}])
def test_of_anything_else_it_gives_nothing(other):
    key, data = recipe(b"literal", **other)
    assert recipes.literal_of(data, key) is None
    assert recipes.decode(data, CODEC, bytes.fromhex(key)).artifacts[0].literal == b"literal"


@given(st.binary(max_size=recipes.LITERAL_LIMIT), st.sampled_from([PICKLE, RAW]), st.text(max_size=20))
def test_it_is_written_as_the_long_way_writes_it(literal, encoding, name):
    content = recipes.encode_content(ONE, SHA256, [Artifact("", encoding, len(literal), literal)])
    assert recipes.literal_content(SHA256, encoding, literal) == content
    (long, tables) = recipes.encode(SHA256, content, encode_about([name]), [], [], [], CODEC)
    nonce = long[48:56]
    assert recipes.encode_literal(SHA256, content, encode_about([name]), nonce) == long + tables


def test_what_would_be_compressed_is_left_to_the_long_way():
    content = recipes.literal_content(BLAKE3, PICKLE, bytes(1000))
    for length in (100, 3050, 3051, 3052, 3053, 3054, 5000):
        flags = recipes.encode(BLAKE3, content, encode_about(["x" * length]), [], [], [], CODEC)[0][5]
        assert (recipes.encode_literal(BLAKE3, content, encode_about(["x" * length]), bytes(8)) is None) == bool(flags)


def test_no_damage_changes_what_it_gives():
    literal = pickle.dumps([1, "two", 3.0], 5)
    key, data = recipe(literal)
    for at in range(len(data)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[at] ^= change
            assert recipes.literal_of(bytes(damaged), key) in (None, literal)
        assert recipes.literal_of(data[:at], key) in (None, literal)
    for at in (4, 5, 6, 8, recipes.HEADER.size, recipes.HEADER.size + 32):
        damaged = bytearray(data)
        damaged[at] ^= 0x02
        assert recipes.literal_of(bytes(damaged), key) is None


def test_small_literals_are_not_compressed():
    """Or they would have to be decoded before they can be loaded."""
    _, data = recipe(bytes(recipes.LITERAL_LIMIT))
    assert data[5] == 0
