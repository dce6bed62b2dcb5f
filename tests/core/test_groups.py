"""Groups: several chunks in one Zstandard frame, taken out of it in any combination; and frames that are no groups."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore import errors
from mfstore._core.codec import FAR, FIVES, GROUP, GROUP_LIMIT, QUICK, ZSTD, Codec
from mfstore.errors import CorruptObject
from tests.rigs import one_chunk
from tests.rigs.parts import noise

CODEC = Codec(errors)
WORDS = b"".join(b"row %d of a table, %d\n" % (number, number * number % 977) for number in range(40_000))


def frame(length, *blocks, window=None):
    """A Zstandard frame of raw blocks that says it has ``length`` bytes (None: that it does not say), by RFC 8878."""
    single, sized = window is None, length is not None
    out = struct.pack("<IB", 0xFD2FB528, (2 << 6 if sized else 0) | (1 << 5 if single else 0))
    if not single:
        out += bytes([(window - 10) << 3])
    if sized:
        out += struct.pack("<I", length)
    for number, block in enumerate(blocks):
        out += struct.pack("<I", len(block) << 3 | (number == len(blocks) - 1))[:3] + block
    return out


def taken(encoded, *parts):
    """These parts ``(start, length)``, each into memory of its own."""
    targets = [bytearray(length) for _, length in parts]
    CODEC.decode_group(encoded, [(start, target) for (start, _), target in zip(parts, targets, strict=True)])
    return [bytes(target) for target in targets]


def test_a_group_is_one_zstandard_frame_that_says_its_length():
    ends = [70_000, 130_001, 300_000]
    encoded, sizes = CODEC.encode_group(WORDS[:300_000], ends, 3, 0.9)
    assert sum(sizes) == len(encoded) < 300_000 // 3
    assert all(sizes)
    assert one_chunk.decode(encoded, ZSTD, 0, 300_000) == WORDS[:300_000]
    descriptor = encoded[4]
    assert descriptor >> 6 == 2 and descriptor & 32  # four bytes of content size, one segment
    assert struct.unpack_from("<I", encoded, 5) == (300_000,)


@pytest.mark.parametrize(("level", "like"), [(QUICK, 1), (FAR, 3)])
def test_two_of_our_levels_are_what_zstandard_does_of_long_inputs(level, like):
    """Of short ones too, where its own tables are smaller, so that a sample tells of what it is a sample of."""
    whole = [CODEC.trial(WORDS, [(ZSTD, 0, one)])[0] for one in (level, like)]
    assert whole[0] == pytest.approx(whole[1], rel=0.01)


@pytest.mark.parametrize("level", [QUICK, FIVES, FAR])
def test_our_levels_make_ordinary_frames_and_leave_nothing_behind(level):
    codec = Codec(errors)
    before = codec.trial(WORDS, [(ZSTD, 0, 3)])
    encoded, (size,) = codec.encode(WORDS, [len(WORDS)], ZSTD, 0, level, 0.9)
    assert one_chunk.decode(encoded, ZSTD, 0, len(WORDS)) == WORDS
    assert codec.trial(WORDS, [(ZSTD, 0, level), (ZSTD, 0, 3)]) == [size, *before]


@settings(max_examples=60)
@given(
    pieces=st.lists(st.tuples(st.integers(1, 3000), st.booleans()), min_size=1, max_size=9),
    chosen=st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=12),
    level=st.sampled_from([1, 3, 6, QUICK, FIVES, FAR]),
)
def test_any_parts_of_any_group(pieces, chosen, level):
    plain = b"".join(noise(length, length) if noisy else WORDS[:length] for length, noisy in pieces)
    ends = np.cumsum([length for length, _ in pieces]).tolist()
    encoded, sizes = CODEC.encode_group(plain, ends, level, 99.0)
    assert len(sizes) == len(ends) and sum(sizes) == len(encoded)
    wanted = sorted(
        (start, length - cut)
        for number, half in chosen if number < len(ends)
        for start, length in [(ends[number] - pieces[number][0], pieces[number][0])]
        for cut in [length // 2 if half else 0]
    )  # fmt: skip
    assert taken(encoded, *wanted) == [plain[start : start + length] for start, length in wanted]
    whole = bytearray(len(plain) + 20)
    view = memoryview(whole)
    starts = [0, *ends[:-1]]
    CODEC.decode_group(encoded, [(start, view[10 + start : 10 + end]) for start, end in zip(starts, ends, strict=True)])
    assert whole == bytes(10) + plain + bytes(10)
    for start, end in zip(starts, ends, strict=True):
        assert one_chunk.decode(encoded, GROUP, start, end - start) == plain[start:end]


def test_parts_that_overlap_or_are_the_same():
    plain = WORDS[:9000]
    encoded, _ = CODEC.encode_group(plain, [3000, 9000], 3, 0.9)
    parts = [(0, 3000), (0, 3000), (100, 20), (110, 20), (110, 20), (8999, 1)]
    assert taken(encoded, *parts) == [plain[start : start + length] for start, length in parts]


def test_what_is_behind_the_last_part_is_not_looked_at():
    plain = noise(1, 300_000)
    encoded, sizes = CODEC.encode_group(plain, [100_000, 200_000, 300_000], 3, 2.0)
    cut = encoded[: sizes[0] + sizes[1]]
    assert taken(cut, (0, 100_000), (100_000, 50_000)) == [plain[:100_000], plain[100_000:150_000]]
    with pytest.raises(CorruptObject):
        taken(cut, (200_000, 100_000))


def test_a_group_that_does_not_shrink_is_none():
    encoded, _ = CODEC.encode_group(noise(2, 5000), [2000, 5000], 3, 0.95)
    assert encoded == b""
    encoded, _ = CODEC.encode_group(noise(3, 200_000), [5000, 200_000], 3, 0.95)
    assert encoded == b""


def test_bytes_that_are_spread_otherwise_begin_a_block():
    """Eight KiB each of another sixteen values: a table of codes for all of them takes six bits of each."""
    rng = np.random.default_rng(3)
    parts = [rng.integers(16 * kind, 16 * kind + 16, 8 << 10, dtype="u1").tobytes() for kind in (0, 3, 7, 9) * 4]
    plain = b"".join(parts)
    ends = [64 << 10, len(plain)]
    encoded, _ = CODEC.encode_group(plain, ends, 3, 0.95)
    _, (alone,) = CODEC.encode(plain, [len(plain)], ZSTD, 0, 3, 0.95)
    assert len(encoded) < 0.53 * len(plain) < 0.7 * len(plain) < alone
    # Where they are spread evenly there is none.
    even = rng.integers(0, 16, len(plain), dtype="u1").tobytes()
    encoded, _ = CODEC.encode_group(even, [len(even)], 3, 0.95)
    _, (alone,) = CODEC.encode(even, [len(even)], ZSTD, 0, 3, 0.95)
    assert len(encoded) <= alone + 3


@pytest.mark.parametrize("ends", [[], [10], [10, 10, 20], [20, 10], [10, 30]])
def test_ends_that_make_no_sense(ends):
    with pytest.raises(ValueError, match=r"ascend|ends with"):
        CODEC.encode_group(bytes(20), ends, 3, 0.9)


def test_a_group_has_a_longest():
    longest = bytes(GROUP_LIMIT)
    encoded, _ = CODEC.encode_group(longest, [5, GROUP_LIMIT], 3, 0.9)
    assert taken(encoded, (GROUP_LIMIT - 1, 1)) == [b"\0"]
    with pytest.raises(ValueError, match="limit"):
        CODEC.encode_group(bytes(GROUP_LIMIT + 1), [GROUP_LIMIT + 1], 3, 0.9)
    target = bytearray(10)
    more, sizes = CODEC.encode(bytes(GROUP_LIMIT + 1), [GROUP_LIMIT + 1], ZSTD, 0, 3, 0.9)
    assert sizes[0]
    with pytest.raises(CorruptObject):
        CODEC.decode_group(more, [(0, target)])


def test_frames_that_are_no_groups():
    good = frame(9, b"one ", b"two ", b"3")
    assert taken(good, (4, 5)) == [b"two 3"]
    assert taken(frame(9, b"one ", b"two ", b"3", window=21), (0, 4), (4, 4)) == [b"one ", b"two "]
    bad = {
        "does not say its length": frame(None, b"one ", b"two ", b"3", window=10),
        "needs a window of 4 MiB": frame(9, b"one ", b"two ", b"3", window=22),
        "says it is longer than any": frame(GROUP_LIMIT + 1, b"one two 3"),
        "is none": b"no frame at all",
        "is empty": b"",
    }
    for what, encoded in bad.items():
        with pytest.raises(CorruptObject):
            taken(encoded, (0, 4), (4, 4))
            pytest.fail(what)
    for start, length in ((0, 10), (9, 1), (2**24 - 1, 1)):
        with pytest.raises(CorruptObject, match="fewer bytes"):
            taken(good, (start, length))


def test_frames_that_end_before_what_they_say():
    short = frame(20, b"one ", b"two ")
    for parts in ([(0, 20)], [(0, 4), (4, 16)], [(4, 10)]):
        with pytest.raises(CorruptObject):
            taken(short, *parts)


def test_every_bit_of_a_group_turned_never_writes_beyond_its_targets():
    plain = WORDS[:700]
    encoded, _ = CODEC.encode_group(plain, [300, 700], 3, 0.9)
    for bit in range(8 * len(encoded)):
        broken = bytearray(encoded)
        broken[bit // 8] ^= 1 << bit % 8
        around = bytearray(b"\x55" * 500)
        targets = [(10, memoryview(around)[50:150]), (400, memoryview(around)[250:450])]
        try:
            CODEC.decode_group(broken, targets)
        except CorruptObject:
            pass
        assert around[:50] == b"\x55" * 50 and around[150:250] == b"\x55" * 100 and around[450:] == b"\x55" * 50
