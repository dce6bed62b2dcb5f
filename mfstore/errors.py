"""Everything mfstore raises.

::

    MfstoreError
    ├── NotFound (KeyError)           nothing is stored under that key, ref or path
    │   └── PathNotFound (FileNotFoundError)  nothing is at that path of a file system
    ├── CorruptObject                 stored bytes are not what was stored
    ├── AccessDenied (PermissionError) the storage refused; never reported as "absent"
    │   └── Locked                    what was to be deleted is locked by the storage
    ├── InvalidKey (ValueError)       a key, ref name or URL that cannot exist
    ├── InvalidRange (ValueError)     a byte range outside the artifact
    ├── Conflict                      someone else changed it first; read again and retry
    │   └── PathExists (FileExistsError)  there was to be nothing at that path of a file system
    ├── Unsupported                   a format, feature, scheme or codec this version does not know
    ├── NotAStore (ValueError)        the place exists and is something else
    ├── OutOfSpace (OSError)          disk full or quota reached; the store is intact
    ├── PathIsDirectory (IsADirectoryError)  a path of a file system that is no file
    ├── Refused                       would destroy more than was asked for, or cannot be done safely now
    │   ├── PathIsReadOnly (PermissionError)  a path of a file system that cannot be written to
    │   └── NotSigned                 loading was to be of signed things, and this is not signed by one who is trusted
    ├── NotSerializable (TypeError)   an object pickle cannot describe
    ├── NotLoadable                   whole bytes that cannot become an object here: a class or a library is missing
    │   └── UnsafeObject              loading was to be safe, and this would run what is not on the list
    ├── InvalidNote (ValueError)      a note that JSON cannot say, or that is too long
    ├── WrongArgument (TypeError)     an argument of a kind that the call cannot mean
    ├── Unreadable (OSError)          a file or directory to be stored cannot be read whole
    └── BackendError (OSError)        any other failure of the storage, with its cause

    MfstoreWarning (UserWarning)      what was done as it was asked, and may not be what was meant
"""

from __future__ import annotations

import errno as numbers
from collections.abc import Collection, Mapping
from typing import Any


class MfstoreWarning(UserWarning):
    """Something was done as it was asked, and may not be what was meant; the message says what to do instead."""


class MfstoreError(Exception):
    """Base of all errors; ``key``, ``backend``, ``offset``, ``expected``, ``found`` say where, ``hint`` what next.

    Of a server's answer: ``status`` (HTTP), ``service_code`` (its own word, such as ``SlowDown``), ``request_id`` (what
    its operators ask for) and ``attempts`` made. Attributes that do not apply are None. ``code`` is a stable word for
    programs to match on: codes are added, never renamed.
    """

    code = "error"

    def __init__(
        self,
        message: str,
        *,
        key: str | None = None,
        backend: str | None = None,
        offset: int | None = None,
        expected: object = None,
        found: object = None,
        hint: str | None = None,
        status: int | None = None,
        service_code: str | None = None,
        request_id: str | None = None,
        attempts: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.key = key
        self.backend = backend
        self.offset = offset
        self.expected = expected
        self.found = found
        self.hint = hint
        self.status = status
        self.service_code = service_code
        self.request_id = request_id
        self.attempts = attempts

    def __str__(self) -> str:
        text = self.message
        details = []
        if self.key is not None:
            details.append(f"key {self.key}")
        if self.backend is not None:
            details.append(f"in {self.backend}")
        if self.offset is not None:
            details.append(f"offset {self.offset}")
        if self.expected is not None:
            details.append(f"expected {self.expected}")
        if self.found is not None:
            details.append(f"found {self.found}")
        if self.status is not None:
            details.append(f"HTTP {self.status}")
        if self.service_code is not None:
            details.append(self.service_code)
        if self.request_id is not None:
            details.append(f"request {self.request_id}")
        if self.attempts is not None:
            details.append("1 attempt" if self.attempts == 1 else f"{self.attempts} attempts")
        if details:
            text += f" ({', '.join(details)})"
        if self.hint:
            text += f". {self.hint}"
        return text

    def where(self, **context: Any) -> MfstoreError:
        """Fill in what a lower room could not know; what is already known stays. Returns self."""
        for name, value in context.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__.copy())


def _rebuild(cls: type[MfstoreError], message: str, state: dict[str, Any]) -> MfstoreError:
    error = cls(message)
    error.__dict__.update(state)
    return error


class NotFound(MfstoreError, KeyError):
    """Nothing is stored there."""

    code = "not-found"


