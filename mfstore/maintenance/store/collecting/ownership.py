"""The right to collect a store, which one collector at a time has, and the store's clock, on which it rests."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from mfstore.errors import AccessDenied, Conflict, MfstoreError, Refused
from mfstore.format.collection import STATE, State, encode_state
from mfstore.host.elapsed import moment, since
from mfstore.maintenance.clock import written
from mfstore.saving.guard import COLLECTOR_SILENCE, read_state

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

CLOCK = "gc/clock"
"""An object that is written to learn the store's time."""
CLOCK_SKEW = 300.0
"""Seconds by which the store's clock and this machine's may differ; more, and one of them is wrong."""


def store_time(backend: Backend) -> float:
    """The store's own time, by writing an object. Refused when it cannot be trusted."""
    backend.put(CLOCK, [os.urandom(8)])
    now = written(backend, CLOCK)
    skew = now - time.time()
    if abs(skew) > CLOCK_SKEW:
        raise Refused(
            f"the store's clock and this machine's differ by {abs(skew):.0f} s: no age can be trusted",
            backend=backend.url, expected=f"at most {CLOCK_SKEW:.0f} s",
            hint="Set the clock that is wrong; nothing was changed",
        )  # fmt: skip
    return now


class Ownership:
    """The collection state of a store, and the right to change it."""

    def __init__(self, backend: Backend, state: State) -> None:
        self._backend = backend
        self._name = f"{socket.gethostname()} process {os.getpid()}, {os.urandom(4).hex()}"
        self._etag: str | None = None
        self._alive = moment()
        self.state = state
        """As this collector wrote it last; at first as it was when the plan was made."""

    def claim(self, deleting: bool, take_over: bool) -> None:
        """Become the owner, and tell writers whether anything will be deleted. Conflict while another collector is at
        work, and when one has been since the plan was made. The store's clock must have been asked just before."""
        state, etag = read_state(self._backend)
        if state.owner and not take_over:
            silent = self._backend.head(CLOCK).modified - self._backend.head(STATE).modified
            if silent < COLLECTOR_SILENCE:
                raise Conflict(
                    "another collector is at work", backend=self._backend.url, found=state.owner,
                    hint=f"Its last sign of life is {max(silent, 0):.0f} s old. If it died, wait "
                    f"{COLLECTOR_SILENCE:.0f} s, or take over (take_over=True, --take-over)",
                )  # fmt: skip
        if state != self.state:
            raise Conflict(
                "another collector has been at work since this plan was made", backend=self._backend.url,
                hint="Make a new plan",
            )  # fmt: skip
        self.state, self._etag = state, etag
        self.replace(owner=self._name, deleting=deleting, deletions=state.deletions + deleting)

    def replace(self, **changes: object) -> None:
        """Write the next state. Conflict when somebody else has."""
        state = replace(self.state, epoch=self.state.epoch + 1, **changes)  # type: ignore[arg-type]
        try:
            self._etag = self._backend.put_if(STATE, encode_state(state), self._etag)
        except Conflict:
            # Perhaps with ourselves: a request that was carried out and not answered is sent again.
            found, self._etag = read_state(self._backend)
            if found != state:
                raise Conflict("another collector has taken over", backend=self._backend.url) from None
        self.state = state
        self._alive = moment()

    def hold(self) -> None:
        """Go on only as long as nobody else has taken over; and show that this collector is alive."""
        if read_state(self._backend)[0] != self.state:
            raise Conflict("another collector has taken over", backend=self._backend.url)
        self.pulse()

    def pulse(self) -> None:
        """Show that this collector is alive."""
        if since(self._alive) > COLLECTOR_SILENCE / 4:
            self.replace()

    def release(self, error: BaseException) -> None:
        """Leave the work to the next collector. What was sent and not answered may still be carried out: unless
        deletions take conditions, writers then go on keeping out of the way for a while."""
        answered = isinstance(error, (AccessDenied, Conflict)) or not self.state.deleting
        with suppress(MfstoreError):
            self.state, self._etag = read_state(self._backend)
            if self.state.owner != self._name:
                return
            self.replace(
                owner="",
                deleting=self.state.deleting and not answered and not self._backend.deletes_conditionally(),
            )
