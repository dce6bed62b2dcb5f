from typing_extensions import Buffer

CDC_MIN: int
CDC_NORMAL: int
CDC_MAX: int

def cdc_cut(data: Buffer, last: bool) -> list[int]: ...
