"""What garbage collection of a Metaflow root would do. Reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject, MfstoreError
from mfstore.maintenance.metaflow.policy import Run, RunFacts, RunPolicy, decide, deployed, matches
from mfstore.maintenance.metaflow.root import Holdings, Read, Root, blob_content
from mfstore.maintenance.metaflow.state import GcState, StateFile
from mfstore.maintenance.report import untold
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.attempts import RESUMED
from mfstore.metaflow.roots.layout import References
from mfstore.metaflow.roots.packed_keys import inline_pickle

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.maintenance.report import PhaseCallback

Blob = tuple[str, str]
"""Flow and key of a blob or an IncludeFile."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of something."""

    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class MetaflowGcPlan:
    """What a collection of a Metaflow root would do now."""

    url: str
    policy: RunPolicy
    now: float
    runs: tuple[RunFacts, ...]
    kept: Mapping[Run, str]
    """Why each run that stays does."""
    condemn: tuple[RunFacts, ...]
    """Runs to be condemned now."""
    waiting: Mapping[Run, float]
    """Runs condemned before, and the time from which on they may go."""
    remove: tuple[RunFacts, ...]
    """Runs condemned long enough ago."""
    held: Mapping[str, str]
    """Flows of which nothing is removed now, and why. Their runs are not among ``remove``."""
    spared: frozenset[str]
    """Flows of which cards stay: a kept run resumed another, which shows that run's cards, and nothing tells which."""
    blobs: frozenset[Blob]
    """Blobs that only the runs to remove refer to."""
    includes: frozenset[Blob]
    files: Amount
    """Own files and cards of the runs to remove."""
    freed: Amount
    """With their blobs and IncludeFiles: all that goes now."""
    later: Amount
    """What goes in addition once the condemned and the waiting may go, if nothing changes."""
    shared: Amount
    """Blobs of dropped runs that stay, because others refer to them."""
    unreferred: Amount
    """Blobs that no run refers to; they are left alone."""
    user: Amount
    """Objects that dropped runs stored by ``S3(run=self)``; they are left alone."""
    left: Amount
    """Among the blobs that go, those that a migration left behind."""
    bundles: frozenset[str]
    """Of the packed profile: what kept runs need of the store in ``mf.store``."""
    all_bundles: frozenset[str]
    """What any run needs there, those to remove too."""
    unknown: int
    """Files of dropped runs that cannot be read: what they refer to is left alone."""

    @property
    def drops_everything(self) -> bool:
        """Whether no run would stay."""
        return bool(self.runs) and not self.kept


@dataclass(slots=True)
class _Needs:
    """What a group of runs refers to."""

    blobs: set[Blob] = field(default_factory=set)
    included: set[Blob] = field(default_factory=set)
    """Blobs among them that describe IncludeFiles."""
    packed_included: set[tuple[str, str, str, str | None]] = field(default_factory=set)
    """IncludeFiles of the packed profile: flow, name, key and bundle."""
    bundles: set[str] = field(default_factory=set)

    def add(self, flow: str, found: References) -> None:
        """Count what one file refers to."""
        self.blobs.update((flow, key) for key in found.artifacts.values())
        self.packed_included.update((flow, *place) for place in found.packed_included)
        self.included.update((flow, found.artifacts[name]) for name in found.included if name in found.artifacts)
        self.bundles.update(found.bundles)


@dataclass(slots=True)
class _Groups:
    """What runs refer to, by what becomes of them."""

    kept: _Needs
    due: _Needs
    rest: _Needs
    left: dict[Blob, float]
    """Blobs that migrated artifacts were before, and when the last of these was migrated."""


def plan_metaflow_gc(
    root: Root, policy: RunPolicy, tell: PhaseCallback = untold, state: GcState | None = None, now: float = 0.0
) -> MetaflowGcPlan:
    """What a collection would do; changes nothing. Raises when anything that a run to be kept refers to is not known,
    InvalidKey for a policy that does not say what to keep."""
    return Planner(root, policy, tell, state, now).plan()[0]


