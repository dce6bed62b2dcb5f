"""What collections condemned is taken back: it is there the day after, and the day after that."""

import json
import time

import pytest

import mfstore
from mfstore import errors
from mfstore.backends.memory import MemoryBackend
from mfstore.cli import main
from mfstore.format.audit import AuditRecord
from mfstore.format.digests import Key
from mfstore.format.refs import RefEntry
from mfstore.maintenance.audit import read_log
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.state import StateFile, encode_names, list_path
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.undo import undo_root
from mfstore.maintenance.store.undo import dropped_values, merged, undo_store
from tests.rigs.gc import RemoteMemory, noise, store_on
from tests.rigs.metaflow_trees import files, opened, three_runs

LAST = RunPolicy(last=1, grace=0.0)


@pytest.fixture
def root(tmp_path):
    """Three runs of a flow, a day apart, and one of another."""
    three_runs(tmp_path)
    with opened(tmp_path) as place:
        yield place


# ---- roots -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [(), ("Flow/0",), ("Flow/*",)])
def test_condemned_runs_stay_and_are_not_condemned_again(root, names):
    before = files(root.backend.root)
    plan, _ = collect_metaflow(root, LAST)
    assert len(plan.condemn) == 2
    done = undo_root(root, names, 3600.0)
    expected = {"Flow/0"} if names == ("Flow/0",) else {"Flow/0", "Flow/1"}
    assert set(done.held) == expected and not done.lost
    for _ in range(3):
        collect_metaflow(root, LAST)
    assert {path for path in before if path.startswith("Flow/0/")} <= set(files(root.backend.root))
    left = {
        path.split("/")[1] for path in files(root.backend.root) if path.startswith("Flow/") and "/data/" not in path
    }
    assert left - {"data"} == {name.partition("/")[2] for name in expected} | {"2"}
    end, begin = [record for record in read_log(root.backend, "mf.maintenance/log/") if record.action == "undo"]
    assert {line["hold"] for line in end.lines} == expected and begin.policy == {"for": 3600.0}


def test_a_list_that_came_late_hides_nothing(root):
    """Of a collector that was stopped for hours right before it wrote it, while another collected. Of what that one
    condemned nothing goes for another grace period, and it is taken back all the same."""
    collect_metaflow(root, LAST)
    root.backend.put(list_path(time.time() - 90_000), [encode_names(["Other/0"])])
    assert StateFile(root.backend).condemned_since() == {}
    assert set(undo_root(root).held) == {"Flow/0", "Flow/1"}


def test_what_is_not_condemned_cannot_be_taken_back(root):
    with pytest.raises(errors.NotFound, match="Flow/0 is not condemned"):
        undo_root(root, ["Flow/0"])
    assert undo_root(root).held == {}
    collect_metaflow(root, LAST)
    with pytest.raises(errors.NotFound, match="Flow/2 is not condemned"):
        undo_root(root, ["Flow/0", "Flow/2"])
    collect_metaflow(root, LAST)
    with pytest.raises(errors.NotFound, match="Flow/0 was removed by a collection of .*@"):
        undo_root(root, ["Flow/0"])


def test_the_command_for_roots(root, capsys):
    def gc(*arguments):
        main(["gc", "--metaflow", root.backend.root, *arguments], standalone_mode=False)
        return capsys.readouterr().out

    assert gc("--undo") == "No run is condemned.\n"
    assert gc("--log") == "There is nothing in the log.\n"
    gc("--keep-last", "1", "--grace", "0s", "--execute")
    assert "Flow/0 stays, held by" in gc("--undo", "--for", "3d", "Flow/0")
    gc("--keep-last", "1", "--grace", "0s", "--execute")
    table = gc("--log")
    assert "undo: 1 run" in table and "gc: 1 run" in table and "last 1" in table
    assert "nothing in the log about Flow/9." in gc("--log", "Flow/9")
    lines = [json.loads(line) for line in gc("--log", "--json", "Flow/1").splitlines()]
    assert {line["action"] for line in lines} == {"gc"}
    assert [line["event"] for line in lines] == ["end", "begin"] * 2, "what condemned it is shown to its end"
    with pytest.raises(SystemExit):
        gc("--undo", "--execute")
    with pytest.raises(SystemExit):
        gc("Flow/0")


