"""Deltas in the core: both codecs against the rules of docs/format.md, damage of every kind, and contexts used again."""

import itertools
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mfstore import errors
from mfstore._core import codec
from mfstore._core.memory import xxh3
from mfstore.errors import CorruptObject, Unsupported
from tests.rigs.deltas import differences, unpacked

MARGIN = 64
SEAL = 8


def new_codec():
    return codec.Codec(errors)


def forms(length, base_length):
    """Every codec and width that a chunk of one length can have on a base of another."""
    return [(codec.PREFIX, 0)] + [(codec.DIFFERENCE, width) for width in (0, 2, 4, 8) if length == base_length]


def edited(base, seed, edits=20):
    chooser, data = random.Random(seed), bytearray(base)
    for _ in range(edits):
        data[chooser.randrange(len(data))] = chooser.randrange(256)
    return bytes(data)


def moved(width, low):
    """Numbers of ``width`` bytes and those that differ from them by as much as ``low`` bytes can tell."""
    chooser, base = random.Random(width), random.Random(9).randbytes(8000 * width)
    data = b""
    for at in range(0, len(base), width):
        number = int.from_bytes(base[at : at + width], "little") + chooser.randrange(256**low) - 256**low // 2
        data += (number % 256**width).to_bytes(width, "little")
    return data, base


NOISE = random.Random(3).randbytes(20_000)
PAIRS = {
    "moved": moved(4, 2),
    "edited": (edited(NOISE, 1), NOISE),
    "equal": (bytes(bytearray(NOISE)), NOISE),
    "unrelated": (random.Random(4).randbytes(20_001), NOISE + b"?"),
    "shifted": (NOISE[1000:] + b"new at the end", NOISE),
    "longer base": (NOISE[9000:12_000], NOISE),
    "one": (b"a", b"b"),
    "like a dictionary": (b"\x37\xa4\x30\xec" + NOISE[4:3000], b"\x37\xa4\x30\xec" + NOISE[4:3000]),
}


def unzip(frame):
    """What an ordinary Zstandard decoder without any base makes of a frame."""
    return zstandard.ZstdDecompressor().decompress(frame)


def shuffled(data, width):
    count = len(data) // width if width else 0
    return bytes(data[i * width + j] for j in range(width) for i in range(count)) + data[count * width :]


def differs(encoded, length, width):
    """The differences in a delta of codec 4, shuffled."""
    if not width:
        return unzip(encoded[:-SEAL])
    return unpacked(unzip(encoded[1:-SEAL]), encoded[0], length, width)


