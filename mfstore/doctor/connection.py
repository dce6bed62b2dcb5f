"""How a service is reached: its TLS, its clock, its region, and who it takes us for."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mfstore.display.amounts import duration
from mfstore.doctor.findings import Finding
from mfstore.errors import MfstoreError
from mfstore.records import NamedTuple
from mfstore.s3.aws.errors import without_passwords
from mfstore.s3.urls import on_loopback

if TYPE_CHECKING:
    from mfstore.backends.buckets import BucketBackend
    from mfstore.backends.s3.backend import S3Backend

PATIENCE = 15.0
"""Seconds for a connection, and for its answer."""
DOUBTFUL_SKEW, BROKEN_SKEW = 300.0, 900.0
"""Seconds. S3 refuses what is signed 15 minutes off; mfstore then learns the difference, other programs do not."""
SOON = 30 * 86400.0
"""Seconds before its end in which a certificate is told to end soon."""


class Answer(NamedTuple):
    """What a service says to a request that anybody may make."""

    seconds: float = 0.0
    """From the first packet to the answer."""
    tls: str = ""
    """Its version, as ``TLSv1.3``; empty: the connection is not encrypted."""
    expires: float | None = None
    """When its certificate ends, since the epoch."""
    skew: float | None = None
    """Seconds that its clock is ahead of this machine's; None: it does not tell."""
    server: str = ""
    """The name that it gives itself."""
    error: str = ""
    """Why there is no answer."""


