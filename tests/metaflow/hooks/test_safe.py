"""METAFLOW_MFSTORE_SAFE: tasks and readers load data alone, in both profiles."""

import os
from pathlib import Path

import pytest
from metaflow.datastore.exceptions import DataException
from metaflow.tuple_util import ForeachFrame

from mfstore.metaflow import process_state
from mfstore.metaflow.process_state import forget_process_state
from tests.rigs.metaflow_stores import local_datastore, save


class Attack:
    def __reduce__(self):
        return os.mkdir, (self.path,)


class Model:
    pass


@pytest.mark.parametrize("profile", ["stock", "packed"])
def test_what_is_no_data_is_refused(new_process, tmp_path, monkeypatch, profile):
    def settle(**settings):
        monkeypatch.setattr(process_state, "from_conf", {"MFSTORE_PROFILE": profile, **settings}.get)
        forget_process_state()

    settle()
    datastore = local_datastore(tmp_path / "root")
    attack = Attack()
    attack.path = str(tmp_path / "it-ran")
    frames = [ForeachFrame("start", "letters", 3, 1, "b")]
    data = {"small": 1, "large": ["x" * 5000, "y" * 5000], "middle": {"a": "z" * 800}, "_foreach_stack": frames}
    models = {"model": Model(), "large_model": [Model(), "m" * 5000], "middle_model": [Model(), "m" * 800]}
    attacks = {"attack": attack, "large_attack": [attack, "n" * 5000], "middle_attack": [attack, "n" * 800]}
    save(datastore.flow(), "1/start/7", {**data, **models, **attacks})

    settle(MFSTORE_SAFE="1")
    task = datastore.flow().get_task_datastore("1", "start", "7")
    assert {name: task[name] for name in data} == data
    for name in (*models, *attacks):
        with pytest.raises(DataException, match=r"UnsafeObject: to load it would take"):
            task[name]
    settle(MFSTORE_SAFE=f"{__name__}.Model")
    task = datastore.flow().get_task_datastore("1", "start", "7")
    assert type(task["model"]) is type(task["large_model"][0]) is type(task["middle_model"][0]) is Model
    for name in attacks:
        with pytest.raises(DataException, match=r"mkdir, which is not on the list"):
            task[name]
    assert not Path(attack.path).exists()
    settle()
    assert datastore.flow().get_task_datastore("1", "start", "7")["attack"] is None
    assert Path(attack.path).exists()
