"""What a ``NetworkFault`` does. Offsets into a body are ``size`` in bytes or ``fraction`` of its length.

An action of your own is a subclass that overrides ``before``, with the request's head read and nothing sent on yet, or
``after``, with the response's head read and nothing sent on yet; see ``Flow`` for what they can do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, ClassVar
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from mfstore.testing._flow import Flow
    from mfstore.testing.exchange import Exchange


class Action:
    """Something that goes wrong with one request, or with one connection."""

    connects: ClassVar[bool] = False
    """Happens to a connection, when it is accepted."""
    wants_record: ClassVar[bool] = False
    """Needs the responses to earlier requests."""

    def applies(self, exchange: Exchange) -> bool:
        """Whether it can happen to this request at all."""
        return True

    async def before(self, flow: Flow) -> None:
        """Before the request is sent on."""

    async def after(self, flow: Flow) -> None:
        """Before the response is sent on."""


# ---- connections -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResetConnect(Action):
    """Reset the connection as soon as it is there."""

    connects: ClassVar[bool] = True

    async def before(self, flow: Flow) -> None:
        flow.reset()


@dataclass(frozen=True, slots=True)
class StallConnect(Action):
    """Accept the connection and then do nothing with it, not even the TLS handshake, for so long (None: for ever)."""

    seconds: float | None = None
    connects: ClassVar[bool] = True

    async def before(self, flow: Flow) -> None:
        await flow.stall(self.seconds)


@dataclass(frozen=True, slots=True)
class Refuse(Action):
    """Reset all connections, and refuse new ones for so many seconds: the server restarts."""

    seconds: float

    async def before(self, flow: Flow) -> None:
        flow.proxy.restart(self.seconds)
        flow.reset()


# ---- the connection breaks -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reset(Action):
    """Reset the connection: before the request is sent on, or after some of the response's body."""

    size: int | None = None
    fraction: float | None = None

    async def before(self, flow: Flow) -> None:
        if self.size is None and self.fraction is None:
            flow.reset()

    async def after(self, flow: Flow) -> None:
        flow.response_body.at(self.size, self.fraction, flow.flush_and_reset)


@dataclass(frozen=True, slots=True)
class ResetUpload(Action):
    """Reset the connection to the client after some of the request's body; the server sees its request end there."""

    size: int | None = None
    fraction: float | None = None

    async def before(self, flow: Flow) -> None:
        flow.request_body.at(self.size, self.fraction, flow.flush_and_reset)


@dataclass(frozen=True, slots=True)
class LoseResponse(Action):
    """Reset the connection when the server has answered: the request took effect, and the client cannot know."""

    async def after(self, flow: Flow) -> None:
        await flow.response_body.relay(None)
        flow.reset()


@dataclass(frozen=True, slots=True)
class Truncate(Action):
    """End the connection in good order in the middle of the body, which the Content-Length says is longer.

    With TLS ``clean`` says whether a close_notify is sent before.
    """

    size: int | None = None
    fraction: float | None = None
    clean: bool = True

    async def after(self, flow: Flow) -> None:
        flow.response_body.at(self.size, self.fraction, lambda: flow.finish(self.clean))


@dataclass(frozen=True, slots=True)
class CloseOnReuse(Action):
    """Close an idle connection just when the client sends its next request on it: unanswered, not sent on."""

    reset: bool = False

    def applies(self, exchange: Exchange) -> bool:
        """Only to one that reuses a connection."""
        return exchange.turn > 1

    async def before(self, flow: Flow) -> None:
        if self.reset:
            flow.reset()
        await flow.finish()


@dataclass(frozen=True, slots=True)
class CloseAfter(Action):
    """Answer with ``Connection: close`` and close."""

    async def after(self, flow: Flow) -> None:
        flow.response.set("Connection", "close")
        flow.closing = True


# ---- the connection is slow ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stall(Action):
    """Stop for so many seconds (None: for ever), then go on as if nothing had been.

    ``where`` is "request" (nothing has been sent on), "response" (the server has answered), or "body" (the client has
    the head and ``size`` or ``fraction`` of the body).
    """

    seconds: float | None = None
    where: str = "response"
    size: int | None = None
    fraction: float | None = None

    async def before(self, flow: Flow) -> None:
        if self.where == "request":
            await flow.stall(self.seconds)

    async def after(self, flow: Flow) -> None:
        if self.where == "response":
            await flow.stall(self.seconds)
        elif self.where == "body":
            flow.response_body.at(self.size, self.fraction, lambda: flow.stall(self.seconds))


