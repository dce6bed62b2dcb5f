"""What the replacements need of Metaflow is there in the releases they were written for; where it is not, they are left
out, and that is said."""

import os
import subprocess
import sys
import threading

import pytest
from metaflow.client.filecache import FileCache
from metaflow.datastore import flow_datastore
from metaflow.datastore.content_addressed_store import ContentAddressedStore
from metaflow.datastore.datastore_storage import DataStoreStorage
from metaflow.version import metaflow_version

from mfstore.metaflow.extension import check_storage
from mfstore.metaflow.hooks import notes, rebinding
from mfstore.metaflow.hooks.rebinding import ARTIFACTS, BLOBS, MARKS, METHODS, OPENING, ReboundMethod, kept
from mfstore.metaflow.stock.content_store import ContentStore
from tests.rigs.metaflow_stores import local_datastore


def test_everything_is_rebound_when_a_storage_is_made(tmp_path):
    local_datastore(tmp_path).storage()
    assert rebinding.is_tested(metaflow_version)
    assert flow_datastore.ContentAddressedStore is ContentStore
    for method in METHODS:
        assert method.fits(), method.name
        made = getattr(method.found_owner(), method.name, None)
        if method.replace is not None and made is not None:
            assert "/mfstore/metaflow/hooks/" in made.__code__.co_filename, method.name
    assert kept(METHODS) == []


def of(owner, name, replace, what=MARKS, uses=()):
    return ReboundMethod(f"{__name__}.{owner.__name__}", name, (("self",),), uses, what, replace)


def use(monkeypatch, *methods):
    """As if nothing had been rebound, and these were all."""
    monkeypatch.setattr(flow_datastore, "ContentAddressedStore", ContentAddressedStore)
    monkeypatch.setattr(rebinding, "METHODS", methods)
    monkeypatch.setattr(rebinding, "_done", [])
    monkeypatch.setenv(notes.SAID, "")  # for what is set meanwhile to be taken back
    monkeypatch.delenv(notes.SAID)


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
    use(monkeypatch, of(Owner, "method", replace))
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
def test_a_method_of_another_release_stays_as_it_is(name, monkeypatch, capsys):
    before = dict(vars(Later))
    use(monkeypatch, of(Later, name, lambda original: None))
    rebinding.install()
    assert dict(vars(Later)) == before
    assert capsys.readouterr().err.startswith(f"mfstore: Metaflow {metaflow_version} keeps its own way of {MARKS}, ")
    rebinding.install()
    monkeypatch.setattr(rebinding, "_done", [])  # as a process that this one starts
    rebinding.install()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [notes.SAID, notes.IN_CONTAINER])
def test_the_note_can_be_silenced_and_no_container_says_it(name, monkeypatch, capsys):
    use(monkeypatch, of(Later, "other", lambda original: None))
    monkeypatch.setenv(name, "1")
    rebinding.install()
    assert capsys.readouterr().err == ""


class Whole:
    def __init__(self):
        self._there = 1

    def one(self):
        return "one"

    def two(self):
        return "two"


@pytest.mark.parametrize("owner, uses", [("Gone", ()), ("Whole", ("_gone",))])
def test_a_class_without_what_is_used_stays_as_it_is(owner, uses):
    method = ReboundMethod(f"{__name__}.{owner}", "one", (("self",),), uses, MARKS)
    assert not method.fits()
    assert ReboundMethod(f"{__name__}.Whole", "one", (("self",),), ("_there", "two"), MARKS).fits()
    assert not ReboundMethod("no.such.module.Class", "one", (("self",),), (), MARKS).fits()


def test_what_does_not_work_alone_is_rebound_together(monkeypatch):
    fine, other = of(Whole, "one", None), of(Later, "other", None)
    assert kept([fine._replace(what=ARTIFACTS), other._replace(what=ARTIFACTS), fine]) == [ARTIFACTS]
    assert kept([fine, fine._replace(what=OPENING), other._replace(what=BLOBS), fine._replace(what=ARTIFACTS)]) == [
        OPENING, BLOBS, ARTIFACTS
    ]  # fmt: skip
    use(monkeypatch, fine, other._replace(what=BLOBS))
    rebinding.install()
    assert flow_datastore.ContentAddressedStore is ContentAddressedStore


