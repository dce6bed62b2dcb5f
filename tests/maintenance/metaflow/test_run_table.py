"""What a plan has of its runs is used as the tuples and dictionaries it reads like."""

import copy
import json
import pickle

import pytest

from mfstore.maintenance.metaflow.collecting.facts import RunFacts
from mfstore.maintenance.metaflow.collecting.run_table import Reasons, RunTable, SomeRuns

FACTS = (
    RunFacts(
        "Flow", "1", 1.0, 2.0, False, frozenset({"a"}), heartbeat=3.5, tasks=1, size=1 << 40, expires=float("inf")
    ),
    RunFacts("Flow", "10", 0.0, -1.0, True, None, state="running", ended=0.0),
    RunFacts("Größe", "x", 1.0, 2.0, False, frozenset(), held="held", cards=2, cards_size=9, recorded="local"),
)
RUNS = [(entry.flow, entry.run) for entry in FACTS]


@pytest.mark.parametrize("runs", [RunTable(FACTS), SomeRuns(RunTable(FACTS[::-1]), [2, 1, 0])], ids=["all", "some"])
def test_runs_are_a_sequence(runs):
    assert (*runs,) == FACTS and len(runs) == 3 and [*reversed(runs)] == [*FACTS[::-1]]
    assert runs[0] == FACTS[0] and runs[-1] == FACTS[2] and FACTS[1] in runs and runs.index(FACTS[2]) == 2
    assert runs[1:] == FACTS[1:] and runs[::-2] == FACTS[::-2] and runs[9:] == ()
    with pytest.raises(IndexError):
        runs[3]
    assert runs == FACTS == runs and runs == [*FACTS] and runs != FACTS[:2]
    assert runs != ["1", "2", "3"] and runs != "123" and runs != 3
    for again in (copy.copy(runs), copy.deepcopy(runs), pickle.loads(pickle.dumps(runs))):
        assert again == runs


def test_signs_of_life_and_names_are_those_of_the_runs():
    table = RunTable(FACTS)
    assert dict(table.heartbeats) == {RUNS[0]: 3.5} and table.heartbeats.get(RUNS[1]) is None
    assert {*table.names} == {"Flow/1", "Flow/10", "Größe/x"} and "Flow" not in table.names


def test_reasons_are_a_mapping():
    table = RunTable(FACTS)
    reasons = Reasons(table)
    reasons.update({RUNS[2]: "so", RUNS[0]: "because"})
    assert dict(reasons) == {RUNS[0]: "because", RUNS[2]: "so"} == reasons and [*reasons] == [RUNS[0], RUNS[2]]
    assert json.dumps({"/".join(run): why for run, why in reasons.items()})
    again = pickle.loads(pickle.dumps(reasons))
    del again[RUNS[0]]
    assert len(again) == 1 and RUNS[0] not in again and again != reasons and len(reasons) == 2
    for none in (RUNS[1], ("Flow", "2"), ("Other", "1"), ("Flow",), "Flow/1", "", None, 3):
        assert none not in reasons and reasons.get(none) is None
        with pytest.raises(KeyError):
            reasons[none]
        with pytest.raises(KeyError):
            del reasons[none]
    with pytest.raises(KeyError):
        reasons["Flow", "2"] = "not of the table"
