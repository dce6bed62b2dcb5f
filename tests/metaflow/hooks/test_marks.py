"""Marks that are sent and not waited for: what still comes before what, and where their errors are raised."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest

from mfstore.testing import NetworkFault
from mfstore.testing.actions import Stall, access_denied, slow_down
from tests.rigs.metaflow_stores import save

NOT_WAITED_FOR = ("0.attempt.json", "0.task_begin", "0.runtime")


@pytest.fixture
def s3(profile, s3):
    """On each profile."""
    return s3


def slow(name, seconds=0.5):
    return NetworkFault(action=Stall(seconds, where="request"), method="PUT", path=name)


def refused(name):
    return NetworkFault(action=access_denied(), method="PUT", path=name)


def names(log):
    return [one.path.rpartition("/")[2] for one in log]


def task(datastore, number=7, attempt=0):
    return datastore.flow().get_task_datastore("1", "a", str(number), attempt=attempt, mode="w")


def test_nothing_waits_for_a_mark(s3):
    s3.proxy.faults = [slow("0.attempt.json", 2.0)]
    store = task(s3)
    store.init_task()
    assert all(one.finished is None for one in s3.proxy.log), "init_task returned before its answer"
    store.save_artifacts(iter([("x", os.urandom(3000))]))
    done = {name: one for one in s3.proxy.log for name in names([one])}
    began = done.pop("0.attempt.json").finished
    stored = [one for one in done.values() if one.method == "PUT" and "mfstore-probe" not in one.path]
    assert stored and all(one.started >= began for one in stored), "no blob is sent before the attempt is known"


@pytest.mark.parametrize("name", NOT_WAITED_FOR)
def test_done_waits_for_every_mark_and_is_not_stored_without(s3, name):
    store = task(s3)
    s3.proxy.faults = [refused(name)]
    with pytest.raises(Exception, match="(?i)denied") as caught:
        if name != "0.attempt.json":
            store.save_metadata({name.partition(".")[2]: {}})
        else:
            store.init_task()
        store.save_artifacts(iter([("x", 1)]))
        store.done()
    assert name in str(caught.value)
    assert "0.DONE.lock" not in names(s3.proxy.log)
    s3.proxy.faults = []
    assert not s3.storage().is_file(["Flow/1/a/7/0.DONE.lock"])[0]


def test_done_comes_after_a_slow_mark(s3):
    s3.proxy.faults = [slow("0.task_begin")]
    store = task(s3)
    store.init_task()
    store.save_metadata({"task_begin": {}})
    store.done()
    log = {names([one])[0]: one for one in s3.proxy.log}
    assert log["0.DONE.lock"].started >= max(log["0.task_begin"].finished, log["0.data.json"].finished)


def test_a_mark_is_tried_again(s3):
    s3.proxy.faults = [NetworkFault(action=slow_down(), method="PUT", path="0.attempt.json", nth=1)]
    store = task(s3)
    store.init_task()
    store.save_artifacts(iter([("x", os.urandom(3000))]))
    store.done()
    assert s3.flow().get_task_datastore("1", "a", "7").attempt == 0
    assert names(s3.proxy.log).count("0.attempt.json") == 2


def test_who_sent_a_mark_finds_it(s3):
    """A new attempt hides the one before, also from the process that has just begun it."""
    store = task(s3)
    store.init_task()
    store.done()
    s3.proxy.faults = [slow("1.attempt.json")]
    task(s3, attempt=1).init_task()
    with pytest.raises(Exception, match="not end well"):
        s3.flow().get_task_datastore("1", "a", "7")
    s3.proxy.faults = [slow("0.task_begin")]
    task(s3).save_metadata({"task_begin": {"n": 1}})
    assert s3.storage().is_file(["Flow/1/a/7/0.task_begin"]) == [True]


def test_another_task_is_opened_meanwhile(s3):
    store = task(s3, 1)
    store.init_task()
    store.done()
    s3.proxy.clear()
    s3.proxy.faults = [slow("0.attempt.json")]
    task(s3, 2).init_task()
    assert s3.flow().get_task_datastore("1", "a", "1").attempt == 0
    log = {one.method: one for one in s3.proxy.log}
    assert log["GET"].started < log["PUT"].finished, "while the mark was under way"
    assert log["PUT"].finished is not None, "which is answered when the call has ended"


def test_a_forked_child_leaves_the_parents_marks_alone(s3):
    s3.proxy.faults = [slow("0.attempt.json")]
    store = task(s3)
    store.init_task()
    child = os.fork()
    if not child:
        code = 1
        try:
            s3.storage().save_bytes([("k", io.BytesIO(b"x"))], overwrite=True)
            code = 0 if s3.storage().is_file(["k"]) == [True] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.done()
    assert names(s3.proxy.log).count("0.attempt.json") == 1


def test_done_comes_last(s3):
    save(s3.flow(), "1/a/7", {"x": os.urandom(3000), "y": np.arange(300_000)})
    # The packed profile's hint is on its way with data.json, and comes when it comes: nothing depends on it.
    names = [r.path.rpartition("/")[2] for r in s3.proxy.requests("PUT") if "/latest/" not in r.path]
    assert (
        "0.attempt.json" in names
    )  # and before data.json, whatever else is on its way with it: test_metaflow_marks.py
    assert names[-2:] == ["0.data.json", "0.DONE.lock"], "after data.json, and that after all blobs"


def test_the_end_of_a_task_is_marked_with_its_data(s3):
    store = s3.flow().get_task_datastore("1", "a", "7", attempt=0, mode="w")
    store.init_task()
    store.save_metadata({"task_begin": {"n": 1}})
    store.save_artifacts(iter([("x", 1)]))
    assert s3.storage().is_file(["Flow/1/a/7/0.task_begin"]) == [True]
    s3.proxy.clear()
    store.save_metadata({"task_end": {}})
    assert not s3.proxy.requests()
    store.done()
    names = [r.path.rpartition("/")[2] for r in s3.proxy.requests("PUT")]
    assert sorted(names[:2]) == ["0.data.json", "0.task_end"]
    assert names[2:] == ["0.DONE.lock"]
    opened = s3.flow().get_task_datastore("1", "a", "7")
    assert opened.load_metadata(["task_begin", "task_end"]) == {"task_begin": {"n": 1}, "task_end": {}}


SCRIPT = """
import sys
from metaflow.datastore.flow_datastore import FlowDataStore
from mfstore.metaflow.extension import S3Storage
flow = FlowDataStore("Flow", storage_impl=S3Storage, ds_root=sys.argv[1])
flow.get_task_datastore("1", "a", "7", attempt=0, mode="w").init_task()
"""


@pytest.mark.parametrize("fault", [None, "refused"])
def test_a_process_that_ends_has_stored_its_marks_or_says_so(s3, fault):
    s3.proxy.faults = [refused("0.attempt.json")] if fault else [slow("0.attempt.json")]
    found = subprocess.run([sys.executable, "-c", SCRIPT, s3.root], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    s3.proxy.faults = []
    assert s3.storage().is_file(["Flow/1/a/7/0.attempt.json"]) == [not fault]
    assert ("Flow/1/a/7/0.attempt.json could not be stored" in found.stderr) == bool(fault)
