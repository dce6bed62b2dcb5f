"""What is lost is told as lost: in histories of refs, after its last copy was set aside, and where a file is none."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.backends.local import LocalBackend
from mfstore.backends.memory import MemoryBackend
from mfstore.cli import main
from mfstore.format.recipes import recipe_path
from mfstore.maintenance.store import repair
from tests.rigs.damage import DAMAGE, NOISE, damage, wrapped
from tests.rigs.gc import RemoteMemory, objects


@pytest.fixture
def memory():
    return MemoryBackend()


def with_history(backend):
    """A store with a ref of three values, and their keys."""
    store = wrapped(backend)
    keys = store.put_many([NOISE[0], NOISE[1], "last"])
    for key in keys:
        store.refs["r"] = key
    store.refs["other"] = keys[0]
    store.refs["other"] = keys[2]
    return store, keys


@pytest.mark.parametrize("level", ["list", "headers", "full"])
def test_a_lost_recipe_of_a_history_is_damage_and_can_be_dropped_there(memory, level):
    store, keys = with_history(memory)
    memory.delete(recipe_path(keys[0]))
    report = store.verify(level)
    (found,) = report.damage
    assert (found.kind, found.keys, found.refs) == ("missing", (keys[0],), ("other", "r"))
    with pytest.raises(errors.NotFound):
        store.plan_gc(grace=0)
    assert store.repair("headers").lost == (keys[0],)
    assert [entry.key for entry in store.refs.history("r")] == keys[::-1]
    done = store.repair("headers", drop_lost=True)
    assert [(action.kind, action.object) for action in done.actions] == [
        ("rewrite", "refs/other"),
        ("rewrite", "refs/r"),
    ]
    assert done.after.clean and done.lost == (keys[0],)
    assert [entry.key for entry in store.refs.history("r")] == [keys[2], keys[1]]
    assert [entry.key for entry in store.refs.history("other")] == [keys[2]]
    assert {info.key.split(".")[0] for info in memory.list("quarantine/")} == {
        "quarantine/refs/other",
        "quarantine/refs/r",
    }
    store.plan_gc(grace=0).execute()


def test_the_present_value_of_a_ref_is_dropped_only_when_asked(memory):
    store, keys = with_history(memory)
    memory.delete(recipe_path(keys[2]))
    done = store.repair("headers", drop_lost=True)
    assert not done.actions and done.lost == (keys[2],)
    assert store.refs["r"] == keys[2] and len(store.refs.history("r")) == 3


@pytest.mark.parametrize("kind", [MemoryBackend, RemoteMemory])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_ref_goes_back_to_its_newest_value_that_is_whole(kind, how):
    backend = kind()
    store, keys = with_history(backend)
    store.refs["only"] = keys[2]
    for key in keys[1:]:
        if how == "missing":
            backend.delete(recipe_path(key))
        else:
            damage(backend, recipe_path(key), DAMAGE["first byte"])
    was = backend.get("refs/r")
    dry = store.repair("headers", dry_run=True, roll_back=True)
    refs = [(action.object, action.detail) for action in dry.actions if action.object.startswith("refs/")]
    assert refs == [
        ("refs/only", "remove it: none of its values can be read whole"),
        ("refs/other", f"set it back to {keys[0]}"),
        ("refs/r", f"set it back to {keys[0]}"),
    ]
    done = store.repair("headers", roll_back=True)
    assert done.after.clean and set(done.lost) == set(keys[1:])
    assert dict(store.refs) == {"other": keys[0], "r": keys[0]}
    assert [entry.key for entry in store.refs.history("r")] == [keys[0]]
    assert was in [backend.get(info.key) for info in backend.list("quarantine/refs/r.")]
    store.plan_gc(grace=0)
    assert store.repair("headers", roll_back=True).actions == ()


def test_a_ref_that_is_set_while_repair_rolls_it_back_stays(memory, monkeypatch):
    store, keys = with_history(memory)
    memory.delete(recipe_path(keys[2]))
    other = store.put("other")
    real = repair.quarantine

    def late(backend, path, *arguments, **options):
        if store.refs["r"] != other:
            store.refs["r"] = other
        return real(backend, path, *arguments, **options)

    monkeypatch.setattr(repair, "quarantine", late)
    assert store.repair("headers", roll_back=True).after.clean
    assert [entry.key for entry in store.refs.history("r")] == [other, keys[1], keys[0]]


def test_lost_chunks_of_a_history_are_dropped_with_their_recipes(memory):
    store, keys = with_history(memory)
    for pack in objects(memory, "packs"):
        damage(memory, pack, DAMAGE["zeros"])
    done = store.repair(drop_lost=True)
    assert set(done.lost) == set(keys[:2])
    assert [entry.key for entry in store.refs.history("r")] == [keys[2]]
    assert store.verify("full").clean
    store.plan_gc(grace=0)


def test_what_was_set_aside_with_its_last_copy_is_lost(memory):
    store = wrapped(memory)
    key = store.put("small")
    damage(memory, recipe_path(key), DAMAGE["first byte"])
    plan = store.repair(dry_run=True)
    done = store.repair()
    assert plan.lost == done.lost == (key,)
    assert done.after.clean and not store.exists(key)


def test_the_command_does_not_say_that_all_is_well_when_something_is_lost(root, capsys):
    key = mfstore.open(root, fsync="none").put("small")
    path = Path(root, recipe_path(key))
    path.write_bytes(DAMAGE["first byte"](path.read_bytes()))
    with pytest.raises(SystemExit) as done:
        main(["repair", "-s", str(root), "--execute"])
    told = capsys.readouterr().out
    assert done.value.code == 3 and "all is well" not in told and key in told


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "directory of CephFS"])
def test_a_pack_that_is_no_file_is_told_and_left_alone(root, kind, tmp_path, monkeypatch):
    store = mfstore.open(root, fsync="none")
    value = np.random.default_rng(0).random(200_000)
    key = store.put(value)
    store.refs["a"] = key
    (pack,) = (path for path in Path(root, "packs").rglob("*") if path.is_file())
    shutil.move(pack, tmp_path / "pack")
    if kind == "link":
        pack.symlink_to(tmp_path / "pack")
    elif kind.startswith("directory"):
        pack.mkdir()
    else:
        os.mkfifo(pack)
    if kind == "directory of CephFS":  # which says of one how much lies below it
        head = LocalBackend.head
        monkeypatch.setattr(LocalBackend, "head", lambda *given: head(*given)._replace(size=1 << 30))
    for _ in range(2):
        (found,) = (finding for finding in mfstore.open(root).verify().damage if finding.keys)
        assert found.object == str(pack.relative_to(root)) and found.keys == (key,) and found.refs == ("a",)
        done = mfstore.open(root).repair()
        assert (done.lost == (key,) and os.path.lexists(pack) and not pack.is_file()) or kind == "link"
    if kind.startswith("directory"):
        pack.rmdir()
    else:
        pack.unlink()
    shutil.move(tmp_path / "pack", pack)
    assert mfstore.open(root).verify("full").clean
    assert np.array_equal(mfstore.open(root).get(key), value)
