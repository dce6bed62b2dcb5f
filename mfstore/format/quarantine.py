"""Where repair puts a damaged object instead of deleting it (docs/format.md, "Quarantine")."""

from __future__ import annotations

PREFIX = "quarantine/"


def quarantine_path(key: str, modified: float, prefix: str = PREFIX) -> str:
    """Where the object ``key`` goes that was written at that time, in seconds since the epoch: names do not repeat
    though the same key may be damaged again."""
    return f"{prefix}{key}.{int(modified)}"


def quarantined_key(path: str, prefix: str = PREFIX) -> str | None:
    """The key of the object that lies there in quarantine; None when repair did not put it there."""
    key, _, seconds = path.removeprefix(prefix).rpartition(".")
    return key if path.startswith(prefix) and key and seconds.isdecimal() else None
