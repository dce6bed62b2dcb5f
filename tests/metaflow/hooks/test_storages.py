"""The storage classes, held against Metaflow's own on the same calls."""

import io
import os
import pickle
import shutil
from pathlib import Path

import pytest
from metaflow.plugins.datastores.local_storage import LocalStorage as StockLocal

from mfstore.metaflow.extension import LocalStorage
from mfstore.testing import NetworkFault
from mfstore.testing.actions import Reset, access_denied
from tests.rigs.concurrency import in_a_child, in_threads


def items():
    yield "a/one", io.BytesIO(b"1")
    yield "a/two", (io.BytesIO(b"22"), {"k": [1, "é"]})
    yield "a/b/three", (io.BytesIO(b""), {"cas_raw": True})
    yield "c/0.DONE.lock", io.BytesIO(b'""')
    for number in range(12):
        yield f"many/{number}", (io.BytesIO(bytes([number])), {"n": number})


def answers(storage):
    """What each method of the abstract class says."""
    paths = ["a/one", "a/two", "a/b/three", "a", "absent", "many/3", "a/one"]
    with storage.load_bytes([*paths, *(f"many/{n}" for n in range(12))]) as found:
        loaded = sorted(
            (key, path and Path(path).read_bytes(), str(metadata)) for key, path, metadata in found if key != "a"
        )
    with storage.load_bytes([]) as nothing:
        assert list(nothing) == []
    return {
        "is_file": storage.is_file(paths),
        "none": storage.is_file([]),
        "many": storage.is_file([f"many/{n}" for n in range(13)]),
        "info": [storage.info_file(path) for path in paths],
        "size": [storage.size_file(path) for path in paths],
        "list": sorted(
            (str(one.path).rstrip("/"), one.is_file)
            for one in storage.list_content(["a", "many", "absent"])
            if not one.path.endswith("_meta")
        ),
        "load": loaded,
        "uri": storage.full_uri("a/one").removeprefix(storage.datastore_root),
    }


@pytest.mark.parametrize("writer", ["ours", "stock"])
def test_every_call_answers_as_metaflows_own(datastore, writer):
    datastore.storage(stock=writer == "stock").save_bytes(items(), overwrite=True, len_hint=16)
    ours, theirs = answers(datastore.storage()), answers(datastore.storage(stock=True))
    assert ours == theirs
    assert ours["is_file"] == [True, True, True, False, False, True, True]


def test_without_overwrite_what_exists_stays(datastore):
    storage = datastore.storage()
    storage.save_bytes([("x", io.BytesIO(b"first"))])
    storage.save_bytes([("x", io.BytesIO(b"second")), ("y", io.BytesIO(b"new"))], len_hint=2)
    assert (datastore.read("x"), datastore.read("y")) == (b"first", b"new")
    storage.save_bytes([("x", io.BytesIO(b"third"))], overwrite=True)
    assert datastore.read("x") == b"third"


def test_loaded_files_are_movable_and_gone_afterwards(s3, tmp_path):
    s3.storage().save_bytes([(f"k{n}", io.BytesIO(b"data")) for n in range(3)], overwrite=True)
    with s3.storage().load_bytes([f"k{n}" for n in range(3)]) as found:
        paths = [path for _, path, _ in found]
        shutil.move(paths[0], tmp_path / "mine")
    assert (tmp_path / "mine").read_bytes() == b"data"
    assert not any(os.path.exists(path) for path in paths)


def test_files_of_any_kind_are_stored(datastore, tmp_path):
    (tmp_path / "log").write_bytes(b"line\n" * 1000)
    (tmp_path / "long").write_bytes(os.urandom(3 << 20))

    class Lazy(io.BufferedIOBase):
        """As the conda packages are: opened when read."""

        def readable(self):
            return True

        def seekable(self):
            return True

        def read(self, size=-1):
            return b"lazy"

    with open(tmp_path / "log", "rb", buffering=0) as raw, open(tmp_path / "long", "rb") as long:
        datastore.storage().save_bytes([("log", raw), ("long", long), ("lazy", Lazy())], overwrite=True)
    assert datastore.read("log") == b"line\n" * 1000
    assert datastore.read("long") == (tmp_path / "long").read_bytes()
    assert datastore.read("lazy") == b"lazy"


