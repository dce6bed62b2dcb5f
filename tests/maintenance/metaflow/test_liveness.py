"""Which attempts of a Metaflow root are taken to be running."""

import pytest

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.metaflow.collecting.listed_runs import listed_runs
from mfstore.maintenance.metaflow.collecting.liveness import SILENCE, SLACK, Liveness, unfinished
from mfstore.maintenance.metaflow.holdings import Holdings
from mfstore.metaflow.roots import layout

HOUR = 3600.0
DAY = 24 * HOUR
NOW = 1_000 * DAY
NAME = ("Flow", "1", "train", "7")


def task(*files):
    """A task with files, as (name, how long before now)."""
    found = layout.Task()
    for name, ago in files:
        key = "/".join((*NAME, name))
        found.add(*layout.parse(key)[5:], ObjectInfo(key, 1, NOW - ago, "etag"))
    return found


def began(ago, *more):
    return task(("0.attempt.json", ago), ("0.task_begin", ago), *more)


def liveness(took=None, heartbeat=None, longest=7 * DAY):
    return Liveness(
        NOW, longest, {} if took is None else {("Flow", "train"): took}, {} if heartbeat is None else {NAME[:2]: NOW - heartbeat}
    )  # fmt: skip


def test_what_ended_is_not_running():
    ended = ("0.data.json", 1.0), ("0.DONE.lock", 1.0)
    assert unfinished(began(5.0)) == 0 and unfinished(began(5.0, *ended)) is None
    assert unfinished(began(5.0, ("0.runtime", 1.0))) is None
    assert unfinished(task()) is None and unfinished(task(("_resume_done", 5.0))) is None
    # Stored together, in any order: what it refers to is not seen yet.
    assert unfinished(began(5.0, ("0.DONE.lock", 1.0))) == 0


def test_an_attempt_that_another_followed_is_not_running():
    second = ("1.attempt.json", 60.0)
    assert liveness().running(NAME, began(90.0, second)) == 1
    assert liveness().running(NAME, began(90.0, second, ("1.data.json", 9.0), ("1.DONE.lock", 9.0))) is None


@pytest.mark.parametrize(
    ("took", "patience"),
    [
        (60.0, SILENCE),
        (HOUR, SLACK * HOUR),
        (30 * HOUR, SLACK * 30 * HOUR),
        (6 * DAY, 7 * DAY),
        (None, 7 * DAY),
    ],
    ids=["a minute", "an hour", "a day", "longer than is allowed", "not known"],
)
def test_a_killed_attempt_holds_its_flow_for_as_long_as_its_step_may_take(took, patience):
    found = liveness(took)
    assert found.running(NAME, began(patience)) == 0
    assert found.running(NAME, began(patience + 1)) is None


def test_each_step_has_a_pace_of_its_own():
    found = liveness(60.0)
    assert found.running(NAME, began(2 * HOUR)) is None
    assert found.running(("Flow", "1", "other", "7"), began(2 * HOUR)) == 0
    assert found.running(("Other", "1", "train", "7"), began(2 * HOUR)) == 0


def test_a_log_is_a_sign_of_life():
    found = liveness(60.0)
    assert found.running(NAME, began(20 * HOUR, ("0.task_stdout.log", HOUR - 1))) == 0
    assert found.running(NAME, began(20 * HOUR, ("0.task_stdout.log", HOUR + 1))) is None


def test_a_heartbeat_tells_more_than_the_pace():
    assert liveness(60.0, heartbeat=10.0).running(NAME, began(30 * DAY)) == 0
    assert liveness(None, heartbeat=HOUR + 1).running(NAME, began(2 * HOUR)) is None
    # It began after the last heartbeat of its run.
    assert liveness(None, heartbeat=HOUR + 1).running(NAME, began(5.0)) == 0


def test_what_attempts_took_is_told_by_their_marks():
    holdings = Holdings()
    for number, (start, end) in enumerate(((100.0, 40.0), (90.0, 5.0), (500.0, None))):
        name = (*NAME[:3], str(number))
        for file, ago in (("0.attempt.json", start), ("0.data.json", end), ("0.DONE.lock", end)):
            if ago is not None:
                holdings.add(ObjectInfo("/".join((*name, file)), 1, NOW - ago, "etag"))
    assert listed_runs(holdings).took == {("Flow", "train"): 85.0}
