"""Fixtures of the real S3 servers: each started at its first use, once per session."""

import os
import uuid

import pytest

from mfstore.testing import FaultProxy
from tests.plugins.leftovers import kept
from tests.servers import Ministack, Missing, Nginx, Radosgw


def started(server):
    """Yield the running server. Not installed is a reason to skip only on a developer's own machine: where ``make test``
    installs it, a skip would hide that nothing of S3 was tested."""
    try:
        with kept():
            server.__enter__()
    except Missing as error:
        if os.environ.get("CI") or os.geteuid() == 0:
            raise
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def radosgw():
    """Ceph's gateway."""
    yield from started(Radosgw())


@pytest.fixture(scope="session")
def ministack():
    """ministack, with signatures verified."""
    yield from started(Ministack())


@pytest.fixture(scope="session")
def nginx():
    """The pseudo-S3 for speed."""
    yield from started(Nginx())


@pytest.fixture(scope="session", params=["radosgw", "ministack"])
def s3_server(request):
    """Each of the faithful servers in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def bucket(s3_server):
    """A fresh bucket's name."""
    return s3_server.create_bucket(f"test-{uuid.uuid4().hex[:20]}")


@pytest.fixture
def ca_file(s3_server):
    """What to trust for the server's https."""
    return s3_server.ca_file


@pytest.fixture
def fault_proxy(s3_server):
    """Make a ``FaultProxy`` in front of the server: ``fault_proxy([NetworkFault(…)], latency=0.03)``."""
    proxies = []

    def make(faults=(), *, server=None, **options):
        server = server or s3_server
        credentials = (server.access_key, server.secret_key, server.region)
        proxy = FaultProxy(server.url, faults, **{"credentials": credentials, **options}).start()
        proxies.append(proxy)
        return proxy

    yield make
    for proxy in proxies:
        proxy.close()
