from typing_extensions import Buffer

CUT_MIN: int
CUT_NORMAL: int
CUT_MAX: int
LONG_ROW: int
CDC_MIN: int
CDC_NORMAL: int
CDC_MAX: int

def cdc_cut(data: Buffer, last: bool) -> list[int]: ...
def implementations() -> tuple[str, ...]: ...
def cut(
    data: Buffer, itemsize: int, row: int, last: bool, start: int = 0, *, implementation: str = "best"
) -> list[int]: ...
