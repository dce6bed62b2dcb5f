"""Tensors of torch compared: told as torch itself finds it, with only what differs read."""

import copy

import numpy as np
import pytest

from mfstore.comparing.report import ADDED, CHANGED
from tests.comparing.test_diff import told, values
from tests.rigs.damage import wrapped
from tests.rigs.parts import CountingBackend

torch = pytest.importorskip("torch")  # 200 MB and more: in no extra

ROWS, COLUMNS = 400, 60


@pytest.fixture
def store():
    return wrapped(CountingBackend())


@pytest.fixture
def diff(store):
    return lambda old, new: store.diff(store.put(old), store.put(new))


def changed(tensor):
    """A copy with other numbers in three places of two rows."""
    made = tensor.clone()
    made[7, 3] = -3
    made[7, 5] = -5
    made[ROWS - 1, COLUMNS - 1] = -7
    return made


KINDS = {
    "plain": lambda w: w,
    "small": lambda w: w[:, :8][5:10],
    "slice": lambda w: w[5:300],
    "transposed": lambda w: w.T,
    "columns": lambda w: w[:, 2:9],
    "last columns": lambda w: w[:, 50:],
    "every second": lambda w: w[1::2, 1::2],
    "every second row": lambda w: w[1:].clone()[::2],  # the last one ends where its storage does
    "some of a flat one": lambda w: w[1:].reshape(-1).clone()[::11],
    "parts of rows of rows": lambda w: w[:399].clone().reshape(21, 19, 60)[:, :18],
    "reshaped": lambda w: w.reshape(20, 20, 6, 10),
    "channels last": lambda w: w.reshape(20, 20, 6, 10).to(memory_format=torch.channels_last),
    "flat": lambda w: w.view(-1)[100:],
    "parameter": torch.nn.Parameter,
    "attributes": lambda w: setattr(w, "note", "x") or w,
    "bfloat16": lambda w: w.to(torch.bfloat16),
    "float8": lambda w: w.to(torch.float8_e4m3fn),
    "float8 of range": lambda w: w.to(torch.float8_e5m2),
    "uint16": lambda w: (w + 10).to(torch.uint16),
    "int64": lambda w: w.long(),
    "bool": lambda w: w > 0,
    "complex": lambda w: torch.complex(w, w),
    "quantised": lambda w: torch.quantize_per_tensor(w, 0.5, 3, torch.qint8),
}


def base():
    return torch.arange(1.0, ROWS * COLUMNS + 1).reshape(ROWS, COLUMNS) % 100 + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")  # torch says of some that they are to go
def test_rows_that_changed_are_counted(diff, kind):
    old, new = (KINDS[kind](whole.clone()) for whole in (base(), changed(base())))
    (found,) = diff({"w": old, "same": 1}, {"w": new, "same": 1})
    ours, theirs = ((one.int_repr() if one.is_quantized else one).detach() for one in (old, new))
    if "float8" in kind or kind == "uint16":
        ours, theirs = ours.float(), theirs.float()
    differ = (ours != theirs).reshape(len(ours), -1)
    assert (found.where, found.change, found.rows) == ("w", CHANGED, int(differ.any(1).sum()))
    assert found.nbytes == int(differ.sum()) * old.element_size()
    assert found.old.dtype == str(old.dtype) and found.old.shape == tuple(old.shape)


def test_order_and_zeros_and_what_is_not_a_number_are_no_difference(diff):
    whole = base()
    assert not diff(whole, whole.T.contiguous().T) and not diff(whole, torch.cat([whole, whole])[ROWS:])
    assert not diff(whole[:, 5], whole[:, 5].clone()) and not diff(whole[3:3], whole[4:4])
    odd = torch.tensor([0.0, -0.0, float("nan"), -float("nan"), 1.0, float("inf")] * 10)
    other = torch.tensor([-0.0, 0.0, -float("nan"), float("nan"), 1.0, -float("inf")] * 10)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2):
        (found,) = diff(odd.to(dtype), other.to(dtype))
        assert found.rows == 10, dtype
    assert not diff(odd[:5].to(torch.float8_e4m3fn), other[:5].to(torch.float8_e4m3fn))


@pytest.mark.filterwarnings("ignore")
def test_what_elements_mean_is_a_difference(diff):
    whole = base()
    halves, quarters = (torch.quantize_per_tensor(whole, scale, 0, torch.qint8) for scale in (0.5, 0.25))
    number = torch.complex(whole, whole)
    for old, new in ((halves, quarters), (number, number.conj())):
        assert told(diff(old, new)) == {".": (CHANGED, None)}
    frozen = torch.nn.Parameter(whole, requires_grad=False)
    assert values(diff(torch.nn.Parameter(whole), frozen)) == {"(requires_grad)": ("True", "False")}
    assert values(diff(whole, whole.clone().requires_grad_())) == {"(requires_grad)": ("False", "True")}
    noted = [setattr(one, "note", note) or one for note in "ab" for one in [whole.clone()]]
    assert values(diff(*noted)) == {"note": ("'a'", "'b'")}
    assert told(diff(whole, noted[0])) == {".": (CHANGED, None)}
    (found,) = diff(torch.nn.Parameter(whole), whole)
    assert found.texts == tuple(f"{kind} of torch.float32[400 x 60] 96.0 kB" for kind in ("Parameter", "Tensor"))


