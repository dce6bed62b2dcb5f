"""What a new chunk is compared with when no base is named: what lies in a pack between its neighbours there."""

from mfstore._core.codec import PREFIX
from mfstore.format.fragments import Location
from mfstore.format.packs import PackEntry, PackName
from mfstore.saving.counterparts import BasePiece, NewChunk
from mfstore.saving.drafts import Stream
from mfstore.saving.neighbours import PACKS, Edge, Gap, Layout, counterparts, gaps, packs_of
from tests.rigs.parts import DIGEST

STREAM = Stream("x", 0, 1, 8, 0, 0)
PACK, OTHER, OPEN = PackName(b"p" * 32), PackName(b"q" * 32), PackName()
SIZE = 100


def named(name):
    return DIGEST(name.encode())


def window(names):
    """Chunks of SIZE bytes, a letter each."""
    return [NewChunk(STREAM, SIZE * number, SIZE * number + SIZE, named(name)) for number, name in enumerate(names)]


def located(names, pack=PACK):
    return {named(name): Location(pack, 64 + 50 * number, 50, SIZE, 2, 0) for number, name in enumerate(names)}


def layout(names, deltas=()):
    entries = [
        PackEntry(named(name), 64 + 50 * number, 50, SIZE, PREFIX if name in deltas else 2, 0)
        for number, name in enumerate(names)
    ]
    return {PACK.value: Layout(PACK, entries)}


def compared(new, stored, deltas=()):
    """What each new chunk of a window (in capitals) is compared with, where ``stored`` lies in a pack in order."""
    chunks = window(new)
    fresh = {chunk.id for chunk, name in zip(chunks, new, strict=True) if name.isupper()}
    letters = {named(name): name for name in stored}
    found = {}
    for gap in gaps(chunks, located(stored), fresh):
        for number, one in counterparts(chunks, gap, layout(stored, deltas)):
            found[new[number]] = "".join(letters[piece.id] for piece in one.pieces)
    return found


def test_a_gap_is_what_is_new_beside_what_was_found():
    chunks = window("abCDeFG")
    found = located("abe")
    fresh = {named(name) for name in "CDFG"}
    assert list(gaps(chunks, found, fresh)) == [
        Gap(2, 4, (Edge(found[named("b")], SIZE),), (Edge(found[named("e")], 0),)),
        Gap(5, 7, (Edge(found[named("e")], SIZE),), ()),
    ]


def test_what_has_nothing_stored_beside_it_is_no_gap():
    chunks = window("ABc")
    assert list(gaps(chunks, located("c", OPEN), {named("A"), named("B")})) == []


def test_between_two_neighbours_lies_what_it_was():
    assert compared("aXc", "abc") == {"X": "b"}
    assert compared("aXYd", "abcd") == {"X": "b", "Y": "c"}


def test_after_the_last_neighbour_comes_what_followed_it():
    assert compared("aX", "abc") == {"X": "b"}


def test_before_the_first_neighbour_comes_what_preceded_it():
    assert compared("Xc", "abc") == {"X": "b"}


def test_what_was_put_between_two_neighbours_is_compared_with_nothing():
    assert compared("aXb", "abc") == {}


def test_neighbours_that_lay_far_apart_say_what_followed_the_first():
    assert compared("aXz", "abcdefghijz") == {"X": "b"}


def test_a_delta_in_a_pack_is_no_base():
    assert compared("aXc", "abc", deltas="b") == {}


def test_a_delta_in_a_pack_says_what_it_is_against():
    """The new chunk is compared with that, if it is known."""
    chunks = window("aXc")
    (gap,) = gaps(chunks, located("abc"), {named("X")})
    piece = BasePiece(named("old"), Location(OTHER, 64, 50, SIZE, 2, 0), 0, SIZE)
    (entries,) = [made.entries for made in layout("abc", deltas="b").values()]
    layouts = {PACK.value: Layout(PACK, entries, {entries[1].offset: (piece,)})}
    ((_, one),) = counterparts(chunks, gap, layouts)
    assert one.pieces == (piece,)
    assert one.spent == 50


def test_beside_a_delta_lies_what_lay_beside_its_base():
    """Those that were new together lie side by side in their pack, wherever they are in what is saved."""
    chunks = window("dXe")
    stored = located("abc")
    at = located("de", OTHER)
    pieces = {
        named("d"): (BasePiece(named("a"), stored[named("a")], 10, SIZE - 10),),
        named("e"): (BasePiece(named("c"), stored[named("c")], 20, SIZE - 20),),
    }
    (gap,) = gaps(chunks, at, {named("X")}, pieces)
    assert gap.before == (Edge(stored[named("a")], SIZE), Edge(at[named("d")], SIZE))
    assert gap.after == (Edge(stored[named("c")], 20), Edge(at[named("e")], 0))
    entries = [PackEntry(named(name), 64 + 50 * n, 50, SIZE, PREFIX, 0) for n, name in enumerate("de")]
    layouts = {**layout("abc"), OTHER.value: Layout(OTHER, entries)}
    ((number, one),) = counterparts(chunks, gap, layouts)
    assert number == 1
    # Up to where the base of what follows begins.
    assert [(piece.id, piece.start, piece.length) for piece in one.pieces] == [
        (named("b"), 0, SIZE), (named("c"), 0, 20)
    ]  # fmt: skip


def test_a_pack_with_both_neighbours_tells_more_than_one_with_either():
    chunks = window("aXc")
    found = {**located("azz", OTHER), **located("abc")}
    before, after = Edge(Location(OTHER, 64, 50, SIZE, 2, 0), SIZE), Edge(found[named("c")], 0)
    gap = Gap(1, 2, (before, Edge(found[named("a")], SIZE)), (after,))
    others = [PackEntry(named(name), 64 + 50 * n, 50, SIZE, 2, 0) for n, name in enumerate("azz")]
    layouts = {**layout("abc"), OTHER.value: Layout(OTHER, others)}
    ((_, one),) = counterparts(chunks, gap, layouts)
    assert [piece.id for piece in one.pieces] == [named("b")]


def test_a_pack_is_in_the_order_of_its_trailer():
    """A group lies where the first of its chunks came, and others come between those."""
    places = {"a": (64, 7, 0), "b": (564, 2, 0), "c": (64, 7, SIZE), "d": (614, 2, 0)}
    entries = [PackEntry(named(name), at, 50, SIZE, codec, start) for name, (at, codec, start) in places.items()]
    found = {one.id: Location(PACK, one.offset, 50, SIZE, one.codec, one.width) for one in entries}
    chunks = window("aBc")
    (gap,) = gaps(chunks, found, {named("B")})
    ((_, one),) = counterparts(chunks, gap, {PACK.value: Layout(PACK, entries)})
    assert [piece.id for piece in one.pieces] == [named("b")]


def test_packs_that_are_not_known_say_nothing():
    chunks = window("aXc")
    (gap,) = gaps(chunks, located("abc"), {named("X")})
    assert list(counterparts(chunks, gap, {})) == []


def test_only_the_packs_beside_most_are_looked_at():
    places = [Location(PackName(bytes([number]) * 32), 64, 50, SIZE, 2, 0) for number in range(1, PACKS + 3)]
    found = [Gap(0, 1, (Edge(place, SIZE),), ()) for place in [*places, places[-1]]]
    names = packs_of(found)
    assert len(names) == PACKS
    assert names[0] == places[-1].pack
