"""One benchmark by several machines: how they meet, what their rows together say, and whole runs over ssh and as tasks of
Metaflow."""

import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from mfstore.backends import open_backend
from mfstore.bench.clients import ClientRequest, decode_report, decode_request, encode
from mfstore.bench.html import page
from mfstore.bench.measure import Row, Usage
from mfstore.bench.meeting import LEAD, Meeting
from mfstore.bench.merging import Part, merged
from mfstore.bench.mixes import MIXED, Mix
from mfstore.bench.plan import plan
from mfstore.bench.report import client_lines, duration
from mfstore.bench.scenarios import OBJECTS, OPERATIONS, Scenario, mixed
from mfstore.bench.targets import open_target
from mfstore.bench.window import Lasting
from mfstore.errors import BackendError, InvalidKey, Refused
from mfstore.settings import resolve
from tests.bench.test_report import document
from tests.bench.test_run import mfstore
from tests.rigs.flows import HANG, FlowRig
from tests.servers.base import free_ports

PROGRAM = f"{shlex.quote(sys.executable)} -m mfstore"
SCENARIO = Scenario(OBJECTS, ((1000, 10),), OPERATIONS[OBJECTS])
PUT = next(step for step in plan([SCENARIO]).steps if step.operation == "put")


# ---- what each is asked for ------------------------------------------------------------------------


def test_a_request_comes_back_from_its_text():
    mix = Mix((("get", 3), ("put", 1)), 100, 20.0, "constant")
    request = ClientRequest("s3://b/p", "mfstore-bench-x", (SCENARIO, *mixed([SCENARIO], mix)), 7, 3.0, 1, 2,
                            Lasting(5.0, 1.0), 3, {"endpoint_url": "http://x"})  # fmt: skip
    assert decode_request(encode(request)) == request
    for text in ("", "{}", "[]", '{"scenarios": [], "lasting": null, "from_tomorrow": 1}'):
        with pytest.raises(InvalidKey):
            decode_request(text)
        with pytest.raises(InvalidKey):
            decode_report(text)


# ---- how they meet ---------------------------------------------------------------------------------


class Waiting:
    """Machines whose time passes by waiting. ``each`` is done at each look for the others."""

    def __init__(self, now, each=lambda: None):
        self.now, self.each, self.began = now, each, []

    def wait(self, seconds):
        self.now += seconds
        self.each()


@pytest.fixture
def notes(tmp_path):
    return open_backend(str(tmp_path), resolve())


def meeting(notes, number, of, time, patience=100.0):
    return Meeting(notes, number, of, patience, clock=lambda: time.now, wait=time.wait)


def test_all_begin_at_the_time_of_the_last_one(notes):
    late = Waiting(1060.0)
    second = meeting(notes, 1, 2, late)
    came = []

    def arrive():
        if not came and early.now > 1060:
            came.append(True)
            second(PUT)

    early = Waiting(1000.0, arrive)
    meeting(notes, 0, 2, early)(PUT)
    assert early.now == pytest.approx(late.now) and late.now == pytest.approx(1060 + LEAD)


def test_notes_are_removed_with_the_rest_of_the_scratch_prefix():
    target = open_target("memory://met")
    with closing(target.notes()) as told:
        Meeting(told, 0, 1, 1.0).join()
        assert [entry.key for entry in told.list("")] == ["joined/0"]
    target.remove()
    with closing(target.notes()) as told:
        assert not [*told.list("")]


def test_one_that_does_not_come_is_missed(notes):
    time = Waiting(1000.0)
    with pytest.raises(BackendError, match="of 2 clients only 0 came to put"):
        meeting(notes, 0, 2, time)(PUT)
    assert time.now == pytest.approx(1100, abs=1)


def test_one_that_was_begun_before_does_not_measure_alone(notes):
    meeting(notes, 0, 2, Waiting(0.0)).join()
    meeting(notes, 1, 2, Waiting(0.0)).join()
    with pytest.raises(Refused):
        meeting(notes, 1, 2, Waiting(0.0)).join()


# ---- what their rows together say ------------------------------------------------------------------


def part(client, begin, rows, operation="put", number=0, wall=None):
    found = [Row(n, start, seconds, None, 1000, 1, 0, None) for n, (start, seconds) in enumerate(rows)]
    wall = max(row.end for row in found) - begin if wall is None else wall
    return Part(client, 0, number, operation, "native", begin, Usage(wall, 1.0, None, 100), found, len(found), 1000, 1, 0,
                0, {"PutObject": len(found)}, None)  # fmt: skip


