"""Deltas in recipes, packs and index fragments: what a base is made of, and every way in which it can make no sense."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore import errors
from mfstore._core.codec import CHUNK_LIMIT, DELTAS, DIFFERENCE, LZ4, NONE, PREFIX, ZSTD, Codec
from mfstore._core.memory import xxh3
from mfstore.errors import CorruptObject, Unsupported
from mfstore.format import fragments, packs, recipes
from mfstore.format.about import encode_about
from mfstore.format.digests import digest_function
from mfstore.format.packs import PackEntry, PackPiece
from mfstore.format.recipes import INLINE, RAW, Artifact, BaseChunk, ChunkRef, Piece, Placement

CODEC = Codec(errors)
DIGEST = digest_function(1)
PACKS = [bytes([number]) * 32 for number in (1, 2, 3)]


def chunk_id(number):
    return DIGEST(struct.pack("<Q", number))


def stored(sizes, placements, bases, inline=b""):
    """A recipe of one artifact with chunks of these sizes, as stored."""
    chunks = [ChunkRef(chunk_id(number), size) for number, size in enumerate(sizes)]
    content = recipes.encode_content(recipes.ONE, 1, [Artifact("", RAW, sum(sizes), None, (), chunks)])
    return b"".join(recipes.encode(1, content, encode_about(["bytes"]), PACKS, placements, [inline], CODEC, bases))


def forged(flags, placements, *tables):
    """A recipe of chunks of 100 bytes with other flags and tables than a writer would make, sealed."""
    chunks = [ChunkRef(chunk_id(number), 100) for number in range(len(placements))]
    content = recipes.encode_content(recipes.ONE, 1, [Artifact("", RAW, 100 * len(chunks), None, (), chunks)])
    about = b'{"types":["bytes"]}'
    rest = b"".join([content, about, *PACKS, *placements, *tables])
    sizes = (len(content), len(about), len(PACKS), len(placements), 0, len(rest), len(rest), 0)
    header = recipes.HEADER.pack(recipes.MAGIC, 1, flags, 1, 0, *sizes, 0)
    return header[:-8] + struct.pack("<Q", recipes._seal(header, rest)) + rest


def decoded(data):
    return recipes.decode(data, CODEC)


def base(number=0, **changed):
    return BaseChunk(chunk_id(1000 + number), 1, 64, 50, 100, ZSTD, 0)._replace(**changed)


@st.composite
def layouts(draw):
    """Sizes, placements and base chunks of a recipe, of whose base chunks each is used."""
    bases = [
        base(number, pack=draw(st.integers(0, 2)), offset=draw(st.integers(0, 2**40)), usize=draw(st.integers(1, 9000)),
             csize=draw(st.integers(0, 9000)), codec=draw(st.sampled_from([NONE, LZ4, ZSTD])),
             width=draw(st.sampled_from([0, 2, 4, 8])))
        for number in range(draw(st.integers(0, 4)))
    ]  # fmt: skip
    placements, sizes, used = [], [], set()
    for _ in range(draw(st.integers(1, 8))):
        size = draw(st.integers(1, 9000))
        placement = Placement(draw(st.integers(0, 2)), draw(st.integers(0, 2**40)), 10, draw(st.integers(0, 2)), 0)
        if bases and draw(st.booleans()):
            pieces = []
            for number in draw(st.lists(st.integers(0, len(bases) - 1), min_size=1, max_size=4)):
                start = draw(st.integers(0, bases[number].usize - 1))
                pieces.append(Piece(number, start, draw(st.integers(1, bases[number].usize - start))))
                used.add(number)
            length = sum(piece.length for piece in pieces)
            if draw(st.booleans()):
                size = length
            codec = draw(st.sampled_from([PREFIX, DIFFERENCE] if size == length else [PREFIX]))
            placement = placement._replace(codec=codec, pieces=tuple(pieces))
        placements.append(placement)
        sizes.append(size)
    for number in set(range(len(bases))) - used:
        placements.append(Placement(INLINE, 0, 10, PREFIX, 0, (Piece(number, 0, 1),)))
        sizes.append(3)
    return sizes, placements, bases


@settings(max_examples=200, deadline=None)
@given(layouts())
def test_what_is_written_is_read(layout):
    sizes, placements, bases = layout
    found = decoded(stored(sizes, placements, bases, b"x" * 10))
    assert found.placements == placements
    assert found.bases == tuple(bases)
    assert [chunk.usize for chunk in found.artifacts[0].chunks] == sizes


@settings(max_examples=200, deadline=None)
@given(layouts(), st.data())
def test_what_is_changed_is_refused_or_makes_sense(layout, data):
    """Whatever bytes of base chunks and pieces are others: an error of ours, or pieces within their chunks."""
    sizes, placements, bases = layout
    pieces = sum(len(placement.pieces) for placement in placements)
    whole = stored(sizes, placements, bases, b"x" * 10)
    fields = list(recipes.HEADER.unpack_from(whole))
    if fields[2] & recipes.COMPRESSED or not pieces:
        return
    tables = bytearray(whole[recipes.HEADER.size :][: fields[10]])
    changed = len(tables) - pieces * 12 - len(bases) * 56 - len(placements) * 24
    at = data.draw(st.integers(changed, len(tables) - 1))
    tables[at] = data.draw(st.integers(0, 255))
    header = recipes.HEADER.pack(*fields[:-1], 0)
    try:
        found = decoded(header[:-8] + struct.pack("<Q", recipes._seal(header, tables)) + bytes(tables) + b"x" * 10)
    except (CorruptObject, Unsupported):
        return
    for placement in found.placements:
        assert bool(placement.pieces) == (placement.codec in DELTAS)
        for piece in placement.pieces:
            assert 0 < piece.length <= found.bases[piece.chunk].usize - piece.start


def test_recipes_without_deltas_are_as_before():
    """Byte for byte, but for the nonce and the seals that cover it."""
    places = [Placement(0, 64, 90, ZSTD, 4), Placement(INLINE, 0, 10, NONE, 0)]
    data = stored([100, 10], places, [], b"x" * 10)
    fields = recipes.HEADER.unpack_from(data)
    assert fields[2] & ~recipes.COMPRESSED == 0
    tables = bytearray(fields[11])
    if fields[2]:
        CODEC.decode(data[64:], tables, [(0, fields[10], ZSTD, 0, 0, fields[11])])
    else:
        tables[:] = data[64 : 64 + fields[10]]
    table = struct.pack("<IBBHQII", 0, ZSTD, 4, 0, 64, 90, 0) + struct.pack("<IBBHQII", INLINE, 0, 0, 0, 0, 10, 0)
    assert tables[-48:] == table
    assert tables[-48 - 96 : -48] == b"".join(PACKS)
    assert decoded(data).bases == ()


def delta(*pieces, codec=PREFIX):
    return Placement(0, 64, 10, codec, 0, pieces or (Piece(0, 0, 100),))


@pytest.mark.parametrize(
    ("message", "placements", "bases"),
    [
        ("a pack the recipe does not list", [delta()], [base(pack=3)]),
        ("a pack the recipe does not list", [delta()], [base(pack=INLINE)]),
        ("claims too much or nothing", [delta()], [base(usize=0)]),
        ("claims too much or nothing", [delta()], [base(usize=CHUNK_LIMIT + 1)]),
        ("claims too much or nothing", [delta()], [base(csize=CHUNK_LIMIT + 1)]),
        ("a base chunk is a delta itself", [delta()], [base(codec=PREFIX)]),
        ("a base chunk is a delta itself", [delta()], [base(codec=DIFFERENCE)]),
        ("lists a base chunk twice", [delta(Piece(0, 0, 1), Piece(1, 0, 1))], [base(), base(offset=1)]),
        ("is of no use to any delta", [delta()], [base(), base(1)]),
        ("of a base chunk the recipe does not list", [delta(Piece(1, 0, 1))], [base()]),
        ("outside its base chunk, or is empty", [delta(Piece(0, 1, 100))], [base()]),
        ("outside its base chunk, or is empty", [delta(Piece(0, 1, 2**32 - 1))], [base()]),
        ("outside its base chunk, or is empty", [delta(Piece(0, 0, 0))], [base()]),
        ("too long or nothing", [delta(*[Piece(0, 0, CHUNK_LIMIT)] * 2)], [base(usize=CHUNK_LIMIT)]),
        (
            "too many bytes of chunks",
            [delta(*[Piece(number, 0, 1) for number in range(5)])],
            [base(number, usize=CHUNK_LIMIT) for number in range(5)],
        ),
        ("another length than the chunk", [delta(Piece(0, 0, 99), codec=DIFFERENCE)], [base()]),
    ],
)
def test_what_makes_no_sense_is_refused(message, placements, bases):
    with pytest.raises(CorruptObject, match=message):
        decoded(stored([100], placements, bases))


def test_an_offset_says_where():
    two = [delta(), delta(Piece(0, 0, 1), Piece(1, 2, 99))]
    with pytest.raises(CorruptObject) as caught:
        decoded(stored([100, 100], two, [base(), base(1)]))
    content = 12 + 20 + 2 * 36
    tables = content + len('{"types":["bytes"]}') + 3 * 32 + 2 * 24 + 2 * 56
    assert caught.value.offset == tables + 2 * 12


def test_a_base_chunk_of_a_later_codec_is_named():
    with pytest.raises(Unsupported, match="codec 77"):
        decoded(stored([100], [delta()], [base(codec=77)]))


def placed(codec, count):
    return struct.pack("<IBBHQII", 0, codec, 0, count, 64, 10, 0)


PIECE = struct.pack("<III", 0, 0, 100)
BASE = struct.pack("<32sIIQIBBxx", chunk_id(7), 1, 50, 64, 100, ZSTD, 0)


@pytest.mark.parametrize(
    ("message", "data"),
    [
        ("delta in a recipe without bases", forged(0, [placed(PREFIX, 0)])),
        ("delta in a recipe without bases", forged(0, [placed(DIFFERENCE, 1)])),
        ("has a base and is no delta", forged(0, [placed(ZSTD, 1)])),
        ("has a base and is no delta", forged(recipes.BASES, [placed(NONE, 1)], BASE, PIECE)),
        ("too long or nothing", forged(recipes.BASES, [placed(PREFIX, 0), placed(PREFIX, 1)], BASE, PIECE)),
        ("tables have the wrong length", forged(0, [placed(ZSTD, 0)], BASE)),
        ("tables have the wrong length", forged(recipes.BASES, [placed(ZSTD, 0)])),
        ("bases of deltas have the wrong length", forged(recipes.BASES, [placed(PREFIX, 1)], PIECE)),
        ("bases of deltas have the wrong length", forged(recipes.BASES, [placed(PREFIX, 3)], PIECE)),
        ("bases of deltas have the wrong length", forged(recipes.BASES, [placed(PREFIX, 1)], BASE, PIECE, b"\0")),
        ("is of no use to any delta", forged(recipes.BASES, [placed(ZSTD, 0)], BASE)),
    ],
)
def test_what_no_writer_makes_is_refused(message, data):
    with pytest.raises(CorruptObject, match=message):
        decoded(data)


def test_the_forgery_is_one_by_its_fault_alone():
    found = decoded(forged(recipes.BASES, [placed(PREFIX, 1)], BASE, PIECE))
    assert found.placements == [delta()]


def test_other_flags_are_named():
    with pytest.raises(Unsupported, match="flags"):
        decoded(forged(4 | recipes.BASES, [placed(PREFIX, 1)], BASE, PIECE))


@pytest.mark.parametrize(
    ("placement", "bases"),
    [
        (Placement(0, 64, 10, PREFIX, 0), [base()]),
        (Placement(0, 64, 10, ZSTD, 0, (Piece(0, 0, 100),)), [base()]),
        (delta(), []),
    ],
)
def test_a_writer_is_told_that_a_base_is_missing(placement, bases):
    with pytest.raises(ValueError, match="a delta is placed without its base"):
        stored([100], [placement], bases)


def test_a_trailer_lists_deltas():
    entries = [
        PackEntry(chunk_id(n), 64 + 10 * n, 10, 100, codec, 4) for n, codec in enumerate((ZSTD, PREFIX, DIFFERENCE))
    ]
    trailer = b"".join(packs.encode_entry(entry) for entry in entries)
    footer = packs.encode_footer(3, 1, 94, bytes(16), trailer)
    assert packs.entries_of(DIGEST, DIGEST(trailer), trailer, footer, 94) == entries


def trailer_of(entries, pieces=packs.NO_PIECES, footer_pieces=None):
    """A trailer, its footer, and where it begins."""
    trailer = packs.encode_trailer(entries, pieces)
    count = sum(map(len, pieces.values())) if footer_pieces is None else footer_pieces
    return trailer, packs.encode_footer(len(entries), 1, 94, bytes(16), trailer, count), 94


def deltas_in_a_pack(count=2):
    return [PackEntry(chunk_id(n), 64 + 10 * n, 10, 100, PREFIX if n else ZSTD, 0) for n in range(count + 1)]


def test_a_trailer_tells_what_deltas_are_against():
    entries = deltas_in_a_pack()
    told = {74: (PackPiece(chunk_id(7), 0, 100), PackPiece(chunk_id(8), 5, 95)), 84: (PackPiece(chunk_id(7), 3, 9),)}
    trailer, footer, at = trailer_of(entries, told)
    assert len(trailer) == 3 * 56 + 3 * 40
    assert packs.decode_footer(footer, 94 + len(trailer) + len(footer)) == (94, 3)
    assert packs.entries_of(DIGEST, DIGEST(trailer), trailer, footer, at) == entries
    assert packs.decode_pieces(trailer, footer) == told
    plain, footer, _ = trailer_of(entries)
    assert packs.decode_pieces(plain, footer) == {}
    assert DIGEST(plain) != DIGEST(trailer)


def test_who_knows_no_pieces_is_told_so_by_the_version_of_the_footer():
    told = {74: (PackPiece(chunk_id(7), 0, 100),)}
    plain, of_plain, at = trailer_of(deltas_in_a_pack())
    trailer, footer, _ = trailer_of(deltas_in_a_pack(), told)
    assert (of_plain[4], footer[4]) == (1, 2)
    for version, error in ((1, CorruptObject), (3, Unsupported)):
        unsealed = footer[:4] + bytes([version]) + footer[5:-8]
        with pytest.raises(error, match="version"):
            packs.decode_footer(unsealed + struct.pack("<Q", xxh3(unsealed)), at + len(trailer) + len(footer))
    assert packs.decode_footer(of_plain, at + len(plain) + len(of_plain)) == (at, 3)


def test_a_builder_tells_what_its_deltas_are_against():
    builder = packs.PackBuilder(1)
    builder.add(b"whole", [(chunk_id(0), 5, 9)], ZSTD, 0, True)
    builder.pieces[builder.length] = (PackPiece(chunk_id(0), 1, 8),)
    builder.add(b"delta", [(chunk_id(1), 5, 9)], PREFIX, 0, True)
    name, parts = builder.close(DIGEST)
    data = b"".join(bytes(part) for part in parts)
    at, count = packs.decode_footer(data[-64:], len(data))
    assert count == 2
    assert packs.entries_of(DIGEST, bytes.fromhex(name), data[at:-64], data[-64:], at) == builder.entries
    assert packs.decode_pieces(data[at:-64], data[-64:]) == builder.pieces


def test_a_trailer_is_as_long_as_what_it_tells():
    trailer, footer, _ = trailer_of(deltas_in_a_pack(), {74: (PackPiece(chunk_id(7), 0, 100),)}, footer_pieces=2)
    with pytest.raises(CorruptObject, match="wrong length"):
        packs.decode_footer(footer, 94 + len(trailer) + len(footer))


@pytest.mark.parametrize(
    "pieces",
    [
        {74: (PackPiece(chunk_id(7), 0, 0),)},
        {74: (PackPiece(chunk_id(7), CHUNK_LIMIT, 1),)},
        {74: (PackPiece(chunk_id(7), 0, CHUNK_LIMIT), PackPiece(chunk_id(8), 0, 1))},
        {74: (PackPiece(chunk_id(7), 0, 1),) * 65536},
    ],
)
def test_pieces_that_make_no_base_are_damage(pieces):
    trailer, footer, at = trailer_of(deltas_in_a_pack(), pieces)
    with pytest.raises(CorruptObject, match="make no base") as caught:
        packs.entries_of(DIGEST, DIGEST(trailer), trailer, footer, at)
    assert caught.value.offset == 74


def test_only_a_delta_has_pieces():
    rows = [packs.encode_entry(entry, entry.codec == ZSTD) for entry in deltas_in_a_pack()]
    trailer = b"".join(rows) + packs.PIECE.pack(chunk_id(7), 0, 9)
    footer = packs.encode_footer(3, 1, 94, bytes(16), trailer, 1)
    with pytest.raises(CorruptObject, match="make no base") as caught:
        packs.decode_pieces(trailer, footer)
    assert caught.value.offset == 64


@pytest.mark.parametrize(("told", "there", "message"), [(2, 1, "make no base"), (1, 2, "of no chunk")])
def test_each_piece_is_of_one_chunk(told, there, message):
    rows = [packs.encode_entry(entry, told * (entry.offset == 74)) for entry in deltas_in_a_pack()]
    trailer = b"".join(rows) + there * packs.PIECE.pack(chunk_id(7), 0, 9)
    footer = packs.encode_footer(3, 1, 94, bytes(16), trailer, there)
    with pytest.raises(CorruptObject, match=message):
        packs.decode_pieces(trailer, footer)


@pytest.mark.parametrize("deltas", [False, True])
def test_an_index_fragment_lists_deltas_if_trailers_tell_their_bases(deltas):
    entries = [
        PackEntry(chunk_id(n), 64 + 10 * n, 10, 100, codec, 0) for n, codec in enumerate((ZSTD, PREFIX, DIFFERENCE))
    ]
    found = fragments.decode_fragment(fragments.encode_fragment([(PACKS[0], entries)], 1, deltas), "index/x")
    assert {row.id for row in fragments.decode_rows(found.entries)} == {chunk_id(n) for n in range(3 if deltas else 1)}


@pytest.mark.parametrize("order", [1, -1])
def test_of_merged_fragments_what_is_no_delta_counts(order):
    made = [
        fragments.decode_fragment(
            fragments.encode_fragment([(PACKS[n], [PackEntry(chunk_id(0), 64, 10, 100, codec, 0)])], 1, True), str(n)
        )
        for n, codec in enumerate((ZSTD, PREFIX))
    ]
    merged = fragments.decode_fragment(fragments.merge_fragments(made[::order], 1), "index/x")
    assert merged.location(0).codec == ZSTD
    assert merged.location(0).pack.value == PACKS[0]
