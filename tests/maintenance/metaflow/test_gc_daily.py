"""A day with nothing new costs next to nothing: what was read of finished attempts is remembered, and proved by what
the listing tells; on a simulated S3, where requests are counted."""

import json

import pytest

from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.known_format import (
    KNOWN,
    MAGIC,
    KnownFile,
    KnownObject,
    decode_frames,
    encode_frame,
    shard_of,
    to_merge,
)
from tests.rigs.simulated_roots import SimulatedRoot

DAY = 86400.0
KEEP = RunPolicy(age=365 * DAY, grace=600.0)


@pytest.fixture
def rig():
    return SimulatedRoot()


def collect(rig, monkeypatch, policy=KEEP, **more):
    with rig.opened(monkeypatch) as root, rig.counted() as asked:
        plan, result = collect_metaflow(root, policy, metadata="none", **more)
    return plan, result, asked


def plan_of(rig, monkeypatch, policy=KEEP):
    with rig.opened(monkeypatch) as root, rig.counted() as asked:
        return plan_metaflow_gc(root, policy, metadata="none"), asked


def reads(asked):
    return asked["GetObject"]


def same(plan, other):
    """Whether two plans differ in nothing but their time, and what that tells of running tasks."""
    fields = [name for name in plan.__slots__ if name not in ("now", "liveness")]
    return [name for name in fields if getattr(plan, name) != getattr(other, name)] == []


def fill(rig, runs, flows=("Flow",), **more):
    for flow in flows:
        for run in range(runs):
            rig.run(flow, str(1000 + run), age=(30 - 20 * run / runs) * DAY, **more)


def test_a_day_with_nothing_new_costs_less_than_a_hundredth(rig, monkeypatch):
    fill(rig, 1000, logs=["runtime"], own=1)
    objects = len(rig.world.objects)
    first, _, asked = collect(rig, monkeypatch)
    assert len(first.runs) == 1000
    assert reads(asked) >= 6000  # data.json and task_begin of three tasks each
    second, _, again = collect(rig, monkeypatch)
    assert same(first, second)
    assert sum(again.values()) < sum(asked.values()) / 100
    assert reads(again) <= 8 and again["ListObjectsV2"] <= 1.2 * objects / 1000 + 12
    # A plan reads as little, and writes nothing.
    before = dict(rig.world.objects)
    third, asked = plan_of(rig, monkeypatch)
    assert same(third, second) and rig.world.objects == before and sum(asked.values()) <= sum(again.values())


def test_each_day_reads_what_is_new(rig, monkeypatch):
    fill(rig, 60, ("Flow", "Other"), own=1, logs=[])
    collect(rig, monkeypatch)
    for day in range(8):
        rig.run("Flow", f"2{day:03}", age=3600.0)
        plan, _, asked = collect(rig, monkeypatch)
        assert len(plan.runs) == 121 + day
        assert reads(asked) <= 6 + 16
        assert asked["PutObject"] <= 12
        assert len(rig.under(KNOWN)) <= 12
    rig.forget()
    anew, _, asked = collect(rig, monkeypatch)
    assert same(anew, plan) and reads(asked) >= 6 * 128


def test_what_is_remembered_of_removed_runs_goes_with_them(rig, monkeypatch):
    fill(rig, 40)
    collect(rig, monkeypatch)
    size = sum(len(rig.world.objects[f"mf/{key}"]) for key in rig.under(KNOWN))
    for run in range(1000, 1035):
        for key in rig.under(f"Flow/{run}/"):
            del rig.world.objects[f"mf/{key}"]
    collect(rig, monkeypatch)
    assert sum(len(rig.world.objects[f"mf/{key}"]) for key in rig.under(KNOWN)) < size / 3
    _, _, asked = collect(rig, monkeypatch)
    assert reads(asked) <= 8


def test_a_run_that_changed_is_read_again(rig, monkeypatch):
    fill(rig, 5)
    first, _, _ = collect(rig, monkeypatch)
    path = "Flow/1001/train/2/0.data.json"
    document = json.loads(rig.world.objects[f"mf/{path}"])
    gone = document["objects"].pop("own0")
    rig.put(path, json.dumps(document).encode(), 20 * DAY)
    second, _, asked = collect(rig, monkeypatch)
    assert ("GetObject", f"mf/{path}") in rig.world.log[-sum(asked.values()) :]
    assert second.unreferred.objects == 1 and first.unreferred.objects == 0 and gone in str(rig.under("Flow/data/"))


def forged(rig, path, data, etag=None):
    """Remember these bytes as those of a file."""
    etag = etag or rig.world.etag(f"mf/{path}").strip('"')
    key = f"{KNOWN}{shard_of(path)}/{'f' * 16}-forged"
    rig.put(key, MAGIC + encode_frame([KnownFile(path, etag, data)]), 0.0)
    return key


def test_what_is_forged_lets_nothing_go(rig, monkeypatch):
    """Somebody who may write there says that a run needs nothing of what another, dropped one refers to as well."""
    policy = RunPolicy(last=1, grace=0.0)
    rig.run("Flow", "1", age=30 * DAY)
    rig.run("Flow", "2", age=20 * DAY)
    rig.world.objects["mf/Flow/2/train/2/0.data.json"] = rig.world.objects["mf/Flow/1/train/2/0.data.json"]
    document = json.loads(rig.world.objects["mf/Flow/2/train/2/0.data.json"])
    needed = set(document["objects"].values())
    collect(rig, monkeypatch, policy)
    rig.forget()
    for step, number in (("start", 1), ("train", 2), ("end", 3)):
        path = f"Flow/2/{step}/{number}/0.data.json"
        size = len(rig.world.objects[f"mf/{path}"])
        empty = json.dumps({**document, "objects": {}, "info": {}}).encode().ljust(size)
        forged(rig, path, empty)
    _, done, _ = collect(rig, monkeypatch, policy)
    assert done.removed == ("Flow/1",)
    left = {key.rpartition("/")[2] for key in rig.under("Flow/data/")}
    assert needed - left == {document["objects"]["_success"]}  # which never was there
    assert not [key for key in rig.under(KNOWN) if key.endswith("forged")]


