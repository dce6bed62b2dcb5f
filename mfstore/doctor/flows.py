"""Metaflow: which, and whether it stores by mfstore.

A process of its own imports Metaflow and is asked: that takes half a second, prints what it likes, and may fail.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from mfstore.doctor.findings import Finding
from mfstore.doctor.packages import METAFLOWS, installed
from mfstore.settings import FORMER_PROFILES, PROFILES

OWN = "mfstore."
PATIENCE = 120
"""Seconds: an import of Metaflow takes half a one, and on a busy machine with a slow disk many times that."""


def flows() -> Iterator[Finding]:
    """The distribution that brings Metaflow, and what its processes store with."""
    there = {name: number for name in METAFLOWS if (number := installed(name)) is not None}
    if not there:
        yield Finding("Metaflow", "not installed: pip install 'mfstore[metaflow]' to use both")
        return
    told = ", ".join(f"{name} {number}" for name, number in there.items())
    if len(there) > 1:
        yield Finding(
            "Metaflow", told, "broken",
            "Both bring the package metaflow, and each has overwritten files of the other. "
            f"pip uninstall {' '.join(there)}, then install the one that you mean",
        )  # fmt: skip
    else:
        yield Finding("Metaflow", told)
    yield from judged(ask())


def ask() -> Mapping[str, Any]:
    """What a process with Metaflow says: see ``inside_metaflow``. With ``error``, why it says nothing; with
    ``warning``, what it wrote to stderr besides."""
    command = [sys.executable, "-m", "mfstore.doctor.inside_metaflow"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except OSError as error:
        return {"error": str(error)}
    except subprocess.TimeoutExpired:
        return {"error": f"it takes longer than {PATIENCE} seconds"}
    lines = done.stderr.strip().splitlines()
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"error": lines[-1] if lines else f"it ended with exit code {done.returncode}"}
    return {**found, "warning": next((line for line in lines if line.startswith("mfstore ")), "")}


def judged(told: Mapping[str, Any]) -> Iterator[Finding]:
    """What to think of what such a process says."""
    if "error" in told:
        hint = "python -c 'import metaflow' shows the whole of it"
        yield Finding("import metaflow", str(told["error"]), "broken", hint)
        return
    storages: dict[str, str] = told["storages"]
    active = {kind: module for kind, module in storages.items() if module.startswith(OWN)}
    if active and len(active) == len(storages):
        yield Finding("extension", f"active: {', '.join(active)} by mfstore")
    elif told["switched_off"]:
        yield Finding("extension", "switched off by METAFLOW_MFSTORE", "doubtful", "Unset it to store by mfstore")
    else:
        others = ", ".join(f"{kind} by {module}" for kind, module in storages.items() if kind not in active)
        hint = told["warning"] or "Another extension may offer the same storages: pip list shows what is installed"
        yield Finding("extension", f"not active: {others}", "broken", hint)
    if told.get("note"):
        yield Finding("release", str(told["note"]), "doubtful", "docs/metaflow.md says which releases mfstore knows")
    profile = told["profile"] or PROFILES[0]
    if FORMER_PROFILES.get(profile, profile) in PROFILES:
        yield Finding("profile", profile)
    else:
        yield Finding("profile", f"{profile} is none", "broken", f"METAFLOW_MFSTORE_PROFILE is {' or '.join(PROFILES)}")
    where = told["root"] or "nowhere yet"
    yield Finding("datastore", f"{told['datastore']}, {where}")
    yield Finding("metadata", told["metadata"])
