"""Real runs of Metaflow, migrated by the command and read by released Metaflow: local and in S3."""

import json
import os
import re
import signal
import subprocess
import sys
import uuid

import pytest

from mfstore.testing import FaultProxy, NetworkFault
from mfstore.testing.actions import Reset
from tests.rigs.flows import FLOWS, HANG, MFSTORE, OFF, PACKED, finish_all, s3_place
from tests.rigs.migration import build, files_in_s3
from tests.rigs.soak import in_soaks
from tests.servers.base import boto_client

pytestmark = [pytest.mark.flow, pytest.mark.timeout(1200)]

COMMAND = "import sys; sys.argv[0] = 'metaflow'; from metaflow.cmd.main_cli import start; start()"


def metaflow(rig, *arguments, code=0, side=MFSTORE, **environment):
    """``metaflow mfstore … --json``; its document."""
    done = subprocess.run(
        [side.python, "-c", COMMAND, "mfstore", *arguments, "--json"],
        env=rig.environment(side, **environment), cwd=FLOWS, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else done.stderr


def data_jsons(rig):
    """Every data.json of the rig's datastore, by path."""
    root = rig.place.get("METAFLOW_DATASTORE_SYSROOT_S3")
    found = files_in_s3(rig, root) if root else {path: file.read_bytes() for path, file in rig.files().items()}
    # Cards have a data.json too.
    return {path: json.loads(data) for path, data in found.items() if re.fullmatch(r"(\w+/){4}\d\.data\.json", path)}


def objects(rig):
    return {path: (found["objects"], found["info"]) for path, found in data_jsons(rig).items()}


@in_soaks
def test_real_runs_there_and_back(make_rig, table):
    """A foreach, a retried task, one that failed, an IncludeFile, a card, a run that halted and the one that resumed
    it: written by released Metaflow, brought to the packed profile, resumed there, and brought back for released
    Metaflow. In S3, where a run of released Metaflow takes twenty seconds of CPU, ours writes what it would write."""
    rig = make_rig()
    writer = MFSTORE if "METAFLOW_DATASTORE_SYSROOT_S3" in rig.place else OFF
    halting = rig.start("halting.py", "run", side=writer, HALT="1", METAFLOW_USER="first")
    inputs = rig.start("inputs.py", "run", "--table", table, side=writer)
    halted = halting.finish(check=False)
    (inputs,) = finish_all([inputs])
    resumed = rig.run("halting.py", "resume", "--origin-run-id", halted.run_id, side=writer, METAFLOW_USER="second")
    runs = {f"Halting/{halted.run_id}": (), f"Halting/{resumed.run_id}": (), f"Inputs/{inputs.run_id}": ("start",)}
    read = rig.read_all(runs, OFF)
    before = objects(rig)

    # They may yet go on, for all that is known.
    plan = metaflow(rig, "migrate", "--to", "packed")
    assert {entry["what"] for entry in plan["left"] if entry["kind"] == "running"} == {*runs} and not plan["flows"][0][
        "runs"
    ]
    plan = metaflow(rig, "migrate", "--to", "packed", "--idle", "0s")
    assert objects(rig) == before and plan["unrecorded"] == 0 and not plan["left"]
    done = metaflow(rig, "migrate", "--to", "packed", "--idle", "0s", "--execute")["executed"]
    assert done["attempts"] == len(before) and not done["failures"] and done["records"]
    packed = objects(rig)
    assert {info["encoding"].partition("/")[0] for _, infos in packed.values() for info in infos.values()} == {
        "mfstore-1"
    }
    assert rig.read_all(runs) == read
    with pytest.raises(AssertionError, match="No deserializer claimed artifact"):
        rig.read(f"Halting/{resumed.run_id}", side=OFF)
    again = metaflow(rig, "migrate", "--to", "packed", "--idle", "0s", "--execute")["executed"]
    assert not again["attempts"] and not again["records"] and objects(rig) == packed

    # Life goes on: the halted run is resumed from its packed artifacts, and what migration left behind is collected.
    third = rig.run("halting.py", "resume", "--origin-run-id", halted.run_id, side=PACKED, METAFLOW_USER="third")
    runs[f"Halting/{third.run_id}"] = ()
    gc = metaflow(rig, "gc", "--keep-last", "99", "--grace", "0s", "--execute")
    assert gc["executed"]["deleted"]["objects"] == gc["left"]["objects"] > 20 and not gc["executed"]["removed"]
    read = rig.read_all(runs)
    assert read[f"Halting/{third.run_id}"]["steps"]["end"][0]["artifacts"]["made_by"] == "'first'"

    # And back: released Metaflow reads all of it, also what was never stored otherwise, and goes on with it.
    done = metaflow(rig, "migrate", "--to", "stock", "--idle", "0s", "--execute")["executed"]
    assert not done["failures"] and done["attempts"] == len(data_jsons(rig))
    for _ in range(2):
        gc = metaflow(rig, "gc", "--keep-last", "99", "--grace", "0s", "--yes-really", "--execute")["executed"]
        assert not gc["store_left"]
    assert gc["store"]["deleted"]["recipes"] and not gc["removed"]
    assert rig.read_all(runs, OFF) == read
    last = rig.run("halting.py", "resume", "--origin-run-id", halted.run_id, side=OFF, METAFLOW_USER="fourth")
    (end,) = rig.read(f"Halting/{last.run_id}", side=OFF)["steps"]["end"]
    assert end["artifacts"]["made_by"] == "'first'" and end["artifacts"]["total"] == "15"
    assert metaflow(rig, "verify", "--level", "full")["findings"] == []


def test_a_round_trip_gives_back_the_very_keys(local_rig):
    rig = local_rig()
    run = f"Branches/{rig.run('branches.py', 'run', side=OFF).run_id}"
    read, before = rig.read(run, side=OFF), objects(rig)
    records = {path: file.read_bytes() for path, file in rig.files("**/_meta/*_artifact_*").items()}
    for to in ("packed", "stock"):
        metaflow(rig, "migrate", "--to", to, "--idle", "0s", "--execute")
    assert objects(rig) == before and rig.read(run, side=OFF) == read
    assert {path: json.loads(file.read_text()) for path, file in rig.files("**/_meta/*_artifact_*").items()} == {
        path: json.loads(data) for path, data in records.items()
    }


@in_soaks
def test_what_clients_of_a_metadata_service_find(s3_rig, metadata_service):
    """Its records keep the former keys."""
    rig = s3_rig(**metadata_service.environment())
    stock, packed = finish_all(
        [rig.start("halting.py", "run", "--seed", "3", side=MFSTORE), rig.start("halting.py", "run", side=PACKED)]
    )
    stock, packed = f"Halting/{stock.run_id}", f"Halting/{packed.run_id}"
    runs = {stock: (), packed: ()}
    read = rig.read_all(runs)
    plan = metaflow(rig, "migrate", "--to", "packed", "--idle", "0s", "--run", stock)
    assert plan["unrecorded"] == plan["flows"][0]["attempts"] > 5
    for run, to in ((stock, "packed"), (packed, "stock")):
        done = metaflow(rig, "migrate", "--to", to, "--idle", "0s", "--run", run, "--execute")["executed"]
        assert done["attempts"] == plan["unrecorded"] and not done["records"] and not done["failures"]
    found = rig.read(stock, side=OFF)  # what it was is still there
    assert found == read[stock]
    with pytest.raises(AssertionError, match="No deserializer claimed artifact"):
        rig.read(packed, side=OFF)
    for _ in range(2):
        metaflow(rig, "gc", "--keep-last", "99", "--grace", "0s", "--yes-really", "--execute")
    assert rig.read_all(runs, METAFLOW_CLIENT_CACHE_PATH=str(rig.home / "new")) == read
    # Collection left alone what the service names; and back it is what it was, to the byte.
    newer = {"METAFLOW_CLIENT_CACHE_PATH": str(rig.home / "newer")}
    assert rig.read(stock, side=OFF, **newer) == read[stock]
    metaflow(rig, "migrate", "--to", "stock", "--idle", "0s", "--run", stock, "--execute")
    assert rig.read(stock, side=OFF, METAFLOW_CLIENT_CACHE_PATH=str(rig.home / "newest")) == read[stock]
    assert not metadata_service.refused


# ---- in S3, by hand ---------------------------------------------------------------------


class InS3:
    """A root written by hand, in a bucket of its own, and ``mfstore migrate`` in a process on it."""

    def __init__(self, server, place):
        build(place)
        self.server, self.bucket = server, server.create_bucket(f"migrate-{uuid.uuid4().hex[:16]}")
        self.url = f"s3://{self.bucket}/mf"
        self.boto = boto_client(server)
        self.first = {str(path.relative_to(place)): path for path in place.rglob("*") if path.is_file()}
        self.upload()

    def upload(self):
        for key in [found["Key"] for found in self._listed()]:
            self.boto.delete_object(Bucket=self.bucket, Key=key)
        for name, path in self.first.items():
            if "_meta" not in name:
                meta = path.with_name(path.name + "_meta")
                metadata = {"metaflow-user-attributes": meta.read_text()} if meta.exists() else {}
                body = path.read_bytes()
                self.boto.put_object(Bucket=self.bucket, Key=f"mf/{name}", Body=body, Metadata=metadata)

    def _listed(self):
        pages = self.boto.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [found for page in pages for found in page.get("Contents", ())]

    def documents(self):
        keys = [found["Key"] for found in self._listed() if found["Key"].endswith(".data.json")]
        return {
            key: json.loads(self.boto.get_object(Bucket=self.bucket, Key=key)["Body"].read()) for key in sorted(keys)
        }

    def environment(self, url=None, keys=None):
        access, secret = keys or (self.server.access_key, self.server.secret_key)
        place = s3_place(self.server, self.bucket, url)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW_DA", "AWS_"))},
            **place, "AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret, "MFSTORE_CACHE": "",
        }  # fmt: skip

    def start(self, *arguments, **options):
        code = "from mfstore.cli import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, "migrate", "--metaflow", self.url, "--idle", "0s", *arguments, "--json"],
            env=self.environment(**options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *arguments, code=0, **options):
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=HANG)
        assert process.returncode == code, out + err
        return json.loads(out or err)

    def load_all(self):
        """Every artifact, in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-c", LOAD, self.url, json.dumps(self.documents())],
            env=self.environment(), capture_output=True, text=True, timeout=HANG,
        )  # fmt: skip
        assert not done.returncode, done.stderr
        return json.loads(done.stdout)


LOAD = """
import json, sys
from metaflow.datastore.flow_datastore import FlowDataStore
from mfstore.metaflow.extension import S3Storage
found = {}
for path, document in json.loads(sys.argv[2]).items():
    _, flow, run, step, task, name = path.split("/")
    store = FlowDataStore(flow, storage_impl=S3Storage, ds_root=sys.argv[1])
    one = store.get_task_datastore(run, step, task, attempt=int(name[0]), data_metadata=document)
    found[path] = dict(one.load_artifacts(document["objects"]))
