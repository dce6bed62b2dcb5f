"""What a migration changes of a task and of a root, what it leaves, and what data.json remembers. Pure."""

import json

import pytest

from mfstore import errors
from mfstore.maintenance.metaflow.holdings import Holdings
from mfstore.maintenance.metaflow.migrating.changes import (
    EndedAttempt,
    MigrationOptions,
    StoredArtifact,
    changes_of,
    choose_attempts,
    known_forms,
)
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.migration_record import current_form, earlier_forms, with_new_forms
from tests.rigs.migration import DAY

PACKED = {"encoding": "mfstore-1/" + "b" * 64, "serializer_info": {"source": "mfstore"}}
STOCK = {"encoding": "pickle-v4"}


# ---- what data.json remembers -----------------------------------------------------------


def test_a_data_json_remembers_what_its_artifacts_were():
    first = {"version": "1.0", "objects": {"x": "s1", "y": "s2"}, "info": {"x": STOCK, "y": STOCK}}
    there = with_new_forms(first, {"x": ("n1", PACKED)})
    assert [*there] == [*first, "mfstore"] and first["objects"]["x"] == "s1"
    assert there["objects"] == {"x": "n1", "y": "s2"} and there["info"] == {"x": PACKED, "y": STOCK}
    assert earlier_forms(there) == {"x": [("s1", STOCK)]} and earlier_forms(first) == {}
    assert current_form(there, "x", "s1") == ("n1", PACKED)
    assert current_form(there, "x", "other") is None and current_form(there, "y", "s2") is None
    # To and fro it remembers the other form, and does not grow.
    back = with_new_forms(there, {"x": ("s1", STOCK)})
    assert back["objects"] == first["objects"] and earlier_forms(back) == {"x": [("n1", PACKED)]}
    assert with_new_forms(back, {"x": ("n1", PACKED)}) == there
    assert earlier_forms(with_new_forms(there, {"x": ("s3", STOCK)}))["x"] == [("s1", STOCK), ("n1", PACKED)]
    for nonsense in ({"former": 3}, {"former": {"x": [1]}}, {"former": {"x": [{"key": 1}]}}):
        with pytest.raises(ValueError, match="no sense"):
            earlier_forms({"mfstore": nonsense})
        with pytest.raises(errors.CorruptObject):
            layout.references("data.json", json.dumps({**first, "mfstore": nonsense}).encode())


def test_what_of_a_task_is_changed():
    attempt = EndedAttempt(("F", "1", "s", "2"), 0, "etag")
    odd = {"encoding": "theirs-1", "serializer_info": {"source": "theirs"}}
    keys = {
        "here": "k1",
        "gone": "k2",
        "theirs": "k3",
        "old": "k4",
        "packed": "n1",
        "lost": "n2",
        "inline": "m1.gAR9lC4",
    }
    infos = {
        "here": STOCK, "gone": STOCK, "theirs": odd, "old": {}, "packed": PACKED,
        "lost": {**PACKED, "encoding": "mfstore-1/" + "c" * 64}, "inline": {"encoding": "mfstore-1"},
    }  # fmt: skip
    document = {"objects": keys, "info": infos}
    blobs = {("F", "k1"), ("F", "k4"), ("Other", "k2")}
    found = changes_of(attempt, document, "packed", blobs, ())
    assert {artifact.name for artifact in found.change} == {"here", "old"} and found.already == 3
    assert [(left.kind, left.what) for left in found.left] == [
        ("missing", "F/1/s/2/0 gone"), ("extension", "F/1/s/2/0 theirs")
    ]  # fmt: skip
    found = changes_of(attempt, document, "stock", blobs, {"b" * 64})
    assert {artifact.name for artifact in found.change} == {"packed", "inline"} and found.already == 3
    assert [(left.kind, left.what) for left in found.left] == [
        ("extension", "F/1/s/2/0 theirs"), ("missing", "F/1/s/2/0 lost")
    ]  # fmt: skip
    # Nothing tells how artifacts of very old versions are stored.
    assert not changes_of(attempt, {"objects": {"here": "k1"}, "info": {}}, "packed", blobs, ()).change
    # What an artifact was is used again if it is there.
    there = with_new_forms(document, {"here": ("n3", PACKED), "gone": ("n4", PACKED)})
    artifacts = {artifact.name: artifact for artifact in changes_of(attempt, there, "stock", blobs, {"b" * 64}).change}
    assert artifacts["here"] == StoredArtifact("here", "n3", "k1") and artifacts["gone"] == StoredArtifact("gone", "n4")
    assert dict(known_forms(there, "packed")) == {
        StoredArtifact("here", "k1"): ("n3", PACKED),
        StoredArtifact("gone", "k2"): ("n4", PACKED),
    }
    assert not dict(known_forms(there, "stock"))


