"""What a save reads of a store of 10 TB, as ``make bench-index`` measures it: a budget on requests and bytes."""

import pytest

from benchmarks.index import run
from benchmarks.index.synthetic import SyntheticStore, scale_of
from mfstore.backends.memory import MemoryBackend
from tests.rigs.gc import RemoteMemory


@pytest.mark.parametrize(("place", "kind"), [("local", MemoryBackend), ("s3", RemoteMemory)])
def test_a_small_save_into_a_large_store_reads_two_megabytes_in_eight_requests(monkeypatch, place, kind):
    monkeypatch.setattr(run, "PLANTED", 32)  # halves are those of numbers 10 and 30 on
    monkeypatch.setitem(run.PROBES, place, 2)
    backend = kind()
    synthetic = SyntheticStore(backend, scale_of(run.SIZES["10 TB"]), 1, run.plant(place, backend))
    rows = {row.kind: row for row in run.measure(place, "10 TB", synthetic.scale, synthetic)}
    assert rows.keys() == {"new", "same", "parts"}
    assert max(row.requests for row in rows.values()) <= 8
    assert max(row.bytes for row in rows.values()) <= 2_000_000
    assert min(row.found for row in rows.values()) >= 0.95
    assert rows["same"].requests <= 5
