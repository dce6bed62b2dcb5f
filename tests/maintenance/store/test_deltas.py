"""Chunks that are stored as deltas: verify, repair and collections know what they need besides themselves."""

import dataclasses
import warnings

import numpy as np
import pytest

from mfstore import errors
from mfstore._core.codec import DELTAS
from mfstore.backends.memory import MemoryBackend
from mfstore.format import fragments, recipes
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, recipe_path
from mfstore.maintenance.store.collecting import plan
from tests.rigs.damage import DAMAGE, NOISE, damage, unreadable, wrapped
from tests.rigs.delta_stores import KINDS, store_as_deltas, versions
from tests.rigs.deltas import recipe_of
from tests.rigs.gc import DAY, RemoteMemory, objects
from tests.rigs.stored import entries_of_pack, part_of, stored_again

pytestmark = pytest.mark.usefixtures("whole_chunks")  # deltas are what each test makes itself

in_packs = pytest.mark.parametrize("kind", ["prefix", "difference", "grouped"])
each_kind = pytest.mark.parametrize("kind", KINDS)
bases_alone = pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"grouped"}))  # each in a place of its own


@pytest.fixture
def memory():
    return MemoryBackend()


def of(backend, kind):
    return versions(backend, **KINDS[kind])


def flip(backend, path, at):
    data = bytearray(backend.get(path))
    data[at] ^= 1
    backend.put(path, [bytes(data)])


def numbers_of_deltas(recipe):
    return [number for number, at in enumerate(recipe.placements) if at.pieces]


def everything(backend):
    return [info.key for info in backend.list("")]


def deltas(backend, key):
    return [at for at in recipe_of(backend, key).placements if at.codec in DELTAS]


def whole(backend, *keys):
    """Whether these keys can be read, and a full pass finds nothing and decodes every delta of them."""
    report = wrapped(backend).verify("full")
    assert all(wrapped(backend).get_bytes(key) for key in keys)
    return report.clean and report.deltas == sum(len(deltas(backend, key)) for key in keys)


def store_copies(backend, *values):
    """Store values whole in a pack of their own, as if nothing had been found to be there: recipes are as they were,
    and the index knows both."""
    index = {key: backend.get(key) for key in objects(backend, "index")}
    here = {key: backend.get(key) for key in objects(backend, "recipes")}
    for key in [*index, *here]:
        backend.delete(key)
    wrapped(backend).put_many([NOISE[0], *values])  # another pack has another layout
    for key, data in [*index.items(), *here.items()]:
        backend.put(key, [data])


# ---- verify ----------------------------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("backend", [MemoryBackend, RemoteMemory])
def test_a_whole_store_is_clean_and_each_delta_is_decoded_once(backend, kind):
    found = of(backend(), kind)
    # Another recipe places the same deltas.
    recipe = recipe_of(found.backend, found.new)
    assert len(deltas(found.backend, found.new)) > 2 and len(recipe.bases) > 2
    for level in ("list", "headers"):
        report = wrapped(found.backend).verify(level)
        assert report.clean and report.findings == () and report.deltas == 0
    report = wrapped(found.backend).verify("full")
    assert report.findings == () and report.remembered and report.complete
    assert report.deltas == len(deltas(found.backend, found.new))


@each_kind
def test_deltas_that_are_placed_more_than_once_are_decoded_once(memory, kind):
    """By several chunks of a recipe, as a few bytes could say of hundreds of thousands; and in packs by two recipes."""
    found = of(memory, kind)
    recipe = recipe_of(memory, found.new)
    one, two = numbers_of_deltas(recipe)[:2]
    key = part_of(memory, recipe, [one, two, one, one])
    assert len(deltas(memory, key)) == 4
    report = wrapped(memory).verify("full")
    own = 2 if kind == "inline" else 0
    assert report.clean and report.deltas == len(deltas(memory, found.new)) + own


@pytest.mark.parametrize(("level", "how"), [("headers", "gone"), ("full", "gone"), ("full", "zeros")])
@each_kind
def test_what_a_lost_base_costs_is_told(memory, kind, level, how):
    """The artifact that is stored as deltas, the chunks they need, and the pack in which these were."""
    found = of(memory, kind)
    bases = sorted(base.id.hex() for base in recipe_of(memory, found.new).bases)
    if how == "gone":
        memory.delete(found.base_pack)
    else:
        damage(memory, found.base_pack, DAMAGE[how])
    (finding,) = (one for one in wrapped(memory).verify(level).findings if one.harm == "data")
    assert finding.object == found.base_pack
    assert set(finding.keys) == {found.old, found.new} and finding.refs == ("new",)
    assert list(finding.bases) == bases
    assert bases[0] in finding.detail and f"and {len(bases) - 3} more" in finding.detail


