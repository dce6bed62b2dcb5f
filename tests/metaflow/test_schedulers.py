"""Production schedulers: what Metaflow compiles for them with the extension active runs in containers that have
mfstore, in containers that have not, and where some have it."""

import gzip
import io
import json
import tarfile

import pytest

from tests.rigs.containers import Argo, Containers, StepFunctions, needs_mounts
from tests.rigs.flows import FLOWS, MFSTORE, OFF, aws_keys
from tests.rigs.installs import image, image_with_mfstore
from tests.rigs.soak import in_soaks, soaking
from tests.servers.base import boto_client

WARNING = "mfstore cannot be loaded"
IMAGES = {"with mfstore": image_with_mfstore, "without": image}
SOME = {"start": "with mfstore", "work": "without", "join": "with mfstore", "end": "without"}
"""The image of each step: whoever writes, the other one reads."""
EACH = {name: dict.fromkeys(SOME, name) for name in IMAGES}
ALPHA = 4
TOTAL = 1 + 4 + ALPHA

pytestmark = [
    pytest.mark.skipif(needs_mounts() is not None, reason=str(needs_mounts())),
    pytest.mark.timeout(1200),
]


@pytest.fixture
def production(s3_rig, moto, metadata_service, radosgw, tmp_path):
    """Compile the flow, run it with images for its steps, of which a run takes 30 seconds of CPU, and look at it; in soaks
    with either image for all steps too."""

    def run(compile_flow, execute):
        for number, images in enumerate([SOME, *(EACH.values() if soaking() else ())]):
            rig = s3_rig(**moto.environment(), **metadata_service.environment())
            containers = Containers(
                tmp_path / str(number), {step: IMAGES[name]() for step, name in images.items()},
                {**aws_keys(radosgw), "AWS_ENDPOINT_URL": moto.url},
            )  # fmt: skip
            check(rig, f"Scheduled/{execute(compile_flow(rig), containers)}", images, containers.logs, radosgw)
        assert not metadata_service.refused

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


def check(rig, run, images, logs, radosgw):
    read = rig.read(run, "join", side=MFSTORE)
    assert read == rig.read(run, "join", side=OFF)
    (end,) = read["steps"]["end"]
    assert read["successful"] and read["cards"] == [True]
    assert end["artifacts"]["total"] == str(TOTAL) and f"total {TOTAL}" in end["stdout"]
    assert [task["artifacts"]["square"] for task in read["steps"]["work"]] == ["1", "4"]
    assert sorted(step for step, _ in logs) == ["end", "join", "start", "work", "work"]
    for step, log in logs:
        assert (WARNING in log) == (images[step] == "without"), f"{step}:\n{log}"
    # Stock Metaflow's gzip carries the time it was made, mfstore's does not: who wrote the large artifact?
    (large,) = [blob for blob in blobs(rig, radosgw) if blob[:2] == b"\x1f\x8b" and _is_the_large_one(blob)]
    assert (large[4:8] == bytes(4)) == (images["start"] == "with mfstore")


def _is_the_large_one(blob):
    """Not the code package, which is a tar; both are gzip."""
    data = gzip.decompress(blob)
    return len(data) > 1 << 20 and data[:1] == b"\x80"


@pytest.mark.fuzz
def test_argo_workflows(production):
    production(by_deployer, lambda template, containers: Argo(template, containers, {"alpha": ALPHA}).run())


@in_soaks
def test_step_functions(production, moto):
    """Its containers unpack the code package that Argo's do (below) and take the same steps."""
    dynamodb = boto_client(moto, "dynamodb")
    production(
        by_command_line("step-functions"),
        lambda machine, containers: StepFunctions(machine, containers, dynamodb, {"alpha": ALPHA}).run(),
    )
    dynamodb.close()


def test_the_code_package(s3_rig, moto, radosgw):
    """Carries the extension, which is small and pure Python, and not mfstore, whose compiled modules fit one
    platform: the same for each scheduler."""
    found = []
    for scheduler in ("argo-workflows", "step-functions"):
        rig = s3_rig(**moto.environment())
        by_command_line(scheduler)(rig)
        packages = [blob for blob in blobs(rig, radosgw) if not _is_the_large_one(blob)]
        (package,) = [blob for blob in packages if len(blob) > 100_000]
        with tarfile.open(fileobj=io.BytesIO(package)) as archive:
            found.append(archive.getnames())
    ours = [name for name in found[0] if "mfstore" in name]
    assert any("metaflow_extensions/mfstore/plugins" in name for name in ours)
    assert not [name for name in ours if name.endswith(".so") or "/mfstore/store.py" in name]
    assert sorted(found[0]) == sorted(found[1])
