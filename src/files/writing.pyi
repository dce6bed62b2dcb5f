from collections.abc import Sequence

from typing_extensions import Buffer

class WrongLengthError(Exception):
    path: str
    expected: int
    found: int

def write_fresh(directory: int, paths: list[str], contents: list[Sequence[Buffer]], plain: bool) -> None: ...
def rename_each(directory: int, olds: list[str], news: list[str]) -> None: ...
