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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING, Any

from mfstore.errors import BackendError, Conflict, MfstoreError
from mfstore.host.workers import Workers
from mfstore.maintenance.metaflow.collecting.state import RootGcState, StateFile
from mfstore.maintenance.metaflow.holdings import list_root
from mfstore.maintenance.metaflow.migrating.changes import (
    AttemptChanges,
    EndedAttempt,
    LeftAlone,
    MigrationOptions,
    StoredArtifact,
    known_forms,
)
from mfstore.maintenance.metaflow.migrating.conversion import Conversion, described
from mfstore.maintenance.metaflow.migrating.report import MigrationFailure, MigrationPlan, MigrationResult
from mfstore.maintenance.metaflow.migrating.survey import MigrationSurvey, survey
from mfstore.maintenance.reading import spread
from mfstore.maintenance.report import PhaseProgress, untold
from mfstore.metaflow.roots.migration_record import Form, earlier_forms, with_new_forms

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import PhaseCallback

ATTEMPTS_TOGETHER = 64
"""Attempts converted together, before the first of their data.json is replaced."""
BYTES_TOGETHER = 64 << 20
"""Bytes of artifacts, as they are pickled, that are converted together, unless one attempt has more."""
REMOTE_CONVERSIONS = 16
"""Attempts converted at a time in S3, where each waits for a few requests one after the other."""
STORAGE_FAILURES = 100
"""Failures of the storage, not of what is stored, after which it is not worth going on."""


def plan_migration(
    root: Root, options: MigrationOptions, *, metadata: Root | None = None, tell: PhaseCallback = untold
) -> MigrationPlan:
    """What there is to do. Changes nothing.

    Args:
        root: The datastore root.
        options: Which runs, and to which profile.
        metadata: Where the local metadata is, if not below the root.
        tell: Called now and then with how far it is.

    Raises:
        InvalidKey: options that make no sense.
        AccessDenied: something may not be read.
    """
    options.check()
    removing = StateFile(root.backend).load().removing
    return survey(root, list_root(root, tell), options, metadata, removing, time()).plan(tell)


def migrate_metaflow(
    root: Root, options: MigrationOptions, *, metadata: Root | None = None, take_over: bool = False,
    tell: PhaseCallback = untold,
) -> tuple[MigrationPlan, MigrationResult]:  # fmt: skip
    """Do it; the result tells what was done and what could not be.

    Garbage collection is kept out meanwhile. May be stopped at any time and run again.

    Args:
        root: The datastore root.
        options: Which runs, and to which profile.
        metadata: Where the local metadata is, if not below the root.
        take_over: Also when a collector or another migration is at work by the look of it: it died within the last
            minutes.
        tell: Called now and then with how far it is.

    Raises:
        InvalidKey: options that make no sense.
        NotAStore: there is no root. Nothing is written then.
        Conflict: garbage is being collected, or another migration is at work.
        CorruptObject: the state of collection is damaged.
        AccessDenied: there is no right to read or to write.
    """
    options.check()
    # A place that is no root is left as it is; and what changes from here on fails its conditional write.
    holdings = list_root(root, tell)
    file = StateFile(root.backend)
    state = file.begin(take_over)
    try:
        found = survey(root, holdings, options, metadata, state.removing, file.now)
        plan = found.plan(tell)
        migrator = Migrator(found)
        migrator.result.failures += [
            MigrationFailure(entry.kind, *_task_and_artifact(entry.what), "", entry.why) for entry in plan.damage
        ]
        if plan.changes or any(share.already for share in plan.flows):
            migrator.run(file, state, tell)
    finally:
        file.end()
    return plan, migrator.result


def _task_and_artifact(what: str) -> tuple[str, str]:
    task, _, artifact = what.partition(" ")
    return task, artifact


@dataclass(slots=True)
class AttemptWork:
    """An attempt, what its data.json says, and what is to be done about it."""

    attempt: EndedAttempt
    document: dict[str, Any]
    changes: AttemptChanges
    own: dict[StoredArtifact, dict[str, Any]] = field(default_factory=dict)
    """What is converted for this attempt: the first that has it. With the infos."""

    @property
    def size(self) -> int:
        """Bytes to be converted."""
        return sum(info.get("size") or 0 for info in self.own.values())


class KnownForms:
    """What the artifacts of the flow at work became, by what they were."""

    def __init__(self) -> None:
        self._forms: dict[StoredArtifact, Form | None] = {}

    def __contains__(self, artifact: StoredArtifact) -> bool:
        return artifact in self._forms

    def get(self, artifact: StoredArtifact) -> Form | None:
        """What it became; None for what could not be converted, or is not known."""
        return self._forms.get(artifact)

    def forget(self) -> None:
        """Another flow begins: it shares nothing with the one before."""
        self._forms.clear()

    def told(self, forms: Iterator[tuple[StoredArtifact, Form]]) -> None:
        """What a task that was migrated before tells of artifacts that others share with it."""
        for artifact, form in forms:
            self._forms.setdefault(artifact, form)

    def converted(self, artifact: StoredArtifact, form: Form | None) -> None:
        """An artifact was converted, or could not be."""
        self._forms[artifact] = form
        if form is not None:
            # The same artifact of a task that does not know what it was before.
            self._forms.setdefault(StoredArtifact(artifact.name, artifact.key), form)


