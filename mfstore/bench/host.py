"""What a run was made on: the machine, its limits, and the versions of what moves bytes."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mfstore.doctor.libraries import LINKED
from mfstore.host.control_group import control_group
from mfstore.host.file_systems import file_system
from mfstore.settings import usable_cpus

PACKAGES = ("mfstore", "botocore", "aiobotocore", "blake3", "numpy", "metaflow")


def host(directory: Path | None = None) -> dict[str, Any]:
    """The machine without its name: two of the same kind are the same here. None where something is not known."""
    group = control_group()
    return {
        "cpu": _cpu_model(), "cores": os.cpu_count(), "usable_cpus": usable_cpus(), "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()}", "machine": platform.machine(),
        "cgroup": {"cpus": group.cpus, "memory": group.memory},
        "file_system": file_system(str(directory)) if directory is not None else None,
        "python": f"{platform.python_implementation()} {platform.python_version()}", "libraries": libraries(),
    }  # fmt: skip


def libraries() -> dict[str, str]:
    """Versions by name, of packages and of what the core is linked with; only those that there are."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    for extension in LINKED:
        with suppress(ImportError):
            told: Mapping[str, tuple[str, str, str]] = import_module(f"mfstore._core.{extension}").libraries()
            found.update({name: running for name, (running, _, _) in told.items()})
    return found


def _cpu_model() -> str | None:
    names = ("model name", "Hardware", "CPU implementer")
    with suppress(OSError):
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()]
        told = {name.strip(): value.strip() for name, _, value in reversed(lines)}
        for name in names:
            if told.get(name):
                return told[name]
    return platform.processor() or None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
