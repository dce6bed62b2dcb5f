"""Files that others read without mfstore, by the libraries that they are of."""

import json
import os
import pickle
import pickletools
import subprocess
import sys
import uuid
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import ml_dtypes
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal
from safetensors.numpy import save_file

import mfstore
from mfstore.errors import (
    InvalidKey,
    MfstoreError,
    NotFound,
    NotSerializable,
    OutOfSpace,
    Refused,
    UnsafeObject,
    Unsupported,
    WrongArgument,
)
from mfstore.exporting import streams
from mfstore.s3.urls import SCHEMES
from mfstore.views.view import View
from tests.rigs import command_line
from tests.rigs.damage import wrapped
from tests.rigs.parts import CountingBackend
from tests.servers.base import client_options

RANDOM = np.random.default_rng(0)
LARGE = RANDOM.random((300, 500))


@pytest.fixture
def store():
    return mfstore.open("memory://")


@pytest.fixture
def exported(store, tmp_path):
    """Export an object; the file."""

    def call(obj, name, called=None, **more):
        key = obj if isinstance(obj, View) else store.put(obj)
        place = store.export(key, tmp_path / name, called, **more)
        assert place == str(tmp_path / name)
        return tmp_path / name

    return call


class Model:
    def __init__(self):
        self.weights, self.rate = LARGE, Fraction(1, 3)


def frame():
    return pd.DataFrame(
        {"a": range(3), "b": ["x", None, "y"], "c": pd.Categorical(["u", "v", "u"])},
        index=pd.date_range("2026-11-30", periods=3, name="day"),
    )


@pytest.mark.parametrize("made", [
    lambda: {"a": [1, "two"], "w": LARGE, "f": np.asfortranarray(LARGE), "bytes": bytearray(200_000)},
    frame, lambda: pl.DataFrame({"a": range(1000)}), lambda: pa.table({"a": ["x"] * 1000}), Model, lambda: "é" * 100_000,
], ids=["dict", "pandas", "polars", "arrow", "model", "text"])  # fmt: skip
@pytest.mark.parametrize("whole", [True, False])
def test_pickles_have_nothing_of_mfstore(store, exported, made, whole):
    obj = made()
    view = store.view(store.put(obj if whole else [0, obj]))
    path = exported(view if whole else view[1], "a.pkl")
    data = path.read_bytes()
    names = [
        argument for opcode, argument, _ in pickletools.genops(data) if "EXT" in opcode.name or "PERSID" in opcode.name
    ]
    assert not names and b"mfstore" not in data
    found = pickle.loads(data)
    assert type(found) is type(obj)
    if isinstance(obj, Model):
        assert found.rate == Fraction(1, 3) and (found.weights == LARGE).all()
    elif isinstance(obj, dict):
        assert found["a"] == [1, "two"] and (found["f"] == LARGE).all() and found["bytes"] == obj["bytes"]
    else:
        assert len(found) == len(obj)


def test_a_bundle_is_the_pickle_of_a_dict(store, exported):
    view = store.view(store.save({"w": LARGE, "n": 3}))
    found = pickle.loads(exported(view, "a.pkl").read_bytes())
    assert found.keys() == {"w", "n"} and (found["w"] == LARGE).all()
    assert (np.load(exported(view["w"], "w.npy")) == LARGE).all()


def test_a_whole_pickle_is_unpickled_by_nobody(store, exported, tmp_path, monkeypatch):
    class Attack:
        def __reduce__(self):
            return os.mkdir, ("never",)

    long = mfstore.open("memory://")
    key = long.put([Attack(), *map(str, range(40_000))])  # of a body that no recipe holds
    with monkeypatch.context() as patch:
        patch.setattr("mfstore.views.parts.read_symbols", None)
        long.export(key, tmp_path / "long.pkl")
    assert (tmp_path / "long.pkl").read_bytes() == long.get_bytes(key)
    assert b"mkdir" in exported(Attack(), "a.pkl").read_bytes()
    with pytest.raises(UnsafeObject):
        exported([Attack()], "a.json", safe=True)


