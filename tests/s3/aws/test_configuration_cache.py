"""What a configuration came to, kept for the next process: the same as botocore says, and never a secret."""

import json
import os
import subprocess
import sys
import time

import pytest

pytest.importorskip("botocore")

from mfstore.errors import AccessDenied
from mfstore.host.cache import HostCache
from mfstore.s3.aws import configuration_cache
from mfstore.s3.aws.control import BotocoreControlPlane
from mfstore.s3.aws.routes import Credentials
from mfstore.s3.calls import Call, Options
from mfstore.testing import FaultProxy
from tests import ROOT
from tests.rigs.control_planes import cached_control_plane, control_plane

BUCKET = "bucket"
LISTINGS = [
    {"Prefix": "a/b ü+%&=~/", "MaxKeys": 1000},
    {"Prefix": "", "MaxKeys": 7, "Delimiter": "/"},
    {"Prefix": "a/", "MaxKeys": 1000, "StartAfter": "a/é*'()!", "ContinuationToken": "x+/=="},
]


@pytest.fixture(autouse=True)
def env(s3_env, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    return s3_env


@pytest.fixture
def host(tmp_path):
    return HostCache(str(tmp_path / "cache"))


def texts(tmp_path):
    return [path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def fields(route):
    return {name: getattr(route, name) for name in route.__slots__}


def everything(control):
    """All that an engine asks of a control plane."""
    plain = [
        fields(control.route(operation, BUCKET, options))
        for operation in ("GetObject", "PutObject", "HeadObject", "DeleteObject", "UploadPart")
        for options in (Options(), Options(ServerSideEncryption="AES256"))
        if not options or operation == "PutObject"
    ]
    listings = [control.prepare(Call("ListObjectsV2", BUCKET, None, params=params)) for params in LISTINGS]
    transport = control.transport()
    return (
        *(plain, [(fields(route), body) for route, body in listings]),
        *((transport.verify, transport.proxy, transport.connect_timeout), control.credentials()),
    )


class Asked(Exception):
    """Somebody asked botocore."""


@pytest.fixture
def silent(monkeypatch):
    """From now on nobody may ask botocore."""

    def start():
        def process(self):
            raise Asked

        monkeypatch.setattr(BotocoreControlPlane, "process", process)

    return start


@pytest.mark.parametrize(
    "given", [{}, {"endpoint_url": "http://127.0.0.1:9000"}, {"region": "us-west-2"}, {"request_payer": "requester"}]
)
@pytest.mark.parametrize(
    "config", ["", "[default]\ns3 =\n  addressing_style = path\n  use_dualstack_endpoint = true\n"]
)
def test_what_is_kept_is_what_botocore_says(env, host, silent, given, config):
    (env / "config").write_text(config)
    expected = everything(control_plane(**given))
    assert everything(cached_control_plane(host, **given)) == expected
    silent()
    assert everything(cached_control_plane(host, **given)) == expected


@pytest.mark.parametrize(
    "what", ["variable", "file", "credentials file", "argument", "bucket", "options", "day", "release"]
)
def test_what_changes_is_asked_anew(env, host, silent, monkeypatch, what):
    (env / "config").write_text("[default]\nregion = eu-west-1\n")
    everything(cached_control_plane(host))
    silent()
    call, given, bucket, options = "GetObject", {}, BUCKET, Options()
    if what == "variable":
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    elif what == "file":
        (env / "config").write_text("[default]\nregion = eu-west-3\n")
    elif what == "credentials file":
        (env / "credentials").write_text("[default]\nregion = eu-west-3\n")
    elif what == "argument":
        given = {"region": "us-east-2"}
    elif what == "bucket":
        bucket = "other"
    elif what == "options":
        call, options = "PutObject", Options(ServerSideEncryption="aws:kms")
    elif what == "day":
        now = time.time()
        monkeypatch.setattr(configuration_cache.time, "time", lambda: now + configuration_cache.VALID_SECONDS + 1)
    else:
        monkeypatch.setattr(configuration_cache, "_release", lambda: ["another"])
    with pytest.raises(Asked):
        cached_control_plane(host, **given).route(call, bucket, options)


@pytest.mark.parametrize(
    ("variables", "given", "options"),
    [
        ({"HTTPS_PROXY": "http://user:s3cr3t@proxy:3128"}, {}, {}),
        ({"AWS_ENDPOINT_URL_S3": "http://user:s3cr3t@127.0.0.1:9"}, {}, {}),
        ({}, {"endpoint_url": "http://user:s3cr3t@127.0.0.1:9"}, {}),
        ({}, {"aws_access_key_id": "AK", "aws_secret_access_key": "s3cr3t"}, {}),
        ({}, {}, {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "s3cr3t" + "0" * 26}),
        ({"AWS_SECRET_ACCESS_KEY": "s3cr3t", "AWS_SESSION_TOKEN": "s3cr3t"}, {}, {}),
    ],
)
def test_no_secret_is_kept(host, tmp_path, monkeypatch, variables, given, options):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    control = cached_control_plane(host, **given)
    control.transport()
    control.credentials()
    for operation in ("PutObject", "GetObject"):
        control.route(operation, BUCKET, Options(options))
    control.prepare(Call("ListObjectsV2", BUCKET, None, params=LISTINGS[0]))
    found = b"".join(texts(tmp_path))
    for secret in (b"s3cr3t", b"czNjcjN0", b"AKIDEXAMPLE"):
        assert secret not in found
    if not given and "AWS_SECRET_ACCESS_KEY" in variables:
        assert b"eu-west-1" in found, "all else is"


def test_keys_are_those_botocore_takes(env, host, monkeypatch):
    everything(cached_control_plane(host))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ANOTHER")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert (
        cached_control_plane(host).credentials()
        == control_plane().credentials()
        == Credentials("ANOTHER", "secret", "token")
    )
    (env / "credentials").write_text("[p]\naws_access_key_id = FILE\naws_secret_access_key = s\n")
    (env / "config").write_text("[profile p]\n")
    assert cached_control_plane(host, profile="p").credentials() == Credentials("FILE", "s"), "a profile goes first"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "p")
    assert cached_control_plane(host).credentials().access_key == "FILE"
    monkeypatch.delenv("AWS_PROFILE")
    with pytest.raises(AccessDenied):
        cached_control_plane(host).credentials()


