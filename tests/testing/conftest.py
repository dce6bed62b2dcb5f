import threading

import pytest

from mfstore.testing import FaultProxy
from tests.rigs.fault_upstream import Upstream


@pytest.fixture
def upstream():
    server = Upstream()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxy(upstream):
    """A proxy with no faults; tests set ``proxy.faults``."""
    with FaultProxy(upstream.url) as proxy:
        yield proxy
