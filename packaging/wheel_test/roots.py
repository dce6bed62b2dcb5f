"""Fresh roots: small Debian systems of the mirrors that this machine's apt uses, and changed copies that leave nothing.

A system is made once by mmdebstrap, below ``build/roots``. Each test gets a copy of it by an overlay in memory, with
/proc and /dev, in a mount namespace of its own. The namespace ends with the process that asked for it, however that
ends, and with it all mounts and processes in it. Systems of another architecture run under qemu, which is registered
in that namespace only.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PLACE = Path(__file__).parents[2] / "build" / "roots"
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "apt-config": "apt",
    "qemu-aarch64-static": "qemu-user-static",
}
HANG = 3600.0
"""Seconds after which a command is stuck. Under qemu, on a busy machine, pip takes ten minutes."""

_NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

# What the kernel compares with the first bytes of a program: an ELF file for AArch64, as binfmt-support has it. F opens
# qemu at once, so that it need not be in the root.
_BINFMT = (
    rb":mfstore-qemu:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    rb":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:%s:F"
)

# In the new namespace, as its first process: $1 the system, $2 an empty directory, then pairs of what is seen where. It
# ends when its standard input does, which is when we do.
_SETUP = """
set -e
base=$1 place=$2; shift 2
mount -t tmpfs -o size=8g none "$place"
mkdir "$place/changes" "$place/work" "$place/system"
mount -t overlay -o "lowerdir=$base,upperdir=$place/changes,workdir=$place/work" overlay "$place/system"
mkdir -p "$place/system/proc" "$place/system/dev"
mount -t proc proc "$place/system/proc"
mount --rbind /dev "$place/system/dev"
mount -t tmpfs none "$place/system/dev/shm"
while [ $# -gt 0 ]; do
  mkdir -p "$place/system$2"
  mount --bind "$1" "$place/system$2"
  mount -o remount,ro,bind "$place/system$2"
  shift 2
done
echo ready
exec cat
"""


class Missing(Exception):
    """Roots cannot be made here. Says what is needed."""


@dataclass(frozen=True)
class System:
    """One Debian, and the packages it has beside what is essential."""

    name: str
    suite: str
    architecture: str = "amd64"
    packages: tuple[str, ...] = ("python3", "python3-venv", "ca-certificates")

    @property
    def foreign(self) -> bool:
        """Whether its programs are of another architecture than this machine."""
        return self.architecture != _NATIVE


def check() -> None:
    """Raise ``Missing`` unless roots can be made and entered here."""
    if os.geteuid() != 0:
        raise Missing("mounts and chroot need root. Run it as root, or in a container that is: sudo make wheel-test")
    absent = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    if absent:
        raise Missing(f"Run:  apt-get install --no-install-recommends {' '.join(absent)}")


def make(system: System) -> Path:
    """The directory of a system, made if it is not there yet. Delete it to have it made anew."""
    place = PLACE / system.name
    made_of = f"{system}\n"
    if (place / "made-of").exists() and (place / "made-of").read_text() == made_of:
        return place / "system"
    print(f"making {place}: Debian {system.suite}, {system.architecture}", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "apt.conf").write_text(_apt_settings())
    packages = [*system.packages]
    variant = "apt"
    if system.foreign:
        # Not set up, only unpacked: packages' scripts would take minutes under qemu, and a Python needs none of them.
        variant = "extract"
        packages += ["base-files", "bash", "coreutils", "dash", "openssl", "sed"]
    command = [
        "nice", "mmdebstrap", f"--variant={variant}", f"--architectures={system.architecture}",
        f"--aptopt={place / 'apt.conf'}", f"--include={','.join(packages)}", system.suite, place / "system", _mirror(),
    ]  # fmt: skip
    with (place / "log").open("w") as log:
        done = subprocess.run(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, timeout=HANG)
    if done.returncode:
        raise Missing(f"mmdebstrap failed:\n{(place / 'log').read_text()[-2000:]}")
    (place / "made-of").write_text(made_of)
    return place / "system"


def _mirror() -> str:
    """Where this machine's apt has Debian from."""
    command = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in said.splitlines():
        label, _, uri = line.partition(" ")
        if label == "Debian":
            return uri
    raise Missing("apt knows no archive of Debian: run it on Debian, after apt-get update")


def _apt_settings() -> str:
    """How this machine's apt fetches: proxies, certificates, how old lists may be."""
    command = ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n', "Acquire"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    wanted = re.compile(r"Acquire::(Check-|https?::|Retries|AllowInsecure)")
    return "".join(f"{line}\n" for line in said.splitlines() if wanted.match(line))


class Root:
    """A changed copy of a system, while ``with`` lasts."""

    def __init__(self, base: Path, foreign: bool, seen: Mapping[Path, str], environment: Mapping[str, str]):
        self._base, self._foreign, self._seen = base, foreign, seen
        self.environment = {
            "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "USER": "smoke",  # Metaflow takes none named root
            "LANG": "C.UTF-8",
            **environment,
        }

    def __enter__(self) -> Root:
        self._place = tempfile.mkdtemp(prefix="mfstore-root-")
        pairs = [part for source, target in self._seen.items() for part in (str(source), target)]
        inner = ["sh", "-c", _SETUP, "sh", str(self._base), self._place, *pairs]
        spaces = ["--mount", "--pid", "--fork", "--kill-child"]
        if self._foreign:
            spaces += ["--user", "--map-root-user"]  # binfmt_misc belongs to a user namespace
            inner = [sys.executable, "-c", _REGISTER, *inner]
        self._holder = subprocess.Popen(
            ["unshare", *spaces, *inner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout
        if self._holder.stdout.readline() != "ready\n":
            self.__exit__()
            raise Missing("the root could not be mounted (see above)")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._holder.stdin and self._holder.stdout
        self._holder.stdin.close()
        self._holder.wait()
        self._holder.stdout.close()
        Path(self._place).rmdir()

    def run(
        self, command: Sequence[str], environment: Mapping[str, str | None] | None = None, directory: str = "/root"
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the root to its end; what it prints is one text. A variable that is None is not set."""
        spaces = f"/proc/{self._holder.pid}/ns"
        enter = [f"--mount={spaces}/mnt", f"--pid={spaces}/pid_for_children"]
        if self._foreign:
            enter += [f"--user={spaces}/user", "--setuid=0", "--setgid=0"]
        wanted = {**self.environment, **(environment or {})}
        values = [f"{name}={value}" for name, value in wanted.items() if value is not None]
        go = ["chroot", f"{self._place}/system", "/bin/sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", directory]
        return subprocess.run(
            ["nice", "nsenter", *enter, *go, "/usr/bin/env", "-i", *values, *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=HANG,
        )  # fmt: skip

    def write(self, path: str, content: bytes) -> None:
        """Put a file into the root."""
        command = ["sh", "-c", 'mkdir -p "$(dirname "$0")" && cat > "$0"', f"{self._place}/system{path}"]
        spaces = f"/proc/{self._holder.pid}/ns"
        enter = [f"--mount={spaces}/mnt"] + ([f"--user={spaces}/user"] if self._foreign else [])
        subprocess.run(["nsenter", *enter, *command], input=content, check=True)


_REGISTER = f"""
import os, shutil, subprocess, sys
subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc"], check=True)
with open("/proc/sys/fs/binfmt_misc/register", "wb", buffering=0) as register:
    register.write({_BINFMT!r} % shutil.which("qemu-aarch64-static").encode())
os.execvp(sys.argv[1], sys.argv[1:])
"""


@contextlib.contextmanager
def fresh(
    system: System, seen: Mapping[Path, str] | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Root]:
    """A copy of a system, with directories of this machine that can be read in it, and variables for all it runs."""
    with Root(make(system), system.foreign, seen or {}, environment or {}) as root:
        yield root