@pytest.mark.parametrize("array", [
    LARGE, np.asfortranarray(LARGE), LARGE[::2], np.arange(5), np.array(3.5), np.zeros((0, 3), "M8[D]"),
    np.array(["2026-11-30"], "M8[D]"), np.array(["é", "xyz"]), np.arange(100_000, dtype=">i4"),
    np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]), np.ones((3, 1, 2), "?"),
], ids=lambda array: f"{array.dtype}{array.shape}{array.flags.c_contiguous}")  # fmt: skip
def test_npy(exported, array):
    path = exported(array, "a.npy")
    found = np.load(path, allow_pickle=False)
    assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()
    np.save(
        path.with_name("numpy.npy"),
        array if array.flags.f_contiguous else np.ascontiguousarray(array).reshape(array.shape),
    )
    assert path.read_bytes() == path.with_name("numpy.npy").read_bytes()


@pytest.mark.parametrize(
    ("dtype", "shape"), [(1, (3,)), (np.dtype("f8"), 1.5), (np.dtype("f8"), None), (None, "x")], ids=str
)
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.safetensors", "a.csv", "a.bin"])
def test_what_only_seems_to_be_an_array_is_none(exported, tmp_path, dtype, shape, name):
    class Lies:
        def __reduce__(self):
            return np.arange(3).__reduce_ex__(5)[0], (bytes(24), dtype, shape, "C")

    with pytest.raises(MfstoreError):
        exported({"a": Lies()} if name[2:] in ("npz", "safetensors") else Lies(), name)
    assert not list(tmp_path.iterdir())


def test_npz(store, exported):
    arrays = {"w": LARGE, "f": np.asfortranarray(LARGE), "n": np.arange(3), "é/x": np.zeros(0)}
    for view in (store.view(store.put(arrays)), store.view(store.save(arrays))):
        path = exported(view, "a.npz", overwrite=True)
        with np.load(path, allow_pickle=False) as found:
            assert {*found} == {*arrays} and all((found[name] == array).all() for name, array in arrays.items())


@pytest.mark.parametrize("names", [
    ["../x"], ["a\\..\\x"], ["a\0b", "a"], [1, "1"], ["a", "a.npy"], ["\ud800"], ["x" * 70_000],
], ids=lambda names: f"{names[0]!r:.10}")  # fmt: skip
def test_names_by_which_an_archive_would_give_something_else(exported, tmp_path, names):
    with pytest.raises(NotSerializable, match="npz"):
        exported({name: np.arange(number) for number, name in enumerate(names)}, "a.npz")
    assert not list(tmp_path.iterdir())


def test_tensors_in_any_order_are_arrays_in_theirs(exported):
    torch = pytest.importorskip("torch")
    whole = torch.arange(24_000.0).reshape(20, 30, 40)
    tensors = {
        "turned": whole[0].T, "axes": whole.permute(1, 2, 0), "part": whole[:, ::2], "again": whole[0, 0].expand(3, 40),
        "channels": whole[None, :3].to(memory_format=torch.channels_last), "pairs": whole.to(torch.complex128).conj(),
    }  # fmt: skip
    with np.load(exported(tensors, "a.npz")) as found:
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(found[name], tensor.resolve_conj().numpy())
            one = np.load(exported(tensor, f"{name}.npy"))
            assert one.dtype == found[name].dtype and (one == found[name]).all()


def test_an_array_goes_to_its_file_in_parts(store, tmp_path, monkeypatch):
    held, original = [], streams._read

    def counted(waiting):
        held.append(sum(len(slot) for _, slot in waiting))
        return original(waiting)

    monkeypatch.setattr(streams, "_read", counted)
    monkeypatch.setattr(streams, "HELD", 4 << 20)
    monkeypatch.setattr(streams, "PIECE", 1 << 20)
    backend = CountingBackend()
    whole = RANDOM.random(2_000_000)
    store = wrapped(backend)
    key = store.put(whole)
    backend.reads.clear()
    store.export(key, tmp_path / "a.npy")
    assert (np.load(tmp_path / "a.npy") == whole).all()
    assert max(held) <= 6 << 20 and sum(held) == whole.nbytes
    assert sum(length for _, _, length in backend.reads) <= 1.02 * whole.nbytes


