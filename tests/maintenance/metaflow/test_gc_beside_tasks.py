"""Collections of a Metaflow root beside tasks of stock Metaflow, which know nothing of them."""

import contextlib
import gzip
import hashlib
import json
import os
import pickle
import time
from pathlib import Path

import pytest

from mfstore.backends.s3.backend import S3Backend
from mfstore.maintenance.metaflow.collecting import removal
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.set_aside import BEFORE_ATTEMPTS, FOLDER, WINDOW
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.testing import FaultyBackend
from tests.backends.test_s3 import options
from tests.rigs.metaflow_trees import blob, blobs_of, opened, run_meta, task, upload, whole

DAY = 86400.0
LAST = RunPolicy(last=1, grace=0.0)


@pytest.fixture
def tree(tmp_path):
    """Three runs of one flow; what the first two have of their own goes."""
    root = tmp_path / "mf"
    for number in range(3):
        run_meta(root, "Flow", str(number), age=(30 - number) * DAY)
        task(root, "Flow", str(number), "start", 1, {"own": number, "all": "s" * 500}, age=(30 - number) * DAY)
    return root


def collect(root, policy=LAST, **more):
    with opened(root) as place:
        return collect_metaflow(place, policy, **more)[1]


def set_aside(root):
    return [path for path in Path(root, FOLDER).rglob("*") if path.is_file()]