@bases_alone
def test_one_damaged_base_is_told_when_only_deltas_need_it(memory, kind):
    found = of(memory, kind)
    memory.delete(recipe_path(found.old))
    base = recipe_of(memory, found.new).bases[0]
    flip(memory, found.base_pack, base.offset + 1)
    assert wrapped(memory).verify("headers").clean
    (finding,) = wrapped(memory).verify("full").findings
    assert (finding.object, finding.keys, finding.bases) == (found.base_pack, (found.new,), (base.id.hex(),))
    assert "1 of " in finding.detail and base.id.hex() in finding.detail


@in_packs
def test_a_damaged_delta_is_told_from_a_damaged_base(memory, kind):
    found = of(memory, kind)
    flip(memory, found.delta_pack, deltas(memory, found.new)[1].offset + 1)
    (finding,) = wrapped(memory).verify("full").findings
    assert (finding.object, finding.keys, finding.bases) == (found.delta_pack, (found.new,), ())


def test_a_damaged_delta_in_a_recipe_is_told_without_its_base(memory):
    found = of(memory, "inline")
    flip(memory, recipe_path(found.new), -5)
    for level in ("headers", "full"):
        (finding,) = wrapped(memory).verify(level).findings
        assert (finding.object, finding.keys) == (recipe_path(found.new), (found.new,))
        assert finding.detail == "1 chunks in it differ from their digests"


@each_kind
def test_a_recipe_that_names_the_wrong_base_is_told_by_a_full_pass(memory, kind):
    """Everything it needs is whole, and does not fit together."""
    found = of(memory, kind)
    recipe = recipe_of(memory, found.new)
    number = numbers_of_deltas(recipe)[1]
    placements = list(recipe.placements)
    (piece,) = placements[number].pieces
    turned = (piece._replace(start=100, length=piece.length - 100), piece._replace(length=100))
    placements[number] = placements[number]._replace(pieces=turned)
    stored_again(memory, found.new, placements=placements)
    assert wrapped(memory).verify("headers").clean
    for _ in range(2):  # such a part of the store is not remembered as read
        (finding,) = wrapped(memory).verify("full", older_than=3600).findings
        assert (finding.object, finding.keys) == (recipe_path(found.new), (found.new,))
        assert finding.detail == "1 deltas do not give their chunks with the bases that it names"
    lost = {path: memory.get(path) for path in everything(memory)}
    assert wrapped(memory).repair().lost == (found.new,)
    assert wrapped(memory).put(found.values[found.new]) == found.new and wrapped(memory).verify("full").clean
    # It mends it, and so does another copy of that chunk.
    for path in everything(memory):
        memory.delete(path)
    for path, data in lost.items():
        memory.put(path, [data])
    store_copies(memory, found.values[found.new])
    assert wrapped(memory).verify("full").unreadable == ()
    done = wrapped(memory).repair()
    assert done.after.clean and not done.lost
    assert recipe_of(memory, found.new).placements[number].codec not in DELTAS
    assert len(deltas(memory, found.new)) == len(numbers_of_deltas(recipe)) - 1
    assert whole(memory, found.new)


@each_kind
def test_a_base_that_does_not_lie_where_a_recipe_says_is_told(memory, kind):
    found = of(memory, kind)
    recipe = recipe_of(memory, found.new)
    moved = (recipe.bases[0]._replace(offset=recipe.bases[0].offset + 1), *recipe.bases[1:])
    stored_again(memory, found.new, bases=moved)
    for level in ("headers", "full"):
        (finding,) = wrapped(memory).verify(level).findings
        assert finding.object == recipe_path(found.new) and "a base chunk where another lies" in finding.detail
        assert finding.keys == ()  # the index knows where it lies
    assert wrapped(memory).repair("headers").after.clean
    assert recipe_of(memory, found.new).bases == recipe.bases
    assert whole(memory, found.new)


