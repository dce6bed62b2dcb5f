"""For authors of backends and of programs that use mfstore: a conformance suite and doubles that fail on demand.

Needs pytest. A backend's whole test file is::

    from mfstore.testing import BackendTests

    class TestMyBackend(BackendTests):
        def make_backend(self, tmp_path):
            return MyBackend(...)
"""

from mfstore.testing.backend import BackendTests
from mfstore.testing.faults import Fault, FaultyBackend

__all__ = ["BackendTests", "Fault", "FaultyBackend"]
