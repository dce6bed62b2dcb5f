"""Requests that botocore signs one by one, sent natively; and who signs bodies."""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import boto3
import pytest
from botocore.config import Config

import mfstore
from mfstore._core import crc
from mfstore.errors import BackendError, NotFound
from mfstore.s3 import BulkClient, PutItem
from mfstore.s3.calls import Call
from mfstore.s3.engines.native import NativeEngine
from mfstore.s3.transfers import downloads, uploads
from tests.rigs.control_planes import control_plane
from tests.rigs.native_engine import ask
from tests.rigs.proxies import Proxy
from tests.rigs.raw_server import Server
from tests.rigs.s3_wire import error_body
from tests.servers import boto_client, client_options

MIB = 1 << 20
UNSIGNED = "UNSIGNED-PAYLOAD"
KEYS = {"aws_access_key_id": "a", "aws_secret_access_key": "s", "region_name": "us-east-1"}


@pytest.fixture
def s3_server(radosgw):
    """The one that checks signatures."""
    return radosgw


@pytest.fixture
def seen():
    return []


@pytest.fixture
def session(seen, s3_server):
    """One with a handler that changes each request."""

    def mark(request, event_name, **_):
        request.headers["x-amz-meta-mark"] = str(len(seen))
        seen.append(event_name.rpartition(".")[2])

    found = boto3.Session(
        aws_access_key_id=s3_server.access_key, aws_secret_access_key=s3_server.secret_key,
        region_name=s3_server.region,
    )  # fmt: skip
    found.events.register("before-sign.s3", mark)
    return found


@pytest.fixture
def client(session, s3_server, bucket):
    with BulkClient(bucket, session=session, endpoint_url=s3_server.url) as client:
        yield client


def test_handlers_see_each_request(client, seen, s3_server, bucket, tmp_path):
    (tmp_path / "f").write_bytes(b"file" * 1000)
    items = {"bytes ü": b"b" * 100, "parts": [b"one", memoryview(b"two")], "file": tmp_path / "f", "empty": b""}
    client.put_many([PutItem(key, data, metadata={"A": "b c"}) for key, data in items.items()], content_type="a/b")
    assert seen == ["PutObject"] * 4
    found = boto_client(s3_server).head_object(Bucket=bucket, Key="file")
    assert found["Metadata"]["a"] == "b c" and found["Metadata"]["mark"] in "0123"
    assert found["ContentType"] == "a/b"
    got = {outcome.key: outcome.data for outcome in client.get_many(items)}
    assert got == {"bytes ü": b"b" * 100, "parts": b"onetwo", "file": b"file" * 1000, "empty": b""}
    assert [bytes(one.data) for one in client.get_ranges([("file", 4, 4), ("file", 3990, 100)])] == [
        b"file",
        b"lefilefile"[:10],
    ]
    assert [one.data for one in client.get_many([("file", -4, None)])] == [b"file"]
    assert [one.size for one in client.head_many(["bytes ü", "empty"])] == [100, 0]
    assert client.get_many(["none"], on_error="return").wait()[0].error.__class__ is NotFound
    client.copy({"file": "copy"})
    client.delete_many(["bytes ü", "empty"])
    assert sorted(entry.key for entry in client.list()) == ["copy", "file", "parts"]
    assert {"GetObject", "HeadObject", "CopyObject", "DeleteObjects", "ListObjectsV2"} < set(seen)
    assert client.engine.name == "native"


def test_long_objects_by_parts_and_pieces(client, seen, s3_server, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "LONGEST_SINGLE_PUT", 5 * MIB)
    monkeypatch.setattr(uploads, "PART_BYTES", 5 * MIB)
    monkeypatch.setattr(downloads, "SHORTEST_PIECE", MIB)
    monkeypatch.setattr(downloads, "LONGEST_PIECE", MIB)
    data = os.urandom(11 * MIB)
    (tmp_path / "f").write_bytes(data)
    client.put_many({"memory": [data[:MIB], data[MIB:]], "file": tmp_path / "f"})
    assert seen.count("UploadPart") == 6 and seen.count("CompleteMultipartUpload") == 2
    assert [hashlib.sha256(one.data).digest() for one in client.get_many(["memory", "file"])] == [
        hashlib.sha256(data).digest()
    ] * 2
    client.get_many(["file"], into="files", dest=tmp_path / "there")
    assert (tmp_path / "there" / "file").read_bytes() == data


