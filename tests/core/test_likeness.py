"""Whether a chunk can become a delta: a look at chunk and base, against what encoding them gives."""

import math
import random
import struct
from collections import Counter

import pytest

from mfstore import errors
from mfstore._core import codec
from mfstore.saving.deltas import may_pay
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
def test_what_may_pay_is_told_and_does(name):
    data, base, width, expected = PAYS[name]
    assert may_pay(data, base, width)
    plain = min(new_codec().trial(data, [(codec.ZSTD, 0, 1), (codec.ZSTD, width, 1)]))
    sizes = sizes_of(data, base, [width], 3)
    best = min(sizes, key=sizes.get)
    assert best[0] == expected
    assert sizes[best] < 0.8 * plain


@pytest.mark.parametrize("name", PAYS_NOT)
def test_what_cannot_pay_is_told(name):
    assert not may_pay(*PAYS_NOT[name])


@pytest.mark.parametrize("name", PAYS_NOT)
def test_what_is_not_tried_would_not_have_saved_a_fifth(name):
    data, base, width = PAYS_NOT[name]
    plain = min(new_codec().trial(data, [(codec.ZSTD, 0, 1), (codec.ZSTD, width, 1)]))
    delta = min(sizes_of(data, base, [0, width], 1).values())
    assert delta > 0.8 * plain or plain < N // 64


def test_a_delta_beyond_most_is_none():
    data, base, width, _ = PAYS["numbers, all moved"]
    encoded = new_codec().encode_delta(data, base, codec.DIFFERENCE, width, 1)
    for most, found in ((len(encoded) + 64, encoded), (len(encoded) - 1, b""), (0, b"")):
        assert new_codec().encode_delta(data, base, codec.DIFFERENCE, width, 1, most) == found


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
