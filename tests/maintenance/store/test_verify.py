"""Verify finds exactly what cannot be read, and repair mends what can be, wherever it is stopped."""

import contextlib
import json
import threading
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.backends.local import LocalBackend
from mfstore.backends.memory import MemoryBackend
from mfstore.backends.s3.backend import S3Backend
from mfstore.format.digests import BLAKE3, digest_function
from mfstore.format.fragments import digest_in_key
from mfstore.format.packs import PackEntry
from mfstore.format.progress import PATH as PROGRESS_PATH
from mfstore.format.progress import SHARDS
from mfstore.maintenance.store.checking.pack_state import plan_spans
from mfstore.maintenance.verification import VerifyOptions, choose_shards, read_progress
from mfstore.testing import Fault, FaultyBackend
from tests.backends.test_s3 import options
from tests.rigs.changes import Noting, calls_after_changes, killed_at, twin
from tests.rigs.damage import DAMAGE, NOISE, damage, fill, unreadable, wound, wrapped
from tests.rigs.gc import objects
from tests.rigs.parts import DIGEST
from tests.rigs.soak import points, soaking


@pytest.fixture
def memory():
    return MemoryBackend()


# ---- finding ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["list", "headers", "full"])
def test_a_whole_store_is_clean(memory, level):
    fill(wrapped(memory))
    report = wrapped(memory).verify(level)
    assert report.clean and report.findings == () and report.complete and report.remembered
    assert report.objects["packs"] == len(objects(memory, "packs")) > 1
    if level == "full":
        assert report.packs_checked == report.objects["packs"]
        assert report.chunks > 10
        assert report.oldest is not None


@pytest.mark.second
@pytest.mark.parametrize("kind", ["packs", "recipes", "index", "refs"])
@pytest.mark.parametrize("how", [*DAMAGE, "gone"])
def test_what_verify_calls_unreadable_is_what_cannot_be_read(memory, kind, how):
    """Of every object of a store in turn."""
    store = wrapped(memory)
    found = fill(store)
    for key in objects(memory, kind):
        before = memory.get(key)
        if how == "gone":
            memory.delete(key)
        else:
            damage(memory, key, DAMAGE[how])
        full = wrapped(memory).verify("full")
        bad = unreadable(memory, found)
        changed = how == "gone" or memory.get(key) != before
        forgotten = how == "gone" and (kind == "refs" or key[-64:] not in map(store.refs.get, store.refs))
        if kind == "recipes" and forgotten:
            assert full.clean and bad == {key[-64:]}  # nobody knows that it was there
            memory.put(key, [before])
            continue
        assert set(full.unreadable) == bad, key
        if changed and not forgotten:
            assert not full.clean, key
        elif not changed:
            assert full.clean
        if kind == "refs" and changed and how != "gone":
            assert any(key == finding.object for finding in full.findings)
        # The levels that read less never say more than there is.
        for level in ("list", "headers"):
            assert set(wrapped(memory).verify(level).unreadable) <= bad | ({key[-64:]} if kind == "recipes" else set())
        memory.put(key, [before])
    assert wrapped(memory).verify("full").clean


def test_headers_find_damaged_frames_and_list_finds_short_packs(memory):
    fill(wrapped(memory))
    packs = objects(memory, "packs")
    damage(memory, packs[0], DAMAGE["last byte"])
    damage(memory, packs[1], DAMAGE["one short"])
    assert {finding.object for finding in wrapped(memory).verify("headers").damage} == set(packs[:2])
    assert {finding.object for finding in wrapped(memory).verify("list").damage} == {packs[1]}


def test_refs_that_are_touched_are_named(memory):
    found = fill(wrapped(memory))
    first = next(iter(found))
    memory.delete(f"recipes/{first[:2]}/{first}")
    for level in ("list", "headers", "full"):
        (finding,) = wrapped(memory).verify(level).findings
        assert (finding.kind, finding.keys, finding.refs) == ("missing", (first,), ("models/churn",))


