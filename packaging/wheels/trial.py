"""Installs wheels, each into an environment of its own, and runs the tests of what they carry: ``make wheel-test``.

Of the wheels that are named it takes those that one of the interpreters here can install. The tests are copied to where
no mfstore lies beside them.
"""

import argparse
import platform
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

from interpreter import Interpreter
from workplace import ROOT, WORK, found

BESIDES = ("pytest", "pytest-rerunfailures", "pytest-xdist", "hypothesis", "numpy", "trustme", "zstandard")
OTHER_OPENSSLS = ("psycopg2-binary", "grpcio")
TESTS = (
    "tests/wheels/test_beside_the_host.py",
    "tests/s3/engines/test_dialing.py",
    "tests/s3/aws/test_certificates.py",
    "tests/core/test_crc.py",
    "tests/core/test_deltas.py",
    "tests/core/test_processor.py",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--python", action="append", type=Path, help="a CPython to try with (default: those found)")
    chosen = parser.parse_args()
    tried, failed = 0, []
    for interpreter in [Interpreter.ask(python) for python in chosen.python or found()]:
        abi = f"cp{interpreter.tag.rstrip('t')}-cp{interpreter.tag}"
        for wheel in chosen.wheels:
            if fnmatch(wheel.name, f"*-{abi}-manylinux_*_{platform.machine()}.whl"):
                tried += 1
                print(f"{wheel.name} on {interpreter.program}", flush=True)
                if not passes(wheel.resolve(), interpreter):
                    failed.append(wheel.name)
    if failed or not tried:
        sys.exit(f"Failed: {', '.join(failed)}" if failed else "None of these wheels runs here")


def passes(wheel: Path, interpreter: Interpreter) -> bool:
    """Whether the tests do, on the wheel and what it requires."""
    where = WORK / "trial" / f"cp{interpreter.tag}"
    shutil.rmtree(where, ignore_errors=True)
    subprocess.run([interpreter.program, "-m", "venv", where / "venv"], check=True)
    python = where / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", f"{wheel}[s3]", *BESIDES, *OTHER_OPENSSLS], check=True)
    shutil.copytree(ROOT / "tests", where / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", where)
    for name in ("packaging", "src"):  # what tests read of the clone
        (where / name).symlink_to(ROOT / name)
    imported = "import mfstore, sys; sys.exit(not mfstore.__file__.startswith(sys.prefix))"
    subprocess.run([python, "-c", imported], cwd=where, check=True)
    return subprocess.run([python, "-m", "pytest", "-q", *TESTS], cwd=where).returncode == 0


if __name__ == "__main__":
    main()
