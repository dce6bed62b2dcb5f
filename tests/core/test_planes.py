"""Exponent planes against an oracle in Python, and what the decoder does with bytes that are none."""

import heapq
import itertools
import random
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mfstore import errors
from mfstore._core.codec import PLANES, ZSTD, Codec
from mfstore.errors import CorruptObject
from tests.rigs import one_chunk
from tests.rigs.parts import noise

WIDTHS = (2, 4, 8)


def encode(data, width, keep=2.0):
    return one_chunk.encode(data, PLANES, width, 0, keep)


def decode(encoded, width, size):
    return one_chunk.decode(encoded, PLANES, width, size)


def oracle_decode(encoded, width, size):
    """What docs/format.md says, one number at a time. Only Zstandard is the library's."""
    count, tail = divmod(size, width)
    lengths = struct.unpack_from(f"<{width}I", encoded)
    at, planes = 4 * width, []
    for length in lengths:
        plane = bytearray(encoded[at : at + length])
        if length != count:
            plane = bytearray(count)
            Codec(errors).decode(encoded[at : at + length], plane, [(0, length, ZSTD, 0, 0, count)])
        planes.append(plane)
        at += length
    assert at + tail == len(encoded)
    bits = 8 * width
    out = bytearray()
    for parts in zip(*planes, strict=True):
        turned = int.from_bytes(bytes(parts), "big")
        out += (turned >> 1 | (turned & 1) << (bits - 1)).to_bytes(width, "little")
    return bytes(out) + encoded[at:]


def oracle_plane(data, width, number):
    """The plane ``number`` of numbers turned left by a bit, the highest first."""
    bits = 8 * width
    numbers = [int.from_bytes(data[at : at + width], "little") for at in range(0, len(data) // width * width, width)]
    turned = [(value << 1 | value >> (bits - 1)) & ((1 << bits) - 1) for value in numbers]
    return bytes([value >> (bits - 8 * (number + 1)) & 0xFF for value in turned])


def weights(dtype, count=20_000):
    values = np.random.default_rng(7).standard_normal(count) * 0.02
    if dtype == "bfloat16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype(dtype).tobytes()


@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.integers(0, 5000).map(lambda size: bytes(size)),
        st.tuples(st.integers(0, 3), st.integers(0, 4000)).map(lambda drawn: noise(*drawn)),
    ),
    width=st.sampled_from(WIDTHS),
)
@example(data=b"", width=2)
@example(data=weights("<f4", 1001) + b"xyz", width=4)
@example(data=weights("bfloat16", 999), width=2)
@example(data=weights("<f8", 500) + b"1234567", width=8)
@example(data=weights("<f4", 5001) + b"xyz", width=4)
@example(data=weights("bfloat16", 70_001), width=2)
@example(data=weights("<f8", 2000) + b"1234567", width=8)
def test_planes_are_what_the_oracle_decodes(data, width):
    if not data:
        assert decode(bytes(4 * width), width, 0) == b""
        return
    encoded = encode(data, width, keep=40.0)
    assert oracle_decode(encoded, width, len(data)) == data
    assert decode(encoded, width, len(data)) == data


@pytest.mark.parametrize("width", WIDTHS)
def test_noise_lies_in_its_planes_as_it_is(width):
    data = noise(3, 8 * 1000)
    encoded = encode(data, width)
    count = len(data) // width
    assert struct.unpack_from(f"<{width}I", encoded) == (count,) * width
    assert encoded[4 * width :] == b"".join(oracle_plane(data, width, number) for number in range(width))


