"""Real flows by Metaflow's own runtime: what they store is the same with mfstore as without, for every reader."""

import json

import pytest

from tests.rigs.flows import BROKEN, FLOWS, MFSTORE, OFF, PACKED, finish_all
from tests.rigs.installs import OLDER, current_metaflow, stock
from tests.rigs.soak import IN_SOAKS

pytestmark = [pytest.mark.flow, pytest.mark.timeout(1200)]

WARNING = "mfstore cannot be loaded"


def arguments(flow, table):
    return (
        ("run", "--table", table, "--alpha", "0.25", "--tag", "one", "--tag", "two")
        if flow == "inputs.py"
        else ("run",)
    )


def name(flow):
    return flow.removesuffix(".py").capitalize()


def pair(make_rig, flow, *command, sides):
    """The flow on each of several sides, at once, each in a place of its own: ``[(rig, "Flow/1"), …]``."""
    rigs = [make_rig() for _ in sides]
    running = [rig.start(flow, *command, side=side) for rig, side in zip(rigs, sides, strict=True)]
    return [(rig, f"{name(flow)}/{one.run_id}") for rig, one in zip(rigs, finish_all(running), strict=True)]


@pytest.mark.parametrize(
    ("place", "flow"),
    [
        ("local", "inputs.py"),
        # A run of released Metaflow in S3 takes twenty seconds of CPU: one of a foreach and its join is compared with ours
        # in test_metadata_service.py, and what ours writes of inputs.py is read by all in test_released_metaflows_in_s3.
        pytest.param("s3", "branches.py", marks=[pytest.mark.server, *IN_SOAKS]),
        pytest.param("s3", "inputs.py", marks=[pytest.mark.server, *IN_SOAKS]),
    ],
)
def test_the_same_is_stored(request, table, place, flow):
    """Artifacts of every attempt, logs, tags and cards; each side reads what the other wrote."""
    make_rig = request.getfixturevalue(f"{place}_rig")
    (mine, my_run), (theirs, their_run) = pair(make_rig, flow, *arguments(flow, table), sides=(MFSTORE, OFF))
    cards = ("start",) if flow == "inputs.py" else ()
    read = mine.read(my_run, *cards, side=OFF)
    assert read == theirs.read(their_run, *cards, side=MFSTORE)
    assert read["successful"] and len(read["steps"]) >= 5
    if flow == "inputs.py":
        check_inputs(read)


def check_inputs(read):
    (start,), (retried,) = read["steps"]["start"], read["steps"]["fail_once"]
    assert read["tags"] == ["one", "two"] and read["cards"] == [True] and start["stdout"] == "to stdout: grüße\n"
    assert retried["attempt"] == 1 and retried["artifacts"]["wrong"] == repr("of the one that did not")
    assert retried["earlier attempts"][0]["wrong"] == repr("of the attempt that failed")


def test_the_same_is_stored_in_each_profile(local_rig):
    """Whoever has mfstore reads it, whatever the profile; who has not, is told to update where it is packed, and gets no
    wrong data."""
    (mine, my_run), (theirs, their_run), (packed, packed_run) = pair(
        local_rig, "branches.py", "run", sides=(MFSTORE, OFF, PACKED)
    )
    read = mine.read(my_run, side=OFF)
    assert read == theirs.read(their_run, side=PACKED) == packed.read(packed_run, side=MFSTORE)
    assert read["successful"] and len(read["steps"]) >= 5
    # One copy is enough for both: an artifact has the name that it has in every other store of this flow.
    assert keys(mine) == keys(theirs)
    with pytest.raises(AssertionError, match="No deserializer claimed artifact"):
        packed.read(packed_run, side=OFF)


def keys(rig):
    """The artifacts of each task of a local store, and the names of their blobs."""
    tasks = [json.loads(path.read_text()) for path in rig.files("*/*/*/*/0.data.json").values()]
    return sorted(sorted((k, v) for k, v in task["objects"].items() if not k.startswith("_")) for task in tasks)


@pytest.mark.parametrize(
    ("place", "sides"),
    [
        pytest.param("local", (OFF, MFSTORE), id="local-stock first"),
        pytest.param("local", (MFSTORE, OFF), id="local-mfstore first"),
        # By numbers that a service gave: test_metadata_service.py.
        pytest.param("s3", (OFF, MFSTORE), id="s3-stock first", marks=[pytest.mark.server, *IN_SOAKS]),
        pytest.param("s3", (MFSTORE, OFF), id="s3-mfstore first", marks=[pytest.mark.server, *IN_SOAKS]),
    ],
)
def test_resume_on_the_other_side(request, place, sides):
    rig = request.getfixturevalue(f"{place}_rig")()
    first = rig.run("halting.py", "run", "--seed", "2", side=sides[0], check=False, HALT="1", METAFLOW_USER="first")
    assert first.returncode and "halted" in first.stdout + first.stderr
    second = rig.run("halting.py", "resume", "--origin-run-id", first.run_id, side=sides[1], METAFLOW_USER="second")
    read = rig.read(f"Halting/{second.run_id}", side=sides[0])
    (end,) = read["steps"]["end"]
    assert read["successful"] and end["artifacts"]["total"] == "5"
    assert end["artifacts"]["made_by"] == "'first'"  # it was not run again


