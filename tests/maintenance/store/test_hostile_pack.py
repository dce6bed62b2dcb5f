"""A pack of a few KiB that lists much costs verify and repair little."""

import pytest

import mfstore
from mfstore._core.codec import ZSTD, Codec
from mfstore.backends.memory import MemoryBackend
from mfstore.errors import CorruptObject
from mfstore.format.digests import BLAKE3, digest_function
from mfstore.format.packs import (
    FOOTER,
    HEADER,
    MAGIC,
    VERSION,
    PackEntry,
    decode_trailer,
    encode_entry,
    encode_footer,
    pack_path,
)  # fmt: skip
from mfstore.maintenance.store.checking.chunk_check import ChunkCheck
from tests.rigs.damage import wrapped

USIZE = 16 << 20
DIGEST = digest_function(BLAKE3)


def pack_of(entries, body):
    """The bytes of a pack with these chunks, whatever it holds; and its name."""
    trailer = b"".join(encode_entry(entry) for entry in entries)
    footer = encode_footer(len(entries), BLAKE3, HEADER.size + len(body), bytes(16), trailer)
    return DIGEST(trailer).hex(), HEADER.pack(MAGIC, VERSION, 0, BLAKE3) + body + trailer + footer


@pytest.mark.second
def test_no_two_chunks_lie_in_the_same_bytes(monkeypatch):
    memory = MemoryBackend()
    store = wrapped(memory)
    store.put("x")
    packed = bytes(Codec(mfstore.errors).encode(bytes(USIZE), [USIZE], ZSTD, 0, 3, 1.0)[0])
    entries = [
        PackEntry(bytes([n % 256, n // 256, *range(30)]), 64, len(packed), USIZE, ZSTD, 0) for n in range(20_000)
    ]
    name, data = pack_of(entries, packed)
    memory.put(pack_path(name), [data])
    decoded = []
    monkeypatch.setattr(ChunkCheck, "whole", lambda self, *rest: decoded.append(1))
    report = store.verify("full")
    assert [finding.object for finding in report.damage] == [pack_path(name)] and not decoded
    store.repair()
    assert store.verify("full").clean and not decoded


def listed(*places):
    """What a trailer that lists chunks at these places, with their lengths, is read as."""
    entries = [PackEntry(bytes(32), start, length, length, 0, 0) for start, length in places]
    _, data = pack_of(entries, bytes(1000))
    at = HEADER.size + 1000
    return list(decode_trailer(data[at : -FOOTER.size], data[-FOOTER.size :], at)) == entries


def test_chunks_may_lie_in_any_order_and_apart():
    assert listed() and listed((64, 1000)) and listed((64, 10), (74, 10), (500, 1)) and listed((500, 564), (64, 436))


@pytest.mark.parametrize("places", [[(64, 10), (73, 10)], [(100, 10), (64, 37)], [(63, 5)], [(70, 9), (70, 9)]])
def test_chunks_that_overlap_are_damage(places):
    with pytest.raises(CorruptObject, match="same bytes"):
        listed(*places)
