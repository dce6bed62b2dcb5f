import pytest

from mfstore.s3.datatools.s3 import S3
from tests.rigs.s3_cases import environment_of


@pytest.fixture
def aws(s3_server, monkeypatch, tmp_path):
    """The server as what the environment points at."""
    for name, value in environment_of(s3_server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return s3_server


@pytest.fixture
def root(aws, bucket):
    return f"s3://{bucket}/root"


@pytest.fixture
def s3(root):
    with S3(s3root=root) as s3:
        yield s3
