"""Budgets on the way of a call: see docs/architecture.md, which states what was counted."""

import re
import uuid

import pytest

from mfstore.s3 import BulkClient
from tests import ROOT
from tests.rigs.walk import bulk_walk, store_walks

TEXT = (ROOT / "docs" / "architecture.md").read_text()
STATED = {
    name: (int(files), int(calls)) for name, files, calls in re.findall(r"^\| (`.+?) \| (\d+) \| (\d+) \|$", TEXT, re.M)
}


def within(name, files):
    stated_files, stated_calls = STATED[name]
    assert len(files) <= stated_files, sorted(files)
    # A few calls more or less, as threads and refreshed credentials will have it.
    assert sum(files.values()) <= 1.1 * stated_calls, files.most_common()


def test_a_directory(tmp_path):
    walks = store_walks(str(tmp_path / "store"))
    within("`store.put` in a directory", walks["put"])
    within("`store.get` in a directory", walks["get"])
    assert STATED["`store.put` in a directory"][0] <= 10
    assert STATED["`store.get` in a directory"][0] <= 8


@pytest.fixture
def named(radosgw):
    return radosgw.create_bucket(f"walk-{uuid.uuid4().hex[:20]}"), {
        "endpoint_url": radosgw.url, "aws_access_key_id": radosgw.access_key,
        "aws_secret_access_key": radosgw.secret_key, "region_name": radosgw.region,
    }  # fmt: skip


def test_a_bucket(named):
    name, options = named
    walks = store_walks(f"s3://{name}/store", **options)
    within("`store.put` in S3", walks["put"])
    within("`store.get` in S3", walks["get"])
    assert STATED["`store.put` in S3"][0] <= 20
    assert STATED["`store.get` in S3"][0] <= 14


def test_the_bulk_client(named):
    name, options = named
    with BulkClient(name, **options) as client:
        within("`BulkClient.get_many`", bulk_walk(client))
    assert STATED["`BulkClient.get_many`"][0] <= 9
