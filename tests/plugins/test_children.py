"""What tests do in forked children (tests/rigs/concurrency.py)."""

import signal
import threading

from tests.rigs.concurrency import in_a_child


def test_a_child_that_does_not_end_says_where_it_is(capfd):
    lock = threading.Lock()
    lock.acquire()
    assert in_a_child(lock.acquire, seconds=0.5) == -signal.SIGALRM
    assert "in_a_child" in capfd.readouterr().err


def test_a_child_that_fails_and_one_that_does_not():
    assert in_a_child(lambda: None) == 0
    assert in_a_child(lambda: 1 / 0) == 1
