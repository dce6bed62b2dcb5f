"""What the floors above ask of a control plane. It knows where requests go, how they are signed and what answers mean;
it moves no object's bytes.

``BotocoreControlPlane`` (control.py) is one, and ``CachedControlPlane`` (configuration_cache.py) another; tests make
their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mfstore.errors import MfstoreError
    from mfstore.s3.aws.aio_client import AioClient
    from mfstore.s3.aws.errors import Verdict
    from mfstore.s3.aws.pages import Page
    from mfstore.s3.aws.routes import Credentials, Route, SignedRequest, Transport
    from mfstore.s3.calls import Call, Options, Reply
    from mfstore.s3.service import Service

    Ask = Callable[[Call], Reply]
    """Carries out one call, and waits for its reply."""


class RouteSource(Protocol):
    """What an engine asks that makes and signs requests by itself where it can. Safe to use from several threads.

    Every method raises AccessDenied without credentials, InvalidKey for parameters that botocore refuses, and
    Unsupported for what botocore cannot sign here.
    """

    service: Service
    version: int
    """Grows when a bucket's region is learned: routes taken before are then out of date."""
    skew: float
    """Seconds to add to this machine's clock for the server's."""

    keys: Credentials | None
    """What to sign with as long as this is not None: keys that were given, which do not change by themselves. Else
    ``credentials`` is to be asked, each time."""

    def route(self, operation: str, bucket: str, options: Options) -> Route:
        """What the requests of one of the ``ROUTED`` operations share."""

    def plain_route(self, operation: str, bucket: str, options: Options) -> Route | None:
        """What plain requests (``Plain``) of GetObject, HeadObject or PutObject share; None where those are calls like
        all others. Of S3 it is ``route``. That of a PutObject has no condition, and no metadata of its own."""

    def plain_headers(self, operation: str, headers: Mapping[str, str], etag: str | None) -> Mapping[str, str]:
        """The headers of the good reply to a plain request in the words of S3. ``etag``: what conditions take. Of S3 it
        is not asked."""

    def prepare(self, call: Call) -> tuple[Route, bytes]:
        """The request of any other operation: its whole path, and its body."""

    def signed(
        self, call: Call, ask: Ask, body: Any = None, checksum: tuple[str, str] | None = None
    ) -> SignedRequest:  # fmt: skip
        """The request of ``call``, signed. ``ask`` is as of ``session``; ``body`` bytes or a seekable reader, which the
        caller goes on to own; ``checksum`` its algorithm and Base64 value."""

    def session(self, bucket: str, ask: Ask) -> Credentials:
        """What requests to a directory bucket (S3 Express) are signed with now: keys of its own, which end after
        minutes, and whose token goes into a header of its own. When it is due ``ask`` asks the service for it. The same
        object for the same session. Raises NoSession with what the service answers instead."""

    def credentials(self) -> Credentials | None:
        """What to sign with now, refreshed if due; None: do not sign."""

    def translate(self, reply: Reply) -> None:
        """Say a reply in the words of S3, before anybody looks at it: names of headers, a status. Of S3 it is."""

    def problem(self, call: Call, reply: Reply) -> MfstoreError:
        """The error that a reply stands for; not raised."""


class ControlPlane(RouteSource, Protocol):
    """What the jobs and the scheduler ask besides."""

    def verdict(self, reply: Reply) -> Verdict:
        """What a reply calls for."""

    def aio_client(self, http_session: type, sending: Callable[[Any, str], None]) -> AioClient:
        """aiobotocore's client, not yet open; the parameters are those of ``AioClient``. Raises Unsupported without
        aiobotocore, and for what this engine has no way to do."""

    def transport(self) -> Transport:
        """How to connect. Raises Unsupported when the CA bundle does not exist, and for what cannot be done."""

    def renews(self) -> bool:
        """Whether the next request may first have to wait for other credentials, or another session, because those that
        there are come to their end. Asks nobody."""

    def renew(self, ask: Ask) -> None:
        """Get those now. Raises like ``session``."""

    def expire(self, credentials: Credentials | None, bucket: str) -> bool:
        """The server of ``bucket`` called ``credentials``, or those of its session, expired or invalid: gets others if
        it can. False if there are none. Raises AccessDenied when the refresh fails."""

    def redirect(self, call: Call, reply: Reply, ask: Ask) -> bool:
        """Learn from a reply that the bucket is in another region, or, where it does not say in which, by ``ask`` from
        another: True if the call is worth sending again."""

    def learn_skew(self, reply: Reply) -> bool:
        """Set the clock by a reply that said RequestTimeTooSkewed: True if it was signed by another clock."""

    def parse(self, call: Call, reply: Reply) -> dict[str, Any]:
        """The output of an operation, by botocore's model and names. Raises the error that a body of 200 may hold, and
        BackendError for a body that is cut, too long or not XML."""

    def page(self, call: Call, reply: Reply) -> Page:
        """The page of a ListObjectsV2. Raises like ``parse``."""

    def host(self, call: Call) -> str:
        """Where the requests of such a call go, for people; never raises."""
