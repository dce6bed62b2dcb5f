"""Every use of a part of botocore, boto3 or aiobotocore that its documentation does not promise, and nothing else.

Each function says what it relies on. All of it was seen in botocore 1.36.23 to 1.44.8, with boto3 of the same numbers
and aiobotocore 2.20.0 to 3.10.0. ``tests/s3/aws/test_botocore_internals.py`` tries each on the versions that are
installed, so that a new botocore fails there first and says what is missing.

Imports botocore, which takes 0.1 s: whoever can do without it imports this module inside a function.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

from botocore import handlers as botocore_handlers
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import HeadersDict
from botocore.config import Config
from botocore.exceptions import DataNotFoundError
from botocore.httpsession import get_cert_path
from botocore.loaders import Loader
from botocore.parsers import create_parser
from botocore.session import Session
from botocore.utils import get_environ_proxies

from mfstore.errors import Unsupported
from mfstore.s3.aws.routes import SESSION_SIGNATURES

# Sessions and clients of a user ---------------------------------------------------------------------------------------


def session_of(session: Any) -> Any:
    """The botocore session in a boto3, botocore or aiobotocore session. Unsupported for anything else.

    Relies on ``boto3.Session._session``: boto3 has no public way to its botocore session.
    """
    found = getattr(session, "_session", session)
    if not hasattr(found, "get_config_variable"):
        raise Unsupported(
            f"session must be a boto3, botocore or aiobotocore session, not {type(session).__name__}",
            found=type(session).__module__,
        )
    return _plain(found) if type(found).__module__.startswith("aiobotocore") else found


def _plain(session: Any) -> Session:
    """An aiobotocore session as a botocore session: profile, variables and keys that were set on it by hand. Its own
    credentials and handlers are coroutines, of no use to code that is not.

    Relies on ``AioSession._credentials``, which is None unless ``set_credentials`` was called: there is no way to ask
    for them but a coroutine.
    """
    plain = Session(profile=session.profile)
    for name, value in session.instance_variables().items():
        if name != "profile":
            plain.set_config_variable(name, value)
    default = session.get_default_client_config()
    if default is not None:
        plain.set_default_client_config(default)
    held = getattr(session, "_credentials", None)
    if held is not None and not hasattr(held, "refresh_needed"):
        plain.set_credentials(held.access_key, held.secret_key, held.token)
    return plain


def aio_session(session: Session) -> Any:
    """An aiobotocore session of one's own with the configuration of ``session``, which stays as it is.

    Relies on ``AioSession(profile=)``, which aiobotocore's documentation does not name.
    """
    from aiobotocore.session import AioSession

    own = AioSession(profile=session.profile)
    for name, value in session.instance_variables().items():
        if name != "profile":
            own.set_config_variable(name, value)
    use_quick_loader(own)
    return own


def aio_config(config: Config, http_session: type) -> Any:
    """``config`` as an ``AioConfig`` with that class of HTTP sessions.

    Relies on ``Config._user_provided_options``. ``AioConfig.merge`` does, and before aiobotocore 3 loses the class.
    """
    from aiobotocore.config import AioConfig

    options = dict(config._user_provided_options)
    options.update(connector_args=getattr(config, "connector_args", None), http_session_cls=http_session)
    return AioConfig(**options)


def client_credentials(client: Any) -> Any:
    """The credentials object of a client, which refreshes itself if it can.

    Relies on ``BaseClient._get_credentials()``: there is no public way from a client to its credentials.
    """
    return client._get_credentials()


def give_credentials(session: Any, credentials: Any) -> None:
    """Have a session use ``credentials``, an object that refreshes itself.

    Relies on ``Session._credentials``: the public ``set_credentials`` takes keys only, which do not refresh.
    """
    session._credentials = credentials


OWN_PACKAGES = ("botocore", "boto3", "aiobotocore", "s3transfer", "awscrt", "mfstore")
"""Packages whose event handlers are part of preparing a request, not a user's."""
REQUEST_EVENTS = (
    "provide-client-params",
    "before-parameter-build",
    "before-endpoint-resolution",
    "before-call",
    "request-created",
    "choose-signer",
    "before-sign",
    "before-send",
)
"""Where a handler can change each request: those of one kind have no route then."""


