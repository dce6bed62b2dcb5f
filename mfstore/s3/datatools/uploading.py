"""What ``mfstore.S3`` is given to store, as items of a bulk put."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfstore.errors import Conflict, MfstoreError, NotFound, Unsupported
from mfstore.records import NamedTuple
from mfstore.s3.bulk.items import PutItem
from mfstore.s3.datatools.exceptions import MetaflowS3InvalidObject, MetaflowS3NotFound, failure
from mfstore.s3.datatools.objects import ATTRIBUTES

if TYPE_CHECKING:
    from mfstore.s3.bulk.client import BulkClient

READ_AT_ONCE = 1 << 20
"""Open files of up to this many bytes are read; longer ones are sent by the engine."""


class Upload(NamedTuple):
    """One object to store."""

    key: str
    """As the caller wrote it."""
    url: str
    """As the caller gets it back."""
    target: str
    """As the bulk client reads it."""
    data: Any
    content_type: str | None
    metadata: Mapping[str, str] | None
    encryption: str | None = None
    """None: the client's."""

    def item(self, new: bool = False) -> PutItem:
        """For the bulk client. Reads file objects."""
        return PutItem(
            self.target, contents(self.data), self.metadata, self.content_type, self.encryption, if_none_match=new
        )


def attributes(metadata: Mapping[str, Any] | None) -> dict[str, str] | None:
    """User metadata as Metaflow stores it: one header, JSON in ASCII. TypeError for what JSON cannot hold."""
    return {ATTRIBUTES: json.dumps(metadata)} if metadata else None


def checked(key: Any, value: Any) -> Any:
    """``value`` if it can be stored, else MetaflowS3InvalidObject."""
    if isinstance(value, (io.RawIOBase, io.BufferedIOBase)):
        if not value.readable() or not value.seekable():
            raise failure(MetaflowS3InvalidObject, "the file object is not readable and seekable", key=str(key))
    elif not isinstance(value, (str, bytes, bytearray, memoryview)):
        raise failure(
            MetaflowS3InvalidObject,
            "the object is neither text nor bytes nor a binary file",
            key=str(key),
            found=type(value).__name__,
            hint="Serialize it first, for instance with json.dumps or pickle.dumps",
        )
    return value


def local_file(key: Any, path: Any) -> Path:
    """The file to store. MetaflowS3NotFound when it does not exist."""
    found = Path(path)
    if not found.exists():
        raise failure(MetaflowS3NotFound, f"Local file not found: {path}", key=str(key))
    return found


def streamed(file: Any) -> bool:
    """Whether a file object's length is unknown, and may be more than memory holds: of a decompressor, say."""
    return not isinstance(file, io.BytesIO) and _descriptor(file) is None


def contents(value: Any) -> Any:
    """What the bulk client takes for ``value``: of a file object what follows its position, by descriptor if it is a
    long regular file that was not read from yet."""
    if not isinstance(value, (io.RawIOBase, io.BufferedIOBase)):
        return value
    return _descriptor(value) or value.read()


def _descriptor(value: Any) -> Path | None:
    if sys.platform == "linux" and isinstance(value, (io.FileIO, io.BufferedReader)) and value.tell() == 0:
        with suppress(OSError, AttributeError):
            status = os.fstat(value.fileno())
            # Opening the descriptor's name gives a position of its own, also where the file has been unlinked.
            if stat.S_ISREG(status.st_mode) and status.st_size > READ_AT_ONCE:
                return Path(f"/proc/self/fd/{value.fileno()}")
    return None


def store(
    client: BulkClient, uploads: list[Upload], overwrite: bool, progress: bool | Callable[[int], None] | None = None
) -> set[str]:
    """Store all; the targets that were stored. Without ``overwrite`` those that exist are left alone: a HEAD finds
    most without sending data, a conditional PUT the rest, so that of two writers one wins. Raises the first error,
    also when it cannot be told whether an object exists."""
    if overwrite:
        client.put_many((upload.item() for upload in uploads), progress=progress)
        return {upload.target for upload in uploads}
    heads = client.head_many(dict.fromkeys(upload.target for upload in uploads), on_error="return")
    missing = set()
    for outcome in heads:
        if isinstance(outcome.error, NotFound):
            missing.add(outcome.item)
        elif outcome.error is not None:
            raise outcome.error
    # Of equal keys the last one is stored, as if they had been put one after the other.
    left = {upload.target: upload for upload in uploads if upload.target in missing}
    return _store_new(client, left, True, progress)


def _store_new(
    client: BulkClient, left: dict[str, Upload], conditional: bool, progress: bool | Callable[[int], None] | None
) -> set[str]:
    stored: set[str] = set()
    refused: dict[str, Upload] = {}
    items = _items(left.values(), conditional)
    for outcome in client.put_many(items, on_error="return", stream=True, progress=progress):
        error: MfstoreError | None = outcome.error
        if error is None:
            stored.add(outcome.item)
        elif isinstance(error, Unsupported) and conditional:
            refused[outcome.item] = left[outcome.item]
        elif not (isinstance(error, Conflict) and conditional):
            raise error
    if refused:
        # A service without conditional writes: what the HEAD said has to do.
        stored |= _store_new(client, refused, False, progress)
    return stored


def _items(uploads: Iterable[Upload], new: bool) -> Iterator[PutItem]:
    for upload in uploads:
        yield upload.item(new)
