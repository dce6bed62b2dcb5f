"""What is copied from one store to another is there as it was, whatever it is made of."""

import asyncio
import json

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore._core.codec import PCODEC
from mfstore.backends.memory import MemoryBackend
from mfstore.copying import places, transfer
from mfstore.format.description import PATH, PCODEC_FEATURE
from mfstore.format.recipes import BUNDLE
from mfstore.loading.reads import raw_run
from mfstore.settings import resolve
from mfstore.store import Store
from mfstore.testing import FaultyBackend
from tests.copying.stores import LONG, empty, filled, noise
from tests.rigs.damage import wrapped


@pytest.fixture(scope="module")
def source():
    store, keys = filled()
    store.by_name = keys
    return store


@pytest.fixture
def target():
    return empty()


def same(here, there, keys):
    """Whether these keys have the same bytes and descriptions in two stores, and the second one is whole."""
    for key in keys:
        old, new = here.handle.recipe(key), there.handle.recipe(key)
        assert (new.content, new.about) == (old.content, old.about)
        if new.kind == BUNDLE:
            np.testing.assert_equal(there.load(key), here.load(key))
        else:
            assert there.get_bytes(key) == here.get_bytes(key)
    assert there.verify("full").clean
    return True


def packs_of(store):
    return {info.key for info in store.backend.list("packs/")}


def test_everything(source, target):
    done = source.copy_to(target)
    assert sorted(target.keys()) == sorted(source.keys())
    assert same(source, target, source.keys())
    assert {name: target.refs.log(name) for name in target.refs} == {
        name: source.refs.log(name) for name in source.refs
    }
    assert done.keys == len(source.by_name) and done.there == 0 and done.done
    assert {(ref.name, ref.outcome, ref.values) for ref in done.refs} == {
        ("models/bundle", "new", 1), ("models/churn", "new", 2), ("small/list", "new", 1), ("small/literal", "new", 1),
    }  # fmt: skip
    assert done.sent == sum(
        info.size for info in target.backend.list("") if info.key[:5] in ("packs", "recip", "index")
    )


def test_each_key_alone_brings_all_it_needs(source):
    for name, key in source.by_name.items():
        target = empty()
        done = source.copy_to(target, [key])
        assert (done.keys, done.refs) == (1, ()), name
        assert target.keys() == [key] or list(target.keys()) == [key]
        assert same(source, target, [key])


@pytest.mark.parametrize("kind", ["delta", "inline delta"])
def test_deltas_stay_what_they_are(source, target, kind):
    """What they are against goes along, once for all of them."""
    key = source.by_name[kind]
    source.copy_to(target, [key])
    old, new = source.handle.recipe(key), target.handle.recipe(key)
    assert [at.codec for at in new.placements] == [at.codec for at in old.placements]
    assert {base.id for base in new.bases} == {base.id for base in old.bases} != set()


def test_what_is_there_is_not_sent_again(source, target):
    source.copy_to(target, "models/")
    again = source.copy_to(target, "models/")
    assert (again.keys, again.sent, again.objects) == (0, 0, 0)
    assert {ref.outcome for ref in again.refs} == {"same"}
    rest = source.copy_to(target)
    assert rest.keys == len(source.by_name) - 3
    assert same(source, target, source.keys())


def test_a_mirror_asks_for_nothing_that_refs_name_there(source):
    backend = FaultyBackend(MemoryBackend())
    target = wrapped(backend)
    source.copy_to(target, ["models/", "small/"])
    backend.log.clear()
    source.copy_to(target, ["models/", "small/"])
    asked = [key for _, key in backend.log if key.startswith(("recipes/", "packs/", "index/"))]
    assert asked == []


def test_chunks_that_are_there_do_not_travel(source, target):
    target.put({"other": LONG})
    done = source.copy_to(target, "models/churn@1")
    assert done.chunks == 1  # the head of the pickle
    np.testing.assert_array_equal(target.get(source.by_name["array"]), LONG)
    assert done.sent < 5000


def test_dry_run_tells_what_a_copy_does(source, target):
    told = source.copy_to(target, dry_run=True)
    assert not list(target.backend.list("")) and not told.done
    done = source.copy_to(target)
    assert (told.keys, told.chunks) == (done.keys, done.chunks)
    assert abs(told.sent - done.sent) < 0.1 * done.sent
    assert [(ref.name, ref.outcome, ref.values, ref.keys) for ref in told.refs] == [
        (ref.name, ref.outcome, ref.values, ref.keys) for ref in done.refs
    ]
    again = source.copy_to(target, dry_run=True)
    assert (again.keys, again.sent, again.there) == (0, 0, done.keys)


