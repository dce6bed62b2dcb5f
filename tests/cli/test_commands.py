"""The command line as a person or a script meets it."""

import json
import os
import subprocess
import sys

import pytest

import mfstore
from tests.rigs import command_line
from tests.rigs.soak import in_soaks


@pytest.fixture
def run(root):
    """In this process; with ``stdin``, which is read by its descriptor, in one of its own."""

    def call(*args, code=0, stdin=None, env=None):
        env = {"MFSTORE_STORE": root, **(env or {})}
        if stdin is not None:
            command = [sys.executable, "-m", "mfstore", *args]
            done = subprocess.run(command, input=stdin, capture_output=True, check=True, env={**os.environ, **env})
            return done.stdout.decode()
        done = command_line.mfstore(*args, code=code, env=env)
        return done.stdout if code == 0 else done.stderr

    return call


@pytest.mark.second
def test_put_with_a_base(run, tmp_path, root):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(os.urandom(400_000))
    new.write_bytes(old.read_bytes()[:300_000] + b"new" + old.read_bytes()[300_000:])
    run("put", str(old), "--ref", "files/it")
    before = mfstore.open(root).stats().stored
    key = run("put", str(new), "--base", "files/it").strip()
    assert mfstore.open(root).stats().stored < before + 10_000
    assert mfstore.open(root).get_bytes(key) == new.read_bytes()


def test_put_with_a_compression(run, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"all the same " * 10_000)
    codecs = {}
    for compress in ("fast", "balanced", "off"):
        store = str(tmp_path / compress)
        key = run("put", "-s", store, "--compress", compress, str(path), env={"MFSTORE_COMPRESS": "small"}).strip()
        codecs[compress] = set(mfstore.open(store).stat(key).codecs)
    assert codecs == {"fast": {"lz4"}, "balanced": {"zstd"}, "off": {"raw"}}
    assert "--compress" in run("put", "--compress", "hard", str(path), code=2)


@pytest.mark.second
def test_put_get_stat(run, tmp_path, root):
    path = tmp_path / "model.bin"
    path.write_bytes(os.urandom(200_000))
    key = run("put", str(path), "--ref", "models/a").strip()
    assert mfstore.open(root).get_bytes(key) == path.read_bytes()
    out = tmp_path / "out.bin"
    run("get", "models/a", "-o", str(out))
    assert out.read_bytes() == path.read_bytes()
    assert "200000 bytes" in run("stat", key)
    assert json.loads(run("stat", "models/a", "--json"))["size"] == 200_000
    assert run("put", "-", stdin=b"from a pipe").strip() == mfstore.open(root).put_bytes(b"from a pipe")
    assert run("get", run("put", "-", stdin=b"text").strip()) == "text"
    rows = [json.loads(line) for line in run("put", str(path), str(out), "--json").splitlines()]
    assert [row["key"] for row in rows] == [key, key]
    assert json.loads(run("get", key, "-o", str(out), "--json"))["size"] == 200_000


def test_get_of_objects_writes_a_pickle(run, root):
    import pickle

    key = mfstore.open(root).save({"x": [1, 2, 3]})
    done = subprocess.run(
        [sys.executable, "-m", "mfstore", "get", "-s", root, key, "--name", "x"], capture_output=True, check=True
    )
    assert pickle.loads(done.stdout) == [1, 2, 3]


@pytest.mark.second
def test_failures_have_exit_codes(run, tmp_path, root):
    mfstore.open(root).put(1)
    assert "nothing is stored" in run("get", "0" * 64, code=1)
    assert json.loads(run("stat", "0" * 64, "--json", code=1))["error"] == "not-found"
    assert "no ref" in run("stat", "some/ref", code=1)
    assert "does not exist" in run("put", str(tmp_path / "none"), code=2)
    assert "not a ref name" in run("refs", "set", "../x", "0" * 64, code=1)
    assert "Missing option" in run("ls", code=2, env={"MFSTORE_STORE": ""})
    (tmp_path / "file").write_text("x")
    assert "not a directory" in run("ls", "-s", str(tmp_path / "file"), code=1)
    assert "no bytes" not in run("get", "x", code=1)
    done = subprocess.run([sys.executable, "-m", "mfstore", "nonsense"], capture_output=True)
    assert done.returncode == 2 and b"Traceback" not in done.stderr


@pytest.mark.second
def test_help_names_every_command(run):
    text = run("--help")
    for command in ("put", "get", "ls", "stat", "du", "refs", "demo"):
        assert f"  {command} " in text
        assert "--json" in run(command, "--help")
    assert run("--version").startswith("mfstore")


@pytest.mark.second
def test_names_cannot_steer_the_terminal(run, root):
    store = mfstore.open(root)
    key = store.save({"\x1b]0;title\x07": 1, "\ud800": 2})
    store.refs["[/x]y"] = key
    store.refs["[red]b"] = key
    assert "[/x]y" in run("refs")
    assert "[red]b" in run("refs")
    for text in (run("stat", key), run("get", key, "--name", "z", code=1)):
        assert "\x1b" not in text
    assert json.loads(run("refs", "--json", "history", "[red]b"))["key"] == key
    assert "Invalid value" in run("ls", "-n", "-5", code=2)


def test_output_is_quiet_when_not_a_terminal(run, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    done = subprocess.run(
        [sys.executable, "-m", "mfstore", "put", str(path)],
        capture_output=True,
        env={**os.environ, "MFSTORE_STORE": str(tmp_path / "s")},
    )
    assert done.stderr == b""


@pytest.mark.flow
@pytest.mark.timeout(1200)
@in_soaks
def test_the_demo_runs(tmp_path):
    """The main job on the whole table, with five of its eleven saves; every object is read back and compared inside."""
    done = subprocess.run(
        [sys.executable, "-m", "mfstore", "demo", "--json", "--saves", "5", "--dir", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    *rows, flows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 6
    alone, ours, packed = flows["flows"]
    assert alone["summary"] == ours["summary"] == packed["summary"] and "336776 flights" in alone["summary"]
    assert 2 * packed["stored"] < ours["stored"] < 1.1 * alone["stored"]
    for row in rows[:-1]:
        assert row["artifacts"] == 22
        assert row["mfstore"]["stored"] < row["metaflow"]["stored"] or row["version"] == "unchanged"
    assert rows[-2]["mfstore"]["stored"] < 30_000  # the recipe: 60 bytes for each chunk
    assert rows[-1]["total"]["stored"] < rows[-1]["total"]["metaflow_stored"] / 2.5
    stats = mfstore.open(tmp_path / "demo" / "mfstore").stats()
    assert stats.recipes == 5
    # Merged index fragments are not counted as stored by the session, everything else is.
    written = rows[-1]["total"]["stored"]
    assert abs(stats.stored - written) < 0.01 * written
