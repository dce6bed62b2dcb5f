"""Metaflow datastores for tests: on a directory and on a real S3 server, ours and stock."""

import os
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

from metaflow.datastore.content_addressed_store import ContentAddressedStore as StockContent
from metaflow.datastore.flow_datastore import FlowDataStore
from metaflow.plugins.datastores.local_storage import LocalStorage as StockLocal
from metaflow.plugins.datastores.s3_storage import S3Storage as StockS3

from mfstore.metaflow.extension import LocalStorage, S3Storage
from mfstore.metaflow.hooks import marks
from mfstore.metaflow.stock.content_store import ContentStore
from mfstore.testing import FaultProxy
from tests.servers.base import boto_client


class Place:
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
        return boto_client(self.server).get_object(Bucket=self.bucket, Key=self._key(path))["Body"].read()

    def write(self, path, data):
        """Replace the bytes, leave the metadata."""
        if self.kind == "local":
            Path(self.root, path).write_bytes(data)
            return
        client = boto_client(self.server)
        try:
            metadata = client.head_object(Bucket=self.bucket, Key=self._key(path))["Metadata"]
        except client.exceptions.ClientError:
            metadata = {}
        client.put_object(Bucket=self.bucket, Key=self._key(path), Body=data, Metadata=metadata)

    def delete(self, path):
        if self.kind == "local":
            os.unlink(Path(self.root, path))
        else:
            boto_client(self.server).delete_object(Bucket=self.bucket, Key=self._key(path))

    def _key(self, path):
        return f"{self.root.removeprefix(f's3://{self.bucket}/')}/{path}"


def local_place(tmp_path):
    return Place("local", str(tmp_path / "root"))


@contextmanager
def s3_place(server, monkeypatch, **options):
    """A root in a new bucket, reached through a proxy that counts and breaks requests."""
    bucket = server.create_bucket(f"mf-{uuid.uuid4().hex[:16]}")
    with FaultProxy(server.url, **options) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        monkeypatch.setenv("AWS_DEFAULT_REGION", server.region)
        yield Place("s3", f"s3://{bucket}/root", server, bucket, proxy)
        proxy.faults = []
        for _ in range(10):  # what a test left under way, while there is somebody who answers
            with suppress(Exception):
                marks.wait_for_marks("s3://")
