"""Who holds what below a root of Metaflow, of both profiles, against what its files say one by one."""

import hashlib
import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from mfstore import errors
from mfstore.format import recipes
from mfstore.format.recipes import recipe_path
from mfstore.maintenance import holders
from mfstore.maintenance.metaflow import usage as usage_module
from mfstore.maintenance.metaflow.collecting.records import RunRecord
from mfstore.maintenance.metaflow.packed_store import open_packed_store
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.usage import labels_of, root_usage
from tests.rigs.held import own_and_shared, parts_of, told
from tests.rigs.metaflow_trees import blob, run_meta, task
from tests.rigs.migration import build, migrate, task_as_stock
from tests.rigs.simulated_roots import SimulatedRoot

BEGAN = 1_700_000_000_000_000
"""Runs are called by when they began."""
NAMES = [str(BEGAN + number) for number in range(4)]


@pytest.fixture
def tree(tmp_path):
    """Two flows of two runs, which share artifacts, code and an IncludeFile; with metadata but for the last run."""
    root = tmp_path / "root"
    shared = {"rows": [f"row {number}" for number in range(300)], "tiny": 7}
    code = blob(root, "One", b"code" * 100, raw=True)
    for number, run in enumerate(NAMES):
        flow = "One" if number < 2 else "Two"
        task(root, flow, run, "start", 1, {**shared, "own": [run] * 50}, code=code if flow == "One" else None)
        task(root, flow, run, "work", 2, {"tried": run}, attempt=0, done=True)
        task(root, flow, run, "work", 2, {**shared, "best": [number] * 90}, attempt=1)
        if number < 3:
            run_meta(root, flow, run, tags=["all", f"team{number % 2}"])
    blob(root, "One", "nobody refers to this")
    included = Path(root, "data", "One", hashlib.sha1(b"include").hexdigest())
    included.parent.mkdir(parents=True)
    included.write_bytes(b"gzip of it" * 20)
    path = Path(root, "One", NAMES[0], "start", "1", "0.data.json")
    document = json.loads(path.read_text())
    document["objects"]["file"] = blob(root, "One", f"s3://bucket/data/One/{included.name}")
    document["info"]["file"] = {"type": "<class 'metaflow.includefile.IncludedFile'>", "encoding": "pickle-v4"}
    path.write_text(json.dumps(document))
    card = Path(root, "mf.cards", "Two", "runs", NAMES[2], "steps", "work", "tasks", "2", "cards", "default-abc.html")
    card.parent.mkdir(parents=True)
    card.write_text("<html>" * 30)
    user = Path(root, "data", "Two", NAMES[3], "mine")
    user.parent.mkdir(parents=True)
    user.write_bytes(b"u" * 500)
    Path(root, "notes.txt").write_text("of somebody else")
    return root


def usage(root, by, **options):
    with closing(Root(str(root))) as place:
        return root_usage(place, by, **options)


def stored(root):
    with closing(Root(str(root))) as place:
        return sum(info.size for info in place.backend.list(""))


def model(root, by, of_run=None):
    """Own and shared bytes by name, file by file. ``of_run``: the names that a run has."""
    root = Path(root)
    needed_by, sizes = {}, {}

    def needs(path, names):
        if path.exists():
            sizes[path] = path.stat().st_size
            needed_by.setdefault(path, set()).update(names)

    def names_of(flow, run, step):
        return {
            "flow": {flow}, "run": {f"{flow}/{run}"}, "step": {f"{flow}/{step}" if step else None}, "artifact": {None},
        }.get(by) or of_run(flow, run)  # fmt: skip

    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if not path.is_file() or len(parts) == 1 or parts[0] in ("mf.store", "mf.maintenance"):
            continue
        if parts[0] == "mf.cards":
            needs(path, names_of(parts[1], parts[3], parts[5]))
        elif parts[0] == "data":
            if len(parts) == 4:
                needs(path, names_of(parts[1], parts[2], None))
        elif parts[1] != "data":
            step = parts[2] if len(parts) > 4 else None
            needs(path, names_of(parts[0], parts[1], step if step != "_meta" else None))
    packed = {}
    for path in root.glob("*/*/*/*/*.*"):
        flow, run, step, _, name = path.relative_to(root).parts
        if name.endswith("task_begin"):
            code = json.loads(path.read_text()).get("code_package_sha")
            named = {"<code package>": (code, {})} if code else {}
        elif name.endswith("data.json"):
            document = json.loads(path.read_text())
            named = {one: (key, document["info"].get(one, {})) for one, key in document["objects"].items()}
        else:
            continue
        for artifact, (key, info) in named.items():
            names = {f"{flow}/{artifact}"} if by == "artifact" else names_of(flow, run, step)
            encoding = str(info.get("encoding", ""))
            if encoding.startswith("mfstore-1/"):
                packed.setdefault(encoding.partition("/")[2], set()).update({flow} if by == "artifact" else names)
            elif not encoding.startswith("mfstore-"):
                place = root / flow / "data" / key[:2] / key
                needs(place, names)
                needs(place.with_name(f"{key}_meta"), names)
                if "IncludedFile" in str(info.get("type")):
                    for include in (root / "data" / flow).iterdir():
                        if len(include.name) == 40:
                            needs(include, names)
    if by == "flow":
        for path in root.glob("*/data/*/*"):
            needs(path, {path.relative_to(root).parts[0]})
    if packed:
        _packed(root, by, packed, sizes, needed_by)
    own, shared = own_and_shared(sizes, needed_by)
    return {name: size for name, size in own.items() if size}, {name: size for name, size in shared.items() if size}


