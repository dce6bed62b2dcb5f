"""Who holds what below a Metaflow root: in the files of its flows, and in the packed profile's store, which they share.

A listing tells what is there, small files of tasks which blobs and bundles these need, and Metaflow's metadata whose
runs they are. What is not told is unknown, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby, islice
from threading import Lock
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject, InvalidKey, MfstoreError, NotFound
from mfstore.maintenance.holders import NONE, UNKNOWN, Claims, Label, LabelSets, Tally, each_of
from mfstore.maintenance.metaflow.collecting import facts
from mfstore.maintenance.metaflow.collecting.record_sources import source_of
from mfstore.maintenance.metaflow.holdings import list_root
from mfstore.maintenance.metaflow.includes import read_descriptions
from mfstore.maintenance.metaflow.listed_digests import packed_key
from mfstore.maintenance.metaflow.packed_store import open_packed_store
from mfstore.maintenance.metaflow.references import read_references, remembering
from mfstore.maintenance.months import month_of
from mfstore.maintenance.report import untold
from mfstore.maintenance.spill import KeyedRows, Spill
from mfstore.maintenance.store.collecting.object_table import list_objects
from mfstore.maintenance.store.holders import HoldersOf, tally_recipes
from mfstore.maintenance.usage import CLASS, MONTH, Usage, check_by, damage_notes, usage_of
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.layout import References

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.recipes import Recipe
    from mfstore.maintenance.metaflow.collecting.policy import Run
    from mfstore.maintenance.metaflow.collecting.records import RunRecord
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.listed_blobs import BlobName, BlobTable
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import PhaseCallback
    from mfstore.metaflow.roots.packed_keys import PackedArtifact

BY = ("flow", "run", "user", "tag", "branch", "step", "artifact", MONTH, CLASS)
"""What usage of a root is told by."""
_BY_RECORD = ("user", "tag", "branch")
"""Of these, what metadata tells of runs."""
RUNS_TOGETHER = 20_000
"""Runs whose metadata is in memory at a time, about a kilobyte each."""
BEFORE_MIGRATION = "<before its migration>"
"""Stands for the name of an artifact where a blob is what one was that has been migrated."""
_BUNDLES = "bundles"
_OPEN_KEYS = 200_000
"""Keys of bundles in memory, 0.2 kB each; the others are in a temporary file."""


def root_usage(
    root: Root, by: str, *, flows: Sequence[str] = (), metadata: str = "local", inventory: str | None = None,
    tell: PhaseCallback = untold, holdings: Holdings | None = None, through: Callable[[Backend], Backend] | None = None,
) -> Usage:  # fmt: skip
    """Who holds how many bytes below a root.

    Args:
        root: The datastore root.
        by: What groups are: one of ``BY``. A ``tag`` is one that people gave; a ``step`` or an ``artifact`` is that of
            all runs of its flow.
        flows: Patterns of flows that are looked at; none: all.
        metadata: Where tags and users of runs are read, as of ``collect_metaflow``.
        inventory: The URL of an S3 Inventory, which is read in place of a listing.
        tell: Called now and then with how far it is.
        holdings: What was listed of all of it a moment ago, where it was.
        through: What the packed profile's store is read through, by who asks several questions of it.

    Raises:
        InvalidKey: there is no such ``by`` or source of metadata.
        NotAStore: it is no root.
        AccessDenied, BackendError: something may not be read, or is not handed out: what it holds is not known.
        OutOfSpace: the disk for temporary files is full.
    """
    check_by(by, BY)
    if by == CLASS:
        if flows or inventory:
            raise InvalidKey("by class all of a root is listed", hint="Leave out flows and inventory")
        return _by_class(root)
    holdings = holdings or list_root(root, tell, flows, inventory, Spill())
    aside = 0
    if root.remote and not flows and not inventory:  # a listing of a directory has it, and one of S3 leaves it out
        aside = sum(info.size for info in root.backend.list(f"{layout.MAINTENANCE_FOLDER}/"))
    if by == MONTH:
        return _by_month(root, holdings, aside)
    remembered = nullcontext() if inventory else remembering(root, holdings.find, writes=False)
    with remembered:
        return _RootUsage(root, holdings, by, metadata, tell, through).run(aside)


def _by_month(root: Root, holdings: Holdings, aside: int) -> Usage:
    sets = LabelSets()
    tally = Tally(sets)
    for size, modified in dated(root, holdings):
        tally.add(size, sets.of(month_of(modified)))
    tally.add(max(holdings.stored - tally.counted, 0) + aside, None)
    return usage_of(root.url, MONTH, tally.totals())


def dated(root: Root, holdings: Holdings) -> Iterator[tuple[int, float]]:
    """Size and time of all that is Metaflow's below a root, and in the packed profile's store."""
    for table in (holdings.blobs, holdings.metas, holdings.includes):
        for flow in table.flows:
            for _, size, modified in table.entries(flow):
                yield size, modified
    for run in holdings.tasks.runs:
        for row in holdings.tasks.rows(run):
            yield row[4], row[5]
    for files in (holdings.metadata, holdings.cards, holdings.user):
        for _, info in files:
            yield info.size, info.modified
    if holdings.packed[0]:
        with open_packed_store(root) as store:
            for info in store.backend.list(""):
                yield info.size, info.modified


def _by_class(root: Root) -> Usage:
    sets = LabelSets()
    tally = Tally(sets)
    for size, name in root.backend.list_classes(""):
        tally.add(size, sets.of(name))
    if not tally.counted:
        raise NotFound("nothing is there", backend=root.url)
    return usage_of(root.url, CLASS, tally.totals())


class _RootUsage:
    """One pass over what was listed."""

    def __init__(
        self, root: Root, holdings: Holdings, by: str, metadata: str, tell: PhaseCallback,
        through: Callable[[Backend], Backend] | None,
    ) -> None:  # fmt: skip
        self._root = root
        self._holdings = holdings
        self._by = by
        self._metadata = metadata
        self._tell = tell
        self._through = through
        self._sets = LabelSets()
        self._tally = Tally(self._sets)
        self._blobs = Claims(Spill())
        self._includes = Claims(Spill())
        self._bundles = Claims(Spill())
        """By flow where artifacts are told apart: bundles have their names."""
        self._flows = LabelSets()
        self._described: dict[BlobName, set[int]] = {}
        """Blobs that describe IncludeFiles, and who needs them."""
        self._packed_described: dict[tuple[str, PackedArtifact], set[int]] = {}
        self._damaged: list[tuple[str, MfstoreError]] = []
        self._notes: list[str] = []
        self._of_run: dict[Run, int] = {}
        self._pending: dict[bytes, set[int]] = {}
        """Who needs the bundles that are read next."""

    def run(self, aside: int) -> Usage:
        """All of it; ``aside``: bytes of maintenance's own that were not listed."""
        self._learn_runs()
        self._add_files()
        if self._by != "flow" or self._holdings.packed[0]:
            self._read_references()
        if self._by == "flow":
            self._add_by_flow()
        else:
            self._read_includes()
            self._add_blobs()
        if self._holdings.packed[0]:
            self._add_packed()
        self._tally.add(max(self._holdings.stored - self._tally.counted, 0) + aside, None)
        notes = [*self._notes, *damage_notes(self._damaged)]
        return usage_of(self._root.url, self._by, self._tally.totals(), notes)

    # ---- runs and their files ---------------------------------------------------------------

    def _learn_runs(self) -> None:
        """Which labels each run has, where these are those of runs."""
        if self._by not in _BY_RECORD:
            return
        runs = sorted(self._all_runs())
        source = None
        if self._metadata != "none":
            source = source_of(self._root, self._holdings, {}, self._metadata)
        untold = 0
        for some in _batches(runs, self._metadata):
            records = {} if source is None else source.read(some)
            for run in some:
                record = records.get(run)
                labels = labels_of(run, record, self._by)
                untold += UNKNOWN in labels
                self._of_run[run] = self._sets.number(labels)
                if record is not None and record.unread:
                    self._damaged.append(("record of a run", CorruptObject(record.unread, key="/".join(run))))
        if untold:
            self._notes.append(
                f"of {untold:,} of {len(runs):,} runs nothing tells the {self._by} (--metadata says where to ask)"
            )

    def _all_runs(self) -> set[Run]:
        """Every run that has files of its own."""
        holdings = self._holdings
        beside = (holdings.metadata, holdings.cards, holdings.user)
        found = set(holdings.tasks.runs)
        found.update((path.flow, path.run) for files in beside for path, _ in files if path.run)
        return found

    def _holder(self, flow: str, run: str, step: str | None) -> int:
        """The set of labels that a file of a run has; of what is of no run, of its flow."""
        by = self._by
        if by == "flow":
            return self._sets.of(flow)
        if by == "step":
            return self._sets.of(f"{flow}/{step}" if step else None)
        if by == "artifact" or not run:
            return self._sets.of(None)
        if by == "run":
            return self._sets.of(f"{flow}/{run}")
        return self._of_run[flow, run]

    def _add_files(self) -> None:
        holdings, tally = self._holdings, self._tally
        for run in holdings.tasks.runs:
            by_step: dict[str, int] = {}
            for row in holdings.tasks.rows(run):
                by_step[row[0]] = by_step.get(row[0], 0) + row[4]
            for step, size in by_step.items():
                tally.add(size, self._holder(*run, step))
        for files in (holdings.metadata, holdings.cards, holdings.user):
            for path, info in files:
                tally.add(info.size, self._holder(path.flow, path.run, _step_in(info.key)))

    # ---- what files refer to ----------------------------------------------------------------

    def _read_references(self) -> None:
        by_artifact = self._by == "artifact"
        for name, attempt, kind, found in read_references(self._root, self._holdings, self._tell):
            flow, run, step, _ = name
            if not isinstance(found, References):
                if isinstance(found, NotFound):
                    continue  # removed since it was listed
                if not isinstance(found, CorruptObject):
                    raise found.where(key=f"{'/'.join(name)}/{attempt}.{kind}", backend=self._root.url)
                self._damaged.append(("file of a task", found))
                continue
            if by_artifact:
                self._claim_artifacts(flow, found)
            else:
                self._claim(flow, found, self._holder(flow, run, step))

    def _claim_artifacts(self, flow: str, found: References) -> None:
        for artifact, key in found.artifacts.items():
            holder = self._sets.of(f"{flow}/{artifact}")
            self._blobs.claim(flow, (packed_key(key),), holder)
            if artifact in found.included:
                self._described.setdefault((flow, key), set()).add(holder)
        if found.left:
            self._blobs.claim(flow, map(packed_key, found.left), self._sets.of(f"{flow}/{BEFORE_MIGRATION}"))
        for packed in found.packed_included:
            holder = self._sets.of(f"{flow}/{packed.name}")
            self._packed_described.setdefault((flow, packed), set()).add(holder)
        self._bundles.claim(_BUNDLES, _keys(found.bundles), self._flows.of(flow))

    def _claim(self, flow: str, found: References, holder: int) -> None:
        if self._by != "flow":  # else all of its blobs are the flow's
            keys = [packed_key(key) for key in found.artifacts.values()]
            self._blobs.claim(flow, keys, holder)
            self._blobs.claim(flow, map(packed_key, found.left), holder)
            for name in found.included & found.artifacts.keys():
                self._described.setdefault((flow, found.artifacts[name]), set()).add(holder)
            for packed in found.packed_included:
                self._packed_described.setdefault((flow, packed), set()).add(holder)
        if found.bundles:
            self._bundles.claim(_BUNDLES, _keys(found.bundles), holder)

    def _read_includes(self) -> None:
        """Which IncludeFiles are needed by whom: artifacts that describe them name them."""
        flows = self._holdings.includes.flows
        lock = Lock()
        blobs = [name for name in self._described if name[0] in flows]
        packed = [found for found in self._packed_described if found[0] in flows]
        needed_by = {name: self._described[name] for name in blobs}
        for flow, artifact in packed:
            needed_by.setdefault((flow, artifact.key), set()).update(self._packed_described[flow, artifact])

        def told(flow: str, key: str, content: bytes | MfstoreError) -> None:
            with lock:
                if isinstance(content, MfstoreError):
                    self._damaged.append(("description of an IncludeFile", content))
                    return
                names = [packed_key(name) for name in layout.hashes_in(content)]
                for holder in needed_by[flow, key]:
                    self._includes.claim(flow, names, holder)

        holdings = self._holdings
        read_descriptions(self._root, blobs, packed, holdings.metas.some(blobs), holdings.blobs.some(blobs), told)

    # ---- what is referred to ----------------------------------------------------------------

    def _add_by_flow(self) -> None:
        for table in (self._holdings.blobs, self._holdings.metas, self._holdings.includes):
            for flow in table.flows:
                self._tally.add(sum(size for _, size in table.sizes(flow)), self._sets.of(flow))

    def _add_blobs(self) -> None:
        holdings = self._holdings
        self._add_claimed(holdings.blobs, self._blobs)
        self._add_claimed(holdings.metas, self._blobs)
        self._add_claimed(holdings.includes, self._includes)

    def _add_claimed(self, table: BlobTable, claims: Claims) -> None:
        for flow in table.flows:
            self._tally.add_all(claims.joined(flow, table.sizes(flow)))

    # ---- the packed profile's store -----------------------------------------------------------

    def _add_packed(self) -> None:
        with open_packed_store(self._root) as store:
            access = store.handle.access("read")
            if self._through is not None:
                access = access._replace(backend=self._through(access.backend))
            sizes = KeyedRows(Spill(), _OPEN_KEYS)
            for name, size, _, _ in list_objects(access.backend, "recipes"):
                sizes.here(_BUNDLES)[name] = size
                sizes.grew(1)
            damaged = tally_recipes(access, self._needed(sizes), self._who_needs(), self._tally, self._tell)
            self._damaged += (("recipe", error) for error in damaged)

    def _needed(self, sizes: KeyedRows) -> Iterator[tuple[bytes, int]]:
        """The recipes that are needed, with their sizes. The others are not read: nobody holds them."""
        for key, size, holders in self._bundles.joined(_BUNDLES, sizes.latest_in_order(_BUNDLES)):
            if holders is None:
                self._tally.add(size, None)
                continue
            self._pending[key] = each_of(holders)
            yield key, size

    def _who_needs(self) -> HoldersOf:
        if self._by != "artifact":
            return lambda key, recipe: (self._pending.pop(key),)

        def by_artifact(key: bytes, recipe: Recipe) -> Sequence[Sequence[int]]:
            flows = [label.name for number in self._pending.pop(key) for label in self._flows.sets[number]]
            return [[self._sets.of(f"{flow}/{artifact.name}") for flow in flows] for artifact in recipe.artifacts]

        return by_artifact


