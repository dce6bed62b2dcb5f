"""The next run of a step stores what differs from the one before, for at most two requests more."""

import numpy as np
import pytest
from metaflow.task import ForeachFrame

from mfstore.cli import main
from mfstore.errors import NotFound
from mfstore.format.latest import latest_path
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.verify import verify_metaflow
from mfstore.maintenance.verification import VerifyOptions
from mfstore.metaflow import process_state as process_state_module
from mfstore.metaflow.packed.store import packed_store
from mfstore.metaflow.process_state import forget_process_state
from mfstore.metaflow.roots.packed_keys import bundle_of
from mfstore.testing import NetworkFault
from mfstore.testing.actions import Stall, access_denied
from tests.rigs.metaflow_stores import another_host, local_datastore, save

HINT = "mf.store/" + latest_path("Flow", "a")
HINTS = "mf[.]store/latest/"


@pytest.fixture(autouse=True)
def packed(new_process, monkeypatch):
    monkeypatch.setattr(process_state_module, "from_conf", {"MFSTORE_PROFILE": "packed"}.get)
    forget_process_state()


def table(edited=0):
    """300 KB of noise, with cells changed in every chunk, the small one around them too: without a base nothing tells
    where they come from."""
    cells = np.random.default_rng(7).random(40_000)
    cells[edited::50] = edited
    return [edited, cells]


def same(found, expected):
    return found[0] == expected[0] and np.array_equal(found[1], expected[1])


def bases(datastore, task, name="x"):
    """How many old chunks the bundle with this artifact needs for its deltas."""
    return len(packed_store(datastore.root).handle.recipe(bundle_of(task._info[name])).bases)


def hint(datastore):
    return packed_store(datastore.root).backend.get(latest_path("Flow", "a"))


def test_the_next_run_stores_what_differs(datastore):
    first = save(datastore.flow(), "1/a/1", {"x": table(), "tiny": 1})
    another_host()
    second = save(datastore.flow(), "2/a/2", {"x": table(2), "tiny": 2})
    assert not bases(datastore, first)
    assert bases(datastore, second)
    assert hint(datastore).decode() == bundle_of(second._info["x"])
    another_host()
    assert same(datastore.flow().get_task_datastore("2", "a", "2")["x"], table(2))


def test_a_resumed_run_builds_upon_what_was_run(datastore):
    origin = save(datastore.flow(), "1/a/1", {"x": table()})
    cloned = datastore.flow().get_task_datastore("2", "a", "1", attempt=0, mode="w")
    cloned.init_task()
    cloned.clone(datastore.flow().get_task_datastore("1", "a", "1"))
    cloned.done()
    assert hint(datastore).decode() == bundle_of(origin._info["x"])
    assert bases(datastore, save(datastore.flow(), "3/a/1", {"x": table(3)}))


def test_another_step_or_flow_is_no_base(datastore):
    save(datastore.flow(), "1/a/1", {"x": table()})
    assert not bases(datastore, save(datastore.flow(), "1/b/2", {"y": table(2)}), "y")
    assert not bases(datastore, save(datastore.flow(name="Other"), "1/a/2", {"y": table(3)}), "y")


def splits(*indices):
    return [ForeachFrame("a", "items", 9, index, None) for index in indices]


def test_one_split_of_a_foreach_writes_for_all(datastore):
    later = save(datastore.flow(), "1/a/2", {"x": table(), "_foreach_stack": splits(0, 3)})
    with pytest.raises(NotFound):
        hint(datastore)
    first = save(datastore.flow(), "1/a/1", {"x": table(1), "_foreach_stack": splits(0, 0)})
    assert hint(datastore).decode() == bundle_of(first._info["x"]) != bundle_of(later._info["x"])
    third = save(datastore.flow(), "2/a/2", {"x": table(2), "_foreach_stack": splits(0, 3)})
    assert bases(datastore, third)
    assert hint(datastore).decode() == bundle_of(first._info["x"])


def test_what_a_task_only_read_is_found_where_it_lies(datastore):
    """Though its chunks are deltas, which no index has."""
    for run in (1, 2):
        made = save(datastore.flow(), f"{run}/a/{run}", {"x": table(run)})
    assert bases(datastore, made)
    inputs = datastore.flow().get_task_datastore("2", "a", "2")
    task = datastore.flow().get_task_datastore("2", "b", "3", attempt=0, mode="w")
    task.init_task()
    task._objects.update(inputs._objects)
    task._info.update(inputs._info)
    before = packed_store(datastore.root, writing=True).stats().stored
    task.save_artifacts(iter([("x", inputs["x"]), ("own", "text" * 500)]))
    task.done()
    assert packed_store(datastore.root, writing=True).stats().stored - before < 10_000
    with pytest.raises(NotFound):
        packed_store(datastore.root).backend.get(latest_path("Flow", "b"))
    assert same(datastore.flow().get_task_datastore("2", "b", "3")["x"], table(2))


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64, b"0" * 64, b"{}"])
def test_a_hint_that_names_nothing_is_passed_over(datastore, damage):
    save(datastore.flow(), "1/a/1", {"x": table()})
    datastore.write(HINT, damage)
    second = save(datastore.flow(), "2/a/2", {"x": table(2), "also": table(3)})
    assert same(datastore.flow().get_task_datastore("2", "a", "2")["x"], table(2))
    assert hint(datastore).decode() == bundle_of(second._info["x"])


