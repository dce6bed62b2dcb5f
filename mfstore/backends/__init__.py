"""Backends by URL scheme: ours, and those other packages register.

A package offers a backend with an entry point in the group ``mfstore.backends`` whose name is the URL scheme and whose
object is called with ``(url, **options)`` and returns a ``Backend``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mfstore.backends.base import Backend, Batch, Capabilities, ObjectInfo
from mfstore.errors import InvalidKey, Unsupported
from mfstore.host.forks import IMPORTING
from mfstore.settings import EncryptionKnobs, Knobs, payload_signing, resolve_encryption, resolve_place, resolve_s3

if TYPE_CHECKING:
    from mfstore.backends.buckets import BucketBackend

__all__ = ["Backend", "Batch", "Capabilities", "ObjectInfo", "open_backend"]

GROUP = "mfstore.backends"
BUILT_IN = "Built in: a path, file://, memory://, s3://, az://, abfss:// and gs://"


def open_backend(url: str, knobs: Knobs, **options: Any) -> Backend:
    """The backend for a path or URL. InvalidKey for a malformed one, Unsupported for a scheme nobody offers."""
    scheme, separator, _ = url.partition("://")
    if not separator or len(scheme) < 2:
        return _local(local_path(url), knobs, options)
    if scheme == "file":
        return _local(file_path(url), knobs, options)
    if scheme == "memory":
        with IMPORTING:
            from mfstore.backends.memory import MemoryBackend

        _refuse(options)
        return MemoryBackend(url)
    if scheme == "s3":
        with IMPORTING:
            from mfstore.backends.s3.backend import S3Backend

        # What waits to be decoded is the store's; what has arrived and waits for that is the client's: a quarter each.
        return S3Backend(url, expire_days=knobs.expire_days, **{"memory": knobs.memory // 4, **said_of(url, options)})
    if scheme in _IN_BUCKETS:
        kind: Callable[..., Backend] = bucket_backend(url)
        return kind(url, expire_days=knobs.expire_days, **{"memory": knobs.memory // 4, **said_of(url, options)})
    from importlib.metadata import entry_points

    found = entry_points(group=GROUP, name=scheme)
    if len(found) > 1:
        raise Unsupported(f"{len(found)} packages offer a backend for {scheme}://", hint="Uninstall all but one")
    for entry in found:
        backend = entry.load()(url, **options)
        if not isinstance(backend, Backend):
            raise Unsupported(f"the backend for {scheme}:// is not an mfstore Backend", found=type(backend).__name__)
        return backend
    raise Unsupported(f"no backend for {scheme}:// is installed", hint=BUILT_IN)


def bucket_backend(url: str) -> type[BucketBackend]:
    """The kind of backend that a place in a bucket has: ``s3://``, ``az://``, ``abfss://`` or ``gs://``."""
    module, name = _IN_BUCKETS[url.partition("://")[0]]
    with IMPORTING:
        kind: type[BucketBackend] = getattr(import_module(f"mfstore.backends.{module}"), name)
    return kind


_IN_BUCKETS = {
    "s3": ("s3.backend", "S3Backend"), "az": ("azure", "AzureBackend"), "abfss": ("azure", "AzureBackend"),
    "gs": ("gcs", "GcsBackend"),
}  # fmt: skip


def said_of(url: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, options of a backend in S3, Azure or Google Cloud, with what a configuration file says of the place
    besides."""
    scheme = url.partition("://")[0]
    place = resolve_place(url)
    if scheme != "s3":
        concurrency = resolve_s3(None, given.get("concurrency"), place=url).concurrency
        limited = {} if concurrency is None else {"concurrency": concurrency}
        return {**place.options(scheme), **limited, **given}
    algorithm, key, one = map(given.get, EncryptionKnobs._fields)
    encryption = resolve_encryption(algorithm, key, one, url)
    found: dict[str, Any] = {"single_writer": place.single_writer}
    if "session" not in given and "client" not in given:
        found.update(place.options(scheme))
    s3 = resolve_s3(given.get("engine"), given.get("concurrency"), place=url)
    transfers = {
        "engine": s3.engine, "concurrency": s3.concurrency,
        "payload_signing": payload_signing(given.get("payload_signing"), url),
    }  # fmt: skip
    found.update((name, value) for name, value in transfers.items() if value not in (None, "auto"))
    # Decided: the backend asks the environment no more.
    decided = {
        "encryption": "",
        "kms_key": "",
        **{name: v for name, v in encryption._asdict().items() if v is not None},
    }
    return {**found, **given, **decided}


def file_path(url: str) -> str:
    """The path that a file URL names. InvalidKey for one of another host, and for one that is not absolute."""
    host, slash, path = url.removeprefix("file://").partition("/")
    if host not in ("", "localhost") or not slash:
        raise InvalidKey("a file URL is file:///absolute/path", found=repr(url))
    return unquote(f"/{path}")


def local_path(text: str) -> str:
    """The directory that somebody means who gives ``text``: with ``~`` as a shell has it. InvalidKey for what was meant
    for a URL: a directory called ``s3:`` is nobody's wish."""
    scheme, colon, rest = text.partition(":")
    if colon and len(scheme) > 1 and scheme[0].isalpha() and scheme.replace("+", "").replace("-", "").isalnum():
        raise InvalidKey(
            "neither a path nor a URL", found=repr(text),
            hint=f"A URL is {scheme}://{rest.lstrip('/')}, as a str: a Path drops a slash. A directory is ./{text}",
        )  # fmt: skip
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError as error:
        raise InvalidKey(str(error), found=repr(text), hint=f"A directory is ./{text}") from None


def _local(path: str, knobs: Knobs, options: dict[str, Any]) -> Backend:
    with IMPORTING:
        from mfstore.backends.local import LocalBackend

    _refuse(options)
    if not path or "\0" in path:
        raise InvalidKey("a store needs a path", found=repr(path))
    return LocalBackend(path, fsync=knobs.fsync, expire_days=knobs.expire_days)


def _refuse(options: dict[str, Any]) -> None:
    for name in options.keys() & {*EncryptionKnobs._fields, "single_writer"}:
        raise InvalidKey(f"{name} is for places in S3", hint="A directory is encrypted by its file system, or its disk")
    if options:
        raise TypeError(f"unknown option {next(iter(options))!r}")
