"""Runs the training flow by Metaflow itself, with its own storage and on mfstore, and measures; shows nothing."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mfstore.errors import MfstoreError

FLOW = Path(__file__).parent / "train_flow.py"
OFF = {"METAFLOW_MFSTORE": "0"}
DEFAULT = {"METAFLOW_MFSTORE": "1", "METAFLOW_MFSTORE_PROFILE": "stock"}
PACKED = {"METAFLOW_MFSTORE": "1", "METAFLOW_MFSTORE_PROFILE": "packed"}
SIDES = (("Metaflow alone", OFF, OFF), ("on mfstore", DEFAULT, OFF), ("on mfstore, packed", PACKED, DEFAULT))
"""The runs: what each is called, runs with and is read with. Metaflow alone reads what the default profile wrote."""


@dataclass(frozen=True, slots=True)
class FlowRun:
    """What one run of the flow took. Seconds, of all its processes together for ``cpu``; bytes."""

    side: str
    wall: float
    cpu: float
    stored: int
    summary: str
    """The artifact of that name, read back."""


class FlowFailed(MfstoreError):
    """The flow did not run to its end, or to another one than it should."""

    code = "flow_failed"


def run_flows(root: Path) -> Iterator[FlowRun]:
    """Run the flow once on each side, each in a local datastore of its own. FlowFailed unless all end alike."""
    first: FlowRun | None = None
    for number, (side, writer, reader) in enumerate(SIDES):
        home = root / f"flow-{number}"
        home.mkdir(parents=True)
        before, started = _children(), time.perf_counter()
        _metaflow(home, writer, "run", "--run-id-file", str(home / "run-id"))
        wall, cpu = time.perf_counter() - started, _children() - before
        store = home / ".metaflow"
        stored = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
        run_id = (home / "run-id").read_text().strip()
        shown = _metaflow(home, reader, "dump", f"{run_id}/end", "--include", "summary")
        found = re.search(r"\d+ flights; .*", shown)
        if found is None:
            raise FlowFailed("the run's summary cannot be read back", found=shown)
        run = FlowRun(side, wall, cpu, stored, found[0].strip())
        first = first or run
        if run.summary != first.summary:
            raise FlowFailed(f"the flow, {side}, ends otherwise", expected=first.summary, found=run.summary)
        yield run


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _metaflow(home: Path, switch: dict[str, str], *command: str) -> str:
    environment = {
        **os.environ,
        "METAFLOW_HOME": str(home),  # not this user's configuration
        "METAFLOW_DEFAULT_DATASTORE": "local",
        "METAFLOW_DEFAULT_METADATA": "local",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(home),
        "OMP_NUM_THREADS": "1",  # three tasks train at once; their threads would wait for each other, spinning
        "METAFLOW_USER": os.environ.get("METAFLOW_USER", "mfstore-demo"),
        **switch,
    }
    done = subprocess.run(
        [sys.executable, str(FLOW), "--no-pylint", *command], env=environment, cwd=home, capture_output=True, text=True
    )
    if done.returncode:
        raise FlowFailed(f"Metaflow failed: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
