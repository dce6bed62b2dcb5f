"""A datastore root of Metaflow for each test, in a directory or in S3, in a process that has seen nothing."""

import pytest

from mfstore.metaflow import process_state as process_state_module
from mfstore.metaflow.process_state import forget_process_state
from tests.rigs.metaflow_stores import local_datastore, s3_datastore


@pytest.fixture
def new_process(tmp_path, monkeypatch):
    """Nothing is remembered, neither here nor on this host."""
    monkeypatch.setenv("MFSTORE_CACHE", str(tmp_path / "cache"))
    forget_process_state()
    yield
    forget_process_state()


@pytest.fixture(params=["stock", "packed"])
def profile(request, new_process, monkeypatch):
    monkeypatch.setattr(process_state_module, "from_conf", {"MFSTORE_PROFILE": request.param}.get)
    forget_process_state()
    return request.param


@pytest.fixture
def s3(new_process, monkeypatch, radosgw):
    with s3_datastore(radosgw, monkeypatch) as found:
        yield found


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.server)])
def datastore(request, new_process, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return local_datastore(tmp_path) if request.param == "local" else request.getfixturevalue("s3")
