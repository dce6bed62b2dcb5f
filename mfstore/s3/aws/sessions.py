"""From what a user has (a session, a client, options) to a botocore client of our own that only prepares requests.

The user's session or client is read, never changed. botocore is imported when first needed.
"""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mfstore.errors import NotSerializable, Unsupported
from mfstore.s3.aws.routes import Transport

OWN = ("botocore", "boto3", "aiobotocore", "s3transfer", "awscrt", "mfstore")
"""Packages whose event handlers are part of preparing a request, not a user's."""

EVENTS = (
    "provide-client-params",
    "before-parameter-build",
    "before-endpoint-resolution",
    "before-call",
    "request-created",
    "choose-signer",
    "before-sign",
    "before-send",
)
"""Where a handler can change each request. The native engine sees requests of one kind once, so it would skip them."""

KEY_OPTIONS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
CONNECT = 5.0
SLOW = 60  # botocore's default connect time-out: far too long for one machine of a pool that does not answer


@dataclass(frozen=True, eq=False, slots=True)
class Setup:
    """The arguments of a BotocoreControlPlane, and what they mean to botocore."""

    session: Any = None
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    config: Any = None
    verify: bool | str | None = None
    client: Any = None
    anonymous: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        for name in ("session", "client"):
            if getattr(self, name) is not None:
                raise NotSerializable(
                    f"an S3 client made from a {name} object cannot be pickled",
                    hint="Give profile=, region=, endpoint_url= and the like instead: they travel, credentials do not",
                )
        return type(self), (
            *(self.session, self.endpoint_url, self.region, self.profile, self.config, self.verify, self.client),
            *(self.anonymous, dict(self.options)),
        )

    def core(self) -> Any:
        """The botocore session to use. Raises botocore's ProfileNotFound."""
        session = self.session
        if session is None:
            from botocore.session import Session

            from mfstore.s3.aws.loading import quick_loader

            core = Session(profile=self.profile)
            core.get_scoped_config()  # a profile that does not exist: now, not at the first request
            core.register_component("data_loader", quick_loader(core.get_config_variable("data_path")))
            return core
        core = getattr(session, "_session", session)  # boto3.Session has no public way to its botocore session
        if not hasattr(core, "get_config_variable"):
            raise Unsupported(
                f"session must be a boto3, botocore or aiobotocore session, not {type(session).__name__}",
                found=type(session).__module__,
            )
        return _plain(core) if type(core).__module__.startswith("aiobotocore") else core

    def merged(self) -> Any:
        """The client configuration: the user's, with the retries left to the scheduler and no checksum but ours."""
        from botocore import UNSIGNED
        from botocore.config import Config

        config = self.config
        if self.client is not None:
            config = self.client.meta.config if config is None else self.client.meta.config.merge(config)
        ours = Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        if getattr(config, "connect_timeout", None) in (None, SLOW):
            ours = ours.merge(Config(connect_timeout=CONNECT))
        ours = ours if config is None else config.merge(ours)
        return ours.merge(Config(signature_version=UNSIGNED)) if self.anonymous else ours

    def create(self, core: Any, config: Any) -> Any:
        """A client of our own. Its credentials are put in by the BotocoreControlPlane at each signature."""
        options = {name: value for name, value in self.options.items() if name not in KEY_OPTIONS}
        region, endpoint = self.region, self.endpoint_url
        # Placeholder keys: the search for real ones (which may ask the network) is the keyring's, and is lazy.
        keys = {"aws_access_key_id": "unused", "aws_secret_access_key": "unused"}
        build = functools.partial(core.create_client, "s3", verify=self.verify, config=config, **keys, **options)
        if self.client is None:
            return build(region_name=region, endpoint_url=endpoint)
        region = region or self.client.meta.region_name
        if endpoint is None:
            # A client does not tell whether its endpoint was given or derived: derived is what we get as well.
            ours = build(region_name=region)
            if ours.meta.endpoint_url == self.client.meta.endpoint_url:
                return ours
            endpoint = self.client.meta.endpoint_url
        return build(region_name=region, endpoint_url=endpoint)

    def transport(self, core: Any, config: Any, url: str) -> Transport:
        """How connections to ``url`` are made, by botocore's precedence. Raises Unsupported for a bad bundle."""
        verify: Any = self.verify
        if verify is None:
            verify = core.get_config_variable("ca_bundle")
        if verify is None:
            verify = os.environ.get("REQUESTS_CA_BUNDLE", True)
        if isinstance(verify, str | os.PathLike):
            verify = os.fspath(verify)
            if not os.path.exists(verify):  # noqa: PTH110
                raise Unsupported(
                    f"the CA bundle {verify!r} does not exist",
                    hint="It comes from verify=, AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or ca_bundle of the profile",
                )
        certificate, key = config.client_cert, None
        if isinstance(certificate, tuple):
            certificate, key = certificate
        return Transport(
            verify=bool(verify),
            ca_file=verify if isinstance(verify, str) else None,
            certificate=certificate,
            private_key=key,
            proxy=proxy_for(url, config.proxies),
            connect_timeout=float(config.connect_timeout),
            threads=min(4, os.cpu_count() or 1),
        )


def proxy_for(url: str, configured: Mapping[str, str] | None) -> str | None:
    """The proxy for ``url``: of the configuration, else of the environment unless NO_PROXY excludes it."""
    from botocore.utils import get_environ_proxies

    proxies = get_environ_proxies(url) if configured is None else configured
    proxy = proxies.get(url.partition(":")[0])
    if not proxy:
        return None
    return proxy if "://" in proxy else "http://" + proxy.removeprefix("//")


def _plain(session: Any) -> Any:
    """An aiobotocore session as a botocore session: profile, variables and keys that were set on it by hand.

    Its own credentials and handlers are coroutines, of no use to code that is not.
    """
    from botocore.session import Session

    core = Session(profile=session.profile)
    for name, value in session.instance_variables().items():
        if name != "profile":
            core.set_config_variable(name, value)
    default = session.get_default_client_config()
    if default is not None:
        core.set_default_client_config(default)
    held = getattr(session, "_credentials", None)
    if held is not None and not hasattr(held, "refresh_needed"):
        core.set_credentials(held.access_key, held.secret_key, held.token)
    return core


def handlers(client: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Handlers that a user registered for what happens to a request: (event, handler).

    Raises Unsupported when this botocore does not let them be seen.
    """
    emitter = client.meta.events
    trie = getattr(getattr(emitter, "_emitter", emitter), "_handlers", None)
    if trie is None or not hasattr(trie, "prefix_search"):
        raise Unsupported("this botocore does not tell which handlers are registered")
    seen = set()
    for stage in EVENTS:
        for operation in ("GetObject", "HeadObject", "PutObject", "UploadPart", "DeleteObject", "ListObjectsV2"):
            event = f"{stage}.s3.{operation}"
            for handler in trie.prefix_search(event):
                function = getattr(handler, "func", handler)
                module = getattr(function, "__module__", None) or type(function).__module__
                if module.partition(".")[0] not in OWN and (event, id(handler)) not in seen:
                    seen.add((event, id(handler)))
                    yield event, handler


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