@dataclass(frozen=True, slots=True)
class Slow(Action):
    """So many bytes of the body per second, after the first ``size``."""

    rate: float
    size: int = 0

    async def after(self, flow: Flow) -> None:
        async def slow() -> None:
            flow.response_body.pace(self.rate)

        flow.response_body.at(self.size, None, slow)


# ---- the server answers something else -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Status(Action):
    """Answer with this status and S3 error code, or with this body, in place of the server."""

    status: int
    code: str = ""
    headers: Mapping[str, str] | None = None
    body: bytes | None = None
    consume: bool = True
    """Read the request's body first. Otherwise answer while it is still being sent, and close."""
    forward: bool = False
    """The server gets the request, and it takes effect."""
    details: Mapping[str, str] | None = None
    """Further elements of the error, as in ``{"Region": "eu-west-1"}``."""

    async def before(self, flow: Flow) -> None:
        if not self.forward:
            await flow.answer(self.status, self.headers or {}, self._body(flow), self.consume)

    async def after(self, flow: Flow) -> None:
        await flow.answer(self.status, self.headers or {}, self._body(flow))

    def _body(self, flow: Flow) -> bytes:
        if self.body is not None or not self.code:
            return self.body or b""
        elements = {"Code": self.code, "Message": "injected fault", **(self.details or {}), "RequestId": "FAULT"}
        text = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in elements.items())
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{text}</Error>'.encode()


def slow_down(**headers: str) -> Status:
    """503 SlowDown. Underscores in the names of headers stand for dashes: ``slow_down(retry_after="2")``."""
    return Status(503, "SlowDown", {name.replace("_", "-"): value for name, value in headers.items()})


def request_timeout() -> Status:
    """400 RequestTimeout: S3's way of saying 408."""
    return Status(400, "RequestTimeout")


def error_in_200(code: str = "InternalError", *, forward: bool = False) -> Status:
    """200 whose body is an error, as CompleteMultipartUpload and CopyObject can answer."""
    return Status(200, code, {"Content-Type": "application/xml"}, forward=forward)


def redirect(region: str | None = None, location: str | None = None, status: int = 301) -> Status:
    """301 or 307, to another region or place, if they are named."""
    headers = {"x-amz-bucket-region": region, "Location": location}
    code = "PermanentRedirect" if status == 301 else "TemporaryRedirect"
    return Status(status, code, {name: value for name, value in headers.items() if value is not None})


def wrong_region(region: str) -> Status:
    """400 AuthorizationHeaderMalformed, which names the region that would have been right."""
    return Status(400, "AuthorizationHeaderMalformed", {"x-amz-bucket-region": region}, details={"Region": region})


def time_skewed(server_time: float) -> Status:
    """403 RequestTimeTooSkewed, with the server's clock in its Date."""
    return Status(403, "RequestTimeTooSkewed", {"Date": formatdate(server_time, usegmt=True)})


def expired_token() -> Status:
    """400 ExpiredToken."""
    return Status(400, "ExpiredToken")


def access_denied() -> Status:
    """403 AccessDenied."""
    return Status(403, "AccessDenied")


