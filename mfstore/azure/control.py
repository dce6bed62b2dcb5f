"""The control plane of Azure's Blob Storage: see ``mfstore.s3.aws.interface.ControlPlane``. It ties what the other
modules of this room know; none of them sends anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from mfstore.azure import answers, errors, pages, requests
from mfstore.azure.credentials import Authorization, Keyring
from mfstore.azure.settings import Account, AzureSettings
from mfstore.errors import BackendError, MfstoreError, Unsupported
from mfstore.s3.aws.routes import Credentials, Route, SignedRequest, Transport
from mfstore.s3.calls import NO_OPTIONS, Call, Options, Reply
from mfstore.s3.connecting import transport_to
from mfstore.s3.headers import clock_ahead
from mfstore.s3.service import AZURE

if TYPE_CHECKING:
    from mfstore.s3.aws.aio_client import AioClient
    from mfstore.s3.aws.errors import Verdict
    from mfstore.s3.aws.interface import Ask
    from mfstore.s3.aws.pages import Page

BODY_BYTES = 64 << 20
"""Of a reply read as XML: a page of 5000 blobs has some 5 MiB."""
CACHED_ROUTES = 256
SECONDS_TO_SEND = 60.0
"""A call that was sent so long after the clock was set knew of it."""


class AzureControlPlane:
    """One account of Azure. Cheap to make: nothing is looked for before it is needed.

    Safe to use from several threads, in forked children, and pickles as its settings, without what is secret.
    """

    service = AZURE
    keys: Credentials | None = None
    """See ``interface.RouteSource``: the engine signs nothing here."""

    def __init__(self, settings: AzureSettings) -> None:
        self.settings = settings
        self.version = 0
        """See ``interface.RouteSource``: grows with each token and signature."""
        self.skew = 0.0
        """See ``interface.RouteSource``: what is signed here has the server's clock in it already."""
        self._account: Account | None = None
        self._keyring: Keyring | None = None
        self._who: Authorization | None = None
        self._learned = 0.0
        self._routes: dict[tuple[str, str, Options], tuple[Authorization, Route]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return AzureControlPlane, (self.settings,)

    @property
    def account(self) -> Account:
        """The account, as arguments and environment say it when it is first asked for."""
        if self._account is None:
            self._account = self.settings.account(os.environ)
        return self._account

    @property
    def keyring(self) -> Keyring:
        """Who asks."""
        if self._keyring is None:
            self._keyring = Keyring(self.account, self.settings.withheld)
        return self._keyring

    def _authorization(self) -> Authorization:
        found = self.keyring.current()
        if found is not self._who:
            self._who = found
            self._routes = {}
            self.version += 1
        return found

    # What to send ----------------------------------------------------------------------------------------------------

    def route(self, operation: str, bucket: str, options: Options = NO_OPTIONS) -> Route:
        """See ``interface.RouteSource``."""
        requests.check_account(bucket, self.account)
        if operation not in requests.SHARED:
            requests.check_options(operation, options)
            return requests.own_route("PUT", self.account)
        name, who = (operation, bucket, options), self._authorization()
        known = self._routes.get(name)
        if known is None or known[0] is not who:
            if len(self._routes) >= CACHED_ROUTES:
                self._routes = {}
            known = who, requests.shared_route(operation, options, bucket, self.account, who)
            self._routes[name] = known
        return known[1]

    def plain_route(self, operation: str, bucket: str, options: Options) -> Route | None:
        """See ``interface.RouteSource``."""
        if operation in requests.SHARED:
            return self.route(operation, bucket, options)
        return requests.plain_put_route(options, bucket, self.account, self._authorization())

    def plain_headers(self, operation: str, headers: Mapping[str, str], etag: str | None) -> Mapping[str, str]:
        """See ``interface.RouteSource``."""
        return answers.Headers(headers, {})

    def prepare(self, call: Call) -> tuple[Route, bytes]:
        """See ``interface.RouteSource``."""
        return requests.own_route("PUT", self.account), b""

    def signed(
        self, call: Call, ask: Ask, body: Any = None, checksum: tuple[str, str] | None = None
    ) -> SignedRequest:  # fmt: skip
        """See ``interface.RouteSource``."""
        return requests.request(call, self.account, self._authorization(), checksum)

    def aio_client(self, http_session: type, sending: Callable[[Any, str], None]) -> AioClient:
        """See ``interface.ControlPlane``."""
        raise Unsupported("aiobotocore speaks to S3 alone", hint='Use engine="native"')

    # Credentials, clock, connections ---------------------------------------------------------------------------------

    def credentials(self) -> Credentials | None:
        """See ``interface.RouteSource``: the engine signs nothing, but what it sends is renewed."""
        self._authorization()
        return None

    def session(self, bucket: str, ask: Ask) -> Credentials:
        """See ``interface.RouteSource``."""
        raise Unsupported("Azure has no sessions")

    def renews(self) -> bool:
        """See ``interface.ControlPlane``."""
        return self.keyring.due()

    def renew(self, ask: Ask) -> None:
        """See ``interface.ControlPlane``."""
        self._authorization()

    def expire(self, credentials: Credentials | None, bucket: str) -> bool:
        """See ``interface.ControlPlane``."""
        return self.keyring.expire()

    def redirect(self, call: Call, reply: Reply, ask: Ask) -> bool:
        """See ``interface.ControlPlane``: containers do not move."""
        return False

    def learn_skew(self, reply: Reply) -> bool:
        """See ``interface.ControlPlane``."""
        skew = clock_ahead(reply.headers)
        if skew is None or not self.keyring.by_key:
            return False
        if abs(skew - self.keyring.skew) < 60:
            return 0.0 < reply.submitted < self._learned + SECONDS_TO_SEND and self._learned > 0.0
        self.keyring.learn(skew)
        self._learned = monotonic()
        return True

    def transport(self) -> Transport:
        """See ``interface.ControlPlane``."""
        return transport_to(self.account.origin, self.settings.verify)

    # What came back --------------------------------------------------------------------------------------------------

    def translate(self, reply: Reply) -> None:
        """See ``interface.RouteSource``."""
        answers.translate(reply)

    def verdict(self, reply: Reply) -> Verdict:
        """See ``interface.ControlPlane``."""
        return errors.verdict(reply, self.keyring.by_token, self.keyring.by_key)

    def problem(self, call: Call, reply: Reply) -> MfstoreError:
        """See ``interface.RouteSource``."""
        return errors.problem(call, reply, self.account, self.keyring.by_token, clock_ahead(reply.headers))

    def parse(self, call: Call, reply: Reply) -> dict[str, Any]:
        """See ``interface.ControlPlane``."""
        try:
            return answers.output(call, reply)
        except BackendError as error:
            error.where(key=call.key, backend=f"az://{call.bucket}")
            raise

    def page(self, call: Call, reply: Reply) -> Page:
        """See ``interface.ControlPlane``."""
        body = reply.data or b""
        if len(body) > BODY_BYTES:
            raise BackendError("the answer is too long", found=len(body))
        return pages.page(call, body)

    def host(self, call: Call) -> str:
        """See ``interface.ControlPlane``."""
        try:
            return self.account.origin + self.account.root
        except MfstoreError:
            return "Azure Blob Storage"