# ---- stores ----------------------------------------------------------------------------------------------------------


def collected(store, times=1, **policy):
    for _ in range(times):
        store.plan_gc(grace=0, repack=0, **policy).execute(yes_really=True)


@pytest.mark.parametrize("kind", [MemoryBackend, RemoteMemory])
def test_values_of_refs_are_there_again_and_stay(kind):
    store = store_on(kind())
    for number in range(4):
        store.put(noise(number), "model", note={"number": number})
    history = store.refs.history("model")
    collected(store, keep_last=1)
    assert len(store.refs.history("model")) == 1
    done = undo_store(store, (), 3600.0)
    assert done.refs == {"model": 3} and done.keys == done.lost == []
    assert store.refs.history("model") == history
    collected(store, 3, keep_last=1)
    assert store.refs.history("model") == history
    assert [store.get(entry.key)[0] for entry in history] == [noise(number)[0] for number in (3, 2, 1, 0)]
    assert list(store.refs.holds()) == ["model"]


def test_a_ref_that_a_series_lost_is_there_again():
    store = store_on(MemoryBackend())
    for number in range(3):
        store.refs[f"runs/{number}"] = store.put(noise(number))
    collected(store, keep_last=1, series=["runs/*"])
    assert store.refs.list() == ["runs/2"]
    undo_store(store, ["runs/0"], 3600.0)
    collected(store, 3, keep_last=1, series=["runs/*"])
    assert store.refs.list() == ["runs/0", "runs/2"] and (store["runs/0"] == noise(0)).all()


def test_a_ref_that_somebody_removed_since_does_not_return():
    store = store_on(MemoryBackend())
    for number in range(2):
        store.refs["model"] = store.put(noise(number))
    collected(store, keep_last=1)
    del store.refs["model"]
    done = undo_store(store)
    assert done.refs == {} and len(done.keys) == 1 and store.refs.list() == []


def test_keys_without_a_ref_are_held():
    store = store_on(MemoryBackend())
    store.refs["kept"] = store.put(noise(0))
    one, other = store.put(noise(1)), store.put(noise(2))
    collected(store)
    assert undo_store(store, [one]).keys == [one]
    collected(store, 3)
    assert store.exists(one) and not store.exists(other)
    with pytest.raises(errors.NotFound, match="is not condemned"):
        undo_store(store, [other])
    with pytest.raises(errors.NotFound, match="has lost no value"):
        undo_store(store, ["kept"])


def test_the_command_for_stores(root, tmp_path, capsys):
    place = str(tmp_path / "store")
    with mfstore.open(place) as store:
        for number in range(2):
            store.refs["model"] = store.put(noise(number))
        store.put("garbage")
    main(["gc", "-s", place, "--keep-last", "1", "--grace", "0s", "--execute"], standalone_mode=False)
    main(["gc", "-s", place, "--undo"], standalone_mode=False)
    assert "model has 1 value again, and is held\n1 key without a ref is held\n" in capsys.readouterr().out
    main(["gc", "-s", place, "--log"], standalone_mode=False)
    assert "undo: 1 key, 1 ref" in capsys.readouterr().out


def entry(number, time):
    return RefEntry(Key(f"{number:064x}"), float(time))


def test_histories_are_merged_in_their_order():
    a, b, c, d, e = (entry(number, number) for number in range(5))
    assert merged([c, e], [a, b, d]) == (a, b, c, d, e)
    assert merged([e], [e, a]) == (a, e), "nothing twice"
    assert merged([], [a, b]) == (a, b)
    assert merged([d, b, c], [a]) == (a, d, b, c), "by the order, not by the times, of what is there"
    assert merged([a], [b]) == (b, a), "the present value stays the present one"


def test_a_log_that_somebody_wrote_names_only_what_can_be_a_value():
    rows = [[f"{1:064x}", 5.0], ["no key", 5.0], [f"{2:064x}"], [f"{3:064x}", "soon"], None, 7]
    record = AuditRecord(
        "0" * 16, "begin", "gc", 5.0, "u@h", lines=({"ref": "a", "dropped": rows}, {"ref": 7}, {"ref": "b"})
    )
    (found,) = dropped_values([record]).values()
    assert [value.key for value in found.entries] == [f"{1:064x}"]
