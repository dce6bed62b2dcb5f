"""From connection settings to what botocore makes of them: session, configuration, a client of our own that only
prepares requests, and how connections are made. The user's session or client is read, never changed.

Imports botocore.
"""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.session import Session

from mfstore.errors import Unsupported
from mfstore.s3.aws import botocore_internals as internals
from mfstore.s3.aws.errors import no_credentials
from mfstore.s3.aws.routes import Transport
from mfstore.s3.aws.settings import KEY_OPTIONS, ConnectionSettings
from mfstore.settings import payload_signing

CONNECT_SECONDS = 5.0
BOTOCORE_CONNECT_SECONDS = 60  # its default: far too long for one machine of a pool that does not answer


def session_for(settings: ConnectionSettings) -> Session:
    """The botocore session to use. Raises botocore's ProfileNotFound."""
    if settings.session is not None:
        return internals.session_of(settings.session)
    session = Session(profile=settings.profile)
    session.get_scoped_config()  # a profile that does not exist: now, not at the first request
    internals.use_quick_loader(session)
    return session


def config_for(settings: ConnectionSettings) -> Config:
    """The client configuration: the user's, with the retries left to the scheduler and no checksum but ours."""
    config = settings.config
    if settings.client is not None:
        config = settings.client.meta.config if config is None else settings.client.meta.config.merge(config)
    ours = Config(
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"total_max_attempts": 1, "mode": "standard"},
    )
    if getattr(config, "connect_timeout", None) in (None, BOTOCORE_CONNECT_SECONDS):
        ours = ours.merge(Config(connect_timeout=CONNECT_SECONDS))
    ours = ours if config is None else config.merge(ours)
    payload = {"always": True, "never": False}.get(payload_signing(settings.payload_signing))
    if payload is not None:
        ours = ours.merge(Config(s3={**(ours.s3 or {}), "payload_signing_enabled": payload}))
    return ours.merge(Config(signature_version=UNSIGNED)) if settings.anonymous else ours


PLACEHOLDERS = {"aws_access_key_id": "unused", "aws_secret_access_key": "unused"}
"""The search for real keys, which may ask the network, is the keyring's, and is lazy."""


def client_for(
    settings: ConnectionSettings, session: Session, config: Config, keys: Mapping[str, str] = PLACEHOLDERS
) -> Any:  # fmt: skip
    """A client of our own, of an aiobotocore session what makes one. With ``keys`` its credentials are put in at each
    signature; without, they are the session's."""
    options = {name: value for name, value in settings.client_options.items() if name not in KEY_OPTIONS}
    region, endpoint = settings.region, settings.endpoint_url
    build = functools.partial(session.create_client, "s3", verify=settings.verify, config=config, **keys, **options)
    if settings.client is None:
        return build(region_name=region, endpoint_url=endpoint)
    region = region or settings.client.meta.region_name
    if endpoint is None:
        # A client does not tell whether its endpoint was given or derived: derived is what we get as well.
        ours = build(region_name=region)
        if ours.meta.endpoint_url == settings.client.meta.endpoint_url:
            return ours
        endpoint = settings.client.meta.endpoint_url
    return build(region_name=region, endpoint_url=endpoint)


def transport_for(settings: ConnectionSettings, session: Session, config: Config, url: str) -> Transport:
    """How connections to ``url`` are made, by botocore's precedence. Raises Unsupported for a bundle that is not there,
    and for what cannot be done."""
    verify, source = trust(settings, session)
    if isinstance(verify, str | os.PathLike):
        verify = _bundle(verify, f"It comes from {source}")
    certificate, key = _certificate(config.client_cert)
    to_proxy: Mapping[str, Any] = config.proxies_config or {}
    if to_proxy.get("proxy_use_forwarding_for_https"):
        raise Unsupported(
            "proxy_use_forwarding_for_https would have the proxy read what is sent by https",
            hint="Leave it out of proxies_config: requests by https go through a tunnel of the proxy",
        )
    proxy_bundle = to_proxy.get("proxy_ca_bundle")
    proxy_certificate, proxy_key = _certificate(to_proxy.get("proxy_client_cert"))
    return Transport(
        verify=bool(verify),
        ca_file=verify if isinstance(verify, str) else None,
        certificate=certificate,
        private_key=key,
        proxy=_proxy_for(url, config.proxies),
        proxy_ca_file=_bundle(proxy_bundle, "It comes from proxies_config") if proxy_bundle else None,
        proxy_certificate=proxy_certificate,
        proxy_private_key=proxy_key,
        connect_timeout=float(config.connect_timeout),
        threads=min(4, os.cpu_count() or 1),
    )


def trust(settings: ConnectionSettings, session: Session) -> tuple[Any, str]:
    """What servers' certificates are verified by (a path; True: botocore's own bundle; False: they are not), and what
    says so."""
    if settings.verify is not None:
        return settings.verify, "verify="
    configured = session.get_config_variable("ca_bundle")
    if configured is not None:
        return configured, "AWS_CA_BUNDLE" if os.environ.get("AWS_CA_BUNDLE") else "ca_bundle of the profile"
    named = os.environ.get("REQUESTS_CA_BUNDLE")
    return (True, "botocore") if named is None else (named, "REQUESTS_CA_BUNDLE")


def _bundle(path: str | os.PathLike[str], hint: str) -> str:
    path = os.fspath(path)
    if not os.path.exists(path):  # noqa: PTH110
        raise Unsupported(f"the CA bundle {path!r} does not exist", hint=hint)
    return path


def _certificate(given: Any) -> tuple[str | None, str | None]:
    """A client certificate and its key, by botocore's way of saying it; no key: it is in the same file."""
    return given if isinstance(given, tuple) else (given, None)


def _proxy_for(url: str, configured: Mapping[str, str] | None) -> str | None:
    """The proxy for ``url``: of the configuration, else of the environment unless NO_PROXY excludes it."""
    proxies = internals.environment_proxies(url) if configured is None else configured
    proxy = proxies.get(url.partition(":")[0])
    if not proxy:
        return None
    return proxy if "://" in proxy else "http://" + proxy.removeprefix("//")


def session_in_role(role: str, session_vars: Mapping[str, Any]) -> Session:
    """A session with the credentials of ``role``, an ARN, assumed when first needed and again before they expire.
    Raises AccessDenied when there are none to assume it with."""
    source = Session()
    own = source.get_credentials()
    if own is None:
        raise no_credentials(None)
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=source.create_client, source_credentials=own, role_arn=role, extra_args={}, cache=_Forgetful()
    )
    session = Session(session_vars=dict(session_vars) or None)
    assumed = DeferredRefreshableCredentials(refresh_using=fetcher.fetch_credentials, method="assume-role")
    internals.give_credentials(session, assumed)
    return session


class _Forgetful(dict[str, Any]):
    """The fetcher's cache: of no use to one session, and it would answer the server's "expired" with the same again."""

    def __contains__(self, key: object) -> bool:
        return False


@contextmanager
def collector_paused() -> Iterator[None]:
    """botocore and its models are some hundred thousand objects that stay. Looking through them again and again while
    they are made takes a quarter of the 0.11 s that a process's first client costs."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
