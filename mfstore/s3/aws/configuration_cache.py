"""What a configuration came to, cached on this host: so that the next process of a flow, with the same configuration,
need not import botocore and have it make a client (0.15 s of CPU) to learn where its requests go.

botocore stays in charge: all that is cached here it has said before, to a process with the same variables,
configuration files (by their identity, never their content), arguments and release. Credentials are not cached, nor is
anything that can hold a secret: no proxy, no key in a header, no name and password in a URL. They come from the
environment, where botocore looks first, or from botocore.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from typing import Any, TypeVar
from urllib.parse import quote

import mfstore
from mfstore.errors import MfstoreError
from mfstore.host.cache import HostCache
from mfstore.s3.aws.control import BotocoreControlPlane
from mfstore.s3.aws.routes import BOTOCORE, Credentials, Route, Transport
from mfstore.s3.aws.settings import ConnectionSettings
from mfstore.s3.calls import NO_OPTIONS, Call, Options
from mfstore.settings import payload_signing

VALID_SECONDS = 86400.0
"""After which botocore is asked again, should there be an influence that is not known here."""
CONFIGURING_VARIABLES = ("AWS_", "BOTO", "HOME", "REQUESTS_CA_BUNDLE")
"""Variables that begin like this, and all that end in ``_PROXY``, are part of a configuration."""
KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
"""These are not: they decide how requests are signed, not where they go."""
CONFIGURING_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
MODELS_DIRECTORY = "~/.aws/models"
CACHED_OPTIONS = ("ContentType", "ServerSideEncryption", "SSEKMSKeyId")
"""Options that a cached route may have; others can be secrets (``SSECustomerKey``)."""
LISTING = "ListObjectsV2"
LISTING_PARAMETERS = {
    "Prefix": "prefix", "MaxKeys": "max-keys", "Delimiter": "delimiter", "StartAfter": "start-after",
    "ContinuationToken": "continuation-token",
}  # fmt: skip
"""What differs between listings of one bucket: botocore's name and the query's."""

T = TypeVar("T")


class CachedControlPlane(BotocoreControlPlane):
    """A control plane that asks botocore only for what ``host`` does not know yet. Pickles as one without a cache."""

    def __init__(self, settings: ConnectionSettings, host: HostCache) -> None:
        super().__init__(settings)
        self._host_cache = host
        self.configuration = configuration_of(settings)
        """What the cached values are cached for; None: nothing is."""
        self._known: dict[str, Any] = {}
        if self.configuration is not None:  # which leaves out keys that were given
            self.keys = _environment_keys(settings)

    def route(self, operation: str, bucket: str, options: Options = NO_OPTIONS) -> Route:
        """As of any control plane."""
        name = self._name(operation, bucket, options)
        found = self._cached(name, _route)
        if found is None:
            found = super().route(operation, bucket, options)
            self._cache(name, found)
            self._cache_reading(bucket)
        return found

    def prepare(self, call: Call) -> tuple[Route, bytes]:
        """As of any control plane; of listings all but what is asked for is cached."""
        params = call.params or {}
        listing = call.operation == LISTING and params.keys() <= LISTING_PARAMETERS.keys()
        name = self._name(LISTING, call.bucket, call.options) if listing else None
        found = self._cached(name, _route)
        if found is not None:
            return _listing(found, params), b""
        route, body = super().prepare(call)
        rest = [pair for pair in route.query.split("&") if pair.partition("=")[0] not in LISTING_PARAMETERS.values()]
        template = replace(route, query="&".join(rest))
        if name is not None and not body and asdict(_listing(template, params)) == asdict(route):
            self._cache(name, template)
        return route, body

    def _cache_reading(self, bucket: str) -> None:
        """Also cache what the next process will ask, while botocore is there: the first process of a flow writes, the
        others read."""
        if self.configuration is None or self.version:
            return
        with suppress(MfstoreError):  # whoever asks is told
            get, listing = (self._name(operation, bucket, {}) for operation in ("GetObject", LISTING))
            if self._cached(get, _route) is None:
                self._cache(get, super().route("GetObject", bucket))
            if self._cached(listing, _route) is None:
                self.prepare(Call(LISTING, bucket, None, params={"Prefix": "x", "MaxKeys": 1}))

    def transport(self) -> Transport:
        """As of any control plane, with the name of the file of certificates."""
        found = self._cached("transport", _transport)
        if found is None:
            found = super().transport()
            if found.verify and found.ca_file is None:
                from mfstore.s3.aws.certificates import authorities

                found = replace(found, ca_file=authorities().path)
            self._cache("transport", found)
        return found

    def credentials(self) -> Credentials | None:
        """As of any control plane."""
        return self.keys or super().credentials()

    def expire(self, credentials: Credentials | None, bucket: str) -> bool:
        """As of any control plane."""
        if self.configuration is not None:
            self.keys = None  # from now on botocore says
        return super().expire(credentials, bucket)

    def _name(self, operation: str, bucket: str, options: Mapping[str, Any]) -> str | None:
        """What a route is cached as; None when it is not to be: for options that are not, or a region just learned."""
        if self.version or not options.keys() <= {*CACHED_OPTIONS}:
            return None
        return json.dumps([operation, bucket, *sorted(options.items())])

    def _cached(self, name: str | None, read: Callable[[Any], T]) -> T | None:
        if name is None or self.configuration is None:
            return None
        if name not in self._known:
            text = self._host_cache.get(f"s3 {self.configuration} {name}")
            try:
                written, value = json.loads(text or "")
                if not 0 <= time.time() - written < VALID_SECONDS:
                    return None
                self._known[name] = read(value)
            except (ValueError, TypeError, KeyError):
                return None
        found: T = self._known[name]
        return found

    def _cache(self, name: str | None, value: Any) -> None:
        if name is not None and self.configuration is not None and _harmless(value):
            self._known[name] = value
            text = json.dumps([time.time(), asdict(value)]).encode()
            self._host_cache.put(f"s3 {self.configuration} {name}", text)


def _harmless(value: Any) -> bool:
    if isinstance(value, Route):
        return "@" not in value.origin and value.signer != BOTOCORE
    return not isinstance(value, Transport) or value.proxy is None


def _route(value: dict[str, Any]) -> Route:
    value["headers"] = tuple((str(name), str(text)) for name, text in value["headers"])
    return Route(**value)


def _transport(value: dict[str, Any]) -> Transport:
    found = Transport(**value)
    if found.ca_file is not None and not os.path.exists(found.ca_file):  # noqa: PTH110
        raise KeyError(found.ca_file)
    return found


def _listing(template: Route, params: Mapping[str, Any]) -> Route:
    pairs = [f"{LISTING_PARAMETERS[name]}={quote(str(value), safe='-._~')}" for name, value in params.items()]
    return replace(template, query="&".join(sorted([*filter(None, template.query.split("&")), *pairs])))


def _environment_keys(settings: ConnectionSettings) -> Credentials | None:
    """Credentials where botocore looks first, unless a profile was asked for."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if settings.profile is not None or not key or not secret or "AWS_CREDENTIAL_EXPIRATION" in os.environ:
        return None
    token = os.environ.get("AWS_SESSION_TOKEN") or os.environ.get("AWS_SECURITY_TOKEN")
    return Credentials(key, secret, token or None)


