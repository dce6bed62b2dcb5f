"""Arrow's streams (IPC) as far as it takes to read some columns of one: where in it the buffers of a column lie.

A stream is messages one after the other: a schema, dictionaries, batches of rows. A message is metadata, which is a
table of flatbuffers, and a body, which is buffers: those of the first column, of the second one, and so on. What is
laid out here is by the specification of Arrow's columnar format, versions 4 and 5 of its metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import Struct, error

from mfstore.records import NamedTuple

SCHEMA, DICTIONARY, BATCH = 1, 2, 3
"""Kinds of messages."""
CONTINUED = b"\xff\xff\xff\xff"
"""Begins each message."""
WINDOW = 64 << 10
"""Bytes that are read to find a message: its metadata, and mostly that of the next one too. Not less than a chunk."""
_HEAD = 8
_BYTE, _SHORT, _INT, LONG, PAIR = Struct("<B"), Struct("<H"), Struct("<i"), Struct("<q"), Struct("<qq")

BUFFERS = (
    dict.fromkeys((2, 3, 6, 7, 8, 9, 10, 11, 15, 18), 2)  # numbers, truth values, dates, times, fixed sizes
    | dict.fromkeys((4, 5, 19, 20), 3)  # bytes and texts, where they begin
    | dict.fromkeys((12, 17, 21), 2)  # lists and maps
    | dict.fromkeys((25, 26), 3)  # views of lists
    | dict.fromkeys((13, 16), 1)  # structs, lists of a fixed size
    | {1: 0, 23: 2, 24: 2}  # nothing; views of bytes and texts, which have as many more as a batch says
)
"""Buffers of a column, without its children's, by the number of its type."""
VIEWS = (23, 24)


class NotAStream(ValueError):
    """Bytes that are no stream of Arrow, or one of a kind that is not known here."""


class Field(NamedTuple):
    """A column, or what is within one, as it takes rows to be found in it."""

    kind: int
    """The number of its type; of what has a dictionary that of its numbers."""
    width: int
    """Bytes of a value; of lists of a fixed size how long they are; 0 where neither is known here."""
    children: tuple[Field, ...] = ()


class Column(NamedTuple):
    """A column of a stream."""

    name: str
    kinds: tuple[int, ...]
    """The types of what has buffers in it: itself, then its children."""
    dictionaries: tuple[int, ...]
    """Numbers of the dictionaries that it needs."""
    field: Field


class Message(NamedTuple):
    """A message of a stream."""

    kind: int
    at: int
    """Where in the stream its metadata begin, with what comes before them."""
    metadata: bytes
    body: int
    """Where its body begins."""
    length: int
    """Of its body."""
    dictionary: int = -1
    """Of a dictionary, its number."""
    rows: int = 0
    buffers: int = 0
    """Where in the metadata the list of buffers begins."""
    buffer_count: int = 0
    """How many buffers."""
    views: tuple[int, ...] = ()
    """How many buffers of data each column of views has."""
    length_at: int = 0
    """Where in the metadata the length of the body is."""
    rows_at: int = 0
    """Where in the metadata the number of rows is."""
    nodes: int = 0
    """Where in the metadata the list begins that says of each field how long it is, and how many values are missing."""

    def places(self) -> list[tuple[int, int]]:
        """Where in the body each buffer begins, and its length."""
        return [PAIR.unpack_from(self.metadata, self.buffers + 16 * number) for number in range(self.buffer_count)]