def test_a_pack_goes_as_it_is_when_nearly_all_of_it_is_wanted(monkeypatch):
    monkeypatch.setattr(places, "WHOLE_FROM", 100_000)
    monkeypatch.setattr(transfer, "WHOLE_FROM", 100_000)
    source, target = empty(), empty()
    keys = source.put_many([noise(n, 30_000) for n in range(12)])
    (pack,) = packs_of(source)
    assert source.copy_to(target, keys[:6]).packs_whole == 0
    assert not packs_of(target) & {pack}
    other = empty()
    done = source.copy_to(other, keys[1:])
    assert (done.packs_whole, done.chunks) == (
        1,
        len({at for key in keys for at in source.handle.recipe(key).placements}),
    )
    assert packs_of(other) == {pack}
    assert same(source, other, keys[1:]) and same(source, target, keys[:6])
    again = empty()
    source.copy_to(again, keys)
    packs = [store.backend.get(pack) for store in (source, other, again)]
    assert len(set(packs)) == 3 and len({data[:-64] for data in packs}) == 1  # but for their nonces


def test_a_copy_that_stopped_before_the_index_finds_its_packs(monkeypatch):
    monkeypatch.setattr(places, "WHOLE_FROM", 100_000)
    monkeypatch.setattr(transfer, "WHOLE_FROM", 100_000)
    source, backend = empty(), MemoryBackend()
    key = source.put(noise(1, 60_000))
    source.copy_to(wrapped(backend))
    for info in list(backend.list("")):
        if info.key.startswith(("index/", "recipes/")):
            backend.delete(info.key)
    target = wrapped(backend)
    done = source.copy_to(target)
    assert (done.keys, done.chunks, done.packs_whole) == (1, 0, 0) and done.sent < 3000
    assert same(source, target, [key])


def test_small_packs_become_one(target):
    source = empty()
    keys = [source.put(noise(n)) for n in range(8)]
    assert len(packs_of(source)) == 8
    source.copy_to(target)
    assert len(packs_of(target)) == 1 and same(source, target, keys)


def test_a_long_array_stays_in_one_pack(tmp_path):
    """However little memory there is: its bytes are mapped where they lie."""
    value = noise(4, 1 << 21)
    with (
        mfstore.open(tmp_path / "a", compress=False) as source,
        mfstore.open(tmp_path / "b", memory=32 << 20) as target,
    ):
        key = source.put(value)
        source.copy_to(target)
        recipe = target.handle.recipe(key)
        first = recipe.artifacts[0].body_chunks
        assert raw_run(recipe, first, len(recipe.placements) - first) is not None
        assert len(packs_of(target)) == 1 or len({at.pack for at in recipe.placements[first:]}) == 1
        np.testing.assert_array_equal(target.get(key), value)


def test_windows_and_checkpoints_are_bounded(monkeypatch, source, tmp_path):
    """As much as is copied together changes nothing of what is there in the end."""
    monkeypatch.setattr(transfer, "WINDOW_RECIPES", 2)
    monkeypatch.setattr(transfer, "ASKED_TOGETHER", 3)
    monkeypatch.setattr(transfer, "CHECKPOINT", 1)
    for module in (places, transfer):
        monkeypatch.setattr(module, "WHOLE_FROM", 200_000)
    with mfstore.open(tmp_path / "store", memory=32 << 20, fsync="none") as target:
        done = source.copy_to(target)
        assert same(source, target, source.keys()) and done.packs_whole
        packs = [*(tmp_path / "store" / "packs").rglob("*")]
        assert len([path for path in packs if path.is_file()]) > 3


def test_names(source):
    source.refs["[1]"] = source.refs["a*"] = source.by_name["bytes"]
    for names, keys in (
        ("models/churn", {"array", "version"}), (["models/churn@1"], {"array"}), ("small/*", {"literal", "inline"}),
        ("models/", {"array", "version", "bundle"}), (["[1]", "a*"], {"bytes"}), ([source.by_name["bytes"][:12]], {"bytes"}), ((), set()),
    ):  # fmt: skip
        target = empty()
        source.copy_to(target, names)
        assert set(target.keys()) == {source.by_name[name] for name in keys}, names
    for names, error in (
        ("nothing", errors.NotFound), ("nothing/", errors.NotFound), ([b"x"], errors.WrongArgument), (5, errors.WrongArgument),
        (["a" * 64], errors.NotFound), ("a//b", errors.InvalidKey),
    ):  # fmt: skip
        target = empty()
        with pytest.raises(error):
            source.copy_to(target, names)
        assert not list(target.refs)


