"""Garbage collection of stock Metaflow's datastore roots.

A run that the policy drops is first condemned, and removed by a later collection at least the grace period after. What
goes with it: its own files, its cards, and the blobs and IncludeFiles that no other run refers to, whatever became of
that run's attempts: a resumed run refers to the blobs of its origin, so they stay. Nothing of a flow goes while one of
its attempts is running, because a task about to end may take any blob of its flow for stored.

Blobs that no run ever referred to are left alone: the code package of a deployment that did not run yet is one. What
runs referred to before they were migrated goes, the grace period after that.

The store of the packed profile is collected by its own rules, with every bundle that a run refers to as its roots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mfstore.errors import MfstoreError, Refused
from mfstore.format import description
from mfstore.maintenance.metaflow.plan import Amount, Blob, MetaflowGcPlan, Planner, own_files, plus, stored, total
from mfstore.maintenance.metaflow.policy import Run, RunPolicy
from mfstore.maintenance.metaflow.root import Holdings, Root
from mfstore.maintenance.metaflow.state import GcState, StateFile
from mfstore.maintenance.report import PhaseProgress, untold
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.layout import STORE_FOLDER as STORE
from mfstore.metaflow.roots.layout import References

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.maintenance.report import PhaseCallback
    from mfstore.maintenance.store.gc import GcResult

DELETES = 10_000
"""Objects removed between two signs of life."""


@dataclass(frozen=True, slots=True)
class MetaflowGcResult:
    """What a collection of a Metaflow root did."""

    condemned: int
    removed: tuple[str, ...]
    """Runs, as flow/run."""
    deleted: Amount
    held: Mapping[str, str]
    """Flows of which nothing was removed after all, and why."""
    store: GcResult | None = None
    """What the collection of the packed profile's store did; None when there is none, or it was left alone."""
    store_left: str = ""
    """Why that store was left alone."""


def collect_metaflow(
    root: Root,
    policy: RunPolicy,
    *,
    yes_really: bool = False,
    take_over: bool = False,
    tell: PhaseCallback = untold,
) -> tuple[MetaflowGcPlan, MetaflowGcResult]:
    """Condemn the runs that the policy drops, and remove those condemned at least the grace period ago.

    Refused when no run would stay, unless ``yes_really``; Conflict while another collector is at work. May be stopped
    at any time and run again.
    """
    policy.check()
    file = StateFile(root.backend)
    state = file.begin(take_over)
    try:
        plan, holdings = Planner(root, policy, tell, state, file.now).plan()
        if plan.drops_everything and not yes_really:
            raise Refused(
                "the policy would drop every run", backend=root.url, hint="Keep some, or confirm with --yes-really"
            )
        condemned = {"/".join(run): at for run, at in _condemned(plan, state).items()}
        condemned.update((entry.name, file.now) for entry in plan.condemn)
        state = replace(state, condemned=condemned)
        file.save(state)
        result, state = _Remover(root, file, tell).remove(plan, holdings, state)
        packed, why = _collect_store(root, plan, yes_really, take_over)
    finally:
        file.end()
    return plan, replace(result, condemned=len(plan.condemn), store=packed, store_left=why)


def _collect_store(root: Root, plan: MetaflowGcPlan, yes_really: bool, take_over: bool) -> tuple[GcResult | None, str]:
    """Collect ``mf.store``: what was done, or why nothing was."""
    if not root.backend.exists_many([f"{STORE}/{description.PATH}"])[0]:
        return None, ""
    if plan.unknown:
        return None, "not all of what runs refer to is known"
    with root.store() as store:
        try:
            # Runs to be removed count too: their bundles are condemned by the next collection.
            chosen = store.plan_gc(plan.all_bundles, plan.policy.grace)
            if chosen.unsafe and not yes_really:
                return None, f"{chosen.unsafe} (--yes-really)"
            # That no run needs anything there is what a migration to the stock format is for.
            return chosen.execute(yes_really=True, take_over=take_over), ""
        except MfstoreError as error:
            return None, str(error)


def _condemned(plan: MetaflowGcPlan, state: GcState) -> dict[Run, float]:
    """The runs that stay condemned: what is kept now is no longer."""
    dropped = [*plan.waiting, *((entry.flow, entry.run) for entry in plan.remove)]
    return {run: state.condemned["/".join(run)] for run in dropped if "/".join(run) in state.condemned}


@dataclass(slots=True)
class _FlowWork:
    """What is to be removed of one flow; a look may take things out."""

    flow: str
    runs: set[Run]
    blobs: set[Blob]
    includes: set[Blob]

    def orphans(self, holdings: Holdings) -> list[ObjectInfo]:
        """The objects that only these runs refer to."""
        return [*stored(holdings, self.blobs), *(holdings.includes[name] for name in sorted(self.includes))]

    def dooms(self, info: ObjectInfo) -> bool:
        """Whether one of these still is to be removed."""
        place = layout.parse(info.key)
        return (place.flow, place.name) in (self.includes if place.kind == "include" else self.blobs)


