"""The control plane against botocore: what it would send, what it would say, where it would look."""

import gc
import hashlib
import os
import pickle
import threading
import time
import weakref
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote, urlsplit

import pytest

pytest.importorskip("botocore")

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.session import Session

from mfstore import errors
from mfstore.backends.s3.backend import S3Backend
from mfstore.s3 import BulkClient
from mfstore.s3 import calls as words
from mfstore.s3.aws.routes import BOTOCORE, KEYS, ROUTED, SESSION
from mfstore.s3.calls import Call, Options, Reply
from mfstore.s3.engines.native import NativeEngine
from tests.rigs.control_planes import control_plane, nobody
from tests.rigs.s3_wire import Wire, error_body, respond

REGION = "eu-west-1"
KEY = "some/key ü"
GET = Call("GetObject", "bucket", "k")


@pytest.fixture(autouse=True)
def env(s3_env):
    return s3_env


class Seen(Exception):
    pass


def botocore_client(config=None, **options):
    """A plain botocore client and a list, to which the request goes that it would have sent."""
    client = Session().create_client("s3", config=config, **{"region_name": REGION, **options})
    seen = []

    def stop(request, **_):
        seen.append(request)
        raise Seen

    client.meta.events.register("before-send.s3", stop)
    return client, seen


def as_botocore(client, seen, operation, params):
    with pytest.raises(Seen):
        getattr(client, xform_name(operation))(**params)
    return seen.pop()


def text(value):
    return value.decode() if isinstance(value, bytes) else value


