"""Opening tasks on S3: Metaflow's rules with fewer requests, and errors that say what is wrong."""

import pytest
from metaflow.datastore.exceptions import DataException
from metaflow.datastore.flow_datastore import FlowDataStore

from mfstore.testing import NetworkFault
from mfstore.testing.actions import access_denied
from tests.rigs.metaflow_stores import another_host, save


@pytest.fixture
def s3(profile, s3):
    """On each profile."""
    return s3


@pytest.mark.parametrize(
    ("attempts", "readable_as"),
    [
        ([], None),
        ([(0, True)], 0),
        ([(0, False)], None),
        ([(0, True), (1, True)], 1),
        ([(0, True), (1, False)], None),  # never an older attempt once a newer one began
    ],
)
def test_an_attempt_is_read_only_when_it_is_the_latest_and_done(s3, attempts, readable_as):
    flow = s3.flow()
    for number, done in attempts:
        save(flow, "1/a/7", {"x": number}, number, done)
    if readable_as is None:
        with pytest.raises(DataException, match=r"Flow/1/a/7.*(not end well|has been started)"):
            s3.flow().get_task_datastore("1", "a", "7")
        assert s3.flow().get_task_datastores(pathspecs=["1/a/7"]) == []
        return
    s3.proxy.clear()
    store = s3.flow().get_task_datastore("1", "a", "7")
    assert (store.attempt, store["x"]) == (readable_as, readable_as)
    (many,) = s3.flow().get_task_datastores(pathspecs=["1/a/7"])
    assert (many.attempt, many["x"]) == (readable_as, readable_as)
    if len(attempts) == 2:
        (older,) = s3.flow().get_task_datastores(pathspecs=["1/a/7/0"])
        assert older["x"] == 0


def test_opening_takes_a_listing_and_what_is_not_cached(s3):
    save(s3.flow(), "1/a/7", {"x": 1})
    s3.proxy.clear()
    assert s3.flow().get_task_datastore("1", "a", "7")["x"] == 1
    assert len(s3.proxy.requests()) == 1, "this host wrote data.json and the tiny blob"
    another_host()
    s3.proxy.clear()
    store = s3.flow().get_task_datastore("1", "a", "7")
    assert [r.method for r in s3.proxy.requests()] == ["GET", "GET"]
    assert store["x"] == 1
    s3.proxy.clear()
    assert s3.flow().get_task_datastore("1", "a", "7")["x"] == 1
    assert "data.json" not in str([r.path for r in s3.proxy.requests()]), "and now knows it"
    save(s3.flow(), "1/a/7", {"x": 2}, attempt=1)
    assert s3.flow().get_task_datastore("1", "a", "7")["x"] == 2, "and asks whether they are still the latest"


def test_a_listing_that_is_refused_is_no_empty_run(s3):
    save(s3.flow(), "1/a/7", {"x": 1})
    s3.proxy.faults = [NetworkFault(action=access_denied(), method="GET")]
    with pytest.raises(DataException, match="AccessDenied"):
        s3.flow().get_task_datastore("1", "a", "7")
    with pytest.raises(DataException, match="AccessDenied"):
        s3.flow().get_task_datastores(run_id="1")


def test_a_damaged_data_json_is_named(s3):
    save(s3.flow(), "1/a/7", {"x": 1})
    s3.write("Flow/1/a/7/0.data.json", b'{"objects": ')
    with pytest.raises(DataException, match=r"Flow/1/a/7/0.data.json is damaged"):
        s3.flow().get_task_datastore("1", "a", "7")
    s3.delete("Flow/1/a/7/0.data.json")
    with pytest.raises(DataException, match=r"ended, but .*0.data.json does not exist"):
        s3.flow().get_task_datastore("1", "a", "7")


@pytest.mark.skipif(not hasattr(FlowDataStore, "set_metadata_cache"), reason="before 2.19 there was none")
def test_the_clients_metadata_cache_is_filled_once(s3):
    class Cache(dict):
        stores = 0

        def load_metadata(self, *key):
            return self.get(key)

        def store_metadata(self, run, step, task, attempt, data):
            self.stores += 1
            self[run, step, task, attempt] = data

    save(s3.flow(), "1/a/7", {"x": 1})
    flow, cache = s3.flow(), Cache()
    flow.set_metadata_cache(cache)
    for _ in range(3):
        assert flow.get_task_datastore("1", "a", "7", attempt=0)["x"] == 1
    assert cache.stores == 1
