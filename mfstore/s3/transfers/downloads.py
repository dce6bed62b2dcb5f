"""Getting one object: whole or a range, into memory or a file, in one piece or several, checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mfstore._core import crc
from mfstore._core.memory import FreshBytes, FreshBytesPool
from mfstore.errors import BackendError, Conflict, CorruptObject, InvalidRange, MfstoreError, Unsupported
from mfstore.records import NamedTuple
from mfstore.s3.aws.errors import SIZE_HINT
from mfstore.s3.calls import NO_OPTIONS, OVERFLOW, WHOLE, Call, FileRange, Options, Reply
from mfstore.s3.service import service_of
from mfstore.s3.transfers.destinations import Destination, Partial
from mfstore.s3.transfers.jobs import (
    NO_CALLS,
    ODD_ANSWERS,
    Job,
    Restart,
    Retry,
    Try,
    etag_of,
    from_service,
    length_of,
    refuse_page,
    renewed,
)
from mfstore.s3.transfers.outcomes import Outcome
from mfstore.s3.urls import bucket_url

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane

SHORTEST_PIECE = 8 << 20
"""Shortest piece of an object fetched in parallel: AWS advises 8 to 16 MiB, and a request's first byte costs as much
time as 1.5 MiB of transfer (30 ms against 20 ms per MiB, scheduler.py)."""
LONGEST_PIECE = 64 << 20
"""Longest piece: what is lost, or waited for, when one connection is slow."""
_ALGORITHMS = ("crc64nvme", "crc32c", "crc32")
LENGTHLESS = "the service does not say how long the object is"
ENDLESS = 1 << 62
"""Room for a body of which nobody knows how long it is, in a file."""


class Landing(NamedTuple):
    """Where an announced body goes."""

    target: memoryview | FileRange
    stop: int | None
    """How many bytes of it; None for all, which are not more than the target holds."""
    skip: int
    """Bytes before those."""
    more: Sequence[Call]
    """Calls for the rest."""


def too_long(length: int) -> BackendError:
    """The error for a body that no memory holds."""
    return BackendError(
        "there is not memory enough for this object", found=f"{length} bytes, as the service says",
        hint="Get it into a file, or ranges of it",
    )  # fmt: skip


class DownloadPiece:
    """A part of the wanted bytes that one call at a time fetches: ``start`` to ``stop``, relative to the wanted
    range."""

    __slots__ = ("checksum", "done", "start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop
        self.done = 0
        self.checksum = 0


def cut_pieces(length: int, pieces: int) -> list[tuple[int, int]]:
    """Divide ``length`` bytes into at most ``pieces`` about equal pieces, on whole MiB, of SHORTEST_PIECE to
    LONGEST_PIECE bytes."""
    size = max(SHORTEST_PIECE, -(-length // max(1, pieces)))
    size = min(max(LONGEST_PIECE, SHORTEST_PIECE), -(-size // (1 << 20)) << 20)
    return [(start, min(start + size, length)) for start in range(0, max(length, 1), size)]


class GetJob(Job):
    """A whole object or ``start``, ``length`` of it.

    The first call asks for all of it. A short body is simply there; a long one is announced with its length, ETag and
    checksum, gets its final place, and is divided: the first call goes on with the first piece, others fetch the rest
    of the same version (If-Match). A call that breaks is continued where it broke.

    Where the service ignores ranges and sends the whole object, what is wanted is cut out of it as it flows, by one
    call at a time: each takes all that lies before. A body of unknown length is one stream, which is begun anew when it
    breaks, and in memory may be as long as all results together.
    """

    __slots__ = (
        "_checked", "_destination", "_first", "_headers", "_length", "_memory", "_pieces",
        "_resumed", "_start", "_streamed", "_suffix", "_undivided", "_view", "largest", "stop",
        "target", "verified", "verify",
    )  # fmt: skip

    def __init__(
        self, index: int, item: Any, bucket: str, key: str, options: Options = NO_OPTIONS, *, start: int | None = None,
        stop: int | None = None, verify: bool = True, destination: Destination | None = None,
        target: memoryview | None = None,
    ) -> None:  # fmt: skip
        super().__init__(index, item, bucket, key, options)
        self._start = start
        self._suffix = start if start is not None and start < 0 and not service_of(bucket).suffixes else None
        """What is wanted from the end, where the service has to be asked first where that is."""
        self.stop = stop
        self.verify = verify
        self.verified = 0
        self._destination = destination
        self.target = target
        self._memory: FreshBytes | None = None
        self._view: memoryview | None = None
        self._pieces: list[DownloadPiece] | None = None
        self._headers: Any = None
        self._length = 0
        self._first = 0
        self._checked: tuple[str, int] | None = None
        self._resumed: Partial | None = None
        self.largest: int | None = None
        """Bytes beyond which it cannot be what it is asked for as: CorruptObject, before they come."""
        self._streamed = False
        """Whether nobody says how long the body is."""
        self._undivided = False
        """Whether the service has ignored a range: every call then takes all that lies before its own."""

    def begin(self) -> Sequence[Call]:
        if self._destination is not None:
            self._destination.check()
            partial = None if self._ranged or self._undivided else self._destination.reopen()
            if partial is not None and partial.url == bucket_url(self.bucket, self.key):
                return self._continue(partial)
        if self.target is not None:
            return self._begin_into(self.target)
        if self._suffix is not None:
            return (Call("HeadObject", self.bucket, self.key, self.options, tag=Try(self)),)
        return (Call("GetObject", self.bucket, self.key, self.options, None, self._start, self.stop, tag=Try(self)),)

    def _sized(self, reply: Reply) -> Sequence[Call]:
        """Where the end is: ask for what is wanted before it."""
        assert self._suffix is not None
        length = length_of(reply)
        if not length:
            raise InvalidRange("the object has no such bytes", found="an object of 0 bytes", hint=SIZE_HINT)
        self._headers, self._start = reply.headers, max(0, length + self._suffix)
        return (
            Call(
                "GetObject", self.bucket, self.key, self.options, None, self._start, None, reply.headers.get("etag"),
                tag=Try(self),
            ),
        )  # fmt: skip

    def _begin_into(self, target: memoryview) -> Sequence[Call]:
        """The place and the length are known: ask for the pieces at once."""
        if self._start is None or self.stop is None or self.stop - self._start != len(target):
            raise ValueError("a target needs start and stop, as far apart as it is long")
        if not len(target):
            self.outcome = self._outcome(data=target)
            return NO_CALLS
        self._first, self._length, self._view = self._start, len(target), target
        self._divide(-(-self._length // (2 * SHORTEST_PIECE)))
        return [self._ask(piece, fresh=False) for piece in self._pieces or ()]

    def _divide(self, pieces: int) -> None:
        bounds = [(0, self._length)] if self._undivided else cut_pieces(self._length, pieces)
        self._pieces = [DownloadPiece(*pair) for pair in bounds]

    def _continue(self, partial: Partial) -> Sequence[Call]:
        """Fetch what an interrupted download did not, of the same version of the object."""
        self._headers = {"etag": partial.etag, "content-length": str(partial.length)}
        self._length, self._resumed = partial.length, partial
        self._pieces, at = [], 0
        for start, stop in (*sorted(partial.done), (partial.length, partial.length)):
            self._pieces += [
                DownloadPiece(at + first, at + last) for first, last in cut_pieces(start - at, 16) if at < start
            ]
            done = DownloadPiece(start, stop)
            done.done = stop - start
            self._pieces.append(done)
            at = stop
        calls = [self._ask(piece, fresh=False) for piece in self._pieces if piece.done < piece.stop - piece.start]
        return calls or self._assemble()

    def _partial(self) -> Partial | None:
        """What could be resumed if the download ended now."""
        if self._destination is None or not self._pieces or not self._headers or not self._headers.get("etag"):
            return None
        if self._streamed:
            return None
        done = tuple((piece.start, piece.start + piece.done) for piece in self._pieces if piece.done)
        checksum = self._resumed.checksum if self._resumed is not None else self._checked
        return Partial(bucket_url(self.bucket, self.key), self._headers["etag"], self._length, checksum, done)

    # ---- replies ----------------------------------------------------------------------

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        piece = call.tag.part
        if piece is None:
            return self._sized(reply) if call.operation == "HeadObject" else self._whole(reply)
        self._same_version(reply)
        self._land(call, piece, reply)
        if self._streamed:
            call.target = None  # a view less of the memory
            if self._checked is None and piece.done < piece.stop and not chunked(reply.headers):
                raise Unsupported(LENGTHLESS)
            if self._ranged and not piece.done:
                raise InvalidRange("the object has no such bytes", hint=SIZE_HINT)
            piece.stop = self._length = piece.done
        if piece.done < piece.stop - piece.start:
            self._check_end(reply)
            raise Retry(BackendError("the service sent fewer bytes than the object has", found=piece.done))
        assert self._pieces is not None
        if self._destination is not None and (partial := self._partial()) is not None:
            self._destination.save(partial)
        if all(other.done == other.stop - other.start for other in self._pieces):
            return self._assemble()
        return NO_CALLS

    def _whole(self, reply: Reply) -> Sequence[Call]:
        """A short body, in one reply."""
        headers = reply.headers
        data = reply.data if reply.data is not None else b""
        if "etag" not in headers:
            refuse_page(headers)
        ranged = self._start is not None or self.stop is not None
        whole = ranged and self._is_whole(reply)
        if not whole:
            self._check_range(reply, self._start or 0, ranged)
            self._check_extent(reply, len(data))
        # Mostly the one header says it; the other is for where it does not.
        length = len(data) if headers.get("content-length") == str(len(data)) else reply.length
        if length is not None and length != len(data):
            raise Retry(BackendError("the body is not as long as announced", expected=length, found=len(data)))
        # The engine computes what the response names: without that there is nothing to look for.
        checked = (
            reply.checksum is not None and self.verify and not ranged
            and self._compare(expected_checksum(headers), reply.checksum, len(data))
        )  # fmt: skip
        # The end of the connection may be the end of the object or not. Only the last chunk of a chunked body tells, or
        # that what is wanted ends before.
        told = length is not None or checked or chunked(headers)
        if not told and not (whole and (self._start or 0) >= 0 and self.stop is not None and self.stop <= len(data)):
            raise Unsupported(LENGTHLESS)
        if whole:
            begin, end = self._wanted(len(data))
            data = data[begin:end]
        if self._destination is not None:
            path = self._destination.write(data)
            self.outcome = self._outcome(path=path, size=len(data), etag=etag_of(headers), headers=headers)
        else:
            self.outcome = self._outcome(data=data, size=len(data), etag=etag_of(headers), headers=headers)
        return NO_CALLS

    @property
    def _ranged(self) -> bool:
        return self._start is not None or self.stop is not None

    @staticmethod
    def _is_whole(reply: Reply) -> bool:
        """Whether the answer to a range is the service's, and the whole object: it knows no ranges."""
        headers = reply.headers
        return (
            reply.status == 200 and "content-range" not in headers and from_service(headers) and reply.length != 0
            and (reply.announced or bool(reply.data or reply.received or reply.length) or chunked(headers))
        )  # fmt: skip

    def _same_version(self, reply: Reply) -> None:
        """A service that knows no ranges may know no conditions."""
        before = self._headers.get("etag") if self._headers else None
        if before and self._is_whole(reply) and reply.headers.get("etag", before) != before:
            raise Restart(
                Conflict("the object keeps changing while it is read", hint="Read it when its writers are done")
            )

    def _wanted(self, length: int) -> tuple[int, int]:
        """Which bytes of an object of this length are wanted. InvalidRange for none."""
        begin = self._start or 0
        begin = begin if begin >= 0 else max(0, length + begin)
        end = length if self.stop is None else min(self.stop, length)
        if begin >= end:
            found = f"an object of {length} bytes"
            raise InvalidRange("the object has no such bytes", found=found, hint=SIZE_HINT)
        return begin, end

    def _check_range(self, reply: Reply, start: int, ranged: bool) -> None:
        """A range was asked for: what came must be it. Accepts 200 with a Content-Range (rclone)."""
        if reply.status not in (200, 206):
            raise Retry(BackendError("the service sent no object", found=f"status {reply.status}"))
        if not ranged:
            if reply.status == 206:
                raise Retry(BackendError("the service sent part of the object when the whole was asked for"))
            return
        text = reply.headers.get("content-range")
        if text is None:
            if reply.status == 200 and not (reply.data or reply.received or reply.length):
                return  # of an empty object there is no range
            raise Retry(
                Unsupported("the service does not answer ranges", found=f"status {reply.status} without Content-Range")
            )
        unit, _, rest = text.partition(" ")
        first = rest.partition("-")[0]
        if unit != "bytes" or not first.isdigit() or (start >= 0 and int(first) != start):
            raise Retry(BackendError("the service sent another range than asked for", expected=start, found=text[:80]))

    def _check_extent(self, reply: Reply, n: int) -> None:
        """The object's end may cut a range, and nothing else may. What came are the ``n`` bytes that it says it is."""
        told = reply.headers.get("content-range")
        if told is None:
            return
        first, _, rest = told.partition(" ")[2].partition("-")
        last, _, total = rest.partition("/")
        if not (first.isdigit() and last.isdigit()):
            return
        if (extent := int(last) + 1 - int(first)) != n:
            raise Retry(BackendError("the body is not as long as announced", expected=extent, found=n))
        begin = self._start or 0
        if not total.isdigit():
            if self.stop is not None and begin >= 0 and int(last) >= self.stop:
                raise Retry(
                    BackendError("the service sent another range than asked for", expected=self.stop, found=rest)
                )
            return
        expected = (
            begin if begin >= 0 else max(0, int(total) + begin),
            int(total) if self.stop is None else min(self.stop, int(total)),
        )
        if (int(first), int(last) + 1) != expected:
            raise Retry(BackendError("the service sent another range than asked for", expected=expected, found=rest))

    def _check_end(self, reply: Reply) -> None:
        """Fewer bytes came than fit the target: asking again is no use when the object has no more."""
        if self.target is None or self.stop is None:
            return
        headers = reply.headers
        total = headers.get("content-range", "").rpartition("/")[2]
        if not total.isdigit() and self._is_whole(reply):
            total = headers.get("content-length", "")
            if not total and chunked(headers):
                raise InvalidRange("the object ends within the range", expected=self.stop, hint=SIZE_HINT)
        if total.isdigit() and int(total) < self.stop:
            raise InvalidRange("the object ends within the range", expected=self.stop, found=int(total), hint=SIZE_HINT)

    def _land(self, call: Call, piece: DownloadPiece, reply: Reply) -> None:
        """Count what arrived for a piece, by its call's try."""
        if (call.start is not None or call.stop is not None) and not self._is_whole(reply):
            self._check_range(reply, self._first + piece.start + piece.done, True)
        self._count(piece, reply)

    def _count(self, piece: DownloadPiece, reply: Reply) -> None:
        if self._checked is not None and reply.received:
            name, value = reply.checksum or ("", 0)
            if name.lower() != self._checked[0]:
                self._checked = None
            else:
                piece.checksum = crc.combine(name, piece.checksum, value, reply.received) if piece.done else value
        piece.done += reply.received

    def takes(self, reply: Reply, most: int) -> int:
        """Bytes of memory that an announced body takes: ``most``, which is for all results, where nobody says."""
        length = reply.length
        if length is None:
            if self._start is not None and self._start >= 0:
                return 0 if self.to_file else most if self.stop is None else min(most, self.stop - self._start)
            return 0 if self.to_file and self._start is None else most
        if self.to_file:
            return 0
        if self._ranged and self._is_whole(reply):
            with suppress(InvalidRange):
                begin, end = self._wanted(length)
                return end - begin
        return length

    def announced(self, call: Call, reply: Reply, pieces: int, pool: FreshBytesPool) -> Landing:
        headers = reply.headers
        length = reply.length
        if "etag" not in headers:
            refuse_page(headers)
        if self.largest is not None and (length is None or length > self.largest):
            raise CorruptObject("larger than any record", expected=f"at most {self.largest} bytes", found=length)
        whole = self._ranged and self._is_whole(reply)
        if not whole:
            self._check_range(reply, self._start or 0, self._ranged)
        if length is None:
            return self._stream(call, reply, whole)
        begin, end = 0, length
        if whole:
            begin, end = self._wanted(length)
        elif self._ranged:
            self._check_extent(reply, length)
            begin = int(headers["content-range"].partition(" ")[2].partition("-")[0])
            end = begin + length
        self._first, self._headers, self._length = begin, headers, end - begin
        self._checked = expected_checksum(headers) if self.verify and not self._ranged else None
        if self._destination is not None:
            self._destination.create(self._length)
        else:
            try:
                self._memory = pool.take(self._length)
            except (MemoryError, OverflowError) as error:
                raise too_long(self._length) from error
            self._view = memoryview(self._memory)
        # Pieces of an object that has no ETag could be of several versions.
        self._undivided |= whole or "etag" not in headers
        self._divide(pieces)
        assert self._pieces is not None
        first, *others = self._pieces
        call.tag.part = first
        stop = first.stop if others or whole else None
        # The call goes on under the pieces' rules, so a later try knows what it was for.
        more = [self._ask(piece, fresh=False) for piece in others]
        return Landing(self._place(first), stop, begin if whole else 0, more)

    def _stream(self, call: Call, reply: Reply, whole: bool) -> Landing:
        """Where a body goes of which nobody says how long it is. Unsupported when nothing will tell its end either:
        that of a connection may be the object's or not."""
        headers = self._headers = reply.headers
        start = self._start or 0
        room = ENDLESS if self.stop is None or start < 0 else self.stop - start
        self._checked = expected_checksum(headers) if self.verify and not self._ranged else None
        if self._checked is None and room == ENDLESS and not chunked(headers):
            raise Unsupported(LENGTHLESS)
        self._streamed, self._first, self._length = True, max(start, 0), 0
        if self._destination is not None and start >= 0:
            self._destination.create(0)
        else:
            # What was reserved for it. Of a range from the end, which only the end tells, the whole comes.
            room = min(room, self.weight)
            try:
                self._memory = FreshBytes(room)
            except (MemoryError, OverflowError) as error:
                raise too_long(room) from error
            self._view = memoryview(self._memory)
        call.tag.part = DownloadPiece(0, room)
        self._pieces = [call.tag.part]
        # It is left at the end of the range; elsewhere it has to end by itself.
        stop = room if self.stop is not None and room == self.stop - start else None
        return Landing(self._place(call.tag.part), stop, self._first if whole else 0, NO_CALLS)

    def _stream_again(self, call: Call) -> Call:
        """A stream broke: it is begun anew, since its server may know no ranges."""
        piece = call.tag.part
        piece.done = piece.checksum = 0
        if self._view is None:
            assert self._destination is not None
            os.ftruncate(self._destination.fd, 0)
        self._checked = expected_checksum(self._headers) if self.verify and not self._ranged else None
        start, stop = (None, None) if (self._start or 0) < 0 else (self._start, self.stop)
        return Call(
            "GetObject", self.bucket, self.key, self.options, start=start, stop=stop,
            if_match=self._headers.get("etag"), target=self._place(piece), cut=True, fresh=True, tag=call.tag,
        )  # fmt: skip

    def _place(self, piece: DownloadPiece) -> memoryview | FileRange:
        start, stop = piece.start + piece.done, piece.stop
        if self._view is not None:
            return self._view[start:stop]
        assert self._destination is not None
        return FileRange(self._destination.fd, start, stop - start)

    def _ask(self, piece: DownloadPiece, fresh: bool) -> Call:
        # Of several, each would take all that lies before it.
        alone = self._undivided or len(self._pieces or ()) == 1
        return Call(
            "GetObject", self.bucket, self.key, self.options, None, self._first + piece.start + piece.done,
            self._first + piece.stop, self._headers.get("etag") if self._headers else None, target=self._place(piece),
            checksum=self._checked[0].upper() if self._checked else None, cut=alone,
            fresh=fresh, tag=Try(self, piece),
        )  # fmt: skip

    def again(self, call: Call, reply: Reply) -> Call:
        piece = call.tag.part
        if piece is None:
            return renewed(call)
        if self._streamed:
            return self._stream_again(call)
        if 200 <= reply.status < 300 and 0 < reply.received < piece.stop - piece.start - piece.done:
            with suppress(Retry, Restart):
                self._same_version(reply)
                self._land(call, piece, reply)
        fresh = self._ask(piece, fresh=True)
        fresh.tag = call.tag
        return fresh

    def rescued(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call] | None:
        if reply.failure == WHOLE and from_service(reply.headers):
            self._undivided = True
            raise Restart(Unsupported("the service does not answer ranges"))
        if reply.failure == OVERFLOW and self._streamed and self._view is not None:
            raise BackendError(
                "the service does not say how long the object is, and it is longer than all results may be together",
                expected=f"at most {len(self._view)} bytes",
                hint="Get it into a file, or raise `memory` (MFSTORE_MEMORY)",
            )  # fmt: skip
        if reply.status == 412 and self._headers is not None:
            raise Restart(
                Conflict("the object keeps changing while it is read", hint="Read it when its writers are done")
            )
        if reply.status == 416 and self._headers is not None:
            raise Restart(
                BackendError(
                    "the object ends before its announced length", expected=self._length, hint="Try again later"
                )
            )
        return None

    def forget(self) -> None:
        self._pieces = self._headers = self._resumed = None
        self._streamed = False
        if self._suffix is not None:
            self._start = self._suffix
        if self.target is None:
            self._memory = self._view = None
        if self._destination is not None:
            self._destination.discard()

    # ---- the end ----------------------------------------------------------------------

    def _assemble(self) -> Sequence[Call]:
        assert self._pieces is not None
        headers = self._headers or {}
        if self._checked is not None:
            name, _ = self._checked
            total = 0
            for piece in self._pieces:
                total = crc.combine(name.upper(), total, piece.checksum, piece.stop - piece.start)
            self._compare(self._checked, (name.upper(), total), self._length)
        elif self._resumed is not None and self._resumed.checksum is not None and self.verify:
            assert self._destination is not None
            name = self._resumed.checksum[0].upper()
            self._compare(self._resumed.checksum, (name, self._destination.checksum(name)), self._length)
        size = self._length
        data: Any = self.target
        if self._streamed and self._memory is not None:
            data = self._end_of_stream(self._memory)
            size = len(data)
        elif self._memory is not None:
            data = self._memory.value
        if self._destination is not None:
            path = self._destination.write(data) if data is not None else self._destination.finish()
            self.outcome = self._outcome(path=path, size=size, etag=etag_of(headers), headers=headers)
        else:
            self.outcome = self._outcome(data=data, size=size, etag=etag_of(headers), headers=headers)
        return NO_CALLS

    def _compare(self, expected: tuple[str, int] | None, found: tuple[str, int] | None, size: int) -> bool:
        """Whether there was something to compare."""
        if expected is None or found is None or found[0].lower() != expected[0]:
            return False
        if found[1] != expected[1]:
            name = found[0]
            raise Restart(
                CorruptObject(
                    f"the bytes differ from the object's {name}", expected=crc.encode(name, expected[1]),
                    found=crc.encode(name, found[1]), hint="Stored damaged, or changed on the way: store it again",
                )
            )  # fmt: skip
        self.verified += size
        return True

    def _end_of_stream(self, memory: FreshBytes) -> bytes:
        """What is wanted of a stream that has ended, and no memory beyond that."""
        self._view = None
        data = memory.first(self._length)
        if self._start is None or self._start >= 0:
            return data
        begin, end = self._wanted(self._length)
        return data[begin:end]

    def abandon(self) -> None:
        if self._destination is not None:
            if (partial := self._partial()) is not None:
                self._destination.save(partial)
            self._destination.discard(keep=True)

    def fail(self, error: MfstoreError) -> None:
        self._memory = self._view = None
        super().fail(error)

    @property
    def has_place(self) -> bool:
        """Since its length is known."""
        return self._pieces is not None

    @property
    def to_file(self) -> bool:
        """Whether a long body takes no memory."""
        return self._destination is not None


