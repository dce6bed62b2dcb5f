"""What is attached to artifacts, and what is recorded of how they were made."""

import json
import os
import sys
import time

import numpy as np
import pytest

import mfstore
from mfstore import errors, provenance
from mfstore._core.codec import Codec
from mfstore.backends.base import Capabilities
from mfstore.backends.memory import MemoryBackend
from mfstore.format import recipes
from mfstore.format.recipes import recipe_path
from mfstore.format.refs import NOTES
from mfstore.settings import resolve
from mfstore.store import Store

ARRAY = np.random.default_rng(0).random(20_000)
KINDS = {"literal": 1, "inline": "text " * 400, "packed": ARRAY}


class CountingFarAway(MemoryBackend):
    """As S3, with the requests that were made."""

    capabilities = Capabilities(remote=True, inline=256 << 10)

    def __init__(self, *args):
        super().__init__(*args)
        self.asked = []

    def get(self, key):
        self.asked.append(("get", key))
        return super().get(key)

    def put_if(self, key, data, etag):
        self.asked.append(("put_if", key))
        return super().put_if(key, data, etag)


@pytest.fixture(params=["near", "far"])
def store(request, tmp_path):
    if request.param == "near":
        return mfstore.open(tmp_path / "store", fsync="none")
    return Store("far", CountingFarAway(), resolve(), create=True, algorithm="blake3")


@pytest.mark.parametrize("kind", KINDS)
def test_a_note_changes_no_key_and_is_shown(store, kind):
    before = time.time()
    noted = store.put(KINDS[kind], note={"auc": 0.5, "tags": ["a"]})
    stat = store.stat(noted)
    assert stat.note == {"auc": 0.5, "tags": ["a"]}
    assert before - 0.001 <= stat.created <= time.time() + 0.001
    assert stat.creator == provenance.user() and stat.creator.endswith("@" + os.uname().nodename)
    assert (stat.python, stat.mfstore) == (provenance.PYTHON, mfstore.__version__)
    assert stat.libraries == ({"numpy": np.__version__} if kind == "packed" else {})
    np.testing.assert_equal(store.get(noted), KINDS[kind])
    other = mfstore.open("memory://", record=False)
    assert other.put(KINDS[kind]) == noted
    plain = other.stat(noted)
    assert (plain.note, plain.created, plain.creator, plain.python, plain.libraries) == (None, None, "", "", {})


def test_whatever_is_stored_takes_a_note(store, tmp_path):
    (tmp_path / "file").write_bytes(b"file")
    keys = [
        store.save({"a": ARRAY, "b": 1}, note={"n": 1}), store.put_bytes(b"raw", note={"n": 1}),
        store.put_file(tmp_path / "file", note={"n": 1}),
    ]  # fmt: skip
    assert [store.stat(key).note for key in keys] == [{"n": 1}] * 3
    assert store.stat(keys[0]).libraries == {"numpy": np.__version__}


def test_what_is_no_note_stores_nothing(store):
    for put in (store.put, store.put_bytes, lambda data, **more: store.save({"a": data}, **more)):
        with pytest.raises(errors.InvalidNote, match=r"note\['loss'\]"):
            put(b"data", note={"loss": float("nan")}, ref="never")
    with pytest.raises(errors.InvalidNote):
        store.refs.set("never", store.put(1), note={"x": object()})
    assert "never" not in store.refs
    assert len(list(store.keys())) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_content_with_another_note_has_that(store, kind):
    key = store.put(KINDS[kind], note={"run": 1, "first": True})
    first = store.stat(key)
    path = recipe_path(key)
    before = store.backend.get(path)
    assert store.put(KINDS[kind]) == key
    assert store.put(KINDS[kind], note={"run": 1, "first": True}) == key
    assert store.backend.get(path) == before  # nothing new was said of it
    written = store.session.objects
    assert store.put(KINDS[kind], note={"run": 2}) == key
    assert store.session.objects == written + 1
    second = store.stat(key)
    assert second.note == {"run": 2}
    assert (second.created, second.creator, second.chunks) == (first.created, first.creator, first.chunks)
    np.testing.assert_equal(store.get(key), KINDS[kind])
    assert store.verify("full").clean
    assert store.put({"other": KINDS[kind]}, note={}) != key


