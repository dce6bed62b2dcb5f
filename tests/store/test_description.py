"""What becomes of a store whose description is damaged, lost, or not there yet."""

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.backends.memory import MemoryBackend
from mfstore.cli import main
from mfstore.format.description import PATH
from mfstore.maintenance.store.describing import rebuild_description
from tests.rigs.damage import DAMAGE, damage, fill, unreadable, wrapped
from tests.rigs.gc import objects

VALUE = {"array": np.arange(50_000.0), "text": "x" * 3000}


def same(found):
    return np.array_equal(found["array"], VALUE["array"]) and found["text"] == VALUE["text"]


@pytest.mark.parametrize("used", [False, True])
def test_a_handle_opened_before_the_store_was_created_with_another_hash(root, used):
    early = mfstore.open(root)
    if used:  # it has everything that depends on the digest, made for its own
        with pytest.raises(errors.NotFound):
            early.get("ab" * 32)
        assert early.handle.index.find([b"x" * 32]) == {}
    late = mfstore.open(root, hash="sha256")
    key = late.put(VALUE)
    assert same(early.get(key)) and same(early.get(key, verify=True))
    before = late.stats().stored
    assert early.put(VALUE) == key and late.stats().stored == before
    other = early.put([VALUE["array"], 1])
    assert np.array_equal(late.get(other)[0], VALUE["array"])
    assert early.verify("full").clean and late.verify("full").clean
    assert early.handle.description.algorithm == late.handle.description.algorithm


@pytest.mark.second
@pytest.mark.parametrize("how", ["lost", *DAMAGE])
@pytest.mark.parametrize("digest", ["blake3", "sha256"])
def test_a_description_that_is_damaged_or_lost_is_written_anew(root, how, digest, capsys):
    store = mfstore.open(root, hash=digest)
    key = store.put(VALUE)
    store.refs["kept"] = key
    store.put("garbage")
    store.plan_gc(grace=0).execute()
    backend = store.backend
    features, uuid = mfstore.open(root).handle.description.features, mfstore.open(root).handle.description.uuid
    data = backend.get(PATH)
    backend.delete(PATH) if how == "lost" else backend.put(PATH, [DAMAGE[how](data)])
    report = store.verify()
    if report.clean:
        assert how in ("one long", "one short", "last byte")  # the line's end
        return
    assert [finding.object for finding in report.damage] == [PATH]
    with pytest.raises((errors.CorruptObject, errors.NotAStore), match="mfstore repair -s") as caught:
        mfstore.open(root)
    assert caught.value.key == PATH
    if how == "lost":
        with pytest.raises(errors.CorruptObject, match="mfstore repair -s"):
            store.put("another store must not be begun among the objects of this one")
    with pytest.raises(SystemExit) as done:
        main(["repair", "-s", str(root)])
    assert done.value.code == 1
    with pytest.raises(SystemExit) as done:
        main(["repair", "-s", str(root), "--execute"])
    assert done.value.code == 0
    assert "written anew" in capsys.readouterr().err
    fresh = mfstore.open(root)
    assert same(fresh.get(key)) and fresh.verify("full").clean
    assert fresh.handle.description.features == features
    if how in ("first byte", "half"):  # it can be read in what is left
        assert fresh.handle.description.uuid == uuid
    assert bool(objects(backend, "quarantine")) == (how != "lost")


def test_a_handle_that_knows_the_description_writes_it_as_it_was():
    memory = MemoryBackend()
    found = fill(wrapped(memory))
    store = wrapped(memory)
    store.handle.require_read()
    data = memory.get(PATH)
    memory.delete(PATH)
    done = store.repair("headers")
    assert [action.kind for action in done.actions] == ["describe"] and done.after.clean
    assert memory.get(PATH) == data
    assert not unreadable(memory, found)


def test_the_digest_is_proven_by_packs_alone_and_never_guessed():
    memory = MemoryBackend()
    fill(wrapped(memory))
    for recipe in objects(memory, "recipes"):
        damage(memory, recipe, DAMAGE["first byte"])
    before = wrapped(memory)
    before.handle.require_read()
    memory.delete(PATH)
    assert rebuild_description(memory).algorithm == before.handle.description.algorithm
    memory.delete(PATH)
    for pack in objects(memory, "packs"):
        damage(memory, pack, DAMAGE["last byte"])
    with pytest.raises(errors.NotAStore, match="nothing there proves"):
        rebuild_description(memory)
    assert not memory.exists_many([PATH])[0]


def test_other_files_are_still_no_store(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(errors.NotAStore, match="empty or a new directory"):
        mfstore.open(tmp_path)
