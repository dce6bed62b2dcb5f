"""Verify and repair of Metaflow's datastore roots, in directories and in S3."""

import contextlib
import gzip
import hashlib
import json
import os
import pickle
import random
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mfstore import errors
from mfstore.backends.s3.backend import S3Backend
from mfstore.host.workers import Workers
from mfstore.maintenance.metaflow import blob_reads
from mfstore.maintenance.metaflow import repair as metaflow_repair
from mfstore.maintenance.metaflow import verify as metaflow_verify
from mfstore.maintenance.metaflow.repair import repair_metaflow
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.verify import verify_metaflow
from mfstore.maintenance.verification import VerifyOptions, verify_options
from mfstore.metaflow.stock.encoding import digest_of, encode
from mfstore.testing import Fault, FaultyBackend
from tests.backends.test_s3 import options
from tests.rigs.damage import DAMAGE
from tests.rigs.metaflow_trees import blob, blobs_of, files, run_meta, task, upload
from tests.rigs.soak import points

NOISE = np.random.default_rng(0).bytes(50_000)


@pytest.fixture
def tree(tmp_path):
    """A root with two runs, one resumed from the other as far as blobs go, and a code package."""
    root = tmp_path / "mf"
    code = blob(root, "Flow", NOISE[:3000], raw=True)
    for run in ("1", "2"):
        run_meta(root, "Flow", run)
        task(root, "Flow", run, "start", 1, {"x": 1, "shared": "text" * 2000}, code=code)
        task(root, "Flow", run, "end", 2, {"x": int(run), "big": NOISE}, code=code)
    return root


def look(root, level="full", sample=None, older_than=None, budget=None):
    place = Root(str(root))
    try:
        return verify_metaflow(place, verify_options(level, sample, older_than, budget))[0]
    finally:
        place.close()


def mend(root, level="full", dry_run=False):
    place = Root(str(root))
    try:
        return repair_metaflow(place, level, dry_run, None)
    finally:
        place.close()


def path_of(root, value):
    data = value if isinstance(value, bytes) else pickle.dumps(value, protocol=4)
    import hashlib

    key = hashlib.sha1(data).hexdigest()
    return Path(root, "Flow", "data", key[:2], key)


@pytest.mark.parametrize("level", ["list", "headers", "full"])
def test_a_whole_root_is_clean(tree, level):
    before = files(tree)
    report = look(tree, level)
    assert report.clean and report.findings == ()
    assert (report.flows, report.runs, report.tasks, report.blobs) == (1, 2, 4, 5)
    assert files(tree) == before
    if level == "full":
        assert report.blobs_checked == report.blobs and report.oldest is not None


@pytest.mark.second
@pytest.mark.parametrize("value", [1, "text" * 2000, NOISE, NOISE[:3000]], ids=["tiny", "text", "noise", "raw"])
@pytest.mark.parametrize("how", [*DAMAGE, "gone"])
def test_damaged_blobs_are_found_with_what_they_touch_and_quarantined(tree, value, how):
    path = path_of(tree, value)
    before = path.read_bytes()
    path.unlink() if how == "gone" else path.write_bytes(DAMAGE[how](before))
    report = look(tree)
    names = {name.rsplit("/", 1)[1] for finding in report.findings for name in finding.artifacts}
    expected = {1: {"x"}, "text" * 2000: {"shared"}, NOISE: {"big"}, NOISE[:3000]: {"<code package>"}}[value]
    assert names == expected
    assert [finding.key for finding in report.findings] == [path.name]
    assert report.runs_touched == ("Flow/1", "Flow/2")
    if how in ("gone", "empty"):
        assert not look(tree, "headers").clean
    done = mend(tree)
    assert [finding.kind for finding in (done.after or done.before).findings] == ["missing"]
    assert not path.exists()
    kept = [found for found in (tree / "mf.maintenance").rglob("*") if found.is_file() and path.name in found.name]
    assert (how == "gone") == (not kept)
    # Stock Metaflow's next task with the same content stores it again.
    raw = value == NOISE[:3000]
    blob(tree, "Flow", value, raw=raw)
    assert look(tree).clean


def test_what_has_no_run_may_be_anybodys_and_is_not_repaired(tree):
    """Other stores keep objects under such names too, and in no gzip."""
    key = hashlib.sha256(b"theirs").hexdigest()
    path = tree / "cache" / "data" / key[:2] / key
    path.parent.mkdir(parents=True)
    path.write_bytes(b"theirs")
    before = files(tree)
    assert not look(tree).clean
    assert mend(tree).actions == () and files(tree) == before