def test_an_index_that_forgot_or_remembers_too_much_is_told(memory):
    fill(wrapped(memory))
    for key in objects(memory, "index"):
        memory.delete(key)
    assert [finding.kind for finding in wrapped(memory).verify().findings] == ["unlisted"]
    wrapped(memory).repair()
    assert wrapped(memory).verify("full").clean
    fragments = {key: memory.get(key) for key in objects(memory, "index")}
    extra = wrapped(memory).put(NOISE[3])
    new = next(key for key in objects(memory, "index") if key not in fragments)
    pack = next(
        key for key in objects(memory, "packs")
        if bytes.fromhex(key[-64:]) in memory.get(new)[:200]
    )  # fmt: skip
    memory.delete(pack)
    memory.delete(f"recipes/{extra[:2]}/{extra}")
    assert [finding.kind for finding in wrapped(memory).verify("list").findings] == ["stale"]


def test_what_others_put_there_is_told_and_does_no_harm(memory):
    fill(wrapped(memory))
    memory.put("index/readme", [b"hello"])
    report = wrapped(memory).verify()
    assert [(finding.kind, finding.object) for finding in report.findings] == [("foreign", "index/readme")]
    assert report.clean


def test_a_chunk_with_another_copy_costs_no_artifact(memory):
    store = wrapped(memory)
    first = store.put(NOISE[0])
    for key in objects(memory, "index"):
        memory.delete(key)
    second = wrapped(memory).put({"again": NOISE[0]})  # the index is gone, so it is stored again
    packs = objects(memory, "packs")
    assert len(packs) == 2
    wrapped(memory).repair()
    placed = wrapped(memory).handle.recipe(first).packs[0].hex()
    damage(memory, f"packs/{placed[:2]}/{placed}", DAMAGE["middle"])
    report = wrapped(memory).verify("full")
    assert not report.clean
    if report.unreadable:  # the index knows the copies in one place only
        assert report.unreadable == (first,)
    done = wrapped(memory).repair()
    assert done.lost == () and done.after.clean
    assert wrapped(memory).verify("full").clean
    assert unreadable(memory, {first: NOISE[0], second: {"again": NOISE[0]}}) == set()


@pytest.mark.parametrize("kind", ["packs", "recipes", "index"])
def test_objects_of_a_newer_version_are_told_and_never_touched(memory, kind):
    found = fill(wrapped(memory))
    key = objects(memory, kind)[0]
    damage(memory, key, lambda data: data[:4] + b"\2" + data[5:])
    newer = memory.get(key)
    if kind == "index":
        name = f"index/{digest_function(BLAKE3)(newer).hex()}"
        memory.put(name, [newer])
        memory.delete(key)
        key = name
    report = wrapped(memory).verify("full")
    assert (("unknown", key)) in [(finding.kind, finding.object) for finding in report.findings]
    assert set(report.unreadable) == unreadable(memory, found)
    wrapped(memory).repair(drop_lost=True)
    assert kind == "index" or memory.get(key) == newer
    assert unreadable(memory, found) == set(report.unreadable)


# ---- parts, memory and time -------------------------------------------------------------


def test_samples_cover_everything_once(memory):
    fill(wrapped(memory))
    reports = [wrapped(memory).verify("full", sample=f"{n}/7") for n in range(1, 8)]
    assert sum(report.packs_checked for report in reports) == len(objects(memory, "packs"))
    assert [report.oldest is None for report in reports] == [*[True] * 6, False] or reports[-1].oldest is not None
    parts = [choose_shards({}, VerifyOptions("full", sample=(n, 10)), 0.0) for n in range(1, 11)]
    assert sorted(shard for part in parts for shard in part) == sorted(SHARDS)


def test_only_what_waits_long_enough_is_read_the_longest_first():
    times = {shard: 1000.0 - number for number, shard in enumerate(SHARDS) if number % 2}
    chosen = choose_shards(times, VerifyOptions("full", older_than=100.0), 1000.0)
    assert chosen[:128] == list(SHARDS[::2])
    assert [times[shard] for shard in chosen[128:]] == sorted(t for t in times.values() if 1000.0 - t > 100)


def test_a_stopped_verify_goes_on_where_it_was(memory):
    fill(wrapped(memory))
    total = len(objects(memory, "packs"))
    none = wrapped(memory).verify("full", budget=0.0)
    assert (none.packs_checked, none.complete) == (0, False)
    seen = []

    def stop(step):
        if step.phase == "data":
            seen.append(step)
            if len(seen) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wrapped(memory).verify("full", progress=stop)
    rest = wrapped(memory).verify("full", older_than=3600)
    assert 0 < rest.packs_checked < total
    again = wrapped(memory).verify("full", older_than=3600)
    assert again.packs_checked == 0 and again.oldest is not None


