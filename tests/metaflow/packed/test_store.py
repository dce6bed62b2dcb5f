"""The packed profile's store in a bucket."""

import os

import pytest

from mfstore.host import cache
from mfstore.metaflow.packed.store import packed_store
from mfstore.metaflow.process_state import forget_process_state, process_state
from tests.rigs.metaflow_stores import another_host, save
from tests.rigs.together import in_children


@pytest.fixture
def s3(profile, s3):
    """On each profile."""
    return s3


def test_a_store_that_was_removed_is_made_again(s3, profile):
    from tests.servers.base import boto_client

    save(s3.flow(), "1/a/7", {"x": os.urandom(5000)})
    client = boto_client(s3.server)
    for entry in client.list_objects_v2(Bucket=s3.bucket)["Contents"]:
        client.delete_object(Bucket=s3.bucket, Key=entry["Key"])
    cache = process_state().knobs.cache
    forget_process_state()  # another process of the same host
    assert process_state().knobs.cache == cache
    value = os.urandom(5000)
    save(s3.flow(), "2/a/7", {"x": value})
    another_host()
    forget_process_state()
    assert s3.flow().get_task_datastore("2", "a", "7")["x"] == value


def test_the_packed_store_shares_the_storages_connections(s3, profile):
    if profile == "packed":
        save(s3.flow(), "1/a/7", {"x": os.urandom(3000)})
        storage = s3.storage()
        with storage.blobs.client() as (client, _):
            assert packed_store(storage.datastore_root, writing=True).backend.client.engine is client.engine


@pytest.mark.parametrize("profile", ["packed"], indirect=True)
def test_tasks_that_begin_together_read_the_bundle_before_them_once(s3, profile, unhedged, monkeypatch):
    monkeypatch.setattr(cache, "PATIENCE", 1e9)  # however slow the machine is
    save(s3.flow(), "1/a/7", {"x": list(range(100)), "y": "text"})
    another_host()
    forget_process_state()
    s3.proxy.clear()

    def task(number):
        store = s3.flow().get_task_datastore("1", "a", "7")
        assert (store["x"], store["y"]) == (list(range(100)), "text")

    assert in_children(8, task) == [0] * 8
    assert len(s3.proxy.requests("GET", "/recipes/")) == 1
