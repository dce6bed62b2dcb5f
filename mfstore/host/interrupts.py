"""What no signal handler interrupts: work that takes locks which others wait for."""

from __future__ import annotations

import os
import sys
import threading
from _thread import LockType, allocate_lock
from collections.abc import Callable
from threading import get_ident
from typing import Any, TypeVar

R = TypeVar("R")

_under_way: dict[LockType, int] = {}
"""Gates of what a fork waits for, closed until it is done, with the threads that do it."""


def uninterrupted(work: Callable[..., R], *arguments: Any, fork_waits: bool = False) -> R:
    """What ``work`` returns or raises, done where no signal handler runs.

    Python runs handlers in the main thread, between any two steps of what that is doing. One that saves, or loads, may
    need what the interrupted step holds: a reentrant lock lets the handler itself in, but neither the threads that work
    for it nor those that sign, and what lies below, botocore say, has other locks. So what the main thread holds locks
    for while Python code runs it has done by another thread, and waits for that with empty hands. In any other thread,
    or when no thread can be started, ``work`` is simply called; also amid an import, whose locks are the main thread's:
    the locks are therefore reentrant all the same.

    ``fork_waits``: a fork waits until the work is done, since a child could never see the end of what it imports. Takes
    0.2 ms: for what happens now and then, not for each call.
    """
    found: list[R] = []
    failed: list[BaseException] = []

    def run() -> None:
        gate = allocate_lock()
        gate.acquire()
        if fork_waits:
            _under_way[gate] = get_ident()
        try:
            found.append(work(*arguments))
        except BaseException as error:
            failed.append(error)
        finally:
            _under_way.pop(gate, None)
            gate.release()

    if get_ident() != threading.main_thread().ident or _amid_import():
        run()
    else:
        thread = threading.Thread(target=run, name="mfstore-uninterrupted", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            run()
        else:
            thread.join()  # Ctrl-C ends the waiting, not the work
    if failed:
        try:
            raise failed[0]
        finally:
            failed.clear()  # an error that holds its own frame would stay until the collector of cycles comes by
    # None: the handler forked, and this is the child, which has none of its parent's threads.
    return found[0] if found else work(*arguments)


def _amid_import() -> bool:
    """Whether this thread is importing something: another would wait for it if it needed the same."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def _before_fork() -> None:
    for gate, thread in list(_under_way.items()):
        if thread != get_ident():
            with gate:
                pass


os.register_at_fork(before=_before_fork, after_in_child=_under_way.clear)
