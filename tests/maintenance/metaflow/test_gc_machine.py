"""Runs of stock Metaflow, collectors, policies, holds, clocks and kills in any order that Hypothesis can think of,
against a model of what must stay (tests/rigs/root_model.py).

Every run goes on one operation at a time, and a collector one request at a time: before any of its requests others may
go on, clocks may jump, a run may be held, another collector may come, or it is killed. Many of these happen where a
collection begins to delete, and where it begins to delete what runs share. In the end all is quiet, and looked at.
"""

import threading
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import ClassVar
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mfstore import errors
from mfstore.backends.s3 import conditions
from mfstore.holding import new_hold
from mfstore.maintenance.metaflow import inventory, packed_store
from mfstore.maintenance.metaflow.collecting import execution, state
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.set_aside import EARLY, FOLDER
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.holds import hold_run, release_run
from mfstore.maintenance.metaflow.undo import undo_root
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER
from tests.rigs.clocked_roots import DirectoryRoot, Killed, S3Root
from tests.rigs.root_model import DAY, HOUR, RootModel, RootThen
from tests.rigs.soak import lasting, soaking
from tests.rigs.stock_runs import StockRun

LAST_STEPS = {"Flow": "end", "Other": "last", "Packed": "end", "Alike": "end"}
FLOWS = (*["Flow", "Other"] * 2, "Packed", "Alike")
PACKED = ("Packed", "Alike")
"""The flows that store in the packed profile."""
LONGEST = 7 * DAY
"""An attempt that is silent for longer is never taken to be running."""

some = st.integers(0, 11)
values = st.lists(st.lists(st.integers(0, 5), max_size=2), min_size=3, max_size=3)
codes = st.sampled_from([1, 1, 0, 2, 3])
includes = st.sampled_from([0, 0, 1, 2])
"""Which code package and IncludeFile a run has; 0: none."""
policies = st.builds(
    RunPolicy,
    last=st.sampled_from([0, 1, 1, 2, 3]),
    last_successful=st.sampled_from([None, None, 1]),
    age=st.sampled_from([None, None, 2 * DAY]),
    tags=st.sampled_from([(), (), ("keep",)]),
    pinned=st.sampled_from([(), (), ("*/*0",)]),
    flows=st.sampled_from([(), (), ("Flow",)]),
    grace=st.sampled_from([0.0, 600.0, DAY]),
    deployed=st.booleans(),
)
steps_of_time = st.sampled_from([1.0, 61.0, 400.0, 1000.0, 2 * HOUR, 25 * HOUR])
listing = st.tuples(st.just("listing"), st.integers(0, 60))
removing = st.tuples(st.just("removing"), st.integers(0, 30))
sharing = st.tuples(st.just("sharing"), st.sampled_from([0, 0, 0, 1, 2, 3, 5, 8]))
"""Before which call of a collection: how many after its first one, after the first that deletes of a run, and after the
first that deletes what runs share."""
happenings = st.one_of(
    st.tuples(st.just("begin"), st.sampled_from(FLOWS), values, codes, includes, st.integers(0, 40)),
    st.tuples(st.just("begin again"), some, st.sampled_from([1, 1, 2, 4, 20, 60])),
    st.tuples(st.just("resume"), some, st.integers(0, 40)),
    st.tuples(st.just("go on"), some, st.integers(1, 30)),
    st.tuples(st.just("hold"), some),
    st.tuples(st.just("undo")),
    st.tuples(st.just("pause"), steps_of_time),
    st.tuples(st.just("collect"), policies),
)
events = st.lists(st.tuples(st.one_of(listing, removing, sharing), happenings), max_size=5)
events_of_removal = st.lists(st.tuples(st.one_of(removing, sharing, sharing), happenings), min_size=1, max_size=4)


