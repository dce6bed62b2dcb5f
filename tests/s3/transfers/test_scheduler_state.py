"""The scheduler's parts, each without the others: who may begin, what waits, what is asked again or twice, and the
end."""

import pytest

from mfstore.errors import AccessDenied
from mfstore.s3.aws.errors import Verdict
from mfstore.s3.calls import Call, Reply
from mfstore.s3.transfers.announced import AnnouncedBodies
from mfstore.s3.transfers.downloads import GetJob
from mfstore.s3.transfers.ending import Ending
from mfstore.s3.transfers.hedging import EVIDENCE, HEDGE_FLOOR, Hedges
from mfstore.s3.transfers.jobs import MultipartJob, Try
from mfstore.s3.transfers.retry import Retries, RetryPolicy, RetryQuota
from mfstore.s3.transfers.scheduler import FEWEST_CALLS, FIRST_GUESS, Admission, Budget, CallQueue, Limiter
from tests.rigs.control_planes import control_plane, nobody

MIB = 1 << 20


def job(index, weight=0):
    made = GetJob(index, "k", "b", f"k{index}")
    made.weight = weight
    return made


def call(of, operation="GetObject", **fields):
    return Call(operation, "b", of.key, tag=Try(of), **fields)


# ---- admission --------------------------------------------------------------------------


def admission(weights, memory=MIB):
    return Admission((job(i, weight) for i, weight in enumerate(weights)), Limiter(fixed=16), memory)


def begun(admitting, **given):
    now = {"under_way": 0, "announced": 0, "delayed": 0, "alone": False, **given}
    found = []
    while (next_one := admitting.next_job(**now)) is not None:
        found.append(next_one.index)
    return found


