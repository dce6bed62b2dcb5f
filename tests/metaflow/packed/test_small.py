"""Small artifacts of a bundle are read and written without the store, and only where all is as it should be."""

import json
import os
import pickle
import re
from contextlib import nullcontext

import numpy as np
import pytest

from mfstore.format.recipes import HEADER, PLACEMENT
from mfstore.metaflow.packed import small
from mfstore.metaflow.packed.bundles import Saved, save
from mfstore.metaflow.packed.plain import content_key, plain_info, plain_pickle
from mfstore.metaflow.packed.small import MOST_BYTES, MOST_CHUNK, _description, load_small, save_small
from mfstore.metaflow.roots.packed_keys import bundle_of
from mfstore.opening import open_store

SMALL = {"graph": ["step" * 40, "step" * 41], "name\ud800": ["x" * 200]}


@pytest.fixture
def bundle(tmp_path):
    """A datastore root, a bundle in it, and its file."""
    _description.cache_clear()
    store = open_store(f"{tmp_path}/mf.store", fsync="none")
    saved = save(lambda: store, [*SMALL.items()], {})
    name = bundle_of(saved["graph"].info)
    yield tmp_path, name, tmp_path / "mf.store" / "recipes" / name[:2] / name
    _description.cache_clear()


def test_what_lies_in_the_recipe_is_found(bundle):
    root, name, _ = bundle
    found = load_small(str(root), name)
    assert {artifact: pickle.loads(pickled) for artifact, pickled in found.items()} == SMALL


SHORT = ["".join(f"step {n} " for n in range(300)), os.urandom(1200)]


def test_short_chunks_are_found_in_their_packs(bundle):
    root, *_ = bundle
    store = open_store(f"{root}/mf.store", fsync="none")
    given = [*zip("ab", SHORT, strict=True), ("c", os.urandom(200))]
    name = bundle_of(save(lambda: store, given, {})["a"].info)
    found = load_small(str(root), name)
    assert {artifact: pickle.loads(pickled) for artifact, pickled in found.items()} == dict(given)


@pytest.mark.parametrize("value", SHORT, ids=["compressed", "as it is"])
def test_a_chunk_that_is_not_as_it_should_be_is_the_stores(bundle, value):
    """Each byte of where it lies and, wherever its bytes lie, what they are."""
    root, *_ = bundle
    store = open_store(f"{root}/mf.store", fsync="none")
    name = bundle_of(save(lambda: store, [("a", value)], {})["a"].info)
    whole = load_small(str(root), name)
    assert pickle.loads(whole["a"]) == value
    path = root / "mf.store" / "recipes" / name[:2] / name
    data = path.read_bytes()
    for at in range(HEADER.size, len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x81]) + data[at + 1 :])
        assert load_small(str(root), name) in ({}, whole), at
    for cut in (1, PLACEMENT.size, PLACEMENT.size + 32):
        path.write_bytes(data[:-cut])
        assert load_small(str(root), name) == {}, cut
    path.write_bytes(data)
    [pack] = (root / "mf.store" / "packs").glob("*/*")
    stored = pack.read_bytes()
    pack.write_bytes(stored[:90] + bytes([stored[90] ^ 1]) + stored[91:])
    assert load_small(str(root), name) == {}
    pack.write_bytes(stored[:90])
    assert load_small(str(root), name) == {}
    pack.unlink()
    assert load_small(str(root), name) == {}


@pytest.mark.parametrize(
    "value", [os.urandom(MOST_CHUNK), np.random.default_rng(1).random(20_000)], ids=["long", "array"]
)
def test_a_bundle_with_longer_ones_is_the_stores(bundle, value):
    root, *_ = bundle
    store = open_store(f"{root}/mf.store")
    saved = save(lambda: store, [("a", value)], {})
    assert load_small(str(root), bundle_of(saved["a"].info)) == {}
    several = save(lambda: store, [*SMALL.items(), ("a", "text " * 100_000)], {})
    assert load_small(str(root), bundle_of(several["a"].info)) == {}


def test_there_is_nothing_where_there_is_no_such_bundle(bundle):
    root, name, path = bundle
    assert load_small(str(root), name[::-1]) == load_small(str(root / "other"), name) == {}
    assert load_small(str(root), "../" * 21 + "a") == {}
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))
    assert load_small(str(root), name) == {}
    path.unlink()
    path.mkdir()
    assert load_small(str(root), name) == {}


