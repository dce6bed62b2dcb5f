import pytest

from tests.rigs.native_engine import Rig


@pytest.fixture
def rig():
    """A native engine and servers for it to meet."""
    with Rig() as rig:
        yield rig
