"""``mfstore.S3``: what ``metaflow.S3`` does, on the bulk client.

Every process that imports Metaflow imports this module, and few of them use S3: so what the methods need is imported
where it is used.
"""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, wraps
from importlib.util import find_spec
from io import BufferedReader
from itertools import count
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Literal, overload
from urllib.parse import quote

if TYPE_CHECKING:
    from typing import ParamSpec, Self, TypeVar

    from mfstore.s3.datatools.exceptions import (
        MetaflowS3AccessDenied,
        MetaflowS3Exception,
        MetaflowS3InsufficientDiskSpace,
        MetaflowS3InvalidObject,
        MetaflowS3InvalidRange,
        MetaflowS3NotFound,
        MetaflowS3URLException,
    )

    P = ParamSpec("P")
    R = TypeVar("R")
    from mfstore.s3.bulk.client import BulkClient
    from mfstore.s3.datatools.clients import Lease
    from mfstore.s3.datatools.objects import RangeInfo, S3GetObject, S3Object, S3PutObject
    from mfstore.s3.datatools.uploading import Upload
    from mfstore.s3.datatools.writers import ObjectWriter
    from mfstore.s3.transfers.outcomes import ListingEntry, Outcome
    from mfstore.settings import EncryptionKnobs

__all__ = [
    "S3", "MetaflowS3AccessDenied", "MetaflowS3Exception", "MetaflowS3InsufficientDiskSpace",
    "MetaflowS3InvalidObject", "MetaflowS3InvalidRange", "MetaflowS3NotFound", "MetaflowS3URLException", "RangeInfo",
    "S3GetObject", "S3Object", "S3PutObject",
]  # fmt: skip

_OBJECTS = frozenset(("RangeInfo", "S3GetObject", "S3Object", "S3PutObject"))


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mfstore.s3.datatools import exceptions, objects

    return getattr(objects if name in _OBJECTS else exceptions, name)


def raises_metaflows(function: Callable[P, R]) -> Callable[P, R]:
    """Have a method raise errors of the classes Metaflow's users catch, which are imported when it is called."""

    @wraps(function)
    def method(*args: P.args, **kwargs: P.kwargs) -> R:
        from mfstore.s3.datatools.exceptions import metaflow_errors

        with metaflow_errors():
            return function(*args, **kwargs)

    return method


class _Configured:
    """Stands for what Metaflow's configuration says."""

    def __repr__(self) -> str:
        return "<as configured>"


CONFIGURED: Any = _Configured()


