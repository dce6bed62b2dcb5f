"""``S3FileSystem``: fsspec's methods on bulk operations, one for each call however many files it is about."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from fsspec.asyn import AsyncFileSystem, get_loop
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem, make_path_posix, trailing_sep
from fsspec.utils import tokenize

from mfstore.errors import (
    Conflict,
    InvalidKey,
    InvalidRange,
    MfstoreError,
    NotFound,
    NotSerializable,
    PathExists,
    PathIsDirectory,
    Unsupported,
    WrongArgument,
)
from mfstore.host.written_files import TEXT, written_as
from mfstore.in_thread import in_thread
from mfstore.s3.bulk.client import BulkClient
from mfstore.s3.bulk.items import PutItem
from mfstore.s3.bulk.results import BulkResult
from mfstore.s3.calls import Call, Options, shared_options
from mfstore.s3.filesystem import plans
from mfstore.s3.filesystem.arguments import settings_of, without_secrets
from mfstore.s3.filesystem.errors import DirectoryNotEmpty, as_kind, file_error, file_errors, not_found
from mfstore.s3.filesystem.gathering import Gathering
from mfstore.s3.filesystem.infos import Info, Tree, children, directory, headed, listed, version
from mfstore.s3.filesystem.listings import Listings
from mfstore.s3.filesystem.paths import PROTOCOLS, VERSION, Location, bare, exact, locate, parent
from mfstore.s3.filesystem.reading import ADAPTIVE, S3File
from mfstore.s3.filesystem.writing import S3Transaction, S3WriteFile
from mfstore.s3.transfers.copies import DESCRIBED, put_again, told
from mfstore.s3.transfers.destinations import Destination
from mfstore.s3.transfers.downloads import GetJob
from mfstore.s3.transfers.jobs import Job
from mfstore.s3.transfers.listings import ListJob
from mfstore.s3.transfers.outcomes import Outcome
from mfstore.s3.transfers.uploads import SingleCallJob

BLOCK = 8 << 20
"""Bytes that a file reads ahead at most."""
GAP = 64 << 10
"""Ranges of one file that lie so close are fetched as one: a request costs as much as so many bytes do."""
MODES = ("overwrite", "create")
"""How a file is stored: whatever is there, or only where nothing is."""
NO_BUCKET = "NoSuchBucket"
NOT_EMPTY = "BucketNotEmpty"
TAKEN = ("BucketAlreadyExists", "BucketAlreadyOwnedByYou")
"""S3's words for a bucket that is not there, for one that cannot be deleted, and for one that cannot be made."""


