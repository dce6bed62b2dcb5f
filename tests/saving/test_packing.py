"""In which pack a chunk lies, when a pack is full, and what is told of it."""

from mfstore._core.codec import NONE, PLANES, ZSTD
from mfstore.format.packs import ALIGN_FROM, HEADER, PAGE, decode_footer, decode_trailer, pack_path
from mfstore.saving import packing
from mfstore.saving.codecs import EncodedChunk
from mfstore.saving.context import SessionStats
from mfstore.saving.packing import PackWriter
from tests.rigs.parts import DIGEST, KIB, MIB, noise, parts, run_of


class Writer:
    """A pack writer, with what it tells."""

    def __init__(self, **options):
        self.backend = (made := parts(**options)).backend
        self.located, self.written = {}, SessionStats()
        self.packs = PackWriter(made.context, made.backend.batch(), self.located, self.written)

    def add(self, run, encoded=None):
        self.packs.add(run, 0, len(run.ends), encoded)
        return run

    def stored(self):
        """Bytes of each stored pack by name."""
        return {info.key.rpartition("/")[2]: info.size for info in self.backend.list("packs/")}


def raw(data, *ends, held=True):
    return run_of(data, *ends, held=held, hashed=True)


def test_a_chunk_is_located_at_once_and_its_pack_named_when_it_is_closed():
    writer = Writer()
    run = writer.add(raw(noise(1, 300), 100, 300))
    first, second = (writer.located[chunk_id] for chunk_id in run.ids)
    assert first[1:] == (HEADER.size, 100, 100, NONE, 0)
    assert second[1:] == (HEADER.size + 100, 200, 200, NONE, 0)
    assert first.pack is second.pack
    assert first.pack.value == b""
    assert writer.stored() == {}
    writer.packs.close()
    name = first.pack.value.hex()
    assert writer.packs.names == first.pack.value
    assert writer.stored() == {name: writer.packs.sizes[first.pack.value]} == {name: writer.written.stored}
    assert writer.written.objects == 1
    assert writer.written.codecs == {"raw": 300}


def test_the_stored_pack_describes_itself_as_the_index_is_told():
    writer = Writer()
    writer.add(raw(noise(1, 300), 100, 300))
    writer.packs.close()
    ((name, entries),) = writer.packs.take_closed()
    assert writer.packs.take_closed() == []
    data = writer.backend.get(pack_path(name.hex()))
    footer = data[-64:]
    trailer_at, count = decode_footer(footer, len(data))
    assert list(decode_trailer(data[trailer_at:-64], footer, trailer_at)) == entries
    assert count == 2
    for entry in entries:
        assert DIGEST(data[entry.offset : entry.offset + entry.csize]) == entry.id


def test_nothing_is_stored_for_nothing():
    writer = Writer()
    writer.packs.close()
    assert writer.packs.take_closed() == []
    assert writer.stored() == {}


def test_encoded_and_raw_chunks_of_one_run_lie_side_by_side():
    writer = Writer()
    run = raw(noise(1, 600), 200, 400, 600)
    chunks = [(b"a" * 50, ZSTD, 4), (run.view[200:400], NONE, 0), (b"c" * 70, PLANES, 4)]
    writer.add(run, [EncodedChunk(*chunk) for chunk in chunks])
    places = [writer.located[chunk_id][1:] for chunk_id in run.ids]
    at = HEADER.size
    assert places == [(at, 50, 200, ZSTD, 4), (at + 50, 200, 200, NONE, 0), (at + 250, 70, 200, PLANES, 4)]
    writer.packs.close()
    (name,) = writer.stored()
    stored = writer.backend.get(pack_path(name))[at : at + 320]
    assert stored == b"a" * 50 + bytes(run.view[200:400]) + b"c" * 70
    assert writer.written.codecs == {"zstd+shuffle": 200, "raw": 200, "planes": 200}


def test_a_full_pack_is_closed_before_the_next_run():
    writer = Writer(memory=4 * MIB)  # a pack of 1 MiB
    for seed in range(3):
        writer.add(raw(noise(seed, 600 * KIB)))
    assert len(writer.stored()) == 1
    writer.packs.close()
    assert len(writer.stored()) == 2


def test_a_raw_run_stays_in_one_pack_whatever_its_length():
    writer = Writer(memory=4 * MIB)
    run = raw(noise(1, 3 * MIB), MIB, 2 * MIB, 3 * MIB, held=False)
    for number in range(3):
        writer.packs.add(run, number, number + 1, None)
    first, *_, last = (writer.located[chunk_id] for chunk_id in run.ids)
    assert first.pack is last.pack
    assert first.offset % PAGE == 0  # so that it can be mapped
    assert last.offset == first.offset + 2 * MIB


def test_far_away_a_short_run_may_fill_a_pack_beyond_its_limit():
    """A further pack is two more requests there."""
    for remote, packs in ((False, 2), (True, 1)):
        writer = Writer(memory=4 * MIB, remote=remote)
        writer.add(raw(noise(1, MIB)))
        writer.add(raw(noise(2, 10 * KIB)))
        writer.packs.close()
        assert len(writer.stored()) == packs
    assert 10 * KIB < ALIGN_FROM < packing.PACK_OVERRUN


def test_memory_that_is_lent_is_copied_when_its_owner_wants_it_back():
    writer = Writer()
    memory = bytearray(noise(1, 1000))
    run = writer.add(raw(memory, held=False))
    before = bytes(memory)
    assert writer.packs.borrowed == 1000
    writer.packs.copy_borrowed()
    assert writer.packs.borrowed == 0
    memory[:] = bytes(1000)
    writer.packs.close()
    (name,) = writer.stored()
    at = writer.located[run.ids[0]].offset
    assert writer.backend.get(pack_path(name))[at : at + 1000] == before