@pytest.mark.parametrize("how", ["cut off", "another byte", "nothing", "something else", "a bomb", "too long"])
def test_what_is_damaged_is_read_anew(rig, monkeypatch, how):
    fill(rig, 20)
    first, _, _ = collect(rig, monkeypatch)
    for key in rig.under(KNOWN):
        data = rig.world.objects[f"mf/{key}"]
        rig.world.objects[f"mf/{key}"] = {
            "cut off": data[: len(data) // 2],
            "another byte": data[:200] + bytes([data[200] ^ 1]) + data[201:],
            "nothing": b"",
            "something else": b"mfkn\x02" + data,
            "a bomb": MAGIC + encode_frame([KnownFile("Flow/1/end/1/0.data.json", "e", bytes(40 << 20))]),
            "too long": data + bytes(20 << 20),
        }[how]
    second, _, asked = collect(rig, monkeypatch)
    assert same(first, second) and reads(asked) >= 100
    third, _, asked = collect(rig, monkeypatch)
    assert same(first, third) and reads(asked) <= 8


def test_without_the_right_to_write_there_all_is_read(rig, monkeypatch):
    fill(rig, 10)
    answer = rig.world.answer

    def refuse(call):
        if call.operation in ("PutObject", "GetObject") and "/known/" in (call.key or ""):
            return rig.world._error(403, "AccessDenied")
        return answer(call)

    monkeypatch.setattr(rig.world, "answer", refuse)
    for _ in range(2):
        plan, _, asked = collect(rig, monkeypatch)
        assert len(plan.runs) == 10 and reads(asked) >= 60


def test_etags_that_are_no_digests_prove_nothing(rig, monkeypatch):
    """As of buckets that are encrypted with keys of KMS."""
    fill(rig, 10)
    digest = rig.world.etag
    monkeypatch.setattr(rig.world, "etag", lambda key: f'"{digest(key).strip(chr(34))[::-1]}"')
    for _ in range(2):
        plan, _, asked = collect(rig, monkeypatch)
        assert len(plan.runs) == 10 and reads(asked) >= 60
    # Who says that no task may write there has it remembered all the same.
    for most in (80, 8):
        again, _, asked = collect(rig, monkeypatch, trust_known=True)
        assert same(again, plan) and reads(asked) <= most


def test_one_flow_alone_is_asked_for(rig, monkeypatch):
    fill(rig, 12, [f"F{number}" for number in range(8)], own=1, logs=[])
    whole, _, _ = collect(rig, monkeypatch)
    policy = RunPolicy(age=25 * DAY, flows=("F3",), grace=0.0)
    found, _, asked = collect(rig, monkeypatch, policy)
    assert {entry.flow for entry in found.runs} == {"F3"} and found.condemn
    touched = {key for _, key in rig.world.log[-sum(asked.values()) :] if key is not None}
    assert not [key for key in touched if key.startswith("mf/F") and not key.startswith("mf/F3/")]
    assert asked["ListObjectsV2"] <= 20 and reads(asked) <= 8
    assert found.unreferred.objects == 0 and whole.unreferred.objects == 0
    # What is remembered of the others stays, and what was condemned of them.
    collect(rig, monkeypatch, RunPolicy(age=25 * DAY, flows=("F5",), grace=0.0))
    _, done, _ = collect(rig, monkeypatch, policy)
    assert done.removed and all(name.startswith("F3/") for name in done.removed)
    _, _, asked = collect(rig, monkeypatch)
    assert reads(asked) <= 24
    _, done, _ = collect(rig, monkeypatch, RunPolicy(age=25 * DAY, flows=("F5",), grace=0.0))
    assert not done.removed  # pardoned by the one before


def test_the_format_of_what_is_remembered():
    files = [KnownFile(f"Größe/{n}/end/1/0.data.json", f"{n:032x}", bytes(n)) for n in range(50)]
    data = MAGIC + encode_frame(files[:30]) + encode_frame(files[30:])
    assert [file for frame in decode_frames(data) for file in frame] == files
    for cut in range(len(data)):
        try:
            got = [file for frame in decode_frames(data[:cut]) for file in frame]
        except ValueError:
            continue
        assert got == files[: len(got)]
    assert {shard_of(file.path) for file in files} == {shard_of("Größe/x/end/9/3.data.json")}
    assert all(shard_of(path).endswith("/runs") for path in ("F/1/end/1/0.data.json", "F/1/a/1/0.attempt.json"))
    assert all(shard_of(path).endswith("/tasks") for path in ("F/1/end/1/0.task_begin", "F/1/a/1/0.data.json"))


def test_what_is_merged():
    def objects(*sizes):
        return [KnownObject(f"{KNOWN}0/tasks/{number}", size) for number, size in enumerate(sizes)]

    assert to_merge(objects()) == to_merge(objects(5)) == to_merge(objects(9 << 20, 9 << 20)) == set()
    assert len(to_merge(objects(1000, 1000))) == 2
    assert to_merge(objects(500_000, 500_000, 500_000)) == set()
    assert len(to_merge(objects(*[500_000] * 5, 9 << 20))) == 5