class Collection:
    """One that is at work, as the model sees it."""

    def __init__(self, policy, now, model, then=None):
        """``then``: what the inventory has that it goes by."""
        self.policy, self.began, self._model = policy, now, then or model
        self.spared = set() if then is None else then.changed()
        """Runs that it may condemn, and not remove."""
        self.dropped = set()
        self.newest = set()
        """Runs that were the newest of their kind at some moment of it."""

    def observe(self):
        """What its policy drops at this moment, and which runs tell what is deployed."""
        self.dropped |= self._model.dropped(self.policy)
        self.newest |= self._model.newest_of_kinds()

    def may_remove(self, name, condemned):
        """Whether it may remove a run that was condemned first at this time; None: that was not."""
        due = condemned is not None and condemned + self.policy.grace <= self._model.root.now
        return due and name in self.dropped - self.spared


class Collected(RuleBasedStateMachine):
    make = S3Root
    counts: ClassVar = Counter()

    @initialize(
        runs=st.lists(
            st.tuples(st.sampled_from(FLOWS), values, st.booleans(), codes, includes), min_size=2, max_size=6
        ),
        last=policies,
    )  # fmt: skip
    def begin(self, runs, last):
        self.last_policy = last
        self.root = self.make()
        self.model = RootModel(self.root)
        self.stack, self.late = [], []
        self.named = 0
        self.condemned = None
        """The runs that the last collection left condemned; None: it did not come to its end."""
        self.patches = [
            mock.patch("time.time", lambda: self.root.here),
            mock.patch("time.sleep", self.sleep),
            # By the real clock, from another thread, on a machine that is busy enough for a collection to take so long.
            mock.patch.object(state, "RENEWED_EVERY", threading.TIMEOUT_MAX),
            mock.patch.object(inventory, "remote_backend", lambda url, _: self.root.backend(url=url)),
            mock.patch.object(packed_store, "open_packed_store", lambda root: self.root.packed_store()),
            mock.patch.object(execution, "collect_packed_store", beside_writers),
            mock.patch.dict(conditions._known),
        ]
        for patch in self.patches:
            patch.start()
        for flow, contents, cards, code, include in runs:
            self.begin_a_run(flow, contents, (), False, cards, None, None, code, include, 60)
            self.root.pass_time(DAY)

    @invariant()
    def another_rule(self):
        self.counts["rules"] += 1

    def teardown(self):
        if not hasattr(self, "patches"):
            return
        try:
            if not self.stack:  # or an assertion failed within a collection
                self.nothing_is_lost_when_all_is_quiet()
                self.nothing_is_left_that_nobody_needs(self.last_policy)
        finally:
            for patch in self.patches:
                patch.stop()

    # ---- those who write ----------------------------------------------------------------

    @rule(
        flow=st.sampled_from(FLOWS), values=values, tags=st.sampled_from([(), (), ("keep",), ("ttl:1d",), ("ttl:9d",)]),
        scheduled=st.sampled_from([False, False, True]), cards=st.booleans(),
        fails=st.sampled_from([None, None, None, 1, 2]), retries=st.sampled_from([None, None, (1, 3), (2, 7)]),
        code=codes, include=includes, at_once=st.sampled_from([0, 1, 3, 60, 60]),
    )  # fmt: skip
    def begin_a_run(self, flow, values, tags, scheduled, cards, fails, retries, code, include, at_once):
        contents = [[[step, value] for value in of_step] for step, of_step in enumerate(values)]
        self.add(
            flow, contents, scheduled, at_once, tags=tags, cards=cards, fails=fails, retries=retries,
            code=f"code {code}".encode() if code else None, include=f"file {include}".encode() if include else None,
        )  # fmt: skip

    def add(self, flow, contents, scheduled, at_once, **more):
        self.named += 1
        number = f"argo-flow-{self.named}" if scheduled else f"{int(self.root.here * 1e6) + self.named:d}"
        self.counts["packed"] += flow in PACKED
        run = StockRun(
            self.root, flow, number, contents, local=not scheduled, last=LAST_STEPS[flow], packed=flow in PACKED, **more
        )
        self.model.runs[run.name] = run
        self.go(run, at_once)

    @precondition(lambda self: self.model.runs)
    @rule(which=some, at_once=st.sampled_from([0, 2, 60]))
    def resume(self, which, at_once):
        origin = self.run(which)
        if not origin.readable():
            return
        contents = [[["resumed", self.named, step]] for step in range(3)]
        self.add(origin.flow, contents, False, at_once, origin=origin)

    def run(self, which):
        return [*self.model.runs.values()][which % len(self.model.runs)]

    @precondition(lambda self: self.model.runs)
    @rule(which=some, operations=st.integers(1, 12))
    def go_on(self, which, operations):
        self.go(self.run(which), operations)

    @precondition(lambda self: self.model.runs)
    @rule(which=some)
    def end(self, which):
        self.go(self.run(which), 100)

    def go(self, run, operations):
        for _ in range(operations):
            silent = self.root.now - run.last_sign
            if (run.running and silent > LONGEST) or (run.attempt is None and silent > HOUR):
                run.alive = False  # beyond what anybody promises
            before = len(run.names)
            run.outlived |= self.may_go(run.name)
            self.counts["steps of runs"] += run.go_on(1)
            if run.origin is not None and (self.may_go(run.origin.name) or run.origin.name not in self.model.runs):
                # A run is not to be resumed while a collection may remove it.
                run.tainted |= len(run.names) != before or not run.names
            if len(run.names) != before:
                self.is_there(run)
            if not run.alive:
                break

    @precondition(lambda self: self.model.runs)
    @rule(which=some)
    def crash(self, which):
        self.run(which).alive = False

    @precondition(lambda self: self.model.runs)
    @rule(which=some, tags=st.sampled_from([(), ("keep",), ("ttl:1d",)]))
    def tag(self, which, tags):
        run = self.run(which)
        if self.model.recorded(run) and run.name not in self.model.going:
            run.tag(tags)

    # ---- time, and those who keep -------------------------------------------------------

    @rule(seconds=steps_of_time)
    def time_passes(self, seconds):
        self.root.pass_time(seconds)

    @rule(seconds=st.sampled_from([-120.0, 0.0, 90.0]))
    def clocks_differ(self, seconds):
        """The clock of the machines that write and collect is set; the storage's is another."""
        self.root.ahead = seconds

    @precondition(lambda self: self.model.runs)
    @rule(which=some, lasting=st.sampled_from([None, 3 * DAY]))
    def hold(self, which, lasting=None):
        run = self.run(which)
        root = self.root.opened()
        hold = new_hold("a test", lasting)
        try:
            self.model.holds[run.name] = hold_run(root, run.name, hold).until
        except errors.NotFound:
            pass
        except errors.Conflict:
            # It is held from the next collection on; what goes until then is not known.
            self.late.append((run.name, hold.until))
            self.come_late()
        finally:
            root.close()

    def come_late(self):
        """Holds that were set while their runs were being removed, once no collection is at work."""
        while self.late and not self.stack:
            name, until = self.late.pop()
            if name not in self.model.holds or self.model.holds[name] is not None:
                self.model.holds[name] = until

    @rule(which=st.one_of(st.none(), some), lasting=st.sampled_from([None, 3 * DAY]))
    def undo(self, which=None, lasting=None):
        """What is condemned of one run, or of all."""
        if not self.model.runs:
            return
        root = self.root.opened()
        try:
            done = undo_root(root, () if which is None else (self.run(which).name,), lasting)
        except errors.NotFound:
            return
        finally:
            root.close()
        self.model.holds.update({name: hold.until for name, hold in done.held.items()})
        self.late += [(name, None if lasting is None else self.root.here + lasting) for name in done.lost]
        self.come_late()
        self.counts["undone"] += len(done.held)
        if which is None and self.condemned is not None:
            still = self.condemned & self.model.runs.keys() - self.model.going
            assert still <= done.held.keys() | done.lost.keys(), still

    @precondition(lambda self: self.model.holds)
    @rule()
    def release(self):
        name = next(iter(self.model.holds))
        del self.model.holds[name]
        root = self.root.opened()
        with suppress(errors.NotFound):
            release_run(root, name)
        root.close()

    # ---- collections --------------------------------------------------------------------

    @rule(policy=policies, events=events)
    def collect(self, policy, events):
        self.collected(policy, events)

    @rule(
        policy=st.one_of(policies, st.builds(RunPolicy, last=st.integers(0, 1), grace=st.just(600.0))),
        events=events_of_removal, killed=st.one_of(st.none(), st.none(), removing, sharing), go_on=st.booleans(),
    )  # fmt: skip
    def collect_what_is_condemned(self, policy, events, killed, go_on):
        """``go_on``: runs that began meanwhile do right after it."""
        self.root.pass_time(policy.grace + 1)
        self.collected(policy, ())
        self.root.pass_time(policy.grace + 1)
        before = {*self.model.runs}
        self.collected(policy, events, killed)
        for name in [*self.model.runs] if go_on else ():
            if name not in before:
                self.go(self.model.runs[name], 100)

    @precondition(lambda self: self.root.remote)
    @rule(
        policy=policies, since=st.lists(happenings, max_size=3), events=st.one_of(events, events_of_removal),
        pause=st.booleans(), go_on=st.booleans(), killed=st.one_of(st.none(), st.none(), removing, sharing),
    )  # fmt: skip
    def collect_by_an_inventory(self, policy, since, events, pause, go_on, killed):
        """These things happened ``since`` it was made."""
        self.collected(policy, ())
        if go_on:
            self.go(self.run(0), 3)
        made = self.root.inventory(), RootThen(self.model)
        for event in since:
            self.happens(event)
        if pause:
            self.root.pass_time(policy.grace + 1)
        self.collected(policy, events, killed, made)

    def collected(self, policy, events, killed=None, made=(None, None)):
        """A collection, before the calls of which these events happen; at one moment it is killed. ``made``: the
        inventory that it goes by, and what that has. What it planned and did, if it came to its end."""
        self.look()
        mine = Collection(policy, self.root.now, self.model, made[1])
        self.stack.append(mine)
        self.condemned = None
        self.observe()
        outer = self.root.before_call
        waiting, calls, dead = [*events], {}, False

        def has_come(moment):
            return calls.get(moment[0], -1) >= moment[1]

        def before_call(operation, keys):
            nonlocal dead
            self.counts["calls of collectors"] += 1
            for phase, begins in phases(keys).items():
                if phase in calls or begins:
                    calls[phase] = calls.get(phase, -1) + 1
            if dead:
                raise Killed
            if killed is not None and has_come(killed):
                dead = True
                self.counts[f"killed while {killed[0]}"] += 1
                for key in keys[::2]:  # it was sent, and part of it was carried out
                    self.root.delete(key)
                raise Killed
            for event in [*waiting]:
                # A request to delete is on its way for seconds only.
                if has_come(event[0]) and not (keys and event[1][0] in ("pause", "collect")):
                    waiting.remove(event)
                    self.counts[f"while {event[0][0]}"] += 1
                    self.happens(event[1])

        self.root.before_call = before_call
        root = self.root.opened()
        result = None
        try:
            plan, result = collect_metaflow(
                root, policy, metadata="local", inventory=made[0], yes_really=True, deletes_per_second=0,
                wait=30.0 if events else 0.0,
            )  # fmt: skip
        except Killed:
            pass
        except (errors.Conflict, errors.NotAStore, errors.BackendError):
            pass
        finally:
            self.root.before_call = outer
            root.close()
        self.counts["collections"] += 1
        self.observe()
        self.look()
        self.stack.pop()
        self.come_late()
        for name in mine.dropped:
            self.model.condemned.setdefault(name, mine.began)
        if result is None:
            return None
        self.condemned = {*map("/".join, plan.dropped)}
        if result.store is not None:
            self.counts["bundles deleted"] += result.store.deleted.recipes
        for name in [*self.model.condemned]:
            if name not in mine.dropped and (not policy.flows or name.split("/")[0] in policy.flows):
                del self.model.condemned[name]
        return plan, result

    def happens(self, event):
        before, self.root.before_call = self.root.before_call, lambda operation, keys: None
        kind, *what = event
        self.counts[kind] += 1
        if kind == "go on" and self.model.runs:
            self.go(self.run(what[0]), what[1])
        elif kind == "begin":
            self.begin_a_run(what[0], what[1], (), False, True, None, None, *what[2:])
        elif kind == "begin again" and self.model.runs:
            # One that may be going now, if there is any: it asks for what goes.
            condemned = [self.model.runs[name] for name in self.model.condemned if name in self.model.runs]
            like = condemned[what[0] % len(condemned)] if condemned else self.run(what[0])
            self.add(like.flow, like.values, False, what[1], code=like.code_data, include=like.include_data)
        elif kind == "resume" and self.model.runs:
            self.resume(*what)
        elif kind == "hold" and self.model.runs:
            self.hold(what[0])
        elif kind == "undo":
            self.undo()
        elif kind == "pause":
            self.root.pass_time(what[0])
        elif kind == "collect" and len(self.stack) < 3:
            self.collected(what[0], ())
        self.root.before_call = before
        self.observe()

    def sleep(self, seconds):
        self.root.pass_time(max(1, int(seconds)))
        self.observe()

    def observe(self):
        """What the collections at work may see at this moment."""
        for collection in self.stack:
            collection.observe()

    def may_go(self, name):
        """Whether a collection at work may remove this run."""
        return name in self.model.going or any(one.may_remove(name, self.since(name, one)) for one in self.stack)

    def since(self, name, collection):
        """Since when a run has been condemned by others than this collection: one that is still at work may be stopped
        after it has condemned what it drops, for so long that this one takes over. None: it has not been."""
        others = [one.began for one in self.stack if one is not collection and name in one.dropped]
        return self.model.condemned.get(name, min(others, default=None))

    def why(self, name):
        since = self.model.condemned.get(name)
        at_work = [
            (self.root.now - one.began, name in one.dropped, name in one.spared, one.policy) for one in self.stack
        ]
        return f"condemned {since and self.root.now - since} s ago, collections {at_work}"

    # ---- what must hold -----------------------------------------------------------------

    def look(self):
        """No file of a run is gone that must stay, and what it names is there."""
        there = self.root.times().keys()
        for name, run in [*self.model.runs.items()]:
            gone = run.files.keys() - there
            if gone:
                assert self.may_go(name), f"{name} must stay, and lost {sorted(gone)[:3]}: {self.why(name)}"
                if name not in self.model.going:
                    if any(name in one.newest for one in self.stack):
                        self.model.deployed |= run.of_deployment
                    self.model.going.add(name)
                for path in gone:
                    del run.files[path]
                if not run.files and not run.alive:
                    del self.model.runs[name]
                    self.counts["removed"] += 1
                    continue
            self.is_there(run, there)

    def is_there(self, run, there=None):
        """Every blob and IncludeFile that a run names is in its place, or set aside to be put back."""
        if run.name in self.model.going:
            return
        is_there = self.root.there if there is None else there.__contains__
        for path in run.names:
            if run.tainted and path in run.cloned:
                continue
            found = is_there(path) or is_there(FOLDER + path) or is_there(EARLY + path)
            assert found, f"{path} is lost, which {run.name} names"

    def nothing_is_lost_when_all_is_quiet(self):
        """Once no task can be running, one collection puts back what is needed of what was set aside, and no more."""
        for run in self.model.runs.values():
            run.alive = False
        self.root.pass_time(LONGEST + 1)
        # Metadata alone, of a run that never began, is no root.
        if not any("/_meta/" not in path for run in self.model.runs.values() for path in run.files):
            return
        assert self.collected(RunPolicy(last=0, pinned=("*/*",)), ()) is not None
        there = self.root.times()
        for run in self.model.runs.values():
            if run.name not in self.model.going and not run.tainted:
                for path in run.names:
                    assert path in there, f"{path} is lost, which {run.name} names"
        assert not [path for path in there if path.startswith(FOLDER)]
        self.bundles_are_whole(there)

    def bundles_are_whole(self, there):
        """Those that runs and refs name."""
        sound = [run for run in self.model.runs.values() if run.name not in self.model.going and not run.tainted]
        named = {path for run in sound for path in run.names if path in there}
        bundles = {path.rpartition("/")[2] for path in named if path.startswith(STORE_FOLDER)} | self.root.named
        if bundles:
            with self.root.packed_store() as store:
                for bundle in bundles:
                    assert store.get(bundle)

    def nothing_is_left_that_nobody_needs(self, policy):
        # What only removed runs needed of mf.store is condemned by the next collection, and deleted by the one after.
        has_store = f"{STORE_FOLDER}/mfstore.json" in self.root.times()
        for _ in range(5 if has_store else 3):
            self.root.pass_time(max(policy.grace, HOUR) + 1)  # in which each run begins that asked for its code
            done = self.collected(policy, ())
        runs = {run.name for run in self.model.runs.values() if run.files}
        if not runs or done is None:
            return
        assert not done[1].held
        there = self.root.times()
        left_alone = policy.flows or (self.root.remote and policy.grace < 600.0)
        assert bool(done[1].store_left) <= bool(left_alone), done[1].store_left
        known = {name for name in runs if any(path in there for path in self.model.runs[name].files)}
        kept = self.model.kept(policy)
        assert known == kept.keys() & known, (known, kept)
        needed = {path + meta for run in self.model.runs.values() for path in run.names for meta in ("", "_meta")}
        files = {path for run in self.model.runs.values() for path in run.files}
        # What describes the IncludeFiles of such runs may be gone: then nobody knows which these are.
        unclear = {run.flow for run in self.model.runs.values() if run.tainted}
        for path in there.keys() - files - needed:
            flow, _, rest = path.partition("/")
            if flow == STORE_FOLDER:
                if rest.startswith("recipes/") and not done[1].store_left:
                    assert rest.rpartition("/")[2] in self.root.named, f"{path} is left, which nobody needs"
                continue
            if flow == "mf.maintenance":
                assert rest in ("gc", "gc-clock") or rest.startswith(("condemned/", "known/", "log/", "holds/")), path
                continue
            assert flow == "data" or rest.startswith("data/"), f"{path} is left of a run that was removed"
            path = path.removesuffix("_meta")
            stored = self.root.stored_by.get(path)
            assert (
                path not in stored.names  # it was killed before it named it
                or stored.outlived
                or path in self.model.deployed
                or (flow == "data" and stored.flow in unclear)
            ), f"{path} is left, which nobody needs"
        # Tasks make those of blobs, and may be about to store one there.
        # That of a collection's state stays where nothing was ever condemned.
        empty = {folder for folder in self.root.folders() if "/data/" not in f"/{folder}/"} - {"mf.maintenance"}
        theirs = ("mf.maintenance/holds", f"{STORE_FOLDER}/")
        assert not {folder for folder in empty if not folder.startswith(theirs) and folder[-5:] != "/runs"}


