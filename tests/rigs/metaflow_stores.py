"""Metaflow datastores for tests: on a directory and on a real S3 server, ours and stock."""

import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

from metaflow.datastore.content_addressed_store import ContentAddressedStore as StockContent
from metaflow.datastore.flow_datastore import FlowDataStore
from metaflow.plugins.datastores.local_storage import LocalStorage as StockLocal
from metaflow.plugins.datastores.s3_storage import S3Storage as StockS3

from mfstore.metaflow.extension import LocalStorage, S3Storage
from mfstore.metaflow.hooks import marks
from mfstore.metaflow.process_state import process_state
from mfstore.metaflow.stock.content_store import ContentStore
from mfstore.testing import FaultProxy
from tests.servers.base import boto_client


class DatastoreRig:
    """A datastore root, and its objects as bytes."""

    def __init__(self, kind, root, server=None, bucket=None, proxy=None):
        self.kind, self.root, self.server, self.bucket, self.proxy = kind, root, server, bucket, proxy

    def storage(self, stock=False):
        classes = {"local": (LocalStorage, StockLocal), "s3": (S3Storage, StockS3)}[self.kind]
        return classes[stock](self.root)

    def content(self, stock=False):
        return (StockContent if stock else ContentStore)("Flow/data", self.storage(stock))

    def flow(self, stock=False, name="Flow"):
        found = FlowDataStore(name, storage_impl=type(self.storage(stock)), ds_root=self.root)
        if stock:
            found.ca_store = StockContent(found._storage_impl.path_join(name, "data"), found._storage_impl)
        return found

    def path_of(self, key):
        return f"Flow/data/{key[:2]}/{key}"

    def read(self, path):
        if self.kind == "local":
            return Path(self.root, path).read_bytes()
        return boto_client(self.server).get_object(Bucket=self.bucket, Key=self.key_of(path))["Body"].read()

    def write(self, path, data):
        """Replace the bytes, leave the metadata."""
        if self.kind == "local":
            Path(self.root, path).write_bytes(data)
            return
        client = boto_client(self.server)
        try:
            metadata = client.head_object(Bucket=self.bucket, Key=self.key_of(path))["Metadata"]
        except client.exceptions.ClientError:
            metadata = {}
        client.put_object(Bucket=self.bucket, Key=self.key_of(path), Body=data, Metadata=metadata)

    def delete(self, path):
        if self.kind == "local":
            os.unlink(Path(self.root, path))
        else:
            boto_client(self.server).delete_object(Bucket=self.bucket, Key=self.key_of(path))

    def key_of(self, path):
        """Of an object, in the bucket."""
        return f"{self.root.removeprefix(f's3://{self.bucket}/')}/{path}"


def local_datastore(tmp_path):
    return DatastoreRig("local", str(tmp_path / "root"))


@contextmanager
def s3_datastore(server, monkeypatch, **options):
    """A root in a new bucket, reached through a proxy that counts and breaks requests."""
    bucket = server.create_bucket(f"mf-{uuid.uuid4().hex[:16]}")
    with FaultProxy(server.url, **options) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        monkeypatch.setenv("AWS_DEFAULT_REGION", server.region)
        yield DatastoreRig("s3", f"s3://{bucket}/root", server, bucket, proxy)
        proxy.faults = []
        for _ in range(10):  # what a test left under way, while there is somebody who answers
            with suppress(Exception):
                marks.wait_for_marks("s3://")


def save(flow, pathspec, artifacts, attempt=0, done=True):
    """A task ("run/step/task") with these artifacts, as Metaflow's runtime saves it."""
    run, step, task = pathspec.split("/")
    store = flow.get_task_datastore(run, step, task, attempt=attempt, mode="w")
    store.init_task()
    store.save_metadata({"task_begin": {}})
    store.save_artifacts(iter(artifacts.items()), len_hint=len(artifacts))
    if done:
        store.done()
    return store


def another_host():
    """From now on nothing is remembered of what was stored or read."""
    process_state().tiny_blobs.clear()
    shutil.rmtree(process_state().knobs.cache, ignore_errors=True)
