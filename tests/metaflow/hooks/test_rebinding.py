"""What the replacements need of Metaflow is there in the release they were written for."""

import threading
from importlib.metadata import version

import pytest
from metaflow.client.filecache import FileCache
from metaflow.datastore import flow_datastore
from metaflow.datastore.content_addressed_store import ContentAddressedStore

from mfstore.metaflow.hooks import rebinding
from mfstore.metaflow.hooks.rebinding import METHODS, RELEASE, ReboundMethod
from mfstore.metaflow.stock.content_store import ContentStore
from tests.rigs.metaflow_stores import local_datastore


def test_everything_is_rebound_when_a_storage_is_made(tmp_path):
    local_datastore(tmp_path).storage()
    assert version("metaflow").startswith(f"{RELEASE}.")
    assert flow_datastore.ContentAddressedStore is ContentStore
    for method in METHODS:
        assert method.fits(), method.name
        assert "/mfstore/metaflow/hooks/" in getattr(method.owner, method.name).__code__.co_filename, method.name


class Owner:
    def method(self):
        return "Metaflow's"


def test_a_thread_that_comes_meanwhile_finds_all_rebound(monkeypatch):
    """And nothing is rebound twice."""
    found = []
    other = threading.Thread(target=lambda: (rebinding.install(), found.append(Owner().method())))

    def replace(original):
        other.start()
        other.join(0.1)  # it waits for this thread
        return lambda self: ["ours", original(self)]

    monkeypatch.setattr(Owner, "method", Owner.method)
    monkeypatch.setattr(flow_datastore, "ContentAddressedStore", ContentAddressedStore)
    monkeypatch.setattr(rebinding, "METHODS", (ReboundMethod(Owner, "method", ("self",), replace),))
    rebinding.install()
    other.join()
    assert found == [["ours", "Metaflow's"]]


class Later:
    """What a later release might make of some methods."""

    made = print
    told = property(lambda self: None)

    def other(self, more):
        """Takes another argument."""

    def any(self, *more):
        """Takes any."""


@pytest.mark.parametrize("name", ["gone", "made", "told", "other", "any"])
def test_a_method_of_another_release_stays_as_it_is(name, monkeypatch):
    before = dict(vars(Later))
    monkeypatch.setattr(flow_datastore, "ContentAddressedStore", ContentAddressedStore)
    monkeypatch.setattr(rebinding, "METHODS", (ReboundMethod(Later, name, ("self",), lambda original: None),))
    rebinding.install()
    assert dict(vars(Later)) == before


def test_the_attributes_that_are_used(tmp_path):
    flow = local_datastore(tmp_path).flow()
    for name in ("flow_name", "datastore_root", "ca_store", "_storage_impl", "_metadata_cache"):
        assert hasattr(flow, name), name
    for name in ("_prefix", "_storage_impl", "_blob_cache", "save_blobs_result"):
        assert hasattr(flow.ca_store, name), name
    task = flow.get_task_datastore("1", "a", "7", attempt=0, mode="w")
    for name in (
        "TYPE", "_ca_store", "_info", "_is_done_set", "_mode", "_objects", "_parent", "_path", "_serializers",
        "_storage_impl",
    ):  # fmt: skip
        assert hasattr(task, name), name
    for name in ("_objects", "_total", "_index_objects", "_garbage_collect"):
        assert hasattr(FileCache(str(tmp_path)), name), name