def test_what_a_newer_version_said_stays(store):
    key = store.put(ARRAY, note={"run": 1})
    path = recipe_path(key)
    codec = Codec(errors)
    found = recipes.decode(store.backend.get(path), codec)
    newer = json.dumps({**json.loads(found.about), "newer": [1]}).encode()
    parts = recipes.encode(found.algorithm, found.content, newer, found.packs, found.placements, [found.inline], codec)
    store.backend.put(path, parts)
    store.put(ARRAY, note={"run": 2})
    about = json.loads(recipes.decode(store.backend.get(path), codec).about)
    assert (about["newer"], about["note"]) == ([1], {"run": 2})


@pytest.mark.parametrize("about", [b"{", b"[1]", b"null"])
def test_what_is_no_description_is_written_anew(store, about):
    key = store.put(ARRAY)
    codec = Codec(errors)
    found = recipes.decode(store.backend.get(recipe_path(key)), codec)
    parts = recipes.encode(found.algorithm, found.content, about, found.packs, found.placements, [found.inline], codec)
    store.backend.put(recipe_path(key), parts)
    assert store.put(ARRAY, note={"run": 2}) == key
    assert store.stat(key).note == {"run": 2}


class Meddling(CountingFarAway):
    """Something happens between the look at a recipe and its replacement."""

    def __init__(self, *args):
        super().__init__(*args)
        self.meanwhile = []

    def put_if(self, key, data, etag):
        if key.startswith("recipes/") and self.meanwhile:
            self.meanwhile.pop(0)()
        return super().put_if(key, data, etag)


def meddled(obj=None):
    backend = Meddling()
    store = Store("far", backend, resolve(), create=True, algorithm="blake3")
    return store, backend, store.put(ARRAY if obj is None else obj, note={"run": 1})


def test_a_note_replaces_only_what_was_read():
    store, backend, key = meddled()
    other = Store("far", backend, resolve(), create=True, algorithm="blake3")
    moved = recipes.decode(backend.get(recipe_path(key)), Codec(errors))

    def repacked():
        about = recipes.encode(
            moved.algorithm, moved.content, moved.about, moved.packs, moved.placements, [moved.inline], Codec(errors)
        )
        backend.put(recipe_path(key), about)

    backend.meanwhile = [repacked, lambda: other.put(ARRAY, note={"run": 3})]
    store.put(ARRAY, note={"run": 2})
    assert store.stat(key).note == {"run": 2}
    assert [what for what, path in backend.asked if what == "put_if" and path.startswith("recipes/")] == ["put_if"] * 4


def test_what_is_removed_meanwhile_is_stored_again():
    store, backend, key = meddled(obj="small")
    backend.meanwhile = [lambda: backend.delete(recipe_path(key))]
    assert store.put("small", note={"run": 2}) == key
    assert store.stat(key).note == {"run": 2} and store.get(key) == "small"


def test_others_that_never_stop_are_a_conflict():
    store, backend, key = meddled()
    data = backend.get(recipe_path(key))
    backend.meanwhile = [lambda: backend.put(recipe_path(key), [data])] * 100
    with pytest.raises(errors.Conflict, match="keeps changing"):
        store.put(ARRAY, note={"run": 2})
    assert store.stat(key).note == {"run": 1}


def test_without_a_note_what_is_there_costs_no_more_requests():
    store = Store("far", CountingFarAway(), resolve(), create=True, algorithm="blake3")
    store.put(ARRAY)
    store.backend.asked.clear()
    store.put(ARRAY)
    assert [what for what, path in store.backend.asked if path.startswith("recipes/")] == ["get"]


