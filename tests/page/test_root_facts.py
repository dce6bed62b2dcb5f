"""What a page tells of a datastore root of Metaflow, in both profiles."""

from contextlib import closing
from pathlib import Path

import pytest

import mfstore
from mfstore import errors
from mfstore.backends.local import LocalBackend
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.usage import root_usage
from mfstore.page.root_facts import TASKS, UNFINISHED, ShownTask, StepTasks, root_facts
from mfstore.page.task_contents import task_content, type_of
from tests.rigs.metaflow_trees import task
from tests.rigs.migration import build, migrate, task_as_stock
from tests.rigs.simulated_roots import SimulatedRoot

RUNS = [str(1_700_000_000_000_000 + number) for number in range(3)]
DAY = 86400.0


def read(path, prefix="", history=10):
    with closing(Root(str(path))) as root:
        return root_facts(root, "the root", "", prefix=prefix, history=history)


@pytest.fixture(params=["stock", "packed"])
def tree(request, tmp_path):
    root = tmp_path / "root"
    for number, run in enumerate(RUNS):
        build(root, "Train", run, age=(9 - number) * DAY)
    task_as_stock(root, "Score", RUNS[0], "start", 1, {"rows": [f"row {n}" for n in range(400)]})
    if request.param == "packed":
        migrate(root, "packed")
    return root


def test_steps_their_tasks_and_what_these_stored(tree):
    facts = read(tree)
    assert [entry.name for entry in facts.entries] == ["Score/start", "Train/end", "Train/start", "Train/work"]
    by_name = {entry.name: entry for entry in facts.entries}
    work = by_name["Train/work"]
    assert sorted(value.label for value in work.values) == [f"{run}/2" for run in RUNS] and work.total == 3
    key = next(value.key for value in work.values if value.label == f"{RUNS[0]}/2")
    assert key == f"Train/{RUNS[0]}/work/2, attempt 1", "the last attempt is the one that is read"
    parts = {part.name: part for part in facts.contents[key].parts}
    assert {"rows", "tiny", "none", "own"} <= set(parts) and "failed" not in parts
    assert (parts["rows"].type, parts["none"].type) == ("list", "NoneType")
    assert parts["rows"].size > 1000 and facts.contents[key].size == sum(part.size for part in parts.values())
    other = next(value.key for value in work.values if value.label == f"{RUNS[1]}/2")
    marks = {part.name: part.mark for part in facts.contents[other].parts}
    assert marks["rows"] == parts["rows"].mark != parts["own"].mark
    amounts = {name: number for name, number, _ in facts.amounts}
    assert (amounts["flows"], amounts["runs"], amounts["tasks"]) == (2, 4, 10)
    assert not facts.troubles


def test_bytes_are_those_of_du(tree):
    facts = read(tree)
    assert [space.by for space in facts.spaces] == ["flow", "run", "step", "artifact"]
    with closing(Root(str(tree))) as root:
        for space in facts.spaces:
            usage = root_usage(root, space.by, metadata="none")
            assert (space.own, space.shared, space.unheld) == (usage.own, usage.shared, usage.unheld)
            assert space.groups == tuple((usage.name_of(g), g.own, g.shared) for g in usage.groups)
    assert sum(stored for _, stored, _ in facts.growth) <= sum((space.own, space.shared, space.unheld))


def test_less_of_it(tree):
    facts = read(tree, prefix="Train/w", history=2)
    (work,) = facts.entries
    assert (len(work.values), work.total) == (2, 3)
    assert "1 task left out" in facts.notes[0] and "Train/w" in facts.notes[-1]


def test_what_cannot_be_read_and_what_has_not_ended(tmp_path):
    root = tmp_path / "root"
    for run in RUNS:
        task(root, "Flow", run, "start", 1, {"x": 1}, done=run != RUNS[2])
    Path(root, "Flow", RUNS[0], "start", "1", "0.data.json").write_text('{"objects": ')
    facts = read(root)
    values = {value.label: value for value in facts.entries[0].values}
    broken, whole, running = (values[f"{run}/1"] for run in RUNS)
    assert facts.contents[broken.key].trouble and not facts.contents[whole.key].trouble
    assert running.note == UNFINISHED and not facts.contents[running.key].trouble
    told = "\n".join(facts.troubles)
    assert f"task Flow/{RUNS[0]}/start/1" in told and str(tmp_path) not in told
    with pytest.raises(errors.NotFound):
        read(tmp_path / "nothing")


def test_of_many_runs_and_of_a_foreach_the_newest_are_kept():
    step = StepTasks(2)
    for run in range(50):
        for number in range(TASKS * 3 if run == 48 else 2):
            step.add(ShownTask(str(run), str(number), "", 0, (run if run != 7 else 900) * 1000.0 + number))
    assert step.total == 49 * 2 + TASKS * 3
    assert [(task.run, task.task) for task in step.shown] == [
        ("7", "1"), ("7", "0"), ("49", "1"), ("49", "0"),
    ]  # fmt: skip
    step = StepTasks(1)
    for number in range(TASKS * 3):
        step.add(ShownTask("1", str(number), "", 0, float(number)))
    assert [task.task for task in step.shown] == [str(number) for number in range(TASKS * 3 - 1, TASKS * 2 - 1, -1)]


def test_data_json_of_whatever_wrote_it():
    found = task_content(
        b'{"objects": {"b": "k", "a": "l", "_graph_info": "m"}, "info": {"a": {"size": 3, "type": 7}}}'
    )
    assert [(part.name, part.type, part.size) for part in found.parts] == [("a", "7", 3), ("b", "", None)]
    assert found.size is None, "of one it is not known"
    assert type_of("<class 'a.B'>") == "a.B"
    for data in (b"[]", b"{}", b'{"objects": 3}', b'{"objects": {"": "k"}}', b'{"objects": {"a": 1}}', b"\xff"):
        with pytest.raises(errors.CorruptObject):
            task_content(data)


def test_each_file_is_read_once(monkeypatch):
    made = SimulatedRoot()
    for number in range(12):
        made.run("Flow", str(number), age=1000.0)
    with made.opened(monkeypatch) as root, made.counted() as asked:
        facts = root_facts(root, "", "", prefix="", history=10)
    assert len(facts.spaces) == 4 and not facts.troubles
    files = 2 * 3 * 12  # data.json and task_begin of three tasks of a run
    assert asked["GetObject"] <= files + 8
    assert sum(asked.values()) - asked["GetObject"] <= 1 + 4 * 4


def test_each_recipe_is_read_once(tree, monkeypatch):
    asked, inner = [], LocalBackend.get_many

    def get_many(backend, keys):
        asked.extend(key for key in keys if key.startswith("recipes/"))
        return inner(backend, keys)

    monkeypatch.setattr(LocalBackend, "get_many", get_many)
    assert len(read(tree).spaces) == 4
    packed = [*tree.glob("**/recipes/*")]
    assert len(asked) == len({*asked}) <= len(packed) and bool(asked) == bool(packed)


def test_a_page_of_a_root(tmp_path):
    root = tmp_path / "root"
    task(root, "Flow", RUNS[0], "start", 1, {"x": 1})
    mfstore.write_page(root, tmp_path / "page.html", metaflow=True)
    with closing(Root(str(root))) as opened:
        backend = opened.backend
        mfstore.write_page(opened, tmp_path / "again.html")
        assert opened.backend is backend, "what is asked of it later is not what was read for the page"
    for name in ("page.html", "again.html"):
        assert f"Flow/{RUNS[0]}/start/1" in (tmp_path / name).read_text()
