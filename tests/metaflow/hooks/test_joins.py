"""The inputs of a join: opened and loaded together."""

import pytest
from metaflow.datastore.datastore_set import TaskDataStoreSet

from tests.rigs.metaflow_stores import another_host, save


@pytest.fixture
def s3(profile, s3):
    """On each profile."""
    return s3


def test_a_join_of_a_thousand_inputs(s3):
    """18 000 requests in stock Metaflow."""
    flow = s3.flow()
    one = save(flow, "1/a/0", {"x": 0})
    keys = {}
    for number in range(1000):
        save_one = flow.get_task_datastore("1", "a", str(number), attempt=0, mode="w")
        save_one._objects.update(one._objects)
        save_one._info.update(one._info)
        keys[number] = save_one
    values = {number: f"value {number} ".encode() * 40 for number in range(1000)}
    for number, store in keys.items():
        store.init_task()
        store.save_artifacts(iter([("x", values[number])]))
        store.done()
    another_host()
    s3.proxy.clear()
    stores = TaskDataStoreSet(
        s3.flow(), "1", pathspecs=[f"1/a/{number}" for number in range(1000)], allow_not_done=True
    )
    found = [store["x"] for store in stores]
    assert found == [values[number] for number in range(1000)]
    assert len(s3.proxy.requests()) <= 2100


def test_what_no_input_has_is_missed_as_by_metaflow(s3):
    flow = s3.flow()
    for number in range(6):
        save(flow, f"1/a/{number}", {"x": number})
    for one in s3.flow().get_task_datastores(run_id="1"):
        with pytest.raises(KeyError):
            one["other"]


def test_inputs_read_row_by_row_are_fetched_once(s3):
    flow = s3.flow()
    for number in range(12):
        artifacts = {name: f"{name} {number}".encode() * 1000 for name in "abc"}
        save(flow, f"1/a/{number}", artifacts)
    another_host()
    inputs = s3.flow().get_task_datastores(pathspecs=[f"1/a/{number}" for number in range(12)])
    s3.proxy.clear()
    for number, one in enumerate(inputs):
        assert [one[name] for name in "abc"] == [f"{name} {number}".encode() * 1000 for name in "abc"]
    assert len(s3.proxy.requests()) <= 3 * 12 + 3
