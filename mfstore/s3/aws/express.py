"""Sessions with directory buckets (S3 Express): the keys of one sign, for a few minutes, what is asked of its bucket.

A session is asked for as the service has it, by a CreateSession that the account's credentials sign.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol

from mfstore.errors import MfstoreError
from mfstore.host.interrupts import uninterrupted
from mfstore.records import dataclass
from mfstore.s3.aws import errors
from mfstore.s3.aws.errors import Verdict
from mfstore.s3.aws.routes import Credentials
from mfstore.s3.calls import Call, Reply

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import Ask

OPERATION = "CreateSession"
ENDING_SECONDS = 60.0
"""A session of which less is left is not used any more: a request may wait for its turn, and S3 gives five minutes."""
SECONDS_BETWEEN_FAILURES = 5.0
"""For so long the answer "there is none" holds, also for the other calls of a batch; and a session that was refused is
given up only when it is older, as many calls may be told the same."""
TRIES = 4
DELAY_SECONDS = 0.1
"""Before the second try; each further one waits four times as long."""


class Account(Protocol):
    """What a session is asked for with: a control plane."""

    def credentials(self) -> Credentials | None:
        """What signs the question."""

    def expire(self, credentials: Credentials | None, bucket: str) -> bool:
        """See ``ControlPlane``."""

    def learn_skew(self, reply: Reply) -> bool:
        """See ``ControlPlane``."""

    def redirect(self, call: Call, reply: Reply) -> bool:
        """See ``ControlPlane``."""

    def parse(self, call: Call, reply: Reply) -> dict[str, Any]:
        """See ``ControlPlane``."""

    def host(self, call: Call) -> str:
        """See ``ControlPlane``."""


@dataclass(frozen=True, slots=True)
class _Session:
    credentials: Credentials
    begun: float
    ends: float
    """By time.monotonic()."""


class BucketSessions:
    """The sessions of one client, by bucket. Safe to use from several threads, of which one asks for all, and in signal
    handlers."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._failures: dict[str, tuple[MfstoreError, float]] = {}
        self._locks: dict[str, threading.RLock] = {}

    def of(self, bucket: str, account: Account, ask: Ask) -> Credentials:
        """The keys of a bucket's session, which has some time to go. Raises what the service answers instead."""
        session = self._sessions.get(bucket)
        if session is not None and time.monotonic() < session.ends - ENDING_SECONDS:
            return session.credentials
        return uninterrupted(self._renewed, bucket, account, ask)

    def _renewed(self, bucket: str, account: Account, ask: Ask) -> Credentials:
        with self._locks.setdefault(bucket, threading.RLock()):
            session = self._sessions.get(bucket)
            if session is not None and time.monotonic() < session.ends - ENDING_SECONDS:
                return session.credentials
            failure = self._failures.get(bucket)
            if failure is not None and time.monotonic() - failure[1] < SECONDS_BETWEEN_FAILURES:
                raise errors.copied(failure[0])
            try:
                session = _begin(bucket, account, ask)
            except MfstoreError as error:
                self._failures[bucket] = errors.copied(error), time.monotonic()
                raise
            self._failures.pop(bucket, None)
            self._sessions[bucket] = session
            return session.credentials

    def refused(self, bucket: str) -> bool:
        """The service called the session's keys expired or invalid: True if there will be others."""
        session = self._sessions.get(bucket)
        if session is None:
            return False
        if time.monotonic() - session.begun >= SECONDS_BETWEEN_FAILURES:
            self._sessions.pop(bucket, None)
        return True


def _begin(bucket: str, account: Account, ask: Ask) -> _Session:
    call = Call(OPERATION, bucket)
    learned: set[Verdict] = set()
    delay = DELAY_SECONDS
    for left in reversed(range(TRIES)):
        credentials = account.credentials()
        begun = time.monotonic()
        reply = ask(call)
        verdict = errors.classify(reply)
        if verdict is Verdict.FINE:
            return _read(account.parse(call, reply), reply.headers, begun)
        wiser = {
            Verdict.REFRESH: lambda: account.expire(credentials, ""),  # noqa: B023
            Verdict.SKEWED: lambda: account.learn_skew(reply),  # noqa: B023
            Verdict.MOVED: lambda: account.redirect(call, reply),  # noqa: B023
        }.get(verdict)
        if wiser is not None:
            if verdict in learned or not wiser():
                break
            learned.add(verdict)
        elif verdict in errors.PASSING and left:
            time.sleep(delay)
            delay *= 4
        else:
            break
        call = Call(OPERATION, bucket, fresh=reply.failure is not None)
    raise errors.problem(call, reply, account.host)


def _read(output: Mapping[str, Any], headers: Mapping[str, str], begun: float) -> _Session:
    keys = output["Credentials"]
    # By the service's clock, whatever ours says.
    try:
        now = parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError):
        now = datetime.now(UTC)
    ends = keys["Expiration"]
    seconds = (_aware(ends) - _aware(now)).total_seconds()
    found = Credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
    return _Session(found, begun, begun + seconds)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
