"""mfstore.S3: its streams, and the clients its instances share."""

import io
import json
import os
import signal
import time
import uuid

import pytest

import mfstore
from mfstore.errors import Conflict, Unsupported
from mfstore.s3.datatools import clients
from mfstore.s3.datatools.s3 import (
    S3,
    MetaflowS3Exception,
    MetaflowS3NotFound,
)
from tests.rigs.concurrency import in_a_child, in_threads
from tests.rigs.s3_cases import environment_of
from tests.servers import boto_client

# ---- streams ----


def uploads(server, bucket):
    client = boto_client(server)
    try:
        return client.list_multipart_uploads(Bucket=bucket).get("Uploads") or []
    finally:
        client.close()


@pytest.mark.parametrize("engine", ["native", "aiobotocore"])
def test_a_forked_child_that_lets_go_ends_nothing_of_its_parents(s3, monkeypatch, tmp_path, engine):
    """A child that ends by an exception, or collects garbage, closes what it inherited."""
    monkeypatch.setenv("MFSTORE_S3_ENGINE", engine)
    data = os.urandom(40 << 20)
    with S3(s3root=s3._s3root) as place:
        file = place.open_write("written")
        file.write(data)

        def more():
            with pytest.raises(Unsupported, match="another process"):
                file.write(b"more")

        for end in (more, file.close, file.abort, file.__del__):
            assert in_a_child(end) == 0
        file.close()
        assert place.get("written").blob == data
        url = place._s3root
        client = place._client
        items = [(f"{url}/small", b"x"), (f"{url}/large", data)]
        stored = iter(client.put_many(items, stream=True))
        assert next(stored).ok
        assert in_a_child(stored.close) == 0
        assert [outcome.ok for outcome in stored] == [True]
        items = [f"{url}/small", *[f"{url}/large"] * 4]
        files = client.get_many(items, into="files", dest=lambda key: tmp_path / os.urandom(8).hex(), stream=True)
        got = iter(files)
        assert next(got).ok
        assert in_a_child(got.close) == 0
        assert [outcome.ok and os.path.getsize(outcome.path) for outcome in got] == [len(data)] * 4


def test_a_forked_child_goes_on_reading(s3):
    data = os.urandom(12 << 20)
    s3.put("big", data)
    with s3.open_read("big") as file:
        begun = file.read(1 << 20)

        def rest():
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)  # a child that waits for ever is killed
            assert begun + b"".join(iter(lambda: file.read(300_000), b"")) == data

        assert in_a_child(rest) == 0
        assert begun + file.read() == data


def test_read_stream(s3):
    data = os.urandom(12_000_000)
    s3.put("big", data)
    with s3.open("big") as file:
        assert file.readable()
        assert file.seekable()
        assert file.read(10) == data[:10]
        assert file.seek(-5, os.SEEK_END) == len(data) - 5
        assert file.read(100) == data[-5:]
        assert file.read(1) == b""
        assert file.seek(5_000_000) == file.tell() == 5_000_000
        assert file.read(3) == data[5_000_000:5_000_003]
        file.seek(0)
        pieces = list(iter(lambda: file.read(577_777), b""))
        assert b"".join(pieces) == data
        file.seek(1)
        assert file.read() == data[1:]
        buffer = bytearray(1000)
        file.seek(9_999)
        assert file.readinto(buffer) == 1000
        assert buffer == data[9_999:10_999]
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_read_stream_of_text_and_nothing(s3):
    s3.put("lines", "häh\nzwei\n" * 1000)
    with io.TextIOWrapper(s3.open_read("lines"), "utf-8") as file:
        assert list(file) == ["häh\n", "zwei\n"] * 1000
    s3.put("empty", b"")
    with s3.open("empty") as file:
        assert (file.read(), file.read(5)) == (b"", b"")
    with pytest.raises(MetaflowS3NotFound):
        s3.open("none")
    with pytest.raises(ValueError, match="mode"):
        s3.open("lines", "r")


def test_read_stream_notices_change(s3):
    s3.put("big", bytes(5_000_000))
    with s3.open("big") as file:
        assert file.read(100) == bytes(100)
        s3.put("big", b"1" * 5_000_000)
        with pytest.raises(MetaflowS3Exception, match="replaced") as caught:
            file.read()
        assert isinstance(caught.value, Conflict)


def test_write_stream(s3, aws, bucket):
    data = os.urandom(20_000_000)
    with s3.open("big", "wb", content_type="x/y", metadata={"m": 1}) as file:
        for start in range(0, len(data), 3_333_333):
            file.write(data[start : start + 3_333_333])
        assert file.tell() == len(data)
        assert not s3.info("big", return_missing=True).exists
    found = s3.get("big")
    assert found.blob == data
    assert (found.content_type, found.metadata, file.stored, file.closed) == ("x/y", {"m": 1}, True, True)
    with s3.open("small", "wb", metadata={"s": 2}) as file:
        print("text", file=io.TextIOWrapper(file, write_through=True))
    assert (s3.get("small").text, s3.get("small").metadata) == ("text\n", {"s": 2})
    with s3.open("small", "wb", overwrite=False) as file:
        file.write(b"other")
    assert (file.stored, s3.get("small").text) == (False, "text\n")
    with s3.open("big", "wb", overwrite=False) as file:
        file.write(bytes(17 << 20))
    assert (file.stored, s3.info("big").size) == (False, len(data))
    assert uploads(aws, bucket) == []


