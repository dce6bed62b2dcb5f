import pytest


@pytest.fixture(autouse=True)
def without_variables_of_tests(monkeypatch):
    """Says where the tests' Azurite is, and has been read by now: the doctor rightly calls it no setting of mfstore."""
    monkeypatch.delenv("MFSTORE_AZURITE", raising=False)
