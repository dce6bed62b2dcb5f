"""The storage classes, held against Metaflow's own on the same calls."""

import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from metaflow.plugins.datastores.local_storage import LocalStorage as StockLocal

from mfstore.metaflow.extension import LocalStorage
from mfstore.testing import NetworkFault
from mfstore.testing.actions import Reset, access_denied
from tests import ROOT
from tests.rigs.concurrency import in_a_child, in_threads
from tests.rigs.metaflow_stores import local_place, s3_place


@pytest.fixture
def s3(monkeypatch, radosgw):
    with s3_place(radosgw, monkeypatch) as found:
        yield found


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.server)])
def place(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return local_place(tmp_path) if request.param == "local" else request.getfixturevalue("s3")


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
def test_every_call_answers_as_metaflows_own(place, writer):
    place.storage(stock=writer == "stock").save_bytes(items(), overwrite=True, len_hint=16)
    ours, theirs = answers(place.storage()), answers(place.storage(stock=True))
    assert ours == theirs
    assert ours["is_file"] == [True, True, True, False, False, True, True]


def test_without_overwrite_what_exists_stays(place):
    storage = place.storage()
    storage.save_bytes([("x", io.BytesIO(b"first"))])
    storage.save_bytes([("x", io.BytesIO(b"second")), ("y", io.BytesIO(b"new"))], len_hint=2)
    assert (place.read("x"), place.read("y")) == (b"first", b"new")
    storage.save_bytes([("x", io.BytesIO(b"third"))], overwrite=True)
    assert place.read("x") == b"third"


def test_loaded_files_are_movable_and_gone_afterwards(s3, tmp_path):
    s3.storage().save_bytes([(f"k{n}", io.BytesIO(b"data")) for n in range(3)], overwrite=True)
    with s3.storage().load_bytes([f"k{n}" for n in range(3)]) as found:
        paths = [path for _, path, _ in found]
        shutil.move(paths[0], tmp_path / "mine")
    assert (tmp_path / "mine").read_bytes() == b"data"
    assert not any(os.path.exists(path) for path in paths)


def test_files_of_any_kind_are_stored(place, tmp_path):
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
        place.storage().save_bytes([("log", raw), ("long", long), ("lazy", Lazy())], overwrite=True)
    assert place.read("log") == b"line\n" * 1000
    assert place.read("long") == (tmp_path / "long").read_bytes()
    assert place.read("lazy") == b"lazy"


def test_a_root_that_changes_is_followed(place):
    storage = place.storage()
    storage.save_bytes([("x", io.BytesIO(b"1"))], overwrite=True)
    storage.datastore_root = storage.datastore_root + "/cards"
    assert storage.is_file(["x"]) == [False]
    storage.save_bytes([("x", io.BytesIO(b"2"))], overwrite=True)
    assert next(iter(storage.blobs.read(["x"])))[1].data == b"2"
    assert place.read("x") == b"1"


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


def test_threads_and_forks_share_a_storage(place):
    storage = place.storage()

    def work(number):
        storage.save_bytes([(f"t{number}/{n}", io.BytesIO(b"x")) for n in range(5)], overwrite=True)
        assert all(storage.is_file([f"t{number}/{n}" for n in range(5)]))

    assert not in_threads(work, range(6))
    assert in_a_child(lambda: work(99)) == 0
    assert storage.is_file(["t99/4"]) == [True]


# ---- where mfstore cannot be used --------------------------------------------------------------

PROBE = """
import sys
{before}
from metaflow import S3
from metaflow.plugins import DATASTORES, DATACLIENTS
from metaflow.datastore import flow_datastore
classes = {{d.TYPE: d for d in DATASTORES}}
print(S3.__module__, classes["s3"].__module__, classes["local"].__module__,
      flow_datastore.ContentAddressedStore.__module__, *(d.__module__ for d in DATACLIENTS if d.TYPE == "s3"))
"""
STOCK = (
    "metaflow.plugins.datatools.s3.s3 metaflow.plugins.datastores.s3_storage metaflow.plugins.datastores.local_storage"
    " metaflow.datastore.content_addressed_store metaflow.plugins.datatools.s3.s3"
)
OURS = "mfstore.s3.datatools.s3 mfstore.metaflow.hooks.storages mfstore.metaflow.hooks.storages mfstore.metaflow.stock.content_store mfstore.s3.datatools.s3"


def probe(before="", **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(before=before)],
        capture_output=True,
        text=True,
        env={**os.environ, "METAFLOW_USER": "tester", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.splitlines()


def test_it_is_on_when_installed():
    assert probe() == (OURS, [])


@pytest.mark.parametrize("value", ["0", "false", "off"])
def test_it_can_be_switched_off(value):
    assert probe(METAFLOW_MFSTORE=value) == (STOCK, [])


@pytest.mark.parametrize("missing", ["mfstore", "mfstore._core.transfer", "mfstore._core.crc", "isal", "blake3"])
def test_without_what_it_needs_metaflow_runs_on_with_one_warning(missing):
    found, said = probe(f"sys.modules[{missing!r}] = None")
    assert found == STOCK
    assert len(said) == 1
    assert "Metaflow's own storage is used" in said[0]


def test_nothing_of_it_is_imported_where_it_is_off():
    code = "import metaflow, sys; print([name for name in sys.modules if name.split('.')[0] == 'mfstore'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "METAFLOW_MFSTORE": "0"}
    )
    assert done.stdout.strip() == "[]"


def test_storages_pickle(place):
    storage = place.storage()
    assert not storage.is_file(["x"])[0]
    assert list(storage.blobs.read(["x"])) == [("x", None)]
    again = pickle.loads(pickle.dumps(storage))
    assert again.is_file(["x"]) == [False]
    assert list(again.blobs.read(["x"])) == [("x", None)]


MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "mfstore" / "metaflow").rglob("[a-z]*.py")
)


@pytest.mark.parametrize("module", MODULES)
def test_any_module_may_be_imported_first(module):
    assert probe(f"import {module}") == (OURS, [])


def test_a_class_of_its_own_has_a_root_of_its_own(monkeypatch):
    monkeypatch.setattr(StockLocal, "datastore_root", "/stock")

    class Mine(LocalStorage):
        pass

    Mine.datastore_root = "/mine"
    assert (Mine.datastore_root, Mine().datastore_root, LocalStorage.datastore_root) == ("/mine", "/mine", "/stock")
