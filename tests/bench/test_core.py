"""``make bench-core``: series are the same in every process, and every peer counts what it adds."""

import math
import pickle
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import mfstore
from benchmarks import report
from benchmarks.core import cutting
from benchmarks.core.catalogue import known
from benchmarks.core.peers import Changed, Chunked, Mfstore, Shuffled, Whole, pickled
from benchmarks.core.run import chosen, measure, save
from benchmarks.core.series import Version
from benchmarks.core.table import Measured
from benchmarks.core.unrelated import measure_unrelated, pairs_of_kinds, pairs_of_series, plain_kinds
from mfstore._core.chunk import implementations

ROOT = Path(__file__).parents[2]
SMALL = 0.02
TRIED = ("cells-edited", "configurations", "finetuning-float32", "sqlite-row-changed")

DIGEST = f"""
import pickle, sys
from hashlib import sha256
from benchmarks.core.run import chosen
for entry in chosen(sys.argv[1:]):
    for version in entry.versions(scale={SMALL}, count=3):
        print(sha256(pickle.dumps(version, 5)).hexdigest())
"""


def digests(names, **how):
    return [
        sha256(pickle.dumps(version, 5)).hexdigest()
        for entry in chosen(names)
        for version in entry.versions(scale=SMALL, count=3, **how)
    ]


@pytest.mark.second
def test_series_are_the_same_in_every_process():
    there = subprocess.run(
        [sys.executable, "-c", DIGEST, *TRIED], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    here = digests(TRIED)
    assert here == there
    assert len(set(here)) == 3 * len(TRIED)
    assert digests(TRIED[:1], seed=1) != here[:3]


def test_each_subject_has_series_and_no_two_are_called_the_same():
    names = [entry.name for entry in known()]
    assert len(names) >= 40
    assert len(set(names)) == len(names)
    assert [entry.name for entry in chosen(["wide-*"])] == ["wide-10-rows", "wide-100-rows"]
    with pytest.raises(SystemExit, match="no series is called rows-apended"):
        chosen(["rows-apended"])


def test_series_go_through_every_peer(capsys, tmp_path):
    found = [measure(entry, SMALL, 0, 3, {}) for entry in chosen(TRIED)]
    for one in found:
        assert len(one.sizes) == len(one.changed) == 3
        assert {"mfstore", "fastcdc", "restic", "whole", "changed"} <= set(one.data)
        assert all(len(added) == 3 and min(added) >= 0 for added in one.data.values())
        assert one.changed[0] == one.sizes[0]
        assert one.later("changed") <= one.later("whole")
    assert [one.name for one in found if "shuffled" in one.data] == ["finetuning-float32"]
    unrelated = [measure_unrelated(*pair) for pair in pairs_of_series(chosen(TRIED[:1]), SMALL)]
    save(found, unrelated, tmp_path / "core.json")
    report.main(str(tmp_path / "core.json"))
    printed = capsys.readouterr().out
    assert all(f"| {one.name}: {one.description} |" in printed for one in found)
    assert f"\n| {TRIED[0]} | {unrelated[0].without * 1e3:.1f} |" in printed


def test_what_is_unrelated_is_stored_as_without_a_base():
    kinds = [kind for kind in plain_kinds() if kind[0] in ("200 kB of int64, 0 to 999", "1 MB of text")]
    for name, old, new in pairs_of_kinds(kinds=kinds):
        found = measure_unrelated(name, old, new)
        assert found.bytes_based == found.bytes_without > 0
        assert found.based > 0
        assert measure_unrelated(name, old, old) is None


def test_each_implementation_that_cuts_is_in_the_table(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(cutting, "SIZES", {"64 KiB": 64 << 10})
    monkeypatch.setattr(cutting, "LEAST", 1e-6)
    monkeypatch.setattr("sys.argv", ["cutting", str(tmp_path / "cutting.json")])
    cutting.main()
    report.main(str(tmp_path / "cutting.json"))
    printed = capsys.readouterr().out
    assert implementations()[0] == "best"
    for name in implementations()[1:]:
        assert all(f"| mfstore, {name}, words of {width} | " in printed for width in (1, 2, 4, 8))
    assert "| FastCDC, 64 KiB | " in printed and "best" not in printed


def added(peer, *values):
    return [peer.add(Version(value, b""), pickled(value)).data for value in values]


def test_a_store_adds_what_lies_in_it():
    """Recipes, packs and index as the store itself counts them; trailers of packs go with the index."""
    values, others = np.random.default_rng(0).normal(size=(2, 200_000))
    peer = Mfstore("mfstore", False, {})
    try:
        first, again, other = (peer.add(Version(value), b"") for value in (values, values, others))
        assert again == (0, 0)
        assert first.data > values.nbytes * 0.8 < other.data
        stats = mfstore.open(peer.root).stats()
        trailers = first.index + other.index - stats.by_kind["index"]
        assert 0 < trailers < 10_000
        assert sum(first) + sum(other) == stats.by_kind["recipes"] + stats.by_kind["packs"] + stats.by_kind["index"]
    finally:
        peer.close()
    assert not peer.root.exists()


def test_bytes_of_a_store_that_is_not_whole_are_not_reported():
    peer = Mfstore("mfstore", False, {})
    added(peer, np.random.default_rng(0).normal(size=200_000))
    (pack,) = (path for path in (peer.root / "packs").rglob("*") if path.is_file())
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    with pytest.raises(AssertionError, match="what mfstore stored is not whole"):
        peer.close()
    assert not peer.root.exists()


def test_the_other_peers_add_what_they_say():
    rng = np.random.default_rng(0)
    noise = rng.bytes(3 << 20)
    first, again, inserted = added(Chunked("fastcdc", 16 << 10, 64 << 10, 256 << 10), noise, noise, b"x" + noise)
    assert first > len(noise) * 0.99
    assert again == 0
    assert 0 < inserted < 512 << 10
    assert added(Whole(), bytes(1 << 20), bytes(1 << 20))[1] < 1000
    assert added(Changed(), noise) == [0]
    weights = {"layer": {"weight": rng.normal(size=100_000).astype("float32")}}
    assert added(Shuffled(4), weights)[0] < added(Whole(), weights)[0]


def one_series(own, peers):
    return Measured("s", "d", [9, 9], [9, 9], {"mfstore": own, **peers}, {}, {})


def test_ratios_are_of_the_versions_after_the_first():
    one = one_series([100, 10, 30], {"fastcdc": [50, 20, 60], "whole": [100, 20, 20]})
    assert one.against("fastcdc") == 0.5
    assert one.against_all("fastcdc") == 140 / 130
    assert one.worst_version() == 1.5
    assert one_series([1, 0], {"fastcdc": [1, 0]}).against("fastcdc") == 1.0
    assert one_series([1, 5], {"fastcdc": [1, 0]}).against("fastcdc") == math.inf
    based = one_series([100, 10, 30], {"mfstore based": [100, 1, 3], "fastcdc": [50, 20, 60]})
    assert based.against("fastcdc") == 0.05
