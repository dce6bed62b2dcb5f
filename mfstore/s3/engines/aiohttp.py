"""aiohttp as the second engine uses it: sessions, and its exceptions in the words of ``engine``."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import Any

from mfstore.errors import MfstoreError, Unsupported
from mfstore.s3 import calls as engine
from mfstore.s3.aws.routes import Transport

ERROR_BYTES = 64 << 10
HEADER_BYTES = 64 << 10
IDLE = 12.0  # seconds a connection is kept: below what servers and load balancers do


def context(transport: Transport) -> ssl.SSLContext:
    """TLS as the transport asks for it. Raises Unsupported when bundle or certificate cannot be read."""
    try:
        tls = ssl.create_default_context(cafile=transport.ca_file or _botocore_bundle())
        if not transport.verify:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        if transport.certificate is not None:
            tls.load_cert_chain(transport.certificate, transport.private_key)
    except (OSError, ssl.SSLError) as error:
        raise Unsupported(f"the CA bundle or client certificate cannot be used: {error}") from error
    return tls


def _botocore_bundle() -> str:
    from botocore.httpsession import get_cert_path

    return str(get_cert_path(True))


def open_session(transport: Transport, fresh: bool) -> Any:
    """A client session; the scheduler bounds what is under way, so it does not. In the loop's thread."""
    try:
        import aiohttp
    except ImportError as error:
        raise Unsupported("this engine needs aiohttp", hint="pip install 'mfstore[s3]'") from error
    trace = aiohttp.TraceConfig()

    async def reuse(session: Any, about: Any, params: Any) -> None:
        about.trace_request_ctx.reply.reused = True

    async def sent(session: Any, about: Any, params: Any) -> None:
        flight = about.trace_request_ctx
        if flight.sent:
            flight.wait(engine.FIRST_BYTE, flight.call.first_byte)
        else:
            flight.wait(engine.STALL, flight.call.stall)

    trace.on_connection_reuseconn.append(reuse)
    trace.on_request_headers_sent.append(sent)
    keep: dict[str, Any] = {"force_close": True} if fresh else {"keepalive_timeout": IDLE}
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, ssl=context(transport), use_dns_cache=not fresh, ttl_dns_cache=30, **keep
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


def words(error: BaseException, answered: bool) -> tuple[str, str, int]:
    """failure, message and errno for what aiohttp or a file raised; ``answered``: the status had come."""
    import aiohttp

    number = getattr(error, "errno", None) or 0
    text = str(error) or type(error).__name__
    if isinstance(error, MfstoreError):
        return engine.INTERNAL, str(error), 0
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | aiohttp.ServerFingerprintMismatch):
        return engine.TLS, text, number
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return engine.PROXY, text, number
    if isinstance(error, aiohttp.ClientConnectorError):
        dns = isinstance(getattr(error, "os_error", None), socket.gaierror)
        return engine.DNS if dns else engine.CONNECT, text, number
    if isinstance(error, aiohttp.ServerTimeoutError | asyncio.TimeoutError):
        return engine.CONNECT if not answered else engine.STALL, text, number
    if isinstance(error, aiohttp.ClientPayloadError):
        broken = isinstance(error.__cause__, ConnectionError | aiohttp.ClientOSError)
        return engine.RESET if broken else engine.TRUNCATED, text, number
    if isinstance(error, aiohttp.ClientResponseError):
        return engine.PROTOCOL, f"{type(error).__name__}: {getattr(error, 'message', text)}", 0
    if isinstance(error, aiohttp.ClientConnectionError | ConnectionError):
        return engine.RESET, text, number
    if isinstance(error, OSError):
        return engine.DISK, text, number
    return engine.INTERNAL, f"{type(error).__name__}: {text}", 0