def test_a_damaged_bundle_is_the_stores(bundle):
    """Each byte that tells what is there; the digest is of nothing else."""
    root, name, path = bundle
    data = path.read_bytes()
    whole = load_small(str(root), name)
    content = int.from_bytes(data[8:12], "little")
    for at in [*range(7), *range(8, 12), *range(HEADER.size, HEADER.size + content)]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :])
        assert load_small(str(root), name) == {}, at
    for cut in range(HEADER.size + content):
        path.write_bytes(data[:cut])
        assert load_small(str(root), name) == {}, cut
    path.write_bytes(data)
    assert load_small(str(root), name) == whole
    path.write_bytes(data + bytes(MOST_BYTES))
    assert load_small(str(root), name) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"version": 2},
        {"features": {"read": ["new"], "write": [], "delete": []}},
        {"features": {}},
        {"features": None},
    ],
)
def test_a_store_that_asks_for_more_is_left_alone(bundle, change):
    root, name, _ = bundle
    path = root / "mf.store" / "mfstore.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert load_small(str(root), name) == {}
    _description.cache_clear()
    path.write_text("no JSON")
    assert load_small(str(root), name) == {}


PICKLES = {name: plain_pickle(value) for name, value in SMALL.items()}
TYPES = dict.fromkeys(SMALL, "list")
OTHER = {"graph": plain_pickle(["other" * 40])}


TIME = rb'"time":1[0-9]{9}([.][0-9]{1,3})?'


def test_what_is_written_is_what_the_store_writes(bundle, tmp_path_factory):
    _, name, path = bundle
    root = tmp_path_factory.mktemp("other")
    store = open_store(f"{root}/mf.store", fsync="none")
    store.put(1)  # makes it
    assert save_small(str(root), PICKLES, TYPES) == name
    written = root / path.relative_to(bundle[0])
    mine, stores = (re.sub(TIME, b"TIME", file.read_bytes()[HEADER.size :]) for file in (written, path))
    assert mine == stores and b"TIME" in mine
    assert written.stat().st_mode == path.stat().st_mode
    assert store.load(name) == SMALL and store.verify().clean
    assert [child.name for child in written.parent.iterdir()] == [name]


def test_data_json_says_the_same(bundle):
    root, name, _ = bundle
    said = save(lambda: open_store(f"{root}/mf.store", fsync="none"), [*SMALL.items()], {})
    mine = {
        artifact: Saved(content_key(pickled), plain_info(SMALL[artifact], len(pickled), name))
        for artifact, pickled in PICKLES.items()
    }
    assert said == mine


def test_what_is_there_is_relied_on_where_it_is_whole(bundle):
    root, name, path = bundle
    data = path.read_bytes()
    assert save_small(str(root), PICKLES, TYPES) == name
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :])
        assert save_small(str(root), PICKLES, TYPES) is None, at
        assert path.read_bytes() != data
    path.write_bytes(data[:-1])
    assert save_small(str(root), PICKLES, TYPES) is None


@pytest.mark.parametrize("what", ["collected", "features", "no store", "link", "long", "expires"])
def test_what_is_not_for_here_is_not_written(bundle, what, monkeypatch):
    root, *_ = bundle
    folder = root / "mf.store"
    pickles = OTHER
    if what == "collected":
        (folder / "gc").mkdir()
        (folder / "gc" / "state").touch()
    elif what == "features":
        path = folder / "mfstore.json"
        text = json.loads(path.read_text())
        path.write_text(json.dumps({**text, "features": {**text["features"], "write": ["new"]}}))
    elif what == "no store":
        (folder / "mfstore.json").unlink()
    elif what == "link":
        (folder / "recipes").rename(root / "elsewhere")
        (folder / "recipes").symlink_to(root / "elsewhere")
    elif what == "long":
        pickles = {f"name{number}": plain_pickle([str(number) * 900]) for number in range(4)}
    else:
        monkeypatch.setenv("MFSTORE_EXPIRE_DAYS", "30")
    before = sorted(root.rglob("*"))
    assert save_small(str(root), pickles, dict.fromkeys(pickles, "list")) is None
    assert sorted(root.rglob("*")) == before


def test_a_collection_that_begins_meanwhile_is_noticed(bundle, monkeypatch):
    root, *_ = bundle
    write = small._write

    def collected(*given):
        write(*given)
        (root / "mf.store" / "gc").mkdir()
        (root / "mf.store" / "gc" / "state").touch()

    monkeypatch.setattr(small, "_write", collected)
    assert save_small(str(root), OTHER, {"graph": "list"}) is None


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()])
def test_what_fails_leaves_nothing_behind(bundle, monkeypatch, error):
    root, *_ = bundle

    def fail(*_, **__):
        raise error

    files = sum(path.is_file() for path in root.rglob("*"))
    monkeypatch.setattr(small.os, "rename", fail)
    with pytest.raises(KeyboardInterrupt) if isinstance(error, KeyboardInterrupt) else nullcontext():
        assert save_small(str(root), OTHER, {"graph": "list"}) is None
    assert sum(path.is_file() for path in root.rglob("*")) == files
