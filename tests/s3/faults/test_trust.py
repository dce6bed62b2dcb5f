"""The S3 client and whom to trust: regions, clocks, credentials and certificates, cases A17 to A23 of the scoreboard,
on both engines."""

import contextlib
import datetime
import random
import ssl
import threading
from email.utils import format_datetime

import pytest
import trustme
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth

from mfstore.errors import AccessDenied, BackendError, MfstoreError
from mfstore.s3 import BulkClient
from mfstore.testing.actions import Headers, access_denied, expired_token, redirect, wrong_region
from tests.rigs.raw_server import Server
from tests.rigs.s3_faults import KIB, MIB, check_error, fault
from tests.rigs.s3_wire import Wire, error_body

pytestmark = pytest.mark.usefixtures("quick")

DATA = random.Random(3).randbytes(6 * MIB)
SMALL = DATA[: 100 * KIB]


# ---- regions, clocks, credentials -----------------------------------------------------------


@pytest.mark.parametrize("named", [True, False], ids=["named", "to be asked for"])
def test_a17_a_region_is_learned_once(rig, named):
    """The server's own refusals of signatures for another region."""
    keys = [f"k{number}" for number in range(20)]
    for key in keys:
        rig.store(key, SMALL[:100])
    silent = Headers(set={"x-amz-bucket-region": None})
    proxy = rig.proxy(*(() if named else [fault(silent, method="GET")]))
    client = rig.client(proxy, concurrency=4, region_name="eu-west-3")
    assert [outcome.data for outcome in client.get_many(keys)] == [SMALL[:100]] * 20
    refused = [entry for entry in proxy.requests("GET") if entry.status != 200]
    assert 1 <= len(refused) <= 4, "no more than was under way when the first answer came"
    assert bool(proxy.requests("HEAD")) == (not named)
    proxy.clear()
    client.put_many({"new": DATA})
    assert rig.stored("new") == DATA
    assert all(entry.status < 300 for entry in proxy.requests())


def test_a17_a_redirect_loop_ends(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(redirect(region="eu-west-3")))
    (outcome,) = rig.client(proxy).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "eu-west-3")
    assert len(proxy.requests()) <= 6


@pytest.mark.parametrize("work", ["get", "put", "list"])
def test_a17_a_redirection_that_names_no_region_is_asked_about_once(engine, s3_env, work):
    server = Server(lambda connection, request: connection.reply("301 Moved", ["Content-Length: 0"]))
    try:
        client = BulkClient("bucket", engine=engine, endpoint_url=server.origin, region_name="us-east-1")
        with client, pytest.raises(BackendError, match="another region"):
            WORK[work](client)
        assert [request.method for request in server.requests][1:] == ["HEAD"]
    finally:
        server.close()


WORK = {
    "get": lambda client: next(iter(client.get_many(["k"]))),
    "head": lambda client: next(iter(client.head_many(["k"]))),
    "put": lambda client: client.put_many({"k": SMALL}),
    "parts": lambda client: client.put_many({"k": DATA}),
    "list": lambda client: next(client.list()),
    "delete": lambda client: client.delete_many(["k"]),
}


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("status", [301, 302, 307])
def test_a17_a_foreign_host_sees_nothing(rig, status, work):
    rig.store("k", SMALL)
    foreign = rig.proxy()
    proxy = rig.proxy(fault(redirect(location=f"{foreign.url}/elsewhere/k", status=status)))
    with pytest.raises(MfstoreError, match="region"):
        WORK[work](rig.client(proxy))
    assert foreign.requests() == [] and rig.stored("k") == SMALL


def test_a18_wrong_region_in_the_signature(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(wrong_region("eu-west-3")))
    (outcome,) = rig.client(proxy).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "eu-west-3", "region")
    assert len(proxy.requests()) <= 6