def _packed(root, by, packed, sizes, needed_by):
    with closing(Root(str(root))) as place, open_packed_store(place) as store:
        codec = store.handle.workers.thread.codec
        for key, names in packed.items():
            data = store.backend.get(recipe_path(key))
            recipe = recipes.decode(data, codec=codec, expected_key=bytes.fromhex(key))
            for artifact, parts in parts_of(recipe):
                wanted = {f"{flow}/{artifact.name}" for flow in names} if by == "artifact" else names
                for part, size in {("recipe", key): len(data), **parts}.items():
                    sizes[part] = size
                    needed_by.setdefault(part, set()).update(wanted)


@pytest.mark.parametrize("in_memory", [3, 200_000])
@pytest.mark.parametrize("by", ["flow", "run", "step", "artifact"])
def test_as_files_say(tree, by, in_memory, monkeypatch):
    monkeypatch.setattr(holders, "OPEN_CLAIMS", in_memory)
    found = usage(tree, by)
    assert told(found) == model(tree, by)
    assert found.total == stored(tree)
    assert found.own == sum(group.own for group in found.groups)
    assert not found.notes


@pytest.mark.parametrize("by", ["flow", "run", "step", "artifact"])
def test_as_files_of_the_packed_profile_say(tmp_path, by):
    root = tmp_path / "root"
    build(root, "One", NAMES[0])
    build(root, "One", NAMES[1])
    task_as_stock(root, "Two", NAMES[2], "start", 1, {"rows": [f"row {n}" for n in range(400)], "text": "y" * 4000})
    migrate(root, "packed")
    for path in root.glob("*/data/*/*"):  # what they were before the migration has no name in the model
        path.unlink()
    found = usage(root, by)
    own, shared = model(root, by)
    assert told(found) == (own, shared)
    assert found.total == stored(root)
    assert any(size > 500 for size in shared.values()) or by in ("flow", "artifact")


def test_what_was_before_a_migration_is_its_runs_own(tmp_path):
    root = tmp_path / "root"
    build(root, "One", NAMES[0])
    before = {group.name: group.own for group in usage(root, "run").groups}
    migrate(root, "packed")
    found = usage(root, "artifact")
    groups = {group.name: group.own for group in found.groups}
    left = sum(path.stat().st_size for path in root.glob("*/data/*/*"))
    assert groups.get("One/<before its migration>", 0) == left > 0
    assert {group.name for group in usage(root, "run").groups} == {*before}


@pytest.mark.parametrize("by", ["user", "tag", "branch"])
def test_by_what_metadata_tells(tree, by):
    tags = {run: {"all", f"team{number % 2}"} for number, run in enumerate(NAMES[:3])}
    found = usage(tree, by)
    groups = {(group.name, group.unknown): group for group in found.groups}
    last = Path(tree, "Two", NAMES[3])
    assert groups[None, True].own >= sum(path.stat().st_size for path in last.rglob("*") if path.is_file())
    assert found.notes == (f"of 1 of 4 runs nothing tells the {by} (--metadata says where to ask)",)
    assert found.total == stored(tree)
    if by != "tag":
        own, shared = model(tree, by, lambda flow, run: {{"user": "me"}.get(by) if run in tags else "unknown"})
        names = {"unknown": (None, True), None: (None, False), "me": ("me", False)}
        for name, size in own.items():
            assert groups[names[name]].own == size
        for name, size in shared.items():
            assert groups[names[name]].shared == size
        return
    assert set(groups) == {("all", False), ("team0", False), ("team1", False), (None, True)}
    # Whatever has the one tag has the other: its own is that of both, and all of it is counted once.
    assert groups["all", False].own > groups["team0", False].own + groups["team1", False].own
    assert found.own < sum(group.own for group in found.groups)


