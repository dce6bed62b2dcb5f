"""The floor beside each row: a minimal client over epoll, in C, compiled when it is first asked for.

What it does and what it leaves out stands in ``client.c``.
"""

import functools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE.parent.parent / "src"
BUILT = HERE.parent.parent / "build" / "floor"
KERNELS = ("sigv4/signature.c", "crc/checksum.c")
SMALL = 1 << 20
"""Objects of fewer bytes are many at once."""
AT_ONCE, LARGE_AT_ONCE = 32, 4
"""Connections of a thread. us of CPU for a GET of 4 KiB over http with 8, 16, 32, 64 and 128 at once: 10.6, 10.1, 9.4,
9.8, 8.6; s/GB of 64 MiB with 1, 2, 4 and 8: 0.21, 0.40, 0.43, 0.41, for one object's place stays in the cache. A client
gives each object memory of its own, so it is four."""


@dataclass(frozen=True)
class Floor:
    """The best of some rounds: seconds for each request."""

    cpu: float
    kernel: float
    wall: float


def at_once(size):
    """Connections of a thread for objects of so many bytes."""
    return AT_ONCE if size < SMALL else LARGE_AT_ONCE


@functools.cache
def built() -> Path:
    """The client's program."""
    BUILT.parent.mkdir(exist_ok=True)
    libraries = ["openssl", "libcrypto"]
    found = subprocess.run(["pkg-config", "--cflags", "--libs", *libraries], capture_output=True, text=True, check=True)
    own = [HERE / "client.c", *(SOURCES / kernel for kernel in KERNELS)]
    flags = ["-O3", "-g1", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
    # Processes that build it at once each run a whole one.
    made = BUILT.with_name(f"{BUILT.name}.{os.getpid()}")
    subprocess.run(["gcc", *flags, *own, "-o", made, *found.stdout.split(), "-lpthread"], check=True)
    return made.replace(BUILT)


def command(where, operation, size, exist, count, *, rounds=3, threads=1, signed=None, checksum="none"):
    """The program, and what it is told. A payload is signed over http, as SDKs do, unless ``signed`` says."""
    secure = where["url"].startswith("https")
    payload = "signed" if (not secure if signed is None else signed) else "unsigned"
    numbers = (size, exist, count, rounds, at_once(size), threads)
    ca_file = where["ca_file"] or ""
    return [built(), where["url"], ca_file, where["bucket"], operation.upper(), *map(str, numbers), payload, checksum]


def environment(where, libraries=None):
    """Whose requests they are, and where the loader looks for other libraries than the system's."""
    named = {"ACCESS_KEY_ID": "access_key", "SECRET_ACCESS_KEY": "secret_key", "REGION": "region"}
    searched = {"LD_LIBRARY_PATH": libraries} if libraries else {}
    return {**os.environ, **{f"AWS_{name}": where[field] for name, field in named.items()}, **searched}


def floor(where, operation, size, exist, count, *, libraries=None, **options) -> Floor:
    """What ``count`` requests took, one by one."""
    call = command(where, operation, size, exist, count, **options)
    done = subprocess.run(
        call, env=environment(where, libraries), capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    threads = options.get("threads", 1)
    made = count // threads * threads
    best = min([float(field) / made for field in line.split()] for line in done.stdout.splitlines())
    return Floor(*best)
