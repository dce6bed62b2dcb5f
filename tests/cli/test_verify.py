"""mfstore verify and repair as a person and as a script use them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.cli import main
from tests.rigs.metaflow_trees import blob, task


def call(*arguments):
    """Exit code of a command."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as done:
        return done.code
    return 0


def damage(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.fixture
def pack(root):
    """A store with a ref; its only pack."""
    store = mfstore.open(root, fsync="none")
    store.refs["model"] = store.put(np.random.default_rng(0).random(50_000))
    return next(path for path in Path(root, "packs").rglob("*") if path.is_file())


def test_verify_of_a_whole_store(root, pack, capsys):
    for level, told in (
        ("list", "sizes by listing"),
        ("headers", "--level full reads the data"),
        ("full", "1 of 1 packs"),
    ):
        assert call("verify", "-s", root, "--level", level) == 0
        out = capsys.readouterr().out
        assert told in out and "no damage found" in out
    assert "every pack was read since" in out
    assert call("verify", "-s", root, "-l", "full", "--older-than", "1h", "--for", "30m") == 0
    assert "0 of 1 packs" in capsys.readouterr().out


def test_deltas_and_their_bases_are_told(root, tmp_path, capsys):
    """How many were decoded, what is read besides, and the base that is lost; the file is longer than lies in a recipe."""
    old = np.random.default_rng(1).bytes(300_000)
    for name, data in (("old", old), ("new", old[:1000] + b"changed" + old[1000:])):
        (tmp_path / name).write_bytes(data)
    assert call("put", "-s", root, tmp_path / "old", "--ref", "old") == 0
    assert call("put", "-s", root, tmp_path / "new", "--ref", "new", "--base", "old") == 0
    store = mfstore.open(root)
    capsys.readouterr()
    assert call("stat", "-s", root, "new") == 0
    assert "of other chunks are read with it" in capsys.readouterr().out
    assert call("stat", "-s", root, "old") == 0
    assert "bases" not in capsys.readouterr().out
    assert call("verify", "-s", root, "-l", "full") == 0
    assert re.search(r" chunks, [1-9] deltas? with their bases, ", capsys.readouterr().out)
    (pack,) = (path for path in Path(root, "packs").rglob("*") if path.is_file() and path.stat().st_size > 250_000)
    damage(pack, 100)
    assert call("verify", "-s", root, "-l", "full", "--json") == 3
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert found["keys"] == sorted([store.refs["old"], store.refs["new"]]) and len(found["bases"]) == 1
    assert f"base chunks of deltas are lost: {found['bases'][0]}" in found["detail"]


def test_verify_and_repair_of_damage(root, pack, capsys):
    damage(pack, 100_000)
    key = mfstore.open(root).refs["model"]
    assert call("verify", "-s", root) == 0  # headers do not tell
    assert call("verify", "-s", root, "-l", "full") == 3
    out = capsys.readouterr().out
    assert "chunks differ from" in out and f"model, {key[:16]}…" in out and "mfstore repair" in out
    assert call("verify", "-s", root, "-l", "full", "--json") == 3
    report = json.loads(capsys.readouterr().out)
    assert report["clean"] is False and report["findings"][0]["keys"] == [key]
    for plan in ((), ("--dry-run",)):
        assert call("repair", "-s", root, *plan) == 3
        out = capsys.readouterr().out
        assert "would do" in out and "Nothing was changed: --execute does this." in out and pack.exists()
    assert call("repair", "-s", root, "--dry-run", "--execute") == 2
    assert call("repair", "-s", root, "--execute") == 3
    out = capsys.readouterr().out
    assert "lost data: 1 key" in out and key in out and not pack.exists()
    assert call("repair", "-s", root, "--drop-lost", "--execute", "--json") == 3  # the ref still names it
    assert json.loads(capsys.readouterr().out)["after"]["findings"][0]["refs"] == ["model"]
    mfstore.open(root).put(np.random.default_rng(0).random(50_000))
    assert call("verify", "-s", root, "-l", "full") == 0


def test_repair_of_what_loses_nothing(root, pack, capsys):
    damage(pack)
    assert call("verify", "-s", root) == 3
    assert "every artifact can still be read" in capsys.readouterr().out
    assert call("repair", "-s", root, "--execute") == 0
    assert "afterwards all is well" in capsys.readouterr().out
    assert call("repair", "-s", root, "--execute") == 0
    assert "nothing to repair" in capsys.readouterr().out


def test_wrong_usage_and_places(root, pack, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MFSTORE_STORE", raising=False)
    for arguments, code, told in (
        (["verify"], 2, "--store"),
        (["repair"], 2, "--store"),
        (["verify", "-s", tmp_path / "nothing"], 1, "no store there"),
        (["verify", "-s", root, "--sample", "1/3"], 1, "only the level full"),
        (["verify", "-s", root, "-l", "full", "--sample", "9/3"], 1, "a sample is n/t"),
        (["verify", "-s", root, "-l", "full", "--for", "3x"], 2, "no duration"),
        (["verify", "--metaflow", root], 1, "store of mfstore"),
        (["verify", "--metaflow", tmp_path / "nothing"], 1, "no such directory"),
        (["repair", "--metaflow", root, "--drop-lost"], 2, "--drop-lost is for stores"),
        (["repair", "--metaflow", root, "--roll-back"], 2, "--roll-back is for stores"),
        (["gc", "--metaflow", root], 1, "say how much to keep"),
        (["gc", "--metaflow", root, "--keep-last", "1", "--series", "x/*"], 2, "--series is for stores"),
        (["gc", "-s", root, "--tag", "x"], 2, "only for --metaflow"),
    ):
        assert call(*arguments) == code, arguments
        assert told in capsys.readouterr().err


def test_a_wrong_option_is_told_before_the_store_is_looked_for(tmp_path, capsys):
    nothing = tmp_path / "nothing"
    file = tmp_path / "file"
    file.write_bytes(b"data")
    for arguments, code, told in (
        (["verify", "-s", nothing, "--sample", "1/3"], 1, "only the level full"),
        (["verify", "-s", nothing, "-l", "full", "--sample", "9/3"], 1, "a sample is n/t"),
        (["verify", "--metaflow", nothing, "--sample", "1/3"], 1, "only the level full"),
        (["repair", "--metaflow", nothing, "--drop-lost"], 2, "--drop-lost is for stores"),
        (["gc", "-s", nothing, "--series", "runs/*"], 1, "a series needs keep_last, keep_age"),
        (["gc", "--metaflow", nothing], 1, "say how much to keep"),
        (["migrate", "--metaflow", nothing, "--to", "packed", "--run", "Flow"], 1, "a run is flow/run"),
        (["get", "-s", nothing, "--json", "model"], 2, "--json needs --output"),
        (["put", "-s", nothing, "--ref", "a//b", file], 1, "not a ref name"),
    ):
        assert call(*arguments) == code, arguments
        assert told in capsys.readouterr().err
    assert not nothing.exists()
    with pytest.raises(errors.InvalidKey, match="unknown level"):
        mfstore.open(nothing).repair("some")


def test_quarantine_is_listed_put_back_and_emptied(root, pack, capsys):
    sound = pack.read_bytes()
    damage(pack, 100_000)
    assert call("repair", "-s", root, "--execute") == 3
    assert call("quarantine", "-s", root) == 0
    assert "2 objects in quarantine" in capsys.readouterr().out.splitlines()[-1]  # the pack, and the former index
    assert call("quarantine", "-s", root, "--older-than", "1d", "--empty", "--execute") == 0
    assert "0 objects in quarantine deleted" in capsys.readouterr().out
    assert call("quarantine", "-s", root, "--json") == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (entry,) = (entry for entry in entries if entry["key"].startswith("packs/"))
    assert entry["key"] == str(pack.relative_to(root)) and entry["size"] == len(sound) and not entry["deleted"]
    assert not pack.exists()
    assert call("quarantine", "-s", root, "--restore", entry["path"].removeprefix("quarantine/")) == 0
    assert pack.stat().st_size == len(sound)
    assert call("quarantine", "-s", root, "--restore", entry["path"]) == 1
    assert call("quarantine", "-s", root, "--restore", "x", "--empty") == 2
    capsys.readouterr()
    assert call("repair", "-s", root, "--execute") == 3
    assert call("quarantine", "-s", root, "--execute") == 2
    before = mfstore.open(root).backend.list("quarantine/")
    assert call("quarantine", "-s", root, "--empty") == 4
    told = capsys.readouterr()
    assert "nothing was changed; --execute does this" in told.err
    assert [*mfstore.open(root).backend.list("quarantine/")] == [*before]
    assert call("quarantine", "-s", root, "--empty", "--execute") == 0
    assert call("quarantine", "-s", root, "--json") == 0
    assert "path" not in capsys.readouterr().out
    assert call("quarantine", "--metaflow", root) == 0


def test_metaflow_roots(tmp_path, capsys):
    root = tmp_path / "mf"
    task(root, "Flow", "1", "start", 1, {"x": 1, "y": 2})
    assert call("verify", "--metaflow", root) == 0
    assert "1 flow, 1 run, 1 task, 2 blobs" in capsys.readouterr().out
    assert call("du", "--metaflow", root) == 0
    assert "IncludeFiles" in capsys.readouterr().out
    assert call("du", "--metaflow", root, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["flow"] == "Flow" and document["blobs"]["objects"] == 4
    sizes = sum(part["bytes"] for kind, part in document.items() if kind != "flow")
    assert sizes == sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    path = root / "Flow" / "data" / blob(root, "Flow", 1)[:2]
    (found,) = [entry for entry in path.iterdir() if "_meta" not in entry.name]
    damage(found, 12)
    assert call("verify", "--metaflow", root, "-l", "full") == 3
    out = capsys.readouterr().out
    assert "Flow/1/start/1/x" in out and "1 run with artifacts that cannot be loaded" in out
    assert call("repair", "--metaflow", root, "--dry-run", "--json") == 3
    assert json.loads(capsys.readouterr().out)["actions"][0]["kind"] == "quarantine"
    assert found.exists()
    assert call("repair", "--metaflow", root, "--execute") == 3
    assert "afterwards 1 finding left" in capsys.readouterr().out
    blob(root, "Flow", 1)
    assert call("verify", "--metaflow", root, "-l", "full", "--json") == 0


def test_the_plan_of_a_collection_for_people(tmp_path, capsys):
    root = tmp_path / "mf"
    for run in range(3):
        task(root, "Flow", str(run), "start", 1, {"x": run, "same": 1}, age=(9 - run) * 86400)
    assert call("gc", "--metaflow", root, "--keep-last", 1, "--long", "--grace", "0s") == 0
    out = capsys.readouterr().out
    rows = {tuple(line.split()[:2]) for line in out.splitlines()}
    assert {("condemn", "Flow/0"), ("keep", "Flow/2")} <= rows and "--execute does this" in out
    assert call("gc", "--metaflow", root, "--keep-age", "1s", "--grace", "0s") == 0
    assert "--yes-really" in capsys.readouterr().out
    assert call("gc", "--metaflow", root, "--keep-last", 1, "--grace", "0s", "--execute") == 0
    assert "condemned 2 runs. Run this again" in capsys.readouterr().out
    assert call("gc", "--metaflow", root, "--keep-last", 1, "--grace", "0s", "--execute") == 0
    assert "removed 2 runs" in capsys.readouterr().out
    assert call("gc", "--metaflow", root, "--keep-last", 1, "--grace", "0s", "--execute") == 0
    assert "There was nothing to do." in capsys.readouterr().out
    assert call("gc", "--metaflow", root, "--keep-age", "1s", "--grace", "0s", "--execute") == 1
    assert "every run" in capsys.readouterr().err
