"""Which bytes of an older version a new chunk is compared with."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore._core.chunk import LONG_ROW
from mfstore._core.codec import DIFFERENCE
from mfstore.format.fragments import Location
from mfstore.format.packs import PackName
from mfstore.format.recipes import (
    BUNDLE,
    INLINE,
    PICKLE,
    Artifact,
    BaseChunk,
    ChunkRef,
    Piece,
    Placement,
    Recipe,
    Segment,
)
from mfstore.saving.counterparts import (
    AROUND,
    FURTHER,
    LONGEST_BASE,
    SHIFT_LIMIT,
    Anchor,
    Base,
    BasePiece,
    BaseStream,
    Counterparts,
    NewChunk,
    Range,
    Shape,
    StoredAs,
    counterpart,
    counterpart_range,
    pair_segments,
    row_range,
)
from mfstore.saving.drafts import Stream
from tests.rigs.parts import DIGEST

PACK = PackName(bytes(32))


def base_of(recipe, usable):
    """All artifacts of a recipe under their own names."""
    base = Base(usable)
    for artifact in recipe.artifacts:
        base.learn(artifact.name, recipe)
    return base


def named(name):
    return DIGEST(name.encode())


def at(offset, csize=10, usize=10, codec=0):
    return Location(PACK, offset, csize, usize, codec, 0)


# ---- segments -----------------------------------------------------------------------

SHAPES = [Shape(1, 8, 0, 100), Shape(1, 8, 0, 200), Shape(1, 4, 0, 100), Shape(3, 1, 0, 100)]


def test_as_many_as_before_are_paired_in_order():
    new = [Shape(1, 8, 0, 110), Shape(1, 8, 0, 210)]
    assert pair_segments(new, SHAPES[:2], [None, None]) == [0, 1]


def test_what_is_of_another_kind_is_no_pair():
    assert pair_segments([SHAPES[2]], [SHAPES[0]], [None]) == [None]
    assert pair_segments([SHAPES[3]], [SHAPES[0]], [None]) == [None]


def test_a_chunk_in_common_decides():
    assert pair_segments([SHAPES[0]] * 3, [SHAPES[0]] * 3, [2, None, 0]) == [2, None, 0]


def test_what_is_new_between_others_has_no_pair():
    new = [SHAPES[0], SHAPES[1], SHAPES[2], SHAPES[3]]
    assert pair_segments(new, [SHAPES[0], SHAPES[2], SHAPES[3]], [None] * 4) == [0, None, 1, 2]


def test_what_is_gone_is_passed_over():
    assert pair_segments([SHAPES[0], SHAPES[3]], SHAPES, [None, None]) == [0, 3]


class Looked(list):
    """Counts how often it is asked for an item."""

    count = 0

    def __getitem__(self, number):
        self.count += 1
        return super().__getitem__(number)


def test_pairing_many_segments_looks_at_each_a_few_times():
    for shape in (SHAPES[0], SHAPES[2]):
        old = Looked([shape] * 500)
        pair_segments([SHAPES[0]] * 501, old, [None] * 501)
        assert 500 <= old.count <= 2000
    count = 8 * FURTHER
    moved = Looked([SHAPES[0]] * count)
    pair_segments([SHAPES[0]] * 16, moved, [16 - number if number % 2 else None for number in range(16)])
    assert moved.count <= 8 * 3 * (FURTHER + 1)


def test_between_two_known_pairs_the_rest_is_in_order():
    new = [SHAPES[0], Shape(1, 8, 0, 150), SHAPES[0]]
    assert pair_segments(new, [SHAPES[0], SHAPES[1], SHAPES[0]], [0, None, 2]) == [0, 1, 2]


@given(
    old=st.lists(st.sampled_from(SHAPES), max_size=8),
    new=st.lists(st.sampled_from(SHAPES), max_size=8),
    data=st.data(),
)
def test_no_two_have_the_same_pair_and_all_pairs_are_alike(old, new, data):
    free = list(range(len(old)))
    votes = []
    for shape in new:
        alike = [number for number in free if old[number] == shape]
        vote = data.draw(st.sampled_from([None, *alike]))
        if vote is not None:
            free.remove(vote)
        votes.append(vote)
    pairs = pair_segments(new, old, votes)
    found = [number for number in pairs if number is not None]
    assert len(set(found)) == len(found)
    for shape, vote, number in zip(new, votes, pairs, strict=True):
        assert vote is None or vote == number
        assert number is None or (old[number].kind, old[number].itemsize) == (shape.kind, shape.itemsize)


# ---- ranges -------------------------------------------------------------------------


def test_between_chunks_that_moved_alike_it_moved_with_them():
    before, after = Anchor(0, 100, 50), Anchor(200, 300, 250)
    assert counterpart_range(100, 200, 1000, 1000, before, after) == Range(150, 250, True, True)


def test_between_chunks_that_moved_apart_it_is_what_lies_between_them():
    before, after = Anchor(0, 100, 0), Anchor(210, 300, 200)
    assert counterpart_range(100, 210, 1010, 1000, before, after) == Range(100, 200, False, True)


def test_what_was_put_between_two_neighbours_has_none():
    assert counterpart_range(100, 210, 1110, 1000, Anchor(0, 100, 0), Anchor(210, 300, 100)) is None


def test_what_comes_after_the_last_of_both_is_cut_at_the_end():
    assert counterpart_range(900, 1100, 1100, 1000, Anchor(800, 900, 800), None) == Range(900, 1000, False, True)


def test_what_comes_before_the_first_of_both_is_cut_at_the_beginning():
    assert counterpart_range(0, 100, 1000, 950, None, Anchor(100, 200, 50)) == Range(0, 50, False, True)


def test_what_changed_places_goes_with_the_one_before():
    assert counterpart_range(100, 200, 1000, 1000, Anchor(0, 100, 500), Anchor(200, 300, 50)).start == 600


def test_without_anything_in_common_it_is_at_the_same_offset():
    assert counterpart_range(100, 200, 1000, 1000, None, None) == Range(100, 200, True, False)
    assert counterpart_range(100, 200, 1000, 1000 + SHIFT_LIMIT, None, None) == Range(
        100, 200 + SHIFT_LIMIT, False, False
    )
    assert counterpart_range(100, 200, 1000, 1001 + SHIFT_LIMIT, None, None) == Range(100, 200, True, False)
    assert counterpart_range(2000, 2100, 3000, 1000, None, None) == Range(0, 1000, False, False)


def test_rows_are_paired_by_number():
    row = LONG_ROW
    new, old = Shape(1, 8, row + 80, 10 * (row + 80)), Shape(1, 8, row, 10 * row)
    assert row_range(3 * (row + 80), 3 * (row + 80) + 100, new, old, None, None) == Range(
        3 * row, 3 * row + 100, False, False
    )


def test_a_row_goes_with_its_neighbour():
    row = LONG_ROW
    new, old = Shape(1, 8, row + 80, 10 * (row + 80)), Shape(1, 8, row, 9 * row)
    start = 5 * (row + 80)
    before = Anchor(start, start + 100, 4 * row)
    assert row_range(start + 100, start + 200, new, old, before, None) == Range(
        4 * row + 100, 4 * row + 200, True, True
    )


def test_a_row_that_the_base_does_not_have_has_none():
    row = LONG_ROW
    new, old = Shape(1, 8, row + 80, 10 * (row + 80)), Shape(1, 8, row, 3 * row)
    assert row_range(5 * (row + 80), 5 * (row + 80) + 100, new, old, None, None) is None


# ---- pieces -------------------------------------------------------------------------


def stream_of(*chunks):
    """``(name, length, pieces)`` each; pieces None: it is inline."""
    stream = BaseStream(Shape(1, 8, 0, sum(length for _, length, _ in chunks)))
    for number, (name, length, pieces) in enumerate(chunks):
        stored = None if pieces is None else StoredAs(at(1000 * number, length // 2, length), tuple(pieces))
        stream.add(named(name), length, stored)
    return stream


def piece(name, start, length):
    return BasePiece(named(name), at(0, 10, 1000), start, length)


def told(found):
    return [(one.id, one.start, one.length) for one in found.pieces]


def test_whole_chunks_are_taken_where_the_range_lies():
    stream = stream_of(("a", 100, ()), ("b", 100, ()), ("c", 100, ()))
    found = counterpart(stream, Range(50, 220, True, True), 170)
    assert told(found) == [(named("a"), 50, 50), (named("b"), 0, 100), (named("c"), 0, 20)]
    assert (found.length, found.aligned, found.spent) == (170, True, 0)


def test_a_delta_is_replaced_by_what_it_is_against():
    stream = stream_of(("a", 100, ()), ("b", 100, (piece("r", 30, 60), piece("s", 0, 40))))
    found = counterpart(stream, Range(150, 200, True, True), 50)
    assert told(found) == [(named("r"), 80, 10), (named("s"), 0, 40)]
    assert (found.aligned, found.spent) == (True, 25)


def test_a_part_of_a_delta_comes_from_where_the_lengths_say():
    longer = stream_of(("a", 9000, (piece("r", 30, 9500),)))
    found = counterpart(longer, Range(4000, 6000, True, True), 2000)
    assert told(found) == [(named("r"), 30 + 4000 - AROUND, 2000 + 500 + 2 * AROUND)]
    assert not found.aligned
    shorter = stream_of(("a", 9000, (piece("r", 0, 5000), piece("s", 70, 3500))))
    found = counterpart(shorter, Range(7000, 7400, True, True), 400)
    assert told(found) == [(named("s"), 70 + 7000 - 500 - AROUND - 5000, 400 + 500 + 2 * AROUND)]


def test_a_delta_against_other_lengths_is_replaced_by_all_of_it_that_there_is():
    stream = stream_of(("a", 100, (piece("r", 30, 60),)))
    found = counterpart(stream, Range(50, 100, True, True), 50)
    assert told(found) == [(named("r"), 30, 60)]
    assert not found.aligned


def test_what_lies_in_the_recipe_is_no_base():
    assert counterpart(stream_of(("a", 100, None)), Range(0, 100, True, True), 100) is None
    found = counterpart(stream_of(("a", 100, None), ("b", 100, ())), Range(0, 200, True, True), 200)
    assert told(found) == [(named("b"), 0, 100)]
    assert not found.aligned


def test_bytes_that_several_deltas_are_against_are_taken_once():
    stream = stream_of(("a", 100, (piece("r", 0, 60), piece("s", 0, 10))), ("b", 100, (piece("r", 50, 70),)))
    found = counterpart(stream, Range(0, 200, True, True), 200)
    assert told(found) == [(named("r"), 0, 120), (named("s"), 0, 10)]


def test_what_is_compared_with_is_not_much_longer():
    stream = stream_of(("a", 9000, (piece("r", 0, 9000), piece("s", 0, 9000))))
    found = counterpart(stream, Range(0, 9000, True, True), 2000)
    assert told(found) == [(named("r"), 5000, 4000), (named("s"), 0, 4000)]
    assert found.length == LONGEST_BASE * 2000


@st.composite
def streams(draw):
    """A stream of the base, and for each of its bytes the byte (chunk, offset) that is stored for it, where that is
    known."""
    chunks, stored = [], []
    for number in range(draw(st.integers(1, 5))):
        length = draw(st.integers(1, 20))
        if draw(st.booleans()):
            chunks.append((f"w{number}", length, ()))
            stored += [(named(f"w{number}"), offset) for offset in range(length)]
            continue
        pieces, left = [], length
        while left:
            size = draw(st.integers(1, left))
            start = draw(st.integers(0, 50))
            name = draw(st.sampled_from(["r", "s"]))
            pieces.append(piece(name, start, size))
            stored += [(named(name), start + offset) for offset in range(size)]
            left -= size
        chunks.append((f"d{number}", length, pieces))
    return stream_of(*chunks), stored


@given(made=streams(), data=st.data())
def test_each_byte_is_the_one_at_its_place(made, data):
    stream, stored = made
    start = data.draw(st.integers(0, len(stored) - 1))
    end = data.draw(st.integers(start + 1, len(stored)))
    found = counterpart(stream, Range(start, end, True, True), end - start)
    assert found.aligned
    assert [(one.id, one.start + byte) for one in found.pieces for byte in range(one.length)] == stored[start:end]
    for one, following in zip(found.pieces, found.pieces[1:], strict=False):
        assert (one.id, one.start + one.length) != (following.id, following.start)


# ---- recipes ------------------------------------------------------------------------


def recipe_of(placements, bases=(), usizes=None):
    usizes = usizes or [100] * len(placements)
    chunks = [ChunkRef(named(f"c{number}"), usize) for number, usize in enumerate(usizes)]
    artifact = Artifact(
        "x", PICKLE, usizes[0], None, (Segment(1, usizes[0], sum(usizes[1:]), 8, 0, len(usizes) - 1),), chunks
    )
    return Recipe(BUNDLE, 1, b"", (artifact,), b"", (named("p"), named("q")), placements, tuple(bases))


def test_a_chunk_is_usable_with_all_packs_that_it_needs():
    base = BaseChunk(named("r"), 1, 64, 50, 100, 0, 0)
    placements = [
        Placement(0, 64, 100, 0, 0), Placement(0, 200, 30, DIFFERENCE, 8, (Piece(0, 0, 100),)), Placement(INLINE, 0, 9, 0, 0)
    ]  # fmt: skip
    chunks = base_of(recipe_of(placements, [base]), lambda pack: True).chunks
    assert chunks.keys() == {named("c0"), named("c1")}
    assert chunks[named("c1")].pieces == (
        BasePiece(named("r"), Location(PackName(named("q")), 64, 50, 100, 0, 0), 0, 100),
    )
    assert base_of(recipe_of(placements, [base]), lambda pack: pack != named("q")).chunks.keys() == {named("c0")}
    assert base_of(recipe_of(placements, [base]), lambda pack: pack != named("p")).chunks.keys() == set()


def whole(count):
    return [Placement(0, 64 + 100 * number, 100, 0, 0) for number in range(count)]


def chunks_of(stream, *names, length=100):
    return [
        NewChunk(stream, length * number, length * number + length, named(name)) for number, name in enumerate(names)
    ]


def test_what_moved_is_found_by_its_neighbours():
    counterparts = Counterparts(base_of(recipe_of(whole(6)), lambda pack: True))
    stream = Stream("x", 0, 1, 8, 0, 400)
    new = chunks_of(stream, "c2", "?", "c4", "c5")
    counterparts.learn(new)
    assert told(counterparts.find(new[1])) == [(named("c3"), 0, 100)]
    assert counterparts.find(new[1]).anchored


def test_what_came_in_the_window_before_is_a_neighbour_still():
    counterparts = Counterparts(base_of(recipe_of(whole(6)), lambda pack: True))
    new = chunks_of(Stream("x", 0, 1, 8, 0, 200), "c3", "?")
    counterparts.learn(new[:1])
    counterparts.learn(new[1:])
    assert told(counterparts.find(new[1])) == [(named("c4"), 0, 100)]


def test_another_artifact_has_no_counterpart():
    counterparts = Counterparts(base_of(recipe_of(whole(2)), lambda pack: True))
    (new,) = chunks_of(Stream("y", 0, 1, 8, 0, 100), "?")
    counterparts.learn([new])
    assert counterparts.find(new) is None


def test_a_chunk_that_is_twice_in_the_base_says_nothing():
    recipe = recipe_of(whole(4))
    twice = recipe.artifacts[0]._replace(chunks=[*recipe.artifacts[0].chunks[:3], recipe.artifacts[0].chunks[1]])
    base = base_of(
        Recipe(BUNDLE, 1, b"", (twice,), b"", recipe.packs, recipe.placements),
        lambda pack: True,
    )
    counterparts = Counterparts(base)
    new = chunks_of(Stream("x", 0, 1, 8, 0, 300), "c1", "?", "c1")
    counterparts.learn(new)
    assert not counterparts.find(new[1]).anchored


@settings(max_examples=50)
@given(data=st.data())
def test_an_edit_is_compared_with_what_it_edits(data):
    """Chunks are dropped, inserted and edited: each edited one between kept neighbours has the old one."""
    count = data.draw(st.integers(3, 12))
    plan = [data.draw(st.sampled_from(["keep", "keep", "edit", "drop", "insert"])) for _ in range(count)]
    names, oracle = [], {}
    for number, what in enumerate(plan):
        if what == "insert":
            names.append(f"new{number}")
        if what != "drop":
            if what == "edit" and 0 < number < count - 1 and plan[number - 1] == "keep" == plan[number + 1]:
                oracle[len(names)] = named(f"c{number + 1}")
            names.append(f"edited{number}" if what == "edit" else f"c{number + 1}")
    if not names:
        return
    counterparts = Counterparts(base_of(recipe_of(whole(count + 1)), lambda pack: True))
    new = chunks_of(Stream("x", 0, 1, 8, 0, 100 * len(names)), *names)
    counterparts.learn(new)
    for number, old in oracle.items():
        found = counterparts.find(new[number])
        assert told(found) == [(old, 0, 100)]
        assert found.aligned
        assert found.anchored