class S3:
    """A drop-in for ``metaflow.S3``: the same arguments, results and errors, many times as fast, and with deletion,
    copies, streams and data in memory besides.

    Keys are relative to ``run`` (a running flow, ``S3(run=self)``, or a ``Run``; its root is ``DATATOOLS_S3ROOT`` with
    the parts that ``bucket`` and ``prefix`` replace), or to ``s3root`` (``s3://bucket/prefix``); with neither they are
    full ``s3://`` URLs.

    One instance may be used by several threads as long as none closes it. Pickled, it takes neither files nor what is
    secret along: keys that were given are to be found where it is unpickled.

    Errors are mfstore's under Metaflow's names (``mfstore.s3.datatools.exceptions``) and, where Metaflow is loaded,
    Metaflow's too. Besides what a method lists, each that asks S3 may raise MetaflowS3URLException for what is no
    address here (a relative key without a root, a URL with one), MetaflowS3AccessDenied when S3 refuses or there are no
    credentials, MetaflowS3NotFound when there is no such bucket, and MetaflowS3Exception for anything else, after the
    retries.

    Args:
        tmproot: Directory in which downloads get one of their own, which ``close``, or the end of a ``with`` block,
            removes with all files in it. Default: METAFLOW_TEMPDIR, else the current directory.
        bucket: With ``run``, in place of the bucket of DATATOOLS_S3ROOT.
        prefix: With ``run``, in place of the path of DATATOOLS_S3ROOT.
        run: A running flow, or a ``Run``; see above.
        s3root: ``s3://bucket/prefix``; see above.
        encryption: ServerSideEncryption of what is stored; None: as the bucket says. Default:
            METAFLOW_MFSTORE_ENCRYPTION, else METAFLOW_S3_SERVER_SIDE_ENCRYPTION, else MFSTORE_ENCRYPTION.
        role: ARN of a role to assume.
        session_vars: Variables of the botocore session. Default: Metaflow's configuration.
        client_params: Arguments of boto3's ``client``. Default: Metaflow's configuration.
        external_client: A boto3 client, or what has one as ``client``, in place of these three. It stays its owner's.
        inject_failure_rate: Per cent of the first tries that fail on purpose, for tests.
        kms_key: The key for ``aws:kms``. Default: METAFLOW_MFSTORE_KMS_KEY, else MFSTORE_KMS_KEY. This and what
            follows are not arguments of ``metaflow.S3``.
        engine: "auto", "native" or "aiobotocore".
        concurrency: Requests at once; by default that follows measurements.
        memory: Bytes in flight.
        max_bandwidth: Bytes per second, received and sent.
        attempts: How often one request is sent, at most.
        retry_seconds: No new try of a request is begun this long after its first. Default: 180.
        payload_signing: Whether the SHA-256 of what is sent is signed: "auto", "always" or "never"; as of
            ``BulkClient``.
        progress: Of downloads and uploads: True shows objects and bytes in a terminal on stderr or in a notebook, and
            nothing elsewhere; a function is told how many objects are done since its last call. A pickled ``S3`` does
            not take the function along.
        region_name: As in ``client_params``. metaflow.S3 takes this and the next too, as extensions give them, and
            ignores them.
        endpoint_url: As in ``client_params``.

    Raises:
        MetaflowS3URLException: The root cannot be told.
        Unsupported: botocore is not installed.
    """

    TYPE = "s3"

    @classmethod
    def get_root_from_config(cls, echo: Any, create_on_absent: bool = True) -> str | None:
        """``DATATOOLS_S3ROOT``, None if it is not configured."""
        from mfstore.s3.datatools.settings import settings

        return settings().root

    @raises_metaflows
    def __init__(
        self, tmproot: str | None = CONFIGURED, bucket: str | None = None, prefix: str | None = None, run: Any = None,
        s3root: str | None = None, encryption: str | None = CONFIGURED, *, role: str | None = None,
        session_vars: Mapping[str, Any] | None = None, client_params: Mapping[str, Any] | None = None,
        external_client: Any = None, inject_failure_rate: float | None = None, kms_key: str | None = None,
        engine: str | None = None, concurrency: int | None = None, memory: int | None = None,
        max_bandwidth: float | None = None, attempts: int | None = None, retry_seconds: float | None = None,
        payload_signing: Literal["auto", "always", "never"] | None = None,
        progress: bool | Callable[[int], None] | None = None, region_name: str | None = None,
        endpoint_url: str | None = None,
    ) -> None:  # fmt: skip
        from mfstore.errors import Unsupported
        from mfstore.s3.datatools.addressing import find_root
        from mfstore.s3.datatools.settings import ClientSettings, settings

        if find_spec("botocore") is None:
            raise Unsupported("S3 needs botocore", hint="pip install 'mfstore[s3]'")
        self._settings = settings()
        self._s3root, bucket, prefix = find_root(run, s3root, bucket, prefix, self._settings.root)
        self._s3_role = role
        self._s3_session_vars = session_vars
        if region_name or endpoint_url:
            client_params = dict(client_params or self._settings.client_params)
            client_params.update(region_name=region_name or client_params.get("region_name"))
            client_params.update(endpoint_url=endpoint_url or client_params.get("endpoint_url"))
        self._s3_client_params = client_params
        if inject_failure_rate is None:
            inject_failure_rate = float(os.environ.get("METAFLOW_S3_TEST_RETRYABLE_FAILURES") or 0)
        self._s3_inject_failures = inject_failure_rate
        self._client_settings = ClientSettings(
            self._settings, role, session_vars, client_params, external_client, float(inject_failure_rate), engine,
            concurrency, memory, max_bandwidth, attempts, retry_seconds, payload_signing,
            _encryption(self._settings.encryption, encryption, kms_key),
        )  # fmt: skip
        # Kept as metaflow.S3 keeps them: some make a new one from them.
        self._tmproot = self._settings.temporary if tmproot is CONFIGURED else tmproot
        self._bucket = bucket
        self._prefix = prefix
        self._run = run
        self._encryption = self._settings.encryption.encryption if encryption is CONFIGURED else encryption
        self._progress = progress
        self._tmpdir: str | None = mkdtemp(dir=self._tmproot, prefix="metaflow.s3.")
        self._names = count()
        self._leases: list[Lease] = []
        # Who forgets to close keeps the files, as with metaflow.S3, but no connections.
        self._forgotten = weakref.finalize(self, _release, self._leases)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """What may travel: not its files and connections, nor what is secret."""
        state = self.__dict__.copy()
        for name in ("_settings", "_tmpdir", "_names", "_leases", "_forgotten"):
            del state[name]
        state.pop("_s3_client", None)
        made_of = self._client_settings.without_secrets()
        state.update(_s3_client_params=made_of.client_params, _s3_session_vars=made_of.session_vars)
        state["_progress"] = self._progress is True
        state["_client_settings"] = made_of._replace(configured=None)  # type: ignore[arg-type]  # read where it is used
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        from mfstore.s3.datatools.settings import settings

        self.__dict__.update(state)
        self._settings = settings()
        self._client_settings = self._client_settings._replace(configured=self._settings)
        self._tmpdir, self._names, self._leases = None, count(), []
        self._forgotten = weakref.finalize(self, _release, self._leases)

    def close(self) -> None:
        """Remove the files that were downloaded: what is to stay, move or copy before. Using the ``S3`` again makes a
        new directory."""
        _release(self._leases)
        directory, self._tmpdir = self._tmpdir, None
        if directory is not None and not os.environ.get("METAFLOW_DEBUG_S3CLIENT"):
            shutil.rmtree(directory, ignore_errors=True)

    # ---- listing ----------------------------------------------------------------------

    @raises_metaflows
    def list_paths(self, keys: Iterable[str] | None = None) -> list[S3Object]:
        """What is directly under each of ``keys`` (None: the root): objects, and prefixes with a trailing slash and
        ``exists`` False. Page by page as S3 lists them, one key's after the other's."""
        urls = [self._url(key).rstrip("/") + "/" for key in ([None] if keys is None else keys)]
        return [_listed_object(prefix, entry) for prefix, entry in self._list(urls, False)]

    @raises_metaflows
    def list_recursive(self, keys: Iterable[str] | None = None) -> list[S3Object]:
        """The objects under each of ``keys`` (None: the root), in S3's order, one key's after the other's."""
        urls = [self._url(key) for key in ([None] if keys is None else keys)]
        return [_listed_object(prefix, entry) for prefix, entry in self._list(urls, True)]

    def _list(self, urls: list[str], recursive: bool) -> Iterator[tuple[str, ListingEntry]]:
        from mfstore.s3.datatools.addressing import listed

        if urls:
            yield from (
                (urls[index], entry)
                for index, entry in self._client.list_each([listed(url) for url in urls], recursive=recursive)
            )

    # ---- information ------------------------------------------------------------------

    @raises_metaflows
    def info(self, key: str | None = None, return_missing: bool = False) -> S3Object:
        """Size, metadata and so on of one object, by one HEAD.

        Args:
            key: The object. None: what the root itself names.
            return_missing: Return an S3Object whose ``exists`` is False for an object that is not there.

        Raises:
            MetaflowS3NotFound: no such object, without ``return_missing``.
        """
        (found,) = self._info([key], return_missing)
        return found

    @raises_metaflows
    def info_many(self, keys: Iterable[str], return_missing: bool = False) -> list[S3Object]:
        """As ``info`` for each of ``keys``, in parallel; the results are in their order."""
        return self._info(keys, return_missing)

    def _info(self, keys: Iterable[Any], return_missing: bool) -> list[S3Object]:
        from mfstore.s3.datatools.addressing import target
        from mfstore.s3.datatools.objects import info_of, s3_object

        urls = [self._url(key) for key in keys]
        if not urls:
            return []
        outcomes = self._client.head_many([target(url) for url in urls], on_error="return")
        return [
            s3_object(self._s3root, url, None, outcome.size, **info_of(outcome))
            if _there(outcome, return_missing)
            else s3_object(self._s3root, url, None)
            for url, outcome in zip(urls, outcomes, strict=True)
        ]

    # ---- getting ----------------------------------------------------------------------

    @raises_metaflows
    def get(
        self, key: str | S3GetObject | None = None, return_missing: bool = False, return_info: bool = True, *,
        in_memory: bool = False,
    ) -> S3Object:  # fmt: skip
        """Download one object, or a part of one. The file is there until the ``S3`` is closed.

        Args:
            key: The object, or an S3GetObject: a part of it. None: what the root itself names.
            return_missing: Return an S3Object whose ``exists`` is False for an object that is not there.
            return_info: Whether the result has content type, metadata, range and encryption.
            in_memory: Keep the data in memory; its ``path`` is then written if it is asked for.

        Raises:
            MetaflowS3NotFound: no such object, without ``return_missing``.
            MetaflowS3InvalidRange: the object has no such part, or it is none.
            MetaflowS3InsufficientDiskSpace: no room for the file.
        """
        (found,) = self._get([key], return_missing, return_info, in_memory)
        return found

    @raises_metaflows
    def get_many(
        self, keys: Iterable[str | S3GetObject], return_missing: bool = False, return_info: bool = True, *,
        in_memory: bool = False,
    ) -> list[S3Object]:  # fmt: skip
        """As ``get`` for each of ``keys``, in parallel; the results are in their order. With ``in_memory`` all of them
        have to fit there."""
        return self._get(keys, return_missing, return_info, in_memory)

    @raises_metaflows
    def get_recursive(
        self, keys: Iterable[str | None], return_info: bool = False, *, in_memory: bool = False
    ) -> list[S3Object]:
        """Download what ``list_recursive`` lists, in its order.

        Args:
            keys: Prefixes; None: the root.
            return_info: As of ``get``. With it the results' keys are relative to the root, without it to the one of
                ``keys`` they lie under.
            in_memory: As of ``get``; all of them have to fit there.

        Raises:
            MetaflowS3NotFound: an object was deleted since it was listed.
            MetaflowS3InsufficientDiskSpace: no room for the files.
        """
        urls = [self._url(key) for key in keys]
        found = list(self._list(urls, True))
        outcomes = self._download([entry.url for _, entry in found], in_memory, on_error="raise")
        return [
            self._gotten(self._s3root if return_info else prefix, _listed_url(entry), outcome, return_info)
            for (prefix, entry), outcome in zip(found, outcomes, strict=True)
        ]

    @raises_metaflows
    def get_all(self, return_info: bool = False, *, in_memory: bool = False) -> list[S3Object]:
        """Download everything under the root, as ``get_recursive``.

        Raises:
            MetaflowS3URLException: there is no root.
        """
        from mfstore.s3.datatools.exceptions import MetaflowS3URLException, failure

        if self._s3root is None:
            raise failure(MetaflowS3URLException, "get_all needs a root", hint="Use S3(run=…) or S3(s3root='s3://…')")
        return self.get_recursive([None], return_info, in_memory=in_memory)

    def _get(self, keys: Iterable[Any], return_missing: bool, return_info: bool, in_memory: bool) -> list[S3Object]:
        from mfstore.s3.datatools.addressing import ranged, target
        from mfstore.s3.datatools.objects import s3_object

        pairs = [(key, self._url(key)) for key in keys]
        if not pairs:
            return []
        items = [ranged(key, target(url)) for key, url in pairs]
        return [
            self._gotten(self._s3root, url, outcome, return_info)
            if _there(outcome, return_missing)
            else s3_object(self._s3root, url, None)
            for (_, url), outcome in zip(pairs, self._download(items, in_memory, on_error="return"), strict=True)
        ]

    def _download(self, items: list[Any], in_memory: bool, on_error: Literal["raise", "return"]) -> Iterable[Outcome]:
        if not items:
            return []
        if in_memory:
            return self._client.get_many(items, on_error=on_error, progress=self._progress)
        # A name of its own for each: whoever moves or changes a file disturbs nobody. `overwrite` avoids hard links,
        # which some file systems lack.
        return self._client.get_many(
            items, into="files", dest=self._new_path, on_error=on_error, overwrite=True, stream=True,
            progress=self._progress,
        )  # fmt: skip

    def _gotten(self, prefix: str | None, url: str, outcome: Outcome, return_info: bool) -> S3Object:
        from mfstore.s3.datatools.objects import info_of, range_of, s3_object

        info = {**info_of(outcome), "range_info": range_of(outcome)} if return_info else {}
        return s3_object(prefix, url, outcome.path, outcome.size, data=outcome.data, spill=self._spill, **info)

    def _new_path(self, key: str) -> str:
        if self._tmpdir is None:
            self._tmpdir = mkdtemp(dir=self._tmproot, prefix="metaflow.s3.")
        # The end of the key, with its extensions, is for programs that look at them. The process id is for forks.
        leaf = quote(key.rpartition("/")[2], safe="")[-150:]
        return f"{os.path.abspath(self._tmpdir)}/{os.getpid():x}-{next(self._names):x}-{leaf}"  # noqa: PTH100

    def _spill(self, data: bytes) -> str:
        path = self._new_path("memory")
        with open(path, "wb") as file:
            file.write(data)
        return path

    # ---- putting ----------------------------------------------------------------------

    @raises_metaflows
    def put(
        self, key: str, obj: Any, overwrite: bool = True, content_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """Store one object; its URL.

        Args:
            key: Where.
            obj: Text (stored as UTF-8), bytes, or a binary file, which is stored from its beginning and closed then.
            overwrite: Replace an object that exists; else it stays as it is.
            content_type: The MIME type.
            metadata: Anything JSON can hold.

        Raises:
            MetaflowS3InvalidObject: ``obj`` is anything else.
            MetaflowS3AccessDenied: refused; also when it cannot be told whether the object exists.
            TypeError: JSON cannot hold ``metadata``.
        """
        from mfstore.s3.datatools.uploading import checked, store, streamed

        checked(key, obj)
        upload = self._upload(key, obj, content_type, metadata, None)
        if not hasattr(obj, "seek"):
            store(self._client, [upload], overwrite, self._progress)
            return upload.url
        obj.seek(0)
        if not streamed(obj):
            store(self._client, [upload], overwrite, self._progress)
        elif overwrite or not self.info(key, return_missing=True).exists:
            with self.open_write(key, overwrite, content_type, metadata) as file:
                shutil.copyfileobj(obj, file, 1 << 20)
        obj.close()
        return upload.url

    @raises_metaflows
    def put_many(self, key_objs: Iterable[Any], overwrite: bool = True) -> list[tuple[str, str]]:
        """Store many objects, in parallel. The ``(key, url)`` of what was stored: without ``overwrite`` not of what
        existed.

        Every object is checked before any is stored. A failure to store is raised, and then some may have been stored.

        Args:
            key_objs: Pairs ``(key, obj)``, or S3PutObjects; ``obj`` as for ``put``, but files from their position and
                left open.
            overwrite: Replace objects that exist; else they stay as they are.

        Raises:
            MetaflowS3InvalidObject: an object cannot be stored: nothing was.
            MetaflowS3URLException: a key is no address: nothing was stored.
            MetaflowS3AccessDenied: refused; also when it cannot be told whether an object exists.
        """
        from mfstore.s3.datatools.uploading import checked

        uploads = []
        for item in key_objs:
            key, value = (item.key, item.value) if hasattr(item, "value") else (item[0], item[1])
            checked(key, value)
            uploads.append(self._described(item, key, value))
        return self._put(uploads, overwrite)

    @raises_metaflows
    def put_files(self, key_paths: Iterable[Any], overwrite: bool = True) -> list[tuple[str, str]]:
        """As ``put_many``, from local files.

        Args:
            key_paths: Pairs ``(key, path)``, or S3PutObjects with a ``path``. The files must not change meanwhile.
            overwrite: As of ``put_many``.

        Raises:
            MetaflowS3NotFound: a local file does not exist: nothing was stored. Or there is no such bucket.
        """
        from mfstore.s3.datatools.uploading import local_file

        uploads = []
        for item in key_paths:
            key, path = (item.key, item.path) if hasattr(item, "path") else (item[0], item[1])
            uploads.append(self._described(item, key, local_file(key, path)))
        return self._put(uploads, overwrite)

    def _described(self, item: Any, key: str, data: Any) -> Upload:
        names = ("content_type", "metadata", "encryption")
        content_type, metadata, encryption = (getattr(item, name, None) for name in names)
        if metadata is None and isinstance(encryption, dict):
            # So S3Storage of Metaflow hands it over (2.14 to 2.19.0, at least), and Metaflow's own S3 loses it.
            metadata, encryption = encryption, None
        return self._upload(key, data, content_type, metadata, encryption)

    def _upload(
        self, key: Any, data: Any, content_type: str | None, metadata: Mapping[str, Any] | None, encryption: str | None
    ) -> Upload:
        from mfstore.s3.datatools.addressing import target
        from mfstore.s3.datatools.uploading import Upload, attributes

        url = self._url(key)
        return Upload(key, url, target(url), data, content_type, attributes(metadata), encryption)

    def _put(self, uploads: list[Upload], overwrite: bool) -> list[tuple[str, str]]:
        from mfstore.s3.datatools.uploading import store

        if not uploads:
            return []
        stored = store(self._client, uploads, overwrite, self._progress)
        return [(upload.key, upload.url) for upload in uploads if upload.target in stored]

    # ---- beyond metaflow.S3 -----------------------------------------------------------

    @raises_metaflows
    def delete(self, key: str) -> str:
        """Delete one object; its URL. One that does not exist counts as deleted.

        Raises:
            MetaflowS3AccessDenied: it may not be deleted.
        """
        ((_, url),) = self.delete_many([key])
        return url

    @raises_metaflows
    def delete_many(self, keys: Iterable[str]) -> list[tuple[str, str]]:
        """Delete objects, 1000 per request; their ``(key, url)``. Raises the first error if any could not be deleted;
        others may have been, then."""
        from mfstore.s3.datatools.addressing import target

        pairs = [(key, self._url(key)) for key in keys]
        self._client.delete_many([target(url) for _, url in pairs])
        return pairs

    @raises_metaflows
    def delete_recursive(self, keys: Iterable[str | None], dry_run: bool = False) -> list[S3Object]:
        """Delete what ``list_recursive`` lists, and return that.

        Args:
            keys: Prefixes; None: the root.
            dry_run: Only return what would be deleted.

        Raises:
            MetaflowS3URLException: it would be a whole bucket.
            MetaflowS3AccessDenied: something may not be deleted. Others may have been, then.
        """
        from mfstore.s3.datatools.addressing import listed
        from mfstore.s3.datatools.exceptions import MetaflowS3URLException, failure

        urls = [self._url(key) for key in keys]
        for url in urls:
            if listed(url).count("/") < 4:
                raise failure(
                    MetaflowS3URLException,
                    "this would delete everything in the bucket",
                    key=url,
                    hint="Name prefixes, or use delete_many with what list_recursive returns",
                )
        found = list(self._list(urls, True))
        if found and not dry_run:
            self._client.delete_many(dict.fromkeys(entry.url for _, entry in found))
        return [_listed_object(prefix, entry) for prefix, entry in found]

    @raises_metaflows
    def copy_many(self, pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Copy objects within S3, with their metadata. The ``(key, url)`` of the copies.

        Args:
            pairs: ``(from, to)`` pairs or a mapping. Full URLs are taken as they are, also by an ``S3`` with a root.

        Raises:
            MetaflowS3NotFound: an object to be copied does not exist. Others may have been copied, then.
        """
        from mfstore.s3.datatools.addressing import target

        made = []
        for source, copy in pairs.items() if isinstance(pairs, Mapping) else pairs:
            made.append((self._anywhere(source), copy, self._anywhere(copy)))
        self._client.copy([(target(source), target(url)) for source, _, url in made])
        return [(copy, url) for _, copy, url in made]

    def _anywhere(self, key: str) -> str:
        from mfstore.s3.datatools.addressing import full_url

        return full_url(None if str(key).startswith("s3://") else self._s3root, key)

    def _url(self, key: Any) -> str:
        """The URL of a key, by metaflow.S3's name for it."""
        from mfstore.s3.datatools.addressing import full_url

        return full_url(self._s3root, key)

    @raises_metaflows
    def open_read(self, key: str) -> BufferedReader:
        """The object as a binary file: seekable, fetched in ranges as it is read, ahead of it when that goes in order.
        For text wrap it in ``io.TextIOWrapper``. Its owner closes it.

        Raises:
            MetaflowS3NotFound: no such object; now, or while reading when it has been deleted.
            MetaflowS3Exception: while reading. It is a Conflict when the object has been replaced.
        """
        from mfstore.s3.datatools.addressing import target

        url = self._url(key)
        from mfstore.s3.datatools.readers import ObjectReader

        return BufferedReader(ObjectReader(self._client, target(url), url), 1 << 16)

    @raises_metaflows
    def open_write(
        self, key: str, overwrite: bool = True, content_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> ObjectWriter:  # fmt: skip
        """A binary file to write to: sent in parts meanwhile, there when it has been closed, and not at all when the
        ``with`` block raises. What is wrong in S3 is raised by ``write`` and ``close``.

        Args:
            key: Where.
            overwrite: Replace an object that exists; else one that does by the end stays, and ``stored`` of the file
                is False.
            content_type: The MIME type.
            metadata: Anything JSON can hold.

        Raises:
            TypeError: JSON cannot hold ``metadata``.
        """
        upload = self._upload(key, b"", content_type, metadata, None)
        from mfstore.s3.datatools.writers import ObjectWriter

        return ObjectWriter(
            self._client,
            upload.target,
            upload.url,
            overwrite=overwrite,
            metadata=upload.metadata,
            options={} if content_type is None else {"ContentType": content_type},
        )

    @overload
    def open(self, key: str, mode: Literal["rb"] = "rb") -> BufferedReader: ...
    @overload
    def open(self, key: str, mode: Literal["wb"], **how: Any) -> ObjectWriter: ...
    def open(self, key: str, mode: str = "rb", **how: Any) -> BufferedReader | ObjectWriter:
        """``open_read`` or ``open_write``. ValueError for other modes."""
        if mode == "rb":
            return self.open_read(key, **how)
        if mode == "wb":
            return self.open_write(key, **how)
        raise ValueError(f'mode must be "rb" or "wb", not {mode!r}')

    # ---- the client -------------------------------------------------------------------

    @cached_property
    def _s3_client(self) -> Any:
        """The client that was given, else one of Metaflow's own: what extensions take for calls that metaflow.S3 has no
        method for, or change. ImportError without Metaflow."""
        given = self._client_settings
        if given.external_client is not None:
            return given.external_client
        from metaflow.plugins.datatools.s3.s3 import S3Client

        return S3Client(given.role, given.session_vars, given.client_params)

    @property
    def _client(self) -> BulkClient:
        if not self._leases:
            from mfstore.s3.datatools.clients import Lease

            made_of, taken = self._client_settings, self.__dict__.get("_s3_client")
            # Who has it make its boto3 client before anything is asked of S3, or puts another in its place, has
            # reasons: a proxy, headers, keys. Until then Metaflow's S3Client holds None.
            if taken is not None and getattr(taken, "_s3_client", taken) is not None:
                made_of = made_of._replace(external_client=taken)
            self._leases.append(Lease(made_of))
        return self._leases[0].client

    def __repr__(self) -> str:
        return f"<S3 {self._s3root or 'with full URLs'}>"


def _encryption(configured: EncryptionKnobs, given: str | None, kms_key: str | None) -> EncryptionKnobs | None:
    """How an S3 encrypts; None: as is ``configured``."""
    from mfstore.settings import EncryptionKnobs

    if given is CONFIGURED:
        if kms_key is None:
            return None
        algorithm = configured.encryption if "kms" in str(configured.encryption) else None
        return EncryptionKnobs(algorithm or "aws:kms", kms_key, configured.bucket_key)
    if given is None or "kms" in given:
        return EncryptionKnobs(given or ("aws:kms" if kms_key else None), kms_key)
    return EncryptionKnobs(given)


def _release(leases: list[Lease]) -> None:
    while leases:
        leases.pop().release()


def _there(outcome: Outcome, return_missing: bool) -> bool:
    """Whether there is such an object. Raises what kept us from seeing."""
    from mfstore.errors import NotFound

    if outcome.error is None:
        return True
    if return_missing and isinstance(outcome.error, NotFound):
        return False
    raise outcome.error


def _listed_url(entry: ListingEntry) -> str:
    return f"s3://{entry.bucket}/{entry.key.lstrip('/')}"


def _listed_object(prefix: str, entry: ListingEntry) -> S3Object:
    from mfstore.s3.datatools.objects import s3_object

    if entry.is_prefix:
        return s3_object(prefix, f"s3://{entry.bucket}/{entry.key}", None)
    return s3_object(prefix, _listed_url(entry), None, entry.size)
