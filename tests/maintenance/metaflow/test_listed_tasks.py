"""Tasks of a listing, kept in few bytes: whatever is asked of them, it is as if they were kept as they are."""

import random
import tracemalloc

import pytest

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.metaflow import listed_tasks
from mfstore.maintenance.metaflow.holdings import Holdings
from mfstore.maintenance.metaflow.listed_tasks import TaskTable, decode_rows, encode_rows
from mfstore.maintenance.spill import Spill
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
    assert (files > 1000) == all(isinstance(rows, list) for runs in table._flows.values() for rows in runs.values())
    assert dict(table.items()) == model and len(table) == len(model) and table
    assert list(table) == [name for name, _ in table.items()] and set(table.runs) == {name[:2] for name in model}
    for name, task in model.items():
        assert table[name] == task and name in table and table.get(name).files == task.files
    assert ("Größe0", "argo-0", "start", "9") not in table and ("Größe0", "x", "start", "0") not in table
    assert dict(table.of_flows({"Größe1"})) == {name: task for name, task in model.items() if name[0] == "Größe1"}
    name, task = next(iter(model.items()))
    table.add_files(name, {file: info._replace(size=1) for file, info in task.files.items()})
    table.add_files(("Größe1", "new", *name[2:]), task.files)
    assert [info.size for info in table[name].files.values()] == [1] * len(task.files)
    assert table[name].started == task.started and table["Größe1", "new", *name[2:]].files.keys() == task.files.keys()


@pytest.mark.parametrize("spill", [None, Spill()], ids=["in memory", "spilled"])
@pytest.mark.parametrize("files", [1, 40, 10**6], ids=["all closed", "some closed", "none closed"])
def test_what_nobody_marked_is_taken_out(monkeypatch, files, spill):
    monkeypatch.setattr(listed_tasks, "OPEN_FILES", files)
    monkeypatch.setattr(listed_tasks, "OPEN_RUNS", 2)
    table = TaskTable(spill)
    tasks = [*infos(6)]
    others = [
        ObjectInfo(f"Größe0/{run}/start/{number}/0.{name}", 1, 2.0, "x")
        for run in ("argo-0", "x") for number in range(2, 9) for name in ("data.json", "task_end")
    ]  # fmt: skip
    listed = tasks + others
    random.Random(4).shuffle(listed)
    for info in listed:
        table.add(layout.parse(info.key), info)
    assert sorted(table.take_unmarked()) == sorted(others) and not [*table.take_unmarked()]
    assert sorted(info for task in table.values() for info in task.files.values()) == sorted(tasks)
    assert ("Größe0", "x") not in table.runs and table.find(layout.parse(others[0].key)) is None


@pytest.mark.parametrize("marked", [True, False])
def test_a_run_of_many_tasks_is_not_gone_through_for_each(monkeypatch, marked):
    decoded = []
    for name in ("decode_rows", "made_of"):
        whole = getattr(listed_tasks, name)
        monkeypatch.setattr(listed_tasks, name, lambda *rows, whole=whole: decoded.append(1) or whole(*rows))
    monkeypatch.setattr(listed_tasks, "OPEN_FILES", 1000)
    found = Holdings()
    files = {(0, name): ObjectInfo("", 1, 2.0, "x") for name in NAMES[: 6 if marked else 0] or ("data.json",)}
    for number in range(1000):
        found.tasks.add_files(("F", "1", "start", str(number)), files)
    found.settle()
    assert len(found.tasks) == (1000 if marked else 0) and len(decoded) < 50


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
    rows = [("start", "1", 0, "data.json", 5, 1.25, "31" * 16), ("end", "2", None, "_resume_done", 1 << 40, 2e9, "x")]
    assert decode_rows(encode_rows(rows)) == rows
    assert len(encode_rows(rows * 1000)) < 1000
