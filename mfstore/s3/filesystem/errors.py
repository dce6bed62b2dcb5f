"""mfstore's errors as callers of files expect them: each is also the OSError that a local file would have raised."""

from __future__ import annotations

import errno as numbers
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from mfstore.errors import Conflict, CorruptObject, InvalidRange, MfstoreError, NotFound, PathNotFound, Refused

P = ParamSpec("P")
T = TypeVar("T")


class FileReplaced(Conflict, OSError):
    """The object is another than the one that was opened or listed."""

    errno = numbers.ESTALE


class DirectoryNotEmpty(Refused, OSError):
    """A bucket that holds objects."""

    errno = numbers.ENOTEMPTY


class CorruptFile(CorruptObject, OSError):
    """The bytes differ from the object's checksum."""

    errno = numbers.EIO


class NoSuchRange(InvalidRange, OSError):
    """The object ends before the range begins."""

    errno = numbers.EINVAL


_CLASSES: tuple[tuple[type[MfstoreError], type[MfstoreError]], ...] = (
    (NotFound, PathNotFound),
    (Conflict, FileReplaced),
    (CorruptObject, CorruptFile),
    (InvalidRange, NoSuchRange),
)
"""What becomes of errors that are no OSErrors. AccessDenied is a PermissionError, BackendError an OSError."""


def file_error(error: MfstoreError) -> MfstoreError:
    """The same error, with its text and all that it says, as one that is an OSError too."""
    if isinstance(error, OSError):
        return error
    ours = next((ours for kind, ours in _CLASSES if isinstance(error, kind)), None)
    return error if ours is None else as_kind(ours, error)


def as_kind(kind: type[MfstoreError], error: MfstoreError) -> MfstoreError:
    """An error as one of another class."""
    new = kind(error.message)
    new.__dict__.update(error.__dict__)
    new.__cause__ = error.__cause__
    return new.with_traceback(error.__traceback__)


def not_found(path: str) -> PathNotFound:
    """Nothing lies at a path, as far as S3 says."""
    return PathNotFound("no such file, directory or bucket", key=path)


def file_errors(method: Callable[P, T]) -> Callable[P, T]:
    """Have a method raise errors as callers of files expect them."""

    @wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except MfstoreError as error:
            new = file_error(error)
            if new is error:
                raise
            raise new from error.__cause__

    return run