class PathNotFound(NotFound, FileNotFoundError):
    """Nothing is at that path of a file system: of a store's, or of S3 as one."""

    code = "path-not-found"
    errno = numbers.ENOENT


class CorruptObject(MfstoreError):
    """Stored bytes differ from what was stored; storing the same content again repairs them."""

    code = "corrupt"


class AccessDenied(MfstoreError, PermissionError):
    """The storage refused the operation.

    Of a server's refusal ``operation`` is what was asked for (as S3 calls it: ``PutObject``), and ``rights`` are the
    rights that it needs, as pairs of action and resource (``("s3:PutObject", "arn:aws:s3:::bucket/key")``): the one
    that is missing where the server names it, else all of them; empty where it was refused for another reason, such as
    a wrong key. ``reason`` are the server's words where they do not name a right. Of a directory ``operation`` is
    empty, and the message names the path and the mode that it lacks.
    """

    code = "access-denied"
    operation: str = ""
    rights: tuple[tuple[str, str], ...] = ()
    reason: str = ""


class Locked(AccessDenied):
    """What was to be deleted is under retention or a legal hold of the storage. All else that the same call was to
    delete is gone, but for what had changed.

    ``locks`` says of each object by key what locks it; ``changed`` are the keys of those that had changed.
    """

    code = "locked"
    locks: Mapping[str, str] = {}
    changed: Collection[str] = ()


class InvalidKey(MfstoreError, ValueError):
    """Not a key, ref name or URL."""

    code = "invalid-key"


class InvalidRange(MfstoreError, ValueError):
    """The byte range does not lie in the artifact."""

    code = "invalid-range"


class Conflict(MfstoreError):
    """The value changed since it was read."""

    code = "conflict"


class PathExists(Conflict, FileExistsError):
    """A path of a file system at which nothing was to be."""

    code = "path-exists"
    errno = numbers.EEXIST


class Unsupported(MfstoreError):
    """Needs a newer mfstore, an extra, or a backend that is not installed."""

    code = "unsupported"


class NotAStore(MfstoreError, ValueError):
    """The location holds something that is not an mfstore store."""

    code = "not-a-store"


class OutOfSpace(MfstoreError, OSError):
    """No room left to write; nothing that was acknowledged is affected."""

    code = "out-of-space"


class Refused(MfstoreError):
    """Not done because it could destroy what is still wanted; nothing was changed."""

    code = "refused"


class PathIsReadOnly(Refused, PermissionError):
    """A path of a store's file system that cannot be written to: what is inside of one ref, or a former value."""

    code = "path-is-read-only"


class NotSigned(Refused):
    """The store was opened with ``trusted=``, and the key is not signed by one of these. Nothing was loaded."""

    code = "not-signed"


class NotSerializable(MfstoreError, TypeError):
    """The object cannot be pickled; the message names the path to the part that cannot."""

    code = "not-serializable"


class NotLoadable(MfstoreError):
    """What is stored is whole, and cannot become an object in this process; ``get_bytes`` gives its bytes.

    ``key``, ``artifact`` (of a bundle, else None) and ``type`` (as it was when it was stored) say what it is;
    ``missing`` is the module, class or function that was not found, None where something else went wrong. What was
    raised is the ``__cause__``.
    """

    code = "not-loadable"
    artifact: str | None = None
    type: str | None = None
    missing: str | None = None


class UnsafeObject(NotLoadable):
    """It was to be loaded safely, and to make it takes what is not on the list. Nothing of it was run or imported.

    ``names`` are the classes and functions that were refused, each with its module. What you know to be harmless,
    whatever it is called with, can be put on the list: ``safe=mfstore.Allow(...)``.
    """

    code = "unsafe"
    names: tuple[str, ...] = ()


class InvalidNote(MfstoreError, ValueError):
    """Not a note; the message names the part."""

    code = "invalid-note"


class WrongArgument(MfstoreError, TypeError):
    """An argument is of a kind that the call cannot mean; the hint says what to write instead."""

    code = "wrong-argument"


class PathIsDirectory(WrongArgument, IsADirectoryError):
    """A path of a file system is a directory, and a file is wanted."""

    code = "path-is-directory"
    errno = numbers.EISDIR


class Unreadable(MfstoreError, OSError):
    """A file or a directory that was to be stored may not be read, has vanished, or kept changing while it was read.

    ``path`` is where it is, below what was to be stored; ``reason`` says which of these, in the words of
    ``Tree.omitted``. What the system raised is the ``__cause__``.
    """

    code = "unreadable"
    path: str = ""
    reason: str = ""


class BackendError(MfstoreError, OSError):
    """The storage failed in a way no other class describes."""

    code = "backend"
