"""The control plane of Google Cloud Storage: where its requests go, what they carry, and what answers mean."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from mfstore.errors import BackendError, MfstoreError, Unsupported
from mfstore.gcs import answers, errors
from mfstore.gcs.credentials import Access, Keyring
from mfstore.gcs.requests import MATCH_HEADER, plain_put_route, read_route, request_of
from mfstore.gcs.settings import GcsSettings
from mfstore.s3.aws.errors import without_passwords
from mfstore.s3.aws.routes import BOTOCORE, Route, SignedRequest, Transport
from mfstore.s3.calls import NO_OPTIONS, Call, FileRange, Options, Reply
from mfstore.s3.service import GCS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mfstore.s3.aws.errors import Verdict
    from mfstore.s3.aws.interface import Ask
    from mfstore.s3.aws.pages import Page
    from mfstore.s3.aws.routes import Credentials

READS = ("GetObject", "HeadObject")


class GcsControlPlane:
    """Google Cloud Storage as one configuration sees it; see ``interface.ControlPlane``. Cheap to make: nothing is
    imported or asked before it is needed. Safe to use from several threads, in forked children, and pickles as its
    settings do.
    """

    service = GCS
    skew = 0.0
    """See ``interface.RouteSource``: nothing is signed by time."""
    keys: Credentials | None = None
    """See ``interface.RouteSource``."""

    def __init__(self, settings: GcsSettings) -> None:
        self.settings = settings
        self.version = 0
        """See ``interface.RouteSource``: grows with each other token."""
        self._place = settings.place(os.environ)
        self.keyring = Keyring(settings, self._place.emulated)
        """Its credentials."""
        self._access: Access | None = None
        self._google = (urlsplit(self._place.origin).hostname or "").endswith(".googleapis.com")

    def __reduce__(self) -> tuple[Any, ...]:
        return GcsControlPlane, (self.settings,)

    # What to send ----------------------------------------------------------------------------------------------------

    def route(self, operation: str, bucket: str, options: Options = NO_OPTIONS) -> Route:
        """See ``interface.RouteSource``."""
        if operation in READS:
            return read_route(operation, self._place.origin, bucket, options, self._carried())
        return self._each()

    def plain_route(self, operation: str, bucket: str, options: Options) -> Route | None:
        """See ``interface.RouteSource``."""
        if operation in READS:
            return self.route(operation, bucket, options)
        return plain_put_route(self._place.origin, bucket, options, self._carried(), f"mfstore-{uuid.uuid4().hex}")

    def plain_headers(self, operation: str, headers: Mapping[str, str], etag: str | None) -> Mapping[str, str]:
        """See ``interface.RouteSource``."""
        return answers.plain_headers(operation, headers, etag)

    def prepare(self, call: Call) -> tuple[Route, bytes]:
        """See ``interface.RouteSource``: such requests are made one by one."""
        return self._each(), b""

    def _each(self) -> Route:
        return Route("GET", self._place.origin, "/", "", (), "", "", False, BOTOCORE, match_header=MATCH_HEADER)

    def signed(
        self, call: Call, ask: Ask, body: Any = None, checksum: tuple[str, str] | None = None
    ) -> SignedRequest:  # fmt: skip
        """See ``interface.RouteSource``."""
        if checksum is not None and checksum[0] != "CRC32C":
            raise Unsupported(f"Google Cloud Storage knows no {checksum[0]}", hint='Use checksum="CRC32C"')
        copied = body.read() if call.operation == "PutObject" and isinstance(call.body, FileRange) else None
        value = checksum[1] if checksum is not None else None
        return request_of(call, self._place.origin, self._carried(), value, copied, f"mfstore-{uuid.uuid4().hex}")

    def _carried(self) -> tuple[tuple[str, str], ...]:
        """The headers of every request: who asks, and who pays."""
        access = self._current()
        if self.settings.user_project is None:
            return access.headers
        others = tuple(pair for pair in access.headers if pair[0] != "x-goog-user-project")
        return (*others, ("x-goog-user-project", self.settings.user_project))

    # Credentials, connections ----------------------------------------------------------------------------------------

    def credentials(self) -> None:
        """See ``interface.RouteSource``: requests carry a token, and are not signed. Raises AccessDenied without
        credentials, and when they cannot be renewed."""
        self._current()

    def _current(self) -> Access:
        access = self.keyring.current()
        if access is not self._access:
            self._access = access
            self.version += 1
        return access

    def renews(self) -> bool:
        """See ``interface.ControlPlane``."""
        return self.keyring.renews()

    def renew(self, ask: Ask) -> None:
        """See ``interface.ControlPlane``."""
        self._current()

    def expire(self, credentials: Any, bucket: str) -> bool:
        """See ``interface.ControlPlane``."""
        changed = self.keyring.expire()
        self._current()
        return changed

    def session(self, bucket: str, ask: Ask) -> NoReturn:
        """See ``interface.RouteSource``: there are none."""
        raise Unsupported("sessions are for S3's directory buckets")

    def redirect(self, call: Call, reply: Reply, ask: Ask) -> bool:
        """See ``interface.ControlPlane``: buckets have one address wherever they are."""
        return False

    def learn_skew(self, reply: Reply) -> bool:
        """See ``interface.ControlPlane``."""
        return False

    def transport(self) -> Transport:
        """See ``interface.ControlPlane``."""
        from mfstore.s3.connecting import transport_to

        return transport_to(self._place.origin, self.settings.verify)

    def aio_client(self, http_session: type, sending: Any) -> NoReturn:
        """See ``interface.ControlPlane``: there is one engine for it."""
        raise Unsupported("aiobotocore is for S3", hint='Use engine="native"')

    # What came back --------------------------------------------------------------------------------------------------

    def translate(self, reply: Reply) -> None:
        """See ``interface.RouteSource``."""
        answers.translate(reply, self._google)

    def verdict(self, reply: Reply) -> Verdict:
        """See ``interface.ControlPlane``."""
        return errors.verdict(reply)

    def problem(self, call: Call, reply: Reply) -> MfstoreError:
        """See ``interface.RouteSource``."""
        anonymous = self._access is not None and not self._access.headers
        return errors.problem(call, reply, self.host, self._place.project, anonymous)

    def parse(self, call: Call, reply: Reply) -> dict[str, Any]:
        """See ``interface.ControlPlane``."""
        return answers.parse(call, reply)

    def page(self, call: Call, reply: Reply) -> Page:
        """See ``interface.ControlPlane``."""
        try:
            return answers.page(call, reply)
        except BackendError as error:
            raise error.where(key=call.key, status=reply.status) from None

    def host(self, call: Call) -> str:
        """See ``interface.ControlPlane``."""
        return without_passwords(self._place.origin)
