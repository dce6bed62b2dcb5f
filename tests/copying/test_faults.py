"""What fails, is damaged, collected or killed while it is copied costs nothing that was acknowledged, and no bad byte
goes on."""

import os
import signal

import numpy as np
import pytest

from mfstore import errors
from mfstore._core.codec import DELTAS
from mfstore.backends.base import Batch
from mfstore.backends.local import LocalBackend
from mfstore.backends.memory import MemoryBackend
from mfstore.copying import places, transfer
from mfstore.format import recipes
from mfstore.format.digests import digest_function
from mfstore.format.packs import PackBuilder, pack_path
from mfstore.format.recipes import INLINE, placed_chunks, recipe_path
from mfstore.testing import Fault, FaultyBackend
from tests.copying.stores import LONG, empty, filled, noise
from tests.rigs.damage import wrapped
from tests.rigs.deltas import CODEC, chunk_bytes
from tests.rigs.gc import DAY, Clock


def small_source():
    source = empty()
    source.put(noise(1), ref="models/a", note={"n": 1})
    source.save({"x": noise(1), "y": "small"}, ref="bundle")
    return source


@pytest.mark.parametrize("after", [False, True])
def test_every_call_at_the_destination_that_fails(after):
    source = small_source()
    number, failed = 0, 0
    while True:
        number += 1 + after
        inner = MemoryBackend()
        faulty = FaultyBackend(inner, Fault(number, after=after))
        try:
            source.copy_to(wrapped(faulty))
            reached = faulty.calls >= number
        except errors.BackendError:
            failed, reached = failed + 1, True
        if not reached:
            break
        reader = wrapped(inner)
        if list(inner.list("")):
            assert reader.verify("full").clean
        source.copy_to(wrapped(inner))
        assert dict(reader.refs) == dict(source.refs) and reader.verify("full").clean
    assert failed > 4


def test_every_call_at_the_source_that_fails():
    store = small_source()
    number, failed = 0, 0
    while True:
        number += 1
        faulty = FaultyBackend(store.backend, Fault(number))
        target = empty()
        try:
            wrapped(faulty).copy_to(target)
            if faulty.calls < number:
                break
        except errors.BackendError:
            failed += 1
        assert not list(target.backend.list("")) or target.verify("full").clean
        store.copy_to(target)
        assert dict(target.refs) == dict(store.refs) and target.verify("full").clean
    assert failed > 5


def test_what_was_copied_before_a_failure_is_not_sent_again(monkeypatch):
    monkeypatch.setattr(transfer, "WINDOW_RECIPES", 1)
    source = empty()
    for number in range(4):
        source.put(noise(number), ref=f"r/{number}")
    whole = source.copy_to(empty()).sent
    inner = MemoryBackend()

    class Ending(FaultyBackend):
        def put(self, key, parts):
            if key.startswith("recipes/") and sum(1 for _ in inner.list("recipes/")) == 2:
                raise errors.BackendError("the network is gone")
            super().put(key, parts)

        def batch(self):
            return Batch(self)

    with pytest.raises(errors.BackendError, match="gone"):
        source.copy_to(wrapped(Ending(inner)))
    assert not list(wrapped(inner).refs)
    done = source.copy_to(wrapped(inner))
    assert (done.keys, done.there) == (2, 2) and done.sent < 0.3 * whole  # the third pack was there already
    assert wrapped(inner).verify("full").clean


def test_the_index_is_told_of_packs_before_all_of_them_are_there(monkeypatch):
    monkeypatch.setattr(transfer, "CHECKPOINT", 1)
    for module in (places, transfer):
        monkeypatch.setattr(module, "WHOLE_FROM", 50_000)
    source, inner = empty(), MemoryBackend()
    for number in range(2):
        source.put(noise(number))

    class Ending(FaultyBackend):
        def put(self, key, parts):
            if key.startswith("packs/") and list(inner.list("packs/")):
                raise errors.BackendError("the network is gone")
            super().put(key, parts)

        def batch(self):
            return Batch(self)

    with pytest.raises(errors.BackendError, match="gone"):
        source.copy_to(wrapped(Ending(inner)))
    assert len(list(inner.list("packs/"))) == 1 and list(inner.list("index/"))
    assert source.copy_to(wrapped(inner)).packs_whole == 1


KINDS = ("array", "bundle", "group", "inline group", "delta", "inline delta", "inline")