class S3FileSystem(AsyncFileSystem):
    """S3 as fsspec knows filesystems: buckets and the prefixes of keys are directories. Used as s3fs's is.

    Each call is one bulk operation, however many files it is about. The methods without an underscore work in any
    thread, and in forked children. Their twins with one (``await fs._cat_file(path)``) are for event loops; of an
    instance that is ``asynchronous`` both may be used.

    Listings are remembered until something below them is written by this instance, for ``listings_expiry_time`` seconds
    where that is given, not at all with ``use_listings_cache=False``. That something is absent is never taken from
    them.

    Pickles without what is secret: keys that were given, and passwords in URLs, are to be found where it is unpickled.
    ``to_json`` has them, as fsspec's callers expect, unless ``include_password=False``.

    Errors are OSErrors and, under it, mfstore's: FileNotFoundError, FileExistsError, PermissionError (which names
    operation, resource and right, and is never taken for absence), IsADirectoryError; and ValueError for what is no
    path.

    Args:
        anon: Do not sign.
        endpoint_url: Where the service is, unless it is AWS or the environment says it.
        key: The access key; ``username`` is the same. Without one keys are looked for as boto3 does.
        secret: The secret key; ``password`` is the same.
        token: The session token.
        profile: A profile of AWS's configuration.
        client_kwargs: Arguments of ``boto3.client``: ``region_name``, ``verify``, …
        config_kwargs: Arguments of botocore's ``Config``.
        session: A session of boto3, botocore or aiobotocore. Such an instance does not pickle.
        use_ssl: False: http.
        requester_pays: The caller pays.
        s3_additional_kwargs: Parameters of all operations that know them, by botocore's names.
        default_block_size: Bytes that an open file reads ahead at most. Default: 8 MiB.
        default_cache_type: How an open file caches: "adaptive", or any that fsspec has. Default: "adaptive".
        default_fill_cache: False: a file that reads here and there reads what is asked for and no more.
        version_aware: Whether ``path?versionId=…`` names a version.
        asynchronous: Whether it is for event loops: as fsspec has it.
        loop: fsspec's, for callers that ask for ``fs.loop``. No method here runs in it.
        options: ``concurrency``, ``memory``, ``max_bandwidth``, ``attempts``, ``encryption``, ``kms_key`` and so on, as
            of ``BulkClient``; ``use_listings_cache``, ``listings_expiry_time``, ``max_paths`` and
            ``skip_instance_cache`` as of fsspec.

    Raises:
        WrongArgument: an argument has no meaning here (a TypeError).
    """

    protocol = PROTOCOLS
    root_marker = ""
    mirror_sync_methods = False  # they are here, and take no way round by a thread
    default_block_size = BLOCK
    transaction_type = S3Transaction
    _extra_tokenize_attributes = ("default_block_size",)

    def __init__(
        self, anon: bool = False, endpoint_url: str | None = None, key: str | None = None, secret: str | None = None,
        token: str | None = None, *, default_block_size: int | None = None, default_cache_type: str | None = None,
        default_fill_cache: bool = True, version_aware: bool = False, asynchronous: bool = False, loop: Any = None,
        use_listings_cache: bool = True, listings_expiry_time: float | None = None, max_paths: int | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        super(AsyncFileSystem, self).__init__(
            use_listings_cache=use_listings_cache, listings_expiry_time=listings_expiry_time, max_paths=max_paths
        )
        self.asynchronous = asynchronous
        self.batch_size = None
        self._pid = os.getpid()
        self._loop = loop
        settings = settings_of(
            {"anon": anon, "endpoint_url": endpoint_url, "key": key, "secret": secret, "token": token, **options}
        )
        self.client = BulkClient(**settings.client)
        """The client that does it all."""
        self.default_block_size = default_block_size or type(self).default_block_size
        self.default_cache_type = default_cache_type or ADAPTIVE
        self.default_fill_cache = default_fill_cache
        self.version_aware = version_aware
        self._additional = settings.options
        self._listings = Listings(self.dircache)

    # ---- paths ------------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, (list, tuple)):
            return [bare(one) for one in path]
        return bare(path)

    @classmethod
    def _parent(cls, path: Any) -> str:
        return parent(bare(path))

    @staticmethod
    def _get_kwargs_from_urls(urlpath: str) -> dict[str, Any]:
        return {"version_aware": True} if VERSION in str(urlpath) else {}

    def split(self, path: Any) -> Location:
        """Bucket, key and version that a path names."""
        return locate(path, self.version_aware)

    def split_path(self, path: Any) -> tuple[str, str, str | None]:
        """As ``split``: s3fs's name."""
        return tuple(self.split(path))  # type: ignore[return-value]

    def _file(self, path: Any) -> Location:
        """What a path names that can be a file. InvalidKey, a ValueError, for a bucket."""
        found = self.split(path)
        if not found.key:
            raise InvalidKey("a file is bucket/key", found=repr(str(path)))
        return found

    def _present(self, path: Any) -> Location:
        """The same for what changes files: Unsupported for a version, which is none to be written, copied or
        deleted, and must not be taken for the file that is there now."""
        found = self._file(path)
        if found.version is not None:
            raise Unsupported("versions can be read, and no more", key=bare(path), hint="Name the file alone")
        return found

    def _options(self, given: Mapping[str, Any] | None = None, version_id: str | None = None) -> Options:
        """The parameters of an operation: the same object for the same ones, as a request is prepared for each."""
        if not given and version_id is None:
            return shared_options(self._additional, self.client.transfers.options)
        chosen = {**self._additional, **(given or {})}
        if version_id is not None:
            if not self.version_aware:
                raise WrongArgument("a version is meant, and the filesystem knows none", hint="version_aware=True")
            chosen["VersionId"] = version_id
        return Options(chosen)

    # ---- listing ----------------------------------------------------------------------------

    @file_errors
    def ls(
        self, path: Any, detail: bool = False, refresh: bool = False, versions: bool = False, **how: Any
    ) -> list[Any]:  # fmt: skip
        """What lies in a directory, sorted by name: names, or with ``detail`` dictionaries. Of a file: itself.

        Args:
            path: A directory or file; "" for the buckets.
            detail: ``name``, ``size``, ``type``, ``ETag``, ``LastModified``, ``StorageClass``, … of each.
            refresh: Ask, whatever is remembered.
            versions: All versions of each object.

        Raises:
            FileNotFoundError: nothing is there.
            PermissionError: it may not be listed.
        """
        infos = self._ls_infos(path, refresh, versions)
        return infos if detail else [info["name"] for info in infos]

    def _ls_infos(self, path: Any, refresh: bool, versions: bool) -> list[Info]:
        where = self.split(path)
        if versions:
            if not self.version_aware:
                raise WrongArgument("versions are meant, and the filesystem knows none", hint="version_aware=True")
            infos = self._versions(where)
        elif not where.bucket:
            infos = self._buckets(refresh)
        else:
            infos = self._directory(where, refresh)
        if not infos and where.key:
            info = self.info(path, refresh=refresh)
            if _is_dir(info):  # which was remembered, or it is no more than its mark
                info = self.info(path, refresh=True)
            return [] if _is_dir(info) else [info]
        return list(infos)

    def _buckets(self, refresh: bool) -> list[Info]:
        known = None if refresh else self._listings.of("")
        if known is not None:
            return known
        begun = self._listings.begin()
        answer = self.client.run("ls", SingleCallJob(Call("ListBuckets", "", params={}))).data
        infos = [directory(found["Name"], "BUCKET") for found in answer.get("Buckets") or ()]
        self._listings.keep(begun, {"": infos})
        return infos

    def _directory(self, where: Location, refresh: bool = False) -> list[Info]:
        path = bare(where.url)
        known = None if refresh else self._listings.of(path)
        if known is not None:
            return known
        begun = self._listings.begin()
        infos = children(where.bucket, where.directory, self._pages(where.bucket, where.directory, "/"))
        if infos or not where.key:  # that there is nothing is never remembered
            self._listings.keep(begun, {path: infos})
        return infos

    def _pages(self, bucket: str, prefix: str, delimiter: str | None = None) -> Iterator[Any]:
        job = ListJob(0, prefix, bucket, prefix, self._options(), delimiter=delimiter)
        return (outcome.data for outcome in self.client.run_jobs("list", iter([job])))

    def _some(self, where: Location) -> bool:
        """Whether anything lies below a path. Nothing does where there is no such bucket."""
        job = ListJob(0, where.key, where.bucket, where.directory, self._options(), page=1, most=1)
        try:
            (outcome,) = self.client.run_jobs("list", iter([job]))
        except NotFound:
            return False
        return bool(outcome.data.objects)

    def _versions(self, where: Location) -> list[Info]:
        """The versions of what lies in a directory, or of a file."""
        params: dict[str, Any] = {"Prefix": where.directory, "Delimiter": "/"}
        infos = [version(where.bucket, entry, True) for entry in self._version_entries(where.bucket, params)]
        if not infos and where.key:
            params = {"Prefix": where.key, "Delimiter": "/"}
            entries = self._version_entries(where.bucket, params)
            infos = [version(where.bucket, entry, True) for entry in entries if entry["Key"] == where.key]
        return infos

    def _version_entries(self, bucket: str, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        while True:
            job = SingleCallJob(Call("ListObjectVersions", bucket, None, self._options(), dict(params)))
            answer = self.client.run("ls", job).data
            yield from answer.get("Versions") or ()
            if not answer.get("IsTruncated"):
                return
            params |= {"KeyMarker": answer["NextKeyMarker"], "VersionIdMarker": answer.get("NextVersionIdMarker", "")}

    @file_errors
    def find(
        self, path: Any, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, prefix: str = "",
        **how: Any,
    ) -> Any:  # fmt: skip
        """All files below a path, sorted by name: names, or with ``detail`` a dictionary from name to what is said of
        it. It always asks S3, and what it learns is remembered as listings.

        Args:
            path: A directory, or a file: then it alone.
            maxdepth: How many levels, at most.
            withdirs: Directories too.
            detail: See above.
            prefix: Only what begins with ``path/prefix``.
        """
        where = self.split(path)
        if not where.bucket:
            raise InvalidKey("not all of S3 can be looked through", hint="Name a bucket")
        if maxdepth is not None and maxdepth < 1:
            raise InvalidKey("maxdepth is at least 1", found=maxdepth)
        root = bare(where.url)
        if maxdepth is None or prefix:
            found = self._found(where, root, withdirs, prefix)
            if maxdepth is not None:
                found = {name: one for name, one in found.items() if name[len(root) :].count("/") <= maxdepth}
        else:
            found = self._found_by_level(where, root, maxdepth, withdirs)
        if not found and not prefix:
            info = self._info_or_none(root, refresh=True)
            if info is not None and (info["type"] == "file" or withdirs):
                found = {root: info}
        return found if detail else list(found)

    def _found(self, where: Location, root: str, withdirs: bool, prefix: str) -> dict[str, Info]:
        begun = self._listings.begin()
        tree = Tree(root)
        for page in self._pages(where.bucket, where.directory + prefix):
            tree.add(listed(where.bucket, page))
        directories = tree.sorted_directories()
        if not prefix and (tree.files or tree.found):
            self._listings.keep(begun, directories)
        if not withdirs:
            return {info["name"]: info for info in tree.files}
        found = {**tree.found, **{info["name"]: info for info in tree.files}}
        if found and not prefix:
            found[root] = directory(root, "DIRECTORY" if where.key else "BUCKET")
        return {name: found[name] for name in sorted(found)}

    def _found_by_level(self, where: Location, root: str, depth: int, withdirs: bool) -> dict[str, Info]:
        found: dict[str, Info] = {}
        level = [root]
        for _ in range(depth):
            infos = [info for _, infos in self._directories(level) for info in infos]
            found.update((info["name"], info) for info in infos if withdirs or info["type"] == "file")
            level = [info["name"] for info in infos if info["type"] == "directory"]
            if not level:
                break
        if found and withdirs:
            found[root] = directory(root, "DIRECTORY" if where.key else "BUCKET")
        return {name: found[name] for name in sorted(found)}

    def _directories(self, paths: Sequence[str]) -> Iterator[tuple[str, list[Info]]]:
        """What lies in each of many directories: one bulk operation for those that are not known."""
        begun = self._listings.begin()
        unknown = []
        for path in paths:
            known = self._listings.of(path)
            if known is None:
                unknown.append(path)
            else:
                yield path, known
        places = [self.split(path) for path in unknown]
        jobs: Iterator[Job] = (
            ListJob(index, place.key, place.bucket, place.directory, self._options(), delimiter="/")
            for index, place in enumerate(places)
        )
        pages: list[Any] = []
        for outcome in self.client.run_jobs("list", jobs) if places else ():
            pages.append(outcome.data)
            if outcome.last:
                path, place = unknown[outcome.index], places[outcome.index]
                infos = children(place.bucket, place.directory, pages)
                if infos:
                    self._listings.keep(begun, {path: infos})
                yield path, infos
                pages = []

    def glob(self, path: Any, maxdepth: int | None = None, **how: Any) -> Any:
        """The paths that match a pattern: ``*``, ``?``, ``[…]``, and ``**`` for any number of directories."""
        if not bare(path).partition("/")[0].strip("*"):
            raise InvalidKey("not all of S3 can be looked through", hint="Name a bucket")
        return super(AsyncFileSystem, self).glob(path, maxdepth=maxdepth, **how)

    def walk(
        self, path: Any, maxdepth: int | None = None, topdown: bool = True, on_error: Any = "raise", **how: Any
    ) -> Any:  # fmt: skip
        """Directory by directory, as ``os.walk``: (path, directories, files). What cannot be listed is an error, unless
        ``on_error`` says "omit" or is called with it."""
        return super(AsyncFileSystem, self).walk(path, maxdepth=maxdepth, topdown=topdown, on_error=on_error, **how)

    def invalidate_cache(self, path: Any = None) -> None:
        """Forget the listings of a path, of what lies below it, and of all directories above it; of all paths for
        None."""
        if path is None:
            self._listings.forget_all()
        else:
            self._listings.forget_below(bare(path))

    # ---- information ------------------------------------------------------------------------

    @file_errors
    def info(
        self, path: Any, refresh: bool = False, version_id: str | None = None, as_file: bool = False, **how: Any
    ) -> Info:  # fmt: skip
        """What is said of a path: ``name``, ``size``, ``type`` ("file" or "directory"), ``ETag``, ``LastModified``, …;
        from a listing that is remembered, unless ``refresh``. ``as_file``: an object, not a directory.

        Raises:
            FileNotFoundError: nothing is there.
            PermissionError: S3 says no more than that one may not know.
        """
        where = self.split(path)
        name = bare(path)
        if not where.bucket:
            return directory("", "BUCKET")
        if not where.key:
            return self._bucket(where.bucket, refresh)
        version_id = version_id or where.version
        if not refresh and version_id is None:
            known = self._listings.info(name)
            if known is not None and known["type"] == "directory":
                if not as_file:
                    return known
            elif known is not None and not (self.version_aware and "VersionId" not in known):
                return known
            if self._listings.of(name) and not as_file:
                return directory(name)
        try:
            (outcome,) = self.client.head_many([where.url], options=self._options(None, version_id))
        except NotFound as error:
            if version_id is not None or as_file or error.service_code == NO_BUCKET or not self._some(where):
                raise not_found(name) from None
            return directory(name)
        return headed(name, outcome, self.version_aware)

    def _bucket(self, bucket: str, refresh: bool) -> Info:
        if refresh or self._listings.of(bucket) is None:
            try:
                self.client.run("info", SingleCallJob(Call("HeadBucket", bucket, params={})))
            except NotFound:
                raise not_found(bucket) from None
        return directory(bucket, "BUCKET")

    def _info_or_none(self, path: str, refresh: bool = False) -> Info | None:
        try:
            return self.info(path, refresh=refresh)
        except FileNotFoundError:
            return None

    @file_errors
    def exists(self, path: Any, **how: Any) -> bool:
        """Whether a file, directory or bucket is there. PermissionError when S3 does not say."""
        try:
            self.info(path, **how)
        except FileNotFoundError:
            return False
        return True

    lexists = exists

    @file_errors
    def isfile(self, path: Any) -> bool:
        """Whether it is an object. PermissionError when S3 does not say."""
        where = self.split(path)
        if not where.key:
            return False
        try:
            return bool(self.info(path, as_file=True)["type"] == "file")
        except FileNotFoundError:
            return False

    @file_errors
    def isdir(self, path: Any) -> bool:
        """Whether objects lie below it, or it is a bucket. PermissionError when S3 does not say."""
        where = self.split(path)
        if not where.key:
            return self.exists(path)
        if self._listings.of(bare(path)):
            return True
        known = self._listings.info(bare(path))
        if known is not None and known["type"] == "directory":
            return True
        return self._some(where)

    @file_errors
    def checksum(self, path: Any, refresh: bool = False) -> int:
        """A number that changes when the file does: of its ETag; of a directory, of what is said of it."""
        info = self.info(path, refresh=refresh)
        if info["type"] == "directory":
            return int(tokenize(info), 16)
        return int((info["ETag"] or "0").strip('"').partition("-")[0], 16)

    def ukey(self, path: Any) -> str:
        """A text that changes when the file does."""
        info = self.info(path)
        return str(tokenize([info["name"], info.get("ETag"), info["size"]]))

    @file_errors
    def modified(self, path: Any, version_id: str | None = None, refresh: bool = False) -> datetime:
        """When it was stored, on the service's clock."""
        info = self.info(path, version_id=version_id, refresh=refresh)
        if info["type"] == "directory":
            raise PathIsDirectory("a directory has no time of its own", key=info["name"])
        found: datetime = info["LastModified"]
        return found

    def created(self, path: Any) -> datetime:
        """As ``modified``: an object is made anew by each change."""
        return self.modified(path)

    @file_errors
    def metadata(self, path: Any, refresh: bool = False, **how: Any) -> dict[str, str]:
        """The user metadata of a file."""
        where = self._file(path)
        (outcome,) = self.client.head_many([where.url], options=self._options(how, where.version))
        return outcome.metadata

    def getxattr(self, path: Any, attr_name: str, **how: Any) -> str | None:
        """The value of one name of the user metadata; None where there is none."""
        return self.metadata(path, **how).get(attr_name.lower())

    @file_errors
    def setxattr(self, path: Any, copy_kwargs: Mapping[str, Any] | None = None, **changes: str | None) -> None:
        """Change user metadata: each name gets its value, or goes with None. S3 copies the object onto itself.

        Args:
            path: The file.
            copy_kwargs: Further parameters of CopyObject, such as ``ContentType``.
            changes: By name.
        """
        where = self._present(path)
        (outcome,) = self.client.head_many([where.url], options=self._options())
        metadata = outcome.metadata
        for name, value in changes.items():
            metadata.pop(name.lower(), None)
            if value is not None:
                metadata[name.lower()] = value
        options = {
            **self._additional, **told(outcome.headers, DESCRIBED), **(copy_kwargs or {}),
            "MetadataDirective": "REPLACE", "Metadata": metadata,
        }  # fmt: skip
        self.client.copy([(where.url, where.url)], options=options)
        self._listings.forget(bare(path))

    # ---- reading ----------------------------------------------------------------------------

    @file_errors
    def cat_file(
        self, path: Any, start: int | None = None, end: int | None = None, version_id: str | None = None, **how: Any
    ) -> bytes:
        """The bytes of a file, or those that a slice ``[start:end]`` of them has: large ones by parallel requests.

        Raises:
            FileNotFoundError: no such file.
            CorruptObject: they differ from the object's checksum (an OSError).
        """
        where = self._file(path)
        item = self._item(where, start, end)
        if item is None:
            return b""
        try:
            (outcome,) = self.client.get_many([item], options=self._options(how, version_id or where.version))
        except InvalidRange:
            return b""  # as of any slice
        return bytes(outcome.data)

    def _item(self, where: Location, start: int | None, end: int | None) -> Any:
        """What a bulk operation is asked for to get a slice; None for one of no bytes."""
        if start is None and end is None:
            return where.url
        begin = start or 0
        if end is None:
            return (where.url, begin, None)
        if begin < 0 or end < 0:
            # What is remembered may be of another object by now, whose end lies elsewhere.
            size = self.info(bare(where.url), version_id=where.version, refresh=True, as_file=True)["size"]
            begin, end, _ = slice(begin, end).indices(size)
        return (where.url, begin, end - begin) if end > begin else None

    @file_errors
    def range_of(
        self, path: str, start: int, end: int, version_id: str | None, options: Mapping[str, Any]
    ) -> tuple[bytes, str | None]:
        """For an open file: the bytes of a range, as far as there are any, and the ETag that they have."""
        where = self._file(path)
        try:
            (outcome,) = self.client.get_many(
                [(where.url, start, end - start)], options=self._options(options, version_id or where.version)
            )
        except InvalidRange:
            return b"", None
        return bytes(outcome.data), outcome.etag

    @file_errors
    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **how: Any) -> Any:
        """The bytes of a file; of several, of a pattern, and with ``recursive``: a dictionary from path to bytes, got
        by one bulk operation.

        Args:
            path: A path, a pattern, or a list of them.
            recursive: All files below directories too.
            on_error: "raise"; "omit" what failed; "return" the error in place of the bytes.
        """
        expanded = self._expanded(path, recursive)
        paths = [name for name, info in expanded.items() if info is None or info["type"] == "file"]
        if not isinstance(path, list) and paths == [bare(path)]:
            try:
                return self.cat_file(paths[0], **how)
            except Exception as error:
                if on_error == "return":
                    return error
                if on_error == "omit":
                    return {}
                raise
        places = [self._file(one) for one in paths]
        got: list[Any] = [None] * len(paths)
        for version_id, numbers in _by_version(places).items():
            outcomes = self.client.get_many(
                [places[number].url for number in numbers], on_error="raise" if on_error == "raise" else "return",
                options=self._options(how, version_id), ordered=False,
            )  # fmt: skip
            for outcome in outcomes:
                failed = outcome.error
                got[numbers[outcome.index]] = bytes(outcome.data) if failed is None else file_error(failed)
        return {
            one: data for one, data in zip(paths, got, strict=True)
            if on_error != "omit" or not isinstance(data, Exception)
        }  # fmt: skip

    @file_errors
    def cat_ranges(
        self, paths: list[Any], starts: Any, ends: Any, max_gap: int | None = None, on_error: str = "return", **how: Any
    ) -> list[Any]:
        """Slices of many files, in one bulk operation; those of one file that lie close to each other by one request.

        Args:
            paths: One for each slice.
            starts: For each, or one for all.
            ends: For each, or one for all.
            max_gap: Bytes that may lie between two that are fetched together. Default: 64 KiB.
            on_error: "return" an error in place of the bytes, or "raise" the first.
        """
        places, items = self._slices(paths, starts, ends)
        got: list[Any] = [b""] * len(items)
        gap = GAP if max_gap is None else max_gap
        for version_id, asked in _by_version(places).items():
            options = self._options(how, version_id)
            bounded = [i for i in asked if isinstance(items[i], tuple) and items[i][2] is not None]
            others = [i for i in asked if items[i] is not None and not (isinstance(items[i], tuple) and items[i][2])]
            ranged = [items[i] for i in bounded]
            for numbers, outcomes in (
                (bounded, self.client.get_ranges(ranged, "return", gap=gap, options=options, ordered=False)),
                (others, self.client.get_many([items[i] for i in others], on_error="return", options=options)),
            ):
                for outcome in outcomes if numbers else ():
                    got[numbers[outcome.index]] = _bytes_or_error(outcome)
        if on_error != "return":
            failed = next((one for one in got if isinstance(one, BaseException)), None)
            if failed is not None:
                raise failed
        return got

    def _slices(self, paths: Any, starts: Any, ends: Any) -> tuple[list[Location], list[Any]]:
        """Where slices lie, and what bulk operations are asked for to get them."""
        if not isinstance(paths, (list, tuple)):
            raise WrongArgument("paths are a list", found=type(paths).__name__)
        begins = starts if isinstance(starts, Iterable) else [starts] * len(paths)
        stops = ends if isinstance(ends, Iterable) else [ends] * len(paths)
        try:
            triples = list(zip(paths, begins, stops, strict=True))
        except ValueError:
            raise InvalidKey("there are as many starts and ends as paths") from None
        places = [self._file(path) for path in paths]
        return places, [self._item(place, start, end) for place, (_, start, end) in zip(places, triples, strict=True)]

    @file_errors
    def get_file(self, rpath: Any, lpath: Any, callback: Any = DEFAULT_CALLBACK, **how: Any) -> None:
        """Download one file: whole under its name, or not there. ``lpath`` may be an open file."""
        if hasattr(lpath, "write"):
            lpath.write(self.cat_file(rpath, **how))
            return
        if not self.split(rpath).key or (bare(rpath) != str(rpath).rstrip("/") and str(rpath).endswith("/")):
            os.makedirs(lpath, exist_ok=True)  # noqa: PTH103
            return
        self._download([(bare(rpath), os.fspath(lpath))], callback, how, alone=True)

    @file_errors
    def get(
        self, rpath: Any, lpath: Any, recursive: bool = False, callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None, **how: Any,
    ) -> None:  # fmt: skip
        """Download files, by one bulk operation: each whole under its name, or not there.

        Args:
            rpath: A path, a pattern, or a list of them.
            lpath: Where to: a directory if it is one or ends in a slash; or a list, one for each.
            recursive: All that lies below directories.
            callback: fsspec's: told how many files, and of each how many bytes.
            maxdepth: How many levels, at most.
        """
        if isinstance(lpath, list) and isinstance(rpath, list):
            pairs = [(bare(one), os.fspath(other)) for one, other in zip(rpath, lpath, strict=True)]
            self._download(pairs, callback, how)
            return
        expanded = self._expanded(rpath, recursive, maxdepth)
        if plans.without_directories(rpath, recursive, maxdepth):
            expanded = self._files_of(expanded)
            if not expanded:
                return
        lpath = make_path_posix(lpath)
        into = isinstance(lpath, str) and (trailing_sep(lpath) or LocalFileSystem().isdir(lpath))
        source = rpath if isinstance(rpath, list) else _with_slash(rpath)
        local = self._placed(list(expanded), source, lpath, into)
        if isinstance(lpath, str):
            plans.check_within(lpath, local)
        files = [os.path.normpath(one) for one, info in zip(local, expanded.values(), strict=True) if not _is_dir(info)]
        plans.check_distinct(files)
        pairs = []
        for (path, info), target in zip(expanded.items(), local, strict=True):
            if _is_dir(info):
                os.makedirs(target, exist_ok=True)  # noqa: PTH103
            else:
                pairs.append((path, target))
        self._download(pairs, callback, how)

    def _placed(self, found: list[str], source: Any, destination: Any, into: bool) -> list[str]:
        return plans.placed(found, source, destination, into, VERSION if self.version_aware else None)

    def _download(
        self, pairs: Sequence[tuple[str, str]], callback: Any, how: Mapping[str, Any], alone: bool = False
    ) -> None:
        places = [self._file(path) for path, _ in pairs]
        version_ids = {place.version for place in places}
        parameters = {one: self._options(how, one) for one in version_ids}
        jobs: Iterator[Job] = (
            GetJob(
                index, pairs[index][0], place.bucket, place.key, parameters[place.version],
                destination=Destination(Path(pairs[index][1]), True),
            )
            for index, place in enumerate(places)
        )  # fmt: skip
        result = self.client.run_jobs("get_many", jobs, ordered=False, items=list(pairs), files=True)
        _told(result, pairs, callback, alone)

    # ---- writing ----------------------------------------------------------------------------

    @file_errors
    def pipe_file(self, path: Any, value: Any, mode: str = "overwrite", **how: Any) -> None:
        """Store bytes as a file; with ``mode`` "create" only if there is none.

        Raises:
            FileExistsError: it was to be created, and is there.
        """
        self._store([(bare(path), value)], mode, how)

    @file_errors
    def pipe(self, path: Any, value: Any = None, **how: Any) -> None:
        """Store a file, or by a dictionary from path to bytes many, in one bulk operation."""
        items = {path: value} if not isinstance(path, Mapping) else path
        self._store([(bare(one), data) for one, data in items.items()], how.pop("mode", "overwrite"), how)

    def _store(
        self, pairs: Sequence[tuple[str, Any]], mode: str, how: Mapping[str, Any],
        told: Callable[[Iterable[Outcome]], None] = lambda outcomes: _all(outcomes),
    ) -> None:  # fmt: skip
        if mode not in MODES:
            raise WrongArgument('mode is "overwrite" or "create"', found=f"mode={mode!r:.40}")
        new = mode == "create"
        metadata = how.get("Metadata")
        options = self._options({name: value for name, value in how.items() if name != "Metadata"})
        items: list[Any] = [(self._present(path).url, data) for path, data in pairs]
        if new:
            items = [PutItem(url, data, if_none_match=True) for url, data in items]
        try:
            told(self.client.put_many(items, metadata=metadata, options=options, stream=True, ordered=False))
        except Conflict as error:
            if new:
                raise as_kind(PathExists, error) from error.__cause__
            raise
        finally:
            self._listings.forget(*{path for path, _ in pairs})

    @file_errors
    def put_file(
        self, lpath: Any, rpath: Any, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite", **how: Any
    ) -> None:
        """Upload one file; of a directory, nothing but the bucket that it would lie in."""
        if os.path.isdir(lpath):  # noqa: PTH112
            self.makedirs(rpath, exist_ok=True)
            return
        self._upload([(os.fspath(lpath), bare(rpath))], callback, mode, how, alone=True)

    @file_errors
    def put(
        self, lpath: Any, rpath: Any, recursive: bool = False, callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None, mode: str = "overwrite", **how: Any,
    ) -> None:  # fmt: skip
        """Upload files, by one bulk operation; large ones in parts.

        Args:
            lpath: A path of this machine, a pattern, or a list of them.
            rpath: Where to: a directory if it is one or ends in a slash; or a list, one for each.
            recursive: All that lies below directories.
            callback: fsspec's: told how many files, and of each how many bytes.
            maxdepth: How many levels, at most.
            mode: "create": only those that are not there.
        """
        if isinstance(lpath, list) and isinstance(rpath, list):
            local, remote = [os.fspath(one) for one in lpath], [bare(one) for one in rpath]
        else:
            source = make_path_posix(lpath) if isinstance(lpath, (str, os.PathLike)) else lpath
            files = LocalFileSystem()
            local = files.expand_path(source, recursive=recursive, maxdepth=maxdepth)
            if plans.without_directories(source, recursive, maxdepth):
                local = [one for one in local if not (trailing_sep(one) or files.isdir(one))]
                if not local:
                    return
            into = isinstance(rpath, (str, os.PathLike)) and (trailing_sep(str(rpath)) or self.isdir(rpath))
            remote = plans.placed(local, source, self._strip_protocol(rpath), into)
        pairs = []
        for one, other in zip(local, remote, strict=True):
            if not os.path.isdir(one):  # noqa: PTH112
                pairs.append((one, other))
            elif not self.split(other).key:
                self.makedirs(other, exist_ok=True)
        plans.check_distinct(other for _, other in pairs)
        self._upload(pairs, callback, mode, how)

    def _upload(
        self, pairs: Sequence[tuple[str, str]], callback: Any, mode: str, how: Mapping[str, Any], alone: bool = False
    ) -> None:
        self._store(
            [(other, Path(one)) for one, other in pairs], mode, how,
            lambda outcomes: _told(outcomes, pairs, callback, alone),
        )  # fmt: skip

    @file_errors
    def touch(self, path: Any, truncate: bool = True, data: Any = None, **how: Any) -> None:
        """Make an empty file, or one of ``data``. Without ``truncate`` a file that is there stays as it is, and is
        young again."""
        where = self._present(path)
        if not truncate and data is None and self.isfile(path):
            self.client.copy([(where.url, where.url)], options=self._options(how))
            self._listings.forget(bare(path))
            return
        self._store([(bare(path), b"" if data is None else data)], "overwrite", how)

    # ---- copying and deleting ---------------------------------------------------------------

    @file_errors
    def cp_file(self, path1: Any, path2: Any, **how: Any) -> None:
        """Copy one file inside S3, with its metadata, of any size. Of a directory, nothing."""
        if self.split(path1).key:
            self._copied([(bare(path1), bare(path2))], how)

    @file_errors
    def copy(
        self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None,
        on_error: str | None = None, **how: Any,
    ) -> None:  # fmt: skip
        """Copy files inside S3, by one bulk operation: with their metadata, of any size.

        Args:
            path1: A path, a pattern, or a list of them.
            path2: Where to: a directory if it is one or ends in a slash; or a list, one for each.
            recursive: All that lies below directories.
            maxdepth: How many levels, at most.
            on_error: "ignore" files that are not there any more, which is the default with ``recursive``; "raise".
        """
        gone = on_error == "ignore" or (on_error is None and recursive)
        self._copied(self._pairs(path1, path2, recursive, maxdepth), how, gone)

    def _pairs(self, path1: Any, path2: Any, recursive: bool, maxdepth: int | None) -> list[tuple[str, str]]:
        if isinstance(path1, list) and isinstance(path2, list):
            return [(bare(one), bare(other)) for one, other in zip(path1, path2, strict=True)]
        expanded = self._expanded(path1, recursive, maxdepth)
        if plans.without_directories(path1, recursive, maxdepth):
            expanded = self._files_of(expanded)
        into = isinstance(path2, (str, os.PathLike)) and (trailing_sep(str(path2)) or self.isdir(path2))
        source = path1 if isinstance(path1, list) else _with_slash(path1)
        copies = self._placed(list(expanded), source, self._strip_protocol(path2), into) if expanded else []
        return [
            (one, other)
            for (one, info), other in zip(expanded.items(), copies, strict=True)
            if info is None or info["type"] == "file"
        ]

    def _copied(self, pairs: Sequence[tuple[str, str]], how: Mapping[str, Any], gone: bool = False) -> None:
        """Copy each; with ``gone``, those that are there."""
        plans.check_apart(pairs)
        urls = [(self._present(one).url, self._present(other).url) for one, other in pairs]
        try:
            result = self.client.copy(urls, "return" if gone else "raise", options=self._options(how), stream=True)
            for outcome in result if urls else ():
                if outcome.error is not None and not isinstance(outcome.error, NotFound):
                    raise outcome.error
        finally:
            self._listings.forget(*{other for _, other in pairs})

    @file_errors
    def mv(
        self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **how: Any
    ) -> None:  # fmt: skip
        """Move files inside S3: copy them, and when all are copied delete these, and no others."""
        if not isinstance(path1, list) and bare(path1) == bare(path2):
            return
        pairs = self._pairs(path1, path2, recursive, maxdepth)
        self._copied(pairs, how)
        self._deleted([one for one, other in pairs if one != other])

    mv_file = mv

    @file_errors
    def rm_file(self, path: Any, **how: Any) -> None:
        """Delete one file. One that is not there counts as deleted."""
        self._deleted([bare(path)], how)

    @file_errors
    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None, **how: Any) -> None:
        """Delete files, 1000 by a request; with ``recursive`` all that lies below directories, an object of the same
        name as the one that is named, and buckets. Files that are named, and are not there, count as deleted.

        Raises:
            FileNotFoundError: nothing matches a pattern, or lies in a directory.
        """
        expanded = self._expanded(path, recursive, maxdepth)
        buckets = {name for name in expanded if not self.split(name).key and not name.endswith("/")}
        below = [name for name in expanded if name not in buckets]
        directories = {name for name in below if (expanded[name] or {}).get("type") == "directory"}
        files = [name for name in below if name not in directories]
        marks = [f"{name}/" for name in below if name in directories]
        named = {bare(one) for one in (path if isinstance(path, (list, tuple, set)) else [path])}
        both = sorted(directories & named) if maxdepth is None else []  # may be objects, too
        self._deleted([*files, *both, *marks], how)
        for bucket in buckets:
            self.rmdir(bucket)

    def _deleted(self, paths: Sequence[str], how: Mapping[str, Any] | None = None) -> None:
        # A slash at the end is that of a directory's mark, and part of its key.
        urls = [exact(path).url if path.endswith("/") else self._present(path).url for path in paths]
        try:
            if urls:
                self.client.delete_many(urls, options=self._options(how))
        finally:
            self._listings.forget(*{bare(path) for path in paths})

    @file_errors
    def mkdir(self, path: Any, create_parents: bool = True, acl: str | None = None, **how: Any) -> None:
        """Make a bucket. Directories need not be made: there are those in which something lies. Of one below a bucket
        the bucket is made if there is none, with ``create_parents``.

        Raises:
            FileExistsError: the bucket is there.
            FileNotFoundError: it is not, without ``create_parents``.
        """
        where = self.split(path)
        if not where.bucket:
            raise InvalidKey("a bucket needs a name")
        if where.key:
            if not self.exists(where.bucket):
                if not create_parents:
                    raise not_found(where.bucket)
                self._make_bucket(where.bucket, acl, how)
            return
        if self.exists(where.bucket):
            raise PathExists("the bucket is there", key=where.bucket)
        self._make_bucket(where.bucket, acl, how)

    def _make_bucket(self, bucket: str, acl: str | None, how: Mapping[str, Any]) -> None:
        params = {name: value for name, value in how.items() if name != "region_name"}
        if acl:
            params["ACL"] = acl
        region = how.get("region_name") or self.client.options.connection.region
        if region and region != "us-east-1":
            params["CreateBucketConfiguration"] = {"LocationConstraint": region}
        try:
            self.client.run("mkdir", SingleCallJob(Call("CreateBucket", bucket, params=params)))
        except MfstoreError as error:
            if error.service_code in TAKEN:
                raise as_kind(PathExists, error) from error.__cause__
            raise
        finally:
            self._listings.forget(bucket)

    @file_errors
    def makedirs(self, path: Any, exist_ok: bool = False) -> None:
        """As ``mkdir``; with ``exist_ok`` the bucket may be there."""
        try:
            self.mkdir(path, create_parents=True)
        except FileExistsError:
            if not exist_ok:
                raise

    @file_errors
    def rmdir(self, path: Any) -> None:
        """Delete an empty bucket. Of a directory below one: FileExistsError, as it is there while something lies in it;
        ``rm(path, recursive=True)`` is meant.

        Raises:
            FileNotFoundError: there is none.
            OSError: it is not empty.
        """
        where = self.split(path)
        if where.key:
            if self.exists(path):
                raise PathExists(
                    "a directory is there as long as something lies in it", key=bare(path), hint="rm(…, recursive=True)"
                )
            raise not_found(bare(path))
        if not where.bucket:
            raise InvalidKey("a bucket needs a name")
        try:
            self.client.run("rmdir", SingleCallJob(Call("DeleteBucket", where.bucket, params={})))
        except MfstoreError as error:
            if error.service_code == NOT_EMPTY:
                raise as_kind(DirectoryNotEmpty, error) from error.__cause__
            raise
        finally:
            self._listings.forget(where.bucket)

    def chmod(self, path: Any, acl: str, **how: Any) -> None:
        """Unsupported: access is a matter of policies (docs/policy.md)."""
        raise Unsupported(
            "access control lists are not changed here", key=bare(path), hint="Use policies of the bucket"
        )

    # ---- expanding --------------------------------------------------------------------------

    def expand_path(self, path: Any, recursive: bool = False, maxdepth: int | None = None, **how: Any) -> list[str]:
        """The paths that a path, a pattern or a list of them stands for; with ``recursive`` what lies below them
        too. FileNotFoundError when there are none."""
        return list(self._expanded(path, recursive, maxdepth))

    @file_errors
    def _expanded(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> dict[str, Info | None]:
        """The same with what is known of each; None of one that was named and not looked at."""
        if maxdepth is not None and maxdepth < 1:
            raise InvalidKey("maxdepth is at least 1", found=maxdepth)
        found: dict[str, Info | None] = {}
        for one in path if isinstance(path, (list, tuple, set)) else [path]:
            name = bare(one)
            if has_magic(name.partition(VERSION)[0] if self.version_aware else name):
                matches: dict[str, Info] = self.glob(name, maxdepth=maxdepth, detail=True)
                found.update(matches)
                deeper = [other for other, info in matches.items() if info["type"] == "directory"]
                depth = None if maxdepth is None else maxdepth - 1
                if recursive and depth != 0:
                    for other in deeper:
                        found.update(self.find(other, maxdepth=depth, withdirs=True, detail=True))
            elif recursive:
                found.update(self.find(name, maxdepth=maxdepth, withdirs=True, detail=True))
            else:
                found.setdefault(name, None)
        if not found:
            raise not_found(str(path))
        return {name: found[name] for name in sorted(found)}

    def _files_of(self, expanded: Mapping[str, Info | None]) -> dict[str, Info | None]:
        """Of what was found, the files. What was named itself is a directory if there is no such object."""
        left: dict[str, Info | None] = {}
        for name, info in expanded.items():
            if info is None:
                if _is_dir(self._info_or_none(name)) and _is_dir(self._info_or_none(name, refresh=True)):
                    continue  # and is one still
            elif info["type"] == "directory":
                continue
            left[name] = info
        return left

    # ---- open files -------------------------------------------------------------------------

    def open(
        self, path: Any, mode: str = "rb", block_size: int | None = None, cache_options: dict[str, Any] | None = None,
        compression: str | None = None, **how: Any,
    ) -> Any:  # fmt: skip
        """A file to read ("r", "rb"), to write ("w", "wb"), to make ("x", "xb") or to write on ("a", "ab").

        One that is written is there when it is closed, and never when a ``with`` block ends in an exception.

        Args:
            path: The file.
            mode: As of Python's ``open``.
            block_size: Bytes that are read ahead at most.
            cache_options: Arguments of the cache.
            compression: fsspec's name of one, or "infer" from the path.
            how: ``cache_type``, ``fill_cache``, ``version_id`` and ``size`` of a file to read; ``autocommit``;
                ``encoding``, ``errors`` and ``newline`` of text; and parameters of S3's operations.
        """
        if "r" in mode:
            return super().open(path, mode, block_size, cache_options, compression, **how)
        text: dict[str, Any] = {name: how.pop(name) for name in TEXT if name in how}
        binary = mode.replace("t", "").replace("b", "") + "b"
        file = super().open(path, binary, block_size, cache_options, None, **how)
        return written_as(file, bare(path), compression, None if "b" in mode else text)

    @file_errors
    def _open(
        self, path: str, mode: str = "rb", block_size: int | None = None, autocommit: bool = True,
        cache_options: dict[str, Any] | None = None, cache_type: str | None = None, fill_cache: bool | None = None,
        version_id: str | None = None, size: int | None = None, acl: str | None = None, **how: Any,
    ) -> Any:  # fmt: skip
        where = self._file(path) if mode == "rb" else self._present(path)
        if acl:
            how["ACL"] = acl
        if mode == "rb":
            kind = cache_type or self.default_cache_type
            caching = dict(cache_options or {})
            if kind == ADAPTIVE:
                caching.setdefault("fill_cache", self.default_fill_cache if fill_cache is None else fill_cache)
            return S3File(
                self, path, block_size=block_size or self.default_block_size, cache_type=kind, cache_options=caching,
                size=size, version_id=version_id or where.version, options=how,
            )  # fmt: skip
        if mode not in ("wb", "xb", "ab"):
            raise WrongArgument("a file is opened to be read, written, made or written on", found=f"mode {mode!r}")
        if mode == "xb" and self.isfile(path):
            raise PathExists("the file is there", key=path)
        metadata = how.pop("Metadata", None)
        options = {**self._additional, **how}
        if mode != "ab":
            return S3WriteFile(self, path, mode, autocommit=autocommit, options=options, metadata=metadata)
        (outcome,) = self.client.head_many([where.url], "return", options=self._options())
        if outcome.error is None:
            options = {**put_again(outcome.headers), **options}
            metadata = outcome.metadata if metadata is None else metadata
        elif not isinstance(outcome.error, NotFound):
            raise outcome.error
        file = S3WriteFile(self, path, mode, autocommit=autocommit, options=options, metadata=metadata)
        if outcome.error is None:
            file.go_on(outcome)
        return file

    # ---- signed URLs ------------------------------------------------------------------------

    def sign(self, path: Any, expiration: int = 100, **how: Any) -> str:
        """A URL by which anybody can get the file for ``expiration`` seconds. Nobody is asked whether it is there."""
        return self.url(path, expires=expiration, **how)

    @file_errors
    def url(self, path: Any, expires: int = 3600, client_method: str = "get_object") -> str:
        """As ``sign``, by default for an hour: s3fs's name. PermissionError without credentials."""
        if client_method != "get_object":
            raise WrongArgument("a URL is presigned to get a file", found=client_method)
        from mfstore.s3.aws.presigning import presigned

        where = self._file(path)
        return presigned(self.client.transfers.control, where.bucket, where.key, expires, where.version)[0]

    # ---- in event loops ---------------------------------------------------------------------

    @property
    def loop(self) -> Any:
        """fsspec's loop; None of an instance that is ``asynchronous``. No method here runs in it."""
        if self._loop is None and not self.asynchronous:
            self._loop = get_loop()
        return self._loop

    @cached_property
    def _gets(self) -> Gathering:
        return self._gathering(self.client.aget_many)

    @cached_property
    def _puts(self) -> Gathering:
        return self._gathering(self.client.aput_many)

    @cached_property
    def _heads(self) -> Gathering:
        return self._gathering(self.client.ahead_many)

    def _gathering(self, operation: Callable[..., BulkResult]) -> Gathering:
        return Gathering(lambda items: operation(items, on_error="return", ordered=False, options=self._options()))

    async def _cat_file(self, path: Any, start: int | None = None, end: int | None = None, **how: Any) -> bytes:
        where = self._file(path)
        if how or where.version is not None or (end is not None and (end < 0 or (start or 0) < 0)):
            return await asyncio.to_thread(self.cat_file, path, start, end, **how)
        item = self._item(where, start, end)
        if item is None:
            return b""
        try:
            return bytes((await self._gets.outcome(item)).data)
        except InvalidRange:
            return b""

    async def _pipe_file(self, path: Any, value: Any, mode: str = "overwrite", **how: Any) -> None:
        if how or mode != "overwrite":
            await asyncio.to_thread(self.pipe_file, path, value, mode, **how)
            return
        where = self._present(path)
        try:
            await self._puts.outcome((where.url, value))
        finally:
            self._listings.forget(bare(path))

    async def _info(self, path: Any, **how: Any) -> Info:
        where = self.split(path)
        name = bare(path)
        if not how and where.key and where.version is None and self._listings.info(name) is None:
            try:
                return headed(name, await self._heads.outcome(where.url), self.version_aware)
            except NotFound:
                pass  # a directory, if anything
        return await asyncio.to_thread(self.info, path, **how)

    async def _exists(self, path: Any, **how: Any) -> bool:
        try:
            await self._info(path, **how)
        except FileNotFoundError:
            return False
        return True

    # Less often called one by one: the whole call in another thread.
    _ls = in_thread(ls)
    _find = in_thread(find)
    _glob = in_thread(glob)
    _isfile = in_thread(isfile)
    _isdir = in_thread(isdir)
    _cat = in_thread(cat)
    _cat_ranges = in_thread(cat_ranges)
    _get = in_thread(get)
    _get_file = in_thread(get_file)
    _put = in_thread(put)
    _put_file = in_thread(put_file)
    _pipe = in_thread(pipe)
    _cp_file = in_thread(cp_file)
    _copy = in_thread(copy)
    _mv = in_thread(mv)
    _mv_file = in_thread(mv_file)
    _rm = in_thread(rm)
    _rm_file = in_thread(rm_file)
    _mkdir = in_thread(mkdir)
    _makedirs = in_thread(makedirs)
    _rmdir = in_thread(rmdir)
    _touch = in_thread(touch)
    _checksum = in_thread(checksum)
    _metadata = in_thread(metadata)
    _getxattr = in_thread(getxattr)
    _setxattr = in_thread(setxattr)
    _expand_path = in_thread(expand_path)

    async def open_async(self, path: Any, mode: str = "rb", **how: Any) -> Any:
        """Unsupported, as ``_cat_file``, ``_cat_ranges`` and ``_pipe_file`` are there for event loops."""
        raise Unsupported("files are not opened in event loops", hint="_cat_file, _cat_ranges, _pipe_file")

    # ---- pickling ---------------------------------------------------------------------------

    def __reduce__(self) -> Any:
        if self.client.options.connection.session is not None:
            raise NotSerializable(
                "a filesystem made from a session does not pickle", hint="Describe it by profile, region and so on"
            )
        options, _ = without_secrets(self._arguments())
        return _remade, (type(self), options)

    def _arguments(self) -> dict[str, Any]:
        """The arguments that it was made with, by name."""
        names = ("anon", "endpoint_url", "key", "secret", "token")
        return {**dict(zip(names, self.storage_args, strict=False)), **self.storage_options}

    def to_dict(self, *, include_password: bool = True) -> dict[str, Any]:
        """As fsspec has it: with keys and passwords, unless ``include_password`` is False."""
        from fsspec.json import FilesystemJSONEncoder

        options = self._arguments()
        if not include_password:
            options, _ = without_secrets(options)
        kind = type(self)
        said: dict[str, Any] = FilesystemJSONEncoder().make_serializable(options)
        return {"cls": f"{kind.__module__}:{kind.__name__}", "protocol": self.protocol[0], "args": [], **said}


def _remade(kind: type[S3FileSystem], options: dict[str, Any]) -> S3FileSystem:
    return kind(**options)


def _by_version(places: Sequence[Location]) -> dict[str | None, list[int]]:
    """The numbers of the places in each version; None: what is there now."""
    found: dict[str | None, list[int]] = {}
    for number, place in enumerate(places):
        found.setdefault(place.version, []).append(number)
    return found


def _bytes_or_error(outcome: Outcome) -> Any:
    if outcome.error is None:
        return bytes(outcome.data)
    return b"" if isinstance(outcome.error, InvalidRange) else file_error(outcome.error)


def _is_dir(info: Info | None) -> bool:
    return info is not None and info["type"] == "directory"


def _all(outcomes: Iterable[Outcome]) -> None:
    for _ in outcomes:
        pass


def _told(outcomes: Iterable[Outcome], pairs: Sequence[tuple[str, str]], callback: Any, alone: bool) -> None:
    """Run a bulk operation on files, and tell fsspec's callback of it: of how many files, and of each how many
    bytes; ``alone``: of the bytes of the only one."""
    if not alone:
        callback.set_size(len(pairs))
    for outcome in outcomes:
        if alone:
            _told_bytes(callback, outcome.size)
            continue
        if callback is not DEFAULT_CALLBACK:
            with callback.branched(*pairs[outcome.index]) as child:
                _told_bytes(child, outcome.size)
        callback.relative_update(1)


def _told_bytes(callback: Any, size: int) -> None:
    callback.set_size(size)
    callback.relative_update(size)


def _with_slash(path: Any) -> str:
    """A bare path, with the slash at its end, which means what is in a directory rather than itself."""
    text = str(path)
    return f"{bare(text)}/" if trailing_sep(text) else bare(text)


def register(protocol: str = "s3") -> None:
    """Have fsspec, and so pandas, dask and zarr, take this filesystem for ``s3://`` in this process, in place of s3fs.
    Files that are open, and filesystems that were made before, stay what they are."""
    import fsspec

    fsspec.register_implementation(protocol, S3FileSystem, clobber=True)
