"""Real Metaflow flows on stock Metaflow, on mfstore and on its packed profile, one after the other in one run.

Each runs in processes of its own, in a datastore of its own, with nothing cached on the host. What is measured: wall
time; CPU of the flow's process tree; the time inside calls of the datastore, summed over processes (see
``clock/datastore_clock.py``); requests and bytes by a proxy in front of radosgw, which adds the latency; what lies in
the datastore afterwards, without the metadata that Metaflow keeps locally for all three alike.

mfstore checks every blob against its key when it reads; stock Metaflow checks nothing. Neither syncs local files, and
no checksums are sent to radosgw.
"""

import compileall
import resource
import shutil
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from benchmarks.clock import datastore_clock
from mfstore.testing import FaultProxy
from tests.rigs import flows as flow_rig
from tests.rigs.flows import MFSTORE, OFF, PACKED, ROOT, FlowRig, s3_place
from tests.servers import Radosgw
from tests.servers.base import boto_client

HERE = Path(__file__).parent
LATENCY = {"S3": 0.0, "S3, 20 ms": 0.02}
PLACES = ["local", *LATENCY]
PEERS = {"Metaflow": OFF, "mfstore": MFSTORE, "mfstore, packed": PACKED}
WORKERS = ("--max-workers", "4")  # of sixteen, the default, the stock client would start up to a thousand processes


@dataclass
class Setting:
    """A peer's datastore, and its rig."""

    rig: FlowRig
    side: object
    clock: Path
    proxy: FaultProxy | None
    stored: object

    def measure(self, work):
        """Call ``work``, which runs processes of the rig to their end."""
        shutil.rmtree(self.clock, ignore_errors=True)
        self.clock.mkdir()
        if self.proxy:
            self.proxy.clear()
        begin, used = time.perf_counter(), cpu()
        result = work()
        info = {"wall": time.perf_counter() - begin, "cpu": cpu() - used}
        info["inside"], info["calls"] = datastore_clock.read(self.clock)
        if self.proxy:
            log = self.proxy.log
            info["requests"] = Counter(exchange.method for exchange in log)
            info["sent"] = sum(exchange.request_bytes for exchange in log)
            info["received"] = sum(exchange.response_bytes for exchange in log)
        info["stored"] = self.stored()
        return result, info


def cpu():
    """Of the children that have ended, theirs included. The servers have not, and the proxy is this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Make the ``Setting`` of a peer at a place."""
    for name in ("mfstore", "metaflow_extensions"):
        compileall.compile_dir(ROOT / name, quiet=1)  # as pip does; the rig's processes write no byte code
    with ExitStack() as stack:
        servers = []

        def bucket(where):
            if not servers:
                # In a file: memstore keeps what was deleted.
                servers.append(stack.enter_context(Radosgw(store="bluestore", size=32 << 30)))
                servers.append(
                    {name: stack.enter_context(FaultProxy(servers[0].url, latency=LATENCY[name])) for name in LATENCY}
                )
            server, proxies = servers
            return server, server.create_bucket(f"bench-{uuid.uuid4().hex[:16]}"), proxies[where]

        def make(where, peer):
            home = tmp_path_factory.mktemp("rig")
            clock = home / "clock"
            side = replace(PEERS[peer], path=(HERE / "clock", *PEERS[peer].path))
            if where == "local":
                rig, proxy, stored = FlowRig(home), None, lambda: sum(p.stat().st_size for p in objects(rig))
            else:
                server, name, proxy = bucket(where)
                rig, stored = FlowRig(home, s3_place(server, name, proxy.url)), lambda: bucket_size(server, name)
            rig.place["DATASTORE_CLOCK"] = str(clock)
            return Setting(rig, side, clock, proxy, stored)

        yield make


def objects(rig):
    """The datastore's files without the metadata provider's."""
    return [path for name, path in rig.files().items() if "/_meta/" not in f"/{name}"]


def bucket_size(server, bucket):
    client = boto_client(server)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return sum(found["Size"] for page in pages for found in page.get("Contents", ()))


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Two hundred splits on Metaflow alone take longer than what is a hang in the tests."""
    monkeypatch.setattr(flow_rig, "HANG", 3600)


@pytest.fixture
def record(benchmark):
    """``record(setting, scenario, where, peer, work)``: measure once, as this test's benchmark."""

    def run(setting, scenario, where, peer, work):
        found = benchmark.pedantic(lambda: setting.measure(work), rounds=1)
        benchmark.extra_info.update(metaflow=scenario, place=where, peer=peer, **found[1])
        return found[0]

    return run


every = pytest.mark.parametrize("where", PLACES)
each = pytest.mark.parametrize("peer", PEERS)


def run(setting, flow, *command):
    return setting.rig.run(flow, *command, *WORKERS, side=setting.side)


@every
@each
def test_trivial(record, settings, where, peer):
    setting = settings(where, peer)
    record(setting, "three steps", where, peer, lambda: run(setting, "trivial.py", "run"))


@pytest.fixture(scope="module")
def finished():
    """The runs of the foreach flow, to be resumed."""
    return {}


def foreach(setting, splits):
    number = str(splits)
    flow = (HERE / "flows" / "foreach.py", "run", "--splits", number, "--max-num-splits", number)
    return run(setting, *flow).run_id


@every
@each
def test_foreach(record, settings, finished, splits, where, peer):
    setting = settings(where, peer)
    run_id = record(setting, f"foreach of {splits}", where, peer, lambda: foreach(setting, splits))
    finished[where, peer] = setting, run_id


@every
@each
def test_resume(record, settings, finished, splits, where, peer):
    """Of that run, at its last step: all others are cloned."""
    if (where, peer) not in finished:
        setting = settings(where, peer)
        finished[where, peer] = setting, foreach(setting, splits)
    setting, run_id = finished[where, peer]
    command = ("resume", "end", "--origin-run-id", run_id)
    scenario = f"resume of the foreach of {splits} at its end"
    record(setting, scenario, where, peer, lambda: run(setting, HERE / "flows" / "foreach.py", *command))


@every
@each
def test_array(record, settings, array_mib, where, peer):
    setting = settings(where, peer)
    flow = (HERE / "flows" / "large_array.py", "run", "--mib", str(array_mib))
    record(setting, f"an array of {array_mib} MiB, saved and loaded", where, peer, lambda: run(setting, *flow))


@every
@each
def test_client(record, settings, reads, where, peer):
    setting = settings(where, peer)
    script = HERE / "flows" / "client.py"
    near = {"METAFLOW_S3_ENDPOINT_URL": setting.proxy.upstream_url} if setting.proxy else {}
    written = setting.rig.python(script, "write", reads, 1, side=setting.side, **near)["run"]
    # The reader is on another host.
    shutil.rmtree(setting.rig.temporary)
    setting.rig.temporary.mkdir()
    read = lambda: setting.rig.python(script, "read", written, "tasks", side=setting.side)  # noqa: E731
    found = record(setting, f"Client, {reads} artifacts of as many tasks", where, peer, read)
    assert (found["count"], found["bytes"]) == (reads, reads * 8192)