def test_deltas_in_packs_are_read_by_parts_of_the_store(memory):
    """Those of a recipe when its part is read, wherever they and their bases lie."""
    found = of(memory, "prefix")
    shard = int(found.new[:2], 16)
    assert wrapped(memory).verify("full", sample=(shard + 1, 256)).deltas == len(deltas(memory, found.new))
    assert wrapped(memory).verify("full", sample=((shard + 1) % 256 + 1, 256)).deltas == 0


def read_besides(recipe):
    """Bytes of places that a recipe needs for bases alone. Those of a group have one place."""
    placed = {at[:2] for at in recipe.placements}
    return sum({(base.pack, base.offset): base.csize for base in recipe.bases if base[1:3] not in placed}.values())


@each_kind
def test_stat_tells_what_is_read_besides(memory, kind):
    found = of(memory, kind)
    recipe = recipe_of(memory, found.new)
    old, new = wrapped(memory).stat(found.old), wrapped(memory).stat(found.new)
    assert old.bases == 0 and new.bases == read_besides(recipe) > 100_000
    assert new.stored == recipe.stored + sum(at.csize for at in recipe.placements if at.pack != INLINE)
    label = {"difference": "difference+shuffle", "grouped": "difference+shuffle"}.get(kind, "delta")
    sizes = [chunk.usize for chunk, at in recipes.placed_chunks(recipe) if at.pieces]
    assert new.codecs[label] == sum(sizes) and label not in old.codecs
    # A chunk that it places as well is none of the others.
    key = wrapped(memory).put(np.concatenate([found.values[found.old], found.values[found.new]]))
    store_as_deltas(memory, key, found.old, **KINDS["inline"])
    recipe = recipe_of(memory, key)
    everything = dataclasses.replace(recipe, placements=[])
    assert wrapped(memory).stat(key).bases == read_besides(recipe) < read_besides(everything)


@pytest.mark.second
@pytest.mark.parametrize("how", ["gone", "half", "middle"])
@each_kind
def test_what_verify_calls_unreadable_is_what_cannot_be_read(memory, kind, how):
    """Of every object of a store with deltas in turn; and a lost base has another copy now and then."""
    found = of(memory, kind)
    for copies in (False, True):
        if copies:
            store_copies(memory, found.values[found.old])
        for path in [*objects(memory, "packs"), *objects(memory, "recipes")]:
            before = memory.get(path)
            if how == "gone":
                memory.delete(path)
            else:
                damage(memory, path, DAMAGE[how])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of reads that were healed
                bad = unreadable(memory, found.values)
            forgotten = path == recipe_path(found.old) and how == "gone"
            told = set(wrapped(memory).verify("full").unreadable)
            assert told & found.values.keys() == (set() if forgotten else bad), path
            memory.put(path, [before])
    assert wrapped(memory).verify("full").clean


# ---- repair ----------------------------------------------------------------------------------------------------------


@each_kind
def test_a_pack_of_bases_without_a_trailer_is_mended_by_what_recipes_say(memory, kind):
    """Not even the index tells, and no recipe places chunks there but as bases."""
    found = of(memory, kind)
    recipe = recipe_of(memory, found.new)
    key = part_of(memory, recipe, numbers_of_deltas(recipe))
    for path in [recipe_path(found.old), recipe_path(found.new), *objects(memory, "index")]:
        memory.delete(path)
    del wrapped(memory).refs["new"]
    flip(memory, found.base_pack, -1)
    done = wrapped(memory).repair()
    assert done.after.clean and not done.lost
    assert found.base_pack not in objects(memory, "packs")  # one with less in it stands in
    assert len(deltas(memory, key)) == len(recipe.bases) and whole(memory, key)


@bases_alone
def test_whole_bases_of_a_damaged_pack_are_moved_and_deltas_stay_deltas(memory, kind):
    found = of(memory, kind)
    before = deltas(memory, found.new)
    bases = recipe_of(memory, found.new).bases
    (body,) = [e for e in entries_of_pack(memory, found.base_pack) if e.id not in {base.id for base in bases}]
    store_copies(memory, found.values[found.old])
    flip(memory, found.base_pack, body.offset)
    done = wrapped(memory).repair()
    assert done.after.clean and not done.lost and found.base_pack not in objects(memory, "packs")
    assert [at._replace(pack=0, offset=0) for at in deltas(memory, found.new)] == [
        at._replace(pack=0, offset=0) for at in before
    ]
    now = recipe_of(memory, found.new).bases
    assert [base._replace(pack=0, offset=0) for base in now] == [base._replace(pack=0, offset=0) for base in bases]
    assert now != bases and whole(memory, found.new)


