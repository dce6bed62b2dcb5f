"""How chunks are encoded is chosen by a trial on a sample, and a chunk that does not shrink is stored raw."""

import json
import random
import sys
from itertools import accumulate

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore._core.codec import GROUP, LZ4, NONE, PCODEC, PLANES, ZSTD, Codec
from mfstore.format import description
from mfstore.format.description import PCODEC_FEATURE
from mfstore.saving import codecs
from mfstore.saving.codecs import RAW_CHOICE, Choice, Follower, choose, encode_chunk, widths_of
from mfstore.saving.groups import encode_chunks
from mfstore.saving.packing import PackWriter
from mfstore.settings import COMPRESSIONS
from tests.rigs.parts import KIB, MIB, noise

CHUNK = 64 * KIB


@pytest.fixture
def codec():
    return Codec(errors)


class CountingCodec(Codec):
    """Notes the trials, and of each call how many chunks it encodes."""

    def __init__(self, errors):
        self.trials = []
        self.encoded = []

    def encode(self, data, ends, *how):
        self.encoded.append(len(ends))
        return super().encode(data, ends, *how)

    def trial(self, sample, candidates, most=0):
        self.trials.append((len(sample), list(candidates)))
        return super().trial(sample, candidates, most)


def weights(count, dtype="<f4"):
    return (np.random.default_rng(count).standard_normal(count) * 0.02).astype(dtype).tobytes()


