"""Each use of a private part of botocore, tried on the versions that are installed: a release that changes one fails
here first."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("botocore")
pytest.importorskip("boto3")

import boto3
import botocore
from botocore.config import Config
from botocore.credentials import Credentials, DeferredRefreshableCredentials, RefreshableCredentials
from botocore.exceptions import UnknownServiceError
from botocore.loaders import create_loader
from botocore.session import Session

from mfstore.errors import Unsupported
from mfstore.s3.aws import botocore_internals as internals
from mfstore.s3.aws.botocore_internals import quick_loader

REGION = "eu-west-1"
OTHERS = Credentials("OTHERS", "secret", "token")


@pytest.fixture(autouse=True)
def env(s3_env):
    return s3_env


def told(part):
    return f"botocore {botocore.__version__}: {part} is not what mfstore.s3.aws.botocore_internals relies on"


def keys(credentials):
    frozen = credentials.get_frozen_credentials()
    return frozen.access_key, frozen.token


class Taken(Exception):
    pass


def sent(operation="get_object", handlers=(), config=None, **params):
    """The request that a botocore client with these (event, handler) would send, and nothing is sent."""
    client = Session().create_client("s3", region_name=REGION, config=config)
    taken = []

    def take(request, **_):
        taken.append(request)
        raise Taken

    for event, handler in handlers:
        client.meta.events.register_first(event, handler)
    client.meta.events.register_last("before-send.s3", take)
    with pytest.raises(Taken):
        getattr(client, operation)(Bucket="bucket", **params)
    (request,) = taken
    return {name.lower(): text if isinstance(text, str) else text.decode() for name, text in request.headers.items()}


def test_the_session_in_a_boto3_session():
    theirs = Session()
    assert internals.session_of(boto3.Session(botocore_session=theirs)) is theirs, told("boto3.Session._session")
    assert internals.session_of(theirs) is theirs
    with pytest.raises(Unsupported, match="not int"):
        internals.session_of(7)


def test_an_aiobotocore_session():
    session = pytest.importorskip("aiobotocore.session").AioSession(profile=None)
    session.set_config_variable("region", "ap-south-1")
    session.set_default_client_config(Config(connect_timeout=7))
    session.set_credentials("SET", "secret", "token")
    plain = internals.session_of(session)
    assert type(plain) is Session
    assert plain.get_config_variable("region") == "ap-south-1", told("Session.instance_variables()")
    assert plain.get_default_client_config().connect_timeout == 7
    assert keys(plain.get_credentials()) == ("SET", "token"), told("AioSession._credentials")
    untouched = pytest.importorskip("aiobotocore.session").AioSession()
    assert keys(internals.session_of(untouched).get_credentials()) == ("AKIDEXAMPLE", None)


def test_an_aiobotocore_session_of_ones_own():
    pytest.importorskip("aiobotocore")
    session = Session(profile=None)
    session.set_config_variable("region", "ap-south-1")
    own = internals.aio_session(session)
    assert own.get_config_variable("region") == "ap-south-1", told("Session.instance_variables()")
    assert own is not internals.aio_session(session) and own.profile is None

    class Mine:
        pass

    config = internals.aio_config(Config(connect_timeout=7, s3={"addressing_style": "path"}), Mine)
    assert config.http_session_cls is Mine, told("AioConfig(http_session_cls=)")
    assert (config.connect_timeout, config.s3) == (7, {"addressing_style": "path"}), told("_user_provided_options")
    theirs = type(config)(connector_args={"keepalive_timeout": 3}, read_timeout=5)
    again = internals.aio_config(theirs, Mine)
    assert (again.http_session_cls, again.read_timeout) == (Mine, 5)
    assert again.connector_args["keepalive_timeout"] == 3, told("AioConfig.connector_args")


def test_the_credentials_of_a_client():
    client = Session().create_client("s3", region_name=REGION)
    assert keys(internals.client_credentials(client)) == ("AKIDEXAMPLE", None), told("BaseClient._get_credentials()")


def test_credentials_for_a_session():
    session = Session()
    internals.give_credentials(session, OTHERS)
    assert session.get_credentials() is OTHERS, told("Session._credentials")
    client = session.create_client("s3", region_name=REGION)
    assert internals.client_credentials(client) is OTHERS


@pytest.mark.slow
@pytest.mark.parametrize("event", [*internals.REQUEST_EVENTS])
def test_handlers_that_a_user_registered(event):
    def mine(**_):
        pass

    client = Session().create_client("s3", region_name=REGION)
    operations = client.meta.service_model.operation_names
    assert [*internals.user_handlers(client, operations)] == [], told("a handler of botocore's own")
    client.meta.events.register(f"{event}.s3.GetObject", mine)
    found = [*internals.user_handlers(client, operations)]
    assert found == [(f"{event}.s3.GetObject", mine)], told("_emitter._handlers")
    assert [*internals.user_handlers(client, ["PutObject"])] == []
    client = Session().create_client("s3", region_name=REGION)
    client.meta.events.register(f"{event}.*.*", mine)
    assert {handler for _, handler in internals.user_handlers(client, ["PutObject"])} == {mine}, told(
        "prefix_search(event)"
    )


def test_handlers_that_cannot_be_seen():
    class Events:
        pass

    class Client:
        class meta:  # noqa: N801
            events = Events()

    with pytest.raises(Unsupported, match="does not tell which handlers"):
        [*internals.user_handlers(Client(), ["GetObject"])]


def role(key):
    return {
        "access_key": key,
        "secret_key": "s",
        "token": "t",
        "expiry_time": f"{datetime.now(UTC) + timedelta(hours=5):%FT%TZ}",
    }


@pytest.mark.parametrize("kind", [RefreshableCredentials, DeferredRefreshableCredentials])
def test_refreshing_before_the_time(kind):
    answers = iter([role("SECOND"), role("THIRD")])
    more = {} if kind is DeferredRefreshableCredentials else role("FIRST")
    if more:
        more = {**more, "expiry_time": datetime.now(UTC) + timedelta(hours=5)}
    credentials = kind(refresh_using=lambda: next(answers), method="m", **more)
    first = keys(credentials)
    assert internals.is_refreshable(credentials), told("RefreshableCredentials.refresh_needed()")
    assert keys(credentials) == first
    internals.expire(Session(), credentials)
    assert keys(credentials) != first, told("RefreshableCredentials._expiry_time")


def test_an_assumed_role_that_is_cached(env):
    text = "[profile r]\nrole_arn = arn:aws:iam::123456789012:role/r\ncredential_source = Environment\nregion = us-east-1\n"
    (env / "config").write_text(text)
    chain = Session(profile="r").get_component("credential_provider")
    cached = [getattr(provider, "cache", None) for provider in chain.providers]
    assert any(isinstance(found, dict) for found in cached), told("AssumeRoleProvider.cache")
    session = Session(profile="r")
    providers = session.get_component("credential_provider").providers
    caches = [provider.cache for provider in providers if isinstance(getattr(provider, "cache", None), dict)]
    for number, found in enumerate(caches):
        found[f"role{number}"] = {"Credentials": {}}
    internals.expire(
        session,
        RefreshableCredentials(**{**role("A"), "expiry_time": datetime.now(UTC)}, refresh_using=None, method="m"),
    )
    assert not any(caches)


def test_static_credentials_are_looked_for_again(monkeypatch):
    session = Session()
    assert not internals.is_refreshable(session.get_credentials())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ROTATED")
    assert keys(session.get_credentials())[0] == "AKIDEXAMPLE"
    found = internals.find_credentials_again(session)
    assert keys(found)[0] == "ROTATED", told("credential_provider.load_credentials()")


@pytest.mark.parametrize(
    ("profile", "method"),
    [
        ("", None),
        ("aws_access_key_id = A\naws_secret_access_key = b\n", "config-file"),
        ("credential_process = false\n", None),
        ("role_arn = arn:aws:iam::123456789012:role/r\ncredential_source = Ec2InstanceMetadata\n", None),
        ("role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = other\n", "assume-role"),
    ],
)
def test_credentials_that_no_server_is_asked_for(s3_env, monkeypatch, profile, method):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    # Where nothing listens: whoever asks there finds nothing either, and takes longer than a test may.
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9/")
    other = "[profile other]\naws_access_key_id = C\naws_secret_access_key = d\n"
    (s3_env / "config").write_text(f"[default]\n{profile}{other}")
    monkeypatch.setattr("botocore.httpsession.URLLib3Session.send", lambda *_: pytest.fail("a server was asked"))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    assert internals.credentials_without_asking(Session()) == method, told('the component "credential_provider"')


def test_signing_with_other_credentials():
    def sign(request, **_):
        internals.sign_with(request, OTHERS)

    headers = sent(Key="k", handlers=[("before-sign.s3", sign)])
    assert "Credential=OTHERS/" in headers["authorization"], told('context["signing"]["request_credentials"]')
    assert headers["x-amz-security-token"] == "token"


def test_what_the_signature_names():
    scopes = []

    def look(request, region_name, signing_name, **_):
        scopes.append(internals.signing_scope(request, region_name, signing_name))

    def move(builtins, **_):
        builtins[internals.REGION_BUILTIN] = "us-west-2"

    handlers = [("before-sign.s3", look), ("before-endpoint-resolution.s3", move)]
    headers = sent(Key="k", handlers=handlers)
    assert scopes == [("us-west-2", "s3")], told('context["signing"]["region"], or the builtin "AWS::Region"')
    assert "/us-west-2/s3/aws4_request" in headers["authorization"]
    scopes.clear()
    sent(Key="k", handlers=handlers[:1])
    assert scopes == [(REGION, "s3")]


@pytest.mark.second
@pytest.mark.parametrize("trusted", [True, False])
def test_a_checksum_in_place_of_a_signed_body(trusted):
    def trust(request, **_):
        if trusted:
            internals.trust_checksum(request, "x-amz-checksum-crc64nvme", "crc64nvme")

    calm = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    headers = sent(
        "put_object",
        Key="k",
        Body=b"body",
        ChecksumCRC64NVME="AAAAAAAAAAA=",
        handlers=[("before-sign.s3", trust)],
        config=calm,
    )
    assert headers["x-amz-checksum-crc64nvme"] == "AAAAAAAAAAA="
    if trusted:
        assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD", told('context["checksum"]["request_algorithm"]')


def test_signing_by_another_clock():
    scope = []

    def look(request, request_signer, signature_version, region_name, signing_name, **_):
        scope.append((request_signer, (region_name, signing_name, signature_version)))

    def again(request, **_):
        signer, signing = scope[-1]
        internals.sign_again(request, internals.auth_of(request, signer, signing, OTHERS), signing, 7200.0)

    def sign_again(request, **_):
        if scope:
            again(request)

    client = Session().create_client("s3", region_name=REGION)
    taken = []

    def take(request, **_):
        taken.append(request)
        raise Taken

    client.meta.events.register_first("before-sign.s3", look)
    client.meta.events.register_last("request-created.s3", sign_again)
    client.meta.events.register_last("before-send.s3", take)
    with pytest.raises(Taken):
        client.get_object(Bucket="bucket", Key="k")
    stamp = taken[0].headers["X-Amz-Date"]
    stamp = stamp.decode() if isinstance(stamp, bytes) else stamp
    there = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs(there - datetime.now(UTC) - timedelta(hours=2)) < timedelta(minutes=1), told(
        "_modify_request_before_signing"
    )
    authorization = taken[0].headers["Authorization"]
    authorization = authorization.decode() if isinstance(authorization, bytes) else authorization
    assert "Credential=OTHERS/" in authorization, told("get_auth_instance(request_credentials=)")


def test_what_an_answer_says():
    model = Session().create_client("s3", region_name=REGION).meta.service_model
    page = b"<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>a%20b%2B</Key><Size>3</Size></Contents></ListBucketResult>"
    versions = (
        b"<ListVersionsResult><EncodingType>url</EncodingType><Version><Key>a%20b</Key></Version></ListVersionsResult>"
    )
    for operation, body, name in (
        ("ListObjects", page, "Contents"), ("ListObjectsV2", page, "Contents"), ("ListObjectVersions", versions, "Versions"),
    ):  # fmt: skip
        found = internals.parse_output(model, operation, 200, {}, body)
        assert found[name][0]["Key"].startswith("a b"), told(f"botocore.handlers' decoding of {operation}")
    found = internals.parse_output(model, "HeadObject", 200, {"content-length": "3", "x-amz-meta-a": "b"}, b"")
    assert (found["ContentLength"], found["Metadata"]) == (3, {"a": "b"}), told("botocore.awsrequest.HeadersDict")
    with pytest.raises(Exception, match="."):
        internals.parse_output(model, "ListObjectsV2", 200, {}, page[:50])


@pytest.mark.second
def test_which_answers_are_xml():
    model = Session().create_client("s3", region_name=REGION).meta.service_model
    for operation in (
        "ListObjectsV2",
        "CompleteMultipartUpload",
        "DeleteObjects",
        "CopyObject",
        "GetBucketLifecycleConfiguration",
    ):
        assert internals.has_xml_body(model, operation), told(f"output_shape of {operation}")
    for operation in ("GetObject", "GetBucketPolicy", "DeleteBucketLifecycle"):
        assert not internals.has_xml_body(model, operation), told(f"output_shape of {operation}")


def test_certificates():
    assert os.path.getsize(internals.certificates()) > 100_000, told("botocore.httpsession.get_cert_path")


def test_proxies_of_the_environment(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert internals.environment_proxies("https://outside.example")["https"] == "http://proxy:1"
    assert internals.environment_proxies("https://inside.example") == {}, told("botocore.utils.get_environ_proxies")


def test_sessions_share_what_was_loaded():
    sessions = [Session(), Session()]
    for session in sessions:
        internals.use_quick_loader(session)
    one, two = (session.get_component("data_loader") for session in sessions)
    assert one is two is quick_loader(None) and quick_loader("elsewhere") is not one
    assert one.load_service_model("s3", "service-2") is two.load_service_model("s3", "service-2")
    calls = []
    every = type(one).every_service
    type(one).every_service = lambda self, name: calls.append(name) or every(self, name)
    try:
        assert sessions[0].create_client("s3", region_name=REGION).meta.service_model.service_name == "s3"
    finally:
        type(one).every_service = every
    assert not calls, told("what botocore asks of list_available_services")


def test_the_quick_loader_loads_what_botocores_own_does(tmp_path):
    model = tmp_path / "models" / "mine" / "2020-01-01"
    model.mkdir(parents=True)
    (model / "service-2.json").write_text(json.dumps({"version": "2.0", "metadata": {}}))
    theirs, ours = create_loader(str(tmp_path / "models")), quick_loader(str(tmp_path / "models"))
    for service in ("s3", "sts", "mine"):
        assert ours.load_service_model(service, "service-2") == theirs.load_service_model(service, "service-2")
    assert list(ours.list_available_services("service-2")) == theirs.list_available_services("service-2")
    with pytest.raises(UnknownServiceError, match=r"nothing.*mine.*s3"):
        ours.load_service_model("nothing", "service-2")