def test_rows_put_in_are_told_by_shapes(diff):
    whole = base()
    (found,) = diff(whole, torch.cat([whole[:7], -whole[:3], whole[7:]]))
    assert (found.rows, found.nbytes, found.new.shape) == (0, 3 * COLUMNS * 4, (ROWS + 3, COLUMNS))
    assert told(diff(whole, whole[:, :9])) == {".": (CHANGED, None)} == told(diff(whole, whole[:0]))
    assert told(diff(whole, whole.double())) == {".": (CHANGED, None)}


def test_numbers_are_told(diff):
    assert values(diff({"step": torch.tensor(1.0)}, {"step": torch.tensor(2.5)})) == {"step": ("1.0", "2.5")}
    found = diff(torch.tensor(0.1, dtype=torch.bfloat16), torch.tensor(7, dtype=torch.bfloat16))
    assert values(found) == {".": ("0.100097656", "7.0")}
    assert values(diff(torch.tensor(True), torch.tensor(False))) == {".": ("True", "False")}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(2000, 64)
        self.out = torch.nn.Linear(64, 2000)
        self.out.weight = self.embed.weight
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.BatchNorm1d(256))


def test_models_are_compared_tensor_by_tensor(store, diff):
    old = Net()
    new = copy.deepcopy(old)
    with torch.no_grad():
        new.embed.weight[7:9] += 1
        new.layers[1].running_mean[3] = 5
    expected = {"embed.weight": 2, "out.weight": 2, "layers.1.running_mean": 1}
    for model, path in ((lambda net: net, lambda name: name.replace(".", "/")), (Net.state_dict, str)):
        found = told(diff({"net": model(old)}, {"net": model(new)}))
        assert found == {f"net/{path(name)}": (CHANGED, rows) for name, rows in expected.items()}
    keys = [store.put({"net": net, "big": np.random.default_rng(0).random(500_000)}) for net in (old, new)]
    store.backend.reads.clear()
    assert len(store.diff(*keys)) == 3
    assert sum(length for _, _, length in store.backend.reads) < 1_200_000  # nothing of what is the same
    new.more = torch.nn.Linear(2, 2)
    assert told(diff(old, new))["more"] == (ADDED, None)
    untied = copy.deepcopy(old)
    untied.out.weight = torch.nn.Parameter(old.embed.weight.detach().clone())
    assert not diff(old.state_dict(), untied.state_dict())


def test_what_an_optimizer_holds(diff):
    states = []
    for rate in (0.1, 0.2):
        torch.manual_seed(0)
        layer = torch.nn.Linear(200, 200)
        optimizer = torch.optim.Adam(layer.parameters(), lr=rate)
        for _ in range(2 if rate == 0.2 else 1):
            optimizer.zero_grad()
            layer(torch.ones(1, 200)).sum().backward()
            optimizer.step()
        states.append(optimizer.state_dict())
    found = values(diff(*states))
    assert found["param_groups/0/lr"] == ("0.1", "0.2") and found["state/0/step"] == ("1.0", "2.0")
    assert {"state/0/exp_avg", "state/1/exp_avg_sq"} <= found.keys()


@pytest.mark.filterwarnings("ignore")
def test_sparse_tensors_are_compared_by_what_they_are_made_of(diff):
    whole = base() * (base() > 95)
    other = whole.clone()
    other[7, 3], kept = 50.0, whole[7, 3]
    assert kept == 0
    for layout, names in (
        ("to_sparse", ["(indices)", "(values)"]), ("to_sparse_csr", ["(crow_indices)", "(col_indices)", "(values)"]),
        ("to_sparse_csc", ["(ccol_indices)", "(row_indices)", "(values)"]),
    ):  # fmt: skip
        old, new = getattr(whole, layout)(), getattr(other, layout)()
        assert list(told(diff({"s": old}, {"s": new}))) == [f"s/{name}" for name in names]
        assert told(diff({"s": old}, {"s": old * 2})) == {"s/(values)": (CHANGED, len(old.values()))}
        assert told(diff(old, whole)) == {".": (CHANGED, None)}
    assert told(diff(whole.to_sparse(), whole[:9].to_sparse())) == {".": (CHANGED, None)}
    assert told(diff(whole.to_sparse_csr(), whole.to_sparse_csc())) == {".": (CHANGED, None)}