def test_keys_the_server_refuses_are_looked_for_again(host, monkeypatch):
    everything(cached_control_plane(host))
    control = cached_control_plane(host)
    refused = control.credentials()
    assert control.expire(refused, BUCKET) is False, "the environment has no others"
    control = cached_control_plane(host)
    assert control.credentials() == refused
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NEWER")
    assert control.expire(refused, BUCKET) is True
    assert control.credentials().access_key == "NEWER"


def test_damaged_and_foreign_entries_are_asked_anew(host, tmp_path):
    expected = everything(cached_control_plane(host))
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-3])
    assert everything(cached_control_plane(host)) == expected
    name = f"s3 {cached_control_plane(host).configuration} "
    for value in (None, 7, [], {}, {"method": "GET"}):
        host.put(name + json.dumps(["GetObject", BUCKET]), json.dumps([time.time(), value]).encode())
        assert fields(cached_control_plane(host).route("GetObject", BUCKET)) == expected[0][0]


def test_a_certificate_file_that_is_gone_is_said(host, tmp_path, monkeypatch):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    assert (
        cached_control_plane(host).transport().ca_file == cached_control_plane(host).transport().ca_file == str(bundle)
    )
    bundle.unlink()
    with pytest.raises(Exception, match="does not exist"):
        cached_control_plane(host).transport()


def test_a_region_that_was_learned_is_not_kept(host, tmp_path):
    control = cached_control_plane(host)
    control.version = 1
    control.route("GetObject", BUCKET)
    assert not [text for text in texts(tmp_path) if b"GET" in text]


SCRIPT = """
import sys
from mfstore import S3
with S3(s3root=sys.argv[1]) as s3:
    s3.put_many([("a", b"1"), ("b", b"2")])
    found = [one.blob for one in s3.get_many(["a", "b"])], sorted(one.key for one in s3.list_paths())
    print(found, s3.get("absent", return_missing=True).exists, any(name.startswith("botocore") for name in sys.modules))
"""


def test_the_second_process_of_a_host_needs_no_botocore(radosgw, tmp_path):
    bucket = radosgw.create_bucket("kept-" + os.urandom(8).hex())
    with FaultProxy(radosgw.url) as proxy:
        environment = {
            **os.environ, "AWS_ENDPOINT_URL_S3": proxy.url, "AWS_ACCESS_KEY_ID": radosgw.access_key,
            "AWS_SECRET_ACCESS_KEY": radosgw.secret_key, "AWS_DEFAULT_REGION": radosgw.region,
            "MFSTORE_CACHE": str(tmp_path / "kept"), "PYTHONPATH": str(ROOT),
        }  # fmt: skip

        def run(**more):
            command = [sys.executable, "-c", SCRIPT, f"s3://{bucket}/x"]
            done = subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        assert run() == "([b'1', b'2'], ['a', 'b']) False True"
        assert run() == "([b'1', b'2'], ['a', 'b']) False False"
        assert run(MFSTORE_CACHE="") == "([b'1', b'2'], ['a', 'b']) False True"
