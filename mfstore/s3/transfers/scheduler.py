"""Runs jobs over channels of an engine: for each operation a scheduler. One thread, no loop of its own: whoever wants
results pumps it, synchronously or from an event loop.

What a scheduler owns lies in parts that know nothing of each other: ``Admission`` (who may begin: ``Limiter`` for
calls, ``Budget`` for memory), ``CallQueue`` (calls before they are sent and in flight),
``Retries`` (retry.py), ``AnnouncedBodies`` (announced.py), ``Hedges`` (hedging.py) and ``Ending`` (ending.py). The
first two are passed by every call and stand here. ``Scheduler`` joins them; ``Transfers`` has what all operations of
one client share, and makes a scheduler for each.
"""

from __future__ import annotations

import heapq
import math
import os
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from itertools import count, filterfalse
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from mfstore._core.memory import FreshBytesPool
from mfstore.errors import BackendError, MfstoreError
from mfstore.host.forks import anew_in_children
from mfstore.host.interrupts import uninterrupted
from mfstore.progress import METER
from mfstore.s3.aws.errors import Verdict, copied
from mfstore.s3.aws.express import NoSession
from mfstore.s3.aws.pages import Page
from mfstore.s3.aws.routes import ROUTED
from mfstore.s3.calls import CANCELLED, FIRST_BYTE_SECONDS, NO_OPTIONS, SHORT_BODY, Call, FileRange, Options, Reply
from mfstore.s3.engines.interface import Channel, Engine, Landed, Lane, Taken
from mfstore.s3.transfers.announced import AnnouncedBodies
from mfstore.s3.transfers.downloads import GetJob
from mfstore.s3.transfers.ending import Ending
from mfstore.s3.transfers.hedging import HEDGED_BYTES, LOOK_SECONDS, Hedges
from mfstore.s3.transfers.jobs import Job, PlainJobs, Restart, Retry, left_open, unforeseen
from mfstore.s3.transfers.nearness import MEASURED_BYTES, NEAR_SECONDS, Nearby
from mfstore.s3.transfers.outcomes import Outcome, abandoning
from mfstore.s3.transfers.retry import Retries, RetryPolicy, RetryQuota
from mfstore.s3.urls import bucket_url

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.s3.aws.interface import ControlPlane
    from mfstore.s3.aws.routes import Credentials
    from mfstore.settings import S3Knobs

S3_FIRST_BYTE = 0.030
S3_PER_BYTE = 0.020 / (1 << 20)
"""Seconds S3 takes to answer, and per byte of one connection: 50 MB/s. Durner, Leis, Neumann, "Exploiting Cloud Object
Storage for High-Performance Analytics", VLDB 2023, measured on AWS; their source uses these constants."""
ASSUMED_BANDWIDTH = 1.25e9
"""Bytes per second assumed of a network nobody described: 10 Gbit/s, what an ordinary cloud machine has or bursts
to."""
FEWEST_CALLS, MOST_CALLS = 8, 256
"""5 500 GET/s is what one S3 prefix gives; at 45 ms each that is 250 in flight."""
FAR_SECONDS = S3_FIRST_BYTE / 2
"""Seconds that the fastest call takes from which on as many go out as the formula says, at once, until the service
throttles. LIMIT_STEP more for each round trip take 25 of those from 59 calls, for objects of 1 MiB, to 256, for small
ones: of 6000 objects of 4 KiB at 60 ms 2350 a second came, now 3200 to 3430; 256 calls bring 4267. Nearer, 25 round
trips are over before so many connections are made."""
LIMIT_STEP = 8
LIMIT_GAIN = 1.03
LIMIT_CUT = 0.7
"""Additive increase while goodput grows by more than 3 %, multiplicative decrease when the service says to slow
down."""
OUTCOME_BYTES = 2 << 10
"""Bytes of memory an outcome takes with the headers of its response."""
FIRST_GUESS = 1 << 16
"""Bytes reserved for an object of unknown size; the mean of what was seen follows."""
RESTARTS = 3
"""How often an object may change or prove damaged while it is fetched. Damage is asked for once more only."""
ABORT_ATTEMPTS = 5
"""Tries at giving up one upload."""
FIRST_CALLS = {
    "put_many": ("PutObject",),
    "head_many": ("HeadObject",),
    "copy": ("HeadObject",),
    "delete_many": (),
    "list": ("ListObjectsV2",),
    "ask": (),
}
"""By operation of a client: what its jobs begin with, unless that is GetObject."""
ANY_BUCKET = "any-bucket"
"""Stands for one in a request that is prepared, and not sent."""
IDLE_SECONDS = 60.0
"""Longest wait when nothing is due."""
NUMBER, IS_LAST, MEMORY = attrgetter("index"), attrgetter("last"), attrgetter("memory")


@dataclass(slots=True, kw_only=True)
class TransferCounts:
    """What the scheduler did for an operation, so far."""

    requests: int = 0
    """Requests sent, each try counted."""
    retries: int = 0
    """Of them, tries after the first."""
    throttled: int = 0
    """Answers by which the service asked to slow down."""
    hedged: int = 0
    """Second requests for what was late."""
    verified: int = 0
    """Bytes whose checksum the service gave and we compared."""
    verify_failures: int = 0
    """Bodies that differed from it."""
    seconds: float = 0.0
    """From the first request to the last outcome."""
    moved: int = 0
    """Bytes of bodies that came or went, also of items that are not done, or were tried again."""
    sent: int = 0
    """Of these, those that went."""
    answers: dict[tuple[str, str], int] = field(default_factory=dict)
    """Requests that have ended, by operation and by how: ``ok``, the status, or what came in place of an answer."""
    concurrency: int = 0
    """Most calls in flight at once."""
    memory: int = 0
    """Most bytes reserved for results at once."""


# ---- what is measured -----------------------------------------------------------------


def is_long(call: Call) -> bool:
    """Whether a long body comes at once when it is sent."""
    if call.operation != "GetObject" or call.target is None or call.start is None or call.stop is None:
        return False
    return call.stop - call.start > SHORT_BODY


