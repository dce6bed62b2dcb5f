"""The native engine: libcurl in threads that know nothing of Python (src/transfer.pyx and the C beside it)."""

from __future__ import annotations

from collections.abc import Sequence

from mfstore._core import transfer
from mfstore.s3.aws.interface import RouteSource
from mfstore.s3.aws.routes import Credentials, Transport
from mfstore.s3.calls import Call, FileRange, Options, Reply
from mfstore.s3.engines.interface import Channel, Engine


class NativeEngine(Engine):
    """Connections and threads of one client. No thread and no connection before the first call."""

    name = "native"

    def __init__(self, control: RouteSource, transport: Transport) -> None:
        self._control = control
        ca_file = transport.ca_file
        if ca_file is None and transport.verify:
            from mfstore.s3.aws.botocore_internals import certificates

            ca_file = certificates()
        self._core = transfer.Engine(transport, ca_file, Reply, FileRange)
        proxy = (transport.proxy or "").lower()
        self._http_proxy = bool(proxy) and ("://" not in proxy or proxy.startswith("http"))
        self._version: int | None = None
        self._routes: dict[tuple[str, str, Options], transfer.WireRoute] = {}
        self._credentials: tuple[Credentials, transfer.WireCredentials] | None = None

    def channel(self) -> NativeChannel:
        """A new channel."""
        return NativeChannel(self)

    def close(self) -> None:
        """End the threads; what is under way ends as cancelled. Using the engine again starts new ones."""
        self._core.close()

    def _wire(self, calls: list[Call]) -> tuple[list[transfer.WireRoute], list[bytes | None] | None]:
        version = self._control.version
        if version != self._version or len(self._routes) > 1000:
            # A new dict: another thread may be reading the old one.
            self._version, self._routes = version, {}
        known = self._routes
        routes: list[transfer.WireRoute] = []
        bodies: list[bytes | None] | None = None
        for number, call in enumerate(calls):
            name = (call.operation, call.bucket, call.options)
            route = known.get(name)
            if route is None:
                operation = transfer.OPERATIONS.get(call.operation, 0)
                if operation:
                    route = transfer.WireRoute(self._control.route(*name), operation, self._http_proxy)
                    known[name] = route
                else:
                    prepared, body = self._control.prepare(call)
                    route = transfer.WireRoute(prepared, 0, self._http_proxy)
                    if bodies is None:
                        bodies = [None] * len(calls)
                    bodies[number] = body
            routes.append(route)
        return routes, bodies

    def _signer(self) -> transfer.WireCredentials | None:
        credentials = self._control.keys or self._control.credentials()
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
        signer = self._engine._signer()
        routes, bodies = self._engine._wire(listed)
        self._core.submit(listed, routes, signer, self._engine._control.skew, bodies)

    def poll(self, timeout: float) -> list[Reply]:
        """Replies since the last poll; waits up to ``timeout`` seconds for the first."""
        return self._core.poll(timeout)

    def resume(
        self, call: Call, target: memoryview | FileRange, stop: int | None = None, skip: int = 0
    ) -> None:  # fmt: skip
        """Let an announced body flow into ``target``, from byte ``skip``, all of it or ``stop`` bytes."""
        self._core.resume(call, target, stop, skip)

    def cancel(self, call: Call) -> None:
        """Drop a call; its reply still comes."""
        self._core.cancel(call)

    def fileno(self) -> int:
        """Readable while ``poll(0)`` would return something."""
        return self._core.fileno()

    def close(self) -> None:
        """Cancel everything; no buffer of any call is used any more when it returns."""
        self._core.close()