def test_conditions_hold(client, seen):
    client.put_many({"k": b"1"})
    with pytest.raises(Exception, match="condition|exists"):
        client.put_many([PutItem("k", b"2", if_none_match=True)])
    (old,) = client.head_many(["k"])
    client.put_many([PutItem("k", b"3", if_match=old.etag)])
    assert [one.data for one in client.get_many(["k"])] == [b"3"]


def test_a_file_that_shrinks_is_an_outcome(client, tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 1000)
    outcomes = client.put_many({"f": tmp_path / "f", "k": b"1"}, on_error="return", stream=True)
    os.truncate(tmp_path / "f", 10)
    failed = {outcome.key: outcome.error for outcome in outcomes}
    assert failed["k"] is None
    # Which of the two finds out depends on when the file is looked at.
    assert failed["f"] is None or isinstance(failed["f"], BackendError)


NOT_SIGNED = {"content-length", "host", "expect"}
"""Of what botocore would send: these are the connection's."""


@pytest.mark.parametrize(
    "call",
    [
        Call("GetObject", "b", "k ü", start=1, stop=5, if_match='"e"'), Call("HeadObject", "b", "k"),
        Call("PutObject", "b", "k", body=[b"1", b"23"], checksum="CRC32C", metadata={"a": "b"}, if_none_match=True),
        Call("PutObject", "b", "k", body=[]), Call("UploadPart", "b", "k", body=[b"1"], part=3, upload="u /"),
        Call("DeleteObject", "b", "k"), Call("ListObjectsV2", "b", params={"Prefix": "p/ü"}),
        Call("CopyObject", "b", "k", params={"CopySource": {"Bucket": "b", "Key": "a"}}),
        Call("DeleteObjects", "b", params={"Delete": {"Objects": [{"Key": "a"}]}}),
    ],
    ids=lambda call: call.operation,
)  # fmt: skip
def test_what_arrives_is_what_botocore_signed(s3_env, call):
    """Nothing is added, left out or changed on the way."""
    kept = []

    def keep(request, **_):
        request.headers["X-Late"] = "added when signed"
        request.headers["User-Agent"] = "mine"
        kept.append(request)

    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="s", region_name="us-east-1")
    session.events.register("before-send.s3", keep)
    server = Server(lambda connection, request: connection.reply("200 OK", ["Content-Length: 0"]))
    origin = server.origin
    try:
        control = control_plane(session, endpoint_url=origin)
        engine = NativeEngine(control, control.transport())
        channel = engine.channel()
        reply = ask(channel, call)
        channel.close()
        engine.close()
    finally:
        server.close()
    (request,), (signed,) = server.requests, kept
    theirs = {name.lower(): _text(value) for name, value in signed.headers.items()}
    ours = dict(request.headers)
    assert {name: ours[name] for name in ours.keys() - NOT_SIGNED} == {
        name: theirs[name] for name in theirs.keys() - NOT_SIGNED
    }
    assert (request.method, origin + request.path) == (signed.method, signed.url)
    assert ours["host"] == origin.removeprefix("http://")
    assert int(ours.get("content-length", 0)) == len(request.body) == int(theirs.get("content-length", 0))
    assert hashlib.sha256(request.body).hexdigest() == theirs["x-amz-content-sha256"]
    if call.operation == "PutObject" and call.checksum:
        assert reply.checksum == ("CRC32C", crc.update("CRC32C", b"123"))


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def test_a_handlers_own_body_is_sent(s3_env):
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="s", region_name="us-east-1")
    session.events.register("provide-client-params.s3.PutObject", lambda params, **_: {**params, "Body": b"another"})
    server = Server(lambda connection, request: connection.reply("200 OK", ["Content-Length: 0", 'ETag: "e"']))
    try:
        with BulkClient("b", session=session, endpoint_url=server.origin, checksum=None) as client:
            client.put_many({"k": b"123"})
    finally:
        server.close()
    (request,) = server.requests
    assert request.body == b"another" and request.headers["content-length"] == "7"
    assert request.headers["x-amz-content-sha256"] == hashlib.sha256(b"another").hexdigest()