@contextlib.contextmanager
def before_it_goes(*events):
    """They happen once, after the last look of a collection and before what tasks share goes."""
    take, waiting = removal.take, [*events]

    def late(*what):
        while waiting:
            waiting.pop(0)()
        return take(*what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(removal, "take", late)
        yield


class StockTask:
    """A task that stores one value as stock Metaflow does: it asks whether the blob is there, stores it if not, and
    writes down at its end that it needs it."""

    def __init__(self, root, run, value, flow="Flow"):
        self.root, self.flow, self.run, self.value = root, flow, run, value
        self.key = hashlib.sha1(pickle.dumps(value, protocol=4)).hexdigest()
        self.place = Path(root, flow, run, "start", "1")

    def begin(self, ago=0.0):
        run_meta(self.root, self.flow, self.run, age=ago)
        task(self.root, self.flow, self.run, "start", 1, {}, done=False, age=ago)

    def store(self):
        if self.key not in blobs_of(self.root, self.flow):
            blob(self.root, self.flow, self.value)

    def end(self):
        document = {"objects": {"own": self.key}, "info": {"own": {"type": "<class 'int'>", "encoding": "pickle-v4"}}}
        (self.place / "0.data.json").write_text(json.dumps(document))
        (self.place / "0.DONE.lock").write_text("")


class Scheduled(FaultyBackend):
    """Something happens right before some of its calls."""

    def __init__(self, inner, events):
        super().__init__(inner)
        self.root = inner.root
        self.events = events

    def _run(self, operation, key, work):
        for event in self.events.pop(self.calls + 1, ()):
            event()
        return super()._run(operation, key, work)


def calls_of_a_collection(tree):
    """How many calls a collection makes that removes the two runs."""
    with opened(tree) as place:
        place.backend = Scheduled(place.backend, {})
        collect_metaflow(place, RunPolicy(last=1, grace=0.0, pinned=("Flow/*",)))
        return place.backend.calls


@pytest.mark.parametrize("between", [0, 1, 4, 1000], ids=["at once", "a call later", "later", "after it"])
def test_what_a_task_took_for_stored_is_there_at_its_end_or_put_back(tmp_path, between):
    """Its beginning, its question and its end at any calls of the collection. Before each, nothing is lost; after the
    next collection all is as if nothing had gone."""
    restored = 0
    for number, at in enumerate(range(3, 75, 6)):
        root = tmp_path / f"{number}"
        for run in range(3):
            run_meta(root, "Flow", str(run), age=(30 - run) * DAY)
            task(root, "Flow", str(run), "start", 1, {"own": run, "all": "s" * 500}, age=(30 - run) * DAY)
        collect(root)
        stock = StockTask(root, "9", 0)
        events = {at: [stock.begin, stock.store]}
        events.setdefault(at + between, []).append(stock.end)
        with opened(root) as place:
            place.backend = Scheduled(place.backend, events)
            done = collect_metaflow(place, LAST)[1]
        for left in sorted(events):
            for event in events[left]:
                event()
        again = collect(root, RunPolicy(last=2, grace=0.0))
        restored += len(done.restored) + len(again.restored)
        assert stock.key in blobs_of(root, "Flow"), at
        assert whole(root).findings == (), at
        assert not set_aside(root), at
    # Blobs of the first run went while a task relied on them, at some of these calls.
    assert restored or between == 1000


@pytest.mark.parametrize("takes", ["ab" * 20, "cd" * 20], ids=["what was to go", "another"])
def test_of_include_files_those_stay_that_a_task_names_meanwhile(tree, monkeypatch, takes):
    """A flow with an IncludeFile that is scheduled every minute is collected too, and what goes of it is not put back."""
    old, new = "ab" * 20, "cd" * 20

    def begin_and_end(run, sha, age):
        value = {"type": "uploader-v2", "url": f"s3://elsewhere/data/Flow/{sha}"}
        infos = {"file": {"type": "<class 'metaflow.includefile.IncludedFile'>", "encoding": "pickle-v4"}}
        task(tree, "Flow", run, "_parameters", 0, {"file": value}, age=age, infos=infos)

    begin_and_end("0", old, 30 * DAY)
    begin_and_end("2", new, 28 * DAY)
    folder = Path(tree, "data", "Flow")
    folder.mkdir(parents=True)
    for sha in (old, new):
        (folder / sha).write_bytes(b"included")
    collect(tree)
    looks = []

    def list_flow(root, flow):
        if not looks:
            begin_and_end("3", takes, 0.0)
        looks.append(flow)
        return listed(root, flow)

    listed = removal.list_flow
    monkeypatch.setattr(removal, "list_flow", list_flow)
    done = collect(tree)
    assert looks and set(done.removed) == {"Flow/0", "Flow/1"} and not done.held
    assert sorted(path.name for path in folder.iterdir()) == sorted({takes, new})
    assert not done.restored


def test_a_copy_stays_until_the_tasks_that_may_have_found_the_original_have_ended(tree):
    collect(tree)
    stock = StockTask(tree, "9", 0)
    with opened(tree) as place:
        inner = place.backend
        before = Scheduled(inner, {})
        place.backend = before
        with before_it_goes(stock.begin, stock.store):
            done = collect_metaflow(place, LAST)[1]
    assert stock.key not in blobs_of(tree, "Flow") and done.set_aside.objects == len(set_aside(tree)) > 0
    assert collect(tree).set_aside == done.set_aside  # it has not ended
    stock.end()
    done = collect(tree, RunPolicy(last=2, grace=0.0))
    assert any(path.endswith(stock.key) for path in done.restored)
    assert stock.key in blobs_of(tree, "Flow") and not set_aside(tree) and whole(tree).findings == ()


def make_older(paths, seconds):
    for path in paths:
        moment = path.stat().st_mtime - seconds
        os.utime(path, (moment, moment))


def test_a_task_that_began_after_it_went_needs_no_copy(tree):
    collect(tree)
    stock = StockTask(tree, "9", 0)
    with before_it_goes(stock.begin):
        assert collect(tree).set_aside.objects
    make_older(set_aside(tree), WINDOW + 10)
    assert not collect(tree).set_aside.objects and not set_aside(tree)


def test_what_a_run_finds_before_its_first_attempt_is_put_back(tree):
    """Its IncludeFiles and its code package: it asks for them before anything below the root tells of it, and begins
    after the collection has ended, perhaps an hour later."""
    sha = hashlib.sha1(b"included").hexdigest()

    def begin_and_end(run, code, age):
        value = {"type": "uploader-v2", "url": f"s3://elsewhere/data/Flow/{sha}"}
        infos = {"file": {"type": "<class 'metaflow.includefile.IncludedFile'>", "encoding": "pickle-v4"}}
        task(tree, "Flow", run, "_parameters", 0, {"file": value}, age=age, infos=infos)
        task(tree, "Flow", run, "start", 1, {}, code=code, age=age)

    code = blob(tree, "Flow", "the code")
    begin_and_end("0", code, 30 * DAY)
    include = Path(tree, "data", "Flow", sha)
    include.parent.mkdir(parents=True)
    include.write_bytes(gzip.compress(b"included"))
    collect(tree)
    found = []
    with before_it_goes(lambda: found.append(include.exists() and code in blobs_of(tree, "Flow"))):
        done = collect(tree)
    assert found == [True] and not include.exists() and code not in blobs_of(tree, "Flow")
    # Each blob has a file beside it. Of what only tasks find nothing is left.
    assert done.set_aside.objects == len(set_aside(tree)) == 3
    make_older(set_aside(tree), BEFORE_ATTEMPTS - 100)
    assert collect(tree).set_aside.objects == 3
    run_meta(tree, "Flow", "9")
    begin_and_end("9", code, 0.0)
    assert len(collect(tree, RunPolicy(last=2, grace=0.0)).restored) == 3
    assert include.exists() and whole(tree).findings == () and not set_aside(tree)


def test_no_more_is_put_back_than_what_a_task_names(tree):
    """Though what tells which IncludeFile that is was set aside itself."""
    sha = "ab" * 20
    value = {"type": "uploader-v2", "url": f"s3://elsewhere/data/Flow/{sha}"}
    infos = {"file": {"type": "<class 'metaflow.includefile.IncludedFile'>", "encoding": "pickle-v4"}}
    task(tree, "Flow", "0", "_parameters", 0, {"file": value}, age=30 * DAY, infos=infos)
    include = Path(tree, "data", "Flow", sha)
    include.parent.mkdir(parents=True)
    include.write_bytes(b"included")
    Path(include.parent, "cd" * 20).write_bytes(b"of nobody")
    collect(tree)
    stock = StockTask(tree, "9", value)

    def end():
        document = {"objects": {"file": stock.key}, "info": infos}
        stock.begin()
        (stock.place / "0.data.json").write_text(json.dumps(document))
        (stock.place / "0.DONE.lock").write_text("")

    before = blobs_of(tree, "Flow")
    with before_it_goes(end):
        done = collect(tree)
    assert {path.removesuffix("_meta")[-40:] for path in done.restored} == {stock.key, sha}
    own = hashlib.sha1(pickle.dumps(0, protocol=4)).hexdigest()
    assert include.exists() and own in before and own not in blobs_of(tree, "Flow") and not set_aside(tree)


def test_what_no_run_named_within_an_hour_goes(tree):
    task(tree, "Flow", "0", "start", 1, {}, code=blob(tree, "Flow", "the code"), age=30 * DAY)
    collect(tree)
    assert collect(tree).set_aside.objects == 2
    make_older(set_aside(tree), BEFORE_ATTEMPTS + 10)
    assert not collect(tree).set_aside.objects and not set_aside(tree)


def test_a_task_that_was_silent_for_long_is_no_obstacle_and_loses_nothing(tree):
    """It is taken for killed, and was not."""
    collect(tree)
    stock = StockTask(tree, "9", 0)
    stock.begin(ago=5 * 3600.0)
    stock.store()
    done = collect(tree)
    assert set(done.removed) >= {"Flow/0", "Flow/1"} and done.set_aside.objects
    stock.end()
    collect(tree, RunPolicy(last=2, grace=0.0))
    assert stock.key in blobs_of(tree, "Flow") and whole(tree).findings == ()


class Minutes:
    """A flow that is scheduled every minute: another task begins with each look, and some begin before the last one has
    ended."""

    def __init__(self, root, gaps, lasts=2):
        self.root, self.gaps, self.lasts = root, gaps, lasts
        self.looks = 0
        self.running = []
        self.begin()

    def begin(self):
        stock = StockTask(self.root, f"9{self.looks}", 0 if self.looks % 2 else 100 + self.looks)
        stock.begin()
        stock.store()
        self.running.append((self.looks + self.lasts, stock))

    def sleep(self, seconds):
        self.looks += 1
        assert self.looks < 1000
        if self.looks in self.gaps:
            while self.running:
                self.running.pop()[1].end()
            return
        for ends, stock in [*self.running]:
            if ends <= self.looks:
                stock.end()
                self.running.remove((ends, stock))
        self.begin()


def test_a_flow_that_is_scheduled_every_minute_is_collected_between_its_tasks(tree, monkeypatch):
    other = tree.parent / "mf" / "Other"
    for run in range(2):
        task(tree, "Other", str(run), "start", 1, {"own": run}, age=(9 - run) * DAY)
    collect(tree)
    world = Minutes(tree, gaps={7, 20})
    monkeypatch.setattr(removal.time, "sleep", world.sleep)
    done = collect(tree, wait=300.0)
    assert set(done.removed) == {"Flow/0", "Flow/1", "Other/0"} and not done.held and world.looks >= 7
    assert other.exists() and not Path(tree, "Flow/0").exists()
    while world.running:
        world.running.pop()[1].end()
    collect(tree, RunPolicy(last=100, grace=0.0))
    assert whole(tree).findings == () and not set_aside(tree)


def test_a_flow_without_a_moment_between_tasks_is_left_and_named(tree, monkeypatch):
    for run in range(2):
        task(tree, "Other", str(run), "start", 1, {"own": run}, age=(9 - run) * DAY)
    collect(tree)
    world = Minutes(tree, gaps=set())
    elapsed = iter(range(0, 10**6, 100))
    monkeypatch.setattr(removal.time, "sleep", world.sleep)
    monkeypatch.setattr(removal, "since", lambda then: next(elapsed))
    done = collect(tree, wait=600.0)
    assert done.removed == ("Other/0",) and "is running" in done.held["Flow"] and world.looks >= 5
    assert Path(tree, "Flow/0").exists() and whole(tree).findings == ()


def test_only_the_tasks_that_run_are_asked_for_while_it_waits(tree):
    """A flow may have 100,000 runs: each look at it is a listing of them all."""
    collect(tree)
    stock = StockTask(tree, "9", 0)
    stock.begin()
    with opened(tree) as place:
        backend = place.backend = Scheduled(place.backend, {})
        looks = []

        def sleep(seconds):
            looks.append(len(backend.log))
            if len(looks) == 4:
                stock.end()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(removal.time, "sleep", sleep)
            assert collect_metaflow(place, LAST, wait=300.0)[1].removed
        while_waiting = backend.log[looks[0] : looks[3]]
    assert while_waiting == [("list", "Flow/9/start/1/")] * 3


def test_set_aside_in_s3(tree, s3_server, bucket, s3_env, monkeypatch):
    """With the metadata that tells how a blob is encoded."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", s3_server.region)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.url)
    url = f"s3://{bucket}/some/metaflow"
    now = time.time()
    for number in range(3):  # nothing but their ids tells there in which order they began
        Path(tree, f"Flow/{number}").rename(Path(tree, f"Flow/{int((now - (30 - number) * DAY) * 1e6)}"))
    stock = StockTask(tree, str(int(now * 1e6)), 0)
    with contextlib.closing(S3Backend(url, **options(s3_server))) as backend:
        upload(tree, backend)
        collect(url)
        described = backend.described(f"Flow/data/{stock.key[:2]}/{stock.key}")
        take = removal.take

        def send(*names):
            for name in names:
                path = stock.place / name
                backend.put(str(path.relative_to(tree)), [path.read_bytes()])

        def late(*what):
            if not stock.place.exists():
                stock.begin()
                send("0.attempt.json", "0.task_begin")
            return take(*what)

        with monkeypatch.context() as patch:
            patch.setattr(removal, "take", late)
            done = collect(url)
        assert len(done.removed) == 2 and done.set_aside.objects == 2
        left = {info.key for info in backend.list("")}
        assert (
            f"{FOLDER}Flow/data/{stock.key[:2]}/{stock.key}" in left
            and f"Flow/data/{stock.key[:2]}/{stock.key}" not in left
        )
        stock.end()
        send("0.data.json", "0.DONE.lock")
        done = collect(url, RunPolicy(last=2, grace=0.0))
        assert done.restored == (f"Flow/data/{stock.key[:2]}/{stock.key}",) and not done.set_aside.objects
        assert backend.described(done.restored[0]) == described
        assert not list(backend.list(FOLDER)) and whole(url).findings == ()