def azure_error(status: int, code: str, **headers: str) -> Status:
    """An error of Azure's Blob service: ``azure_error(503, "ServerBusy")``, ``azure_error(401,
    "InvalidAuthenticationInfo")``."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Status(status, code, {"x-ms-error-code": code, "x-ms-request-id": "FAULT", **given})


def google_error(status: int, reason: str, **headers: str) -> Status:
    """An error of Google's JSON API: ``google_error(429, "rateLimitExceeded")``, ``google_error(401, "authError")``.
    Of its XML API is ``Status(503, "ServiceUnavailable")``."""
    message = "injected fault"
    error = {"code": status, "message": message, "errors": [{"domain": "global", "reason": reason, "message": message}]}
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    fields = {"Content-Type": "application/json; charset=UTF-8", "x-guploader-uploadid": "FAULT", **given}
    return Status(status, headers=fields, body=json.dumps({"error": error}).encode())


# ---- the answer is damaged ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FlipResponse(Action):
    """Change one bit of the body: at an offset, or at one drawn from the seed."""

    size: int | None = None

    async def after(self, flow: Flow) -> None:
        body = flow.response_body
        body.at(self.size, flow.draw() if self.size is None else None, body.flip)


@dataclass(frozen=True, slots=True)
class FlipRequest(Action):
    """Change one bit of the body on its way to the server."""

    size: int | None = None

    async def before(self, flow: Flow) -> None:
        body = flow.request_body
        body.at(self.size, flow.draw() if self.size is None else None, body.flip)


@dataclass(frozen=True, slots=True)
class Headers(Action):
    """Replace (or, with None, drop) headers of the response, and add others even if they are there already."""

    set: Mapping[str, str | None] | None = None
    add: Mapping[str, str] | None = None

    async def after(self, flow: Flow) -> None:
        for name, value in (self.set or {}).items():
            flow.response.set(name, value)
        if self.add:
            flow.response.edit([*flow.response.fields, *self.add.items()])


@dataclass(frozen=True, slots=True)
class WrongLength(Action):
    """A Content-Length that differs from the body's by so many bytes. The body stays as it is."""

    by: int

    async def after(self, flow: Flow) -> None:
        if flow.response_body.length is not None:
            flow.response.set("Content-Length", str(max(0, flow.response_body.length + self.by)))


@dataclass(frozen=True, slots=True)
class DuplicateHeader(Action):
    """Send a header of the response twice; the second time with another value, if one is given."""

    name: str = "ETag"
    value: str | None = None

    async def after(self, flow: Flow) -> None:
        value = flow.response.get(self.name) if self.value is None else self.value
        flow.response.edit([*flow.response.fields, (self.name, value)])


def gzip_label() -> Headers:
    """Bytes that are not compressed, labelled as if they were."""
    return Headers(set={"Content-Encoding": "gzip"})


@dataclass(frozen=True, slots=True)
class EmptyBody(Action):
    """The response with no body, and a Content-Length that agrees."""

    async def after(self, flow: Flow) -> None:
        await flow.response_body.relay(None)
        flow.response.set("Transfer-Encoding", None)
        flow.response.set("Content-Length", "0")
        await flow.send(flow.response.raw)


@dataclass(frozen=True, slots=True)
class Duplicate(Action):
    """Send the response twice."""

    async def after(self, flow: Flow) -> None:
        data = await flow.collect()
        await flow.send(data + data)


@dataclass(frozen=True, slots=True)
class WrongObject(Action):
    """Answer with another object: with ``path``, or with the latest earlier answer to a request for another path.

    A ``path`` needs the proxy to have ``credentials``, if the server wants signatures. Without one the action happens
    only once there is an earlier answer, of a few MiB at most.
    """

    path: str | None = None
    wants_record: ClassVar[bool] = True

    async def before(self, flow: Flow) -> None:
        if self.path is not None:
            flow.resign(path=self.path)

    async def after(self, flow: Flow) -> None:
        if self.path is None and (other := flow.earlier()):
            await flow.response_body.relay(None)
            await flow.send(other)


@dataclass(frozen=True, slots=True)
class WrongRange(Action):
    """A 206 whose Content-Range is off by so many bytes. The body stays as it is."""

    by: int = 1

    async def after(self, flow: Flow) -> None:
        unit, _, rest = flow.response.get("Content-Range").partition(" ")
        span, _, total = rest.partition("/")
        start, _, end = span.partition("-")
        if end:
            flow.response.set("Content-Range", f"{unit} {int(start) + self.by}-{int(end) + self.by}/{total}")


@dataclass(frozen=True, slots=True)
class IgnoreRange(Action):
    """Answer 200 to a request for a range: with the whole object, or, if the range is signed and the proxy has no
    ``credentials``, with the range's bytes."""

    def applies(self, exchange: Exchange) -> bool:
        """Only to one for a range."""
        return "range" in exchange.headers

    async def before(self, flow: Flow) -> None:
        flow.resign(drop="range")

    async def after(self, flow: Flow) -> None:
        if flow.response.status == 206:
            flow.response.edit(flow.response.fields, line="HTTP/1.1 200 OK")
            flow.response.set("Content-Range", None)


@dataclass(frozen=True, slots=True)
class Informational(Action):
    """1xx responses ahead of the response."""

    codes: tuple[int, ...] = (100, 103)

    async def after(self, flow: Flow) -> None:
        for code in self.codes:
            await flow.noise(f"HTTP/1.1 {code} Informational\r\n\r\n".encode())
