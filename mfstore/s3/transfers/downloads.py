"""Getting one object: whole or a range, into memory or a file, in one piece or several, checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from mfstore._core import crc
from mfstore._core.descriptor import memory_file
from mfstore._core.memory import FreshBytes, FreshBytesPool
from mfstore.errors import BackendError, Conflict, CorruptObject, InvalidRange, MfstoreError, Unsupported
from mfstore.s3.aws.errors import SIZE_HINT
from mfstore.s3.calls import NO_OPTIONS, Call, FileRange, Options, Reply
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
    refuse_page,
    renewed,
)
from mfstore.s3.transfers.outcomes import Outcome

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
MOST_IN_MEMORY = 4 << 30
"""Bytes of such a body that go into memory, which cannot be reserved for it."""


def unnamed_file() -> FileIO:
    """A file that goes with its descriptor: in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return FileIO("mfstore-body", "rb+", opener=memory_file)
    with NamedTemporaryFile() as file:
        return FileIO(file.name, "rb+")


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
    """

    __slots__ = (
        "_checked", "_destination", "_first", "_headers", "_length", "_memory", "_pieces",
        "_resumed", "_spool", "_start", "_streamed", "_view", "stop",
        "target", "verified", "verify",
    )  # fmt: skip

    def __init__(
        self, index: int, item: Any, bucket: str, key: str, options: Options = NO_OPTIONS, *, start: int | None = None,
        stop: int | None = None, verify: bool = True, destination: Destination | None = None,
        target: memoryview | None = None,
    ) -> None:  # fmt: skip
        super().__init__(index, item, bucket, key, options)
        self._start = start
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
        self._streamed = False
        """Whether the body is one of unknown length, or of more than the range that is wanted: one stream."""
        self._spool: FileIO | None = None
        """Where such a body goes that is wanted in memory."""

    def begin(self) -> Sequence[Call]:
        if self._destination is not None:
            self._destination.check()
            partial = self._destination.reopen() if self._start is None and self.stop is None else None
            if partial is not None and partial.url == f"s3://{self.bucket}/{self.key}":
                return self._continue(partial)
        if self.target is not None:
            return self._begin_into(self.target)
        return (Call("GetObject", self.bucket, self.key, self.options, None, self._start, self.stop, tag=Try(self)),)

    def _begin_into(self, target: memoryview) -> Sequence[Call]:
        """The place and the length are known: ask for the pieces at once."""
        if self._start is None or self.stop is None or self.stop - self._start != len(target):
            raise ValueError("a target needs start and stop, as far apart as it is long")
        if not len(target):
            self.outcome = self._outcome(data=target)
            return NO_CALLS
        self._first, self._length, self._view = self._start, len(target), target
        self._pieces = [
            DownloadPiece(*bounds) for bounds in cut_pieces(self._length, -(-self._length // (2 * SHORTEST_PIECE)))
        ]
        return [self._ask(piece, fresh=False) for piece in self._pieces]

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
        return Partial(f"s3://{self.bucket}/{self.key}", self._headers["etag"], self._length, checksum, done)

    # ---- replies ----------------------------------------------------------------------

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        piece = call.tag.part
        if piece is None:
            return self._whole(reply)
        self._land(call, piece, reply)
        if self._streamed:
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
        cut = self._ignored(reply)
        if not cut:
            self._check_range(reply, self._start or 0, self._start is not None or self.stop is not None)
            self._check_extent(reply)
        # Mostly the one header says it; the other is for where it does not.
        length = len(data) if headers.get("content-length") == str(len(data)) else reply.length
        if length is not None and length != len(data):
            raise Retry(BackendError("the body is not as long as announced", expected=length, found=len(data)))
        whole = self._start is None and self.stop is None
        # The engine computes what the response names: without that there is nothing to look for.
        checked = (
            reply.checksum is not None and self.verify and whole
            and self._compare(expected_checksum(headers), reply.checksum, len(data))
        )  # fmt: skip
        # The end of the connection may be the end of the object or not. Only the last chunk of a chunked body tells.
        if length is None and not checked and "chunked" not in headers.get("transfer-encoding", "").lower():
            raise Unsupported(LENGTHLESS)
        if cut:
            begin, end = self._wanted(len(data))
            data = data[begin:end]
        if self._destination is not None:
            path = self._destination.write(data)
            self.outcome = self._outcome(path=path, size=len(data), etag=etag_of(headers), headers=headers)
        else:
            self.outcome = self._outcome(data=data, size=len(data), etag=etag_of(headers), headers=headers)
        return NO_CALLS

    def _ignored(self, reply: Reply) -> bool:
        """Whether the service has sent the whole object for a range, and does so always: it did before. What is wanted
        is cut out then."""
        if self.target is not None or self._destination is not None or (self._start is None and self.stop is None):
            return False
        headers = reply.headers
        return (
            reply.status == 200 and "content-range" not in headers and reply.call.tag.odd > 0 and from_service(headers)
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

    def _check_extent(self, reply: Reply) -> None:
        """The object's end may cut a range, and nothing else may."""
        told = reply.headers.get("content-range")
        if told is None:
            return
        first, _, rest = told.partition(" ")[2].partition("-")
        last, _, total = rest.partition("/")
        if not (first.isdigit() and last.isdigit() and total.isdigit()):
            return
        begin = self._start or 0
        expected = (
            begin if begin >= 0 else max(0, int(total) + begin),
            int(total) if self.stop is None else min(self.stop, int(total)),
        )
        if (int(first), int(last) + 1) != expected:
            raise Retry(BackendError("the service sent another range than asked for", expected=expected, found=rest))

    def _check_end(self, reply: Reply) -> None:
        """Fewer bytes came than fit the target: asking again is no use when the object has no more."""
        total = reply.headers.get("content-range", "").rpartition("/")[2]
        if self.target is not None and self.stop is not None and total.isdigit() and int(total) < self.stop:
            raise InvalidRange("the object ends within the range", expected=self.stop, found=int(total), hint=SIZE_HINT)

    def _land(self, call: Call, piece: DownloadPiece, reply: Reply) -> None:
        """Count what arrived for a piece, by its call's try."""
        if (call.start is not None or self.target is not None) and not self._streamed:
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

    def announced(
        self, call: Call, reply: Reply, pieces: int, pool: FreshBytesPool
    ) -> tuple[memoryview | FileRange, int | None, Sequence[Call]]:
        headers = reply.headers
        length = reply.length
        ranged = self._start is not None or self.stop is not None
        if "etag" not in headers:
            refuse_page(headers)
        if self._ignored(reply):
            return self._stream(call, reply), None, NO_CALLS
        self._check_range(reply, self._start or 0, ranged)
        if length is None:
            return self._stream(call, reply), None, NO_CALLS
        self._check_extent(reply)
        self._first = int(headers["content-range"].partition(" ")[2].partition("-")[0]) if ranged else 0
        self._headers, self._length = headers, length
        self._checked = expected_checksum(headers) if self.verify and not ranged else None
        if self._destination is not None:
            self._destination.create(length)
        else:
            try:
                self._memory = pool.take(length)
            except (MemoryError, OverflowError) as error:
                raise too_long(length) from error
            self._view = memoryview(self._memory)
        etag = headers.get("etag")
        bounds = cut_pieces(length, pieces if etag else 1)
        self._pieces = [DownloadPiece(*pair) for pair in bounds]
        call.tag.part = self._pieces[0]
        stop = bounds[0][1] if len(bounds) > 1 else None
        # The call goes on under the pieces' rules, so a later try knows what it was for.
        return self._place(self._pieces[0]), stop, [self._ask(piece, fresh=False) for piece in self._pieces[1:]]

    def _stream(self, call: Call, reply: Reply) -> FileRange:
        """Where a body goes that is a stream: of unknown length, or whole where a range was asked for. Unsupported when
        nothing will tell its end: that of a connection may be the object's or not."""
        headers = self._headers = reply.headers
        self._checked = expected_checksum(headers) if self.verify else None
        if (
            self._checked is None
            and reply.length is None
            and "chunked" not in headers.get("transfer-encoding", "").lower()
        ):
            raise Unsupported(LENGTHLESS)
        if self._destination is not None:
            self._destination.create(0)
        elif self._spool is None:
            self._spool = unnamed_file()
        self._streamed, self._first, self._length = True, 0, 0
        call.tag.part = DownloadPiece(0, ENDLESS)
        self._pieces = [call.tag.part]
        return self._room()

    def _room(self) -> FileRange:
        if self._destination is not None:
            return FileRange(self._destination.fd, 0, ENDLESS)
        assert self._spool is not None
        return FileRange(self._spool.fileno(), 0, MOST_IN_MEMORY)

    def _stream_again(self, call: Call) -> Call:
        """A stream broke: it is begun anew, since its server may know no ranges."""
        room, piece = self._room(), call.tag.part
        os.ftruncate(room.fd, 0)
        piece.done = piece.checksum = 0
        self._checked = expected_checksum(self._headers) if self.verify else None
        return Call(
            "GetObject", self.bucket, self.key, self.options, if_match=self._headers.get("etag"), target=room,
            fresh=True, tag=call.tag,
        )  # fmt: skip

    def _place(self, piece: DownloadPiece) -> memoryview | FileRange:
        start, stop = piece.start + piece.done, piece.stop
        if self._destination is not None:
            return FileRange(self._destination.fd, start, stop - start)
        assert self._view is not None
        return self._view[start:stop]

    def _ask(self, piece: DownloadPiece, fresh: bool) -> Call:
        return Call(
            "GetObject", self.bucket, self.key, self.options, None, self._first + piece.start + piece.done,
            self._first + piece.stop, self._headers.get("etag") if self._headers else None, target=self._place(piece),
            checksum=self._checked[0].upper() if self._checked else None, fresh=fresh, tag=Try(self, piece),
        )  # fmt: skip

    def again(self, call: Call, reply: Reply) -> Call:
        piece = call.tag.part
        if piece is None:
            return renewed(call)
        if self._streamed:
            return self._stream_again(call)
        if 200 <= reply.status < 300 and 0 < reply.received < piece.stop - piece.start - piece.done:
            with suppress(Retry):
                self._land(call, piece, reply)
        fresh = self._ask(piece, fresh=True)
        fresh.tag = call.tag
        return fresh

    def rescued(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call] | None:
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
        self._pieces = self._memory = self._headers = self._resumed = None
        self._streamed = False
        self._end_spool()
        if self.target is None:
            self._view = None
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
        if self._destination is not None:
            self.outcome = self._outcome(
                path=self._destination.finish(), size=size, etag=etag_of(headers), headers=headers
            )
        else:
            if self._spool is not None:
                data: Any = self._spooled(self._spool)
                size = len(data)
            else:
                data = self._memory.value if self._memory is not None else self.target
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

    def _spooled(self, spool: FileIO) -> bytes:
        begin, end = self._wanted(self._length) if self._length else (0, 0)
        spool.truncate(end)
        spool.seek(begin)
        try:
            data = spool.readall()
        except MemoryError as error:
            raise too_long(end - begin) from error
        self._end_spool()
        return data

    def _end_spool(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    def abandon(self) -> None:
        self._end_spool()
        if self._destination is not None:
            if (partial := self._partial()) is not None:
                self._destination.save(partial)
            self._destination.discard(keep=True)

    def fail(self, error: MfstoreError) -> None:
        self._memory = self._view = None
        super().fail(error)

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
