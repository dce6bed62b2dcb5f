"""Fixtures of the tests that run real flows."""

import uuid

import pytest

from tests.rigs.flows import FlowRig, s3_place
from tests.rigs.s3_fixtures import started
from tests.servers import MetadataService, Moto


@pytest.fixture
def table(tmp_path):
    """A file for flows that include one."""
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2")
    return str(path)


@pytest.fixture(scope="session")
def moto():
    """AWS beside S3."""
    yield from started(Moto())


@pytest.fixture
def metadata_service():
    """Metaflow's, in memory."""
    with MetadataService() as service:
        yield service


@pytest.fixture
def s3_rig(radosgw, tmp_path):
    """Make a rig with a bucket of its own: ``s3_rig(url=proxy.url)``."""
    return _maker(tmp_path, lambda url: s3_place(radosgw, radosgw.create_bucket(f"flows-{uuid.uuid4().hex[:16]}"), url))


@pytest.fixture
def local_rig(tmp_path):
    """Make a rig with a directory of its own."""
    return _maker(tmp_path, lambda url: {})


@pytest.fixture(params=["local", "s3"])
def make_rig(request):
    """Make a rig, on each datastore in turn."""
    return request.getfixturevalue(f"{request.param}_rig")


def _maker(tmp_path, make_place):
    def make(url=None, **more):
        return FlowRig(tmp_path / f"rig-{uuid.uuid4().hex[:8]}", {**make_place(url), **more})

    return make
