"""What this process may use of its machine or container: CPUs, memory, descriptors, room for temporary files."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mfstore.display.amounts import duration, share, size
from mfstore.doctor.findings import Finding
from mfstore.host.control_group import ControlGroup, control_group
from mfstore.settings import resolve, resolve_s3

DESCRIPTORS = 1024
"""Of which a client with many connections and a store with many files may come near."""
LITTLE_MEMORY = 3
"""Times the memory that an operation may hold, besides what is stored and loaded."""
FEW_INODES = 10_000
LITTLE_SHARED = 64 << 20
"""Bytes of /dev/shm: what containers have unless they are asked for more. PyTorch's loaders need more; mfstore none."""
THROTTLED = 0.1
"""Share of the periods in which the group was stopped from which on it is told."""


def container(group: ControlGroup | None = None, shared: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """All limits that are seen from here."""
    group = control_group() if group is None else group
    yield of_cpus(group)
    yield of_memory(group, resolve().memory)
    yield descriptors(*resource.getrlimit(resource.RLIMIT_NOFILE), resolve_s3().concurrency)
    yield from inodes(tempfile.gettempdir())
    with suppress(OSError):
        yield of_shared(shutil.disk_usage(shared).total, shutil.disk_usage(shared).free)


def of_cpus(group: ControlGroup) -> Finding:
    """CPUs by quota, and whether it is used up."""
    counts = group.counts()
    facts = {"quota": group.cpus, "periods": counts.periods, "throttled": counts.throttled}
    if group.cpus is None:
        return Finding("cgroup CPUs", "no quota", facts=facts)
    text = f"a quota of {group.cpus:g} CPUs"
    stopped = counts.throttled / counts.periods if counts.periods else 0.0
    if stopped >= THROTTLED:
        return Finding(
            "cgroup CPUs", f"{text}, used up in {share(stopped)} of its periods ({duration(counts.throttled_seconds)})",
            "doubtful", "What runs there is stopped again and again: raise the limit, or MFSTORE_THREADS=1",
            facts=facts,
        )  # fmt: skip
    return Finding("cgroup CPUs", text, facts=facts)


def of_memory(group: ControlGroup, held: int) -> Finding:
    """Memory by the limit of the group, against what an operation may hold."""
    facts = {"limit": group.memory, "operation": held, "refused": group.counts().memory_refused}
    if group.memory is None:
        return Finding("cgroup memory", "no limit", facts=facts)
    text = f"{size(group.memory)}, page cache included; an operation holds up to {size(held)} besides what it loads"
    if group.memory < LITTLE_MEMORY * held:
        least = max(32 << 20, group.memory // 8)
        return Finding(
            "cgroup memory", text, "doubtful", "That is little for both: let operations hold less, or raise the limit",
            f"export MFSTORE_MEMORY={least}", facts,
        )  # fmt: skip
    return Finding("cgroup memory", text, facts=facts)


def descriptors(soft: int, hard: int, concurrency: int | None) -> Finding:
    """Open files, of which each connection is one."""
    facts = {"soft": soft, "hard": hard}
    unlimited = soft == resource.RLIM_INFINITY
    text = "no limit" if unlimited else f"{soft:,} at once"
    needed = max(DESCRIPTORS, 2 * (concurrency or 0) + 256)
    if not unlimited and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        return Finding(
            "descriptors", text, "doubtful", "Many connections and files at once may meet it",
            f"ulimit -n {most}", facts,
        )  # fmt: skip
    return Finding("descriptors", text, facts=facts)


def inodes(place: str) -> Iterator[Finding]:
    """Files that the directory for temporary files still takes; nothing where its file system has no such number."""
    with suppress(OSError):
        found = os.statvfs(place)
        if found.f_files:
            facts = {"place": place, "free": found.f_favail}
            text = f"{found.f_favail:,} free in {place}"
            if found.f_favail < FEW_INODES:
                hint = "Set TMPDIR to a directory of another file system, or remove small files"
                yield Finding("inodes", text, "doubtful", hint, facts=facts)
            else:
                yield Finding("inodes", text, facts=facts)


def of_shared(total: int, free: int) -> Finding:
    """Shared memory."""
    facts = {"total": total, "free": free}
    text = f"{size(total)}, {size(free)} free"
    if total <= LITTLE_SHARED:
        return Finding(
            "/dev/shm", text, "doubtful", "mfstore does without; loaders of PyTorch with workers do not",
            "docker run --shm-size=1g …", facts,
        )  # fmt: skip
    return Finding("/dev/shm", text, facts=facts)
