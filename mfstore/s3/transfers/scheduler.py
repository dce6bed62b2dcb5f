"""Runs the jobs of one bulk operation over a channel: admission, concurrency, memory, retries, hedging. One thread,
no loop of its own: whoever wants results pumps it, synchronously or from an event loop."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from time import monotonic, sleep
from typing import TYPE_CHECKING

from mfstore._core.memory import FreshBytesPool
from mfstore.errors import BackendError, MfstoreError
from mfstore.s3 import calls as engine
from mfstore.s3.aws.errors import copied
from mfstore.s3.calls import CANCELLED, Call, Reply
from mfstore.s3.engines.interface import Channel
from mfstore.s3.transfers.budget import Budget, held
from mfstore.s3.transfers.concurrency import LOWEST, Limiter
from mfstore.s3.transfers.downloads import GetJob
from mfstore.s3.transfers.hedging import HEDGE_SHARE, Latencies
from mfstore.s3.transfers.jobs import Job, MultipartJob, Restart, Retry, left_open, renewed
from mfstore.s3.transfers.outcomes import BulkStats, Outcome
from mfstore.s3.transfers.retry import RetryPolicy, RetryQuota, Verdict, asked_delay, classify

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane

RESTARTS = 3
"""How often an object may change or prove damaged while it is fetched. Damage is asked for once more only."""
ABORT_SECONDS = 2.0
"""How long ending early waits for open multipart uploads to be given up. The bucket's lifecycle rule gets the rest."""
LET_END = ("CreateMultipartUpload", "AbortMultipartUpload")
"""Not cancelled when all ends: only the answer tells the id of an upload that is being opened."""
ABORT_ATTEMPTS = 5
PASSING = (Verdict.TRANSIENT, Verdict.THROTTLED, Verdict.FREE)


