"""Processes that run flows and collect, killed at random; what they acknowledged is written down elsewhere. Then
everything is looked at."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict

import pytest

from mfstore.maintenance.metaflow.root import Root
from mfstore.metaflow.roots.layout import blob_path
from tests.rigs.live_root import GRACE, KEEP, SILENT, LiveRoot, collected
from tests.rigs.soak import lasting

SECONDS = 5 * lasting(1)
JOBS = ("write", "write", "collect", "collect")


def run_and_kill(url, journal, env):
    """Keep these jobs going; now and then one is killed, and another takes its place."""
    rng = random.Random(f"{time.time()}")
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))

    def start(job):
        seeds[job] = f"{time.time()}"
        command = [sys.executable, "-m", "tests.rigs.live_root", JOBS[job], url, str(journal), seeds[job]]
        return subprocess.Popen(command, cwd=here, env=env)

    seeds, told = {}, journal_of(journal)
    jobs = {job: start(job) for job in range(len(JOBS))}
    killed, end = 0, time.monotonic() + SECONDS
    try:
        # However long the machine takes for that: some runs must have gone, beside processes that were killed.
        while time.monotonic() < end or killed < 2 or len(told["removed"]) < 5:
            told = journal_of(journal)
            began = dict(line.split(" ") for line in told["began"])
            # Where it takes long to begin, it takes long to get anything done; on a quiet machine that is a second.
            time.sleep(rng.uniform(1.0, 6.0) * max([1.0, *(float(took) / 4 for took in [*began.values()][-2:])]))
            job = rng.choice([2, 3, 2, 3, 0])
            assert jobs[job].poll() is None, "it ended by itself"
            if seeds[job] in began:
                jobs[job].kill()
                assert jobs[job].wait() == -signal.SIGKILL
                killed += 1
                jobs[job] = start(job)
    finally:
        for process in jobs.values():
            process.kill()
            process.wait()
    return killed


def journal_of(path):
    found = defaultdict(list)
    for line in path.read_text().splitlines() if path.exists() else ():
        what, _, name = line.partition(" ")
        found[what].append(name)
    return found


def look_at_everything(url, journal):
    root = Root(url)
    try:
        time.sleep(SILENT + 2)  # those killed last count as dead
        for pause in (GRACE + 1.2, SILENT + 2, 0):
            assert not collected(root).held
            time.sleep(pause)
        place = LiveRoot(root)
        told = journal_of(journal)
        there = {info.key for info in root.backend.list("")}
        runs = {
            "/".join(key.split("/")[:2])
            for key in there if "." not in key.split("/")[0] and "/data/" not in f"/{key}"
        }  # fmt: skip
        ended = defaultdict(list)
        for name in told["ended"]:
            ended[name.split("/")[0]].append(name)
        must = {name for names in ended.values() for name in sorted(names)[-KEEP.last :]} | {*told["held"]}
        assert must <= runs
        for name in must:
            assert f"{name}/_meta/_self.json" in there
        for name in runs & {*told["ended"]}:
            for step, document in place.documents(name).items():
                for label, key in document["objects"].items():
                    path = blob_path(name.split("/")[0], key)
                    assert label.startswith("_") or path in there, f"{step} of {name} lost {path}"
        for name, _, path in (line.partition(" ") for line in told["named"]):
            assert name not in runs or path in there, f"{name} lost {path}"
        # No name that was removed is there again, and none left anything that was its own.
        assert not {*told["removed"]} & runs
        for name in told["removed"]:
            assert not [key for key in there if name.split("/")[1] in key and "mf.maintenance" not in key]
        own = {path for name in {*told["ended"]} - must for path in place.own_blobs(name)}
        kept = {path for name in runs for path in place.own_blobs(name)}
        assert own & there <= kept
        assert not [key for key in there if key.startswith("mf.maintenance/set-aside/")]
        return Counter({what: len(names) for what, names in told.items()})
    finally:
        root.close()


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.timeout(600)
@pytest.mark.skipif(lasting(1) == 1, reason="takes a minute of both cores, most of it for programs to start")
@pytest.mark.parametrize("kind", ["directory", pytest.param("radosgw", marks=pytest.mark.server)])
def test_nothing_acknowledged_is_lost(kind, tmp_path, request, monkeypatch):
    url = str(tmp_path / "mf")
    if kind == "directory":
        (tmp_path / "mf").mkdir()
    else:
        server, bucket = request.getfixturevalue("radosgw"), f"killed-{random.randrange(10**9)}"
        server.create_bucket(bucket)
        url = f"s3://{bucket}/mf"
        for name, value in {
            "METAFLOW_S3_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key, "AWS_DEFAULT_REGION": server.region,
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        # Where another test loaded Metaflow, its settings are those that it began with.
        monkeypatch.setattr("metaflow.metaflow_config.S3_ENDPOINT_URL", server.url)
    killed = run_and_kill(url, tmp_path / "journal", {**os.environ})
    print(killed, "killed", look_at_everything(url, tmp_path / "journal"))
