"""Tensors in and out: what the package and torch write and read, and what of it is stored."""

import json
import os
import struct
import subprocess
import sys
import uuid
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

import mfstore
from mfstore.errors import Conflict, CorruptObject, NotSerializable, Refused, Unsupported, WrongArgument
from mfstore.safetensors.files import ArrayInFile
from tests.rigs.damage import wrapped
from tests.rigs.parts import CountingBackend
from tests.servers.base import client_options
from tests.views.test_views import FarAway

RANDOM = np.random.default_rng(0)
MODEL = {
    "layer.weight": RANDOM.random((500, 300)).astype("f4"),
    "layer.bias": RANDOM.random(500),
    "half": RANDOM.random((300, 400)).astype(ml_dtypes.bfloat16),
    "tiny": np.arange(10).astype(ml_dtypes.float8_e4m3fn), "scale": np.arange(4).astype(ml_dtypes.float8_e8m0fnu),
    "scalar": np.array(3, "f2"), "none": np.zeros((0, 4), "i8"), "mask": np.array([True, False, True]),
    "complex": np.arange(6).astype("c8").reshape(2, 3),
}  # fmt: skip


@pytest.fixture
def store():
    return mfstore.open("memory://")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(MODEL, path, metadata={"format": "pt"})
    return path


def same(found, expected=MODEL):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("safe", [False, True])
def test_a_file_is_a_dict_of_arrays_and_the_same_file_again(store, file, tmp_path, safe):
    key = store.put_safetensors(file, "models/a")
    found = store.get(key, safe=safe)
    same(found)
    assert type(found) is OrderedDict and found.metadata == {"format": "pt"} and not hasattr(found, "header")
    found["layer.bias"] += 1  # it is the caller's
    out = tmp_path / "out.safetensors"
    assert store.export("models/a", out, safe=safe) == str(out)
    assert out.read_bytes() == file.read_bytes()


def test_a_dict_is_stored_as_its_file_is(store, file, tmp_path):
    key = store.put_safetensors(file)
    assert store.put_safetensors(dict(reversed(MODEL.items())), metadata={"format": "pt"}) == key
    assert store.put_safetensors(MODEL) != key
    turned = {
        "f": np.asfortranarray(MODEL["layer.weight"]),
        "big": np.arange(5, dtype=">i4"),
        "part": np.arange(10)[::2],
    }
    out = tmp_path / "turned.safetensors"
    store.export(store.put_safetensors(turned), out)
    same(load_file(out), {"f": MODEL["layer.weight"], "big": np.arange(5, dtype="i4"), "part": np.arange(0, 10, 2)})


def test_what_was_put_as_a_dict_is_a_file_too(store, tmp_path):
    whole = {
        "f": np.asfortranarray(MODEL["layer.weight"]),
        "big": np.arange(50_000, dtype=">i4"),
        "half": MODEL["half"],
    }
    out = tmp_path / "a.safetensors"
    store.export(store.put(whole), out, metadata={"a": "b"})
    with safetensors.safe_open(out, "np") as opened:
        assert opened.metadata() == {"a": "b"}
    read = plain_reader(out)
    assert read["f"].tobytes() == MODEL["layer.weight"].tobytes() and read["half"].tobytes() == MODEL["half"].tobytes()
    assert read["big"].tobytes() == np.arange(50_000, dtype="<i4").tobytes()
    store.export(store.save({"x": np.arange(3), "y": np.ones(2)}), tmp_path / "b.safetensors")
    same(load_file(tmp_path / "b.safetensors"), {"x": np.arange(3), "y": np.ones(2)})