def test_a_bundle_that_is_gone_is_passed_over(datastore):
    bundle = bundle_of(save(datastore.flow(), "1/a/1", {"x": table()})._info["x"])
    datastore.delete(f"mf.store/recipes/{bundle[:2]}/{bundle}")
    another_host()
    save(datastore.flow(), "2/a/2", {"x": table(2)})
    assert same(datastore.flow().get_task_datastore("2", "a", "2")["x"], table(2))


def test_keys_do_not_depend_on_it(datastore, monkeypatch):
    save(datastore.flow(), "1/a/1", {"x": table()})
    built = save(datastore.flow(), "2/a/2", {"x": table(2)})
    alone = save(datastore.flow(), "2/b/2", {"x": table(2)})
    assert built._objects == alone._objects and built._info == alone._info


def test_it_is_one_get_and_one_put_where_something_large_is_saved(s3):
    for run in range(3):
        s3.proxy.clear()
        save(s3.flow(), f"{run}/a/{run}", {"x": table(run), "y": table(run + 7)})
        assert [one.method for one in s3.proxy.requests(path=HINTS)] == ["GET", "PUT"]
    s3.proxy.clear()
    save(s3.flow(), "3/a/3", {"x": table(2), "y": table(9)})
    assert [one.method for one in s3.proxy.requests(path=HINTS)] == ["GET"], "it names the same bundle as before"


def test_nobody_waits_for_the_put(s3):
    """It is under way while the task goes on, and stored before the attempt is done."""
    s3.proxy.faults = [NetworkFault(action=Stall(1.0, where="request"), method="PUT", path=HINTS)]
    save(s3.flow(), "1/a/1", {"x": table()})
    (put,) = s3.proxy.requests("PUT", HINTS)
    (data,) = s3.proxy.requests("PUT", "data[.]json")
    (done,) = s3.proxy.requests("PUT", "DONE[.]lock")
    assert data.started < put.finished <= done.started


def test_a_hint_that_may_not_be_stored_fails_no_task(s3, capsys):
    s3.proxy.faults = [NetworkFault(action=access_denied(), method=method, path=HINTS) for method in ("GET", "PUT")]
    task = save(s3.flow(), "1/a/1", {"x": table()})
    assert same(s3.flow().get_task_datastore("1", "a", "1")["x"], table())
    (line,) = capsys.readouterr().err.splitlines()
    assert "mf.store/latest/Flow.a may not be written" in line
    assert not bases(s3, task)


@pytest.mark.parametrize("where", ["local", pytest.param("s3", marks=pytest.mark.server)])
def test_small_tasks_pay_nothing(where, request, tmp_path):
    datastore = local_datastore(tmp_path) if where == "local" else request.getfixturevalue("s3")
    values = {f"x{number}": np.random.default_rng(number).bytes(64 << 10) for number in range(40)}
    for run in range(2):
        save(datastore.flow(), f"{run}/a/1", {**values, "run": run})
    if where == "s3":
        assert not datastore.proxy.requests(path=HINTS)
    else:
        assert not (tmp_path / "root" / "mf.store" / "latest").exists()


@pytest.mark.parametrize("setting", [("MFSTORE_DELTA", "0"), ("MFSTORE_COMPRESS", "off")])
def test_without_deltas_there_are_no_requests_for_it(s3, monkeypatch, setting):
    monkeypatch.setenv(*setting)
    forget_process_state()
    for run in range(2):
        task = save(s3.flow(), f"{run}/a/1", {"x": table(run)})
    assert not s3.proxy.requests(path=HINTS)
    assert not bases(s3, task)


def test_maintenance_leaves_hints_alone(tmp_path):
    """Nothing that a hint alone names is kept, and a hint that names what is gone is no damage."""
    datastore = local_datastore(tmp_path)
    for run in (1, 2):
        gone = save(datastore.flow(), f"{run}/a/{run}", {"x": table(run)})
    save(datastore.flow(), "3/b/3", {"x": table(3)})
    command = ["gc", "--metaflow", datastore.root, "--keep-last", "1", "--grace", "0s", "--running", "0s"]
    for _ in range(4):
        main([*command, "--execute", "--yes-really"])
    named = bundle_of(gone._info["x"])
    with pytest.raises(NotFound):
        packed_store(datastore.root).handle.recipe(named)
    assert hint(datastore).decode() == named
    root = Root(datastore.root)
    try:
        assert verify_metaflow(root, VerifyOptions("full"))[0].clean
    finally:
        root.close()
    assert packed_store(datastore.root).verify("full").clean
    another_host()
    save(datastore.flow(), "4/a/4", {"x": table(4)})
    assert same(datastore.flow().get_task_datastore("4", "a", "4")["x"], table(4))