def _flow_of(path: str) -> str:
    """The flow of a run, as flow/run, or of a blob or an IncludeFile."""
    return layout.parse(path).flow or path.partition("/")[0]


class _Remover:
    """Removes what a plan says, after another look."""

    def __init__(self, root: Root, file: StateFile, tell: PhaseCallback) -> None:
        self._root = root
        self._file = file
        self._tell = tell

    def remove(self, plan: MetaflowGcPlan, holdings: Holdings, state: GcState) -> tuple[MetaflowGcResult, GcState]:
        """Do it, one flow after the other; returns what was done, and the state afterwards."""
        held: dict[str, str] = dict(plan.held)
        removed: list[str] = []
        deleted = Amount()
        doomed = {entry.flow for entry in plan.remove} | {flow for flow, _ in (*plan.blobs, *plan.includes)}
        # What an earlier collection did not finish in flows that are held now is left for a later one.
        begun = {*map(_flow_of, state.removing), *map(_flow_of, state.blobs)}
        for flow in sorted((doomed | begun) - held.keys()):
            work = _FlowWork(
                flow,
                {(entry.flow, entry.run) for entry in plan.remove if entry.flow == flow},
                {blob for blob in plan.blobs if blob[0] == flow},
                {name for name in plan.includes if name[0] == flow},
            )
            why, amount, state = self._remove_flow(work, plan, holdings, state)
            deleted = plus(deleted, amount)
            if why:
                held[flow] = why
            else:
                removed += sorted("/".join(run) for run in work.runs)
        return MetaflowGcResult(0, tuple(removed), deleted, held), state

    def _remove_flow(
        self, work: _FlowWork, plan: MetaflowGcPlan, holdings: Holdings, state: GcState
    ) -> tuple[str, Amount, GcState]:
        """Why nothing more of the flow may go, or nothing; what went; the state afterwards."""
        flow, runs = work.flow, work.runs
        why = self._look_again(work, plan, holdings)
        if why:
            return why, Amount(), state
        others = replace(
            state,
            removing=tuple(name for name in state.removing if _flow_of(name) != flow),
            blobs=tuple(path for path in state.blobs if _flow_of(path) != flow),
        )
        names = tuple(sorted("/".join(run) for run in runs))
        orphans = work.orphans(holdings)
        paths = (info.key for info in orphans)
        state = replace(others, removing=(*others.removing, *names), blobs=(*others.blobs, *paths))
        self._file.save(state)
        own = own_files(holdings, runs, plan.spared)
        files = [info for run in sorted(runs) for info in own[run]]
        of = len(files) + len(orphans)
        for at in range(0, len(files), DELETES):
            self._delete([info.key for info in files[at : at + DELETES]], at, of, state)
        deleted = total(files)
        for at in range(0, len(orphans), DELETES):
            # So that seconds pass, and not the time all of this takes, between a look and what goes because of it.
            why = self._look_again(work, plan, holdings)
            if why:
                return why, deleted, state
            infos = [info for info in orphans[at : at + DELETES] if work.dooms(info)]
            self._delete([info.key for info in infos], len(files) + at, of, state)
            deleted = plus(deleted, total(infos))
        self._root.prune(["/".join(run) for run in runs] + [f"mf.cards/{flow}/runs/{run}" for flow, run in runs])
        condemned = {run: at for run, at in state.condemned.items() if run not in names}
        state = replace(others, condemned=condemned)
        self._file.save(state)
        return "", deleted, state

    def _look_again(self, work: _FlowWork, plan: MetaflowGcPlan, before: Holdings) -> str:
        """List a flow again: blobs that something new refers to are taken out of ``work``. Returns why nothing of the
        flow may be removed, or nothing."""
        now = self._root.list_flow(work.flow)
        removing = {(entry.flow, entry.run) for entry in plan.remove}
        fresh = Holdings()
        for name, task in now.tasks.items():
            if task.running(plan.now, plan.policy.running):
                return f"{'/'.join(name)} is running"
            known = before.tasks.get(name)
            changed = {
                place: info for place, info in task.files.items()
                if known is None or place not in known.files or known.files[place].etag != info.etag
            }  # fmt: skip
            if changed and name[:2] in removing:
                return f"{'/'.join(name)} was written to just now"
            if changed:
                fresh.tasks[name] = layout.Task(files=dict(changed))
        for _, _, _, found in self._root.references(fresh, lambda step: None):
            if not isinstance(found, References):
                return f"what a new task refers to cannot be read: {found.message}"
            if found.included or found.packed_included:
                return "a new task refers to IncludeFiles"
            work.blobs.difference_update((work.flow, key) for key in found.artifacts.values())
        return ""

    def _delete(self, paths: list[str], at: int, of: int, state: GcState) -> None:
        self._tell(PhaseProgress("removing", at, of))
        if at:
            self._file.save(state)  # a sign of life, and proof that nobody took over
        self._root.backend.delete_many(paths)
