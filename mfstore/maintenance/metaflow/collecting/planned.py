"""What a collection of a Metaflow root would do, and what people are told of it: the command prints it, and notebooks
show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mfstore.display.amounts import count, date, duration, share, size, time_of_day
from mfstore.display.cards import Card, Cell, Grid, code_cell
from mfstore.display.shown import Shown
from mfstore.maintenance.metaflow.collecting.amounts import RootAmount
from mfstore.maintenance.metaflow.collecting.facts import RunFacts
from mfstore.maintenance.metaflow.collecting.liveness import Liveness
from mfstore.maintenance.metaflow.collecting.policy import Run, RunPolicy, unmatched
from mfstore.maintenance.metaflow.listed_blobs import BlobName
from mfstore.maintenance.periods import NOUNS
from mfstore.maintenance.told import SHOWN
from mfstore.maintenance.versions import VersionsKept

FATES = ("keep", "condemn", "wait", "remove")
"""What becomes of a run."""


@dataclass(frozen=True, slots=True, repr=False)
class MetaflowGcPlan(Shown):
    """What a collection of a Metaflow root would do now. Times are the storage's, in seconds since the epoch."""

    url: str
    policy: RunPolicy
    now: float
    runs: Sequence[RunFacts]
    """All of them."""
    kept: Mapping[Run, str]
    """Why each run that stays does."""
    dropped: Mapping[Run, str]
    """Why each of the others goes, now or later."""
    condemn: Sequence[RunFacts]
    """Runs to be condemned now."""
    waiting: Mapping[Run, float]
    """Runs condemned before, and the time from which on they may go."""
    remove: tuple[RunFacts, ...]
    """Runs condemned long enough ago."""
    held: Mapping[str, str]
    """Flows of which nothing is removed now, and why. Their runs are not among ``remove``."""
    busy: Mapping[str, str]
    """Flows of which something is removed as soon as none of their tasks is running, and which is now."""
    spared: frozenset[str]
    """Flows of which cards stay: a kept run resumed another, which shows that run's cards, and nothing tells which."""
    blobs: frozenset[BlobName]
    """Blobs that only the runs to remove refer to."""
    codes: frozenset[BlobName]
    """Code packages among them."""
    includes: frozenset[BlobName]
    """IncludeFiles that only the runs to remove name, by flow and hash."""
    files: RootAmount
    """Own files and cards of the runs to remove."""
    freed: RootAmount
    """With their blobs and IncludeFiles: all that goes now."""
    later: RootAmount
    """What goes in addition once the condemned and the waiting may go, if nothing changes."""
    shared: RootAmount
    """Blobs of dropped runs that stay, because others refer to them."""
    unreferred: RootAmount
    """Blobs that no run refers to; they are left alone."""
    user: RootAmount
    """Objects that dropped runs stored by ``S3(run=self)``; they are left alone."""
    migrated: RootAmount
    """Among the blobs that go, those that a migration left behind."""
    former: RootAmount
    """What migrated artifacts were before, where no local metadata says otherwise: a metadata service names it for
    clients without mfstore. It is left alone while the run stays."""
    bundles: frozenset[str]
    """Of the packed profile: what kept runs need of the store in ``mf.store``."""
    all_bundles: frozenset[str]
    """What any run needs there, those to remove too."""
    unknown: int
    """Files of dropped runs that cannot be read: what they refer to is left alone."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Flows with runs that stay of which a file cannot be read, and which. They are among ``held``. IncludeFiles and
    ``mf.store``, which runs of all flows may name, are left alone as well."""
    liveness: Liveness = field(default_factory=lambda: Liveness(0.0, 0.0), repr=False)
    """What told which tasks are running."""
    locked: Mapping[Run, str] = field(default_factory=dict)
    """Runs condemned long enough ago that locks of the storage keep, and which. They are among ``waiting``."""
    locks_known: bool = True
    """False where objects may be locked, and which are may not be asked."""
    versions: VersionsKept = field(default_factory=VersionsKept)
    """What the bucket does with what is deleted."""
    foreign: Mapping[str, RootAmount] = field(default_factory=dict)
    """What is not Metaflow's, by folder; it is left alone."""
    below: tuple[str, ...] = ()
    """Folders that look like datastore roots of their own; they are left alone."""
    unmatched: tuple[str, ...] = ()
    """Patterns of runs to keep that no run matches."""
    metadata: str = "local"
    """Where records of runs were read."""
    others: bool = False
    """Whether there are flows that were not looked at, because the policy does not judge them."""
    as_of: float | None = None
    """The time of the inventory that it was made by; None: by a listing."""

    @property
    def storage_notes(self) -> list[str]:
        """What stays in the bucket of what goes, in sentences, and what of that is not known."""
        amount = self.freed.bytes
        notes = self.versions.notes(amount) if amount or self.condemn or self.waiting else []
        if not self.locks_known:
            notes.append(
                "which objects are locked may not be asked (s3:GetObjectRetention, s3:GetObjectLegalHold): runs that "
                "are go as well, and stay as versions"
            )
        return notes

    @property
    def listed_on(self) -> int:
        """How many of the runs that go now their metadata goes on listing: that of a service, or below another root."""
        return sum(entry.recorded == "service" or self.metadata.startswith("local:") for entry in self.remove)

    @property
    def drops_everything(self) -> bool:
        """Whether no run would stay."""
        return bool(self.runs) and not self.kept and not self.others

    @property
    def does_something(self) -> bool:
        """Whether carrying it out changes the root."""
        return bool(self.condemn or self.remove or self.blobs or self.includes)

    @property
    def drops_share(self) -> float:
        """The share of the runs that would be condemned now, of those that the policy judges."""
        judged = sum(self.policy.judges(entry.flow) for entry in self.runs)
        return len(self.condemn) / judged if judged else 0.0

    @property
    def refusal(self) -> str:
        """Why it is not executed unless somebody says that it is meant; empty: it is."""
        limit = self.policy.max_drop
        if self.drops_everything:
            return "the policy would drop every run"
        if limit is not None and self.drops_share > limit:
            return (
                f"{count(len(self.condemn), 'run')} would be condemned at once, {share(self.drops_share)} of all: "
                f"more than --max-drop {share(limit)}"
            )
        return ""

    def _card(self) -> Card:
        return plan_card(self)


