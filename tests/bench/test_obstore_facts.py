"""The facts about obstore that mfstore's own clients of two clouds rest on, as long as they hold."""

import pytest

pytest.importorskip("obstore")

from benchmarks.obstore_facts import FACTS, Facts  # noqa: E402


@pytest.fixture(scope="module")
def facts():
    found = Facts()
    yield found
    found.close()


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.__name__)
def test_fact_holds(facts, fact):
    holds, shown = fact(facts)
    assert holds, f"no more: {fact.__doc__} ({shown})"
