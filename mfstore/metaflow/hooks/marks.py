"""The marks of a task's life that Metaflow stores one after the other, in fewer turns.

Nobody reads ``task_begin``, ``task_end`` and ``runtime``, which are for people who look; that an attempt began has to
be known before anything relies on it. So where a request takes time these are sent, and waited for when the next call
of the datastore ends: by then they are answered. An error that one of them meets is raised there. Before a blob is
stored ``attempt.json`` is (it holds off the collector), and before ``DONE.lock`` everything; whoever reads in the same
thread finds what it wrote.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

from mfstore.metaflow.roots.attempts import BEGAN, STARTED
from mfstore.s3.datatools.exceptions import metaflow_errors

if TYPE_CHECKING:
    from mfstore.s3.bulk.results import BulkResult

log = logging.getLogger("mfstore.metaflow")
END = "task_end"
AHEAD = (STARTED, BEGAN, "runtime")


def save_metadata(original: Any) -> Any:
    """``TaskDataStore.save_metadata`` that, where a request takes time, sends ``task_end`` together with what follows
    it at once: ``data.json``."""

    @wraps(original)
    def save_metadata(
        self: Any, contents: Mapping[str, Any], allow_overwrite: bool = True, add_attempt: bool = True
    ) -> None:
        objects = getattr(self._storage_impl, "objects", None)
        if objects is None or not objects.remote or not (allow_overwrite and add_attempt) or self._is_done_set:
            original(self, contents, allow_overwrite, add_attempt)
        elif set(contents) == {END}:
            self.mfstore_waiting = contents
        else:
            original(self, {**self.__dict__.pop("mfstore_waiting", {}), **contents})

    return save_metadata


def goes_ahead(path: str) -> bool:
    """Whether what is stored at ``path`` (``flow/run/step/task/<attempt>.<name>``) is not waited for."""
    return path.rpartition("/")[2].partition(".")[2] in AHEAD


@dataclass(slots=True, eq=False)
class _Sent:
    """A mark under way: sent by ``process``, stored when ``result`` was waited for, which ends with ``release``."""

    url: str
    result: BulkResult
    release: Callable[[], None]
    process: int
    lock: threading.Lock

    def wait(self) -> None:
        # In a forked child it is the parent's.
        if self.process != os.getpid():
            return
        with self.lock:
            try:
                self.result.wait()
            finally:
                self.release()


class _Marks(threading.local):
    """Those of one thread: Metaflow lets a task live in one."""

    def __init__(self) -> None:
        self.sent: list[_Sent] = []


_marks = _Marks()
_all: dict[int, _Sent] = {}


def sent(url: str, result: BulkResult, release: Callable[[], None]) -> None:
    """This thread has sent a mark. ``release`` is called when it is answered."""
    one = _Sent(url, result, release, os.getpid(), threading.Lock())
    _all[id(one)] = one
    _marks.sent.append(one)


def settle(*below: str, name: str = "") -> None:
    """Wait for the marks that this thread sent to where URLs begin with one of ``below``, or for those of a name, and
    raise what they met as ``S3Storage.save_bytes`` does."""
    due = [one for one in _marks.sent if one.url.endswith(name) and one.url.startswith(below)]
    for one in due:
        _marks.sent.remove(one)
        del _all[id(one)]
        with metaflow_errors():
            one.wait()


def _at_exit() -> None:
    """What was sent last by a process, or thread, that failed before it asked for more."""
    while _all:
        _, one = _all.popitem()
        try:
            one.wait()
        except Exception as error:
            log.error("%s could not be stored: %s", one.url, error)


atexit.register(_at_exit)
