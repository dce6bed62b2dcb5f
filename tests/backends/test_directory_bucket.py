"""A store in a directory bucket (S3 Express), which lists keys in no order and knows no prefixes but those of folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.config import Config

import mfstore
from mfstore.backends.base import Backend
from mfstore.backends.s3.backend import S3Backend
from mfstore.testing import BackendTests
from tests.rigs.directory_bucket import ACCOUNT, BUCKET, REGION, DirectoryBuckets


@pytest.fixture
def service(s3_env: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DirectoryBuckets]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCOUNT.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ACCOUNT.secret_key)
    with DirectoryBuckets() as service:
        yield service


def options(service: DirectoryBuckets) -> dict[str, object]:
    return {"region_name": REGION, "use_ssl": False, "config": Config(proxies={"http": service.origin})}


class TestDirectoryBucket(BackendTests):
    @pytest.fixture(autouse=True)
    def served(self, service: DirectoryBuckets) -> None:
        self.service = service

    def make_backend(self, tmp_path: Path) -> S3Backend:
        return S3Backend(f"s3://{BUCKET}/prefix", **options(self.service))  # type: ignore[arg-type]

    def raw_set(self, backend: Backend, key: str, data: bytes) -> None:
        self.service.damage(f"prefix/{key}", data)


def test_a_store(service: DirectoryBuckets) -> None:
    store = mfstore.open(f"s3://{BUCKET}/prefix", **options(service))
    keys = [store.put({"number": number, "data": bytes([number]) * 100_000}) for number in range(3)]
    for number, key in enumerate(keys):
        store.refs[f"models/{number}"] = key
    store.refs["other"] = keys[0]
    assert sorted(store.refs) == ["models/0", "models/1", "models/2", "other"]
    again = mfstore.open(f"s3://{BUCKET}/prefix", **options(service))
    assert sorted(again.keys()) == sorted(keys)
    assert [again.get(key)["number"] for key in keys] == [0, 1, 2]
    assert not again.verify().findings
