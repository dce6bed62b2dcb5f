"""Small artifacts of a bundle are read from its file, and only where all of it is as it should be."""

import json
import pickle

import pytest

from mfstore.format.recipes import HEADER
from mfstore.metaflow.packed.bundles import save
from mfstore.metaflow.packed.small import MOST_BYTES, _may_read, load_small
from mfstore.metaflow.roots.packed_keys import bundle_of
from mfstore.store import open_store

SMALL = {"graph": ["step" * 40, "step" * 41], "name\ud800": ["x" * 200]}


@pytest.fixture
def bundle(tmp_path):
    """A datastore root, a bundle in it, and its file."""
    _may_read.cache_clear()
    store = open_store(f"{tmp_path}/mf.store", fsync="none")
    saved = save(lambda: store, [*SMALL.items()], {})
    name = bundle_of(saved["graph"].info)
    yield tmp_path, name, tmp_path / "mf.store" / "recipes" / name[:2] / name
    _may_read.cache_clear()


def test_what_lies_in_the_recipe_is_found(bundle):
    root, name, _ = bundle
    found = load_small(str(root), name)
    assert {artifact: pickle.loads(pickled) for artifact, pickled in found.items()} == SMALL


@pytest.mark.parametrize("value", ["text " * 300, "text " * 100_000])
def test_a_bundle_with_longer_ones_is_the_stores(bundle, value):
    root, *_ = bundle
    store = open_store(f"{root}/mf.store")
    saved = save(lambda: store, [*SMALL.items(), ("a", value)], {})
    assert load_small(str(root), bundle_of(saved["a"].info)) == {}


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
    _may_read.cache_clear()
    path.write_text("no JSON")
    assert load_small(str(root), name) == {}
