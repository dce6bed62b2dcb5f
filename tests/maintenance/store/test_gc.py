"""Garbage collection: what it keeps and drops, failures at every call, bad input, and what the command line says."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import mfstore
from mfstore import errors
from mfstore._core.codec import Codec
from mfstore.backends.local import LocalBackend
from mfstore.backends.memory import MemoryBackend
from mfstore.cli import main
from mfstore.format import collection, packs, recipes
from mfstore.format import description as description_format
from mfstore.format.refs import RefEntry
from mfstore.maintenance.store.collecting.liveness import Liveness
from mfstore.maintenance.store.collecting.object_table import ObjectTable
from mfstore.maintenance.store.collecting.plan import GcOptions, plan_repacks
from mfstore.maintenance.store.collecting.retention import RefVersion, Retention, plan_refs
from mfstore.saving import guard
from mfstore.testing import Fault, FaultyBackend
from tests import ROOT
from tests.rigs.changes import Noting, calls_after_changes, killed_at, twin
from tests.rigs.gc import HOUR, check_all, collect, noise, objects, store_on
from tests.rigs.soak import points, soaking

# ---- what is kept ----------------------------------------------------------------------------------------------------


def test_what_nobody_needs_goes_and_the_rest_stays(store):
    kept = store.put(noise(1))
    store.refs["kept"] = kept
    named = store.save({"a": noise(2), "b": 3})
    dropped = [store.put(noise(4)), store.save({"a": noise(2), "c": noise(5)})]
    first, second = collect(store, live=[named])
    assert first.condemned == second.deleted
    assert second.deleted.recipes == 2
    assert second.deleted.packs == 2
    assert not first.deleted
    np.testing.assert_array_equal(store.get(kept), noise(1))
    np.testing.assert_array_equal(store.load(named)["a"], noise(2))
    for key in dropped:
        assert not store.exists(key)
        with pytest.raises(errors.NotFound):
            store.get(key)
    # Doing it again does nothing, and what went can be stored again.
    assert not store.plan_gc(live=[named], grace=0).decision.does_something
    assert store.put(noise(4)) == dropped[0]
    np.testing.assert_array_equal(store.get(dropped[0]), noise(4))


def test_nothing_younger_than_the_grace_period_is_touched(clock):
    store = store_on(MemoryBackend())
    store.refs["old"] = store.put(1)
    key = store.put(noise(1))
    for hours in (0, 23, 2, 12, 13):
        clock.advance(hours * HOUR)
        plan = store.plan_gc()
        plan.execute()
        if hours != 13:
            assert store.exists(key)
        total = sum((amount.recipes for amount in plan.decision.kept.values()), plan.decision.condemns.amount.recipes)
        total += plan.decision.waiting.recipes + plan.decision.deletes.amount.recipes
        assert total == plan.decision.stored.recipes
    assert not store.exists(key)


def test_hourly_collections_do_not_put_off_deletion(clock):
    store = store_on(MemoryBackend())
    store.refs["kept"] = store.put(1)
    keys = []
    for hour in range(60):
        keys.append(store.put(noise(hour, 9_000)))
        store.plan_gc().execute()
        clock.advance(HOUR)
    left = [store.exists(key) for key in keys]
    assert left == [False] * (60 - left.count(True)) + [True] * left.count(True)
    assert 48 <= left.count(True) <= 51
    assert len(objects(store.backend, "gc/condemned")) <= 26


def test_a_condemned_object_that_is_needed_again_stays(clock):
    store = store_on(MemoryBackend())
    store.refs["kept"] = store.put(1)
    key = store.put(noise(1))
    clock.advance(25 * HOUR)
    store.plan_gc().execute()
    clock.advance(25 * HOUR)
    plan = store.plan_gc(live=[key])
    assert plan.decision.rescued.recipes == 1
    assert not plan.decision.deletes.amount
    plan.execute()
    assert objects(store.backend, "gc/condemned") == []
    np.testing.assert_array_equal(store.get(key), noise(1))


def test_writers_store_again_what_is_condemned(store):
    store.refs["kept"] = store.put(1)
    store.put(noise(1))
    store.plan_gc(grace=0).execute()
    before = len(objects(store.backend, "packs"))
    key = store.save({"again": noise(1)})
    assert len(objects(store.backend, "packs")) == before  # the same pack, in a new version
    other = store.save({"again": noise(1), "more": noise(2)})
    result = store.plan_gc(live=[key, other], grace=0).execute()
    assert not result.deleted.packs
    np.testing.assert_array_equal(store.load(key)["again"], noise(1))
    np.testing.assert_array_equal(store.load(other)["again"], noise(1))


def entries(*times):
    return tuple(RefEntry(mfstore.Key(f"{number:064x}"), float(when)) for number, when in enumerate(times))


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(), [0, 1, 2, 3]),
        (Retention(keep_last=1), [3]),
        (Retention(keep_last=3), [1, 2, 3]),
        (Retention(keep_last=9), [0, 1, 2, 3]),
        (Retention(keep_age=50), [2, 3]),  # 2 was current until 60
        (Retention(keep_age=39), [3]),
        (Retention(keep_age=0), [3]),
        (Retention(keep_age=1000), [0, 1, 2, 3]),
        (Retention(keep_last=2, keep_age=65), [1, 2, 3]),
        (Retention(keep_last=1, pinned=("mod*",)), [0, 1, 2, 3]),
    ],
)
def test_which_values_of_a_ref_stay(retention, kept):
    history = entries(10, 20, 40, 60)
    changes = plan_refs({"models/x": RefVersion("e", history)}, retention, 100.0)
    left = changes[0].kept if changes else history
    assert left == tuple(history[number] for number in kept)
    if changes:
        assert set(changes[0].dropped) == set(history) - set(left)


@pytest.mark.parametrize(
    ("retention", "removed"),
    [
        (Retention(keep_last=2, series=("runs/*",)), {"runs/0", "runs/1", "runs/2"}),
        (Retention(keep_age=75, series=("runs/*",)), {"runs/0", "runs/1"}),
        (Retention(keep_last=1, keep_age=75, series=("runs/*",)), {"runs/0", "runs/1"}),
        (Retention(keep_last=2, series=("runs/*",), pinned=("runs/0",)), {"runs/1", "runs/2"}),
        (Retention(keep_last=2), set()),
        (Retention(keep_last=1, series=("runs/*", "*")), {"runs/0", "runs/1", "runs/2", "runs/3", "best"}),
    ],
)
def test_which_refs_of_a_series_go(retention, removed):
    refs = {f"runs/{n}": RefVersion("e", entries(10 * n + 10)) for n in range(5)}
    refs["latest"] = RefVersion("e", entries(1, 99))
    refs["best"] = RefVersion("e", entries(1, 5))
    changes = {change.name: change for change in plan_refs(refs, retention, 100.0)}
    assert {name for name, change in changes.items() if not change.kept} == removed


@pytest.mark.parametrize("bad", [{"keep_last": 0}, {"keep_age": -1}, {"keep_age": float("nan")}, {"series": ("a",)}])
def test_a_policy_that_makes_no_sense(bad):
    with pytest.raises(errors.InvalidKey):
        Retention(**bad)


def test_retention_drops_what_only_old_values_named(store):
    keys = [store.put(noise(number)) for number in range(4)]
    for number, key in enumerate(keys):
        store.refs["latest"] = key
        store.refs[f"runs/{number}"] = key
    store.refs["runs/pinned"] = keys[0]
    collect(store, keep_last=2, series=["runs/?"], pinned=["runs/pinned"])
    assert sorted(store.refs) == ["latest", "runs/2", "runs/3", "runs/pinned"]
    assert [entry.key for entry in store.refs.history("latest")] == [keys[3], keys[2]]
    assert [store.exists(key) for key in keys] == [True, False, True, True]
    check_all(store)


def test_a_ref_set_after_the_plan_is_left_alone(store):
    old, new, other = (store.put(noise(number)) for number in range(3))
    store.refs["x"] = old
    store.refs["x"] = new
    plan = store.plan_gc(grace=0, keep_last=1)
    store.refs["x"] = other
    result = plan.execute()
    assert (result.refs, result.refs_changed) == (0, 1)
    store.plan_gc(grace=0).execute()  # the history names them all: they are rescued
    check_all(store)
    assert len(store.refs.history("x")) == 3


def test_repacking_frees_what_is_dead(store):
    big = store.save({str(number): noise(number) for number in range(10)})
    key = store.refs["kept"] = store.save({"a": noise(3), "b": noise(7)})
    whole = store.refs["whole"] = store.save({str(number): noise(number + 50) for number in range(3)})
    before = store.stats().stored
    plan = store.plan_gc(grace=0, repack=1)
    assert len(plan.decision.repacks) == 1
    result = plan.execute()
    assert result.repacked == 1
    check_all(store)
    store.plan_gc(grace=0).execute()
    assert not store.exists(big)
    with mfstore.open(store.backend.root) as fresh:
        np.testing.assert_array_equal(fresh.load(key)["b"], noise(7))
        check_all(fresh)
        assert before - fresh.stats().stored > 8 * 150_000
        # What moved is found by the next save, and keys are the same.
        written = fresh.session.stored
        assert fresh.save({"a": noise(3), "b": noise(7)}) == key
        assert fresh.session.stored == written
    assert whole


def test_repacked_arrays_are_still_mapped(root):
    with mfstore.open(root) as store:
        arrays = {str(number): np.random.default_rng(number).integers(1 << 63, size=200_000) for number in range(5)}
        store.save(arrays)
        key = store.refs["kept"] = store.save({"3": arrays["3"]})
        collect(store, repack=1)
    with mfstore.open(root) as store:
        calls = []
        real = store.backend.map
        store.backend.map = lambda *where: calls.append(where) or real(*where)
        np.testing.assert_array_equal(store.load(key)["3"], arrays["3"])
        assert len(calls) == 1
        assert calls[0][1] % 4096 == 0


def test_repacking_stays_within_its_limit():
    stored = ObjectTable("packs")
    for number in range(100):
        stored.add(number.to_bytes(32), 1 << 30, 0.0, "e")

    liveness = Liveness(stored, bool)
    liveness.live_bytes = [number << 20 for number in range(100)]
    liveness.lasting = [number > 0 for number in range(100)]
    chosen = plan_repacks(stored, liveness, 100.0, GcOptions(10.0, Retention(), 0.01))
    assert sum(entry.live for entry in chosen) <= 1 << 30
    assert [entry.live >> 20 for entry in chosen] == list(range(1, 45))[: len(chosen)]
    assert plan_repacks(stored, liveness, 100.0, GcOptions(10.0, Retention(), 0.0)) == []
    assert plan_repacks(stored, liveness, 5.0, GcOptions(10.0, Retention(), 1.0)) == []


# ---- stores from before, other programs ------------------------------------------------------------------------------


def test_a_store_from_before_collection_is_collected(tmp_path):
    golden = ROOT / "tests" / "golden"
    shutil.copytree(golden / "store-0.1.0", tmp_path / "store")
    keys = json.loads((golden / "keys-0.1.0.json").read_text())
    for path in (tmp_path / "store").rglob("*"):
        os.utime(path, (1e9, 1e9))
    store = mfstore.open(tmp_path / "store")
    bundle = store.refs["golden/bundle"]
    plan = store.plan_gc()
    assert plan.decision.kept["named by a ref"].recipes == 1
    plan.execute()
    for path in (tmp_path / "store" / "gc").rglob("*"):
        os.utime(path, (1e9, 1e9))
    collect(store)
    assert list(store.keys()) == [bundle]
    check_all(store)
    assert len(keys) > 5


def test_who_does_not_know_condemned_lists_may_read_and_not_write(store, monkeypatch):
    key = store.refs["kept"] = store.put(noise(1))
    store.put(2)
    store.plan_gc(grace=0).execute()
    document = json.loads(Path(store.backend.root, "mfstore.json").read_text())
    assert document["features"] == {"read": [], "write": [collection.FEATURE], "delete": []}
    monkeypatch.setattr(description_format, "KNOWN_FEATURES", frozenset())
    old = mfstore.open(store.backend.root)
    np.testing.assert_array_equal(old.get(key), noise(1))
    with pytest.raises(errors.Unsupported, match="Upgrade mfstore"):
        old.put(3)


def test_a_plan_that_does_nothing_writes_nothing(store):
    store.refs["kept"] = store.put(1)
    store.plan_gc(grace=0).execute()
    assert objects(store.backend, "gc") == ["gc/clock"]
    assert json.loads(store.backend.get(description_format.PATH))["features"]["write"] == []


# ---- failures --------------------------------------------------------------------------------------------------------


def prepared(backend):
    """A store with everything a collection deals with: to delete, to condemn, to repack, to shorten, to keep."""
    store = store_on(backend)
    keep = {}

    def name(ref, value):
        keep[store.put(value) if not isinstance(value, dict) else store.save(value)] = value
        store.refs[ref] = list(keep)[-1]

    store.save({str(number): noise(number, 9_000) for number in range(6)})
    store.put(noise(20, 9_000))
    store.refs["runs/1"] = store.put(noise(21, 9_000))
    store.refs["runs/2"] = store.put(noise(22, 9_000))
    name("small", 1)
    name("part", {"two": noise(2, 9_000)})
    name("runs/3", noise(23, 9_000))
    live = store.put(noise(24, 9_000))
    keep[live] = noise(24, 9_000)
    store.plan_gc([live], 0, repack=0).execute()
    store.put(noise(30, 9_000))
    for value in range(3):
        store.put(value)
    return live, keep


def policy(live):
    return {"live": [live], "grace": 0, "keep_last": 1, "series": ["runs/*"], "repack": 1}


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after the effect"])
@pytest.mark.parametrize("forever", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("kind", ["local", "memory"])
def test_fail_the_nth_call(tmp_path, after, forever, kind):
    model = LocalBackend(str(tmp_path / "model"), fsync="none") if kind == "local" else MemoryBackend()
    live, keep = prepared(model)
    seen = set()
    for n in points(1 + 2 * after + forever, 4):
        if kind == "local":
            inner = LocalBackend(twin(model.root, tmp_path / str(n)), fsync="none")
        else:
            inner = MemoryBackend()
            inner._objects.update(model._objects)
        faulty = Noting(inner, Fault(at=n, after=after, forever=forever))
        try:
            store_on(faulty).plan_gc(**policy(live)).execute()
            survived = True
        except errors.BackendError:
            survived = False
        if (left := faulty.left()) not in seen:
            finish(inner, live, keep)
            seen.add(left)
        if survived and faulty.calls < n:
            break
    assert n > 40
    assert len(seen) > 15 // (1 if soaking() else 4)


def finish(inner, live, keep):
    """After a collection that may have failed anywhere: all that is live reads back, writers write, a rerun
    finishes."""
    reader = store_on(inner)
    for key, value in keep.items():
        np.testing.assert_equal(reader.get(key), value)
    check_all(store_on(inner))
    again = store_on(inner).put(noise(20, 9_000))
    np.testing.assert_array_equal(store_on(inner).get(again), noise(20, 9_000))
    for _ in range(3):
        store_on(inner).plan_gc(**policy(live)).execute(take_over=True)
        check_all(store_on(inner))
    store = store_on(inner)
    assert set(store.keys()) == set(keep)
    assert set(store.refs) == {"small", "part", "runs/3"}
    assert objects(inner, "gc/condemned") == []
    codec = Codec(errors)
    read = [recipes.decode(inner.get(recipes.recipe_path(key)), codec, bytes.fromhex(key)) for key in keep]
    assert objects(inner, "packs") == sorted({packs.pack_path(name.hex()) for found in read for name in found.packs})
    for key, value in keep.items():
        np.testing.assert_equal(store.get(key), value)
    assert guard.read_state(inner)[0].owner == ""


@pytest.mark.slow
def test_kill_at_any_call(tmp_path):
    """SIGKILL at the n-th storage call, in a process of its own."""
    live, keep = prepared(LocalBackend(str(tmp_path / "model"), fsync="none"))
    whole = FaultyBackend(LocalBackend(twin(tmp_path / "model", tmp_path / "whole"), fsync="none"))
    store_on(whole).plan_gc(**policy(live)).execute()

    def collected(backend):
        store_on(backend).plan_gc(**policy(live)).execute()

    deleted = {key.partition("/")[0] for operation, key in whole.log if operation == "delete_unchanged"}
    assert deleted == {"packs", "recipes", "refs"}
    calls = calls_after_changes(whole.log)
    for n in calls:
        inner = LocalBackend(twin(tmp_path / "model", tmp_path / str(n)), fsync="none")
        assert killed_at(n, inner, collected) is (n <= whole.calls)
        finish(inner, live, keep)
    assert len(calls) > 15


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_a_policy_that_drops_everything_is_refused(store):
    key = store.put(noise(1))
    plan = store.plan_gc(grace=0)
    with pytest.raises(errors.Refused, match="yes_really"):
        plan.execute()
    assert objects(store.backend, "gc") == ["gc/clock"]
    plan.execute(yes_really=True)
    with pytest.raises(errors.Refused):
        store.plan_gc(grace=0).execute()
    assert store.exists(key)
    store.plan_gc(grace=0).execute(yes_really=True)
    assert not store.exists(key)


def test_a_live_key_that_is_not_there_stops_it(store):
    store.put(1)
    with pytest.raises(errors.NotFound, match="garbage collection stops"):
        store.plan_gc(live=["0" * 64], grace=0)
    with pytest.raises(errors.InvalidKey):
        store.plan_gc(live=["nonsense"], grace=0)


@pytest.mark.parametrize("grace", [-1, float("nan")])
def test_a_grace_period_that_makes_no_sense(store, grace):
    store.put(1)
    with pytest.raises(errors.Refused):
        store.plan_gc(grace=grace)


class NoDelete(MemoryBackend):
    def delete(self, key):
        raise errors.AccessDenied("not allowed to delete", key=key)

    def delete_unchanged(self, seen):
        raise errors.AccessDenied("not allowed to delete", key=next(iter(seen)))


def test_without_the_right_to_delete():
    inner = MemoryBackend()
    live, keep = prepared(inner)
    denied = NoDelete(inner.url)
    plan = store_on(denied).plan_gc([live], 0)
    assert plan.decision.deletes.amount
    with pytest.raises(errors.AccessDenied, match="delete"):
        plan.execute()
    check_all(store_on(denied))
    state = guard.read_state(inner)[0]
    assert (state.owner, state.deleting, len(state.lists)) == ("", False, 1)
    finish(inner, live, keep)


def test_a_read_only_store_can_be_planned_for(root):
    with mfstore.open(root) as store:
        store.refs["kept"] = store.put(noise(1))
        store.put(noise(2))

    class ReadOnly(LocalBackend):
        def batch(self):
            raise errors.AccessDenied("read-only", backend=self.url)

    store = store_on(ReadOnly(root))
    plan = store.plan_gc(grace=0)
    assert plan.decision.condemns.amount.recipes == 1
    assert "this machine's clock" in plan.warnings[0]
    with pytest.raises(errors.AccessDenied):
        plan.execute()
    check_all(mfstore.open(root))


def test_a_damaged_state_stops_writers_and_collectors(store):
    store.refs["kept"] = store.put(1)
    store.put(2)
    store.plan_gc(grace=0).execute()
    store.backend.put(collection.STATE, [b"{}"])
    with pytest.raises(errors.CorruptObject, match="remove this object"):
        store.put(3)
    with pytest.raises(errors.CorruptObject):
        store.plan_gc(grace=0)
    store.backend.delete(collection.STATE)
    store.put(3)
    collect(store)
    check_all(store)


def test_a_lost_list_deletes_nothing(store):
    store.refs["kept"] = store.put(1)
    store.put(noise(2))
    store.plan_gc(grace=0).execute()
    store.backend.delete(objects(store.backend, "gc/condemned")[0])
    with pytest.raises(errors.CorruptObject, match="mfstore gc"):
        mfstore.open(store.backend.root).put(3)
    plan = store.plan_gc(grace=0)
    assert "condemned anew" in plan.warnings[0]
    assert not plan.execute().deleted
    mfstore.open(store.backend.root).put(3)
    assert store.plan_gc(grace=0).execute().deleted.packs == 1


def test_a_damaged_index_does_not_stop_it(store):
    store.refs["kept"] = store.put(noise(1))
    store.put(noise(2))
    fragment = objects(store.backend, "index")[0]
    store.backend.put(fragment, [store.backend.get(fragment)[:-1]])
    _, second = collect(store)
    assert second.deleted.packs == 1
    check_all(store)


def test_every_flip_of_a_list_is_noticed():
    data = collection.encode_list({bytes([n]) * 32: n for n in range(5)}, {bytes([n]) * 32: n for n in range(3)})
    assert collection.decode_list(data, "k").versions("packs") == {bytes([n]) * 32: n for n in range(3)}
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 1 << at % 8
        with pytest.raises((errors.CorruptObject, errors.Unsupported)):
            collection.decode_list(bytes(bad), "k")
        with pytest.raises(errors.CorruptObject):
            collection.decode_list(data[:at], "k")


def test_files_of_others_are_left_alone(store):
    store.refs["kept"] = store.put(1)
    store.put(noise(1))
    strange = ["packs/notes.txt", f"packs/aa/{'b' * 64}", f"recipes/{'c' * 64}", "recipes/ab/README"]
    for name in strange:
        store.backend.put(name, [b"mine"])
    collect(store)
    assert all(store.backend.exists_many(strange))


# ---- the command line ------------------------------------------------------------------------------------------------


def run(*args, code=0):
    done = CliRunner().invoke(main, ["gc", *map(str, args)])
    assert done.exit_code == code, done.output
    return done.output


def test_the_command_line(root, tmp_path):
    store = mfstore.open(root)
    kept = store.put(noise(1))
    store.refs["x"] = kept
    dropped, live = store.put(noise(2)), store.put(noise(3))
    (tmp_path / "live").write_text(f"# of the registry\n{live}  # a run\n\n")
    said = run("-s", root)
    assert "younger than the grace period" in said
    assert "Nothing was changed: there is nothing to do." in said
    arguments = ("-s", root, "--grace", "0", "--live", tmp_path / "live")
    said = run(*arguments, "--long")
    assert f"condemn {dropped}" in said
    assert "named by the caller" in said
    assert "Nothing was changed: --execute does this." in said
    assert store.exists(dropped)
    assert "condemned 1 key and 1 pack " in run(*arguments, "--execute")
    document = json.loads(run(*arguments, "--execute", "--json"))
    assert document["executed"]["deleted"] == document["delete"]
    assert document["delete"]["recipes"] == 1
    assert not store.exists(dropped)
    assert "nothing to do" in run(*arguments, "--execute")
    assert "no duration" in run("-s", root, "--grace", "soon", code=2)
    assert "'90' of what? Write 90d" in run("-s", root, "--keep-age", "90", code=2)
    assert "series needs" in run("-s", root, "--series", "x", code=1)
    assert "no store there" in run("-s", tmp_path / "empty", code=1)
    assert "not an mfstore store" in run("-s", tmp_path, code=1)
    del store.refs["x"]
    assert "--yes-really" in run("-s", root, "--grace", "0", "--execute", code=1)
    assert store.exists(kept)


# ---- S3 --------------------------------------------------------------------------------------------------------------


def test_a_store_on_s3_is_collected(s3_server, bucket):
    def open_store():
        return mfstore.open(
            f"s3://{bucket}/store", endpoint_url=s3_server.url, aws_access_key_id=s3_server.access_key,
            aws_secret_access_key=s3_server.secret_key, region_name=s3_server.region,
        )  # fmt: skip

    with open_store() as store:
        kept = store.refs["kept"] = store.save({str(number): noise(number, 60_000) for number in range(3)})
        part = store.put(noise(7, 60_000))
        store.save({str(number): noise(number, 60_000) for number in range(5, 12)})
        dropped = store.put(noise(20, 60_000))
    # Nothing here is new to a fresh process, and its clock is the service's.
    with open_store() as store:
        plan = store.plan_gc([part], 0)
        assert "nobody may be writing" in plan.unsafe
        assert plan.execute().condemned.recipes == 2
    with open_store() as writer:  # what it is told when it opens
        again = writer.put(noise(20, 60_000))
        assert again == dropped
    with open_store() as store:
        result = store.plan_gc([part], 0).execute()
        assert result.deleted.recipes == 1
        assert store.exists_many([kept, part, again]) == [True] * 3
        check_all(store)
        for _ in range(2):
            result = store.plan_gc(None, 0).execute()
        assert store.exists_many([kept, part, again]) == [True, False, False]
    with open_store() as store:
        check_all(store)
        assert len(objects(store.backend, "packs")) == 1
        assert store.plan_gc(None, 0).decision.does_something is False
