"""Long bodies that were announced: each waits, on a connection of its own, to be told where it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mfstore.records import NamedTuple, dataclass, field

if TYPE_CHECKING:
    from mfstore.s3.calls import Call, Reply
    from mfstore.s3.transfers.downloads import GetJob


class Grant(NamedTuple):
    """A body that may have its memory, or go to its file, now."""

    call: Call
    reply: Reply
    more: int
    """Bytes it takes beyond what is reserved for its job."""
    pieces: int
    """Into how many pieces it may be divided: connections that it may take."""


@dataclass(slots=True)
class AnnouncedBodies:
    """The announced calls of one operation."""

    waiting: dict[int, tuple[Call, Reply]] = field(default_factory=dict)
    """By the id of the call."""

    def add(self, call: Call, reply: Reply) -> None:
        """It waits from now on."""
        self.waiting[id(call)] = call, reply

    def without_job(self) -> list[Call]:
        """Those whose jobs have failed meanwhile. They wait no more."""
        found = [call for call, _ in self.waiting.values() if call.tag.job.error is not None]
        for call in found:
            del self.waiting[id(call)]
        return found

    def grants(
        self, oldest: int, jobs: int, connections: int, memory: int, has: Callable[[int], bool],
        unanswered: Callable[[int], int] | None = None,
    ) -> Iterator[Grant]:  # fmt: skip
        """Who may go on, and waits no more: the ``oldest`` of the items under way, by its number, at once, others when
        the budget ``has`` what they take. The caller reserves it before he asks for the next. ``connections`` are
        shared by the objects that find room side by side in ``memory``, of so many ``jobs``.

        Of results in order, which hold their memory until all before them have been handed out, one gets memory when
        there is enough for those before it too: what those take that wait here, and for each of which there is no
        answer yet, ``unanswered(number)`` before that item, as much as for itself. Otherwise what is announced first
        took it, whatever its turn, and two or three of four places were held to the end of the operation."""
        earlier = 0
        for key, (call, reply) in sorted(self.waiting.items(), key=lambda entry: entry[1][0].tag.job.index):
            job: GetJob = call.tag.job  # nothing else is announced
            length = job.takes(reply, memory)
            more = length - job.weight
            if more > 0 and job.index != oldest:
                before = 0 if unanswered is None else earlier + unanswered(job.index) * length
                if not has(more + before):
                    earlier += more
                    continue
            del self.waiting[key]
            beside = jobs if job.to_file else max(1, memory // max(length, 1))
            yield Grant(call, reply, more, max(1, connections // min(beside, jobs)))
