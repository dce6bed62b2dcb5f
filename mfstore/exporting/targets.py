"""Where an export goes: a file, or an object in a bucket. It is there whole or not at all, and replaces nothing
unasked."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mfstore.errors import Conflict, InvalidKey, MfstoreError, NotFound, OutOfSpace, Refused, Unsupported
from mfstore.host.file_systems import NO_ROOM
from mfstore.loading.files import regular_target
from mfstore.s3.urls import SCHEMES, names_object, scheme_of, split_url

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.s3.bulk.client import BulkClient

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)
"""What file systems without hard links answer, among others."""
MEMORY = 64 << 20
"""Bytes that an upload may hold."""
_HINT = "overwrite=True replaces it"


Write = Callable[[Path], object]
"""What writes a file that is not there yet."""


def require_place(place: str) -> None:
    """InvalidKey for what names neither a file nor an object."""
    if names_object(place):
        key = split_url(place)[1]
        if not key or key.endswith("/"):
            hint = f"{place.rstrip('/')}/name.parquet"
            raise InvalidKey("an export needs the name of an object", found=place, hint=hint)
    elif "://" in place:
        raise InvalidKey(
            "exports go to a file, or to s3://bucket/key, az://container/key, gs://bucket/key", found=place
        )
    elif place.endswith("/"):
        raise InvalidKey("an export needs the name of a file", found=place, hint=f"{place.rstrip('/')}/name.parquet")
    elif place.startswith(tuple(f"{scheme}:/" for scheme in SCHEMES)):
        raise InvalidKey("a Path drops a slash of a URL", found=place, hint="Give s3://bucket/key as a str")


def require_new(place: str, backend: Backend) -> None:
    """Refused if there is such a file, or object; what ``regular_target`` raises for what cannot be one."""
    if not names_object(place):
        regular_target(place)
        if os.path.lexists(place):
            raise Refused("there is such a file", found=place, hint=_HINT)
        return
    bucket, key = split_url(place)
    with client_beside(backend, bucket) as client, suppress(NotFound):
        list(client.head_many([key]))
        raise Refused("there is such an object", found=place, hint=_HINT)


def to_file(place: str, overwrite: bool, write: Write) -> None:
    """Have ``write`` write a file beside, which then takes its name. Refused if there is one already."""
    target = regular_target(place)
    temporary = target.with_name(f".mfstore-{os.getpid()}-{os.urandom(8).hex()}")
    try:
        _filled(temporary, str(target), "Free space, or choose another file", write)
        if overwrite or not _linked(temporary, target):
            temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _filled(temporary: Path, place: str, hint: str, write: Write) -> None:
    try:
        write(temporary)
    except OSError as error:
        if isinstance(error, MfstoreError) or error.errno not in NO_ROOM:
            raise
        raise OutOfSpace("no room for the file", found=place, hint=hint) from error


def _linked(temporary: Path, target: Path) -> bool:
    """Give the file its name, unless there is such a file by now. False where the file system has no links: then all
    that can be done is to look."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise Refused("there is such a file by now", found=str(target), hint=_HINT) from None
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if os.path.lexists(target):
            raise Refused("there is such a file by now", found=str(target), hint=_HINT) from None
        return False
    return True


def to_bucket(url: str, overwrite: bool, write: Write, backend: Backend) -> None:
    """Have ``write`` write a temporary file, and store that under the URL. Refused if there is such an object."""
    from mfstore.s3.bulk.items import PutItem

    bucket, key = split_url(url)
    with client_beside(backend, bucket) as client, tempfile.TemporaryDirectory(prefix="mfstore-") as directory:
        temporary = Path(directory) / "export"
        _filled(temporary, url, f"Free space in {directory}, or set TMPDIR: it is written there first", write)
        try:
            client.put_many([PutItem(key, temporary, if_none_match=not overwrite)])
        except Conflict as error:
            raise Refused("there is such an object by now", found=url, hint=_HINT) from error
        except Unsupported as error:
            error.hint = f"{error.hint or ''} overwrite=True needs no conditional write".strip()
            raise


@contextmanager
def client_beside(backend: Backend, bucket: str) -> Iterator[BulkClient]:
    """A client for a bucket, which reaches the service as the store does, if that lies there; else as it is found."""
    if names_object(backend.url):
        from mfstore.backends.buckets import BucketBackend

        if isinstance(backend, BucketBackend) and scheme_of(backend.bucket) == scheme_of(bucket):
            # Its connections are the store's, and stay open.
            yield backend.client.beside(bucket, MEMORY)
            return
    from mfstore.s3.bulk.client import BulkClient

    with BulkClient(bucket) as client:
        yield client
