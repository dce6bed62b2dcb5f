"""Holds of refs: no policy lets them go, and nobody removes them."""

import json
from datetime import timedelta

import pytest

from mfstore import errors, opening
from mfstore.backends.local import LocalBackend
from mfstore.cli import main
from mfstore.description import load
from mfstore.format.holds import STORE_HOLDS, Hold, encode_hold, hold_path
from mfstore.format.refs import ref_path
from mfstore.saving import guard
from tests.rigs.gc import Beside, RemoteMemory, Unconditional, store_on

FEW = {"grace": 0, "keep_last": 1, "series": ["runs/*"]}


@pytest.fixture(params=["local", "remote", "unconditional"])
def store(request, tmp_path):
    """A ref with three values, and a series of three refs."""
    backends = {"local": lambda: LocalBackend(str(tmp_path), fsync="never"), "remote": RemoteMemory}
    store = store_on(backends.get(request.param, Unconditional)())
    for number in range(3):
        store.put(number, "model")
        store.put([number], f"runs/{number}")
    yield store
    store.close()


def changed(store):
    return {change.name for change in store.plan_gc(**FEW).decision.refs}


def test_a_held_ref_stays_with_its_history(store):
    assert changed(store) == {"model", "runs/0", "runs/1"}
    hold = store.refs.hold("model", "case 7")
    store.refs.hold("runs/0", lasting=timedelta(days=30))
    assert store.refs.holds()["model"] == hold and hold.why == "case 7"
    assert list(store.refs.holds()) == ["model", "runs/0"]
    plan = store.plan_gc(**FEW)
    assert {change.name for change in plan.decision.refs} == {"runs/1"} and set(plan.held) == {"model", "runs/0"}
    plan.execute(yes_really=True)
    assert store["model@2"] == 0 and store["runs/0"] == [0] and "runs/1" not in store.refs
    store.put(3, "model")
    assert len(store.refs.log("model")) == 4, "it can be set"
    for name in ("model", "runs/0"):
        store.refs.release(name)
    assert changed(store) == {"model", "runs/0"}
    with pytest.raises(errors.NotFound, match="not held"):
        store.refs.release("model")


def test_a_held_ref_is_not_removed(store):
    store.refs.hold("model", "case 7")
    for remove in (store.delete, store.refs.__delitem__, store.refs.pop):
        with pytest.raises(errors.Refused, match=r"held by .*case 7.*--release model"):
            remove("model")
    assert store["model"] == 2
    store.refs.release("model")
    store.delete("model")
    with pytest.raises(errors.NotFound):
        store.refs.hold("model")
    assert store.refs.holds() == {}


def test_a_plan_from_before_the_hold_leaves_it_alone(store):
    plan = store.plan_gc(**FEW)
    store.refs.hold("model")
    store.refs.hold("runs/0")
    result = plan.execute(yes_really=True)
    assert (result.refs, result.refs_changed) == (1, 2)
    assert len(store.refs.log("model")) == 3 and store["runs/0"] == [0]


def test_a_hold_that_ended_holds_nothing_and_goes(store):
    ended = Hold("ada@host", 1.0, "undone", 2.0)
    for name in ("model", "runs/0"):
        store.backend.put(hold_path(name), [encode_hold(ended)])
    store.refs.hold("runs/2")
    assert list(store.refs.holds()) == ["runs/2"] and changed(store) == {"model", "runs/0", "runs/1"}
    store.refs.release("model")  # what is left of it
    store.plan_gc(**FEW).execute(yes_really=True)
    assert [info.key for info in store.backend.list(STORE_HOLDS)] == [hold_path("runs/2")]


def test_one_that_cannot_be_read_holds(store):
    store.backend.put(hold_path("model"), [b"{"])
    assert store.refs.holds()["model"].unread
    assert changed(store) == {"runs/0", "runs/1"}
    with pytest.raises(errors.Refused, match="cannot be read"):
        store.delete("model")
    store.refs.release("model")
    assert store.refs.holds() == {}


def test_who_does_not_know_holds_does_not_collect(store):
    assert load(store.backend).features["delete"] == ()
    store.refs.hold("model")
    assert load(store.backend).features["delete"] == ("holds",)
    store.backend.put("mfstore.json", [b"{"])
    store.repair()
    assert load(store.backend).features["delete"] == ("holds",)


def collect(store):
    return store.plan_gc(grace=0).execute(yes_really=True)


