"""URLs that anybody opens: with urllib, and nothing else."""

import urllib.error
import urllib.request
import uuid
from datetime import timedelta

import numpy as np
import pytest

import mfstore
from mfstore.errors import InvalidKey, MfstoreWarning, NotFound, Unsupported
from mfstore.s3.aws.presigning import presigned
from mfstore.s3.bulk.client import BulkClient
from tests.rigs import command_line
from tests.servers.base import client_options

pytestmark = pytest.mark.server


@pytest.fixture
def place(radosgw):
    return f"s3://{radosgw.create_bucket(f'presign-{uuid.uuid4().hex[:16]}')}"


@pytest.fixture
def store(radosgw, place):
    return mfstore.open(f"{place}/store", **client_options(radosgw))


def test_a_url_gives_the_bytes_to_anybody(store, place):
    key = store.put(np.arange(1000), "models/a")
    with pytest.raises(Unsupported, match=r"store.presign\(store.export\('models/a', 's3://BUCKET/exports/a.npy'\)\)"):
        store.presign("models/a")
    url = store.presign(store.export(key, f"{place}/exports/a b+é.npy"), expires="10min")
    with urllib.request.urlopen(url) as answer:
        body = answer.read()
    assert body.endswith(np.arange(1000).tobytes()) and "X-Amz-Expires=600" in url
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url.replace("Expires=600", "Expires=601"))
    assert refused.value.code == 403
    assert "X-Amz-Expires=90&" in store.presign(f"{place}/exports/a b+é.npy", timedelta(seconds=90)) + "&"


@pytest.mark.parametrize(("bucket", "host"), [
    ("a-bucket", "a-bucket.s3.eu-west-1.amazonaws.com/"), ("a.bucket", "s3.eu-west-1.amazonaws.com/a.bucket/"),
])  # fmt: skip
def test_at_aws_the_host_is_that_of_the_region(bucket, host, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    with BulkClient(
        bucket, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
    ) as client:  # fmt: skip
        assert presigned(client.transfers.control, bucket, "key", 60)[0].startswith(f"https://{host}key?")


def test_what_is_no_object_has_no_url(store, place):
    with pytest.raises(NotFound):
        store.presign(f"{place}/exports/nothing")
    with pytest.raises(NotFound):
        store.presign("models/missing")
    for expires in (0, "8d", "1 fortnight", timedelta(days=-1)):
        with pytest.raises(InvalidKey):
            store.presign(f"{place}/x", expires)
    with pytest.raises(InvalidKey, match="one object"):
        store.presign(place)
    with pytest.raises(Unsupported, match="directory bucket"):
        store.presign("s3://bucket--use1-az4--x-s3/x")


def test_temporary_credentials_end_the_url(radosgw, store, place):
    """Static keys of the server, in a session that says that they end in half an hour."""
    import datetime

    import boto3
    import botocore.session
    from botocore.credentials import RefreshableCredentials

    inner = botocore.session.Session()
    end = datetime.datetime.now(datetime.UTC) + timedelta(minutes=30)
    inner._credentials = RefreshableCredentials(
        radosgw.access_key, radosgw.secret_key, None, end, refresh_using=lambda: None, method="test",
    )  # fmt: skip
    options = {"endpoint_url": radosgw.url, "region_name": radosgw.region}
    temporary = mfstore.open(f"{place}/store", session=boto3.Session(botocore_session=inner), **options)
    there = store.export(store.put(b"x"), f"{place}/x")
    with pytest.warns(MfstoreWarning, match=r"in (30|29) minutes and not in 60"):
        url = temporary.presign(there)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"x"
    assert temporary.presign(there, "5min")


def test_the_command(radosgw, store, place):
    store.put("text", "notes/a")
    env = {
        "MFSTORE_STORE": store.url, "AWS_ACCESS_KEY_ID": radosgw.access_key, "AWS_REGION": radosgw.region,
        "AWS_SECRET_ACCESS_KEY": radosgw.secret_key, "AWS_ENDPOINT_URL_S3": radosgw.url,
    }  # fmt: skip
    there = command_line.mfstore("export", "notes/a", f"{place}/exports/a.txt", env=env).stdout.strip()
    url = command_line.mfstore("presign", "--expires", "1d", there, env=env).stdout.strip()
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"text"
