"""Chunks where they belong: in few reads, each compared with its digest, from another copy when one is damaged."""

import pytest

from mfstore._core.codec import NONE
from mfstore.errors import AccessDenied, CorruptObject
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, ChunkRef, Placement, Recipe
from mfstore.loading.fetch import targets
from tests.rigs.parts import DIGEST, KIB, damage, listed_pack, noise, parts, stored_pack

A, B, C = noise(1, 1000), noise(2, 2000), noise(3, 3000)


def recipe_of(located, *chunks, inline=b""):
    """A recipe that places chunks where they are located, else inline; and memory with what is wanted there."""
    packs = list(dict.fromkeys(at.pack.value for at in located.values()))
    placements, at = [], 0
    for data in chunks:
        if (found := located.get(DIGEST(data))) is not None:
            placements.append(found.placement(packs.index(found.pack.value)))
            continue
        placements.append(Placement(INLINE, at, len(data), NONE, 0))
        at += len(data)
    memory = bytearray(sum(map(len, chunks)))
    wanted = list(targets(memory, 0, [ChunkRef(DIGEST(data), len(data)) for data in chunks]))
    return Recipe(1, 1, b"", (), packs=tuple(packs), placements=placements, inline=inline), wanted, memory


def test_targets_lie_back_to_back():
    memory = bytearray(6)
    refs = [ChunkRef(b"a", 2), ChunkRef(b"b", 1), ChunkRef(b"c", 3)]
    for number, _, view in targets(memory, 7, refs):
        view[:] = bytes([number]) * len(view)
    assert memory == bytes([7, 7, 8, 9, 9, 9])


def test_neighbours_are_one_read():
    made = parts()
    name, located = stored_pack(made.backend, [A, B, C])
    recipe, wanted, memory = recipe_of(located, C, A, B)
    made.fetcher.fill(recipe, wanted, True)
    assert memory == C + A + B
    assert made.backend.reads == [(pack_path(name), 64, 6000)]


def test_raw_neighbours_are_read_straight_into_their_memory(monkeypatch):
    made = parts()
    _, located = stored_pack(made.backend, [A, B, C])
    recipe, wanted, memory = recipe_of(located, A, B, C)
    read_into, filled = made.backend.read_into, []

    def noted(key, start, target):
        filled.append((start, len(target)))
        read_into(key, start, target)

    monkeypatch.setattr(made.backend, "read_into", noted)
    made.fetcher.fill(recipe, wanted, True)
    assert memory == A + B + C
    assert filled == [(64, 6000)]


@pytest.mark.parametrize("verify", [True, False])
def test_damage_among_raw_neighbours_is_that_of_its_chunk(verify):
    made = parts()
    name, located = stored_pack(made.backend, [A, B, C])
    recipe, wanted, memory = recipe_of(located, A, B, C)
    damage(made.backend, name, 64 + 1500)
    if verify:
        with pytest.raises(CorruptObject) as caught:
            made.fetcher.fill(recipe, wanted, True)
        assert caught.value.offset == 64 + len(A)
    else:
        made.fetcher.fill(recipe, wanted, False)
        assert memory != A + B + C and memory[: len(A)] == A


def test_two_recipes_share_reads():
    made = parts()
    _, located = stored_pack(made.backend, [A, B])
    one, wanted_of_one, memory_of_one = recipe_of(located, A)
    two, wanted_of_two, memory_of_two = recipe_of(located, B)
    made.fetcher.fill_all([(one, wanted_of_one), (two, wanted_of_two)], True)
    assert (memory_of_one, memory_of_two) == (A, B)
    assert len(made.backend.reads) == 1


def test_what_lies_in_the_recipe_is_not_read():
    made = parts()
    recipe, wanted, memory = recipe_of({}, A, B, inline=A + B)
    made.fetcher.fill(recipe, wanted, True)
    assert memory == A + B
    assert made.backend.reads == []


