from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Protocol

from typing_extensions import Buffer

NONE: int
LZ4: int
ZSTD: int
PREFIX: int
DIFFERENCE: int
DELTAS: tuple[int, int]
PLANES: int
PCODEC: int
PCODEC_TYPES: dict[int, str]
CHUNK_LIMIT: int
GROUP: int
GROUP_LIMIT: int
QUICK: int
FIVES: int
FAR: int

def libraries() -> dict[str, tuple[str, str, str]]: ...
def delta_seal_is_right(encoded: Buffer) -> bool: ...
def likeness(data: Buffer, base: Buffer, width: int) -> tuple[int, int, int, int, int]: ...

class Errors(Protocol):
    @property
    def CorruptObject(self) -> Callable[..., Exception]: ...  # noqa: N802, named as in mfstore.errors
    @property
    def Unsupported(self) -> Callable[..., Exception]: ...  # noqa: N802

class Codec:
    def __init__(self, errors: Errors) -> None: ...
    def pcodec(self) -> tuple[ModuleType, type, ModuleType]: ...
    def encode_numbers(self, data: Buffer, kind: int, level: int) -> bytes: ...
    def encode(
        self, data: Buffer, ends: Sequence[int], codec: int, width: int, level: int, keep: float
    ) -> tuple[bytes, list[int]]: ...
    def decode(self, src: Buffer, dst: Buffer, jobs: Sequence[tuple[int, int, int, int, int, int]]) -> None: ...
    def decode_each(self, src: Buffer, parts: Sequence[tuple[int, int, int, int, Buffer]]) -> None: ...
    def encode_group(self, data: Buffer, ends: Sequence[int], level: int, keep: float) -> tuple[bytes, list[int]]: ...
    def decode_group(self, encoded: Buffer, parts: Sequence[tuple[int, Buffer]], offset: int = 0) -> None: ...
    def trial(self, sample: Buffer, candidates: Sequence[tuple[int, int, int]], most: float = 0) -> list[int]: ...
    def encode_delta(
        self, data: Buffer, base: Buffer, codec: int, width: int, level: int, most: int | None = None
    ) -> bytes: ...
    def decode_delta(self, encoded: Buffer, base: Buffer, codec: int, width: int, into: Buffer) -> None: ...
