"""S3 clients side by side: CPU of the client's process tree, and wall time. Each in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks import floor as floors
from benchmarks.far_away import serving
from benchmarks.s3_peers import CURRENT, PEERS, SHARES, current_libraries, environment
from tests.servers import Nginx, Radosgw

ROOT = Path(__file__).parent.parent
SMALL, BIG = 4 << 10, 64 << 20
NUMBER_SMALL, NUMBER_BIG = 10_000, 8
EXIST = {SMALL: 1000, BIG: 8}
ROUNDS = 3


def place_of(server, secure):
    return {
        "url": server.https_url if secure else server.url, "bucket": "bench", "ca_file": server.ca_file,
        "region": server.region, "access_key": server.access_key, "secret_key": server.secret_key,
    }  # fmt: skip


def filled(server):
    """The objects that are got, beneath nginx."""
    server.create_bucket("bench")
    for size, count in EXIST.items():
        for number in range(count):
            path = server.root / "bench" / "get" / str(size) / str(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(size))


@pytest.fixture(scope="module")
def nginx():
    with Nginx() as server:
        filled(server)
        yield server


@pytest.fixture(scope="module")
def radosgw():
    with Radosgw() as server:
        server.create_bucket("bench")
        job = {"peer": "mfstore", "operation": "put", "size": SMALL, "count": 1000, "exist": 1000, "rounds": 1}
        child({**job, "where": place_of(server, False)})
        yield server


STUCK = 900
"""Seconds after which a client is taken to hang. metaflow.S3's three rounds of 500 objects take 25 to 30 s of CPU, and
took more than 120 s beside twenty other processes."""


def python(code_or_module, argument, where, peer=None, timeout=STUCK):
    """The last line that a new interpreter prints, as JSON."""
    command = [sys.executable, *code_or_module, json.dumps(argument)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment(where, peer), timeout=timeout, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def child(job):
    return python(["-m", "benchmarks.s3_peers"], job, job["where"], job["peer"])


FLOOR = "floor"
CURRENT_FLOOR = "floor, current OpenSSL"
FLOORS = (FLOOR, CURRENT_FLOOR)
UNSIGNED = (
    "mfstore, unsigned", "obstore, unsigned", FLOOR, "mfstore, unsigned, with CRC64NVME", "floor, with CRC64NVME",
)  # fmt: skip


def measured(benchmark, server, secure, peer, operation, size, count, checksum="none", **options):
    """One cell, with what it was."""
    where = place_of(server, secure)
    job = {
        "peer": peer, "operation": operation, "size": size, "count": count, "exist": EXIST[size], "rounds": ROUNDS,
        "where": where,
    }  # fmt: skip
    result = {}

    def once():
        try:
            if peer in FLOORS:
                libraries = current_libraries()[1] if peer == CURRENT_FLOOR else None
                found = floors.floor(
                    where, operation, size, EXIST[size], count, checksum=checksum, libraries=libraries, **options
                )
                result.update(vars(found), signs=options.get("signed", not secure), checksums=checksum)
            else:
                result.update(child(job))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            if peer != "awscrt":
                raise
            result["failed"] = str(error)[-500:]

    benchmark.pedantic(once, rounds=1)
    if server.name == "nginx":  # which keeps the parts of each upload, in memory
        shutil.rmtree(server.root / "bench" / ".parts", ignore_errors=True)
        shutil.rmtree(server.root / "bench" / "put", ignore_errors=True)
    benchmark.extra_info.update(result, peer=peer, operation=operation, size=size, secure=secure, server=server.name)
    if "failed" in result:
        pytest.skip(f"awscrt cannot talk to this endpoint: {result['failed'][-200:]}")


@pytest.mark.parametrize("peer", [*PEERS, *FLOORS])
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(("operation", "size"), [("get", SMALL), ("get", BIG), ("put", SMALL), ("put", BIG)])
def test_nginx(benchmark, nginx, secure, operation, size, peer):
    if operation == "get" and peer == "mfstore with CRC64NVME":
        pytest.skip("a GET is the same with and without")
    if peer in (CURRENT, CURRENT_FLOOR):
        if not secure:
            pytest.skip("without TLS it is the same")
        if current_libraries() is None:
            pytest.skip("pycurl was installed without libraries of its own")
    benchmark.extra_info["s3"] = True
    measured(benchmark, nginx, secure, peer, operation, size, NUMBER_SMALL if size == SMALL else NUMBER_BIG)


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer != CURRENT])
def test_radosgw_put(benchmark, radosgw, peer):
    """A server that verifies signatures; fewer, because it is what takes the time."""
    benchmark.extra_info["s3"] = True
    measured(benchmark, radosgw, False, peer, "put", SMALL, 1000)


@pytest.mark.parametrize("size", [SMALL, BIG])
@pytest.mark.parametrize("peer", UNSIGNED)
def test_unsigned(benchmark, nginx, peer, size):
    """PUTs over http whose payload nobody signs, as in a private network. Of SDKs only obstore has a switch for it."""
    count = NUMBER_SMALL if size == SMALL else NUMBER_BIG
    benchmark.extra_info["unsigned"] = peer
    checksum, floor = ("CRC64NVME" if "CRC64NVME" in peer else "none"), {}
    if peer.startswith(FLOOR):
        peer, floor = FLOOR, {"signed": False}
    measured(benchmark, nginx, False, peer, "put", size, count, checksum, **floor)


@pytest.mark.parametrize("size", [SMALL, BIG])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads(benchmark, nginx, threads, size):
    """How GETs over https grow with threads for transfers, mfstore's and the floor's."""
    count = NUMBER_SMALL if size == SMALL else NUMBER_BIG
    named = f"mfstore, {threads} thread{'s' if threads > 1 else ''}"
    benchmark.extra_info["threads"] = threads
    benchmark.extra_info["floor"] = vars(
        floors.floor(place_of(nginx, True), "get", size, EXIST[size], count, threads=threads)
    )
    measured(benchmark, nginx, True, named, "get", size, count)


ONE = """
import json, sys, time
from benchmarks.s3_peers import made, cpu
where = json.loads(sys.argv[1])
peer = made("mfstore", where)
def per_call(work, n=500):
    work()
    rounds = []
    for _ in range(3):
        begin, wall = cpu(), time.perf_counter()
        for _ in range(n):
            work()
        rounds.append(((cpu() - begin) / n, (time.perf_counter() - wall) / n))
    return min(rounds)
