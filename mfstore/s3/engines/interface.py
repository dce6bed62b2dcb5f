"""What an engine is: calls in, replies out. It moves bytes; what to ask for and whether to ask again is the
scheduler's.

A ``Call`` names one S3 operation and where its bytes come from or go. A ``Channel`` carries the calls of one bulk
operation: ``submit`` them, ``poll`` the replies, in any order, one per call. Two implementations, ``native`` (in C,
threads without the GIL) and ``aiobotocore``, answer alike; tests run on both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mfstore.records import dataclass

if TYPE_CHECKING:
    from mfstore.s3.aws.routes import Credentials
    from mfstore.s3.calls import Call, FileRange, Plain, Reply

Adopt = Callable[[int, Any, int, float, "Credentials | None"], "Call"]
"""Makes the call that a plain request was, of the item's number, the item, the memory reserved for it, when it was sent
(time.monotonic()) and by which credentials."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a lane took of the items."""

    count: int
    """Requests that were sent."""
    memory: int
    """Bytes to reserve for their results."""
    item: tuple[int, Any] | None
    """The one that was looked at last, with its number, and not taken."""
    odd: bool
    """Whether that was for what it is, and not for want of memory."""
    ended: bool
    """Whether there are no more."""
    unsent: Sequence[Call] = ()
    """Of those that were taken, and could not be sent, the calls."""


@dataclass(frozen=True, slots=True)
class Landed:
    """What came of plain requests: their outcomes, and what there is to account for."""

    outcomes: list[Any]
    durations: list[float]
    """Seconds that each took."""
    finished: float
    """When the last came (time.monotonic())."""
    sizes: int
    """Sizes of the outcomes, added up."""
    received: int
    """Bytes that came."""
    verified: int
    """Of them, those whose checksum was named and compared."""
    memory: int
    """Bytes that the outcomes take more than was reserved for them."""
    gets: bool
    """Whether they are GETs."""


class Lane(ABC):
    """The plain requests of one channel. Replies that are not plainly good, announcements among them, come as others do
    from ``Channel.poll``: a call is adopted for them."""

    @property
    @abstractmethod
    def flying(self) -> int:
        """Requests under way."""

    @abstractmethod
    def oldest(self) -> int | None:
        """The least number of an item whose request is under way; None without any."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether requests can be made now. Raises what ``Channel.submit`` would, before any item is taken."""

    @abstractmethod
    def take(
        self, items: Iterator[tuple[int, Any]], first: tuple[int, Any] | None, most: int, memory: int, weight: int,
        alone: bool, now: float,
    ) -> Taken:  # fmt: skip
        """Send requests for up to ``most`` items: ``first``, if there is one, and the next of ``items``, as long as
        they are plain and ``memory`` bytes hold what they take, which is ``weight`` of one that does not say. The first
        may take more if it is ``alone``. After ``ready``."""

    @abstractmethod
    def landed(self) -> Landed | None:
        """What has come by polling the channel since the last time; None for nothing."""

    @abstractmethod
    def adopt_late(self, before: float) -> None:
        """Have a call adopted for each request under way that was sent before then (time.monotonic())."""

    @abstractmethod
    def end(self) -> None:
        """Cancel all: there are no more outcomes, nor calls to be adopted. ``flying`` is 0, and no memory of theirs is
        used any more, after some polling of the channel, or its ``close``."""


ASKED_SECONDS = 1.0
"""Between two looks for the reply to a question."""


class Channel(ABC):
    """The calls of one bulk operation. Used by one thread at a time."""

    def lane(self, plain: Plain, first_byte: float, stall: float, outcome: type, adopt: Adopt) -> Lane | None:
        """For the plain requests of an operation, with the time-outs of ``Call``, whose outcomes are objects of class
        ``outcome``; None where they are calls like all others."""
        return None

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
    def flowing(self) -> int:
        """Bytes that have gone, or come to a target, so far, of the bodies of calls whose final reply ``poll`` has not
        given yet. May be asked by another thread."""

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
    threads = 2
    """So many long bodies at once keep it busy, if they come as fast as it takes them: two at least, as each has a
    beginning and an end."""

    @abstractmethod
    def channel(self) -> Channel:
        """A new channel; whoever asks for it closes it. Raises Unsupported without what the engine needs."""

    @abstractmethod
    def close(self) -> None:
        """Close the idle connections and end the threads. Using the engine again starts new ones."""

    def ask(self, call: Call) -> Reply:
        """Carry out one call, of which no long body comes, and wait for its reply: for questions of a control plane.
        Raises as ``Channel.submit``."""
        channel = self.channel()
        try:
            channel.submit([call])
            while not (replies := channel.poll(ASKED_SECONDS)):
                pass
            return replies[0]
        finally:
            channel.close()