def holdings_of(*listed):
    found = Holdings()
    for path, modified in listed:
        found.add(layout_info(path, modified))
    return found


def layout_info(path, modified):
    from mfstore.backends.base import ObjectInfo

    return ObjectInfo(path, 10, modified, f"etag of {path}")


def attempt_files(name, modified, *marks):
    return [(f"{name}.{mark}", modified) for mark in ("attempt.json", *marks)]


def test_which_attempts_are_looked_into():
    moment = 1e9
    ended = ("data.json", "DONE.lock")
    found, left = choose_attempts(
        holdings_of(
            # Two tasks of a run that came to its end, one of which was tried twice; in the order they began.
            *attempt_files("Flow/1/end/9/0", moment - 5 * DAY, *ended),
            *attempt_files("Flow/1/start/1/0", moment - 6 * DAY, *ended),
            *attempt_files("Flow/1/start/1/1", moment - 6 * DAY + 5, *ended),
            # It ended a short while ago: if its end failed, it may be tried again.
            *attempt_files("Flow/2/end/1/0", moment - 5, *ended),
            # It failed long ago; and a short while ago: it may be between two tasks.
            *attempt_files("Flow/3/start/1/0", moment - 9 * DAY, *ended),
            *attempt_files("Flow/3/next/2/0", moment - 9 * DAY),
            *attempt_files("Flow/4/start/1/0", moment - 60, *ended),
            # One of its tasks is running.
            *attempt_files("Flow/5/start/1/0", moment - 3 * DAY, *ended),
            *attempt_files("Flow/5/end/2/0", moment - 2 * DAY),
            *attempt_files("Flow/6/end/1/0", moment - 9 * DAY, "DONE.lock"),
            *attempt_files("Flow/7/end/1/0", moment - 9 * DAY, *ended),
        ),
        MigrationOptions("packed"), ("Flow/7",), moment,
    )  # fmt: skip
    assert [attempt.name for attempt in found] == [
        "Flow/3/start/1/0", "Flow/1/start/1/0", "Flow/1/start/1/1", "Flow/1/end/9/0"
    ]  # fmt: skip
    assert found[0].etag == "etag of Flow/3/start/1/0.data.json"
    assert {(entry.kind, entry.what) for entry in left} == {
        ("running", "Flow/2"), ("running", "Flow/4"), ("running", "Flow/5"), ("removing", "Flow/7"),
        ("unfinished", "Flow/3/next/2/0"), ("unreadable", "Flow/6/end/1/0"),
    }  # fmt: skip


def test_a_stopped_migration_does_not_make_a_run_look_busy():
    moment = 1e9
    listed = holdings_of(
        *attempt_files("Flow/1/start/1/0", moment - DAY, "DONE.lock"), ("Flow/1/start/1/0.data.json", moment)
    )
    assert len(choose_attempts(listed, MigrationOptions("packed"), (), moment)[0]) == 1
    assert choose_attempts(listed, MigrationOptions("packed", idle=2 * DAY), (), moment)[1][0].kind == "running"


def test_flows_and_runs_are_chosen_by_patterns():
    wanted = MigrationOptions("packed", ("Train*",), ("*/argo-*",))
    assert wanted.wants(("TrainFlow", "argo-1")) and not wanted.wants(("TrainFlow", "7"))
    assert not wanted.wants(("Other", "argo-1")) and MigrationOptions("stock").wants(("Other", "7"))
    for nonsense in (
        MigrationOptions("other"),
        MigrationOptions("stock", runs=("7",)),
        MigrationOptions("stock", idle=-1),
    ):
        with pytest.raises(errors.InvalidKey):
            nonsense.check()