class StreamLayout(NamedTuple):
    """What a stream holds, and where."""

    columns: tuple[Column, ...]
    messages: tuple[Message, ...]

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(message.rows for message in self.messages if message.kind == BATCH)

    def between(self, start: int, stop: int) -> tuple[StreamLayout, int]:
        """The layout without the batches that have none of these rows, and how many rows come before it."""
        kept, before, at = [], 0, 0
        for message in self.messages:
            end = at + message.rows if message.kind == BATCH else at
            if message.kind != BATCH or max(at, start) < min(end, stop):
                kept.append(message)
            elif end <= start:
                before = end
            at = end
        return self._replace(messages=tuple(kept)), before

    def parts(self, chosen: Sequence[int]) -> Iterator[bytes | tuple[int, int]]:
        """A stream that has the data of these columns alone, by their numbers, in pieces: bytes, and ranges of this
        stream. Buffers of others are empty there, so nobody may read them."""
        needed = {number for at in chosen for number in self.columns[at].dictionaries}
        for message in self.messages:
            if message.kind == DICTIONARY and message.dictionary not in needed:
                continue
            if message.kind != BATCH:
                yield message.metadata
                if message.length:
                    yield message.body, message.body + message.length
                continue
            yield from self._batch(message, set(chosen))
        yield CONTINUED + bytes(4)

    def _batch(self, message: Message, chosen: set[int]) -> Iterator[bytes | tuple[int, int]]:
        metadata = bytearray(message.metadata)
        places, views = message.places(), iter(message.views)
        ranges: list[tuple[int, int]] = []
        at = number = 0
        for column, one in enumerate(self.columns):
            for kind in one.kinds:
                count = BUFFERS[kind] + (next(views, 0) if kind in VIEWS else 0)
                for buffer in range(number, number + count):
                    if buffer >= len(places):
                        raise NotAStream("a batch has fewer buffers than its columns need")
                    start, length = places[buffer]
                    if column not in chosen or not length:
                        PAIR.pack_into(metadata, message.buffers + 16 * buffer, at, 0)
                        continue
                    padded = length + -length % 64
                    if not 0 <= start <= start + length <= message.length:
                        raise NotAStream("a buffer lies outside of its message")
                    PAIR.pack_into(metadata, message.buffers + 16 * buffer, at, length)
                    ranges.append((message.body + start, message.body + start + length))
                    at += padded
                number += count
        if number != message.buffer_count:
            raise NotAStream("a batch has more buffers than its columns need")
        LONG.pack_into(metadata, message.length_at, at)
        yield bytes(metadata)
        for start, end in ranges:
            yield start, end
            if (end - start) % 64:
                yield bytes(-(end - start) % 64)


