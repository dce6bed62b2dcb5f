"""Stores on S3: the contract, what requests an operation makes, and what happens when things go wrong."""

import uuid

import pytest

from mfstore.backends.s3 import S3Backend
from mfstore.testing import BackendTests
from tests.servers.base import boto_client

pytest.importorskip("boto3")

BUCKET = f"stores-{uuid.uuid4().hex[:12]}"


def options(server, engine="native", **more):
    """What S3Backend needs to find a server."""
    return {
        "endpoint_url": server.url,
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
        "region_name": server.region,
        "engine": engine,
        **more,
    }


class S3Tests(BackendTests):
    server_name = engine = ""

    @pytest.fixture(autouse=True)
    def running(self, request):
        self.server = request.getfixturevalue(self.server_name)
        self.boto = boto_client(self.server)
        if BUCKET not in [found["Name"] for found in self.boto.list_buckets()["Buckets"]]:
            self.server.create_bucket(BUCKET)
        yield
        self.boto.close()

    def make_backend(self, tmp_path):
        return S3Backend(f"s3://{BUCKET}{tmp_path}/{self.engine}", **options(self.server, self.engine))

    def raw_set(self, backend, key, data):
        self.boto.put_object(Bucket=BUCKET, Key=backend._prefix + key, Body=data)

    def raw_get(self, backend, key):
        return self.boto.get_object(Bucket=BUCKET, Key=backend._prefix + key)["Body"].read()


class TestRadosgwNative(S3Tests):
    server_name, engine = "radosgw", "native"


class TestRadosgwAio(S3Tests):
    server_name, engine = "radosgw", "aiobotocore"


class TestMinistackNative(S3Tests):
    server_name, engine = "ministack", "native"


class TestMinistackAio(S3Tests):
    server_name, engine = "ministack", "aiobotocore"
