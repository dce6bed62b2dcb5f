"""Counts what a bulk client really sends: the requests by operation, their statuses, their bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mfstore.s3.calls import CANCELLED, Call, FileRange, Reply
from mfstore.s3.engines.interface import Channel, Engine

if TYPE_CHECKING:
    from mfstore.s3.bulk.client import BulkClient


@dataclass(slots=True)
class Traffic:
    """Requests since the last ``clear``."""

    requests: Counter[str] = field(default_factory=Counter)
    """By botocore's name of the operation, each try counted."""
    retries: int = 0
    """Of them, tries after the first, and second requests for what was late."""
    throttled: int = 0
    """Answers 503 and 429."""
    failures: int = 0
    """Tries that brought another 5xx, or no answer."""

    def clear(self) -> None:
        """Begin anew."""
        self.requests.clear()
        self.retries = self.throttled = self.failures = 0

    def sent(self, call: Call) -> None:
        """A request goes out."""
        self.requests[call.operation] += 1
        # A hedge is a call of its own whose first try nobody counted; a control plane's question is nobody's.
        if call.tag is not None and call.tag.attempts != 1:
            self.retries += 1

    def came(self, reply: Reply) -> None:
        """The end of a request."""
        if reply.status in (429, 503):
            self.throttled += 1
        elif reply.status >= 500 or (reply.failure is not None and reply.failure != CANCELLED):
            self.failures += 1


def record(client: BulkClient, traffic: Traffic | None = None) -> Traffic:
    """Count all that ``client`` does from now on, in addition to what ``traffic`` has."""
    traffic = Traffic() if traffic is None else traffic
    client.transfers.engine = _Recorder(client.engine, traffic)
    return traffic


class _Recorder(Engine):
    def __init__(self, inner: Engine, traffic: Traffic) -> None:
        self.name = inner.name
        self._inner = inner
        self._traffic = traffic

    def channel(self) -> Channel:
        return _Recording(self._inner.channel(), self._traffic)

    def close(self) -> None:
        self._inner.close()


class _Recording(Channel):
    def __init__(self, inner: Channel, traffic: Traffic) -> None:
        self._inner = inner
        self._traffic = traffic

    def submit(self, calls: Sequence[Call]) -> None:
        self._inner.submit(calls)
        for call in calls:
            self._traffic.sent(call)

    def poll(self, timeout: float) -> list[Reply]:
        replies = self._inner.poll(timeout)
        for reply in replies:
            if not reply.announced:
                self._traffic.came(reply)
        return replies

    def resume(
        self, call: Call, target: memoryview | FileRange, stop: int | None = None, skip: int = 0
    ) -> None:  # fmt: skip
        self._inner.resume(call, target, stop, skip)

    def cancel(self, call: Call) -> None:
        self._inner.cancel(call)

    def flowing(self) -> int:
        return self._inner.flowing()

    def fileno(self) -> int:
        return self._inner.fileno()

    def close(self) -> None:
        self._inner.close()
