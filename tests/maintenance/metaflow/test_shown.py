"""What is told of a root's maintenance at a prompt and in a notebook."""

import pickle
from dataclasses import replace

import pytest

from mfstore.maintenance.metaflow.migrating.changes import LeftAlone
from mfstore.maintenance.metaflow.migrating.report import FlowShare, MigrationFailure, MigrationPlan, MigrationResult
from mfstore.maintenance.metaflow.report import MetaflowFinding, MetaflowRepair, MetaflowReport
from mfstore.maintenance.report import RepairAction
from tests.rigs.html import EVIL, harmless

WHOLE = MetaflowReport(
    url="s3://bucket/flows", level="full", findings=(), flows=2, runs=1200, tasks=9, blobs=30, stored=5_000_000,
    blobs_checked=30, checked=4_000_000, running=0, complete=True, oldest=None, remembered=True, seconds=2.0,
)  # fmt: skip
LOST = MetaflowFinding(
    "missing", f"F/data/ab/{'ab' * 20}", "the task says it is there", ("F/1/train/2/model",), "F", "ab" * 20
)
STRANGE = MetaflowFinding("unknown", EVIL, EVIL, (), harm="none")


def test_a_report():
    page, text = harmless(WHOLE)
    assert "no damage found" in page.texts and "2 flows, 1,200 runs, 9 tasks, 30 blobs; 5.0 MB" in page.texts
    assert "level full: 30 of 30 blobs, 4.0 MB in 2.0 s (2.0 MB/s)" in text
    assert "--level full reads the blobs" in repr(replace(WHOLE, level="headers"))
    assert "by listing" in repr(replace(WHOLE, level="list"))
    page, text = harmless(replace(WHOLE, findings=(STRANGE,)))
    assert "no damage found; the above does no harm" in page.texts
    damaged = replace(WHOLE, findings=(LOST, STRANGE) * 30, running=1, complete=False, remembered=False)
    page, text = harmless(damaged)
    assert "60 findings" not in page.text and "30 findings; 1 run with artifacts that cannot be loaded" in page.text
    assert "F/1/train/2/model" in page.texts and "and 40 more" in page.texts
    assert "1 attempt began within a day and may still be running." in page.texts
    assert "--older-than goes on from there" in page.text and "not remembered" in text
    assert pickle.loads(pickle.dumps(damaged)) == damaged


def test_a_repair():
    before = replace(WHOLE, findings=(LOST,))
    page, _ = harmless(MetaflowRepair("root", WHOLE, (), None))
    assert "repair of" in page.texts and "nothing to repair" in page.texts
    assert "nothing that repair can do" in repr(MetaflowRepair("root", before, (), None))
    actions = tuple(RepairAction("quarantine", f"F/data/{number}", EVIL) for number in range(25))
    page, _ = harmless(MetaflowRepair("root", before, actions, None))
    assert "would do" in page.texts and "and 5 more" in page.texts
    page, _ = harmless(MetaflowRepair("root", before, actions, WHOLE))
    assert {"repaired", "did", "all is well"} <= {*page.texts}
    assert "1 finding left" in repr(MetaflowRepair("root", before, actions[:1], before))


@pytest.mark.parametrize("to", ["packed", "stock"])
def test_a_plan_of_a_migration(to):
    flows = tuple(FlowShare(f"Flow{number}", 3, 1500, 40, 7_000_000, 2) for number in range(12))
    left = (
        LeftAlone("running", "F/1", EVIL),
        LeftAlone("unfinished", "F/1/a/2/0", ""),
        LeftAlone("running", "F/2", ""),
    )
    page, text = harmless(MigrationPlan("root", to, flows, left, 3, 2))
    assert f"the {to} profile" in page.texts and "1,500" in page.texts and "7.0 MB" in page.texts
    assert "left alone: 2 runs that may be going on" in page.texts
    assert "left alone: 1 attempt that never ended" in text
    assert "2 tasks of these have no local metadata here" in page.text and "3 artifacts of them were stock" in page.text
    assert "cannot load what was registered as packed" in page.text if to == "stock" else "garbage" in page.text
    assert "migrate_metaflow() does this." in page.texts
    assert "There is nothing to do." in repr(MigrationPlan("root", to, (), (), 0, 0))


def test_what_a_migration_did():
    assert "There was nothing to do." in repr(MigrationResult())
    page, _ = harmless(MigrationResult(3, 40, 7_000_000, 1))
    told = "migrated 3 tasks: 40 artifacts, 7.0 MB pickled; 1 record of local metadata brought up to date"
    assert told in page.texts and "its grace period from now" in page.text
    failures = [MigrationFailure("damaged", "F/1/a/2/0", "x", "ab" * 20, EVIL) for _ in range(25)]
    page, text = harmless(MigrationResult(failures=failures))
    assert "25" in page.texts and "and 5 more" in page.texts and "damaged" in text
    assert "These stay as they were; all else was done." in page.texts
