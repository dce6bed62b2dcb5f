"""Tensors of torch: what tensors share is written once, from where it lies, and every type comes back."""

import copyreg
import pickle

import pytest

import mfstore
from mfstore.pickling.streams import dump
from tests.rigs.pickles import dumps

torch = pytest.importorskip("torch")  # 200 MB and more: in no extra
LATER = [
    getattr(torch, name)
    for name in ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2")
    if hasattr(torch, name)
]
"""Types that torch has no typed storages of."""


class Segments:
    """A sink that notes where each payload lies."""

    def __init__(self):
        self.addresses, self.bytes = [], 0

    def body(self, block):
        pass

    def payload(self, kind, data, itemsize, row, at):
        self.addresses.append(data.__array_interface__["data"][0])
        self.bytes += data.nbytes


class Noted(torch.Tensor):
    pass


def test_tensors_come_back(tmp_path):
    shared = mfstore.open(tmp_path)
    weights = torch.arange(200_000, dtype=torch.float32).reshape(400, 500)
    half = weights.to(torch.bfloat16)
    state = {
        "w": weights,
        "t": weights.T,
        "v": weights[3],
        "h": half,
        "e": torch.empty(0),
        "p": torch.nn.Parameter(weights),
    }
    key = shared.put(state)
    back = shared.get(key)
    for name, tensor in state.items():
        assert type(back[name]) is type(tensor)
        assert torch.equal(back[name], tensor)
    assert back["v"].data_ptr() == back["w"][3].data_ptr()
    back["w"][0, 0] = 5
    assert shared.put({name: tensor.clone() for name, tensor in state.items()}) == shared.put(
        {name: tensor.clone() for name, tensor in state.items()}
    )


def raw(tensor):
    return bytes(tensor.contiguous().untyped_storage())


@pytest.mark.parametrize("dtype", LATER, ids=str)
@pytest.mark.parametrize("form", ["plain", "parameter", "attribute", "subclass", "view"])
def test_types_without_a_typed_storage(dtype, form):
    tensor = torch.arange(100).to(torch.uint8).repeat(8).view(dtype)
    if form == "parameter":
        tensor = torch.nn.Parameter(tensor, requires_grad=False)
    if form == "attribute":
        tensor.note = "a note"
    if form == "subclass":
        tensor = tensor.as_subclass(Noted)
    if form == "view":
        tensor = tensor[3:50]
    back = pickle.loads(dumps(tensor))
    assert (type(back), back.dtype, back.shape) == (type(tensor), dtype, tensor.shape)
    assert raw(back.clone()) == raw(tensor.clone())
    assert getattr(back, "note", None) == getattr(tensor, "note", None)


def test_a_storage_that_tensors_of_all_types_share():
    held = torch.arange(1000)
    views = [held, held.view(LATER[0]), held[500:], held.view(torch.float64), held.untyped_storage()]
    *back, storage = pickle.loads(dumps(views))
    assert {part.untyped_storage().data_ptr() for part in back} == {storage.data_ptr()}
    assert type(storage) is torch.UntypedStorage


def test_of_views_the_storage_is_written_once_from_where_it_lies():
    held = torch.zeros(1 << 20)
    sink = Segments()
    dump([held[::2], held.view(torch.bfloat16), held.reshape(1024, -1).t(), held[:10], held.numpy()[5:]], sink)
    assert sink.addresses == [held.data_ptr(), held.data_ptr() + 20]
    assert sink.bytes == 2 * held.nbytes - 20


SHAPES = {
    "coo": lambda: torch.eye(20).to_sparse(),
    "csr": lambda: torch.eye(20).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.arange(100.0), 0.5, 0, torch.qint8),
    "conjugate": lambda: torch.view_as_complex(torch.arange(100.0).reshape(-1, 2)).conj(),
    "expanded": lambda: torch.ones(1).expand(1000),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.filterwarnings("ignore")  # torch says of some that they are to go
def test_other_tensors(shape):
    tensor = SHAPES[shape]()
    back = pickle.loads(dumps(tensor))
    one, other = (part.to_dense() if part.layout != torch.strided else part for part in (tensor, back))
    assert torch.equal(one, other)
    assert back.stride() == tensor.stride() if tensor.layout == torch.strided else back.layout == tensor.layout
    assert dumps(back) == dumps(tensor)


def test_a_class_with_a_reducer_of_its_own_is_asked(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, Noted, lambda tensor: (len, (["registered"] * 3,)))
    assert pickle.loads(dumps(torch.ones(3).as_subclass(Noted))) == 3
