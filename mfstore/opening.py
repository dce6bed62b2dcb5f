"""How a store is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from mfstore.backends import open_backend
from mfstore.errors import InvalidKey, WrongArgument
from mfstore.format.digests import NAMES
from mfstore.settings import resolve, telemetry
from mfstore.store import Store

if TYPE_CHECKING:
    from mfstore.allow import Allow


def open_store(
    url: str | os.PathLike[str],
    *,
    create: bool = True,
    threads: int | None = None,
    memory: int | None = None,
    verify: bool | None = None,
    fsync: str | None = None,
    compress: Literal["fast", "balanced", "small"] | bool | None = None,
    hash: str = "blake3",  # noqa: A002
    expire_days: int | None = None,
    map: bool | None = None,  # noqa: A002
    delta: bool | None = None,
    record: bool | None = None,
    safe: bool | Allow | None = None,
    trusted: Iterable[Any] | str | os.PathLike[str] | None = None,
    encryption: Literal["AES256", "aws:kms", "aws:kms:dsse", ""] | None = None,
    kms_key: str | None = None,
    bucket_key: bool | None = None,
    single_writer: bool | None = None,
    cache: str | os.PathLike[str] | None = None,
    cache_size: int | None = None,
    **options: Any,
) -> Store:
    """Open the store at a path or URL (``file://``, ``s3://``, ``memory://``, or a scheme a package offers).

    Nothing is created until something is put. An argument that is None is decided by the environment variable of its
    name (``MFSTORE_THREADS`` and so on), else by the configuration file, else by the default.

    Args:
        url: Where the store is, or is to be. A URL is a str, as a Path drops one of its slashes. ``~`` is the home
            directory.
        create: Whether a put may create the store; if not, it raises NotFound where there is none.
        threads: Threads for hashing, codecs and reads. Default: the CPUs this process may use.
        memory: Bytes of extra memory one operation may hold. Default: 256 MiB.
        verify: Check digests on every read. Default: on.
        fsync: Local durability, "none", "batch" or "always". Default: batch.
        expire_days: Something else (a lifecycle rule, a clean-up job) removes objects of this age: what a save relies
            on is made young again in time. Default: what S3 says of its own rules.
        map: Whether large raw arrays in a local directory are mapped when they are loaded (see ``Store.get``). Default:
            unless the directory lies on a network file system, where other machines may change files under a map.
        delta: Whether what has changed since the ``base`` that a save names may be stored as what differs from it.
            Default: on.
        compress: "fast" takes what lz4 shrinks by a fifth; "balanced" what any codec shrinks by a twentieth, and of
            these the smallest; "small" spends five times as long on it. False stores everything raw; True is
            "balanced", which is the default. Any store reads what any of them wrote.
        hash: The digest of a store that is created, "blake3" or "sha256". A store that is there keeps its own.
        record: Whether each artifact is stored with a record of who stored it (``user@host``, or the task of a flow),
            when, and with which versions of Python, mfstore and the libraries whose classes are inside; ``stat`` shows
            it. It changes no key. Default: on.
        safe: True: what is loaded is data (numbers, texts, times, containers; arrays and tables of numpy, pandas and
            Arrow), and what takes anything else is refused before anything of it runs (``UnsafeObject``). An ``Allow``
            adds classes and functions to these. False: whatever was stored is unpickled, and with it runs whatever
            whoever wrote it wants. Default: False.
        trusted: Public keys: files or texts in PEM, or those of the cryptography package. What is loaded must be signed
            by one of them (``mfstore.sign``), and is refused before it is read if it is not (``NotSigned``). Default:
            nothing need be signed.
        encryption: In S3: how what is written is encrypted there; "" as the bucket says, which is the default.
        kms_key: In S3: id, ARN or alias of the key of KMS; alone it means "aws:kms".
        bucket_key: In S3, of "aws:kms": whether one data key serves many objects. Default: as the bucket says.
        single_writer: In S3: no two processes ever write to this store at the same time, so that a service without
            conditional writes will do. If two do, one loses refs, holds and collections of the other without a word.
            Default: no.
        cache: A directory of this machine, such as ``~/.cache/mfstore``, where what is read in S3 is kept for all
            processes of this user. What lies there is not asked of S3 again, and large raw arrays are mapped from it.
            "" keeps nothing. Default: small objects alone, below the temporary directory. A store in a directory needs
            none, and takes none.
        cache_size: Bytes that the contents of artifacts take there at most; those used longest ago go first. 0 keeps
            none. Default: 10 GiB.
        options: Go to the backend: in S3 what ``BulkClient`` takes, such as ``endpoint_url``, ``region_name`` and
            ``profile_name``.

    Raises:
        InvalidKey: the URL, ``hash`` or a setting is none; or the path begins as a URL does (``s3:bucket/x``); or
            what is of S3 alone is said of another place; or others than this user may use ``cache``.
        NotAStore: the place holds something else.
        Unsupported: no backend for this scheme is installed, or the store needs a newer mfstore.
        CorruptObject: the store's description is damaged.
        TypeError: an option that the backend does not know; or, as WrongArgument, ``url`` is neither a path nor text.
        AccessDenied: the store's description may not be read.
        BackendError: the storage failed.
    """
    if not isinstance(url, (str, os.PathLike)):
        raise WrongArgument(
            "url is where the store is, a path or a URL", found=repr(url), hint="Such as mfstore.open('~/store')"
        )
    text = os.fspath(url)
    if not isinstance(text, str):
        raise WrongArgument("url is text, and this is bytes", found=repr(text))
    if hash not in NAMES:
        raise InvalidKey("hash must be one of " + ", ".join(NAMES), found=repr(hash))
    if isinstance(verify, (str, os.PathLike)):
        raise WrongArgument(
            "verify is True or False: whether digests are compared", found=repr(verify),
            hint="Certificates to trust are named by AWS_CA_BUNDLE for S3, by REQUESTS_CA_BUNDLE elsewhere",
        )  # fmt: skip
    directory = None if cache is None else os.fspath(cache)
    if directory is not None and not isinstance(directory, str):
        raise WrongArgument("cache is a directory, as text or a path", found=repr(cache))
    knobs = resolve(
        threads, memory, verify, fsync, expire_days, map, delta, compress, record, safe, text, directory, cache_size
    )
    of_s3 = {
        "encryption": encryption, "kms_key": kms_key, "bucket_key": bucket_key, "single_writer": single_writer,
    }  # fmt: skip
    options.update((name, value) for name, value in of_s3.items() if value is not None)
    signers: tuple[bytes, ...] = ()
    if trusted is not None:
        from mfstore.trust import public_keys

        signers = public_keys(trusted)
    backend = open_backend(text, knobs, **options)
    kind = Store
    if telemetry(text):
        from mfstore.telemetry import TracedStore

        kind = TracedStore
    store = kind(text, backend, knobs, create=create, algorithm=hash, trusted=signers)
    if knobs.cache and backend.capabilities.remote:
        from mfstore.host.cache import open_cache

        open_cache(knobs.cache, knobs.cache_size)  # refused now, if others may use it, and not at the first load
    store.handle.require_read()
    return store
