"""Tasks of a listing, kept in few bytes: whatever is asked of them, it is as if they were kept as they are."""

import random
import tracemalloc

import pytest

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.metaflow import listed_tasks
from mfstore.maintenance.metaflow.listed_tasks import TaskTable, decode_rows, encode_rows
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.layout import Task

NAMES = ("attempt.json", "task_begin", "data.json", "DONE.lock", "runtime", "task_stdout.log")


def infos(runs, seed=0, flows=3):
    generator = random.Random(seed)
    for run in range(runs):
        for number, step in enumerate(("start", "end")):
            for name in NAMES:
                etag = (
                    "d41d8cd98f00b204e9800998ecf8427e"
                    if name in ("DONE.lock", "runtime")
                    else generator.randbytes(16).hex()
                )
                key = f"Größe{run % flows}/argo-{run}/{step}/{number}/{generator.choice('01')}.{name}"
                yield ObjectInfo(key, generator.randrange(1 << 40), generator.random() * 2e9, etag)
        yield ObjectInfo(f"Größe{run % flows}/argo-{run}/_parameters/x/_resume_done", 0, 1.5, "no digest")
        yield ObjectInfo(f"Größe{run % flows}/argo-{run}/_parameters/x/0.DONE.lock", 0, 1.5, "ABCDEF00")


@pytest.mark.parametrize("files", [1, 40, 10**6], ids=["all closed", "some closed", "none closed"])
def test_it_is_a_dict_of_tasks(monkeypatch, files):
    monkeypatch.setattr(listed_tasks, "OPEN_FILES", files)
    monkeypatch.setattr(listed_tasks, "OPEN_RUNS", 2)
    table, model = TaskTable(), {}
    listed = list(infos(30))
    # Two parts of a listing take turns: a run that is closed comes back.
    for info in [*listed[::2], *listed[1::2]]:
        path = layout.parse(info.key)
        assert table.get(("Größe0", "argo-0", "start", "0")) == model.get(("Größe0", "argo-0", "start", "0"))
        table.add(path, info)
        name = path.flow, path.run, path.step, path.task
        model.setdefault(name, Task()).add(path.attempt, path.name, info)
    assert (files > 1000) == all(isinstance(rows, list) for rows in table._runs.values())
    assert dict(table.items()) == model and len(table) == len(model) and table
    assert list(table) == [name for name, _ in table.items()] and set(table.runs) == {name[:2] for name in model}
    for name, task in model.items():
        assert table[name] == task and name in table and table.get(name).files == task.files
    assert ("Größe0", "argo-0", "start", "9") not in table and ("Größe0", "x", "start", "0") not in table
    assert dict(table.of_flows({"Größe1"})) == {name: task for name, task in model.items() if name[0] == "Größe1"}
    for name in [name for name in model if name[2] == "_parameters"] + [name for name in model if name[1] == "argo-7"]:
        assert table.pop(name, None) == model.pop(name, None)
    assert dict(table.items()) == model and ("Größe1", "argo-7") not in table.runs
    task = next(iter(model.values()))
    changed = Task(files={file: info._replace(size=1) for file, info in task.files.items()})
    name = next(iter(model))
    table[name] = changed
    assert table[name].files == changed.files and table[name].started == task.started
    table["Größe1", "new", *name[2:]] = changed
    assert [info.size for info in table["Größe1", "new", *name[2:]].files.values()] == [1] * len(task.files)


def test_a_file_takes_few_bytes(monkeypatch):
    monkeypatch.setattr(listed_tasks, "OPEN_FILES", 5000)
    listed = list(infos(2000))
    paths = [layout.parse(info.key) for info in listed]
    tracemalloc.start()
    table = TaskTable()
    for path, info in zip(paths, listed, strict=True):
        table.add(path, info)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Sizes and times are random here: 16 bytes of each file that nothing makes shorter.
    assert taken / len(listed) < 110


def test_what_a_run_is_encoded_as():
    rows = [("start", "1", 0, "data.json", 5, 1.25, b"1" * 16), ("end", "2", None, "_resume_done", 1 << 40, 2e9, "x")]
    assert decode_rows(encode_rows(rows)) == rows
    assert len(encode_rows(rows * 1000)) < 1000
