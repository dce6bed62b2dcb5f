"""What a failing call leaves in a store, so that it is looked at once however many calls leave the same."""

import os
import re
import shutil
import signal

from mfstore.testing import Fault, FaultyBackend

TIME = re.compile(rb"\d+\.\d+")
"""In documents; how many digits it has says nothing."""
CHANGES = {"put", "put_if", "delete", "delete_unchanged", "batch.put", "batch.commit"}


class Noting(FaultyBackend):
    """Notes which calls changed something.

    Most calls read. A failure of the second of two reads leaves what a failure of the first leaves, and to look whether
    all of that can be read, and is mended by the next, takes a hundred times as long as to make it.
    """

    def __init__(self, inner, fault=None):
        super().__init__(inner, fault)
        self._changes = []

    def _run(self, operation, key, work):
        def noted():
            result = work()
            if operation in CHANGES:
                self._changes.append((operation, key))
            return result

        return super()._run(operation, key, noted)

    def left(self):
        """What was changed in what order, and how long what is stored now is: the same for stores that differ in
        nothing but times and nonces, if they began as copies of one."""
        stored = sorted((info.key, self._length(info)) for info in self.inner.list(""))
        return tuple(self._changes), tuple(stored)

    def _length(self, info):
        document = not info.key.startswith(("packs/", "recipes/"))
        return len(TIME.sub(b"", self.inner.get(info.key))) if document else info.size


def twin(model, place):
    """A copy of a local store in which each object is of the version that it has in the model, as a collector knows it:
    by its file. Nothing is ever written into a file that has its name."""
    return shutil.copytree(model, place, copy_function=os.link)


def calls_after_changes(log):
    """The numbers of the calls before which something has changed since the last of them; and the first, and the one
    after the last. To be killed at another call is to be killed at one of these."""
    changed = [number for number, (operation, _) in enumerate(log, 1) if operation in CHANGES]
    return sorted({1, *(number + 1 for number in changed), len(log) + 1})


def killed_at(n, inner, work):
    """Do ``work(backend)`` in a forked child that is killed at its n-th call; whether it got there."""
    child = os.fork()
    if not child:
        try:
            work(FaultyBackend(inner, Fault(at=n, error=lambda: os.kill(os.getpid(), signal.SIGKILL))))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
