"""The native engine: threads that know nothing of Python (src/http/transfer.pyx and the C beside it).

It makes and signs requests by routes, which a control plane tells: that of S3 takes them from botocore. What has no
route, since the control plane is to sign each, it sends as that signed it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mfstore._core import transfer
from mfstore.s3.aws.interface import RouteSource
from mfstore.s3.aws.routes import BOTOCORE, SESSION, TOKEN_OF_SESSION, Credentials, Route, Transport
from mfstore.s3.calls import Call, FileRange, Options, Plain, Reply
from mfstore.s3.engines.interface import Adopt, Channel, Engine, Landed, Lane, Taken
from mfstore.s3.engines.signing import sign
from mfstore.s3.service import S3

PLAIN = "plain "
"""Before an operation, where the route of its plain requests is kept."""


class NativeEngine(Engine):
    """Connections and threads of one client. No thread and no connection before the first call.

    ``max_bandwidth``: bytes per second that all its connections together receive and send, at most.
    """

    name = "native"

    def __init__(self, control: RouteSource, transport: Transport, max_bandwidth: float | None = None) -> None:
        self._control = control
        self.translates = control.service is not S3
        """Whether replies come in the words of another service."""
        self._dialect = transfer.DIALECTS[control.service.scheme]
        ca_file = transport.ca_file
        if ca_file is None and transport.verify:
            from mfstore.s3.aws.certificates import authorities

            ca_file = authorities().path
        self._core = transfer.Engine(transport, ca_file, Reply, FileRange, max_bandwidth or 0.0)
        self.threads = max(self.threads, transport.threads)
        proxy = (transport.proxy or "").lower()
        self._http_proxy = bool(proxy) and ("://" not in proxy or proxy.startswith("http"))
        self._version: int | None = None
        self._routes: dict[tuple[str, str, Options], transfer.WireRoute] = {}
        self._credentials: tuple[Credentials, transfer.WireCredentials] | None = None
        self._sessions: dict[str, tuple[Credentials, transfer.WireCredentials]] = {}
        self._in_session: dict[tuple[str, str, Options], tuple[Credentials, transfer.WireRoute]] = {}

    def channel(self) -> NativeChannel:
        """A new channel."""
        return NativeChannel(self)

    def close(self) -> None:
        """End the threads; what is under way ends as cancelled. Using the engine again starts new ones."""
        self._core.close()

    def _wire(self, calls: list[Call]) -> tuple[list[transfer.WireRoute], list[bytes | tuple[Any, ...] | None] | None]:
        routes: list[transfer.WireRoute] = []
        bodies: list[bytes | tuple[Any, ...] | None] | None = None
        for number, call in enumerate(calls):
            route = self._shared(call.operation, call.bucket, call.options)
            if route is None:
                route, body = self._made(call)
                if body is not None:
                    if bodies is None:
                        bodies = [None] * len(calls)
                    bodies[number] = body
            routes.append(route)
        return routes, bodies

    def _shared(self, operation: str, bucket: str, options: Options) -> transfer.WireRoute | None:
        """The route of all requests of a kind; None where each has its own."""
        version = self._control.version
        if version != self._version or len(self._routes) > 1000:
            # A new dict: another thread may be reading the old one.
            self._version, self._routes, self._in_session = version, {}, {}
        known, name = self._routes, (operation, bucket, options)
        wire = known.get(name)
        if wire is not None or operation not in transfer.OPERATIONS:
            return wire
        route = self._control.route(*name)
        if route.signer == BOTOCORE:
            return None
        if route.signer == SESSION:
            return self._session_route(route, name, transfer.OPERATIONS[operation])
        wire = known[name] = self._made_of(route, operation)
        return wire

    def _made_of(self, route: Route, operation: str) -> transfer.WireRoute:
        return transfer.WireRoute(route, transfer.OPERATIONS.get(operation, 0), self._http_proxy, dialect=self._dialect)

    def _plain(self, operation: str, bucket: str, options: Options) -> transfer.WireRoute | None:
        """The route of the plain requests of a kind; None where there is none."""
        if not self.translates:
            return self._shared(operation, bucket, options)
        version = self._control.version
        if version != self._version:
            self._version, self._routes, self._in_session = version, {}, {}
        name = (PLAIN + operation, bucket, options)
        wire = self._routes.get(name)
        if wire is None:
            route = self._control.plain_route(operation, bucket, options)
            if route is None:
                return None
            wire = self._routes[name] = self._made_of(route, operation)
        return wire

    def _made(self, call: Call) -> tuple[transfer.WireRoute, bytes | tuple[Any, ...] | None]:
        """A route that no other call goes by, and the body that the control plane made."""
        name = (call.operation, call.bucket, call.options)
        operation = transfer.OPERATIONS.get(call.operation, 0)
        body: bytes | tuple[Any, ...] | None = None
        if operation:
            route = self._control.route(*name)
        else:
            route, body = self._control.prepare(call)
        if route.signer == BOTOCORE:
            whole, made, crc = sign(self._control, call, self.ask)
            body = made if operation else made or b""
            return transfer.WireRoute(whole, operation, self._http_proxy, None, True, crc, self._dialect), body
        if route.signer == SESSION:
            return self._session_route(route, name, operation), body
        return self._made_of(route, call.operation), body

    def _session_route(self, route: Route, name: tuple[str, str, Options], operation: int) -> transfer.WireRoute:
        """By the bucket's session, which is another after some minutes."""
        bucket = name[1]
        keys = self._control.session(bucket, self.ask)
        made = self._in_session.get(name)
        if operation and made is not None and made[0] is keys:
            return made[1]
        signer = self._sessions.get(bucket)
        if signer is None or signer[0] is not keys:
            signer = self._sessions[bucket] = keys, transfer.WireCredentials(replace(keys, token=None))
        headers = tuple(sorted((*route.headers, (TOKEN_OF_SESSION, keys.token or ""))))
        wire = transfer.WireRoute(replace(route, headers=headers), operation, self._http_proxy, signer[1])
        if operation:
            if len(self._in_session) > 1000:
                self._in_session = {}
            self._in_session[name] = keys, wire
        return wire

    def _signer(self, credentials: Credentials | None) -> transfer.WireCredentials | None:
        if credentials is None:
            return None
        known = self._credentials
        if known is None or (known[0] is not credentials and known[0] != credentials):
            known = self._credentials = credentials, transfer.WireCredentials(credentials)
        return known[1]