def test_damaged_packs_are_not_remembered_as_verified(memory):
    fill(wrapped(memory))
    pack = objects(memory, "packs")[0]
    damage(memory, pack, DAMAGE["middle"])
    for _ in range(2):
        assert not wrapped(memory).verify("full", older_than=3600).clean


def test_remembered_progress_that_makes_no_sense_counts_as_none(memory):
    for data in (
        b"",
        b"{",
        b"[]",
        b'{"version": 9, "packs": {"00": 1}}',
        b'{"version": 1, "packs": {"zz": 1, "00": 5}}',
    ):
        memory.put(PROGRESS_PATH, [data])
        assert read_progress(memory, PROGRESS_PATH) in ({}, {"00": 5.0})


def test_progress_is_told(memory):
    fill(wrapped(memory))
    steps = []
    wrapped(memory, threads=3).verify("full", progress=steps.append)
    assert {step.phase for step in steps} == {"listing", "headers", "recipes", "data"}
    assert all(0 <= step.done <= step.total for step in steps)
    last = {step.phase: step for step in steps}
    assert all(step.done == step.total for phase, step in last.items() if phase != "data")


def test_levels_cost_what_they_say(memory):
    fill(wrapped(memory))
    faulty = FaultyBackend(memory)
    wrapped(faulty).verify("list")
    reads = [key for operation, key in faulty.log if operation not in ("list", "exists_many")]
    assert all(key.startswith(("index/", "refs/")) or key in ("mfstore.json", PROGRESS_PATH) for key in reads)
    faulty.log.clear()
    wrapped(faulty).verify("headers")
    of_packs = [key for operation, key in faulty.log if key.startswith("packs/") and operation != "list"]
    assert len(of_packs) <= 2 * len(objects(memory, "packs"))


@pytest.mark.parametrize("limit", [1, 100, 1000, 10**6])
def test_spans_hold_every_chunk_once(limit):
    rng = np.random.default_rng(limit)
    entries, at = [], 64
    for number in range(200):
        size = int(rng.integers(1, 300))
        entries.append(PackEntry(number.to_bytes(32, "big"), at, size, size, 0, 0))
        at += size + (int(rng.integers(0, 2000)) if number % 9 == 0 else 0)
    spans = list(plan_spans(reversed(entries), limit))
    assert [entry for span in spans for entry in span.entries] == entries
    for span in spans:
        assert span.start == span.entries[0].offset and span.end == max(e.offset + e.csize for e in span.entries)
        assert span.end - span.start <= limit or len(span.entries) == 1


# ---- a store in use ---------------------------------------------------------------------


@pytest.mark.slow
def test_a_store_that_is_written_meanwhile_is_clean(root):
    stop = threading.Event()
    written = []

    def write():
        store = mfstore.open(root, fsync="none")
        rng = np.random.default_rng(1)
        while not stop.is_set():
            written.append(store.put({"n": len(written), "a": rng.random(20_000)}))
            store.refs["latest"] = written[-1]

    thread = threading.Thread(target=write)
    mfstore.open(root).put(0)
    thread.start()
    try:
        for _ in range(15):
            for level in ("list", "headers", "full"):
                report = mfstore.open(root).verify(level)
                assert report.findings == ()
    finally:
        stop.set()
        thread.join()
    assert len(written) > 20


def test_failing_calls_are_never_called_clean(memory):
    found = fill(wrapped(memory))
    pack = objects(memory, "packs")[0]
    damage(memory, pack, DAMAGE["middle"])
    assert not wrapped(memory).verify("full").clean
    for n in count(1):
        faulty = FaultyBackend(memory, Fault(at=n))
        try:
            report = wrapped(faulty).verify("full")
        except errors.BackendError:
            continue
        assert not report.clean
        if faulty.calls < n:
            break
    assert n > 20 and found


def test_a_refusal_is_not_called_missing(memory):
    fill(wrapped(memory))
    total = FaultyBackend(memory)
    wrapped(total).verify("full")
    kinds = set()
    for n in range(1, total.calls + 1):
        faulty = FaultyBackend(memory, Fault(at=n, error=lambda: errors.AccessDenied("no")))
        try:
            report = wrapped(faulty).verify("full")
        except errors.AccessDenied:
            continue
        kinds.update(finding.kind for finding in report.findings)
    # Of what an unread index fragment lists nothing is known either.
    assert kinds == {"unreadable", "unlisted"}


