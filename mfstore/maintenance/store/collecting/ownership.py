"""The right to collect a store, which one collector at a time has, and the store's clock, on which it rests."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from mfstore.backends.base import DELETION_WINDOW, REQUEST_LIFE
from mfstore.errors import Conflict, MfstoreError, Refused
from mfstore.format.collection import STATE, State, encode_state
from mfstore.host.elapsed import moment, since
from mfstore.maintenance.clock import written
from mfstore.saving.guard import COLLECTOR_SILENCE, read_state

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

CLOCK = "gc/clock"
"""An object that is written to learn the store's time."""
QUIET_SECONDS = DELETION_WINDOW + REQUEST_LIFE
"""So long after the last sign of a collector that stopped, nothing that it sent is carried out any more."""
QUIET_SECONDS_LOCAL = DELETION_WINDOW
"""The same where a request cannot outlive who sent it."""
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
        self._held = moment()
        self._unanswered: tuple[tuple[float, float], float] | None = None
        """Since when it is quiet, as far as this collector knows, and for how many seconds it has to be."""
        self.state = state
        """As this collector wrote it last; at first as it was when the plan was made."""

    def claim(self, deleting: bool, take_over: bool) -> None:
        """Become the owner, and tell writers whether anything will be deleted. Conflict while another collector is at
        work, and when one has been since the plan was made. The store's clock must have been asked just before."""
        state, etag = read_state(self._backend)
        silent = 0.0
        if state.owner or state.deleting:
            silent = self._backend.head(CLOCK).modified - self._backend.head(STATE).modified
            if state.owner and not take_over and silent < COLLECTOR_SILENCE:
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
        if state.deleting and silent < COLLECTOR_SILENCE:
            # Who was at it may have been about to delete, or have sent what is not carried out yet.
            remote = self._backend.capabilities.remote
            self._unanswered = moment(), QUIET_SECONDS if remote else QUIET_SECONDS_LOCAL
        deleting = deleting or self._unanswered is not None
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
        self._held = moment()
        if read_state(self._backend)[0] != self.state:
            raise Conflict("another collector has taken over", backend=self._backend.url)
        self.pulse()

    def still_held(self) -> bool:
        """Whether ``hold`` was so recently that a deletion may be sent. A process that was stopped meanwhile has to
        ask again: it may have been taken for dead."""
        return since(self._held) < DELETION_WINDOW

    def unanswered(self) -> None:
        """A deletion was sent, and may be carried out later, if this is a place where that can be."""
        if self._backend.capabilities.remote:
            self._unanswered = moment(), QUIET_SECONDS

    def wait_for_quiet(self) -> None:
        """Return once no deletion that was sent can be carried out any more; writers are told of one until then."""
        while self._unanswered is not None:
            begun, seconds = self._unanswered
            if since(begun) >= seconds:
                self._unanswered = None
            else:
                time.sleep(min(1.0, max(0.01, seconds - since(begun))))
                self.pulse()

    def pulse(self) -> None:
        """Show that this collector is alive."""
        if since(self._alive) > COLLECTOR_SILENCE / 4:
            self.replace()

    def release(self, error: BaseException) -> None:
        """Leave the work to the next collector. What was sent and not answered may still be carried out, so writers
        are told of a deletion until it cannot; an interrupt does not wait for that, but leaves it to the next
        collector."""
        with suppress(MfstoreError):
            self.state, self._etag = read_state(self._backend)
            if self.state.owner != self._name:
                return
            if isinstance(error, Exception):
                self.wait_for_quiet()
            elif self.state.deleting:
                self.unanswered()
            self.replace(owner="", deleting=self.state.deleting and self._unanswered is not None)
