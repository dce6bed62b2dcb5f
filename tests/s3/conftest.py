import pytest

from mfstore.s3.transfers import downloads, ending, uploads
from mfstore.s3.transfers.retry import RetryPolicy
from tests.rigs.s3_faults import MIB, PART, Rig
from tests.rigs.soak import IN_SOAKS


@pytest.fixture(params=["native", "aiobotocore"])
def engine(request):
    return request.param


@pytest.fixture
def patient(monkeypatch):
    """Uploads are given up however long the server takes to say so. On a machine that is busy it may take longer than
    we wait in earnest, and the rig finds what is left."""
    monkeypatch.setattr(ending, "ABORT_SECONDS", 60.0)


@pytest.fixture
def rig(ministack, engine, s3_env, patient):
    """On ministack, which keeps and compares checksums."""
    rig = Rig(ministack, engine)
    yield rig
    rig.close()


@pytest.fixture(
    params=[
        ("ministack", "native"),
        ("ministack", "aiobotocore"),
        ("radosgw", "native"),
        pytest.param(("radosgw", "aiobotocore"), marks=IN_SOAKS),  # each of the two has been tried
    ],
    ids="-".join,
)
def any_rig(request, s3_env, patient):
    """On each server, by each engine."""
    server, engine = request.param
    rig = Rig(request.getfixturevalue(server), engine)
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
