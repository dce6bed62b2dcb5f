"""What bulk calls accept as items, what the items say, and which of them are fetched together. Pure, but for files that
are given open."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from mfstore.errors import InvalidKey, InvalidRange, NotSerializable
from mfstore.host.buffers import bytes_of
from mfstore.records import NamedTuple, dataclass
from mfstore.s3.transfers.jobs import check_key
from mfstore.s3.urls import AzureContainer, is_url, scheme_of, split_url

LAST_BYTE = (1 << 63) - 1
"""What the engines count up to."""
LOOKED_AT = 100
"""Items of a put that are looked at for paths of files: 0.1 ms of questions to the file system."""
LONGEST_PATH = 4096
"""What is longer is no path."""


@dataclass(frozen=True, slots=True)
class PutItem:
    """One object to store, with what is particular to it; None means the call's own setting."""

    key: str
    """A key of the client's bucket, or ``s3://bucket/key``."""
    data: Any
    """Bytes-like, text (stored as UTF-8), a list of bytes-likes (stored joined, sent without a copy), a path object, or
    an open file, which is read when the item's turn comes. Buffers and files must not change before the item's outcome
    is there."""
    metadata: Mapping[str, str] | None = None
    """User metadata: names and values of printable ASCII. The service keeps names in lower case."""
    content_type: str | None = None
    """The Content-Type it is served with; None: the service's default."""
    encryption: str | None = None
    """ServerSideEncryption: ``AES256`` or ``aws:kms``; None: the bucket's default."""
    kms_key: str | None = None
    """SSEKMSKeyId; alone it means ``aws:kms``."""
    if_none_match: bool = False
    """Only if there is no such object; Conflict otherwise. Unsupported where the service has no conditional writes."""
    if_match: str | None = None
    """Only over the object that has this ETag; Conflict otherwise."""
    options: Mapping[str, Any] | None = None
    """Further parameters of PutObject and CreateMultipartUpload, by their botocore names. ``ChecksumAlgorithm`` takes
    the place of the client's ``checksum``; values of checksums are refused, as they are made while it is sent."""


NAMING = "Give BulkClient(bucket) or s3://bucket/{}. For another service say which: BulkClient('az://container')"


class Address(NamedTuple):
    """Where an item lies, and which part of it is meant: ``start`` None for all, ``stop`` None for all from start."""

    bucket: str
    key: str
    start: int | None = None
    stop: int | None = None


def locate(text: Any, bucket: str | None) -> tuple[str, str]:
    """Bucket and key of a key or URL. InvalidKey when there is no bucket, or nothing that could be a key."""
    if not isinstance(text, str):
        raise InvalidKey("a key is a string", found=f"{text!r:.80}")
    if is_url(text, bucket):
        found, key = _split(text, bucket)
    elif bucket is None:
        raise InvalidKey("no bucket", key=text, hint=NAMING.format("key"))
    else:
        found, key = bucket, text
    if not key:
        raise InvalidKey("an object needs a key", found=repr(text))
    if len(key) > 1024 or not key.isascii():
        check_key(key)
    if isinstance(found, AzureContainer):
        from mfstore.azure.urls import check_key as check_name  # which S3 and Google have no use for

        check_name(key)
    return found, key


def _split(url: str, bucket: str | None) -> tuple[str, str]:
    """Bucket and key of a URL that a client of ``bucket`` was given. InvalidKey for one of another service."""
    found, key = split_url(url)
    if bucket is not None and scheme_of(found) != scheme_of(bucket):
        raise InvalidKey("this client is for another service", found=url, expected=f"{scheme_of(bucket)}://…")
    return found, key


def locate_prefix(text: Any, bucket: str | None) -> tuple[str, str]:
    """Bucket and prefix of what is to be listed: a prefix, which may be empty, or a URL. InvalidKey as of
    ``locate``."""
    if not isinstance(text, str):
        raise InvalidKey("a prefix is a string", found=f"{text!r:.80}")
    if not text.isascii():
        check_key(text)
    if is_url(text, bucket):
        return _split(text, bucket)
    if bucket is None:
        raise InvalidKey("no bucket", found=repr(text), hint=NAMING.format("prefix"))
    return bucket, text


def address_of(item: Any, bucket: str | None) -> Address:
    """What an item of a get means: a key, a URL, or (key, start, length). A negative start counts from the end, and
    then ``length`` must be None; ``length`` None means to the end."""
    if isinstance(item, str):
        return Address(*locate(item, bucket))
    if not isinstance(item, (tuple, list)) or len(item) != 3:
        raise InvalidKey("an item is a key, a URL or (key, start, length)", found=f"{item!r:.80}")
    text, start, length = item
    found, key = locate(text, bucket)
    if start is None and length is None:
        return Address(found, key)
    start, length = _whole(start or 0, key), None if length is None else _whole(length, key)
    if (start < 0 and length is not None) or (length is not None and length < 0):
        raise InvalidRange("a range is (start ≥ 0, length ≥ 0) or (-n, None)", key=key, found=(start, length))
    if max(abs(start), start + (length or 0)) > LAST_BYTE:
        raise InvalidRange("no object is so long", key=key, found=(start, length))
    if length == 0:
        raise InvalidRange("a range of no bytes", key=key, hint="S3 has no empty ranges")
    return Address(found, key, start, None if length is None else start + length)


