"""Holds as they are stored: what no policy of a collection lets go, who said so, and why (docs/format.md, "Holds")."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import unquote

from mfstore.errors import CorruptObject, Unsupported
from mfstore.format.refs import encoded, ref_path
from mfstore.records import dataclass

STORE_HOLDS = "gc/holds/"
"""Below it those of a store's refs and keys."""
SUFFIX = ".json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Hold:
    """That something stays, whatever the policy of a collection says."""

    who: str
    """``user@host``."""
    when: float
    """Seconds since the epoch, by the clock of who holds."""
    why: str = ""
    until: float | None = None
    """When it ends by itself; None: when it is released."""
    unread: str = ""
    """Why it is not known what it says: such a hold holds until it is released."""

    def in_force(self, now: float) -> bool:
        """Whether it holds at this time."""
        return self.until is None or now < self.until

    def outlasts(self, other: Hold) -> bool:
        """Whether it holds on when the other one has ended."""
        return other.until is not None and (self.until is None or self.until > other.until)

    def __str__(self) -> str:
        from mfstore.display.amounts import date

        if self.unread:
            return f"held: its hold cannot be read ({self.unread})"
        end = "" if self.until is None else f" until {date(self.until)}"
        return f"held by {self.who} since {date(self.when)}{end}" + (f": {self.why}" if self.why else "")


def encode_hold(hold: Hold) -> bytes:
    """A hold as it is stored. Never the same twice: where the bytes are the etag, a late request of who releases one
    would take the next."""
    document = {
        "version": VERSION, "who": hold.who, "when": hold.when, "why": hold.why, "until": hold.until,
        "nonce": os.urandom(8).hex(),
    }  # fmt: skip
    return json.dumps(document).encode()


def decode_hold(data: bytes, path: str) -> Hold:
    """The hold in stored bytes. CorruptObject when they are none, Unsupported for another version."""
    try:
        document: Any = json.loads(data)
        if document["version"] != VERSION:
            raise Unsupported("a hold of another version of mfstore", key=path, found=document["version"])
        until = document["until"]
        return Hold(
            str(document["who"]), float(document["when"]), str(document["why"]), None if until is None else float(until)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise CorruptObject("not the JSON of a hold", key=path) from None


def hold_path(name: str) -> str:
    """Where the hold of a ref or a key is. InvalidKey for what can be neither."""
    ref_path(name)
    return f"{STORE_HOLDS}{encoded(name)}{SUFFIX}"


def held_name(path: str) -> str:
    """The ref or key that a hold at this path is of."""
    return unquote(path.removeprefix(STORE_HOLDS).removesuffix(SUFFIX))
