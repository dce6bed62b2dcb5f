"""The errors of ``mfstore.S3``: Metaflow's names, mfstore's contents.

Each class here is also an mfstore error. When Metaflow is loaded, what is raised is a subclass of Metaflow's class of
the same name too, so ``except`` clauses written for either work. Whether Metaflow is loaded is looked at when an error
is raised, not at import: Metaflow takes 0.4 s to import, and who can name its classes has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mfstore.errors import AccessDenied, InvalidKey, InvalidRange, MfstoreError, NotFound, OutOfSpace

THEIRS = "metaflow.plugins.datatools.s3.s3"
"""Where Metaflow defines these, and what it takes and returns."""


class MetaflowS3Exception(MfstoreError):
    """S3 failed in a way no other class describes; also the mfstore class that says more, such as BackendError."""

    headline = "S3 access failed"


class MetaflowS3NotFound(NotFound):
    """The object, bucket or local file does not exist."""

    headline = "S3 object not found"


class MetaflowS3AccessDenied(AccessDenied):
    """S3 refused, or there are no credentials."""

    headline = "S3 access denied"


class MetaflowS3InvalidRange(InvalidRange):
    """The object has no such bytes."""

    headline = "S3 invalid range"


class MetaflowS3URLException(InvalidKey):
    """Not an address this client can use."""

    headline = "Invalid address"


class MetaflowS3InvalidObject(MfstoreError, TypeError):
    """Not something that can be stored."""

    code = "invalid-object"
    headline = "Not a string-like object"


class MetaflowS3InsufficientDiskSpace(OutOfSpace):
    """No room for the downloaded file."""

    headline = "Insufficient disk space"


@contextmanager
def metaflow_errors() -> Iterator[None]:
    """What is raised inside is raised as Metaflow's users know it."""
    try:
        yield
    except MfstoreError as error:
        if hasattr(error, "headline"):
            raise
        new = converted(error)
        raise new from new.__cause__


_OURS: tuple[type[MfstoreError], ...] = (
    MetaflowS3NotFound,
    MetaflowS3AccessDenied,
    MetaflowS3InvalidRange,
    MetaflowS3InsufficientDiskSpace,
)


def failure(kind: type[MfstoreError], message: str, **context: Any) -> MfstoreError:
    """A new error of one of the classes above, to be raised; ``context`` as for MfstoreError."""
    return _joined(kind, kind, _theirs(kind.__name__))(message, **context)


def converted(error: MfstoreError) -> MfstoreError:
    """The error to raise for one of the bulk client's; the same text, fields, cause and notes."""
    ours = next((kind for kind in _OURS if isinstance(error, kind.__mro__[1])), MetaflowS3Exception)
    new = _joined(ours, type(error), _theirs(ours.__name__))(error.message)
    new.__dict__.update(error.__dict__)
    new.__cause__ = error.__cause__
    return new.with_traceback(error.__traceback__)


def _theirs(name: str) -> type[Exception] | None:
    """Metaflow's class, if Metaflow is loaded."""
    if "metaflow" not in sys.modules:
        return None
    try:
        from importlib import import_module

        found = getattr(import_module(THEIRS), name, None)
    except Exception:
        # Half imported, another version, boto3 missing: our own classes do then.
        return None
    return found if isinstance(found, type) and issubclass(found, Exception) else None


_made: dict[tuple[type, ...], type[MfstoreError]] = {}


def _joined(ours: type[MfstoreError], kind: type[MfstoreError], theirs: type[Exception] | None) -> type[MfstoreError]:
    """``ours``, ``kind`` (what it was to the bulk client) and ``theirs`` in one class."""
    parts = (ours, kind) if theirs is None else (ours, kind, theirs)
    if parts not in _made:
        _made[parts] = _join(ours, kind, theirs)
    return _made[parts]


def _join(ours: type[MfstoreError], kind: type[MfstoreError], theirs: type[Exception] | None) -> type[MfstoreError]:
    # Of several bases the more special comes first; a base of another base is left out.
    bases: list[type[Any]] = [] if issubclass(ours, kind) else [kind]
    bases.append(ours)
    if theirs is not None:
        bases.append(theirs)
    if len(bases) == 1:
        return ours
    # MetaflowException.__init__ is not always reached: what its users read is set here.
    fields = {
        "__module__": __name__, "__doc__": ours.__doc__, "headline": ours.headline, "line_no": None,  # type: ignore[attr-defined]
        "source_file": None, "_made_of": (ours, kind), "__reduce__": _reduce,
    }  # fmt: skip
    return type(ours.__name__, tuple(bases), fields)


def _reduce(self: Any) -> tuple[Any, ...]:
    # Another process may or may not have Metaflow: the class is made there.
    return _rebuild, (*self._made_of, self.message, self.__dict__.copy())


def _rebuild(ours: type[MfstoreError], kind: type[MfstoreError], message: str, state: dict[str, Any]) -> MfstoreError:
    error = _joined(ours, kind, _theirs(ours.__name__))(message)
    error.__dict__.update(state)
    return error
