"""What a configuration came to, kept on this host: so that the next process of a flow, with the same configuration,
need not import botocore and have it make a client (0.15 s of CPU) to learn where its requests go.

botocore stays in charge: all that is kept here it has said before, to a process with the same variables, configuration
files (by their identity, never their content), arguments and release. Credentials are not kept, nor is anything that
can hold a secret: no proxy, no key in a header, no name and password in a URL. They come from the environment, where
botocore looks first, or from botocore.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from typing import Any
from urllib.parse import quote

import mfstore
from mfstore.errors import MfstoreError
from mfstore.host.cache import HostCache, host_cache
from mfstore.s3.aws.control import BotocoreControlPlane
from mfstore.s3.aws.routes import Credentials, Route, Transport
from mfstore.s3.bulk.client import BulkClient
from mfstore.s3.calls import NO_OPTIONS, Call, Options

DAY = 86400.0
"""Seconds after which botocore is asked again, should there be an influence that is not known here."""
VARIABLES = ("AWS_", "BOTO", "HOME", "REQUESTS_CA_BUNDLE")
"""Variables that begin like this, and all that end in ``_PROXY``, are part of a configuration."""
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
"""These are not: they decide how requests are signed, not where they go."""
FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
MODELS = "~/.aws/models"
OPTIONS = ("ContentType", "ServerSideEncryption", "SSEKMSKeyId")
"""Options that a kept route may have; others can be secrets (``SSECustomerKey``)."""
LIST = "ListObjectsV2"
LISTED = {
    "Prefix": "prefix", "MaxKeys": "max-keys", "Delimiter": "delimiter", "StartAfter": "start-after",
    "ContinuationToken": "continuation-token",
}  # fmt: skip
"""What differs between listings of one bucket."""


class KeptClient(BulkClient):
    """A BulkClient whose control plane keeps what it learns in this user's directory, ``MFSTORE_CACHE``."""

    def _make_control(self, **arguments: Any) -> BotocoreControlPlane:
        return KeptControl(host_cache(os.environ.get("MFSTORE_CACHE")), **arguments)


