"""``mfstore bench`` on real storage: a directory, memory, and S3 servers."""

import csv
import errno
import gzip
import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from mfstore.backends import open_backend
from mfstore.bench import run as runs
from mfstore.bench import targets
from mfstore.bench.movers import BackendMover
from mfstore.bench.peers import Threaded, Where
from mfstore.bench.plan import plan
from mfstore.bench.scenarios import ARTIFACTS, OBJECTS, OPERATIONS, Scenario
from mfstore.bench.targets import open_target
from mfstore.cli.bench import bench
from mfstore.errors import AccessDenied, BackendError, MfstoreError, NotFound
from mfstore.s3.urls import SCHEMES
from mfstore.settings import resolve
from mfstore.testing import FaultProxy, NetworkFault, actions
from tests.rigs import command_line
from tests.servers import boto_client

SMALL = ["--size", "4KiB", "--count", "20"]


@pytest.fixture
def cloud(radosgw, monkeypatch):
    """Credentials and endpoint of a bucket in the environment, as an administrator has them."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", radosgw.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", radosgw.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", radosgw.region)
    monkeypatch.setenv("AWS_ENDPOINT_URL", radosgw.url)
    name = f"bench-{os.urandom(6).hex()}"
    radosgw.create_bucket(name)
    client = boto_client(radosgw)
    client.put_object(Bucket=name, Key="mine/data", Body=b"keep")
    yield name, radosgw
    client.close()


def keys(cloud):
    """What is in the bucket, uploads that were begun included."""
    name, server = cloud
    client = boto_client(server)
    found = [entry["Key"] for entry in client.list_objects_v2(Bucket=name).get("Contents", ())]
    uploads = [entry["Key"] for entry in client.list_multipart_uploads(Bucket=name).get("Uploads", ())]
    client.close()
    return found + uploads


def mfstore(*arguments, **options):
    return command_line.mfstore("bench", *arguments, **options)


def measure(url, *scenarios, seconds=60.0, **options):
    """Cells and rows by operation."""
    target = open_target(str(url), **options)
    assert target.cautions(0) == []
    rows = {}
    with runs.removed_at_the_end(target, print):
        target.check()
        found = list(
            runs.execute(
                target, plan(scenarios), runs.RunSettings(seconds=seconds),
                lambda cell, kept, begin: rows.setdefault(cell.operation, []).extend(kept), lambda step, done: None,
            )
        )  # fmt: skip
    return {cell.operation: cell for cell in found}, rows


def objects(size, count, **more):
    return Scenario(OBJECTS, ((size, count),), OPERATIONS[OBJECTS], **more)


def artifacts(**more):
    return Scenario(ARTIFACTS, ((100_000, 12),), OPERATIONS[ARTIFACTS], bundles=2, **more)


# ---- what it measures ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["directory", "memory", pytest.param("s3", marks=pytest.mark.server)])
def test_cells_agree_with_their_rows(place, request, tmp_path):
    url = {"directory": str(tmp_path), "memory": "memory://bench"}.get(place)
    if url is None:
        url = f"s3://{request.getfixturevalue('cloud')[0]}/below"
    cells, rows = measure(url, objects(30_000, 50))
    assert list(cells) == list(OPERATIONS[OBJECTS])
    for operation, cell in cells.items():
        good = [row for row in rows[operation] if row.error is None]
        assert (cell.failed, cell.objects) == (0, {"list": 66, "delete": 66}.get(operation, 50))
        assert cell.bytes == sum(row.size for row in good) == (50 * 30_000 if operation in ("put", "get") else 0)
        assert cell.verified == cell.bytes
        assert cell.objects_per_second == pytest.approx(cell.objects / cell.seconds)
        assert cell.tail.last_done <= cell.seconds
        assert sum(cell.slices.bytes) * cell.slices.seconds <= cell.bytes * (1 + 1e-9)
        if operation != "delete":
            assert cell.latency.max == max(row.seconds for row in good)
    cells, rows = measure(url, artifacts(duplicate=50, compressible=50))
    assert list(cells) == ["save", "load"]
    for cell in cells.values():
        assert (cell.objects, cell.bytes, cell.verified) == (2, 2_400_000, 2_400_000)
    # Half of the artifacts are stored, of those half the bytes; base64 of nothing is added but tables.
    assert 0.2 < cells["save"].stored / cells["save"].bytes < 0.35


def test_the_plan_is_what_the_server_sees(cloud, unhedged):
    """Object by object exactly; of stores and divided downloads within the limits. Counted outside of the client."""
    name, server = cloud
    with FaultProxy(server.url) as proxy:
        exact = plan(
            [objects(5000, 30, concurrency=4), objects(1 << 20, 5), objects(40 << 20, 1, concurrency=1)]
        ).forecast
        measure(
            f"s3://{name}/a",
            objects(5000, 30, concurrency=4),
            objects(1 << 20, 5),
            objects(40 << 20, 1, concurrency=1),
            endpoint_url=proxy.url,
        )
        seen = {}
        for exchange in proxy.log:
            kind = operation(exchange)
            seen[kind] = seen.get(kind, 0) + 1
        assert exact.fewest == exact.most == seen
        bodies = sum(exchange.request_bytes for exchange in proxy.log if exchange.method == "PUT")
        assert bodies == exact.sent
        proxy.clear()
        ranged = [objects(20 << 20, 2), artifacts(), artifacts(duplicate=90)]
        measure(f"s3://{name}/b", *ranged, endpoint_url=proxy.url)
        limits = plan(ranged).forecast
        counted = {}
        for exchange in proxy.log:
            counted[operation(exchange)] = counted.get(operation(exchange), 0) + 1
        for kind in set(counted) | set(limits.most):
            assert limits.fewest.get(kind, 0) <= counted.get(kind, 0) <= limits.most.get(kind, 0), kind
    assert keys(cloud) == ["mine/data"]


def operation(exchange):
    query = exchange.query
    if exchange.method == "GET":
        names = {"list-type": "ListObjectsV2", "uploads": "ListMultipartUploads", "versioning": "GetBucketVersioning"}
        return next((name for word, name in names.items() if word in query), "GetObject")
    if exchange.method == "PUT":
        return "UploadPart" if "partNumber" in query else "PutObject"
    if exchange.method == "POST":
        return (
            "DeleteObjects"
            if "delete" in query
            else "CreateMultipartUpload"
            if "uploads" in query
            else "CompleteMultipartUpload"
        )
    return {"HEAD": "HeadObject", "DELETE": "AbortMultipartUpload"}[exchange.method]


def test_the_engines_own_count_is_the_servers(cloud, unhedged):
    name, server = cloud
    with FaultProxy(server.url) as proxy:
        cells, _ = measure(f"s3://{name}", objects(5000, 40), endpoint_url=proxy.url)
        for kind, method in (("put", "PUT"), ("get", "GET"), ("head", "HEAD")):
            (count,) = cells[kind].requests.values()
            measured = [
                exchange
                for exchange in proxy.requests(method, r"/objects/0/../")
                if not exchange.query or "list" not in exchange.query
            ]
            assert count == len(measured) == 40


@pytest.mark.parametrize("engine", ["native", "aiobotocore"])
def test_failures_are_real_and_counted(cloud, unhedged, engine):
    name, _ = cloud
    scenario = Scenario(OBJECTS, ((2000, 60),), ("put", "get"), engine=engine, failure=50)
    cells, rows = measure(f"s3://{name}", scenario)
    for kind, cell in cells.items():
        assert cell.engine == engine
        assert (cell.objects, cell.failed, cell.verified) == (60, 0, 60 * 2000)
        again = sum(row.attempts - 1 for row in rows[kind])
        # The law: a half of the first tries, a quarter of the second ones, …
        assert 15 <= again <= cell.retries <= cell.failures + 5
        assert cell.requests[f"{kind.capitalize()}Object"] == 60 + cell.retries


def test_throttling_is_counted(cloud, unhedged):
    name, server = cloud
    with FaultProxy(server.url, [NetworkFault(action=actions.slow_down(), method="HEAD", every=10)]) as proxy:
        cells, _ = measure(f"s3://{name}", Scenario(OBJECTS, ((2000, 60),), ("head",)), endpoint_url=proxy.url)
        assert cells["head"].throttled == len(
            [entry for entry in proxy.requests("HEAD", "/objects/0/../") if entry.status == 503]
        )
        assert cells["head"].throttled > 3


def test_wrong_bytes_are_found(cloud, unhedged):
    """By the comparison with what was stored: this server keeps no checksums."""
    name, server = cloud
    flip = NetworkFault(action=actions.FlipResponse(), method="GET", path=r"/objects/0/../", every=7)
    with FaultProxy(server.url, [flip]) as proxy:
        cells, _ = measure(f"s3://{name}", objects(3000, 30), endpoint_url=proxy.url)
    assert (cells["get"].objects, cells["get"].failed) == (26, 4)
    assert cells["get"].errors == ("the bytes differ from what was stored",)
    assert cells["put"].verified == 26 * 3000 < cells["put"].bytes


@pytest.mark.slow
def test_the_time_limit_ends_a_measurement_and_leaves_nothing(tmp_path):
    cells, _ = measure(tmp_path, objects(2000, 200_000), seconds=0.2)
    assert 0 < cells["put"].objects < 200_000
    assert cells["put"].wanted == 200_000
    assert cells["get"].objects <= cells["put"].objects
    assert list(tmp_path.iterdir()) == []


def test_peers_store_and_read_the_same(cloud):
    name, _ = cloud
    found = json.loads(
        mfstore(
            f"s3://{name}", "-y", "--json", *SMALL, "--peers", "boto3,aiobotocore-client,metaflow", "--concurrency", "4"
        ).stdout
    )
    engines = {cell["engine"] for cell in found["cells"]}
    assert engines == {"native", "boto3", "aiobotocore-client", "metaflow"}
    for cell in found["cells"]:
        assert (cell["objects"], cell["failed"], cell["verified"]) == (20, 0, 20 * 4096)
    assert keys(cloud) == ["mine/data"]


# ---- what it is bound by -----------------------------------------------------------------------------


@pytest.fixture
def busy():
    """A program that keeps a CPU at work which nobody else wants: other tests need theirs."""
    process = subprocess.Popen([sys.executable, "-c", "import os; os.nice(15)\nwhile True: pass"])
    yield
    process.kill()
    process.wait()


def bounds(done):
    return {
        (cell["operation"], cell["scenario"]["concurrency"]): cell["verdict"]["bound"]
        for cell in json.loads(done.stdout)["cells"]
    }


def test_latency_is_told_though_another_program_keeps_the_cpus_busy(cloud, busy):
    name, server = cloud
    with FaultProxy(server.url, latency=0.06) as proxy:
        found = mfstore(
            f"s3://{name}", "-y", "--json", "--size", "4KiB", "--count", "12", "--concurrency", "1,4",
            "--operation", "put,get", "--endpoint-url", proxy.url,
        )  # fmt: skip
    words = bounds(found)
    assert [words[operation, number] for operation in ("put", "get") for number in (1, 4)] == ["latency"] * 4
    link = json.loads(found.stdout)["run"]["link"]
    assert link["request"] >= 0.06 > link["connect"] > 0


def test_latency_is_told_where_mfstore_chooses_the_concurrency(cloud):
    name, server = cloud
    with FaultProxy(server.url, latency=0.25) as proxy:
        found = mfstore(
            f"s3://{name}", "-y", "--json", "--size", "4KiB", "--count", "60", "--operation", "get",
            "--endpoint-url", proxy.url,
        )  # fmt: skip
    assert bounds(found) == {("get", None): "latency"}
    (cell,) = json.loads(found.stdout)["cells"]
    assert 8 <= cell["in_flight"]["most"] <= 60
    assert f"mfstore had {cell['in_flight']['most']} requests under way" in cell["verdict"]["because"]


# ---- the command ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_quick_on_a_directory(tmp_path):
    place, out = tmp_path / "place", tmp_path / "out"
    place.mkdir(), out.mkdir()
    (place / "mine").write_text("keep")
    done = mfstore(
        place, "--yes", "--seconds", "0.3", "-o", out / "a.json", "--rows", out / "a.csv.gz", "--html", out / "a.html"
    )
    for word in (
        "PUT",
        "GET",
        "SAVE",
        "LOAD",
        "p99.9",
        "verified  ",
        "ceilings",
        "bound by",
        "next:",
        "success   100.000%",
    ):
        assert word in done.stdout, word
    assert re.search(r"bytes +\d+ MB written", done.stderr)
    document = json.loads((out / "a.json").read_text())
    assert (document["format"], document["schema"]) == ("mfstore-bench", 1)
    with gzip.open(out / "a.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    for number, cell in enumerate(document["cells"]):
        assert cell["verdict"]["advice"], number
        mine = [row for row in rows if (int(row["scenario"]), row["operation"]) == (cell["number"], cell["operation"])]
        assert sum(int(row["bytes"]) for row in mine) == cell["bytes"]
        if cell["operation"] != "list":
            assert len(mine) == cell["objects"]
    assert [path.name for path in place.iterdir()] == ["mine"]
    again = mfstore("--from", out / "a.json", "--html", out / "b.html")
    assert again.stdout == done.stdout
    assert (out / "b.html").read_text() == (out / "a.html").read_text()
    compared = mfstore("--compare", out / "a.json", out / "a.json")
    assert "0 faster, 0 slower" in compared.stdout
    (sizes, everything) = (
        json.loads(mfstore("--compare", out / "a.json", out / "a.json", "--json").stdout),
        document["cells"],
    )
    assert len(sizes["changes"]) == len(everything)


@pytest.mark.second
def test_a_directory_that_was_not_there_is_gone_again(tmp_path):
    mfstore(tmp_path / "a" / "b", "-y", *SMALL, "--operation", "put")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_may_be_called_as_urls_begin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {open_target(name).kind for name in SCHEMES} == {"directory"}


def test_the_plan_alone_does_nothing(cloud):
    name, server = cloud
    with FaultProxy(server.url) as proxy:
        done = mfstore(
            f"s3://{name}/p", "--plan", *SMALL, "--price-put", "5", "--price-get", "0.4", "--endpoint-url", proxy.url
        )
        assert proxy.log == []
    assert "20 x 4 KiB" in done.stdout
    assert re.search(r"requests +[\d,]+ to [\d,]+ without retries", done.stderr)
    assert re.search(r"cost +at most [\d.]+:", done.stderr)
    plain = json.loads(
        mfstore(f"s3://{name}/p", "--plan", "--json", *SMALL, "--operation", "put", "--price-put", "5").stdout
    )
    assert plain["cost"] == pytest.approx(5 * (20 + 16 + 1 + 3) / 1000)


@pytest.mark.second
def test_it_asks_before_it_starts(tmp_path):
    done = mfstore(tmp_path, *SMALL, code=2)
    assert "--yes" in done.stderr
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mfstore", "bench", str(tmp_path), *SMALL], stdin=child, stdout=child, stderr=child
    )
    os.close(child)
    shown = b""
    while b"[Y/n]" not in shown:
        shown += os.read(parent, 1000)
    assert list(tmp_path.iterdir()) == []
    os.write(parent, b"n\n")
    with pytest.raises(OSError) as ended:
        while shown := os.read(parent, 1000):
            pass
    assert ended.value.errno == errno.EIO
    assert process.wait(60) == 130
    os.close(parent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.second
def test_operations_that_go_on_for_a_time_and_are_repeated(tmp_path):
    place, out = tmp_path / "place", tmp_path / "out.json"
    done = mfstore(
        place, "-y", "--duration", "0.2s", "--warm-up", "0.1s", "--repeat", "2", "--size", "4KiB", "--count", "1",
        "--duplicate", "0", "--operation", "put,get,list,delete,save,load", "-o", out, "--rows", tmp_path / "rows.csv.gz",
    )  # fmt: skip
    assert "each of 0.3 s" in done.stderr and ", 2 times" in done.stderr
    assert "mean, 95 %" in done.stdout and "steady" in done.stdout
    assert list(tmp_path.glob("place/*")) == []
    document = json.loads(out.read_text())
    assert (document["run"]["duration"], document["run"]["warm_up"], document["run"]["repeat"]) == (0.2, 0.1, 2)
    cells = {cell["operation"]: cell for cell in document["cells"] if cell["scenario"]["layer"] == OBJECTS}
    assert set(cells) == {"put", "get", "list", "delete"}
    for operation, cell in cells.items():
        assert len(cell["repeats"]["rates"]) == 2 and cell["repeats"]["failed"] == 0
        assert cell["repeats"]["low"] <= cell["repeats"]["mean"] <= cell["repeats"]["high"]
        assert cell["objects_per_second"] == min(cell["repeats"]["rates"])
        if operation != "delete":
            assert cell["steadiness"]["warm_up"] >= 0.1 or not cell["steadiness"]["thirds"]
    # More than there are of the scenario: new ones are put, and all are read again and again.
    for operation in ("put", "get"):
        assert cells[operation]["objects"] == cells[operation]["wanted"] > 1
    artifacts = [cell for cell in document["cells"] if cell["scenario"]["layer"] == ARTIFACTS]
    assert {cell["operation"] for cell in artifacts} == {"save", "load"}
    assert all(cell["verified"] == cell["bytes"] for cell in artifacts if cell["operation"] == "load")
    with gzip.open(tmp_path / "rows.csv.gz", "rt") as file:
        assert {row["repetition"] for row in csv.DictReader(file)} == {"0", "1"}


# ---- interrupted -------------------------------------------------------------------------------------


@pytest.fixture
def begun():
    """Start a benchmark that takes long, as a terminal does: with the signal for Ctrl-C as it is by default."""
    processes = []

    def begin(url, *arguments):
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in a background ignores it
        command = [sys.executable, "-m", "mfstore", "bench", str(url), "-y", "--seconds", "120", *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
        )
        signal.signal(signal.SIGINT, before)
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def interrupt(process, sign, ready):
    """Send the signal once it is ``ready``, and wait for the end."""
    deadline = time.monotonic() + 250
    while not ready():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(sign)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in errors) == (130, False), errors


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_on_a_directory(tmp_path, begun, sign):
    process = begun(tmp_path, "--size", "4KiB", "--count", "100000")
    interrupt(process, sign, lambda: len(list(tmp_path.glob("*/objects/0/*/*"))) > 50)
    assert list(tmp_path.iterdir()) == []


def moved(directory):
    """By what the benchmark measures."""
    mover = BackendMover(open_backend(str(directory), resolve()), "directory", 3)
    return mover.put, lambda rows: next(rows)


class Idle(Threaded):
    """A client that is done with each object at once."""

    def open(self):
        pass

    def put_one(self, key, data):
        pass


def by_a_peer(directory):
    """By what it is compared with."""
    peer = Idle(Where("", "", "", "", "", concurrency=3))
    return (lambda items: peer.put(items, lambda *_: None)), lambda rows: rows


@pytest.mark.parametrize("way", [moved, by_a_peer])
def test_interrupted_while_its_threads_begin(tmp_path, monkeypatch, way):
    """Those that have begun end first, and one that begins later does nothing: none writes while all is removed."""
    put, go_on = way(tmp_path / "store")
    start, began = threading.Thread.start, []

    def interrupted(thread):
        start(thread)
        began.append(thread)
        if len(began) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go_on(put((f"{number:x}/object", b"data") for number in itertools.count()))
    assert [thread.is_alive() for thread in began] == [False, False]


def test_interrupted_on_s3(cloud, begun):
    process = begun(f"s3://{cloud[0]}/below", "--size", "4KiB", "--count", "50000", "--concurrency", "4")
    interrupt(process, signal.SIGINT, lambda: len(keys(cloud)) > 50)
    assert keys(cloud) == ["mine/data"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BackendError("the service is gone")])
def test_the_removal_learns_that_the_measurement_was_cut_off(monkeypatch, error):
    """It then waits for what was sent and not answered."""
    learnt = []

    def execute(*_):
        raise error
        yield

    monkeypatch.setattr(runs, "execute", execute)
    monkeypatch.setattr(targets.BackendTarget, "remove", lambda _, *, cut_off=False: learnt.append(cut_off))
    done = CliRunner().invoke(bench, ["memory://", "-y", *SMALL])
    assert (learnt, done.exit_code) == ([True], 1), done.output


def test_what_a_server_stores_a_moment_after_the_interruption(cloud, monkeypatch):
    """It had been sent before; it is stored while the removal waits for just that."""
    target = open_target(f"s3://{cloud[0]}/below")
    client = boto_client(cloud[1])
    waits = []

    def wait(seconds):
        if not waits:
            client.put_object(Bucket=cloud[0], Key=f"{target.object_prefix}late", Body=b"late")
        elif len(waits) == 1:
            client.create_multipart_upload(Bucket=cloud[0], Key=f"{target.object_prefix}late")
        waits.append(seconds)

    monkeypatch.setattr(targets, "sleep", wait)
    with pytest.raises(KeyboardInterrupt), runs.removed_at_the_end(target, print):
        target.check()
        raise KeyboardInterrupt
    client.close()
    assert keys(cloud) == ["mine/data"]
    assert waits == [targets.LATE_SECONDS] * 4  # the last two find nothing


def versions(client, name):
    found = client.list_object_versions(Bucket=name)
    return [entry["Key"] for kind in ("Versions", "DeleteMarkers") for entry in found.get(kind, ())]


def test_a_bucket_that_keeps_versions_is_told_of_and_none_stay(cloud):
    name, server = cloud
    client = boto_client(server)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    done = mfstore(f"s3://{name}/below", "-y", *SMALL, "--operation", "put")
    assert re.search(r"warning +the bucket keeps versions: .* stays in it, and costs", done.stderr)
    assert versions(client, name) == ["mine/data"]
    refusal = NetworkFault(action=actions.access_denied(), method="GET", query="versions")
    with FaultProxy(server.url, [refusal]) as proxy:
        kept = mfstore(f"s3://{name}/below", "-y", *SMALL, "--operation", "put", "--endpoint-url", proxy.url)
    assert "versions below s3://" in kept.stderr and "NoncurrentVersionExpiration" in kept.stderr
    assert len(versions(client, name)) > 40
    with FaultProxy(server.url, [replace(refusal, query="versioning")]) as proxy:
        unknown = mfstore(f"s3://{name}/p", "-y", *SMALL, "--operation", "put", "--endpoint-url", proxy.url)
    assert "may not be asked (s3:GetBucketVersioning)" in unknown.stderr
    client.close()


def test_interrupted_in_an_upload_in_parts(cloud, begun):
    process = begun(f"s3://{cloud[0]}/below", "--size", "100MiB", "--count", "10", "--operation", "put")
    interrupt(process, signal.SIGINT, lambda: any("/objects/" in key for key in keys(cloud)[1:]))
    assert keys(cloud) == ["mine/data"]


# ---- what a user may get wrong -----------------------------------------------------------------------------


def test_a_place_that_cannot_be_reached(cloud):
    name, _ = cloud
    done = mfstore(f"s3://{name}", "-y", *SMALL, "--endpoint-url", "http://127.0.0.1:9", code=1)
    assert "127.0.0.1:9" in done.stderr


def test_wrong_credentials_and_missing_buckets(cloud, monkeypatch):
    name, _ = cloud
    with pytest.raises(NotFound, match="bucket"):
        open_target("s3://no-such-bucket-anywhere").check()
    assert "NoSuchBucket" in mfstore("s3://no-such-bucket-anywhere", "-y", code=1).stderr
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AccessDenied):
        open_target(f"s3://{name}").check()
    done = mfstore(f"s3://{name}", "-y", code=1)
    assert "SignatureDoesNotMatch" in done.stderr


def test_no_permission_to_delete_is_found_before_anything_is_measured(cloud):
    name, server = cloud
    with FaultProxy(server.url, [NetworkFault(action=actions.access_denied(), method="POST", query="delete")]) as proxy:
        done = mfstore(f"s3://{name}/x", "-y", *SMALL, "--endpoint-url", proxy.url, code=1)
        assert len(proxy.requests("PUT")) == 1
    assert "AccessDenied" in done.stderr
    assert re.search(r"could not remove all of s3://.*/x/mfstore-bench-[0-9a-f]{16}", done.stderr)


@pytest.mark.second
def test_a_file_and_a_place_without_permission(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "not a directory" in mfstore(tmp_path / "file", "-y", code=1).stderr
    assert (tmp_path / "file").read_text() == "mine"
    assert "mfstore:" in mfstore("/proc/nowhere", "-y", code=1).stderr


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount a small file system")
    try:
        done = mfstore(disk, "-y", "--size", "1MiB", "--count", "200", "--operation", "put,get", code=1)
        assert "space" in done.stderr
        assert list(disk.iterdir()) == []
        with open(disk / "hog", "wb") as file:
            file.write(bytes(60 << 20))
        mfstore(disk, "-y", *SMALL, code=1)
        assert [path.name for path in disk.iterdir()] == ["hog"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.second
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "URL"),
        (["--compare", "a", "b", "url"], "URL"),
        (["x", "-y", "--size", "12parsecs"], "size"),
        (["x", "-y", "--duplicate", "101"], "101"),
        (["x", "-y", "--concurrency", "0"], "0"),
        (["x", "-y", "--operation", "steal"], "steal"),
        (["x", "-y", "--peers", "boto3"], "clouds only"),
        (["x", "-y", "--warm-up", "1s"], "--duration"),
        (["x", "-y", "--duration", "1s", "--seconds", "2"], "--seconds"),
        (["x", "-y", "--duration", "0"], "more than nothing"),
        (["x", "-y", "--duration", "5"], "5s"),
        (["x", "-y", "--duration", "1s", "--mix", "get=1"], "--mix"),
        (["x", "-y", "--match", "nothing like it"], "nothing like it"),
        (["x", "-y", "--peers", "curl"], "curl"),
        (["gopher://x", "-y"], "gopher"),
        (["--from", "missing.json"], "missing.json"),
    ],
)
def test_wrong_usage(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in mfstore(*arguments, code=(1, 2)).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_peer_that_is_not_installed(monkeypatch):
    from mfstore.bench import cloud_peers, peers

    monkeypatch.setattr(peers.Boto3, "needs", ("no_such_module",))
    with pytest.raises(MfstoreError, match="pip install no_such_module"):
        cloud_peers.require(["boto3"], "s3")


@pytest.mark.server
@pytest.mark.parametrize("scheme", ["az", "gs"])
def test_other_clouds(scheme, request, monkeypatch):
    """A place in Azure or Google Cloud is measured, and left as it was; the report names the service."""
    if scheme == "az":
        server = request.getfixturevalue("azurite")
        url, service = f"az://{server.new_container()}/below", "Azure Blob Storage"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", server.connection_string)
        listed = f"restype=container&comp=list&prefix={url[5:].partition('/')[2]}"
        left = lambda: b"<Blob>" in server.request("GET", url[5:].partition("/")[0], listed).body  # noqa: E731
    else:
        server = request.getfixturevalue("gcs_server")
        url, service = f"gs://{server.new_bucket()}/below", "Google Cloud Storage"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        left = lambda: b'"name"' in server.request("GET", f"storage/v1/b/{url[5:].partition('/')[0]}/o").body  # noqa: E731
    arguments = [
        "bench",
        url,
        "-y",
        "--json",
        "--size",
        "4KiB",
        "--count",
        "6",
        "--operation",
        "put,get,list,delete,save",
    ]
    found = CliRunner().invoke(bench, arguments[1:])
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert document["run"]["service"] == service
    assert {cell["operation"] for cell in document["cells"]} >= {"put", "get", "list", "delete", "save"}
    assert not sum(cell["failed"] for cell in document["cells"])
    assert not left()
