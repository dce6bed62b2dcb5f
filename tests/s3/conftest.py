import pytest

from mfstore.s3.transfers import downloads, uploads
from mfstore.s3.transfers.retry import RetryPolicy
from tests.rigs.s3_faults import MIB, PART, Rig


@pytest.fixture(params=["native", "aiobotocore"])
def engine(request):
    return request.param


@pytest.fixture
def rig(ministack, engine, s3_env):
    """On ministack, which keeps and compares checksums."""
    rig = Rig(ministack, engine)
    yield rig
    rig.close()


@pytest.fixture(params=["ministack", "radosgw"])
def any_rig(request, engine, s3_env):
    """On each."""
    rig = Rig(request.getfixturevalue(request.param), engine)
    yield rig
    rig.close()


@pytest.fixture
def quick(monkeypatch):
    """Delays a tenth as long, and a few MiB make several pieces and parts."""
    real = RetryPolicy.delay
    monkeypatch.setattr(RetryPolicy, "delay", lambda *arguments: 0.1 * real(*arguments))
    monkeypatch.setattr(downloads, "SHORTEST_PIECE", MIB)
    monkeypatch.setattr(downloads, "LONGEST_PIECE", MIB)
    monkeypatch.setattr(uploads, "LONGEST_SINGLE_PUT", PART)
    monkeypatch.setattr(uploads, "PART_BYTES", PART)
