"""The bulk clients behind ``mfstore.S3`` and Metaflow's storages: shared by those that agree on their settings."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mfstore.errors import Unsupported
from mfstore.s3.datatools.clouds import CloudSettings
from mfstore.s3.datatools.settings import ClientSettings
from mfstore.settings import cache_directory

if TYPE_CHECKING:
    from mfstore.s3.bulk.client import BulkClient

IDLE_CLIENTS = 4
"""Kept open, with their connections and credentials, for the next S3 that wants the same."""
_VARIABLES = ("AWS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "HOME", "REQUESTS_CA_BUNDLE", "MFSTORE_")
"""What besides the settings decides how botocore and we connect: variables that begin like this, in either case."""
_VARIABLES_OF_CLOUDS = (
    *_VARIABLES[1:], "AZURE_", "IDENTITY_", "MSI_", "GOOGLE_", "GCE_", "CLOUDSDK_", "STORAGE_", "SSL_",
)  # fmt: skip
"""Likewise of Azure and Google Cloud."""


class Lease:
    """The use of a client, shared where possible, until ``release``. Not the client's owner: it may go on."""

    def __init__(self, settings: ClientSettings | CloudSettings) -> None:
        self._name: tuple[Any, ...] | None = None
        self._own: BulkClient | None = None
        if isinstance(settings, ClientSettings) and (settings.external_client is not None or settings.failure_rate):
            self.client = self._own = make_client(settings)
            return
        name = _name(settings)
        with _pool.lock:
            made = None if name in _pool.clients else _SharedClient(make_client(settings))
            # A signal handler may have come in: it left one, or took the last away.
            shared = _pool.clients.pop(name, None) or made or _SharedClient(make_client(settings))
            shared.users += 1
            _pool.clients[name] = shared  # now the youngest
        self._name, self.client = name, shared.client

    def release(self) -> None:
        """No longer needed. Closes a client that was not shared, and the oldest of too many that nobody uses."""
        if self._own is not None:
            self._own.close()
            self._own = None
        name, self._name = self._name, None
        if name is None:
            return
        with _pool.lock:
            if name in _pool.clients:
                _pool.clients[name].users -= 1
            idle = [other for other, shared in _pool.clients.items() if shared.users <= 0]
            closing = [_pool.clients.pop(other).client for other in idle[: max(0, len(idle) - IDLE_CLIENTS)]]
        for client in closing:
            client.close()


class _SharedClient:
    def __init__(self, client: BulkClient) -> None:
        self.client = client
        self.users = 0


class _Pool:
    def __init__(self) -> None:
        # Reentrant: a signal handler may want a client while its own thread gets one.
        self.lock = threading.RLock()
        self.clients: dict[tuple[Any, ...], _SharedClient] = {}

    def renew(self) -> None:
        """In a forked child: another thread may have held the lock. The clients know by themselves."""
        self.lock = threading.RLock()

    def close(self) -> None:
        """At exit: end threads and connections."""
        with self.lock:
            clients, self.clients = self.clients, {}
        for shared in clients.values():
            with suppress(Exception):
                shared.client.close()


_pool = _Pool()
atexit.register(_pool.close)
os.register_at_fork(after_in_child=_pool.renew)


def _name(settings: ClientSettings | CloudSettings) -> tuple[Any, ...]:
    """Equal for clients that are alike. A Config has no equality, nor has a credential: its repr names the one object,
    which the client then keeps alive."""
    begin = _VARIABLES if isinstance(settings, ClientSettings) else _VARIABLES_OF_CLOUDS
    variables = ((name, value) for name, value in os.environ.items() if name.upper().startswith(begin))
    return repr(settings), tuple(sorted(variables))


def make_client(settings: ClientSettings | CloudSettings) -> BulkClient:
    """A new client, the caller's to close. That of S3 caches on this host, in ``MFSTORE_CACHE``, what its configuration
    came to. Unsupported without what it needs: botocore, or the cloud's own library for credentials."""
    from mfstore.s3.bulk.client import BulkClient

    if isinstance(settings, CloudSettings):
        return BulkClient(settings.bucket, **settings.options)
    from mfstore.host.cache import host_cache
    from mfstore.s3.aws.configuration_cache import CachedControlPlane

    arguments = client_arguments(settings)
    if settings.failure_rate:
        from mfstore.s3.datatools.injection import flaky_client

        return flaky_client(settings.failure_rate, **arguments)
    client = BulkClient(**arguments)
    connection = client.options.connection
    if settings.withheld:
        connection = replace(connection, withheld=settings.withheld)
    return client.with_parts(control=CachedControlPlane(connection, host_cache(cache_directory())))


def client_arguments(settings: ClientSettings) -> dict[str, Any]:
    """What BulkClient is called with for a client of these settings."""
    configured = settings.configured
    params = dict(settings.client_params or configured.client_params)
    session_vars = settings.session_vars or configured.session_vars
    arguments = settings.transfer_arguments
    encrypted = configured.encryption if settings.encryption is None else settings.encryption
    # Decided: the environment is asked no more.
    arguments.update(
        encryption=encrypted.encryption or "", kms_key=encrypted.kms_key or "", bucket_key=encrypted.bucket_key
    )
    external = settings.external_client
    if external is not None:
        # An S3Client of Metaflow's has its boto3 client inside; a boto3 client is welcome as well.
        arguments["client"] = external if hasattr(external, "meta") else external.client
    elif configured.provider:
        arguments["client"] = _provided(settings.role, session_vars, params)
    else:
        if settings.role:
            from mfstore.s3.aws.sessions import session_in_role

            arguments["session"] = session_in_role(settings.role, session_vars)
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
