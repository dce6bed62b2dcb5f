"""The servers do what other tests rely on, found out with boto3: they notice what is wrong, and none is left behind."""

import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import botocore.exceptions
import pytest

from mfstore.testing import NetworkFault
from mfstore.testing.actions import FlipRequest, IgnoreRange, LoseResponse, WrongObject
from tests import ROOT, conftest
from tests.servers import Azurite, FakeGcs, Ministack, Missing, Nginx, Radosgw, boto_client
from tests.servers.base import PREFIX, need

pytestmark = pytest.mark.server


@pytest.fixture
def client_of():
    """Make boto3 clients that are closed at the end."""
    clients = []

    def make(*arguments, **options):
        clients.append(boto_client(*arguments, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(client_of, s3_server):
    return client_of(s3_server)


def refused(call, **parameters):
    """The status and code of the error that the call must raise."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**parameters)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def test_objects(client, bucket):
    client.put_object(Bucket=bucket, Key="a/b c+ü%", Body=b"0123456789", Metadata={"some": "thing"})
    found = client.get_object(Bucket=bucket, Key="a/b c+ü%", Range="bytes=2-4")
    assert (found["Body"].read(), found["ContentRange"], found["Metadata"]) == (
        b"234",
        "bytes 2-4/10",
        {"some": "thing"},
    )
    assert [item["Key"] for item in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["a/b c+ü%"]
    assert refused(client.get_object, Bucket=bucket, Key="none") == (404, "NoSuchKey")


def test_wrong_credentials(client_of, s3_server, bucket):
    wrong = client_of(s3_server, aws_secret_access_key="wrong" * 8)
    unknown = client_of(s3_server, aws_access_key_id="AKIAUNKNOWNUNKNOWN00")
    for client in (wrong, unknown):
        assert refused(client.list_objects_v2, Bucket=bucket)[0] == 403
        assert refused(client.put_object, Bucket=bucket, Key="k", Body=b"1")[0] == 403


def test_a_signature_is_for_one_request(client_of, s3_server, bucket):
    client = client_of(s3_server)
    for key in ("a", "b"):
        client.put_object(Bucket=bucket, Key=key, Body=b"1")
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a"})
    assert urllib.request.urlopen(url, timeout=30).read() == b"1"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url.replace("/a?", "/b?"), timeout=30)
    caught.value.close()
    assert caught.value.code == 403


@pytest.mark.parametrize("size", [10, 300_000])
def test_radosgw_refuses_a_body_other_than_the_signed(radosgw, client_of, fault_proxy_of, size):
    name = radosgw.create_bucket(f"flip-{size}")
    proxy = fault_proxy_of(radosgw, [NetworkFault(action=FlipRequest(7), method="PUT")])
    client = client_of(radosgw, endpoint_url=proxy.url)
    assert refused(client.put_object, Bucket=name, Key="k", Body=bytes(size)) == (400, "XAmzContentSHA256Mismatch")
    proxy.faults = ()
    wrong = "AAAAAAAAAAAAAAAAAAAAAA=="
    assert refused(client.put_object, Bucket=name, Key="k", Body=bytes(size), ContentMD5=wrong) == (400, "BadDigest")
    assert client.list_objects_v2(Bucket=name)["KeyCount"] == 0


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256"])
def test_ministack_refuses_a_body_other_than_the_checksum(ministack, client_of, fault_proxy_of, algorithm):
    name = ministack.create_bucket(f"flip-{algorithm.lower()}")
    proxy = fault_proxy_of(ministack, [NetworkFault(action=FlipRequest(7), method="PUT", nth=1)])
    client = client_of(ministack, endpoint_url=proxy.url)
    put = {"Bucket": name, "Key": "k", "ChecksumAlgorithm": algorithm}
    # boto3 sends it as a trailer unless it is given
    value = {"CRC32": "JvlC7w==", "SHA256": "AcqK7t7m4gFHCh4TMoFgAQTlJ4VQ9YYWWXAHVs6XIEg="}
    status, _ = refused(client.put_object, Body=bytes(100), **{f"Checksum{algorithm}": value[algorithm]}, **put)
    assert status == 400
    assert client.list_objects_v2(Bucket=name)["KeyCount"] == 0
    assert f"x-amz-checksum-{algorithm.lower()}" in proxy.log[0].headers
    client.put_object(Body=bytes(100), **put)
    head = client.head_object(Bucket=name, Key="k", ChecksumMode="ENABLED")
    assert head[f"Checksum{algorithm}"]


def test_a_race_to_create_has_one_winner(client, bucket):
    won, lost = [], []
    barrier = threading.Barrier(16)

    def race(number):
        barrier.wait()
        try:
            client.put_object(Bucket=bucket, Key="k", Body=b"%d" % number, IfNoneMatch="*")
            won.append(number)
        except botocore.exceptions.ClientError as error:
            lost.append(error.response["ResponseMetadata"]["HTTPStatusCode"])

    threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert set(lost) <= {409, 412}
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"%d" % won[0]


def test_https(s3_server, client_of, bucket, ca_file):
    client = client_of(s3_server, secure=True)
    client.put_object(Bucket=bucket, Key="k", Body=bytes(3 << 20))
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == bytes(3 << 20)
    named = client_of(s3_server, endpoint_url=s3_server.https_url.replace("127.0.0.1", "localhost"), verify=ca_file)
    assert named.head_object(Bucket=bucket, Key="k")["ContentLength"] == 3 << 20
    stranger = client_of(s3_server, secure=True, verify=ssl.get_default_verify_paths().openssl_cafile)
    with pytest.raises(botocore.exceptions.SSLError):
        stranger.head_object(Bucket=bucket, Key="k")


def test_signatures_pass_through_the_proxy(s3_server, client_of, bucket, fault_proxy):
    proxy = fault_proxy(latency=0.001)
    client = client_of(s3_server, endpoint_url=proxy.url)
    for body in (b"", b"1", bytes(9 << 20)):
        client.put_object(Bucket=bucket, Key="k ü", Body=body)
        assert client.get_object(Bucket=bucket, Key="k ü")["Body"].read() == body
    upload = client.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    where = {"Bucket": bucket, "Key": "parts", "UploadId": upload}
    etag = client.upload_part(PartNumber=1, Body=bytes(5 << 20), **where)["ETag"]
    client.complete_multipart_upload(MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}, **where)
    assert len(proxy.requests("PUT", query="partNumber=1")) == 1
    assert refused(client.get_object, Bucket=bucket, Key="none") == (404, "NoSuchKey")
    assert [entry.status for entry in proxy.log] == [200] * 9 + [404]
    wrong = client_of(s3_server, endpoint_url=proxy.url, aws_secret_access_key="wrong")
    assert refused(wrong.get_object, Bucket=bucket, Key="k ü")[0] == 403


def test_requests_that_the_proxy_signs(s3_server, client_of, bucket, fault_proxy):
    proxy = fault_proxy()
    client = client_of(s3_server, endpoint_url=proxy.url)
    for key in ("a", "b"):
        client.put_object(Bucket=bucket, Key=key, Body=key.encode() * 10)
    proxy.faults = [NetworkFault(action=WrongObject(f"/{bucket}/b"), path="/a$", nth=1)]
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"b" * 10
    proxy.faults = [NetworkFault(action=IgnoreRange())]
    found = client.get_object(Bucket=bucket, Key="a", Range="bytes=2-3")
    assert (found["ResponseMetadata"]["HTTPStatusCode"], found["Body"].read()) == (200, b"a" * 10)


def test_a_lost_response_took_effect(s3_server, client_of, client, bucket, fault_proxy):
    proxy = fault_proxy([NetworkFault(action=LoseResponse(), method="PUT", count=1)])
    through = client_of(s3_server, endpoint_url=proxy.url)
    with pytest.raises(botocore.exceptions.ConnectionClosedError):
        through.put_object(Bucket=bucket, Key="k", Body=b"there", IfNoneMatch="*")
    assert refused(through.put_object, Bucket=bucket, Key="k", Body=b"there", IfNoneMatch="*") == (
        412,
        "PreconditionFailed",
    )
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"there"


def test_nginx(nginx, client_of):
    name = nginx.create_bucket("some")
    (Path(nginx.root) / name / "before").write_bytes(b"beforehand")
    for secure in (False, True):
        client = client_of(nginx, secure=secure)
        client.put_object(Bucket=name, Key="a/k", Body=bytes(1 << 20))
        assert client.get_object(Bucket=name, Key="a/k", Range="bytes=5-14")["Body"].read() == bytes(10)
        assert client.get_object(Bucket=name, Key="before")["Body"].read() == b"beforehand"
        assert refused(client.get_object, Bucket=name, Key="none")[0] == 404
        client.delete_object(Bucket=name, Key="a/k")


@pytest.mark.parametrize("kind", [Radosgw, Ministack, Nginx])
def test_several_run_side_by_side_and_leave_nothing(kind, request):
    request.getfixturevalue(kind.name)  # one that runs already; and skips if there can be none
    with kind() as one:
        name = one.create_bucket("mine")
        pids = [process.pid for process in one._processes]
        directory = one.directory
        if kind is not Nginx:
            other = request.getfixturevalue(kind.name)
            client = boto_client(other)
            assert name not in [item["Name"] for item in client.list_buckets()["Buckets"]]
            client.close()
    assert not directory.exists()
    assert all(gone(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="a child learns of its parent's death on Linux only")
@pytest.mark.parametrize("kind", [Radosgw, Ministack, Nginx, Azurite, FakeGcs])
def test_servers_die_with_a_killed_process(kind, request):
    request.getfixturevalue(kind.name)
    code = f"""
import subprocess, sys
from tests.servers import {kind.__name__}
with {kind.__name__}() as server:
    pids = [process.pid for process in server._processes]
    found = subprocess.run(["pgrep", "-P", ",".join(map(str, pids))], capture_output=True, text=True).stdout.split()
    print(server.directory, *pids, *found, flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        directory, *pids = process.stdout.readline().split()
        assert pids
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not all(gone(int(pid)) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [pid for pid in pids if not gone(int(pid))] == []
    with Ministack():  # whoever starts next clears up
        assert not Path(directory).exists()


def gone(pid):
    """Whether there is no such process, or only what is left for its parent to see."""
    try:
        return re.search(r"^State:\s+[ZX]", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE) is not None
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_what_is_not_installed_is_named():
    with pytest.raises(Missing, match=r"no-such-program not found. Run:  install it"):
        need(["sh", "no-such-program"], "install it")


@pytest.mark.parametrize(
    ("ci", "root", "outcome"), [(None, False, "skip"), ("true", False, "error"), (None, True, "error")]
)
def test_only_a_developers_machine_may_skip(monkeypatch, ci, root, outcome):
    class Absent(Nginx):
        def _start(self):
            need(["no-such-program"], "install it")

    monkeypatch.delenv("CI", raising=False)
    if ci:
        monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    with pytest.raises((Missing, pytest.skip.Exception), match="install it") as caught:
        next(conftest.started(Absent()))
    assert (caught.type is Missing) == (outcome == "error")
    assert not list(Path("/dev/shm").glob(f"{PREFIX}{os.getpid()}-absent*"))