def beside_writers(*given, **more):
    """The collection of ``mf.store``, in which runs may be storing at any time: it is not confirmed that none is."""
    return packed_store.collect_packed_store(*given, **{**more, "yes_really": False})


def phases(keys):
    """Which phases of a collection this call begins, if they have not begun: by the keys that it deletes."""
    own = [key for key in keys if not key.startswith(("mf.maintenance/", f"{STORE_FOLDER}/"))]
    return {"listing": True, "removing": bool(own), "sharing": any("/data/" in f"/{key}" for key in own)}


def search(make, examples):
    """Whether as many steps were taken as so many examples have to take, or more: operations of runs, and requests of
    collectors before which others may act. In soaks examples are so many that all the searches below take a million."""
    examples = lasting(examples) * (5 if soaking() else 1)

    class Searched(Collected):
        counts: ClassVar = Counter()

    Searched.make = staticmethod(make)
    run_state_machine_as_test(
        Searched,
        settings=settings(
            max_examples=examples, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    print(Searched.counts)
    return Searched.counts["steps of runs"] + Searched.counts["calls of collectors"] > examples * 500


@pytest.mark.fuzz
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("conditional", "examples"), [(True, 4), (False, 3)])
def test_in_s3(conditional, examples):
    """On services that take conditions of deletions, and on those that do not."""
    assert search(lambda: S3Root(conditional), examples)


@pytest.mark.fuzz
@pytest.mark.timeout(300)
def test_in_a_directory(tmp_path):
    roots = (DirectoryRoot(tmp_path / f"{number}") for number in count())
    assert search(lambda: next(roots), 4)
