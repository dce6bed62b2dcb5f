"""The control plane on botocore: what that knows (endpoints, options, credentials, configuration, models), for any
engine.

botocore prepares one request of a kind; a handler stops it before it is sent, and what all its like share becomes a
``Route``. So every configuration that botocore understands works without this package knowing about it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from mfstore.errors import BackendError, Unsupported
from mfstore.host.interrupts import uninterrupted
from mfstore.s3.aws import errors
from mfstore.s3.aws.express import BucketSessions
from mfstore.s3.aws.kept_sessions import KeptSessions
from mfstore.s3.aws.pages import Page, page
from mfstore.s3.aws.regions import SECONDS_TO_SEND, BucketRegions
from mfstore.s3.aws.routes import ROUTED, Credentials, Route, SignedRequest, Transport
from mfstore.s3.aws.settings import ConnectionSettings
from mfstore.s3.calls import NO_OPTIONS, Call, Options, Reply
from mfstore.s3.headers import clock_ahead
from mfstore.s3.service import S3

if TYPE_CHECKING:
    from mfstore.errors import MfstoreError
    from mfstore.s3.aws.aio_client import AioClient
    from mfstore.s3.aws.errors import Verdict
    from mfstore.s3.aws.interface import Ask

CACHED_ROUTES = 256  # a bulk operation uses a handful
BODY_BYTES = 64 << 20  # of a reply read as XML: a listing of 1000 keys has at most some 4 MiB

_RouteName = tuple[str, str, Options, int]


class BotocoreControlPlane:
    """S3 as one configuration sees it; see ``interface.ControlPlane``. Cheap to make: botocore is imported and asked
    when first needed.

    Safe to use from several threads, in forked children, and pickles as its settings (NotSerializable with a session or
    client object).
    """

    service = S3

    def __init__(self, settings: ConnectionSettings) -> None:
        self.settings = settings
        self.version = 0
        """See ``interface.RouteSource``."""
        self.skew = 0.0
        """See ``interface.RouteSource``."""
        self._learned = 0.0
        """When it was learned (time.monotonic())."""
        self.keys = settings.keys
        """See ``interface.RouteSource``."""
        self._state: ProcessState | None = None
        self._making = (os.getpid(), threading.RLock())

    def __reduce__(self) -> tuple[Any, ...]:
        return BotocoreControlPlane, (self.settings,)

    def process(self) -> ProcessState:
        """What this process has of botocore, made when first asked for. Raises the error that stands for what botocore
        raised, and Unsupported without botocore."""
        state = self._state
        if state is not None and state.pid == os.getpid():
            return state
        return uninterrupted(self._made)

    def _made(self) -> ProcessState:
        if self._making[0] != os.getpid():
            # After a fork: another thread may have held any of the locks.
            self._making = (os.getpid(), threading.RLock())
        with self._making[1]:
            state = self._state
            if state is None or state.pid != os.getpid():
                try:
                    state = ProcessState(self.settings, state.regions.learned if state is not None else {})
                except ImportError as error:
                    raise _unusable(error) from error
                except Exception as error:
                    raise errors.local(error, self.settings.profile) from error
                self._state = state
            return state

    # What to send ----------------------------------------------------------------------------------------------------

    def route(self, operation: str, bucket: str, options: Options = NO_OPTIONS) -> Route:
        """See ``interface.RouteSource``. The same object for the same (not only equal) options."""
        process = self.process()
        name = operation, bucket, options, self.version
        found = process.routes.get(name)
        if found is None:
            found = process.preparer.route(operation, bucket, options)
            process.routes.put(name, found)
        return found

    def plain_route(self, operation: str, bucket: str, options: Options) -> Route | None:
        """See ``interface.RouteSource``."""
        return self.route(operation, bucket, options)

    def plain_headers(self, operation: str, headers: Mapping[str, str], etag: str | None) -> Mapping[str, str]:
        """See ``interface.RouteSource``."""
        return headers

    def prepare(self, call: Call) -> tuple[Route, bytes]:
        """See ``interface.RouteSource``."""
        return self.process().preparer.prepare(call)

    def signed(
        self, call: Call, ask: Ask, body: Any = None, checksum: tuple[str, str] | None = None
    ) -> SignedRequest:  # fmt: skip
        """See ``interface.RouteSource``."""
        return self.process().preparer.signed(call, body, checksum, self.skew, partial(self.session, ask=ask))

    def aio_client(self, http_session: type, sending: Callable[[Any, str], None]) -> AioClient:
        """See ``interface.ControlPlane``."""
        return self.process().aio_client(http_session, lambda: self.skew, sending)

    # Credentials, region, clock, connections -------------------------------------------------------------------------

    def credentials(self) -> Credentials | None:
        """See ``interface.RouteSource``. Raises AccessDenied also for credentials that cannot be refreshed, saying
        where they were looked for and what to do."""
        state = self._state
        if state is None or state.pid != os.getpid():
            state = self.process()
        return state.keyring.current()

    def session(self, bucket: str, ask: Ask) -> Credentials:
        """See ``interface.RouteSource``."""
        return self.process().sessions.of(bucket, self, ask)

    def renews(self) -> bool:
        """See ``interface.ControlPlane``."""
        state = self._state
        if state is None or state.pid != os.getpid():
            return False
        return bool(state.sessions.due()) or (self.keys is None and state.keyring.renews())

    def renew(self, ask: Ask) -> None:
        """See ``interface.ControlPlane``."""
        self.credentials()
        for bucket in self.process().sessions.due():
            self.session(bucket, ask)

    def expire(self, credentials: Credentials | None, bucket: str) -> bool:
        """See ``interface.ControlPlane``."""
        process = self.process()
        if process.sessions.refused(bucket) or process.kept_sessions.refused(bucket):
            return True
        return process.keyring.expire(credentials)

    def redirect(self, call: Call, reply: Reply, ask: Ask) -> bool:
        """See ``interface.ControlPlane``: once per call and region."""

        def answer(bucket: str) -> str | None:
            # Any region's endpoint answers it.
            return ask(Call("HeadBucket", bucket)).headers.get("x-amz-bucket-region")

        return self.process().regions.learn(call, reply, answer, self._outdate)

    def _outdate(self) -> None:
        self.version += 1

    def learn_skew(self, reply: Reply) -> bool:
        """See ``interface.ControlPlane``."""
        if errors.said(reply).code not in ("RequestTimeTooSkewed", "RequestExpired", ""):
            return False
        skew = clock_ahead(reply.headers)
        if skew is None:
            return False
        if abs(skew - self.skew) < 60:
            # Of many that were sent at once the first has told it.
            return 0.0 < reply.submitted < self._learned + SECONDS_TO_SEND
        self.skew, self._learned = skew, monotonic()
        return True

    def transport(self) -> Transport:
        """See ``interface.ControlPlane``."""
        return self.process().transport()

    # What came back --------------------------------------------------------------------------------------------------

    def translate(self, reply: Reply) -> None:
        """See ``interface.RouteSource``: nothing to do."""

    def verdict(self, reply: Reply) -> Verdict:
        """See ``interface.ControlPlane``."""
        return errors.classify(reply)

    def problem(self, call: Call, reply: Reply) -> MfstoreError:
        """See ``interface.RouteSource``."""
        return errors.problem(call, reply, self.host)

    def parse(self, call: Call, reply: Reply) -> dict[str, Any]:
        """See ``interface.ControlPlane``."""
        preparer = self.process().preparer
        body = _body(reply)
        if body.strip() and preparer.has_xml_body(call.operation):
            try:
                root = errors.tree(body)
            except (ElementTree.ParseError, ValueError, LookupError) as error:
                raise self.problem(call, reply) from error
            if not errors.is_answer(call.operation, root.tag):
                raise self.problem(call, reply)
        try:
            return preparer.output(call.operation, reply, body)
        except Exception as error:
            raise BackendError("the answer cannot be read", found=str(error)[:200]).where(
                key=call.key, backend=f"s3://{call.bucket}"
            ) from error

    def page(self, call: Call, reply: Reply) -> Page:
        """See ``interface.ControlPlane``."""
        body = _body(reply)
        try:
            return page(body)
        except BackendError:
            if errors.fault(body).code:
                raise self.problem(call, reply) from None
            raise

    def host(self, call: Call) -> str:
        """See ``interface.ControlPlane``."""
        with contextlib.suppress(Exception):
            if call.operation in ROUTED:
                return errors.without_passwords(self.route(call.operation, call.bucket, call.options).origin)
            return errors.without_passwords(self.process().preparer.endpoint)
        return errors.without_passwords(self.settings.endpoint_url or "S3")


class ProcessState:
    """What a control plane has in one process, and what is learned there. Made anew in a forked child; ``regions`` are
    those that the parent knew."""

    def __init__(self, settings: ConnectionSettings, regions: Mapping[str, str]) -> None:
        # The one place where botocore, which takes 0.1 s, is imported.
        from mfstore.s3.aws import sessions
        from mfstore.s3.aws.botocore_internals import end
        from mfstore.s3.aws.credentials import Keyring
        from mfstore.s3.aws.prepared import RequestPreparer

        self.pid = os.getpid()
        self._settings = settings
        with sessions.collector_paused():
            self.session = sessions.session_for(settings)
            self.config = sessions.config_for(settings)
            client = sessions.client_for(settings, self.session, self.config)
        self.keyring = Keyring(settings, self.session)
        self.regions = BucketRegions(client.meta.region_name, regions)
        self.sessions = BucketSessions()
        self.kept_sessions = KeptSessions(end)
        self.preparer = RequestPreparer(settings, client, self.keyring, self.regions)
        self.routes = _RouteCache()

    def aio_client(
        self, http_session: type, skew: Callable[[], float], sending: Callable[[Any, str], None]
    ) -> AioClient:  # fmt: skip
        """aiobotocore's client with the same configuration. Raises Unsupported."""
        from mfstore.s3.aws import sessions

        transport = self.transport()
        proxy = transport.proxy or "http:"
        what = "proxies_config" if self.config.proxies_config else f"a {proxy.partition(':')[0]} proxy"
        if self.config.proxies_config or not proxy.startswith(("http:", "https:")):
            raise Unsupported(f"the aiobotocore engine cannot use {what}", hint='Use engine="native"')
        try:
            with sessions.collector_paused():
                from mfstore.s3.aws.aio_client import AioClient
        except ImportError as error:
            raise Unsupported(
                f"this engine needs aiobotocore: {error}", hint="pip install 'mfstore[aio]'"
            ) from error  # fmt: skip
        return AioClient(
            self._settings, self.preparer, self.keyring, self.session, self.kept_sessions, http_session, skew, sending
        )

    def transport(self) -> Transport:
        """How to connect to the client's endpoint. Raises Unsupported for a bad bundle of certificates."""
        from mfstore.s3.aws.sessions import transport_for

        return transport_for(self._settings, self.session, self.config, self.preparer.endpoint)


class _RouteCache:
    """The routes made last. Safe to use from several threads and signal handlers: each step is one of the dict's own,
    and there is no lock that one could hold and another wait for."""

    def __init__(self) -> None:
        self._routes: dict[_RouteName, Route] = {}

    def get(self, name: _RouteName) -> Route | None:
        return self._routes.get(name)

    def put(self, name: _RouteName, route: Route) -> None:
        self._routes[name] = route
        while len(self._routes) > CACHED_ROUTES:
            with contextlib.suppress(RuntimeError, StopIteration):  # somebody else has just put or dropped one
                self._routes.pop(next(iter(self._routes)), None)


def _unusable(error: ImportError) -> Unsupported:
    if find_spec("botocore") is None:
        return Unsupported("S3 needs botocore", hint="pip install 'mfstore[s3]'")
    return Unsupported("this botocore lacks what mfstore uses of it", found=str(error), hint="Install another version")


def _body(reply: Reply) -> bytes:
    body = reply.data or b""
    if len(body) > BODY_BYTES:
        raise BackendError("the answer is too long", found=len(body))
    return body
