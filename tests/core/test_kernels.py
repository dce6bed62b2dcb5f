"""Every C kernel against a pure-Python oracle written from docs/format.md."""

import random
import sys
import tracemalloc

import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mfstore import errors
from mfstore._core import codec, memory, table
from mfstore.errors import CorruptObject, Unsupported

# ---- oracles ----------------------------------------------------------------------------


def oracle_shuffle(data, width):
    count = len(data) // width
    return bytes(data[i * width + j] for j in range(width) for i in range(count)) + data[count * width :]


# ---- codecs -----------------------------------------------------------------------------

SAMPLES = {
    "zeros": bytes(100_000),
    "text": b"the quick brown fox " * 5000,
    "noise": random.Random(1).randbytes(100_000),
    "counter": b"".join(number.to_bytes(8, "little") for number in range(12_500)),
    "odd": b"".join(number.to_bytes(4, "little") for number in range(999)) + b"xyz",
    "one": b"x",
}


def new_codec():
    return codec.Codec(errors)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("number", [codec.LZ4, codec.ZSTD])
@pytest.mark.parametrize("width", [0, 2, 4, 8])
def test_codec_round_trip(name, number, width):
    data = SAMPLES[name]
    ends = sorted({len(data) // 3, len(data) // 2, len(data)} - {0})
    arena, sizes = new_codec().encode(data, ends, number, width, 1, 1.0)
    assert len(arena) == sum(sizes)
    out, at, start = bytearray(len(data)), 0, 0
    for end, size in zip(ends, sizes, strict=True):
        if size:
            new_codec().decode(arena, out, [(at, size, number, width, start, end - start)])
            assert out[start:end] == data[start:end]
        at += size
        start = end


@given(data=st.binary(max_size=3000), width=st.sampled_from([2, 4, 8]))
def test_shuffle_matches_the_oracle(data, width):
    # Decoding "no codec, shuffled" is exactly the inverse shuffle.
    out = bytearray(len(data))
    shuffled = oracle_shuffle(data, width)
    new_codec().decode(shuffled, out, [(0, len(data), codec.NONE, width, 0, len(data))])
    assert out == data


@pytest.mark.parametrize("name", ["noise", "text"])
def test_what_is_encoded_holds_no_memory_beyond_it(name):
    """Whether it shrinks to less than half or not."""
    arena, (size,) = new_codec().encode(SAMPLES[name], [100_000], codec.PLANES, 2, 1, 3.0)
    assert sys.getsizeof(arena) == sys.getsizeof(b"") + size
    assert (size < 50_000) == (name == "text")


def encoded_samples():
    """The samples back to back, each encoded in another way, and what ``decode_each`` takes for each."""
    ways = [(codec.ZSTD, 0), (codec.LZ4, 4), (codec.NONE, 0), (codec.PLANES, 8), (codec.ZSTD, 2), (codec.NONE, 0)]
    stored, parts = b"", []
    for data, (how, width) in zip(SAMPLES.values(), ways, strict=True):
        arena = data
        if how != codec.NONE:
            arena = new_codec().encode(data, [len(data)], how, width, 1, 2.0)[0]
        parts.append((len(stored), len(arena), how, width, bytearray(len(data))))
        stored += arena
    return stored, parts


def test_chunks_are_decoded_each_into_memory_of_its_own():
    stored, parts = encoded_samples()
    new_codec().decode_each(stored, parts)
    assert [bytes(target) for *_, target in parts] == list(SAMPLES.values())
    new_codec().decode_each(stored, [])
    new_codec().decode_each(b"", [(0, 0, codec.NONE, 0, bytearray())])


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_of_chunks_decoded_together_a_wrong_one_is_told(number):
    stored, parts = encoded_samples()
    offset, csize, how, width, target = parts[number]
    whole = list(SAMPLES.values())
    for wrong in (
        (offset, csize - 1, how, width, target), (offset, csize, 99, width, target), (offset, csize, how, 3, target),
        (offset, csize, how, width, bytearray(len(target) + 1)), (offset, csize, how, width, bytearray(0)),
    ):  # fmt: skip
        with pytest.raises((CorruptObject, Unsupported)) as raised:
            new_codec().decode_each(stored, [*parts[:number], wrong, *parts[number + 1 :]])
        assert raised.value.offset == offset
        assert [bytes(target) for *_, target in parts[:number]] == whole[:number]
    for outside in ((len(stored) + 1, 0), (0, len(stored) + 1), ((1 << 64) - 1, 1), (1, (1 << 64) - 1)):
        with pytest.raises(CorruptObject, match="outside"):
            new_codec().decode_each(stored, [(*outside, how, width, target)])
    with pytest.raises(BufferError):
        new_codec().decode_each(stored, [(offset, csize, how, width, bytes(len(target)))])


def test_shuffle_on_the_encoding_side_is_the_same_one():
    data = SAMPLES["counter"]
    arena, sizes = new_codec().encode(data, [len(data)], codec.LZ4, 8, 1, 1.0)
    out = bytearray(len(data))
    new_codec().decode(arena, out, [(0, sizes[0], codec.LZ4, 0, 0, len(data))])
    assert bytes(out) == oracle_shuffle(data, 8)


def test_incompressible_chunks_are_left_to_be_stored_raw():
    arena, sizes = new_codec().encode(SAMPLES["noise"], [50_000, 100_000], codec.ZSTD, 0, 1, 0.95)
    assert sizes == [0, 0]
    assert len(arena) == 0


@pytest.mark.parametrize("number", [codec.NONE, codec.LZ4, codec.ZSTD])
@pytest.mark.parametrize("wrong", [-1, 1, 1000])
def test_decoding_to_another_length_is_corrupt(number, wrong):
    data = SAMPLES["text"]
    arena, sizes = (
        (data, [len(data)]) if number == codec.NONE else new_codec().encode(data, [len(data)], number, 0, 1, 1.0)
    )
    with pytest.raises(CorruptObject):
        new_codec().decode(arena, bytearray(len(data) + 2000), [(0, sizes[0], number, 0, 0, len(data) + wrong)])


def test_decoder_refuses_what_it_does_not_know():
    with pytest.raises(Unsupported):
        new_codec().decode(b"12345", bytearray(5), [(0, 5, 3, 0, 0, 5)])
    with pytest.raises(CorruptObject):
        new_codec().decode(b"12345", bytearray(5), [(0, 5, 0, 3, 0, 5)])


@pytest.mark.parametrize(
    "job", [(0, 6, 0, 0, 0, 5), (5, 1, 0, 0, 0, 1), (2**63, 5, 0, 0, 0, 5), (0, 2**64 - 1, 0, 0, 0, 5)]
)
def test_decoder_never_reads_outside(job):
    with pytest.raises(CorruptObject):
        new_codec().decode(b"12345", bytearray(5), [job])


def test_decoder_never_writes_outside():
    with pytest.raises(ValueError, match="destination"):
        new_codec().decode(b"12345", bytearray(5), [(0, 5, 0, 0, 1, 5)])


def test_a_bomb_is_stopped_at_the_claimed_size():
    arena, sizes = new_codec().encode(bytes(16 << 20), [16 << 20], codec.ZSTD, 0, 1, 1.0)
    with pytest.raises(CorruptObject):
        new_codec().decode(arena, bytearray(1000), [(0, sizes[0], codec.ZSTD, 0, 0, 1000)])


# ---- texts --------------------------------------------------------------------------------


@given(
    st.text(st.characters(codec=None), max_size=100), st.sampled_from(["", "a", "é", "一", "😀", "\ud800", "\udfff"])
)
@example("\x7f\x80\xff\u0100\u07ff\u0800\uffff\U00010000\U0010ffff", "")
def test_texts_are_encoded_as_python_does(text, more):
    same_as_python(text + more * 9)


@given(
    st.lists(st.tuples(st.sampled_from("a\x7f\x80éÿĀж߿ࠀ一\ud800\uffff😀\U0010ffff"), st.integers(1, 11)), max_size=9)
)
def test_kinds_of_characters_may_change_anywhere(runs):
    same_as_python("".join(character * count for character, count in runs))


def same_as_python(text):
    data = text.encode("utf-8", "surrogatepass")
    assert memory.encode_text(text) == data
    fresh = memory.FreshText(len(data))
    memoryview(fresh)[:] = data
    assert fresh.value == text
    if len(text) != 1:  # Python shares texts of one letter, and what UTF-8 of them somebody has asked for
        assert sys.getsizeof(fresh.value) == sys.getsizeof("".join(list(text)))  # no wider than it need be


LONG = 16384
"""Texts of so many bytes and more are decoded many bytes at a time."""
RUNS = ["a" * 40, "é" * 33, "ж" * 20, "一" * 11, "😀" * 8, "aж" * 9, "ж一" * 7, "一😀a" * 5, "é\ud800", "слово, "]


@pytest.mark.parametrize("letter", ["é", "ж", "一", "😀"])
@pytest.mark.parametrize("count", [16384, 16385, 3 * 16384 + 5])
def test_texts_whose_bytes_are_counted_in_portions(letter, count):
    same_as_python("a" + letter * (count - 1))


@settings(max_examples=60)
@given(st.lists(st.sampled_from(RUNS), min_size=1, max_size=4), st.integers(0, 70), st.text(max_size=40))
def test_long_texts(runs, before, after):
    middle = "".join(runs)
    middle *= LONG // len(middle.encode("utf-8", "surrogatepass")) + 1
    same_as_python("a" * before + middle + after)
    same_as_python(("é" if runs[0] == "é" * 33 else "ж") * before + middle + after)


@settings(max_examples=60)
@given(
    st.sampled_from([
        b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc3", b"\xc3a", b"\xe0\x9f\xbf", b"\xe4\xb8", b"\xe4\xb8a", b"\xf0\x8f\xbf\xbf",
        b"\xf0\x9f\x98", b"\xf0\x9f\x98a", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"\xed\xa0\x80", b"\xc3\xa9\x80",
    ]),
    st.sampled_from([run.encode("utf-8", "surrogatepass") for run in RUNS]), st.integers(0, LONG + 64),
)  # fmt: skip
def test_what_is_no_long_text_is_told_as_python_does(data, run, at):
    whole = run * (LONG // len(run) + 2)
    at -= at % len(run)
    told_as_python_does(whole[:at] + data + whole[at:])
    told_as_python_does(whole[:at] + data)


@given(
    st.binary(max_size=12),
    st.sampled_from([b"", b"abcdefgh", b"\xc3\xa9", b"\xe4\xb8\x80", b"\xe4\xb8\x80" * 3, b"\xf0\x9f\x98\x80"]),
)
@example(b"\xc3\xa9\xc1\xbf\xc3\xa9\xc3\xa9", b"")
@example(b"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\x29", b"")
@example(b"\xe4\xb8\x80\xe0\x9f\xbf\xe4\xb8\x80", b"")
@example(b"\xe0\x9f\xbf\xe4\xb8\x80\xe4\xb8\x80", b"")
@example(b"\xc0\x80", b"")
@example(b"\xe0\x9f\xbf", b"")
@example(b"\xf0\x8f\xbf\xbf", b"")
@example(b"\xf4\x90\x80\x80", b"")
@example(b"\xf5\x80\x80\x80", b"")
@example(b"\xed\xa0\x80\xed\xb0\x80", b"")
@example(b"\xc3", b"")
@example(b"\xe4\xb8", b"abcdefgh")
@example(b"\xf0\x9f\x98", b"")
def test_what_is_no_text_is_told_as_python_does(data, before):
    told_as_python_does(before + data)


def told_as_python_does(data):
    fresh = memory.FreshText(len(data))
    memoryview(fresh)[:] = data
    try:
        expected = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        with pytest.raises(UnicodeDecodeError) as found:
            fresh.value  # noqa: B018
        assert str(found.value) == str(error)
    else:
        assert fresh.value == expected


def test_large_values_are_compared_by_content():
    text, same, other = "é" * 5000, "é" * 2500 + "é" * 2500, "é" * 4999 + "e"
    keys = {memory.LargeValue(text): 1, memory.LargeValue(text.encode("latin-1")): 2}
    assert keys[memory.LargeValue(same)] == 1
    assert keys[memory.LargeValue(text.encode("latin-1") + b"")] == 2
    assert memory.LargeValue(other) not in keys
    assert text not in keys
    assert keys != {text: 1}


def test_memory_for_a_bytearray():
    made = memory.fresh_bytearray(1000)
    made[:] = bytes(range(250)) * 4
    made += b"more"
    assert bytes(made) == bytes(range(250)) * 4 + b"more"


# ---- tables and memory --------------------------------------------------------------------


@settings(deadline=None)
@given(
    ids=st.sets(st.binary(min_size=32, max_size=32), max_size=200),
    asked=st.lists(st.binary(min_size=32, max_size=32), max_size=20),
    crowd=st.integers(0, 300),
)
def test_table_search_matches_a_dict(ids, asked, crowd):
    # Ids that share a long prefix defeat interpolation; the answer must not change.
    ids |= {b"\x80" * 30 + number.to_bytes(2, "big") for number in range(crowd)}
    ordered = sorted(ids)
    data = b"".join(key + b"payload!" for key in ordered)
    asked = asked + ordered[:: max(1, len(ordered) // 20)]
    where = {key: number for number, key in enumerate(ordered)}
    assert table.find(data, 40, b"".join(asked)) == [where.get(key, -1) for key in asked]
    assert table.is_sorted(data, 40)


def test_table_order_is_checked():
    assert not table.is_sorted(b"b" * 32 + b"a" * 32, 32)
    assert not table.is_sorted(b"a" * 64, 32)
    with pytest.raises(ValueError):
        table.find(b"a" * 33, 32, b"a" * 32)


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_xxh3_matches_another_implementation(size):
    data = random.Random(size).randbytes(size)
    assert memory.xxh3(data) == xxhash.xxh3_64_intdigest(data)


def test_xxh3_known_value():
    # From the XXH3 specification's reference: the empty input with seed 0.
    assert memory.xxh3(b"") == 0x2D06800538D394C2


def test_fresh_bytes():
    fresh = memory.FreshBytes(20 << 20)
    memoryview(fresh)[5] = 7
    assert fresh.value[5] == 7
    assert len(memory.FreshBytes(0).value) == 0


@pytest.mark.parametrize("size", [0, 1, 20 << 20])
@pytest.mark.parametrize("seen", [False, True])
def test_the_beginning_of_fresh_bytes(size, seen):
    """In place, unless somebody sees the rest."""
    fresh = memory.FreshBytes(30 << 20)
    memoryview(fresh)[: size + 1] = bytes(range(256)) * (size // 256) + bytes(range(size % 256 + 1))
    view = memoryview(fresh) if seen else None
    found = fresh.first(size)
    assert found == (bytes(range(256)) * (size // 256 + 1))[:size]
    assert len(fresh.value) == (30 << 20 if seen else 0)
    assert view is None or view[:size] == found
    with pytest.raises(ValueError, match="bytes of"):
        fresh.first(len(fresh.value) + 1)


@pytest.fixture
def pool():
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("without a GIL nothing is used again")
    return memory.FreshBytesPool(4 << 20)


def test_memory_that_nobody_has_is_used_again(pool):
    first = pool.take(1 << 20).value
    place, old = id(first), hash(first)
    del first
    fresh = pool.take((1 << 20) - 1000)
    assert id(fresh.value) == place
    memoryview(fresh)[:] = bytes(range(256)) * 4092 + bytes(24)
    assert fresh.value == bytes(range(256)) * 4092 + bytes(24) and hash(fresh.value) != old
    del fresh
    assert id(pool.take(1 << 20).value) == place  # its room is what it was


@pytest.mark.parametrize(
    "holder", [lambda fresh: fresh, lambda fresh: fresh.value, lambda fresh: memoryview(fresh.value)[5:9]]
)
def test_memory_that_somebody_has_is_left_alone(pool, holder):
    fresh = pool.take(1 << 20)
    place = id(fresh.value)
    held = holder(fresh)
    del fresh
    others = [pool.take(1 << 20) for _ in range(3)]
    assert place not in {id(other.value) for other in others}
    del held
    assert id(pool.take(1 << 20).value) == place


def test_dropped_memory_is_given_up_when_it_does_not_fit_or_is_too_much(pool):
    tracemalloc.start()
    try:
        for size in (1 << 20, 2 << 20, 1 << 20, 3 << 20):
            pool.take(size)
            assert tracemalloc.get_traced_memory()[0] < size + 100_000
        several = [pool.take(3 << 20) for _ in range(6)]
        del several
        assert tracemalloc.get_traced_memory()[0] < (4 << 20) + (3 << 20)
    finally:
        tracemalloc.stop()