def test_an_inline_chunk_is_compared_with_its_digest_when_that_is_asked_for():
    made = parts()
    recipe, wanted, memory = recipe_of({}, A, inline=B[:1000])
    made.fetcher.fill(recipe, wanted, False)
    assert memory == B[:1000]
    with pytest.raises(CorruptObject, match="differs from its digest"):
        made.fetcher.fill(recipe, wanted, True)
    # What is known to be damaged is not used, asked for or not, until there is another copy.
    with pytest.raises(CorruptObject, match="differs from its digest"):
        made.fetcher.fill(recipe, wanted, False)
    listed_pack(made, [A])
    with pytest.warns(RuntimeWarning, match="Run: mfstore repair"):
        made.fetcher.fill(recipe, wanted, False)
    assert memory == A


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("gone", [False, True])
def test_a_damaged_chunk_comes_from_another_copy_and_the_rest_as_it_was(remote, gone):
    made = parts(remote=remote)
    name, located = listed_pack(made, [A, B])
    if gone:
        made.backend.delete(pack_path(name))
        listed_pack(made, [C, A])
    else:
        damage(made.backend, name, located[DIGEST(B)].offset)
    listed_pack(made, [C, B])
    recipe, wanted, memory = recipe_of(located, A, B)
    # What is gone is no damage where a collector has repacked it.
    words = "is gone: .*repacked.* run: mfstore verify" if gone else "is damaged: .*Run: mfstore repair"
    with pytest.warns(RuntimeWarning, match=words) as told:
        made.fetcher.fill(recipe, wanted, True)
    assert memory == A + B and len(told) == 1
    for verify in (False, True):  # and it is told once
        memory[:] = bytes(len(memory))
        made.fetcher.fill(recipe, wanted, verify)
        assert memory == A + B
    assert not made.verified.has(name, located[DIGEST(B)].offset, 2000, DIGEST(B))


def test_a_copy_that_others_have_stored_meanwhile_is_found():
    """The index is read anew before a chunk is given up."""
    made = parts()
    name, located = listed_pack(made, [A])
    assert made.index.find([DIGEST(A)])  # read, and remembered
    other = parts()
    copy, _ = listed_pack(other, [B, A])
    for key in (pack_path(copy), next(other.backend.list("index/")).key):
        made.backend.put(key, [other.backend.get(key)])
    damage(made.backend, name, located[DIGEST(A)].offset)
    recipe, wanted, memory = recipe_of(located, A)
    with pytest.warns(RuntimeWarning, match="Run: mfstore repair"):
        made.fetcher.fill(recipe, wanted, True)
    assert memory == A


def test_a_copy_is_always_compared_with_its_digest():
    """An index entry is a hint, and the caller's "without" is about where the recipe says."""
    made = parts()
    copy, there = listed_pack(made, [C, A])
    damage(made.backend, copy, there[DIGEST(A)].offset)
    name, located = stored_pack(made.backend, [A])
    made.backend.delete(pack_path(name))
    recipe, wanted, _ = recipe_of(located, A)
    with pytest.raises(CorruptObject, match="a pack is missing") as caught:
        made.fetcher.fill(recipe, wanted, False)
    assert caught.value.key == pack_path(name)
    assert caught.value.hint == "Store the same content again to repair it"


def test_damage_says_where():
    made = parts()
    name, located = stored_pack(made.backend, [A, B])
    damage(made.backend, name, 64 + 1000 + 5)
    recipe, wanted, _ = recipe_of(located, A, B)
    with pytest.raises(CorruptObject) as caught:
        made.fetcher.fill(recipe, wanted, True)
    assert (caught.value.key, caught.value.offset) == (pack_path(name), 1064)
    assert caught.value.expected == DIGEST(B).hex()


def test_a_refusal_is_no_damage():
    """It is told as it is: another copy would hide that the store may not be read."""
    made = parts()
    _, located = stored_pack(made.backend, [A])

    def refuse(*_):
        raise AccessDenied("no")

    made.backend.read_into = refuse
    recipe, wanted, _ = recipe_of(located, A)
    with pytest.raises(AccessDenied):
        made.fetcher.fill(recipe, wanted, True)


def test_far_away_many_reads_are_decoded_by_other_threads():
    made = parts(remote=True, threads=2, gap=0, span=300 * KIB)
    chunks = [noise(seed, 200 * KIB) for seed in range(20)]
    _, located = stored_pack(made.backend, chunks)
    recipe, wanted, memory = recipe_of(located, *reversed(chunks))
    made.fetcher.fill(recipe, wanted, True)
    assert memory == b"".join(reversed(chunks))
    made.workers.close()
