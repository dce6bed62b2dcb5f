"""Datastores on Azure and Google Cloud: what Metaflow's own storages and ours leave there is the same, each reads the
other's, and what costs a request is counted. Flows on them: test_cloud_flows.py."""

import io
import json

import pytest
from metaflow.datastore.datastore_set import TaskDataStoreSet
from metaflow.datastore.exceptions import DataException

from mfstore.testing import NetworkFault
from mfstore.testing.actions import access_denied
from tests.metaflow.hooks.test_storages import answers, items
from tests.rigs.cloud_stores import azure_datastore, google_datastore
from tests.rigs.command_line import mfstore
from tests.rigs.metaflow_stores import another_host, save
from tests.rigs.soak import IN_SOAKS

pytestmark = pytest.mark.server
INPUTS = 10
"""So many that one more request for each is more than the join may take."""


@pytest.fixture(params=["azure", "gs"])
def cloud(request, new_process, monkeypatch):
    server = request.getfixturevalue({"azure": "azurite", "gs": "gcs_server"}[request.param])
    make = {"azure": azure_datastore, "gs": google_datastore}[request.param]
    with make(server, monkeypatch) as found:
        yield found


def test_every_call_answers_as_metaflows_own(cloud):
    for writer in ("ours", "stock"):
        cloud.root = f"{cloud.root}/{writer}"
        cloud.storage(stock=writer == "stock").save_bytes(items(), overwrite=True, len_hint=16)
        ours, stock = cloud.storage(), cloud.storage(stock=True)
        with pytest.raises(NotImplementedError):
            stock.info_file("a/one")
        stock.info_file = ours.info_file
        assert answers(ours) == answers(stock)
        assert ours.info_file("a/two") == (True, {"k": [1, "é"]})
        assert cloud.metadata("a/two") == {"k": [1, "é"]}


def test_released_metaflow_reads_what_the_default_profile_wrote_and_the_other_way_round(cloud):
    values = {"x": 1, "text": "text " * 5000, "raw": bytes(range(256)) * 1200}
    for writer, reader in ((False, True), (True, False)):
        run = "1" if writer else "2"
        save(cloud.flow(stock=writer), f"{run}/a/7", values)
        another_host()
        task = cloud.flow(stock=reader).get_task_datastore(run, "a", "7")
        assert {name: task[name] for name in values} == values
    keys = [json.loads(cloud.read(f"Flow/{run}/a/7/0.data.json"))["objects"] for run in "12"]
    assert keys[0] == keys[1]
    assert cloud.metadata(cloud.path_of(keys[0]["text"])) == {"cas_raw": False, "cas_version": 1}


def test_the_end_of_a_task_is_stored_last(cloud):
    save(cloud.flow(), "1/a/7", {"x": list(range(1000))})
    assert cloud.written("Flow/1/a/7/0.attempt.json") < cloud.written("Flow/1/a/7/0.data.json")
    assert cloud.written("Flow/1/a/7/0.data.json") < cloud.written("Flow/1/a/7/0.DONE.lock")


def test_the_requests_of_a_join(cloud, profile):
    """Released Metaflow sends 23 for each input on Azure, and 27 on Google Cloud."""
    for number in range(INPUTS):
        save(cloud.flow(), f"1/a/{number}", {"x": f"value {number} " * 100})
    another_host()
    cloud.proxy.clear()
    paths = [f"1/a/{number}" for number in range(INPUTS)]
    tasks = TaskDataStoreSet(cloud.flow(), "1", pathspecs=paths, allow_not_done=True)
    assert [task["x"] for task in tasks] == [f"value {number} " * 100 for number in range(INPUTS)]
    assert len(cloud.proxy.log) <= 2 * INPUTS + 10


