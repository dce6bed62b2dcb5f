"""mfstore itself, the Python that runs it, and the system."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import mfstore
from mfstore.doctor.findings import Finding
from mfstore.settings import usable_cpus

CORE = (
    "chunk", "codec", "crc", "cycles", "descriptor", "graph", "literal", "memory", "pickler", "reading", "sigv4",
    "table", "transfer", "unpickler", "writing",
)  # fmt: skip
"""The extensions of the compiled core."""
REINSTALL = "pip install --force-reinstall mfstore"


def program() -> Iterator[Finding]:
    """mfstore: which, and where it comes from."""
    place = str(Path(mfstore.__file__).parent)
    try:
        found = distribution("mfstore")
    except PackageNotFoundError:
        yield Finding("mfstore", f"{mfstore.__version__}, not installed, in {place}", "doubtful", "pip install mfstore")
        return
    origin = made_from(_tags(found), _direct_url(found), (found.read_text("INSTALLER") or "").strip())
    yield Finding("mfstore", f"{mfstore.__version__}, {origin}, in {place}")
    if found.version != mfstore.__version__:
        yield Finding(
            "installed", f"{found.version}, which is not what runs", "broken",
            f"Two copies are in the way of each other: pip uninstall mfstore until none is left, then {REINSTALL}",
        )  # fmt: skip


def made_from(tags: Sequence[str], direct_url: Mapping[str, Any] | None, installer: str = "") -> str:
    """How an installed distribution came to be: by the tags of its wheel, and what is recorded of a place it was
    installed from (``direct_url.json``)."""
    tag = tags[0] if tags else "of unknown tags"
    if direct_url is not None:
        url = str(direct_url.get("url", ""))
        if "dir_info" in direct_url:
            return "built here from its source" + (", in place" if direct_url["dir_info"].get("editable") else "")
        if "vcs_info" in direct_url:
            return f"built here from {direct_url['vcs_info'].get('commit_id', '')[:12]} of its repository"
        if not url.endswith(".whl"):
            return "built here from its source archive"
    if installer == "conda":
        return "a package of conda"
    if tag.rpartition("-")[2].startswith("linux_"):  # no index takes a wheel that is for one machine
        return f"built from source ({tag})"
    return f"from the wheel {tag}"


def _tags(found: Distribution) -> list[str]:
    lines = (found.read_text("WHEEL") or "").splitlines()
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Tag:")]


def _direct_url(found: Distribution) -> dict[str, Any] | None:
    text = found.read_text("direct_url.json")
    return json.loads(text) if text else None


def interpreter() -> Iterator[Finding]:
    """Python."""
    version = platform.python_version()
    locked = getattr(sys, "_is_gil_enabled", bool)()
    threaded = "t" in getattr(sys, "abiflags", "")
    kind = ", free-threaded" + (", with the GIL switched on" if locked else "") if threaded else ""
    yield Finding("Python", f"{platform.python_implementation()} {version}{kind}, {sys.executable}")


def system() -> Iterator[Finding]:
    """The operating system."""
    libc = " ".join(platform.libc_ver()).strip()
    yield Finding("system", ", ".join(filter(None, (platform.platform(terse=True), platform.machine(), libc))))
    yield Finding("CPUs", f"{usable_cpus()} that this process may use, of {os.cpu_count()}")


def core() -> Iterator[Finding]:
    """The compiled core."""
    loaded = 0
    for name in CORE:
        try:
            import_module(f"mfstore._core.{name}")
            loaded += 1
        except ImportError as error:
            yield Finding(f"_core.{name}", f"cannot be loaded: {error}", "broken", mending(str(error)))
    if loaded == len(CORE):
        yield Finding("compiled core", f"{loaded} extensions, all load")


def mending(error: str) -> str:
    """What to do about an extension that does not load, by what the loader says."""
    if "cannot open shared object file" in error or "Library not loaded" in error:
        return (
            "A library that it was built with is not on this machine. Install it, or the wheel, which brings its own: "
            f"{REINSTALL} --only-binary mfstore"
        )
    if "undefined symbol" in error or "version `" in error:
        return f"It was built with another version of a library. Build it anew here: {REINSTALL} --no-binary mfstore"
    return f"It was built for another Python, or is not there. {REINSTALL}"