def body_size(body: Sequence[Buffer] | FileRange) -> int:
    """Bytes of what a call sends."""
    return body.length if isinstance(body, FileRange) else sum([memoryview(part).nbytes for part in body])


def measure(nearby: Nearby, call: Call, reply: Reply) -> None:
    """Note what a long body that has come says of its server."""
    near, began, size = nearby.of(call.bucket), reply.first_byte, reply.received
    near.answered(began - reply.submitted)
    if call.target is None and call.tag.flows - began > NEAR_SECONDS:  # it had been announced, and waited
        began, size = call.tag.flows, size - MEASURED_BYTES
    near.brought(size, reply.finished - began)


# ---- who may begin --------------------------------------------------------------------


def calls_to_fill(size: float, bandwidth: float = ASSUMED_BANDWIDTH) -> int:
    """Calls of ``size`` bytes in flight that fill ``bandwidth``: N = B (L + s d) / s, between FEWEST_CALLS and
    MOST_CALLS."""
    size = max(size, 1.0)
    return int(max(FEWEST_CALLS, min(MOST_CALLS, bandwidth * (S3_FIRST_BYTE + size * S3_PER_BYTE) / size)))


@dataclass(slots=True)
class Limiter:
    """The number of calls that may be in flight, ``limit``. With ``fixed`` only throttling changes it."""

    size: float = 1 << 20
    """Mean bytes per call; follows what is seen."""
    bandwidth: float = ASSUMED_BANDWIDTH
    fixed: int | None = None
    highest: int = MOST_CALLS
    limit: float = 0.0
    ceiling: float = 0.0
    throttled: int = 0
    _cut_at: float = -1.0
    _window_start: float = -1.0
    _window_bytes: int = 0
    _window_calls: int = 0
    _goodput: float = 0.0
    _latency: float = 0.1
    _least: float = math.inf
    """The shortest that calls have taken: that of many also says how busy the service is."""

    def __post_init__(self) -> None:
        self.ceiling = float(self.fixed or self._filling())
        self.limit = self.ceiling

    def succeeded(self, now: float, size: int, seconds: float, calls: int = 1) -> None:
        """``calls`` moved ``size`` bytes, each in ``seconds``, on average."""
        self._least = min(self._least, seconds)
        self._latency += (0.1 if calls == 1 else 1 - 0.9**calls) * (seconds - self._latency)
        if self.fixed is None:
            self.size += (0.05 if calls == 1 else 1 - 0.95**calls) * (size / calls - self.size)
            self._window_bytes += size
            self._window_calls += calls
            if self._window_start < 0:
                self._window_start = now
            elif self._window_calls >= self.limit:
                if now - self._window_start >= 2 * self._latency:
                    self._judge(now)
                if not self.throttled and self._least >= FAR_SECONDS:
                    self.ceiling = self.limit = max(self.ceiling, self._filling())
        if self.limit < self.ceiling:
            self.limit = min(self.ceiling, self.limit + LIMIT_STEP * calls / self.limit)

    def _judge(self, now: float) -> None:
        """End of a window of at least two round trips: is more in flight still bringing more?"""
        goodput = (self._window_bytes + self._window_calls) / (now - self._window_start)
        floor = self._filling()
        if goodput > self._goodput * LIMIT_GAIN:
            self.ceiling = min(float(self.highest), max(self.ceiling, floor) + LIMIT_STEP)
        else:
            self.ceiling = max(self.ceiling, floor)
        self._goodput = max(goodput, self._goodput * 0.98)
        self._window_start, self._window_bytes, self._window_calls = now, 0, 0

    def _filling(self) -> float:
        return float(min(self.highest, calls_to_fill(self.size, self.bandwidth)))

    def slow_down(self, now: float) -> None:
        """The service throttled a call. Calls sent before the last cut say nothing new, so one cut per round trip."""
        self.throttled += 1
        if now - self._cut_at > self._latency:
            self.limit = max(1.0, self.limit * LIMIT_CUT)
            self._cut_at = now


@dataclass(slots=True)
class Budget:
    """Bytes that results may take before they are handed out."""

    limit: int
    used: int = 0
    most: int = 0

    def take(self, size: int) -> None:
        """Reserve (or, negative, give back)."""
        self.used += size
        if self.used > self.most:
            self.most = self.used

    def fits(self, size: int) -> bool:
        """Whether so much more is allowed. One job always is."""
        return self.used == 0 or self.used + size <= self.limit

    def has(self, size: int) -> bool:
        """Whether so much is left."""
        return self.used + size <= self.limit


def outcome_memory(outcome: Outcome) -> int:
    """Bytes an outcome takes while it waits to be handed out."""
    data = outcome.data
    size = len(data) if isinstance(data, (bytes, memoryview)) else 0
    return max(size, data.memory if isinstance(data, Page) else 0, OUTCOME_BYTES)


def weighed(outcomes: Sequence[Outcome]) -> int:
    """Bytes that all of them take; each remembers what it does."""
    total = 0
    for outcome in outcomes:
        outcome.memory = outcome_memory(outcome)
        total += outcome.memory
    return total


