"""A segment's codec is chosen by a trial on a sample, and a chunk that does not shrink is stored raw."""

import numpy as np
import pytest

from mfstore import errors
from mfstore._core.codec import LZ4, NONE, ZSTD, Codec
from mfstore.saving import codecs
from mfstore.saving.codecs import RAW_CHOICE, Choice, choose, encode_chunk, shuffle_widths
from tests.rigs.parts import noise


@pytest.fixture
def codec():
    return Codec(errors)


@pytest.mark.parametrize(
    ("itemsize", "widths"),
    [(0, (2, 4, 8)), (1, (4, 8)), (2, (2,)), (3, ()), (4, (4,)), (8, (8,)), (12, (4,)), (16, (8,))],
)
def test_the_widths_that_suit_an_element(itemsize, widths):
    assert shuffle_widths(itemsize) == widths


def test_noise_stays_raw(codec):
    assert choose(codec, noise(1, 1 << 20), 1) == RAW_CHOICE


def test_integers_that_grow_slowly_are_shuffled(codec):
    data = np.arange(100_000, dtype="<i8").tobytes()
    choice = choose(codec, data, 8)
    assert choice.codec in (LZ4, ZSTD)
    assert choice.width == 8


def test_what_is_short_or_not_to_be_compressed_is_not_tried(codec):
    assert choose(codec, bytes(63), 1) == RAW_CHOICE
    assert choose(codec, bytes(1 << 20), 1, compress=False) == RAW_CHOICE


def test_the_sample_is_spread_over_the_segment(codec):
    """The first 64 KiB are noise, the rest is zeros: the head alone would say that it does not shrink."""
    head = noise(1, codecs.SAMPLE)
    assert choose(codec, head, 1) == RAW_CHOICE
    assert choose(codec, head + bytes(15 * codecs.SAMPLE), 1) != RAW_CHOICE


def test_a_chunk_that_does_not_shrink_refers_to_the_memory_it_was_given(codec):
    view = memoryview(bytearray(noise(1, 10_000)))
    encoded = encode_chunk(codec, view, Choice(ZSTD, 0))
    assert encoded == (view, NONE, 0)
    assert encoded.data is view


@pytest.mark.parametrize("choice", [Choice(ZSTD, 0), Choice(LZ4, 0), Choice(ZSTD, 8)])
def test_an_encoded_chunk_decodes_to_itself(codec, choice):
    data = np.arange(5000, dtype="<i8").tobytes()
    encoded = encode_chunk(codec, memoryview(data), choice)
    assert (encoded.codec, encoded.width) == (choice.codec, choice.width)
    assert len(encoded.data) < len(data)
    target = bytearray(len(data))
    codec.decode(encoded.data, target, [(0, len(encoded.data), encoded.codec, encoded.width, 0, len(data))])
    assert target == data
