"""What garbage collection of a Metaflow root would do. Reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from time import time
from typing import TYPE_CHECKING

from mfstore.errors import AccessDenied
from mfstore.maintenance.metaflow.collecting.amounts import RootAmount, total
from mfstore.maintenance.metaflow.collecting.blob_fates import blob_fates
from mfstore.maintenance.metaflow.collecting.decision import PolicyDecision, decide_runs, deployed
from mfstore.maintenance.metaflow.collecting.facts import RunFacts
from mfstore.maintenance.metaflow.collecting.listed_runs import ListedRuns, listed_runs
from mfstore.maintenance.metaflow.collecting.liveness import Liveness
from mfstore.maintenance.metaflow.collecting.locks import read_locked_runs
from mfstore.maintenance.metaflow.collecting.marks import ANY_KEPT, ANY_LATER, MIGRATED, RIPENING
from mfstore.maintenance.metaflow.collecting.needs import NeedsByFate, read_includes, read_needs
from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
from mfstore.maintenance.metaflow.collecting.policy import Run, RunPolicy, unmatched
from mfstore.maintenance.metaflow.collecting.resumed_runs import read_resumed_runs
from mfstore.maintenance.metaflow.collecting.run_facts import read_run_facts
from mfstore.maintenance.metaflow.collecting.run_table import Reasons, RunTable, SomeRuns
from mfstore.maintenance.metaflow.collecting.state import StateFile
from mfstore.maintenance.metaflow.holdings import Holdings, list_root, refuse_links
from mfstore.maintenance.metaflow.listed_blobs import BlobName
from mfstore.maintenance.metaflow.references import remembering
from mfstore.maintenance.report import untold
from mfstore.maintenance.spill import Spill
from mfstore.maintenance.versions import read_versions

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import PhaseCallback


def plan_metaflow_gc(
    root: Root,
    policy: RunPolicy,
    tell: PhaseCallback = untold,
    *,
    metadata: str = "local",
    trust_known: bool = False,
    inventory: str | None = None,
) -> MetaflowGcPlan:
    """What a collection would do; changes nothing. ``metadata``, ``trust_known`` and ``inventory``: as of
    ``collect_metaflow``.

    Raises AccessDenied when no file may be read, InvalidKey for a policy that does not say what to keep, Refused when a
    symbolic link hides runs.
    """
    policy.check()
    holdings = list_root(root, tell, policy.flows, inventory, Spill())
    refuse_links(root, holdings)
    file = StateFile(root.backend)
    file.load()
    with remembering(root, holdings.find, writes=False, trusted=trust_known):
        return make_plan(root, holdings, policy, file.condemned_since(), time(), tell, metadata)


def make_plan(
    root: Root, holdings: Holdings, policy: RunPolicy, since: Mapping[str, float], now: float, tell: PhaseCallback,
    metadata: str,
) -> MetaflowGcPlan:  # fmt: skip
    """The plan, by what was listed, since when runs have been condemned, and at this time of the storage."""
    listed = listed_runs(holdings)
    facts = RunTable(read_run_facts(root, holdings, listed, policy, now, metadata))
    decision = decide_runs(facts, policy, now)
    flows = {flow for flow, _ in listed.resumed}
    shown = {(path.flow, path.run) for path, _ in holdings.cards.of_flows(flows)}
    cards = {run for run in shown if facts.number(run) is not None}  # of what is no run any more they stay anyway
    spared = read_resumed_runs(root, holdings, listed.resumed).keep_origins(decision.kept, cards)
    liveness = Liveness(now, policy.running, listed.took, facts.heartbeats)
    fates = _sort(facts, decision, since, liveness, policy)
    versions = read_versions(root.backend)
    locks_known = fates.spare_locked(root, holdings, spared) if versions.locks_objects else True
    needs = read_needs(root, holdings, fates.kept, fates.due, deployed(facts), tell)
    fates.hold_unread(needs.unread)
    fates.hold_unread(needs.unreadable)
    migrated = _mark_migrated(needs, fates)
    fates.note_busy(listed, {flow for flow, _ in (*fates.due, *migrated)})
    includes, unread = _includes(root, holdings, needs, fates.held)
    fates.hold_unread(unread)
    plan = _assemble(root.url, metadata, holdings, facts, fates, needs, frozenset(spared), includes)
    return replace(plan, versions=versions, locks_known=locks_known)


@dataclass(slots=True)
class _Fates:
    """What becomes of the runs."""

    policy: RunPolicy
    liveness: Liveness
    kept: Reasons
    dropped: Reasons
    due: set[Run]
    waiting: dict[Run, float]
    held: dict[str, str]
    busy: dict[str, str] = field(default_factory=dict)
    locked: dict[Run, str] = field(default_factory=dict)
    """Runs that might go but for the storage's locks, and what these are."""

    def spare_locked(self, root: Root, holdings: Holdings, spared: Collection[str]) -> bool:
        """Let no run go that the storage's locks keep. Whether these may be asked for."""
        try:
            found = read_locked_runs(root.backend, own_files(holdings, self.due, spared))
        except AccessDenied:
            return False
        for run, lock in found.items():
            self.due.discard(run)
            self.waiting[run] = max(lock.until, self.liveness.now)
            self.locked[run] = lock.why
        return True

    def note_busy(self, listed: ListedRuns, flows: Collection[str]) -> None:
        """Note which of those flows have a running task."""
        for run, attempts in listed.open.items():
            for attempt in attempts if run[0] in flows else ():
                if self.liveness.may_end(run, attempt):
                    self.busy[run[0]] = f"{'/'.join(run)}/{attempt.step}/{attempt.task} is running"

    def hold_unread(self, unread: Mapping[str, str]) -> None:
        """Let nothing go of these flows: what a run refers to that goes without it is garbage that nobody knows."""
        self.held.update(unread)
        for run in [run for run in self.due if run[0] in self.held]:
            self.due.discard(run)
            self.waiting[run] = self.liveness.now


