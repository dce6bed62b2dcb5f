"""What ``pip install mfstore[s3]`` installs is enough: botocore, and nothing that is built on it."""

import subprocess
import sys

from tests.servers.base import client_options

WORK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("boto3", "aiobotocore", "aiohttp", "s3transfer", "tqdm", "awscrt", "metaflow"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())

import mfstore
from mfstore.errors import Unsupported
from mfstore.s3 import BulkClient

url, bucket = sys.argv[1:]
keys = {"endpoint_url": url, "region_name": "us-east-1"}
with BulkClient(bucket, **keys) as client:
    client.put_many({"a": b"1" * 10, "b": b"2" * 3_000_000})
    assert [len(got.data) for got in client.get_many(["a", "b"], progress=True)] == [10, 3_000_000]
    client.copy({"a": "c"})
    assert sorted(entry.key for entry in client.list("")) == ["a", "b", "c"]
    client.delete_many(["c"])
    try:
        list(client.get_many(["a"], progress="tqdm"))
    except Unsupported as error:
        assert "tqdm" in error.hint
    else:
        raise AssertionError
try:
    list(BulkClient(bucket, engine="aiobotocore", **keys).get_many(["a"]))
except Unsupported as error:
    assert "mfstore[aio]" in error.hint, error
else:
    raise AssertionError

with mfstore.S3(s3root=f"s3://{bucket}/s3", client_params=keys) as s3:
    s3.put("k", b"value")
    assert s3.get("k").blob == b"value"

store = mfstore.open(f"s3://{bucket}/store", **keys)
assert store.get(store.put({"x": [1, 2, 3]})) == {"x": [1, 2, 3]}
print("done", sorted(name for name in ("boto3", "aiobotocore", "aiohttp", "tqdm") if name in sys.modules))
"""


def test_botocore_is_enough(radosgw, s3_env, monkeypatch):
    given = client_options(radosgw)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["aws_secret_access_key"])
    bucket = radosgw.create_bucket("botocore-alone")
    done = subprocess.run(
        [sys.executable, "-c", WORK, radosgw.url, bucket], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done []\n"), done.stdout