def test_abandoned_stream_stores_nothing(s3, aws, bucket):
    with pytest.raises(ZeroDivisionError), s3.open("a", "wb") as file:
        file.write(bytes(17 << 20))
        raise ZeroDivisionError
    file = s3.open("b", "wb")
    file.write(bytes(17 << 20))
    del file  # not closed: forgotten
    file = s3.open("c", "wb")
    file.write(b"x")
    file.abort()
    with pytest.raises(ValueError, match="closed"):
        file.write(b"x")
    assert s3.list_recursive() == []
    assert uploads(aws, bucket) == []
    with S3() as full, pytest.raises(MetaflowS3NotFound), full.open("s3://no-such-bucket-here/x", "wb") as file:
        file.write(bytes(20 << 20))


# ---- clients ----


def test_injected_failures(root):
    with S3(s3root=root, inject_failure_rate=50) as s3:
        pairs = [(str(number), str(number)) for number in range(200)]
        assert len(s3.put_many(pairs)) == 200
        assert [item.text for item in s3.get_many([key for key, _ in pairs])] == [value for _, value in pairs]
        assert [item.size for item in s3.info_many([key for key, _ in pairs])] == [len(value) for _, value in pairs]
        assert s3.put("big", bytes(33 << 20))
        assert s3.get("big").size == 33 << 20
        assert s3._client.get_many([f"{root}/{key}" for key, _ in pairs]).wait().stats.retries > 50


def test_instances_share_clients(root, monkeypatch):
    with S3(s3root=root) as one, S3() as two, S3(s3root=root, concurrency=3) as three:
        assert one._client is two._client
        assert one._client is not three._client
        kept = one._client
        elsewhere = S3(s3root=root, client_params={"endpoint_url": "http://127.0.0.1:1"}, attempts=1)
        with elsewhere, pytest.raises(MetaflowS3Exception, match="connection"):
            elsewhere.get("a")
    with S3() as four:
        assert four._client is kept
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    with S3() as five:
        assert five._client is not kept
    for number in range(10):
        with S3(concurrency=100 + number) as many:
            _ = many._client
    assert sum(shared.users <= 0 for shared in clients._pool.clients.values()) <= clients.IDLE_CLIENTS


def test_client_params_stay_as_they_are(root):
    """metaflow.S3 puts a botocore object into the caller's dictionary and cannot serialize it later."""
    params = {"config": {"connect_timeout": 3, "retries": {"max_attempts": 2}}, "region_name": "us-east-1"}
    with S3(s3root=root, client_params=params) as s3:
        s3.put("a", b"")
        assert s3.get_many(["a"])[0].exists
    assert params["config"] == {"connect_timeout": 3, "retries": {"max_attempts": 2}}


def test_external_client(aws, root, monkeypatch):
    client = boto_client(aws)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nonsense")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")

    class Wrapped:  # as Metaflow's S3Client
        pass

    wrapped = Wrapped()
    wrapped.client = client
    for external in (client, wrapped):
        with S3(s3root=root, external_client=external) as s3:
            s3.put_many([("a", b"1"), ("b", b"2")])
            assert [item.text for item in s3.get_all()] == ["1", "2"]
    client.close()


def test_role(ministack, monkeypatch, tmp_path):
    for name, value in environment_of(ministack, AWS_ENDPOINT_URL_STS=ministack.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    bucket = ministack.create_bucket(f"test-{uuid.uuid4().hex[:20]}")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}],
    }
    iam = boto_client(ministack, "iam")
    role = iam.create_role(RoleName=f"r{uuid.uuid4().hex[:8]}", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    iam.put_role_policy(RoleName=role["RoleName"], PolicyName="p", PolicyDocument=json.dumps(everything))
    iam.close()
    with S3(s3root=f"s3://{bucket}", role=role["Arn"]) as s3:
        s3.put_many([("a", b"a")])
        assert s3.get("a").text == "a"
        credentials = s3._client.transfers.control.credentials()
        assert credentials.token
        assert credentials.access_key != ministack.access_key
        # The server calls them expired: others are fetched.
        assert s3._client.transfers.control.expire(credentials, bucket)
        assert s3._client.transfers.control.credentials() != credentials
        assert s3.get("a").text == "a"


def test_bandwidth(s3, root):
    s3.put_many([(str(number), bytes(100_000)) for number in range(10)])
    with S3(s3root=root, max_bandwidth=1_000_000) as slow:
        slow.get_many(["0", "1"])
        begun = time.monotonic()
        slow.get_many([str(number) for number in range(10)])
        assert time.monotonic() - begun > 0.4


def test_threads(root):
    def work(name):
        with S3(s3root=f"{root}/{name}") as s3:
            for _ in range(5):
                s3.put_many([(str(number), f"{name} {number}") for number in range(10)])
                assert [item.text for item in s3.get_all()] == [f"{name} {number}" for number in range(10)]

    assert in_threads(work, "abcd") == []


FORK = """
import os, sys, warnings, mfstore
warnings.simplefilter("ignore")
with mfstore.S3(s3root=sys.argv[1]) as s3:
    s3.put_many([(str(number), str(number)) for number in range(20)])
    children = []
    for child in range(3):
        pid = os.fork()
        if not pid:
            found = s3.get_many([str(number) for number in range(20)])
            with mfstore.S3(s3root=sys.argv[1]) as own:
                fine = [item.text for item in found] == [item.text for item in own.get_many([str(n) for n in range(20)])]
            os._exit(0 if fine else 1)
        children.append(pid)
    assert [item.text for item in s3.get_many([str(number) for number in range(20)])] == [str(n) for n in range(20)]
    print([os.waitpid(pid, 0)[1] for pid in children])
"""


def test_fork(root, python):
    assert python(FORK, root) == "[0, 0, 0]\n"


def test_import_is_light(python):
    code = (
        "import mfstore, sys; print([name for name in ('mfstore.s3', 'botocore', 'metaflow') if name in sys.modules])"
    )
    assert python(code) == "[]\n"
    assert mfstore.S3 is S3
    with pytest.raises(AttributeError):
        _ = mfstore.nothing
