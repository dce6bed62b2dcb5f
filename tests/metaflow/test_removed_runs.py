"""What the Client's users are told of runs that a collection removed, and a metadata service goes on listing."""

import json
import subprocess
from types import SimpleNamespace

import pytest
from metaflow.datastore.exceptions import DataException

from mfstore.format.audit import BEGIN, END, AuditRecord, encode_record, record_key
from mfstore.metaflow.hooks.removed_runs import told_of_removal
from mfstore.metaflow.roots.layout import LOG_FOLDER
from mfstore.metaflow.stock.local_blobs import LocalBlobs
from tests.rigs.flows import MFSTORE
from tests.rigs.soak import in_soaks


@pytest.fixture
def storage(tmp_path):
    """As far as a local datastore is asked."""
    blobs = LocalBlobs(lambda: str(tmp_path), "never")
    return SimpleNamespace(blobs=blobs, datastore_root=str(tmp_path))


def write(storage, *records):
    for record in records:
        storage.blobs._backend().put(record_key(LOG_FOLDER, record), [encode_record(record)])


def collection(number, event, *runs, why=""):
    lines = tuple({"remove": run, **({"why": why} if event == BEGIN else {})} for run in runs)
    return AuditRecord(f"{number:016x}", event, "gc", 1.79e9 + 1e5 * number, f"ada{number}@host", {}, {}, lines)


def told(storage, run="Flow/1"):
    error = DataException("it is not there")
    error.key = "k"
    found = told_of_removal(storage, run, error)
    assert found.key == "k" and found.message.startswith("it is not there")
    return found.message


def test_the_log_says_which_collection_removed_a_run(storage):
    assert told(storage) == "it is not there"
    runs = [f"Flow/{number}" for number in range(10, 90)]
    for number, run in enumerate(runs):
        write(storage, collection(number, BEGIN, run, why="beyond the last 5"), collection(number, END, run))
    write(storage, collection(200, BEGIN, "Flow/1", why="older than 90d"))
    assert told(storage).endswith(": older than 90d. ada200@host ran it (mfstore gc)") and "Flow/1" in told(storage)
    assert "ada0@host" in told(storage, "Flow/10") and "beyond the last 5" in told(storage, "Flow/10")
    assert told(storage, "Flow/100") == told(storage, "low/1") == "it is not there"


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b'{"version": 1}\nx'])
def test_a_log_that_cannot_be_read_says_nothing(storage, data):
    storage.blobs._backend().put(f"{LOG_FOLDER}2026/01/01/000000.0-0-{BEGIN}.jsonl", [data])
    assert told(storage) == "it is not there"
    storage.blobs = None
    assert told(storage) == "it is not there"


@pytest.mark.flow
@pytest.mark.timeout(1200)
@in_soaks
def test_what_the_client_says_of_a_removed_run(s3_rig, metadata_service):
    rig = s3_rig(**metadata_service.environment())
    first, second = (rig.run("own.py").run_id for _ in range(2))

    def mfstore(command, *arguments):
        root = rig.place["METAFLOW_DATASTORE_SYSROOT_S3"]
        done = subprocess.run(
            [MFSTORE.python, "-m", "mfstore", command, "--metaflow", root, "--json", *arguments],
            env=rig.environment(), cwd=rig.home, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def gc(*arguments):
        return mfstore("gc", "--keep-last", "1", "--grace", "0s", "--running", "0s", *arguments)

    mfstore("hold", f"Own/{first}", "--why", "a paper")
    held = gc("--execute")
    assert held["condemn"] == [] and held["keep"][f"Own/{first}"].endswith(": a paper")
    mfstore("hold", "--release", f"Own/{first}")
    # The service is asked, as Metaflow is configured for it.
    assert gc("--execute")["condemn"] == [f"Own/{first}"]
    done = gc("--execute")
    assert (done["metadata"], done["listed_on"]) == ("service", 1)
    assert done["executed"]["removed"] == [f"Own/{first}"] and done["executed"]["tagged"] == 1
    assert metadata_service.tags("Own", first) == ["mfstore:removed"]
    (task,) = metadata_service.children("Own", first, "start")
    # What this host keeps of what it wrote goes on being read: another host.
    elsewhere = rig.home / "elsewhere"
    elsewhere.mkdir()
    errors = rig.python("read_errors.py", f"Own/{first}/start/{task}", "x", TMPDIR=str(elsewhere))
    said = f"Garbage collection removed the run Own/{first} on "
    assert [error and said in error for error in errors] == [True, True], errors
    assert rig.read(f"Own/{second}")["steps"]["start"][0]["artifacts"]["x"] == repr(second)
    assert not metadata_service.refused
