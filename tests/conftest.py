import gc
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import Phase, settings

import mfstore
from mfstore.s3.transfers import hedging
from mfstore.testing import FaultProxy
from tests.plugins import deadline, leftovers, markers, reruns
from tests.rigs.flows import FlowRig, s3_place
from tests.servers import (
    Azurite,
    AzuriteTls,
    FakeGcs,
    MetadataService,
    Ministack,
    Missing,
    Moto,
    Nginx,
    Radosgw,
)

# With awscrt installed, for ministack's sake, botocore signs by it, which puts a Host header beside the others: not
# what our requests are compared with. Read when botocore is imported.
os.environ.setdefault("BOTO_DISABLE_CRT", "true")

# Beside other workers the threads of a model that is trained wait for each other, spinning: a test with twelve such
# trainings took three times the CPU.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts its background jobs with Ctrl-C ignored, and so would be the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Every run tries the same examples, so that a change is judged by what it changed, and one that fails is shown as it
# is: to find a smaller one can take longer than all tests. `make soak` looks for new ones.
settings.register_profile(
    "ci", derandomize=True, database=None, deadline=None, max_examples=50,
    phases=[phase for phase in Phase if phase not in (Phase.reuse, Phase.shrink, Phase.explain)],
)  # fmt: skip
settings.register_profile("soak", print_blob=True, deadline=None)
settings.load_profile("ci")


def pytest_addoption(parser):
    parser.addoption(
        "--patience", type=float, default=1.0, help="multiplies the time-outs of tests, for a machine that is busy"
    )


MEMORY = Path("/dev/shm")
ROOM = 8 << 30
"""Free bytes from which on the files of tests are kept in memory: a run takes less than one GiB at a time."""


def pytest_configure(config):
    # Nine tenths of what some rooms take on a disk is waiting for it to sync. Who sets either says where files go.
    if config.option.basetemp is None and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    for plugin in (deadline, leftovers, markers, reruns):
        config.pluginmanager.register(plugin)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported and collected stays until the process ends. The collector goes through it neither while it is
    made, which takes a quarter of the time, nor in the tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def store(root):
    with mfstore.open(root) as store:
        yield store


@pytest.fixture
def whole_chunks(monkeypatch):
    """Chunks are stored whole, whatever is stored that they resemble."""
    monkeypatch.setenv("MFSTORE_DELTA", "0")


@pytest.fixture
def python():
    """Run code in a fresh interpreter and return what it printed."""

    def run(code, *args, check=True, env=None):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, args)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **(env or {})},
        )
        if check and done.returncode:
            raise AssertionError(done.stderr)
        return done.stdout

    return run


@pytest.fixture
def s3_env(tmp_path, monkeypatch):
    """Nothing of this machine's AWS configuration, and test keys in the environment."""
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy") or name == "REQUESTS_CA_BUNDLE":
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return home


@pytest.fixture
def unhedged(monkeypatch):
    """For exact counts of requests: on a machine that is busy, any of the last few may be late enough to be asked for
    twice."""
    monkeypatch.setattr(hedging, "HEDGE_FLOOR", float("inf"))


# ---- real servers: each started at its first use, once per process ----------------------------------


def started(server):
    """Yield the running server. Not installed is a reason to skip only on a developer's own machine: where ``make
    test`` installs it, a skip would hide that nothing of S3 was tested."""
    try:
        with leftovers.kept():
            server.__enter__()
    except Missing as error:
        if os.environ.get("CI") or os.geteuid() == 0:
            raise
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def radosgw():
    """Ceph's gateway."""
    yield from started(Radosgw())


@pytest.fixture(scope="session")
def ministack():
    """ministack, with signatures verified."""
    yield from started(Ministack())


@pytest.fixture(scope="session")
def nginx():
    """The pseudo-S3 for speed."""
    yield from started(Nginx())


@pytest.fixture(scope="session")
def moto():
    """AWS beside S3."""
    yield from started(Moto())


@pytest.fixture(scope="session")
def azurite():
    """Azure's Blob service, over http, with the account's key."""
    yield from started(Azurite())


@pytest.fixture(scope="session")
def azurite_tls():
    """Azure's Blob service, over https, with the account's key or with a token."""
    yield from started(AzuriteTls())


@pytest.fixture(scope="session")
def gcs_server():
    """Google Cloud Storage, over http, to whoever asks."""
    yield from started(FakeGcs())


@pytest.fixture(scope="session", params=["radosgw", "ministack"])
def s3_server(request):
    """Each of the faithful servers in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def bucket(s3_server):
    """A fresh bucket's name."""
    return s3_server.create_bucket(f"test-{uuid.uuid4().hex[:20]}")


@pytest.fixture
def ca_file(s3_server):
    """What to trust for the server's https."""
    return s3_server.ca_file


@pytest.fixture
def fault_proxy_of():
    """Make a ``FaultProxy`` in front of a particular server: ``fault_proxy_of(azurite, [NetworkFault(…)])``."""
    proxies = []

    def make(server, faults=(), **options):
        proxy = FaultProxy(server.url, faults, **options).start()
        proxies.append(proxy)
        return proxy

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def fault_proxy(s3_server, fault_proxy_of):
    """Make one in front of a server of S3: ``fault_proxy([NetworkFault(…)], latency=0.03)``."""

    def make(faults=(), *, server=None, **options):
        server = server or s3_server
        credentials = (server.access_key, server.secret_key, server.region)
        return fault_proxy_of(server, faults, **{"credentials": credentials, **options})

    return make


@pytest.fixture
def metadata_service():
    """Metaflow's, in memory."""
    with MetadataService() as service:
        yield service


# ---- real flows --------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """A file for flows that include one."""
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2")
    return str(path)


@pytest.fixture
def s3_rig(radosgw, tmp_path):
    """Make a rig with a bucket of its own: ``s3_rig(url=proxy.url)``."""

    def make(url=None, **more):
        bucket = radosgw.create_bucket(f"flows-{uuid.uuid4().hex[:16]}")
        return FlowRig(tmp_path / f"rig-{uuid.uuid4().hex[:8]}", {**s3_place(radosgw, bucket, url), **more})

    return make


@pytest.fixture
def local_rig(tmp_path):
    """Make a rig with a directory of its own."""
    return lambda **more: FlowRig(tmp_path / f"rig-{uuid.uuid4().hex[:8]}", more)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.server)])
def make_rig(request):
    """Make a rig, on each datastore in turn."""
    return request.getfixturevalue(f"{request.param}_rig")
