"""What a store does, in Azure and Google Cloud: the contract of backends holds there, so one way through each part."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner

import mfstore
from mfstore.cli import main
from mfstore.errors import Conflict, CorruptObject, NotFound, Unsupported
from mfstore.s3 import BulkClient
from tests.rigs.concurrency import in_a_child

pytestmark = pytest.mark.server


def artifacts(seed=0):
    rows = np.random.default_rng(seed).integers(0, 1 << 60, 200_000)
    return {"rows": rows, "names": [f"n{i}" for i in range(1000)], "one": 1}


def same(found, expected):
    assert found["names"] == expected["names"] and found["one"] == expected["one"]
    assert np.array_equal(found["rows"], expected["rows"])


def test_there_and_back(cloud):
    store = cloud.open()
    values = artifacts()
    key = store.put(values, ref="models/churn")
    same(store.get(key), values)
    same(cloud.open().get("models/churn"), values)
    assert "service" in str(store.metrics()) and "S3" not in str(store.metrics())
    again = pickle.loads(pickle.dumps(store))
    same(again.get(key), values)
    changed = {**values, "one": 2}
    store.put(changed, ref="models/churn")
    assert len(store.refs.history("models/churn")) == 2
    assert not store.verify().findings


def test_a_forked_child_reads_and_writes(cloud):
    store = cloud.open()
    key = store.put(artifacts())

    def work():
        same(store.get(key), artifacts())
        store.put(artifacts(1), ref="child")

    in_a_child(work)
    same(store.get("child"), artifacts(1))


def test_what_nobody_names_is_collected(cloud):
    store = cloud.open()
    kept = store.put(artifacts(), ref="kept")
    gone = store.put(artifacts(1))
    for _ in range(2):  # condemned first, and then deleted
        store.plan_gc(grace=0).execute()
    same(store.get(kept), artifacts())
    with pytest.raises(NotFound):
        store.get(gone)
    assert not store.verify().findings


def test_wrong_bytes_are_never_returned(cloud):
    store = cloud.open()
    key = store.put({"rows": artifacts()["rows"]}, ref="a")
    (pack,) = [info for info in store.backend.list("packs/") if info.size > 1000]
    data = bytearray(store.backend.get(pack.key))
    data[len(data) // 2] ^= 1
    store.backend.put(pack.key, [data])
    with pytest.raises(CorruptObject):
        cloud.open().get(key)
    assert cloud.open().verify("full").findings


def test_of_two_writers_one_wins(cloud):
    backend = cloud.open().backend
    first = backend.put_if("refs/x", b"1", None)
    with pytest.raises(Conflict):
        backend.put_if("refs/x", b"2", None)
    second = backend.put_if("refs/x", b"3", first)
    with pytest.raises(Conflict):
        backend.put_if("refs/x", b"4", first)
    assert backend.delete_unchanged({"refs/x": first}) == [False] and backend.get("refs/x") == b"3"
    assert backend.deletes_conditionally() and backend.delete_unchanged({"refs/x": second}) == [True]


def test_trees_views_and_copies(cloud, tmp_path):
    directory = tmp_path / "tree"
    (directory / "a").mkdir(parents=True)
    (directory / "a" / "b.txt").write_bytes(b"text")
    (directory / "large").write_bytes(bytes(range(256)) * 4000)
    store = cloud.open()
    store.put_tree(directory, ref="tree")
    store.put(artifacts(), ref="values")
    store.get_tree("tree", tmp_path / "back")
    assert (tmp_path / "back" / "large").read_bytes() == (directory / "large").read_bytes()
    assert np.array_equal(store.view("values")["rows"][10:20], artifacts()["rows"][10:20])
    here = mfstore.open(tmp_path / "here")
    store.copy_to(here)
    same(here.get("values"), artifacts())
    other = cloud.open("other")
    here.copy_to(other)
    same(other.get("values"), artifacts())


def test_exports_and_fsspec(cloud, tmp_path):
    store = cloud.open()
    store.put(artifacts(), ref="values")
    place = cloud.url("exports/names.json")
    store.export(store.view("values")["names"], place)
    with BulkClient(cloud.url(), **cloud.options) as client:
        (outcome,) = client.get_many(["exports/names.json"])
        assert json.loads(outcome.data) == artifacts()["names"] and outcome.url == place
    with pytest.raises(Unsupported, match="S3"):
        store.presign(place)
    url = f"mfstore+{cloud.url('store')}!/"
    fs, _ = fsspec.url_to_fs(url, skip_instance_cache=True)
    assert fs.ls("", detail=False) == ["values"]
    fs.pipe("files/a.bin", b"bytes")
    assert store.get("files/a.bin") == b"bytes" or fs.cat("files/a.bin") == b"bytes"


def test_the_command_line(cloud):
    url = cloud.url("store")
    store = cloud.open()
    store.put(artifacts(), ref="values")
    run = CliRunner()
    for arguments in (["ls"], ["du"], ["verify"], ["gc"], ["refs"]):
        done = run.invoke(main, arguments, env={"MFSTORE_STORE": url})
        assert done.exit_code == 0, (arguments, done.output)


def test_nothing_of_another_cloud_is_imported(cloud):
    program = f"""
import sys, mfstore
store = mfstore.open({cloud.url("store")!r})
store.put({{"x": 1}}, ref="x")
assert store.get("x") == {{"x": 1}}
wrong = {{"botocore", "boto3", "azure", "google.auth", "requests", "obstore"}} & set(sys.modules)
assert not wrong, wrong
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
