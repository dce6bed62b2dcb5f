"""Which reads bring chunks from packs to memory. Nothing is read here."""

from mfstore._core.codec import NONE, ZSTD
from mfstore.format.recipes import INLINE, ChunkRef, Placement, Recipe
from mfstore.loading.reads import ChunkRead, plan_reads, raw_run


def chunk(pack, offset, size, usize=None, codec=NONE, width=0, target=None):
    usize = size if usize is None else usize
    target = memoryview(bytearray(usize)) if target is None else target
    return ChunkRead(pack, Placement(0, offset, size, codec, width), ChunkRef(bytes(32), usize), target)


def spans(reads):
    return [(read.pack, read.start, read.end, len(read.chunks)) for read in reads]


# ---- plans --------------------------------------------------------------------------


def test_chunks_with_small_gaps_are_one_read():
    chunks = [chunk("a", 64, 100), chunk("a", 174, 100), chunk("a", 285, 100)]
    assert spans(plan_reads(chunks, gap=10, span=1000)) == [("a", 64, 274, 2), ("a", 285, 385, 1)]


def test_the_order_of_what_is_wanted_does_not_matter():
    chunks = [chunk(pack, offset, 10) for pack in "ab" for offset in (64, 74, 84)]
    assert spans(plan_reads(reversed(chunks), 0, 1000)) == [("a", 64, 94, 3), ("b", 64, 94, 3)]


def test_no_read_is_longer_than_the_span():
    chunks = [chunk("a", 64 + 40 * number, 40) for number in range(5)]
    assert spans(plan_reads(chunks, 0, 100)) == [("a", 64, 144, 2), ("a", 144, 224, 2), ("a", 224, 264, 1)]


def test_nor_what_it_decodes_to():
    chunks = [chunk("a", 64 + 4 * number, 4, usize=40, codec=ZSTD) for number in range(5)]
    reads = plan_reads(chunks, 0, 100)
    assert [len(read.chunks) for read in reads] == [2, 2, 1]
    assert [read.decoded for read in reads] == [80, 80, 40]


def test_a_chunk_longer_than_the_span_is_read_alone():
    chunks = [chunk("a", 64, 10), chunk("a", 74, 500), chunk("a", 574, 10)]
    assert spans(plan_reads(chunks, 0, 100)) == [("a", 64, 74, 1), ("a", 74, 574, 1), ("a", 574, 584, 1)]


def test_a_chunk_that_is_wanted_twice_is_read_once():
    chunks = [chunk("a", 64, 100), chunk("a", 64, 100), chunk("a", 164, 10)]
    assert spans(plan_reads(chunks, 0, 1000)) == [("a", 64, 174, 3)]


def test_nothing_wanted_nothing_read():
    assert plan_reads([], 0, 100) == []


# ---- reading in place ---------------------------------------------------------------


def in_place(chunks):
    (read,) = plan_reads(chunks, 1000, 1 << 20)
    return read.in_place(), read.target


def test_raw_neighbours_with_neighbouring_targets_are_read_straight_into_them():
    memory = bytearray(300)
    view = memoryview(memory)
    found, noted = in_place([chunk("a", 64, 100, target=view[50:150]), chunk("a", 164, 60, target=view[150:210])])
    assert found is noted
    found[:] = b"x" * 160
    assert memory == bytes(50) + b"x" * 160 + bytes(90)


def test_one_raw_chunk_is_read_straight_into_its_target():
    target = memoryview(bytearray(100))
    assert in_place([chunk("a", 64, 100, target=target)])[0] is target


def test_what_is_not_raw_or_not_side_by_side_is_not():
    view = memoryview(bytearray(300))
    near, far = view[0:100], view[200:300]
    elsewhere = memoryview(bytearray(100))
    for second in (
        chunk("a", 164, 100, target=far),  # not there
        chunk("a", 164, 100, target=elsewhere),
        chunk("a", 174, 100, target=view[100:200]),  # not here
        chunk("a", 164, 50, 100, ZSTD, target=view[100:200]),
        chunk("a", 164, 100, width=8, target=view[100:200]),
        chunk("a", 164, 90, 100, target=view[100:200]),
    ):
        assert in_place([chunk("a", 64, 100, target=near), second]) == (None, None)


# ---- what can be mapped -------------------------------------------------------------


def recipe(*placements):
    return Recipe(1, 1, b"", (), packs=(b"a" * 32, b"b" * 32), placements=placements)


def test_raw_chunks_back_to_back_can_be_mapped():
    found = recipe(Placement(0, 0, 9, ZSTD, 0), Placement(1, 4096, 100, NONE, 0), Placement(1, 4196, 50, NONE, 0))
    assert raw_run(found, 1, 2) == ((b"b" * 32).hex(), 4096)
    assert raw_run(found, 0, 2) is None


def test_what_cannot_be_mapped():
    raw = Placement(0, 64, 100, NONE, 0)
    assert raw_run(recipe(), 0, 0) is None
    assert raw_run(recipe(Placement(INLINE, 0, 100, NONE, 0)), 0, 1) is None
    for second in (
        Placement(0, 165, 100, NONE, 0), Placement(1, 164, 100, NONE, 0), Placement(0, 164, 100, NONE, 4),
        Placement(0, 164, 100, ZSTD, 0), Placement(INLINE, 164, 100, NONE, 0),
    ):  # fmt: skip
        assert raw_run(recipe(raw, second), 0, 2) is None