class Planner:
    """Reads what a plan needs."""

    def __init__(self, root: Root, policy: RunPolicy, tell: PhaseCallback, state: GcState | None, now: float) -> None:
        policy.check()
        self._root = root
        self._policy = policy
        self._tell = tell
        self._state = StateFile(root.backend).load() if state is None else state
        self._now = now or time()

    def plan(self) -> tuple[MetaflowGcPlan, Holdings]:
        """The plan, and the listing it was made from."""
        state, now = self._state, self._now
        holdings = self._root.list(self._tell)
        facts = {(entry.flow, entry.run): entry for entry in self._facts(holdings)}
        fates = decide(facts.values(), self._policy, now)
        half_gone = {run for run in facts if "/".join(run) in state.removing}
        kept = {run: why for run, why in fates.kept.items() if run not in half_gone}
        spared = self._origins(holdings, kept, half_gone)
        dropped = {run: entry for run, entry in facts.items() if run not in kept}
        ready = {run: self._ready(run) for run in dropped}
        due = {run for run, moment in ready.items() if moment is not None and moment <= now}
        waiting = {run: moment for run, moment in ready.items() if moment is not None and moment > now}
        held = self._held(holdings, {flow for flow, _ in due} | {layout.parse(path).flow for path in state.blobs})
        for run in [run for run in due if run[0] in held]:
            due.discard(run)
            waiting[run] = now
        groups = _Groups(_Needs(), _Needs(), _Needs(), {})
        unknown = self._collect(holdings, kept, due, deployed(facts.values()), groups)
        stay, go, later = groups.kept, groups.due, groups.rest
        held.update(self._held(holdings, {flow for flow, _ in groups.left} - held.keys()))
        left = self._left({blob: at for blob, at in groups.left.items() if blob not in stay.blobs}, held, later)
        go.blobs |= left
        go.blobs.update(blob for blob in _named(state.blobs, "blob") if blob[0] not in held)
        kept_hashes, sure = self._hashes(holdings, stay)
        gone_hashes, _ = self._hashes(holdings, go)
        later_hashes, sure_too = self._hashes(holdings, later)
        gone_hashes |= _named(state.blobs, "include")
        includes = frozenset(
            name for name in (gone_hashes & holdings.includes.keys()) - kept_hashes - later_hashes
            if name[0] in sure & sure_too and name[0] not in held
        )  # fmt: skip
        # Metadata alone is what an interrupted collection leaves of a blob.
        blobs = frozenset((go.blobs - stay.blobs - later.blobs) & (holdings.blobs.keys() | holdings.metas.keys()))
        soon = (go.blobs | later.blobs) - stay.blobs - blobs
        files = self._own(holdings, due, spared)
        known = stay.blobs | go.blobs | later.blobs
        gone = total(stored(holdings, blobs))
        freed = plus(files, gone, total(holdings.includes[name] for name in includes))
        plan = MetaflowGcPlan(
            url=self._root.url,
            policy=self._policy,
            now=now,
            runs=tuple(facts.values()),
            kept=kept,
            condemn=tuple(entry for run, entry in dropped.items() if run not in due and run not in waiting),
            waiting=waiting,
            remove=tuple(facts[run] for run in sorted(due)),
            held=held,
            spared=frozenset(spared),
            blobs=blobs,
            includes=includes,
            files=files,
            freed=freed,
            later=plus(
                self._own(holdings, dropped.keys() - due, spared),
                total(stored(holdings, soon)),
            ),
            shared=total(stored(holdings, (go.blobs | later.blobs) & stay.blobs)),
            unreferred=total(stored(holdings, holdings.blobs.keys() - known)),
            user=total(info for place, info in holdings.user if (place.flow, place.run) in dropped),
            left=total(stored(holdings, left & blobs)),
            bundles=frozenset(stay.bundles | later.bundles),
            all_bundles=frozenset(stay.bundles | later.bundles | go.bundles),
            unknown=unknown,
        )
        return plan, holdings

    def _left(self, found: Mapping[Blob, float], held: Mapping[str, str], later: _Needs) -> set[Blob]:
        """What migrations left behind at least the grace period ago; the rest is counted to ``later``."""
        ripe: set[Blob] = set()
        for blob, moment in found.items():
            if self._policy.flows and not matches(blob[0], self._policy.flows):
                continue
            if moment + self._policy.grace <= self._now and blob[0] not in held:
                ripe.add(blob)
            else:
                later.blobs.add(blob)
        return ripe - later.blobs

    def _ready(self, run: Run) -> float | None:
        """When a dropped run may be removed; None when it is not condemned yet."""
        name = "/".join(run)
        if name in self._state.removing:
            return 0.0
        condemned = self._state.condemned.get(name)
        return None if condemned is None else condemned + self._policy.grace

    def _facts(self, holdings: Holdings) -> Iterator[RunFacts]:
        own: dict[Run, list[ObjectInfo]] = {}
        began: dict[Run, float] = {}
        running: set[Run] = set()
        tasks: dict[Run, int] = {}
        for name, task in holdings.tasks.items():
            run = name[:2]
            tasks[run] = tasks.get(run, 0) + 1
            infos = list(task.files.values())
            own.setdefault(run, []).extend(infos)
            began[run] = min([began.get(run, float("inf")), *(info.modified for info in infos)])
            if task.running(self._now, self._policy.running):
                running.add(run)
        documents: dict[Run, ObjectInfo] = {}
        for place, info in holdings.metadata:
            run = (place.flow, place.run)
            if place.run:
                own.setdefault(run, []).append(info)
                if info.key == f"{place.flow}/{place.run}/_meta/_self.json":
                    documents[run] = info
        tags: dict[Run, frozenset[str]] = {}
        for run, data in self._root.small(list(documents.items())):
            try:
                if isinstance(data, MfstoreError):
                    raise data
                start, tags[run] = layout.run_started(data)
                began[run] = min(began.get(run, start), start)
            except CorruptObject:
                continue  # its tags are not known then, which keeps it
        for place, info in holdings.cards:
            if (place.flow, place.run) in own:
                own[place.flow, place.run].append(info)
        for run, infos in own.items():
            yield RunFacts(
                flow=run[0],
                run=run[1],
                began=began.get(run, min(info.modified for info in infos)),
                touched=max(info.modified for info in infos),
                running=run in running,
                tags=tags.get(run),
                tasks=tasks.get(run, 0),
                files=len(infos),
                size=sum(info.size for info in infos),
            )

    def _held(self, holdings: Holdings, flows: Iterable[str]) -> dict[str, str]:
        wanted = set(flows)
        held: dict[str, str] = {}
        for name, task in holdings.tasks.items():
            if name[0] in wanted and task.running(self._now, self._policy.running):
                held[name[0]] = f"{'/'.join(name)} is running"
        return held

    def _collect(
        self, holdings: Holdings, kept: Mapping[Run, str], due: set[Run], newest: set[Run], into: _Groups
    ) -> int:
        """Sort what every run refers to; returns how many files of dropped runs could not be read."""
        unknown = 0
        for name, attempt, kind, found in self._root.references(holdings, self._tell):
            run = name[:2]
            if not isinstance(found, References):
                if run in kept:
                    found.hint = "Nothing was changed: what a run that is kept refers to must be known"
                    raise found
                unknown += 1
                continue
            group = into.kept if run in kept else into.due if run in due else into.rest
            group.add(name[0], found)
            for blob in ((name[0], key) for key in found.left):
                moment = holdings.tasks[name].files[attempt, kind].modified
                into.left[blob] = max(moment, into.left.get(blob, moment))
            if run in newest:
                into.kept.add(name[0], found.of_deployment)
        return unknown

    def _hashes(self, holdings: Holdings, needs: _Needs) -> tuple[set[Blob], set[str]]:
        """IncludeFiles that these runs refer to, by flow and hash, and the flows of which all are known."""
        found: set[Blob] = set()
        flows = {flow for flow, _ in holdings.includes}
        sure = set(flows)
        wanted = [blob for blob in needs.included if blob[0] in flows]

        def work(blob: Blob, read: Read | MfstoreError) -> None:
            try:
                if isinstance(read, MfstoreError):
                    raise read
                content = blob_content(read, self._root.alone)
            except MfstoreError:
                sure.discard(blob[0])
                return
            found.update((blob[0], name) for name in layout.hashes_in(content))

        self._root.read_blobs(wanted, holdings.metas, work)
        in_store = [place for place in needs.packed_included if place[0] in flows]
        for flow, hashes in self._packed_hashes(in_store):
            if hashes is None:
                sure.discard(flow)
            else:
                found.update((flow, name) for name in hashes)
        return found, sure

    def _packed_hashes(
        self, places: Iterable[tuple[str, str, str, str | None]]
    ) -> Iterator[tuple[str, Collection[str] | None]]:
        """The flow, and the IncludeFiles that an artifact of the packed profile names; None when it cannot be read."""
        with ExitStack() as stack:
            store = None
            for flow, name, key, bundle in places:
                try:
                    if bundle is None:
                        content = inline_pickle(key)
                    else:
                        store = store or stack.enter_context(self._root.store())
                        content = store.get_bytes(bundle, name=name)
                    yield flow, {*layout.hashes_in(content)}
                except (MfstoreError, ValueError):
                    yield flow, None

    def _origins(self, holdings: Holdings, kept: dict[Run, str], gone: set[Run]) -> set[str]:
        """Keep the runs whose cards a kept run shows because it resumed them. Returns the flows of kept runs that
        resumed others which cannot be told."""
        with_cards = {(place.flow, place.run) for place, _ in holdings.cards}
        resumed = {
            name[:2] for name, task in holdings.tasks.items()
            if any((None, marker) in task.files for marker in RESUMED)
        }  # fmt: skip
        told: dict[Run, ObjectInfo] = {}
        for place, info in holdings.metadata:
            if (place.flow, place.run) in resumed and layout.ORIGIN.fullmatch(info.key):
                told[place.flow, place.run] = info
        origins: dict[Run, str] = {}
        for run, data in self._root.small(list(told.items())):
            with suppress(CorruptObject):
                resumes = None if isinstance(data, MfstoreError) else layout.origin_run(data)
                if resumes is not None:
                    origins[run] = resumes
        spared: set[str] = set()
        waiting = [run for run in kept if run in resumed]
        while waiting:
            run = waiting.pop()
            if run not in origins:
                spared.add(run[0])
                continue
            origin = (run[0], origins[run])
            if origin in with_cards and origin not in kept and origin not in gone:
                kept[origin] = f"{run[1]}, which resumed it, shows its cards"
                if origin in resumed:
                    waiting.append(origin)
        return spared

    def _own(self, holdings: Holdings, runs: Iterable[Run], spared: set[str]) -> Amount:
        return total(info for infos in own_files(holdings, set(runs), spared).values() for info in infos)


