"""aiohttp as the aiobotocore engine uses it: its connections, and its exceptions in the words of ``calls``."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import Any

from mfstore.errors import MfstoreError, Unsupported
from mfstore.s3 import calls
from mfstore.s3.aws.routes import Transport

HEADER_BYTES = 64 << 10
KEEPALIVE_SECONDS = 12.0  # below what servers and load balancers do


class Connections:
    """The connections of one event loop, whose thread alone uses it. How many there are is the scheduler's to bound."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._sessions: dict[bool, Any] = {}

    def session(self, fresh: bool) -> Any:
        """An aiohttp ``ClientSession``; for ``fresh`` calls one whose connections never served before. Raises
        Unsupported without aiohttp, and when bundle or certificate cannot be read."""
        found = self._sessions.get(fresh)
        if found is None:
            found = self._sessions[fresh] = _open_session(self.transport, fresh)
        return found

    async def close(self) -> None:
        """Close all of them."""
        for session in self._sessions.values():
            await session.close()


def _open_session(transport: Transport, fresh: bool) -> Any:
    from mfstore.s3.aws.sessions import collector_paused

    try:
        with collector_paused():
            import aiohttp
    except ImportError as error:
        raise Unsupported("this engine needs aiohttp", hint="pip install 'mfstore[s3]'") from error
    trace = aiohttp.TraceConfig()

    # What is traced is an Exchange.
    async def reuse(session: Any, about: Any, params: Any) -> None:
        about.trace_request_ctx.reply.reused = True

    async def sent(session: Any, about: Any, params: Any) -> None:
        about.trace_request_ctx.headers_sent()

    trace.on_connection_reuseconn.append(reuse)
    trace.on_request_headers_sent.append(sent)
    keep: dict[str, Any] = {"force_close": True} if fresh else {"keepalive_timeout": KEEPALIVE_SECONDS}
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, ssl=_context(transport), use_dns_cache=not fresh, ttl_dns_cache=30, **keep
        ),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=transport.connect_timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers={"Content-Type", "User-Agent", "Accept"},
        auto_decompress=False,
        max_line_size=HEADER_BYTES,
        max_field_size=HEADER_BYTES,
        trace_configs=[trace],
    )
    if hasattr(session, "_retry_connection"):
        session._retry_connection = False  # whether to ask again is the scheduler's; there is no public switch
    return session


def _context(transport: Transport) -> ssl.SSLContext:
    """TLS as the transport asks for it."""
    from mfstore.s3.aws.botocore_internals import certificates

    try:
        tls = ssl.create_default_context(cafile=transport.ca_file or certificates())
        if not transport.verify:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        if transport.certificate is not None:
            tls.load_cert_chain(transport.certificate, transport.private_key)
    except (OSError, ssl.SSLError) as error:
        raise Unsupported(f"the CA bundle or client certificate cannot be used: {error}") from error
    return tls


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names in lower case; the first of several."""
    headers: dict[str, str] = {}
    for name, value in raw:
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        headers.setdefault(name.decode("latin-1").lower(), text)
    return headers


def failure_of(error: BaseException, answered: bool) -> tuple[str, str, int]:
    """failure, message and errno for what aiohttp or a file raised; ``answered``: the status had come."""
    import aiohttp

    number = getattr(error, "errno", None) or 0
    text = str(error) or type(error).__name__
    if isinstance(error, MfstoreError):
        return calls.INTERNAL, str(error), 0
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | aiohttp.ServerFingerprintMismatch):
        return calls.TLS, text, number
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return calls.PROXY, text, number
    if isinstance(error, aiohttp.ClientConnectorError):
        dns = isinstance(getattr(error, "os_error", None), socket.gaierror)
        return calls.DNS if dns else calls.CONNECT, text, number
    if isinstance(error, aiohttp.ServerTimeoutError | asyncio.TimeoutError):
        return calls.CONNECT if not answered else calls.STALL, text, number
    if isinstance(error, aiohttp.ClientPayloadError):
        broken = isinstance(error.__cause__, ConnectionError | aiohttp.ClientOSError)
        return calls.RESET if broken else calls.TRUNCATED, text, number
    if isinstance(error, aiohttp.ClientResponseError):
        return calls.PROTOCOL, f"{type(error).__name__}: {getattr(error, 'message', text)}", 0
    if isinstance(error, aiohttp.ClientConnectionError | ConnectionError):
        return calls.RESET, text, number
    if isinstance(error, OSError):
        return calls.DISK, text, number
    return calls.INTERNAL, f"{type(error).__name__}: {text}", 0