@bases_alone
def test_a_lost_base_with_another_copy_is_replaced(memory, kind):
    found = of(memory, kind)
    store_copies(memory, [found.values[found.old]])
    before = recipe_of(memory, found.new).bases
    flip(memory, found.base_pack, before[1].offset + 1)
    done = wrapped(memory).repair()
    assert done.after.clean and not done.lost and found.base_pack not in objects(memory, "packs")
    recipe = recipe_of(memory, found.new)
    assert [base.id for base in recipe.bases] == [base.id for base in before]
    assert recipe.bases[0].pack != recipe.bases[1].pack  # the others were moved
    assert whole(memory, found.new)


@bases_alone
def test_what_depends_on_a_lost_base_is_lost_unless_it_has_a_copy(memory, kind):
    found = of(memory, kind)
    base = recipe_of(memory, found.new).bases[1]
    flip(memory, found.base_pack, base.offset + 1)
    before = {key: memory.get(key) for key in objects(memory, "packs")}
    dry = wrapped(memory).repair(dry_run=True)
    assert set(dry.lost) == {found.old, found.new}
    assert {one.bases for one in dry.before.findings} == {(base.id.hex(),)}
    assert {key: memory.get(key) for key in objects(memory, "packs")} == before
    # The new version's own chunk has a copy: the delta gives way to it, and others stay.
    store_copies(memory, [found.values[found.new]])
    done = wrapped(memory).repair(drop_lost=True)
    assert done.lost == (found.old,) and done.after.clean
    recipe = recipe_of(memory, found.new)
    assert base.id not in {one.id for one in recipe.bases}
    assert 0 < sum(at.codec in DELTAS for at in recipe.placements) < len(recipe.placements) - 1
    assert whole(memory, found.new)


@in_packs
def test_whole_deltas_of_a_damaged_pack_are_moved_as_they_are(memory, kind):
    found = of(memory, kind)
    lost, *others = deltas(memory, found.new)
    flip(memory, found.delta_pack, lost.offset + 1)
    gone = found.delta_pack
    done = wrapped(memory).repair()
    assert done.lost == (found.new,)
    ids = {e.id for path in objects(memory, "packs") for e in entries_of_pack(memory, path) if e.codec in DELTAS}
    assert len(ids) == len(others) and gone not in objects(memory, "packs")
    # What was lost comes back whole from whoever stores it.
    store_copies(memory, [found.values[found.new]])
    assert wrapped(memory).repair().after.clean
    recipe = recipe_of(memory, found.new)
    assert sum(at.codec in DELTAS for at in recipe.placements) == len(others)
    assert whole(memory, found.new)


def test_a_damaged_delta_in_a_recipe_gives_way_to_a_copy(memory):
    found = of(memory, "inline")
    store_copies(memory, [found.values[found.new]])
    flip(memory, recipe_path(found.new), -5)
    done = wrapped(memory).repair()
    assert done.after.clean and not done.lost
    recipe = recipe_of(memory, found.new)
    assert recipe.placements[-1].codec not in DELTAS and len(deltas(memory, found.new)) > 1
    assert whole(memory, found.new)


@in_packs
def test_an_index_that_is_rebuilt_lists_no_deltas(memory, kind):
    of(memory, kind)
    for key in objects(memory, "index"):
        memory.delete(key)
    assert [one.kind for one in wrapped(memory).verify().findings] == ["unlisted"]
    assert wrapped(memory).repair().after.clean
    listed = {bytes(row[0]) for key in objects(memory, "index") for row in fragments.ENTRY.iter_unpack(
        fragments.decode_fragment(memory.get(key), key).entries)}  # fmt: skip
    entries = [entry for path in objects(memory, "packs") for entry in entries_of_pack(memory, path)]
    assert listed == {entry.id for entry in entries if entry.codec not in DELTAS} and len(listed) < len(entries)


@each_kind
def test_a_ref_goes_back_to_what_needs_no_lost_base(memory, kind):
    """The version before the one that is stored as deltas is lost too; the one before that is not."""
    found = of(memory, kind)
    store = wrapped(memory)
    first = store.put("first")
    for key in (first, found.old, found.new):
        store.refs["model"] = key
    flip(memory, found.base_pack, recipe_of(memory, found.new).bases[0].offset + 1)
    done = wrapped(memory).repair(roll_back=True, drop_lost=True)
    assert set(done.lost) == {found.old, found.new}
    assert wrapped(memory).refs["model"] == first
    assert wrapped(memory).verify("full").clean