def configuration_of(settings: ConnectionSettings) -> str | None:
    """All that decides what botocore makes of the settings; None where that is not known, or not simple."""
    simple = (str, bool, type(None))
    given = (
        settings.endpoint_url, settings.region, settings.profile, settings.verify,
        payload_signing(settings.payload_signing),
    )  # fmt: skip
    special = settings.session or settings.client or settings.config or settings.anonymous or settings.client_options
    if special or sys.platform != "linux":
        return None
    if not all(isinstance(value, simple) for value in given):
        return None
    if "AWS_DATA_PATH" in os.environ or os.path.exists(os.path.expanduser(MODELS_DIRECTORY)):  # noqa: PTH110, PTH111
        return None
    release = _release()
    if release is None:
        return None
    variables = {
        name: value for name, value in os.environ.items()
        if name not in KEY_VARIABLES and (name.startswith(CONFIGURING_VARIABLES) or name.upper().endswith("_PROXY"))
    }  # fmt: skip
    files = [_identity(os.environ.get(name) or path) for name, path in CONFIGURING_FILES.items()]
    return json.dumps([release, given, sorted(settings.every_request.items()), files, variables], sort_keys=True)


def _identity(path: str) -> list[Any]:
    path = os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return [path]
    return [path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


@cache
def _release() -> list[Any] | None:
    """Which botocore and which mfstore; None without botocore. Neither is imported for it."""
    spec = importlib.util.find_spec("botocore")
    if spec is None or spec.origin is None:
        return None
    return [mfstore.__version__, _identity(__file__), _identity(spec.origin)]
