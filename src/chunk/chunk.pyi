from typing_extensions import Buffer

CUT_MIN: int
CUT_NORMAL: int
CUT_MAX: int
LONG_ROW: int

def implementations() -> tuple[str, ...]: ...
def cut(
    data: Buffer, itemsize: int, row: int, last: bool, start: int = 0, *, implementation: str = "best"
) -> list[int]: ...