@pytest.mark.second
@pytest.mark.parametrize("awscrt", [True, False], ids=["awscrt", "botocore alone"])
@pytest.mark.parametrize("work", ["get", "head", "put", "list"])
def test_a19_a_skewed_clock_is_learned(engine, s3_env, work, awscrt, monkeypatch):
    """By any answer, also that to a HEAD, which has no words; and then requests are signed by the server's clock."""
    if not awscrt:
        monkeypatch.setattr("botocore.auth.AUTH_TYPE_MAPS", {**AUTH_TYPE_MAPS, "s3v4": S3SigV4Auth, "v4": S3SigV4Auth})
    ahead = datetime.timedelta(minutes=20)

    def answer(connection, request):
        now = datetime.datetime.now(datetime.UTC) + ahead
        signed = datetime.datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(
            tzinfo=datetime.UTC
        )
        date, body = f"Date: {format_datetime(now, usegmt=True)}", b""
        if abs(now - signed) > datetime.timedelta(minutes=15):
            body = error_body("RequestTimeTooSkewed") if request.method != "HEAD" else b""
            connection.reply("403 Forbidden", [date, f"Content-Length: {len(body)}"], body)
        else:
            body = b"<ListBucketResult></ListBucketResult>" if request.method == "GET" else b""
            connection.reply("200 OK", [date, f"Content-Length: {len(body)}", 'ETag: "e"'], body)
        return True

    server = Server(answer)
    keys = {"aws_access_key_id": "AKID", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    try:
        with BulkClient("bucket", engine=engine, endpoint_url=server.origin, attempts=2, **keys) as client:
            match work:
                case "get":
                    list(client.get_many(["k"], verify=False))
                case "head":
                    list(client.head_many(["k"]))
                case "put":
                    client.put_many({"k": b""})
                case "list":
                    list(client.list())
            assert abs(client.transfers.control.skew - 1200) < 30
            assert len(server.requests) == 2
    finally:
        server.close()


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "PermanentRedirect"])
def test_a19_all_that_were_under_way_are_sent_again(engine, s3_env, code):
    """The first answer tells the time, or the region. The others, alike and to requests that were signed as the first
    one was, tell it again."""
    all_sent, refused, body = threading.Barrier(8), [], error_body(code)

    def answer(connection, request):
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        headers = [f"Date: {format_datetime(now, usegmt=True)}"]
        if len(refused) < 8:
            refused.append(request)
            all_sent.wait(60)
            status = "403 Forbidden" if code == "RequestTimeTooSkewed" else "301 Moved"
            headers += ["x-amz-bucket-region: eu-west-3"] if status == "301 Moved" else []
            connection.reply(status, [*headers, f"Content-Length: {len(body)}"], body)
        else:
            connection.reply("200 OK", [*headers, "Content-Length: 0", 'ETag: "e"'], b"")
        return True

    server = Server(answer)
    keys = {"aws_access_key_id": "AKID", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    with contextlib.closing(server), BulkClient(
        "bucket", engine=engine, endpoint_url=server.origin, concurrency=8, **keys
    ) as client:  # fmt: skip
        result = client.put_many([("k", b"")] * 8, on_error="return")
    assert [outcome.error for outcome in result] == [None] * 8
    assert result.stats.requests == 16


def test_a19_a_refused_head_with_the_right_time_is_refused_once(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(access_denied(), method="HEAD"))
    (outcome,) = rig.client(proxy).head_many(["k"], on_error="return")
    assert isinstance(outcome.error, AccessDenied) and len(proxy.requests()) == 1


class Refreshing:
    """A botocore session whose credentials are fetched by us, and counted."""

    def __init__(self, server, fetch=None):
        from botocore.credentials import RefreshableCredentials
        from botocore.session import Session

        self.count = 0
        self._lock = threading.Lock()

        def fresh():
            with self._lock:
                self.count += 1
            until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
            found = {"access_key": server.access_key, "secret_key": server.secret_key, "token": None}
            return {**found, "expiry_time": until.isoformat(), **(fetch(self.count) if fetch else {})}

        self.session = Session()
        self.session._credentials = RefreshableCredentials.create_from_metadata(fresh(), fresh, "test")


def test_a20_an_expired_token_is_refreshed_once(rig):
    for number in range(50):
        rig.store(f"k{number}", SMALL[:100])
    # The first credentials are of a session that is over; the server knows them by their key id.
    proxy = rig.proxy(fault(expired_token(), when=lambda request: "AKIAOLD" in str(request.headers)))
    source = Refreshing(rig.server, lambda count: {"access_key": "AKIAOLD"} if count == 1 else {})
    result = rig.client(proxy, session=source.session).get_many([f"k{number}" for number in range(50)])
    assert [o.data for o in result] == [SMALL[:100]] * 50
    assert source.count == 2  # however many were refused at once


def test_a20_a_hundred_threads_refresh_once(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(expired_token(), when=lambda request: "AKIAOLD" in str(request.headers)))
    source = Refreshing(rig.server, lambda count: {"access_key": "AKIAOLD"} if count == 1 else {})
    client, found, start = rig.client(proxy, session=source.session), [], threading.Barrier(100)

    def work():
        start.wait()
        found.append(next(iter(client.get_many(["k"], on_error="return"))))

    threads = [threading.Thread(target=work) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.data for outcome in found] == [SMALL] * 100
    assert source.count == 2


def test_a20_a_token_that_expires_between_the_parts_of_an_upload(rig):
    over = threading.Event()

    def refused(request):
        if "partNumber=2" in request.query:
            over.set()
        return over.is_set() and request.headers.get("x-amz-security-token") == "OLD"

    source = Refreshing(rig.server, lambda count: {"token": "OLD"} if count == 1 else {})
    proxy = rig.proxy(fault(expired_token(), when=refused))
    result = rig.client(proxy, session=source.session).put_many({"k": DATA})
    assert rig.stored("k") == DATA and not rig.uploads()
    assert source.count == 2 and result.stats.retries >= 1


def test_a20_a_failing_refresh_is_a_clear_error(rig):
    def fetch(count):
        if count > 1:
            raise OSError("the credential service is down")
        return {}

    rig.store("k", SMALL)
    proxy = rig.proxy(fault(expired_token()))
    source = Refreshing(rig.server, fetch)
    (outcome,) = rig.client(proxy, session=source.session).get_many(["k"], on_error="return")
    assert isinstance(outcome.error, (AccessDenied, BackendError)) and outcome.error.key == "k"
    assert "credential" in str(outcome.error).lower() or "token" in str(outcome.error)
    assert len(proxy.requests()) <= 2


def test_a20_the_same_expired_token_again_is_not_tried_for_ever(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(expired_token()))
    source = Refreshing(rig.server)
    (outcome,) = rig.client(proxy, session=source.session).get_many(["k"], on_error="return")
    check_error(outcome.error, AccessDenied, rig, "k", "expired")
    assert len(proxy.requests()) <= 3


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_a21_instance_metadata_that_do_not_answer(rig, how, monkeypatch):
    """Asked once for all that is to be done, within botocore's time-out."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "1")
    with Wire() as wire:

        async def silent(reader, writer, request):
            await reader.read()

        wire.answers["/latest/api/token"] = silent
        url = wire.url if how == "silent" else "http://127.0.0.1:9"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        proxy = rig.proxy()
        options = rig.options(proxy.url)
        client = BulkClient(
            rig.bucket, **{name: value for name, value in options.items() if not name.startswith("aws_")}
        )
        result = client.get_many([f"k{number}" for number in range(500)], on_error="return")
        for outcome in result:
            check_error(outcome.error, AccessDenied, rig, outcome.key, "no AWS credentials found", "IMDS")
        client.close()
        assert result.stats.items == 500 and proxy.requests() == []
        # A token, and the credentials without one: once, not for each batch.
        assert len(wire.requests) == (2 if how == "silent" else 0)


def test_bad_credentials_fail_fast(rig):
    """With the first answer: nothing is asked again, and no more than two rounds were under way."""
    proxy = rig.proxy()
    options = {"aws_secret_access_key": "wrong", "concurrency": 4}
    with pytest.raises(AccessDenied, match="secret access key"):
        rig.client(proxy, **options).get_many([f"k{number}" for number in range(1000)]).wait()
    assert len(proxy.requests()) <= 2 * 4
    proxy.clear()
    with pytest.raises(AccessDenied, match="secret access key"):
        rig.client(proxy, **options).put_many({f"k{number}": SMALL for number in range(1000)})
    assert len(proxy.requests()) <= 2 * 4


# ---- TLS --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["authority", "host", "expired"])
def test_a23_a_certificate_that_is_not_good_is_refused_at_once(rig, tmp_path, wrong):
    authority, other = trustme.CA(), trustme.CA()
    host = "elsewhere.example" if wrong == "host" else "127.0.0.1"
    until = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC) if wrong == "expired" else None
    since = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) if wrong == "expired" else None
    issued = authority.issue_cert(host, not_before=since, not_after=until)
    trusted = tmp_path / "ca.pem"
    (other if wrong == "authority" else authority).cert_pem.write_to_path(str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    proxy = rig.proxy(tls=context)
    (outcome,) = rig.client(proxy, verify=str(trusted)).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "TLS", "AWS_CA_BUNDLE")
    assert outcome.error.attempts == 1 and proxy.requests() == []


def test_a23_an_old_version_of_tls_is_refused_at_once(rig, ministack):
    context = ministack.authority.server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    proxy = rig.proxy(tls=context)
    (outcome,) = rig.client(proxy, verify=ministack.ca_file).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "TLS")
    assert outcome.error.attempts == 1 and proxy.requests() == []


def test_a23_no_redirection_leads_from_https_to_http(rig, ministack):
    rig.store("k", SMALL)
    plain = rig.proxy()
    where = redirect(location=f"{plain.url}/{rig.bucket}/k", status=307)
    proxy = rig.proxy(fault(where), tls=ministack.authority.server_context())
    (outcome,) = rig.client(proxy, verify=ministack.ca_file).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "HTTP 307")
    assert proxy.requests() and plain.requests() == []
