"""Groups: read once, decoded once, into the memory of each chunk that is wanted of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore import errors
from mfstore._core.codec import GROUP, PREFIX, Codec
from mfstore.errors import CorruptObject
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, BaseChunk, ChunkRef, Piece, Placement, Recipe
from mfstore.loading.deltas import Delta, DeltaWindow
from mfstore.loading.fetch import targets
from mfstore.loading.reads import BasePart, ChunkRead, PlacedChunk, plan_reads
from tests.loading.test_fetch import recipe_of
from tests.loading.test_reads import chunk, spans
from tests.rigs.parts import DIGEST, damage, listed_pack, noise, parts, stored_groups

TEXT = b"".join(b"line %d of %d\n" % (number, number % 71) for number in range(5000))
CHUNKS = [TEXT[at : at + 900 + at // 50] for at in range(0, 20_000, 2000)]
ONE, TWO, RAW = CHUNKS[:4], CHUNKS[4:9], CHUNKS[9:]


class Decoded:
    """Counts what is decoded of groups: how many parts each time."""

    def __init__(self, made):
        self.parts = []
        codec = made.workers.thread.codec
        counter = self

        class Counting:
            def decode_group(self, encoded, parts, offset=0):
                counter.parts.append(len(parts))
                codec.decode_group(encoded, parts, offset)

            def __getattr__(self, name):
                return getattr(codec, name)

        made.workers.thread.codec = Counting()


def test_chunks_of_a_group_are_in_one_read_whatever_it_decodes_to():
    grouped = [chunk("a", 64, 30, usize=40, codec=GROUP, width=40 * number) for number in range(5)]
    reads = plan_reads([*reversed(grouped), chunk("a", 94, 10)], 0, 100)
    assert spans(reads) == [("a", 64, 94, 5), ("a", 94, 104, 1)]
    assert [one.placement.width for one in reads[0].chunks] == [0, 40, 80, 120, 160]


def test_a_chunk_of_a_group_that_comes_again_and_again_is_shared_out_among_reads():
    again = chunk("a", 64, 30, usize=40, codec=GROUP, width=40)
    reads = plan_reads([chunk("a", 64, 30, usize=40, codec=GROUP, width=0), *[again] * 7], 0, 100)
    assert spans(reads) == [("a", 64, 94, 2)] * 4


@pytest.mark.parametrize("remote", [False, True])
@settings(max_examples=30)
@given(wanted=st.lists(st.sampled_from(CHUNKS), min_size=1, max_size=14))
def test_whatever_is_wanted_is_read_once_and_decoded_once(remote, wanted):
    made = parts(remote=remote)
    _, located = stored_groups(made.backend, [ONE, TWO, RAW])
    counted = Decoded(made)
    recipe, targets_of, memory = recipe_of(located, *wanted)
    made.fetcher.fill(recipe, targets_of, True)
    assert memory == b"".join(wanted)
    assert sum(length for _, _, length in made.backend.reads) <= max(
        at.offset + at.csize for at in located.values()
    ) - 64  # fmt: skip
    assert len(made.backend.reads) == 1
    assert sorted(counted.parts) == sorted(
        count for group in (ONE, TWO) if (count := sum(data in group for data in wanted))
    )  # fmt: skip


def test_groups_that_lie_in_the_recipe():
    made = parts()
    group, _ = Codec(errors).encode_group(b"".join(ONE), [*_ends(ONE)], 3, 0.95)
    starts = [0, *_ends(ONE)[:-1]]
    placements = [Placement(INLINE, 7, len(group), GROUP, start) for start in starts]
    recipe = Recipe(1, 1, b"", (), placements=placements, inline=b"before " + group)
    refs = [ChunkRef(DIGEST(data), len(data)) for data in ONE]
    memory = bytearray(sum(map(len, ONE)))
    counted = Decoded(made)
    made.fetcher.fill(recipe, targets(memory, 0, refs), True)
    assert memory == b"".join(ONE)
    assert counted.parts == [4]
    # One chunk is not what its digest says; another copy has it.
    other = [*refs[:2], ChunkRef(DIGEST(RAW[0]), refs[2].usize), refs[3]]
    with pytest.raises(CorruptObject, match="differs from its digest"):
        made.fetcher.fill(recipe, targets(memory, 0, other), True)
    broken = Recipe(1, 1, b"", (), placements=placements, inline=b"before " + bytes(len(group)))
    with pytest.raises(CorruptObject):
        made.fetcher.fill(broken, targets(memory, 0, refs), False)
    listed_pack(made, ONE)
    with pytest.warns(RuntimeWarning, match="Run: mfstore repair"):
        made.fetcher.fill(broken, targets(memory, 0, refs), False)
    assert memory == b"".join(ONE)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("verify", [False, True])
def test_each_chunk_of_a_damaged_group_comes_from_another_copy(remote, verify):
    made = parts(remote=remote)
    name, located = listed_pack(made, [ONE, TWO], stored_groups)
    damage(made.backend, name, 64)  # the magic of the frame: verified or not, it does not decode
    listed_pack(made, [ONE[:2], ONE[2:]], stored_groups)
    recipe, wanted, memory = recipe_of(located, *ONE, *TWO)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        made.fetcher.fill(recipe, wanted, verify)
    assert memory == b"".join([*ONE, *TWO])


class Again:
    """Counts what is read by another way, and how often the index is read anew."""

    def __init__(self, made, monkeypatch):
        self.reads = []
        self.reloads = 0
        read_again, forget = made.backend.read_again, made.index.forget

        def noted(*args):
            self.reads.append(args)
            return read_again(*args)

        def forgotten():
            self.reloads += 1
            forget()

        monkeypatch.setattr(made.backend, "read_again", noted)
        monkeypatch.setattr(made.index, "forget", forgotten)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("as_bases", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_a_damaged_group_is_looked_for_once(remote, as_bases, listed, monkeypatch):
    """Not each of its chunks: a read there, one by another way, one of a copy; and the index is read anew once."""
    made = parts(remote=remote)
    name, located = stored_groups(made.backend, [TWO])
    damage(made.backend, name, 64)
    made.index.find([DIGEST(b"")])  # read before the copy is listed
    forget = made.index.forget
    if not listed:
        made.index.forget = lambda: None
    copy, _ = listed_pack(made, [ONE, TWO], stored_groups)
    made.index.forget = forget
    again = Again(made, monkeypatch)
    if as_bases:
        codec = Codec(errors)
        deltas = [codec.encode_delta(memoryview(data + b"!"), memoryview(data), PREFIX, 0, 3) for data in TWO]
        memory, wanted = bytearray(sum(len(data) + 1 for data in TWO)), []
        recipe = recipe_of_deltas(located, deltas)
        wanted = list(targets(memory, 0, [ChunkRef(DIGEST(data + b"!"), len(data) + 1) for data in TWO]))
        expected = b"".join(data + b"!" for data in TWO)
    else:
        recipe, wanted, memory = recipe_of(located, *TWO)
        expected = b"".join(TWO)
    made.backend.reads.clear()
    with pytest.warns(RuntimeWarning, match="is damaged"):
        made.fetcher.fill(recipe, wanted, True)
    assert memory == expected
    group = located[DIGEST(TWO[0])]
    there = (pack_path(name), group.offset, group.csize)
    assert again.reads == [there]
    assert again.reloads == (not listed)
    assert sum(pack == pack_path(copy) for pack, _, _ in made.backend.reads) == 1
    assert made.backend.reads.count(there) <= (4 if as_bases else 3)


def recipe_of_deltas(located, deltas):
    """A recipe with deltas in it, the n-th against the n-th chunk of those."""
    (pack,) = {at.pack.value for at in located.values()}
    bases = tuple(BaseChunk(chunk_id, 0, *at[1:]) for chunk_id, at in located.items())
    placements, at = [], 0
    for number, (data, base) in enumerate(zip(deltas, bases, strict=True)):
        placements.append(Placement(INLINE, at, len(data), PREFIX, 0, (Piece(number, 0, base.usize),)))
        at += len(data)
    return Recipe(1, 1, b"", (), packs=(pack,), placements=placements, bases=bases, inline=b"".join(deltas))


def test_of_a_damaged_group_in_a_recipe_each_is_looked_for_together(monkeypatch):
    made = parts()
    group, _ = Codec(errors).encode_group(b"".join(ONE), [*_ends(ONE)], 3, 0.95)
    placements = [Placement(INLINE, 0, len(group), GROUP, start) for start in [0, *_ends(ONE)[:-1]]]
    recipe = Recipe(1, 1, b"", (), placements=placements, inline=bytes(len(group)))
    copy, _ = listed_pack(made, [ONE], stored_groups)
    memory = bytearray(sum(map(len, ONE)))
    again = Again(made, monkeypatch)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        made.fetcher.fill(recipe, targets(memory, 0, [ChunkRef(DIGEST(data), len(data)) for data in ONE]), True)
    assert memory == b"".join(ONE)
    assert len(again.reads) == 1
    assert [pack for pack, _, _ in made.backend.reads] == [pack_path(copy)]


@pytest.mark.parametrize("remote", [False, True])
def test_what_is_whole_of_a_damaged_group_is_not_looked_for(remote):
    made = parts(remote=remote)
    datas = [noise(number, 500) for number in range(3)]
    name, located = stored_groups(made.backend, [datas])
    damage(made.backend, name, located[DIGEST(datas[1])].offset + 12 + 700)  # no two of noise depend on each other
    copies = [listed_pack(made, [data])[0] for data in datas]
    recipe, wanted, memory = recipe_of(located, *datas)
    made.backend.reads.clear()
    with pytest.warns(RuntimeWarning, match="is damaged"):
        made.fetcher.fill(recipe, wanted, True)
    assert memory == b"".join(datas)
    assert {pack for pack, _, _ in made.backend.reads} == {pack_path(name), pack_path(copies[1])}


def test_copies_of_its_chunks_are_taken_from_wherever_they_are_whole():
    made = parts()
    name, located = listed_pack(made, [TWO], stored_groups)
    damage(made.backend, name, 64)
    for first, broken in ((0, True), (0, False), (3, False)):
        copy, _ = listed_pack(made, [TWO[first:], ONE[first:]], stored_groups)
        if broken:
            damage(made.backend, copy, 64)
        if not first:
            listed_pack(made, TWO[: first + 3])
    recipe, wanted, memory = recipe_of(located, *TWO)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        made.fetcher.fill(recipe, wanted, True)
    assert memory == b"".join(TWO)


def test_a_chunk_that_a_recipe_places_elsewhere_in_its_group_comes_from_where_the_index_says():
    made = parts()
    _, located = listed_pack(made, [ONE], stored_groups)
    recipe, wanted, memory = recipe_of({**located, DIGEST(ONE[2]): located[DIGEST(ONE[1])]}, *ONE)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        made.fetcher.fill(recipe, wanted, True)
    assert memory == b"".join(ONE)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("as_bases", [False, True])
def test_a_whole_group_is_not_read_for_each_of_its_chunks_where_another_is_damaged(remote, as_bases):
    made = parts(remote=remote)
    name, located = stored_groups(made.backend, [ONE, TWO])
    damage(made.backend, name, 64)
    group = located[DIGEST(TWO[0])]
    if as_bases:
        deltas = [
            Delta(ChunkRead("", Placement(INLINE, 0, 0, PREFIX, 0), ChunkRef(b"", 0), memoryview(bytearray())), base,
                  memoryview(b""), True)
            for base in ((BasePart(one, 0, one.chunk.usize),) for one in placed(located, *ONE, *TWO))
        ]  # fmt: skip
        window = DeltaWindow(made.reader, made.verified, deltas)
        window.read_alone()
        whole = [window.is_whole(base) for delta in deltas for base in window.bases(delta)]
        assert whole == [False] * len(ONE) + [True] * len(TWO)
    else:
        listed_pack(made, ONE)
        recipe, wanted, memory = recipe_of(located, *ONE, *TWO)
        with pytest.warns(RuntimeWarning, match="is damaged"):
            made.fetcher.fill(recipe, wanted, True)
        assert memory == b"".join([*ONE, *TWO])
    reads = [
        (start, length) for pack, start, length in made.backend.reads
        if pack == pack_path(name) and start + length > group.offset
    ]  # fmt: skip
    assert reads == [(64, group.offset + group.csize - 64), (group.offset, group.csize)]


def test_a_group_that_is_damaged_and_nowhere_else():
    made = parts()
    name, located = listed_pack(made, [ONE, TWO], stored_groups)
    damage(made.backend, name, 70)
    recipe, wanted, _ = recipe_of(located, *TWO, ONE[3])
    with pytest.raises(CorruptObject) as caught:
        made.fetcher.fill(recipe, wanted, True)
    assert (caught.value.key, caught.value.offset) == (pack_path(name), 64)


# ---- what an acknowledgement may rely on --------------------------------------------


def placed(located, *chunks):
    return [
        PlacedChunk(ChunkRef(DIGEST(data), len(data)), at.pack.value.hex(), at.placement())
        for data in chunks
        for at in [located[DIGEST(data)]]
    ]


@pytest.mark.parametrize("remote", [False, True])
def test_a_group_is_probed_once_and_each_of_its_chunks_is_remembered(remote):
    made = parts(remote=remote)
    _, located = stored_groups(made.backend, [ONE, TWO])
    counted = Decoded(made)
    wanted = placed(located, *TWO, *ONE)
    everything = {DIGEST(data) for data in [*ONE, *TWO]}
    assert made.context.reliance.whole(wanted) == everything
    assert sorted(counted.parts) == [4, 5]
    assert made.context.reliance.whole(wanted) == everything
    assert len(counted.parts) == 2
    # Not at another place of the same group.
    moved = wanted[1]._replace(placement=wanted[0].placement)
    assert made.context.reliance.whole([moved]) == set()


def test_of_a_group_each_chunk_is_judged_by_itself():
    made = parts()
    _, located = stored_groups(made.backend, [ONE])
    good = placed(located, *ONE)
    wrong = good[1]._replace(chunk=ChunkRef(DIGEST(b"another"), good[1].chunk.usize))
    assert made.context.reliance.whole([good[0], wrong, good[2]]) == {good[0].chunk.id, good[2].chunk.id}
    assert made.context.reliance.contents(good)[DIGEST(ONE[2])] == ONE[2]


def test_a_damaged_group_is_relied_upon_for_nothing():
    made = parts()
    name, located = stored_groups(made.backend, [ONE, [noise(5, 500)]])
    damage(made.backend, name, 64)
    assert made.context.reliance.whole(placed(located, *ONE)) == set()


def _ends(chunks):
    total, ends = 0, []
    for data in chunks:
        total += len(data)
        ends.append(total)
    return ends
