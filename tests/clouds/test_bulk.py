"""The bulk client in Azure and Google Cloud: what its own tests on S3 do not see."""

from __future__ import annotations

import pytest

from mfstore.errors import InvalidKey, Unsupported
from mfstore.s3.bulk.client import BulkClient
from mfstore.s3.bulk.items import PutItem

pytestmark = pytest.mark.server


def test_a_copy_takes_the_options_that_belong_to_it(cloud):
    with BulkClient(cloud.url(), **cloud.options) as client:
        client.put_many([PutItem("a", b"1", metadata={"was": "so"})])
        again = {"MetadataDirective": "REPLACE", "Metadata": {"is": "so"}}
        client.copy({"a": "b"}, options=again)
        client.copy({"a": "c"})
        (before,) = client.head_many(["c"])
        client.copy({"c": "c"})
        b, c = client.head_many(["b", "c"])
        assert (b.metadata, c.metadata) == ({"is": "so"}, {"was": "so"})
        assert c.etag != before.etag, "it was made young again"
        for target in ("a", "d"):
            (refused,) = client.copy({"a": target}, options={"ACL": "public-read"}, on_error="return")
            assert isinstance(refused.error, Unsupported) and "ACL" in str(refused.error)
        assert [entry.key for entry in client.list()] == ["a", "b", "c"]


def test_a_client_that_was_told_no_bucket_is_of_s3(cloud):
    with BulkClient() as client:
        (got,) = client.get_many([f"{cloud.url()}/key"], on_error="return")
        assert isinstance(got.error, InvalidKey) and "BulkClient('az://" in str(got.error)


def test_verify_of_a_store_is_about_digests(cloud):
    with pytest.raises(TypeError, match="digests"):
        cloud.open(verify="bundle.pem")


def test_urls_of_another_service_are_refused(cloud):
    with BulkClient(cloud.url(), **cloud.options) as client:
        other = "gs" if cloud.scheme == "az" else "az"
        for url in (f"{other}://bucket/key", "s3://bucket/key"):
            (got,) = client.get_many([url], on_error="return")
            (put,) = client.put_many({url: b"1"}, on_error="return")
            assert isinstance(got.error, InvalidKey) and isinstance(put.error, InvalidKey)
            assert f"{cloud.scheme}://" in str(got.error)
