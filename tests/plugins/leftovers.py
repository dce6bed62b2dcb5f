"""Nothing of a test goes on after it: no thread, no child process, no socket that listens.

What goes on takes time from the tests after it, fails them in ways that nobody understands, or hides in a dump of
stacks what matters. A test that leaves something fails in its teardown. What may stay is listed here, with the reason.
"""

import contextlib
import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

PATIENCE = 30.0
"""Seconds until what ends by itself has done so: a server's thread whose client has just hung up."""

THREADS = {
    "mfstore": "the pools of stores: a store that nobody closes is let go with its last reference",
    "tqdm_monitor": "tqdm has one for all bars of a process, until it ends",
    "asyncio_": "the executor of a loop, whose threads wait for more work until the process ends",
    "zarr_io": "zarr has one loop for a process, until it ends",
}
"""Prefixes of the names of threads that may stay."""

PROCESSES = {
    "from multiprocessing.resource_tracker import main": "multiprocessing has one for a process, until it ends",
}
"""What is in the command lines of processes that may stay."""

_kept = set()


@contextlib.contextmanager
def kept():
    """For fixtures of a wider scope than a test: what is started within stays until they end it themselves."""
    before = _alive()
    yield
    _kept.update(_alive() - before)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[_before] = _alive()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    result = yield
    before = item.stash[_before]
    deadline = time.monotonic() + PATIENCE
    while left := _alive() - before - _kept:
        if time.monotonic() > deadline:
            _kept.update(left)  # the next test is not to blame
            pytest.fail("left after the test: " + ", ".join(sorted(map(_described, left))), pytrace=False)
        time.sleep(0.01)
    return result


_before = pytest.StashKey[set]()


def _alive():
    """Threads, children and listening sockets, as ``(kind, which)``."""
    threads = {("thread", thread) for thread in threading.enumerate() if not thread.name.startswith(tuple(THREADS))}
    return threads | _children() | _listening()


def _children():
    found = set()
    for tasks in Path("/proc/self/task").glob("*/children"):  # Linux; elsewhere nothing is found
        with contextlib.suppress(OSError):  # a thread that has just ended
            found.update(int(pid) for pid in tasks.read_text().split())
    return {("process", pid) for pid in found if not any(known in _command(pid) for known in PROCESSES)}


def _listening():
    found = set()
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor, and what another thread closes now
            descriptor = int(name)
            status = os.fstat(descriptor)
            if stat.S_ISSOCK(status.st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as sock:
                    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        found.add(("listening socket", status.st_ino))
    return found


def _described(left):
    kind, which = left
    if kind == "thread":
        return f"thread {which.name!r}"
    if kind == "process":
        return f"process {which}: {_command(which)[:200]}"
    return f"{kind} {which}"


def _command(pid):
    with contextlib.suppress(OSError):  # it has just ended
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").replace("\0", " ").strip()
    return ""