def _sort(
    facts: RunTable, decision: PolicyDecision, since: Mapping[str, float], liveness: Liveness, policy: RunPolicy
) -> _Fates:
    """Which of the dropped runs may go now, and which were condemned and may go later."""
    kept, dropped = decision.kept, decision.dropped
    for number in dropped.numbers:  # others show their cards
        if kept.at(number) is not None:
            del dropped[facts.run(number)]
    now = liveness.now
    fates = _Fates(policy, liveness, kept, dropped, set(), {}, {})
    for run in dropped if since else ():
        condemned = since.get("/".join(run))
        if condemned is not None and condemned + policy.grace <= now:
            fates.due.add(run)
        elif condemned is not None:
            fates.waiting[run] = condemned + policy.grace
    return fates


def _mark_migrated(needs: NeedsByFate, fates: _Fates) -> list[BlobName]:
    """Mark what migrations left behind: what goes, since that was at least the grace period ago, which is returned, and
    what goes later."""
    ripe: list[BlobName] = []
    policy = fates.policy
    for blob, mark in needs.marks.of(needs.migrated).items():
        if mark & ANY_KEPT or not policy.judges(blob[0]):
            continue
        long_ago = needs.migrated[blob] + policy.grace <= fates.liveness.now and blob[0] not in fates.held
        if long_ago and not mark & ANY_LATER:
            ripe.append(blob)
        needs.marks.mark(blob[0], [blob[1]], MIGRATED if long_ago else RIPENING)
    return ripe


def _includes(
    root: Root, holdings: Holdings, needs: NeedsByFate, held: Collection[str]
) -> tuple[frozenset[BlobName], Mapping[str, str]]:
    """The IncludeFiles that only the runs to remove name; and the flows of which the storage did not hand out what
    tells them: removed without, they would be left for ever. None when a run that stays cannot be read: a parameter may
    name the IncludeFile of another flow by its URL."""
    if needs.unreadable:
        return frozenset(), {}
    due = read_includes(root, holdings, needs.due)
    go = holdings.includes.some(due.names).keys()
    if not go:
        return frozenset(), due.unread  # what others name costs a request for each that does
    stay, later = (read_includes(root, holdings, group) for group in (needs.kept, needs.later))
    known = stay.known & later.known
    found = go - stay.names - later.names
    unread = {**due.unread, **stay.unread, **later.unread}
    left = {*held, *unread}
    return frozenset(name for name in found if name[0] in known and name[0] not in left), unread


