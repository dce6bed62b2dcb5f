"""One request that came to the proxy, and how requests are told apart from run to run."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Protocol


class Fault(Protocol):
    """What an exchange knows of the fault that hit it."""

    @property
    def action(self) -> Any:
        """What happens to the request: an ``Action``."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One request that came to the proxy, and what became of it. Filled in as it goes on."""

    method: str
    path: str
    """As on the wire, percent-encoding and all."""
    query: str
    headers: dict[str, str]
    """By lower-case name."""
    connection: int
    """Which of the proxy's connections, counting from 1."""
    turn: int
    """Which request on this connection, counting from 1."""
    started: float
    """``time.monotonic()`` when the head was there."""
    finished: float | None = None
    """When the last byte was sent; None if the exchange broke off, or goes on."""
    status: int | None = None
    """What the client was sent; None if it was sent none."""
    upstream_status: int | None = None
    """What the server answered; None if the request did not reach it or its answer did not come."""
    request_bytes: int = 0
    """Of the body, sent on to the server."""
    response_bytes: int = 0
    """Of the body, sent on to the client."""
    fault: Fault | None = None
    """The ``NetworkFault`` that hit it."""


def draw(*of: object) -> float:
    """A number in [0, 1) that is the same for the same arguments in every process."""
    return int.from_bytes(hashlib.blake2b(repr(of).encode(), digest_size=7).digest(), "big") / (1 << 56)


OWN = (
    "uploadId=", "X-Amz-", "continuation-token=",  # S3
    "blockid=", "marker=", "sig=", "se=", "st=", "skt=", "ske=",  # Azure
    "upload_id=", "pageToken=", "rewriteToken=", "ifGenerationMatch=",  # Google
)  # fmt: skip
"""What of a query differs from run to run."""


def identity(exchange: Exchange) -> str:
    """What makes two runs' requests the same: not the bucket, the upload's id or the signature."""
    key = _below_the_bucket(exchange)
    query = "&".join(item for item in exchange.query.split("&") if not item.startswith(OWN))
    return f"{exchange.method} {key} {query} {exchange.headers.get('range', '')}"


def _below_the_bucket(exchange: Exchange) -> str:
    path = re.sub("^/(?:(?:upload|download)/)?storage/v1/b/", "/", exchange.path)  # Google's JSON API
    # An emulator of Azure has the account before the container.
    account = "x-ms-version" in exchange.headers and exchange.headers.get("host", "")[:1].isdigit()
    return path.split("/", 3 if account else 2)[-1]
