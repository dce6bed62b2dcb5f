"""For authors of backends and of programs that use mfstore: a conformance suite and doubles that fail on demand.

Needs pytest. A backend's whole test file is::

    from mfstore.testing import BackendTests

    class TestMyBackend(BackendTests):
        def make_backend(self, tmp_path):
            return MyBackend(...)

``FaultProxy`` stands between any S3 client and any S3 server; what it can do to them is in ``mfstore.testing.actions``.
"""

from mfstore.testing import actions
from mfstore.testing.backend import BackendTests
from mfstore.testing.faults import Fault, FaultyBackend
from mfstore.testing.network import Exchange, NetworkFault
from mfstore.testing.proxy import FaultProxy

__all__ = ["BackendTests", "Exchange", "Fault", "FaultProxy", "FaultyBackend", "NetworkFault", "actions"]