def damage(backend, recipe, key, number=0):
    """Flip a bit of a chunk, or of a base chunk, where a recipe says that it lies."""
    at = recipe.placements[number]
    if at.pack == INLINE:
        data = bytearray(backend.get(recipe_path(key)))
        data[len(data) - len(recipe.inline) + at.offset + at.csize // 2] ^= 1
        backend.put(recipe_path(key), [bytes(data)])
        return recipe_path(key)
    path = pack_path(recipe.packs[at.pack].hex())
    data = bytearray(backend.get(path))
    data[at.offset + at.csize // 2] ^= 1
    backend.put(path, [bytes(data)])
    return path


@pytest.fixture(scope="module")
def various():
    store, keys = filled()
    return {info.key: store.backend.get(info.key) for info in store.backend.list("")}, keys


def restored(objects):
    backend = MemoryBackend()
    for path, data in objects.items():
        backend.put(path, [data])
    return wrapped(backend)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_at_the_source_does_not_go_on(various, kind):
    objects, keys = various
    source, target = restored(objects), empty()
    key = keys[kind]
    recipe = source.handle.recipe(key)
    damage(source.backend, recipe, key, len(recipe.placements) - 1)
    with pytest.raises(errors.CorruptObject) as failed:
        source.copy_to(target, [key])
    assert key in str(failed.value)
    assert not target.exists(key) and (target.handle.description is None or target.verify("full").clean)
    source.copy_to(target, [one for name, one in keys.items() if name == "literal"])
    assert target.verify("full").clean


@pytest.mark.parametrize("kind", ["delta", "inline delta"])
def test_a_damaged_base_does_not_go_on(various, kind):
    objects, keys = various
    source, target = restored(objects), empty()
    recipe = source.handle.recipe(keys[kind])
    path = pack_path(recipe.packs[recipe.bases[0].pack].hex())
    data = bytearray(source.backend.get(path))
    for base in recipe.bases:
        data[base.offset + base.csize // 2] ^= 1
    source.backend.put(path, [bytes(data)])
    with pytest.raises(errors.CorruptObject, match=keys[kind]):
        source.copy_to(target, [keys[kind]])
    assert not target.exists(keys[kind])


def test_what_is_whole_elsewhere_is_copied_from_there(various):
    """The chunks of a delta, of its base and of a group also lie in other packs."""
    objects, keys = various
    for kind in ("array", "group", "inline group", "delta", "inline delta"):
        source, target = restored(objects), empty()
        wanted = source.get_bytes(keys[kind])
        recipe = source.handle.recipe(keys[kind])
        elsewhere = empty()
        elsewhere.save({"more": noise(8), "this": LONG if kind == "array" else wanted})
        for prefix in ("packs/", "index/"):
            for info in elsewhere.backend.list(prefix):
                source.backend.put(info.key, [elsewhere.backend.get(info.key)])
        damage(source.backend, recipe, keys[kind], len(recipe.placements) - 1 if kind == "array" else 0)
        with pytest.warns(RuntimeWarning, match="another copy"):
            wrapped(source.backend).copy_to(target, [keys[kind]])
        assert target.get_bytes(keys[kind]) == wanted and target.verify("full").clean, kind


def test_a_recipe_that_goes_while_it_is_copied(various):
    objects, keys = various
    store = restored(objects)

    class Collected(FaultyBackend):
        def get(self, key):
            if key == recipe_path(keys[going]):
                self.inner.delete(key)
            return super().get(key)

    going, target = "bundle", empty()
    with pytest.raises(errors.NotFound, match="any more") as failed:
        wrapped(Collected(store.backend)).copy_to(target)
    assert failed.value.key == keys["bundle"]
    assert not list(target.refs)
    # A key that nobody has named was to be collected: it is not there as if it had gone before.
    store, going = restored(objects), "bytes"
    with pytest.raises(errors.NotFound):
        wrapped(Collected(restored(objects).backend)).copy_to(target, keys["bytes"])
    wrapped(Collected(store.backend)).copy_to(target)
    assert dict(target.refs) == dict(store.refs)
    assert set(target.keys()) == set(keys.values()) - {keys["bytes"]} and target.verify("full").clean


def test_a_pack_that_is_rewritten_while_it_is_copied():
    """A collection at the source moves chunks, and lets the old pack go: the recipe is read anew."""
    store = empty()
    key = store.put(noise(1))
    moved = empty()
    assert moved.put_many([noise(1), noise(2)])[0] == key
    hit = []

    class Repacked(FaultyBackend):
        def get_range(self, path, start, length):
            if path.startswith("packs/") and not hit:
                hit.append(path)
                for info in list(self.inner.list("")):
                    if info.key.startswith(("packs/", "index/", "recipes/")):
                        self.inner.delete(info.key)
                for info in moved.backend.list(""):
                    if info.key.startswith(("packs/", "index/", "recipes/")):
                        self.inner.put(info.key, [moved.backend.get(info.key)])
            return super().get_range(path, start, length)

    target = empty()
    with pytest.warns(RuntimeWarning, match="repacked"):
        wrapped(Repacked(store.backend)).copy_to(target, [key])
    assert hit and target.verify("full").clean
    np.testing.assert_array_equal(target.get(key), noise(1))


def test_what_is_condemned_at_the_destination_is_stored_again(monkeypatch):
    clock = Clock(monkeypatch)
    source, target = small_source(), empty()
    source.copy_to(target)
    for name in list(target.refs):
        del target.refs[name]
    clock.advance(30 * 86400)
    target.plan_gc().execute(yes_really=True)
    before = {info.key: info.etag for info in target.backend.list("recipes/")}
    done = source.copy_to(wrapped(target.backend))
    assert done.keys == len(before) and done.there == 0
    assert all(info.etag != before[info.key] for info in target.backend.list("recipes/"))
    clock.advance(2 * 86400)
    wrapped(target.backend).plan_gc().execute()
    reader = wrapped(target.backend)
    assert dict(reader.refs) == dict(source.refs) and reader.verify("full").clean


def test_a_condemned_pack_is_stored_again_under_its_name(monkeypatch):
    for module in (places, transfer):
        monkeypatch.setattr(module, "WHOLE_FROM", 50_000)
    clock = Clock(monkeypatch)
    source, target = empty(), empty()
    source.put(noise(1))
    assert source.copy_to(target).packs_whole == 1
    clock.advance(30 * DAY)
    target.plan_gc().execute(yes_really=True)
    (before,) = target.backend.list("packs/")
    assert source.copy_to(wrapped(target.backend)).packs_whole == 1
    (after,) = target.backend.list("packs/")
    assert (after.key, after.etag == before.etag) == (before.key, False)


def collect_twice(clock, inner):
    """Whatever no ref names is gone."""
    for _ in range(2):
        clock.advance(30 * DAY)
        wrapped(inner).plan_gc().execute(yes_really=True)


class Hooked(FaultyBackend):
    """Does something before the first call that writes, or reads, an object of some kind. What is put is there at
    once."""

    def __init__(self, inner, operation, prefix, work):
        super().__init__(inner)
        self.hook = operation, prefix, work

    def _run(self, operation, key, work):
        if self.hook and (operation, key[: len(self.hook[1])]) == self.hook[:2]:
            (_, _, before), self.hook = self.hook, None
            before()
        return super()._run(operation, key, work)

    def batch(self):
        return Batch(self)


@pytest.mark.parametrize(
    ("operation", "prefix"),
    [("put", "recipes/"), ("put_if", "refs/"), ("list", "refs/"), ("list", "signatures/")],
)
def test_a_collection_while_it_is_copied(monkeypatch, operation, prefix):
    """What the copy found or stored is deleted before it is acknowledged: it is not, and it can be done again."""
    clock = Clock(monkeypatch)
    source, inner = small_source(), MemoryBackend()
    wrapped(inner).put({"other": noise(1)})
    hook = [lambda: collect_twice(clock, inner)]
    if (operation, prefix) == ("list", "signatures/"):
        here, target = wrapped(Hooked(source.backend, operation, prefix, *hook)), wrapped(inner)
    else:
        here, target = source, wrapped(Hooked(inner, operation, prefix, *hook))
    try:
        here.copy_to(target, list(source.keys()) if prefix == "recipes/" else None)
    except errors.Conflict:
        assert operation != "list" or prefix == "signatures/"
    else:
        assert (operation, prefix) == ("list", "refs/")  # before anything is looked for
    reader = wrapped(inner)
    # As of any save: a recipe that was not acknowledged may lack a pack, until it is stored again.
    assert reader.verify("full").clean or prefix == "recipes/"
    if prefix != "refs/" or operation == "put_if":
        assert not dict(reader.refs)
    source.copy_to(wrapped(inner))
    reader = wrapped(inner)
    assert dict(reader.refs) == dict(source.refs) and reader.verify("full").clean


def test_a_key_that_refs_of_the_destination_let_go_of_meanwhile(monkeypatch):
    """It was not asked for, as a ref named it: when another is to name it that is no promise any more."""
    clock = Clock(monkeypatch)
    source, inner = small_source(), MemoryBackend()
    source.copy_to(wrapped(inner))
    source.refs["again"] = source.refs["models/a"]

    def let_go():
        wrapped(inner).delete("models/a")
        collect_twice(clock, inner)

    with pytest.raises(errors.Conflict, match="removed what this operation relied on"):
        wrapped(Hooked(source.backend, "list", "signatures/", let_go)).copy_to(wrapped(inner))
    assert "again" not in wrapped(inner).refs
    source.copy_to(wrapped(inner))
    reader = wrapped(inner)
    assert dict(reader.refs) == dict(source.refs) and reader.verify("full").clean


def test_a_ref_to_what_is_condemned_is_marked_until_it_is_confirmed(monkeypatch):
    """Who is killed in between leaves no ref that names what a collection then deletes."""
    clock = Clock(monkeypatch)
    source, inner = small_source(), MemoryBackend()
    source.copy_to(wrapped(inner), list(source.keys()))
    clock.advance(30 * DAY)
    wrapped(inner).plan_gc().execute(yes_really=True)

    class Ending(FaultyBackend):
        def put_if(self, key, data, etag):
            done = super().put_if(key, data, etag)
            if key.startswith("refs/"):
                self.fault = Fault(self.calls + 1, forever=True)
            return done

    with pytest.raises(errors.BackendError, match="injected"):
        source.copy_to(wrapped(Ending(inner)))
    assert not [name for name, _ in wrapped(inner).refs.latest()]
    source.copy_to(wrapped(inner))
    assert dict(wrapped(inner).refs) == dict(source.refs)


def with_wrong_delta(store, keys, kind):
    """Replace a delta by one whose seal is right, and that decodes to something else: only its digest tells. The chunk."""
    recipe, older = store.handle.recipe(keys[kind]), store.handle.recipe(keys["base"])
    number = next(number for number, at in enumerate(recipe.placements) if at.pieces)
    at, chunk = recipe.placements[number], placed_chunks(recipe)[number][0]
    contents = {one.id: chunk_bytes(store.backend, older, n) for n, (one, _) in enumerate(placed_chunks(older))}
    base = b"".join(
        contents[recipe.bases[piece.chunk].id][piece.start : piece.start + piece.length] for piece in at.pieces
    )
    wrong = CODEC.encode_delta(bytes(chunk.usize), base, at.codec, at.width, 1)
    placements, packs, inline = list(recipe.placements), list(recipe.packs), [recipe.inline]
    if at.pack == INLINE:
        placements[number] = at._replace(offset=len(recipe.inline), csize=len(wrong))
        inline.append(wrong)
    else:
        builder = PackBuilder(recipe.algorithm)
        builder.add(memoryview(wrong), [(chunk.id, len(wrong), chunk.usize)], at.codec, at.width, True)
        name, parts = builder.close(digest_function(recipe.algorithm))
        store.backend.put(pack_path(name), parts)
        placements[number] = at._replace(pack=len(packs), offset=64, csize=len(wrong))
        packs.append(bytes.fromhex(name))
    parts = recipes.encode(
        recipe.algorithm, recipe.content, recipe.about, packs, placements, inline, CODEC, recipe.bases
    )
    store.backend.put(recipe_path(keys[kind]), parts)
    return chunk


@pytest.mark.parametrize("kind", ["delta", "inline delta"])
def test_a_delta_that_decodes_to_something_else_does_not_go_on(various, kind):
    objects, keys = various
    source, target = restored(objects), empty()
    wanted = source.get_bytes(keys[kind])
    chunk = with_wrong_delta(source, keys, kind)
    with pytest.raises(errors.CorruptObject, match=keys[kind]):
        wrapped(source.backend).copy_to(target, [keys[kind]])
    assert not target.exists(keys[kind])
    elsewhere = empty()
    elsewhere.save({"more": noise(8), "this": wanted})
    for prefix in ("packs/", "index/"):
        for info in elsewhere.backend.list(prefix):
            source.backend.put(info.key, [elsewhere.backend.get(info.key)])
    with pytest.warns(RuntimeWarning, match="another copy"):
        wrapped(source.backend).copy_to(target, [keys[kind]])
    assert target.get_bytes(keys[kind]) == wanted and target.verify("full").clean
    packs = [info.key.rpartition("/")[2] for info in target.backend.list("packs/")]
    listed = [entry for found in target.handle.context.reliance.layouts(packs).values() for entry in found]
    assert not [entry for entry in listed if entry.id == chunk.id and entry.codec in DELTAS]


class Killed(LocalBackend):
    """Kills its process at a call."""

    left = 0

    def _count(self):
        Killed.left -= 1
        if not Killed.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def put_if(self, *given):
        self._count()
        return super().put_if(*given)

    def exists_many(self, keys):
        self._count()
        return super().exists_many(keys)

    def list_first(self, *given):
        self._count()
        return super().list_first(*given)

    def batch(self):
        self._count()
        return super().batch()


def test_killed_and_run_again(tmp_path):
    source = small_source()
    killed = 0
    for number in range(1, 40, 6):
        root = tmp_path / str(number)
        child = os.fork()
        if not child:
            try:
                Killed.left = number
                source.copy_to(wrapped(Killed(root)))
            finally:
                os._exit(0)
        killed += os.waitpid(child, 0)[1] != 0
        target = wrapped(LocalBackend(root))
        if root.exists() and target.handle.description is not None:
            assert target.verify("full").clean
        source.copy_to(target)
        assert dict(target.refs) == dict(source.refs) and target.verify("full").clean
    assert killed > 1
