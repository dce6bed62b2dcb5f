from collections.abc import Iterable

from typing_extensions import Buffer

def encode_key(key: str) -> str: ...
def encode_query(pairs: Iterable[tuple[str, str]]) -> str: ...
def payload_hash(parts: Iterable[Buffer]) -> str: ...
def amz_date(timestamp: int) -> str: ...
def sign(
    method: str,
    path: str,
    query: str,
    headers: Iterable[tuple[str, str]],
    payload_hash: str,
    access_key: str,
    secret_key: str,
    region: str,
    service: str,
    timestamp: int,
) -> str: ...
