"""A fleet as it is: a flow of Metaflow, with workers of this machine and a root in radosgw."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mfstore.fleet.request import decode
from mfstore.testing import FaultProxy, NetworkFault
from mfstore.testing.actions import slow_down
from tests.rigs.flows import HANG, FlowRig, aws_keys, s3_place
from tests.rigs.simulated_roots import SimulatedRoot
from tests.servers.base import boto_client

pytestmark = [pytest.mark.flow, pytest.mark.server, pytest.mark.timeout(1200)]

FLOWS = ("Alpha", "Beta", "Gamma")


@pytest.fixture
def bucket(radosgw):
    """A root with three runs of each flow."""
    name = radosgw.create_bucket("fleet")
    rig, client = SimulatedRoot(), boto_client(radosgw)
    for flow in FLOWS:
        for run in range(3):
            rig.run(flow, str(1_790_000_000_000_000 + run), own=1, steps=("start", "end"), logs=())
    for key, data in rig.world.objects.items():
        client.put_object(Bucket=name, Key=key, Body=data)
    return name


class Killer:
    """Kills the worker of a step once, as soon as it asks for what is remembered."""

    def __init__(self, step, home):
        self.step, self.home = step, home
        self.killed = []

    def __call__(self, exchange):
        for process in [] if self.killed else Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                ours = f"HOME={self.home}\0".encode() in (process / "environ").read_bytes()
                if ours and b"step" in words and self.step.encode() in words:
                    os.kill(int(process.name), signal.SIGKILL)
                    self.killed.append(int(process.name))
        return False


def test_a_worker_is_killed_in_the_middle_and_all_is_done(radosgw, bucket, tmp_path):
    killer = Killer("shard", tmp_path)
    with FaultProxy(radosgw.url, [NetworkFault(action=slow_down(), path=r"maintenance/known/", when=killer)]) as proxy:
        # The flow's own runs are kept on this machine.
        place = {"METAFLOW_S3_ENDPOINT_URL": proxy.url, **aws_keys(radosgw)}
        rig = FlowRig(tmp_path, place)

        def command(*words, check=True):
            given = ("--metaflow", f"s3://{bucket}/mf", "--keep-last", "1", "--grace", "0s", "--json", "--execute")
            done = subprocess.run(
                [sys.executable, "-m", "mfstore", *words, *given], env=rig.environment(), cwd=tmp_path,
                capture_output=True, text=True, timeout=HANG,
            )  # fmt: skip
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
            return json.loads(done.stdout), done.stderr

        killer.step = "nothing"
        condemned, _ = command("gc")
        assert len(condemned["condemn"]) == 6
        killer.step = "shard"
        document, log = command("fleet", "gc", "--shards", "2", "--max-workers", "1")
    assert len(killer.killed) == 1 and "Task failed" in log
    assert sorted(document["executed"]["removed"]) == sorted(condemned["condemn"])
    listed = boto_client(radosgw).list_objects_v2(Bucket=bucket, Prefix="mf/")["Contents"]
    left = {tuple(entry["Key"].split("/")[1:3]) for entry in listed if "/end/" in entry["Key"]}
    assert left == {(flow, "1790000000000002") for flow in FLOWS}
    # Two attempts' own artifacts, and the two that all runs of a flow share.
    assert len([entry for entry in listed if "/Alpha/data/" in entry["Key"]]) == 4


def test_what_is_deployed_knows_what_was_asked_for(radosgw, bucket, tmp_path):
    rig = FlowRig(tmp_path, s3_place(radosgw, bucket))
    command = ["fleet", "gc", "--metaflow", "s3://elsewhere/mf", "--keep-last", "5", "--execute", "--shards", "64"]
    command += ["--", "--with", "kubernetes", "argo-workflows", "create", "--only-json"]
    done = subprocess.run(
        [sys.executable, "-m", "mfstore", *command],
        env=rig.environment(METAFLOW_SERVICE_URL="http://127.0.0.1:1"), cwd=tmp_path, capture_output=True, text=True,
        timeout=HANG,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    template = json.loads(done.stdout)
    given = json.loads(template["metadata"]["annotations"]["metaflow/parameters"])["request"]["value"]
    request = decode(json.loads(given))
    assert (request.url, request.shards, request.execute, request.policy.last) == ("s3://elsewhere/mf", 64, True, 5)
