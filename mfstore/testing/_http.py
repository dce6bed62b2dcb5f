"""The heads and bodies of HTTP/1.1 messages, as far as a proxy has to know them: where they end, and nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mfstore.testing._wire import READ_AT_ONCE, Broken, Pacer, Wire

ENDLESS = 1 << 62


@dataclass(slots=True)
class Head:
    """A request's or response's first line and fields; ``raw`` as received, so that what is not altered stays so."""

    line: str
    fields: list[tuple[str, str]]
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        """From the bytes up to and including the empty line."""
        line, *rest = raw.decode("latin-1").lstrip("\r\n").split("\r\n")
        fields = [(name, value.strip()) for name, _, value in (item.partition(":") for item in rest if item)]
        return cls(line, fields, raw)

    def get(self, name: str, default: str = "") -> str:
        """The first field of this name."""
        return next((value for key, value in self.fields if key.lower() == name.lower()), default)

    def edit(self, fields: list[tuple[str, str]], line: str | None = None) -> None:
        """Replace the fields."""
        self.fields = fields
        self.line = line or self.line
        text = "\r\n".join([self.line, *(f"{name}: {value}" for name, value in fields)])
        self.raw = text.encode("latin-1") + b"\r\n\r\n"

    def set(self, name: str, value: str | None) -> None:
        """Replace the field, where it stands; None drops it."""
        fields = [item for item in self.fields if item[0].lower() != name.lower()]
        at = next((at for at, item in enumerate(self.fields) if item[0].lower() == name.lower()), len(fields))
        self.edit(fields if value is None else [*fields[:at], (name, value), *fields[at:]])

    @property
    def status(self) -> int:
        """Of a response."""
        words = self.line.split(" ", 2)
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "chunked" in self.get("Transfer-Encoding").lower()

    @property
    def closes(self) -> bool:
        """Whether the sender ends the connection after this message."""
        connection = self.get("Connection").lower()
        return "close" in connection or ("HTTP/1.0" in self.line and "keep-alive" not in connection)


@dataclass(slots=True, eq=False)
class Body:
    """A message's body on its way from ``source``. Events happen before the payload byte of their offset."""

    source: Wire
    length: int | None
    """Payload bytes, where the head says."""
    chunked: bool = False
    pacer: Pacer | None = None
    passed: int = 0
    target: Wire | None = None
    _left: int = 0
    _ended: bool = False
    _events: list[tuple[int, Callable[[], Awaitable[None]]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.chunked:
            self._left = ENDLESS if self.length is None else self.length

    @classmethod
    def of_request(cls, head: Head, source: Wire) -> Body:
        """What follows a request's head."""
        length = head.get("Content-Length")
        return cls(source, None if head.chunked else int(length or 0), head.chunked)

    @classmethod
    def of_response(cls, head: Head, method: str, source: Wire) -> Body:
        """What follows a response's head."""
        if method == "HEAD" or head.status in (204, 304) or head.status < 200:
            return cls(source, 0)
        length = head.get("Content-Length")
        return cls(source, int(length) if length and not head.chunked else None, head.chunked)

    @property
    def until_close(self) -> bool:
        """Whether only the end of the connection ends it."""
        return self.length is None and not self.chunked

    @property
    def simple(self) -> bool:
        """Whether the whole body is here already and nothing is to happen to it."""
        return not self.chunked and not self._events and self._left <= min(len(self.source.buffer), READ_AT_ONCE)

    async def whole(self) -> bytes:
        """A simple body, at its pace."""
        length = self._left
        if self.pacer is not None and length:
            self.pacer.start()
            await self.pacer.take(length)
        data = bytes(self.source.buffer[:length])
        del self.source.buffer[:length]
        self.passed, self._left = length, 0
        return data

    def pace(self, rate: float) -> None:
        """So many bytes per second from here on."""
        self.pacer = Pacer(rate)
        self.pacer.start()

    def at(self, size: int | None, fraction: float | None, event: Callable[[], Awaitable[None]]) -> None:
        """Arrange an event after ``size`` payload bytes, or after a fraction of a body of known length."""
        offset = int((self.length or 0) * fraction) if fraction is not None else size or 0
        self._events.append((offset, event))
        self._events.sort(key=lambda item: item[0])

    async def relay(self, target: Wire | None) -> None:
        """All of it, framing included; to nowhere if there is no target."""
        self.target = target
        turns = 0
        while True:
            if not self._left and not await self._next_chunk():
                break
            stop = self._left
            if self._events:
                offset, event = self._events[0]
                if offset <= self.passed:
                    del self._events[0]
                    await event()
                    continue
                stop = min(stop, offset - self.passed)
            if not await self._pass(stop):
                if self.until_close:
                    break
                raise Broken(self.source, reset=False)
            turns += 1
            if turns % 32 == 0:
                await asyncio.sleep(0)  # a stream that never has to wait must not keep the others from running
        for _, event in self._events:  # of an offset that the body never reached
            await event()

    async def _pass(self, count: int) -> int:
        if self.pacer is not None and not self.passed:
            self.pacer.start()
        moved = await self.source.move(self.target, count, self.pacer)
        self._left -= moved
        self.passed += moved
        return moved

    async def flip(self) -> None:
        """Send the next payload byte with one bit changed."""
        if self._left and (data := await self.source.receive(1)):
            self._left -= 1
            self.passed += 1
            if self.target is not None:
                await self.target.send(bytes([data[0] ^ 0x10]))

    async def collect(self) -> bytes:
        """All of the payload, without its framing."""
        parts = []
        while self._left or await self._next_chunk():
            if not (data := await self.source.receive(min(self._left, 1 << 20))):
                break
            parts.append(data)
            self._left -= len(data)
            self.passed += len(data)
        return b"".join(parts)

    async def _next_chunk(self) -> bool:
        """Pass the framing before the next chunk on; False at the end of the body."""
        if not self.chunked or self._ended:
            return False
        if self.passed:
            await self._frame(b"\r\n")
        size = await self._frame(b"\r\n")
        self._left = int(size.split(b";")[0], 16)
        if not self._left:
            self._ended = True
            while await self._frame(b"\r\n") != b"\r\n":
                pass  # trailers
        return bool(self._left)

    async def _frame(self, end: bytes) -> bytes:
        line = await self.source.until(end)
        if not line:
            raise Broken(self.source, reset=False)
        if self.target is not None:
            await self.target.send(line)
        return line