def plain_reader(path):
    """As somebody reads it who has neither mfstore nor safetensors nor pickle."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    return {name: np.frombuffer(data[slice(*one["data_offsets"])], np.uint8) for name, one in header.items()}


def odd(tmp_path):
    """A file that the package reads and would not write so."""
    data = np.arange(6, dtype="f4").tobytes() + b"ab"
    header = (
        b'{ "z": {"dtype":"F32", "shape":[2,3], "data_offsets":[0,24]}, "__metadata__": {"b":"1","a":"2"},\n'
        b' "a": {"shape":[2], "dtype":"U8", "data_offsets":[24,26], "more": 1} }\n'
    )
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def test_a_file_that_is_laid_out_otherwise_is_the_same_again(store, tmp_path):
    path = odd(tmp_path)
    key = store.put_safetensors(path)
    found = store.get(key, safe=True)
    same(found, {"z": np.arange(6, dtype="f4").reshape(2, 3), "a": np.array([97, 98], "u1")})
    store.export(key, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == path.read_bytes()
    found["a"] = np.zeros(3, "u1")  # others than the header says: it is that of another file
    store.export(store.put(found), tmp_path / "changed.safetensors")
    same(load_file(tmp_path / "changed.safetensors"), dict(found))
    store.export(key, tmp_path / "said.safetensors", metadata={})
    same(load_file(tmp_path / "said.safetensors"), {"z": found["z"], "a": np.array([97, 98], "u1")})


def sharded(directory, places=None):
    """A model in two files, as the Hub has them."""
    directory.mkdir()
    files = {
        "model-00001-of-00002.safetensors": ["layer.weight", "half"],
        "model-00002-of-00002.safetensors": ["mask", "layer.bias"],
    }
    for file, names in files.items():
        save_file({name: MODEL[name] for name in names}, directory / file, metadata={"format": "pt"})
    places = places or {name: file for file, names in files.items() for name in names}
    path = directory / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}, indent=2))
    return path


def test_a_model_in_several_files(store, tmp_path):
    path = sharded(tmp_path / "model")
    key = store.put_safetensors(path)
    expected = {name: MODEL[name] for name in ("layer.weight", "half", "mask", "layer.bias")}
    found = store.get(key, safe=True)
    same(found, expected)
    assert found.metadata == {"format": "pt"}
    out = tmp_path / "out"
    out.mkdir()
    store.export(key, out / path.name)
    assert sorted(one.name for one in out.iterdir()) == sorted(one.name for one in path.parent.iterdir())
    assert all(one.read_bytes() == (path.parent / one.name).read_bytes() for one in out.iterdir())
    (out / "model-00001-of-00002.safetensors").unlink()
    (out / path.name).unlink()
    with pytest.raises(Refused):
        store.export(key, out / path.name)
    assert [one.name for one in out.iterdir()] == ["model-00002-of-00002.safetensors"]
    store.export(key, tmp_path / "one.safetensors")
    read = plain_reader(tmp_path / "one.safetensors")
    assert {name: read[name].tobytes() for name in expected} == {name: one.tobytes() for name, one in expected.items()}
    with pytest.raises(NotSerializable, match="Export it as one"):
        store.export(store.put_safetensors(expected), tmp_path / path.name)


@pytest.mark.parametrize(("change", "why"), [
    ({"layer.weight": "../model.safetensors"}, "no file beside"), ({"layer.weight": "/etc/x.safetensors"}, "no file beside"),
    ({"layer.weight": ".safetensors"}, "no file beside"), ({"layer.weight": 1}, "no file beside"),
    ({"mask": "model-00001-of-00002.safetensors"}, "do not agree"), ({"nobody": "model-00001-of-00002.safetensors"}, "do not agree"),
], ids=str)  # fmt: skip
def test_an_index_that_lies(store, tmp_path, change, why):
    path = sharded(tmp_path / "model")
    places = json.loads(path.read_text())["weight_map"] | change
    path.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(CorruptObject, match=why):
        store.put_safetensors(path)
    made = OrderedDict((name, np.zeros(1)) for name in places)
    made.metadata, made.index, made.shards = {}, path.read_bytes(), {}
    if why == "no file beside":
        with pytest.raises(CorruptObject, match=why):
            store.export(store.put(made), tmp_path / path.name)
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_versions_share_the_tensors_that_they_have(file):
    backend = CountingBackend()
    store = wrapped(backend)
    store.put_safetensors(file)
    before = store.stats().stored
    tuned = {**MODEL, "layer.bias": MODEL["layer.bias"] + 1}
    store.put_safetensors(tuned, metadata={"format": "pt"})
    assert store.stats().stored - before < MODEL["layer.bias"].nbytes + 5000


def test_one_tensor_far_away_takes_two_requests_and_rows_of_it_their_bytes():
    backend = FarAway()
    model = {f"layer{number}": RANDOM.random((2000, 500)).astype("f4") for number in range(4)}
    key = wrapped(backend).put_safetensors(model)
    store = wrapped(backend)
    store.exists(key)  # the store's description is known
    for index, most in ((slice(None), 1.1), (slice(100, 120), 0.2)):
        backend.reads.clear()
        found = store.view(key)["layer2"][index]
        np.testing.assert_array_equal(found, model["layer2"][index])
        assert len(backend.reads) == 2
        assert sum(length for _, _, length in backend.reads) <= most * model["layer2"].nbytes


@pytest.mark.server
@pytest.mark.usefixtures("unhedged")
def test_rows_of_a_tensor_in_s3_take_two_requests_and_an_export_few(radosgw, tmp_path):
    url = f"s3://{radosgw.create_bucket(f'tensors-{uuid.uuid4().hex[:16]}')}/store"
    model = {f"layer{number}": RANDOM.random((1500, 500)).astype("f4") for number in range(4)}
    key = mfstore.open(url, **client_options(radosgw)).put_safetensors(model, "models/a", metadata={"format": "pt"})
    for ask, most, nbytes in (
        (lambda store: store.view(key)["layer2"][100:120], 2, 600_000),
        (lambda store: store.export(key, tmp_path / "a.safetensors"), 4, 1.05 * 4 * model["layer0"].nbytes),
    ):
        store = mfstore.open(url, **client_options(radosgw))
        before = store.metrics().s3
        found = ask(store)
        after = store.metrics().s3
        assert sum(after.requests.values()) - sum(before.requests.values()) <= most
        assert after.received - before.received <= nbytes
    save_file(model, tmp_path / "b.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert found.endswith("a.safetensors")


def test_an_export_far_away_reads_many_tensors_together(tmp_path):
    backend = FarAway()
    model = {f"layer{number}": RANDOM.random((100, 500)).astype("f4") for number in range(40)}
    key = wrapped(backend).put_safetensors(model)
    store = wrapped(backend)
    store.exists(key)
    backend.reads.clear()
    store.export(key, tmp_path / "a.safetensors")
    same(load_file(tmp_path / "a.safetensors"), model)
    assert len(backend.reads) <= 4


@pytest.mark.parametrize("given", [3, [1], "x.safetensors", {"a": [1]}, {1: np.zeros(1)}, {"__metadata__": np.zeros(1)},
                                   {"a": np.array(["x"])}, {"a": np.array([None])}, {"a": np.zeros(1, "c16")},
                                   {"a": np.ma.array([1.0, 2], mask=[0, 1])}, {"\ud800": np.zeros(1)}], ids=ascii)  # fmt: skip
def test_what_is_no_tensors(store, given):
    with pytest.raises((WrongArgument, NotSerializable, FileNotFoundError)):
        store.put_safetensors(given)
    assert not list(store.keys())


def test_subclasses_are_the_arrays_that_they_are(store, tmp_path):
    mapped = np.memmap(tmp_path / "a", "f4", "w+", shape=(3, 2))
    given = {"m": mapped, "x": np.asfortranarray(np.arange(6.0).reshape(2, 3)).view(np.matrix)}
    key = store.put_safetensors(given)
    assert key == store.put_safetensors({name: np.array(one) for name, one in given.items()})
    store.export(key, tmp_path / "a.safetensors")
    same(load_file(tmp_path / "a.safetensors"), {name: np.ascontiguousarray(one) for name, one in given.items()})


def test_a_file_without_tensors_is_that_file_again(store, tmp_path):
    save_file({}, tmp_path / "a.safetensors", metadata={"format": "pt"})
    store.export(store.put_safetensors(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


@pytest.mark.parametrize("change", ["cut off", "written", "replaced"])
def test_a_file_that_changes_while_it_is_stored_is_an_error(store, tmp_path, change, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_file({"a": MODEL["layer.weight"], "b": MODEL["half"]}, path)
    read = ArrayInFile.read

    def meanwhile(array, start, end):
        if change == "cut off":
            os.truncate(path, 5000)
        elif change == "written":
            os.utime(path, ns=(1, 1))
        else:
            (tmp_path / "other").write_bytes(path.read_bytes())
            (tmp_path / "other").replace(path)
        return read(array, start, end)

    monkeypatch.setattr(ArrayInFile, "read", meanwhile)
    with pytest.raises(Conflict, match="has changed"):
        store.put_safetensors(path, "models/a")
    assert not list(store.keys()) and not list(store.refs)


def test_pipes_and_devices_are_no_models(store, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(Unsupported, match="regular file"):
            store.put_safetensors(path)


def test_files_that_are_none(store, tmp_path, file):
    path = tmp_path / "broken.safetensors"
    for content in (b"", b"PK\3\4" * 100, file.read_bytes()[:-1], file.read_bytes() + b"x"):
        path.write_bytes(content)
        with pytest.raises(CorruptObject, match="no safetensors file"):
            store.put_safetensors(path)
    header = b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"x")
    with pytest.raises(Unsupported, match="several elements lie in a byte"):
        store.put_safetensors(path)
    with pytest.raises(WrongArgument, match="its own metadata"):
        store.put_safetensors(file, metadata={})
    for value in (1, "\ud800"):
        with pytest.raises(WrongArgument, match="metadata are texts"):
            store.put_safetensors(MODEL, metadata={"a": value})


def test_a_dict_whose_header_lies_is_a_file_all_the_same(store, tmp_path):
    """Whoever may write may store such a one: what is written is what the arrays are."""
    made = OrderedDict(a=np.arange(3, dtype="u1"))
    made.metadata = {"x": 1}
    made.header = b'{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,4]}}'
    for header in (made.header, b'{"b":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}', "text"):
        made.header = header
        store.export(store.put(made), tmp_path / "a.safetensors", overwrite=True)
        same(load_file(tmp_path / "a.safetensors"), {"a": np.arange(3, dtype="u1")})


def test_safe_loading_takes_types_of_ml_dtypes_alone(store):
    from mfstore.pickling.safe.arrays import _OF_ML_DTYPES

    for name in _OF_ML_DTYPES:
        if hasattr(ml_dtypes, name):
            array = np.arange(2).astype(getattr(ml_dtypes, name))
            assert store.get(store.put(array), safe=True).dtype == array.dtype
    made = OrderedDict()
    made.move_to_end = 1
    with pytest.raises(CorruptObject, match="a method"):
        store.get(store.put(made), safe=True)


def test_a_model_of_torch_is_read_by_who_has_no_torch(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load_torch

    store = mfstore.open(tmp_path / "store")
    state = torch.nn.Linear(300, 200).to(torch.bfloat16).state_dict()
    state |= {
        "turned": torch.arange(6000).reshape(60, 100).T,
        "tied": state["weight"],
        "f8": torch.ones(3).to(torch.float8_e5m2),
    }
    keys = [store.put(state), store.put_safetensors(state)]
    files = [tmp_path / "put.safetensors", tmp_path / "tensors.safetensors"]
    for key, path in zip(keys, files, strict=True):
        store.export(key, path)
        found = load_torch(path)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name].float(), tensor.float()) for name, tensor in state.items())
        assert all(found[name].dtype == tensor.dtype for name, tensor in state.items())
        assert plain_reader(path)["weight"].tobytes() == state["weight"].view(torch.int16).numpy().tobytes()
    for odd in (torch.zeros(3, device="meta"), torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
                torch.eye(3).to_sparse()):  # fmt: skip
        with pytest.raises(NotSerializable, match="no tensor like 'a'"):
            store.put_safetensors({"a": odd})
    del state["turned"]  # which takes torch to be turned
    without = (
        "import sys; sys.modules['torch'] = None\nimport mfstore\n"
        "mfstore.open(sys.argv[1]).export(sys.argv[2], sys.argv[3])"
    )
    out = tmp_path / "without.safetensors"
    subprocess.run([sys.executable, "-c", without, store.url, store.put(state), out], check=True)
    assert plain_reader(out)["tied"].tobytes() == plain_reader(files[0])["tied"].tobytes()