@pytest.mark.parametrize(
    ("dtype", "width", "left"), [("<f4", 4, 0.85), ("<f2", 2, 0.87), ("bfloat16", 2, 0.69), ("<f8", 8, 0.90)]
)
def test_of_floats_the_exponents_shrink(dtype, width, left):
    """Smaller than shuffle and Zstandard of level 1, which gives all planes the same Huffman code."""
    data = weights(dtype, (64 << 10) // width)
    encoded = encode(data, width)
    assert decode(encoded, width, len(data)) == data
    assert len(encoded) <= left * len(data)
    _, sizes = Codec(errors).encode(data, [len(data)], ZSTD, width, 1, 1.0)
    assert len(encoded) < 0.99 * (sizes[0] or len(data))


def with_high_bytes(high):
    """Numbers of 2 bytes whose planes are ``high`` and zeros."""
    return (np.frombuffer(bytes(high), "u1").astype("<u2") << 7).tobytes()


def planes_of(encoded, width):
    """The encoded planes."""
    ends = np.cumsum((4 * width, *struct.unpack_from(f"<{width}I", encoded)))
    return [encoded[start:end] for start, end in itertools.pairwise(ends)]


def bits_of(counts):
    """What Huffman codes of any length take for values that come so often."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    bits = 0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        heapq.heappush(heap, both)
        bits += both
    return bits


@given(
    counts=st.lists(st.one_of(st.just(0), st.integers(1, 2000)), min_size=1, max_size=256).filter(any),
    first=st.integers(0, 255),
    seed=st.integers(0, 9),
)
@example(counts=[0] * 200 + [1] * 55, first=200, seed=0)
@example(counts=[700, 1] * 2, first=254, seed=0)
@example(counts=[min(2 ** max(0, place - 4), 30_000) for place in range(20)], first=120, seed=0)
@example(counts=[900, 901] + [1] * 254, first=0, seed=0)
def test_planes_in_no_order_take_what_their_counts_say(counts, first, seed):
    """As Huffman codes, of 11 bits at most. Zstandard decodes them, as the oracle has it."""
    high = [(first + value) % 256 for value, count in enumerate(counts) for _ in range(count)]
    random.Random(seed).shuffle(high)
    data = with_high_bytes(high)
    encoded = encode(data, 2, keep=40.0)
    plane, zeros = planes_of(encoded, 2)
    assert decode(encoded, 2, len(data)) == oracle_decode(encoded, 2, len(data)) == data
    assert len(zeros) <= 24 or len(high) < 64
    if len(high) >= 1024:
        assert len(plane) <= min(len(high), 1.01 * bits_of(counts) / 8 + 160)


@pytest.mark.parametrize("count", [1024, 65_791, 65_792, 131_072, 131_073])
def test_lengths_of_planes_have_several_forms(count):
    """Of the length of the plane, and of its literals."""
    high = noise(1, count).translate(bytes(value.bit_count() ** 2 for value in range(256)))
    data = with_high_bytes(high)
    encoded = encode(data, 2)
    plane, zeros = planes_of(encoded, 2)
    assert 8 * len(plane) < 3 * count and len(zeros) <= 26
    assert decode(encoded, 2, len(data)) == data
    for part, expected in ((plane, high), (zeros, bytes(count))):
        alone = bytearray(count)
        Codec(errors).decode(part, alone, [(0, len(part), ZSTD, 0, 0, count)])
        assert alone == expected


def test_planes_that_repeat_are_searched_for_matches():
    """So are those of noise that comes again soon."""
    high = noise(2, 100) * 100
    assert len(planes_of(encode(with_high_bytes(high), 2), 2)[0]) < 500


def test_of_long_planes_a_sample_says_whether_what_is_found_again_pays():
    """Of two values in no order everything is found again soon, for more than the bit that each takes otherwise."""
    count = 40_000
    high = bytes(np.random.default_rng(1).integers(0, 2, count, dtype=np.uint8))
    (plane, *_) = planes_of(encode(with_high_bytes(high), 2), 2)
    assert len(plane) < count // 8 + 50
    assert len(one_chunk.encode(high, ZSTD, 0, 1, 1.0)) > 1.2 * len(plane)
    for again in (noise(2, 100) * 400, high[:100] * 400):
        assert len(planes_of(encode(with_high_bytes(again), 2), 2)[0]) < 800


def packaged(counts, longest):
    """What Huffman codes of at most ``longest`` bits take for values that come so often: by packages and merging."""
    leaves = sorted((count, (value,)) for value, count in enumerate(counts) if count)
    level: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(longest):
        pairs = zip(level[::2], level[1::2], strict=False)
        level = sorted(leaves + [(one[0] + other[0], one[1] + other[1]) for one, other in pairs])
    return sum(counts[value] for _, values in level[: 2 * len(leaves) - 2] for value in values)


@pytest.mark.parametrize("fades", [0.05, 0.3, 0.6])
def test_codes_that_are_cut_short_take_next_to_no_more_than_they_have_to(fades):
    """Of exponents that get rarer and rarer Huffman codes have up to 15 bits. Ours have 11 at most."""
    high = np.minimum(np.random.default_rng(3).geometric(fades, 32_768), 255).astype("u1")
    (plane, *_) = planes_of(encode(with_high_bytes(high.tobytes()), 2), 2)
    least = packaged(np.bincount(high).tolist(), 11) / 8
    assert least <= len(plane) <= 1.0003 * least + 100


def in_a_pickle(count):
    """Arrays of 100 numbers, with a header before each."""
    header, body = bytes(range(40, 76)), weights("<f4", 100 * count)
    return b"".join(header + body[400 * number : 400 * (number + 1)] for number in range(count))


def test_planes_that_are_all_searched_find_headers_between_numbers():
    data = in_a_pickle(150)
    searched, sizes = Codec(errors).encode(data, [len(data)], PLANES, 4, 1, 1.0)
    assert sizes[0] < 0.95 * len(encode(data, 4))
    assert decode(searched, 4, len(data)) == data


def test_what_does_not_fit_is_left_to_be_stored_raw():
    data = weights("<f4")
    size = len(encode(data, 4))
    for keep, fits in ((size / len(data), True), ((size - 1) / len(data), False), (0.5, False), (0.0001, False)):
        _, sizes = Codec(errors).encode(data, [len(data)], PLANES, 4, 0, keep)
        assert sizes == [size if fits else 0]


def test_a_trial_gives_up_what_takes_more_than_it_may():
    data, codec = weights("<f4"), Codec(errors)
    plain, planes, narrow = codec.trial(data, [(ZSTD, 0, 1), (PLANES, 4, 0), (PLANES, 2, 0)])
    assert planes < narrow < plain
    share = (planes + 1) / plain
    assert codec.trial(data, [(ZSTD, 0, 1), (PLANES, 4, 0), (PLANES, 2, 0)], share) == [plain, planes, len(data)]


@pytest.mark.parametrize("width", [0, 1, 3, 16, 255])
def test_other_widths_are_refused(width):
    with pytest.raises(CorruptObject, match="width"):
        decode(bytes(1000), width, 1000)
    with pytest.raises(CorruptObject, match="width"):
        encode(bytes(1000), width)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_truncation_and_longer_or_shorter_claims_are_refused(width):
    data = weights("<f4", 600) + b"z"
    encoded = encode(data, width)
    for size in range(len(encoded)):
        with pytest.raises(CorruptObject):
            decode(encoded[:size], width, len(data))
    with pytest.raises(CorruptObject):
        decode(encoded + b"x", width, len(data))
    for wrong in (-width, -1, 1, width, 1000):
        with pytest.raises(CorruptObject):
            decode(encoded, width, len(data) + wrong)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_flipped_bit_is_refused_or_decodes_within_its_memory(width):
    """What decodes to something else is caught by the chunk's id. The bytes beside the target are not touched."""
    data = weights("<f4", 150) + b"z"
    encoded = encode(data, width)
    codec = Codec(errors)
    for bit in range(8 * len(encoded)):
        flipped = bytearray(encoded)
        flipped[bit // 8] ^= 1 << bit % 8
        around = bytearray(b"\xa5" * (len(data) + 64))
        try:
            codec.decode(flipped, around, [(0, len(flipped), PLANES, width, 32, len(data))])
        except CorruptObject:
            pass
        assert around[:32] == around[-32:] == b"\xa5" * 32
    assert decode(encoded, width, len(data)) == data


def test_lengths_that_are_too_much_are_refused():
    data = weights("<f4", 600)
    encoded = encode(data, 4)
    rng = random.Random(5)
    for number in range(4):
        for length in (0, 599, 601, 1 << 31, (1 << 32) - 1, rng.randrange(1 << 32)):
            wrong = bytearray(encoded)
            struct.pack_into("<I", wrong, 4 * number, length)
            with pytest.raises(CorruptObject):
                decode(wrong, 4, len(data))
