"""Runs that the storage itself keeps: by Object Lock, a file of theirs is under retention or a legal hold."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mfstore.backends.locks import words

if TYPE_CHECKING:
    from mfstore.backends.base import Backend, ObjectInfo, ObjectLock
    from mfstore.maintenance.metaflow.collecting.policy import Run


class RunLock(NamedTuple):
    """What keeps a run."""

    until: float
    """When it may be looked at again, in seconds since the epoch."""
    why: str


def read_locked_runs(backend: Backend, files: Mapping[Run, Sequence[ObjectInfo]]) -> dict[Run, RunLock]:
    """Those of the runs that have a file which is locked, by one request a file; mostly one for a run that is locked,
    since whoever locks a run locks all of it. AccessDenied when locks may not be asked for."""
    found: dict[Run, RunLock] = {}
    first = {infos[0].key: run for run, infos in files.items() if infos}
    _note(found, backend, first)
    rest = {info.key: run for run, infos in files.items() if run not in found for info in infos[1:]}
    _note(found, backend, rest)
    return found


def _note(found: dict[Run, RunLock], backend: Backend, runs: Mapping[str, Run]) -> None:
    for key, lock in backend.locks([*runs]).items() if runs else ():
        found.setdefault(runs[key], RunLock(_end(lock), f"{key} is under {words(lock)}"))


def _end(lock: ObjectLock) -> float:
    """When a lock may have ended: a legal hold now, for all that is known."""
    return time.time() if lock.legal_hold or lock.until is None else lock.until
