"""Where wheels are built, with which Pythons, and how it is known what need not be built again."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = ROOT / "build/wheels"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def found() -> list[Path]:
    """A CPython of each version that is on the PATH or that pyenv has, and of those without a GIL."""
    pythons: dict[str, Path] = {}
    for version in (*VERSIONS, *(f"{version}t" for version in VERSIONS[2:])):
        program = shutil.which(f"python{version}")
        if program and "shims" not in program:
            pythons[version] = Path(program)
        for python in sorted(Path.home().glob(f".pyenv/versions/{version.rstrip('t')}.*/bin/python{version}")):
            pythons[version] = python
    return list(pythons.values())


def digest(paths: Iterable[Path], *others: str) -> str:
    """Of the files, those below the folders among them, and of texts."""
    found = hashlib.sha256("\0".join(others).encode())
    for path in sorted(paths):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                found.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return found.hexdigest()


def is_built(stamp: Path, expected: str) -> bool:
    return stamp.exists() and stamp.read_text() == expected


def environment(python: str | Path, name: str, packages: list[str]) -> Path:
    """A virtual environment below WORK with some of the packages that ``requirements.txt`` pins."""
    where = WORK / "environments" / name
    pins = [
        line for line in (HERE / "requirements.txt").read_text().splitlines() if line.partition("==")[0] in packages
    ]
    stamp = where / "mfstore-stamp"
    if not is_built(stamp, str(pins)):
        shutil.rmtree(where, ignore_errors=True)
        subprocess.run([python, "-m", "venv", where], check=True)
        subprocess.run([where / "bin/python", "-m", "pip", "install", "-q", *pins], check=True)
        stamp.write_text(str(pins))
    return where
