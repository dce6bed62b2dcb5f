"""Verify a datastore root of stock Metaflow: blobs against their keys, what tasks refer to against what is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.recipes import recipe_path
from mfstore.maintenance.metaflow.report import MetaflowFinding, MetaflowReport
from mfstore.maintenance.metaflow.root import Holdings, Read, Root, TaskName
from mfstore.maintenance.report import PhaseProgress, untold
from mfstore.maintenance.verification import REFUSALS, ShardPass, VerifyOptions
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.attempts import DATA
from mfstore.metaflow.roots.layout import STORE_FOLDER as STORE
from mfstore.metaflow.roots.layout import References, Task
from mfstore.metaflow.stock import encoding

if TYPE_CHECKING:
    from mfstore.host.workers import Workers
    from mfstore.maintenance.report import PhaseCallback

PROGRESS_PATH = f"{layout.MAINTENANCE_FOLDER}/verify"
RUNNING_SECONDS = 86400.0
"""An attempt that began so long ago at most and has not ended may still be running."""

Blob = tuple[str, str]
"""Flow and key."""


def judge(read: Read, directory: bool, workers: Workers) -> tuple[str, str] | None:
    """What is wrong with a blob as it is stored, as kind and detail; None when it is whole.

    ``meta-less`` and ``wrong-metadata`` are blobs whose bytes are what the key says, so that the metadata can be
    written anew; every other kind is lost. ``directory``: metadata has a file of its own, which can be missing.
    """
    metadata = read.metadata
    version = metadata.get("cas_version") if isinstance(metadata, dict) else None
    if version is not None and version not in layout.CAS_VERSIONS:
        raise Unsupported(f"its encoding, cas_version {version}, is unknown to this mfstore")
    raw = isinstance(metadata, dict) and bool(metadata.get("cas_raw"))
    problem = _wrong(read, raw, workers)
    described = isinstance(metadata, dict) and version is not None
    if problem is None:
        if described or (not directory and metadata is None):
            return None
        return (
            "meta-less" if metadata is None else "wrong-metadata"
        ), "its metadata is missing, or not what it should be"
    if _wrong(read, not raw, workers) is None and len(read.key) == 40:
        if metadata is None:
            return "meta-less", "it is stored raw and lacks the metadata that says so: Metaflow cannot read it"
        return "wrong-metadata", "its metadata says that it is stored otherwise than it is"
    return problem


def _wrong(read: Read, raw: bool, workers: Workers) -> tuple[str, str] | None:
    """What is wrong with a blob if it is stored like that."""
    if not read.data and not raw:
        return "empty", "no bytes: Metaflow may load them as an empty artifact"
    try:
        content = read.data if raw else encoding.decode(read.data, workers)
    except CorruptObject as error:
        return "damaged", error.message
    if not encoding.fits_key(read.key, content):
        return "wrong-hash", f"its {len(content)} bytes have the SHA-1 {encoding.key_of(content)}"
    return None


def attempt_findings(name: TaskName, task: Task, now: float) -> Iterator[MetaflowFinding]:
    """What is wrong with the attempts of a task, by listing. Pure."""
    prefix = "/".join(name)
    for attempt in sorted({*task.started, *task.done}):
        path = f"{prefix}/{attempt}.{DATA}"
        data = task.files.get((attempt, DATA))
        if attempt in task.done:
            if data is None or not data.size:
                readable = (f"{prefix}/*",) if attempt == task.readable else ()
                yield MetaflowFinding(
                    "done-without-data",
                    path,
                    "the attempt is marked done and what it stored is not written down",
                    readable,
                )
        elif attempt not in task.running(now, RUNNING_SECONDS):
            yield MetaflowFinding(
                "half-written",
                f"{prefix}/{attempt}",
                "the attempt began and never ended: readers leave it out",
                harm="none",
            )


class MetaflowVerifier:
    """One pass over a root; afterwards its attributes say what is known."""

    def __init__(self, root: Root, options: VerifyOptions, tell: PhaseCallback) -> None:
        self.root = root
        self._tell = tell
        self._lock = threading.Lock()
        self.holdings = Holdings()
        self.blobs: dict[Blob, tuple[str, str]] = {}
        """Kind and detail of each blob that is not as it should be."""
        self.findings: list[MetaflowFinding] = []
        self.refused: dict[str, MfstoreError] = {}
        self.checked = self.blobs_checked = self.running = 0
        self.level = options.level
        self.shards = ShardPass(root.backend, PROGRESS_PATH, options)

    def run(self) -> None:
        """Look at everything the level asks for."""
        self.holdings = self.root.list(self._tell)
        self.shards.load()
        now = time.time()
        for name, task in self.holdings.tasks.items():
            self.findings += attempt_findings(name, task, now)
            self.running += len(task.running(now, RUNNING_SECONDS))
        for blob, info in self.holdings.blobs.items():
            if not info.size:
                self.blobs[blob] = "empty", "no bytes: Metaflow may load them as an empty artifact"
        if self.level == "list":
            if not self.root.remote:
                for blob in self.holdings.blobs.keys() - self.holdings.metas.keys() - self.blobs.keys():
                    self.blobs[blob] = "meta-less", "no metadata beside it"
            return
        bundles: dict[str, set[str]] = {}
        for name, attempt, found in self.references():
            for key in found.artifacts.values():
                if (name[0], key) not in self.holdings.blobs:
                    self.blobs.setdefault((name[0], key), ("missing", "no such blob"))
            for bundle in found.bundles:
                touched = bundles.setdefault(bundle, set())
                if attempt == self.holdings.tasks[name].readable:
                    touched.add("/".join((*name, "*")))
        self._check_bundles(bundles)
        if self.level == "full":
            self._read_blobs()
        self._confirm()

    # ---- what tasks refer to --------------------------------------------------------------

    def references(self) -> Iterator[tuple[TaskName, int, References]]:
        """What the files of each attempt refer to; what is wrong with them is noted."""
        for name, attempt, kind, found in self.root.references(self.holdings, self._tell):
            if isinstance(found, References):
                yield name, attempt, found
            elif isinstance(found, NotFound):
                continue  # removed since it was listed
            elif not isinstance(found, CorruptObject):
                self._refuse(f"{'/'.join(name)}/{attempt}.{kind}", found)
            elif self.holdings.tasks[name].files[attempt, kind].size:  # an empty one is told by the listing
                self._note_once(self._unparsable(name, attempt, kind, found))

    def _unparsable(self, name: TaskName, attempt: int, kind: str, error: CorruptObject) -> MetaflowFinding:
        readable = kind == DATA and attempt == self.holdings.tasks[name].readable
        prefix = "/".join(name)
        touched = (f"{prefix}/*",) if readable else ()
        harm: Any = "data" if readable else "none"
        return MetaflowFinding("damaged", f"{prefix}/{attempt}.{kind}", error.message, touched, harm=harm)

    def _note_once(self, finding: MetaflowFinding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)

    def _refuse(self, path: str, error: MfstoreError) -> None:
        with self._lock:
            self.refused[path] = error
            if len(self.refused) >= REFUSALS:
                raise error

    def _check_bundles(self, bundles: Mapping[str, set[str]]) -> None:
        """Are the bundles of the packed profile there? Their store has its own verify."""
        paths = [f"{STORE}/{recipe_path(bundle)}" for bundle in bundles]
        for bundle, path, there in zip(bundles, paths, self.root.backend.exists_many(paths), strict=True):
            if not there:
                harm: Any = "data" if bundles[bundle] else "none"
                names = tuple(sorted(bundles[bundle]))
                self.findings.append(MetaflowFinding("missing", path, "no such bundle", names, harm=harm))

    # ---- blobs ----------------------------------------------------------------------------

    def _read_blobs(self) -> None:
        by_shard: dict[str, list[Blob]] = {shard: [] for shard in self.shards.shards()}
        for blob in self.holdings.blobs:
            shard = blob[1].removeprefix("r_")[:2]
            if shard in by_shard:
                by_shard[shard].append(blob)
        total = sum(self.holdings.blobs[blob].size for names in by_shard.values() for blob in names)
        with self.shards.noting():
            for shard, names in by_shard.items():
                if self.shards.expired():
                    return
                begun = time.time()
                self.check(names, lambda size: self._tell(PhaseProgress("data", self.checked, total)))
                self.shards.verified(shard, not any(blob in self.blobs for blob in names), begun)

    def check(self, names: Iterable[Blob], tell: Any = lambda size: None) -> None:
        """Read blobs and compare them with their keys."""

        def work(blob: Blob, read: Read | MfstoreError) -> None:
            path = layout.blob_path(*blob)
            try:
                if isinstance(read, MfstoreError):
                    raise read
                problem = judge(read, not self.root.remote, self.root.alone)
            except NotFound:
                return  # removed since it was listed
            except MfstoreError as error:
                self._refuse(path, error)
                return
            with self._lock:
                self.blobs_checked += 1
                self.checked += len(read.data)
                if problem is None:
                    self.blobs.pop(blob, None)
                else:
                    self.blobs[blob] = problem
                tell(len(read.data))

        self.root.read_blobs(names, self.holdings.metas, work)

    def _confirm(self) -> None:
        """Look again at what seems missing: it may have been stored since the listing, and the task be gone."""
        missing = [blob for blob, (kind, _) in self.blobs.items() if kind == "missing"]
        paths = [layout.blob_path(*blob) for blob in missing]
        for blob, there in zip(missing, self.root.backend.exists_many(paths), strict=True):
            if there:
                del self.blobs[blob]

    # ---- what it means --------------------------------------------------------------------

    def report(self) -> tuple[MetaflowFinding, ...]:
        """Everything that is not as it should be, with what it touches."""
        touched: dict[Blob, set[str]] = {}
        if self.blobs:
            for name, attempt, found in self.references():
                readable = attempt == self.holdings.tasks[name].readable
                for label, key in found.artifacts.items():
                    if readable and (name[0], key) in self.blobs:
                        touched.setdefault((name[0], key), set()).add("/".join((*name, label)))
        findings = list(self.findings)
        for blob, (kind, detail) in self.blobs.items():
            names = tuple(sorted(touched.get(blob, ())))
            finding = MetaflowFinding(kind, layout.blob_path(*blob), detail, names, *blob)
            if kind == "meta-less" and "Metaflow cannot" not in detail:
                finding = replace(finding, artifacts=(), harm="none")  # old versions of Metaflow wrote none
            elif not names:
                # Nobody reads a missing one; any other is taken for stored by the next task with the same content.
                finding = replace(finding, harm="none" if kind == "missing" else "later")
            findings.append(finding)
        for path, error in self.refused.items():
            kind = "unknown" if isinstance(error, Unsupported) else "unreadable"
            findings.append(MetaflowFinding(kind, path, str(error)))
        order = {"data": 0, "later": 1, "none": 2}
        return tuple(sorted(findings, key=lambda finding: (order[finding.harm], finding.object)))


def verify_metaflow(
    root: Root, options: VerifyOptions, tell: PhaseCallback | None = None
) -> tuple[MetaflowReport, MetaflowVerifier]:
    """A pass over a root: its report, and what repair needs to know besides."""
    begun = time.monotonic()
    verifier = MetaflowVerifier(root, options, tell or untold)
    verifier.run()
    holdings = verifier.holdings
    times = verifier.shards.times
    known = [times.get(blob[1].removeprefix("r_")[:2], 0.0) for blob in holdings.blobs]
    report = MetaflowReport(
        url=root.url,
        level=options.level,
        findings=verifier.report(),
        flows=len(holdings.flows),
        runs=len(holdings.runs),
        tasks=len(holdings.tasks),
        blobs=len(holdings.blobs),
        stored=holdings.stored,
        blobs_checked=verifier.blobs_checked,
        checked=verifier.checked,
        running=verifier.running,
        complete=verifier.shards.complete,
        oldest=min(known, default=0.0) or None,
        remembered=verifier.shards.remembered,
        seconds=time.monotonic() - begun,
    )
    return report, verifier