def user_handlers(client: Any, operations: Iterable[str]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Handlers that a user registered for what happens to a request of one of these operations: (event, handler).
    Unsupported when this botocore does not let them be seen.

    Relies on ``client.meta.events._emitter._handlers.prefix_search(event)``: registered handlers can be called and
    removed, not listed.
    """
    emitter = client.meta.events
    trie = getattr(getattr(emitter, "_emitter", emitter), "_handlers", None)
    if trie is None or not hasattr(trie, "prefix_search"):
        raise Unsupported("this botocore does not tell which handlers are registered")
    seen = set()
    for stage in REQUEST_EVENTS:
        for operation in operations:
            event = f"{stage}.s3.{operation}"
            for handler in trie.prefix_search(event):
                function = getattr(handler, "func", handler)
                module = getattr(function, "__module__", None) or type(function).__module__
                if module.partition(".")[0] not in OWN_PACKAGES and (event, id(handler)) not in seen:
                    seen.add((event, id(handler)))
                    yield event, handler


# Credentials that the server refused ----------------------------------------------------------------------------------


def is_refreshable(credentials: Any) -> bool:
    """Whether a credentials object can get new keys: static ones have no ``refresh_needed()``."""
    return hasattr(credentials, "refresh_needed")


def end_of(credentials: Any) -> float | None:
    """When temporary credentials end (time.time()), None where they do not say.

    Relies on ``_expiry_time`` of ``RefreshableCredentials``, without which it is not known.
    """
    end: Any = getattr(credentials, "_expiry_time", None)
    return None if end is None else float(end.timestamp())


def find_credentials_again(session: Any) -> Any:
    """What a session's providers find now, None if nothing.

    Relies on the component "credential_provider" and its ``load_credentials()``: ``Session.get_credentials()`` looks
    once.
    """
    return session.get_component("credential_provider").load_credentials()


ASKING = ("custom-process", "container-role", "iam-role")
"""Providers that start a program or ask a server as soon as they are looked at."""
SERVERS = ("EcsContainer", "Ec2InstanceMetadata")
"""The same of sources that a role is assumed with."""


def credentials_without_asking(session: Session) -> str | None:
    """Which of a new session's providers has credentials, by botocore's word for it, as far as that is known without
    a question over the network; None if it is not. The session is of no use afterwards.

    Relies on the component "credential_provider", whose ``providers`` have a ``METHOD`` each, and on its ``remove()``.
    """
    chain = session.get_component("credential_provider")
    asking = [*ASKING]
    if session.get_scoped_config().get("credential_source") in SERVERS:
        asking.append("assume-role")
    for method in asking:
        chain.remove(method)
    found = chain.load_credentials()
    return None if found is None else found.method


def expire(session: Any, credentials: Any) -> None:
    """Have ``credentials``, found by ``session``, be refreshed when they are next asked for.

    Relies, besides what ``end`` does, on ``providers`` of the component "credential_provider", some of which keep an
    assumed role in a dictionary ``cache``, from which the refresh would be served.
    """
    chain = session.get_component("credential_provider")
    for provider in getattr(chain, "providers", ()):
        cached = getattr(provider, "cache", None)
        if isinstance(cached, dict):
            cached.clear()
    end(credentials)


def end(credentials: Any) -> None:
    """Have credentials be expired.

    Relies on ``RefreshableCredentials._expiry_time``: there is no public way to say so, and in the past is what the
    clock would have made of it.
    """
    credentials._expiry_time = datetime.now(UTC) - timedelta(minutes=1)


# Requests on their way ------------------------------------------------------------------------------------------------


def sign_with(request: Any, credentials: Any) -> None:
    """In a "before-sign" handler: sign ``request`` with ``credentials`` and not with the client's.

    Relies on ``request.context["signing"]["request_credentials"]``.
    """
    request.context.setdefault("signing", {})["request_credentials"] = credentials


def signing_scope(request: Any, region: str, service: str) -> tuple[str, str]:
    """In a "before-sign" handler: region and service that the signature will name; the handler's own say it unless the
    endpoint's rules do.

    Relies on ``request.context["signing"]`` with ``region`` and ``signing_name``.
    """
    context = request.context.get("signing") or {}
    return context.get("region") or region, context.get("signing_name") or service


def trust_checksum(request: Any, header: str, algorithm: str) -> None:
    """In a "before-sign" handler: over TLS leave the body unsigned, as for a checksum of botocore's own making.

    Relies on ``request.context["checksum"]["request_algorithm"]``.
    """
    checksum = request.context.setdefault("checksum", {})
    checksum.setdefault("request_algorithm", {"algorithm": algorithm, "in": "header", "name": header})


def auth_of(request: Any, signer: Any, signing: tuple[str, str, Any], credentials: Any) -> Any:
    """What a client's ``signer`` signs ``request`` with: for region, service and signature version, and with
    ``credentials``, or the keys of a session. Of aiobotocore's a coroutine, and its credentials are aiobotocore's.

    Relies on ``RequestSigner.get_auth_instance(…, request_credentials=, identity_cache=, cache_key=)``.
    """
    region, service, version = signing
    context = request.context.get("signing") or {}
    session = {name: context[name] for name in ("identity_cache", "cache_key") if version in SESSION_SIGNATURES}
    return signer.get_auth_instance(service, region, version, request_credentials=credentials, **session)


def sign_again(request: Any, auth: Any, signing: tuple[str, str, Any], skew: float) -> None:
    """Sign ``request`` again by a clock that is ``skew`` seconds ahead of this machine's. ``signing`` is region,
    service and signature version, ``auth`` is by ``auth_of``. To awscrt, where it is installed, botocore gives no other
    clock than this machine's: its place takes botocore's own signer, which makes the same signature, but for version
    4a, which only awscrt makes.

    Relies on ``S3SigV4Auth`` of ``botocore.auth``, on ``_modify_request_before_signing`` of it, which reads
    ``request.context["timestamp"]``, and on what ``_sign_by_awscrt`` says.
    """
    region, service, version = signing
    if type(auth).__module__.startswith("botocore.crt"):
        if version not in ("v4", "s3v4"):
            _sign_by_awscrt(request, auth, skew)
            return
        auth = S3SigV4Auth(auth.credentials, service, region)
    modify = getattr(auth, "_modify_request_before_signing", None)
    if modify is None:
        return

    def shifted(request: Any) -> None:
        request.context["timestamp"] = (datetime.now(UTC) + timedelta(seconds=skew)).strftime("%Y%m%dT%H%M%SZ")
        modify(request)

    auth._modify_request_before_signing = shifted
    auth.add_auth(request)


def _sign_by_awscrt(request: Any, auth: Any, skew: float) -> None:
    """Sign ``request`` again by awscrt, which takes any time, and gets this machine's from ``auth.add_auth``.

    Relies on that method asking ``get_current_datetime`` of its module, or ``datetime.datetime.utcnow``, and on
    ``X-Amz-Region-Set`` being all that it leaves of an earlier signature.
    """
    shift = timedelta(seconds=skew)

    class _Shifted(datetime):
        @classmethod
        def utcnow(cls) -> Any:
            return datetime.now(UTC).replace(tzinfo=None) + shift

    def get_current_datetime(remove_tzinfo: bool = True) -> datetime:
        return (datetime.now(UTC) + shift).replace(tzinfo=None if remove_tzinfo else UTC)

    clock = {
        "get_current_datetime": get_current_datetime,
        "datetime": SimpleNamespace(datetime=_Shifted, timezone=timezone),
    }
    method = type(auth).add_auth
    shifted = FunctionType(
        method.__code__, {**method.__globals__, **clock}, closure=method.__closure__, argdefs=method.__defaults__
    )
    del request.headers["X-Amz-Region-Set"]
    if hasattr(request.body, "seek"):
        request.body.seek(0)
    shifted(auth, request)


def sign_in_session(request: Any, version: Any, sessions: Any) -> None:
    """In a "before-sign" handler, after botocore's: where the keys of a session sign, have them come from ``sessions``,
    whose ``get_credentials(bucket)`` returns a credentials object.

    Relies on ``request.context["signing"]["identity_cache"]``.
    """
    if version in SESSION_SIGNATURES:
        request.context.setdefault("signing", {})["identity_cache"] = sessions


def sessions_of(request: Any, version: Any) -> Any:
    """In a "before-sign" handler, after botocore's: what the keys of a session come from; None where none sign.

    Relies on ``request.context["signing"]["identity_cache"]``.
    """
    return request.context["signing"]["identity_cache"] if version in SESSION_SIGNATURES else None


def follow_no_redirect(params: dict[str, Any], **_: Any) -> None:
    """A "before-call" handler: have botocore not follow redirections. To learn where a bucket is it asks by a HEAD,
    which it would redirect in turn, and so on: 81 requests where no answer names a region.

    Relies on ``context["s3_redirect"]["redirected"]`` of the request, which says that it was redirected once.
    """
    params.setdefault("context", {}).setdefault("s3_redirect", {})["redirected"] = True


REGION_BUILTIN = "AWS::Region"
"""In a "before-endpoint-resolution" handler: the name among ``builtins`` of the region that endpoint and signature are
made for. Relied on to send requests for one bucket to another region than the client's."""


# Replies --------------------------------------------------------------------------------------------------------------


def has_xml_body(service_model: Any, operation: str) -> bool:
    """Whether an operation's output is XML in the body.

    Relies on ``output_shape.serialization["payload"]`` and ``members``.
    """
    shape = service_model.operation_model(operation).output_shape
    if shape is None:
        return False
    payload = shape.serialization.get("payload")
    return payload is None or shape.members[payload].type_name not in ("blob", "string")


def parse_output(
    service_model: Any, operation: str, status: int, headers: Mapping[str, str], body: bytes
) -> dict[str, Any]:
    """A reply as the client's method returns it, keys of listings decoded. Raises whatever botocore raises for a body
    that it cannot read.

    Relies on ``create_parser``, ``HeadersDict``, ``resolved_protocol`` (releases without it: ``metadata["protocol"]``)
    and the ``decode_list_object…`` of ``botocore.handlers``.
    """
    shape = service_model.operation_model(operation).output_shape
    protocol = getattr(service_model, "resolved_protocol", None) or service_model.metadata["protocol"]
    answer = {"status_code": status, "headers": HeadersDict(headers), "body": body, "context": {}}
    parsed: dict[str, Any] = create_parser(protocol).parse(answer, shape)
    decode = {
        "ListObjects": botocore_handlers.decode_list_object,
        "ListObjectsV2": botocore_handlers.decode_list_object_v2,
        "ListObjectVersions": botocore_handlers.decode_list_object_versions,
    }.get(operation)
    if decode is not None:
        decode(parsed=parsed, context={"encoding_type_auto_set": True})
    return parsed


# Connections ----------------------------------------------------------------------------------------------------------


def certificates() -> str:
    """The file of the certificate authorities that botocore trusts: certifi's, or its own.

    Relies on ``botocore.httpsession.get_cert_path``.
    """
    return str(get_cert_path(True))


def environment_proxies(url: str) -> Mapping[str, str]:
    """The proxies for ``url`` by scheme, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

    Relies on ``botocore.utils.get_environ_proxies``.
    """
    found: Mapping[str, str] = get_environ_proxies(url)
    return found


# Models ---------------------------------------------------------------------------------------------------------------


def use_quick_loader(session: Any) -> None:
    """Have a session load its models by ``quick_loader``.

    Relies on the component "data_loader", and on botocore asking it no more of ``list_available_services`` than whether
    a service is in it.
    """
    session.register_component("data_loader", quick_loader(session.get_config_variable("data_path")))


def quick_loader(search_path: str | None) -> Loader:
    """A loader as ``botocore.loaders.create_loader`` makes it, without its look into the directories of four hundred
    services, which it takes twice before it loads one: 28 of the 58 ms that a process's first client costs.
    ``search_path`` is the configuration's ``data_path``.

    One for all sessions that look in the same places, as botocore has one for all clients of a session: what it has
    read stays, and spares each further client 90 of 110 ms and 12 of 13 MB.
    """
    given = os.path.expandvars(search_path or "").split(os.pathsep)
    return _loader(tuple(str(Path(path).expanduser()) for path in given if path))


@cache
def _loader(paths: tuple[str, ...]) -> Loader:
    return _QuickLoader(extra_search_paths=list(paths))


class _QuickLoader(Loader):  # type: ignore[misc]
    def list_available_services(self, type_name: str) -> Any:
        return _Services(self, type_name)

    def every_service(self, type_name: str) -> list[str]:
        return super().list_available_services(type_name)  # type: ignore[no-any-return]


class _Services:
    """Whether a service is there is seen in its own directory; only a list of all needs all."""

    def __init__(self, loader: _QuickLoader, type_name: str) -> None:
        self._loader = loader
        self._type = type_name

    def __contains__(self, name: str) -> bool:
        try:
            return bool(self._loader.list_api_versions(name, self._type))
        except DataNotFoundError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._loader.every_service(self._type))
