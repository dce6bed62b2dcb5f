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
import sys
import threading
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from mfstore.errors import AccessDenied
from mfstore.metaflow.errors import errors_at
from mfstore.metaflow.roots.attempts import BEGAN, STARTED
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER

if TYPE_CHECKING:
    from mfstore.s3.bulk.results import BulkResult

log = logging.getLogger("mfstore.metaflow")
END = "task_end"
NOT_WAITED_FOR = (STARTED, BEGAN, "runtime")


def save_metadata(original: Any) -> Any:
    """``TaskDataStore.save_metadata`` that, where a request takes time, sends ``task_end`` together with what follows
    it at once: ``data.json``."""

    @wraps(original)
    def save_metadata(
        self: Any, contents: Mapping[str, Any], allow_overwrite: bool = True, add_attempt: bool = True
    ) -> None:
        blobs = getattr(self._storage_impl, "blobs", None)
        if blobs is None or not blobs.remote or not (allow_overwrite and add_attempt) or self._is_done_set:
            original(self, contents, allow_overwrite, add_attempt)
        elif set(contents) == {END}:
            self.mfstore_end_mark = contents
        else:
            original(self, {**self.__dict__.pop("mfstore_end_mark", {}), **contents})

    return save_metadata


def is_not_waited_for(path: str) -> bool:
    """Whether what is stored at ``path`` (``flow/run/step/task/<attempt>.<name>``) is such a mark. What a storage is
    given for the packed profile's store is one too: hints, of which nothing depends on one."""
    return path.startswith(f"{STORE_FOLDER}/") or path.rpartition("/")[2].partition(".")[2] in NOT_WAITED_FOR


class _SentMark:
    """A mark under way: sent by this process, stored when ``result`` was waited for, which ends with ``release``."""

    __slots__ = ("_lock", "_process", "_release", "_result", "url")

    def __init__(self, url: str, result: BulkResult, release: Callable[[], None]) -> None:
        self.url = url
        self._result = result
        self._release = release
        self._process = os.getpid()
        self._lock = threading.Lock()

    def wait(self) -> None:
        # In a forked child it is the parent's.
        if self._process != os.getpid():
            return
        with self._lock:
            try:
                self._result.wait()
            finally:
                self._release()


class _MarksOfThread(threading.local):
    """Metaflow lets a task live in one thread."""

    def __init__(self) -> None:
        self.sent: list[_SentMark] = []


_of_thread = _MarksOfThread()
_of_process: dict[int, _SentMark] = {}


def wait_later(url: str, result: BulkResult, release: Callable[[], None]) -> None:
    """This thread has sent a mark to ``url``. ``release`` is called when it is answered."""
    _wait_at_exit()
    mark = _SentMark(url, result, release)
    _of_process[id(mark)] = mark
    _of_thread.sent.append(mark)


def wait_for_marks(*below: str, name: str = "") -> None:
    """Wait for the marks that this thread sent to where URLs begin with one of ``below``, or for those of a name, and
    raise what they met as ``save_bytes`` does. A hint that may not be stored is told, and fails no task."""
    due = [mark for mark in _of_thread.sent if mark.url.endswith(name) and mark.url.startswith(below)]
    for mark in due:
        _of_thread.sent.remove(mark)
        del _of_process[id(mark)]
        with errors_at(mark.url):
            try:
                mark.wait()
            except AccessDenied:
                if f"/{STORE_FOLDER}/" not in mark.url:
                    raise
                sys.stderr.write(
                    f"mfstore: {mark.url} may not be written: the next run will store in full what it "
                    "could store as what differs from this one\n"
                )


@cache
def _wait_at_exit() -> None:
    """What is registered last is called first: before the clients, which sent the marks, are closed."""
    atexit.register(_at_exit)


def _at_exit() -> None:
    """What was sent last by a process, or thread, that failed before it asked for more."""
    while _of_process:
        _, mark = _of_process.popitem()
        try:
            mark.wait()
        except Exception as error:
            log.error("%s could not be stored: %s", mark.url, error)
