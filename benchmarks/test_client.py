"""Metaflow's Client goes through many artifacts in a bucket 20 ms away: one of each of many tasks, or all of one task.

Radosgw writes the bucket, and a server that takes as little of the cores as can be serves a copy of it
(``far_away.py``): what is measured is the Client. A round is a process on a host that has read nothing; the first
artifact takes it botocore besides. *Metaflow's own* is what the same loop takes that leaves out the artifacts: for
objects of the Client, from metadata in a directory. With a metadata service that is a request a task more.
"""

import compileall
import shutil
import statistics
import uuid
from dataclasses import replace

import pytest

from benchmarks import far_away
from benchmarks.clock import datastore_clock
from benchmarks.test_metaflow import HERE
from mfstore.s3.bulk.client import BulkClient
from tests.rigs.flows import MFSTORE, PACKED, ROOT, FlowRig, s3_place
from tests.servers import Radosgw
from tests.servers.base import boto_client

LATENCY = 0.02
ROUNDS = 5
PROFILES = {"mfstore": MFSTORE, "mfstore, packed": PACKED}
THROUGH = {"tasks": "one of each of {} tasks", "artifacts": "{} of one task"}
SCRIPT = HERE / "flows" / "client.py"


@pytest.fixture(scope="module")
def radosgw():
    for name in ("mfstore", "metaflow_extensions"):
        compileall.compile_dir(ROOT / name, quiet=1)  # as pip does; the rig's processes write no byte code
    with Radosgw() as server:
        yield server


class Elsewhere:
    """A run in a bucket, and processes that read it on a host that has nothing of it."""

    def __init__(self, home, server, peer, through, count):
        self.side = replace(PROFILES[peer], path=(HERE / "clock", *PROFILES[peer].path))
        self.through = through
        self.clock = home / "clock"
        bucket = server.create_bucket(f"bench-{uuid.uuid4().hex[:16]}")
        self.rig = FlowRig(home, {**s3_place(server, bucket, server.url), "DATASTORE_CLOCK": str(self.clock)})
        shape = (count, 1) if through == "tasks" else (1, count)
        self.run = self.rig.python(SCRIPT, "write", *shape, side=self.side)["run"]
        self.copied = home / "bucket"
        far_away.copy(objects(server, bucket), self.copied)

    def process(self, command, **environment):
        for path in (self.rig.temporary, self.clock, self.rig.home / f"client-{self.side.name}"):
            shutil.rmtree(path, ignore_errors=True)
        self.rig.temporary.mkdir()
        self.clock.mkdir()
        return self.rig.python(SCRIPT, command, self.run, self.through, side=self.side, **environment)

    def read(self):
        with far_away.serving(copied=str(self.copied), latency=LATENCY) as url:
            found = self.process("read", METAFLOW_S3_ENDPOINT_URL=url)
        return {**found, "inside": datastore_clock.read(self.clock)[0]}


def objects(server, bucket):
    """Path, data and metadata of all that lies in a bucket."""
    pages = boto_client(server).get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
    client = BulkClient(
        bucket, endpoint_url=server.url, region_name=server.region, aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )  # fmt: skip
    for outcome in client.get_many(keys):
        yield f"/{bucket}/{keys[outcome.index]}", outcome.data, outcome.metadata


@pytest.mark.parametrize("peer", PROFILES)
@pytest.mark.parametrize("through", THROUGH)
def test_client(benchmark, radosgw, tmp_path, reads, through, peer):
    place = Elsewhere(tmp_path, radosgw, peer, through, reads)
    rounds = benchmark.pedantic(lambda: [(place.read(), place.process("look")) for _ in range(ROUNDS)], rounds=1)
    found, own = zip(*rounds, strict=True)
    assert {one["count"] for one in (*found, *own)} == {reads}
    median = {name: statistics.median(one[name] for one in found) for name in ("wall", "first", "cpu", "inside")}
    benchmark.extra_info.update(
        median, client=THROUGH[through].format(reads), peer=peer, walls=sorted(one["wall"] for one in found),
        own=statistics.median(one["wall"] for one in own),
    )  # fmt: skip
