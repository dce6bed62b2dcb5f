"""Small values that a task in a directory has of its input, and saves as they are."""

import os
import time
from pathlib import Path

import pytest

from mfstore.metaflow import process_state
from mfstore.metaflow.packed import bundles, small
from mfstore.metaflow.process_state import forget_process_state
from tests.rigs.metaflow_stores import local_datastore, save

VALUE = {"steps": [f"step {number}" for number in range(300)]}
"""Longer than what lies in a recipe as it is."""


@pytest.fixture
def saved(new_process, tmp_path, monkeypatch):
    """A datastore with a task in it, and the artifacts of which bundles are saved from here on."""
    monkeypatch.setattr(process_state, "from_conf", {"MFSTORE_PROFILE": "packed"}.get)
    forget_process_state()
    datastore = local_datastore(tmp_path)
    save(datastore.flow(), "1/start/7", {"x": VALUE})
    forget_process_state()
    made = []
    original = bundles.save

    def counted(store, artifacts, *given):
        artifacts = [*artifacts]
        made.extend(name for name, _ in artifacts)
        return original(store, artifacts, *given)

    monkeypatch.setattr(bundles, "save", counted)
    return datastore, made


def hand_on(datastore, value, *also):
    flow = datastore.flow()
    read = flow.get_task_datastore("1", "start", "7")
    assert read["x"] == VALUE
    made = flow.get_task_datastore("1", "end", "8", attempt=0, mode="w")
    made.init_task()
    made.passdown_partial(read, ["x"])
    made.save_artifacts(iter([("x", value), *also]), 1)
    made.done()
    forget_process_state()
    found = datastore.flow().get_task_datastore("1", "end", "8")
    assert found["x"] == value
    return found, read


def test_what_is_as_it_was_is_not_stored_again(saved):
    datastore, made = saved
    found, read = hand_on(datastore, VALUE, ("y", 1))
    assert (found._objects["x"], found._info["x"]) == (read._objects["x"], read._info["x"])
    assert found["y"] == 1 and made == []


def test_what_has_changed_is_stored(saved):
    datastore, made = saved
    hand_on(datastore, {**VALUE, "more": 1})
    assert made == ["x"]


@pytest.mark.parametrize("why", ["long ago", "of another run"])
def test_what_may_be_gone_is_stored(saved, why):
    datastore, made = saved
    task = Path(datastore.root, "Flow", "1", "start", "7")
    if why == "long ago":
        then = time.time() - 4000
        os.utime(task / "0.data.json", (then, then))
    else:
        (task / "0.task_begin").unlink()
    hand_on(datastore, VALUE)
    assert made == ["x"]


def test_of_a_bundle_with_many_small_values_the_file_is_read_once(saved, monkeypatch):
    datastore, _ = saved
    values = {f"x{number}": ["x" * 160, number] for number in range(20)}
    save(datastore.flow(), "1/start/9", values)
    forget_process_state()
    task, read = datastore.flow().get_task_datastore("1", "start", "9"), []
    original = small.load_small
    monkeypatch.setattr(small, "load_small", lambda *given: read.append(given) or original(*given))
    assert dict(task.load_artifacts([*values])) == values
    assert len(read) == 1
