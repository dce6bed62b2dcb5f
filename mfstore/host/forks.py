"""What keeps a forked child from waiting for threads that only its parent has."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from typing import Protocol

    class Forked(Protocol):
        """Something with locks or threads."""

        def forked(self) -> None:
            """This process is a new child: make locks anew, and forget threads. Nothing else runs meanwhile."""


IMPORTING = threading.RLock()
"""Held around imports at a first use. A fork waits until they are done: the child would for ever wait for the thread
that was importing. Reentrant: a signal handler may fork, or import, while its own thread imports."""


_owners: WeakSet[Forked] = WeakSet()


def anew_in_children(owner: Forked) -> None:
    """Call ``owner.forked`` in each forked child, as long as ``owner`` lives."""
    _owners.add(owner)


def _in_child() -> None:
    IMPORTING.release()
    for owner in list(_owners):
        owner.forked()


os.register_at_fork(before=IMPORTING.acquire, after_in_parent=IMPORTING.release, after_in_child=_in_child)
