"""The bulk clients behind ``mfstore.S3``: made of Metaflow's settings, shared by the instances that agree on them."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mfstore.errors import Unsupported
from mfstore.s3.datatools.settings import Settings

if TYPE_CHECKING:
    from mfstore.s3.bulk.client import BulkClient

IDLE = 4
"""Clients kept open, with their connections and credentials, for the next S3 that wants the same."""
_ENVIRONMENT = ("AWS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "HOME", "REQUESTS_CA_BUNDLE", "MFSTORE_")
"""What besides the arguments decides how botocore and we connect: variables that begin like this, in either case."""


@dataclass(frozen=True)
class Wish:
    """What an S3 was asked for, as far as connections are concerned."""

    role: str | None = None
    session_vars: Mapping[str, Any] | None = None
    client_params: Mapping[str, Any] | None = None
    external: Any = None
    inject: float = 0.0
    limits: Mapping[str, Any] = field(default_factory=dict)
    """BulkClient's engine, concurrency, memory, max_bandwidth, attempts and retry_seconds."""


class Lease:
    """The use of a client, shared where possible, until ``release``. Not the client's owner: it may go on."""

    def __init__(self, wish: Wish, settings: Settings) -> None:
        self._key: tuple[Any, ...] | None = None
        self._own: BulkClient | None = None
        if wish.external is not None or wish.inject:
            self.client = self._own = make_client(wish, settings)
            return
        key = _key(wish, settings)
        with _pool.lock:
            entry = _pool.entries.pop(key, None)
            if entry is None:
                entry = _Entry(make_client(wish, settings))
            _pool.entries[key] = entry  # now the youngest
            entry.users += 1
        self._key, self.client = key, entry.client

    def release(self) -> None:
        """No longer needed. Closes a client that was not shared, and the oldest of too many that nobody uses."""
        if self._own is not None:
            self._own.close()
            self._own = None
        key, self._key = self._key, None
        if key is None:
            return
        with _pool.lock:
            if key in _pool.entries:
                _pool.entries[key].users -= 1
            idle = [other for other, entry in _pool.entries.items() if entry.users <= 0]
            closing = [_pool.entries.pop(other).client for other in idle[: max(0, len(idle) - IDLE)]]
        for client in closing:
            client.close()


@dataclass
class _Entry:
    client: BulkClient
    users: int = 0


class _Pool:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries: dict[tuple[Any, ...], _Entry] = {}

    def renew(self) -> None:
        """In a forked child: another thread may have held the lock. The clients know by themselves."""
        self.lock = threading.Lock()

    def close(self) -> None:
        """At exit: end threads and connections."""
        with self.lock:
            entries, self.entries = self.entries, {}
        for entry in entries.values():
            with suppress(Exception):
                entry.client.close()


_pool = _Pool()
atexit.register(_pool.close)
os.register_at_fork(after_in_child=_pool.renew)


def _key(wish: Wish, settings: Settings) -> tuple[Any, ...]:
    environment = tuple(
        sorted((name, value) for name, value in os.environ.items() if name.upper().startswith(_ENVIRONMENT))
    )
    # A Config has no equality: its repr names the one object, which the client then keeps alive.
    described = (wish.role, wish.session_vars, wish.client_params, wish.limits)
    return (*map(repr, described), repr(settings), environment)


def make_client(wish: Wish, settings: Settings) -> BulkClient:
    """A bulk client as asked for. Unsupported without botocore."""
    arguments = client_arguments(wish, settings)
    if wish.inject:
        from mfstore.s3.datatools.injection import FlakyClient

        return FlakyClient.with_rate(wish.inject, **arguments)
    from mfstore.s3.aws.configuration_cache import KeptClient

    return KeptClient(**arguments)


def client_arguments(wish: Wish, settings: Settings) -> dict[str, Any]:
    """What BulkClient is called with for a client as asked for."""
    params = dict(wish.client_params or settings.client_params)
    session_vars = wish.session_vars or settings.session_vars
    arguments: dict[str, Any] = {"attempts": settings.attempts, "concurrency": settings.workers}
    arguments.update((name, value) for name, value in wish.limits.items() if value is not None)
    if wish.external is not None:
        # An S3Client of Metaflow's has its boto3 client inside; a boto3 client is welcome as well.
        arguments["client"] = wish.external if hasattr(wish.external, "meta") else wish.external.client
    elif settings.provider:
        arguments["client"] = _provided(wish.role, session_vars, params)
    else:
        if wish.role:
            arguments["session"] = assumed(wish.role, session_vars)
        config = params.get("config")
        if isinstance(config, Mapping):
            from botocore.config import Config

            params["config"] = Config(**config)
        if isinstance(params.get("verify"), str) and params["verify"].lower() in ("0", "false", "no", "off"):
            params["verify"] = False
        arguments.update(params)
    return arguments


def _provided(role: str | None, session_vars: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
    """A boto3 client of the provider Metaflow is configured for: only that knows where its credentials come from."""
    try:
        from metaflow.plugins.aws.aws_client import get_aws_client
    except ImportError as error:
        raise Unsupported(
            "METAFLOW_DEFAULT_AWS_CLIENT_PROVIDER names a provider, and Metaflow is not installed",
            hint="Install metaflow and the extension that has the provider, or unset the variable",
        ) from error
    return get_aws_client("s3", role_arn=role, session_vars=dict(session_vars), client_params=dict(params))


def assumed(role: str, session_vars: Mapping[str, Any]) -> Any:
    """A botocore session with the credentials of ``role``, assumed when first needed and again before they expire."""
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    from botocore.session import Session

    source = Session()
    own = source.get_credentials()
    if own is None:
        from mfstore.s3.aws.errors import no_credentials

        raise no_credentials(None)
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=source.create_client, source_credentials=own, role_arn=role, extra_args={}, cache=_Forgetful()
    )
    session = Session(session_vars=dict(session_vars) or None)
    # botocore has no public way to give a session credentials that refresh themselves.
    session._credentials = DeferredRefreshableCredentials(refresh_using=fetcher.fetch_credentials, method="assume-role")
    return session


class _Forgetful(dict[str, Any]):
    """The fetcher's cache: of no use to one session, and it would answer the server's "expired" with the same again."""

    def __contains__(self, key: object) -> bool:
        return False