# ---- repair -----------------------------------------------------------------------------


@pytest.mark.second
@pytest.mark.parametrize("number", range(24))
def test_repair_keeps_everything_that_can_be_read_and_heals_the_rest_by_putting_again(memory, number):
    live, found = wound(memory, number)
    before = {info.key: memory.get(info.key) for info in memory.list("")}
    plan = wrapped(memory).repair(dry_run=True)
    assert {info.key: memory.get(info.key) for info in memory.list("") if info.key != PROGRESS_PATH} == {
        key: data for key, data in before.items() if key != PROGRESS_PATH
    }
    done = wrapped(memory).repair()
    assert done.actions == plan.actions != ()
    assert unreadable(memory, live) == set()
    left = wrapped(memory).verify("full")
    # What is lost stays: packs that are gone, and recipes in which a chunk is damaged.
    assert all(finding.kind == "missing" or finding.object.startswith("recipes/") for finding in left.findings)
    assert set(left.unreadable) <= set(done.lost) == unreadable(memory, found)
    # Nothing that was stored is gone: it is where it was, or in quarantine.
    kept = {memory.get(info.key) for info in memory.list("quarantine/")}
    for key, data in before.items():
        if not key.startswith(("recipes/", "verify/")):
            # A damaged fragment may also lie there whole again: the index was made anew and came out as it had been.
            assert data in kept or memory.get(key) == data or DIGEST(memory.get(key)) == digest_in_key(key), key
    wrapped(memory).repair(drop_lost=True)
    last = wrapped(memory).verify("full")
    assert not last.unreadable or all(finding.refs for finding in last.findings)
    assert fill(wrapped(memory)).keys() == found.keys()
    assert wrapped(memory).verify("full").clean
    assert unreadable(memory, found) == set()


def test_repair_at_the_level_of_headers_relies_on_nothing_unread(memory):
    store = wrapped(memory)
    first = store.put(NOISE[0])
    for key in objects(memory, "index"):
        memory.delete(key)
    wrapped(memory).put({"again": NOISE[0]})
    one, two = objects(memory, "packs")
    placed = wrapped(memory).handle.recipe(first).packs[0].hex()
    other = two if placed in one else one
    memory.delete(f"packs/{placed[:2]}/{placed}")
    damage(memory, other, DAMAGE["middle"])
    done = wrapped(memory).repair("headers")
    assert first in done.lost
    assert first in wrapped(memory).verify("full").unreadable


def test_repaired_arrays_can_still_be_mapped(root):
    value = np.random.default_rng(0).integers(1 << 63, size=600_000)
    store = mfstore.open(root, fsync="none")
    key = store.put(value)
    (pack,) = (path for path in Path(root, "packs").rglob("*") if path.is_file())
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    done = store.repair()
    assert done.after.clean and pack.exists()
    recipe = store.handle.recipe(key)
    (loaded,) = store.handle.loading(True, True).segments.prepare(recipe, recipe.artifacts[0], 0, True)
    assert loaded.wanted == ()  # mapped: nothing is left to fetch
    np.testing.assert_array_equal(store.get(key), value)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after the effect"])
@pytest.mark.parametrize("forever", [False, True], ids=["once", "from then on"])
def test_repair_that_fails_at_the_nth_call_is_finished_by_the_next(after, forever):
    model = MemoryBackend()
    live, _ = wound(model, 3)
    seen = set()
    for n in points(1 + 2 * after + forever, 4):
        inner = MemoryBackend()
        inner._objects.update(model._objects)
        faulty = Noting(inner, Fault(at=n, after=after, forever=forever))
        try:
            wrapped(faulty).repair()
        except errors.BackendError:
            pass
        if (left := faulty.left()) not in seen:
            finished(inner, live)
            seen.add(left)
        if faulty.calls < n:
            break
    assert n > 40
    assert len(seen) > 8 // (1 if soaking() else 4)


def finished(inner, live):
    """After a repair that may have ended anywhere: nothing more is lost, and the next does the rest."""
    assert unreadable(inner, live) == set()
    wrapped(inner).repair()
    assert unreadable(inner, live) == set()
    assert {finding.kind for finding in wrapped(inner).verify("full").findings} <= {"missing"}


