import uuid

import pytest
from fsspec.registry import _registry

from mfstore.s3.filesystem import S3FileSystem, register


def arguments(server):
    return {
        "endpoint_url": server.url, "key": server.access_key, "secret": server.secret_key,
        "client_kwargs": {"region_name": server.region},
    }  # fmt: skip


@pytest.fixture(scope="module")
def files(radosgw):
    made = S3FileSystem(**arguments(radosgw))
    yield made
    made.client.close()
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def shared_bucket(radosgw):
    return radosgw.create_bucket(f"files-{uuid.uuid4().hex[:20]}")


@pytest.fixture
def registered(monkeypatch):
    """``s3://`` is mfstore's during the test."""
    monkeypatch.setitem(_registry, "s3", None)
    register()


@pytest.fixture
def place(shared_bucket):
    """A directory of the test's own."""
    return f"{shared_bucket}/{uuid.uuid4().hex}"
