import subprocess
import sys

import pytest

import mfstore


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
        import os

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