import boto3
client = boto3.session.Session().client("s3", config=peer.config, **peer.named())
key = "get/4096/0"
many = per_call(lambda: list(peer.client.get_many([key])))
single = per_call(lambda: client.get_object(Bucket=where["bucket"], Key=key)["Body"].read())
print(json.dumps({"many": many, "single": single}))
"""


def test_single_object(benchmark, nginx):
    """get_many of one object, beside a single GET by boto3: CPU and wall."""
    result = benchmark.pedantic(lambda: python(["-c", ONE], place_of(nginx, False), place_of(nginx, False)), rounds=1)
    benchmark.extra_info.update(result)


KERNEL = """
import hashlib, json, os, socket, sys, time
from urllib.parse import urlsplit
where = json.loads(sys.argv[1])
url = urlsplit(where["url"])
def best(work, of):
    rounds = []
    for _ in range(5):
        begin = os.times()
        work()
        end = os.times()
        rounds.append((end.system - begin.system, end.user - begin.user))
    return [seconds / of for seconds in min(rounds)]
def request(key):
    return f"GET /{where['bucket']}/{key} HTTP/1.1\\r\\nHost: {url.netloc}\\r\\n\\r\\n".encode()
place = memoryview(bytearray(1 << 20))
def answer(connection, size):
    got = connection.recv_into(place)
    left = bytes(place[:got]).index(b"\\r\\n\\r\\n") + 4 + size - got
    while left:
        left -= connection.recv_into(place, min(left, len(place)))
