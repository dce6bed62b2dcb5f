"""What an engine is: calls in, replies out. It moves bytes; what to ask for and whether to ask again is the
scheduler's.

A ``Call`` names one S3 operation and where its bytes come from or go. A ``Channel`` carries the calls of one bulk
operation: ``submit`` them, ``poll`` the replies, in any order, one per call. Two implementations, ``native`` (in C,
threads without the GIL) and ``aiobotocore``, answer alike; tests run on both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mfstore.s3.calls import Call, FileRange, Reply


class Channel(ABC):
    """The calls of one bulk operation. Used by one thread at a time."""

    @abstractmethod
    def submit(self, calls: Sequence[Call]) -> None:
        """Start calls. Returns at once; credentials may have to be refreshed first.

        Until a call's final reply its ``body`` and ``target`` are the engine's: nobody else may change or free them,
        nor close a descriptor. Raises AccessDenied without credentials, and may raise ValueError for a call that makes
        no request; nothing is started then. What goes wrong later is told in replies."""

    @abstractmethod
    def poll(self, timeout: float) -> list[Reply]:
        """Replies since the last poll, in any order: waits for the first up to ``timeout`` seconds, and up to 1 ms for
        more to come with it. Empty after ``timeout``. The replies and their ``data`` are the caller's.
        KeyboardInterrupt (and any signal handler) gets through within 50 ms."""

    @abstractmethod
    def resume(
        self, call: Call, target: memoryview | FileRange, stop: int | None = None, skip: int = 0
    ) -> None:  # fmt: skip
        """Let an announced body flow into ``target``, which is the engine's until the final reply; with ``stop`` only
        its first ``stop`` bytes are wanted (then the final reply has ``received == stop`` and no failure, and the rest
        is not read). ``skip`` bytes before them are discarded. Nothing happens for a call that has ended
        meanwhile."""

    @abstractmethod
    def cancel(self, call: Call) -> None:
        """Drop a call. Its reply still comes, at once, with ``failure`` "cancelled" unless it had ended before."""

    @abstractmethod
    def fileno(self) -> int:
        """Readable while ``poll(0)`` would return something: for event loops. ``poll`` clears it."""

    @abstractmethod
    def close(self) -> None:
        """Cancel everything. When it returns, within 100 ms, no buffer or descriptor of any call is used any more."""


class Engine(ABC):
    """Connections shared by the channels of one client. Safe to use from several threads; in a forked child it forgets
    its connections and threads and starts anew."""

    name: str
    """"native" or "aiobotocore"."""

    @abstractmethod
    def channel(self) -> Channel:
        """A new channel; whoever asks for it closes it. Raises Unsupported without what the engine needs."""

    @abstractmethod
    def close(self) -> None:
        """Close the idle connections and end the threads. Using the engine again starts new ones."""
