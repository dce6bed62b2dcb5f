"""Every request that writes says how S3 is to encrypt, whoever said it, and whatever is written."""

import io
import uuid
from contextlib import closing

import numpy as np
import pytest
from metaflow import metaflow_config
from metaflow.plugins.datatools.s3 import s3 as metaflow_s3

import mfstore
from mfstore import errors
from mfstore.maintenance.metaflow.root import Root
from mfstore.metaflow.packed.bucket import StoreInBucket
from mfstore.metaflow.stock.blob_storage import NewBlob
from mfstore.metaflow.stock.bucket_blobs import BucketBlobs
from mfstore.s3 import BulkClient
from mfstore.s3.bulk.items import PutItem
from mfstore.s3.datatools.settings import settings
from mfstore.s3.encryption import with_default
from mfstore.s3.transfers import uploads
from mfstore.testing import FaultProxy
from tests.rigs.command_line import mfstore as command
from tests.rigs.flows import MFSTORE, PACKED, finish_all
from tests.rigs.s3_cases import environment_of
from tests.servers.radosgw import KMS_KEY

KEY = "arn:aws:kms:us-east-1:000000000000:key/one"
HEADER = "x-amz-server-side-encryption"
KMS = {HEADER: "aws:kms", f"{HEADER}-aws-kms-key-id": KEY, f"{HEADER}-bucket-key-enabled": "true"}


@pytest.fixture
def proxy(ministack, monkeypatch):
    for name in ("MFSTORE_ENCRYPTION", "MFSTORE_KMS_KEY", "MFSTORE_BUCKET_KEY"):
        monkeypatch.delenv(name, raising=False)
    with FaultProxy(ministack.url) as proxy:
        for name, value in environment_of(ministack, AWS_ENDPOINT_URL_S3=proxy.url).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(uploads, "LONGEST_SINGLE_PUT", 1 << 20)
        yield proxy


@pytest.fixture
def bucket(ministack):
    return ministack.create_bucket(f"test-{uuid.uuid4().hex[:20]}")


def said(proxy):
    """What each request said that writes an object, or begins one in parts: parts have what their upload has."""
    found = []
    for one in proxy.log:
        begins = one.method == "POST" and one.query.startswith("uploads")
        if begins or (one.method == "PUT" and "partNumber" not in one.query):
            found.append({name: value for name, value in one.headers.items() if name.startswith(HEADER)})
    return found


def work_on_a_store(url, **options):
    store = mfstore.open(url, **options)
    store.save({"table": np.random.default_rng(0).random(200_000), "small": [1, 2, 3]}, ref="models/a")
    store.put("second", ref="models/a", note={"auc": 1})
    store.put("gone", ref="models/b")
    store.refs.hold("models/a", "kept")
    store.delete("models/b")
    store.plan_gc(grace=0).execute(yes_really=True)
    store.plan_gc(grace=0).execute(yes_really=True)
    for info in list(store.backend.list("index/")):
        store.backend.delete(info.key)
    assert not mfstore.open(url, **options).verify("full").clean
    assert mfstore.open(url, **options).repair("full").after.clean
    store.close()


def work_of_metaflow(root):
    blobs = BucketBlobs(lambda: root, lambda *_, **__: None)
    blobs.put([NewBlob("Flow/data/ab/abc", [b"blob"], {"cas_raw": True}), NewBlob("x", [b"y"], None, False)])
    packed = StoreInBucket(f"{root}/mf.store", True)
    packed.store.save({"x": np.arange(100_000)})
    packed.store.close()
    with closing(Root(root)) as place:
        place.backend.copy("x", "copy")
        place.backend.put_if("state", b"first", None)


def work_of_datatools(root):
    with mfstore.S3(s3root=root) as s3:
        s3.put("a", "text")
        s3.put_many([("b", b"b" * (2 << 20)), ("c", "c")])
        s3.put_many([("c", "c"), ("d", "d")], overwrite=False)
        s3.copy_many({"a": "e"})
        with s3.open_write("f") as file:
            file.write(b"f" * (17 << 20))
        s3.put("g", io.BytesIO(b"g"))


def work_of_a_client(bucket, **options):
    with BulkClient(bucket, **options) as client:
        client.put_many({"plain": b"1", "parts": b"2" * (2 << 20)}).wait()
        client.put_many([PutItem("item", b"3", metadata={"a": "b"}, content_type="x/y")]).wait()
        client.copy({"plain": "copy"}).wait()


