"""Ending an operation before its jobs do: nothing is written to any more, and open uploads are given up."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING

from mfstore.errors import MfstoreError
from mfstore.records import dataclass, field
from mfstore.s3.aws.errors import PASSING, Verdict
from mfstore.s3.transfers.jobs import Job, MultipartJob, Retry, renewed

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane
    from mfstore.s3.calls import Call, Reply
    from mfstore.s3.engines.interface import Channel, Lane

ABORT_SECONDS = 2.0
"""How long ending early waits for open multipart uploads to be given up. The bucket's lifecycle rule gets the rest."""
POLL_SECONDS = 0.05
"""Of one look for answers meanwhile."""
LET_END = ("CreateMultipartUpload", "AbortMultipartUpload")
"""Not cancelled when all ends: only the answer tells the id of an upload that is being opened."""


@dataclass(slots=True)
class Ending:
    """What is left to do of an operation that ends now."""

    channel: Channel
    control: ControlPlane
    flying: dict[int, Call]
    """By id: the calls that are in flight; those that end are taken out."""
    lane: Lane | None = None
    """With plain requests in flight."""
    undo: list[Call] = field(default_factory=list)
    """AbortMultipartUpload, to be sent (again)."""

    def halt(self, queued: Iterable[Call], jobs: Collection[Job]) -> bool:
        """When it returns, within 100 ms, no buffer is written to any more. ``queued`` are calls that have not been
        sent. Whether uploads are left to give up."""
        self.undo += [call for call in queued if call.operation == "AbortMultipartUpload"]
        waited = {}
        for key, call in self.flying.items():
            if call.operation not in LET_END:
                self.channel.cancel(call)
                waited[key] = call
        if self.lane is not None:
            self.lane.end()
        deadline = monotonic() + ABORT_SECONDS
        while (waited or (self.lane is not None and self.lane.flying)) and monotonic() < deadline:
            for reply in self.channel.poll(POLL_SECONDS):
                self._came(reply)
                if not reply.announced:
                    waited.pop(id(reply.call), None)
        opened = (isinstance(job, MultipartJob) and job.open for job in jobs)
        return bool(self.flying or self.undo) or any(opened)

    def _came(self, reply: Reply) -> None:
        """A reply that came after the end."""
        if reply.announced:
            return
        call = self.flying.pop(id(reply.call), None)
        if call is None:
            return
        verdict = self.control.verdict(reply)
        if call.operation == "CreateMultipartUpload" and verdict is Verdict.FINE:
            with suppress(MfstoreError, Retry):
                call.tag.job.on_reply(call, reply, self.control)
        elif call.operation == "AbortMultipartUpload" and verdict in PASSING:
            self.undo.append(renewed(call))

    def finish(self, queued: Iterable[Call], jobs: Collection[Job]) -> None:
        """``halt``, and give up what it leaves, within ABORT_SECONDS."""
        deadline = monotonic() + ABORT_SECONDS
        if self.halt(queued, jobs):
            self._give_up(jobs, deadline)

    def _give_up(self, jobs: Collection[Job], deadline: float) -> None:
        """Have open uploads removed, asking again where that is refused for now."""
        while self.flying and monotonic() < deadline:
            for reply in self.channel.poll(POLL_SECONDS):
                self._came(reply)
        calls = self.undo + [call for job in jobs for call in job.cleanup()]
        wait = 0.05
        while calls and (now := monotonic()) < deadline:
            try:
                self.channel.submit(calls)
            except MfstoreError:
                return  # without credentials nothing can be given up
            left, calls = {id(call): call for call in calls}, []
            while left and monotonic() < deadline:
                for reply in self.channel.poll(POLL_SECONDS):
                    if left.pop(id(reply.call), None) and self.control.verdict(reply) in PASSING:
                        calls.append(renewed(reply.call))
            if calls:
                sleep(max(0.0, min(wait, deadline - now)))
                wait *= 2