def asked(url: str, verify: Any = True, proxy: str | None = None) -> Answer:
    """Make a request that needs no credentials."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    begin = time.perf_counter()
    try:
        with closing(_connection(parts.scheme, host, port, verify, proxy)) as connection:
            sent = time.time()
            connection.request("HEAD", "/" if proxy is None or parts.scheme == "https" else url)
            answer = connection.getresponse()
            received = time.time()
            found = connection.sock
            tls = found.version() or "" if isinstance(found, ssl.SSLSocket) else ""
            expires = None
            if isinstance(found, ssl.SSLSocket) and (certificate := found.getpeercert()):
                expires = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
            skew = skew_in(answer.headers.get("Date"), sent, received)
            return Answer(time.perf_counter() - begin, tls, expires, skew, answer.headers.get("Server") or "")
    except (OSError, http.client.HTTPException, ssl.SSLError, socket.gaierror) as error:
        by = f", by the proxy {without_passwords(proxy)}" if proxy is not None else ""
        return Answer(error=f"{error or type(error).__name__}{by}")


def _connection(scheme: str, host: str, port: int, verify: Any, proxy: str | None) -> http.client.HTTPConnection:
    through = urlsplit(proxy) if proxy else None
    where = (through.hostname or "", through.port or 3128) if through is not None else (host, port)
    if scheme != "https":
        return http.client.HTTPConnection(*where, timeout=PATIENCE)
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(*where, timeout=PATIENCE, context=context)
    if through is not None:
        user = base64.b64encode(f"{through.username}:{through.password or ''}".encode()).decode()
        headers = {"Proxy-Authorization": f"Basic {user}"} if through.username else {}
        connection.set_tunnel(host, port, headers)
    return connection


def skew_in(date: str | None, sent: float, received: float) -> float | None:
    """How far a service's clock is ahead, by the Date of an answer to a request that was sent and received at these
    times. It has whole seconds, cut off."""
    try:
        there = parsedate_to_datetime(date).timestamp() if date else None
    except (ValueError, TypeError):
        return None
    if there is None:
        return None
    # Anything between is no difference that can be told.
    if there > received:
        return there - received
    return min(0.0, there + 1.0 - sent)


def judged(url: str, answer: Answer, now: float, service: str = "S3") -> Iterator[Finding]:
    """What to think of it."""
    if answer.error:
        yield Finding(
            "connection", f"{url}: {answer.error}", "broken",
            "Check the endpoint, its port, and whether a proxy is needed", facts={"error": answer.error},
        )  # fmt: skip
        return
    named = f", {answer.server}" if answer.server else ""
    yield Finding(
        "connection", f"{url}{named}, {1000 * answer.seconds:.0f} ms to the first answer",
        facts={"endpoint": url, "server": answer.server, "milliseconds": round(1000 * answer.seconds)},
    )  # fmt: skip
    yield _tls(url, answer, now)
    if answer.skew is None:
        yield Finding("clock", "the service does not tell its time", "absent")
    else:
        yield clock(answer.skew, service)


def _tls(url: str, answer: Answer, now: float) -> Finding:
    facts = {"version": answer.tls or None, "expires": answer.expires}
    if urlsplit(url).scheme != "https":
        if on_loopback(url):
            return Finding("TLS", "none, which does no harm within this machine", facts=facts)
        hint = "Whoever is on the way reads and changes what is stored: name an endpoint that begins with https://"
        return Finding("TLS", "none: nothing is encrypted on the way", "doubtful", hint, facts=facts)
    if answer.expires is None:
        return Finding("TLS", f"{answer.tls}, certificates are not verified", "doubtful", facts=facts)
    left = answer.expires - now
    text = f"{answer.tls}, the certificate ends {time.strftime('%Y-%m-%d', time.gmtime(answer.expires))}"
    if left < SOON:
        return Finding("TLS", f"{text}, in {duration(max(left, 0.0))}", "doubtful", "Have it renewed", facts=facts)
    return Finding("TLS", text, facts=facts)


def clock(skew: float, service: str = "S3") -> Finding:
    """What to think of a difference between the clocks."""
    facts = {"seconds": round(skew, 1)}
    if abs(skew) < 2.0:
        return Finding("clock", "as the service's", facts=facts)
    text = f"{duration(abs(skew))} {'behind' if skew > 0 else 'ahead of'} the service's"
    hint = "Let NTP set it"
    fix = "timedatectl set-ntp true"
    if abs(skew) > BROKEN_SKEW:
        return Finding("clock", text, "broken", f"{service} refuses what is signed by it. {hint}", fix, facts)
    if abs(skew) > DOUBTFUL_SKEW:
        return Finding("clock", text, "doubtful", f"{service} refuses what is 15 min off. {hint}", fix, facts)
    return Finding("clock", text, facts=facts)


def connection(backend: S3Backend) -> Iterator[Finding]:
    """The service behind a place."""
    from mfstore.s3.aws import sessions

    settings = backend.client.options.connection
    session = sessions.session_for(settings)
    config = sessions.config_for(settings)
    endpoint = endpoint_of(backend)
    try:
        verify, _ = sessions.trust(settings, session)
        if verify is True:
            from mfstore.s3.aws.certificates import authorities

            verify = str(authorities().path)
        proxy = sessions.transport_for(settings, session, config, endpoint).proxy
    except MfstoreError as error:
        yield Finding("connection", error.message, "broken", error.hint or "")
        return
    if proxy is not None and not proxy.startswith("http://"):
        scheme = proxy.partition(":")[0]
        yield Finding("connection", f"{endpoint}, by a {scheme} proxy: TLS and clock were not looked at", "absent")
    else:
        answer = asked(endpoint, verify, proxy)
        yield from judged(endpoint, answer, time.time())
        if answer.error:  # nobody is there to tell a region, and to wait for that again takes long
            return
    yield from region(backend)


def reached(backend: BucketBackend) -> Iterator[Finding]:
    """The service behind a place in Azure or Google Cloud."""
    endpoint = endpoint_of(backend)
    if "://" not in endpoint:  # which account is meant is not known, as its credentials have said
        return
    try:
        transport = backend.client.transfers.control.transport()
    except MfstoreError as error:
        yield Finding("connection", error.message, "broken", error.hint or "")
        return
    if transport.proxy is not None and not transport.proxy.startswith("http://"):
        scheme = transport.proxy.partition(":")[0]
        yield Finding("connection", f"{endpoint}, by a {scheme} proxy: TLS and clock were not looked at", "absent")
        return
    answer = asked(endpoint, transport.ca_file or transport.verify, transport.proxy)
    yield from judged(endpoint, answer, time.time(), backend.client.service.name)


def endpoint_of(backend: BucketBackend) -> str:
    """Where requests go, without a password in it."""
    from mfstore.s3.calls import Call

    return without_passwords(backend.client.transfers.control.host(Call("ListObjectsV2", backend.bucket)))


def is_aws(endpoint: str) -> bool:
    """Whether an endpoint is AWS's own."""
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def region(backend: S3Backend) -> Iterator[Finding]:
    """The bucket's region against the one that is named here."""
    from mfstore.s3.aws import sessions
    from mfstore.s3.transfers.metadata import ConfigurationJob

    settings = backend.client.options.connection
    here = settings.region or sessions.session_for(settings).get_config_variable("region") or ""
    aws = is_aws(endpoint_of(backend))
    job = ConfigurationJob(0, "HeadBucket", backend.bucket, "HeadBucket")
    (outcome,) = backend.client.transfers.run(iter((job,)))
    there = (outcome.headers or {}).get("x-amz-bucket-region", "")
    if not there and aws:
        job = ConfigurationJob(0, "GetBucketLocation", backend.bucket, "GetBucketLocation")
        (outcome,) = backend.client.transfers.run(iter((job,)))
        if outcome.error is None:
            there = outcome.data.get("LocationConstraint") or "us-east-1"
    yield of_regions(here, there, aws)