def marked(calls):
    """A session with a handler that notes each request."""
    session = boto3.Session(region_name="us-east-1")
    session.events.register("before-sign.s3", lambda request, **_: calls.append(request.url))
    return session


def test_new_credentials_and_another_region_are_learned(s3_env, monkeypatch):
    """The next try is signed anew, by what the last one's answer taught."""

    def answer(connection, request):
        authorization = request.headers["authorization"]
        if "OLD/" in authorization:
            status, code, headers = "400 Bad Request", "ExpiredToken", []
        elif "/us-east-1/" in authorization:
            status, code, headers = "301 Moved", "PermanentRedirect", []
            if request.method == "HEAD":
                # Of the bucket: the engine asks for what the first answer does not say.
                asked.append(request.path)
                connection.reply("200 OK", ["Content-Length: 0", "x-amz-bucket-region: eu-west-1"])
                return
        else:
            connection.reply("200 OK", ["Content-Length: 1"], b"1")
            return
        body = error_body(code)
        connection.reply(status, [f"Content-Length: {len(body)}", *headers], body)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OLD")
    calls, asked = [], []
    server = Server(answer)
    try:
        with BulkClient("b", session=marked(calls), endpoint_url=server.origin) as client:
            assert client.transfers.control.credentials().access_key == "OLD"
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NEW")
            assert [one.data for one in client.get_many(["k"])] == [b"1"]
    finally:
        server.close()
    assert len(server.requests) == len(calls) == 4 and asked == ["/b"]
    assert "Credential=NEW/" in server.requests[-1].headers["authorization"]


def test_a_handler_that_fails_spoils_its_own_item(s3_env):
    def fail(request, **_):
        if request.url.endswith("/bad"):
            raise RuntimeError("not this one")

    session = marked([])
    session.events.register("before-sign.s3.GetObject", fail)
    server = Server(lambda connection, request: connection.reply("200 OK", ["Content-Length: 1"], b"1"))
    try:
        with BulkClient("b", session=session, endpoint_url=server.origin) as client:
            outcomes = client.get_many(["a", "bad", "c"], on_error="return").wait()
    finally:
        server.close()
    assert [one.error is None for one in outcomes] == [True, False, True]
    assert "not this one" in str(outcomes[1].error) and len(server.requests) == 2


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
def test_proxies_of_the_configuration(s3_env, scheme):
    server = Server(lambda connection, request: connection.reply("200 OK", ["Content-Length: 1"], b"1"))
    try:
        with Proxy(scheme) as proxy:
            config = Config(proxies={"http": proxy.url()})
            with BulkClient("b", endpoint_url=server.origin, config=config, **KEYS) as client:
                assert [one.data for one in client.get_many(["k"])] == [b"1"]
                assert client.engine.name == "native"
            assert proxy.tunnels
    finally:
        server.close()


def test_the_same_of_a_store(s3_server, bucket):
    """``mfstore.open`` takes what ``BulkClient`` takes."""
    store = mfstore.open(f"s3://{bucket}/store", payload_signing="never", **client_options(s3_server))
    assert store.get(store.put([1, 2])) == [1, 2]
    assert store.backend.client.options.connection.payload_signing == "never"


