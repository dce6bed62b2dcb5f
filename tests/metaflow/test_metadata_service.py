"""Metaflow with its metadata service: what it registers there is the same with mfstore as without, and is enough to
read."""

import pytest

from tests.metaflow.test_flows import pair
from tests.rigs.flows import MFSTORE, OFF, PACKED, finish_all

pytestmark = [pytest.mark.flow, pytest.mark.timeout(1200)]

# What the service is told of an artifact: enough for a client to read it, and for the user interface to show it.
FIELDS = {
    "name",
    "sha",
    "ds_type",
    "location",
    "content_type",
    "type",
    "attempt_id",
    "user_name",
    "tags",
    "system_tags",
}


def registered(service, flow):
    """Every artifact of every task of a run, by the requests of the client: (step, name): record."""
    found = {}
    for (ids, kind), records in service.lists.items():
        if kind == "artifact" and "/".join(ids[:2]) == flow:
            found |= {(ids[2], ids[3], record["name"]): record for record in records}
    return found


def test_the_same_is_registered_and_each_resumes_what_the_other_ran(s3_rig, metadata_service):
    """And each side's Client finds the other's run through the service, which numbers runs and tasks."""
    environment = metadata_service.environment()
    (mine, my_run), (theirs, their_run) = pair(
        lambda: s3_rig(METAFLOW_USER="first", **environment), "halting.py", "run", "--tag", "one", sides=(MFSTORE, OFF)
    )
    read = mine.read(my_run, side=OFF)
    assert read == theirs.read(their_run, side=MFSTORE)
    assert read["tags"] == ["one"] and read["steps"]["end"][0]["artifacts"]["total"] == "15"
    ours, stock = registered(metadata_service, my_run), registered(metadata_service, their_run)
    assert set(ours[next(iter(ours))]) >= FIELDS
    assert {(step, name) for step, _, name in ours} == {(step, name) for step, _, name in stock}

    def described(records):
        return sorted(
            (step, name, record["sha"], record["content_type"], record["ds_type"], record["attempt_id"])
            for (step, _, name), record in records.items()
            if not name.startswith("_") and name != "square"  # the others are equal in every task
        )

    assert described(ours) == described(stock)
    # From the last step of a whole run: what is before it is cloned, as of one that halted there.
    resuming = [
        rig.start(
            "halting.py", "resume", "end", "--origin-run-id", run.rpartition("/")[2], side=side, METAFLOW_USER="second"
        )
        for rig, run, side in ((theirs, their_run, MFSTORE), (mine, my_run, OFF))
    ]
    for rig, done, side in zip((theirs, mine), finish_all(resuming), (OFF, MFSTORE), strict=True):
        resumed = rig.read(f"Halting/{done.run_id}", side=side)
        (end,) = resumed["steps"]["end"]
        assert resumed["successful"]
        assert end["artifacts"]["made_by"] == "'first'" and end["artifacts"]["total"] == "15"
    assert not metadata_service.refused


def test_the_packed_profile_through_the_service(s3_rig, metadata_service):
    """The service knows less of an artifact than its task's data.json does."""
    rig = s3_rig(**metadata_service.environment())
    run = f"Halting/{rig.run('halting.py', 'run', side=PACKED).run_id}"
    assert rig.read(run, side=MFSTORE)["steps"]["end"][0]["artifacts"]["total"] == "15"