def test_a_broad_job_says_it_each_time(proxy, bucket, monkeypatch):
    monkeypatch.setenv("MFSTORE_KMS_KEY", KEY)
    monkeypatch.setenv("MFSTORE_BUCKET_KEY", "1")
    work_on_a_store(f"s3://{bucket}/store")
    many = len(said(proxy))
    work_of_metaflow(f"s3://{bucket}/mf")
    work_of_datatools(f"s3://{bucket}/data")
    work_of_a_client(bucket)
    command("bench", f"s3://{bucket}/bench", "--yes", "--count", "2", "--size", "1KiB", "--seconds", "0.1",
            "--operation", "put,get,save", "--json")  # fmt: skip
    command("doctor", f"s3://{bucket}/doctor", code=(0, 1))
    found = said(proxy)
    assert many >= 10 and len(found) >= many + 25
    assert [one for one in found if one != KMS] == []


@pytest.mark.parametrize(
    "way", ["argument", "client", "option", "file", "Metaflow's", "its own of Metaflow", "pickled"]
)
def test_whoever_says_it(proxy, bucket, monkeypatch, tmp_path, way):
    url, found = f"s3://{bucket}/x", {HEADER: "AES256"}
    if way == "argument":
        work = lambda: mfstore.open(url, encryption="AES256").put(1, ref="a")  # noqa: E731
    elif way == "client":
        work = lambda: work_of_a_client(bucket, encryption="AES256")  # noqa: E731
    elif way == "option":
        (tmp_path / "file").write_text("text")
        work = lambda: command("put", "-s", url, "--encryption", "AES256", "--ref", "a", tmp_path / "file")  # noqa: E731
    elif way == "file":
        monkeypatch.setenv("MFSTORE_CONFIG", str(tmp_path / "config.toml"))
        (tmp_path / "config.toml").write_text(
            f'encryption = "aws:kms"\n[place."s3://{bucket}"]\nencryption = "AES256"\nendpoint_url = "{proxy.url}"\n'
        )
        monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
        work = lambda: (mfstore.open(url).put(1, ref="a"), work_of_a_client(bucket))  # noqa: E731
    elif way == "pickled":
        import pickle

        text = pickle.dumps(mfstore.open(url, encryption="AES256"))
        monkeypatch.setenv("MFSTORE_ENCRYPTION", "aws:kms")
        work = lambda: pickle.loads(text).put(1, ref="a")  # noqa: E731
    else:
        monkeypatch.setenv("MFSTORE_ENCRYPTION", "aws:kms")
        for module in (metaflow_config, metaflow_s3):  # which have read the environment
            monkeypatch.setattr(module, "S3_SERVER_SIDE_ENCRYPTION", "AES256", raising=False)
        if way == "its own of Metaflow":
            monkeypatch.setenv("METAFLOW_MFSTORE_ENCRYPTION", "aws:kms")
            monkeypatch.setenv("METAFLOW_MFSTORE_KMS_KEY", KEY)
            found = {HEADER: "aws:kms", f"{HEADER}-aws-kms-key-id": KEY}
        work = lambda: (work_of_metaflow(url), work_of_datatools(f"{url}/data"))  # noqa: E731
    work()
    assert len(said(proxy)) >= 3 and [one for one in said(proxy) if one != found] == []


@pytest.mark.flow
@pytest.mark.timeout(1200)
def test_flows_say_it_wherever_a_task_writes(radosgw, s3_rig, tmp_path, monkeypatch):
    """Artifacts, a file that is included, what a task puts by itself, in both profiles."""
    for name, value in environment_of(radosgw).items():
        monkeypatch.setenv(name, value)
    (table := tmp_path / "table").write_text("a,b")
    with FaultProxy(radosgw.url) as proxy:
        rigs = [s3_rig(proxy.url, METAFLOW_MFSTORE_KMS_KEY=KMS_KEY) for _ in range(2)]
        sides = zip(rigs, (MFSTORE, PACKED), strict=True)
        finish_all([rig.start("granted.py", "run", "--table", str(table), side=side) for rig, side in sides])
        found = said(proxy)
    assert len(found) >= 50
    assert [one for one in found if one != {HEADER: "aws:kms", f"{HEADER}-aws-kms-key-id": KMS_KEY}] == []
    for rig in rigs:
        bucket = rig.place["METAFLOW_DATASTORE_SYSROOT_S3"].split("/")[2]
        with BulkClient(bucket) as client:  # whatever the proxy did not see
            heads = list(client.head_many([entry.key for entry in client.list()]))
        assert len(heads) >= 20 and {one.encryption for one in heads} == {"aws:kms"}


