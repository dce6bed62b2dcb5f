"""aiohttp as aiobotocore is given it: an HTTP session that follows no redirection, and its exceptions in the words of
``calls``."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from mfstore.errors import MfstoreError, Unsupported
from mfstore.s3 import calls
from mfstore.s3.calls import Call, Reply

HEADER_BYTES = 64 << 10
CONNECT_SECONDS = 60.0  # botocore's, where nobody says
OWN_SECONDS = 30.0
"""For a request of aiobotocore's own, for a session with a directory bucket: as long as for a reply's first byte."""


class Asker(Protocol):
    """Whose request it is: ``Exchange``."""

    call: Call
    reply: Reply

    async def send(self, request: Any, http: HttpSession) -> tuple[int, dict[str, str], bytes]:
        """Carry it out by ``http``: status, headers and body of the answer."""

    def headers_sent(self) -> None:
        """Its headers are on their way."""


class HttpSession:
    """aiobotocore's ``AioConfig(http_session_cls=)``: the connections of one client, with whose event loop it is used.

    aiobotocore's own session follows redirections to hosts that a server names, and sends them the credentials' headers
    and token. This one follows none. It hands each request to its ``Asker``, which brings the body where it belongs
    while it flows, and ends it when it is late. How many connections there are is the scheduler's to bound. The
    parameters are aiobotocore's.
    """

    def __init__(
        self, verify: bool | str | None = True, proxies: Mapping[str, str] | None = None, timeout: Any = None,
        max_pool_connections: int | None = None, socket_options: Any = None, client_cert: Any = None,
        proxies_config: Any = None, connector_args: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self._verify = verify
        self._proxies = proxies or {}
        first = timeout[0] if isinstance(timeout, Sequence) else timeout
        self.connect_timeout = CONNECT_SECONDS if first is None else float(first)
        """Seconds."""
        self._certificate = client_cert
        self._connector = dict(connector_args or {})
        self._sessions: dict[bool, Any] = {}

    async def __aenter__(self) -> HttpSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()

    async def send(self, request: Any) -> Any:
        """Have a request's exchange carry it out, or for one that is aiobotocore's own read the whole answer."""
        from aiobotocore.awsrequest import AioAWSResponse

        exchange: Asker | None = getattr(request, "exchange", None)
        if exchange is not None:
            status, headers, data = await exchange.send(request, self)
        else:
            async with asyncio.timeout(OWN_SECONDS):
                response = await self.request(request.method, request.url, [*request.headers.items()], request.body)
                async with response:
                    status, headers, data = response.status, read_headers(response.raw_headers), await response.read()
        return AioAWSResponse(request.url, status, headers, _Landed(data))

    async def request(
        self, method: str, url: str, headers: Sequence[tuple[str, Any]], data: Any, about: Asker | None = None
    ) -> Any:  # fmt: skip
        """aiohttp's response as soon as its head is there. ``about`` is told how the request gets on, and says whether
        it wants a new connection. Raises what aiohttp raises, and Unsupported when a certificate cannot be read."""
        from yarl import URL

        return await self._session(about is not None and about.call.fresh).request(
            method, URL(url, encoded=True), headers=[(name, _text(value)) for name, value in headers], data=data,
            proxy=self._proxies.get(url.partition(":")[0]), allow_redirects=False, trace_request_ctx=about,
        )  # fmt: skip

    def _session(self, fresh: bool) -> Any:
        """An aiohttp ``ClientSession``; for ``fresh`` calls one whose connections never served before."""
        found = self._sessions.get(fresh)
        if found is None:
            found = self._sessions[fresh] = self._open(fresh)
        return found

    def _open(self, fresh: bool) -> Any:
        import aiohttp

        trace = aiohttp.TraceConfig()

        async def reuse(session: Any, context: Any, params: Any) -> None:
            if context.trace_request_ctx is not None:
                context.trace_request_ctx.reply.reused = True

        async def sent(session: Any, context: Any, params: Any) -> None:
            if context.trace_request_ctx is not None:
                context.trace_request_ctx.headers_sent()

        trace.on_connection_reuseconn.append(reuse)
        trace.on_request_headers_sent.append(sent)
        given: dict[str, Any] = {"ttl_dns_cache": 30, **self._connector}
        given["ssl"] = given.pop("ssl_context", None) or self._tls()
        if fresh:
            given.pop("keepalive_timeout", None)
            given.update(force_close=True, use_dns_cache=False)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, **given),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.connect_timeout),
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

    def _tls(self) -> ssl.SSLContext:
        from mfstore.s3.aws.certificates import authorities

        bundle = os.fspath(self._verify) if isinstance(self._verify, str | os.PathLike) else None
        try:
            tls = ssl.create_default_context(cafile=bundle or authorities().path)
            if self._verify is False:
                tls.check_hostname = False
                tls.verify_mode = ssl.CERT_NONE
            if self._certificate is not None:
                pair = (self._certificate,) if isinstance(self._certificate, str) else self._certificate
                tls.load_cert_chain(*pair)
        except (OSError, ssl.SSLError) as error:
            raise Unsupported(f"the CA bundle or client certificate cannot be used: {error}") from error
        return tls


class _Landed:
    """The body of an answer, as aiobotocore reads one: empty of a body that has gone where it belongs."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, count: int = -1) -> bytes:
        """All of it."""
        return self._data


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


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