class Scheduler:
    """Pump it until ``done``. ``pump`` returns the outcomes that are ready, in no particular order."""

    def __init__(
        self, channel: Channel, control: ControlPlane, jobs: Iterator[Job], limiter: Limiter, quota: RetryQuota,
        policy: RetryPolicy,
        memory: int, stats: BulkStats, pace: Callable[[float, int], float] | None = None,
    ) -> None:  # fmt: skip
        self._channel = channel
        self._control = control
        self._jobs: Iterator[Job] | None = jobs
        self._limiter = limiter
        self._quota = quota
        self._policy = policy
        self._pace = pace
        self._paced_until = 0.0
        self.budget = Budget(memory)
        self._pool = FreshBytesPool(memory)
        self.stats = stats
        self._next_job: Job | None = None
        self._active: dict[int, Job] = {}
        self._ready: deque[Call] = deque()
        self._delayed: list[tuple[float, int, Call]] = []
        self._flying: dict[int, Call] = {}
        self._paused: dict[int, tuple[Call, Reply]] = {}
        self._order = count()
        self._out: list[Outcome] = []
        self._restarting: set[int] = set()
        self._size = 65536.0
        self._latencies = Latencies()
        self._hedges: dict[int, Call] = {}
        self._look_at = 0.0
        self._begun = monotonic()
        self._undo: list[Call] = []

    @property
    def done(self) -> bool:
        """Whether every job has been handed out."""
        return not (self._active or self._out or self._next_job or self._jobs is not None)

    def pump(self, timeout: float) -> list[Outcome]:
        """Do what can be done; wait at most ``timeout`` seconds for something to happen."""
        self.send()
        now = monotonic()
        if not self._out and self._active:
            wait = min(timeout, self.due(now))
            for reply in self._channel.poll(max(wait, 0.0)):
                self._handle(reply)
            now = monotonic()
            if self._paused:
                self._grant()
            if now >= self._look_at:
                self._hedge(now)
            self._submit(now)
        self.stats.seconds = now - self._begun
        self.stats.memory = self.budget.most
        out, self._out = self._out, []
        return out

    def send(self) -> None:
        """Send what can be sent now. Answers wait for ``pump``."""
        now = monotonic()
        self._admit(now)
        self._submit(now)

    def handed_out(self, outcome: Outcome) -> None:
        """The consumer has the outcome: its memory is his now."""
        self.budget.take(-held(outcome))

    def fileno(self) -> int:
        """Readable when pumping brings something."""
        return self._channel.fileno()

    def prepare(self) -> None:
        """What may block: find or refresh the credentials. What goes wrong here, the first call reports."""
        with suppress(MfstoreError):
            self._control.credentials()

    # ---- admission ----------------------------------------------------------------------

    def _admit(self, now: float) -> None:
        limit = int(self._limiter.limit)
        while self._jobs is not None or self._next_job is not None:
            if len(self._flying) - len(self._paused) + len(self._ready) >= limit or now < self._paced_until:
                return
            # Objects that wait for memory have a connection each: a few, to go on with as soon as there is some.
            if len(self._paused) >= LOWEST:
                return
            # While the service fails, as many wait for another try as may be in flight: the whole rest would, each
            # behind all others in the quota, long after the service has recovered.
            if len(self._delayed) >= max(limit, LOWEST):
                return
            job = self._next_job or next(self._jobs, None)  # type: ignore[arg-type]
            if job is None:
                self._jobs = None
                return
            weight = job.weight or int(self._size)
            # With none under way only ordered results hold the memory, and they wait for a job that is not begun.
            if self._active and not self.budget.fits(weight):
                self._next_job = job
                return
            self._next_job = None
            job.weight = weight
            self.budget.take(weight)
            job.started = now
            self._active[job.index] = job
            self._begin(job)

    def _begin(self, job: Job) -> None:
        try:
            calls = job.begin()
        except Restart:  # what an interrupted download left is damaged
            job.restarts += 1
            self.stats.verify_failures += 1
            job.forget()
            self._begin(job)
            return
        except MfstoreError as error:
            job.error = error
            self._end(job)
            return
        self._queue(job, calls)
        if job.outcome is not None:
            self._end(job)

    def _queue(self, job: Job, calls: Sequence[Call]) -> None:
        job.calls += len(calls)
        self._ready.extend(calls)

    def _submit(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            self._ready.appendleft(heapq.heappop(self._delayed)[2])
        room = int(self._limiter.limit) - len(self._flying) + len(self._paused)
        if not self._ready or room <= 0 or now < self._paced_until:
            return
        batch: list[Call] = []
        later: list[Call] = []
        while self._ready and len(batch) < room:
            call = self._ready.popleft()
            job = call.tag.job
            if job.pages and self._must_wait(job):
                later.append(call)
                continue
            if job.error is not None and not call.operation.startswith("Abort"):
                self._drop(call)
                continue
            if call.first_byte == engine.FIRST_BYTE_SECONDS:
                call.first_byte, call.stall = self._policy.first_byte, self._policy.stall
            state = call.tag
            state.attempts += 1
            if state.attempts > job.attempts:
                job.attempts = state.attempts
            state.sent = now
            state.started = state.started or now
            self._flying[id(call)] = call
            batch.append(call)
            if self._pace is not None:
                self._paced_until = self._pace(now, int(self._size))
                if self._paced_until > now:
                    break
        self._ready.extendleft(reversed(later))
        if batch:
            self.stats.requests += len(batch)
            self.stats.concurrency = max(self.stats.concurrency, len(self._flying) - len(self._paused))
            try:
                credentials = self._control.credentials()
                for call in batch:
                    call.tag.credentials = credentials
            except MfstoreError as error:
                # Without credentials no call can be made.
                for call in batch:
                    self._unsent(call, copied(error))
                return
            try:
                self._channel.submit(batch)
            except MfstoreError:
                # Nothing was sent. What botocore refuses of one call says nothing of the others.
                for call in batch:
                    try:
                        self._channel.submit([call])
                    except MfstoreError as error:
                        self._unsent(call, error)

    def _must_wait(self, job: Job) -> bool:
        """Whether a listing's next page has no room. Of the oldest job, which all others' results wait for, it has."""
        return job.error is None and job.index != min(self._active) and not self.budget.fits(job.pages)

    def _unsent(self, call: Call, error: MfstoreError) -> None:
        del self._flying[id(call)]
        call.tag.job.error = call.tag.job.error or error
        self._drop(call)

    def due(self, now: float) -> float:
        """Seconds until something has to be done without a reply."""
        due = self._look_at - now if self._flying else 60.0
        if self._delayed:
            due = min(due, self._delayed[0][0] - now)
        if self._paced_until > now:
            due = min(due, self._paced_until - now)
        return due

    # ---- replies ------------------------------------------------------------------------

    def _handle(self, reply: Reply) -> None:
        call = reply.call
        if id(call) not in self._flying:
            return  # the loser of a pair
        if reply.announced:
            if call.tag.hedge is not None:
                self._settle_pair(call, True)
            self._paused[id(call)] = call, reply
            # It takes none while it waits. What was reserved for it would keep the last that fits from its place.
            self.budget.take(-call.tag.job.weight)
            call.tag.job.weight = 0
            return
        self._paused.pop(id(call), None)
        del self._flying[id(call)]
        if call.tag.hedge is not None and self._settle_pair(call, classify(reply) is Verdict.FINE):
            return
        job = call.tag.job
        if job.error is not None:
            if call.operation == "AbortMultipartUpload":
                self._given_up(job, call, reply)
            else:
                self._drop(call)
            return
        if call.tag.wrong is not None:
            error, call.tag.wrong = call.tag.wrong, None
            if not self._retry(call, reply, Verdict.TRANSIENT):
                self._fatal(job, call, error)
            return
        verdict = classify(reply)
        if verdict is Verdict.FINE:
            self._fine(job, call, reply)
            return
        if reply.failure == CANCELLED:
            self._fatal(job, call, BackendError("cancelled"))
            return
        try:
            more = job.rescued(call, reply, self._control)
        except Restart as restart:
            self._restart(job, call, restart.error, RESTARTS)
            return
        except MfstoreError as error:
            self._fatal(job, call, error)
            return
        if more is not None:
            job.calls -= 1
            self._queue(job, more)
            return
        try:
            hopeless = not self._retry(call, reply, verdict)
        except MfstoreError as error:  # no new credentials
            self._fatal(job, call, error)
            return
        if hopeless:
            self._fatal(job, call, self._control.error(call, reply))

    def _fine(self, job: Job, call: Call, reply: Reply) -> None:
        self._quota.succeeded()
        now = reply.finished
        size = reply.received
        seconds = now - reply.submitted
        self._limiter.succeeded(now, size, seconds)
        if size <= 1 << 20:
            self._latencies.recent.append(seconds)
        job.first_byte = reply.first_byte - reply.submitted
        try:
            more = job.on_reply(call, reply, self._control)
        except Retry as retry:
            if not self._retry(call, reply, Verdict.TRANSIENT):
                self._fatal(job, call, retry.error)
            return
        except Restart as restart:
            self.stats.verify_failures += 1
            self._restart(job, call, restart.error, 1)
            return
        except MfstoreError as error:
            self._fatal(job, call, error)
            return
        job.calls -= 1
        if more:
            self._queue(job, more)
        elif job.outcome is not None and not job.calls:
            self._end(job)
        if not job.outcome:
            extra = job.take()
            self.budget.take(sum(map(held, extra)))
            self._out.extend(extra)

    def _retry(self, call: Call, reply: Reply, verdict: Verdict) -> bool:
        """Have the call made again, unless it is hopeless."""
        state, now, policy = call.tag, monotonic(), self._policy
        if verdict is Verdict.THROTTLED:
            self.stats.throttled += 1
            self._limiter.slow_down(now)
        delay = 0.0
        if verdict is Verdict.FREE and not state.free:
            state.free = True
        elif verdict is Verdict.REFRESH:
            if state.refreshed or not self._control.expire(state.credentials):
                return False
            state.refreshed = True
        elif verdict is Verdict.SKEWED:
            if state.skewed or not self._control.learn_skew(reply):
                return False
            state.skewed = True
        elif verdict is Verdict.MOVED:
            if state.moved >= 3 or not self._control.redirect(call, reply):
                return False
            state.moved += 1
        elif verdict in PASSING:
            # Not by now: the answer may have waited for a consumer who took his time.
            if state.attempts >= policy.attempts or (reply.finished or now) - state.started >= policy.seconds:
                return False
            delay = policy.delay(verdict, state.attempts, random.random)
            delay = max(delay, asked_delay(reply, policy.cap)) + self._quota.wait(now)
        else:
            return False
        self.stats.retries += 1
        heapq.heappush(self._delayed, (now + delay, next(self._order), state.job.again(call, reply)))
        return True

    def _given_up(self, job: Job, call: Call, reply: Reply) -> None:
        """The answer to giving up an upload whose job failed: asked again, within bounds, then told."""
        verdict = classify(reply)
        if verdict is not Verdict.FINE and reply.status != 404 and reply.failure != CANCELLED:
            with suppress(MfstoreError):
                if call.tag.attempts < ABORT_ATTEMPTS and self._retry(call, reply, verdict):
                    return
            job.error.add_note(left_open(call, self._control.error(call, reply)))  # type: ignore[union-attr]
        self._drop(call)

    def _fatal(self, job: Job, call: Call, error: MfstoreError) -> None:
        job.error = job.error or error
        for other in list(self._flying.values()):
            if other.tag.job is job:
                self._channel.cancel(other)
        self._drop(call)

    def _restart(self, job: Job, call: Call, error: MfstoreError, most: int) -> None:
        if job.restarts >= most:
            self._fatal(job, call, error)
            return
        job.restarts += 1
        self.stats.retries += 1
        self._restarting.add(job.index)
        self._fatal(job, call, error)

    def _drop(self, call: Call) -> None:
        """A call of a failing job is over. After the last one the job is cleaned up, or begins anew."""
        job = call.tag.job
        job.calls -= 1
        if job.calls > 0:
            waiting = [other for other in self._ready if other.tag.job is job]
            delayed = [entry for entry in self._delayed if entry[2].tag.job is job]
            if waiting or delayed:
                for other in waiting:
                    self._ready.remove(other)
                self._delayed = [entry for entry in self._delayed if entry[2].tag.job is not job]
                heapq.heapify(self._delayed)
                job.calls -= len(waiting) + len(delayed)
            if job.calls > 0:
                return
        if job.index in self._restarting:
            self._restarting.remove(job.index)
            job.error = None
            job.forget()
            self._begin(job)
            return
        undo = job.cleanup()
        if undo:
            self._queue(job, undo)
            return
        self._end(job)

    def _end(self, job: Job) -> None:
        if job.error is not None:
            if job.error.attempts is None:
                job.error.attempts = job.attempts
            job.fail(job.error)
        assert job.outcome is not None
        job.outcome.attempts = job.attempts
        del self._active[job.index]
        # The memory is held until the outcome has been handed out; what it really takes is known now.
        if isinstance(job, GetJob):
            self.stats.verified += job.verified
            self._size += 0.1 * (job.outcome.size - self._size)
        extra = job.take()
        outcome = job.outcome  # the last, if there are several
        self.budget.take(held(outcome) + sum(map(held, extra)) - job.weight)
        self._out.extend(extra)
        self._out.append(outcome)

    # ---- long bodies ----------------------------------------------------------------------

    def _grant(self) -> None:
        """Give announced bodies their place: the oldest job at once, others as memory allows."""
        oldest = min(self._active) if self._active else 0
        for key, (call, reply) in sorted(self._paused.items(), key=lambda entry: entry[1][0].tag.job.index):
            job: GetJob = call.tag.job  # nothing else is announced
            if job.error is not None:
                self._channel.cancel(call)
                del self._paused[key]
                continue
            text = reply.headers.get("content-length", "0")
            length = int(text) if text.isdigit() else 0
            in_memory = not job.to_file
            extra = length - job.weight if in_memory else -job.weight
            if extra > 0 and job.index != oldest and self.budget.used + extra > self.budget.limit:
                continue
            del self._paused[key]
            # The objects that fit side by side share the connections there may be.
            beside = max(1, self.budget.limit // max(length, 1)) if in_memory else len(self._active)
            beside = min(beside, len(self._active))
            try:
                pieces = max(1, int(self._limiter.limit) // beside)
                target, stop, more = job.announced(call, reply, pieces, self._pool)
            except Retry as retry:
                self._channel.cancel(call)
                call.tag.wrong = retry.error
                continue
            except MfstoreError as error:
                self._channel.cancel(call)
                job.error = error
                continue
            job.weight += extra
            self.budget.take(extra)
            self._channel.resume(call, target, stop)
            self._queue(job, more)

    # ---- the last few ---------------------------------------------------------------------

    def _hedge(self, now: float) -> None:
        """Ask a second time for what is late, when little else is left."""
        self._look_at = now + 0.1
        small = [
            call for call in self._flying.values()
            if call.tag.hedge is None and call.operation in ("GetObject", "HeadObject") and call.target is None
            and id(call) not in self._paused and call.tag.part is None and call.tag.job.error is None
        ]  # fmt: skip
        room = max(1, int(HEDGE_SHARE * (self.stats.items + len(self._active)))) - len(self._hedges)
        if self._jobs is not None or not small or room <= 0 or len(small) > max(2 * room, 2):
            return
        slow = self._latencies.slow()
        # A try that follows a refusal is late by its own time: the wait before it was ours.
        late = [call for call in small if now - call.tag.sent > slow][:room]
        try:
            self._control.credentials()
        except MfstoreError:
            return  # a second request cannot be signed; the first may still be answered
        for call in late:
            second = call.tag.job.again(call, Reply(call))
            call.tag.hedge = second
            self._hedges[id(second)] = call
            self._flying[id(second)] = second
            call.tag.job.calls += 1
        if late:
            self.stats.hedged += len(late)
            self.stats.requests += len(late)
            self._channel.submit([call.tag.hedge for call in late])

    def _settle_pair(self, call: Call, fine: bool) -> bool:
        """One of a pair has ended, or been announced. True when its reply is not needed."""
        second = call.tag.hedge
        other = self._hedges.pop(id(second), None) if call is second else second
        self._hedges.pop(id(second), None)
        call.tag.hedge = None
        if other is None or id(other) not in self._flying:
            return False
        call.tag.job.calls -= 1
        if not fine:
            return True  # the other may still do better
        self._channel.cancel(other)
        del self._flying[id(other)]
        self._paused.pop(id(other), None)
        return False

    # ---- the end ----------------------------------------------------------------------------

    def halt(self) -> bool:
        """End now: when it returns, within 100 ms, no buffer is written to any more. Whether uploads are left to give
        up, which ``close`` does."""
        self._jobs = None
        queued = [*self._ready, *(call for _, _, call in self._delayed)]
        self._undo += [call for call in queued if call.operation == "AbortMultipartUpload"]
        self._ready.clear()
        self._delayed.clear()
        waited = {}
        for key, call in self._flying.items():
            if call.operation not in LET_END:
                self._channel.cancel(call)
                waited[key] = call
        deadline = monotonic() + ABORT_SECONDS
        while waited and monotonic() < deadline:
            for reply in self._channel.poll(0.05):
                self._last(reply)
                if not reply.announced:
                    waited.pop(id(reply.call), None)
        opened = (isinstance(job, MultipartJob) and job.open for job in self._active.values())
        return bool(self._flying or self._undo) or any(opened)

    def _last(self, reply: Reply) -> None:
        """A reply that came after the end."""
        if reply.announced:
            return
        call = self._flying.pop(id(reply.call), None)
        if call is None:
            return
        verdict = classify(reply)
        if call.operation == "CreateMultipartUpload" and verdict is Verdict.FINE:
            with suppress(MfstoreError, Retry):
                call.tag.job.on_reply(call, reply, self._control)
        elif call.operation == "AbortMultipartUpload" and verdict in PASSING:
            self._undo.append(renewed(call))

    def close(self) -> None:
        """End, if ``halt`` has not: open uploads are given up, which may take two seconds, temporary files removed."""
        try:
            deadline = monotonic() + ABORT_SECONDS
            if self.halt():
                self._give_up(deadline)
        finally:
            self._channel.close()
            for job in self._active.values():
                job.abandon()
            self._active.clear()

    def _give_up(self, deadline: float) -> None:
        """Have open uploads removed, asking again where that is refused for now."""
        while self._flying and monotonic() < deadline:
            for reply in self._channel.poll(0.05):
                self._last(reply)
        calls = self._undo + [call for job in self._active.values() for call in job.cleanup()]
        wait = 0.05
        while calls and (now := monotonic()) < deadline:
            try:
                self._channel.submit(calls)
            except MfstoreError:
                return  # without credentials nothing can be given up
            left, calls = {id(call): call for call in calls}, []
            while left and monotonic() < deadline:
                for reply in self._channel.poll(0.05):
                    if left.pop(id(reply.call), None) and classify(reply) in PASSING:
                        calls.append(renewed(reply.call))
            if calls:
                sleep(max(0.0, min(wait, deadline - now)))
                wait *= 2
