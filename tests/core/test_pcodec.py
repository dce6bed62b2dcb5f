"""Chunks stored with pcodec: what comes back, what is refused, and what is said where the package is missing."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfstore import errors
from mfstore._core.codec import PCODEC, PCODEC_TYPES, Codec
from mfstore.errors import CorruptObject, Unsupported
from tests.rigs import one_chunk
from tests.rigs.parts import noise

KINDS = sorted(PCODEC_TYPES)


def encode(data, kind, keep=100.0):
    return one_chunk.encode(data, PCODEC, kind, 8, keep)


def decode(encoded, kind, size):
    return one_chunk.decode(encoded, PCODEC, kind, size)


def prices(count=1000):
    return np.round(np.random.default_rng(1).normal(100, 10, count), 2).astype("<f8").tobytes()


def test_the_types_are_numbered_as_the_package_does():
    """The seventh byte of a file without a hint, and of its first chunk, is the type's number."""
    from pcodec import ChunkConfig, standalone

    assert [np.dtype(PCODEC_TYPES[kind]).itemsize for kind in KINDS] == [4, 8, 4, 8, 4, 8, 2, 2, 2]
    for kind in KINDS:
        file = standalone.simple_compress(np.arange(100).astype(PCODEC_TYPES[kind]), ChunkConfig())
        assert decode(file, kind, 100 * np.dtype(PCODEC_TYPES[kind]).itemsize)
        for other in set(KINDS) - {kind}:
            with pytest.raises(CorruptObject):
                decode(file, other, 100 * np.dtype(PCODEC_TYPES[other]).itemsize)


@given(data=st.binary(min_size=1, max_size=200), kind=st.sampled_from(KINDS))
def test_any_bytes_come_back(data, kind):
    """As numbers of any type: NaNs with their payloads and negative zeros too, and what is no whole number."""
    assert decode(encode(data, kind), kind, len(data)) == data


def test_several_chunks_and_other_codecs_in_one_call():
    data, codec = prices() + b"tail", Codec(errors)
    arena, sizes = codec.encode(data, [4000, len(data)], PCODEC, 6, 8, 1.0)
    target = bytearray(len(data) + 5)
    jobs = [(0, sizes[0], PCODEC, 6, 0, 4000), (sizes[0], sizes[1], PCODEC, 6, 4000, len(data) - 4000)]
    codec.decode(bytes(arena) + b"plain", target, [*jobs, (sum(sizes), 5, 0, 0, len(data), 5)])
    assert target == data + b"plain"
    assert sum(sizes) < 0.3 * len(data)
    assert codec.trial(data, [(PCODEC, 6, 8)])[0] < 0.3 * len(data)


def test_what_does_not_shrink_is_left_to_be_stored_raw():
    data = noise(1, 8000)
    assert Codec(errors).encode(data, [8000], PCODEC, 6, 8, 0.95) == (b"", [0])
    assert Codec(errors).trial(data, [(PCODEC, 6, 8)]) == [8000]


def test_every_truncation_and_flip_is_refused_or_stays_within_its_memory():
    data = prices(300) + b"z"
    encoded = encode(data, 6)
    for size in range(len(encoded) - 1):
        with pytest.raises(CorruptObject):
            decode(encoded[:size], 6, len(data))
    codec = Codec(errors)
    for bit in range(8 * len(encoded)):
        flipped = bytearray(encoded)
        flipped[bit // 8] ^= 1 << bit % 8
        around = bytearray(b"\xa5" * (len(data) + 64))
        try:
            codec.decode(flipped, around, [(0, len(flipped), PCODEC, 6, 32, len(data))])
        except CorruptObject:
            assert around == b"\xa5" * len(around)
        assert around[:32] == around[-32:] == b"\xa5" * 32


@pytest.mark.parametrize("wrong", [-8, 8, 8000])
def test_another_length_is_corrupt(wrong):
    data = prices()
    with pytest.raises(CorruptObject):
        decode(encode(data, 6), 6, len(data) + wrong)


@pytest.mark.parametrize("kind", [0, 10, 255])
def test_other_types_are_refused(kind):
    with pytest.raises(CorruptObject, match="number type out of range"):
        decode(encode(prices(), 6), kind, 8000)


def test_without_the_package_its_name_is_told(monkeypatch):
    encoded = encode(prices(), 6)
    monkeypatch.setitem(sys.modules, "pcodec", None)
    with pytest.raises(Unsupported, match=r"pcodec is not installed.*pip install 'mfstore\[pcodec\]'"):
        decode(encoded, 6, 8000)
    with pytest.raises(Unsupported, match="pcodec"):
        encode(prices(), 6)
