from collections.abc import Callable, Iterable
from typing import Any, Protocol

from typing_extensions import Buffer

from mfstore._core.graph import ContentOrder

BUFFER: int
BYTES: int
TEXT: int
BYTEARRAY: int
LIST_PART: int

class Parts(Protocol):
    @property
    def nbytes(self) -> int: ...
    def read(self, start: int, end: int, /) -> Buffer: ...

class Reduced:
    func: Callable[..., Any]
    args: tuple[Any, ...]
    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...]) -> None: ...

class Payload:
    data: Buffer | Parts
    itemsize: int
    row: int
    def __init__(self, data: Buffer | Parts, itemsize: int, row: int) -> None: ...

class Items:
    length: int
    parts: Iterable[list[Any]]
    def __init__(self, length: int, parts: Iterable[list[Any]]) -> None: ...

class Arrays:
    kind: type
    build: Callable[..., Any]
    is_plain: Callable[[Any], bool]
    def __init__(self, kind: type, build: Callable[..., Any], is_plain: Callable[[Any], bool]) -> None: ...

class Sink(Protocol):
    def body(self, block: bytes) -> None: ...
    # data: bytes-like, or the Parts of a Payload that had them.
    def payload(self, kind: int, data: Any, itemsize: int, row: int, at: int) -> None: ...

class Reducers(Protocol):
    # As of a mapping.
    def get(self, kind: type, /) -> Callable[[Any], Any] | None: ...

class Pickler:
    def __init__(
        self,
        sink: Sink,
        reducers: Reducers | None = None,
        values: tuple[type, ...] = (),
        once: dict[type, Callable[[Any], bool] | None] | None = None,
        block: int = ...,
        order: ContentOrder | None = None,
        counted: frozenset[str] = ...,
        arrays: Arrays | None = ...,
        modules: list[str] | None = ...,
    ) -> None: ...
    def dump(self, obj: object) -> int: ...
    def path(self) -> str: ...

class Joined:
    def body(self, block: bytes) -> None: ...
    def payload(self, kind: int, data: Buffer | Parts, itemsize: int, row: int, at: int) -> None: ...
    def all(self) -> bytes: ...
