"""Metaflow with its metadata service: what it registers there is the same with mfstore as without, and is enough to
read."""

import pytest

from tests.metaflow.test_flows import pair
from tests.rigs.flows import MFSTORE, OFF, PACKED

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


def test_the_same_is_registered(s3_rig, metadata_service):
    """And each side's Client finds the other's run through the service."""
    environment = metadata_service.environment()
    (mine, my_run), (theirs, their_run) = pair(
        lambda: s3_rig(**environment), "halting.py", "run", "--tag", "one", sides=(MFSTORE, OFF)
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
    assert not metadata_service.refused


def test_resume_through_the_service(s3_rig, metadata_service):
    """Numbers of runs and tasks are the service's; the run was made by the other side."""
    rig = s3_rig(**metadata_service.environment())
    first = rig.run("halting.py", "run", side=OFF, check=False, HALT="1", METAFLOW_USER="first")
    second = rig.run("halting.py", "resume", "--origin-run-id", first.run_id, side=MFSTORE, METAFLOW_USER="second")
    (end,) = rig.read(f"Halting/{second.run_id}", side=OFF)["steps"]["end"]
    assert end["artifacts"]["made_by"] == "'first'" and end["artifacts"]["total"] == "15"
    assert not metadata_service.refused


def test_the_packed_profile_through_the_service(s3_rig, metadata_service):
    """The service knows less of an artifact than its task's data.json does."""
    rig = s3_rig(**metadata_service.environment())
    run = f"Halting/{rig.run('halting.py', 'run', side=PACKED).run_id}"
    assert rig.read(run, side=MFSTORE)["steps"]["end"][0]["artifacts"]["total"] == "15"