AP = "arn:aws:s3:eu-west-1:123456789012:accesspoint/ap"
MULTI = "arn:aws:s3::123456789012:accesspoint/m.mrap"
LAMBDA = "arn:aws:s3-object-lambda:eu-west-1:123456789012:accesspoint/ol"
DIRECTORY = "data--euw1-az1--x-s3"
SSE_C = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
MATRIX = {
    "virtual host": {},
    "dotted bucket": {"bucket": "dotted.bucket"},
    "path style": {"config": Config(s3={"addressing_style": "path"})},
    "endpoint_url": {"endpoint_url": "http://127.0.0.1:9000"},
    "endpoint_url with a path": {"endpoint_url": "https://gateway.example/s3"},
    "virtual endpoint": {
        "endpoint_url": "https://s3.example",
        "config": Config(s3={"addressing_style": "virtual"}),
    },
    "environment": {"env": {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9100"}},
    "dualstack": {"config": Config(s3={"use_dualstack_endpoint": True})},
    "fips": {"config": Config(use_fips_endpoint=True)},
    "accelerate": {"config": Config(s3={"use_accelerate_endpoint": True})},
    "access point": {"bucket": AP},
    "access point of another region": {
        "bucket": AP.replace("eu-west-1", "us-west-2"),
        "config": Config(s3={"use_arn_region": True}),
    },
    "china": {"region": "cn-north-1"},
    "payload signing": {"config": Config(s3={"payload_signing_enabled": True})},
    "session token": {"env": {"AWS_SESSION_TOKEN": "token"}},
    "options": {"options": {"RequestPayer": "requester", "ExpectedBucketOwner": "123456789012"}},
    "SSE-S3": {"options": {"ServerSideEncryption": "AES256"}},
    "SSE-KMS": {"options": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:k", "BucketKeyEnabled": True}},
    "SSE-C": {"options": SSE_C, "endpoint_url": "https://s3.example"},
    "storage": {"options": {"StorageClass": "GLACIER_IR", "ContentType": "a/b", "ContentEncoding": "gzip"}},
}
OWN = ("authorization", "content-length", "expect", "user-agent", "x-amz-date", "x-amz-content-sha256")
OWN += ("x-amz-security-token", "content-md5", "x-amz-checksum-crc32", "x-amz-sdk-checksum-algorithm")


@pytest.mark.slow
@pytest.mark.parametrize("case", MATRIX)
def test_routes_are_botocores(case, monkeypatch):
    case = dict(MATRIX[case])
    for name, value in case.pop("env", {}).items():
        monkeypatch.setenv(name, value)
    bucket, options, region = case.pop("bucket", "bucket"), case.pop("options", {}), case.pop("region", REGION)
    control = control_plane(region=region, **case)
    calm = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    config = case.pop("config", None)
    client, seen = botocore_client(calm.merge(config) if config else calm, region_name=region, **case)
    for operation in ROUTED:
        route = control.route(operation, bucket, Options(options))
        members = client.meta.service_model.operation_model(operation).input_shape.members
        params = {name: value for name, value in options.items() if name in members}
        params.update(Bucket=bucket, Key=KEY)
        query = ""
        if operation in ("GetObject", "HeadObject"):
            params["ChecksumMode"] = "ENABLED"
        if operation in ("PutObject", "UploadPart"):
            params.update(Body=b"", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
        if operation == "UploadPart":
            params.update(PartNumber=4, UploadId="x y")
            query = "partNumber=4&uploadId=x%20y"
        theirs = as_botocore(client, seen, operation, params)
        url = urlsplit(theirs.url)
        assert route.method == theirs.method
        assert route.origin == f"{url.scheme}://{url.netloc}"
        assert route.path + quote(KEY, safe="/~") == url.path
        ours = [part for part in (*route.query.split("&"), *query.split("&")) if part]
        assert sorted(ours) == sorted(part for part in url.query.split("&") if part)
        sent = {name.lower(): text(value) for name, value in theirs.headers.items()}
        assert f"/{route.region}/{route.service}/aws4_request" in sent["authorization"]
        assert route.sign_payload == (sent["x-amz-content-sha256"] != "UNSIGNED-PAYLOAD")
        kept = {name: value for name, value in sent.items() if name not in OWN and not name.startswith("amz-sdk-")}
        assert dict(route.headers) == kept
        assert [name for name, _ in route.headers] == sorted(name for name, _ in route.headers)


def test_owner_and_payer_go_with_every_request():
    control = control_plane(region=REGION, expected_bucket_owner="123456789012", request_payer="requester")
    for operation in ROUTED:
        headers = dict(control.route(operation, "bucket").headers)
        assert headers["x-amz-expected-bucket-owner"] == "123456789012"
        assert headers["x-amz-request-payer"] == "requester"
    route, _ = control.prepare(Call("ListObjectsV2", "bucket"))
    assert dict(route.headers)["x-amz-request-payer"] == "requester"


def test_checksums_of_the_configuration_leave_no_trailer():
    control = control_plane(region=REGION, config=Config(request_checksum_calculation="when_supported"))
    route = control.route("PutObject", "bucket")
    assert route.headers == ()


def test_routes_are_kept_by_identity():
    control = control_plane(region=REGION)
    one, two = Options(), Options()
    assert control.route("GetObject", "bucket", one) is control.route("GetObject", "bucket", one)
    assert control.route("GetObject", "bucket", one) is not control.route("GetObject", "bucket", two)


@pytest.mark.second
@pytest.mark.parametrize("make", ["boto3", "botocore", "aiobotocore", "client"])
def test_from_sessions_and_clients(make, env, monkeypatch):
    (env / "config").write_text(
        "[profile p]\nregion = ap-south-1\naws_access_key_id = PROFILE\naws_secret_access_key = s\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    if make == "boto3":
        control = control_plane(boto3.Session(profile_name="p"))
    elif make == "botocore":
        control = control_plane(Session(profile="p"))
    elif make == "aiobotocore":
        from aiobotocore.session import AioSession

        control = control_plane(AioSession(profile="p"))
    else:
        client = boto3.Session(profile_name="p").client("s3", config=Config(s3={"addressing_style": "path"}))
        control = control_plane(client=client)
    assert control.credentials().access_key == "PROFILE"
    route = control.route("GetObject", "bucket")
    assert route.region == "ap-south-1"
    assert route.path == ("/bucket/" if make == "client" else "/")


def test_a_clients_endpoint_is_used():
    control = control_plane(client=boto3.client("s3", endpoint_url="http://127.0.0.1:9000", region_name=REGION))
    assert control.route("GetObject", "bucket").origin == "http://127.0.0.1:9000"
    assert control.credentials().access_key == "AKIDEXAMPLE"


def test_explicit_keys_and_anonymous():
    control = control_plane(region=REGION, aws_access_key_id="A", aws_secret_access_key="B", aws_session_token="C")
    assert (control.credentials().access_key, control.credentials().token) == ("A", "C")
    anonymous = control_plane(region=REGION, anonymous=True)
    assert anonymous.credentials() is None and not anonymous.expire(None, "bucket")
    assert anonymous.route("GetObject", "bucket").origin == "https://bucket.s3.eu-west-1.amazonaws.com"
    assert "Authorization" not in dict(anonymous.signed(Call("GetObject", "bucket", "k"), nobody).headers)


def test_nothing_is_imported_early(python):
    assert (
        python(
            "import sys, mfstore, mfstore.s3, mfstore.s3.aws.control as c, mfstore.s3.aws.settings as s, "
            "mfstore.s3.aws.configuration_cache, mfstore.s3.engines.aiobotocore;"
            "c.BotocoreControlPlane(s.ConnectionSettings());"
            "print([m for m in ('botocore', 'boto3', 'aiobotocore', 'aiohttp') if m in sys.modules])"
        ).strip()
        == "[]"
    )


@pytest.fixture
def secret_options(env, monkeypatch):
    """Arguments full of secrets, and nothing else that could sign a request."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    return {
        "endpoint_url": "http://user:TOPSECRET@host:1",
        "config": Config(proxies={"http": "http://user:TOPSECRET@proxy:1"}, connect_timeout=7),
        "aws_access_key_id": "AKID", "aws_secret_access_key": "TOPSECRET", "aws_session_token": "TOPSECRET",
    }  # fmt: skip


def test_secrets_do_not_travel(secret_options, monkeypatch):
    """Neither in a pickled client nor in what its representation shows; the copy says what it needs."""
    client = BulkClient("b", region_name=REGION, **secret_options)
    pickled = pickle.dumps(pickle.loads(pickle.dumps(client)))
    assert b"TOPSECRET" not in pickled and "TOPSECRET" not in repr(client.options)
    copy = pickle.loads(pickled)
    assert copy.options.connection.endpoint_url == "http://host:1" and copy.transfers.control.keys is None
    transport = copy.transfers.control.transport()
    assert (transport.proxy, transport.connect_timeout) == ("http://proxy:1", 7.0)
    with pytest.raises(errors.AccessDenied) as caught:
        list(copy.head_many(["k"]))
    for name in ("aws_secret_access_key", "password in endpoint_url", "password in proxies"):
        assert name in caught.value.hint
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    assert pickle.loads(pickled).transfers.control.credentials().access_key == "a"
    assert client.transfers.control.keys.secret_key == "TOPSECRET"


def test_secrets_of_a_store_do_not_travel(secret_options, monkeypatch):
    backend = S3Backend("s3://b/p", region=REGION, **secret_options)
    pickled = pickle.dumps(pickle.loads(pickle.dumps(backend)))
    assert b"TOPSECRET" not in pickled
    copy = pickle.loads(pickled)
    assert copy.url == backend.url and copy.client.options.connection.endpoint_url == "http://host:1"
    assert copy.client.options.connection.region == REGION
    with pytest.raises(errors.AccessDenied) as caught:
        copy.get("packs/a")
    for name in ("aws_secret_access_key", "password in endpoint_url", "password in proxies"):
        assert name in caught.value.hint


@pytest.mark.parametrize("engine", ["native", "aiobotocore"])
def test_errors_name_no_password(env, engine):
    keys = {"aws_access_key_id": "AKID", "aws_secret_access_key": "s", "region_name": REGION}
    config = Config(proxies={"https": "http://user:TOPSECRET@127.0.0.1:2"})
    for endpoint, options in (
        ("http://user:TOPSECRET@127.0.0.1:1", {}), ("http://user:TOPSECRET@no host", {}),
        ("https://user:TOP@SECRET@127.0.0.1:1", {"config": config}),
    ):  # fmt: skip
        client = BulkClient("b", endpoint_url=endpoint, engine=engine, attempts=1, **keys, **options)
        for work in (lambda: client.put_many({"k": b""}), lambda: list(client.list())):  # noqa: B023
            with pytest.raises(errors.MfstoreError) as caught:
                work()
            assert "SECRET" not in str(caught.value) and "user" not in str(caught.value)


def test_pickling():
    control = control_plane(
        region=REGION,
        endpoint_url="http://h:1",
        config=Config(s3={"addressing_style": "path"}),
        api_version="2006-03-01",
    )
    again = pickle.loads(pickle.dumps(control))
    assert again.route("GetObject", "bucket") is not control.route("GetObject", "bucket")
    assert again.route("GetObject", "bucket").origin == "http://h:1"
    with pytest.raises(errors.NotSerializable, match="session"):
        pickle.dumps(control_plane(boto3.Session()))


# Requests prepared whole


def test_delete_objects_has_an_md5():
    route, body = control_plane(region=REGION).prepare(
        Call("DeleteObjects", "bucket", params={"Delete": {"Objects": [{"Key": "a"}]}})
    )
    import base64

    assert dict(route.headers)["content-md5"] == base64.b64encode(hashlib.md5(body).digest()).decode()
    assert (route.method, route.path, route.query) == ("POST", "/", "delete=")


def test_conditions_of_complete():
    params = {"UploadId": "u", "MultipartUpload": {"Parts": [{"ETag": "e", "PartNumber": 1}]}}
    control = control_plane(region=REGION)
    route, _ = control.prepare(Call("CompleteMultipartUpload", "bucket", "k", params=params, if_none_match=True))
    assert dict(route.headers)["if-none-match"] == "*"
    route, _ = control.prepare(Call("CompleteMultipartUpload", "bucket", "k", params=params, if_match='"e"'))
    assert dict(route.headers)["if-match"] == '"e"'


def test_parameters_that_botocore_refuses():
    control = control_plane(region=REGION)
    with pytest.raises(errors.InvalidKey, match="Bucket"):
        control.route("GetObject", "no bucket!")
    with pytest.raises(errors.InvalidKey):
        control.prepare(Call("ListObjectsV2", "bucket", params={"MaxKeys": "many"}))
    with pytest.raises(errors.Unsupported, match="no operation"):
        control.prepare(Call("MakeCoffee", "bucket"))


# Regions and clocks


def learn(control, call, reply):
    return control.redirect(call, reply, nobody)


def moved(call=GET, status=301, code="PermanentRedirect", region=None, **more):
    headers = {"x-amz-bucket-region": region} if region else {}
    return Reply(call, status, headers=headers, data=error_body(code, **more) if code else b"")


@pytest.mark.parametrize(
    "reply",
    [
        moved(region="us-west-2"),
        moved(code="PermanentRedirect", Region="us-west-2"),
        moved(status=307, code="TemporaryRedirect", region="us-west-2"),
        moved(status=400, code="AuthorizationHeaderMalformed", Region="us-west-2"),
        moved(status=400, code="IllegalLocationConstraintException", region="us-west-2"),
        moved(Call("HeadObject", "bucket", "k"), 400, "", region="us-west-2"),
        moved(Call("HeadObject", "bucket", "k"), 301, "", region="us-west-2"),
    ],
)
def test_regions_are_learned_once(reply):
    control = control_plane(region=REGION)
    assert control.route("GetObject", "bucket").region == REGION
    assert learn(control, reply.call, reply) and control.version == 1
    route = control.route("GetObject", "bucket")
    assert (route.origin, route.region) == ("https://bucket.s3.us-west-2.amazonaws.com", "us-west-2")
    assert control.route("GetObject", "other").region == REGION
    assert not learn(control, reply.call, reply) and control.version == 1  # a loop
    another = Call("GetObject", "bucket", "another")
    assert learn(control, another, moved(another, region="us-west-2")) and control.version == 1  # was under way


def test_what_is_remembered_of_redirections_is_bounded(monkeypatch):
    monkeypatch.setattr("mfstore.s3.aws.regions.REDIRECTS_REMEMBERED", 10)
    control = control_plane(region=REGION)
    for number in range(50):
        call = Call("GetObject", "bucket", f"k{number}")
        assert learn(control, call, moved(call, region=f"us-west-{number % 2 + 2}"))
        assert not learn(control, call, moved(call, region=f"us-west-{number % 2 + 2}"))
    assert len(control.process().regions.redirected) <= 10


def test_a_custom_endpoint_keeps_its_host():
    control = control_plane(region=REGION, endpoint_url="http://127.0.0.1:9000")
    assert learn(control, GET, moved(region="us-west-2"))
    route = control.route("GetObject", "bucket")
    assert (route.origin, route.region) == ("http://127.0.0.1:9000", "us-west-2")


def test_foreign_hosts_are_refused():
    control = control_plane(region=REGION)
    for region in ("evil.example", "x/../y", "us-west-2\n", "", "a" * 64, "evil.example#", "US-WEST-2"):
        call = Call("HeadObject", "bucket", "k", tag=region)
        control.process().regions.asked["bucket"] = True
        reply = Reply(call, 307, headers={"location": "https://evil.example/", "x-amz-bucket-region": region})
        assert not learn(control, call, reply)
    assert not learn(control, GET, moved(Endpoint="evil.example"))
    assert control.route("GetObject", "bucket").origin == "https://bucket.s3.eu-west-1.amazonaws.com"
    assert control.version == 0


def test_the_same_region_is_no_news():
    control = control_plane(region=REGION)
    assert not learn(control, GET, moved(region=REGION))
    assert not learn(control, GET, Reply(GET, 403, data=error_body("AccessDenied")))
    assert not learn(control, GET, Reply(GET, failure=words.RESET))
    arn = Call("GetObject", AP, "k")
    assert not learn(control, arn, moved(arn, region="us-west-2"))


def test_a_region_is_asked_for_with_head():
    with Wire() as wire:
        wire.answers["/bucket"] = respond(400, x_amz_bucket_region="us-west-2")
        control = control_plane(region=REGION, endpoint_url=wire.url)
        engine = NativeEngine(control, control.transport())
        assert control.redirect(GET, moved(), engine.ask)
        engine.close()
        assert [request[:2] for request in wire.requests] == [("HEAD", "/bucket")]
        assert control.route("GetObject", "bucket").region == "us-west-2"


def test_skew():
    control = control_plane(region=REGION)
    there = datetime.now(UTC) + timedelta(hours=2)
    reply = Reply(
        GET, 403, headers={"date": format_datetime(there, usegmt=True)}, data=error_body("RequestTimeTooSkewed")
    )
    assert control.learn_skew(reply) and abs(control.skew - 7200) < 5
    assert not control.learn_skew(reply)
    stamp = dict(control.signed(Call("GetObject", "bucket", "k"), nobody).headers)["X-Amz-Date"]
    assert abs(datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) - there) < timedelta(seconds=10)
    assert not control_plane().learn_skew(
        Reply(GET, 403, headers={"date": "soon"}, data=error_body("RequestTimeTooSkewed"))
    )
    assert not control_plane().learn_skew(Reply(GET, 403, data=error_body("RequestTimeTooSkewed")))


# Connections


def test_proxies(monkeypatch):
    assert control_plane(region=REGION).transport().proxy is None
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    assert control_plane(region=REGION).transport().proxy == "http://proxy.example:3128"
    assert control_plane(region=REGION, endpoint_url="http://h:1").transport().proxy is None
    monkeypatch.setenv("NO_PROXY", "amazonaws.com")
    assert control_plane(region=REGION).transport().proxy is None
    config = Config(proxies={"https": "https://u:p@other.example:1"})
    assert control_plane(region=REGION, config=config).transport().proxy == "https://u:p@other.example:1"


def test_ca_bundles(env, monkeypatch):
    for name in "abcd":
        (env / name).write_text("")
    assert control_plane(region=REGION).transport().ca_file is None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(env / "a"))
    assert control_plane(region=REGION).transport().ca_file == str(env / "a")
    (env / "config").write_text(f"[default]\nca_bundle = {env / 'b'}\n")
    assert control_plane(region=REGION).transport().ca_file == str(env / "b")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(env / "c"))
    assert control_plane(region=REGION).transport().ca_file == str(env / "c")
    assert control_plane(region=REGION, verify=str(env / "d")).transport().ca_file == str(env / "d")
    assert not control_plane(region=REGION, verify=False).transport().verify
    with pytest.raises(errors.Unsupported, match="does not exist"):
        control_plane(region=REGION, verify=str(env / "none")).transport()
    monkeypatch.setenv("AWS_CA_BUNDLE", "")
    with pytest.raises(errors.Unsupported, match="CA bundle"):
        control_plane(region=REGION).transport()


def test_connection_settings():
    config = Config(connect_timeout=2, client_cert=("cert.pem", "key.pem"))
    transport = control_plane(region=REGION, config=config).transport()
    assert (transport.connect_timeout, transport.certificate, transport.private_key) == (2.0, "cert.pem", "key.pem")
    plain = control_plane(region=REGION).transport()
    assert plain.connect_timeout == 5.0 and plain.verify and 1 <= plain.threads <= 4


def test_how_to_reach_a_proxy(env):
    for name in ("ca", "cert"):
        (env / name).write_text("")

    def transport(**given):
        return control_plane(region=REGION, config=Config(proxies_config=given)).transport()

    found = transport(proxy_ca_bundle=str(env / "ca"), proxy_client_cert=(str(env / "cert"), "key"))
    assert (found.proxy_ca_file, found.proxy_certificate, found.proxy_private_key) == (
        str(env / "ca"), str(env / "cert"), "key",
    )  # fmt: skip
    assert transport(proxy_client_cert="both.pem").proxy_certificate == "both.pem"
    with pytest.raises(errors.Unsupported, match="does not exist"):
        transport(proxy_ca_bundle=str(env / "none"))
    with pytest.raises(errors.Unsupported, match="proxy_use_forwarding_for_https"):
        transport(proxy_use_forwarding_for_https=True)


@pytest.mark.parametrize("text", ["socks4://h:1", "socks5://u:p@h:1", "socks5h://h:1"])
def test_proxies_of_other_kinds(text):
    assert control_plane(region=REGION, config=Config(proxies={"https": text})).transport().proxy == text


@pytest.mark.second
@pytest.mark.parametrize(
    ("bucket", "options", "signer", "host", "service"),
    [
        ("bucket", {}, KEYS, "bucket.s3.eu-west-1.amazonaws.com", "s3"),
        ("bucket", {"config": Config(signature_version="s3")}, BOTOCORE, "bucket.s3.eu-west-1.amazonaws.com", "s3"),
        (LAMBDA, {}, KEYS, "ol-123456789012.s3-object-lambda.eu-west-1.amazonaws.com", "s3-object-lambda"),
        (DIRECTORY, {}, SESSION, f"{DIRECTORY}.s3express-euw1-az1.eu-west-1.amazonaws.com", "s3express"),
        (
            DIRECTORY, {"config": Config(s3={"disable_s3_express_session_auth": True})}, KEYS,
            f"{DIRECTORY}.s3express-euw1-az1.eu-west-1.amazonaws.com", "s3express",
        ),
    ],
)  # fmt: skip
def test_who_signs(bucket, options, signer, host, service):
    """By the endpoint rules for the bucket, which no request is sent to learn."""
    control = control_plane(region=REGION, **options)
    for operation in ROUTED:
        route = control.route(operation, bucket)
        assert (route.signer, route.origin, route.service) == (signer, f"https://{host}", service)
        assert route.path == "/" and not [name for name, _ in route.headers if "token" in name]
    listing, _ = control.prepare(Call("ListObjectsV2", bucket))
    assert (listing.signer, listing.origin) == (signer, f"https://{host}")


def test_signatures_that_take_awscrt():
    """With it: tests/s3/engines/test_signed.py. Here the tests' environment hides it from botocore."""
    for bucket, options in ((MULTI, {}), ("bucket", {"config": Config(signature_version="v4a")})):
        with pytest.raises(errors.Unsupported) as caught:
            control_plane(region=REGION, **options).route("GetObject", bucket)
        assert "pip install awscrt" in caught.value.hint


def test_which_operations_of_a_directory_bucket_take_a_session():
    control = control_plane(region=REGION)
    copying = {"CopySource": {"Bucket": DIRECTORY, "Key": "a"}}
    uploading = {"UploadId": "u", "MultipartUpload": {"Parts": [{"ETag": "e", "PartNumber": 1}]}}
    for operation, params, signer in (
        ("CreateSession", {}, KEYS), ("CopyObject", copying, KEYS),
        ("UploadPartCopy", {**copying, "UploadId": "u", "PartNumber": 1}, KEYS),
        ("DeleteObjects", {"Delete": {"Objects": [{"Key": "a"}]}}, SESSION),
        ("CompleteMultipartUpload", uploading, SESSION), ("CreateMultipartUpload", {}, SESSION),
    ):  # fmt: skip
        key = None if operation in ("CreateSession", "DeleteObjects") else "k"
        route, _ = control.prepare(Call(operation, DIRECTORY, key, params=params))
        assert (operation, route.signer, route.service) == (operation, signer, "s3express")
        assert "content-md5" not in dict(route.headers)


@pytest.mark.second
@pytest.mark.parametrize(
    "event", ["before-sign.s3", "before-send.s3.GetObject", "choose-signer.s3.*", "before-call.s3"]
)
@pytest.mark.parametrize("where", ["session", "client"])
def test_user_handlers_are_seen_and_kept(event, where):
    calls = []

    def mine(**_):
        calls.append(1)

    session = boto3.Session(region_name=REGION)
    if where == "session":
        session.events.register(event, mine)
        control = control_plane(session)
    else:
        client = session.client("s3")
        client.meta.events.register(event, mine)
        control = control_plane(client=client)
    # Taking a route would show them a request that is never sent.
    assert control.route("GetObject", "bucket").signer == BOTOCORE and calls == []
    control.signed(Call("GetObject", "bucket", "k"), nobody)
    assert calls == [1]


def test_handlers_of_one_operation_leave_the_others_their_routes():
    session = boto3.Session(region_name=REGION)
    session.events.register("before-sign.s3.CopyObject", lambda **_: None)
    control = control_plane(session)
    assert control.route("GetObject", "bucket").signer == KEYS
    route, body = control.prepare(Call("CopyObject", "bucket", "k", params={"CopySource": "bucket/a"}))
    assert (route.signer, body) == (BOTOCORE, b"")


def test_handlers_of_a_client_come_along_for_every_operation():
    client = boto3.client("s3", region_name=REGION)
    calls = []
    client.meta.events.register("before-sign.s3", lambda **_: calls.append(1))
    control = control_plane(client=client)
    call = Call("CopyObject", "bucket", "k", params={"CopySource": "bucket/a"})
    assert control.prepare(call)[0].signer == BOTOCORE and calls == []
    control.signed(call, nobody)
    assert calls == [1]


def test_after_a_fork():
    control = control_plane(region=REGION)
    learn(control, GET, moved(region="us-west-2"))
    with control._making[1]:
        pid = os.fork()
        if not pid:
            thread = threading.Thread(target=control.route, args=("GetObject", "bucket"))
            thread.start()
            thread.join(20)
            os._exit(0 if not thread.is_alive() and control.route("GetObject", "bucket").region == "us-west-2" else 1)
        assert os.waitpid(pid, 0)[1] == 0


def test_a_route_is_cheap_the_second_time():
    control = control_plane(region=REGION)
    control.route("GetObject", "bucket")
    begin = time.perf_counter()
    for _ in range(1000):
        control.route("GetObject", "bucket")
    assert time.perf_counter() - begin < 5


def test_who_asks_for_a_route_is_not_kept():
    """botocore is left by an exception, which holds on to all frames above: their results are up to GBs."""

    class Results:
        pass

    def ask():
        results = Results()
        control.route("GetObject", "bucket", Options())
        return weakref.ref(results)

    control = control_plane(region=REGION)
    gc.disable()
    try:
        assert ask()() is None
    finally:
        gc.enable()
