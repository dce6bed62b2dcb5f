"""Records of artifacts in Metaflow's local metadata: each names the key of one artifact, and clients go by that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject, MfstoreError, NotFound
from mfstore.metaflow.roots.migration_record import earlier_forms

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.maintenance.metaflow.migrating.changes import EndedAttempt

ARTIFACT_INFIX = "_artifact_"
"""In the path of a record: behind the attempt's number, before the artifact's name."""


class ArtifactRecords:
    """The records in one place, which may be the root or another."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._attempts: set[str] = set()

    def find(self, paths: Iterable[str]) -> None:
        """Look which attempts have records, among these paths of local metadata."""
        for attempt, separator, _ in (path.partition(ARTIFACT_INFIX) for path in paths):
            if separator:
                self._attempts.add(attempt + separator)

    def has(self, attempt: EndedAttempt) -> bool:
        """Whether there are records of this attempt's artifacts."""
        return attempt.records in self._attempts

    def follow(self, attempt: EndedAttempt, document: Mapping[str, Any]) -> Iterator[str]:
        """Have the records say what ``document`` does, of artifacts that were migrated: the path of each record that is
        rewritten, when it was."""
        if not self.has(attempt):
            return
        names = [*earlier_forms(document)]
        paths = [f"{attempt.records}{name}.json" for name in names]
        for name, (path, data) in zip(names, self._backend.get_many(paths), strict=True):
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
                self._backend.put(path, [json.dumps({**record, **new}).encode()])
                yield path
