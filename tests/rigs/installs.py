"""Other Pythons than the one that runs the tests: older Metaflows, and what a container image has.

Made once, under build/ of the checkout, by pip and whatever index it is configured for. Workers that run tests side by
side share them: whoever comes first makes one, under a lock, and the others wait.
"""

import contextlib
import fcntl
import functools
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from tests.rigs.flows import ONE_WORKER, ROOT, Side

PLACE = ROOT / "build" / "installs"
OLDER = "2.12.39"
"""The last of a line before serializers, spin and packages as they are now."""


def current_metaflow():
    """The version the tests run against."""
    return importlib.metadata.version("metaflow")


@functools.cache
def image():
    """A Python with what Metaflow itself installs in a container, boto3 and requests, and nothing else."""
    directory = PLACE / f"image-{sys.version_info.major}.{sys.version_info.minor}"
    return _once(directory, _make_venv, ["boto3", "requests"])


@functools.cache
def image_with_mfstore():
    """The same with mfstore installed: the files a wheel has, in site-packages. Or a wheel itself, the one of the folder
    MFSTORE_WHEELS that fits this Python (`make wheel-test`), which does without the system's libraries."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["metaflow"], "boto3", "requests"]
    needed = [requirement for requirement in requirements if not requirement.startswith(("mfstore", "metaflow"))]
    wheels = os.environ.get("MFSTORE_WHEELS")
    name = "image-wheel" if wheels else "image-mfstore"
    directory = PLACE / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    # What both have is copied: pip takes ten seconds of CPU for it.
    python = _once(directory, functools.partial(_make_venv, base=_site(Path(image()).parent.parent)), needed)
    with _alone(directory):
        if wheels:
            _pip(python, "--no-deps", "--force-reinstall", _fitting_wheel(Path(wheels)))
        else:
            _install_tree(directory)
    return python


def _fitting_wheel(folder):
    """The wheel in a folder that this Python would install."""
    from packaging.tags import sys_tags
    from packaging.utils import parse_wheel_filename

    ours = set(sys_tags())
    fitting = [path for path in sorted(folder.glob("*.whl")) if ours & parse_wheel_filename(path.name)[3]]
    assert len(fitting) == 1, f"of the wheels in {folder} these fit this Python: {fitting}"
    return fitting[0]


@functools.cache
def stock(version=None):
    """A side on which there is a released Metaflow and nothing of ours."""
    version = version or current_metaflow()
    directory = PLACE / f"metaflow-{version}"
    _once(directory, _make_target, [f"metaflow=={version}"])
    return Side(f"stock-{version}", python=image(), path=(directory,), environment=ONE_WORKER)


@contextlib.contextmanager
def _alone(directory):
    """No other process makes or fills ``directory`` meanwhile."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _once(directory, make, requirements):
    done = directory / "done"
    wanted = "\n".join(sorted(requirements))
    with _alone(directory):
        if not done.exists() or done.read_text() != wanted:
            shutil.rmtree(directory, ignore_errors=True)
            try:
                make(directory, requirements)
            except subprocess.CalledProcessError as error:
                said = f"{error.stdout}\n{error.stderr}"
                if os.environ.get("CI"):
                    raise AssertionError(said) from None
                pytest.skip(f"pip could not install {requirements}: {said[-500:]}")
            done.write_text(wanted)
    return str(directory / "bin" / "python")


def _make_venv(directory, requirements, base=None):
    _run(sys.executable, "-m", "venv", "--without-pip", directory)
    if base is not None:
        shutil.copytree(base, _site(directory), dirs_exist_ok=True)
    _pip(directory / "bin" / "python", *requirements)


def _pip(python, *arguments):
    """Install for a Python that has no pip of its own."""
    _run(sys.executable, "-m", "pip", "--python", python, "install", "-q", *arguments)


def _make_target(directory, requirements):
    _run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", directory, *requirements)


def _run(*command):
    subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, timeout=600)


def _install_tree(directory):
    """Copy what the wheel would contain, compiled modules included, with the record that Metaflow looks for files in.
    What is there already stays: flows of other workers may be running from it."""
    installed = directory / "installed"
    state = "\n".join(f"{path} {path.stat().st_mtime_ns}" for path in sorted(_sources()))
    if installed.exists() and installed.read_text() == state:
        return
    site = _site(directory)
    info = site / "mfstore-0.dist-info"
    for path in (site / "mfstore", site / "metaflow_extensions", info):
        shutil.rmtree(path, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("mfstore", "metaflow_extensions"):
        shutil.copytree(ROOT / name, site / name, ignore=skip)
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mfstore\nVersion: 0\n")
    files = [path for name in ("mfstore", "metaflow_extensions") for path in (site / name).rglob("*") if path.is_file()]
    (info / "RECORD").write_text("".join(f"{path.relative_to(site)},,\n" for path in files))
    installed.write_text(state)


def _site(directory):
    """Where packages are in a virtual environment."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(directory)}))


def _sources():
    for name in ("mfstore", "metaflow_extensions"):
        yield from (path for path in (ROOT / name).rglob("*") if path.is_file() and path.parent.name != "__pycache__")