def labels_of(run: Run, record: RunRecord | None, by: str) -> frozenset[Label]:
    """What a run is told by, as its record says: its tags, its user, its branch."""
    tags = None if record is None else record.all_tags
    if by == "branch":
        name = facts.branch(*run, tags)
    elif record is None or record.tags is None:
        return frozenset((UNKNOWN,))
    elif by == "user":
        name = record.user or facts.user(record.system_tags | record.tags)
    else:
        return frozenset(map(Label, record.tags)) or frozenset((NONE,))
    if name:
        return frozenset((Label(name),))
    return frozenset((UNKNOWN if tags is None else NONE,))


def _batches(runs: Sequence[Run], metadata: str) -> Iterator[Sequence[Run]]:
    """Runs whose metadata is read together: a service is asked flow by flow, and of another root at least one run has
    to be there."""
    if metadata == "service":
        for _, group in groupby(runs, lambda run: run[0]):
            yield list(group)
    elif metadata != "local":
        yield runs
    else:
        rest = iter(runs)
        while some := list(islice(rest, RUNS_TOGETHER)):
            yield some


def _keys(bundles: Iterable[str]) -> Iterator[bytes]:
    for bundle in bundles:
        try:
            yield bytes.fromhex(bundle)
        except ValueError:
            continue  # names nothing that is stored


def _step_in(path: str) -> str | None:
    """The step that a card or a file of local metadata is of."""
    found = layout.CARD_TASK.search(path)
    if found is not None:
        return found["step"]
    parts = path.split("/")
    return parts[2] if len(parts) > 3 and parts[0] != "data" and "_meta" in parts[3:5] else None
