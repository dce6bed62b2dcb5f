"""Every fuzz target, for a second or three: it builds, runs, and finds nothing that lies at the surface."""

import os
import subprocess
import sys

import pytest

from tests import ROOT
from tests.rigs.soak import lasting, soaking

RUN = ROOT / "fuzz" / "run"
SECONDS = lasting(1)
MISSING = 3

# It takes longer to build than to run.
QUICK = {} if soaking() else {"FUZZ_CFLAGS": "-O0 -gline-tables-only", "FUZZ_BUILD": str(ROOT / "build/fuzz-quick")}

pytestmark = [pytest.mark.slow, pytest.mark.fuzz]


def fuzz(target, tmp_path, seconds=SECONDS, **environment):
    # A corpus of its own: what earlier long runs collected would take longer than the test.
    env = os.environ | {"PYTHON": sys.executable, "FUZZ_CORPUS": str(tmp_path / "corpus"), "FUZZ_SEED": "1"}
    return subprocess.run(
        [str(RUN), str(seconds), target], env=env | environment, capture_output=True, text=True,
        errors="replace", timeout=240 + 2 * seconds,
    )  # fmt: skip


@pytest.mark.parametrize(
    "target", ["codec", "delta", "table", "chunk", "scan", "http_parser", "http_google", "http_connection"]
)
def test_c_target(target, tmp_path):
    done = fuzz(target, tmp_path, **QUICK)
    if done.returncode == MISSING:
        pytest.skip(" ".join(done.stderr.split()))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert "stat::number_of_executed_units" in done.stderr


def test_threads(tmp_path):
    done = fuzz("http_threads", tmp_path, lasting(3), **QUICK)  # until some of its requests went well
    if done.returncode == MISSING:
        pytest.skip(" ".join(done.stderr.split()))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert " requests: " in done.stderr


@pytest.mark.parametrize("target", ["tables", "pickles"])
def test_python_decoders(target, tmp_path):
    done = fuzz(target, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert "0 findings" in done.stdout


def test_a_missing_compiler_is_named_with_its_packages(tmp_path):
    done = fuzz("codec", tmp_path, CLANG="clang-that-is-not-installed")
    assert done.returncode == MISSING
    assert "clang libclang-rt-14-dev" in done.stderr