@pytest.mark.parametrize("engine", ["native", "aiobotocore"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_whose_bodies_are_signed(s3_server, bucket, engine, scheme):
    """radosgw compares both signature and digest."""
    more = {"endpoint_url": s3_server.url if scheme == "http" else s3_server.https_url, "verify": s3_server.ca_file}
    for signing in ("auto", "always", "never"):
        with BulkClient(
            bucket, engine=engine, payload_signing=signing, **{**client_options(s3_server), **more}
        ) as client:
            client.put_many({"k": b"1" * 1000, "parts": [b"a", b"b"]})
            assert [one.data for one in client.get_many(["k", "parts"])] == [b"1" * 1000, b"ab"]
            client.delete_many(["k"])


@pytest.mark.parametrize("engine", ["native", "aiobotocore"])
@pytest.mark.parametrize(
    ("given", "environment", "config", "signed"),
    [
        (None, None, None, True), (None, "never", None, False), ("always", "never", None, True),
        ("never", None, None, False), ("auto", None, {"payload_signing_enabled": False}, False),
        ("always", None, {"payload_signing_enabled": False}, True),
    ],
)  # fmt: skip
def test_what_is_said_of_a_body_over_http(s3_env, engine, given, environment, config, signed, monkeypatch):
    if environment:
        monkeypatch.setenv("MFSTORE_S3_PAYLOAD_SIGNING", environment)
    server = Server(lambda connection, request: connection.reply("200 OK", ["Content-Length: 0", 'ETag: "e"']))
    try:
        with BulkClient(
            "b", engine=engine, endpoint_url=server.origin, config=Config(s3=config), payload_signing=given, **KEYS
        ) as client:
            client.put_many({"k": b"123"})
    finally:
        server.close()
    (request,) = server.requests
    digest = hashlib.sha256(b"123").hexdigest()
    assert request.headers["x-amz-content-sha256"] == (digest if signed else UNSIGNED)
    assert request.headers["x-amz-checksum-crc64nvme"]


MULTI = """
import sys
from botocore.config import Config
from mfstore.s3 import BulkClient
port = sys.argv[1]
proxies = Config(proxies={"http": f"http://127.0.0.1:{port}"})
client = BulkClient(
    "arn:aws:s3::123456789012:accesspoint/m.mrap", use_ssl=False, config=proxies, region_name="eu-west-1",
    aws_access_key_id="AKID", aws_secret_access_key="secret",
)
client.put_many({"k ü": b"123"})
print(*[bytes(one.data) for one in client.get_many(["k ü", ("k ü", 1, 1)])], client.engine.name)
"""


@pytest.mark.second
@pytest.mark.parametrize("ahead", [0, 7200])
def test_a_multi_region_access_point(s3_env, python, ahead):
    """Signed by awscrt, which botocore needs for it, for all regions; sent natively to the global endpoint. By the
    service's clock, once that is known."""
    skewed = []

    def answer(connection, request):
        now = datetime.now(UTC) + timedelta(seconds=ahead)
        sent = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(now - sent) > timedelta(minutes=15):
            skewed.append(server.requests.pop())
            date, body = f"Date: {format_datetime(now, usegmt=True)}", error_body("RequestTimeTooSkewed")
            connection.reply("403 Forbidden", [date, f"Content-Length: {len(body)}"], body)
        elif request.method == "PUT":
            connection.reply("200 OK", ["Content-Length: 0", 'ETag: "e"'])
        elif "range" in request.headers:
            connection.reply(
                "206 Partial Content", ["Content-Length: 1", "Content-Range: bytes 1-1/3", 'ETag: "e"'], b"2"
            )
        else:
            connection.reply("200 OK", ["Content-Length: 3", 'ETag: "e"'], b"123")

    server = Server(answer)
    try:
        printed = python(MULTI, server.origin.rpartition(":")[2], env={"BOTO_DISABLE_CRT": "false"})
    finally:
        server.close()
    assert printed.split() == ["b'123'", "b'2'", "native"]
    assert len(server.requests) == 3 and len(skewed) == bool(ahead)
    for request in server.requests:
        assert request.path == "http://m.mrap.accesspoint.s3-global.amazonaws.com/k%20%C3%BC"
        assert request.headers["host"] == "m.mrap.accesspoint.s3-global.amazonaws.com"
        assert request.head.lower().count(b"\r\nhost:") == 1
        assert request.headers["authorization"].startswith("AWS4-ECDSA-P256-SHA256 Credential=AKID/")
        assert request.headers["x-amz-region-set"] == "*"
    put = server.requests[0]
    assert put.body == b"123" and put.headers["x-amz-checksum-crc64nvme"]
    assert put.headers["x-amz-content-sha256"] == hashlib.sha256(b"123").hexdigest()
