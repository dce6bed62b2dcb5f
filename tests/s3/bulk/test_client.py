"""The bulk client on real servers, with both engines."""

import asyncio
import inspect
import io
import os
import pickle
import subprocess
import sys
import time

import pytest

from mfstore.errors import AccessDenied, BackendError, Conflict, InvalidKey, InvalidRange, NotFound, Unsupported
from mfstore.s3 import BulkClient, PutItem
from tests.rigs.s3_faults import PART
from tests.servers import boto_client, client_options

MIB = 1 << 20
ODD_KEYS = [
    "plain", "with space", "plus+sign", "per%cent", "%41", "a//b", "/leading", "trailing/", "a/../b", "./c", "tilde~", "star*(')!",
    "ünï/日本/😀", "q?u=e&r=y#f", "a:b;c,d@e$", "new\nline", "quote\"'<>", "x" * 1024,
]  # fmt: skip


def arguments(server, **more):
    return {**client_options(server), **more}


@pytest.fixture(params=["native", "aiobotocore"])
def client(request, s3_server, bucket):
    with BulkClient(bucket, engine=request.param, **arguments(s3_server)) as client:
        yield client


def uploads(server, bucket):
    return boto_client(server).list_multipart_uploads(Bucket=bucket).get("Uploads", [])


def test_keys_of_all_kinds_there_and_back(client, s3_server, bucket):
    data = {key: key.encode() * 3 for key in ODD_KEYS}
    client.put_many(data)
    # Somebody else's client sees the same objects under the same names.
    boto = boto_client(s3_server)
    for key in ODD_KEYS:
        assert boto.get_object(Bucket=bucket, Key=key)["Body"].read() == data[key], key
    assert [o.data for o in client.get_many(data)] == list(data.values())
    assert sorted(entry.key for entry in client.list()) == sorted(ODD_KEYS)
    assert [o.size for o in client.head_many(ODD_KEYS)] == [len(data[key]) for key in ODD_KEYS]
    client.copy({key: f"copy/{key}"[:1024] for key in ODD_KEYS[:-1]})
    assert [o.data for o in client.get_many([f"copy/{key}" for key in ODD_KEYS[:-1]])] == list(data.values())[:-1]
    client.delete_many([entry.key for entry in client.list()])
    assert list(client.list()) == []


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, MIB, MIB + 1, 2 * PART + 7])
def test_sizes(quick, client, s3_server, bucket, size, tmp_path):
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    client.put_many({"memory": data, "parts": [data[: size // 3], data[size // 3 :]], "file": tmp_path / "source"})
    assert [o.data == data for o in client.get_many(["memory", "parts", "file"])] == [True] * 3
    client.get_many(["memory"], into="files", dest=tmp_path)
    assert (tmp_path / "memory").read_bytes() == data
    assert boto_client(s3_server).get_object(Bucket=bucket, Key="parts")["Body"].read() == data
    assert uploads(s3_server, bucket) == []


@pytest.mark.parametrize("engine", ["native", "aiobotocore"])
@pytest.mark.parametrize("checksum", ["CRC64NVME", "CRC32C", "CRC32", None])
def test_checksums(s3_server, bucket, engine, checksum):
    with BulkClient(bucket, engine=engine, checksum=checksum, **arguments(s3_server)) as client:
        client.put_many({"k": b"data" * 100})
        (outcome,) = result = client.get_many(["k"]).wait()
        assert outcome.data == b"data" * 100
        kept = checksum is not None and any(name.startswith("x-amz-checksum-crc") for name in outcome.headers)
        assert result.stats.verified == (400 if kept else 0)
        assert kept or checksum is None or type(s3_server).__name__ == "Radosgw"  # which ignores checksums


def test_ranges(client):
    data = os.urandom(3 * MIB)
    client.put_many({"k": data, "empty": b""})
    items = [("k", 0, 10), ("k", 5, None), ("k", -7, None), ("k", len(data) - 3, 100), ("k", 0, len(data))]
    expected = [data[:10], data[5:], data[-7:], data[-3:], data]
    assert [o.data == want for o, want in zip(client.get_many(items), expected, strict=True)] == [True] * 5
    got = list(client.get_many([("k", len(data), 5), ("empty", 0, 5)], on_error="return"))
    assert isinstance(got[0].error, InvalidRange)
    assert isinstance(got[1].error, InvalidRange) or got[1].data == b""
    ranges = [("k", start, 100) for start in range(0, 2 * MIB, 50_000)]
    result = client.get_ranges(ranges)
    assert [bytes(o.data) for o in result] == [data[start : start + 100] for _, start, _ in ranges]
    assert result.stats.requests == 1
    target = bytearray(MIB)
    assert client.get_into(("k", 11, MIB), memoryview(target)) == MIB and target == data[11 : 11 + MIB]


def test_what_is_stored_with_an_object(client, s3_server, bucket):
    client.put_many(
        [PutItem("a", "text", metadata={"Name": "value", "empty": ""}), PutItem("b", b"1", content_type="image/png")],
        metadata={"shared": "yes"}, content_type="text/plain",
    )  # fmt: skip
    first, second = client.head_many(["a", "b"])
    assert first.metadata["name"] == "value" and first.content_type == "text/plain"
    assert second.metadata == {"shared": "yes"} and second.content_type == "image/png"
    assert first.etag == boto_client(s3_server).head_object(Bucket=bucket, Key="a")["ETag"].strip('"')
    assert abs(first.modified - time.time()) < 100 and first.request_id


def test_listings(client):
    keys = [f"{group}/{number:04}" for group in "ab" for number in range(30)]
    client.put_many(dict.fromkeys(keys, b"x"))
    assert [entry.key for entry in client.list(page=7)] == keys
    assert [entry.key for entry in client.list(["b/", "a/"], page=7)] == keys[30:] + keys[:30]
    assert [entry.key for entry in client.list("a/", start_after="a/0027")] == keys[28:30]
    assert [(entry.key, entry.is_prefix) for entry in client.list(recursive=False)] == [("a/", True), ("b/", True)]
    assert {entry.size for entry in client.list(f"s3://{client.bucket}/a")} == {1}
    assert list(client.list("none/")) == []


def test_conditions(client):
    client.put_many([PutItem("k", b"1", if_none_match=True)])
    result = client.put_many([PutItem("k", b"2", if_none_match=True)], on_error="return")
    assert isinstance(result[0].error, Conflict)
    assert next(iter(client.get_many(["k"]))).data == b"1"


def test_deleting_what_is_not_there_is_fine(client):
    client.put_many({f"k{i}": b"x" for i in range(20)})
    result = client.delete_many([f"k{i}" for i in range(30)] + ["k1"])
    assert len(result) == 31 and all(o.ok for o in result) and list(client.list()) == []


# ---- asynchronous ---------------------------------------------------------------------------


def test_the_async_face(client):
    async def main():
        await client.aput_many({f"k{i}": bytes([i]) * i for i in range(100)} | {"big": bytes(10 * MIB)})
        got = [o async for o in client.aget_many([f"k{i}" for i in range(100)] + ["big"])]
        assert [len(o.data) for o in got] == [*range(100), 10 * MIB]
        assert len(await client.ahead_many(["k1", "k2"])) == 2
        target = bytearray(5)
        assert await client.aget_into(("k9", 1, 5), memoryview(target)) == 5 and target == bytes([9]) * 5
        ranges = [("big", 0, 100, None), ("k9", 0, 5, memoryview(target))]
        assert [len(o.data) async for o in client.aread_many(ranges, ordered=True)] == [100, 5]
        assert [len(o.data) for o in await client.aget_ranges([("big", 0, 10), ("big", 5, 10)])] == [10, 10]
        each = [(number, entry.key) async for number, entry in client.alist_each(["k2", "big"])]
        assert each == [(0, "k2")] + [(0, f"k2{i}") for i in range(10)] + [(1, "big")]
        assert await client.aask("GetBucketLocation") is not None
        assert len([entry async for entry in client.alist("k")]) == 100
        await client.acopy({"k5": "copy"})
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticker = asyncio.create_task(tick())
        await asyncio.gather(*(client.aget_many(["big"]) for _ in range(5)))
        ticker.cancel()
        assert ticks > 3  # the loop went on
        await client.adelete_many([entry.key async for entry in client.alist()])
        assert not [entry async for entry in client.alist()]

    asyncio.run(main())


def test_a_cancelled_task_lets_go(client):
    client.put_many({"big": bytes(30 * MIB)})

    async def main():
        task = asyncio.create_task(collect(client))
        await asyncio.sleep(0.1)
        task.cancel()
        begun = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - begun < 5
        assert [len(o.data) async for o in client.aget_many(["big"])] == [30 * MIB]

    async def collect(client):
        async for _ in client.aget_many(["big"] * 50):
            pass

    asyncio.run(main())


# ---- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["native", "aiobotocore"])
class TestBadInput:
    def client(self, engine, server, bucket, **more):
        return BulkClient(bucket, engine=engine, **arguments(server, **more))

    def test_wrong_secret(self, engine, s3_server, bucket):
        client = self.client(engine, s3_server, bucket, aws_secret_access_key="wrong" * 8)
        with pytest.raises(AccessDenied, match="secret access key"):
            list(client.get_many(["k"]))
        with pytest.raises(AccessDenied):
            list(client.head_many(["k"]))
        with pytest.raises(AccessDenied):
            client.put_many({"k": b"1", "big": bytes(40 * MIB)})
        with pytest.raises(AccessDenied):
            list(client.list())

    def test_missing_bucket_and_key(self, engine, s3_server, bucket):
        client = self.client(engine, s3_server, "no-such-bucket-here")
        with pytest.raises(NotFound, match="bucket"):
            list(client.get_many(["k"]))
        with pytest.raises(NotFound, match="bucket"):
            client.put_many({"k": b"1"})
        with pytest.raises(NotFound, match="bucket"):
            list(client.list())
        with pytest.raises(NotFound) as caught:
            list(self.client(engine, s3_server, bucket).get_many(["some/key"]))
        assert caught.value.key == "some/key" and caught.value.request_id and bucket in str(caught.value)

    def test_no_server(self, engine, s3_server, bucket):
        client = self.client(engine, s3_server, bucket, endpoint_url="http://127.0.0.1:9", attempts=2)
        with pytest.raises(BackendError, match=r"127\.0\.0\.1:9") as caught:
            list(client.get_many(["k"]))
        assert caught.value.attempts == 2

    def test_no_credentials(self, engine, s3_server, bucket, monkeypatch, tmp_path):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        client = BulkClient(bucket, engine=engine, endpoint_url=s3_server.url, region_name=s3_server.region)
        with pytest.raises(AccessDenied, match="no AWS credentials found"):
            list(client.get_many(["k"]))

    def test_a_missing_local_file(self, engine, s3_server, bucket, tmp_path):
        client = self.client(engine, s3_server, bucket)
        result = client.put_many([("a", tmp_path / "none"), ("b", b"1")], on_error="return")
        assert isinstance(result[0].error, NotFound) and result[1].ok


def test_every_method_that_asks_s3_has_its_asynchronous_twin():
    asking = [
        "get_many", "get_ranges", "get_into", "read_many", "put_many", "head_many", "delete_many", "copy", "list",
        "list_each", "ask", "close",
    ]  # fmt: skip
    others = ["beside", "metrics", "options_of_writes", "run", "run_jobs", "with_parts"]
    twins = [f"a{name}" for name in asking]
    methods = [name for name, found in vars(BulkClient).items() if inspect.isfunction(found) and name[0] != "_"]
    assert sorted(methods) == sorted(asking + twins + others)
    for name, twin in zip(asking, twins, strict=True):
        method, asynchronous = getattr(BulkClient, name), getattr(BulkClient, twin)
        assert inspect.signature(method).parameters == inspect.signature(asynchronous).parameters
        assert asynchronous.__name__ == twin and f"As ``{name}``" in asynchronous.__doc__


def test_bad_arguments():
    with pytest.raises(ValueError, match="into"):
        BulkClient("b").get_many([], into="disk")
    with pytest.raises(ValueError, match="dest"):
        BulkClient("b").get_many([], into="files")
    with pytest.raises(ValueError, match="on_error"):
        BulkClient("b", **KEYS).get_many([], on_error="ignore")
    with pytest.raises(InvalidKey):
        BulkClient("b", engine="fast")
    with pytest.raises(InvalidKey, match="no bucket"):
        list(BulkClient(**KEYS).get_many(["k"]))


KEYS = {"aws_access_key_id": "a", "aws_secret_access_key": "s", "region_name": "us-east-1"}


# ---- the handle ---------------------------------------------------------------------------------


def test_the_second_engine_is_only_for_those_who_ask_for_it(monkeypatch):
    from botocore.config import Config

    for more in (
        {}, {"config": Config(proxies={"https": "socks5://127.0.0.1:1"})}, {"config": Config(signature_version="s3")},
    ):  # fmt: skip
        for engine in (None, "auto", "native"):
            assert BulkClient("b", engine=engine, **KEYS, **more).get_many([]).engine == "native"
    assert BulkClient("b", engine="aiobotocore", **KEYS).get_many([]).engine == "aiobotocore"
    monkeypatch.setenv("MFSTORE_S3_ENGINE", "aiobotocore")
    assert BulkClient("b", **KEYS).get_many([]).engine == "aiobotocore"


def test_what_no_engine_does_is_said_when_it_is_used():
    from botocore.config import Config

    odd = BulkClient("b", config=Config(proxies_config={"proxy_use_forwarding_for_https": True}), **KEYS)
    with pytest.raises(Unsupported, match="proxy_use_forwarding_for_https"):
        odd.get_many([])


def test_how_bodies_are_signed_is_checked_at_once(monkeypatch):
    with pytest.raises(InvalidKey, match="payload_signing must be one of auto, always, never"):
        BulkClient("b", payload_signing="sometimes", **KEYS)
    monkeypatch.setenv("MFSTORE_S3_PAYLOAD_SIGNING", "yes")
    with pytest.raises(InvalidKey, match="MFSTORE_S3_PAYLOAD_SIGNING"):
        BulkClient("b", **KEYS)
    assert BulkClient("b", payload_signing="never", **KEYS).options.connection.payload_signing == "never"


@pytest.mark.parametrize("rate", [-5, float("nan"), 0.5, 1e-310, 10**400, "fast"])
def test_a_bandwidth_that_is_none_is_not_taken_for_no_bound(rate):
    with pytest.raises(InvalidKey, match="max_bandwidth is bytes per second"):
        BulkClient("b", max_bandwidth=rate, **KEYS)


def test_a_handle_pickles_and_survives_fork(client, s3_server, bucket, monkeypatch):
    client.put_many({"k": b"1"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    copy = pickle.loads(pickle.dumps(client))
    assert next(iter(copy.get_many(["k"]))).data == b"1"
    copy.close()
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if next(iter(client.get_many(["k"]))).data == b"1" else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert next(iter(client.get_many(["k"]))).data == b"1"


def test_https_with_a_private_authority(s3_server, bucket, ca_file):
    for engine in ("native", "aiobotocore"):
        more = {"endpoint_url": s3_server.https_url, "attempts": 2}
        with BulkClient(bucket, engine=engine, verify=str(ca_file), **arguments(s3_server, **more)) as client:
            client.put_many({"k": bytes(9 * MIB), "s": b"1"})
            assert [len(o.data) for o in client.get_many(["k", "s"])] == [9 * MIB, 1]
        with BulkClient(bucket, engine=engine, **arguments(s3_server, **more)) as client:
            with pytest.raises(BackendError, match="TLS") as caught:
                list(client.get_many(["k"]))
            assert caught.value.attempts == 1


def test_progress_and_limits(s3_server, bucket, capsys):
    finished = []
    with BulkClient(bucket, max_bandwidth=50e6, concurrency=3, **arguments(s3_server)) as client:
        client.put_many({f"k{i}": bytes(100_000) for i in range(20)}, progress=finished.append)
        result = client.get_many([f"k{i}" for i in range(20)], progress="rich")
        assert sum(len(o.data) for o in result) == 2_000_000
        assert sum(finished) == 20 and result.stats.concurrency <= 3
    assert "get_many" in capsys.readouterr().err


def test_files_as_sources(client):
    client.put_many({"a": io.BytesIO(b"123"), "b": memoryview(b"4567")[1:3], "c": bytearray(b"8")})
    assert [o.data for o in client.get_many(["a", "b", "c"])] == [b"123", b"56", b"8"]


def test_import_is_light():
    code = (
        "import sys, threading, mfstore.s3; from mfstore.s3 import BulkClient; BulkClient('b'); "
        "assert threading.active_count() == 1; "
        "heavy = {'boto3', 'botocore', 'aiobotocore', 'aiohttp', 'numpy', 'tqdm'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