def policy_text(policy: RunPolicy) -> str:
    """A policy in words, all of what it keeps."""
    group = " and ".join(policy.group_by) or "root"
    counted = []
    if policy.last is not None:
        counted.append(f"the last {policy.last}")
    if policy.last_successful is not None:
        counted.append(f"the last {policy.last_successful} successful")
    counted += [
        f"the last of each of {count(number, NOUNS[kind])}" for kind, number in policy.periods.items() if number
    ]
    parts = [f"of each {group} {', '.join(counted)}"] if counted else []
    if policy.age is not None:
        parts.append(f"runs that began within {duration(policy.age)}")
    if policy.deployed:
        parts.append("what each deployment last ran")
    if policy.tags:
        parts.append(f"runs tagged {', '.join(policy.tags)}")
    if policy.pinned:
        parts.append(f"{count(len(policy.pinned), 'pinned name or pattern', 'pinned names and patterns')}")
    if policy.flows:
        parts.append(f"all runs of flows other than {', '.join(policy.flows)}")
    grace = duration(policy.grace) if policy.grace else "none"
    ttl = "" if policy.ttl else "; no run goes by its ttl"
    brake = "" if policy.max_drop is None else f"; at most {share(policy.max_drop)} of the runs are condemned at once"
    return f"keep {'; '.join(parts)}. Grace period {grace}{ttl}{brake}"


def fates(plan: MetaflowGcPlan) -> Iterator[tuple[RunFacts, str, str]]:
    """Every run, what becomes of it, and why; by flow, the newest first."""
    removed = {(entry.flow, entry.run) for entry in plan.remove}
    for entry in sorted(plan.runs, key=lambda entry: (entry.flow, -entry.began, entry.run)):
        run = entry.flow, entry.run
        if run in plan.kept:
            yield entry, "keep", plan.kept[run]
        elif run in plan.waiting:
            yield entry, "wait", plan.dropped[run]
        else:
            yield entry, "remove" if run in removed else "condemn", plan.dropped[run]


def flows_grid(plan: MetaflowGcPlan) -> Grid:
    """How many runs of each flow stay, wait and go."""
    by_flow: dict[str, Counter[str]] = {}
    for entry, fate, _ in fates(plan):
        by_flow.setdefault(entry.flow, Counter())[fate] += 1
    rows: tuple[tuple[Cell | str, ...], ...] = tuple(
        (code_cell(flow), *_numbers([found.total(), *(found[fate] for fate in FATES)]), _held(plan, flow))
        for flow, found in sorted(by_flow.items())
    )
    return Grid(("flow", "runs", *FATES, "held because"), rows, (1, 2, 3, 4, 5))


def _held(plan: MetaflowGcPlan, flow: str) -> str:
    return plan.held.get(flow) or (f"{plan.busy[flow]}: goes between its tasks" if flow in plan.busy else "")


def runs_grid(plan: MetaflowGcPlan) -> Grid:
    """Every run."""
    rows = tuple(
        (
            Cell(fate, look="bad" if fate == "remove" else ""),
            code_cell(entry.name),
            entry.branch,
            Cell(date(entry.began), look="number"),
            Cell("" if entry.ended is None else date(entry.ended), look="number"),
            entry.state,
            Cell(size(entry.size), look="number"),
            _why(plan, entry, fate, why),
        )
        for entry, fate, why in fates(plan)
    )
    return Grid(("", "run", "branch", "began", "ended", "state", "own files", "why"), rows, (6,))


def _why(plan: MetaflowGcPlan, entry: RunFacts, fate: str, why: str) -> str:
    if fate != "wait":
        return why
    ready = plan.waiting[entry.flow, entry.run]
    return f"{why}; held" if entry.flow in plan.held else f"{why}; may go after {time_of_day(ready)}"


def _numbers(numbers: Sequence[int]) -> tuple[Cell, ...]:
    return tuple(Cell(f"{number:,}", look="number") for number in numbers)


