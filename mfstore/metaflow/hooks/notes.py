"""What is said where Metaflow is of a release that mfstore was not tried with, or is not what it was written for."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

SAID = "METAFLOW_MFSTORE_WARNED"
"""Set in the environment by the first process of a run that has something to say, so that those it starts do not
repeat it. Also of ``metaflow_extensions/mfstore/switch.py``."""
IN_CONTAINER = "METAFLOW_RUNTIME_ENVIRONMENT"
"""Schedulers set it in the containers of tasks, which would each say the same."""


def note(version: str, tested: str, kept: Sequence[str], packs: bool) -> str:
    """What to say of a release.

    Args:
        version: Of Metaflow.
        tested: The releases mfstore was tried with, if this is none of them.
        kept: What stays Metaflow's own, because it is not what mfstore was written for.
        packs: Whether the packed profile was asked for, and cannot be had.
    """
    what = [f"it was tried with Metaflow {tested}, and this is {version}"] if tested else []
    if kept:
        what.append(f"Metaflow {version} keeps its own way of {', '.join(kept)}, which mfstore does not know")
    if packs:
        what.append("so the packed profile is not there: artifacts are stored in the default one")
    return f"mfstore: {'; '.join(what)}. All else runs as ever (to say no more: {SAID}=1)"


def say(text: str) -> None:
    """Write a note, once in all the processes of a run."""
    if SAID in os.environ or IN_CONTAINER in os.environ:
        return
    os.environ[SAID] = "1"
    sys.stderr.write(f"{text}\n")
