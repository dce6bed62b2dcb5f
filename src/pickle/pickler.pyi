from collections.abc import Callable, Mapping
from typing import Any, Protocol

from typing_extensions import Buffer

from mfstore.pickling.payloads import Strided

BUFFER: int
BYTES: int
TEXT: int
BYTEARRAY: int

class Sink(Protocol):
    def body(self, block: bytes) -> None: ...
    def payload(self, kind: int, data: Buffer | Strided, itemsize: int, row: int, at: int) -> None: ...

class Pickler:
    def __init__(
        self,
        sink: Sink,
        reducers: Mapping[type, Callable[[Any], Any]] | None = None,
        values: tuple[type, ...] = (),
        block: int = ...,
    ) -> None: ...
    def dump(self, obj: object) -> int: ...
    def path(self) -> str: ...