def test_rates_are_of_the_time_of_all_and_quantiles_of_all_rows():
    # One is at work from 100 to 110 with one object per second, the other from 104 to 114 with ten.
    slow = part("a", 100.0, [(100.0 + n, 1.0) for n in range(10)])
    fast = part("b", 104.0, [(104.0 + n / 10, 0.1) for n in range(100)])
    ((cell, rows, begin),) = merged([PUT], [slow, fast], ["a", "b"])
    assert cell.window.seconds == pytest.approx(6) and begin == 100.0 and len(rows) == 110
    assert cell.window.objects == pytest.approx(66, abs=1)
    assert cell.window.bytes == pytest.approx(6 * 1000 + 60 * 1000)
    assert cell.objects_per_second == pytest.approx(11, abs=0.2) and cell.bytes_per_second == pytest.approx(11_000)
    assert (cell.objects, cell.bytes, cell.retries, cell.requests) == (110, 110_000, 2, {"PutObject": 110})
    assert cell.usage.wall == pytest.approx(14) and cell.usage.cpu == 2.0
    # The mean of the clients' medians is 0.55.
    assert (
        cell.latency.count == 110 and cell.latency.p50 == pytest.approx(0.1) and cell.latency.max == pytest.approx(1.0)
    )
    assert [(share.client, share.objects) for share in cell.clients] == [("a", 10), ("b", 100)]


def test_a_client_without_a_step_is_no_success():
    slow = part("a", 100.0, [(100.0, 1.0)])
    with pytest.raises(BackendError, match="came from b"):
        merged([PUT], [slow], ["a", "b"])


def test_who_was_never_there_together_has_no_window():
    early, late = part("a", 100.0, [(100.0, 1.0)]), part("b", 103.0, [(103.0, 1.0)])
    ((cell, _, _),) = merged([PUT], [early, late], ["a", "b"])
    assert cell.window is None and cell.objects_per_second == pytest.approx(2 / 4)


def test_schedules_of_several_are_one():
    (scenario,) = mixed([SCENARIO], Mix((("get", 1),), 20, 10.0, "constant"))
    (step,) = [step for step in plan([scenario]).steps if step.measured]
    parts = []
    for client, begin in (("a", 100.0), ("b", 100.1)):
        inner = part(client, begin, [(begin + n / 5 + 0.05, 0.01) for n in range(10)], "get")
        rows = [row._replace(scheduled=row.start - 0.05) for row in inner.rows]
        parts += [replace(inner, rows=rows), part(client, begin, [(begin, 2.0)], MIXED)]
        parts[-1] = replace(parts[-1], rows=[])
    cells = {cell.operation: cell for cell, _, _ in merged([step], parts, ["a", "b"])}
    whole = cells[MIXED]
    assert (whole.pace.scheduled, whole.pace.done, whole.pace.reached) == (20, 20, True)
    assert whole.latency.p50 == pytest.approx(0.06) and whole.pace.service.p50 == pytest.approx(0.01)
    assert [share.objects for share in whole.clients] == [10, 10] and cells["get"].objects == 20
    shown = {**document(), "cells": [cell.to_dict() for cell in cells.values()]}
    (line,) = client_lines([shown["cells"][-1]])
    assert line.startswith("clients   all of 10 x 1000 B, 10/s constant: all at work for ")
    text = page(shown)
    assert text.count("all at work for") == 1 and "What it is bound by" not in text
    assert f"together took {duration(2.1)}." in text, "not once for each of its operations"
    assert "<div class='tile bad'>" not in text, "puts of a mix need not be verified"


# ---- whole runs ------------------------------------------------------------------------------------

SIZES = ["--size", "4KiB", "--count", "50", "--operation", "put,get", "--yes", "--json"]


def local(tmp_path, script):
    """A command in place of ssh."""
    command = tmp_path / "ssh"
    command.write_text(f"#!/bin/sh\nhost=$1\nshift\n{script}\n")
    command.chmod(0o755)
    return str(command)


