"""Who let what go: the log that collections of stores and of Metaflow roots write (docs/format.md, "Log of
collections"), and tell through ``logging`` as ``mfstore.gc``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from mfstore import provenance
from mfstore.errors import AccessDenied, MfstoreError, OutOfSpace
from mfstore.format.audit import (
    BEGIN,
    END,
    AuditRecord,
    Line,
    decode_record,
    encode_record,
    is_record,
    new_execution,
    record_key,
)
from mfstore.host.elapsed import moment, since

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

logger = logging.getLogger("mfstore.gc")
READ_TOGETHER = 64
"""Records asked for together: who looks for one thing mostly finds it in the latest."""


class Account(NamedTuple):
    """What an execution is about to do, or did."""

    facts: Mapping[str, Any]
    """Sums: ``objects``, ``bytes``, …"""
    lines: Sequence[Line] = ()
    """Each thing that goes."""


class AuditLog:
    """The log of one execution, below ``folder`` of a backend.

    On a disk without room the log is left out, as ``logging`` and ``complete`` tell, rather than what makes room. A
    refusal to write it ends the execution before it deletes anything.
    """

    def __init__(self, backend: Backend, folder: str, action: str, policy: Mapping[str, Any]) -> None:
        self._backend = backend
        self._folder = folder
        self._action = action
        self._policy = policy
        self._execution = new_execution()
        self.complete = True
        """Whether all that was to be written is."""

    @contextmanager
    def execution(self, now: float, about: Account, did: Callable[[], Account]) -> Iterator[None]:
        """Write what is about to be done, let it be done, and write what was.

        Args:
            now: The storage's time.
            about: What is about to be done.
            did: Tells at the end what was done, also of what was interrupted.
        """
        where = self._backend.url
        begun = moment()
        logger.info("%s of %s begins: %s", self._action, where, _sums(about.facts))
        self._write(self._record(BEGIN, now, about))
        said: dict[str, Any] = {"outcome": "done"}
        try:
            yield
        except BaseException as error:
            said = {"outcome": "failed", "error": str(error) or type(error).__name__}
            raise
        finally:
            facts, lines = did()
            level = logging.INFO if said["outcome"] == "done" else logging.ERROR
            logger.log(level, "%s of %s %s: %s", self._action, where, said["outcome"], _sums(facts))
            for line in lines:
                logger.info("%s of %s: %s", self._action, where, _sums(line))
            # What was done is done: that it cannot be written down changes nothing of how it ended. Room that was made
            # is for what needs it more than the end of a story without a beginning.
            if self.complete:
                try:
                    self._write(self._record(END, now + since(begun), Account({**said, **facts}, lines)))
                except MfstoreError as error:
                    self._miss(error)

    def _record(self, event: str, now: float, account: Account) -> AuditRecord:
        task = provenance.task()
        facts = {**({"task": task} if task else {}), **account.facts}
        return AuditRecord(
            self._execution, event, self._action, now, provenance.user(), self._policy, facts, tuple(account.lines)
        )

    def _write(self, record: AuditRecord) -> None:
        try:
            self._backend.put(record_key(self._folder, record), [encode_record(record)])
        except OutOfSpace as error:
            self._miss(error)

    def _miss(self, error: MfstoreError) -> None:
        self.complete = False
        logger.warning("not all of this %s of %s is in its log: %s", self._action, self._backend.url, error)


def read_log(backend: Backend, folder: str, after: float = 0.0) -> Iterator[AuditRecord]:
    """The records of a log, the latest first, from this time on. What is none, or cannot be read any more, is left out.

    Raises:
        AccessDenied: the log may not be listed, or a record not be read.
    """
    keys = sorted((info.key for info in backend.list(folder) if is_record(info.key)), reverse=True)
    for at in range(0, len(keys), READ_TOGETHER):
        for _, data in backend.get_many(keys[at : at + READ_TOGETHER]):
            if isinstance(data, AccessDenied):
                raise data
            record = None if isinstance(data, MfstoreError) else decode_record(data)
            if record is None:
                continue
            if record.time < after:
                return
            yield record


def _sums(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or "nothing"
