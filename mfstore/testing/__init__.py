"""For authors of backends and of programs that use mfstore: a conformance suite and doubles that fail on demand.

``BackendTests`` needs pytest. A backend's whole test file is::

    from mfstore.testing import BackendTests

    class TestMyBackend(BackendTests):
        def make_backend(self, tmp_path):
            return MyBackend(...)

``FaultProxy`` stands between any S3 client and any S3 server; what it can do to them is in ``mfstore.testing.actions``.
"""

from typing import TYPE_CHECKING, Any

from mfstore.testing import actions
from mfstore.testing.exchange import Exchange
from mfstore.testing.faults import Fault, FaultyBackend
from mfstore.testing.network import NetworkFault
from mfstore.testing.proxy import FaultProxy

if TYPE_CHECKING:
    from mfstore.testing.backend import BackendTests

__all__ = ["BackendTests", "Exchange", "Fault", "FaultProxy", "FaultyBackend", "NetworkFault", "actions"]


def __getattr__(name: str) -> Any:
    # The rest works where pytest is not installed.
    if name != "BackendTests":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mfstore.testing.backend import BackendTests

    return BackendTests