@contextmanager
def sshd(folder):
    """A real one, on loopback; gives the ssh command that reaches it."""
    (port,) = free_ports(1)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    os.makedirs("/run/sshd", exist_ok=True)
    server = subprocess.Popen(
        [
            shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin"), "-D", "-e", "-f", "/dev/null", "-p", str(port),
            "-h", str(folder / "host"), "-o", "ListenAddress=127.0.0.1", "-o", f"AuthorizedKeysFile={folder}/authorized",
            "-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PasswordAuthentication=no", "-o", "PermitRootLogin=yes",
            "-o", f"PidFile={folder}/pid",
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    ssh = (
        f"ssh -F none -p {port} -i {folder}/user -o BatchMode=yes -o StrictHostKeyChecking=no "
        f"-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    )
    try:
        for _ in range(600):
            if subprocess.run([*ssh.split(), "127.0.0.1", "true"], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        yield ssh
    finally:
        server.terminate()
        server.wait()


@pytest.mark.skipif(
    not shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") or os.getuid() != 0,
    reason="there is no sshd that may be started",
)
def test_two_machines_over_ssh(tmp_path):
    place, rows = tmp_path / "place", tmp_path / "rows.csv.gz"
    with sshd(tmp_path) as ssh:
        done = mfstore(
            str(place), *SIZES, "--clients", "127.0.0.1,localhost", "--ssh", ssh, "--program", PROGRAM, "--rows", str(rows)
        )  # fmt: skip
    document = json.loads(done.stdout)
    cells = {cell["operation"]: cell for cell in document["cells"]}
    assert {name: (cell["objects"], cell["failed"]) for name, cell in cells.items()} == {
        "put": (100, 0),
        "get": (100, 0),
    }
    assert cells["get"]["verified"] == cells["put"]["verified"] == cells["put"]["bytes"] == 100 * 4096
    assert [client["client"] for client in document["run"]["clients"]] == ["0: 127.0.0.1", "1: localhost"]
    assert [share["objects"] for share in cells["put"]["clients"]] == [50, 50]
    with gzip.open(rows, "rt") as file:
        assert Counter(line.split(",")[1] for line in file)["get"] == 100
    assert not place.exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [('[ $host = b ] && echo no such host >&2 && exit 255; exec sh -c "$*"',
      "client b was lost (exit code 255): no such host"),
     ('[ $host = b ] && read line && exec echo nonsense; exec sh -c "$*"', "not a report of a client")],
)  # fmt: skip
def test_a_lost_client_is_never_success(tmp_path, script, said):
    place = tmp_path / "place"
    done = mfstore(
        str(place), *SIZES, "--clients", "a,b", "--ssh", local(tmp_path, script), "--program", PROGRAM, code=1
    )  # fmt: skip
    assert said in done.stderr and not done.stdout
    assert not place.exists()


def test_clients_stop_when_the_benchmark_is_gone(tmp_path):
    """A client waits for one that never comes; then its input ends."""
    request = ClientRequest(str(tmp_path), "mfstore-bench-x", (SCENARIO,), 0, 5.0, 0, 2)
    (tmp_path / "mfstore-bench-x").mkdir()
    client = subprocess.Popen(
        [sys.executable, "-m", "mfstore", "bench", "--worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    client.stdin.write(encode(request) + "\n")
    client.stdin.flush()
    while not list((tmp_path / "mfstore-bench-x").glob("clients/step-0/0")):
        assert client.poll() is None
        time.sleep(0.05)
    client.stdin.close()
    assert client.wait(60) == 1 and not client.stdout.read()
    client.stdout.close()


@pytest.mark.parametrize("more", [["--peers", "boto3"], ["--tasks", "2"], ["--operation", "save"]])
def test_what_several_machines_cannot_do(tmp_path, more):
    mfstore(str(tmp_path), "--yes", "--clients", "a,b", *more, code=(1, 2))


def test_the_plan_is_of_all_machines():
    alone, three = plan([SCENARIO]), plan([SCENARIO], clients=3)
    assert three.peak == 3 * alone.peak and three.forecast.sent - 16 == 3 * (alone.forecast.sent - 16)
    pool = mixed([SCENARIO], Mix((("put", 1),), 100))
    assert plan(pool, clients=3).forecast.sent - plan(pool).forecast.sent == 2 * plan(pool).steps[0].forecast.sent


def test_a_host_is_no_option(tmp_path):
    done = mfstore(str(tmp_path / "x"), *SIZES, "--clients", "a,-oProxyCommand=touch", code=1)
    assert "not an option of ssh" in done.stderr


@pytest.mark.flow
@pytest.mark.timeout(1200)
def test_two_tasks_of_metaflow(tmp_path):
    rig = FlowRig(tmp_path, {"METAFLOW_DEFAULT_DATASTORE": "local", "METAFLOW_DEFAULT_METADATA": "local"})
    place = tmp_path / "place"
    done = subprocess.run(
        [sys.executable, "-m", "mfstore", "bench", str(place), *SIZES, "--tasks", "2"], env=rig.environment(),
        cwd=tmp_path, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {cell["operation"]: cell["objects"] for cell in document["cells"]} == {"put": 100, "get": 100}
    assert len(document["run"]["clients"]) == 2 and not place.exists()