def test_what_can_be_no_copy(source, target, tmp_path):
    with pytest.raises(errors.WrongArgument):
        source.copy_to("elsewhere")
    with pytest.raises(errors.InvalidKey):
        source.copy_to(target, on_conflict="perhaps")
    with pytest.raises(errors.Refused, match="one store"):
        source.copy_to(source)
    with pytest.raises(errors.NotFound):
        target.copy_to(source)
    with mfstore.open(tmp_path / "real") as one:
        one.put(1)
        (tmp_path / "link").symlink_to(tmp_path / "real")
        with mfstore.open(tmp_path / "link") as other, pytest.raises(errors.Refused, match="one store"):
            one.copy_to(other)
        with mfstore.open(tmp_path / "none", create=False) as other, pytest.raises(errors.NotFound):
            one.copy_to(other)
    assert not (tmp_path / "none").exists()


def test_a_destination_within_the_source(tmp_path):
    """Its objects would be damaged refs there."""
    source = mfstore.open(tmp_path / "store")
    source.put([1], ref="a")
    (tmp_path / "link").symlink_to("store")
    for place in ("store/refs/sub", "link/refs/sub", "store/new"):
        with pytest.raises(errors.Refused, match="within the source"):
            source.copy_to(mfstore.open(tmp_path / place))
        assert not (tmp_path / place).exists() and list(source.refs) == ["a"]
    assert source.copy_to(mfstore.open(tmp_path / "store2")).keys == 1


def test_the_digest_is_the_sources():
    backend = MemoryBackend()
    source = Store(backend.url, backend, resolve(threads=1), create=True, algorithm="sha256")
    key = source.put(LONG)
    target = empty()
    assert source.copy_to(target, dry_run=True).keys == 1
    source.copy_to(target)
    assert target.put(LONG) == key and same(source, target, [key])
    blake = empty()
    blake.put(1)
    with pytest.raises(errors.Unsupported, match="other keys"):
        source.copy_to(blake)


@pytest.mark.parametrize("version", [0, 1])
def test_a_store_that_gets_what_takes_pcodec_says_so(target, version):
    """Also where that is but what a delta is against."""
    backend = MemoryBackend()
    source = Store(backend.url, backend, resolve(threads=1, compress="small"), create=True, algorithm="blake3")
    values = np.cumsum(np.random.default_rng(1).integers(-50, 100, 10_000)).astype("<i8")
    changed = values.copy()
    changed[5000:5003] += 1
    keys = [source.put(values), source.put(changed, base=source.put(values))]
    recipe = source.handle.recipe(keys[version])
    assert any(at.codec == PCODEC for at in recipe.placements) is (version == 0)
    assert any(base.codec == PCODEC for base in recipe.bases) is (version == 1)
    source.copy_to(target, [keys[version]])
    assert json.loads(target.backend.get(PATH))["features"]["read"] == [PCODEC_FEATURE]
    assert same(source, target, [keys[version]])


def test_progress_and_the_asynchronous_twin(source, target):
    told = []
    done = asyncio.run(source.acopy_to(target, progress=told.append))
    assert abs(sum(told) - done.sent) < 0.05 * done.sent
    assert "copied to memory://" in repr(done)


def test_what_was_stored_meanwhile_is_relied_on(source):
    """A recipe that another writer has just stored is there, and is not written again."""

    class Racing(FaultyBackend):
        def exists_many(self, keys):
            found = super().exists_many(keys)
            if not raced and any(key.startswith("recipes/") for key in keys):
                raced.append(True)
                source.copy_to(wrapped(self.inner))
            return found

    raced = []
    backend = Racing(MemoryBackend())
    target = wrapped(backend)
    source.copy_to(target)
    assert raced and same(source, target, source.keys())


def test_a_tree(tmp_path, target):
    """Is an artifact like any other."""
    files = {"a.txt": b"small", "deep/b.bin": noise(3).tobytes(), "deep/c.bin": noise(3).tobytes()}
    for name, data in files.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    source = empty()
    key = source.put_tree(tmp_path / "tree", ref="data/raw")
    source.copy_to(target, "data/")
    assert target.refs["data/raw"] == key and target.verify("full").clean
    target.get_tree("data/raw", tmp_path / "back")
    assert {name: (tmp_path / "back" / name).read_bytes() for name in files} == files
