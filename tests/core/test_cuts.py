"""The cut kernel against the rule as docs/format.md states it, on every path, and what the rule is good for."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mfstore._core.chunk import CUT_MAX, CUT_MIN, CUT_NORMAL, LONG_ROW, cut, implementations
from tests.rigs.soak import lasting

# ---- the rule ---------------------------------------------------------------------------

MULTIPLIERS = {1: 0x243F, 2: 0x85A3, 4: 0x1319, 8: 0xA409, 16: 0x299F, 32: 0x31D1}


def spread(z):
    return (z ^ z >> np.uint32(15)) * np.uint32(0x9E3779B1)


def earlier(lanes, words):
    """The lanes of so many words before; zeros where there are none."""
    return np.concatenate([np.zeros(words, lanes.dtype), lanes])[: len(lanes)]


def hashes(data, width):
    """Of each word of ``data`` the hash and its second number. Those of the first 63 mean nothing."""
    count = len(data) // width
    words = np.frombuffer(data, f"<u{width}", count).astype(np.uint64)
    lanes = (spread((words + (words >> np.uint64(32))).astype(np.uint32)) >> np.uint32(16)).astype(np.uint16)
    for words_back, multiplier in MULTIPLIERS.items():
        half = lanes
        lanes = lanes * np.uint16(multiplier) + earlier(lanes, words_back)
        if words_back == 8:
            lanes ^= lanes >> np.uint16(7)
    return lanes.view(np.int16), spread(lanes.astype(np.uint32) << np.uint32(16) | half)


def run_cuts(data, unit):
    """End offsets of the chunks of one run."""
    width = next(width for width in (8, 4, 2, 1) if unit % width == 0)
    hash_, number = hashes(data, width)
    ends = (np.arange(len(number)) + 1) * width
    strict, loose = ((width << 42) // (CUT_NORMAL * 4), (width << 42) // (CUT_NORMAL // 4))
    cuts, at = [], 0
    longest = CUT_MAX // unit * unit
    while len(data) - at > CUT_MIN:
        stop = min(at + longest, len(data))
        seen = slice((at + CUT_MIN) // width - 1, stop // width)
        threshold = np.where(ends[seen] < at + CUT_NORMAL, strict, loose)
        end = ends[seen][(hash_[seen] >= 0x7FC0) & (number[seen] < threshold)][:1]
        if not len(end) and stop == at + longest:
            end = ends[seen][hash_[seen] == hash_[seen].max()][-1:]
        at = min(-(-int(end[0]) // unit) * unit, stop) if len(end) else stop
        cuts.append(at)
    return [*cuts, len(data)] if at < len(data) else cuts


def oracle(data, itemsize, row):
    itemsize = itemsize or 1
    if row < LONG_ROW:
        return run_cuts(data, row or itemsize)
    runs = range(0, len(data), row)
    return [start + end for start in runs for end in run_cuts(data[start : start + row], itemsize)]


# ---- the kernel obeys it ----------------------------------------------------------------

UNITS = [0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 255]
KINDS = ["noise", "constant", "two values", "rare values", "counter", "period"]
each = pytest.mark.parametrize("implementation", implementations())


def data_of(kind, size, seed):
    generator = np.random.default_rng(seed)
    if kind == "noise":
        return generator.bytes(size)
    if kind == "constant":
        return bytes([seed % 256]) * size
    if kind == "two values":
        return generator.integers(0, 2, size // 8 + 1).astype("f8").tobytes()[:size]
    if kind == "rare values":
        return (generator.random(size) < 0.002).tobytes()
    if kind == "counter":
        return np.arange(size // 4 + 1, dtype="i4").tobytes()[:size]
    return (generator.bytes(seed % 700 + 1) * (size // (seed % 700 + 1) + 1))[:size]


def streamed(data, itemsize, row, pieces, implementation):
    """The cuts of ``data`` when it comes in ``pieces``."""
    found, at, seen = [], 0, 0
    for piece in [*pieces, len(data)]:
        seen = min(seen + piece, len(data))
        ends = cut(data[at:seen], itemsize, row, seen == len(data), at, implementation=implementation)
        found += [at + end for end in ends]
        at = found[-1] if found else 0
        assert seen - at < CUT_MAX
    return found


def window(width, strict):
    """64 words of which the last is a hit: of the strict kind, or of the loose one only."""
    noise = np.random.default_rng(8).bytes(2 << 20)
    hash_, number = hashes(noise, width)
    strictly, loosely = number < (width << 42) // (CUT_NORMAL * 4), number < (width << 42) // (CUT_NORMAL // 4)
    found = (hash_ >= 0x7FC0) & (strictly if strict else loosely & ~strictly)
    end = (int(np.flatnonzero(found[63:])[0]) + 64) * width
    return noise[end - 64 * width : end]


@each
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_hits_count_from_the_least_and_the_normal_length_on(implementation, width):
    def first(strict, end):
        data = bytearray(CUT_MAX - 8)  # too short for the greatest hash to matter
        hit = window(width, strict)
        data[end - len(hit) : end] = hit
        ends = cut(data, width, 0, True, implementation=implementation)
        assert ends == oracle(bytes(data), width, 0)
        return ends[0]

    assert first(True, CUT_MIN) == CUT_MIN
    assert first(True, CUT_MIN - width) == CUT_MAX - 8
    assert first(True, CUT_NORMAL - width) == CUT_NORMAL - width
    assert first(False, CUT_NORMAL) == CUT_NORMAL
    assert first(False, CUT_NORMAL - width) == CUT_MAX - 8
    assert first(False, CUT_MAX - 16) == CUT_MAX - 16


def near_hits():
    """Words of 8 bytes up to a hit of the loose kind, and those up to the next, fewer than 32 words later."""
    noise = np.random.default_rng(9).bytes(8 << 20)
    hash_, number = hashes(noise, 8)
    hits = np.flatnonzero((hash_ >= 0x7FC0) & (number < (8 << 42) // (CUT_NORMAL // 4)))
    pairs = [(first, second) for first, second in itertools.pairwise(hits.tolist()) if 0 < second - first < 32]
    return [(noise[(first - 63) * 8 : first * 8 + 8], noise[first * 8 + 8 : second * 8 + 8]) for first, second in pairs]


@each
def test_of_hits_next_to_each_other_the_first_counts(implementation):
    # They are searched many at once: wherever both lie in what is searched together, in whatever order.
    pairs = near_hits()
    distances = {len(then) // 8 % 8 for _, then in pairs}
    assert distances == set(range(8))
    for at, (hit, then) in enumerate(pairs):
        for shift in range(0, 8 * 8, 8):
            end = CUT_NORMAL + 8 * 8 * at + shift
            data = bytes(end - len(hit)) + hit + then + bytes(1000)
            assert cut(data, 8, 0, True, implementation=implementation)[0] == end


@each
@pytest.mark.parametrize("itemsize", [1, 2, 3, 4, 8, 24])
def test_without_a_hit_the_greatest_hash_decides(implementation, itemsize):
    # One value among zeros, so that few hashes are high: one of a word that is not there would show.
    for seed in range(12):
        generator = np.random.default_rng(seed)
        data = bytearray(CUT_MAX + 5 * seed)
        at = int(generator.integers(CUT_MAX - 800 if seed % 2 else CUT_MIN, CUT_MAX - 8))
        data[at : at + 8] = generator.bytes(8)
        assert cut(data, itemsize, 0, True, implementation=implementation) == oracle(bytes(data), itemsize, 0)


@each
def test_words_that_are_not_there_are_no_hits(implementation):
    # Ends that would be followed by a hit if zeros followed them.
    ends = np.random.default_rng(10).bytes(64 * 8 * 200)
    padded = b"".join(ends[at : at + 512] + bytes(512) for at in range(0, len(ends), 512))
    hash_, number = hashes(padded, 8)
    hits = np.flatnonzero((hash_ >= 0x7FC0) & (number < (8 << 42) // (CUT_NORMAL // 4)))
    behind = sorted(
        {int(hit) // 128 for hit in hits if hit % 128 >= 64} - {int(hit) // 128 for hit in hits if hit % 128 < 64}
    )
    assert behind
    for at in behind:
        data = bytes(CUT_MAX - 512) + padded[at * 1024 : at * 1024 + 512]
        expected = oracle(data, 8, 0)
        assert expected[0] < CUT_MAX
        assert cut(data, 8, 0, True, implementation=implementation) == expected


def test_every_processor_has_the_base():
    assert {"best", "base"} <= set(implementations())


@pytest.mark.parametrize("size", [0, 1, CUT_MIN - 1, CUT_MIN, CUT_MIN + 1, CUT_NORMAL, CUT_MAX, CUT_MAX + 7, 700_001])
@pytest.mark.parametrize("itemsize", [1, 2, 4, 8, 24])
def test_sizes_and_widths(size, itemsize):
    for kind in ("noise", "constant", "rare values"):
        data = data_of(kind, size, 3)
        expected = oracle(data, itemsize, 0)  # which is slow: one for all
        for implementation in implementations():
            assert cut(data, itemsize, 0, True, implementation=implementation) == expected, implementation


@each
@settings(max_examples=lasting(80), deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    size=st.integers(0, 600_000),
    itemsize=st.sampled_from(UNITS),
    row=st.sampled_from([0, 0, 80, 784, LONG_ROW - 1, LONG_ROW, LONG_ROW + 40, 100_000, 300_000])
    | st.integers(0, 2**17),
    seed=st.integers(0, 2**16),
    offset=st.integers(0, 8),
    pieces=st.lists(st.integers(0, CUT_MAX + 1), max_size=4),
)
@example("noise", 600_000, 8, 300_000, 1, 1, [299_999])
@example("rare values", 600_000, 1, 0, 1, 3, [CUT_MAX])
def test_the_kernel_cuts_as_the_rule_says(implementation, kind, size, itemsize, row, seed, offset, pieces):
    data = memoryview(bytes(offset) + data_of(kind, size, seed))[offset:]
    expected = oracle(data, itemsize, row)
    assert cut(data, itemsize, row, True, implementation=implementation) == expected
    assert streamed(data, itemsize, row, pieces, implementation) == expected


def test_a_forced_implementation_is_a_demand():
    with pytest.raises(ValueError, match="no implementation 'neon' here: one of best, base"):
        cut(b"", 1, 0, True, implementation="neon")


def test_an_item_size_is_a_byte():
    with pytest.raises(OverflowError):
        cut(b"", 256, 0, True)


def test_golden_cut_points():
    # If this changes, everything stored before stops deduplicating and every key of large data changes.
    data = hashlib.shake_256(b"mfstore cut points").digest(8 << 20)
    cuts = [cut(data, *shape, True) for shape in ((1, 0), (2, 0), (4, 0), (8, 0), (8, 2400), (8, 1_000_000))]
    assert hashlib.sha256(repr(cuts).encode()).hexdigest() == (
        "987ef8353fce968a8bf4c6b1794aeb247b2e51c0b43da3476cd2152d71e37dac"
    )


# ---- what it is good for ----------------------------------------------------------------

ITEMS = 1 << 19
"""Of 8 bytes: 4 MiB, some 55 chunks."""


def lengths(ends):
    return [end - start for start, end in itertools.pairwise([0, *ends])]


def new_bytes(before, after, itemsize, row):
    """Bytes of the chunks of ``after`` that ``before`` has not."""

    def chunks(array):
        data, ends = array.tobytes(), cut(array.tobytes(), itemsize, row, True)
        return [data[start:end] for start, end in itertools.pairwise([0, *ends])]

    old = set(chunks(before))
    return sum(len(chunk) for chunk in chunks(after) if chunk not in old)


def column(name, dtype):
    generator = np.random.default_rng(5)
    count = ITEMS * 8 // np.dtype(dtype).itemsize
    values = {
        "noise": lambda: generator.integers(-100, 100, count),
        "coin": lambda: generator.random(count) < 0.5,
        "0 or 2": lambda: generator.integers(0, 2, count) * 2,
        "0 or -1": lambda: -(generator.random(count) < 0.3).astype("i1"),
        "counter": lambda: np.arange(count),
        "rare": lambda: generator.random(count) < 0.003,
    }
    return values[name]().astype(dtype)


COLUMNS = list(itertools.product(["noise", "coin", "0 or 2", "0 or -1"], ["i1", "i2", "i4", "f4", "i8", "f8"]))
COLUMNS += itertools.product(["counter"], ["i4", "f4", "i8", "f8"])
SPARSE = [("rare", "i1"), ("rare", "i2"), ("rare", "f8")]


@pytest.mark.parametrize(("name", "dtype"), COLUMNS)
def test_chunks_of_columns_have_the_length_that_is_aimed_at(name, dtype):
    data = column(name, dtype)
    found = lengths(cut(data.tobytes(), data.itemsize, 0, True))[:-1]
    assert 60_000 <= sum(found) / len(found) <= 90_000
    assert sum(length > CUT_NORMAL * 2 for length in found) <= len(found) // 5


@pytest.mark.parametrize(("name", "dtype"), COLUMNS + SPARSE)
def test_without_the_first_items_most_chunks_are_known(name, dtype):
    data = column(name, dtype)
    assert new_bytes(data, data[7:], data.itemsize, 0) <= 2 * CUT_MAX


def test_without_the_first_row_most_chunks_are_known():
    table = np.random.default_rng(6).random((ITEMS // 10, 10))
    assert new_bytes(table, table[1:], 8, 80) <= CUT_MAX


def test_columns_that_lie_after_each_other_grow_by_themselves():
    table = np.random.default_rng(7).random((10, ITEMS // 10 + 10))
    assert new_bytes(table[:, :-10].copy(), table, 8, table.itemsize * table.shape[1]) <= 10 * 2 * CUT_NORMAL


def test_constant_chunks_are_maximal_and_alike():
    assert cut(bytes(4 * CUT_MAX), 8, 0, True) == [CUT_MAX, 2 * CUT_MAX, 3 * CUT_MAX, 4 * CUT_MAX]
