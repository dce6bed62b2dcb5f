import os
import signal
import subprocess
import sys

import pytest
from hypothesis import settings

import mfstore
from tests.plugins import deadline, markers, reruns
from tests.rigs.fault_upstream import proxy, upstream  # noqa: F401
from tests.rigs.flow_fixtures import local_rig, make_rig, metadata_service, moto, s3_rig, table  # noqa: F401
from tests.rigs.gc import clock  # noqa: F401
from tests.rigs.s3_faults import any_rig, engine, quick, rig, signed_rig, unhedged  # noqa: F401
from tests.rigs.s3_fixtures import bucket, ca_file, fault_proxy, ministack, nginx, radosgw, s3_server  # noqa: F401

# With awscrt installed, for ministack's sake, botocore signs by it, which puts a Host header beside the others: not what our
# requests are compared with. Read when botocore is imported.
os.environ.setdefault("BOTO_DISABLE_CRT", "true")

# A shell starts its background jobs with Ctrl-C ignored, and so would be the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Elsewhere every run looks for new counterexamples; continuous integration repeats the same ones, so that a change is
# judged by what it changed.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_configure(config):
    for plugin in (deadline, markers, reruns):
        config.pluginmanager.register(plugin)


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def store(root):
    with mfstore.open(root) as store:
        yield store


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
