"""Verify a datastore root of stock Metaflow: blobs against their keys, what tasks refer to against what is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.recipes import recipe_path
from mfstore.maintenance.metaflow.blob_reads import (
    LongBlob,
    StoredBlob,
    drop_stored,
    read_again,
    read_blobs,
    read_objects,
)
from mfstore.maintenance.metaflow.findings import (
    EMPTY,
    RUNNING_SECONDS,
    Problem,
    attempt_findings,
    blob_finding,
    card_finding,
    judge,
)
from mfstore.maintenance.metaflow.holdings import Holdings, list_flows, list_root
from mfstore.maintenance.metaflow.includes import IncludeCheck
from mfstore.maintenance.metaflow.listed_blobs import BlobName
from mfstore.maintenance.metaflow.listed_tasks import TaskName
from mfstore.maintenance.metaflow.references import ReferringFile, read_references
from mfstore.maintenance.metaflow.report import MetaflowFinding, MetaflowHarm, MetaflowReport
from mfstore.maintenance.report import PhaseProgress, untold
from mfstore.maintenance.verification import REFUSALS, ShardPass, VerifyOptions
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.attempts import DATA
from mfstore.metaflow.roots.layout import MAINTENANCE_FOLDER, References
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import PhaseCallback
    from mfstore.metaflow.roots.layout import ParsedPath

PROGRESS_PATH = f"{MAINTENANCE_FOLDER}/verify"


class RefusedObjects:
    """Objects that the storage did not give, or that this mfstore does not know. Any thread may add one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.errors: dict[str, MfstoreError] = {}

    def add(self, path: str, error: MfstoreError) -> None:
        """Note why an object could not be read. Raises the error when too many could not be."""
        with self._lock:
            self.errors[path] = error
            if len(self.errors) >= REFUSALS:
                raise error

    def findings(self) -> Iterator[MetaflowFinding]:
        """Each as a finding."""
        for path, error in self.errors.items():
            kind = "unknown" if isinstance(error, Unsupported) else "unreadable"
            yield MetaflowFinding(kind, path, str(error))


class BlobCheck:
    """What is known of the blobs of a root."""

    def __init__(self, root: Root, holdings: Holdings, refused: RefusedObjects) -> None:
        self._root = root
        self._holdings = holdings
        self._refused = refused
        self._lock = threading.Lock()
        self.problems: dict[BlobName, Problem] = {name: EMPTY for name, info in holdings.blobs.items() if not info.size}
        """What is wrong with each blob that is not as it should be, as far as is known."""
        self.blobs_checked = 0
        """Blobs read, decoded and compared with their keys."""
        self.bytes_checked = 0
        """Their bytes as they are stored."""

    def look_for_metadata(self) -> None:
        """Note the blobs without a metadata file, where blobs have one."""
        if not self._root.remote:
            for name in self._holdings.blobs.keys() - self._holdings.metas.keys() - self.problems.keys():
                self.problems[name] = "meta-less", "no metadata beside it"

    def expect(self, name: BlobName) -> None:
        """Something refers to this blob: it should be there."""
        if name not in self._holdings.blobs:
            self.problems.setdefault(name, ("missing", "no such blob"))

    def read(self, names: Iterable[BlobName], tell: Callable[[], None] = lambda: None) -> None:
        """Read blobs and compare them with their keys. ``tell`` is called after each, by one thread at a time."""

        def work(name: BlobName, blob: StoredBlob | MfstoreError) -> None:
            try:
                if isinstance(blob, MfstoreError):
                    raise blob
                problem = judge(blob, not self._root.remote)
                if problem is not None:
                    # One bad read is no damage.
                    blob = read_again(self._root, blob)
                    problem = judge(blob, not self._root.remote)
            except NotFound:
                return  # removed since it was listed
            except MfstoreError as error:
                self._refused.add(layout.blob_path(*name), error)
                return
            with self._lock:
                self.blobs_checked += 1
                self.bytes_checked += len(blob.data)
                if problem is None:
                    self.problems.pop(name, None)
                else:
                    self.problems[name] = problem
                tell()

        read_blobs(self._root, names, self._holdings.metas, work, self._holdings.blobs)

    def confirm_missing(self) -> None:
        """Look again at what seems missing: it may have been stored since the listing, and the task be gone."""
        drop_stored(self._root, self.problems, layout.blob_path)


