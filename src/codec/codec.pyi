from collections.abc import Callable, Sequence
from typing import Protocol

from typing_extensions import Buffer

NONE: int
LZ4: int
ZSTD: int
CHUNK_LIMIT: int

class Errors(Protocol):
    @property
    def CorruptObject(self) -> Callable[..., Exception]: ...  # noqa: N802, named as in mfstore.errors
    @property
    def Unsupported(self) -> Callable[..., Exception]: ...  # noqa: N802

class Codec:
    def __init__(self, errors: Errors) -> None: ...
    def encode(
        self, data: Buffer, ends: Sequence[int], codec: int, width: int, level: int, keep: float
    ) -> tuple[memoryview, list[int]]: ...
    def decode(self, src: Buffer, dst: Buffer, jobs: Sequence[tuple[int, int, int, int, int, int]]) -> None: ...
    def trial(self, sample: Buffer, widths: Sequence[int], level: int) -> list[tuple[int, int, int]]: ...