def test_a_root_that_changes_is_followed(datastore):
    storage = datastore.storage()
    storage.save_bytes([("x", io.BytesIO(b"1"))], overwrite=True)
    storage.datastore_root = storage.datastore_root + "/cards"
    assert storage.is_file(["x"]) == [False]
    storage.save_bytes([("x", io.BytesIO(b"2"))], overwrite=True)
    assert next(iter(storage.blobs.read(["x"])))[1].data == b"2"
    assert datastore.read("x") == b"1"


def test_the_local_root_is_the_stock_classes_root(tmp_path, monkeypatch):
    monkeypatch.setattr(StockLocal, "datastore_root", None)
    LocalStorage.datastore_root = "/ours"
    assert StockLocal.datastore_root == LocalStorage("").datastore_root == "/ours"
    StockLocal.datastore_root = "/theirs"
    assert LocalStorage.datastore_root == LocalStorage().datastore_root == "/theirs"


def test_work_that_is_lost_is_an_error(s3):
    from metaflow.plugins.datatools.s3 import MetaflowS3AccessDenied

    s3.proxy.faults = [NetworkFault(action=access_denied(), method="PUT", path="k7")]
    with pytest.raises(MetaflowS3AccessDenied, match="k7"):
        s3.storage().save_bytes([(f"k{n}", io.BytesIO(b"x")) for n in range(20)], overwrite=True, len_hint=20)
    s3.proxy.faults = [NetworkFault(action=access_denied(), method="HEAD")]
    for call in (lambda: s3.storage().is_file(["k1"]), lambda: s3.storage().save_bytes([("k1", io.BytesIO(b"x"))])):
        with pytest.raises(MetaflowS3AccessDenied):
            call()


def test_a_broken_connection_is_tried_again(s3):
    s3.proxy.faults = [NetworkFault(action=Reset(fraction=0.5), every=3)]
    s3.storage().save_bytes([(f"k{n}", io.BytesIO(b"x" * 1000)) for n in range(20)], overwrite=True)
    with s3.storage().load_bytes([f"k{n}" for n in range(20)]) as found:
        assert all(Path(path).read_bytes() == b"x" * 1000 for _, path, _ in found)


def test_done_is_not_stored_when_what_comes_before_is_refused(s3):
    s3.proxy.faults = [NetworkFault(action=access_denied(), method="PUT", path="data.json")]
    with pytest.raises(PermissionError):
        s3.storage().save_bytes(
            [("t/0.DONE.lock", io.BytesIO(b'""')), ("t/0.data.json", io.BytesIO(b"{}"))], overwrite=True
        )
    assert not s3.storage().is_file(["t/0.DONE.lock"])[0]


def test_threads_and_forks_share_a_storage(datastore):
    storage = datastore.storage()

    def work(number):
        storage.save_bytes([(f"t{number}/{n}", io.BytesIO(b"x")) for n in range(5)], overwrite=True)
        assert all(storage.is_file([f"t{number}/{n}" for n in range(5)]))

    assert not in_threads(work, range(6))
    assert in_a_child(lambda: work(99)) == 0
    assert storage.is_file(["t99/4"]) == [True]


def test_storages_pickle(datastore):
    storage = datastore.storage()
    assert not storage.is_file(["x"])[0]
    assert list(storage.blobs.read(["x"])) == [("x", None)]
    again = pickle.loads(pickle.dumps(storage))
    assert again.is_file(["x"]) == [False]
    assert list(again.blobs.read(["x"])) == [("x", None)]


def test_a_class_of_its_own_has_a_root_of_its_own(monkeypatch):
    monkeypatch.setattr(StockLocal, "datastore_root", "/stock")

    class Mine(LocalStorage):
        pass

    Mine.datastore_root = "/mine"
    assert (Mine.datastore_root, Mine().datastore_root, LocalStorage.datastore_root) == ("/mine", "/mine", "/stock")


@pytest.mark.server
def test_other_extensions_move_files_by_the_client_of_an_s3_storage(s3, tmp_path):
    from metaflow.plugins.datatools.s3 import S3

    storage = s3.storage()
    (tmp_path / "file").write_bytes(b"1")
    with S3(s3root=storage.datastore_root, external_client=storage.s3_client) as client:
        assert client._s3_client is storage.s3_client
        client.put_files([("k/1", str(tmp_path / "file"))])
        bucket, _, prefix = storage.datastore_root.removeprefix("s3://").partition("/")
        client._s3_client.client.copy_object(Bucket=bucket, Key=f"{prefix}/k/2", CopySource=f"{bucket}/{prefix}/k/1")
        assert [one.text for one in client.get_many(["k/1", "k/2"])] == ["1", "1"]
