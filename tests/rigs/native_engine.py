"""A native engine with a hand-made control plane, and a server for it to meet."""

from __future__ import annotations

import time

from mfstore.s3.aws.routes import Credentials, Route, Transport
from mfstore.s3.calls import Call, Options, Reply
from mfstore.s3.engines.interface import Channel
from mfstore.s3.engines.native import NativeEngine
from mfstore.s3.service import S3
from tests.rigs.raw_server import Answer, Connection, Request, Server

METHODS = {
    "GetObject": "GET",
    "HeadObject": "HEAD",
    "PutObject": "PUT",
    "UploadPart": "PUT",
    "DeleteObject": "DELETE",
}
KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)


class FixedRoutes:
    """Routes built by hand."""

    service = S3
    version = 0
    skew = 0.0

    def __init__(self, origin: str, **changes: object) -> None:
        self.origin = origin
        self.signer: Credentials | None = KEYS
        self.sign_payload = True
        self.query = ""
        self.headers: tuple[tuple[str, str], ...] = ()
        self.asked = 0
        for name, value in changes.items():
            setattr(self, name, value)

    keys = None

    def route(self, operation: str, bucket: str, options: Options) -> Route:
        self.asked += 1
        return self.made(METHODS[operation], f"/{bucket}/")

    def made(self, method: str, path: str, query: str = "") -> Route:
        query = query or self.query
        return Route(method, self.origin, path, query, self.headers, "us-east-1", "s3", self.sign_payload)

    def prepare(self, call: Call) -> tuple[Route, bytes]:
        params = dict(call.params or {})
        return self.made(params.get("method", "GET"), "/b", params.get("query", "list-type=2")), params.get("body", b"")

    def credentials(self) -> Credentials | None:
        return self.signer


class Rig:
    """A server, an engine for it, and one channel."""

    def __init__(self) -> None:
        self.servers: list[Server] = []
        self.engines: list[NativeEngine] = []

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *exception: object) -> None:
        for engine in self.engines:
            engine.close()
        for server in self.servers:
            server.close()

    def __call__(self, answer: Answer, *, transport: Transport | None = None, **changes: object) -> Channel:
        server = Server(answer)
        self.servers.append(server)
        return self.to(server.origin, transport=transport, **changes)

    def to(self, origin: str, *, transport: Transport | None = None, **changes: object) -> Channel:
        self.control = FixedRoutes(origin, **changes)
        self.engine = NativeEngine(self.control, transport or Transport(verify=False))
        self.engines.append(self.engine)
        return self.engine.channel()

    @property
    def requests(self) -> list[Request]:
        return self.servers[-1].requests

    @property
    def server(self) -> Server:
        return self.servers[-1]


def drain(channel: Channel, n: int, timeout: float = 100.0) -> list[Reply]:
    replies: list[Reply] = []
    end = time.monotonic() + timeout
    while len(replies) < n:
        assert time.monotonic() < end, f"{len(replies)} of {n} replies"
        replies += channel.poll(0.5)
    return replies


def ask(channel: Channel, call: Call) -> Reply:
    channel.submit([call])
    (reply,) = drain(channel, 1)
    assert reply.call is call
    return reply


def get(key: str = "k", **more: object) -> Call:
    return Call("GetObject", "b", key, **more)  # type: ignore[arg-type]


def body_of(data: bytes, *headers: str, status: str = "200 OK") -> Answer:
    def answer(connection: Connection, request: Request) -> None:
        connection.reply(status, [f"Content-Length: {len(data)}", *headers], data if request.method != "HEAD" else b"")

    return answer


def raw(data: bytes, *, close: bool = True) -> Answer:
    def answer(connection: Connection, request: Request) -> bool:
        connection.send(data)
        return not close

    return answer
