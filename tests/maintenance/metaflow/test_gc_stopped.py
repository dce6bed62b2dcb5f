"""Collections of a Metaflow root that were stopped anywhere, and collectors that meet."""

import contextlib
import json
import os
import threading
import time
from itertools import count
from pathlib import Path

import pytest

from mfstore import errors
from mfstore.backends.memory import MemoryBackend
from mfstore.backends.s3.backend import S3Backend
from mfstore.maintenance.metaflow import gc
from mfstore.maintenance.metaflow.collecting import removal, state
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.set_aside import BEFORE_ATTEMPTS, EARLY, FOLDER
from mfstore.maintenance.metaflow.collecting.state import (
    LEASE_SECONDS,
    LISTS,
    STATE_PATH,
    RootGcState,
    StateFile,
    encode_state,
)
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.testing import Fault, FaultyBackend
from tests.backends.test_s3 import options
from tests.rigs.clocked_roots import S3Root
from tests.rigs.gc import Hooked
from tests.rigs.metaflow_trees import files, opened, run_meta, task, upload, whole
from tests.rigs.soak import points

DAY = 86400.0
LAST = RunPolicy(last=1, grace=0.0)
INCLUDED = "ab" * 20


def build(root, runs=("0", "1", "2")):
    """Three runs of one flow, of which each has all that runs have: artifacts of its own and shared ones, an
    IncludeFile, a card in either layout, a log, local metadata."""
    for number, run in enumerate(runs):
        age = (30 - number) * DAY
        run_meta(root, "Flow", run, age=age)
        task(root, "Flow", run, "start", 1, {"own": number, "pair": number // 2, "all": "s" * 500}, age=age)
        value = {"type": "uploader-v2", "url": f"s3://elsewhere/data/Flow/{INCLUDED}"} if number < 2 else None
        kind = "metaflow.includefile.IncludedFile" if number < 2 else "NoneType"
        infos = {"file": {"type": f"<class '{kind}'>", "encoding": "pickle-v4"}}
        task(root, "Flow", run, "_parameters", 0, {"file": value}, age=age, infos=infos)
        for path in (
            f"Flow/{run}/start/1/0.task_stdout.log",
            f"Flow/{run}/start/1/_meta/0_artifact_own.json",
            f"mf.cards/Flow/runs/{run}/steps/start/tasks/1/cards/default-x.html",
            f"mf.cards/Flow/runs/{run}/tasks/1/cards/default-x.html",
            f"mf.cards/Flow/runs/{run}/steps/start/tasks/1/runtime/default-x.data.json",
        ):
            place = root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("{}")
            os.utime(place, (time.time() - age,) * 2)
    included = root / "data/Flow" / INCLUDED
    included.parent.mkdir(parents=True)
    included.write_bytes(b"included")
    return root


@pytest.fixture
def tree(tmp_path):
    return build(tmp_path / "mf")


def collect(root, **more):
    with opened(root) as place:
        return collect_metaflow(place, LAST, **more)[1]


def everything(root):
    """Every file and folder, but the history that collections keep, and the clock that they share."""
    kept = ("gc-clock", "condemned", "log", "known", "verify")
    found = {str(path.relative_to(root)) for path in Path(root).rglob("*")}
    return {path for path in found if not path.startswith((".", *(f"mf.maintenance/{name}" for name in kept)))}


def minutes_pass(root):
    """The collector that was stopped gave its last sign of life so long ago."""
    if Path(root, STATE_PATH).exists():
        os.utime(Path(root, STATE_PATH), (time.time() - LEASE_SECONDS - 1,) * 2)


def snapshot(root):
    return {path: (path.read_bytes(), path.stat().st_mtime) for path in Path(root).rglob("*") if path.is_file()}


def restore(root, model):
    for path in sorted(Path(root).rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.rmdir()
        elif path not in model:
            path.unlink()
    for path, (data, moment) in model.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (moment, moment))


def stopped_at(root, n, after, forever):
    """A collection whose n-th call fails, and with ``forever`` all that follow: it was killed. How many there were."""
    with opened(root) as place:
        inner = place.backend
        place.backend = FaultyBackend(inner, Fault(at=n, after=after, forever=forever))
        place.backend.root = inner.root
        with contextlib.suppress(errors.MfstoreError):
            collect_metaflow(place, LAST)
        return place.backend.calls


def collect_what_was_set_aside(tree):
    """What runs ask for before their first attempt goes with the first collection after an hour."""
    for path in Path(tree, EARLY).rglob("*"):
        moment = time.time() - BEFORE_ATTEMPTS - 10
        os.utime(path, (moment, moment))
    collect(tree)


def is_finished_by_the_next(tree, points, after, forever):
    collect(tree)
    model = snapshot(tree)
    collect(tree)
    collect_what_was_set_aside(tree)
    expected = everything(tree)
    gone = (
        "Flow/0",
        "Flow/1",
        "mf.cards/Flow/runs/0",
        "mf.cards/Flow/runs/1",
        "mf.maintenance/set-aside",
        "data/Flow/a",
    )
    assert not [path for path in expected if path.startswith(gone)]
    kept = {path for path in files(tree) if "/2/" in path}
    for n in points:
        restore(tree, model)
        calls = stopped_at(tree, n, after, forever)
        assert kept <= set(files(tree))
        assert not [one for one in whole(tree).damage if any(name.startswith("Flow/2/") for name in one.artifacts)]
        minutes_pass(tree)
        for _ in range(1 if forever else 2):  # what could not be read once keeps a run, which is condemned anew then
            collect(tree)  # without --take-over
        collect_what_was_set_aside(tree)
        assert everything(tree) == expected, n
        if calls < n:
            return n
    return n


@pytest.mark.fuzz
@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after the effect"])
@pytest.mark.parametrize("forever", [False, True], ids=["once", "from then on"])
def test_a_collection_stopped_at_any_call_is_finished_by_the_next(tree, after, forever):
    assert is_finished_by_the_next(tree, points(3 + after, 10 if forever else 30), after, forever) > 60


def test_only_empty_folders_of_runs_go_by_what_the_state_says(tree):
    """Every task may write it."""
    collect(tree)
    names = ["Flow/gone", "Flow/2", "../outside", "Flow/../../outside", "Flow/..", "../mf/Flow", "data/..", "Flow/"]
    folders = [tree / "Flow/gone/start/1", tree.parent / "outside", tree / "Empty", tree / "Flow/2/start/2"]
    for folder in folders:
        folder.mkdir(parents=True)
    Path(tree, STATE_PATH).write_bytes(encode_state(RootGcState(removing=tuple(names))))
    before = files(tree)
    with opened(tree) as place:
        collect_metaflow(place, RunPolicy(last=99, grace=0.0))
    assert [folder.exists() for folder in folders] == [False, True, True, False] and files(tree) == before


# ---- two collectors -----------------------------------------------------------------------


def test_two_collectors_do_not_run_at_once(tree, monkeypatch):
    with opened(tree) as place:
        file = StateFile(place.backend)
        file.begin(False)
        with pytest.raises(errors.Conflict, match="another collector is at work"):
            collect(tree)
        minutes_pass(tree)
        collect(tree)  # the other is dead
        file.end()
        other = StateFile(place.backend)
        other.begin(False)
        assert collect(tree, take_over=True).removed
        other.end()
    run_meta(tree, "Flow", "3")
    task(tree, "Flow", "3", "start", 1, {"own": 3}, age=DAY)
    collect(tree)
    original = removal.Removal.look_again

    def overtaken(self, *arguments):
        with opened(tree) as place:
            StateFile(place.backend).begin(True)
        return original(self, *arguments)

    monkeypatch.setattr(removal.Removal, "look_again", overtaken)
    before = files(tree)
    with pytest.raises(errors.Conflict, match="nothing more is removed"):
        collect(tree)
    assert files(tree) == before


def test_a_collector_that_plans_for_long_shows_that_it_is_alive(tree, monkeypatch):
    """Its lease is renewed whatever it is at, so that minutes without one mean that it died."""
    threads = {*threading.enumerate()}
    monkeypatch.setattr(state, "RENEWED_EVERY", 0.01)
    path, make_plan, seen = Path(tree, STATE_PATH), gc.make_plan, set()

    def long(*arguments):
        until = time.monotonic() + 120
        while len(seen) < 4 and time.monotonic() < until:
            with contextlib.suppress(FileNotFoundError):
                seen.add(path.read_bytes())
            time.sleep(0.005)
        return make_plan(*arguments)

    monkeypatch.setattr(gc, "make_plan", long)
    collect(tree)
    assert len(seen) == 4 and collect(tree).removed == ("Flow/0", "Flow/1")
    assert {*threading.enumerate()} == threads


def test_the_next_collection_waits_for_one_that_may_have_died(tree, monkeypatch):
    collect(tree)
    with opened(tree) as place:
        stopped_at(tree, 12, False, True)
        monkeypatch.setattr(state, "LOOKED_EVERY", 0.01)
        with pytest.raises(errors.Conflict, match="another collector is at work"):
            collect(tree, wait=0.05)
        monkeypatch.setattr(state, "LEASE_SECONDS", 0.3)
        assert collect(tree, wait=300.0).removed == ("Flow/0", "Flow/1")
        # And for one that ends: it lists the root again then.
        monkeypatch.setattr(state, "LEASE_SECONDS", 3600.0)
        other = StateFile(place.backend)
        other.begin(False)
        run_meta(tree, "Flow", "3")
        lister, listings = gc.list_root, []

        def listed(*arguments):
            listings.append(lister(*arguments))
            threading.Thread(target=other.end).start()
            return listings[-1]

        monkeypatch.setattr(gc, "list_root", listed)
        task(tree, "Flow", "3", "start", 1, {"own": 3}, age=DAY)
        done = collect(tree, wait=300.0)
        assert done.condemned == 1 and len(listings) in (1, 2)


def test_a_write_of_the_state_that_was_not_answered_is_recognised(tree):
    with opened(tree) as place:
        inner = place.backend

        class Repeating(FaultyBackend):
            def put_if(self, key, data, etag):
                super().put_if(key, data, etag)
                return super().put_if(key, data, etag)  # as a client does whose first request was not answered

        file = StateFile(Repeating(inner))
        file.begin(False)
        file.end()
        assert not place.backend.exists_many([STATE_PATH])[0]


# ---- S3 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [5, 14, 23], ids=["planning", "removing", "near the end"])
def test_a_killed_collection_in_s3_is_finished_by_the_next(tmp_path, at, s3_server, bucket, s3_env, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", s3_server.region)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.url)
    url = f"s3://{bucket}/some/metaflow"
    # Nothing but their ids tells there in which order they began.
    runs = [str(int((time.time() - (30 - number) * DAY) * 1e6)) for number in range(3)]
    tree = build(tmp_path / "mf", runs)
    with contextlib.closing(S3Backend(url, **options(s3_server))) as backend:
        upload(tree, backend)
        collect(url)
        calls = count(1)

        def dies(name):
            original = getattr(S3Backend, name)

            def call(self, *arguments, **more):
                if next(calls) >= at:
                    raise errors.BackendError("killed")
                return original(self, *arguments, **more)

            return call

        names = ("put", "put_if", "get_tagged", "list", "delete", "delete_many", "delete_unchanged", "copy_many", "get")
        with monkeypatch.context() as killed:
            for name in names:
                killed.setattr(S3Backend, name, dies(name))
            with pytest.raises(errors.BackendError, match="killed"):
                collect(url)
        monkeypatch.setattr(state, "LEASE_SECONDS", 1.0)
        collect(url, wait=300.0)
        left = {info.key for info in backend.list("")}
        needed = {
            key
            for path in (tree / "Flow" / runs[2]).rglob("*.data.json")
            for key in json.loads(path.read_text()).get("objects", {}).values()
        }
        assert not [key for key in left if runs[0] in key or runs[1] in key]
        assert [key for key in left if key.startswith(("data/", FOLDER))] == [f"{EARLY}data/Flow/{INCLUDED}"]
        assert {key.rpartition("/")[2] for key in left if key.startswith("Flow/data/")} == needed
        assert whole(url).findings == ()


def test_collectors_that_wait_for_a_third_do_not_hinder_each_other():
    """Each asks the storage what time it is, at the same moment."""
    backend = Hooked(MemoryBackend())
    StateFile(backend).save(RootGcState(owner="somebody"))

    def another():
        with pytest.raises(errors.Conflict, match="another collector"):
            StateFile(backend).begin(take_over=False)

    backend.on("put", STATE_PATH, another, after=True)
    another()
    assert not backend.waiting


def test_a_pardon_counts_that_is_of_the_same_second_as_what_follows():
    """Of the lists of condemned runs none is written over: S3 tells times in seconds."""
    place = S3Root()
    with contextlib.closing(place.opened()) as root:
        file = StateFile(root.backend)

        def condemn(*names):
            file.save(RootGcState())
            file.condemn(names, DAY)

        condemn("Flow/1", "Flow/2")
        began = place.now
        place.pass_time(100)
        condemn("Flow/2")
        condemn("Flow/1", "Flow/2")
        assert file.condemned_since() == {"Flow/1": began + 100, "Flow/2": began}


def test_the_last_of_many_lists_of_one_second_counts():
    """Without a grace period lists of the same second are deleted: none takes the place of one of these, before others
    that are older."""
    place = S3Root()
    with contextlib.closing(place.opened()) as root:
        file = StateFile(root.backend)
        for number in range(9):
            names = () if number % 3 == 2 else (f"Flow/{number}",)
            file.save(RootGcState())
            file.condemn(names, 0.0)
            assert file.condemned_since() == dict.fromkeys(names, place.now)
        assert len([*root.backend.list(LISTS)]) == 2