def test_what_a_task_stores_again_while_repair_is_at_work_stays(tree, monkeypatch):
    path = path_of(tree, 1)
    path.write_bytes(b"")
    original = metaflow_repair.judge

    def late(*arguments):
        found = original(*arguments)
        assert found is not None and blob(tree, "Flow", 1) == path.name
        return found

    monkeypatch.setattr(metaflow_repair, "judge", late)
    mend(tree)
    assert path.exists() and Path(f"{path}_meta").exists()
    assert look(tree).findings == ()


def test_metadata_is_written_anew_where_the_content_proves_itself(tree):
    raw, packed, lies = path_of(tree, NOISE[:3000]), path_of(tree, 1), path_of(tree, NOISE)
    Path(f"{raw}_meta").unlink()
    Path(f"{packed}_meta").unlink()
    Path(f"{lies}_meta").write_text('{"cas_raw": true, "cas_version": 1}')
    report = look(tree)
    assert {finding.key: finding.kind for finding in report.findings} == {
        raw.name: "meta-less", packed.name: "meta-less", lies.name: "wrong-metadata",
    }  # fmt: skip
    assert {finding.key for finding in report.damage} == {raw.name, lies.name}
    done = mend(tree)
    assert [action.kind for action in done.actions] == ["describe"] * 3
    assert done.after.findings == ()
    assert json.loads(Path(f"{raw}_meta").read_text()) == {"cas_raw": True, "cas_version": 1}
    assert json.loads(Path(f"{lies}_meta").read_text())["cas_raw"] is False


def test_metadata_that_makes_no_sense(tree):
    path = path_of(tree, 1)
    Path(f"{path}_meta").write_text("{")
    assert [finding.kind for finding in look(tree).findings] == ["wrong-metadata"]
    Path(f"{path}_meta").write_text('{"cas_raw": false, "cas_version": 7}')
    (finding,) = look(tree).findings
    assert finding.kind == "unknown" and "cas_version 7" in finding.detail
    assert mend(tree).actions == ()


def test_old_and_foreign_ways_to_store_a_blob_are_whole(tree):
    """Several gzip members; no metadata, as Metaflow wrote long ago; keys of another form."""
    path = path_of(tree, NOISE)
    path.write_bytes(gzip.compress(NOISE[:10_000]) + gzip.compress(NOISE[10_000:]))
    other = path.parent / ("r_" + path.name)
    other.write_bytes(b"anything")
    Path(f"{other}_meta").write_text('{"cas_raw": true, "cas_version": 1}')
    assert look(tree).clean


def test_attempts(tree):
    place = tree / "Flow" / "2" / "end"
    data = (place / "2" / "0.data.json").read_bytes()
    (place / "2" / "0.data.json").write_bytes(data[:-20])
    task(tree, "Flow", "2", "end", 3, {}, done=False, age=30 * 86400)
    task(tree, "Flow", "2", "end", 4, {}, done=False, age=60)
    task(tree, "Flow", "2", "end", 5, {"y": 1})
    (place / "5" / "0.data.json").unlink()
    report = look(tree, "headers")
    assert report.running == 1
    assert {(finding.kind, finding.object, finding.harm) for finding in report.findings} == {
        ("damaged", "Flow/2/end/2/0.data.json", "data"),
        ("half-written", "Flow/2/end/3/0", "none"),
        ("done-without-data", "Flow/2/end/5/0.data.json", "data"),
    }
    assert report.runs_touched == ("Flow/2",)
    # An earlier attempt that nobody reads any more does no harm.
    task(tree, "Flow", "2", "end", 2, {"x": 1}, attempt=1)
    (finding,) = [f for f in look(tree, "headers").findings if f.object == "Flow/2/end/2/0.data.json"]
    assert finding.harm == "none" and finding.artifacts == ()


def test_bundles_of_the_packed_profile(tree):
    key = "ab" * 32
    info = {"packed": {"type": "x", "encoding": f"mfstore-1/{key}"}}
    task(tree, "Flow", "2", "end", 9, {}, infos=info)
    (finding,) = look(tree, "headers").findings
    assert (finding.kind, finding.object) == ("missing", f"mf.store/recipes/ab/{key}")
    assert finding.artifacts == ("Flow/2/end/9/*",)


