"""Arrays are mapped where that is safe and nobody says otherwise, and are the same either way."""

import os
import pickle
import sys
from itertools import product

import numpy as np
import pytest

import mfstore
from mfstore.backends.local import LocalBackend
from mfstore.host import file_systems
from mfstore.settings import resolve

ARRAY = np.random.default_rng(0).integers(1 << 63, size=200_000)


@pytest.fixture
def mapped(monkeypatch):
    """How many maps were made since it was asked last."""
    count = [0]
    original = LocalBackend.map

    def counting(self, *arguments):
        count[0] += 1
        return original(self, *arguments)

    monkeypatch.setattr(LocalBackend, "map", counting)

    def since():
        found, count[0] = count[0], 0
        return found

    return since


def ways(store, key, bundle, **how):
    yield store.get(key, **how)
    yield next(store.get_many([key], **how))[1]
    yield store.load(bundle, **how)["array"]


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("environment", [None, "0", "1"])
def test_who_decides(root, monkeypatch, mapped, network, environment):
    """The call, else the store, else the environment, else the file system."""
    monkeypatch.setattr(file_systems, "on_network", lambda path: network)
    if environment is not None:
        monkeypatch.setenv("MFSTORE_MAP", environment)
    store = mfstore.open(root, fsync="none")
    key, bundle = store.put(ARRAY), store.save({"array": ARRAY})
    for opened, called in product((None, False, True), repeat=2):
        wishes = (called, opened, None if environment is None else environment == "1", not network)
        expected = next(wish for wish in wishes if wish is not None)
        for found in ways(mfstore.open(root, map=opened), key, bundle, map=called):
            assert np.array_equal(found, ARRAY)
            assert mapped() == expected


def test_what_is_read_does_not_change_with_the_file(root):
    store = mfstore.open(root, fsync="none", map=False)
    found = store.get(store.put(ARRAY))
    (pack,) = [info.key for info in store.backend.list("packs/")]
    with open(os.path.join(root, pack), "r+b") as file:
        file.truncate(0)
    assert np.array_equal(found, ARRAY)


def test_the_setting_travels_with_the_store(root):
    assert pickle.loads(pickle.dumps(mfstore.open(root, map=False))).knobs.map is False
    assert resolve().map is None


MOUNTS = """\
23 28 0:21 / /proc rw,nosuid - proc proc rw
28 1 {local} / / rw,relatime shared:1 - {kind} /dev/root rw
"""


@pytest.mark.parametrize(
    ("kind", "network"),
    [("ext4", False), ("xfs", False), ("tmpfs", False), ("nfs4", True), ("cifs", True), ("fuse.sshfs", True)],
)
def test_file_systems_are_known_by_their_mounts(tmp_path, monkeypatch, kind, network):
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(local=f"{os.major(device)}:{os.minor(device)}", kind=kind))
    monkeypatch.setattr(file_systems, "MOUNTS", str(mounts))
    assert file_systems.on_network(str(tmp_path)) is network
    assert not file_systems.on_network(str(tmp_path / "none"))
    mounts.write_text("nonsense\n")
    assert not file_systems.on_network(str(tmp_path))
    monkeypatch.setattr(file_systems, "MOUNTS", str(tmp_path / "no such file"))
    assert not file_systems.on_network(str(tmp_path))
    # Where the system itself tells, as macOS does, that is what counts.
    assert file_systems.elsewhere(str(tmp_path)) is (None if sys.platform == "linux" else False)
    monkeypatch.setattr(file_systems, "elsewhere", lambda path: network)
    assert file_systems.on_network(str(tmp_path)) is network
