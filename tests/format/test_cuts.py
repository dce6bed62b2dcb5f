"""What is long, or comes in pieces, is cut as it would be in one. The rule itself is tested beside its kernel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore._core.chunk import CUT_MAX, LONG_ROW, cut
from mfstore.format import cuts
from mfstore.format.cuts import ContentCutter, cut_in_windows
from tests.rigs.parts import MIB, noise
from tests.rigs.soak import lasting


class Collected:
    """The bytes and ends of what was handed over."""

    def __init__(self):
        self.data, self.ends, self.runs = b"", [], 0

    def take(self, view, ends):
        assert ends[-1] == len(view)
        self.ends += [len(self.data) + end for end in ends]
        self.data += view
        self.runs += 1


@settings(max_examples=lasting(40), deadline=None)
@given(
    seed=st.integers(0, 9), size=st.integers(0, 2 * MIB), pieces=st.lists(st.integers(1, MIB), max_size=8),
    together=st.integers(1, 3), last=st.booleans(),
)  # fmt: skip
def test_a_stream_is_cut_the_same_however_it_is_split(seed, size, pieces, together, last):
    data = noise(seed, size)
    found, at = Collected(), 0
    cutter = ContentCutter(found.take)
    blocks = []
    for piece in pieces:
        blocks.append(data[at : at + piece])
        at += piece
        if len(blocks) == together:
            cutter.feed(*blocks)
            blocks.clear()
    blocks.append(data[at:])
    if not last:
        cutter.feed(*blocks)
        blocks.clear()
    cutter.finish(*blocks)
    assert found.data == data
    assert found.ends == cut(data, 1, 0, True)


@pytest.mark.parametrize(
    ("itemsize", "row"), [(1, 0), (8, 0), (0, 0), (24, 0), (4, 1000), (8, LONG_ROW), (8, 200_000), (1, 3 * MIB)]
)
def test_a_segment_is_cut_the_same_in_windows(monkeypatch, itemsize, row):
    monkeypatch.setattr(cuts, "WINDOW", MIB)
    asked = []
    unit = row or 24
    for data in (noise(3, 5 * MIB // unit * unit), bytes(3 * MIB // unit * unit), noise(3, 5 * MIB // unit * unit - 8)):
        found = Collected()

        def read(start, end, data=data):
            asked.append(end - start)
            return np.frombuffer(data, np.uint8)[start:end]

        for part, ends in cut_in_windows(read, len(data), itemsize, row):
            found.take(part, ends)
        assert found.data == data
        assert found.ends == cut(data, itemsize, row, True)
        assert found.runs > 1
    assert max(asked) == MIB
    assert sum(asked) < 13 * MIB + len(asked) * CUT_MAX


def test_nothing_is_cut_into_nothing():
    assert list(cut_in_windows(lambda start, end: b"", 0, 8, 0)) == []
    found = Collected()
    cutter = ContentCutter(found.take)
    cutter.feed(b"")
    cutter.finish()
    assert found.runs == 0
