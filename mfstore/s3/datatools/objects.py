"""What ``mfstore.S3`` takes and returns.

Where Metaflow is loaded, what is returned is also of Metaflow's class of the same name, so that ``isinstance`` with
either holds.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mfstore.records import NamedTuple
from mfstore.s3.datatools.exceptions import THEIRS
from mfstore.s3.transfers.outcomes import Outcome

ATTRIBUTES = "metaflow-user-attributes"
"""The one header that holds all user metadata, as JSON."""
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class S3GetObject(NamedTuple):
    """Part of an object, for ``get`` and ``get_many``."""

    key: str
    offset: int | None
    """The first byte; None: 0."""
    length: int | None
    """Bytes. None: to the end. Negative: the last so many bytes, whatever the offset."""


class S3PutObject(NamedTuple):
    """An object to store, from ``value`` (put_many) or the file ``path`` (put_files), and what goes with it."""

    key: str
    value: Any = None
    """Text, bytes or a binary file."""
    path: str | None = None
    """A local file."""
    content_type: str | None = None
    """The MIME type."""
    encryption: str | None = None
    """ServerSideEncryption; None: that of the ``S3``."""
    metadata: Mapping[str, Any] | None = None
    """Anything JSON can hold."""


class RangeInfo(NamedTuple):
    """What part of an object was fetched, in bytes."""

    total_size: int
    """Of the whole object."""
    request_offset: int = 0
    """Where the part begins."""
    request_length: int = -1
    """How long it is."""


class S3Object:
    """An object or prefix in S3, with or without its data. Made by the methods of ``S3``.

    It asks S3 nothing more. Files and what ``path`` names belong to the ``S3``, which removes them when it is closed;
    data in memory is the caller's.
    """

    __slots__ = (
        "_content_type", "_data", "_encryption", "_key", "_last_modified", "_metadata", "_path", "_prefix",
        "_range_info", "_size", "_spill", "_url",
    )  # fmt: skip

    def __init__(
        self, prefix: str | None, url: str, path: str | None, size: int | None = None, content_type: str | None = None,
        metadata: Mapping[str, str] | None = None, range_info: RangeInfo | None = None,
        last_modified: float | None = None, encryption: str | None = None, *, data: bytes | None = None,
        spill: Callable[[bytes], str] | None = None,
    ) -> None:  # fmt: skip
        self._url = url
        self._path = path
        self._data = data
        self._spill = spill
        self._content_type = content_type
        self._last_modified = last_modified
        self._encryption = encryption
        text = metadata.get(ATTRIBUTES) if metadata is not None else None
        self._metadata = json.loads(text) if text is not None else None
        if range_info is not None and (range_info.request_length is None or range_info.request_length < 0):
            range_info = range_info._replace(request_length=range_info.total_size)
        self._range_info = range_info
        if path and size is None:
            size = os.stat(path).st_size  # noqa: PTH116
        self._size = size
        if prefix is None or prefix == url:
            self._key, self._prefix = url, None
        else:
            self._key, self._prefix = url[len(prefix.rstrip("/")) + 1 :].rstrip("/"), prefix

    @property
    def exists(self) -> bool:
        """Whether there is such an object. False for prefixes, and for what ``return_missing`` returned."""
        return self._size is not None

    @property
    def downloaded(self) -> bool:
        """Whether the data is here: ``path``, ``blob`` and ``text`` are not None."""
        return bool(self._path) or self._data is not None

    @property
    def url(self) -> str:
        """``s3://bucket/key``."""
        return self._url

    @property
    def prefix(self) -> str | None:
        """What ``key`` is relative to; None when it is relative to nothing."""
        return self._prefix

    @property
    def key(self) -> str:
        """The key as one would give it to the ``S3`` that returned this."""
        return self._key

    @property
    def path(self) -> str | None:
        """A local file with the data, deleted when the ``S3`` is closed; None if it was not downloaded.

        Of an object got with ``in_memory=True`` the file is written when this is first asked for. OSError when it
        cannot be."""
        if self._path is None and self._data is not None and self._spill is not None:
            self._path = self._spill(self._data)
        return self._path

    @property
    def blob(self) -> bytes | None:
        """The data; None if it was not downloaded. Read from the file each time, unless it is in memory. OSError when
        the file is gone, as after ``close``."""
        if self._data is not None:
            return self._data
        return Path(self._path).read_bytes() if self._path else None

    @property
    def text(self) -> str | None:
        """The data as UTF-8 text, with replacement characters where it is not; None if it was not downloaded."""
        blob = self.blob
        return None if blob is None else blob.decode("utf-8", errors="replace")

    @property
    def size(self) -> int | None:
        """Bytes of the object, or of the part that was downloaded; None if there is no such object."""
        return self._size

    @property
    def has_info(self) -> bool:
        """Whether content type, metadata, range or encryption are known."""
        known = (self._content_type, self._metadata, self._range_info, self._encryption)
        return any(value is not None for value in known)

    @property
    def metadata(self) -> dict[str, Any] | None:
        """The metadata given to put; None if there is none or it was not asked for."""
        return self._metadata

    @property
    def content_type(self) -> str | None:
        """The MIME type."""
        return self._content_type

    @property
    def encryption(self) -> str | None:
        """The server-side encryption: ``AES256``, ``aws:kms``, …"""
        return self._encryption

    @property
    def range_info(self) -> RangeInfo | None:
        """What part was downloaded (of whole objects too), when downloaded with ``return_info``."""
        return self._range_info

    @property
    def last_modified(self) -> float | None:
        """Seconds since the epoch."""
        return self._last_modified

    def __repr__(self) -> str:
        if self.downloaded:
            state = f"{self._size} bytes, local"
        elif self._size is not None:
            state = f"{self._size} bytes, in S3"
        else:
            state = "object does not exist"
        return f"<S3Object {self._url} ({state})>"

    # Else Metaflow's, where the class is of both.
    __str__ = __repr__