def test_a_method_that_earlier_releases_lack_is_not_missed():
    assert of(Later, "gone", None)._replace(parameters=(("self",), ())).fits()


@pytest.mark.parametrize(
    "version, tested",
    [("2.14", True), ("2.19.39", True), ("2.19.39.1", True), ("2.13.10", False), ("2.20.0", False), ("3.0rc1", False)],
)
def test_what_is_said_of_a_release(version, tested):
    assert rebinding.is_tested(version) == tested
    said = notes.note(version, "" if tested else rebinding.TESTED, [BLOBS, MARKS], True)
    assert f"Metaflow {version} keeps its own way of {BLOBS}, {MARKS}" in said and "packed profile is not there" in said
    assert (f"tried with Metaflow 2.14 to 2.19, and this is {version}" in said) != tested


class OtherStorage:
    """All a storage has, with a list of paths more."""

    def save_bytes(self, path_and_bytes_iter, overwrite=False, len_hint=0, paths=()):
        """Nothing."""


def test_a_release_that_calls_storages_otherwise_keeps_its_own():
    with pytest.raises(TypeError, match="a storage's is_file otherwise"):
        check_storage(OtherStorage)
    with pytest.raises(TypeError, match="a storage's save_bytes otherwise"):
        check_storage(type("Later", (DataStoreStorage,), {"save_bytes": OtherStorage.save_bytes}))
    check_storage(DataStoreStorage)


LATER = """
import sys
import metaflow, metaflow.version
from metaflow.datastore.task_datastore import TaskDataStore
metaflow.version.metaflow_version = "2.20.1"
stock = TaskDataStore.save_artifacts
TaskDataStore.save_artifacts = lambda self, artifacts, *more: stock(self, artifacts, len(more))
from metaflow.datastore import FlowDataStore
from metaflow.plugins import DATASTORES
storage = next(one for one in DATASTORES if one.TYPE == "local")
flow = FlowDataStore("F", storage_impl=storage, ds_root=sys.argv[1])
made = flow.get_task_datastore("1", "start", "1", attempt=0, mode="w")
made.init_task()
made.save_artifacts(iter([("x", 5)]), "more")
made.done()
print(flow.get_task_datastore("1", "start", "1")["x"], made._info["x"]["encoding"], type(flow.ca_store).__module__)
"""


def test_a_later_release_runs_with_a_note_and_what_fits(tmp_path):
    environment = {**os.environ, "METAFLOW_USER": "t", "METAFLOW_MFSTORE_PROFILE": "packed"}
    environment.pop(notes.SAID, None)
    done = subprocess.run(
        [sys.executable, "-c", LATER, str(tmp_path)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found, encoding, content = done.stdout.split()
    assert (found, content) == ("5", "mfstore.metaflow.stock.content_store") and encoding.endswith("pickle-v4")
    (said,) = done.stderr.splitlines()
    assert "tried with Metaflow 2.14 to 2.19, and this is 2.20.1" in said and said.count(ARTIFACTS) == 1
    assert "the packed profile is not there" in said and "storing blobs" not in said


def test_the_attributes_that_are_used(tmp_path):
    flow = local_datastore(tmp_path).flow()
    for name in ("flow_name", "datastore_root", "ca_store", "_storage_impl"):
        assert hasattr(flow, name), name
    for name in ("_prefix", "_storage_impl", "_blob_cache", "save_blobs_result"):
        assert hasattr(flow.ca_store, name), name
    task = flow.get_task_datastore("1", "a", "7", attempt=0, mode="w")
    for name in (
        "TYPE", "_ca_store", "_info", "_is_done_set", "_mode", "_objects", "_parent", "_path", "_storage_impl",
    ):  # fmt: skip
        assert hasattr(task, name), name
    for name in ("_objects", "_total", "_index_objects", "_garbage_collect"):
        assert hasattr(FileCache(str(tmp_path)), name), name
