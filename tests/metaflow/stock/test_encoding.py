"""The gzip of Metaflow's content-addressed store: read by everybody, in parallel by us."""

import gzip
import os
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore.errors import CorruptObject
from mfstore.host.workers import Workers
from mfstore.metaflow.stock import encoding
from mfstore.metaflow.stock.encoding import (
    GZIP_TRAILER_BYTES,
    MEMBER_BYTES,
    decode,
    digest_of,
    encode,
    fits_key,
    key_of,
    pieces,
    tail_fits,
)
from tests.rigs.soak import lasting

POOL = Workers(2)


def workers():
    return POOL


SIZES = [
    0, 1, 9, 100, 65535, 65536, 70_000, MEMBER_BYTES - 1, MEMBER_BYTES, MEMBER_BYTES + 1, 2 * MEMBER_BYTES,
    2 * MEMBER_BYTES + 70_000,
]  # fmt: skip


def kinds(size):
    rng = random.Random(size)
    yield rng.randbytes(size)
    yield bytes(size)
    yield (b"the quick brown fox %d " % size * (size // 20 + 1))[:size]
    yield (rng.randbytes(size // 2) + bytes(size))[:size]  # part of it compresses


@pytest.mark.second
@pytest.mark.parametrize("size", SIZES)
def test_everybody_reads_what_we_write_and_we_what_everybody_writes(size):
    for blob in kinds(size):
        ours = b"".join(encode(blob, workers))
        assert gzip.decompress(ours) == blob
        assert decode(ours, workers) == b"".join(pieces(ours)) == blob
        for level in (0, 3):
            theirs = gzip.compress(blob, level)
            assert decode(theirs, workers) == b"".join(pieces(theirs)) == blob
            assert max(map(len, pieces(theirs)), default=0) <= MEMBER_BYTES
        assert digest_of(ours) == (key_of(blob), size)
        assert b"".join(encode(blob, lambda: Workers(1))) == ours, "equal blobs give equal bytes"


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_members_of_others_are_read(parts):
    whole = b"".join(map(gzip.compress, parts))
    assert decode(whole, workers) == b"".join(pieces(whole)) == b"".join(parts)


def test_what_does_not_compress_costs_next_to_nothing():
    blob = os.urandom(2 * MEMBER_BYTES)
    assert sum(map(len, encode(blob, workers))) < 1.001 * len(blob)


def test_a_member_that_begins_with_noise_and_then_compresses_is_told_by_its_middle():
    blob = os.urandom(MEMBER_BYTES // 8) + bytes(MEMBER_BYTES - MEMBER_BYTES // 8)
    assert sum(map(len, encode(blob, workers))) < len(blob) // 4


@pytest.mark.second
@settings(deadline=None, max_examples=lasting(100))
@given(data=st.data())
def test_damage_is_an_error_or_changes_nothing(data):
    blob = data.draw(st.sampled_from([b"x" * 5000, random.Random(1).randbytes(5000), b"ab" * MEMBER_BYTES]))
    whole = b"".join(encode(blob, workers))
    kind = data.draw(st.sampled_from(["cut", "flip", "garbage", "longer"]))
    at = data.draw(st.integers(0, min(len(whole), 9000) - 1))
    if kind == "cut":
        damaged = whole[:at]
    elif kind == "flip":
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    elif kind == "garbage":
        damaged = data.draw(st.binary(max_size=200))
    else:
        damaged = whole + data.draw(st.binary(min_size=1, max_size=50))
    for read in (lambda: decode(damaged, workers), lambda: b"".join(pieces(damaged))):
        try:
            found = read()
        except CorruptObject:
            continue
        # Headers hold fields that mean nothing (time, operating system), and zeros may follow the last member.
        assert found == blob


def test_a_length_that_lies_allocates_nothing():
    whole = bytearray(b"".join(encode(b"ab" * MEMBER_BYTES, workers)))
    at = 10 + 2 + 2 + 2 + 8
    whole[at : at + 8] = (1 << 62).to_bytes(8, "little")
    assert decode(bytes(whole), workers) == b"ab" * MEMBER_BYTES, "not taken for one of ours, and read like any gzip"


@pytest.mark.second
@pytest.mark.parametrize("size", SIZES)
def test_the_tail_tells_an_object_of_other_content(size):
    for blob in kinds(size):
        for whole in (b"".join(encode(blob, workers)), gzip.compress(blob, 3)):
            assert tail_fits(whole[-GZIP_TRAILER_BYTES:], len(whole), False, blob)
            assert not size or not tail_fits(whole[:-1][-GZIP_TRAILER_BYTES:], len(whole) - 1, False, blob)
        assert tail_fits(blob[-GZIP_TRAILER_BYTES:], size, True, blob)
        other = blob + b"x"
        assert not tail_fits(other[-GZIP_TRAILER_BYTES:], len(other), True, blob)
        packed = gzip.compress(other)
        assert not tail_fits(packed[-GZIP_TRAILER_BYTES:], len(packed), False, blob)


def test_keys():
    assert key_of(b"abc") == "a9993e364706816aba3e25717850c26c9cd0d89d"
    assert fits_key(key_of(b"abc"), b"abc")
    assert not fits_key(key_of(b"abc"), b"abd")
    assert fits_key("r_" + key_of(b"abc"), b"other"), "keys of other forms promise nothing"


def test_stored_blocks_are_as_the_standard_has_them():
    for size in (0, 1, 65535, 65536, 200_000):
        blob = random.Random(size).randbytes(size)
        assert zlib.decompress(encoding.stored_blocks(memoryview(blob)), -15) == blob


def test_what_others_wrote_is_read_whole_or_not_at_all():
    """gzip of several members and with zeros behind it; ISA-L alone takes a cut trailer for whole."""
    one, two = os.urandom(3000), b"second" * 100
    packed = gzip.compress(one) + gzip.compress(two)
    assert decode(packed, workers) == one + two
    assert decode(packed + b"\0" * 512, workers) == b"".join(pieces(packed + b"\0" * 512)) == one + two
    for cut in (*range(1, 30), len(packed) // 2):
        for read in (lambda data: decode(data, workers), lambda data: b"".join(pieces(data))):
            with pytest.raises(CorruptObject):
                read(packed[:-cut])
    for junk in (b"x", b"\0" * 9 + b"x", packed[:20]):
        for read in (lambda data: decode(data, workers), lambda data: b"".join(pieces(data))):
            with pytest.raises(CorruptObject):
                read(packed + junk)