class KeptControl(BotocoreControlPlane):
    """A BotocoreControlPlane that asks botocore only for what ``host`` does not know yet."""

    def __init__(self, host: HostCache, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._host_cache = host
        self._configuration = _configuration(self)
        self._known: dict[str, Any] = {}
        self._environment = _environment(self) if self._configuration is not None else None

    def route(self, operation: str, bucket: str, options: Options = NO_OPTIONS) -> Route:
        """As of any control plane."""
        name = self._name(operation, bucket, options)
        found: Route | None = self._kept(name, _route)
        if found is None:
            found = super().route(operation, bucket, options)
            self._keep(name, found)
            self._keep_others(bucket)
        return found

    def prepare(self, call: Call) -> tuple[Route, bytes]:
        """As of any control plane; of listings all but what is asked for is kept."""
        params = call.params or {}
        listing = call.operation == LIST and params.keys() <= LISTED.keys()
        name = self._name(LIST, call.bucket, call.options) if listing else None
        found = self._kept(name, _route)
        if found is not None:
            return _listing(found, params), b""
        route, body = super().prepare(call)
        rest = [pair for pair in route.query.split("&") if pair.partition("=")[0] not in LISTED.values()]
        template = replace(route, query="&".join(rest))
        if name is not None and not body and asdict(_listing(template, params)) == asdict(route):
            self._keep(name, template)
        return route, body

    def _keep_others(self, bucket: str) -> None:
        """What the next process will ask, while botocore is there: the first of a flow writes, the others read."""
        if self._configuration is None or self.version:
            return
        with suppress(MfstoreError):  # whoever asks is told
            get, listing = (self._name(operation, bucket, {}) for operation in ("GetObject", LIST))
            if self._kept(get, _route) is None:
                self._keep(get, super().route("GetObject", bucket))
            if self._kept(listing, _route) is None:
                self.prepare(Call(LIST, bucket, None, params={"Prefix": "x", "MaxKeys": 1}))

    def transport(self) -> Transport:
        """As of any control plane, with the name of the file of certificates."""
        found: Transport | None = self._kept("transport", _transport)
        if found is None:
            found = super().transport()
            if found.verify and found.ca_file is None:
                from botocore.httpsession import get_cert_path

                found = replace(found, ca_file=get_cert_path(True))
            self._keep("transport", found)
        return found

    def unsupported(self, bucket: str | None = None) -> str | None:
        """As of any control plane."""
        if bucket is None and self._kept("supported", bool):
            return None
        reason = super().unsupported(bucket)
        if bucket is None and reason is None and not self._desk().core.get_config_variable("data_path"):
            self._keep("supported", True)
        return reason

    def credentials(self) -> Credentials | None:
        """As of any control plane."""
        return self._environment or super().credentials()

    def expire(self, credentials: Credentials | None) -> bool:
        """As of any control plane."""
        self._environment = None  # from now on botocore says
        return super().expire(credentials)

    def _name(self, operation: str, bucket: str, options: Mapping[str, Any]) -> str | None:
        """What a route is kept as; None when it is not to be: for options that are not, or a region just learned."""
        if self.version or not options.keys() <= {*OPTIONS}:
            return None
        return json.dumps([operation, bucket, *sorted(options.items())])

    def _kept(self, name: str | None, read: Any) -> Any:
        if name is None or self._configuration is None:
            return None
        if name not in self._known:
            text = self._host_cache.get(f"s3 {self._configuration} {name}")
            try:
                written, value = json.loads(text or "")
                if not 0 <= time.time() - written < DAY:
                    return None
                self._known[name] = read(value)
            except (ValueError, TypeError, KeyError):
                return None
        return self._known[name]

    def _keep(self, name: str | None, value: Any) -> Any:
        if name is not None and self._configuration is not None and _harmless(value):
            self._known[name] = value
            plain = value if value is True else asdict(value)
            text = json.dumps([time.time(), plain]).encode()
            self._host_cache.put(f"s3 {self._configuration} {name}", text)
        return value


def _harmless(value: Any) -> bool:
    if isinstance(value, Route):
        return "@" not in value.origin
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
    pairs = [f"{LISTED[name]}={quote(str(value), safe='-._~')}" for name, value in params.items()]
    return replace(template, query="&".join(sorted([*filter(None, template.query.split("&")), *pairs])))


def _environment(control: BotocoreControlPlane) -> Credentials | None:
    """Credentials where botocore looks first, unless a profile was asked for."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if control._setup.profile is not None or not key or not secret or "AWS_CREDENTIAL_EXPIRATION" in os.environ:
        return None
    token = os.environ.get("AWS_SESSION_TOKEN") or os.environ.get("AWS_SECURITY_TOKEN")
    return Credentials(key, secret, token or None)


def _configuration(control: BotocoreControlPlane) -> str | None:
    """All that decides what botocore makes of a control's arguments; None where that is not known, or not simple."""
    setup = control._setup
    simple = (str, bool, type(None))
    given = (setup.endpoint_url, setup.region, setup.profile, setup.verify)
    if setup.session or setup.client or setup.config or setup.anonymous or setup.options or sys.platform != "linux":
        return None
    if not all(isinstance(value, simple) for value in given):
        return None
    if "AWS_DATA_PATH" in os.environ or os.path.exists(os.path.expanduser(MODELS)):  # noqa: PTH110, PTH111
        return None
    release = _release()
    if release is None:
        return None
    variables = {
        name: value for name, value in os.environ.items()
        if name not in KEYS and (name.startswith(VARIABLES) or name.upper().endswith("_PROXY"))
    }  # fmt: skip
    files = [_identity(os.environ.get(name) or path) for name, path in FILES.items()]
    return json.dumps([release, given, sorted(control._always.items()), files, variables], sort_keys=True)


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