class NativeChannel(Channel):
    """The calls of one bulk operation."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._core = transfer.Channel(engine._core)

    def submit(self, calls: Sequence[Call]) -> None:
        """Start calls. ValueError or UnicodeError, and nothing is started, if one of them makes no request."""
        listed = list(calls)
        control = self._engine._control
        signer = self._engine._signer(control.keys or control.credentials())
        routes, bodies = self._engine._wire(listed)
        self._core.submit(listed, routes, signer, self._engine._control.skew, bodies)

    def poll(self, timeout: float) -> list[Reply]:
        """Replies since the last poll; waits up to ``timeout`` seconds for the first."""
        replies = self._core.poll(timeout)
        if self._engine.translates:
            translate = self._engine._control.translate
            for reply in replies:
                translate(reply)
        return replies

    def resume(
        self, call: Call, target: memoryview | FileRange, stop: int | None = None, skip: int = 0
    ) -> None:  # fmt: skip
        """Let an announced body flow into ``target``, from byte ``skip``, all of it or ``stop`` bytes."""
        self._core.resume(call, target, stop, skip)

    def cancel(self, call: Call) -> None:
        """Drop a call; its reply still comes."""
        self._core.cancel(call)

    def lane(self, plain: Plain, first_byte: float, stall: float, outcome: type, adopt: Adopt) -> NativeLane:
        """For plain requests."""
        return NativeLane(self._engine, self._core, plain, first_byte, stall, outcome, adopt)

    def flowing(self) -> int:
        """Bytes of the bodies under way that have flowed so far."""
        return self._core.flowing()

    def fileno(self) -> int:
        """Readable while ``poll(0)`` would return something."""
        return self._core.fileno()

    def close(self) -> None:
        """Cancel everything; no buffer of any call is used any more when it returns."""
        self._core.close()


class NativeLane(Lane):
    """Plain requests, made of items, and outcomes, made of replies, in C."""

    __slots__ = ("_core", "_credentials", "_engine", "_kind", "_plain", "_route", "_signer", "_timeouts")

    def __init__(
        self, engine: NativeEngine, channel: transfer.Channel[Reply], plain: Plain, first_byte: float, stall: float,
        outcome: type, adopt: Adopt,
    ) -> None:  # fmt: skip
        assert plain.bucket is not None
        self._engine = engine
        self._plain = plain
        self._kind = plain.operation, plain.bucket, plain.options
        self._timeouts = first_byte, stall
        self._channel = channel  # which the lane itself does not keep
        said = partial(engine._control.plain_headers, plain.operation) if engine.translates else None
        self._core = transfer.Lane(
            channel, outcome, adopt, transfer.OPERATIONS[plain.operation], plain.bucket, plain.bare, plain.verify,
            plain.checksum, plain.targets, plain.longest, engine._control.service.scheme, said,
        )  # fmt: skip
        self._route: transfer.WireRoute | None = None
        self._signer: transfer.WireCredentials | None = None
        self._credentials: Credentials | None = None

    @property
    def flying(self) -> int:
        """Requests under way."""
        return self._core.flying

    def oldest(self) -> int | None:
        """The least number of an item whose request is under way."""
        return self._core.oldest()

    def ready(self) -> bool:
        """Whether requests can be made now."""
        engine = self._engine
        self._credentials = engine._control.keys or engine._control.credentials()
        self._signer = engine._signer(self._credentials)
        self._route = engine._plain(*self._kind)
        return self._route is not None

    def take(
        self, items: Iterator[tuple[int, Any]], first: tuple[int, Any] | None, most: int, memory: int, weight: int,
        alone: bool, now: float,
    ) -> Taken:  # fmt: skip
        """Send requests for items, as long as they are plain."""
        assert self._route is not None
        count, taken, why, item, unsent = self._core.take(
            items, first, most, memory, weight, alone, now, self._route, self._signer, self._credentials,
            self._engine._control.skew, *self._timeouts,
        )  # fmt: skip
        return Taken(count, taken, item, why == transfer.ODD_ITEM, why == transfer.NO_MORE, unsent)

    def landed(self) -> Landed | None:
        """What has come since the last time."""
        found = self._core.landed()
        return None if found is None else Landed(*found, self._plain.operation == "GetObject")

    def adopt_late(self, before: float) -> None:
        """Have a call adopted for each request under way that was sent before then."""
        self._core.hand_over_late(before)

    def end(self) -> None:
        """Cancel all."""
        self._core.end()
