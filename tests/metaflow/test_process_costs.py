"""What a process pays for mfstore, by what it imports and opens: Metaflow is imported by each process of a flow, and by
all that only look at runs."""

import json
import string
import subprocess

import pytest

from tests.rigs.flows import MFSTORE, OFF, PACKED, FlowRig

AT_IMPORT = {
    "mfstore", "mfstore._core", "mfstore.metaflow", "mfstore.metaflow.extension", "mfstore.metaflow.hooks",
    "mfstore.metaflow.hooks.storages", "mfstore.metaflow.needs", "mfstore.s3", "mfstore.s3.datatools",
    "mfstore.s3.datatools.s3",
}  # fmt: skip
IN_A_TASK = {MFSTORE.name: 16, PACKED.name: 18}
"""Modules that a task with small values in a local datastore imports besides, none of them compiled."""

SCRIPT = """
import json, sys
import metaflow
imported = [*sys.modules]
from metaflow.datastore import FlowDataStore
from metaflow.plugins import DATASTORES

storage = next(one for one in DATASTORES if one.TYPE == "local")
opened = []
sys.addaudithook(lambda event, given: event == "open" and str(given[0]).startswith(sys.argv[1]) and opened.append(given[0]))
flow = FlowDataStore("F", storage_impl=storage, ds_root=sys.argv[1])

def task(step, before, number="1"):
    made = flow.get_task_datastore("1", step, number, attempt=0, mode="w")
    made.init_task()
    if before:
        read = flow.get_task_datastore("1", before, "1")
        assert (read["x"], read["name"], read["y"]) == (1, "F", {"a": [1, None]})
    made.save_metadata({"task_begin": {"code": 1}})
    made.save_artifacts(iter([("x", 1), ("name", "F"), ("y", {"a": [1, None]}), ("_transition", ([step], None))]), 4)
    made.save_metadata({"task_end": {}})
    made.done()

task("start", None)
task("end", "start")
first = len(opened)
flow = FlowDataStore("F", storage_impl=storage, ds_root=sys.argv[1])
task("start", None, "2")
told = {"imported": imported, "used": [*sys.modules], "opened": first, "opened again": len(opened) - first}
json.dump(told, sys.stdout)
"""

GRAPH = """
import json, sys
import metaflow
from metaflow.datastore import FlowDataStore
from metaflow.plugins import DATASTORES

storage = next(one for one in DATASTORES if one.TYPE == "local")
flow = FlowDataStore("F", storage_impl=storage, ds_root=sys.argv[1])
graph = {"file": f"{sys.argv[2]}.py", "steps": {name: {"name": name, "type": "linear", "doc": "", "next": []} for name in sys.argv[4]}}
if sys.argv[3] == "new":
    made = flow.get_task_datastore("1", "_parameters", "0", attempt=0, mode="w")
    made.init_task()
else:
    read = flow.get_task_datastore("1", "_parameters", "0")
    made = flow.get_task_datastore("1", "start", "1", attempt=0, mode="w")
    made.init_task()
    made.passdown_partial(read, ["_graph_info"])
    assert read["_graph_info"] == graph
made.save_artifacts(iter([("_graph_info", graph), ("x", 1)]), 2)
made.done()
json.dump({"used": [*sys.modules], "key": made._objects["_graph_info"], "info": made._info["_graph_info"]}, sys.stdout)
"""


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    """What a process of each side imports with Metaflow, and what two tasks of it import and open."""
    found = {}
    for side in (OFF, MFSTORE, PACKED):
        home = tmp_path_factory.mktemp(side.name)
        command = [side.python, "-c", SCRIPT, str(home / "root")]
        environment = FlowRig(home).environment(side)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home)
        assert done.returncode == 0, done.stderr
        found[side.name] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("steps", ["abcdefg", string.ascii_letters + string.digits], ids=["short", "long"])
def test_a_task_that_hands_on_what_metaflow_says_of_the_graph_needs_no_store(tmp_path, steps):
    """Each task of a flow reads that of the run's parameters, which in the packed profile is in a bundle. Of a run only
    the first one below a root needs the store, to make it, and who first stores a graph of many steps."""
    told = []
    for given in (("first", "new"), ("second", "new"), ("second", "handed on")):
        command = [PACKED.python, "-c", GRAPH, str(tmp_path / "root"), *given, steps]
        environment = FlowRig(tmp_path).environment(PACKED)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    first, *others = told
    assert others[0]["key"] == others[1]["key"] != first["key"] and others[0]["info"] == others[1]["info"]
    assert len(first["key"]) == 64 and "mfstore.store" in first["used"]
    for other in others if steps == "abcdefg" else others[1:]:
        assert not {"mfstore.store", "mfstore.format", "mfstore.metaflow.packed.bundles"}.intersection(other["used"])


def test_importing_metaflow_imports_few_modules_and_nothing_compiled(costs):
    ours, theirs = ({*costs[side.name]["imported"]} for side in (MFSTORE, OFF))
    assert ours - theirs == AT_IMPORT


@pytest.mark.parametrize("side", [MFSTORE, PACKED], ids=lambda side: side.name)
def test_a_task_with_small_values_imports_few_modules_and_nothing_compiled(costs, side):
    used = {*costs[side.name]["used"]} - {*costs[side.name]["imported"]} - {*costs[OFF.name]["used"]}
    assert {name.partition(".")[0] for name in used} == {"mfstore"}
    assert len(used) <= IN_A_TASK[side.name], sorted(used)


def test_a_task_with_small_values_opens_few_files(costs):
    """Two tasks, of which one reads the other. In the default profile each new blob is looked for, and two files of it
    are written; in the packed profile there is none."""
    assert costs[MFSTORE.name]["opened"] <= costs[OFF.name]["opened"] + 12
    assert costs[PACKED.name]["opened"] <= costs[OFF.name]["opened"] // 2


def test_what_another_task_stored_is_read_once_before_it_is_relied_on(costs):
    """Four blobs and what is said of each, where Metaflow asks only whether they are there. The task's first file is
    tried before its folder is made."""
    assert costs[MFSTORE.name]["opened again"] <= costs[OFF.name]["opened again"] + 4 * 2 + 1
    assert costs[PACKED.name]["opened again"] <= costs[OFF.name]["opened again"] + 1
