"""Groups: several chunks in one Zstandard frame (docs/format.md, "Groups")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfstore._core.codec import GROUP, GROUP_LIMIT
from mfstore.errors import CorruptObject

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.format.packs import PackEntry
    from mfstore.format.recipes import Placement

MAGIC = b"\x28\xb5\x2f\xfd"
"""Of a Zstandard frame."""


def group_length(encoded: Buffer) -> int:
    """Bytes that a group decodes to, by the header of its frame (RFC 8878, 3.1.1.1). CorruptObject when that says
    nothing of it, or too much."""
    head = bytes(memoryview(encoded)[:18])  # no header is longer
    descriptor = head[4] if len(head) > 4 and head.startswith(MAGIC) else 0
    single = descriptor >> 5 & 1
    size = (single, 2, 4, 8)[descriptor >> 6]
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    if not size or len(head) < at + size:
        raise CorruptObject("group does not begin with the header of a frame that tells its length", found=head.hex())
    length = int.from_bytes(head[at : at + size], "little") + (256 if size == 2 else 0)
    if length > GROUP_LIMIT:
        raise CorruptObject("group claims too much", expected=f"at most {GROUP_LIMIT}", found=length)
    return length


def have_one_place(one: Placement | PackEntry, other: Placement | PackEntry) -> bool:
    """Whether two chunks of one pack, or of one recipe's inline region, are said to lie in the same group."""
    return one.codec == GROUP == other.codec and one.offset == other.offset and one.csize == other.csize