# ---- collections -----------------------------------------------------------------------------------------------------


def collected(backend, clock, times=2, **policy):
    for _ in range(times):
        clock.advance(2 * DAY)
        wrapped(backend).plan_gc(**policy).execute()


@each_kind
def test_bases_stay_as_long_as_a_recipe_names_them(memory, clock, kind):
    found = of(memory, kind)
    collected(memory, clock, repack=0)
    assert objects(memory, "recipes") == [recipe_path(found.new)]
    assert found.base_pack in objects(memory, "packs")
    assert whole(memory, found.new)
    del wrapped(memory).refs["new"]
    wrapped(memory).refs["other"] = wrapped(memory).put("other")
    collected(memory, clock, repack=0)
    assert objects(memory, "packs") == []


@each_kind
def test_repacking_moves_bases_and_deltas(memory, clock, kind, monkeypatch):
    """Of the pack with the old version only the bases are needed; of the one with deltas, what one recipe places."""
    monkeypatch.setattr(plan, "SMALLEST_REPACKED", 1)
    found = of(memory, kind)
    recipe = recipe_of(memory, found.new)
    key = part_of(memory, recipe, numbers_of_deltas(recipe)[-2:])
    before = recipe_of(memory, key)
    del wrapped(memory).refs["new"]
    wrapped(memory).refs["part"] = key
    collected(memory, clock, 3, repack=1)
    after = recipe_of(memory, key)
    packs = objects(memory, "packs")
    assert objects(memory, "recipes") == [recipe_path(key)] and not {found.base_pack, found.delta_pack} & {*packs}
    assert {pack_path(name.hex()) for name in after.packs} == set(packs)
    entries = [entry for path in packs for entry in entries_of_pack(memory, path)]
    assert sum(entry.codec not in DELTAS for entry in entries) == len(before.bases) == 2
    for one, two in ((before.placements, after.placements), (before.bases, after.bases)):
        if one is before.placements or kind != "grouped":  # what is little of a group leaves it
            assert [at._replace(pack=0, offset=0) for at in one] == [at._replace(pack=0, offset=0) for at in two]
    assert after.bases != before.bases and whole(memory, key)


@in_packs
def test_a_damaged_delta_is_not_repacked(memory, clock, kind, monkeypatch):
    monkeypatch.setattr(plan, "SMALLEST_REPACKED", 1)
    found = of(memory, kind)
    recipe = recipe_of(memory, found.new)
    key = part_of(memory, recipe, numbers_of_deltas(recipe)[-1:])
    del wrapped(memory).refs["new"]
    wrapped(memory).refs["part"] = key
    flip(memory, found.delta_pack, deltas(memory, key)[0].offset + 1)
    collected(memory, clock, 3, repack=1)
    assert found.delta_pack in objects(memory, "packs")
    (finding,) = wrapped(memory).verify("full").findings
    assert (finding.object, finding.keys) == (found.delta_pack, (key,))


@each_kind
@pytest.mark.parametrize("how", ["gone", "half"])
def test_a_missing_base_stops_a_collection(memory, kind, how):
    """Though every pack in which the recipe places chunks is there."""
    found = of(memory, kind)
    recipe = recipe_of(memory, found.new)
    wrapped(memory).refs["new"] = part_of(memory, recipe, numbers_of_deltas(recipe))
    if how == "gone":
        memory.delete(found.base_pack)
    else:
        damage(memory, found.base_pack, DAMAGE[how])
    what = "a pack is missing" if how == "gone" else "a pack is too short"
    with pytest.raises(errors.CorruptObject, match=f"garbage collection stops: .* needs it: {what}"):
        wrapped(memory).plan_gc(grace=0)


@each_kind
def test_bases_are_alive_once(memory, kind):
    found = of(memory, kind)
    alone = len({at[:2] for at in recipe_of(memory, found.new).placements if at.pack != INLINE})
    assert wrapped(memory).plan_gc(grace=0).chunks == alone + len(recipe_of(memory, found.new).bases)
    own = len(deltas(memory, found.new)) if kind != "inline" else 0
    assert wrapped(memory).plan_gc(live=[found.old], grace=0).chunks == own + len(
        recipe_of(memory, found.old).placements
    )