def test_a_held_key_stays(store):
    held, other = store.put("held" * 99), store.put("other" * 99)
    store.refs.hold(held, "case 7")
    assert list(store.refs.holds()) == [held]
    collect(store)
    assert collect(store).deleted.recipes == 1
    assert store.get(held) and not store.exists(other)
    plan = store.plan_gc(grace=0)
    assert plan.live[bytes.fromhex(held)] == "held"
    store.refs.release(held)
    collect(store)
    assert collect(store).deleted.recipes == 1 and not store.exists(held)
    with pytest.raises(errors.NotFound):
        store.refs.hold(held)
    assert store.refs.holds() == {}


def test_a_key_that_is_held_after_the_plan_was_made_stays(store):
    key = store.put("held" * 99)
    collect(store)
    plan = store.plan_gc(grace=0)
    assert plan.decision.deletes.amount.recipes == 1
    store.refs.hold(key)
    result = plan.execute(yes_really=True)
    assert (result.deleted.recipes, result.changed) == (0, 1)
    assert store.get(key)


def test_a_key_that_is_gone_and_held_stops_nothing(store):
    store.backend.put(hold_path("0" * 64), [b"{"])
    collect(store)


# ---- beside a collection, step by step ----------------------------------------------------


def begun(inner):
    """A store with a ref of three values, and a key that was condemned."""
    store = store_on(inner)
    for number in range(3):
        store.put([number], "model")
    key = store.put("held" * 99)
    collect(store)
    return store, key


def held(backend, name):
    """What is held since then: the values of the ref, or of the key. None when it could not be held."""
    store = store_on(backend)  # one that knows what was condemned: with no grace period others may not
    try:
        store.refs.hold(name)
    except (errors.Conflict, errors.NotFound):
        return None
    return values(store, name)


def values(store, name):
    return [store.get(entry.key) for entry in store.refs.log(name)] if name == "model" else [store.get(name)]


def check(inner, name, found):
    """After all, and two collections more."""
    store = store_on(inner)
    assert list(store.refs.holds()) == ([] if found is None else [name])
    for _ in range(2):
        store.plan_gc(**FEW).execute(yes_really=True)
    if found is not None:
        assert values(store, name) == found


@pytest.mark.parametrize("what", ["ref", "key"])
def test_a_hold_at_any_step_of_a_collection(what, monkeypatch):
    monkeypatch.setattr(guard, "DELETION_WAIT", 0.0)  # it would wait for the end of the very collection that waits
    outcomes = []
    for step in range(1, 1000):
        inner = RemoteMemory()
        _, key = begun(inner)
        name = "model" if what == "ref" else key
        answers = []
        beside = Beside(inner, step, lambda inner=inner, name=name, to=answers: to.append(held(inner, name)))
        store_on(beside).plan_gc(**FEW).execute(yes_really=True)
        if not answers:
            break
        check(inner, name, answers[0])
        outcomes += answers
    assert len(outcomes) > 20 and outcomes[0] == ([[2], [1], [0]] if what == "ref" else ["held" * 99])
    assert outcomes[-1] == ([[2]] if what == "ref" else None), "too late"


@pytest.mark.parametrize("backend", [RemoteMemory, Unconditional])
@pytest.mark.parametrize("what", ["ref", "key"])
def test_a_collection_at_any_step_of_a_hold(what, backend):
    for step in range(1, 100):
        inner = backend()
        store, key = begun(inner)
        name = "model" if what == "ref" else key
        plan = store.plan_gc(**FEW)
        beside = Beside(inner, step, lambda plan=plan: plan.execute(yes_really=True))
        check(inner, name, held(beside, name))
        if beside.calls < step:
            break
    assert step > 5


def test_what_cannot_be_held(store):
    for name in ("never", "model@1"):
        with pytest.raises(errors.NotFound):
            store.refs.hold(name)
    with pytest.raises(errors.InvalidKey):
        store.refs.hold("a//b")
    store.backend.put(ref_path("bad"), [b"{"])
    with pytest.raises(errors.CorruptObject):
        store.refs.hold("bad")
    assert store.refs.holds() == {}


def test_the_commands(tmp_path, capsys):
    where = ["-s", str(tmp_path)]
    with opening.open_store(str(tmp_path)) as store:
        for number in range(3):
            store.put(number, "model")
    main(["hold", *where, "model", "--why", "case 7"])
    assert capsys.readouterr().out.startswith("model is held by ")
    main(["holds", *where, "--json"])
    assert json.loads(capsys.readouterr().out)["ref"] == "model"
    main(["gc", *where, "--keep-last", "1", "--grace", "0s"])
    assert "held: 1 (mfstore holds lists them)" in capsys.readouterr().out
    main(["hold", *where, "--release", "model", "--json"])
    assert json.loads(capsys.readouterr().out) == {"ref": "model", "held": False}
    main(["holds", *where])
    assert capsys.readouterr().out == "Nothing is held.\n"
