"""What runs the jobs of one client, and what it shares between operations; on a simulated S3."""

import os

import pytest

from mfstore.errors import InvalidKey, NotFound
from mfstore.s3.aws.settings import ConnectionSettings
from mfstore.s3.calls import NO_OPTIONS, Options, shared_options
from mfstore.s3.transfers.deletions import KEYS_PER_DELETE, DeleteJob, delete_jobs
from mfstore.s3.transfers.downloads import GetJob
from mfstore.s3.transfers.jobs import RefusedJob, check_key, jobs_of
from mfstore.s3.transfers.outcomes import Outcome
from mfstore.s3.transfers.scheduler import Transfers, Turns
from tests.rigs.simulated_s3 import SimulatedChannel, SimulatedS3, simulated_client

OBJECTS = {f"k{i}": b"x" * i for i in range(1, 30)}


@pytest.fixture
def world():
    return SimulatedS3(OBJECTS)


@pytest.fixture
def transfers(world):
    return simulated_client(world).transfers


@pytest.fixture
def closed(monkeypatch):
    """The channels that were closed."""
    found, close = [], SimulatedChannel.close

    def noted(channel):
        found.append(channel)
        close(channel)

    monkeypatch.setattr(SimulatedChannel, "close", noted)
    return found


def get(index, key):
    return GetJob(index, key, "b", key)


@pytest.mark.parametrize("ordered", [False, True])
def test_errors_are_in_the_outcomes(transfers, closed, ordered):
    keys = ["k1", "none", "k2", *OBJECTS]
    outcomes = list(transfers.run(jobs_of(keys, get), ordered))
    if not ordered:
        outcomes.sort(key=lambda outcome: outcome.index)
    assert [outcome.item for outcome in outcomes] == keys and isinstance(outcomes[1].error, NotFound)
    assert all(outcome.error is not None or outcome.data == OBJECTS[outcome.item] for outcome in outcomes)
    assert len(closed) == 1


def test_one_job(transfers):
    assert transfers.one(get(0, "k3")).data == b"xxx"
    with pytest.raises(NotFound) as caught:
        transfers.one(get(0, "none"))
    assert caught.value.__notes__ == ["0 items had succeeded before; the rest was not finished"]


def test_an_item_that_names_nothing_fails_in_its_turn(world, transfers):
    def make(index, key):
        check_key(key)
        return get(index, key)

    outcomes = list(transfers.run(jobs_of(["k1", "x" * 1025, "\ud800", "", "k2"], make), ordered=True))
    assert [type(outcome.error) for outcome in outcomes] == [type(None), InvalidKey, InvalidKey, InvalidKey, type(None)]
    assert world.count == 2


@pytest.mark.parametrize("left", ["closed", "error"])
def test_an_operation_ends_when_it_is_left(transfers, closed, left):
    def jobs():
        yield get(0, "k1")
        yield get(1, "k2")
        if left == "error":
            raise LookupError

    outcomes = transfers.run(jobs())
    if left == "closed":
        next(outcomes)
        outcomes.close()
    else:
        with pytest.raises(LookupError):
            list(outcomes)
    assert len(closed) == 1


def test_a_child_leaves_its_parents_operation_alone(transfers, closed, monkeypatch):
    outcomes = transfers.run(jobs_of(["k1", "k2"], get))
    next(outcomes)
    here = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: here + 1)
    outcomes.close()
    assert not closed


def test_other_parts_and_the_same(transfers):
    other = transfers.with_parts(memory=1 << 20)
    assert isinstance(other, Transfers) and other.engine is transfers.engine and other.options is transfers.options
    assert (other.control, other.policy, other.quota) == (transfers.control, transfers.policy, transfers.quota)
    scheduler = other.scheduler(iter(()), None)
    assert scheduler.admission.budget.limit == 1 << 20
    other.engine = SimulatedS3()
    assert other.engine is not transfers.engine


def outcome(index, last=True):
    return Outcome(index, None, "b", "k", last=last)


def test_turns():
    turns = Turns()
    one, two, page, three = outcome(0), outcome(1), outcome(2, last=False), outcome(2)
    assert turns.come([two]) == [] and turns.come([one, page]) == [one, two, page]
    assert turns.come([outcome(3)]) == [] and turns.come([three])[0] is three and turns.come([]) == []


def test_equal_options_are_one():
    known = {}
    first = shared_options({"ContentType": "a"}, known)
    assert isinstance(first, Options) and first is shared_options({"ContentType": "a"}, known)
    assert shared_options({"ContentType": "b"}, known) is not first and shared_options({}, known) is NO_OPTIONS


def test_deletions_are_grouped_by_bucket():
    def locate(item):
        if not item:
            raise InvalidKey("none")
        return item[0], item

    jobs = list(delete_jobs([*["a1"] * KEYS_PER_DELETE, "b1", "", "a2"], locate))
    assert [(type(job), job.bucket) for job in jobs] == [
        (DeleteJob, "a"), (RefusedJob, ""), (DeleteJob, "b"), (DeleteJob, "a"),
    ]  # fmt: skip


KEYS = {"aws_access_key_id": "a", "aws_secret_access_key": "s"}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (KEYS, ("a", "s", None)),
        ({**KEYS, "aws_session_token": "t"}, ("a", "s", "t")),
        ({"aws_access_key_id": "a"}, None),
        ({**KEYS, "anonymous": True}, None),
        ({}, None),
    ],
)
def test_keys_that_were_given_need_no_asking(given, found):
    keys = ConnectionSettings.given(**given).keys
    assert (None if keys is None else (keys.access_key, keys.secret_key, keys.token)) == found