def own_files(holdings: Holdings, runs: set[Run], spared: Collection[str]) -> dict[Run, list[ObjectInfo]]:
    """What is stored for each run alone, in the order it is removed in: what refers to others first. Cards of the
    ``spared`` flows are not among it."""
    found: dict[Run, list[ObjectInfo]] = {run: [] for run in runs}
    for name, task in holdings.tasks.items():
        if name[:2] in found:
            files = sorted(task.files.items(), key=lambda item: item[0][1] in layout.REFERRING, reverse=True)
            found[name[:2]].extend(info for _, info in files)
    cards = [card for card in holdings.cards if card[0].flow not in spared]
    for place, info in [*holdings.metadata, *cards]:
        if (place.flow, place.run) in found:
            found[place.flow, place.run].append(info)
    return found


def stored(holdings: Holdings, blobs: Iterable[Blob]) -> Iterator[ObjectInfo]:
    """The objects of those among the blobs that are there: themselves, and their metadata where it has a file."""
    for blob in sorted(blobs):
        for infos in (holdings.blobs, holdings.metas):
            if blob in infos:
                yield infos[blob]


def total(infos: Iterable[ObjectInfo]) -> Amount:
    """Number and bytes of objects."""
    sizes = [info.size for info in infos]
    return Amount(len(sizes), sum(sizes))


def plus(*amounts: Amount) -> Amount:
    """Amounts together."""
    return Amount(sum(amount.objects for amount in amounts), sum(amount.bytes for amount in amounts))


def _named(paths: Iterable[str], kind: str) -> set[Blob]:
    """The blobs or IncludeFiles among these paths."""
    places = [layout.parse(path) for path in paths]
    return {(place.flow, place.name) for place in places if place.kind == kind}
