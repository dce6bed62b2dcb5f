from collections.abc import Sequence

from typing_extensions import Buffer

NONE: int
LZ4: int
ZSTD: int
CHUNK_LIMIT: int

class Codec:
    def encode(
        self, data: Buffer, ends: Sequence[int], codec: int, width: int, level: int, keep: float
    ) -> tuple[memoryview, list[int]]: ...
    def decode(self, src: Buffer, dst: Buffer, jobs: Sequence[tuple[int, int, int, int, int, int]]) -> None: ...
    def trial(self, sample: Buffer, widths: Sequence[int], level: int) -> list[tuple[int, int, int]]: ...
