"""A library that is missing or too old is named with what to install, on each system."""

import subprocess
import sys

import pytest

from tests import ROOT

SETUP = ROOT / "setup.py"
# setup.py with its imports replaced: only what it says before it builds is under test.
CODE = """
import sys, types
for name in ("Cython", "Cython.Build", "setuptools", *(f"setuptools.command{part}" for part in ("", ".build_ext", ".build_py"))):
    sys.modules[name] = types.ModuleType(name)
sys.modules["Cython.Build"].cythonize = lambda modules, **options: modules
sys.modules["setuptools"].Extension = lambda *args, **options: None
sys.modules["setuptools"].setup = lambda **options: print("built")
sys.modules["setuptools.command.build_py"].build_py = object
sys.modules["setuptools.command.build_ext"].build_ext = object
exec(compile(open(sys.argv[1]).read(), "setup.py", "exec"))
"""


def run(path):
    return subprocess.run(
        [sys.executable, "-c", CODE, SETUP], capture_output=True, text=True, env={"PATH": path}, cwd=SETUP.parent
    )


def test_without_pkg_config(tmp_path):
    done = run(str(tmp_path))
    assert done.returncode != 0
    for text in ("apt-get install pkg-config", "dnf install", "brew install"):
        assert text in done.stderr


@pytest.mark.parametrize(
    ("missing", "packages"),
    [
        ("liblz4", ("liblz4-dev", "lz4-devel")),
        ("libzstd", ("libzstd-dev", "libzstd-devel")),
        ("libxxhash", ("libxxhash-dev", "xxhash")),
        ("libcurl", ("libcurl4-openssl-dev", "libcurl-devel", "curl")),
        ("libcrypto", ("libssl-dev", "openssl-devel", "openssl@3")),
        ("libssl", ("libssl-dev", "openssl-devel", "openssl@3")),
    ],
)
def test_without_a_library(tmp_path, missing, packages):
    tool = tmp_path / "pkg-config"
    tool.write_text(f'#!/bin/sh\ncase "$*" in *{missing}*) exit 1;; esac\necho -lx\n')
    tool.chmod(0o755)
    done = run(f"{tmp_path}:/bin:/usr/bin")
    assert done.returncode != 0
    assert missing in done.stderr
    for package in packages:
        assert package in done.stderr


@pytest.mark.parametrize(
    ("library", "found", "needed", "packages"),
    [
        ("libcurl", "7.61.1", "7.62.0", ("libcurl4-openssl-dev", "libcurl-devel", "brew install curl", "Ubuntu 20.04")),
        ("libssl", "1.1.1w", "3.0.0", ("libssl-dev", "openssl-devel", "brew install openssl@3", "Ubuntu 22.04")),
        ("libzstd", "1.3.8", "1.4.0", ("libzstd-dev", "libzstd-devel", "brew install zstd", "Ubuntu 20.04")),
        ("libxxhash", "0.7.3", "0.8.0", ("libxxhash-dev", "xxhash-devel", "brew install xxhash", "Debian 11")),
    ],
)
def test_with_a_library_that_is_too_old(tmp_path, library, found, needed, packages):
    tool = tmp_path / "pkg-config"
    tool.write_text(
        f'#!/bin/sh\ncase "$*" in "--modversion {library}") echo {found}; exit;; *"{library} >= {needed}"*) exit 1;; esac\n'
        "echo -lx\n"
    )
    tool.chmod(0o755)
    done = run(f"{tmp_path}:/bin:/usr/bin")
    assert done.returncode != 0
    assert done.stdout == ""
    for text in (f"needs {library} {needed} or newer", f"finds {found}", "PKG_CONFIG_PATH", *packages):
        assert text in done.stderr


def test_with_everything(tmp_path):
    tool = tmp_path / "pkg-config"
    tool.write_text("#!/bin/sh\necho -lx\n")
    tool.chmod(0o755)
    assert run(f"{tmp_path}:/bin:/usr/bin").stdout == "built\n"