def test_progress_is_of_the_bytes_that_are_read(store, tmp_path):
    key = store.put({"w": LARGE, "again": LARGE + 1})
    for what, name, nbytes in (
        (store.view(key)["w"], "a.npy", LARGE.nbytes),
        (key, "a.safetensors", 2 * LARGE.nbytes),
        (key, "a.pkl", store.stat(key).size),
    ):
        told = []
        store.export(what, tmp_path / name, progress=told.append)
        assert sum(told) == nbytes


def test_parquet_of_pandas_keeps_index_and_types(exported):
    found = pd.read_parquet(path := exported(frame(), "a.parquet"))
    assert_frame_equal(found, frame(), check_freq=False)
    frame().to_parquet(path.with_name("pandas.parquet"))
    assert path.read_bytes() == path.with_name("pandas.parquet").read_bytes()


def test_parquet_of_polars_and_arrow(exported):
    whole = pl.DataFrame({"a": [1, None], "b": ["x", "y"], "c": [[1], []]})
    assert pl.read_parquet(exported(whole, "polars.parquet")).equals(whole)
    table = pa.table({"a": pa.array([1, 2], "int8"), "b": ["x", None]}).replace_schema_metadata({"k": "v"})
    assert pq.read_table(exported(table, "arrow.parquet")).equals(table, check_metadata=True)
    batch = pa.record_batch({"a": [1]})
    assert pq.read_table(exported(batch, "batch.parquet")).to_pydict() == {"a": [1]}


def test_csv(exported):
    assert exported(frame(), "a.csv").read_text() == frame().to_csv()
    assert exported(pd.Series([1, 2], name="x"), "series.csv").read_text() == ",x\n0,1\n1,2\n"
    assert exported(pl.DataFrame({"a": [1]}), "polars.csv").read_text() == "a\n1\n"
    assert exported(pa.table({"a": [1]}), "arrow.csv").read_text() == '"a"\n1\n'