def with_planes(count, shares, seed=1, run=1):
    """Differences in whose plane j of ``count`` bytes the share ``shares[j]`` is not 0, in runs; and a byte more."""
    chooser, planes = random.Random(seed), []
    for share in shares:
        there = [chooser.random() < share for _ in range(0, count, run)]
        planes.append([chooser.randrange(1, 256) if there[i // run] else 0 for i in range(count)])
    return bytes(byte for number in zip(*planes, strict=True) for byte in number) + b"x"


def applied(changed, width):
    """The number before which nothing but 0 lies, so that what is encoded are these differences."""
    out = b""
    for at in range(0, len(changed) - len(changed) % width, width):
        number = int.from_bytes(changed[at : at + width], "little")
        out += ((number >> 1) ^ -(number & 1)).to_bytes(width, "little", signed=True)
    return out + changed[len(changed) - len(changed) % width :]


@pytest.mark.parametrize("width", [2, 4, 8])
@pytest.mark.parametrize("count", [1, 7, 8, 200, 1003, 4096])
def test_planes_of_which_few_bytes_are_set_lie_as_a_map_and_those(count, width):
    shares = (0.3, 0.0, 0.6, 0.05, 1.0, 0.001, 0.9, 0.5)[:width]
    changed = with_planes(count, shares)
    data = applied(changed, width)
    encoded = new_codec().encode_delta(data, bytes(len(data)), codec.DIFFERENCE, width, 1)
    assert differs(encoded, len(data), width) == shuffled(changed, width)
    if count >= 1003:
        assert encoded[0] == 0b10001101 & (1 << width) - 1
    if count == 1:
        assert encoded[0] == 0
    out = bytearray(b"\xa5" * (len(data) + 2 * MARGIN))
    new_codec().decode_delta(
        encoded, bytes(len(data)), codec.DIFFERENCE, width, memoryview(out)[MARGIN : MARGIN + len(data)]
    )
    assert out == b"\xa5" * MARGIN + data + b"\xa5" * MARGIN


def test_a_sparse_plane_takes_a_sixth_less_than_as_it_is():
    """Of 70 % zeros, each other byte one of four."""
    chooser = random.Random(2)
    changed = bytes(byte for low in chooser.choices(range(5), (70, 7.5, 7.5, 7.5, 7.5), k=32_768) for byte in (low, 0))
    encoded = new_codec().encode_delta(applied(changed, 2), bytes(len(changed)), codec.DIFFERENCE, 2, 1)
    assert len(encoded) < 5 / 6 * len(zstandard.ZstdCompressor(1).compress(shuffled(changed, 2)))


def test_bytes_that_are_set_side_by_side_are_left_to_zstandard():
    changed = with_planes(4096, (0.06, 0.0, 0.0, 0.0), run=64)
    data = applied(changed, 4)
    assert new_codec().encode_delta(data, bytes(len(data)), codec.DIFFERENCE, 4, 1)[0] == 0


def test_packed_planes_that_are_not_whole_are_refused():
    count, width = 40, 2
    plane = bytes(range(1, count + 1))
    full = b"\xff" * 5
    good = {0: plane + plane, 1: b"\x03\0\0\0\x80" + b"abc" + plane, 3: b"\xff\xff\0\0\0" + plane[:16] + b"\0" * 5}
    bad = [(0, plane), (0, plane + plane[1:]), (1, full + plane[:-1]), (1, full[:4]), (4, plane + plane), (3, b""),
           (3, b"\0" * 5), (3, b"\0" * 11), (2, plane + b"\x01\0\0\0\0"), (2, plane + b"\0\0\0\0\x80"), (1, b"")]  # fmt: skip
    base = bytes(count * width)

    def decode(sparse, content):
        out = bytearray(b"\xa5" * (len(base) + 2 * MARGIN))
        encoded = sealed(bytes([sparse]) + zstandard.ZstdCompressor().compress(content))
        try:
            new_codec().decode_delta(
                encoded, base, codec.DIFFERENCE, width, memoryview(out)[MARGIN : MARGIN + len(base)]
            )
        finally:
            assert out[:MARGIN] == out[-MARGIN:] == b"\xa5" * MARGIN
        return bytes(out[MARGIN:-MARGIN])

    for sparse, content in good.items():
        changed = unpacked(content, sparse, len(base), width)
        assert shuffled(differences(decode(sparse, content), base, width), width) == changed
    for sparse, content in bad:
        with pytest.raises(CorruptObject):
            decode(sparse, content)
    with pytest.raises(CorruptObject):
        new_codec().decode_delta(sealed(b""), base, codec.DIFFERENCE, width, bytearray(len(base)))


@pytest.mark.parametrize("name", PAIRS)
def test_round_trip_into_exactly_its_place(name):
    data, base = PAIRS[name]
    for number, width in forms(len(data), len(base)):
        encoded = new_codec().encode_delta(data, base, number, width, 1)
        assert codec.delta_seal_is_right(encoded)
        out = bytearray(b"\xa5" * (len(data) + 2 * MARGIN))
        new_codec().decode_delta(encoded, base, number, width, memoryview(out)[MARGIN : MARGIN + len(data)])
        assert out == b"\xa5" * MARGIN + data + b"\xa5" * MARGIN


@given(
    base=st.binary(min_size=1, max_size=600), edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=9))),
    level=st.sampled_from([-1, 1, 3, 9]),
)  # fmt: skip
def test_any_edits_come_back(base, edits, level):
    data = base
    for at, new in edits:
        at %= len(data) + 1
        data = data[:at] + new + data[at + len(new) // 2 :]
    for number, width in forms(len(data), len(base)):
        encoded = new_codec().encode_delta(data, base, number, width, level)
        out = bytearray(len(data))
        new_codec().decode_delta(encoded, base, number, width, out)
        assert out == data


def test_what_is_stored_is_what_the_format_says():
    for name, width in itertools.product(("edited", "unrelated"), (0, 2, 4, 8)):
        data, base = PAIRS[name]
        encoded = new_codec().encode_delta(data, base, codec.DIFFERENCE, width, 1)
        assert differs(encoded, len(data), width) == shuffled(differences(data, base, width), width)
        assert int.from_bytes(encoded[-SEAL:], "little") == xxh3(encoded[:-SEAL])
    # A frame that needs nothing of its base is an ordinary one: nothing else is in a delta.
    assert unzip(new_codec().encode_delta(data, b"?", codec.PREFIX, 0, 1)[:-SEAL]) == data


def block_lengths(frame):
    """How many bytes each block of a Zstandard frame decodes to, by RFC 8878 (a block that is compressed: 0)."""
    descriptor, at = frame[4], 5
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    at += (not single) + ((1 if single else 0) if flag == 0 else 1 << flag)
    lengths, last = [], False
    while not last:
        header = int.from_bytes(frame[at : at + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        lengths.append(0 if kind == 2 else size)
        at += 3 + (1 if kind == 1 else size)
    assert at == len(frame)
    return lengths


def test_planes_of_noise_and_planes_of_none_get_blocks_of_their_own():
    for width in (2, 4, 8):
        data, base = moved(width, width // 2)
        frame = new_codec().encode_delta(data, base, codec.DIFFERENCE, width, 1)[1:-SEAL]
        assert block_lengths(frame) == [4000 * width, 4000 * width]
        assert len(frame) < 4000 * width + 40


def test_planes_that_are_alike_share_a_block():
    data, base = PAIRS["edited"]
    assert len(block_lengths(new_codec().encode_delta(data, base, codec.DIFFERENCE, 8, 1)[1:-SEAL])) == 1
    assert len(block_lengths(new_codec().encode_delta(NOISE, base[::-1], codec.DIFFERENCE, 8, 1)[1:-SEAL])) == 1


def test_a_prefix_is_used_wherever_it_lies():
    base = random.Random(5).randbytes(5 << 20)
    for length, level in ((300_000, 1), (1 << 20, 1), (3_000_000, 1), (1 << 20, 3), (3_000_000, 3), (5 << 20, 3)):
        for at in (0, length // 2, length - 40_000):
            encoded = new_codec().encode_delta(base[at : at + 40_000], base[:length], codec.PREFIX, 0, level)
            assert len(encoded) < 4000, (length, at)


def test_a_prefix_is_not_forgotten_in_a_long_chunk():
    data = bytes(600_000) + NOISE
    assert len(new_codec().encode_delta(data, NOISE, codec.PREFIX, 0, 1)) < 2000


def test_a_wrong_base_gives_other_bytes_or_is_refused():
    data, base = PAIRS["edited"]
    wrong = edited(base, 2, 4000)
    for number, width in forms(len(data), len(base)):
        encoded = new_codec().encode_delta(data, base, number, width, 1)
        out = bytearray(len(data))
        new_codec().decode_delta(encoded, wrong, number, width, out)
        assert out != data
    with pytest.raises(CorruptObject, match="base"):
        new_codec().decode_delta(encoded, base[:-1], codec.DIFFERENCE, 8, bytearray(len(data)))


def sealed(frame):
    return frame + xxh3(frame).to_bytes(SEAL, "little")


@pytest.mark.parametrize(("number", "width"), [(codec.PREFIX, 0), (codec.DIFFERENCE, 0), (codec.DIFFERENCE, 4)])
def test_truncated_and_flipped_deltas_are_refused_and_write_nowhere_else(number, width):
    base = NOISE[:3000]
    data = edited(base, 6)
    encoded = new_codec().encode_delta(data, base, number, width, 1)
    decoder, out = new_codec(), bytearray(b"\xa5" * (len(data) + 2 * MARGIN))
    into = memoryview(out)[MARGIN : MARGIN + len(data)]
    chooser = random.Random(7)

    def refused(bad, *also):
        try:
            decoder.decode_delta(bad, base, number, width, into)
        except CorruptObject:
            pass
        else:
            assert also
        assert out[:MARGIN] == out[-MARGIN:] == b"\xa5" * MARGIN

    for end in range(len(encoded)):
        refused(encoded[:end])
        # Truncated by somebody who seals it anew: the frame itself is refused.
        refused(sealed(encoded[: min(end, len(encoded) - SEAL - 1)]))
        flipped = bytearray(encoded)
        flipped[end] ^= 1 << chooser.randrange(8)
        assert not codec.delta_seal_is_right(flipped)
        refused(bytes(flipped))
        if end < len(encoded) - SEAL:
            # This one may decode, to other bytes of the same length.
            refused(sealed(bytes(flipped[:-SEAL])), "may decode")
    decoder.decode_delta(encoded, base, number, width, into)
    assert into == data


@pytest.mark.parametrize("wrong", [-1, 1, 100])
def test_another_length_than_the_deltas_is_corrupt(wrong):
    data, base = PAIRS["shifted"]
    encoded = new_codec().encode_delta(data, base, codec.PREFIX, 0, 1)
    with pytest.raises(CorruptObject):
        new_codec().decode_delta(encoded, base, codec.PREFIX, 0, bytearray(len(data) + wrong))


def test_what_is_not_a_delta_is_refused():
    frame = sealed(b"frame")
    with pytest.raises(Unsupported, match="codec 5"):
        new_codec().decode_delta(frame, b"base", 5, 0, bytearray(4))
    with pytest.raises(CorruptObject, match="width"):
        new_codec().decode_delta(frame, b"base", codec.PREFIX, 4, bytearray(4))
    with pytest.raises(CorruptObject, match="width"):
        new_codec().decode_delta(frame, b"base", codec.DIFFERENCE, 3, bytearray(4))
    with pytest.raises(CorruptObject, match="seal"):
        new_codec().decode_delta(b"1234567", b"base", codec.DIFFERENCE, 0, bytearray(4))


@pytest.mark.parametrize(
    ("base", "number", "width"),
    [(b"12345", codec.ZSTD, 0), (b"12345", codec.PREFIX, 2), (b"12345", codec.DIFFERENCE, 16), (b"1234", codec.DIFFERENCE, 0),
     (bytes(codec.CHUNK_LIMIT + 1), codec.PREFIX, 0)],
)  # fmt: skip
def test_what_no_reader_would_take_is_not_encoded(base, number, width):
    with pytest.raises(ValueError):
        new_codec().encode_delta(b"12345", base, number, width, 1)


def test_a_chunk_beyond_the_limit_is_not_encoded():
    with pytest.raises(ValueError, match="limit"):
        new_codec().encode_delta(bytes(codec.CHUNK_LIMIT + 1), b"base", codec.PREFIX, 0, 1)


def test_nothing_of_a_delta_is_left_for_the_next_call():
    """One context, delta before each kind of call: what comes out is what a new context gives."""
    data, base = PAIRS["edited"]
    plain = new_codec().encode(data, [len(data)], codec.ZSTD, 0, 1, 2.0)
    deltas = {form: new_codec().encode_delta(data, base, *form, 1) for form in forms(len(data), len(base))}
    used = new_codec()

    def stir():
        used.encode_delta(data, base, codec.PREFIX, 0, 9)
        # Refused for want of room, in the middle of a frame: with a prefix, and without in the second block and before
        # the first is full.
        assert used.encode_delta(data, base, codec.PREFIX, 0, 3, 50) == b""
        for most in (4030, 100):
            assert used.encode_delta(*moved(4, 2), codec.DIFFERENCE, 4, 1, most) == b""
        # Refused before its frame is begun: the prefix must not wait for the next.
        with pytest.raises(CorruptObject):
            used.decode_delta(sealed(b"no frame"), base, codec.PREFIX, 0, bytearray(100))

    stir()
    again = used.encode(data, [len(data)], codec.ZSTD, 0, 1, 2.0)
    assert (bytes(again[0]), again[1]) == (bytes(plain[0]), plain[1])
    for form, encoded in deltas.items():
        stir()
        assert used.encode_delta(data, base, *form, 1) == encoded
        stir()
        out = bytearray(len(data))
        used.decode_delta(encoded, base, *form, out)
        assert out == data
    # A frame that needs a prefix does not decode as an ordinary one, whatever was decoded before.
    stir()
    frame = deltas[codec.PREFIX, 0][:-SEAL]
    with pytest.raises(CorruptObject):
        used.decode(frame, bytearray(len(data)), [(0, len(frame), codec.ZSTD, 0, 0, len(data))])


def test_a_bomb_is_stopped_at_the_claimed_size():
    base = bytes(codec.CHUNK_LIMIT)
    for number in (codec.PREFIX, codec.DIFFERENCE):
        encoded = new_codec().encode_delta(bytes(codec.CHUNK_LIMIT), base, number, 0, 1)
        assert len(encoded) < 3000
        with pytest.raises(CorruptObject):
            new_codec().decode_delta(encoded, base[:1000], number, 0, bytearray(1000))
