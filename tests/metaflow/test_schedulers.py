"""Production schedulers: what Metaflow compiles for them with the extension active runs in containers that have
mfstore, and in containers that have not."""

import gzip
import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.rigs.containers import Argo, Containers, StepFunctions, needs_mounts
from tests.rigs.flows import FLOWS, MFSTORE, OFF, aws_keys
from tests.rigs.installs import image, image_with_mfstore
from tests.rigs.soak import soaking
from tests.servers.base import boto_client

WARNING = "mfstore cannot be loaded"
IMAGES = {"with mfstore": image_with_mfstore, "without": image}
ALPHA = 4
TOTAL = 1 + 4 + ALPHA

pytestmark = [
    pytest.mark.skipif(needs_mounts() is not None, reason=str(needs_mounts())),
    pytest.mark.timeout(1200),
]


@pytest.fixture
def production(s3_rig, moto, metadata_service, radosgw, tmp_path):
    """Compile the flow and run it in an image, of which a run takes 45 seconds of CPU; in soaks in each of them, both at
    once: ``{image: (rig, run, logs)}``."""

    def run(image_name, compile_flow, execute):
        pythons = {name: make() for name, make in IMAGES.items() if soaking() or name == image_name}

        def one(name):
            rig = s3_rig(**moto.environment(), **metadata_service.environment())
            compiled = compile_flow(rig)
            containers = Containers(
                tmp_path / name.replace(" ", "-"), pythons[name], {**aws_keys(radosgw), "AWS_ENDPOINT_URL": moto.url}
            )
            return rig, f"Scheduled/{execute(compiled, containers)}", "".join(containers.logs)

        with ThreadPoolExecutor(2) as pool:
            found = dict(zip(pythons, pool.map(one, pythons), strict=True))
        assert not metadata_service.refused
        return found

    return run


def by_command_line(*command):
    def compile_flow(rig):
        done = rig.run("scheduled.py", *command, "create", "--only-json", side=MFSTORE)
        assert WARNING not in done.stderr
        return json.loads(done.stdout)

    return compile_flow


def by_deployer(rig):
    """The same by Metaflow's programming interface."""
    return rig.python("use_deployer.py", FLOWS / "scheduled.py", side=MFSTORE)


def blobs(rig, radosgw):
    """Every blob of the flow's content-addressed store, by boto3."""
    bucket = rig.place["METAFLOW_DATASTORE_SYSROOT_S3"].split("/")[2]
    client = boto_client(radosgw)
    try:
        listed = client.list_objects_v2(Bucket=bucket, Prefix="mf/Scheduled/data/")["Contents"]
        return [client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read() for entry in listed]
    finally:
        client.close()


def check(found, radosgw):
    for name, (rig, run, logs) in found.items():
        read = rig.read(run, "join", side=MFSTORE)
        assert read == rig.read(run, "join", side=OFF)
        (end,) = read["steps"]["end"]
        assert read["successful"] and read["cards"] == [True]
        assert end["artifacts"]["total"] == str(TOTAL) and f"total {TOTAL}" in end["stdout"]
        assert [task["artifacts"]["square"] for task in read["steps"]["work"]] == ["1", "4"]
        assert (WARNING in logs) == (name == "without"), logs
        # Stock Metaflow's gzip carries the time it was made, mfstore's does not: who wrote the large artifact?
        (large,) = [blob for blob in blobs(rig, radosgw) if blob[:2] == b"\x1f\x8b" and _is_the_large_one(blob)]
        assert (large[4:8] == bytes(4)) == (name == "with mfstore")


def _is_the_large_one(blob):
    """Not the code package, which is a tar; both are gzip."""
    data = gzip.decompress(blob)
    return len(data) > 1 << 20 and data[:1] == b"\x80"


@pytest.mark.fuzz
def test_argo_workflows(production, radosgw):
    found = production(
        "with mfstore", by_deployer,
        lambda template, containers: Argo(template, containers, {"alpha": ALPHA}).run(),
    )  # fmt: skip
    check(found, radosgw)


@pytest.mark.fuzz
def test_step_functions(production, radosgw, moto):
    dynamodb = boto_client(moto, "dynamodb")
    found = production(
        "without",
        by_command_line("step-functions"),
        lambda machine, containers: StepFunctions(machine, containers, dynamodb, {"alpha": ALPHA}).run(),
    )
    dynamodb.close()
    check(found, radosgw)


def test_the_code_package(s3_rig, moto, radosgw):
    """Carries the extension, which is small and pure Python, and not mfstore, whose compiled modules fit one
    platform."""
    rig = s3_rig(**moto.environment())
    by_command_line("argo-workflows")(rig)
    packages = [blob for blob in blobs(rig, radosgw) if not _is_the_large_one(blob)]
    (package,) = [blob for blob in packages if len(blob) > 100_000]
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        ours = [name for name in archive.getnames() if "mfstore" in name]
    assert any("metaflow_extensions/mfstore/plugins" in name for name in ours)
    assert not [name for name in ours if name.endswith(".so") or "/mfstore/store.py" in name]
