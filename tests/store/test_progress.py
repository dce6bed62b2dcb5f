"""Progress: bytes are counted where they move, also within one large object, and shown where somebody looks."""

import os
import sys
import threading
from contextlib import contextmanager
from select import select

import numpy as np
import pytest

import mfstore
from mfstore.errors import NotFound
from mfstore.maintenance.report import PhaseProgress
from mfstore.progress import (
    METER,
    NOTHING,
    Meter,
    Notebook,
    State,
    Steps,
    Told,
    bytes_of_file,
    counted,
    display_of,
    drawn,
    fraction,
    phases,
    words,
)

MIB = 1 << 20
NONE = State("put", None, None, None, None, 0.0)


@pytest.fixture
def store(tmp_path):
    with mfstore.open(tmp_path / "store", threads=2, fsync="none", compress=False) as store:
        yield store


@pytest.fixture
def array():
    return np.random.default_rng(1).integers(0, 2**62, 12 * MIB // 8)


@pytest.fixture
def told():
    """What is counted in this thread while a test runs, piece by piece."""
    meter, pieces = Meter("test"), []
    meter.moved = pieces.append
    before = METER.set(meter)
    yield pieces
    METER.reset(before)


class Recorded:
    """A display that remembers."""

    def __init__(self):
        self.states, self.last = [], None

    def show(self, state):
        self.states.append(state)

    def close(self, state, done):
        self.last = state, done


# What is counted


def test_a_large_object_moves_piece_by_piece(store, array, told, tmp_path):
    key = store.put(array)
    assert len(told) >= 3 and sum(told) >= array.nbytes
    told.clear()
    assert (store.get(key, map=False) == array).all()
    assert len(told) >= 3 and sum(told) >= array.nbytes
    told.clear()
    store.get_file(key, tmp_path / "file")
    assert len(told) >= 2 and sum(told) >= array.nbytes


def test_what_is_there_already_counts_too(store, array, told):
    store.put(array)
    told.clear()
    store.put([array, 1])
    assert sum(told) >= array.nbytes


def test_a_remote_store_counts_as_well(array, told):
    with mfstore.open("memory://", threads=2) as store:
        key = store.put(array)
        assert sum(told) >= array.nbytes
        told.clear()
        store.get(key)
        assert sum(told) >= array.nbytes


def test_a_function_is_told_of_the_bytes_of_one_thing(store, array, tmp_path):
    path = tmp_path / "file"

    def told(call):
        pieces = []
        call(pieces.append)
        return sum(pieces)

    key = store.put(array)
    size = store.stat(key).size
    assert told(lambda progress: store.get(key, progress=progress)) == size  # what is mapped as well
    assert told(lambda progress: store.get_file(key, path, progress=progress)) == size
    assert told(lambda progress: store.put_file(path, progress=progress)) == size
    assert told(lambda progress: store.put_bytes(bytes(100), progress=progress)) == 100
    assert told(lambda progress: store.put(array[1:], progress=progress)) >= array.nbytes - 8
    bundle = store.save({"a": array[2:], "b": 1}, progress=None)
    assert told(lambda progress: store.save({"a": array[3:]}, progress=progress)) >= array.nbytes - 24
    assert told(lambda progress: store.load(bundle, progress=progress)) == store.stat(bundle).size
    assert told(lambda progress: store.load(bundle, "b", progress=progress)) < 100
    assert METER.get() is None


def test_a_function_is_told_of_the_items_of_many(store):
    told = []
    keys = store.put_many([1, 2, 3], progress=told.append)
    assert told == [1, 1, 1]
    list(store.get_many(keys, progress=told.append))
    list(store.stat_many(keys, progress=told.append))
    list(store.load_many([store.save({"a": 1})], progress=told.append))
    assert told == [1] * 10


def test_what_a_function_raises_comes_at_the_end(store):
    with pytest.raises(ZeroDivisionError):
        store.put_bytes(b"12", "ref", progress=lambda count: count / 0)
    assert store.get("ref") == b"12"
    with pytest.raises(NotFound):  # which comes first
        store.get("none", progress=lambda count: count / 0)
    assert METER.get() is None


def test_a_meter_counts_from_many_threads():
    meter = Meter("test", of_bytes=40_001)
    threads = [threading.Thread(target=lambda: [meter.moved(1) for _ in range(10_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.state().moved == 40_000
    meter.finish()
    assert meter.state().moved == 40_001
    meter.moved(5)  # of deltas more is read
    assert meter.state().moved == 40_001


# How it is told


def test_how_much_is_done():
    assert fraction(NONE) is None
    assert fraction(NONE._replace(moved=5, items=0, of_items=2)) == 0
    assert fraction(NONE._replace(moved=5, of_bytes=20, items=0, of_items=2)) == 0.25
    assert fraction(NONE._replace(items=3, of_items=2)) == 1


def test_numbers_for_people():
    assert words(NONE._replace(seconds=0.5)) == "500.0 ms"
    assert words(NONE._replace(items=1200, seconds=2.0)) == "1,200 · 2.0 s"
    assert words(NONE._replace(items=0, of_items=1, moved=3_000_000, seconds=2.0)) == "0/1 · 3.0 MB · 1.5 MB/s · 2.0 s"
    assert words(NONE._replace(moved=0, of_bytes=2000, seconds=1.0)) == "0 B of 2.0 kB · 1.0 s"
    assert words(NONE._replace(items=50, of_items=50, moved=0, seconds=1.0)) == "50/50 · 1.0 s"


def test_it_is_drawn_while_it_moves():
    display, meter, seen = Recorded(), Meter("test", of_bytes=10), threading.Event()
    display.show = lambda state: (display.states.append(state), seen.set())
    with drawn(meter, display):
        meter.moved(4)
        assert seen.wait(30)
    assert display.states[0].moved in (0, 4) and display.last[0].moved == 10 and display.last[1]
    with pytest.raises(ValueError, match="left"), drawn(Meter("test", of_bytes=10), display):
        raise ValueError("left")
    assert display.last[0].moved == 0 and not display.last[1]


def test_between_two_items_nothing_is_counted(store, monkeypatch):
    display = Recorded()
    monkeypatch.setattr("mfstore.progress.display_of", lambda progress: display)
    left = []

    def each(told):
        try:
            for number in range(3):
                METER.get().moved(10)
                told(1)
                yield number
        finally:
            left.append(True)

    for _ in counted(True, "test", [1, 2, 3], each):
        assert METER.get() is None
    assert display.last[0][:4] == ("test", 3, 3, 30) and display.last[1] and left
    items = counted(True, "test", iter([]), each)
    next(items)
    items.close()
    assert display.last[0][:4] == ("test", 1, None, 10) and not display.last[1] and len(left) == 2
    keys = store.put_many([1, 2], progress=True)
    assert display.last[0][:3] == ("put_many", 2, 2)
    assert dict(store.stat_many(keys, progress=True)).keys() == set(keys)
    assert display.last[0][:4] == ("stat_many", 2, 2, None)


def test_steps_of_maintenance(store, monkeypatch):
    with phases(None) as tell:
        assert tell is None
    display = Recorded()
    monkeypatch.setattr("mfstore.progress.display_of", lambda progress: display)
    store.put(np.arange(100_000))
    assert store.verify("full", progress=True).clean
    assert display.last[0].label == "" and display.last[1]  # the report says what there was
    store.repair("list", progress=True)
    told = []
    assert store.verify("list", progress=told.append).clean and told


def test_how_far_steps_are():
    steps = Steps()
    steps.reach(PhaseProgress("data", 3, 12))
    assert steps.state()[:5] == ("data", None, None, 3, 12)
    steps.reach(PhaseProgress("listing", 3, 0))
    assert steps.state()[:5] == ("listing", 3, None, None, None)
    steps.count("deleted", 2)
    steps.count("changed refs", 1)
    steps.count("deleted", 3)
    assert steps.state()[:5] == ("deleted", 5, None, None, None)
    steps.finish()
    assert steps.state()[:5] == NOTHING[:5]


def test_a_collection_is_shown(store, monkeypatch):
    display = Recorded()
    monkeypatch.setattr("mfstore.progress.display_of", lambda progress: display)
    store.put(1)
    plan = store.plan_gc(grace=0.0, progress=True)
    assert display.last[0].label == "" and display.last[1]
    display.last = None
    plan.execute(yes_really=True, progress=True)
    assert display.last is not None and display.last[1]
    told = []
    store.plan_gc(grace=0.0, progress=lambda what, more: told.append((what, more)))
    assert ("listed", 1) in told


def test_what_a_comparison_and_a_view_read_is_told(store, array):
    other = array.copy()
    other[::50_000] += 1
    keys = store.put(array), store.put(other)
    told = []
    assert store.diff(*keys, progress=told.append)
    assert 32 * 8 * 2 < sum(told) < array.nbytes  # of both sides the chunks that differ
    view = store.view(keys[0])
    for rows, size in ((None, store.stat(keys[0]).size), (slice(0, 1000), 8000)):
        told.clear()
        view.load(rows, progress=told.append)
        assert sum(told) == size
    assert METER.get() is None


def test_what_travels_counts_as_it_flows():
    meter, flowed = Meter("test", of_bytes=1000), [0, 0]
    meter.moved(100)
    meter.carry(600, 300)  # so much better it is encoded
    assert meter.state().moved == 100
    meter.watch(lambda: flowed[0])
    flowed[0] = 150
    assert meter.state().moved == 400
    meter.carry(200, 200)
    meter.watch(lambda: flowed[1])
    flowed[:] = 300, 100
    assert meter.state().moved == 100 + 800 * 400 // 500
    flowed[1] = 0  # it broke: what was shown stays
    assert meter.state().moved == 740
    flowed[1] = 1000  # answers flow too
    assert meter.state().moved == 900
    meter.settle()
    flowed[1] = 0
    assert meter.state().moved == 900
    meter.finish()
    assert meter.state().moved == 1000


# Where it is shown


def test_nothing_is_shown_where_nobody_looks(store, capsys):
    assert display_of(True) is None and display_of(False) is None and display_of(None) is None
    store.get(store.put_many([1, 2], progress=True)[0], progress=True)
    assert capsys.readouterr() == ("", "")
    assert isinstance(display_of(print), Told)
    with pytest.raises(ValueError, match="a bool or a function"):
        store.get("0" * 64, progress="loud")


@contextmanager
def terminal(monkeypatch):
    """Stderr as a terminal, and what is shown there."""
    mine, its = os.openpty()

    def shown(last):
        """All up to there."""
        found = b""
        while last.encode() not in found and select([mine], [], [], 30)[0]:
            found += os.read(mine, 1 << 16)
        return found.decode()

    try:
        with open(its, "w") as stderr, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stderr)
            patch.setenv("TERM", "xterm")
            yield shown
    finally:
        os.close(mine)


def test_in_a_terminal(store, monkeypatch):
    with terminal(monkeypatch) as screen:
        store.put_bytes(bytes(5000), progress=True)
        assert "put_bytes" in screen("5.0 kB of 5.0 kB")


def test_nothing_is_shown_of_what_was_over_before_there_was_anything_to_say(monkeypatch):
    with terminal(monkeypatch) as screen:
        with phases(True):
            pass
        assert " ms" not in screen("\x1b[?25h\r\x1b[1A\x1b[2K")  # the cursor is back, and its line empty


def test_one_bar_within_another(store, monkeypatch):
    """Some releases of rich show it, others cannot."""
    with terminal(monkeypatch) as screen:
        for key, _ in store.get_many(store.put_many([1, 2]), progress=True):
            store.get(key, progress=True)
        assert "get_many" in screen("2/2")


def test_what_is_printed_meanwhile_goes_where_stdout_goes(store, monkeypatch, capsys):
    with terminal(monkeypatch) as screen:
        for _, obj in store.get_many(store.put_many([1, 2]), progress=True):
            print(obj)
        assert "get_many" in screen("2/2")
    assert capsys.readouterr().out == "1\n2\n"


def test_in_a_notebook():
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output
    from traitlets.config import Config

    without_history = Config({"HistoryManager": {"enabled": False}})  # which has a thread
    InteractiveShell.instance(config=without_history)
    try:
        with capture_output() as captured:
            notebook = Notebook()
            notebook.show(NONE._replace(label="<b>", moved=1, of_bytes=4))
            notebook.close(NONE._replace(moved=4), True)
    finally:
        InteractiveShell.clear_instance()
    first, shown, last = (output.data["text/html"] for output in captured.outputs)
    assert not first and '&lt;b&gt; <progress value="0.2500"></progress> 1 B of 4 B' in shown
    assert "<progress" not in last and "4 B" in last


def test_how_long_a_file_is(tmp_path):
    (tmp_path / "file").write_bytes(b"123")
    assert bytes_of_file(tmp_path / "file") == 3
    assert bytes_of_file(tmp_path) is None and bytes_of_file(tmp_path / "none") is None