connections = [socket.create_connection((url.hostname, url.port)) for _ in range(32)]
small, big = request("get/4096/0"), request(f"get/{64 << 20}/0")
def exchange():
    for _ in range(300):
        for connection in connections:
            connection.send(small)
        for connection in connections:
            answer(connection, 4096)
def download():
    for _ in range(8):
        connections[0].send(big)
        answer(connections[0], 64 << 20)
data = bytes(64 << 20)
print(json.dumps({
    "small": best(exchange, 300 * 32)[0], "big": best(download, 8 * len(data) / 1e9)[0],
    "sha256": sum(best(lambda: hashlib.sha256(data), len(data) / 1e9)),
}))
"""


def test_kernel(benchmark, nginx):
    """What no client saves here: the kernel's part of plain sockets that exchange prepared bytes, and what the system's
    OpenSSL takes for the hash that signs a payload and for the cipher."""

    def kernel():
        found = python(["-c", KERNEL], place_of(nginx, False), place_of(nginx, False))
        speed = ["openssl", "speed", "-mr", "-seconds", "2", "-bytes", "16384", "-evp", "aes-256-gcm"]
        told = subprocess.run(speed, capture_output=True, text=True, check=True).stdout
        rate = float(next(line for line in told.splitlines() if line.startswith("+F:")).rpartition(":")[2])
        return {**found, "aes": 1e9 / rate}

    benchmark.extra_info.update(benchmark.pedantic(kernel, rounds=1))


NUMBER_EQUAL = 500
"""As many as metaflow.S3 does in a few seconds; its processes are started for each call, whatever the count."""


@pytest.mark.parametrize("operation", ["get", "put"])
def test_metaflow_at_equal_counts(benchmark, nginx, operation):
    """CPU per 4 KiB object, metaflow.S3 beside mfstore, the same number of objects for both."""
    job = {"operation": operation, "size": SMALL, "exist": EXIST[SMALL], "rounds": ROUNDS}

    def cpu(peer):
        count = round(NUMBER_EQUAL / SHARES.get(peer, 1.0))
        found = child({**job, "peer": peer, "count": count, "where": place_of(nginx, False)})
        assert found["count"] == NUMBER_EQUAL
        return found["cpu"]

    result = benchmark.pedantic(lambda: {peer: cpu(peer) for peer in ("metaflow.S3", "mfstore")}, rounds=1)
    benchmark.extra_info.update(result, count=NUMBER_EQUAL)


MEMORY = """
import json, sys, tempfile
from benchmarks.s3_peers import made
where = json.loads(sys.argv[1])
into = where.pop("into")
def status(name):
    return int(open('/proc/self/status').read().split(name + ':')[1].split()[0]) * 1024
def reset():
    open('/proc/self/clear_refs', 'w').write('5')
peer = made("mfstore", where)
peer.get(["get/4096/0"], lambda *_: None)
keys = [f"get/{64 << 20}/{n % 8}" for n in range(32)]
reset(); before = status('VmRSS')
if into == "bytes":
    for outcome in peer.client.get_many(keys):
        del outcome
else:
    with tempfile.TemporaryDirectory() as place:
        names = iter(range(1 << 30))
        peer.client.get_many(keys, into="files", dest=lambda key: f"{place}/{next(names)}")