def test_included_files_are_stored_through_ours(cloud, monkeypatch):
    """Where Metaflow has them: on Azure its client says the container twice."""
    from metaflow.plugins.azure.includefile_support import Azure
    from metaflow.plugins.gcp.includefile_support import GS

    storage = type(cloud.storage())
    monkeypatch.setattr("metaflow.plugins.DATASTORES", [storage])
    for client, scheme in {"azure": [(Azure, "azure://")], "gs": [(GS, "")]}[cloud.kind]:
        with client() as found:
            url = found.put(f"{cloud.root}/data/Flow/{'0' * 40}", b"content")
            assert url == f"{scheme}{cloud.root}/data/Flow/{'0' * 40}"
            assert found.info(url).size == 7
            with open(found.get(url, return_missing=True).path, "rb") as file:
                assert file.read() == b"content"
            assert not found.get(f"{url[:-1]}1", return_missing=True).exists


def test_a_refusal_is_not_taken_for_absence(cloud):
    save(cloud.flow(), "1/a/7", {"x": "text" * 1000})
    another_host()
    cloud.proxy.faults = [NetworkFault(action=access_denied(), method="GET")]
    with pytest.raises(DataException, match="AccessDenied"):
        cloud.flow().get_task_datastore("1", "a", "7")
    cloud.proxy.faults = [NetworkFault(action=access_denied())]
    with pytest.raises(DataException, match="AccessDenied"):
        cloud.storage().is_file(["Flow/1/a/7/0.data.json"])
    with pytest.raises(DataException, match="AccessDenied"):
        cloud.storage().save_bytes([("k", io.BytesIO(b"x"))], overwrite=True)


def test_a_damaged_blob_is_told_and_stored_again(cloud):
    task = save(cloud.flow(), "1/a/7", {"x": "text" * 1000})
    cloud.write(cloud.path_of(task._objects["x"]), b"other bytes")
    another_host()
    with pytest.raises(DataException, match="Artifact x of task Flow/1/a/7"):
        cloud.flow().get_task_datastore("1", "a", "7")["x"]
    save(cloud.flow(), "2/a/7", {"x": "text" * 1000})
    another_host()
    assert cloud.flow(stock=True).get_task_datastore("1", "a", "7")["x"] == "text" * 1000


@pytest.mark.parametrize(
    ("cloud", "profile"),
    [
        ("azure", "packed"), ("gs", "stock"),
        pytest.param("azure", "stock", marks=[*IN_SOAKS]), pytest.param("gs", "packed", marks=[*IN_SOAKS]),
    ],
    indirect=True,
)  # fmt: skip
def test_a_root_is_looked_after(cloud, profile):
    """Runs that are dropped go, what the others need stays, and what is left is brought to the other profile."""
    for run in ("1", "2"):
        save(cloud.flow(), f"{run}/_parameters/0", {"seed": 1})
        for step in ("start", "end"):
            values = {"mine": f"{run} {step} " * 1000, "shared": list(range(3000)), "_task_ok": True, "_success": True}
            save(cloud.flow(), f"{run}/{step}/1", values)
    place = ("--metaflow", cloud.storage().url)
    mfstore("verify", *place, "--level", "full")
    usage = json.loads(mfstore("du", *place, "--json").stdout.splitlines()[0])
    assert (usage["flow"], usage["tasks"]["objects"]) == ("Flow", 24)
    for _ in ("condemned", "removed"):
        mfstore("gc", *place, "--keep-last", 1, "--grace", "0s", "--metadata", "none", "--execute", "--yes-really")
    another_host()
    with pytest.raises(DataException):
        cloud.flow().get_task_datastore("1", "end", "1")
    for to in {"stock": ("packed", "stock"), "packed": ("stock",)}[profile]:
        mfstore("migrate", *place, "--to", to, "--running", "0s", "--idle", "0s", "--execute")
        another_host()
        task = cloud.flow(stock=to == "stock").get_task_datastore("2", "end", "1")
        assert (task["mine"], task["shared"]) == ("2 end " * 1000, list(range(3000)))
    mfstore("verify", *place, "--level", "full")