print(json.dumps(found))
"""


class Kill:
    """Kills a process at its n-th write, which still gets through if n is odd."""

    def __init__(self, n):
        self.process, self._n, self._writes = None, n, 0

    def __call__(self, exchange):
        writes = exchange.method in ("PUT", "POST")
        self._writes += writes
        if writes and self._writes == self._n:
            self.process.kill()
            return self._n % 2 == 0
        return self._writes >= self._n


@pytest.mark.parametrize("to", ["packed", "stock"])
@in_soaks
def test_killed_in_s3(radosgw, tmp_path, to):
    place = InS3(radosgw, tmp_path / "mf")
    values = place.load_all()
    writes = 0
    with FaultProxy(radosgw.url) as counting:
        if to == "stock":
            place.run("--to", "packed", "--execute")
        origin = {found["Key"]: found["ETag"] for found in place._listed()}
        place.run("--to", to, "--execute", url=counting.url)
        writes = sum(exchange.method in ("PUT", "POST") for exchange in counting.log)
    expected = {path: found["objects"] for path, found in place.documents().items()}
    assert writes > 8 and len(origin) > 10
    killed = 0
    for n in range(2, writes, max(1, 2 * writes // 5)):
        place.upload()
        if to == "stock":
            place.run("--to", "packed", "--execute")
        kill = Kill(n)
        with FaultProxy(radosgw.url, [NetworkFault(action=Reset(), when=kill)]) as proxy:
            kill.process = process = place.start("--to", to, "--execute", url=proxy.url)
            process.communicate(timeout=HANG)
        # How many writes there are differs by a few from run to run: it may have ended before the n-th.
        assert process.returncode in (0, -signal.SIGKILL)
        killed += process.returncode != 0
        assert place.load_all() == values
        done = place.run("--to", to, "--execute", "--take-over")["executed"]
        assert not done["failures"]
        assert {path: found["objects"] for path, found in place.documents().items()} == expected
        assert place.load_all() == values
    assert killed >= 2


def test_without_the_right_to_write_in_s3(radosgw, tmp_path):
    place = InS3(radosgw, tmp_path / "mf")
    keys = radosgw.create_user("migrating-reader")
    resources = [f"arn:aws:s3:::{place.bucket}", f"arn:aws:s3:::{place.bucket}/*"]
    principal = {"AWS": ["arn:aws:iam:::user/migrating-reader"]}
    actions = ["s3:GetObject", "s3:ListBucket"]
    statement = {"Effect": "Allow", "Principal": principal, "Action": actions, "Resource": resources}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    place.boto.put_bucket_policy(Bucket=place.bucket, Policy=policy)
    before = place.documents()
    assert place.run("--to", "packed", keys=keys)["flows"][0]["attempts"] == 4
    assert place.run("--to", "packed", "--execute", keys=keys, code=1)["error"]
    assert place.documents() == before


def test_what_is_stored_is_encrypted_as_metaflow_is_told(ministack, tmp_path, monkeypatch):
    monkeypatch.setenv("METAFLOW_S3_SERVER_SIDE_ENCRYPTION", "AES256")
    place = InS3(ministack, tmp_path / "mf")
    with FaultProxy(ministack.url) as proxy:
        for to in ("packed", "stock"):
            place.run("--to", to, "--execute", url=proxy.url)
        puts = proxy.requests("PUT")
    plain = {put.path for put in puts if "x-amz-server-side-encryption" not in put.headers}
    assert not plain and sum(put.path.endswith(".data.json") for put in puts) == 8


def test_options_say_how_the_root_is_reached_also_for_what_is_converted(ministack, tmp_path):
    place = InS3(ministack, tmp_path / "mf")
    first = place.documents()
    with FaultProxy(ministack.url) as elsewhere:  # where Metaflow's settings lead
        for to in ("packed", "stock"):
            place.run("--to", to, "--execute", "--endpoint-url", ministack.url, url=elsewhere.url)
        assert not elsewhere.requests()
    assert place.documents().keys() == first.keys()
    assert place.load_all()
