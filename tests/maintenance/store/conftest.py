import pytest

from tests.rigs.gc import Clock


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)
