"""Signature version 4, as far as the proxy needs it to send a request other than the client's."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

from mfstore.testing._http import Head


class Credentials(NamedTuple):
    """What the proxy signs with."""

    access_key: str
    secret_key: str
    region: str = "us-east-1"


def change(head: Head, credentials: Credentials | None, path: str | None, drop: str | None) -> None:
    """Give the request another path, or drop one of its headers. A signed one stays valid, or as it is."""
    signed = re.search(r"SignedHeaders=([^,\s]+)", head.get("Authorization"))
    names = signed[1].split(";") if signed else []
    if signed and credentials is None and (path is not None or drop in names):
        return
    if drop is not None:
        head.set(drop, None)
    if path is not None:
        method, target, version = head.line.split(" ", 2)
        head.edit(head.fields, f"{method} {path}?{target.partition('?')[2]}".rstrip("?") + f" {version}")
    if signed and credentials is not None:
        _sign(head, credentials, [name for name in names if name != drop])


def _sign(head: Head, credentials: Credentials, names: list[str]) -> None:
    method, target, _ = head.line.split(" ", 2)
    path, _, query = target.partition("?")
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    head.set("X-Amz-Date", now)
    pairs = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in parse_qsl(query, keep_blank_values=True))
    canonical = [method, path, "&".join(f"{k}={v}" for k, v in pairs)]
    canonical += [f"{name}:{' '.join(head.get(name).split())}" for name in names]
    canonical += ["", ";".join(names), head.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]
    scope = f"{now[:8]}/{credentials.region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256("\n".join(canonical).encode()).hexdigest()])
    key = b"AWS4" + credentials.secret_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    value = f"Credential={credentials.access_key}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    head.set("Authorization", f"AWS4-HMAC-SHA256 {value}")
