import pytest

from mfstore.maintenance.store import setting_aside
from mfstore.maintenance.store.collecting import deletion, ownership
from tests.rigs.gc import Clock


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture(autouse=True)
def nothing_is_late(monkeypatch):
    """In memory no request outlives who sent it. What is said of those that do has tests of its own, with a clock."""
    monkeypatch.setattr(ownership, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(ownership, "QUIET_SECONDS_LOCAL", 0.0)
    monkeypatch.setattr(deletion, "DELETION_PAUSE", 0.0)
    monkeypatch.setattr(setting_aside, "KNOWN_SECONDS", 0.0)
