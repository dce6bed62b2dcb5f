"""What Metaflow's users are told of a run that a collection removed: a metadata service goes on listing it, and its
files are not there. Who removed it, and when, says the log of collections below the root."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from metaflow.datastore.exceptions import DataException

from mfstore.display.amounts import date
from mfstore.format.audit import AuditRecord, decode_record, is_record
from mfstore.metaflow.roots.layout import LOG_FOLDER

READ_TOGETHER = 64
"""Records asked for together, the latest first."""
READ_AT_MOST = 4096
"""Records that are looked through: of daily collections those of five years."""


def told_of_removal(storage: Any, run: str, error: DataException) -> DataException:
    """The error, or one that says too which collection removed ``run`` (flow/run), if the log tells of one. Looking
    takes a request or two, and fails silently: something else is wrong already."""
    why = ""
    with suppress(Exception):
        why = _removal(storage, run)
    if not why:
        return error
    new = DataException(f"{error.message.rstrip('.')}. {why}")
    new.key = getattr(error, "key", None)
    return new


def _removal(storage: Any, run: str) -> str:
    found: AuditRecord | None = None
    reason = ""
    for record in _records(storage):
        if found is not None and record.execution != found.execution:
            break
        for line in record.lines:
            if line.get("remove") == run:
                found = found or record
                reason = reason or str(line.get("why") or "")
    if found is None:
        return ""
    because = f": {reason}" if reason else ""
    return f"Garbage collection removed the run {run} on {date(found.time)}{because}. {found.user} ran it (mfstore gc)"


def _records(storage: Any) -> Iterator[AuditRecord]:
    """The log, the latest first."""
    blobs = storage.blobs
    if blobs.remote:
        paths = [path for _, _, path in blobs.list([LOG_FOLDER])]
    else:
        root = Path(storage.datastore_root)
        paths = [path.relative_to(root).as_posix() for path in (root / LOG_FOLDER).rglob("*")]
    names = sorted(filter(is_record, paths), reverse=True)[:READ_AT_MOST]
    for at in range(0, len(names), READ_TOGETHER):
        part = names[at : at + READ_TOGETHER]
        stored = dict(blobs.read(part))
        for path in part:
            found = stored.get(path)
            record = None if found is None else decode_record(bytes(found.data))
            if record is not None:
                yield record