def test_json_text_and_bytes(store, exported, tmp_path):
    plain = {"a": [1, 2.5, None, True, {"é": "\n"}], "b": ()}
    assert json.loads(exported(plain, "a.json").read_text("utf-8")) == {**plain, "b": []}
    for text in ("é" * 100_000, "short"):
        assert exported(text, f"{len(text)}.html").read_text("utf-8") == text
        assert json.loads(exported(text, f"{len(text)}.json", "json").read_text("utf-8")) == text
        assert pickle.loads(exported(text, f"{len(text)}.pkl").read_bytes()) == text
    for data in (b"\xff" * 100_000, bytearray(b"short")):
        assert exported(data, f"{len(data)}.dat").read_bytes() == data
    raw = store.put_bytes(b"anything")
    for name in ("raw.parquet", "raw.pkl", "raw"):
        store.export(raw, tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"anything"
    assert exported("text", "as", "text").read_text() == "text"


def endless():
    found = []
    found.append(found)
    return found


@pytest.mark.parametrize(("obj", "name", "why"), [
    ({"a": 1}, "x.npy", "no array.*What fits: json or pickle"), (LARGE, "x.safetensors", "What fits: npy or pickle"),
    ({"a": LARGE, "b": 1}, "x.npz", "'b' is no array"), ({"a": LARGE, "b": {"c": 1}}, "x.safetensors", "--part b"),
    (np.array([None]), "x.npy", "objects.*What fits: pickle"), (np.zeros(3, ml_dtypes.bfloat16), "x.npy", "bfloat16"),
    (endless(), "x.json", "without end"), ([1, {2}], "x.json", r"obj\[1\] is a set"), ({"a": [float("nan")]}, "x.json", "What fits"), ({1: 2}, "x.json", "no text"),
    ("\ud800", "x.txt", "UTF-8"), (frame(), "x.npy", "What fits: parquet or csv or pickle"), ([1], "x.parquet", "no table"),
    (pd.DataFrame({"a": [1, "x", [2]]}), "x.parquet", "Arrow"), (LARGE, "x.csv", "no table"), (LARGE, "x.txt", "no text"),
    ({"a": np.zeros(1, "c16")}, "x.safetensors", "complex128"), (LARGE, "x.bin", "no bytes"), (Model(), "x.safetensors", "state_dict"),
])  # fmt: skip
def test_what_does_not_fit_is_told_with_what_would(exported, tmp_path, obj, name, why):
    with pytest.raises(NotSerializable, match=why):
        exported(obj, name)
    assert not list(tmp_path.iterdir())


def test_what_nothing_says(store, exported, tmp_path):
    with pytest.raises(WrongArgument, match="format='npy'"):
        exported(LARGE, "a")
    with pytest.raises(WrongArgument, match="format='parquet'"):
        exported(frame(), "a.gz")
    with pytest.raises(InvalidKey, match="One of pickle"):
        exported(LARGE, "a", "excel")
    with pytest.raises(NotSerializable, match="stored as bytes"):
        store.export(store.put_bytes(b"x"), tmp_path / "a", "pickle")
    with pytest.raises(NotFound):
        store.export("models/nobody", tmp_path / "a.pkl")
    with pytest.raises(FileNotFoundError):
        exported(LARGE, "nowhere/a.npy")
    for place in ("ftp://host/a.npy", "gs://bucket", Path("s3://bucket/a.npy"), "s3://bucket"):
        with pytest.raises(InvalidKey):
            store.export(store.put(LARGE), place)
    with pytest.raises(WrongArgument, match="safetensors alone"):
        exported(LARGE, "a.npy", metadata={})
    with pytest.raises(WrongArgument, match="has its own"):
        exported(store.view(store.put(LARGE)), "a.npy", safe=True)
    with pytest.raises(InvalidKey, match="name of a file"):
        store.export(store.put(LARGE), f"{tmp_path}/a/", "npy")
    assert not list(tmp_path.iterdir())


def test_a_tree_is_no_file(store, tmp_path):
    (tmp_path / "tree").mkdir()
    with pytest.raises(Unsupported, match="this is a tree"):
        store.export(store.put_tree(tmp_path / "tree"), tmp_path / "a.bin")


def test_a_file_may_be_called_as_urls_begin(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in SCHEMES:
        store.export(store.put(LARGE), name, "npy")
        assert (np.load(tmp_path / name) == LARGE).all()


def test_files_are_replaced_only_if_told(exported, tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    path.write_text("mine")
    with pytest.raises(Refused, match="overwrite=True"):
        exported(LARGE, "a.npy")
    assert path.read_text() == "mine"
    exported(LARGE, "a.npy", overwrite=True)
    path.unlink()
    with monkeypatch.context() as patch:
        link = os.link
        patch.setattr("os.link", lambda old, new: path.write_text("theirs") and link(old, new))  # meanwhile
        with pytest.raises(Refused, match="by now"):
            exported(LARGE, "a.npy")
    assert path.read_text() == "theirs" and os.listdir(tmp_path) == ["a.npy"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_file_is_never_replaced(store, tmp_path, overwrite):
    key = store.put(LARGE)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "null").symlink_to("/dev/null")
    with open(tmp_path / "out", "wb") as out:
        for place in (tmp_path / "fifo", tmp_path / "null", f"/dev/fd/{out.fileno()}", f"/proc/self/fd/{out.fileno()}"):
            with pytest.raises(Unsupported, match="no regular file"):
                store.export(key, place, "npy", overwrite=overwrite)
    with pytest.raises(IsADirectoryError):
        store.export(key, tmp_path, "npy", overwrite=overwrite)
    assert {*os.listdir(tmp_path)} == {"fifo", "null", "out"} and os.readlink(tmp_path / "null") == "/dev/null"


def test_a_link_is_replaced_and_not_what_it_leads_to(exported, tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    for name, target in (("a.npy", "theirs"), ("b.npy", "nothing")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(Refused):
            exported(LARGE, name)
        assert not exported(LARGE, name, overwrite=True).is_symlink()
    assert (tmp_path / "theirs").read_text() == "theirs" and not (tmp_path / "nothing").exists()


def test_what_fails_leaves_nothing(exported, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mfstore.exporting.arrays.write", full)
    with pytest.raises(OutOfSpace, match="Free space"):
        exported(LARGE, "a.npy")
    assert not list(tmp_path.iterdir())


def test_who_has_no_mfstore_reads_all_of_it(store, tmp_path):
    """In a Python that finds nothing of it, and numpy."""
    store.export(store.put({"w": LARGE, "name": "x"}), tmp_path / "a.pkl")
    script = (
        "import sys, pickle; sys.modules['mfstore'] = None\n"
        "found = pickle.load(open(sys.argv[1], 'rb'))\nprint(found['w'].sum(), found['name'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.pkl"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(LARGE.sum()), "x"]


@pytest.fixture
def command(root):
    def call(*arguments, code=0, **env):
        done = command_line.mfstore(*arguments, code=code, env={"MFSTORE_STORE": root, **env})
        return done.stdout if code == 0 else done.stderr

    return call


def test_a_model_by_the_command(command, tmp_path):
    save_file({"w": LARGE}, tmp_path / "model.safetensors")
    key = command("put", "--safetensors", "--ref", "models/a", str(tmp_path / "model.safetensors")).strip()
    assert "needs files" in command("put", "--safetensors", "-", code=2)
    command("export", key, str(tmp_path / "out.safetensors"))
    assert (tmp_path / "out.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_the_command(command, root, tmp_path):
    store = mfstore.open(root)
    store.save({"params": {"w": LARGE, "list": [np.arange(3), "text"]}, "rows": frame()}, "runs/1")
    path = tmp_path / "w.npy"
    assert command("export", "runs/1", str(path), "--part", "params", "--part", "w") == f"{path}\n"
    assert (np.load(path) == LARGE).all()
    assert "overwrite" in command("export", "runs/1", str(path), "--part", "params", "--part", "w", code=1)
    told = json.loads(
        command(
            "export", "--json", "runs/1", str(tmp_path / "t.txt"), "--part", "params", "--part", "list", "--part", "1"
        )
    )
    assert told == {"key": store.resolve("runs/1"), "path": str(tmp_path / "t.txt")}
    assert "mfstore get" in command("export", "runs/1", "-", code=2)
    assert "is data within" in command("export", "runs/1", str(path), "--part", "rows", "--part", "a", code=2)
    assert "no part 'x'" in command("export", "runs/1", str(path), "--part", "x", code=1)
    assert "store.export('runs/1', 's3://BUCKET/exports/1.pkl')" in command("presign", "runs/1", code=1)


@pytest.mark.server
def test_s3(radosgw, store, monkeypatch):
    url = f"s3://{radosgw.create_bucket(f'export-{uuid.uuid4().hex[:16]}')}"
    remote = mfstore.open(f"{url}/store", **client_options(radosgw))
    key = remote.put(LARGE)
    place = remote.export(key, f"{url}/exports/a.npy")
    assert place == f"{url}/exports/a.npy"
    with remote.backend.client.beside(url[5:], 1 << 20) as client:
        (found,) = client.get_many([place])
        assert np.load(BytesIO(found.data)).sum() == LARGE.sum()
        with pytest.raises(Refused, match="such an object"):
            remote.export(key, place)
        remote.export(remote.put(b"other"), place, overwrite=True)
        assert next(iter(client.get_many([place]))).data == b"other"
        with pytest.raises(NotSerializable):
            remote.export(key, f"{url}/exports/b.parquet")
        with pytest.raises(MfstoreError, match="name of an object"):
            remote.export(key, f"{url}/exports/")
        assert [entry.key for entry in client.list("exports/")] == ["exports/a.npy"]
        for name, value in (
            ("AWS_ENDPOINT_URL_S3", radosgw.url), ("AWS_ACCESS_KEY_ID", radosgw.access_key),
            ("AWS_SECRET_ACCESS_KEY", radosgw.secret_key), ("AWS_REGION", radosgw.region),
        ):  # fmt: skip
            monkeypatch.setenv(name, value)
        elsewhere = store.export(store.put(b"from a store that is not in S3"), f"{url}/exports/c")
        assert next(iter(client.get_many([elsewhere]))).data == b"from a store that is not in S3"