def _whole(number: Any, key: str) -> int:
    try:
        return operator.index(number)
    except TypeError:
        raise InvalidRange("a range is in whole bytes", key=key, found=f"{number!a:.40}") from None


def several(items: Any) -> None:
    """Refuse one key, or object, where many belong: its characters would each be taken for a key."""
    if isinstance(items, (str, bytes, bytearray, os.PathLike, PutItem)):
        raise InvalidKey("many items are wanted, and this is one", found=f"{items!r:.80}", hint="Give a list: [item]")


def warn_of_files(items: Any) -> None:
    """Warn when a text that is to be stored is the path of a file, which its caller may have meant. Only the first
    items are looked at, and none of an iterator, which they would be taken from."""
    if isinstance(items, Mapping):
        pairs: Iterable[Any] = items.items()
    elif isinstance(items, (list, tuple)):
        pairs = items
    else:
        return
    for item in islice(pairs, LOOKED_AT):
        text = item[1] if isinstance(item, tuple) and len(item) == 2 else None
        if isinstance(text, str) and 0 < len(text) <= LONGEST_PATH and os.path.isfile(text):  # noqa: PTH113
            from mfstore.host.callers import warn_caller

            warn_caller(
                f"put_many stores the text {text!r} itself, and there is a file of this name: for what is in the file, "
                "give a pathlib.Path"
            )
            return


def put_item(item: Any) -> PutItem:
    """What one item of put_many means: a PutItem or a (key, data) pair."""
    if isinstance(item, PutItem):
        return item
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return PutItem(item[0], item[1])
    raise InvalidKey("an item to put is (key, data) or a PutItem", found=f"{item!r:.80}")


def source_of(data: Any) -> tuple[Sequence[Any] | None, str | None]:
    """(buffers, path) of what is to be stored: one of the two is None. NotSerializable (a TypeError) otherwise."""
    if type(data) is bytes:
        return [data], None
    if isinstance(data, str):
        return [_encoded(data)], None
    if isinstance(data, os.PathLike):
        path = os.fspath(data)
        return None, path if isinstance(path, str) else os.fsdecode(path)
    if isinstance(data, (list, tuple)):
        return [part if type(part) is bytes else _part(part, number) for number, part in enumerate(data)], None
    if hasattr(data, "read"):
        try:
            content = data.read()
        except (OSError, ValueError, TypeError) as error:
            raise NotSerializable(
                f"the file cannot be read: {error}", found=f"{data!r:.80}", hint="Give a file that is open for reading"
            ) from error
        if content is None:
            raise NotSerializable("the file has nothing to read now", found=f"{data!r:.80}", hint="Make it blocking")
        return [_encoded(content) if isinstance(content, str) else bytes_of(content)], None
    try:
        return [bytes_of(data)], None
    except NotSerializable as error:
        if hasattr(data, "__buffer__") or hasattr(data, "dtype") or isinstance(data, memoryview):
            raise
        kind = type(data).__name__
        raise NotSerializable(
            f"cannot store a {kind}: bytes, text, a path or a file is needed", found=error.found, hint=error.hint
        ) from None


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise NotSerializable(f"this text is no UTF-8: {error}", hint="Encode it yourself, and give bytes") from None


def _part(part: Any, number: int) -> memoryview:
    """One of several buffers."""
    try:
        return bytes_of(part)
    except NotSerializable as error:
        raise error.where(offset=number) if not isinstance(part, str) else NotSerializable(
            "the parts of an object are bytes, and this is text", found=f"part {number}: {part!r:.60}",
            hint="Encode it, or give the text joined",
        ) from None  # fmt: skip


def plan_ranges(
    wanted: Iterable[tuple[int, Any, Address]], gap: int, span: int
) -> Iterator[tuple[str, str, list[tuple[int, Any, int, int]]]]:
    """Group ``(index, item, address)`` into fetches ``(bucket, key, [(index, item, start, length), …])``.

    Ranges of one object join when at most ``gap`` bytes lie between them and the whole stays within ``span`` bytes
    (one range alone may be longer). The order of fetches is that of the smallest index in each.
    """
    objects: dict[tuple[str, str], list[tuple[int, int, int, Any]]] = {}
    for index, item, where in wanted:
        assert where.start is not None and where.stop is not None
        objects.setdefault((where.bucket, where.key), []).append((where.start, where.stop, index, item))
    groups = []
    for (bucket, key), ranges in objects.items():
        ranges.sort(key=lambda entry: entry[:3])
        group: list[tuple[int, Any, int, int]] = []
        first = end = 0
        for start, stop, index, item in ranges:
            if group and (start > end + gap or max(stop, end) - first > span):
                groups.append((min(entry[0] for entry in group), bucket, key, group))
                group = []
            if not group:
                first, end = start, stop
            end = max(end, stop)
            group.append((index, item, start, stop - start))
        groups.append((min(entry[0] for entry in group), bucket, key, group))
    groups.sort(key=lambda entry: entry[0])
    for _, bucket, key, group in groups:
        yield bucket, key, group
