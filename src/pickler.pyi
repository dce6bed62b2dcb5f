from typing_extensions import Buffer
from collections.abc import Callable, Mapping
from typing import Any, Protocol

BUFFER: int
BYTES: int
TEXT: int
BYTEARRAY: int

class Sink(Protocol):
    def body(self, block: bytes) -> None: ...
    def payload(self, kind: int, data: Buffer, itemsize: int, row: int, at: int) -> None: ...

class Reduced:
    func: Callable[..., Any]
    args: tuple[Any, ...]
    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...]) -> None: ...

class Payload:
    data: Buffer
    itemsize: int
    row: int
    def __init__(self, data: Buffer, itemsize: int, row: int) -> None: ...

class Pickler:
    def __init__(
        self, sink: Sink, reducers: Mapping[type, Callable[[Any], Any]] | None = None,
        values: tuple[type, ...] = (), block: int = ..., ordering: frozenset[int] = ...
    ) -> None: ...
    def dump(self, obj: object) -> int: ...
    def path(self) -> str: ...
