"""The log of collections: what went, when, by whose order and by which policy (docs/format.md, "Log of collections").

An execution writes two objects that nothing ever changes: one before anything is deleted, of what it is about to do,
and one at its end, of what it did. The first alone tells of one that was killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from mfstore.records import dataclass, field

STORE_LOG = "gc/log/"
"""Where that of a store is."""
VERSION = 1
BEGIN: Final = "begin"
END: Final = "end"
SUFFIX = ".jsonl"
Line = Mapping[str, Any]
"""One thing that went, or is to go: its name under what becomes of it (``remove``, ``condemn``, ``ref``, …), and what
is known of it."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One object of the log."""

    execution: str
    """What both objects of one execution have in common: 16 hexadecimal digits."""
    event: str
    """``begin``: what it was about to do; ``end``: what it did."""
    action: str
    """``gc`` or ``undo``."""
    time: float
    """Seconds since the epoch, by the storage's clock."""
    user: str
    """Who ran it: ``user@host``."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """What to keep, by the names of the options."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """All else that is said of the execution as a whole: ``outcome``, ``objects``, ``bytes``, …"""
    lines: tuple[Line, ...] = ()
    """What it is about, one thing each."""


def new_execution() -> str:
    """A word for an execution that no other has."""
    return os.urandom(8).hex()


def record_key(folder: str, record: AuditRecord) -> str:
    """Where a record is stored: by day, and within one in the order of time."""
    moment = datetime.fromtimestamp(record.time, UTC)
    return f"{folder}{moment:%Y/%m/%d/%H%M%S.%f}-{record.execution}-{record.event}{SUFFIX}"


def is_record(key: str) -> bool:
    """Whether an object of the log is a record, by its name."""
    return key.endswith((f"-{BEGIN}{SUFFIX}", f"-{END}{SUFFIX}"))


def encode_record(record: AuditRecord) -> bytes:
    """A record as it is stored: a line of JSON for the execution, and one for each thing that it is about."""
    head = {
        "version": VERSION, "event": record.event, "action": record.action, "execution": record.execution,
        "time": record.time, "user": record.user, **record.facts, "policy": dict(record.policy),
    }  # fmt: skip
    return "".join(f"{json.dumps(line)}\n" for line in (head, *record.lines)).encode()


def decode_record(data: bytes) -> AuditRecord | None:
    """The record in stored bytes; None for what is none, or is of another version. Lines that are cut are left out."""
    first, *rest = data.split(b"\n")
    try:
        head = json.loads(first)
        if head.pop("version") != VERSION:
            return None
        return AuditRecord(
            str(head.pop("execution")), str(head.pop("event")), str(head.pop("action")), float(head.pop("time")),
            str(head.pop("user")), dict(head.pop("policy")), head, tuple(_lines(rest)),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _lines(rows: Iterable[bytes]) -> Iterator[Line]:
    for row in rows:
        try:
            line = json.loads(row) if row else None
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            yield line


def last_removal(records: Iterable[AuditRecord], run: str) -> AuditRecord | None:
    """The latest of these records that says a run (``flow/run``) was removed, or was about to be; None when none does.
    The policy that dropped it, who ran that, and when, are the record's."""
    found = [record for record in records if any(line.get("remove") == run for line in record.lines)]
    return max(found, key=lambda record: record.time, default=None)
