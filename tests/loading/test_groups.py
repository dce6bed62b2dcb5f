"""Groups: read once, decoded once, into the memory of each chunk that is wanted of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore import errors
from mfstore._core.codec import GROUP, PREFIX, Codec
from mfstore.errors import CorruptObject
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, ChunkRef, Placement, Recipe
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
