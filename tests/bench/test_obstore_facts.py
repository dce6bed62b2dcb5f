"""The facts about obstore that mfstore's own clients of two clouds rest on, as long as they hold."""

import pytest

pytest.importorskip("obstore")

from benchmarks.obstore_facts import FACTS, Facts, no_fork


@pytest.fixture
def facts():
    found = Facts()
    yield found
    found.close()


# That of the fork waits for what hangs: the command tries it.
@pytest.mark.parametrize("fact", [fact for fact in FACTS if fact is not no_fork], ids=lambda fact: fact.__name__)
def test_fact_holds(facts, fact):
    holds, shown = fact(facts)
    assert holds, f"no more: {fact.__doc__} ({shown})"