def text(length):
    rng = np.random.default_rng(length)
    words = [b"alpha ", b"beta ", b"gamma,", b"delta\n", b"12", b"3.5 ", b"epsilon "]
    return b"".join(words[number] for number in rng.integers(0, len(words), length // 2))[:length]


def decoded(chunk, size):
    target = bytearray(size)
    Codec(errors).decode(chunk.data, target, [(0, len(chunk.data), chunk.codec, chunk.width, 0, size)])
    return bytes(target)


def cut(length):
    return [*range(CHUNK, length, CHUNK), length]


# ---- the choice ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("itemsize", "widths"),
    [(0, (2, 4, 8)), (1, (2, 4, 8)), (2, (2,)), (3, ()), (4, (4,)), (8, (8,)), (12, (4,)), (16, (8,))],
)
def test_the_widths_that_suit_an_element(itemsize, widths):
    assert widths_of(itemsize) == widths


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("itemsize", [0, 1, 2, 8])
def test_noise_stays_raw(codec, compress, itemsize):
    assert choose(codec, noise(1, 1 << 20), itemsize, compress) == RAW_CHOICE


@pytest.mark.parametrize("compress", COMPRESSIONS[:3])
def test_integers_that_grow_slowly_are_shuffled(codec, compress):
    data = np.cumsum(np.random.default_rng(1).integers(0, 100, 100_000)).astype("<i8").tobytes()
    choice = choose(codec, data, 8, compress)
    assert choice[:2] == {"fast": (LZ4, 8), "balanced": (ZSTD, 8), "small": (PCODEC, 4)}[compress]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_floats_that_are_noise_but_for_their_exponents_lie_in_planes(codec, dtype):
    """What zstd takes to 0.91 to 0.96 is worth it in planes. Fast leaves it raw, to be mapped."""
    data, width = weights(200_000, dtype), np.dtype(dtype).itemsize
    assert choose(codec, data, width, "balanced")[:2] == choose(codec, data, width, "small")[:2] == (PLANES, width)
    assert choose(codec, data, width, "fast") == RAW_CHOICE


def test_bytes_that_are_tensors_are_told_by_their_planes(codec):
    """Of bfloat16 in the bytes of a file, say; among the widths the one with the best planes is tried."""
    data = np.frombuffer(weights(100_000), "<u2")[1::2].tobytes()
    assert choose(codec, data, 1, "balanced")[:2] == (PLANES, 2)
    assert choose(codec, weights(100_000), 0, "balanced")[:2] == (PLANES, 4)


def test_planes_of_arrays_in_a_pickle_are_all_searched(codec):
    """Their headers lie in all planes. Of numbers alone that is not tried."""
    header = bytes(range(40, 76))
    data = b"".join(header + weights(100 + number)[-400:] for number in range(400))
    assert choose(codec, data, 1, "balanced")[:3] == (PLANES, 4, codecs.SEARCHED)
    assert choose(codec, data, 4, "balanced")[:3] == (PLANES, 4, 0)
    assert choose(codec, weights(100_000), 0, "balanced")[:3] == (PLANES, 4, 0)


def test_text_is_plain_and_tried_in_planes_on_a_probe_only(codec):
    counting = CountingCodec(errors)
    assert choose(counting, text(MIB - 1), 1, "balanced")[:3] == (ZSTD, 0, 3)
    (probe, candidates), (sample, tried) = counting.trials
    assert (probe, {candidate[0] for candidate in candidates}) == (codecs.PROBE, {ZSTD, PLANES})
    assert (sample, tried) == (codecs.SAMPLE, [(ZSTD, 0, 3)])
    assert choose(codec, text(MIB), 1, "small")[:3] == (ZSTD, 0, 9)
    assert choose(codec, text(MIB), 1, "fast")[:2] == (LZ4, 0)


class Told:
    """A codec that says of what it encodes what a test wants: of groups by their level, of plain zstd 1000, of anything
    else that it does not shrink."""

    def __init__(self, **sizes):
        self.sizes = {getattr(codecs, name): size for name, size in sizes.items()}
        self.asked = []

    def trial(self, sample, candidates, most=0):
        return [1000 if codec == ZSTD and not width else len(sample) for codec, width, _ in candidates]

    def encode_group(self, data, ends, level, keep):
        assert len(data) == ends[-1] == codecs.SEARCH_SAMPLE
        self.asked.append(level)
        sizes = self.sizes[level]
        return bytes(sum(sizes)), sizes


FAR_SIZES = [1000, 2000, 3000, 4000]
AS_LONG = codecs.SEARCHED_FROM


@pytest.mark.parametrize(
    ("quick", "fives", "level"),
    [
        ([1000, 2000, 3000, 4045], None, codecs.QUICK),
        ([1000, 2000, 3000, 4055], [1000, 2000, 3000, 3845], codecs.FIVES),
        ([1021, 1900, 2900, 3900], [1004, 1900, 2900, 3900], codecs.FIVES),
        ([1021, 1900, 2900, 3900], [1006, 1900, 2900, 3900], 3),
        ([1000, 2000, 3000, 4055], [1000, 2000, 3000, 3855], 3),
        ([], [], 3),
    ],
)
def test_what_is_long_is_searched_with_least_effort_that_finds_enough_everywhere(quick, fives, level):
    told = Told(FAR=FAR_SIZES, QUICK=quick, FIVES=fives)
    assert choose(told, bytes(AS_LONG), 1, "balanced") == (ZSTD, 0, level, 10_000 / codecs.SEARCH_SAMPLE)
    assert told.asked == [codecs.FAR, codecs.QUICK, codecs.FIVES][: 2 if fives is None else 3]


@pytest.mark.parametrize(
    ("length", "itemsize", "compress"),
    [(AS_LONG - 1, 1, "balanced"), (AS_LONG, 8, "balanced"), (AS_LONG, 1, "small"), (AS_LONG, 1, "fast")],
)
def test_other_searches_are_for_long_opaque_bytes_and_the_balanced_setting(length, itemsize, compress):
    told = Told()
    choose(told, bytes(length), itemsize, compress)
    assert told.asked == []


@pytest.mark.parametrize(
    ("length", "compress", "found", "level"),
    [
        (codecs.NUMBERS_SEARCHED_FROM, "balanced", 1019, codecs.FIVES),
        (codecs.NUMBERS_SEARCHED_FROM, "balanced", 1021, 3),
        (codecs.NUMBERS_SEARCHED_FROM - 1, "balanced", 900, 3),
        (codecs.NUMBERS_SEARCHED_FROM, "small", 900, 9),
    ],
)
def test_long_numbers_of_plain_zstd_take_the_cheaper_search_too(length, compress, found, level):
    class Found(Told):
        def trial(self, sample, candidates, most=0):
            if candidates == [(ZSTD, 0, codecs.FIVES)]:
                return [found]
            return super().trial(sample, candidates, most)

    assert choose(Found(), bytes(length), 24, compress)[:3] == (ZSTD, 0, level)


@pytest.mark.parametrize("far", [[int(codecs.SEARCH_SAMPLE * 0.951), 0, 0, 0], []])
def test_what_is_long_and_does_not_shrink_is_raw(far):
    assert choose(Told(FAR=far), bytes(AS_LONG), 1, "balanced") == RAW_CHOICE


def test_numbers_are_tried_on_a_sample_only_where_a_probe_leaves_it_open():
    """As the nodes of trees, of which there is an array in each: a sample is half of it."""
    nodes = np.zeros(2000, [("left", "<i8"), ("right", "<i8"), ("at", "<f8"), ("count", "<f8")])
    nodes["left"], nodes["right"] = np.arange(2000), np.arange(2000) + 1
    nodes["at"] = np.random.default_rng(1).integers(0, 9, 2000) / 7
    counting = CountingCodec(errors)
    choice = choose(counting, nodes.tobytes(), 8, "balanced")
    (probe, tried), *rest = counting.trials
    assert (probe, len(tried), rest) == (codecs.PROBE, 3, [])
    sizes = Codec(errors).trial(nodes.tobytes(), tried)
    assert choice[:3] == tried[sizes.index(min(sizes))]

    counting = CountingCodec(errors)
    floats = np.random.default_rng(1).standard_normal(100_000).tobytes()
    assert choose(counting, floats, 8, "balanced")[:2] == (PLANES, 8)
    (_, tried), (sample, again) = counting.trials
    assert sample == codecs.SAMPLE and (PLANES, 8, 0) in again and 1 < len(again) <= len(tried)


def test_planes_are_taken_where_zstd_is_hardly_smaller():
    class Sized:
        """Sizes as a test wants them: plain zstd, planes, shuffled zstd."""

        def trial(self, sample, candidates, most=0):
            assert [(row[0], row[1]) for row in candidates] == [(ZSTD, 0), (PLANES, 4), (ZSTD, 4)]
            return self.sizes

    told = Sized()
    for sizes, expected in (
        ([9000, 1020, 1000], (PLANES, 4)), ([9000, 1021, 1000], (ZSTD, 4)), ([1000, 1021, 9000], (ZSTD, 0)),
        ([9500, 9700, 9600], (ZSTD, 0)), ([9501, 9999, 9999], (NONE, 0)),
    ):  # fmt: skip
        told.sizes = sizes
        assert choose(told, bytes(10_000), 4, "balanced")[:2] == expected


def test_what_is_short_or_not_to_be_compressed_is_not_tried(codec):
    for compress in COMPRESSIONS:
        assert choose(codec, bytes(63), 1, compress) == RAW_CHOICE
    assert choose(codec, bytes(1 << 20), 1, "off") == RAW_CHOICE


def test_the_sample_is_spread_over_the_segment(codec):
    """The first 64 KiB are noise, the rest is zeros: the head alone would say that it does not shrink."""
    head = noise(1, codecs.SAMPLE)
    assert choose(codec, head, 1, "balanced") == RAW_CHOICE
    assert choose(codec, head + bytes(15 * codecs.SAMPLE), 1, "balanced") != RAW_CHOICE


# ---- one chunk -----------------------------------------------------------------------------


def test_a_chunk_that_does_not_shrink_refers_to_the_memory_it_was_given(codec):
    view = memoryview(bytearray(noise(1, 10_000)))
    encoded = encode_chunk(codec, view, Choice(ZSTD, 0))
    assert encoded == (view, NONE, 0)
    assert encoded.data is view


@pytest.mark.parametrize("choice", [Choice(ZSTD, 0, 1), Choice(LZ4, 0), Choice(ZSTD, 8, 9), Choice(PLANES, 8)])
def test_an_encoded_chunk_decodes_to_itself(codec, choice):
    data = np.arange(5000, dtype="<i8").tobytes()
    encoded = encode_chunk(codec, memoryview(data), choice)
    assert (encoded.codec, encoded.width) == choice[:2]
    assert len(encoded.data) < len(data)
    assert decoded(encoded, len(data)) == data


def test_what_is_encoded_holds_no_more_memory_than_it_takes(codec):
    encoded = encode_chunk(codec, memoryview(bytes(MIB)), Choice(ZSTD, 0, 1))
    assert isinstance(encoded.data, bytes)


# ---- many chunks ---------------------------------------------------------------------------


def chunks_of(codec, data, itemsize, compress="balanced"):
    choice = choose(codec, data, itemsize, compress)
    made = encode_chunks(codec, memoryview(data), cut(len(data)), itemsize, choice, compress)
    if made is not None:
        starts = [0, *cut(len(data))]
        for chunk, start, end in zip(made, starts, starts[1:], strict=False):
            assert decoded(chunk, end - start) == data[start:end]
    return made


def test_a_file_of_several_kinds_is_encoded_by_what_each_chunk_holds(codec):
    kinds = [text(4 * CHUNK), weights(CHUNK), noise(1, 4 * CHUNK), np.arange(CHUNK // 2, dtype="<i8").tobytes()]
    made = chunks_of(codec, b"".join(kinds), 1)
    assert [chunk.codec for chunk in made[:12]] == [GROUP] * 4 + [PLANES] * 4 + [NONE] * 4
    assert [chunk.width for chunk in made[:8]] == [0, CHUNK, 2 * CHUNK, 3 * CHUNK, 4, 4, 4, 4]
    assert all(chunk.width and len(chunk.data) < 1000 for chunk in made[12:])


def test_numbers_that_are_raw_stay_so_that_they_can_be_mapped(codec):
    data = noise(1, 15 * CHUNK) + bytes(CHUNK)
    assert encode_chunks(codec, memoryview(data), cut(len(data)), 8, RAW_CHOICE, "balanced") is None
    assert encode_chunks(codec, memoryview(data), cut(len(data)), 1, RAW_CHOICE, "off") is None
    made = encode_chunks(codec, memoryview(data), cut(len(data)), 1, RAW_CHOICE, "balanced")
    assert [chunk.codec for chunk in made] == [NONE] * 15 + [ZSTD]


def test_opaque_bytes_of_which_no_chunk_shrinks_lie_raw_side_by_side(codec):
    assert chunks_of(codec, noise(1, 10 * CHUNK), 1) is None


@pytest.mark.parametrize("compress", ["balanced", "small"])
def test_trials_are_few_whatever_comes(compress):
    """Chunks that alternate between two kinds are tried one in four times."""
    counting = CountingCodec(errors)
    number = 24
    data = b"".join(text(CHUNK) if at % 2 else weights(CHUNK // 4) for at in range(number))
    encode_chunks(counting, memoryview(data), cut(len(data)), 1, Choice(ZSTD, 0, 3, 0.3), compress)
    whole = [candidates for sample, candidates in counting.trials if sample == codecs.SAMPLE]
    assert 2 <= len(whole) <= number // codecs.RETRIED + 1


def test_chunks_that_are_as_expected_are_not_tried():
    counting = CountingCodec(errors)
    data = text(16 * CHUNK)
    choice = choose(counting, data, 1, "balanced")
    before = len(counting.trials)
    encode_chunks(counting, memoryview(data), cut(len(data)), 1, choice, "balanced")
    assert len(counting.trials) == before


def test_of_the_old_choice_and_the_new_one_a_chunk_gets_the_smaller(codec, monkeypatch):
    monkeypatch.setattr(codecs, "choose", lambda *_: RAW_CHOICE)
    made = encode_chunks(codec, memoryview(bytes(CHUNK)), [CHUNK], 1, Choice(ZSTD, 0, 3, 0.5), "balanced")
    assert made[0].codec == ZSTD


# ---- pcodec --------------------------------------------------------------------------------


def prices(count):
    return np.round(np.exp(np.random.default_rng(1).normal(3, 1, count)), 2).astype("<f8").tobytes()


@pytest.mark.parametrize(
    ("data", "itemsize", "kind"),
    [
        (prices(20_000), 8, 6),
        (np.cumsum(np.random.default_rng(1).integers(-50, 100, 40_000)).astype("<i8").tobytes(), 8, 4),
        (np.random.default_rng(1).normal(0, 1000, 40_000).astype("<i4").tobytes(), 4, 3),
    ],
)
def test_small_tries_numbers_as_what_they_may_be(codec, data, itemsize, kind):
    assert choose(codec, data, itemsize, "small")[:2] == (PCODEC, kind)
    assert choose(codec, data, itemsize, "balanced").codec != PCODEC


def test_a_store_says_that_readers_need_pcodec_before_anything_needs_it(tmp_path, monkeypatch):
    values = np.frombuffer(prices(20_000))
    mfstore.open(tmp_path / "other").put(values)
    assert PCODEC_FEATURE not in (tmp_path / "other" / "mfstore.json").read_text()

    def failed(*_):
        raise errors.BackendError("no room")

    store = mfstore.open(tmp_path / "store", compress="small")
    with monkeypatch.context() as patch:
        patch.setattr(PackWriter, "add", failed)
        with pytest.raises(errors.BackendError):
            store.put(values)
    assert json.loads((tmp_path / "store" / "mfstore.json").read_text())["features"]["read"] == [PCODEC_FEATURE]
    key = store.put(values)
    assert store.stat(key).codecs["pcodec"] == values.nbytes
    assert np.array_equal(mfstore.open(tmp_path / "store").get(key), values)
    monkeypatch.setattr(description, "KNOWN_FEATURES", frozenset())
    with pytest.raises(errors.Unsupported, match="needs pcodec to read"):
        mfstore.open(tmp_path / "store")


def test_without_pcodec_small_stores_nothing_and_what_is_stored_otherwise_is_read(tmp_path, monkeypatch):
    store = mfstore.open(tmp_path, compress="small")
    packed, plain = store.put(np.frombuffer(prices(20_000))), store.put("text" * 30_000)
    monkeypatch.setitem(sys.modules, "pcodec", None)
    with pytest.raises(errors.Unsupported, match=r"mfstore\[pcodec\]"):
        mfstore.open(tmp_path, compress="small").put(1)
    reader = mfstore.open(tmp_path)
    assert reader.get(plain) == "text" * 30_000
    with pytest.raises(errors.Unsupported, match=r"mfstore\[pcodec\]"):
        reader.get(packed)
    reader.put(np.frombuffer(prices(10_000)))


@pytest.mark.parametrize("seed", range(4))
def test_chunks_in_one_call_are_encoded_as_one_after_the_other(codec, seed):
    """Of chunks that change: each choice is made at the same chunk."""
    kinds = [weights(16_000), noise(seed, 70_000), b"some text, " * 6000, bytes(64_000), b"abc" * 20]
    rng = random.Random(seed)
    chunks = [kind for _ in range(8) for kind in [rng.choice(kinds)] * rng.randrange(1, 25)]
    data, ends = memoryview(b"".join(chunks)), list(accumulate(map(len, chunks)))
    choice = choose(codec, data, 4, "balanced")
    alone = Follower(codec, 4, choice, "balanced")
    expected = [alone.encode(memoryview(chunk)) for chunk in chunks]
    together = Follower(codec, 4, choice, "balanced")
    assert together.encode_all(data, ends) == expected
    assert together.choice == alone.choice
    assert len({(one.codec, one.width) for one in expected}) > 1


def test_of_chunks_alike_eight_are_encoded_in_one_call():
    counting = CountingCodec(errors)
    data = memoryview(weights(16_384) * 64)
    ends = list(range(65_536, len(data) + 1, 65_536))
    Follower(counting, 4, choose(counting, data, 4, "balanced"), "balanced").encode_all(data, ends)
    assert counting.encoded == [1, 2, 4] + [8] * 7 + [1]
