"""Taking back what collections of a Metaflow root condemned: runs that are still there are held for a while, so that
neither the next collection removes them nor the one after condemns them again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from time import time
from typing import TYPE_CHECKING

from mfstore.errors import Conflict, NotFound
from mfstore.format.audit import last_removal
from mfstore.holding import new_hold
from mfstore.maintenance.audit import Account, AuditLog, read_log
from mfstore.maintenance.metaflow.collecting.state import StateFile
from mfstore.maintenance.metaflow.holds import hold_run
from mfstore.metaflow.roots.layout import LOG_FOLDER

if TYPE_CHECKING:
    from mfstore.format.audit import Line
    from mfstore.format.holds import Hold
    from mfstore.maintenance.metaflow.root import Root

WHY = "a collection condemned it, and that was undone"


@dataclass(frozen=True, slots=True)
class RootUndone:
    """What was taken back."""

    held: dict[str, Hold]
    """Runs (``flow/run``) that stay, each with the hold that is in force."""
    lost: dict[str, str]
    """Runs that a collection has begun to remove, or has removed, and what is known of that."""


def undo_root(root: Root, names: Sequence[str] = (), lasting: float | None = None) -> RootUndone:
    """Hold the runs that are condemned now.

    Args:
        root: The datastore root.
        names: Only these runs, as ``flow/run``, or those that match one of these patterns.
        lasting: For so many seconds; None: until the holds are released.

    Raises:
        NotFound: one of ``names`` is not condemned. The message says when it was removed, if the log does. Nothing was
            held then.
        CorruptObject: the state of collection is damaged.
        AccessDenied: there is no right to read or to write.
    """
    file = StateFile(root.backend)
    file.load()
    # A list names what has been removed too, until the next one.
    condemned = [name for name in sorted(file.condemned()) if _is_there(root, name)]
    chosen = [name for name in condemned if not names or any(fnmatchcase(name, pattern) for pattern in names)]
    for pattern in names:
        if not any(fnmatchcase(name, pattern) for name in chosen):
            raise _not_condemned(root, pattern)
    held: dict[str, Hold] = {}
    lost: dict[str, str] = {}
    if chosen:
        about = Account({"runs": len(chosen)}, [{"undo": name} for name in chosen])
        log = AuditLog(root.backend, LOG_FOLDER, "undo", {} if lasting is None else {"for": lasting})
        with log.execution(time(), about, lambda: _account(held, lost)):
            _hold(root, chosen, lasting, held, lost)
    return RootUndone(held, lost)


def _is_there(root: Root, name: str) -> bool:
    return next(iter(root.backend.list_first(f"{name}/", 1)), None) is not None


def _hold(
    root: Root, names: Iterable[str], lasting: float | None, held: dict[str, Hold], lost: dict[str, str]
) -> None:  # fmt: skip
    for name in names:
        try:
            held[name] = hold_run(root, name, new_hold(WHY, lasting))
        except NotFound:
            lost[name] = "a collection has removed it"
        except Conflict as error:
            lost[name] = error.message


def _account(held: dict[str, Hold], lost: dict[str, str]) -> Account:
    lines: list[Line] = [{"hold": name, "until": hold.until} for name, hold in held.items()]
    return Account({"runs": len(held), "lost": len(lost)}, [*lines, *({"lost": name} for name in lost)])


def _not_condemned(root: Root, name: str) -> NotFound:
    record = last_removal(read_log(root.backend, LOG_FOLDER), name)
    if record is None or _is_there(root, name):
        return NotFound(
            f"{name} is not condemned", backend=root.url,
            hint="mfstore gc --metaflow … -l lists what waits; mfstore hold keeps any run",
        )  # fmt: skip
    from mfstore.display.amounts import date

    return NotFound(
        f"{name} was removed by a collection of {record.user} at {date(record.time)}", backend=root.url,
        hint="A bucket with versioning may still have its versions: aws s3api list-object-versions"
        if root.remote else "",
    )  # fmt: skip
