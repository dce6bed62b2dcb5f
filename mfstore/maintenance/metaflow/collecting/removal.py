"""Removing what a plan says of a Metaflow root, one flow after the other, each after another look at it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mfstore.errors import BackendError, Locked, MfstoreError
from mfstore.host.elapsed import moment, since
from mfstore.maintenance.metaflow.collecting.amounts import RootAmount, total
from mfstore.maintenance.metaflow.collecting.needs import read_new_includes, read_new_needs
from mfstore.maintenance.metaflow.collecting.plan import own_files, stored
from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
from mfstore.maintenance.metaflow.collecting.policy import Run
from mfstore.maintenance.metaflow.collecting.resumed_runs import read_resumed_runs, runs_that_resumed
from mfstore.maintenance.metaflow.collecting.set_aside import FOLDER, WINDOW, copy_aside, take
from mfstore.maintenance.metaflow.collecting.state import RootGcState, StateFile
from mfstore.maintenance.metaflow.holdings import Holdings, list_flow
from mfstore.maintenance.metaflow.holds import run_holds
from mfstore.maintenance.metaflow.listed_blobs import BlobName
from mfstore.maintenance.metaflow.listed_tasks import TaskName
from mfstore.maintenance.metaflow.references import read_references
from mfstore.maintenance.report import PhaseProgress, untold
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.attempts import STARTED
from mfstore.metaflow.roots.layout import References

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.pace import DeletionPace
    from mfstore.maintenance.report import PhaseCallback

REMOVED_TOGETHER = 10_000
"""Objects removed between two signs of life."""
DELETION_TRIES = 6
DELETION_PAUSE = 0.5
"""Seconds before a deletion is tried again, which double each time."""
LOOKED_EVERY = 1.0
"""Seconds between two looks at running tasks: gaps between the tasks of a flow are a few seconds long."""
ANOTHER_TIME = 2.0
"""Seconds between two times of an object that are not the same one, rounded."""
SENT_TOGETHER = 1000
"""Shared objects deleted together: one request, which is answered within the seconds that a deletion may take."""


@dataclass(slots=True)
class FlowWork:
    """What is to be removed of one flow; a look may take things out."""

    flow: str
    runs: set[Run]
    blobs: set[BlobName]
    includes: set[BlobName]

    def orphans(self, holdings: Holdings) -> list[ObjectInfo]:
        """The objects that only these runs refer to. First the IncludeFiles: which they are is told by blobs."""
        includes = holdings.includes.some(self.includes)
        return [*(includes[name] for name in sorted(self.includes)), *stored(holdings, self.blobs)]

    def dooms(self, info: ObjectInfo) -> bool:
        """Whether one of these still is to be removed."""
        path = layout.parse(info.key)
        return (path.flow, path.name) in (self.includes if path.kind == "include" else self.blobs)


@dataclass(slots=True)
class Removed:
    """What was removed so far."""

    runs: list[str] = field(default_factory=list)
    """As flow/run."""
    amount: RootAmount = field(default_factory=RootAmount)
    held: dict[str, str] = field(default_factory=dict)
    """Flows of which nothing more may go, and why."""
    locked: dict[str, str] = field(default_factory=dict)
    """Runs, and objects that runs share, that the storage refused to delete because of its locks."""

    def lock(self, error: Locked) -> None:
        """Note what a lock keeps."""
        for key, why in error.locks.items():
            path = layout.parse(key)
            self.locked.setdefault(f"{path.flow}/{path.run}" if path.run else key, f"{key} is under {why}")


class Look(NamedTuple):
    """What another look at a flow shows."""

    running: tuple[TaskName, ...] = ()
    """Tasks that are running: nothing that they share may go now."""
    refusal: str = ""
    """Why nothing of the flow may go in this collection; or nothing."""


Busy = Generator[str, None, str]
"""Work on one flow, as far as it goes between tasks: yields why it cannot go on now; at last, why it may not, or
nothing."""


class Removal:
    """Carries out a plan. The collector must own the state."""

    def __init__(
        self, root: Root, file: StateFile, state: RootGcState, plan: MetaflowGcPlan, holdings: Holdings,
        tell: PhaseCallback, pace: DeletionPace, wait: float, removed: Removed,
    ) -> None:  # fmt: skip
        """``removed`` is counted on."""
        self._root = root
        self._file = file
        self._state = state
        self._plan = plan
        self._holdings = holdings
        self._tell = tell
        self._pace = pace
        self._wait = wait
        self.removed = removed

    @property
    def state(self) -> RootGcState:
        """As it is now."""
        return self._state

    def run(self) -> None:
        """Remove what may go of every flow. Those with a running task are gone back to until they have none; once
        nothing more has been removed for as long as may be waited, what is left of them is left."""
        plan = self._plan
        doomed = {entry.flow for entry in plan.remove} | {flow for flow, _ in (*plan.blobs, *plan.includes)}
        jobs: dict[str, tuple[FlowWork, Busy]] = {}
        for flow in sorted(doomed - plan.held.keys()):
            work = FlowWork(
                flow,
                {(entry.flow, entry.run) for entry in plan.remove if entry.flow == flow},
                {blob for blob in plan.blobs if blob[0] == flow},
                {name for name in plan.includes if name[0] == flow},
            )
            jobs[flow] = work, self.remove_flow(work)
        waiting = moment()
        while jobs:
            before = len(jobs), self.removed.amount
            busy = {flow: why for flow in [*jobs] if (why := self._advance(flow, jobs))}
            if before != (len(jobs), self.removed.amount):
                waiting = moment()
            elif since(waiting) >= self._wait:
                self.removed.held.update(busy)
                return
            elif jobs:
                self._tell(PhaseProgress("waiting for tasks", 0, len(jobs)))
                time.sleep(LOOKED_EVERY)

    def _advance(self, flow: str, jobs: dict[str, tuple[FlowWork, Busy]]) -> str:
        """Go on with a flow, which is taken out when that is its end. Why it has to wait, or nothing."""
        work, job = jobs[flow]
        try:
            return next(job)
        except StopIteration as end:
            del jobs[flow]
            if end.value:
                self.removed.held[flow] = end.value
            else:
                self.removed.runs += sorted("/".join(run) for run in work.runs)
            return ""

    def remove_flow(self, work: FlowWork) -> Busy:
        """Remove what is doomed of a flow.

        In an order that needs no memory: stopped anywhere, what is left of a run is still one, refers to what is left
        of its blobs, and the next collection finds the same by the policy that holds then. First each run becomes
        unreadable, by the loss of what tells that its attempts started. Then goes what only it refers to, then its own
        files, and last those that refer to others and make it a run, with what tells its tags.
        """
        why = yield from self._between_tasks(work)
        if why:
            return why
        names = tuple(sorted("/".join(run) for run in work.runs))
        self._save(replace(self._state, removing=(*self._not_removing(names), *names)))
        # After that: who holds a run looks afterwards whether it is being removed.
        held = [name for name in run_holds(self._root, self._plan.now, work.flow) if name in names]
        if held:
            self._save(replace(self._state, removing=self._not_removing(names)))
            return f"{held[0]} is held since just now"
        stages = self._stages(work.runs)
        orphans = work.orphans(self._holdings)
        of = len(orphans) + sum(map(len, stages))
        at = self._delete_all(stages[0], 0, of)
        why = self._spare_locked(work)
        if why:
            return why
        together = min(REMOVED_TOGETHER, 10 * self._pace.at_once(REMOVED_TOGETHER))
        for first in range(0, len(orphans), together):
            infos = orphans[first : first + together]
            why = yield from self._set_aside(work, infos)
            if why:
                return why
            for part in ([info for info in infos if _is_include(info) == include] for include in (True, False)):
                for next_few in range(0, len(part), SENT_TOGETHER):
                    few = [info for info in part[next_few : next_few + SENT_TOGETHER] if work.dooms(info)]
                    why = yield from self._delete_shared(work, few, at + next_few, of)
                    if why:
                        return why
                at += len(part)
        for stage in stages[1:]:
            at = self._delete_all([info for info in stage if self._run_of(info) in work.runs], at, of)
            work.runs -= self._locked(work)
        prune(self._root, work.runs)
        gone = {"/".join(run) for run in work.runs}
        condemned = {run: since_when for run, since_when in self._state.condemned.items() if run not in gone}
        self._save(replace(self._state, condemned=condemned, removing=self._not_removing(names)))
        return ""

    @staticmethod
    def _run_of(info: ObjectInfo) -> Run:
        path = layout.parse(info.key)
        return path.flow, path.run

    def _locked(self, work: FlowWork) -> set[Run]:
        return {run for run in work.runs if "/".join(run) in self.removed.locked}

    def _spare_locked(self, work: FlowWork) -> str:
        """Take runs of which the storage keeps a file out of ``work``, with what they refer to. Why nothing more of the
        flow may go, or nothing."""
        locked = self._locked(work)
        if not locked:
            return ""
        work.runs -= locked
        staying = Holdings()
        for run in locked:
            for place, task in self._holdings.tasks.of_run(run).items():
                staying.tasks.add_files(run + place, task.files)
        for name, _, _, found in read_references(self._root, staying, untold):
            if not isinstance(found, References):
                return f"{'/'.join(name[:2])} is locked, and what it refers to cannot be read: {found.message}"
            if found.included or found.packed_included:
                work.includes.clear()
            work.blobs.difference_update((work.flow, key) for key in found.artifacts.values())
        return ""

    def _not_removing(self, names: Collection[str]) -> tuple[str, ...]:
        return tuple(name for name in self._state.removing if name not in names)

    def _between_tasks(self, work: FlowWork) -> Busy:
        """Wait until no task of a flow is running."""
        while True:
            look = self.look_again(work)
            if look.refusal or not look.running:
                return look.refusal
            running = look.running
            while running:
                yield f"{'/'.join(running[0])} is running"
                running = self._still(running)

    def _still(self, names: Collection[TaskName]) -> tuple[TaskName, ...]:
        """Which of these tasks are running still. Asks for their files alone."""
        found = Holdings()
        for info in self._root.backend.list_many(["/".join(name) + "/" for name in names]):
            found.add(info)
        running = self._plan.liveness.running
        return tuple(name for name in names if name in found.tasks and running(name, found.tasks[name]) is not None)

    def _set_aside(self, work: FlowWork, infos: Collection[ObjectInfo]) -> Busy:
        """Find a moment between tasks at which a copy of what tasks share is there. So seconds pass, and not the time
        that copying takes, between a look and what goes because of it."""
        copied = None
        while True:
            why = yield from self._between_tasks(work)
            if why or (copied is not None and since(copied) < WINDOW / 2):
                return why
            copied = moment()
            copy_aside(self._root, [info for info in infos if work.dooms(info)], self._plan.codes)
            if not self._root.remote:
                return ""

    def _stages(self, runs: set[Run]) -> list[list[ObjectInfo]]:
        """The files of these runs alone: what goes before all they refer to, and in which order the rest goes after
        it."""
        stage: dict[str, int] = {}
        tasks = self._holdings.tasks
        for task in (task for run in runs for task in tasks.of_run(run).values()):
            # What has no other mark keeps this one: it began so long ago that nobody takes it for running.
            alone = not any(kind in layout.MARKERS and kind != STARTED for _, kind in task.files)
            for (_, kind), info in task.files.items():
                if kind in layout.MARKERS:
                    stage[info.key] = 0 if kind == STARTED and not alone else 3
                elif kind in layout.REFERRING:
                    stage[info.key] = 2
        # Last what tells their tags: without those a policy that asks for tags would keep what is left of a run.
        stage.update((f"{flow}/{run}/_meta/_self.json", 4) for flow, run in runs)
        stages: list[list[ObjectInfo]] = [[], [], [], [], []]
        for infos in own_files(self._holdings, runs, self._plan.spared).values():
            for info in infos:
                stages[stage.get(info.key, 1)].append(info)
        return stages

    def _delete_all(self, infos: list[ObjectInfo], at: int, of: int) -> int:
        """Delete these objects, the first of which is number ``at`` of so many; the number of the next."""
        for first in range(0, len(infos), REMOVED_TOGETHER):
            self.delete(infos[first : first + REMOVED_TOGETHER], at + first, of)
        return at + len(infos)

    def _delete_shared(self, work: FlowWork, infos: list[ObjectInfo], at: int, of: int) -> Busy:
        """Delete what tasks share, in a request that is not repeated by itself; after one that failed, once more with
        another look: a service that asks to slow down ends no collection."""
        for number in range(1, DELETION_TRIES + 1):
            if not infos:
                break
            try:
                self.delete(infos, at, of, shared=True)
                break
            except BackendError:
                if number == DELETION_TRIES or not self._root.backend.capabilities.remote:
                    raise
            time.sleep(DELETION_PAUSE * 2 ** (number - 1))
            why = yield from self._set_aside(work, infos)
            if why:
                return why
            infos = [info for info in infos if work.dooms(info)]
        return ""

    def look_again(self, work: FlowWork) -> Look:
        """List a flow again: blobs that something new refers to are taken out of ``work``."""
        plan = self._plan
        removing = {(entry.flow, entry.run) for entry in plan.remove}
        fresh = Holdings()
        listed = list_flow(self._root, work.flow)
        if self._holdings.as_of is not None:
            work.runs &= listed.runs  # the others were removed since the inventory
            wrong = self._untrue(work.runs, listed) or self._shown_since(work, listed)
            if wrong:
                return Look(refusal=wrong)
        running: list[TaskName] = []
        for name, task in listed.tasks.items():
            changed = self._changed(name, task)
            if plan.liveness.running(name, task) is not None:
                running.append(name)
            elif changed and name[:2] in removing:
                return Look(refusal=f"{'/'.join(name)} was written to just now")
            if changed:
                fresh.tasks.add_files(name, changed)
        found = read_new_needs(self._root, fresh)
        if isinstance(found, MfstoreError):
            return Look(refusal=f"what a new task refers to cannot be read: {found.message}")
        blobs, needs = found
        work.blobs -= blobs
        includes = read_new_includes(self._root, needs) if work.includes else set()
        if includes is None:
            return Look(refusal="which IncludeFiles a new task names cannot be read")
        work.includes -= includes
        return Look(tuple(running))

    def _untrue(self, runs: set[Run], listed: Holdings) -> str:
        """Of which file of these runs an inventory had another time, or nothing: what was decided of the runs by that
        may be wrong."""
        times = {info.key: info.modified for infos in own_files(self._holdings, runs, ()).values() for info in infos}
        for infos in own_files(listed, runs, ()).values():
            for info in infos:
                if abs(times.get(info.key, 0.0) - info.modified) >= ANOTHER_TIME:
                    return f"{info.key} is not as the inventory has it"
        return ""

    def _shown_since(self, work: FlowWork, listed: Holdings) -> str:
        """Which of these runs a run shows that resumed it since an inventory was made, or nothing."""
        resumed = runs_that_resumed(listed, work.flow)
        since_then = resumed - runs_that_resumed(self._holdings, work.flow)
        listed.cards = self._holdings.cards
        cards = {(work.flow, run) for run, _ in listed.cards.of_flow(work.flow)} if since_then else set()
        if not cards:
            return ""
        kept = dict.fromkeys(since_then, "")
        unclear = read_resumed_runs(self._root, listed, resumed).keep_origins(kept, cards)
        shown = ["/".join(run) for run in sorted(kept.keys() & work.runs)]
        if shown or unclear:
            return f"{shown[0] if shown else 'a run'} was resumed since the inventory was made"
        return ""

    def _changed(
        self, name: tuple[str, str, str, str], task: layout.Task
    ) -> Mapping[tuple[int | None, str], ObjectInfo]:
        """The files of a task that were written since the plan was made."""
        known = self._holdings.tasks.get(name, layout.Task()).files
        return {file: info for file, info in task.files.items() if file not in known or known[file].etag != info.etag}

    def delete(self, infos: Sequence[ObjectInfo], at: int, of: int, shared: bool = False) -> None:
        """Delete these objects, the first of which is number ``at`` of so many, as fast as may be. What tasks share is
        deleted within seconds or not at all, and only as it was listed: a deletion that is repeated for minutes would
        take what a task found or stored long after the look."""
        self._tell(PhaseProgress("removing", at, of))
        if at:
            self._save(self._state)  # a sign of life, and proof that nobody took over
        together = self._pace.at_once(len(infos))
        for first in range(0, len(infos), together):
            doomed = infos[first : first + together]
            self._pace.wait(len(doomed))
            try:
                if shared:
                    gone = take(self._root, doomed, self._plan.codes)
                    doomed = [info for info, is_gone in zip(doomed, gone, strict=True) if is_gone]
                else:
                    self._root.backend.delete_many([info.key for info in doomed])
            except Locked as error:
                self.removed.lock(error)
                doomed = [info for info in doomed if info.key not in error.locks and info.key not in error.changed]
            self.removed.amount += total(doomed)

    def _save(self, state: RootGcState) -> None:
        self._file.save(state)
        self._state = state


def _is_include(info: ObjectInfo) -> bool:
    return layout.parse(info.key).kind == "include"


def prune(root: Root, runs: Iterable[Run]) -> None:
    """Remove the folders of these runs where nothing is left in them, and those of what was set aside. S3 has none."""
    if root.remote:
        return
    of_runs = [folder for flow, run in runs for folder in (f"{flow}/{run}", f"mf.cards/{flow}/runs/{run}")]
    for folder in [*of_runs, FOLDER]:
        for directory, _, _ in os.walk(Path(root.backend.root, folder), topdown=False):
            with suppress(OSError):  # not empty: somebody put something there
                Path(directory).rmdir()