def test_samples_and_resuming(tree):
    parts = [look(tree, sample=f"{n}/5").blobs_checked for n in range(1, 6)]
    assert sum(parts) == 5
    assert look(tree, older_than=3600).blobs_checked == 0
    assert look(tree, budget=0.0).complete is False
    path_of(tree, 1).write_bytes(b"")
    assert not look(tree, older_than=3600).clean


def test_a_clock_is_not_needed_for_what_is_stored_meanwhile(tree, monkeypatch):
    """A blob that is missed by the listing because it is stored only then is not missing."""
    path = path_of(tree, NOISE)
    data = path.read_bytes()
    path.unlink()
    original = metaflow_verify.BlobCheck.confirm_missing

    def later(self):
        path.write_bytes(data)
        original(self)

    monkeypatch.setattr(metaflow_verify.BlobCheck, "confirm_missing", later)
    assert look(tree, "headers").clean


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after the effect"])
def test_repair_that_fails_at_any_call_is_finished_by_the_next(tmp_path, tree, after):
    path_of(tree, 1).write_bytes(b"x")
    path_of(tree, NOISE).write_bytes(DAMAGE["middle"](path_of(tree, NOISE).read_bytes()))
    Path(f"{path_of(tree, NOISE[:3000])}_meta").unlink()
    model = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    for n in points(1 + after, 2):
        for path, data in model.items():
            path.write_bytes(data)
        for path in list(tree.rglob("*")):
            if path.is_file() and path not in model:
                path.unlink()
        place = Root(str(tree))
        inner = place.backend
        place.backend = FaultyBackend(inner, Fault(at=n, after=after))
        place.backend.root = inner.root
        with contextlib.suppress(errors.BackendError):
            repair_metaflow(place, "full", False, None)
        calls = place.backend.calls
        place.close()
        done = mend(tree)
        assert {f.kind for f in (done.after or done.before).findings} == {"missing"}
        held = [path.read_bytes() for path in (tree / "mf.maintenance").rglob("*") if path.is_file()]
        assert b"x" in held
        if calls < n:
            break
    assert n > 25


def test_refusals_are_not_called_damage(tree):
    place = Root(str(tree))
    inner = place.backend
    place.backend = FaultyBackend(inner)
    place.backend.root = inner.root
    verify_metaflow(place, VerifyOptions("full"))
    calls = place.backend.calls
    for n in range(1, calls + 1):
        place.backend = FaultyBackend(inner, Fault(at=n, error=lambda: errors.AccessDenied("no")))
        place.backend.root = inner.root
        try:
            report, _ = verify_metaflow(place, VerifyOptions("full"))
        except errors.AccessDenied:
            continue
        assert {finding.kind for finding in report.findings} <= {"unreadable"}
        with pytest.raises(errors.AccessDenied):
            place.backend = FaultyBackend(inner, Fault(at=n, error=lambda: errors.AccessDenied("no")))
            place.backend.root = inner.root
            if repair_metaflow(place, "full", False, None).before.clean:
                raise errors.AccessDenied("the call was one that verify can do without")
    place.close()
    assert not (tree / "mf.maintenance" / "quarantine").exists()


