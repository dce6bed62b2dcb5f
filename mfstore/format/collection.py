"""What garbage collection writes down: its state, and lists of what it condemned.

Their tables are in docs/format.md, "Garbage collection".
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict

from mfstore._core import table
from mfstore._core.memory import xxh3
from mfstore.errors import CorruptObject, Unsupported
from mfstore.records import dataclass, field

FEATURE = "condemned"
"""What a program must know to write to a store that has been collected."""
STATE = "gc/state"
LISTS = "gc/condemned/"
VERSION = 1
MAGIC = b"MFSG"
HEADER = struct.Struct("<4sBB2xQQ32xQ")
ENTRY = struct.Struct("<32sQ")


@dataclass(frozen=True, slots=True)
class ListRef:
    """One published list."""

    key: str
    time: float
    """When it was published, on the store's clock."""
    recipes: int
    packs: int
    bytes: int
    """Stored bytes of what it lists."""


@dataclass(frozen=True, slots=True)
class State:
    """The one mutable object of garbage collection, replaced conditionally: that is what keeps collectors apart."""

    epoch: int = 0
    """Grows with each change."""
    deletions: int = 0
    """Deletions begun so far."""
    deleting: bool = False
    owner: str = ""
    """The collector at work; empty when there is none."""
    lists: tuple[ListRef, ...] = ()


def encode_state(state: State) -> bytes:
    """As it is stored."""
    return json.dumps({"version": VERSION, **asdict(state)}).encode()


def decode_state(data: bytes) -> State:
    """The state in stored bytes. CorruptObject when they are none, Unsupported for a newer version."""
    try:
        document = json.loads(data)
        if document["version"] != VERSION:
            raise Unsupported(
                "the state of garbage collection has a version unknown to this mfstore",
                key=STATE, expected=VERSION, found=document["version"], hint="Upgrade mfstore",
            )  # fmt: skip
        lists = tuple(
            ListRef(str(row["key"]), float(row["time"]), int(row["recipes"]), int(row["packs"]), int(row["bytes"]))
            for row in document["lists"]
        )
        if not all(entry.key.startswith(LISTS) and ".." not in entry.key for entry in lists):
            raise ValueError("a list that lies elsewhere")
        return State(
            int(document["epoch"]),
            int(document["deletions"]),
            bool(document["deleting"]),
            str(document["owner"]),
            lists,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise CorruptObject(
            "the state of garbage collection is damaged", key=STATE,
            hint="While no collector runs, remove this object: what was condemned will be condemned anew",
        ) from None  # fmt: skip


def seal_etag(etag: str) -> int:
    """What a list remembers of an object's version."""
    return xxh3(etag.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class CondemnedList:
    """Names and versions of condemned objects, each table ascending by name."""

    recipes: memoryview = field(default=memoryview(b""), repr=False)
    packs: memoryview = field(default=memoryview(b""), repr=False)

    def versions(self, kind: str) -> dict[bytes, int]:
        """Name and version of each of the ``kind`` "recipes" or "packs"."""
        return dict(ENTRY.iter_unpack(self.recipes if kind == "recipes" else self.packs))


def encode_list(recipes: dict[bytes, int], packs: dict[bytes, int]) -> bytes:
    """A list of names with their versions, as it is stored."""
    payload = b"".join(ENTRY.pack(name, rows[name]) for rows in (recipes, packs) for name in sorted(rows))
    fields = (MAGIC, VERSION, 0, len(recipes), len(packs))
    return HEADER.pack(*fields, xxh3(HEADER.pack(*fields, 0)[:-8] + xxh3(payload).to_bytes(8, "little"))) + payload


def decode_list(data: bytes, key: str) -> CondemnedList:
    """Parse and check a list."""
    if len(data) < HEADER.size:
        raise CorruptObject("list of condemned objects is too short", key=key, expected=HEADER.size, found=len(data))
    magic, version, flags, n_recipes, n_packs, seal = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise CorruptObject("not a list of condemned objects", key=key, expected=MAGIC, found=magic)
    if version != VERSION or flags:
        raise Unsupported("list of condemned objects has an unknown version", key=key, found=version)
    view = memoryview(data)[HEADER.size :]
    middle = n_recipes * ENTRY.size
    if middle + n_packs * ENTRY.size != len(view):
        raise CorruptObject("list of condemned objects has the wrong length", key=key, found=len(data))
    if seal != xxh3(data[: HEADER.size - 8] + xxh3(view).to_bytes(8, "little")):
        raise CorruptObject("list of condemned objects is damaged: checksum differs", key=key, offset=HEADER.size)
    recipes, packs = view[:middle], view[middle:]
    if not (table.is_sorted(recipes, ENTRY.size) and table.is_sorted(packs, ENTRY.size)):
        raise CorruptObject("list of condemned objects is not sorted", key=key, offset=HEADER.size)
    return CondemnedList(recipes, packs)
