"""Which chunks become deltas, and of which codec: a look at chunk and base, against what encoding them gives."""

import math
import random
import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfstore import errors
from mfstore._core import codec
from tests.rigs.deltas import differences

N = 32_768


def new_codec():
    return codec.Codec(errors)


def numbers(seed, spread=1.0):
    chooser = random.Random(seed)
    return [chooser.gauss(0, spread) for _ in range(N // 8)]


def doubles(values):
    return struct.pack(f"<{len(values)}d", *values)


def text(seed):
    chooser, words = random.Random(seed), [random.Random(n).randbytes(3).hex() for n in range(900)]
    return " ".join(chooser.choices(words, k=N)).encode()[:N]


def edited(data, edits, seed=1):
    chooser, new = random.Random(seed), bytearray(data)
    for _ in range(edits):
        new[chooser.randrange(len(new))] ^= 0xFF
    return bytes(new)


NOISE = random.Random(1).randbytes(N)
DOUBLES = doubles(numbers(1))
MOVED = doubles([x * (1 + 1e-6 * y) for x, y in zip(numbers(1), numbers(2), strict=True)])
LABELS = [struct.pack(f"<{N // 8}q", *random.Random(seed).choices(range(5), k=N // 8)) for seed in (1, 2)]

PAYS = {
    "noise, edited": (edited(NOISE, 20), NOISE, 0, codec.PREFIX),
    "noise, its start gone": (NOISE[1111:], NOISE, 0, codec.PREFIX),
    "noise, as long and shifted": (NOISE[1111:] + NOISE[:1111], NOISE, 8, codec.PREFIX),
    "numbers, edited": (edited(DOUBLES, 20), DOUBLES, 8, codec.PREFIX),
    "text, a word more": (text(1)[:9000] + b"more" + text(1)[9000:-4], text(1), 0, codec.PREFIX),
    "numbers, all moved": (MOVED, DOUBLES, 8, codec.DIFFERENCE),
    "numbers, most moved": (DOUBLES[:3000] + MOVED[3000:], DOUBLES, 8, codec.DIFFERENCE),
}
PAYS_NOT = {
    "noise": (NOISE, random.Random(2).randbytes(N), 0),
    "text": (text(1), text(2), 0),
    "numbers": (doubles(numbers(1)), doubles(numbers(3)), 8),
    "rounded numbers": (
        doubles([round(x, 2) for x in numbers(1, 50)]), doubles([round(x, 2) for x in numbers(3, 50)]), 8,
    ),
    "a few labels": (*LABELS, 8),
    "one number": (bytes(N), bytes(N), 8),
    "nothing there": (NOISE, b"", 0),
}  # fmt: skip


def sizes_of(data, base, widths, level):
    """What each codec makes of a chunk, by codec and width: DIFFERENCE where both are of one length."""
    forms = [(codec.PREFIX, 0)] + [(codec.DIFFERENCE, width) for width in widths if len(data) == len(base)]
    return {form: len(new_codec().encode_delta(data, base, *form, level)) for form in forms}


@pytest.mark.parametrize("name", PAYS)
def test_what_pays_is_encoded_by_the_codec_that_gives_less(name):
    data, base, width, expected = PAYS[name]
    arena, [(size, number, used)] = new_codec().best_deltas(data, base, [(0, len(data), 0, len(base), width, N)], 1)
    assert number == expected
    assert used == (width if number == codec.DIFFERENCE else 0)
    assert arena == new_codec().encode_delta(data, base, number, used, 3 if number == codec.PREFIX else 1)
    assert size == min(sizes_of(data, base, [width], 3 if number == codec.PREFIX else 1).values())
    out = bytearray(len(data))
    new_codec().decode_delta(arena, base, number, used, out)
    assert out == data


@pytest.mark.parametrize("name", PAYS_NOT)
def test_nothing_is_encoded_where_nothing_can_be_gained(name):
    """Though there is room for it: so it is the look that says no, and no codec ran."""
    data, base, width = PAYS_NOT[name]
    jobs = [(0, len(data), 0, len(base), width, 2 * N)]
    assert new_codec().best_deltas(data, base, jobs, 1) == (b"", [(0, codec.PREFIX, 0)])


@pytest.mark.parametrize("name", PAYS_NOT)
def test_what_is_not_tried_would_not_have_saved_a_fifth(name):
    data, base, width = PAYS_NOT[name]
    plain = min(new_codec().trial(data, [(codec.ZSTD, 0, 1), (codec.ZSTD, width, 1)]))
    delta = min(sizes_of(data, base, [0, width], 1).values())
    assert delta > 0.8 * plain or plain < N // 64


def test_a_delta_beyond_its_cap_is_none():
    data, base, width, _ = PAYS["numbers, all moved"]
    size = len(new_codec().encode_delta(data, base, codec.DIFFERENCE, width, 1))
    for cap, fits in ((size + 64, True), (size - 1, False), (0, False)):
        arena, [delta] = new_codec().best_deltas(data, base, [(0, N, 0, N, width, cap)], 1)
        assert (delta, len(arena)) == (((size, codec.DIFFERENCE, 8), size) if fits else ((0, codec.PREFIX, 0), 0))


def test_both_are_tried_and_the_smaller_is_kept():
    """Half of it equal, half of it moved: DIFFERENCE is better, and the arena holds nothing of the other."""
    data, base = DOUBLES[: N // 2] + MOVED[N // 2 :], DOUBLES
    sizes = sizes_of(data, base, [8], 3)
    arena, [delta] = new_codec().best_deltas(data, base, [(0, N, 0, N, 8, N)], 3)
    assert sizes[codec.DIFFERENCE, 8] < sizes[codec.PREFIX, 0]
    assert delta == (sizes[codec.DIFFERENCE, 8], codec.DIFFERENCE, 8)
    assert arena == new_codec().encode_delta(data, base, codec.DIFFERENCE, 8, 3)


def test_a_batch_is_its_chunks_one_after_another():
    cases = [(data, base, width) for data, base, width, *_ in (*PAYS.values(), *PAYS_NOT.values())]
    jobs, alone, at, base_at = [], [], 0, 0
    for data, base, width in cases:
        jobs.append((at, len(data), base_at, len(base), width, N))
        alone.append(new_codec().best_deltas(data, base, [(0, len(data), 0, len(base), width, N)], 1))
        at, base_at = at + len(data), base_at + len(base)
    data, bases = b"".join(case[0] for case in cases), b"".join(case[1] for case in cases)
    arena, deltas = new_codec().best_deltas(data, bases, jobs, 1)
    assert deltas == [delta for _, [delta] in alone]
    assert arena == b"".join(bytes(one) for one, _ in alone)


@given(
    base=st.binary(max_size=900), insert=st.binary(max_size=900), at=st.integers(0, 900),
    width=st.sampled_from([0, 2, 4, 8]),
)  # fmt: skip
def test_whatever_is_chosen_comes_back(base, insert, at, width):
    data = base[:at] + insert + base[at:]
    for old in (base, data[::-1], edited(data, 2) if data else b""):
        arena, [(size, number, used)] = new_codec().best_deltas(
            data, old, [(0, len(data), 0, len(old), width, len(data))], 1
        )
        assert size == len(arena) <= len(data)
        if size:
            out = bytearray(len(data))
            new_codec().decode_delta(arena, old, number, used, out)
            assert out == data


@pytest.mark.parametrize(
    "job",
    [(0, 6, 0, 5, 0, 9), (2**63, 5, 0, 5, 0, 9), (0, 5, 1, 5, 0, 9), (0, 5, 2**64 - 1, 5, 0, 9), (0, 5, 0, 5, 3, 9)],
)
def test_a_job_outside_is_refused(job):
    with pytest.raises(ValueError, match="out"):
        new_codec().best_deltas(b"12345", b"54321", [job], 1)


def test_chunks_and_bases_beyond_the_limit_are_refused():
    long = bytes(codec.CHUNK_LIMIT + 1)
    with pytest.raises(ValueError, match="limit"):
        new_codec().best_deltas(long, b"12345", [(0, len(long), 0, 5, 0, 9)], 1)
    with pytest.raises(ValueError, match="limit"):
        new_codec().best_deltas(b"12345", long, [(0, 5, 0, len(long), 0, 9)], 1)


# ---- the look ---------------------------------------------------------------------------


def oracle_bits(data):
    """Bits per byte by the counts of all of them, and what they do not show (Miller, Madow)."""
    counts, n = Counter(data), len(data)
    entropy = -sum(count / n * math.log2(count / n) for count in counts.values())
    return min(8.0, entropy + (len(counts) - 1) / (2 * math.log(2) * n))


@pytest.mark.parametrize("width", [0, 2, 4, 8])
def test_codes_match_the_oracle(width):
    """Of 2 KiB nothing is left out."""
    data, base = (struct.pack("<256d", *numbers(seed)[:256]) for seed in (1, 2))
    changed = differences(data, base, width)
    _, _, _, plain, left = codec.likeness(data, base, width)
    for found, content in ((plain, data), (left, changed)):
        planes = [content[j :: width or 1] for j in range(width or 1)]
        assert found == pytest.approx(sum(len(plane) * oracle_bits(plane) / 8 for plane in planes), rel=0.002, abs=2)


def test_blocks_are_compared_in_place():
    base = NOISE[:6400]
    data = bytearray(base)
    for block in (0, 7, 8, 99):
        data[64 * block + 63] ^= 1
    data[640:768] = b"12345678" * 16
    telling, equal, *_ = codec.likeness(data, base, 0)
    assert telling == 6400 - 128
    assert equal == 6400 - 128 - 4 * 64
    # The base ends before the chunk: what is beyond it is not equal to anything.
    assert codec.likeness(base, base[:3000], 0)[1] == 3000 // 64 * 64


@pytest.mark.parametrize("shift", [1, 8, 63, 64, 1000, 5001])
def test_what_was_shifted_is_found(shift):
    telling, equal, found, *_ = codec.likeness(NOISE[shift:], NOISE, 0)
    assert equal == 0
    assert found > 0.7 * telling
    half = NOISE[shift : N // 2] + random.Random(4).randbytes(N // 2)
    assert 0.3 < codec.likeness(half, NOISE, 0)[2] / len(half) < 0.6


def test_lengths_of_nothing():
    assert codec.likeness(b"", b"", 8) == (0, 0, 0, 0, 0)
    assert codec.likeness(b"", NOISE, 0) == (0, 0, 0, 0, 0)
    assert codec.likeness(b"abc", b"", 4)[2:] == (0, 3, 3)
    with pytest.raises(ValueError, match="width"):
        codec.likeness(b"abc", b"abc", 3)