def test_without_what_it_needs(local_rig):
    """In a container without mfstore: Metaflow's own classes, the same data, one line."""
    rig = local_rig()
    first = rig.run("halting.py", "run", side=BROKEN, check=False, HALT="1", METAFLOW_USER="first")
    assert (first.stdout + first.stderr).count(WARNING) == 1, first.stderr
    second = rig.run("halting.py", "resume", side=MFSTORE, METAFLOW_USER="second")
    assert WARNING not in second.stdout + second.stderr
    assert rig.read(f"Halting/{second.run_id}", side=BROKEN)["steps"]["end"][0]["artifacts"]["made_by"] == "'first'"


def test_released_metaflows_read_and_are_read(local_rig):
    """Without a line of ours on their path. And spin: one step again, on the inputs of a run that the other side made."""
    sides = (MFSTORE, stock(None), stock(OLDER))
    (mine, my_run), (theirs, their_run), (older, older_run) = pair(local_rig, "halting.py", "run", sides=sides)
    read = mine.read(my_run, side=sides[1])
    assert read == mine.read(my_run, side=sides[2])
    assert read == theirs.read(their_run, side=MFSTORE) == older.read(older_run, side=MFSTORE)
    assert read["steps"]["end"][0]["artifacts"]["total"] == "15"
    spinning = [
        rig.start("halting.py", "spin", f"{run.rpartition('/')[2]}/join", side=side)
        for rig, run, side in ((mine, my_run, OFF), (theirs, their_run, MFSTORE))
    ]
    for one in finish_all(spinning):
        assert "Task finished successfully" in one.stdout


@pytest.mark.server
def test_released_metaflows_in_s3(s3_rig, table):
    """They read every attempt, log, card, file and object of a run with mfstore, which reads an older one's. The current
    one sends what it sends with ours switched off (test_flow_requests.py)."""
    older = stock(OLDER)
    mine, theirs = s3_rig(), s3_rig()
    running = [mine.start("inputs.py", *arguments("inputs.py", table)), theirs.start("halting.py", "run", side=older)]
    my_run, their_run = (f"{name(one.flow)}/{one.run_id}" for one in finish_all(running))
    read = mine.read(my_run, "start", side=OFF)
    assert read == mine.read(my_run, "start", side=older) == mine.read(my_run, "start", side=MFSTORE)
    assert read["successful"] and len(read["steps"]["objects"][0]["artifacts"]["stored"]) > 100
    check_inputs(read)
    read = theirs.read(their_run, side=MFSTORE)
    assert read == theirs.read(their_run, side=older)
    assert read["steps"]["end"][0]["artifacts"]["total"] == "15"


def test_the_next_run_of_a_packed_flow_stores_what_differs(local_rig):
    rig = local_rig()
    packs = []
    for version in (1, 2):
        finished = rig.run("versions.py", "run", "--version", str(version), side=PACKED)
        packs.append(sum(path.stat().st_size for path in rig.files("mf.store/packs/*/*").values()))
    assert packs[0] > 200_000 and packs[1] < 1.2 * packs[0]
    assert [*rig.files("mf.store/latest/*")] == ["mf.store/latest/Versions.start"]
    assert rig.read(f"Versions/{finished.run_id}", side=MFSTORE)["successful"]


def test_switching_back_from_the_packed_profile(s3_rig):
    rig = s3_rig()
    first = rig.run("halting.py", "run", side=PACKED, check=False, HALT="1", METAFLOW_USER="first")
    second = rig.run("halting.py", "resume", "--origin-run-id", first.run_id, side=MFSTORE, METAFLOW_USER="second")
    assert rig.read(f"Halting/{second.run_id}", side=PACKED)["successful"]
    # Released Metaflow knows how it went: what the resumed tasks wrote themselves it reads.
    script = rig.home / "latest.py"
    script.write_text("from metaflow import Flow, namespace; namespace(None)\n"
                      "print(Flow('Halting').latest_successful_run.id)\n")  # fmt: skip
    assert rig.python(script, side=OFF) == int(second.run_id)


def test_runner_and_client(s3_rig):
    """Metaflow's programming interface, as from a notebook."""
    found = s3_rig().python("use_runner.py", FLOWS / "halting.py", side=MFSTORE)
    assert found == {
        "status": "successful",
        "total": 1 + 2 * 4,
        "resumed": 1 + 2 * 4,
        "latest": True,
        "squares": [4, 5],
    }


def test_versions_are_the_ones_meant():
    assert current_metaflow().startswith("2.19.") and not OLDER.startswith("2.19.")