def plan_notes(plan: MetaflowGcPlan) -> list[str]:
    """What is kept and why, and what goes and stays besides runs, in sentences."""
    reasons = Counter(_general(reason) for reason in plan.kept.values())
    notes = []
    if plan.as_of is not None:
        notes.append(f"by the inventory of {time_of_day(plan.as_of)}: what was written since is not judged")
    notes += ["kept: " + (", ".join(f"{number:,} {reason}" for reason, number in reasons.most_common()) or "none")]
    if plan.dropped:
        over = sum(entry.expired(plan.now) for entry, fate, _ in fates(plan) if fate != "keep")
        notes += [f"{count(over, 'run')} of those that go: the ttl is over"] if over else []
    untold = sum(entry.tags is None and (entry.flow, entry.run) in plan.dropped for entry in plan.runs)
    if untold and plan.metadata != "none":
        notes.append(
            f"{count(untold, 'run')} of those that go: nothing tells the tags, so that neither ttl nor branch is known "
            "(--metadata)"
        )
    unclear = [entry for entry in plan.runs if entry.unclear]
    notes += [f"{entry.name} has the tag {entry.unclear}, which is no duration: it stays" for entry in unclear[:SHOWN]]
    flows = {entry.flow for entry in plan.runs}
    missing = unmatched(plan.policy.flows, flows)
    notes += [f"no flow with runs matches --flow {pattern}" for pattern in missing[:SHOWN]]
    notes += [f"no run matches --pin {pattern}" for pattern in plan.unmatched[:SHOWN]]
    if len(plan.unmatched) > SHOWN:
        notes.append(f"and {len(plan.unmatched) - SHOWN} more patterns and names that no run matches")
    return [*notes, *_amount_notes(plan)]


def _amount_notes(plan: MetaflowGcPlan) -> Iterator[str]:
    if plan.remove or plan.blobs or plan.includes:
        yield (
            f"now: {plan.freed} go: files and cards of {count(len(plan.remove), 'run')}, "
            f"{count(len(plan.blobs), 'blob')}, {count(len(plan.includes), 'IncludeFile')}"
        )
    if plan.listed_on:
        yield f"{count(plan.listed_on, 'run')} of these are listed on by {_source(plan.metadata)}, without data"
    if plan.migrated.objects:
        yield f"{plan.migrated} of that are what migrated artifacts were before"
    if plan.condemn or plan.waiting or plan.later.objects:
        yield f"once the grace period of the others has passed: {plan.later} more"
    for found, what in (
        (plan.shared, "blobs of these runs stay: kept runs refer to them"),
        (plan.unreferred, "blobs that no run refers to are left alone: a deployment may need them"),
        (plan.former, "what migrated artifacts were before is left alone: a metadata service may name it"),
        (plan.user, "objects that these runs stored by S3(run=self) are left alone"),
    ):
        if found.objects:
            yield f"{found}: {what}"
    if plan.unknown:
        yield f"{count(plan.unknown, 'file')} of these runs cannot be read: what only they refer to is left alone"
    for flow, damage in sorted(plan.unreadable.items()):
        yield f"DAMAGED: {damage}. Nothing of {flow} goes until this is mended or the run is removed"
    if plan.unreadable:
        yield "IncludeFiles and mf.store are left alone: what is not read there may need them"
    for flow in sorted(plan.spared):
        yield f"cards of {flow} stay: a kept run resumed another, and nothing here tells which"
    yield from _foreign_notes(plan)
    if plan.bundles:
        yield f"{count(len(plan.bundles), 'bundle')} of the store in mf.store are needed"
    for run, lock in sorted(plan.locked.items())[:SHOWN]:
        yield f"locked   {'/'.join(run)}: {lock}"
    if len(plan.locked) > SHOWN:
        yield f"and {len(plan.locked) - SHOWN} more runs that are locked; --json lists all"
    yield from plan.storage_notes


def _source(metadata: str) -> str:
    return "the metadata service" if metadata == "service" else f"the metadata in {metadata.partition(':')[2]}"


def _foreign_notes(plan: MetaflowGcPlan) -> Iterator[str]:
    if plan.foreign:
        first, *others = plan.foreign.values()
        yield f"left alone: {sum(others, first)} that are not Metaflow's"
        for name, found in [*plan.foreign.items()][:SHOWN]:
            yield f"  {name}: {found}"
        if len(plan.foreign) > SHOWN:
            yield f"  and {len(plan.foreign) - SHOWN} more; --json lists all"
    for name in plan.below[:SHOWN]:
        yield f"{name} looks like a datastore root of its own: give that as --metaflow to collect it"


def plan_card(plan: MetaflowGcPlan) -> Card:
    """What a collection would do."""
    refused = (f"Executing it is refused unless it is confirmed: {plan.refusal}.",) if plan.refusal else ()
    notes = (policy_text(plan.policy), *plan_notes(plan), *refused)
    return Card("collection of", plan.url, (), (flows_grid(plan),), notes)


def _general(reason: str) -> str:
    """A reason without the run that it names, or who holds it."""
    if reason.startswith("held"):
        return "held"
    return "resumed by a kept run that shows their cards" if "shows its cards" in reason else reason