@pytest.mark.slow
def test_repair_that_is_killed_at_any_call_is_finished_by_the_next(tmp_path):
    model = tmp_path / "model"
    live, _ = wound(LocalBackend(str(model), fsync="none"), 4)
    whole = FaultyBackend(LocalBackend(twin(model, tmp_path / "whole"), fsync="none"))
    wrapped(whole).repair()
    for n in calls_after_changes(whole.log):
        inner = LocalBackend(twin(model, tmp_path / str(n)), fsync="none")
        assert killed_at(n, inner, lambda backend: wrapped(backend).repair()) is (n <= whole.calls)
        finished(inner, live)
    assert n > 40


def test_nothing_is_done_to_what_cannot_be_read(memory):
    """A storage that refuses for a while must not make repair quarantine what is whole."""
    found = fill(wrapped(memory))
    clean = FaultyBackend(memory)
    wrapped(clean).repair()
    for n in range(1, clean.calls + 1):
        faulty = FaultyBackend(memory, Fault(at=n, error=lambda: errors.AccessDenied("no")))
        try:
            report = wrapped(faulty).repair()
        except errors.AccessDenied:
            continue
        assert not [action for action in report.actions if action.kind == "quarantine"]
    assert unreadable(memory, found) == set()
    assert objects(memory, "quarantine") == []


# ---- the rest ---------------------------------------------------------------------------


def test_places_that_are_no_store(tmp_path):
    with pytest.raises(errors.NotFound, match="no store there"):
        mfstore.open(tmp_path / "nothing").verify()
    with pytest.raises(errors.NotFound, match="no store there"):
        mfstore.open(tmp_path / "nothing").repair()
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.NotAStore):
        mfstore.open(tmp_path).verify()


def test_a_store_of_a_newer_format_is_left_alone(root):
    mfstore.open(root).put(1)
    path = Path(root, "mfstore.json")
    document = json.loads(path.read_text())
    for operation, call in (("read", "verify"), ("write", "repair"), ("delete", "repair")):
        document["features"] = {operation: ["fountains"]}
        path.write_text(json.dumps(document))
        with pytest.raises(errors.Unsupported, match=f"fountains to {operation}"):
            getattr(wrapped(LocalBackend(root)), call)()


@pytest.mark.parametrize("sample", ["0/3", "4/3", "1/257", "x", "1", (1, 2, 3)])
def test_bad_samples(store, sample):
    store.put(1)
    with pytest.raises(errors.InvalidKey, match="sample"):
        store.verify("full", sample=sample)


def test_bad_levels(store):
    store.put(1)
    with pytest.raises(errors.InvalidKey, match="list, headers, full"):
        store.verify("everything")
    with pytest.raises(errors.InvalidKey, match="only the level full"):
        store.verify("headers", budget=3)


def test_verify_and_repair_on_s3(s3_server, bucket, s3_env):
    def backend():
        return S3Backend(f"s3://{bucket}/some/store", **options(s3_server))

    with contextlib.closing(backend()) as place:
        rng = np.random.default_rng(0)
        value = {"big": rng.random(3_000_000), "zeros": np.arange(400_000)}
        store = wrapped(place, threads=2)
        key = store.put(value)
        found = {key: value, **fill(store)}
        assert wrapped(place, threads=2).verify("full").clean
        largest = max((info for info in place.list("packs/")), key=lambda info: info.size)
        damage(place, largest.key, DAMAGE["last byte"])
        others = [info.key for info in place.list("packs/") if info.key != largest.key]
        damage(place, others[0], DAMAGE["middle"])
        place.delete(objects(place, "index")[0])
        report = wrapped(place, threads=2).verify("full")
        assert set(report.unreadable) == unreadable(place, found) and not report.clean
        done = wrapped(place, threads=2).repair()
        assert unreadable(place, found) == set(done.lost) == set(report.unreadable)
        assert {info.key.partition("/")[0] for info in place.list("quarantine/")} == {"quarantine"}
        assert wrapped(place).put(value) == key
        fill(wrapped(place))
        assert wrapped(place, threads=2).verify("full").clean and unreadable(place, found) == set()


def test_time_is_told_by_the_older_shards(memory):
    fill(wrapped(memory))
    begun = time.time()
    report = wrapped(memory).verify("full")
    assert begun - 1 <= report.oldest <= time.time()