print(json.dumps(status('VmHWM') - before))
"""
BUDGET, SLACK = 256 << 20, 32 << 20
"""The default of ``memory``, and what connections and the interpreter take. The oldest object gets its place even when
the budget is used up, so it may be one object more."""


def test_memory(benchmark, nginx):
    """Growth of the peak RSS while 2 GiB are got in objects of 64 MiB, and dropped one by one."""
    where = place_of(nginx, False)

    def growth(into):
        # Each in a process of its own: memory that one gave back would hide what the other takes.
        return python(["-c", MEMORY], {**where, "into": into}, where)

    result = benchmark.pedantic(lambda: {f"into_{into}": growth(into) for into in ("bytes", "files")}, rounds=1)
    benchmark.extra_info.update(result)
    assert result["into_bytes"] <= BUDGET + BIG + SLACK
    assert result["into_files"] <= SLACK


FAR = """
import json, sys, time
from benchmarks.s3_peers import cpu
from mfstore.s3.bulk.client import BulkClient
url, size, count = json.loads(sys.argv[1])
client = BulkClient(
    "bench", endpoint_url=url, region_name="us-east-1", aws_access_key_id="bench", aws_secret_access_key="bench"
)
client.get_many(["get/4096/0"]).wait()  # what the first request of a process takes is no matter of distance
begin, before = time.perf_counter(), cpu()
size = sum(len(outcome.data) for outcome in client.get_many([f"get/{size}/{n}" for n in range(count)]))
print(json.dumps({"rate": size / (time.perf_counter() - begin), "cpu": cpu() - before}))
"""


class Distance(NamedTuple):
    """A network, and what is got over it."""

    latency: float
    bandwidth: float | None
    """Bytes per second of each connection."""
    size: int
    count: int

    def predicted(self):
        """Bytes per second by the formula: as many calls as it says, each with its latency and the bytes of a part; no
        more than the bandwidth that it is meant to fill."""
        from mfstore.s3.transfers.downloads import SHORTEST_PIECE
        from mfstore.s3.transfers.scheduler import ASSUMED_BANDWIDTH, calls_to_fill

        part = min(self.size, SHORTEST_PIECE)
        seconds = self.latency + (part / self.bandwidth if self.bandwidth else 0.0)
        return min(calls_to_fill(part) * part / seconds, ASSUMED_BANDWIDTH)


DISTANCES = {
    "fast": Distance(0.03, 90e6, BIG, 32),
    "slow": Distance(0.03, 10e6, BIG, 16),
    "small": Distance(0.06, None, SMALL, 10_000),
}
"""What 10 Gbit/s bring takes most of two cores from client and server together, so whatever else runs shows in the
first. The others take a tenth of that."""
FAR_ROUNDS = 5


def from_far(distance):
    """What the client says, and the CPU that the server took meanwhile."""
    options = {"sizes": [SMALL, distance.size], "latency": distance.latency, "bandwidth": distance.bandwidth}
    with serving(**options) as url:
        before = cpu_below()
        where = {"url": url, "bucket": "bench", "region": "us-east-1", "access_key": "bench", "secret_key": "bench"}
        found = python(["-c", FAR], [url, distance.size, distance.count], {**where, "ca_file": None})
        return {**found, "others": cpu_below() - before}


def cpu_below():
    """User and system seconds of this process's children that run, and of theirs."""
    seconds, waiting = 0.0, [os.getpid()]
    while waiting:
        process = waiting.pop()
        below = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        waiting += below
        for child_process in below:
            fields = Path(f"/proc/{child_process}/stat").read_text().rpartition(")")[2].split()
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


@pytest.mark.parametrize("named", DISTANCES)
def test_far_away(benchmark, named):
    """How much comes from far away, without settings, of what the formula predicts: the median of some runs. And where
    that is as much as the machine can move, what the same two processes move when nothing delays or limits them."""
    distance = DISTANCES[named]
    fastest = distance._replace(latency=0.0, bandwidth=None) if named == "fast" else None

    def both():  # in turns
        rounds = [(from_far(fastest) if fastest else None, from_far(distance)) for _ in range(FAR_ROUNDS)]
        free, far = zip(*rounds, strict=True)
        return sorted(one["rate"] for one in free if one), sorted(far, key=lambda one: one["rate"])

    free, far = benchmark.pedantic(both, rounds=1)
    benchmark.extra_info.update(
        far[FAR_ROUNDS // 2], distance=distance._asdict(), predicted=distance.predicted(),
        free=free[FAR_ROUNDS // 2] if free else None, rates=[found["rate"] for found in far],
    )  # fmt: skip
