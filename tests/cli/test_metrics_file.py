"""--metrics-file: how a run went, told to Prometheus, whatever way it ended."""

import os

import numpy as np
import pytest

import mfstore as library
from tests.rigs.command_line import mfstore
from tests.rigs.metaflow_trees import run_meta, task

text_string_to_metric_families = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families


def told(path):
    """Values by name and what they are of; all of one command and place."""
    found, of = {}, set()
    for family in text_string_to_metric_families(path.read_text()):
        assert family.type == "gauge" and family.documentation
        for sample in family.samples:
            found[sample.name.removeprefix("mfstore_command_"), sample.labels.get("what")] = sample.value
            of.add((sample.labels["command"], sample.labels["place"]))
    (command,) = of
    return found, command


@pytest.fixture
def store(tmp_path):
    with library.open(tmp_path / "store", fsync="none") as found:
        found.put(np.random.default_rng(0).random(20_000), "one")
        found.put(np.random.default_rng(1).random(20_000))
    return tmp_path / "store"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "last.prom"


def test_each_long_command_of_a_store(store, file):
    mfstore("verify", "-s", store, "--level", "full", "--metrics-file", file)
    found, of = told(file)
    assert of == ("verify", str(store))
    assert found["exit_code", None] == 0 and found["objects", "damage"] == 0
    assert found["objects", "read"] == found["objects", "packs"] == 2
    assert found["bytes", "read"] > 200_000 and found["timestamp_seconds", "oldest_read"] > 1e9
    assert found["last_success_timestamp_seconds", None] == found["last_run_timestamp_seconds", None] > 1e9
    mfstore("gc", "-s", store, "--grace", "0s", "--execute", "--metrics-file", file)
    found, of = told(file)
    assert of[0] == "gc" and found["objects", "condemned"] == 2 and found["objects", "deleted"] == 0
    mfstore("gc", "-s", store, "--grace", "0s", "--execute", "--metrics-file", file)
    found, _ = told(file)
    assert found["objects", "deleted"] == 2 and found["bytes", "deleted"] > 100_000
    mfstore("du", "-s", store, "--by", "ref", "--metrics-file", file)
    found, _ = told(file)
    assert found["bytes", "stored"] == sum(found["bytes", what] for what in ("own", "shared", "unheld"))
    mfstore("repair", "-s", store, "--metrics-file", file)
    found, _ = told(file)
    assert found["objects", "actions"] == found["objects", "lost"] == 0


def test_below_a_root(tmp_path, file):
    root = tmp_path / "root"
    for number in range(3):
        run = str(1_500_000_000_000_000 + number)
        task(root, "Flow", run, "end", 1, {"x": [number] * 500}, age=1e6)
        run_meta(root, "Flow", run, age=1e6)
    keep = ("gc", "--metaflow", root, "--keep-last", "1", "--grace", "0s", "--execute", "--metrics-file", file)
    mfstore(*keep)
    found, of = told(file)
    assert of == ("gc", str(root)) and found["objects", "runs_condemned"] == 2
    mfstore("verify", "--metaflow", root, "--metrics-file", file)
    found, _ = told(file)
    assert found["objects", "runs"] == 3 and found["exit_code", None] == 0
    mfstore("migrate", "--metaflow", root, "--to", "packed", "--execute", "--metrics-file", file, code=(0, 3))
    found, _ = told(file)
    assert found["objects", "artifacts"] + found["objects", "failures"] > 0


def test_damage_and_failure_keep_the_last_success(store, file):
    mfstore("verify", "-s", store, "--metrics-file", file)
    success = told(file)[0]["last_success_timestamp_seconds", None]
    pack = next(path for path in (store / "packs").rglob("*") if path.is_file())
    pack.write_bytes(pack.read_bytes()[:-10])
    mfstore("verify", "-s", store, "--metrics-file", file, code=3)
    found, _ = told(file)
    assert found["exit_code", None] == 3 and found["objects", "damage"] >= 1
    assert found["last_success_timestamp_seconds", None] == success < found["last_run_timestamp_seconds", None]
    os.rename(store, f"{store}-gone")
    mfstore("verify", "-s", store, "--metrics-file", file, code=1)
    found, _ = told(file)
    assert found["exit_code", None] == 1 and ("objects", "damage") not in found
    assert found["last_success_timestamp_seconds", None] == success


def test_a_first_run_that_fails_tells_of_no_success(tmp_path, file):
    mfstore("verify", "-s", tmp_path / "none", "--metrics-file", file, code=1)
    assert ("last_success_timestamp_seconds", None) not in told(file)[0]
    sample = f'mfstore_command_last_success_timestamp_seconds{{command="verify",place="{tmp_path / "none"}"}}'
    file.write_bytes(b"\xff\n%s 1.2.3\n" % sample.encode())
    mfstore("verify", "-s", tmp_path / "none", "--metrics-file", file, code=1)
    assert ("last_success_timestamp_seconds", None) not in told(file)[0]


def test_a_place_where_nothing_can_be_written(store, tmp_path):
    says = mfstore("verify", "-s", store, "--metrics-file", tmp_path / "no" / "x.prom", code=2).stderr
    assert "there is no directory" in says
    (tmp_path / "x.prom").mkdir()
    mfstore("verify", "-s", store, "--metrics-file", tmp_path / "x.prom", code=2)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_no_file_is_not_replaced_and_a_link_stays(store, tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link.prom"
    os.mkfifo(pipe)
    says = mfstore("verify", "-s", store, "--metrics-file", pipe, code=2).stderr
    assert "no regular file" in says and pipe.is_fifo()
    with pytest.raises(OSError, match="no regular file"):
        library.write_metrics(pipe)
    link.symlink_to("real.prom")
    mfstore("verify", "-s", store, "--metrics-file", link)
    assert link.is_symlink() and told(tmp_path / "real.prom")[0]["exit_code", None] == 0


def test_the_success_of_another_command_or_place_is_not_kept(store, tmp_path, file):
    mfstore("du", "-s", store, "--by", "ref", "--metrics-file", file)
    mfstore("verify", "-s", tmp_path / "none", "--metrics-file", file, code=1)
    assert ("last_success_timestamp_seconds", None) not in told(file)[0]


def test_a_run_that_was_good_and_cannot_be_written_down_is_told(store, file, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mfstore.cli.metrics_file.write_families", full)
    says = mfstore("verify", "-s", store, "--metrics-file", file, code=1).stderr
    assert "--metrics-file cannot be written" in says and "No space left" in says