def test_places_that_are_no_root(tmp_path, tree):
    with pytest.raises(errors.NotFound, match="no such directory"):
        look(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    with pytest.raises(errors.NotAStore, match="not a datastore root of Metaflow"):
        look(tmp_path / "other")
    import mfstore

    mfstore.open(tmp_path / "store").put(1)
    with pytest.raises(errors.NotAStore, match="store of mfstore"):
        look(tmp_path / "store")
    with pytest.raises(errors.InvalidKey):
        look(tree, "everything")
    project = tmp_path / "project"
    project.mkdir()
    os.symlink(tree, project / ".metaflow")
    assert look(project).runs == 2


@pytest.mark.parametrize("long", [False, True])
def test_verify_and_repair_in_s3(tree, s3_server, bucket, s3_env, monkeypatch, long):
    if long:  # all of them, read in several blocks
        monkeypatch.setattr(blob_reads, "LONG_BYTES", 0)
        monkeypatch.setattr(blob_reads, "BLOCK_BYTES", 1000)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", s3_server.region)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.url)
    url = f"s3://{bucket}/some/metaflow"
    with contextlib.closing(S3Backend(url, **options(s3_server))) as backend:
        with pytest.raises(errors.NotAStore):
            look(url)
        Path(f"{path_of(tree, NOISE[:3000])}_meta").unlink()
        path_of(tree, 1).unlink()
        path_of(tree, NOISE).write_bytes(DAMAGE["middle"](path_of(tree, NOISE).read_bytes()))
        upload(tree, backend)
        for level, kinds in (
            ("list", []), ("headers", ["missing"]), ("full", ["damaged", "meta-less", "missing"]),
        ):  # fmt: skip
            report = look(url, level)
            assert sorted(finding.kind for finding in report.findings) == kinds
            assert (report.flows, report.runs, report.tasks, report.blobs) == (1, 2, 4, 4)
        done = mend(url)
        assert sorted(action.kind for action in done.actions) == ["describe", "quarantine"]
        assert [finding.kind for finding in done.after.findings] == ["missing", "missing"]
        for value in (1, NOISE):
            blob(tree, "Flow", value)
        upload(tree, backend)
        # The copy in the directory still lacks the metadata that was written anew.
        assert [f.kind for f in look(url).findings] == ["meta-less"]
        mend(url)
        assert look(url).findings == ()


def test_large_blobs_of_several_members_are_checked(tmp_path):
    """Such as mfstore's own extension stores: they are decoded in parallel elsewhere."""
    root = tmp_path / "mf"
    task(root, "Flow", "1", "start", 1, {})
    workers = Workers(2)
    for number in range(6):
        data = np.random.default_rng(number).bytes(5 << 20) + bytes(4 << 20)
        path = path_of(root, data)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(encode(data, lambda: workers)))
        Path(f"{path}_meta").write_text('{"cas_raw": false, "cas_version": 1}')
    workers.close()
    assert look(root).blobs_checked == 6 and look(root).clean


@pytest.mark.second
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "of another key"])
def test_a_small_object_that_holds_much_takes_little_memory(tmp_path, whole):
    """Of what it holds, a piece at a time is looked at."""
    root = tmp_path / "mf"
    task(root, "Flow", "1", "start", 1, {})
    content = bytes(96 << 20)
    key = hashlib.sha1(content if whole else b"other").hexdigest()
    path = Path(root, "Flow", "data", key[:2], key)
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(content, 6))
    Path(f"{path}_meta").write_text('{"cas_raw": false, "cas_version": 1}')
    del content
    tracemalloc.start()
    try:
        report = look(root)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert report.clean == whole and {finding.kind for finding in report.findings} <= {"wrong-hash"}


@pytest.mark.second
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "gzip"])
def test_a_long_blob_is_read_block_by_block(tmp_path, raw):
    """Found whole, with another byte, and cut."""
    root = tmp_path / "mf"
    task(root, "Flow", "1", "start", 1, {})
    content = random.Random(3).randbytes(40 << 20)
    key = hashlib.sha1(content).hexdigest()
    path = Path(root, "Flow", "data", key[:2], key)
    path.parent.mkdir(parents=True)
    path.write_bytes(content if raw else gzip.compress(content, 0) + bytes(3 << 20))
    Path(f"{path}_meta").write_text(json.dumps({"cas_raw": raw, "cas_version": 1}))
    del content
    tracemalloc.start()
    try:
        assert look(root).clean
        with open(path, "r+b") as file:
            file.seek(30 << 20)
            file.write(b"other")
        assert [finding.kind for finding in look(root).findings] == ["wrong-hash" if raw else "damaged"]
        os.truncate(path, 35 << 20)
        assert [finding.kind for finding in look(root).findings] == ["wrong-hash" if raw else "damaged"]
        assert tracemalloc.get_traced_memory()[1] < 28 << 20
    finally:
        tracemalloc.stop()


def test_a_refusal_in_the_middle_of_a_long_blob_is_no_damage():
    class Refusing:
        def __len__(self):
            return 3 << 20

        def __getitem__(self, part):
            if part.start:
                raise errors.AccessDenied("no")
            return gzip.compress(random.Random(3).randbytes(3 << 20), 0)[part]

    with pytest.raises(errors.AccessDenied):
        digest_of(Refusing())


def test_many_blobs_are_checked_in_parallel_and_bounded_memory(tmp_path):
    root = tmp_path / "mf"
    rng = np.random.default_rng(1)
    values = {f"v{n}": rng.bytes(2000) for n in range(300)}
    keys = task(root, "Flow", "1", "start", 1, values)
    assert blobs_of(root, "Flow") == set(keys.values())
    begun = time.time()
    report = look(root)
    assert report.blobs_checked == 300 and report.clean and report.oldest >= begun - 1
