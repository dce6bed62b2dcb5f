"""Which roots there are, and which wheel is tried in which of them."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename
from roots import Root, System, fresh

NATIVE_CHECKS = (
    "installed", "directory", "s3", "s3_untrusted", "host_bundle", "hostile_configuration",
    "others_first", "others_last", "others_beside", "bench", "doctor", "pypi_steps", "flow_local", "flow_s3",
    "host_authorities",
)  # fmt: skip
FOREIGN_CHECKS = ("installed", "directory", "s3", "doctor")
"""Under qemu a Python takes four seconds of CPU to start: these take minutes, and flows would take an hour."""

SUITES = ("bookworm", "trixie", "sid")
"""Releases of Debian: their Pythons are 3.11, 3.13 and 3.14."""

EXTRA = (("3.12", "bookworm"), ("3.13", "sid"))
"""Pythons of this machine, and the Debian in which they are tried, if they are there."""

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Architectures as Debian calls them, and as Python does."""

OTHERS = ("psycopg2-binary", "grpcio")
"""Libraries that come with an OpenSSL, or what was made of one, of their own."""


@dataclass(frozen=True)
class Runtime:
    """A Python in a system."""

    system: System
    python: str = "python3"
    seen: Mapping[Path, str] = field(default_factory=dict)
    """Directories of this machine that this Python is in."""
    checks: tuple[str, ...] = NATIVE_CHECKS

    @property
    def name(self) -> str:
        """Of the system, and of the Python where it is not the system's own."""
        return self.system.name if self.python == "python3" else f"{self.system.name}-{Path(self.python).name}"

    @property
    def is_of_the_image(self) -> bool:
        """Whether the official image of its Python is this Debian."""
        return self.name == "trixie"

    @functools.cached_property
    def abilities(self) -> Abilities:
        """What the Python says of itself."""
        with fresh(self.system, self.seen) as root:
            return abilities(root, self.python)


@dataclass(frozen=True)
class Abilities:
    """What decides which wheels a Python can install."""

    version: tuple[int, int]
    abi: str
    machine: str
    libc: str
    """glibc or musl."""
    libc_version: tuple[int, int]

    @property
    def python(self) -> str:
        """As people write it: 3.13."""
        return ".".join(map(str, self.version)) + self.abi

    @property
    def platforms(self) -> list[str]:
        """Of wheels, the best first."""
        former = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        names = []
        for minor in range(self.libc_version[1], 4 if self.libc == "glibc" else 0, -1):
            if self.libc == "musl":
                names.append(f"musllinux_1_{minor}")
            else:
                names += [f"manylinux_2_{minor}"] + ([former[minor]] if minor in former else [])
        return [f"{name}_{self.machine}" for name in (*names, "linux")]

    def tags(self) -> frozenset[Tag]:
        """Of every wheel it can install."""
        abis = [f"cp{self.version[0]}{self.version[1]}{self.abi}"]
        return frozenset(
            [
                *cpython_tags(self.version, abis, self.platforms),
                *compatible_tags(self.version, f"cp{self.version[0]}{self.version[1]}", self.platforms),
            ]
        )


ASK = """
import json, os, platform, sys, sysconfig
if "musl" in (sysconfig.get_config_var("SOABI") or ""):
    libc = ("musl", (1, 2))
else:
    libc = ("glibc", [int(part) for part in os.confstr("CS_GNU_LIBC_VERSION").split()[1].split(".")[:2]])
print(json.dumps([sys.version_info[:2], sys.abiflags, platform.machine(), *libc]))
"""


def abilities(root: Root, python: str) -> Abilities:
    """Ask a Python."""
    done = root.run([python, "-c", ASK])
    if done.returncode:
        raise RuntimeError(f"{python} does not run: {done.stdout}")
    version, abi, machine, libc, libc_version = json.loads(done.stdout)
    return Abilities(tuple(version), abi, machine, libc, tuple(libc_version))


def runtimes(pythons: Iterable[Path] = ()) -> list[Runtime]:
    """All: three releases of Debian, also on ARM, and Pythons of this machine, those given among them."""
    found = [Runtime(System(suite, suite)) for suite in SUITES]
    # No Debian has 3.12, and sid's own may be newer than any wheel.
    known = [of_this_machine(python, suite) for version, suite in EXTRA if (python := where_is(version))]
    found += [*known, *(of_this_machine(python, "bookworm") for python in pythons)]
    return [*found, *(Runtime(System(f"{suite}-arm64", suite, "arm64"), checks=FOREIGN_CHECKS) for suite in SUITES)]


def where_is(version: str) -> Path | None:
    """A Python of this machine, by its version: on the PATH, or pyenv's."""
    program = shutil.which(f"python{version}")
    if program and "shims" not in program:
        return Path(program).resolve()
    known = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    return known[-1] if known else None


def of_this_machine(python: Path, suite: str) -> Runtime:
    """A Python of this machine within a Debian, at the place that it was built for."""
    python = python.resolve()
    if b"/ld-musl-" in python.read_bytes():
        system = System(f"{suite}-musl", suite, packages=(*System.packages, "musl"))
    else:
        system = System(suite, suite)
    prefix = python.parents[1]
    return Runtime(system, str(python), {prefix: str(prefix)})


def fits(wheel: Path, runtime: Runtime) -> bool:
    """Whether a wheel can be installed there. A system is made only for wheels of its architecture."""
    tags = parse_wheel_filename(wheel.name)[3]
    machine = MACHINES[runtime.system.architecture]
    return any(tag.platform.endswith(machine) for tag in tags) and not tags.isdisjoint(runtime.abilities.tags())


def split_untried(names: Sequence[str], patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of wheels that were not tried: those of which that is all right, and the others."""
    allowed = [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]
    return allowed, [name for name in names if name not in allowed]
