"""Sessions with directory buckets (S3 Express): the keys of one sign, for a few minutes, what is asked of its bucket.

A session is asked for as the service has it, by a CreateSession that the account's credentials sign.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol

from mfstore.errors import BackendError
from mfstore.host.interrupts import uninterrupted
from mfstore.records import dataclass
from mfstore.s3.aws import errors
from mfstore.s3.aws.errors import Verdict
from mfstore.s3.aws.kept_sessions import SECONDS_YOUNG
from mfstore.s3.aws.routes import Credentials
from mfstore.s3.calls import Call, Reply

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import Ask

OPERATION = "CreateSession"
ENDING_SECONDS = 60.0
"""A session of which less is left is replaced: a request may wait for its turn, and S3 gives five minutes."""
SECONDS_OF_A_ROUND = 1.0
"""So much earlier an event loop has it replaced in a thread: longer than one round of its takes."""
LAST_SECONDS = 5.0
"""Where it cannot be replaced just now it is used until so much is left."""
SECONDS_BETWEEN_FAILURES = 1.0
"""For so long the answer "there is none" holds for all calls that need the session."""


class NoSession(BackendError):
    """The service answered the question for a session, and a call that needs it was not sent: whether and when to ask
    again is for whoever sent the call to decide, as if the service had answered that so."""

    reply: Reply

    def reply_to(self, call: Call) -> Reply:
        """The service's answer, as one to ``call``."""
        found: Reply = replace(self.reply, call=call)
        return found


class Account(Protocol):
    """What a session is asked for with: a control plane."""

    skew: float
    """See ``RouteSource``."""
    version: int
    """See ``RouteSource``."""

    def credentials(self) -> Credentials | None:
        """What signs the question."""

    def parse(self, call: Call, reply: Reply) -> dict[str, Any]:
        """See ``ControlPlane``."""


_Asked = tuple[Credentials | None, float, int]
"""With whose keys, by which clock and in which regions."""


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
        self._failures: dict[str, tuple[NoSession, float, _Asked]] = {}
        self._locks: dict[str, threading.RLock] = {}
        self._given_up: set[str] = set()
        """Buckets whose session was refused, and which have no other yet."""

    def due(self) -> list[str]:
        """The buckets whose sessions ``of`` is about to replace."""
        now = time.monotonic()
        soon = now + ENDING_SECONDS + SECONDS_OF_A_ROUND
        # One that has ended is of a bucket of which nothing was asked for long.
        ending = [name for name, one in list(self._sessions.items()) if now < one.ends < soon]
        return [*ending, *list(self._given_up)]

    def of(self, bucket: str, account: Account, ask: Ask) -> Credentials:
        """The keys of a bucket's session, which has some time to go. Raises NoSession with what the service answers
        instead."""
        session = self._sessions.get(bucket)
        if session is not None and time.monotonic() < session.ends - ENDING_SECONDS:
            return session.credentials
        return uninterrupted(self._renewed, bucket, account, ask)

    def _renewed(self, bucket: str, account: Account, ask: Ask) -> Credentials:
        with self._locks.setdefault(bucket, threading.RLock()):
            session = self._sessions.get(bucket)
            left = session.ends - time.monotonic() if session is not None else 0.0
            if session is not None and left > ENDING_SECONDS:
                return session.credentials
            try:
                session = self._begun(bucket, account, ask)
            except NoSession:
                if session is not None and left > LAST_SECONDS:
                    return session.credentials
                raise
            self._sessions[bucket] = session
            self._given_up.discard(bucket)
            return session.credentials

    def _begun(self, bucket: str, account: Account, ask: Ask) -> _Session:
        asked = account.credentials(), account.skew, account.version
        failure = self._failures.get(bucket)
        if failure is not None:
            error, when, why = failure
            # With other keys, or by another clock, the answer may be another.
            if why == asked and time.monotonic() - when < SECONDS_BETWEEN_FAILURES:
                raise errors.copied(error)
        call, begun = Call(OPERATION, bucket, fresh=failure is not None), time.monotonic()
        reply = ask(call)
        if errors.classify(reply) is Verdict.FINE:
            self._failures.pop(bucket, None)
            return _read(account.parse(call, reply), reply.headers, begun)
        error = NoSession("the service gave no session")
        error.reply = reply
        self._failures[bucket] = error, time.monotonic(), asked
        raise error

    def refused(self, bucket: str) -> bool:
        """The service called the session's keys expired or invalid: True if there will be others."""
        failure = self._failures.get(bucket)
        if failure is not None and errors.classify(failure[0].reply) is Verdict.REFRESH:
            return False  # it was the question for a session that was refused, and so the account's keys
        session = self._sessions.get(bucket)
        if session is not None and time.monotonic() - session.begun >= SECONDS_YOUNG:
            self._given_up.add(bucket)
            self._sessions.pop(bucket, None)
        # Also where it has been given up: of many that it signed all are told so.
        return bucket in self._locks


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