def test_what_a_service_encrypts_is_read_back(radosgw, monkeypatch):
    for name, value in environment_of(radosgw).items():
        monkeypatch.setenv(name, value)
    bucket = radosgw.create_bucket(f"test-{uuid.uuid4().hex[:20]}")
    table = np.random.default_rng(0).random(300_000)
    monkeypatch.setattr(uploads, "LONGEST_SINGLE_PUT", 1 << 20)
    url = f"s3://{bucket}/store"
    with mfstore.open(url, kms_key=KMS_KEY) as store:
        store.save({"table": table, "small": [1]}, ref="models/a")
        store.put(2, ref="models/a")
        assert store.verify("full").clean  # which notes what it read
    with mfstore.open(url) as plain:  # whoever reads need not know of it
        assert plain.get("models/a") == 2
        assert np.array_equal(plain.load(plain.resolve("models/a@1"))["table"], table)
        first = next(iter(plain.backend.list("packs/"))).key
        plain.backend.copy(first, "copy")  # which this service does not do itself where anything is encrypted
        assert plain.backend.copy_many([(first, "copies"), ("none", "x")]) == [True, False]
        assert plain.backend.get("copies") == plain.backend.get(first)
    with BulkClient(bucket) as client:
        heads = list(client.head_many([entry.key for entry in client.list()]))
    assert len(heads) >= 5
    assert {(one.encryption, one.headers.get(f"{HEADER}-aws-kms-key-id")) for one in heads} == {("aws:kms", KMS_KEY)}


def test_a_key_that_the_service_does_not_have(radosgw, monkeypatch):
    for name, value in environment_of(radosgw).items():
        monkeypatch.setenv(name, value)
    bucket = radosgw.create_bucket(f"test-{uuid.uuid4().hex[:20]}")
    with pytest.raises(errors.MfstoreError):
        mfstore.open(f"s3://{bucket}/store", kms_key="none").put(1, ref="a")


def test_what_is_said_of_one_object_counts_before_the_client(proxy, bucket):
    with BulkClient(bucket, kms_key=KEY) as client:
        client.put_many([PutItem("a", b"", encryption="AES256")]).wait()
        client.put_many([PutItem("b", b"", encryption="aws:kms")]).wait()
        client.put_many({"c": b""}, kms_key="other").wait()
        client.put_many({"d": b""}, options={"ServerSideEncryption": "AES256"}).wait()
        client.copy({"a": "e"}, options={"ServerSideEncryption": "AES256"}).wait()
    key = f"{HEADER}-aws-kms-key-id"
    assert said(proxy) == [
        {HEADER: "AES256"}, {HEADER: "aws:kms", key: KEY}, {HEADER: "aws:kms", key: "other"}, {HEADER: "AES256"},
        {HEADER: "AES256"},
    ]  # fmt: skip


def test_a_key_of_the_callers_own_takes_the_place_of_all():
    given = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k", "ContentType": "x"}
    assert with_default(given, {"ServerSideEncryption": "AES256", "StorageClass": "s"}) == {
        **given,
        "StorageClass": "s",
    }
    assert with_default({}, {"ServerSideEncryption": "AES256"}) == {"ServerSideEncryption": "AES256"}
    assert with_default({"ContentType": "x"}, {}) == {"ContentType": "x"}


def test_none_of_s3_is_as_the_bucket_says(proxy, bucket, monkeypatch):
    monkeypatch.setenv("METAFLOW_MFSTORE_ENCRYPTION", "AES256")
    with mfstore.S3(s3root=f"s3://{bucket}", encryption=None) as s3:
        s3.put("a", "a")
    with mfstore.S3(s3root=f"s3://{bucket}", kms_key="own") as s3:
        s3.put("b", "b")
    assert said(proxy) == [{}, {HEADER: "aws:kms", f"{HEADER}-aws-kms-key-id": "own"}]
    assert settings().encryption.encryption == "AES256"
