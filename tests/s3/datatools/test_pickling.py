"""What of an S3 travels to another process, and what does not."""

import pickle

import pytest

from mfstore.errors import NotSerializable
from mfstore.s3.datatools.s3 import S3, MetaflowS3AccessDenied


def test_secrets_and_files_do_not_travel(s3_env, tmp_path, monkeypatch):
    params = {
        "aws_access_key_id": "AKID", "aws_secret_access_key": "TOPSECRET", "region_name": "us-east-1",
        "endpoint_url": "http://user:TOPSECRET@127.0.0.1:1",
    }  # fmt: skip
    with S3(tmproot=str(tmp_path), s3root="s3://b/p", client_params=params, attempts=1) as s3:
        pickled = pickle.dumps(pickle.loads(pickle.dumps(s3)))
        assert b"TOPSECRET" not in pickled
        copy = pickle.loads(pickled)
        copy.close()
        assert len(list(tmp_path.glob("metaflow.s3.*"))) == 1, "the directory of the original, which goes on"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pickle.loads(pickled) as copy, pytest.raises(MetaflowS3AccessDenied) as caught:
        copy.get("k")
    assert "aws_secret_access_key" in str(caught.value) and "password in endpoint_url" in str(caught.value)
    assert not list(tmp_path.glob("metaflow.s3.*"))


def test_an_s3_of_a_client_is_told(s3_env, tmp_path):
    import boto3

    client = boto3.client("s3", region_name="us-east-1")
    with S3(tmproot=str(tmp_path), external_client=client) as s3, pytest.raises(NotSerializable, match="client object"):
        pickle.dumps(s3)
