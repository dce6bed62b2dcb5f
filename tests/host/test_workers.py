"""Work handed to threads: in order, as soon as it is done, and none of it left running behind."""

import threading
import time
from contextlib import closing

import pytest

from mfstore.host.workers import PARALLEL_FROM, Workers


@pytest.fixture
def workers():
    workers = Workers(2)
    yield workers
    workers.close()


def test_a_result_is_there_while_later_ones_are_made(workers):
    """The second task ends only when the first result has been taken."""
    taken = threading.Event()

    def work(number):
        return number if number != 1 else taken.wait(60)

    results = []
    for result in workers.each(work, range(4), PARALLEL_FROM):
        results.append(result)
        taken.set()
    assert results == [0, True, 2, 3]


def test_closed_early_it_waits_for_what_has_begun(workers):
    begun, ended = [], []

    def work(number):
        begun.append(number)
        time.sleep(0.02 if number else 0)
        ended.append(number)

    with closing(workers.each(work, range(50), PARALLEL_FROM)) as results:
        next(results)
    assert sorted(begun) == sorted(ended)
    assert len(begun) < 50
    assert workers.map(str, range(4), PARALLEL_FROM) == ["0", "1", "2", "3"]


def test_the_first_error_in_order_is_raised_when_no_task_runs_any_more(workers):
    begun, ended = [], []
    second = threading.Event()

    def work(number):
        begun.append(number)
        try:
            if number == 1:
                second.set()
                raise ValueError("second")
            assert second.wait(60)
            time.sleep(0.02)
            raise ValueError("first")
        finally:
            ended.append(number)

    with pytest.raises(ValueError, match="first"):
        workers.map(work, range(5), PARALLEL_FROM)
    assert sorted(begun) == sorted(ended)


@pytest.mark.parametrize("threads", [0, 1])
def test_what_no_thread_can_be_started_for_is_done_all_the_same(workers, threads, monkeypatch):
    start = threading.Thread.start
    left = [None] * threads

    def refuse(thread):
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert workers.map(str, range(9), PARALLEL_FROM) == list(map(str, range(9)))