class ReadJob(GetJob):
    """A range of known length, into the caller's memory or, when it begins, into its own: there is no announcement to
    wait for."""

    __slots__ = ()

    def __init__(
        self, index: int, item: Any, bucket: str, key: str, *, start: int, length: int, target: memoryview | None
    ) -> None:
        super().__init__(index, item, bucket, key, start=start, stop=start + length, target=target)
        # The caller's memory is not for this operation to account.
        self.weight = length if target is None else 1

    def begin(self) -> Sequence[Call]:
        if self.target is None:
            assert self._start is not None and self.stop is not None
            try:
                self._memory = FreshBytes(self.stop - self._start)
            except (MemoryError, OverflowError) as error:
                raise too_long(self.stop - self._start) from error
            self.target = memoryview(self._memory)
        return super().begin()


class RangesJob(GetJob):
    """Several ranges of one object, fetched as one. Their data are views of one buffer."""

    several = True

    __slots__ = ("_out", "_ranges")

    def __init__(
        self, bucket: str, key: str, ranges: Sequence[tuple[int, Any, int, int]], options: Options, verify: bool
    ) -> None:
        first = min(start for _, _, start, _ in ranges)
        last = max(start + length for _, _, start, length in ranges)
        super().__init__(ranges[0][0], ranges[0][1], bucket, key, options, start=first, stop=last, verify=verify)
        self._ranges = ranges
        self._out: list[Outcome] = []

    def take(self) -> Sequence[Outcome]:
        whole = self.outcome
        if whole is None or self._out:
            return ()
        assert self._start is not None
        view = memoryview(whole.data) if whole.data is not None else None
        for index, item, start, length in self._ranges:
            error, data = whole.error, None
            if view is not None:
                data = view[start - self._start : start - self._start + length]
                if not len(data) and length:
                    error, data = (
                        InvalidRange(
                            "the range begins after the object's end", key=self.key, found=start, hint=SIZE_HINT
                        ),
                        None,
                    )
            self._out.append(
                Outcome(
                    index, item, self.bucket, self.key, data=data, size=len(data or b""), etag=whole.etag, error=error,
                    headers=whole.headers, attempts=whole.attempts, seconds=whole.seconds, first_byte=whole.first_byte,
                )
            )  # fmt: skip
        self.outcome = self._out.pop()
        return self._out


def chunked(headers: Any) -> bool:
    """Whether a body comes in chunks, of which the last says that it is."""
    return "chunked" in headers.get("transfer-encoding", "").lower()


def expected_checksum(headers: Any) -> tuple[str, int] | None:
    """The CRC of the whole object a response names: (lower-case algorithm, value). Raises ``Retry`` for one that is no
    CRC."""
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    for name in _ALGORITHMS:
        text = headers.get(f"x-amz-checksum-{name}")
        if text is not None and "-" not in text:
            try:
                return name, crc.decode(name.upper(), text)
            except ValueError:
                raise Retry(
                    BackendError(
                        f"the service names a {name} that is none", found=text[:80],
                        hint="verify=False takes the object without it",
                    ),
                    ODD_ANSWERS,
                ) from None  # fmt: skip
    return None
