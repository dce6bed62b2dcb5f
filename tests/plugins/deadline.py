"""A test that takes too long fails, with its own stack, and the run goes on.

Setup, call and teardown of a test have ``SECONDS`` each, or what its marker ``timeout(seconds)`` says, times what
``--patience`` says. What is out of time gets an exception in the main thread, and again every few seconds as long as it
goes on. What hears of no exception, being in C, is ended with its whole process; beside other workers (``-n``) that too
fails this test only.
"""

import faulthandler
import os
import signal
import sys
import threading
import traceback

import pytest

SECONDS = 300.0  # no test takes a tenth of it: only a hang does, on whatever machine
AGAIN = 20.0
"""Seconds until what catches the exception, or hangs on its way out, gets the next."""
GRACE = 60.0
"""Seconds after which the process is ended."""
STACKS = 20  # of other threads; a hundred hide what matters

_standard_error = pytest.StashKey[int]()


def pytest_configure(config):
    signal.signal(signal.SIGALRM, _expired)
    # A forked child that sets an alarm wants to be ended by it, wherever it hangs.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGALRM, signal.SIG_DFL))
    config.stash[_standard_error] = os.dup(2)  # pytest captures what goes to 2 itself


def pytest_unconfigure(config):
    os.close(config.stash[_standard_error])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    with _Deadline(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    with _Deadline(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    with _Deadline(item):
        return (yield)


class _Deadline:
    def __init__(self, item):
        marker = item.get_closest_marker("timeout")
        self._seconds = (marker.args[0] if marker else SECONDS) * item.config.getoption("patience", 1.0)
        self._file = item.config.stash[_standard_error]

    def __enter__(self):
        faulthandler.dump_traceback_later(self._seconds + GRACE, exit=True, file=self._file)
        signal.setitimer(signal.ITIMER_REAL, self._seconds, AGAIN)

    def __exit__(self, *exception):
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def _expired(signum, frame):
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    names.pop(threading.get_ident(), None)  # it has the traceback of the exception
    frames = sys._current_frames()
    shown = [
        f"--- {name}\n{''.join(traceback.format_stack(frames[ident]))}"
        for ident, name in list(names.items())[:STACKS]
        if ident in frames
    ]
    raise pytest.fail.Exception(f"out of time; {len(names)} other threads\n{''.join(shown)}")