def test_jobs_begin_as_long_as_there_is_memory_and_one_that_waited_is_the_next():
    admitting = admission([MIB // 2, MIB // 2, MIB // 2])
    assert begun(admitting) == [0, 1] and not admitting.exhausted
    admitting.budget.take(-MIB // 2)
    assert begun(admitting) == [2] and admitting.exhausted and admitting.budget.used == MIB


def test_one_job_may_have_more_than_there_is_when_it_is_alone():
    admitting = admission([MIB, 5 * MIB])
    assert begun(admitting) == [0] and begun(admitting) == []
    assert admitting.next_job(0, 0, 0, alone=True).index == 1


def test_an_object_of_unknown_size_is_reserved_for_as_the_mean():
    admitting = admission([0])
    assert begun(admitting) == [0] and admitting.budget.used == FIRST_GUESS


@pytest.mark.parametrize(
    "given", [{"under_way": 16}, {"announced": FEWEST_CALLS}, {"delayed": 16}], ids=lambda given: next(iter(given))
)
def test_none_begins_while_enough_are_under_way_announced_or_delayed(given):
    admitting = admission([1])
    assert begun(admitting, **given) == [] and not admitting.exhausted
    assert begun(admitting, **{name: count - 1 for name, count in given.items()}) == [0]


def test_stopped_means_that_none_begins():
    admitting = admission([MIB, MIB])
    begun(admitting)
    admitting.stop()
    assert admitting.exhausted and begun(admitting, alone=True) == []


def test_the_budget_remembers_its_most():
    budget = Budget(100)
    assert budget.fits(1000) and not budget.has(1000)
    budget.take(60)
    budget.take(30)
    budget.take(-90)
    assert (budget.used, budget.most) == (0, 90)


# ---- the queue --------------------------------------------------------------------------


def test_what_was_delayed_goes_first_when_it_is_due():
    queue, one, other = CallQueue(), job(0), job(1)
    queue.add(one, [call(one), call(one)])
    late, later = call(other), call(other)
    queue.add_later(20.0, later)
    queue.add_later(10.0, late)
    queue.move_due(10.0)
    assert queue.ready[0] is late and len(queue.ready) == 3 and one.calls == 2
    queue.move_due(30.0)
    assert queue.ready[0] is later and not queue.delayed


def test_a_failing_jobs_calls_are_forgotten_and_no_others():
    queue, one, other = CallQueue(), job(0), job(1)
    queue.add(one, [call(one), call(one)])
    queue.add(other, [call(other)])
    queue.add_later(1.0, call(one))
    one.calls += 1
    queue.add_later(2.0, call(other))
    queue.withdraw(one)
    assert one.calls == 0 and [c.tag.job for c in queue.ready] == [other] and len(queue.delayed) == 1
    assert len(queue.clear_unsent()) == 2 and not queue.ready and not queue.delayed


# ---- retries ----------------------------------------------------------------------------


class Plane:
    """A control plane that has news once of each kind."""

    def __init__(self):
        self.news = ["expire", "learn_skew", "redirect"]

    def _once(self, kind):
        return kind in self.news and not self.news.remove(kind)

    def expire(self, credentials, bucket):
        return self._once("expire")

    def learn_skew(self, reply):
        return self._once("learn_skew")

    def redirect(self, call, reply, ask):
        return self._once("redirect")


def test_each_kind_of_retry_is_made_as_often_as_it_may_help():
    retries = Retries(Plane(), RetryPolicy(attempts=3), RetryQuota(), nobody, draw=lambda: 1.0)
    asked = call(job(0))
    state, reply = asked.tag, Reply(asked)

    def delay(verdict):
        state.attempts += 1
        return retries.delay(state, asked, reply, verdict, 1.0)

    for verdict in (Verdict.REFRESH, Verdict.SKEWED, Verdict.MOVED):
        assert delay(verdict) == 0.0 and delay(verdict) is None
    state.attempts = 0
    assert delay(Verdict.FREE) == 0.0 and delay(Verdict.TRANSIENT) > 0.0 and delay(Verdict.TRANSIENT) is None
    assert delay(Verdict.FATAL) is None


def test_no_try_begins_when_the_time_is_over_by_when_the_answer_came():
    retries = Retries(Plane(), RetryPolicy(seconds=10.0), RetryQuota(), nobody, draw=lambda: 0.0)
    asked = call(job(0))
    asked.tag.started, asked.tag.attempts = 100.0, 1
    assert retries.delay(asked.tag, asked, Reply(asked, finished=109.0), Verdict.TRANSIENT, 200.0) == 0.0
    assert retries.delay(asked.tag, asked, Reply(asked, finished=111.0), Verdict.TRANSIENT, 200.0) is None


# ---- announced bodies -------------------------------------------------------------------


def announced(bodies, index, length):
    asked = call(job(index))
    bodies.add(asked, Reply(asked, 200, headers={"content-length": str(length)}, announced=True))
    return asked


def test_the_oldest_gets_its_memory_and_others_what_is_left():
    bodies, budget = AnnouncedBodies(), Budget(10 * MIB)
    for index, length in ((3, 4 * MIB), (1, 20 * MIB), (2, 1 * MIB)):
        announced(bodies, index, length)
    got = []
    for grant in bodies.grants(1, 3, 24, budget.limit, budget.has):
        budget.take(grant.more)
        got.append((grant.call.tag.job.index, grant.more, grant.pieces))
    assert got == [(1, 20 * MIB, 24)] and len(bodies.waiting) == 2
    budget.take(-20 * MIB)
    assert [grant.pieces for grant in bodies.grants(2, 2, 24, budget.limit, budget.has)] == [12, 12]


def granted(lengths, budget, unanswered, oldest=0):
    """The numbers of those that get their memory, of bodies by number."""
    bodies, got = AnnouncedBodies(), []
    for index, length in lengths.items():
        announced(bodies, index, length)
    for grant in bodies.grants(oldest, 9, 24, budget.limit, budget.has, unanswered):
        budget.take(grant.more)
        got.append(grant.call.tag.job.index)
    return got


@pytest.mark.parametrize(
    ("lengths", "before", "got"),
    [
        ({3: 2}, 3, [3]),  # as long as it three more, and itself: eight
        ({4: 2}, 4, []),
        ({4: 2}, None, [4]),  # in any order
        ({0: 30, 4: 2}, 0, [0]),  # the oldest takes what it takes
        ({1: 7, 2: 2, 3: 1}, 0, [1]),  # what waits here is before it too
        ({1: 7, 2: 2, 3: 1}, None, [1, 3]),
        ({1: 3, 2: 3}, 1, [1]),
    ],
)
def test_in_order_memory_goes_to_a_body_when_those_before_it_find_theirs(lengths, before, got):
    lengths = {index: length * MIB for index, length in lengths.items()}
    assert granted(lengths, Budget(8 * MIB), None if before is None else lambda _: before) == got


def test_a_body_whose_job_failed_waits_no_more():
    bodies = AnnouncedBodies()
    failed = announced(bodies, 1, MIB)
    announced(bodies, 2, MIB)
    failed.tag.job.error = AccessDenied("no")
    assert bodies.without_job() == [failed] and len(bodies.waiting) == 1


# ---- hedging ----------------------------------------------------------------------------


def test_what_is_late_among_the_last_few_is_worth_a_second_call():
    hedges = Hedges()
    calls = [call(job(i)) for i in range(2)]
    calls[0].tag.sent, calls[1].tag.sent = 0.0, 10.0
    assert hedges.late(calls, (), 100, 10.0) == []  # nothing is known yet
    hedges.recent.extend([0.01] * EVIDENCE)
    assert hedges.slow() == HEDGE_FLOOR
    assert hedges.late(calls, (), 100, 10.0) == calls[:1]
    assert hedges.late(calls, {id(calls[0])}, 100, 10.0) == []
    assert hedges.late([call(job(i)) for i in range(50)], (), 100, 10.0) == []


def test_a_pair_is_found_from_either_side_and_parted_once():
    for ended in (0, 1):
        hedges, first = Hedges(), call(job(0))
        pair = first, Call("GetObject", "b", "k0", tag=first.tag)
        hedges.pair(*pair)
        assert hedges.part(pair[ended]) is pair[1 - ended]
        assert first.tag.hedge is None and not hedges.first_of


# ---- the end ----------------------------------------------------------------------------


class Cancelling:
    """A channel whose calls end as cancelled, and whose aborts are done at once."""

    def __init__(self):
        self.cancelled, self.submitted = [], []

    def cancel(self, call):
        self.cancelled.append(call)

    def submit(self, calls):
        self.submitted += calls

    def poll(self, timeout):
        replies = [Reply(call, failure="cancelled") for call in self.cancelled]
        replies += [Reply(call, 204) for call in self.submitted]
        self.cancelled = []
        return replies


def test_at_the_end_calls_are_cancelled_and_open_uploads_given_up():
    upload = MultipartJob(0, "k", "b", "k")
    upload._upload = "u1"
    part = call(upload, "UploadPart")
    channel = Cancelling()
    ending = Ending(channel, control_plane(), {id(part): part})
    assert ending.halt([], [upload]) and not ending.flying
    ending.finish([], [upload])
    assert [(c.operation, c.params) for c in channel.submitted] == [("AbortMultipartUpload", {"UploadId": "u1"})]
    assert not ending.halt([], [upload])
