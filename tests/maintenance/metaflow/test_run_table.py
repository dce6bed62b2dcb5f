"""What is known of runs, in columns: whatever is asked of it, it is as if each run were an object of its own, and what a
plan has of its runs is used as the tuples and dictionaries it reads like."""

import copy
import json
import pickle
import random
import tracemalloc

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


def facts(count, seed=0):
    generator = random.Random(seed)

    def maybe(moment):
        return generator.choice([None, moment])

    for number in range(count):
        moment = generator.random() * 2e9
        yield RunFacts(
            flow=generator.choice(["Flow", "Größe"]), run=f"argo-{number}", began=moment, touched=moment + 1,
            running=generator.random() < 0.1, tags=generator.choice([None, frozenset(), frozenset({"a", "user:b"})]),
            held=generator.choice(["", "held by ann"]), heartbeat=maybe(moment), tasks=number, files=generator.randrange(9),
            size=generator.randrange(1 << 50), cards=3, cards_size=1 << 40, ended=maybe(0.0),
            state=generator.choice(["successful", "failed"]), user="ann", branch=generator.choice(["", "prod"]),
            deployment="", expires=maybe(-1.5), unclear="", recorded=generator.choice(["files", "service"]),
        )  # fmt: skip


def test_it_is_a_list_of_facts():
    runs = [*facts(200)]
    table = RunTable(runs)
    for found in (table, pickle.loads(pickle.dumps(table))):
        assert [*found] == runs and found == runs and len(found) == 200 and found[-1] == runs[-1]
        assert [*found[3:9:2]] == runs[3:9:2] and runs[7] in found and found.of((runs[5].flow, "argo-5")) == runs[5]
        assert [*map(found.run, range(200))] == [(entry.flow, entry.run) for entry in runs]
        assert [*map(found.began, range(200))] == [entry.began for entry in runs]
    assert table.number(("Flow", "x")) is table.number(("X", "argo-1")) is None and RunTable(runs[1:]) != table
    assert [*table.names] == [entry.name for entry in runs] and runs[9].name in table.names and "x/y" not in table.names
    beats = {(entry.flow, entry.run): entry.heartbeat for entry in runs if entry.heartbeat is not None}
    assert table.heartbeats == beats and len(table.heartbeats) == len(beats) and beats.items() >= {*beats.items()}
    some = SomeRuns(table, range(1, 200, 7))
    assert some == runs[1::7] and pickle.loads(pickle.dumps((table, some)))[1] == some and not SomeRuns(table, ())


def test_reasons_are_a_dict_in_the_order_of_the_table():
    runs = [*facts(60)]
    table, generator = RunTable(runs), random.Random(4)
    found, model = Reasons(table), {}
    for _ in range(300):
        run = table.run(generator.randrange(60))
        if generator.random() < 0.3 and run in model:
            del found[run], model[run]
        else:
            found[run] = model[run] = generator.choice(["young", "pinned", "tagged"])
        assert len(found) == len(model) and found.get(run) == model.get(run)
    assert found == model == dict(pickle.loads(pickle.dumps(found))) and [*found] == [
        run for run in map(table.run, range(60)) if run in model
    ]
    assert [*map(table.run, found.numbers)] == [*found] and all(
        found.at(table.number_of(run)) == model[run] for run in model
    )
    assert ("Flow", "x") not in found and found.get(("X", "x"), "?") == "?"


def test_a_run_takes_few_bytes():
    tracemalloc.start()
    table = RunTable(facts(20_000))
    reasons = Reasons(table)
    for number in range(len(table)):
        reasons.put(number, "young")
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / len(table) < 300
