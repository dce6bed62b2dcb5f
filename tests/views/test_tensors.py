"""Parts of what torch makes: the same as the parts of all of it, with only their bytes read."""

import numpy as np
import pytest

from tests.rigs.damage import wrapped
from tests.rigs.parts import CountingBackend

torch = pytest.importorskip("torch")  # 200 MB and more: in no extra


@pytest.fixture
def store():
    return wrapped(CountingBackend())


@pytest.fixture
def view(store):
    return lambda obj: store.view(store.put(obj))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(1000, 64)
        self.out = torch.nn.Linear(64, 1000)
        self.out.weight = self.embed.weight
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.BatchNorm1d(256))


class Noted(torch.Tensor):
    pass


def noise(*shape):
    return torch.from_numpy(np.random.default_rng(1).random(shape, dtype="f4"))


def attribute(tensor, **attributes):
    for name, value in attributes.items():
        setattr(tensor, name, value)
    return tensor


def same(one, other):
    if one.is_quantized:
        one, other = one.dequantize(), other.dequantize()
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    return one.dtype == other.dtype and torch.equal(*(part.detach().contiguous().view(-1) for part in (one, other)))


def bytes_read(store, work):
    store.backend.reads.clear()
    found = work()
    return found, sum(length for _, _, length in store.backend.reads)


KINDS = {
    "plain": lambda w: w,
    "slice": lambda w: w[100:300],
    "transposed": lambda w: w.T,
    "columns": lambda w: w[:, 20:90],
    "every second": lambda w: w[::2, ::3],
    "expanded": lambda w: w[:1].expand(300, 100),
    "parameter": torch.nn.Parameter,
    "parameter with attributes": lambda w: attribute(torch.nn.Parameter(w), tag=1),
    "attributes": lambda w: attribute(w.clone(), note="x"),
    "subclass": lambda w: w.as_subclass(Noted),
    "bfloat16": lambda w: w.to(torch.bfloat16),
    "float8": lambda w: w.to(torch.float8_e4m3fn),
    "uint16": lambda w: (w * 1000).to(torch.uint16),
    "complex": lambda w: torch.complex(w, w),
    "conjugate": lambda w: torch.complex(w, w).conj(),
    "quantised": lambda w: torch.quantize_per_tensor(w, 0.1, 3, torch.qint8),
    "quantised by column": lambda w: torch.quantize_per_channel(
        w, torch.full((100,), 0.1), torch.arange(100), 1, torch.quint8
    ),
    "quantised by row": lambda w: torch.quantize_per_channel(
        w, torch.full((400,), 0.1), torch.arange(400) % 9, 0, torch.quint8
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")  # torch says of some that they are to go
def test_rows_of_a_tensor(view, kind):
    whole = KINDS[kind](noise(400, 100))
    found = view({"w": whole, "other": 1})["w"]
    assert (found.kind, found.shape, found.dtype) == ("array", tuple(whole.shape), whole.dtype)
    assert found.nbytes == whole.numel() * whole.element_size() and len(found) == len(whole)
    for rows in (slice(3, 7), slice(-9, -2), slice(5, 5), slice(None, None, 50)):
        if kind == "quantised by row" and rows.start == rows.stop:
            continue  # torch makes none of these itself
        assert found[rows].shape == whole[rows].shape and same(found[rows], whole[rows])
    assert found[-1].shape == whole[-1].shape and same(found[-1], whole[-1])
    loaded = found.load()
    assert type(loaded) is type(whole) and loaded.stride() == whole.stride() and same(loaded, whole)
    assert loaded.__dict__ == whole.__dict__


def test_of_a_tensor_only_its_rows_are_read(store):
    whole = noise(20_000, 100)
    key = store.put({
        "w": torch.nn.Parameter(whole), "half": whole.half(), "columns": whole[:, :4], "flat": whole.view(-1)[:50_000],
        "float8": whole.to(torch.float8_e5m2), "none": whole[7:7],
    })  # fmt: skip
    found = store.view(key)
    assert found.keys()
    for name in ("w", "half", "columns", "float8"):
        rows, read = bytes_read(store, lambda name=name: found[name][10_000:10_100])
        assert len(rows) == 100 and 0 < read < 400_000
    part, read = bytes_read(store, found["flat"].load)  # of the 8 MB of its storage
    assert torch.equal(part, whole.view(-1)[:50_000]) and 0 < read < 600_000
    assert len(part.untyped_storage()) == 200_000
    none, read = bytes_read(store, found["none"].load)
    assert none.shape == (0, 100)


def test_one_tensor_of_a_state_dict_is_read_alone(store):
    net = Net()
    key = store.put({"model": net.state_dict(), "net": net, "epoch": 3})
    found = store.view(key)
    assert list(found["model"].keys()) == list(net.state_dict())
    assert found["net"].keys()[:3] == ["embed", "out", "layers"]
    for name, tensor in net.state_dict().items():
        assert torch.equal(found["model"][name].load(), tensor)
        part = found["net"]
        for step in name.split("."):
            part = part[step]
        loaded, read = bytes_read(store, part.load)
        above, _, last = name.rpartition(".")
        expected = getattr(net.get_submodule(above), last)
        assert type(loaded) is type(expected) and torch.equal(loaded, expected)
        assert read < tensor.nbytes + 140_000  # chunks of 64 KiB that it begins and ends in
    layers = found["net"]["layers"].load()
    assert type(layers) is torch.nn.Sequential and torch.equal(layers[0].weight, net.layers[0].weight)
    again = found["net"].load()
    assert again.out.weight is again.embed.weight and found["net"].nbytes == found["model"].nbytes


LAYOUTS = {
    "coo": lambda w: w.to_sparse(), "csr": lambda w: w.to_sparse_csr(), "csc": lambda w: w.to_sparse_csc(),
    "bsr": lambda w: w.to_sparse_bsr((2, 2)), "bsc": lambda w: w.to_sparse_bsc((2, 2)),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore")
def test_sparse_tensors(view, layout):
    whole = LAYOUTS[layout](noise(40, 60) * (noise(40, 60) > 0.8))
    found = view({"s": whole})["s"]
    assert (found.kind, found.shape, found.dtype, found.type) == ("array", (40, 60), torch.float32, "torch.Tensor")
    assert found.load().layout == whole.layout and same(found.load(), whole)
    if layout in ("coo", "csr"):  # torch takes rows of these alone
        assert same(found[5], whole[5])