class _Table:
    """A table of flatbuffers. Whatever lies outside of the data is struct's error."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._fields = at - _INT.unpack_from(data, at)[0]

    def place(self, field: int) -> int:
        """Where the field lies, 0 if it is not there."""
        (size,) = _SHORT.unpack_from(self._data, self._fields)
        if 4 + 2 * field + 2 > size:
            return 0
        (offset,) = _SHORT.unpack_from(self._data, self._fields + 4 + 2 * field)
        return self._at + int(offset) if offset else 0

    def number(self, field: int, form: Struct, otherwise: int = 0) -> int:
        """A number, or what it is when it is left out."""
        place = self.place(field)
        return int(form.unpack_from(self._data, place)[0]) if place else otherwise

    def table(self, field: int) -> _Table | None:
        """A table within."""
        place = self.place(field)
        return _Table(self._data, place + _INT.unpack_from(self._data, place)[0]) if place else None

    def vector(self, field: int, size: int) -> tuple[int, int]:
        """Where items of so many bytes begin, and how many there are."""
        place = self.place(field)
        if not place:
            return 0, 0
        start = place + int(_INT.unpack_from(self._data, place)[0])
        count = int(_INT.unpack_from(self._data, start)[0])
        if not 0 <= count * size <= len(self._data):
            raise NotAStream("a list is longer than its message")
        return start + 4, count

    def tables(self, field: int) -> list[_Table]:
        """The tables of a list."""
        start, count = self.vector(field, 4)
        places = range(start, start + 4 * count, 4)
        return [_Table(self._data, place + _INT.unpack_from(self._data, place)[0]) for place in places]

    def text(self, field: int) -> str:
        """A text."""
        start, count = self.vector(field, 1)
        return self._data[start : start + count].decode()


def read_layout(read: Callable[[int, int], bytes], size: int) -> StreamLayout:
    """The layout of a stream of ``size`` bytes, of which ``read`` gives some, from one place to another. NotAStream for
    what is none, or has no batch; for compressed ones too."""
    try:
        messages = list(_messages(read, size))
        if not messages or messages[0].kind != SCHEMA:
            raise NotAStream("no schema comes first")
        return StreamLayout(tuple(_columns(messages[0])), tuple(messages))
    except (error, UnicodeDecodeError, IndexError) as wrong:
        raise NotAStream(f"metadata that cannot be read: {wrong}") from wrong


def _messages(read: Callable[[int, int], bytes], size: int) -> Iterator[Message]:
    window, begins = b"", 0

    def part(start: int, end: int) -> bytes:
        nonlocal window, begins
        if not begins <= start <= end <= begins + len(window):
            begins = start
            window = read(start, min(max(end, start + WINDOW), size))
        return window[start - begins : end - begins]

    at = 0
    # What ends a stream is as long as a head.
    while at + _HEAD < size:
        head = part(at, at + _HEAD)
        if head[:4] != CONTINUED:
            raise NotAStream("a message begins otherwise")
        (length,) = _INT.unpack_from(head, 4)
        if length == 0:
            return
        if length < 0 or at + _HEAD + length > size:
            raise NotAStream("metadata longer than the stream")
        message = _message(at, part(at, at + _HEAD + length))
        if message.length < 0 or message.body + message.length > size:
            raise NotAStream("a body longer than the stream")
        yield message
        at = message.body + message.length


def _message(at: int, metadata: bytes) -> Message:
    inner = metadata[_HEAD:]
    table = _Table(inner, _INT.unpack_from(inner, 0)[0])
    kind, header = table.number(1, _BYTE), table.table(2)
    length_at = table.place(3)
    body = at + len(metadata)
    length = table.number(3, LONG)
    if kind == SCHEMA:
        return Message(kind, at, metadata, body, length)
    if header is None or kind not in (DICTIONARY, BATCH):
        raise NotAStream("a message of an unknown kind")
    number = header.number(0, LONG) if kind == DICTIONARY else -1
    batch = header.table(1) if kind == DICTIONARY else header
    if batch is None or batch.place(3) or not length_at:
        raise NotAStream("a batch that is compressed, or empty")
    buffers, count = batch.vector(2, 16)
    start, views = batch.vector(4, 8)
    counts = tuple(int(LONG.unpack_from(inner, start + 8 * one)[0]) for one in range(views))
    if any(one < 0 for one in counts):
        raise NotAStream("a column of views has fewer than no buffers")
    rows = batch.number(0, LONG)
    return Message(
        kind, at, metadata, body, length, number, rows, buffers + _HEAD, count, counts, length_at + _HEAD,
        batch.place(0) + _HEAD, batch.vector(1, 16)[0] + _HEAD,
    )  # fmt: skip


def _columns(schema: Message) -> Iterator[Column]:
    inner = schema.metadata[_HEAD:]
    header = _Table(inner, _INT.unpack_from(inner, 0)[0]).table(2)
    if header is None:
        raise NotAStream("a schema without fields")
    for field in header.tables(1):
        kinds, dictionaries = zip(*_kinds(field), strict=True)
        flat = [kind for kind in kinds if kind is not None]
        if any(kind not in BUFFERS for kind in flat):
            raise NotAStream("a type that is not known here")
        yield Column(field.text(0), tuple(flat), tuple(one for one in dictionaries if one is not None), _field(field))


def _field(field: _Table) -> Field:
    dictionary = field.table(4)
    if dictionary is not None:
        numbers = dictionary.table(1)
        return Field(2, 4 if numbers is None else numbers.number(0, _INT) // 8)
    kind, type_ = field.number(2, _BYTE), field.table(3)
    return Field(kind, 0 if type_ is None else _width(kind, type_), tuple(map(_field, field.tables(5))))


def _width(kind: int, type_: _Table) -> int:
    if kind in (2, 15, 16):  # whole numbers; bytes and lists of a fixed size
        return type_.number(0, _INT) // (8 if kind == 2 else 1)
    if kind == 3:
        return 2 << type_.number(0, _SHORT)
    if kind == 7:
        return type_.number(2, _INT, 128) // 8
    if kind == 8:
        return 8 if type_.number(0, _SHORT, 1) else 4
    if kind == 9:
        return type_.number(1, _INT, 32) // 8
    return 8 if kind in (10, 18) else 0


def _kinds(field: _Table) -> Iterator[tuple[int | None, int | None]]:
    """The types that have buffers in batches, and the dictionaries."""
    dictionary = field.table(4)
    if dictionary is not None:
        # Batches have numbers; what is in the dictionary may need others.
        yield 2, dictionary.number(0, LONG)
        for child in field.tables(5):
            yield from ((None, number) for _, number in _kinds(child))
        return
    yield field.number(2, _BYTE), None
    for child in field.tables(5):
        yield from _kinds(child)