def test_without_metadata_nothing_is_guessed(tree):
    for by in ("user", "tag"):
        found = usage(tree, by, metadata="none")
        assert {(group.name, group.unknown) for group in found.groups} == {(None, True)}
        assert found.notes[0].startswith("of 4 of 4 runs nothing tells")
    with pytest.raises(errors.InvalidKey):
        usage(tree, "user", metadata="rumours")
    with pytest.raises(errors.InvalidKey):
        usage(tree, "ref")


def test_labels_of_records():
    run = "Flow", "12"
    record = RunRecord("local", tags=frozenset(), system_tags=frozenset(["user:me", "project_branch:prod"]))

    def names(by, record, run=run):
        return {(label.name, label.unknown) for label in labels_of(run, record, by)}

    assert names("user", record) == {("me", False)}
    assert names("branch", record) == {("prod", False)}
    assert names("tag", record) == {(None, False)}
    assert names("tag", None) == names("user", None) == names("branch", None) == {(None, True)}
    argo = "Flow", "argo-proj.prod.flow-x7k2p"
    assert names("branch", None, argo) == {("prod", False)}  # its id says it


def test_growth_is_by_the_times_of_objects(tree):
    old = Path(tree, "One", NAMES[0], "start", "1", "0.data.json")
    os.utime(old, (86400.0 * 40,) * 2)
    found = usage(tree, "month")
    assert found.groups[0].name == "1970-02" and found.groups[0].own == old.stat().st_size
    assert found.total == stored(tree)
    assert [group.name for group in found.groups] == sorted(group.name for group in found.groups)


def test_some_flows_alone(tree):
    found = usage(tree, "run", flows=["On*"])
    assert {group.name.partition("/")[0] for group in found.groups if group.name} == {"One"}


def test_damage_is_told(tree):
    Path(tree, "Two", NAMES[3], "start", "1", "0.data.json").write_text("{")
    found = usage(tree, "run")
    assert found.total == stored(tree)
    assert len(found.notes) == 1 and "DAMAGED: 1 file of a task" in found.notes[0]


def test_metadata_is_read_some_runs_at_a_time(tree, monkeypatch):
    whole = usage(tree, "tag")
    monkeypatch.setattr(usage_module, "RUNS_TOGETHER", 1)
    assert usage(tree, "tag") == whole


def test_requests(monkeypatch):
    """A listing, and each small file of a task once; what is told by a listing alone takes no more."""
    made = SimulatedRoot()
    for number in range(12):
        made.run("Flow", str(number), age=1000.0)
    with made.opened(monkeypatch) as root:
        for by, files in (("flow", 0), ("month", 0), ("class", 0), ("run", 2 * 3 * 12), ("artifact", 2 * 3 * 12)):
            with made.counted() as asked:
                found = root_usage(root, by, metadata="none")
            reads = asked.pop("GetObject", 0)
            assert reads <= files + 8, (by, reads)
            assert sum(asked.values()) <= 8, (by, asked)
            assert found.total == sum(
                len(data) for key, data in made.world.objects.items() if not key.startswith("mf/mf.maintenance")
            )


def test_what_repair_set_aside_is_counted(tmp_path):
    task(tmp_path, "Flow", "1", "end", 1, {"x": 1})
    aside = tmp_path / "mf.maintenance" / "quarantine" / "Flow" / "data" / "ab.1"
    with closing(Root(str(tmp_path))) as root:
        before = {by: root_usage(root, by) for by in ("run", "month")}
        aside.parent.mkdir(parents=True)
        aside.write_bytes(b"y" * 777)
        for by, usage in before.items():
            found = root_usage(root, by)
            assert (found.unheld, found.own) == (usage.unheld + 777, usage.own)
        assert root_usage(root, "run", flows=["Flow"]).unheld == before["run"].unheld