class Admission:
    """Which job may begin, and when: as long as there is room for its calls, and memory for its result."""

    __slots__ = ("_deferred", "_jobs", "budget", "limiter", "mean_size", "nearby")

    def __init__(self, jobs: Iterator[Job], limiter: Limiter, memory: int, nearby: Nearby | None = None) -> None:
        self._jobs: Iterator[Job] | None = jobs
        self._deferred: Job | None = None
        """Taken from the jobs, and waits for memory."""
        self.limiter = limiter
        self.nearby = nearby
        """What is known of servers; None where it changes nothing."""
        self.budget = Budget(memory)
        self.mean_size = float(FIRST_GUESS)
        """Bytes of an object: what is reserved where its size is not known."""

    @property
    def exhausted(self) -> bool:
        """Whether every job has begun."""
        return self._jobs is None and self._deferred is None

    @property
    def all_taken(self) -> bool:
        """Whether the last job is known."""
        return self._jobs is None

    def stop(self) -> None:
        """No further job begins."""
        self._jobs = self._deferred = None

    def enough(self, buckets: Iterable[str]) -> int | None:
        """How many long bodies from these buckets are enough at once, if they are fewer than there may be."""
        enough = self.nearby.enough(buckets) if self.nearby is not None else None
        return None if enough is None or enough >= int(self.limiter.limit) else enough

    def measured(self, buckets: Iterable[str]) -> bool:
        """Whether it is known how fast their bodies come."""
        return self.nearby is not None and self.nearby.measured(buckets)

    def room(self, under_way: int, announced: int, delayed: int) -> int:
        """How many calls may begin now, if there is memory for their results. ``under_way`` are in flight or ready to
        be sent, ``announced`` more wait for memory, ``delayed`` for their next try."""
        if self._jobs is None and self._deferred is None:
            return 0
        limit = int(self.limiter.limit)
        if under_way >= limit:
            return 0
        # Objects that wait for memory have a connection each: a few, to go on with as soon as there is some.
        if announced >= FEWEST_CALLS:
            return 0
        # While the service fails, as many wait for another try as may be in flight: the whole rest would, each behind
        # all others in the quota, long after the service has recovered.
        if delayed >= limit and delayed >= FEWEST_CALLS:
            return 0
        return limit - under_way

    def next_job(self, under_way: int, announced: int, delayed: int, alone: bool) -> Job | None:
        """The next job, with its memory reserved; None when there is no ``room``, or no memory for it. A job may have
        more than there is when it is ``alone``: then only ordered results hold the memory, and they wait for it."""
        if (self._jobs is None and self._deferred is None) or not self.room(under_way, announced, delayed):
            return None
        job = self._deferred or next(self._jobs, None)  # type: ignore[arg-type]
        if job is None:
            self._jobs = None
            return None
        weight = job.weight or int(self.mean_size)
        if not alone and not self.budget.fits(weight):
            self._deferred = job
            return None
        self._deferred = None
        job.weight = weight
        self.budget.take(weight)
        return job

    def take_plain(self, lane: Lane, jobs: PlainJobs, room: int, alone: bool, now: float) -> Taken | None:
        """Have up to ``room`` of the next items sent by ``lane``, with their memory reserved, by the rules of
        ``next_job``. None when the next has to be a job."""
        if self._jobs is None or self._deferred is not None:
            return None
        budget, left = self.budget, jobs.left
        jobs.left = None
        memory = budget.limit - budget.used
        taken = lane.take(jobs.items, left, room, memory, int(self.mean_size), alone or not budget.used, now)
        jobs.left = taken.item
        if taken.ended:
            self._jobs = None
        budget.take(taken.memory)
        return taken


# ---- calls before they are sent, and in flight --------------------------------------------


class CallQueue:
    """The calls of one operation that have no answer yet."""

    __slots__ = ("_order", "delayed", "flying", "ready")

    def __init__(self) -> None:
        self.ready: deque[Call] = deque()
        """To be sent as soon as there is room."""
        self.delayed: list[tuple[float, int, Call]] = []
        """A heap: when to send (time.monotonic()), a number that keeps the order, the call."""
        self.flying: dict[int, Call] = {}
        """Sent, by id."""
        self._order = count()

    def add(self, job: Job, calls: Sequence[Call]) -> None:
        """Calls of a job, ready to be sent."""
        job.calls += len(calls)
        self.ready.extend(calls)

    def add_later(self, at: float, call: Call) -> None:
        """A call's next try, counted already, to be sent ``at`` that time."""
        heapq.heappush(self.delayed, (at, next(self._order), call))

    def move_due(self, now: float) -> None:
        """What was delayed until now goes before all that is ready."""
        while self.delayed and self.delayed[0][0] <= now:
            self.ready.appendleft(heapq.heappop(self.delayed)[2])

    def withdraw(self, job: Job) -> None:
        """Forget the calls of a job that are not in flight."""
        waiting = [call for call in self.ready if call.tag.job is job]
        for call in waiting:
            self.ready.remove(call)
        left = [entry for entry in self.delayed if entry[2].tag.job is not job]
        job.calls -= len(waiting) + len(self.delayed) - len(left)
        if len(left) < len(self.delayed):
            self.delayed = left
            heapq.heapify(self.delayed)

    def clear_unsent(self) -> list[Call]:
        """Forget all that is not in flight; what it was."""
        unsent = [*self.ready, *(call for _, _, call in self.delayed)]
        self.ready.clear()
        self.delayed.clear()
        return unsent


# ---- outcomes ---------------------------------------------------------------------------


