from collections.abc import Callable, Iterable, Sequence
from typing import Any

from typing_extensions import Buffer

class Unpickler:
    def __init__(
        self,
        finder: Callable[[], Callable[[str, str], Any]],
        buffers: Iterable[Any] | None = None,
        rebuild: Callable[[Any], Callable[..., Any] | None] | None = None,
    ) -> None: ...
    def looks_through(self, pieces: Sequence[Buffer]) -> bool: ...
    def begins(self, piece: Buffer) -> bool: ...
    def load(self, pieces: Iterable[Buffer]) -> Any: ...
