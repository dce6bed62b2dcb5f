"""What a collection of a Metaflow root writes down of itself: who removed what, when, and by which policy."""

import contextlib
import logging

import pytest

from mfstore import errors
from mfstore.format.audit import last_removal
from mfstore.maintenance.audit import read_log
from mfstore.maintenance.metaflow.collecting.audit_lines import ROOT_LOG
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.root import Root
from mfstore.testing import Fault, FaultyBackend
from tests.rigs.metaflow_trees import files, run_meta, task

DAY = 86400.0
LAST = RunPolicy(last=1, grace=0.0)


@pytest.fixture
def place(tmp_path):
    """Three runs of one flow, a day apart, and one of another."""
    for number in range(3):
        age = (30 - number) * DAY
        run_meta(tmp_path, "Flow", str(number), age=age)
        task(tmp_path, "Flow", str(number), "start", 1, {"own": number}, age=age)
    task(tmp_path, "Other", "0", "start", 1, {"own": "other"}, age=60 * DAY)
    root = Root(str(tmp_path))
    yield root
    root.close()


def log_of(place):
    return [*read_log(place.backend, ROOT_LOG)]


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


def test_it_is_written_before_the_first_deletion(place):
    collect_metaflow(place, LAST)
    before = len(log_of(place))
    inner = place.backend
    for n in range(1, 200):
        place.backend = FaultyBackend(inner, Fault(n, forever=True))
        place.backend.root = inner.root
        stored = set(files(inner.root))
        with contextlib.suppress(errors.MfstoreError):
            collect_metaflow(place, LAST, take_over=True)
        place.backend = inner
        if set(files(inner.root)) != stored:
            break
    assert len(log_of(place)) > before
    assert "Flow/0" in {line.get("remove") for line in log_of(place)[0].lines}


def test_without_the_right_to_log_nothing_is_deleted(place, monkeypatch):
    collect_metaflow(place, LAST)
    put = type(place.backend).put

    def refused(self, key, parts):
        if key.startswith(ROOT_LOG):
            raise errors.AccessDenied("no", key=key)
        return put(self, key, parts)

    monkeypatch.setattr(type(place.backend), "put", refused)
    stored = files(place.backend.root)
    with pytest.raises(errors.AccessDenied):
        collect_metaflow(place, LAST)
    assert files(place.backend.root) == stored