class Turns:
    """Has outcomes wait for those of the jobs before them."""

    __slots__ = ("_next", "_several", "_waiting")

    def __init__(self) -> None:
        self._next = 0
        self._several = False
        self._waiting: dict[int, Any] = {}
        """By the item's number: its outcome, or a list of those that it has so far."""

    def come(self, outcomes: list[Outcome]) -> list[Outcome]:
        """What may be handed on now that these are there."""
        waiting, turn = self._waiting, self._next
        if self._several or not all(map(IS_LAST, outcomes)):
            self._several = True
            return self._come_several(outcomes)
        # Without a line of Python for each, which were a sixth of a small GET.
        waiting.update(zip(map(NUMBER, outcomes), outcomes, strict=True))
        self._next = next(filterfalse(waiting.__contains__, count(turn)))
        return [*map(waiting.pop, range(turn, self._next))]

    def _come_several(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Of a listing, which has several outcomes per item: what comes after them waits for the last."""
        waiting, found = self._waiting, []
        for outcome in outcomes:
            waiting.setdefault(outcome.index, []).append(outcome)
        while self._next in waiting:
            of_one = waiting.pop(self._next)
            found += of_one if isinstance(of_one, list) else [of_one]
            if not found[-1].last:
                break
            self._next += 1
        return found


# ---- all together ---------------------------------------------------------------------


class Scheduler:
    """Pump it until ``done``. ``pump`` returns the outcomes that are ready, in no particular order."""

    def __init__(
        self, channel: Channel, admission: Admission, retries: Retries, counts: TransferCounts,
        plain: PlainJobs | None = None, ordered: bool = False, ended: Callable[[TransferCounts], None] | None = None,
    ) -> None:  # fmt: skip
        now = monotonic()
        self._told_end = ended
        """Called once with the counts, when it is closed."""
        self.ordered = ordered
        """Whether the outcomes are handed out in the order of the jobs: whoever pumps has them wait."""
        self.admission = admission
        self.retries = retries
        self._channel = channel
        self._control = retries.control
        self._counts = counts
        self._calls = CallQueue()
        self._announced = AnnouncedBodies()
        self._hedges = Hedges(now + LOOK_SECONDS)
        self._pool = FreshBytesPool(admission.budget.limit)
        self._active: dict[int, Job] = {}
        """The jobs that have begun and not ended, by number."""
        self._out: list[Outcome] = []
        self._handed_out = 0
        self._begun = now
        self._ending: Ending | None = None
        self._plain = plain
        self._lane: Lane | None = None

    @property
    def done(self) -> bool:
        """Whether every job has been handed out."""
        if self._active or self._out or not self.admission.exhausted:
            return False
        return self._lane is None or not self._lane.flying

    def pump(self, timeout: float) -> list[Outcome]:
        """Do what can be done; wait at most ``timeout`` seconds for something to happen."""
        self.send()
        return self.receive(timeout)

    def receive(self, timeout: float) -> list[Outcome]:
        """As ``pump``, but begin no further job. Not beside another call."""
        now = monotonic()
        lane = self._lane
        if not self._out and (self._active or (lane is not None and lane.flying)):
            wait = min(timeout, self.due(now))
            for reply in self._channel.poll(max(wait, 0.0)):
                self._handle(reply)
            if lane is not None and (landed := lane.landed()) is not None:
                self._land(landed)
            now = monotonic()
            if self._announced.waiting:
                self._grant()
            if now >= self._hedges.next_look:
                self._hedge(now)
            self._submit(now)
        self._counts.seconds = now - self._begun
        self._counts.memory = self.admission.budget.most
        out, self._out = self._out, []
        return out

    def send(self) -> None:
        """Send what can be sent now. Answers wait for ``pump``."""
        now = monotonic()
        self._admit(now)
        if self._announced.waiting:
            self._grant()
        self._submit(now)

    def handed_out(self, outcome: Outcome) -> None:
        """The consumer has the outcome: its memory is his now."""
        self._handed_out += 1
        self.admission.budget.take(-outcome.memory)

    def batches(self) -> Generator[list[Outcome], None, None]:
        """All outcomes, as they come or in the order of the jobs, many at a time, the next of each list at its end.
        Whoever iterates takes all out of a list before he asks for another; they are handed out then. Closed, or left
        by an error, it ends the operation."""
        process = os.getpid()
        turns = Turns() if self.ordered else None
        try:
            while not self.done:
                found = self.pump(IDLE_SECONDS)
                if turns is not None:
                    found = turns.come(found)
                if not found:
                    continue
                memory, number = sum(map(MEMORY, found)), len(found)
                found.reverse()
                yield found
                self._handed_out += number
                self.admission.budget.take(-memory)
        finally:
            # A forked child only lets go of it: uploads and temporary files are its parent's, which goes on.
            if process == os.getpid():
                self.close()

    def outcomes(self) -> Generator[Outcome, None, None]:
        """All outcomes, as they come or in the order of the jobs. To be iterated over at once; closed, or left by an
        error, it ends the operation."""
        batches = self.batches()
        try:
            for found in batches:
                while found:
                    outcome = found.pop()
                    yield outcome
                    del outcome  # its memory, which the caller may have let go, is for what comes next
        finally:
            batches.close()

    def flowed(self) -> int:
        """Bytes of bodies that came or went, of those under way too. Another thread may ask."""
        return self._counts.moved + self._channel.flowing()

    def fileno(self) -> int:
        """Readable when pumping brings something."""
        return self._channel.fileno()

    def prepare(self, operation: str) -> None:
        """What may take long: find or refresh the credentials, and have the control plane make its first request of the
        kind. What goes wrong here, the first call reports."""
        with suppress(MfstoreError):
            self._control.credentials()
            for name in FIRST_CALLS.get(operation, ("GetObject",)):
                if name in ROUTED:
                    self._control.route(name, ANY_BUCKET, NO_OPTIONS)
                else:
                    self._control.prepare(Call(name, ANY_BUCKET))

    def renews(self) -> bool:
        """Whether what is sent next may wait for keys to be renewed: no work for an event loop."""
        return self._control.renews()

    def renew(self) -> None:
        """Have them renewed. What goes wrong here, the next call reports."""
        with suppress(MfstoreError):
            self._control.renew(self.retries.ask)

    def due(self, now: float) -> float:
        """Seconds until something has to be done without a reply."""
        calls = self._calls
        flying = calls.flying or (self._lane is not None and self._lane.flying)
        due = self._hedges.next_look - now if flying else IDLE_SECONDS
        if calls.delayed:
            due = min(due, calls.delayed[0][0] - now)
        return due

    # ---- sending ------------------------------------------------------------------------

    def _admit(self, now: float) -> None:
        if self._plain is not None and self._lane is None:
            self._open_lane(self._plain)
        calls, waiting, lane = self._calls, self._announced.waiting, self._lane
        usable = lane is not None
        while True:
            if lane is not None and usable:
                odd = self._admit_plain(lane, now)
                if odd is False:
                    return
                usable = odd is not None
            announced, plain = len(waiting), lane.flying if lane is not None else 0
            under_way = len(calls.flying) - announced + len(calls.ready) + plain
            alone = not (self._active or plain)
            job = self.admission.next_job(under_way, announced, len(calls.delayed), alone)
            if job is None:
                return
            job.started = now
            self._active[job.index] = job
            self._begin(job)

    def _open_lane(self, jobs: PlainJobs) -> None:
        """Have what is plain go without jobs, where the engine can."""
        policy, plain = self.retries.policy, jobs.shared()
        if plain is not None:
            # Requests under way hold their lane, and that not this: what nobody asks for any more ends at once.
            method = WeakMethod(self._adopt)

            def adopt(*given: Any) -> Call:
                found = method()
                assert found is not None
                return found(*given)

            self._lane = self._channel.lane(plain, policy.first_byte, policy.stall, Outcome, adopt)
        if self._lane is None:
            self._plain = None

    def _admit_plain(self, lane: Lane, now: float) -> bool | None:
        """Send what is plain of the next items. Whether the next has to be a job; None: all have to, for now."""
        assert self._plain is not None
        calls, announced = self._calls, len(self._announced.waiting)
        flying = len(calls.flying) - announced + lane.flying
        room = self.admission.room(flying + len(calls.ready), announced, len(calls.delayed))
        if not room:
            return False
        try:
            if not lane.ready():
                return None
        except Exception:
            # What is wrong is told by the calls of jobs, to which the same will happen. To find it out may take seconds
            # (credentials that cannot be refreshed), which each job would take again.
            return None
        alone = not (self._active or lane.flying)
        taken = self.admission.take_plain(lane, self._plain, room, alone, now)
        if taken is None:
            return True
        self._counts.requests += taken.count
        self._counts.concurrency = max(self._counts.concurrency, flying + taken.count)
        if taken.unsent:
            self._send_each(taken.unsent)
        return taken.odd

    def _adopt(self, index: int, item: Any, memory: int, sent: float, credentials: Credentials | None) -> Call:
        """The call that a plain request was, with its job: from now on it is one like any other."""
        assert self._plain is not None
        job = self._plain.job(index, item)
        job.started, job.weight, job.attempts, job.calls = sent, memory, 1, 1
        (call,) = job.begin()
        state = call.tag
        state.attempts, state.started, state.sent, state.credentials = 1, sent, sent, credentials
        call.first_byte, call.stall = self.retries.policy.first_byte, self.retries.policy.stall
        self._active[index] = job
        self._calls.flying[id(call)] = call
        return call

    def _begin(self, job: Job) -> None:
        try:
            calls = job.begin()
        except Restart:  # what an interrupted download left is damaged
            job.restarts += 1
            self._counts.verify_failures += 1
            job.forget()
            self._begin(job)
            return
        except Exception as error:
            job.error = unforeseen(error)
            self._end(job)
            return
        self._calls.add(job, calls)
        if job.outcome is not None:
            self._end(job)

    def _submit(self, now: float) -> None:
        calls, admission = self._calls, self.admission
        if calls.delayed:
            calls.move_due(now)
        room = int(admission.limiter.limit) - len(calls.flying) + len(self._announced.waiting)
        if self._lane is not None:
            room -= self._lane.flying
        if not calls.ready or room <= 0:
            return
        batch: list[Call] = []
        later: list[Call] = []
        flowing = -1
        while calls.ready and len(batch) < room:
            call = calls.ready.popleft()
            state = call.tag
            job = state.job
            if job.pages and self._must_wait(job):
                later.append(call)
                continue
            if job.error is not None and not call.operation.startswith("Abort"):
                self._drop(call)
                continue
            long = is_long(call)
            if long and (enough := admission.enough((call.bucket,))) is not None:
                flowing = self._flowing() if flowing < 0 else flowing
                if flowing >= enough:
                    later.append(call)
                    continue
            flowing += long and flowing >= 0
            if call.first_byte == FIRST_BYTE_SECONDS:
                policy = self.retries.policy
                call.first_byte, call.stall = policy.first_byte, policy.stall
            state.attempts += 1
            if state.attempts > job.attempts:
                job.attempts = state.attempts
            state.sent = now
            state.flows = now if long else 0.0
            state.started = state.started or now
            calls.flying[id(call)] = call
            batch.append(call)
        calls.ready.extendleft(reversed(later))
        if batch:
            self._send(batch)

    def _flowing(self) -> int:
        """How many long bodies are under way to where they go."""
        return sum(1 for call in self._calls.flying.values() if call.tag.flows)

    def _must_wait(self, job: Job) -> bool:
        """Whether a listing's next page has no room. Of the oldest job, which all others' results wait for, it has."""
        return job.error is None and job.index != min(self._active) and not self.admission.budget.fits(job.pages)

    def _send(self, batch: list[Call]) -> None:
        counts = self._counts
        counts.requests += len(batch)
        under_way = len(self._calls.flying) - len(self._announced.waiting)
        if self._lane is not None:
            under_way += self._lane.flying
        counts.concurrency = max(counts.concurrency, under_way)
        try:
            credentials = self._control.keys or self._control.credentials()
            for call in batch:
                call.tag.credentials = credentials
        except MfstoreError as error:
            # Without credentials no call can be made.
            for call in batch:
                self._unsent(call, copied(error))
            return
        try:
            self._channel.submit(batch)
        except Exception:
            # Nothing was sent. What the control plane or the engine refuses of one call says nothing of the others.
            self._send_each(batch)

    def _send_each(self, batch: Sequence[Call]) -> None:
        for call in batch:
            try:
                self._channel.submit([call])
            except NoSession as error:
                self._handle(error.reply_to(call))
            except Exception as error:
                self._unsent(call, unforeseen(error))

    def _unsent(self, call: Call, error: MfstoreError) -> None:
        del self._calls.flying[id(call)]
        call.tag.job.error = call.tag.job.error or error
        self._drop(call)

    # ---- replies ------------------------------------------------------------------------

    def _land(self, landed: Landed) -> None:
        """Good replies to plain requests: as ``_fine`` and ``_end`` for each."""
        admission, quota, count = self.admission, self.retries.quota, len(landed.outcomes)
        if quota.tokens < quota.CAPACITY:
            quota.succeeded(count)
        admission.limiter.succeeded(landed.finished, landed.received, sum(landed.durations) / count, count)
        self._hedges.recent.extend(landed.durations)
        self._counts.verified += landed.verified
        if landed.gets:
            admission.mean_size += (1 - 0.9**count) * (landed.sizes / count - admission.mean_size)
        counts, plain = self._counts, self._plain
        if plain is not None and plain.sends:
            counts.sent += landed.sizes
            counts.moved += landed.sizes
        else:
            counts.moved += landed.received
        if plain is not None:
            answer = plain.operation, OK
            counts.answers[answer] = counts.answers.get(answer, 0) + count
        admission.budget.take(landed.memory)
        self._out.extend(landed.outcomes)

    def _handle(self, reply: Reply) -> None:
        call, flying = reply.call, self._calls.flying
        if id(call) not in flying:
            return  # the loser of a pair
        state = call.tag
        job = state.job
        if reply.announced:
            if state.hedge is not None:
                self._end_pair(call, True)
            self._announced.add(call, reply)
            if self.admission.nearby is not None:
                self.admission.nearby.of(call.bucket).answered(reply.first_byte - reply.submitted)
            # It takes none while it waits. What was reserved for it would keep the last that fits from beginning.
            self.admission.budget.take(-job.weight)
            job.weight = 0
            return
        if self._announced.waiting:
            self._announced.waiting.pop(id(call), None)
        del flying[id(call)]
        # As ``classify`` finds it, without a call for each of many good replies.
        fine = reply.failure is None and 200 <= reply.status < 300
        answer = call.operation, OK if fine else reply.failure or str(reply.status)
        answers = self._counts.answers
        answers[answer] = answers.get(answer, 0) + 1
        if state.hedge is not None and self._end_pair(call, fine):
            return
        if job.error is not None:
            if call.operation == "AbortMultipartUpload":
                self._given_up(job, call, reply)
            else:
                self._drop(call)
        elif state.wrong is not None:
            wrong, state.wrong = state.wrong, None
            self._ask_again(job, call, reply, wrong)
        elif fine:
            self._fine(job, call, reply)
        elif reply.failure == CANCELLED:
            self._fatal(job, call, BackendError("cancelled"))
        else:
            self._failed(job, call, reply)

    def _fine(self, job: Job, call: Call, reply: Reply) -> None:
        quota = self.retries.quota
        if quota.tokens < quota.CAPACITY:
            quota.succeeded()
        now, size = reply.finished, reply.received
        seconds = now - reply.submitted
        if call.body is None:
            self._counts.moved += size
        else:
            went = body_size(call.body)
            self._counts.moved += went
            self._counts.sent += went
        self.admission.limiter.succeeded(now, size, seconds)
        if size <= HEDGED_BYTES:
            self._hedges.recent.append(seconds)
        job.first_byte = reply.first_byte - reply.submitted
        if call.tag.flows and self.admission.nearby is not None:
            measure(self.admission.nearby, call, reply)
        try:
            more = job.on_reply(call, reply, self._control)
        except Retry as retry:
            self._ask_again(job, call, reply, retry)
            return
        except Restart as restart:
            self._counts.verify_failures += 1
            self._restart(job, call, restart.error, 1)
            return
        except Exception as error:
            self._fatal(job, call, unforeseen(error))
            return
        job.calls -= 1
        if more:
            self._calls.add(job, more)
        elif job.outcome is not None and not job.calls:
            self._end(job)
        if job.several:
            self._hand_out_early(job)

    def _hand_out_early(self, job: Job) -> None:
        """What a job has before its end."""
        if job.outcome is None:
            extra = job.take()
            self.admission.budget.take(weighed(extra))
            self._out.extend(extra)

    def _ask_again(self, job: Job, call: Call, reply: Reply, retry: Retry) -> None:
        """The answer was one to ask again for."""
        call.tag.odd += 1
        if call.tag.odd == retry.tries or not self._retry(call, reply, Verdict.TRANSIENT):
            self._fatal(job, call, retry.error)

    def _failed(self, job: Job, call: Call, reply: Reply) -> None:
        """A reply that is an error, unless the job makes something of it."""
        try:
            more = job.rescued(call, reply, self._control)
        except Restart as restart:
            self._restart(job, call, restart.error, RESTARTS)
            return
        except Exception as error:
            self._fatal(job, call, unforeseen(error))
            return
        if more is not None:
            job.calls -= 1
            self._calls.add(job, more)
            if job.outcome is not None and not job.calls:
                self._end(job)
            self._hand_out_early(job)
            return
        try:
            verdict = self._control.verdict(reply)
            hopeless = verdict is Verdict.FATAL or not self._retry(call, reply, verdict)
        except MfstoreError as error:  # no new credentials
            self._fatal(job, call, error)
            return
        if hopeless:
            self._fatal(job, call, self._control.problem(call, reply))

    def _retry(self, call: Call, reply: Reply, verdict: Verdict) -> bool:
        """Have the call made again, unless it is hopeless."""
        now = monotonic()
        if verdict is Verdict.THROTTLED:
            self._counts.throttled += 1
            self.admission.limiter.slow_down(now)
        delay = self.retries.delay(call.tag, call, reply, verdict, now)
        if delay is None:
            return False
        self._counts.retries += 1
        self._calls.add_later(now + delay, call.tag.job.again(call, reply))
        from mfstore.host.logs import INFO, log  # few requests are tried again

        why = reply.failure or f"HTTP {reply.status}"
        where = bucket_url(call.bucket, call.key or "")
        log(INFO, "s3", "%s of %s again in %.1f s: %s", call.operation, where, delay, why)
        return True

    def _given_up(self, job: Job, call: Call, reply: Reply) -> None:
        """The answer to giving up an upload whose job failed: asked again, within bounds, then told."""
        verdict = self._control.verdict(reply)
        if verdict is not Verdict.FINE and reply.status != 404 and reply.failure != CANCELLED:
            with suppress(MfstoreError):
                if call.tag.attempts < ABORT_ATTEMPTS and self._retry(call, reply, verdict):
                    return
            job.error.add_note(left_open(call, self._control.problem(call, reply)))  # type: ignore[union-attr]
        self._drop(call)

    def _fatal(self, job: Job, call: Call, error: MfstoreError) -> None:
        job.error = job.error or error
        for other in list(self._calls.flying.values()):
            if other.tag.job is job:
                self._channel.cancel(other)
        self._drop(call)

    def _restart(self, job: Job, call: Call, error: MfstoreError, most: int) -> None:
        if job.restarts < most:
            job.restarts += 1
            job.restarting = True
            self._counts.retries += 1
        self._fatal(job, call, error)

    def _drop(self, call: Call) -> None:
        """A call of a failing job is over. After the last one the job is cleaned up, or begins anew."""
        job = call.tag.job
        job.calls -= 1
        if job.calls > 0:
            self._calls.withdraw(job)
            if job.calls > 0:
                return
        if job.restarting:
            job.restarting = False
            job.error = None
            job.forget()
            self._begin(job)
            return
        undo = job.cleanup()
        if undo:
            self._calls.add(job, undo)
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
        admission = self.admission
        if isinstance(job, GetJob):
            self._counts.verified += job.verified
            admission.mean_size += 0.1 * (job.outcome.size - admission.mean_size)
        # The memory is held until the outcome has been handed out; what it really takes is known now.
        held = -job.weight
        if job.several:
            extra = job.take()
            held += weighed(extra)
            self._out.extend(extra)
        outcome = job.outcome  # the last, if there are several
        outcome.memory = outcome_memory(outcome)
        admission.budget.take(held + outcome.memory)
        self._out.append(outcome)

    # ---- long bodies ----------------------------------------------------------------------

    def _grant(self) -> None:
        """Let announced bodies flow to their final memory or file, as there is room."""
        budget = self.admission.budget
        for call in self._announced.without_job():
            self._channel.cancel(call)
        connections, oldest, jobs = int(self.admission.limiter.limit), min(self._active, default=0), len(self._active)
        room = None
        buckets = {call.bucket for call, _ in self._announced.waiting.values()}
        if (enough := self.admission.enough(buckets)) is not None:
            flowing = self._flowing()
            # What is being handed out is let go by then, and its memory used again.
            if flowing >= enough or (flowing and self._out):
                return
            room = enough - flowing
            # Until a rate is known pieces are short: the first that has come tells it.
            if self.admission.measured(buckets):
                connections = enough
        if self._lane is not None and (first := self._lane.oldest()) is not None:
            oldest, jobs = min(oldest, first), jobs + self._lane.flying
        unanswered = self._unanswered_before() if self.ordered else None
        grants = self._announced.grants(oldest, jobs, connections, budget.limit, budget.has, unanswered)
        for call, reply, more, pieces in grants:
            job: GetJob = call.tag.job
            job.weight += more
            budget.take(more)
            try:
                landing = job.announced(call, reply, pieces, self._pool)
            except Retry as retry:
                self._channel.cancel(call)
                call.tag.wrong = retry
                budget.take(-job.weight)
                job.weight = 0
                continue
            except Exception as error:
                self._channel.cancel(call)
                job.error = unforeseen(error)
                continue
            call.tag.flows = monotonic()
            self._channel.resume(call, landing.target, landing.stop, landing.skip)
            self._calls.add(job, landing.more)
            if room is not None and (room := room - 1) == 0:
                return

    def _unanswered_before(self) -> Callable[[int], int]:
        """Tells how many items before one, by its number, are under way of which nobody knows yet what they take."""
        known = {call.tag.job.index for call, _ in self._announced.waiting.values()}
        asked = sorted(job.index for job in self._active.values() if not job.has_place and job.index not in known)
        first = self._lane.oldest() if self._lane is not None else None

        def before(number: int) -> int:
            plain = 0
            if first is not None and first < number:
                assert self._lane is not None
                plain = min(self._lane.flying, number - first)  # at most: those between may have been answered
            return bisect_left(asked, number) + plain

        return before

    # ---- the last few ---------------------------------------------------------------------

    def _hedge(self, now: float) -> None:
        """Send what is late a second time, when little else is left."""
        self._hedges.next_look = now + LOOK_SECONDS
        if not self.admission.all_taken:
            return
        flying, items = self._calls.flying, self._handed_out + len(self._active)
        if self._lane is not None and self._lane.flying:
            items += self._lane.flying
            if self._lane.flying <= self._hedges.most(items):
                self._lane.adopt_late(now - self._hedges.slow())
        late = self._hedges.late(flying.values(), self._announced.waiting, items, now)
        if not late:
            return
        try:
            self._control.credentials()
        except MfstoreError:
            return  # a second request cannot be signed; the first may still be answered
        for call in late:
            second = call.tag.job.again(call, Reply(call))
            self._hedges.pair(call, second)
            flying[id(second)] = second
            call.tag.job.calls += 1
        seconds = [call.tag.hedge for call in late]
        try:
            self._channel.submit(seconds)
        except MfstoreError:  # cannot be made now; the first may still be answered
            for second in seconds:
                self._handle(Reply(second, failure=CANCELLED))
            return
        self._counts.hedged += len(late)
        self._counts.requests += len(late)

    def _end_pair(self, call: Call, fine: bool) -> bool:
        """One of a pair has ended, or been announced. True when its reply is not needed."""
        other = self._hedges.part(call)
        if other is None or id(other) not in self._calls.flying:
            return False
        call.tag.job.calls -= 1
        if not fine:
            return True  # the other may still do better
        self._channel.cancel(other)
        del self._calls.flying[id(other)]
        self._announced.waiting.pop(id(other), None)
        return False

    # ---- the end ----------------------------------------------------------------------------

    def halt(self) -> bool:
        """End now: when it returns, within 100 ms, no buffer is written to any more. Whether uploads are left to give
        up, which ``close`` does."""
        self.admission.stop()
        under_way = self._active or (self._lane is not None and self._lane.flying)
        return bool(under_way) and self._end_early().halt(self._calls.clear_unsent(), self._active.values())

    def close(self) -> None:
        """End, if ``halt`` has not: open uploads are given up, which may take two seconds, temporary files removed."""
        self.admission.stop()
        try:
            if self._active:  # every call is some job's
                self._end_early().finish(self._calls.clear_unsent(), self._active.values())
        finally:
            self._channel.close()
            if self._lane is not None:
                self._lane.end()
            for job in self._active.values():
                job.abandon()
            self._active.clear()
            if self._told_end is not None:
                self._told_end(self._counts)
                self._told_end = None

    def _end_early(self) -> Ending:
        if self._ending is None:
            self._ending = Ending(self._channel, self._control, self._calls.flying, self._lane)
        return self._ending


OK = "ok"
"""How a request ended that was answered as it should be."""


ADDED_TOGETHER = 64
"""Operations that have ended, which are added up together."""


class Traffic:
    """What the operations of one client come to: those that have ended, and those under way so far."""

    def __init__(self) -> None:
        self._under_way: dict[int, TransferCounts] = {}
        self._ended: deque[TransferCounts] = deque()
        self._total = TransferCounts()
        self.forked()
        anew_in_children(self)

    def forked(self) -> None:
        """A lock anew, in a new child too."""
        self._adding = threading.Lock()

    def begun(self, counts: TransferCounts) -> None:
        """An operation begins that counts here."""
        self._under_way[id(counts)] = counts

    def ended(self, counts: TransferCounts) -> None:
        """It has ended."""
        self._ended.append(counts)
        # Seldom, since it takes as long as a hundred requests in an engine; who finds somebody at it leaves it to them.
        if len(self._ended) >= ADDED_TOGETHER and self._adding.acquire(blocking=False):
            try:
                for _ in range(len(self._ended)):
                    self._add_ended()
            finally:
                self._adding.release()

    def _add_ended(self) -> None:
        with suppress(IndexError):  # somebody else has taken it
            counts = self._ended.popleft()
            _add(self._total, counts)
            self._under_way.pop(id(counts), None)

    def now(self) -> TransferCounts:
        """What it comes to now. ``concurrency`` and ``memory`` are the most of one operation, ``seconds`` those of all
        of them."""
        found = TransferCounts()
        with self._adding:
            while self._ended:
                self._add_ended()
            _add(found, self._total)
            for counts in [*self._under_way.values()]:
                _add(found, counts)
        return found


_SUMMED = ("requests", "retries", "throttled", "hedged", "verified", "verify_failures", "seconds", "moved", "sent")


def _add(total: TransferCounts, counts: TransferCounts) -> None:
    for name in _SUMMED:
        setattr(total, name, getattr(total, name) + getattr(counts, name))
    total.concurrency = max(total.concurrency, counts.concurrency)
    total.memory = max(total.memory, counts.memory)
    for answer, number in [*counts.answers.items()]:
        total.answers[answer] = total.answers.get(answer, 0) + number


# ---- what the operations of one client share ----------------------------------------------


_choosing = {"lock": threading.RLock()}
os.register_at_fork(after_in_child=lambda: _choosing.update(lock=threading.RLock()))


class Transfers:
    """What runs the jobs of one client: its engine and control plane, how it retries, and how much it may do at once.

    Safe to use from several threads, and in forked children. Opens no connection before it is used.
    """

    def __init__(
        self, control: ControlPlane, knobs: S3Knobs, policy: RetryPolicy, max_bandwidth: float | None = None
    ) -> None:  # fmt: skip
        self.control = control
        self.policy = policy
        self.quota = RetryQuota()
        self.options: dict[Any, Options] = {}
        """Of the few different parameters of its operations each once: see ``shared_options``."""
        self._knobs = knobs
        self._max_bandwidth = max_bandwidth
        self.traffic = Traffic()
        """What all of it came to."""
        self._nearby = Nearby()
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """What moves the bytes, chosen when first used. Unsupported when it cannot serve this configuration. May be set
        to another, mostly one around it."""
        if self._engine is None:
            uninterrupted(self._choose, fork_waits=True)
            assert self._engine is not None
        return self._engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        """Move the bytes by another."""
        self._engine = engine

    def _choose(self) -> None:
        # One engine, however many threads begin.
        with _choosing["lock"]:
            from mfstore.s3.engines.choice import choose

            if self._engine is None:
                self._engine = choose(self._knobs.engine, self.control, self._max_bandwidth)

    def scheduler(self, jobs: Iterator[Job], counts: TransferCounts, ordered: bool = False) -> Scheduler:
        """A scheduler of ``jobs``, which are taken as there is room. Whoever asks for it closes it."""
        fixed = self._knobs.concurrency
        nearby = None
        if fixed is None:
            nearby = self._nearby
            nearby.threads = self.engine.threads
        admission = Admission(jobs, Limiter(fixed=fixed), self._knobs.memory, nearby)
        retries = Retries(self.control, self.policy, self.quota, self.engine.ask)
        plain = jobs if isinstance(jobs, PlainJobs) else None
        channel = (self._engine or self.engine).channel()
        self.traffic.begun(counts)
        return Scheduler(channel, admission, retries, counts, plain, ordered, self.traffic.ended)

    def run(self, jobs: Iterator[Job], ordered: bool = False, told: bool = False) -> Generator[Outcome, None, None]:
        """The outcomes of ``jobs``, as ``Scheduler.outcomes`` gives them: errors are in them, not raised. With ``told``
        whoever asked for progress hears of their bytes while these flow."""
        scheduler = self.scheduler(jobs, TransferCounts(), ordered)
        if told and (meter := METER.get()) is not None:
            meter.watch(scheduler.flowed)
        return scheduler.outcomes()

    def one(self, job: Job) -> Outcome:
        """The outcome of one job. Raises its error."""
        (outcome,) = self.run(iter((job,)))
        if outcome.error is not None:
            raise abandoning(outcome.error, 0)
        return outcome

    def with_parts(
        self, *, control: ControlPlane | None = None, engine: Engine | None = None, policy: RetryPolicy | None = None,
        quota: RetryQuota | None = None, memory: int | None = None,
    ) -> Transfers:  # fmt: skip
        """The same with other parts; None leaves a part as it is, and shared."""
        other = copy(self)
        other.control = control or self.control
        other._engine = engine or self._engine
        if control is not None or engine is not None:
            other._nearby = Nearby()
        other.traffic = Traffic()
        other.policy = policy or self.policy
        other.quota = quota or self.quota
        if memory is not None:
            other._knobs = self._knobs._replace(memory=memory)
        return other

    def close(self) -> None:
        """Close the connections. What is run next opens new ones."""
        if self._engine is not None:
            self._engine.close()