def test_a_ref_keeps_the_note_of_each_value(store):
    key = store.put(1, ref="runs/a", note={"run": 1})
    assert store.put(1, ref="runs/a", note={"run": 2}) == key
    store.put(1, ref="runs/a")
    assert [entry.note for entry in store.refs.history("runs/a")] == [None, {"run": 2}, {"run": 1}]
    assert store.stat(key).note == {"run": 2}


def test_old_notes_of_a_ref_make_room_for_new_ones(store):
    key = store.put(1)
    for number in range(20):
        store.refs.set("a", key, note={"n": number, "text": "x" * 15_000})
    history = store.refs.history("a")
    assert len(history) == 20
    kept = [entry.note["n"] for entry in history if entry.note]
    assert kept == list(range(19, 19 - NOTES // 15_030, -1))


def test_the_task_of_a_flow_is_told(store, monkeypatch):
    class Current:
        pathspec = "TrainFlow/7/train/3"

    class Module:
        current = Current()

    monkeypatch.setitem(sys.modules, "metaflow.metaflow_current", Module)
    assert store.stat(store.put("of a task")).creator == "TrainFlow/7/train/3"
    Current.pathspec = None
    assert store.stat(store.put("of no task")).creator == provenance.user()


def test_versions_of_libraries(monkeypatch, tmp_path):
    assert provenance.version_of("numpy") == np.__version__
    assert provenance.version_of("json") is None and provenance.version_of("__main__") is None
    assert provenance.version_of(__name__.partition(".")[0]) is None  # beside the program


def test_a_repack_keeps_what_is_said(tmp_path):
    store = mfstore.open(tmp_path / "store", fsync="none", compress=False)
    rng = np.random.default_rng(1)
    kept, gone = rng.bytes(200_000), rng.bytes(1_500_000)
    dropped = store.save({"gone": gone, "kept": kept}, note={"n": 0})
    key = store.save({"kept": kept}, ref="kept", note={"n": 1})
    before = store.stat(key)
    recipe = store.backend.get(recipe_path(key))
    store.plan_gc(grace=0).execute()
    time.sleep(0.01)
    store.plan_gc(grace=0, repack=1.0).execute()
    assert not store.exists(dropped)
    again = mfstore.open(tmp_path / "store")
    assert again.backend.get(recipe_path(key)) != recipe, "nothing was repacked"
    after = again.stat(key)
    assert (after.note, after.created, after.creator) == ({"n": 1}, before.created, before.creator)
    assert again.load(key)["kept"] == kept


def test_a_repair_keeps_what_is_said(tmp_path):
    store = mfstore.open(tmp_path / "store", fsync="none", compress=False)
    rng = np.random.default_rng(1)
    lost, kept = rng.bytes(200_000), rng.bytes(200_000)
    store.save({"lost": lost, "kept": kept})
    key = store.save({"kept": kept}, note={"n": 1})
    before, recipe = store.stat(key), store.backend.get(recipe_path(key))
    (pack,) = (tmp_path / "store" / "packs").glob("*/*")
    data = bytearray(pack.read_bytes())
    data[data.index(lost[:50])] ^= 1
    pack.write_bytes(data)
    store.repair()
    again = mfstore.open(tmp_path / "store")
    assert again.backend.get(recipe_path(key)) != recipe, "nothing was pointed elsewhere"
    after = again.stat(key)
    assert (after.note, after.created, after.libraries) == ({"n": 1}, before.created, before.libraries)
    assert again.load(key)["kept"] == kept


def test_what_is_stored_again_for_its_damage_keeps_its_note(tmp_path):
    store = mfstore.open(tmp_path / "store", fsync="none", compress=False)
    value = {"kept": np.random.default_rng(1).bytes(200_000)}
    key = store.put(value, note={"n": 1})
    (pack,) = (tmp_path / "store" / "packs").glob("*/*")
    pack.unlink()
    again = mfstore.open(tmp_path / "store", fsync="none")
    assert again.put(value) == key and again.get(key) == value
    assert again.stat(key).note == {"n": 1}
    path = tmp_path / "store" / recipe_path(key)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert again.put(value) == key and again.stat(key).note is None  # it cannot be told any more