@dataclass(frozen=True, slots=True)
class RootPass:
    """One pass over a root; repair goes on with what it knows."""

    root: Root
    options: VerifyOptions
    tell: PhaseCallback
    holdings: Holdings
    shards: ShardPass
    refused: RefusedObjects
    blobs: BlobCheck
    includes: IncludeCheck
    noted: list[MetaflowFinding]
    """What is wrong besides blobs and IncludeFiles."""
    now: float
    """When the listing was made, on this machine's clock."""

    def run(self) -> None:
        """Look at everything the level asks for."""
        for name, task in self.holdings.tasks.items():
            self.noted.extend(attempt_findings(name, task, self.now))
        for path, info in self.holdings.cards:
            if not info.size and (finding := card_finding(path, info.key, None)):
                self.noted.append(finding)
        if self.options.level == "list":
            self.blobs.look_for_metadata()
            return
        bundles: dict[str, set[str]] = {}
        for name, attempt, _, found in self._references():
            for key in found.artifacts.values():
                self.blobs.expect((name[0], key))
            self.includes.refer(name, found, self._readable(name, attempt))
            for bundle in found.bundles:
                touched = bundles.setdefault(bundle, set())
                if self._readable(name, attempt):
                    touched.add("/".join((*name, "*")))
        self._check_bundles(bundles)
        self.includes.expect()
        if self.options.level == "full":
            self._read_blobs()
        self.blobs.confirm_missing()
        self.includes.confirm_missing()

    def _readable(self, name: TaskName, attempt: int) -> bool:
        """Whether readers take this attempt of the task."""
        return attempt == self.holdings.tasks[name].readable

    def _references(self) -> Iterator[tuple[TaskName, int, str, References]]:
        """What the files of each attempt refer to; what is wrong with them is noted."""
        for file in read_references(self.root, self.holdings, self.tell):
            name, attempt, kind, found = file
            if isinstance(found, References):
                yield name, attempt, kind, found
            elif isinstance(found, NotFound):
                continue  # removed since it was listed
            elif not isinstance(found, CorruptObject):
                self.refused.add(f"{'/'.join(name)}/{attempt}.{kind}", found)
            elif self.holdings.tasks[name].files[attempt, kind].size:  # an empty one is told by the listing
                finding = self._unparsable(file, found)
                if finding not in self.noted:
                    self.noted.append(finding)

    def _unparsable(self, file: ReferringFile, error: CorruptObject) -> MetaflowFinding:
        readable = file.kind == DATA and self._readable(file.task, file.attempt)
        prefix = "/".join(file.task)
        touched = (f"{prefix}/*",) if readable else ()
        harm: MetaflowHarm = "data" if readable else "none"
        return MetaflowFinding("damaged", f"{prefix}/{file.attempt}.{file.kind}", error.message, touched, harm=harm)

    def _check_bundles(self, bundles: Mapping[str, set[str]]) -> None:
        """Are the bundles of the packed profile there? Their store has its own verify."""
        paths = [f"{STORE_FOLDER}/{recipe_path(bundle)}" for bundle in bundles]
        for bundle, path, there in zip(bundles, paths, self.root.backend.exists_many(paths), strict=True):
            if not there:
                harm: MetaflowHarm = "data" if bundles[bundle] else "none"
                names = tuple(sorted(bundles[bundle]))
                self.noted.append(MetaflowFinding("missing", path, "no such bundle", names, harm=harm))

    def _read_blobs(self) -> None:
        by_shard: dict[str, list[BlobName]] = {shard: [] for shard in self.shards.shards()}
        for name in self.holdings.blobs:
            if shard_of_blob(name) in by_shard:
                by_shard[shard_of_blob(name)].append(name)
        includes: dict[str, list[BlobName]] = {shard: [] for shard in by_shard}
        for name in self.holdings.includes:
            if name[1][:2] in includes:
                includes[name[1][:2]].append(name)
        cards: dict[str, dict[str, ParsedPath]] = {shard: {} for shard in by_shard}
        for path, info in self.holdings.cards:
            shard = sha1(info.key.encode(), usedforsecurity=False).hexdigest()[:2]
            if info.size and shard in cards:
                cards[shard][info.key] = path
        total = sum(self.holdings.blobs[name].size for names in by_shard.values() for name in names)
        with self.shards.noting():
            for shard, names in by_shard.items():
                if self.shards.expired():
                    return
                begun = time.time()
                self.blobs.read(names, lambda: self.tell(PhaseProgress("data", self.blobs.bytes_checked, total)))
                self.includes.read(includes[shard])
                whole = self._read_cards(cards[shard]) and not any(name in self.blobs.problems for name in names)
                whole = whole and not any(name in self.includes.problems for name in includes[shard])
                self.shards.verified(shard, whole, begun)

    def _read_cards(self, cards: Mapping[str, ParsedPath]) -> bool:
        """Whether these show no damage."""
        found: list[MetaflowFinding] = []

        def work(key: str, data: bytes | LongBlob | MfstoreError) -> None:
            if isinstance(data, MfstoreError):
                if not isinstance(data, NotFound):  # removed since it was listed
                    self.refused.add(key, data)
            elif finding := card_finding(cards[key], key, data[:]):
                found.append(finding)

        read_objects(self.root, cards, work)
        self.noted.extend(found)
        return not found

    # ---- what it means --------------------------------------------------------------------

    def findings(self) -> tuple[MetaflowFinding, ...]:
        """Everything that is not as it should be, with what it touches, data first."""
        touched: dict[BlobName, set[str]] = {}
        problems = self.blobs.problems
        if problems:
            for name, attempt, _, found in self._references():
                for label, key in found.artifacts.items():
                    if self._readable(name, attempt) and (name[0], key) in problems:
                        touched.setdefault((name[0], key), set()).add("/".join((*name, label)))
        findings = [
            *self.noted,
            *(blob_finding(name, problem, touched.get(name, ())) for name, problem in problems.items()),
            *self.includes.findings(),
            *self.refused.findings(),
        ]
        order = {"data": 0, "later": 1, "none": 2}
        return tuple(sorted(findings, key=lambda finding: (order[finding.harm], finding.object)))

    def report(self, begun: float) -> MetaflowReport:
        """What was looked at and found, by a pass that began at this time of the monotonic clock."""
        holdings, times = self.holdings, self.shards.times
        known = [times.get(shard_of_blob(name), 0.0) for name in holdings.blobs]
        return MetaflowReport(
            url=self.root.url,
            level=self.options.level,
            findings=self.findings(),
            flows=len(holdings.flows),
            runs=len(holdings.runs),
            tasks=len(holdings.tasks),
            blobs=len(holdings.blobs),
            stored=holdings.stored,
            blobs_checked=self.blobs.blobs_checked,
            checked=self.blobs.bytes_checked,
            running=sum(len(task.running(self.now, RUNNING_SECONDS)) for task in holdings.tasks.values()),
            complete=self.shards.complete,
            oldest=min(known, default=0.0) or None,
            remembered=self.shards.remembered,
            seconds=time.monotonic() - begun,
        )