def _assemble(
    url: str, metadata: str, holdings: Holdings, facts: RunTable, fates: _Fates, needs: NeedsByFate,
    spared: frozenset[str], includes: frozenset[BlobName],
) -> MetaflowGcPlan:  # fmt: skip
    blobs = blob_fates(holdings, needs.marks, fates.held)
    bundles = frozenset(needs.kept.bundles | needs.later.bundles)
    dropped, due = fates.dropped, fates.due
    remove = tuple(map(facts.of, sorted(due)))
    condemn = SomeRuns(facts, (number for number in dropped.numbers if _is_new(facts.run(number), fates)))
    files = _own(remove, spared)
    return MetaflowGcPlan(
        url=url,
        policy=fates.policy,
        now=fates.liveness.now,
        runs=facts,
        kept=fates.kept,
        dropped=dropped,
        condemn=condemn,
        waiting=fates.waiting,
        remove=remove,
        held=fates.held,
        busy=fates.busy,
        spared=spared,
        blobs=frozenset(blobs.go),
        codes=frozenset(needs.codes & blobs.go),
        includes=includes,
        files=files,
        freed=files + blobs.freed.total + total(holdings.includes.some(includes).values()),
        later=_own((facts.of(run) for run in dropped if run not in due), spared) + blobs.soon.total,
        shared=blobs.shared.total,
        unreferred=blobs.unreferred.total,
        user=total(info for path, info in holdings.user if (path.flow, path.run) in dropped),
        migrated=blobs.migrated.total,
        former=blobs.former.total,
        bundles=bundles,
        all_bundles=bundles | needs.due.bundles,
        unknown=needs.unknown,
        unreadable=needs.unreadable,
        locked=fates.locked,
        liveness=fates.liveness,
        foreign={name: RootAmount(*amount) for name, amount in holdings.foreign_folders().items()},
        below=tuple(sorted(holdings.below)),
        unmatched=unmatched(_looked_for(fates.policy.pinned, holdings), facts.names),
        others=holdings.only is not None,
        as_of=holdings.as_of,
        metadata=metadata,
    )


def _looked_for(pinned: Iterable[str], holdings: Holdings) -> Iterator[str]:
    """The patterns of runs that may be of flows that were looked at."""
    only = holdings.only
    flows = ((pattern, pattern.partition("/")[0]) for pattern in pinned)
    return (pattern for pattern, flow in flows if only is None or flow in only or {*"*?["} & {*flow})


def _is_new(run: Run, fates: _Fates) -> bool:
    """Whether a dropped run was not condemned before."""
    return run not in fates.due and run not in fates.waiting


def _own(runs: Iterable[RunFacts], spared: Collection[str]) -> RootAmount:
    """How much is stored for these runs alone."""
    objects = size = 0
    for found in runs:
        cards = found.flow not in spared
        objects += found.files if cards else found.files - found.cards
        size += found.size if cards else found.size - found.cards_size
    return RootAmount(objects, size)


def own_files(holdings: Holdings, runs: set[Run], spared: Collection[str]) -> dict[Run, list[ObjectInfo]]:
    """What is stored for each run alone. Cards of the ``spared`` flows are not among it."""
    found: dict[Run, list[ObjectInfo]] = {run: [] for run in runs}
    for run, infos in found.items():
        infos += [info for task in holdings.tasks.of_run(run).values() for info in task.files.values()]
    for run, info in holdings.metadata.of_runs(runs):
        found[run].append(info)
    for run, info in holdings.cards.of_runs({run for run in runs if run[0] not in spared}):
        found[run].append(info)
    return found


def stored(holdings: Holdings, blobs: Collection[BlobName]) -> Iterator[ObjectInfo]:
    """The objects of those among the blobs that are there: themselves, and their metadata where it has a file."""
    found = holdings.blobs.some(blobs), holdings.metas.some(blobs)
    for blob in sorted(blobs):
        for infos in found:
            if blob in infos:
                yield infos[blob]
