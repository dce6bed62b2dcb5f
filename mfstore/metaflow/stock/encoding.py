"""How Metaflow's content-addressed store names and encodes a blob: gzip that every Metaflow reads, made and read fast.

A blob becomes one gzip member for every 4 MiB (RFC 1952 allows many), compressed in parallel by ISA-L; what does not
compress is a member of stored blocks (RFC 1951, 3.2.4), which costs a copy and a CRC. Members of a blob that has
several carry their compressed length in an extra field, which others skip and which lets us find, and inflate, them in
parallel. Equal blobs give equal bytes. What is small is left to zlib, which Python has loaded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha1
from itertools import pairwise
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from typing import Protocol

    from typing_extensions import Buffer

    from mfstore.errors import CorruptObject
    from mfstore.host.workers import Workers

    class Sliced(Protocol):
        """Bytes that are not in memory: slices of them are."""

        def __len__(self) -> int: ...

        def __getitem__(self, part: slice, /) -> Buffer: ...


MEMBER_BYTES = 4 << 20
"""Bytes of a blob per member. ISA-L compresses 4 MiB in 5 ms: long enough to be worth a thread, short enough to keep
all of them busy; every member costs 46 bytes."""
SAMPLE_BYTES = 64 << 10
"""Bytes of a member that are compressed to see whether the rest is worth it; takes 0.1 ms."""
WORTH_COMPRESSING = 0.9
"""A member is stored unless its sample shrinks to this. Between 0.9 and 1 (floats) inflating runs at 390 MB/s and
a copy at several GB/s, which is more than the tenth saves in sending."""
SMALL_BYTES = 16 << 10
"""Of a blob that zlib compresses, and of an object that it inflates. By callgrind, to load ISA-L and a faster CRC takes
a process 4.4 million instructions. To compress, zlib takes 120 for a byte of text, 150 for one of a pickle of floats,
and 90,000 for a blob of 300 bytes: it breaks even at one blob of about 30 KB, or 50 of 300 bytes. A task's own
artifacts take 4 to 300 bytes."""
ZLIB_LEVEL = 3
"""Of zlib, as Metaflow has it."""
ISAL_LEVEL = 1
"""Of ISA-L. Numeric arrays, MB/s and ratio: level 1 750, 0.959; level 3 360, 0.959; zlib's 3, Metaflow's, 39, 0.964."""
STORED_BLOCK_BYTES = 65535
GIVEN_BYTES = 1 << 20
"""Bytes of an object that are inflated at a time where the whole is not wanted: ISA-L copies what it is given and does
not need yet."""

_FIXED = struct.Struct("<4sIBB")
_EXTRA = struct.Struct("<HccHQQ")
_TRAILER = struct.Struct("<II")
_STORED = struct.Struct("<BHH")
_MAGIC = b"\x1f\x8b\x08"
_HAS_EXTRA = 4
GZIP_TRAILER_BYTES = _TRAILER.size
"""At the end of an object; from these ``tail_fits`` knows what it holds."""


def encode(blob: Buffer, workers: Callable[[], Workers]) -> list[bytes]:
    """A blob as Metaflow stores artifacts: gzip, in parts to be stored one after the other. ``workers`` is asked for
    threads when there is something for them to do."""
    view = memoryview(blob).cast("B")
    if len(view) <= SMALL_BYTES:
        return [_joined(view, _deflated(view), True)]
    cuts = [*range(0, max(len(view), 1), MEMBER_BYTES), len(view)]
    slices = [view[start:stop] for start, stop in pairwise(cuts)]
    alone = len(slices) == 1
    return workers().map(lambda content: _member(content, alone), slices, len(view))


def _deflated(content: memoryview) -> bytes:
    deflater = zlib.compressobj(ZLIB_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflater.compress(content) + deflater.flush()
    return body if len(body) < len(content) else stored_blocks(content)


def _member(content: memoryview, alone: bool) -> bytes:
    from isal import igzip_lib

    middle = max(0, (len(content) - SAMPLE_BYTES) // 2)
    sample = content[middle : middle + SAMPLE_BYTES]
    shrunk = igzip_lib.compress(sample, level=ISAL_LEVEL, flag=igzip_lib.COMP_DEFLATE)
    if len(sample) == len(content):
        body = shrunk if len(shrunk) < len(content) else stored_blocks(content)
    elif len(shrunk) > WORTH_COMPRESSING * len(sample):
        body = stored_blocks(content)
    else:
        body = igzip_lib.compress(content, level=ISAL_LEVEL, flag=igzip_lib.COMP_DEFLATE)
    return _joined(content, body, alone)


def _joined(content: memoryview, body: bytes, alone: bool) -> bytes:
    """One member of an object: ``body`` is its content, compressed."""
    header = _FIXED.pack(_MAGIC + (b"\0" if alone else bytes([_HAS_EXTRA])), 0, 0, 255)
    if not alone:
        header += _EXTRA.pack(_EXTRA.size - 2, b"M", b"F", 16, len(body), len(content))
    return b"".join((header, body, _trailer(content)))


def stored_blocks(content: memoryview) -> bytes:
    """Content as DEFLATE that compresses nothing (RFC 1951, 3.2.4)."""
    parts: list[Buffer] = []
    for start in range(0, max(len(content), 1), STORED_BLOCK_BYTES):
        block = content[start : start + STORED_BLOCK_BYTES]
        last = start + STORED_BLOCK_BYTES >= len(content)
        parts += [_STORED.pack(last, len(block), len(block) ^ 0xFFFF), block]
    return b"".join(parts)


def decode(data: Buffer, workers: Callable[[], Workers]) -> bytes:
    """The blob of a gzip object, whoever wrote it. ``workers`` as of ``encode``. CorruptObject when it is not whole or
    its CRC is wrong."""
    view = memoryview(data).cast("B")
    if not view:
        raise _damaged("an empty object", "gzip")
    if len(view) <= SMALL_BYTES:
        try:
            return b"".join(_inflate_small(bytes(view)))
        except (EOFError, zlib.error) as error:
            raise _damaged(f"not a whole gzip object: {error}") from None
    from isal import igzip_lib

    members = _members(view)
    try:
        if members is None:
            return b"".join(_inflate_unmarked(view))
        return b"".join(workers().map(_inflate, members, len(view)))
    except (EOFError, OSError, ValueError, igzip_lib.IsalError) as error:  # type: ignore[misc]
        raise _damaged(f"not a whole gzip object: {error}") from None


def _damaged(message: str, expected: str | None = None) -> CorruptObject:
    # A task that meets no damage does without the errors.
    from mfstore.errors import CorruptObject

    return CorruptObject(message, expected=expected)


def pieces(data: bytes | Sliced) -> Iterator[bytes]:
    """What a gzip object holds, whoever wrote it, in pieces of at most ``MEMBER_BYTES``: two megabytes may hold two
    gigabytes. CorruptObject, at the end at the latest, as ``decode``."""
    from isal import igzip_lib

    from mfstore.errors import MfstoreError

    view: Sliced = memoryview(data) if isinstance(data, bytes) else data
    if not len(view):
        raise _damaged("an empty object", "gzip")
    at = 0
    try:
        while at < len(view):
            decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            checksum = size = 0
            while not decompressor.eof:
                given = view[at : at + GIVEN_BYTES] if decompressor.needs_input else view[:0]
                if decompressor.needs_input and at == len(view):
                    raise EOFError("the last member is cut")
                at += len(memoryview(given))
                found = decompressor.decompress(given, MEMBER_BYTES)
                checksum = crc32(found, checksum)
                size += len(found)
                yield found
            at -= len(decompressor.unused_data)
            # ISA-L takes a member for whole whose trailer is cut.
            if bytes(view[max(0, at - _TRAILER.size) : at]) != _TRAILER.pack(checksum, size & 0xFFFFFFFF):
                raise EOFError("the last member is cut")
            while at < len(view) and bytes(view[at : at + 1]) == b"\0":
                block = bytes(view[at : at + GIVEN_BYTES])
                at += len(block) - len(block.lstrip(b"\0"))
    except MfstoreError:
        raise  # of the storage, which some of them are OSErrors of
    except (EOFError, OSError, ValueError, igzip_lib.IsalError) as error:  # type: ignore[misc]
        raise _damaged(f"not a whole gzip object: {error}") from None


def raw_digest_of(data: bytes | Sliced) -> tuple[str, int]:
    """The SHA-1 of these bytes, and how many they are, in bounded memory."""
    digest = sha1(usedforsecurity=False)
    view: Sliced = memoryview(data) if isinstance(data, bytes) else data
    for at in range(0, len(view), GIVEN_BYTES):
        digest.update(view[at : at + GIVEN_BYTES])
    return digest.hexdigest(), len(view)


def digest_of(data: bytes | Sliced) -> tuple[str, int]:
    """The SHA-1 of what a gzip object holds, and its length, in bounded memory. CorruptObject as ``decode``."""
    digest = sha1(usedforsecurity=False)
    size = 0
    for piece in pieces(data):
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size


def _members(view: memoryview) -> list[tuple[memoryview, int]] | None:
    """The members of an object of ours, each with the length of what it holds; None when it is not one of ours."""
    members = []
    at = 0
    head = _FIXED.size + _EXTRA.size
    while at < len(view):
        if len(view) - at < head or bytes(view[at : at + 4]) != _MAGIC + bytes([_HAS_EXTRA]):
            return None
        extra, one, two, length, packed, size = _EXTRA.unpack_from(view, at + _FIXED.size)
        if (extra, one, two, length) != (_EXTRA.size - 2, b"M", b"F", 16) or size > MEMBER_BYTES:
            return None
        end = at + head + packed + _TRAILER.size
        if end > len(view):
            return None
        members.append((view[at:end], size))
        at = end
    return members or None


def _inflate_small(data: bytes) -> Iterator[bytes]:
    """As ``_inflate_unmarked``; zlib compares each member with its trailer itself."""
    while data:
        inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
        yield inflater.decompress(data)
        if not inflater.eof:
            raise EOFError("the last member is cut")
        data = inflater.unused_data
        if data[:1] == b"\0":
            data = data.lstrip(b"\0")


def _inflate_unmarked(view: memoryview) -> Iterator[bytes]:
    """Members one after the other; zeros may follow the last one (RFC 1952 is silent, gzip and Python take them)."""
    from isal import igzip_lib

    while len(view):
        decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        found = decompressor.decompress(view)
        rest = len(decompressor.unused_data)
        # ISA-L takes a member for whole whose trailer is cut.
        if not decompressor.eof or bytes(view[: len(view) - rest][-GZIP_TRAILER_BYTES:]) != _trailer(found):
            raise EOFError("the last member is cut")
        yield found
        view = view[len(view) - rest :]
        if not any(view[:1]):
            view = view[len(view) - len(bytes(view).lstrip(b"\0")) :]


def _trailer(content: Buffer) -> bytes:
    return _TRAILER.pack(_crc32(content), len(memoryview(content)) & 0xFFFFFFFF)


def _crc32(content: Buffer) -> int:
    if len(memoryview(content)) <= SMALL_BYTES:
        return crc32(content)
    from mfstore._core import crc

    return crc.update("CRC32", content)


def _inflate(member: tuple[memoryview, int]) -> bytes:
    from isal import igzip_lib

    view, size = member
    found = igzip_lib.decompress(view, flag=igzip_lib.DECOMP_GZIP, bufsize=max(size, 1))
    if len(found) != size:
        raise ValueError(f"a member holds {len(found)} bytes, expected {size}")
    return bytes(found)


def tail_fits(tail: Buffer, size: int, raw: bool, blob: Buffer) -> bool:
    """Whether an object of ``size`` bytes that ends in ``tail`` can be the one of ``blob``.

    Of gzip the last eight bytes are CRC and length of the last member: of the whole blob where stock Metaflow wrote it,
    of what is beyond the last multiple of ``MEMBER_BYTES`` where we did. So other content, a truncated object and
    garbage are told; damage in the middle is not, nor a cut between two members of equal content (reading finds them).
    """
    view = memoryview(blob).cast("B")
    if raw:
        return size == len(view) and bytes(tail) == bytes(view[max(0, len(view) - GZIP_TRAILER_BYTES) :])
    if len(memoryview(tail)) != GZIP_TRAILER_BYTES:
        return False
    last = view[(len(view) - 1) // MEMBER_BYTES * MEMBER_BYTES :] if len(view) else view
    return any(bytes(tail) == _trailer(part) for part in ([view] if len(last) == len(view) else [last, view]))


def key_of(blob: Buffer) -> str:
    """Metaflow's key of a blob: the SHA-1 of its bytes, 40 hexadecimal digits."""
    return sha1(blob, usedforsecurity=False).hexdigest()


def fits_key(key: str, blob: Buffer) -> bool:
    """Whether ``blob`` is what ``key`` promises. Keys of other forms (``r_…``, longer digests) promise nothing."""
    return len(key) != 40 or key_of(blob) == key
