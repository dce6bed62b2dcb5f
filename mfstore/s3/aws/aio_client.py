"""aiobotocore's client of a control plane: its session, credentials, configuration and signatures, for one event loop.

It prepares, signs and sends a request, reads the reply, and raises what that says. Who wants the bytes gives the HTTP
session, through which all of that goes. The scheduler has the retries and follows a bucket to its region: neither does
aiobotocore.

Imports aiobotocore, which takes 0.2 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiobotocore.credentials import AioCredentials
from botocore import UNSIGNED, xform_name
from botocore.credentials import ReadOnlyCredentials

from mfstore.errors import Unsupported
from mfstore.s3.aws import botocore_internals as internals
from mfstore.s3.aws import errors, sessions
from mfstore.s3.aws.credentials import Keyring
from mfstore.s3.aws.kept_sessions import KeptSessions
from mfstore.s3.aws.prepared import RequestPreparer, Signing, complete, signing_of
from mfstore.s3.aws.settings import ConnectionSettings
from mfstore.s3.calls import Call


class AioClient:
    """One aiobotocore client. For the thread of the event loop in which it is opened.

    ``http_session`` is a class as ``AioConfig(http_session_cls=)`` takes it. ``skew`` says by how many seconds
    signatures are to be ahead of this machine's clock. ``sending`` is told of each request that is about to be sent:
    (the request, the name of its operation).
    """

    def __init__(
        self, settings: ConnectionSettings, preparer: RequestPreparer, keyring: Keyring, plain: Any,
        sessions: KeptSessions, http_session: type, skew: Callable[[], float], sending: Callable[[Any, str], None],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._preparer = preparer
        self._keyring = keyring
        self._plain = plain
        self._sessions = sessions
        self._http_session = http_session
        self._skew = skew
        self._sending = sending
        self._client: Any = None

    async def open(self) -> None:
        """Make it. Raises what botocore raises for a configuration that it refuses."""
        session = internals.aio_session(self._plain)
        if not self._settings.anonymous:
            internals.give_credentials(session, _KeyringCredentials(self._keyring))
        config, default = sessions.config_for(self._settings), self._plain.get_default_client_config()
        config = internals.aio_config(default.merge(config) if default is not None else config, self._http_session)
        made = sessions.client_for(self._settings, session, config, keys={})
        self._client = client = await made.__aenter__()
        events = client.meta.events
        for event, handler in self._preparer.handlers():
            events.register(event, handler)
        events.register_last("before-endpoint-resolution.s3", self._preparer.set_region)
        events.register_last("before-call.s3", internals.follow_no_redirect)
        events.register_first("before-sign.s3", self._before_sign)
        events.register_last("before-sign.s3", self._watch_sessions)
        events.register_last("request-created.s3", self._after_sign)
        events.register_last("before-send.s3", self._before_send)

    async def close(self) -> None:
        """Close it, and its HTTP session."""
        if self._client is not None:
            await self._client.close()

    async def call(self, call: Call, body: Any = None, checksum: tuple[str, str] | None = None) -> None:
        """Have ``call`` carried out; what comes of it goes through the HTTP session. ``body`` and ``checksum`` are as
        of ``ControlPlane.signed``. Raises as that, and what aiobotocore makes of the answer."""
        method = getattr(self._client, xform_name(call.operation), None)
        if method is None:
            raise Unsupported(f"{call.operation} is no operation of S3")
        arguments = self._preparer.parameters_of(call, body, checksum)
        try:
            await method(**arguments)
        except Exception as error:
            raise errors.local(error, self._settings.profile) from error

    # aiobotocore's events, in their order ----------------------------------------------------------------------------

    def _before_sign(self, request: Any, **given: Any) -> None:
        complete(request, given["operation_name"])
        request.context["mfstore_signing"] = signing_of(request, given)

    def _watch_sessions(self, request: Any, signature_version: Any, **_: Any) -> None:
        sessions = internals.sessions_of(request, signature_version)
        if sessions is not None:
            internals.sign_in_session(request, signature_version, _WatchedSessions(sessions, self._sessions))

    async def _after_sign(self, request: Any, **_: Any) -> None:
        skew = self._skew()
        signing: Signing | None = request.context.get("mfstore_signing")
        if skew and signing is not None and signing.version is not UNSIGNED and not self._settings.anonymous:
            scope = signing.region, signing.service, signing.version
            auth = await internals.auth_of(request, signing.signer, scope, _KeyringCredentials(self._keyring))
            internals.sign_again(request, auth, scope, skew)

    def _before_send(self, request: Any, event_name: str, **_: Any) -> None:
        self._sending(request, event_name.rpartition(".")[2])


class _WatchedSessions:
    """What aiobotocore asks for the keys of sessions: its own, of which it is told what it gives."""

    def __init__(self, own: Any, kept: KeptSessions) -> None:
        self._own = own
        self._kept = kept

    async def get_credentials(self, bucket: str) -> Any:
        """The keys of a bucket's session."""
        found = await self._own.get_credentials(bucket)
        self._kept.given(bucket, found)
        return found


class _KeyringCredentials(AioCredentials):  # type: ignore[misc]
    """The keyring's, as aiobotocore asks for them. One search serves both: a credential process may ask for a code, and
    what a server refused is found again in one place."""

    def __init__(self, keyring: Keyring) -> None:
        super().__init__("unused", "unused", method="mfstore")
        self._keyring = keyring

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What to sign with now. Finding or refreshing them may take seconds, in a thread."""
        found = await asyncio.get_running_loop().run_in_executor(None, self._keyring.current)
        assert found is not None
        return ReadOnlyCredentials(found.access_key, found.secret_key, found.token)