def s3_object(*given: Any, **named: Any) -> S3Object:
    """A new S3Object."""
    made: S3Object = _kind(S3Object)(*given, **named)
    return made


def _kind(ours: Any) -> Any:
    """``ours``, or where Metaflow is loaded what is of both classes."""
    theirs = getattr(sys.modules.get(THEIRS), ours.__name__, None)
    return ours if theirs is None else _of_both(ours, theirs)


@cache
def _of_both(ours: Any, theirs: Any) -> type[Any]:
    fields = {"__slots__": (), "__module__": ours.__module__, "__doc__": ours.__doc__, "__reduce__": _reduce}
    return type(ours.__name__, (ours, theirs), fields)


def _reduce(self: Any) -> tuple[Any, ...]:
    # Another process may or may not have Metaflow: the class is found there.
    ours = type(self).__mro__[1]
    return _rebuild, (ours, *(self if isinstance(self, tuple) else ())), self.__getstate__()


def _rebuild(ours: type[Any], *values: Any) -> Any:
    kind = _kind(ours)
    return kind.__new__(kind, *values)


def info_of(outcome: Outcome) -> dict[str, Any]:
    """The keyword arguments of an S3Object that a response's headers tell."""
    return {
        "content_type": outcome.content_type, "metadata": outcome.metadata, "last_modified": outcome.modified,
        "encryption": outcome.encryption,
    }  # fmt: skip


def range_of(outcome: Outcome) -> RangeInfo:
    """What part of the object an outcome holds."""
    found = _RANGE.match(outcome.headers.get("content-range", ""))
    if found is None or not isinstance(outcome.item, tuple):
        return _range_info(outcome.size, 0, outcome.size)
    first, last, total = map(int, found.groups())
    return _range_info(total, first, last - first + 1)


def _range_info(total: int, offset: int, length: int) -> RangeInfo:
    made: RangeInfo = _kind(RangeInfo)(total, offset, length)
    return made
