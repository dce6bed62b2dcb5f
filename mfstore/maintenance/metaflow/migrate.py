"""Migrate a Metaflow root from one profile to the other, or see what that would do.

The order that a stop at any point cannot hurt: the new form of all artifacts of some tasks is stored; then the
``data.json`` of each of them is replaced in one conditional write, which also notes what the artifacts were before
(``mfstore.metaflow.roots.migration_record``). Nothing is deleted, so both forms can be read until garbage collection
takes the old one.

Records of local metadata name the key of an artifact alone, and a stock client goes by that. Towards the stock profile
they are rewritten before ``data.json``, towards the packed one after it: what a record names is readable by itself if
it is a blob, and through the ``data.json`` that has it if it is packed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING, Any

from mfstore.errors import BackendError, Conflict, CorruptObject, MfstoreError, NotFound
from mfstore.host.workers import Workers
from mfstore.maintenance.metaflow.conversion import Conversion, described
from mfstore.maintenance.metaflow.migration import Attempt, Left, Migration, Piece, Shares, attempts, learned, shares
from mfstore.maintenance.metaflow.migration_report import Failure, FlowShare, MigrationPlan, MigrationResult
from mfstore.maintenance.metaflow.root import WINDOW, Holdings, Root
from mfstore.maintenance.metaflow.state import GcState, StateFile
from mfstore.maintenance.reading import spread
from mfstore.maintenance.report import PhaseProgress, untold
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.migration_record import Form, earlier_forms, with_new_forms

if TYPE_CHECKING:
    from mfstore.maintenance.report import PhaseCallback

TASKS = 64
"""Attempts converted together, before the first of their data.json is replaced."""
BYTES = 64 << 20
"""Bytes of artifacts, as they are pickled, that are converted together, unless one attempt has more."""
REQUESTS = 16
"""Attempts converted at a time in S3, where each waits for a few requests one after the other."""
FAILURES = 100
"""Failures of the storage, not of what is stored, after which it is not worth going on."""


@dataclass(slots=True)
class _Job:
    """An attempt, what its data.json says, and what is to be done about it."""

    attempt: Attempt
    document: dict[str, Any]
    shares: Shares
    own: dict[Piece, dict[str, Any]] = field(default_factory=dict)
    """What is converted for this attempt: the first that has it."""

    @property
    def size(self) -> int:
        """Bytes to be converted."""
        return sum(info.get("size") or 0 for info in self.own.values())


class Migrator:
    """One migration of one root. ``metadata`` is where the local metadata is, if not below the root."""

    def __init__(
        self, root: Root, wanted: Migration, tell: PhaseCallback = untold, metadata: Root | None = None
    ) -> None:
        wanted.check()
        self._root = root
        self._wanted = wanted
        self._tell = tell
        self._metadata = metadata or root
        self._holdings = Holdings()
        self._attempts: list[Attempt] = []
        self._left: list[Left] = []
        self._bundles: set[str] = set()
        self._recorded: set[str] = set()
        self._known: dict[Piece, Form | None] = {}
        """Of the flow at work: what pieces became; None for what could not be converted."""
        self._lock = threading.Lock()
        self.result = MigrationResult()

    # ---- planning -------------------------------------------------------------------------

    def plan(self, state: GcState | None = None, now: float = 0.0) -> MigrationPlan:
        """What there is to do. Changes nothing."""
        removing = (StateFile(self._root.backend).load() if state is None else state).removing
        self._holdings = self._root.list(self._tell)
        self._recorded = self._records()
        self._attempts, self._left = attempts(self._holdings, self._wanted, removing, now or time())
        if self._wanted.to == "stock":
            self._bundles = self._stored_bundles()
        left = list(self._left)
        by_flow: dict[str, _Sum] = {}
        unrecorded = 0
        for done, (attempt, document) in enumerate(self._documents(self._attempts)):
            if done % WINDOW == 0:
                self._tell(PhaseProgress("tasks", done, len(self._attempts)))
            total = by_flow.setdefault(attempt.task[0], _Sum())
            if isinstance(document, Left):
                left.append(document)
                continue
            found = self._shares(attempt, document)
            total.add(attempt, found, self._holdings)
            left += found.left
            unrecorded += bool(found.change) and attempt.records not in self._recorded
        self._tell(PhaseProgress("tasks", len(self._attempts), len(self._attempts)))
        for entry in left:
            kinds = by_flow.setdefault(entry.what.partition("/")[0], _Sum()).left
            kinds[entry.kind] = kinds.get(entry.kind, 0) + 1
        flows = tuple(total.share(flow) for flow, total in sorted(by_flow.items()))
        return MigrationPlan(self._root.url, self._wanted.to, flows, tuple(left), unrecorded)

    def _records(self) -> set[str]:
        """What the paths of records of artifacts begin with, each attempt's once."""
        infos = (
            (info for _, info in self._holdings.metadata)
            if self._metadata is self._root
            else self._metadata.backend.list("")
        )
        return {start + mark for start, mark, _ in (info.key.partition("_artifact_") for info in infos) if mark}

    def _stored_bundles(self) -> set[str]:
        with self._root.store() as store, suppress(NotFound):
            return {str(key) for key in store.keys()}  # noqa: SIM118
        return set()

    def _documents(self, chosen: Sequence[Attempt]) -> Iterator[tuple[Attempt, dict[str, Any] | Left]]:
        """What each data.json says, or why that is not known."""
        for at in range(0, len(chosen), WINDOW):
            window = chosen[at : at + WINDOW]
            found = self._root.backend.get_many([attempt.path for attempt in window])
            for attempt, (_, data) in zip(window, found, strict=True):
                try:
                    if isinstance(data, MfstoreError):
                        raise data
                    layout.references("data.json", data)
                    yield attempt, json.loads(bytes(data))
                except MfstoreError as error:
                    yield attempt, Left("unreadable", attempt.name, error.message)

    def _shares(self, attempt: Attempt, document: Mapping[str, Any]) -> Shares:
        return shares(attempt, document, self._wanted.to, self._holdings.blobs, self._bundles)

    # ---- carrying out ---------------------------------------------------------------------

    def run(self, take_over: bool = False) -> MigrationPlan:
        """Do it; ``result`` tells what was done and what could not be.

        Conflict while garbage is being collected, which this keeps out meanwhile; AccessDenied without the right to
        write. May be stopped at any time and run again.
        """
        file = StateFile(self._root.backend)
        state = file.begin(take_over)
        try:
            plan = self.plan(state, file.now)
            self.result.failures += [Failure(entry.kind, *_divided(entry.what), "", entry.why) for entry in plan.damage]
            if plan.changes or any(share.already for share in plan.flows):
                self._migrate(file, state)
        finally:
            file.end()
        return plan

    def _migrate(self, file: StateFile, state: GcState) -> None:
        conversion = Conversion(self._root, self._wanted.to)
        workers = Workers(REQUESTS if self._root.remote else 1)
        done = 0
        try:
            for window in self._windows():
                self._tell(PhaseProgress("migrating", done, len(self._attempts)))
                if done:
                    file.save(state)  # a sign of life, and proof that nobody took over
                self._each(workers, [job for job in window if job.own], lambda job: self._convert(conversion, job))
                self._each(workers, window, self._settle)
                done += len(window)
            self._tell(PhaseProgress("migrating", len(self._attempts), len(self._attempts)))
        finally:
            workers.close()
            conversion.close()

    def _each(self, workers: Workers, jobs: Sequence[_Job], work: Any) -> None:
        spread(workers, jobs, work, lambda job: 0, len(jobs))
        storage = [failure for failure in self.result.failures if failure.kind == "storage"]
        if len(storage) >= FAILURES:
            last = storage[-1]
            raise BackendError(f"the storage failed {FAILURES} times, the last time: {last.why}", key=last.task)

    def _windows(self) -> Iterator[list[_Job]]:
        """Attempts that are worked on together, in the order they began: what several share is converted for the first
        of them."""
        window: list[_Job] = []
        mine: set[Piece] = set()
        flow = ""
        size = 0
        for attempt, document in self._documents(self._attempts):
            if isinstance(document, Left):
                continue
            if attempt.task[0] != flow and window:
                yield window
                window, mine, size = [], set(), 0
            if attempt.task[0] != flow:
                flow = attempt.task[0]
                self._known.clear()
            job = _Job(attempt, document, self._shares(attempt, document))
            for piece, entry in learned(document, self._wanted.to):
                self._known.setdefault(piece, entry)
            for piece, info in job.shares.change.items():
                if piece not in self._known and piece not in mine:
                    mine.add(piece)
                    job.own[piece] = info
            if window and (len(window) >= TASKS or size + job.size > BYTES):
                yield window
                window, mine, size = [], {*job.own}, 0
            window.append(job)
            size += job.size
        if window:
            yield window

    def _convert(self, conversion: Conversion, job: _Job) -> None:
        found, failures = conversion.convert(job.attempt, job.own)
        for piece in job.own:
            self._known[piece] = found.get(piece)
            # The same artifact of a task that does not know what it was before.
            if piece in found:
                self._known.setdefault(Piece(piece.name, piece.key), found[piece])
        with self._lock:
            self.result.failures += failures
            self.result.artifacts += len(found)
            self.result.bytes += sum(info.get("size") or 0 for _, info in found.values())

    def _settle(self, job: _Job) -> None:
        """Have the attempt refer to what its artifacts became."""
        attempt = job.attempt
        new: dict[str, Form] = {}
        for piece in job.shares.change:
            entry = self._known.get(piece)
            if entry is not None:
                new[piece.name] = self._as_before(job.document, piece, entry)
            elif piece not in job.own:
                self._fail("damaged", attempt, "another task has it too, and it could not be converted there", piece)
        try:
            if not new:
                if earlier_forms(job.document):
                    self._rewrite(attempt, job.document, job.document)
                return
            document = with_new_forms(job.document, new)
            if self._wanted.to == "stock":
                if self._root.backend.head(attempt.path).etag != attempt.etag:
                    raise Conflict("it changed")
                self._rewrite(attempt, document, job.document)
            self._root.backend.put_if(attempt.path, json.dumps(document).encode(), attempt.etag)
            with self._lock:
                self.result.attempts += 1
            if self._wanted.to == "packed":
                self._rewrite(attempt, document, job.document)
        except Conflict:
            self._fail("changed", attempt, "its data.json has changed since it was listed: run this again")
        except MfstoreError as error:
            self._fail("storage", attempt, described(error))

    def _as_before(self, document: Mapping[str, Any], piece: Piece, entry: Form) -> Form:
        """The entry, as this task had it if it did."""
        for key, info in earlier_forms(document).get(piece.name, ()):
            if key == entry[0] and piece.former == key:
                return key, info
        return entry

    def _fail(self, kind: str, attempt: Attempt, why: str, piece: Piece | None = None) -> None:
        name, key = (piece.name, piece.key) if piece else ("", "")
        self.result.failures.append(Failure(kind, attempt.name, name, key, why))

    def _rewrite(self, attempt: Attempt, document: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Have the records of local metadata say what ``document`` does, of artifacts that were migrated."""
        if attempt.records not in self._recorded:
            return
        names = [*earlier_forms(document)]
        paths = [f"{attempt.records}{name}.json" for name in names]
        for name, (path, data) in zip(names, self._metadata.backend.get_many(paths), strict=True):
            if isinstance(data, NotFound):
                continue
            if isinstance(data, MfstoreError):
                raise data
            try:
                record = dict(json.loads(bytes(data)))
            except (ValueError, TypeError):
                raise CorruptObject("it is not a record of Metaflow's", key=path) from None
            new = {"sha": document["objects"][name], "content_type": document["info"][name]["encoding"]}
            if any(record.get(field) != value for field, value in new.items()):
                self._metadata.backend.put(path, [json.dumps({**record, **new}).encode()])
                with self._lock:
                    self.result.records += 1


@dataclass(slots=True)
class _Sum:
    """What there is to do in a flow, being added up."""

    runs: set[str] = field(default_factory=set)
    attempts: int = 0
    artifacts: set[tuple[str, str]] = field(default_factory=set)
    bytes: int = 0
    already: int = 0
    left: dict[str, int] = field(default_factory=dict)

    def add(self, attempt: Attempt, found: Shares, holdings: Holdings) -> None:
        """Count an attempt."""
        self.already += found.already
        if found.change:
            self.attempts += 1
            self.runs.add(attempt.task[1])
        for piece, info in found.change.items():
            if (piece.name, piece.key) not in self.artifacts:
                self.artifacts.add((piece.name, piece.key))
                blob = holdings.blobs.get((attempt.task[0], piece.key))
                self.bytes += info.get("size") or 0 if blob is None else blob.size

    def share(self, flow: str) -> FlowShare:
        """The sum."""
        return FlowShare(
            flow, len(self.runs), self.attempts, len(self.artifacts), self.bytes, self.already, dict(self.left)
        )


def _divided(what: str) -> tuple[str, str]:
    """Task and artifact of what was left."""
    task, _, artifact = what.partition(" ")
    return task, artifact
