"""Failures on purpose, for ``S3(inject_failure_rate=…)``: to see that programs and retries bear them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

from mfstore.s3.bulk.client import BulkClient
from mfstore.s3.calls import Call, FileRange, Reply
from mfstore.s3.engines.interface import Channel, Engine
from mfstore.s3.transfers.retry import RetryQuota

FAILING_OPERATIONS = ("GetObject", "HeadObject", "PutObject", "UploadPart")
ERROR_BODY = b"<Error><Code>InternalError</Code><Message>failed on purpose: inject_failure_rate</Message></Error>"


def flaky_client(rate: float, **arguments: Any) -> BulkClient:
    """A client of BulkClient's ``arguments`` of which ``rate`` percent of the first tries fail with 500, half as many
    of the second, and so on; from 100 percent every try. Which ones is the same in every run. Retries do not wait."""
    client = BulkClient(**arguments)
    return client.with_parts(
        engine=FlakyEngine(client.engine, rate if rate >= 100 else min(rate, 90.0)),
        policy=replace(client.transfers.policy, base=0.001, throttled_base=0.001, cap=0.01),
        quota=_BoundlessQuota(),
    )


class _BoundlessQuota(RetryQuota):
    def wait(self, now: float) -> float:
        return 0.0


class FlakyEngine(Engine):
    """An engine that fails now and then without asking."""

    def __init__(self, inner: Engine, rate: float) -> None:
        self.name = inner.name
        self._inner = inner
        self._rate = rate
        self._draw = random.Random(0).random

    def channel(self) -> FlakyChannel:
        """A new channel."""
        return FlakyChannel(self._inner.channel(), self._fails)

    def _fails(self, call: Call) -> bool:
        if call.operation not in FAILING_OPERATIONS:
            return False
        rate = self._rate if self._rate >= 100 else self._rate * 0.5 ** (call.tag.attempts - 1)
        return self._draw() * 100 < rate

    def close(self) -> None:
        """As the real one."""
        self._inner.close()


class FlakyChannel(Channel):
    """A channel that answers some calls itself."""

    def __init__(self, inner: Channel, fails: Callable[[Call], bool]) -> None:
        self._inner = inner
        self._fails = fails
        self._failed: list[Reply] = []

    def submit(self, calls: Sequence[Call]) -> None:
        """Start calls, or fail them."""
        good = []
        for call in calls:
            if self._fails(call):
                now = monotonic()
                self._failed.append(Reply(call, 500, data=ERROR_BODY, submitted=now, first_byte=now, finished=now))
            else:
                good.append(call)
        if good:
            self._inner.submit(good)

    def poll(self, timeout: float) -> list[Reply]:
        """Replies of both kinds."""
        failed, self._failed = self._failed, []
        return failed + self._inner.poll(0.0 if failed else timeout)

    def resume(
        self, call: Call, target: memoryview | FileRange, stop: int | None = None, skip: int = 0
    ) -> None:  # fmt: skip
        """As the real one."""
        self._inner.resume(call, target, stop, skip)

    def cancel(self, call: Call) -> None:
        """As the real one."""
        if all(reply.call is not call for reply in self._failed):
            self._inner.cancel(call)

    def flowing(self) -> int:
        """As the real one."""
        return self._inner.flowing()

    def fileno(self) -> int:
        """As the real one."""
        return self._inner.fileno()

    def close(self) -> None:
        """As the real one."""
        self._inner.close()
