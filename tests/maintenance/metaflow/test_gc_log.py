"""What a collection of a Metaflow root writes down of itself: who removed what, when, and by which policy."""

import json
import logging

import pytest

from mfstore import errors
from mfstore.format.audit import last_removal
from mfstore.maintenance.audit import read_log
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.result import result_notes
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.metaflow.roots.layout import LOG_FOLDER
from mfstore.testing import FaultyBackend
from tests.rigs.metaflow_trees import files, opened, three_runs

DAY = 86400.0
LAST = RunPolicy(last=1, grace=0.0)


@pytest.fixture
def place(tmp_path):
    """Three runs of one flow, a day apart, and one of another."""
    three_runs(tmp_path)
    with opened(tmp_path) as root:
        yield root


def log_of(place):
    return [*read_log(place.backend, LOG_FOLDER)]


def test_what_is_condemned_and_removed_is_logged(place, caplog):
    caplog.set_level(logging.INFO, "mfstore.gc")
    collect_metaflow(place, LAST)
    end, begin = log_of(place)
    assert {line["condemn"] for line in begin.lines} == {"Flow/0", "Flow/1"} and begin.facts["condemned"] == 2
    assert end.facts["outcome"] == "done" and end.facts["runs"] == 0
    assert begin.policy["last"] == 1 and "age" not in begin.policy
    _, done = collect_metaflow(place, LAST)
    end, begin = log_of(place)[:2]
    told = {line["remove"]: line for line in begin.lines}
    assert set(told) == {"Flow/0", "Flow/1"} and told["Flow/0"]["bytes"] > 0 < told["Flow/0"]["began"]
    assert end.facts["objects"] == done.deleted.objects and end.facts["bytes"] == done.deleted.bytes
    assert last_removal(log_of(place), "Flow/0") == end and "@" in end.user
    assert "remove Flow/0" in caplog.text
    # What does nothing writes nothing, and nothing that is written is touched again.
    before = log_of(place)
    collect_metaflow(place, LAST)
    assert log_of(place) == before


def test_it_is_written_before_the_first_deletion_and_after_the_last(place):
    collect_metaflow(place, LAST)
    inner = place.backend
    place.backend = FaultyBackend(inner)
    place.backend.root = inner.root
    collect_metaflow(place, LAST)
    calls = place.backend.log
    logged = [at for at, (operation, key) in enumerate(calls) if operation == "put" and key.startswith(LOG_FOLDER)]
    deleted = [at for at, (operation, key) in enumerate(calls) if operation.startswith("delete") and "Flow/" in key]
    assert len(logged) == 2 and logged[0] < deleted[0] and deleted[-1] < logged[1]


def test_without_the_right_to_log_nothing_is_deleted(place, monkeypatch):
    collect_metaflow(place, LAST)
    put = type(place.backend).put

    def refused(self, key, parts):
        if key.startswith(LOG_FOLDER):
            raise errors.AccessDenied("no", key=key)
        return put(self, key, parts)

    monkeypatch.setattr(type(place.backend), "put", refused)
    stored = files(place.backend.root)
    with pytest.raises(errors.AccessDenied):
        collect_metaflow(place, LAST)
    assert files(place.backend.root) == stored


def test_a_run_that_the_storage_refuses_to_delete_stays_with_what_it_needs_and_the_rest_goes(place, monkeypatch):
    """As services do that refuse to delete what is locked, where S3 would hide it."""
    collect_metaflow(place, LAST)
    kind = type(place.backend)
    delete_many = kind.delete_many

    def refuse(self, keys):
        refused = [key for key in keys if key == "Flow/0/start/1/0.attempt.json"]
        delete_many(self, [key for key in keys if key not in refused])
        if refused:
            error = errors.Locked("it is kept", key=refused[0])
            error.locks = dict.fromkeys(refused, "legal hold")
            raise error

    monkeypatch.setattr(kind, "delete_many", refuse)
    before = {path for path in files(place.backend.root) if path.startswith("Flow/0/")}
    _, done = collect_metaflow(place, LAST)
    assert done.removed == ("Flow/1",)
    assert done.locked == {"Flow/0": "Flow/0/start/1/0.attempt.json is under legal hold"}
    assert "locked: Flow/0: Flow/0/start/1/0.attempt.json is under legal hold" in result_notes(done)
    left = set(files(place.backend.root))
    assert before <= left
    own = json.loads(place.backend.get("Flow/0/start/1/0.data.json"))["objects"]["own"]
    assert f"Flow/data/{own[:2]}/{own}" in left
    assert {"locked": "Flow/0", "why": done.locked["Flow/0"]} in log_of(place)[0].lines
    monkeypatch.undo()
    _, done = collect_metaflow(place, LAST)
    assert done.removed == ("Flow/0",) and not done.locked
    assert not {path for path in files(place.backend.root) if path.startswith(("Flow/0/", "Flow/1/"))}
