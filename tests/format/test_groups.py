"""Groups in recipes, packs and index fragments: where a chunk starts, and every place that makes no sense."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfstore import errors
from mfstore._core.codec import CHUNK_LIMIT, GROUP, GROUP_LIMIT, NONE, PREFIX, ZSTD, Codec
from mfstore.errors import CorruptObject
from mfstore.format import fragments, packs, recipes
from mfstore.format.about import encode_about
from mfstore.format.digests import digest_function
from mfstore.format.packs import PackBuilder, PackEntry
from mfstore.format.recipes import INLINE, RAW, Artifact, BaseChunk, ChunkRef, Piece, Placement

CODEC = Codec(errors)
DIGEST = digest_function(1)
PACK = b"\1" * 32
END = 100_000
"""Where the trailers here begin in their packs."""


def chunk_id(number):
    return DIGEST(struct.pack("<Q", number))


def recipe(sizes, placements, bases=(), inline=b""):
    chunks = [ChunkRef(chunk_id(number), size) for number, size in enumerate(sizes)]
    content = recipes.encode_content(recipes.ONE, 1, [Artifact("", RAW, sum(sizes), None, (), chunks)])
    return recipes.decode(
        b"".join(recipes.encode(1, content, encode_about(["bytes"]), [PACK], placements, [inline], CODEC, bases)), CODEC
    )


def listed(*entries):
    """What a trailer of these is read as."""
    trailer = b"".join(map(packs.encode_entry, entries))
    footer = packs.encode_footer(len(entries), 1, END, bytes(16), trailer)
    return packs.entries_of(DIGEST, DIGEST(trailer), trailer, footer, END)


def member(number, start, usize, **changed):
    return PackEntry(chunk_id(number), 64, 500, usize, GROUP, start)._replace(**changed)


starts = st.integers(0, GROUP_LIMIT - 1)


@given(start=starts, data=st.data())
def test_a_recipe_says_where_in_its_group_a_chunk_starts(start, data):
    size = data.draw(st.integers(1, GROUP_LIMIT - start))
    pack = data.draw(st.sampled_from([0, INLINE]))
    placements = [Placement(pack, 64, 30, GROUP, start), Placement(0, 64, 30, ZSTD, 0)]
    assert recipe([size, 9], placements, inline=bytes(94)).placements == placements


@given(start=starts, data=st.data())
def test_so_do_base_chunks(start, data):
    size = data.draw(st.integers(1, GROUP_LIMIT - start))
    base = BaseChunk(chunk_id(5), 0, 64, 30, size, GROUP, start)
    found = recipe([7], [Placement(0, 94, 20, PREFIX, 0, (Piece(0, 0, size),))], [base])
    assert found.bases == (base,)


@given(start=starts, data=st.data())
def test_so_do_trailers_and_index_fragments(start, data):
    entries = [member(1, start, data.draw(st.integers(1, GROUP_LIMIT - start)))]
    assert listed(*entries) == entries
    found = fragments.decode_fragment(fragments.encode_fragment([(PACK, entries)], 1), "index/x")
    location = found.location(0)
    assert (location.pack.value, *location[1:]) == (PACK, *entries[0][1:])
    assert location.placement(3) == Placement(3, 64, 500, GROUP, start)
    assert [tuple(row) for row in fragments.decode_rows(found.entries)] == [
        (entries[0].id, 0, 500, 64, entries[0].usize, GROUP, start)
    ]


def test_the_bytes_are_those_of_the_documentation():
    entry = packs.encode_entry(member(1, 0x1F3456, 0x1000))
    assert entry[48:] == bytes([7, 0x56, 0x34, 0x1F, 0, 0, 0, 0])
    data = fragments.encode_fragment([(PACK, [member(1, 0x1F3456, 0x1000)])], 1)
    assert data[-4:] == bytes([7, 0x56, 0x34, 0x1F])


def test_nothing_lies_outside_its_group():
    with pytest.raises(CorruptObject, match="chunk lies outside its group"):
        recipe([2], [Placement(0, 64, 30, GROUP, GROUP_LIMIT - 1)])
    with pytest.raises(CorruptObject, match="base chunk lies outside its group"):
        recipe(
            [7],
            [Placement(0, 94, 20, PREFIX, 0, (Piece(0, 0, 2),))],
            [BaseChunk(chunk_id(5), 0, 64, 30, 2, GROUP, GROUP_LIMIT - 1)],
        )
    with pytest.raises(CorruptObject, match="chunk lies outside its group"):
        listed(member(1, GROUP_LIMIT - 1, 2))
    data = fragments.encode_fragment([(PACK, [member(1, GROUP_LIMIT - 1, 2)])], 1)
    assert fragments.decode_fragment(data, "index/x").location(0) is None


@pytest.mark.parametrize(
    "entries",
    [
        [member(1, 0, 100), member(2, 100, 50), member(3, 150, 1)],
        [member(3, 150, 1), member(1, 0, 100), member(2, 120, 20)],
        [
            member(1, 0, 100),
            member(2, 100, 50),
            member(3, 0, 100, offset=564),
            member(4, 0, 9, offset=1064, codec=NONE),
        ],
    ],
    ids=["side by side", "with gaps, in another order", "two groups"],
)
def test_chunks_of_one_group_share_its_place(entries):
    assert listed(*entries) == entries


@pytest.mark.parametrize(
    "entries",
    [
        [member(1, 0, 100), member(2, 99, 50)],
        [member(1, 0, 100), member(2, 0, 100)],
        [member(1, 0, 100), member(2, 100, 50, csize=400)],
        [member(1, 0, 100), member(2, 100, 50, csize=600)],
        [member(1, 0, 100), member(2, 100, 50, offset=563)],
        [member(1, 0, 100), member(2, 100, 50, codec=ZSTD, width=0)],
        [member(1, 0, 100, codec=ZSTD, width=0), member(2, 100, 50)],
        [member(1, 0, 100, codec=ZSTD, width=0), member(2, 0, 50, codec=ZSTD, width=200)],
    ],
    ids=[
        "overlap", "the same bytes", "another end", "a later end", "another offset", "one in no group",
        "the first in no group", "both in none",
    ],
)  # fmt: skip
def test_other_chunks_that_lie_in_the_same_bytes_are_damage(entries):
    with pytest.raises(CorruptObject, match="lie in the same bytes"):
        listed(*entries)


def test_a_pack_is_built_of_groups_too():
    builder = PackBuilder(1)
    group, _ = CODEC.encode_group(b"one chunk and another one" * 40, [400, 1000], 3, 0.9)
    builder.add(memoryview(b"raw"), [(chunk_id(0), 3, 3)], NONE, 0, False)
    builder.add_group(group, [(chunk_id(1), 0, 400), (chunk_id(2), 400, 600)])
    builder.add(memoryview(b"more"), [(chunk_id(3), 4, 4)], NONE, 0, False)
    assert builder.held == len(group)
    entries = [
        PackEntry(chunk_id(0), 64, 3, 3, NONE, 0),
        PackEntry(chunk_id(1), 67, len(group), 400, GROUP, 0),
        PackEntry(chunk_id(2), 67, len(group), 600, GROUP, 400),
        PackEntry(chunk_id(3), 67 + len(group), 4, 4, NONE, 0),
    ]
    assert builder.entries == entries
    _, parts = builder.close(DIGEST)
    data = b"".join(map(bytes, parts))
    assert data[67:][: len(group)] == group
    at, count = packs.decode_footer(data[-64:], len(data))
    assert count == 4
    assert list(packs.decode_trailer(data[at:-64], data[-64:], at)) == entries
    assert len({packs.place_of(e.offset, e.codec, e.width) for e in entries}) == 4


def test_a_chunk_may_not_be_longer_than_any_in_or_out_of_a_group():
    with pytest.raises(CorruptObject, match="lies outside its pack"):
        listed(member(1, 0, CHUNK_LIMIT + 1, codec=ZSTD))
