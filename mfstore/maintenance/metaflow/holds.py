"""Holds of runs below a Metaflow root: no policy of a collection lets these go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mfstore.errors import Conflict, InvalidKey, NotFound
from mfstore.format.holds import SUFFIX
from mfstore.holding import drop_hold, put_hold, read_holds
from mfstore.maintenance.metaflow.collecting.state import StateFile
from mfstore.metaflow.roots.layout import MAINTENANCE_FOLDER, is_flow

if TYPE_CHECKING:
    from mfstore.format.holds import Hold
    from mfstore.maintenance.metaflow.collecting.policy import Run
    from mfstore.maintenance.metaflow.root import Root

FOLDER = f"{MAINTENANCE_FOLDER}/holds/"
_RUN = re.compile(r"([^/]+)/([^/]+)")


def run_of(name: str) -> Run:
    """The flow and run of ``Flow/run``. InvalidKey for what is none."""
    found = _RUN.fullmatch(name)
    if found is None or not is_flow(found[1]) or found[2] in (".", "..", "data"):
        raise InvalidKey("not a run", found=f"{name!r:.80}", hint="Write Flow/run, such as TrainFlow/1795439202992678")
    return found[1], found[2]


def hold_run(root: Root, name: str, hold: Hold) -> Hold:
    """Hold a run (``Flow/run``), and return the hold that is in force: one that lasts longer stays.

    Raises:
        InvalidKey: that is no name of a run.
        NotFound: there is no such run.
        Conflict: a collection is removing it just now. The hold stays: nothing more goes with the next collection.
    """
    flow, run = run_of(name)
    if next(root.backend.list(f"{flow}/{run}/"), None) is None:
        raise NotFound(f"no run {name}", backend=root.url)
    hold = put_hold(root.backend, _path(flow, run), hold)
    # A collection says what it is about to remove before it looks for holds: one of both sees the other.
    if name in StateFile(root.backend).load().removing:
        raise Conflict(
            f"a collection has begun to remove {name}", backend=root.url,
            hint="It is held from now on; what is gone is gone. See: mfstore verify --metaflow",
        )  # fmt: skip
    return hold


def release_run(root: Root, name: str) -> None:
    """End the hold of a run. NotFound when it is not held."""
    if not drop_hold(root.backend, _path(*run_of(name))):
        raise NotFound(f"{name} is not held", backend=root.url)


def run_holds(root: Root, now: float, flow: str = "") -> Mapping[str, Hold]:
    """The holds of runs (``Flow/run``), of one flow or of all, that are in force at this time, by the storage's clock.
    One that cannot be read is in force."""
    folder = f"{FOLDER}{flow}/" if flow else FOLDER
    found = {path[len(FOLDER) : -len(SUFFIX)]: hold for path, hold in read_holds(root.backend, folder).items()}
    return {name: hold for name, hold in sorted(found.items()) if hold.in_force(now)}


def _path(flow: str, run: str) -> str:
    return f"{FOLDER}{flow}/{run}{SUFFIX}"