def of_regions(here: str, there: str, aws: bool) -> Finding:
    """What to think of the region that is named, and of the bucket's."""
    facts = {"configured": here or None, "bucket": there or None}
    if not there:
        return Finding("region", f"{here or 'none is named'}; the service does not tell the bucket's", facts=facts)
    if not aws or here == there:
        return Finding("region", there if here == there else f"{here or 'none'} here, {there} the bucket", facts=facts)
    return Finding(
        "region", f"the bucket is in {there}, and {here or 'none'} is named here", "doubtful",
        "Each process is sent on with its first request: name the bucket's region",
        f"export AWS_DEFAULT_REGION={there}", facts,
    )  # fmt: skip


# ---- who we are ---------------------------------------------------------------------------


def identity(backend: S3Backend) -> Iterator[Finding]:
    """Whose credentials are used, and whose they are, where a service tells."""
    from mfstore.doctor.aws import METHODS
    from mfstore.s3.aws import botocore_internals as internals
    from mfstore.s3.aws import sessions

    settings = backend.client.options.connection
    if settings.anonymous:
        yield Finding("credentials", "none, as was asked for: requests are not signed")
        return
    try:
        found = backend.client.transfers.control.credentials()
    except MfstoreError as error:
        yield Finding("credentials", error.message, "broken", error.hint or "")
        return
    session = sessions.session_for(settings)
    method = ""
    with suppress(Exception):  # it only says where they came from, which are there
        method = "given" if settings.keys is not None else internals.credentials_without_asking(session) or ""
    key = found.access_key if found is not None else ""
    where = {"given": "given to this command"}.get(method) or f"from {METHODS.get(method, method or 'elsewhere')}"
    temporary = ", temporary" if found is not None and found.token else ""
    yield Finding(
        "credentials", f"{where}: key {masked(key)}{temporary}", facts={"method": method or None, "key": masked(key)}
    )
    endpoint = endpoint_of(backend)
    yield caller(session, settings, is_aws(endpoint))


def masked(key: str) -> str:
    """An access key id, as much of it as tells it from others."""
    return f"{key[:4]}…{key[-4:]}" if len(key) >= 12 else "…"


def caller(session: Any, settings: Any, aws: bool) -> Finding:
    """Who the service for tokens says we are. It is asked where S3 is AWS's, or the configuration names one."""
    from botocore.config import Config

    with suppress(Exception):
        client = session.create_client(
            "sts", region_name=settings.region or session.get_config_variable("region") or "us-east-1",
            config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2}),
            **_keys(settings),
        )  # fmt: skip
        if not aws and is_aws(client.meta.endpoint_url):
            return Finding("identity", "not asked: this is not AWS, and no service for tokens is named", "absent")
        try:
            return of_caller(client.get_caller_identity())
        except Exception as error:
            told = without_passwords(str(error))[:250]
            return Finding("identity", f"the service for tokens does not tell: {told}", "absent")
    return Finding("identity", "there is no service for tokens", "absent")


def _keys(settings: Any) -> dict[str, Any]:
    from mfstore.s3.aws.settings import KEY_OPTIONS

    return {name: settings.client_options[name] for name in KEY_OPTIONS if settings.client_options.get(name)}


def of_caller(answer: Mapping[str, Any]) -> Finding:
    """What GetCallerIdentity says."""
    who = str(answer.get("Arn", ""))
    facts = {"arn": who, "account": answer.get("Account")}
    if who.endswith(":root"):
        hint = "Use a role or a user that may do what it needs: mfstore policy writes what that is"
        return Finding("identity", f"{who}: the account itself, which may do everything", "doubtful", hint, facts=facts)
    return Finding("identity", who, facts=facts)
