"""A task of a foreach reads its item of the list, and the list only when it asks for it."""

import numpy as np
import pytest
from metaflow import FlowSpec
from metaflow.task import ForeachFrame

from mfstore.metaflow import process_state as process_state_module
from mfstore.metaflow.packed.store import packed_store
from mfstore.metaflow.process_state import forget_process_state
from tests.rigs.metaflow_stores import local_datastore, save

BYTES = 800_000
"""Of an item."""


class Broken:
    def __init__(self):
        self.text = "x"

    def __setstate__(self, state):
        raise RuntimeError("not here")


class Plain(FlowSpec):
    """Never run: Metaflow's own class, with a datastore given."""


@pytest.fixture
def flow_of(tmp_path, new_process, monkeypatch):
    """The flow in a task whose foreach goes over ``items``."""
    monkeypatch.setattr(process_state_module, "from_conf", {"MFSTORE_PROFILE": "packed"}.get)
    forget_process_state()
    rig = local_datastore(tmp_path)

    def make(items, index):
        save(rig.flow(), "1/a/7", {"items": items})
        flow = Plain(use_cli=False)
        flow._datastore = rig.flow().get_task_datastore("1", "a", "7")
        flow._foreach_stack = [ForeachFrame("a", "items", 5, index, "")]
        return flow, packed_store(rig.root).session

    return make


def arrays(count=5):
    random = np.random.default_rng(0)
    return [random.random(BYTES // 8) for _ in range(count)]


@pytest.mark.parametrize("kind", [list, tuple])
def test_only_the_item_is_loaded(flow_of, kind):
    items = kind({"number": number, "data": data} for number, data in enumerate(arrays()))
    flow, session = flow_of(items, 3)
    before = session.loaded
    assert flow.input["number"] == 3 and np.array_equal(flow.input["data"], items[3]["data"])
    assert BYTES <= session.loaded - before < 1.1 * BYTES
    assert flow.foreach_stack()[0][2] is flow.input
    assert "items" not in flow.__dict__
    assert len(flow.items) == 5 and session.loaded - before > 5 * BYTES


@pytest.mark.parametrize("items", [
    [np.ones(10), np.ones(5)], np.arange(1_000_000.0).reshape(5, -1), {number: np.ones(200_000) for number in range(5)},
    [arrays(1)[0], arrays(1)[0][:5]], "text" * 500_000,
], ids=["small", "array", "dict", "little to spare", "text"])  # fmt: skip
def test_of_anything_else_all_is_loaded(flow_of, items):
    flow, _ = flow_of(items, 1)
    assert np.array_equal(flow.input, items[1])
    assert "items" in flow.__dict__


def test_what_is_wrong_is_told_as_by_the_whole_list(flow_of):
    flow, _ = flow_of([Broken(), *arrays()], 0)
    with pytest.raises(RuntimeError, match="not here"):
        flow.input  # noqa: B018
    flow, _ = flow_of(arrays(), 7)
    with pytest.raises(IndexError):
        flow.input  # noqa: B018


def test_a_list_that_the_task_has_is_asked(flow_of):
    flow, _ = flow_of(arrays(), 1)
    flow.items = ["other", "own"]
    assert flow.input == "own"