def shard_of_blob(name: BlobName) -> str:
    """The shard of a blob: by the first two digits of its key."""
    return name[1].removeprefix("r_")[:2]


def verify_metaflow(
    root: Root, options: VerifyOptions, tell: PhaseCallback | None = None, flows: Sequence[str] | None = None
) -> tuple[MetaflowReport, RootPass]:
    """A pass over a root: its report, and what repair needs to know besides. Never raises for damage.

    Args:
        root: The datastore root.
        options: How closely to look.
        tell: Called now and then, from any thread but never from two at once. What it raises ends the pass.
        flows: Only these; None: all. What was read of some is not remembered.

    Raises:
        AccessDenied: the root may not be listed, or 100 objects in it may not be read.
        BackendError: the storage failed, at a listing or at 100 objects.
    """
    begun = time.monotonic()
    progress = tell or untold
    shards = ShardPass(root.backend, PROGRESS_PATH if flows is None else None, options)
    holdings = list_root(root, progress) if flows is None else list_flows(root, flows, progress)
    shards.load()
    refused = RefusedObjects()
    found = RootPass(
        root=root, options=options, tell=progress, holdings=holdings, shards=shards, refused=refused,
        blobs=BlobCheck(root, holdings, refused), includes=IncludeCheck(root, holdings, refused.add), noted=[],
        now=time.time(),
    )  # fmt: skip
    found.run()
    return found.report(begun), found