class Migrator:
    """Carries out a migration."""

    def __init__(self, found: MigrationSurvey) -> None:
        self._found = found
        self._root = found.root
        self._to = found.options.to
        self._known = KnownForms()
        self._lock = threading.Lock()
        self.result = MigrationResult()
        """What was done so far, and what could not be."""

    def run(self, file: StateFile, state: RootGcState, tell: PhaseCallback) -> None:
        """Convert all there is, some attempts at a time. The caller owns ``state``."""
        conversion = Conversion(self._root, self._to)
        workers = Workers(REMOTE_CONVERSIONS if self._root.remote else 1)
        done, of = 0, len(self._found.attempts)
        try:
            for window in self._windows():
                tell(PhaseProgress("migrating", done, of))
                if done:
                    file.save(state)  # a sign of life, and proof that nobody took over
                self._each(workers, [work for work in window if work.own], lambda work: self.convert(conversion, work))
                self._each(workers, window, self.switch)
                done += len(window)
            tell(PhaseProgress("migrating", of, of))
        finally:
            workers.close()
            conversion.close()

    def _each(self, workers: Workers, window: Sequence[AttemptWork], do: Callable[[AttemptWork], None]) -> None:
        spread(workers, window, do, lambda work: 0, len(window))
        storage = [failure for failure in self.result.failures if failure.kind == "storage"]
        if len(storage) >= STORAGE_FAILURES:
            last = storage[-1]
            raise BackendError(f"the storage failed {STORAGE_FAILURES} times, the last time: {last.why}", key=last.task)

    def _windows(self) -> Iterator[list[AttemptWork]]:
        """Attempts that are worked on together, in the order they began: what several share is converted for the first
        of them."""
        window: list[AttemptWork] = []
        claimed: set[StoredArtifact] = set()
        flow = ""
        size = 0
        for attempt, document in self._found.documents():
            if isinstance(document, LeftAlone):
                continue
            if attempt.task[0] != flow and window:
                yield window
                window, claimed, size = [], set(), 0
            if attempt.task[0] != flow:
                flow = attempt.task[0]
                self._known.forget()
            work = AttemptWork(attempt, document, self._found.changes(attempt, document))
            self._known.told(known_forms(document, self._to))
            for artifact, info in work.changes.change.items():
                if artifact not in self._known and artifact not in claimed:
                    claimed.add(artifact)
                    work.own[artifact] = info
            if window and (len(window) >= ATTEMPTS_TOGETHER or size + work.size > BYTES_TOGETHER):
                yield window
                window, claimed, size = [], {*work.own}, 0
            window.append(work)
            size += work.size
        if window:
            yield window

    def convert(self, conversion: Conversion, work: AttemptWork) -> None:
        """Store the new form of what is converted for an attempt."""
        found, failures = conversion.convert(work.attempt, work.own)
        for artifact in work.own:
            self._known.converted(artifact, found.get(artifact))
        with self._lock:
            self.result.failures += failures
            self.result.artifacts += len(found)
            self.result.bytes += sum(info.get("size") or 0 for _, info in found.values())

    def switch(self, work: AttemptWork) -> None:
        """Have the attempt refer to what its artifacts became."""
        attempt = work.attempt
        new = self._new_forms(work)
        try:
            if not new:
                if earlier_forms(work.document):
                    self._follow(attempt, work.document)
                return
            document = with_new_forms(work.document, new, recorded=self._found.records.has(attempt))
            if self._to == "stock":
                if self._root.backend.head(attempt.path).etag != attempt.etag:
                    raise Conflict("it changed")
                self._follow(attempt, document)
            self._root.backend.put_if(attempt.path, json.dumps(document).encode(), attempt.etag)
            with self._lock:
                self.result.attempts += 1
            if self._to == "packed":
                self._follow(attempt, document)
        except Conflict:
            self._fail("changed", attempt, "its data.json has changed since it was listed: run this again")
        except MfstoreError as error:
            self._fail("storage", attempt, described(error))

    def _new_forms(self, work: AttemptWork) -> dict[str, Form]:
        new: dict[str, Form] = {}
        for artifact in work.changes.change:
            form = self._known.get(artifact)
            if form is not None:
                new[artifact.name] = _as_before(work.document, artifact, form)
            elif artifact not in work.own:
                why = "another task has it too, and it could not be converted there"
                self._fail("damaged", work.attempt, why, artifact)
        return new

    def _follow(self, attempt: EndedAttempt, document: Mapping[str, Any]) -> None:
        """Bring the attempt's records in local metadata up to date."""
        for _ in self._found.records.follow(attempt, document):
            with self._lock:
                self.result.records += 1

    def _fail(self, kind: str, attempt: EndedAttempt, why: str, artifact: StoredArtifact | None = None) -> None:
        name, key = (artifact.name, artifact.key) if artifact else ("", "")
        self.result.failures.append(MigrationFailure(kind, attempt.name, name, key, why))


def _as_before(document: Mapping[str, Any], artifact: StoredArtifact, form: Form) -> Form:
    """The form, as this task had it if it did."""
    for key, info in earlier_forms(document).get(artifact.name, ()):
        if key == form[0] and artifact.earlier_blob == key:
            return key, info
    return form
