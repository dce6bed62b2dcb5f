"""The bulk client: many objects at once, in parallel, with an outcome for each."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from copy import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mfstore.errors import InvalidKey, MfstoreError
from mfstore.s3.aws.control import BotocoreControlPlane
from mfstore.s3.aws.interface import ControlPlane
from mfstore.s3.aws.settings import ConnectionSettings
from mfstore.s3.bulk.items import (
    Address,
    PutItem,
    address,
    checked_metadata,
    locate,
    put_item,
    several,
    source_of,
    split_url,
)
from mfstore.s3.bulk.ranges import plan_ranges
from mfstore.s3.bulk.results import BulkResult, BulkStats, OnError, Progress
from mfstore.s3.calls import NO_OPTIONS, Options
from mfstore.s3.engines.interface import Engine
from mfstore.s3.transfers.copies import CopyJob
from mfstore.s3.transfers.deletions import KEYS_PER_DELETE, DeleteJob
from mfstore.s3.transfers.destinations import Destination, local_path
from mfstore.s3.transfers.downloads import GetJob, RangesJob, ReadJob
from mfstore.s3.transfers.jobs import Job
from mfstore.s3.transfers.listings import ListJob
from mfstore.s3.transfers.metadata import ConfigurationJob, HeadJob
from mfstore.s3.transfers.outcomes import ListingEntry, Outcome
from mfstore.s3.transfers.retry import Retries, RetryPolicy, RetryQuota
from mfstore.s3.transfers.scheduler import Admission, Limiter, Pace, Scheduler
from mfstore.s3.transfers.uploads import PutJob, UploadSource
from mfstore.settings import S3Knobs, resolve_s3

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


Destinations = str | os.PathLike[str] | Callable[[str], str | os.PathLike[str]]
RANGES_AHEAD = 10_000
"""Items get_ranges looks at together for ranges that lie close to each other."""


class _BadItem(Job):
    """An item that names no object: fails without a call, in its turn."""

    __slots__ = ("_reason",)

    def __init__(self, index: int, item: Any, reason: MfstoreError) -> None:
        super().__init__(index, item, "", item if isinstance(item, str) else f"{item!r:.80}")
        self._reason = reason

    def begin(self) -> Any:
        raise self._reason

    def fail(self, error: MfstoreError) -> None:
        self.outcome = self._outcome(error=error)


class BulkClient:
    """Parallel transfers with S3 and what speaks its protocol.

    ``bucket`` is what plain keys refer to; items may always be ``s3://bucket/key``. Credentials, region, endpoint,
    proxies and so on are found as boto3 finds them, or come from ``session`` (boto3 or botocore) and ``client_options``
    (what ``boto3.client`` takes: ``region_name``, ``config``, ``verify``, ``aws_access_key_id``, …). ``engine`` is
    "native", "aiobotocore" or "auto": native unless the configuration needs the other, which is then logged.
    ``concurrency`` fixes the number of parallel requests, which otherwise follows size, goodput and throttling;
    ``max_bandwidth`` limits bytes per second; ``memory`` bounds the results that wait to be taken. ``attempts`` and
    ``retry_seconds`` bound how long one request is retried.

    Safe to use from several threads; pickles (without ``session``); works after fork. Opens no connection before it is
    used.
    """

    def __init__(
        self, bucket: str | None = None, *, session: Any = None, endpoint_url: str | None = None,
        engine: str | None = None,
        concurrency: int | None = None, memory: int | None = None, max_bandwidth: float | None = None,
        attempts: int = 10,
        retry_seconds: float = 180.0, first_byte_timeout: float = 30.0, stall_timeout: float = 20.0,
        expected_bucket_owner: str | None = None, request_payer: str | None = None, client: Any = None,
        checksum: Literal["CRC64NVME", "CRC32C", "CRC32"] | None = "CRC64NVME", **client_options: Any,
    ) -> None:  # fmt: skip
        self._arguments: dict[str, Any] = {
            name: value for name, value in locals().items() if name not in ("self", "client_options", "__class__")
        }
        self._arguments.update(client_options)
        self.bucket = split_url(bucket)[0] if bucket is not None and bucket.startswith("s3://") else bucket
        self._knobs: S3Knobs = resolve_s3(engine, concurrency, memory)
        self.policy = RetryPolicy(
            attempts=attempts, seconds=retry_seconds, first_byte=first_byte_timeout, stall=stall_timeout
        )
        self.quota = RetryQuota()
        self._pace = Pace(max_bandwidth) if max_bandwidth else None
        self._checksum = checksum
        self.connection = ConnectionSettings.given(
            session=session, endpoint_url=endpoint_url, client=client, expected_bucket_owner=expected_bucket_owner,
            request_payer=request_payer, **client_options,
        )  # fmt: skip
        self.control: ControlPlane = BotocoreControlPlane(self.connection)
        self._engine: Engine | None = None

    def with_parts(
        self, *, control: ControlPlane | None = None, engine: Engine | None = None, policy: RetryPolicy | None = None,
        quota: RetryQuota | None = None,
    ) -> Self:  # fmt: skip
        """Internal, for what lies above, for measurements and for tests: the same client with other parts, one that
        was not used yet. ``control`` is made from ``connection``, ``engine`` mostly around this client's; None leaves a
        part as it is. Pickles as a client without them."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)  # copy() would make one anew from its arguments, as pickle does
        other.control = control or self.control
        other._engine = engine or self._engine
        other.policy = policy or self.policy
        other.quota = quota or self.quota
        return other

    # ---- getting ----------------------------------------------------------------------

    def get_many(
        self, items: Iterable[Any], into: Literal["bytes", "files"] = "bytes", dest: Destinations | None = None,
        on_error: OnError = "raise", verify: bool = True, progress: Progress = None, *, ordered: bool = True,
        overwrite: bool = False, resume: bool = False, stream: bool = False, options: Mapping[str, Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """Get objects, or parts of them, into memory (``outcome.data``) or files (``outcome.path``).

        An item is a key, an ``s3://`` URL or ``(key, start, length)``; ``items`` may be a generator and hold
        duplicates. Into memory it runs while you iterate; into files it runs at once, writing each file under ``dest``
        (a directory, or a function from key to path) when it is complete, and replaces existing ones only with
        ``overwrite``. With ``resume`` an interrupted download leaves what it has (hidden files beside the destination),
        and the next one with ``resume`` fetches only the rest, of the same version. ``verify`` compares with the
        checksum the service keeps, if it keeps one. ``options`` are further parameters of GetObject by their botocore
        names.

        A failed item is an ``MfstoreError``: raised, with the rest abandoned; or with ``on_error="return"`` in its
        outcome; or left out with "omit". NotFound, AccessDenied (never taken for absence), InvalidRange, CorruptObject,
        Conflict (destination exists), OutOfSpace, InvalidKey (also a key that is no safe file name), BackendError for
        the rest.
        """
        result = self._get(items, into, dest, on_error, verify, progress, ordered, overwrite, resume, options)
        return result if into == "bytes" or stream else result.wait()

    def aget_many(
        self, items: Iterable[Any], into: Literal["bytes", "files"] = "bytes", dest: Destinations | None = None,
        on_error: OnError = "raise", verify: bool = True, progress: Progress = None, *, ordered: bool = True,
        overwrite: bool = False, resume: bool = False, options: Mapping[str, Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """As ``get_many``, for ``async for`` or ``await``."""
        return self._get(items, into, dest, on_error, verify, progress, ordered, overwrite, resume, options)

    def _get(
        self, items: Iterable[Any], into: str, dest: Destinations | None, on_error: OnError, verify: bool,
        progress: Progress,
        ordered: bool, overwrite: bool, resume: bool, options: Mapping[str, Any] | None,
    ) -> BulkResult:  # fmt: skip
        if into not in ("bytes", "files"):
            raise ValueError(f'into must be "bytes" or "files", not {into!r}')
        if (into == "files") != (dest is not None):
            raise ValueError('dest goes with into="files"')
        shared = _options(options)

        def job(index: int, item: Any) -> Job:
            place = address(item, self.bucket)
            destination = None if dest is None else Destination(_file_for(dest, place), overwrite, resume)
            return GetJob(
                index, item, place.bucket, place.key, shared, start=place.start, stop=place.stop, verify=verify,
                destination=destination,
            )  # fmt: skip

        return self._bulk("get_many", _jobs(items, job), on_error, progress, ordered, items)

    def get_ranges(
        self, items: Iterable[tuple[str, int, int]], on_error: OnError = "raise", progress: Progress = None, *,
        gap: int = 1 << 20, span: int = 16 << 20, ordered: bool = True, options: Mapping[str, Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """Get many ranges ``(key, start, length)``; ranges of one object that lie within ``gap`` bytes of each other
        are fetched as one, of up to ``span`` bytes. Each outcome's ``data`` is a memoryview; those fetched together
        share memory.

        A range that passes the object's end is cut there; one that begins beyond it is InvalidRange. Errors as
        ``get_many``.
        """
        shared = _options(options)

        def jobs() -> Iterator[Job]:
            numbered = enumerate(items)
            while window := list(islice(numbered, RANGES_AHEAD)):
                wanted: list[tuple[int, Any, Address]] = []
                for index, item in window:
                    try:
                        place = address(item, self.bucket)
                        if place.start is None or place.start < 0 or place.stop is None:
                            raise InvalidKey("get_ranges takes (key, start ≥ 0, length)", found=f"{item!r:.80}")
                        wanted.append((index, item, place))
                    except MfstoreError as error:
                        yield _BadItem(index, item, error)
                for bucket, key, ranges in plan_ranges(wanted, gap, span):
                    yield RangesJob(bucket, key, ranges, shared, verify=True)

        return self._bulk("get_ranges", jobs(), on_error, progress, ordered, items)

    def aget_ranges(
        self, items: Iterable[tuple[str, int, int]], on_error: OnError = "raise", progress: Progress = None, **more: Any
    ) -> BulkResult:
        """As ``get_ranges``, for ``async for`` or ``await``."""
        return self.get_ranges(items, on_error, progress, **more)

    def get_into(self, item: tuple[str, int, int], target: memoryview) -> int:
        """Fill writable ``target`` with ``length`` bytes of one object; the bytes are received in place. Returns how
        many.

        The object must not change meanwhile. Errors as ``get_many``; InvalidRange or CorruptObject when it is shorter.
        """
        place = address(item, self.bucket)
        job = GetJob(
            0, item, place.bucket, place.key, NO_OPTIONS, start=place.start, stop=place.stop, target=target.cast("B")
        )
        return self.run("get_into", job).size

    def read_many(
        self, items: Iterable[tuple[str, int, int, memoryview | None]], on_error: OnError = "raise", *,
        ordered: bool = False,
    ) -> BulkResult:  # fmt: skip
        """Many ranges ``(key, start, length, target)``, each in requests of up to 16 MiB: received in place where there
        is a target, else into ``outcome.data``. ``items`` is consumed as there is room for more.

        Errors as ``get_many``; InvalidRange when an object is shorter.
        """

        def job(index: int, item: Any) -> Job:
            place = address(item[:3], self.bucket)
            if place.start is None or place.stop is None:
                raise InvalidKey("read_many takes (key, start ≥ 0, length, target)", found=f"{item!r:.80}")
            return ReadJob(
                index, item, place.bucket, place.key, NO_OPTIONS, start=place.start, length=place.stop - place.start,
                target=item[3],
            )  # fmt: skip

        return self._bulk("read_many", _jobs(items, job), on_error, None, ordered)

    # ---- putting ----------------------------------------------------------------------

    def put_many(
        self, items: Mapping[str, Any] | Iterable[Any], on_error: OnError = "raise", progress: Progress = None, *,
        content_type: str | None = None, metadata: Mapping[str, str] | None = None, encryption: str | None = None,
        kms_key: str | None = None, ordered: bool = True, stream: bool = False, options: Mapping[str,
        Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """Store objects: a mapping from key to data, or an iterable of ``(key, data)`` and ``PutItem``.

        Data are bytes-like, text, a list of bytes-likes (stored joined, sent without a copy), a path object, or an open
        file. Each arrives whole or not at all, checked against its CRC where the service can; large ones go in parts,
        which are given up if the upload fails. The keyword arguments hold for items that say nothing else. Returns when
        all is stored; with ``stream=True`` runs while you iterate.
        """
        result = self.aput_many(
            items, on_error, progress, content_type=content_type, metadata=metadata, encryption=encryption,
            kms_key=kms_key,
            ordered=ordered, options=options,
        )  # fmt: skip
        return result if stream else result.wait()

    def aput_many(
        self, items: Mapping[str, Any] | Iterable[Any], on_error: OnError = "raise", progress: Progress = None, *,
        content_type: str | None = None, metadata: Mapping[str, str] | None = None, encryption: str | None = None,
        kms_key: str | None = None, ordered: bool = True, options: Mapping[str, Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """As ``put_many``, for ``async for`` or ``await``."""
        known: dict[Any, Options] = {}

        def shared(item: PutItem) -> Options:
            # Of the few different settings each is one Options, so that the engine prepares one request for it.
            chosen = {
                **(options or {}),
                "ContentType": item.content_type or content_type,
                "ServerSideEncryption": item.encryption
                or encryption
                or ("aws:kms" if item.kms_key or kms_key else None),
                "SSEKMSKeyId": item.kms_key or kms_key,
                **(item.options or {}),
            }
            chosen = {name: value for name, value in chosen.items() if value is not None}
            tag = tuple(sorted((name, repr(value)) for name, value in chosen.items()))
            if tag not in known:
                if len(known) >= 1000:
                    known.clear()
                known[tag] = Options(chosen) if chosen else NO_OPTIONS
            return known[tag]

        def job(index: int, given: Any) -> Job:
            item = put_item(given)
            bucket, key = locate(item.key, self.bucket)
            return PutJob(
                index, item.key, bucket, key, shared(item), source=UploadSource(*source_of(item.data)),
                metadata=checked_metadata(item.metadata if item.metadata is not None else metadata),
                if_none_match=item.if_none_match, if_match=item.if_match, checksum=self._checksum,
            )  # fmt: skip

        return self._bulk(
            "put_many",
            _jobs(items.items() if isinstance(items, Mapping) else items, job),
            on_error,
            progress,
            ordered,
            items,
        )

    # ---- the rest ---------------------------------------------------------------------

    def head_many(
        self, items: Iterable[str], on_error: OnError = "raise", progress: Progress = None, *, ordered: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """Size, ETag, metadata and so on of each object, without its data. Runs while you iterate."""
        shared = _options(options)
        jobs = _jobs(items, lambda index, item: HeadJob(index, item, *locate(item, self.bucket), shared))
        return self._bulk("head_many", jobs, on_error, progress, ordered, items)

    def ahead_many(
        self, items: Iterable[str], on_error: OnError = "raise", progress: Progress = None, **more: Any
    ) -> BulkResult:
        """As ``head_many``, for ``async for`` or ``await``."""
        return self.head_many(items, on_error, progress, **more)

    def delete_many(
        self, items: Iterable[str], on_error: OnError = "raise", progress: Progress = None, *, stream: bool = False,
        ordered: bool = True, options: Mapping[str, Any] | None = None, if_match: Mapping[str, str] | None = None,
    ) -> BulkResult:  # fmt: skip
        """Delete objects, 1000 per request. An object that does not exist counts as deleted. ``if_match`` has, by key,
        the etag that an object must still have, else Conflict; not every service heeds it.
        """
        result = self.adelete_many(items, on_error, progress, ordered=ordered, options=options, if_match=if_match)
        return result if stream else result.wait()

    def adelete_many(
        self, items: Iterable[str], on_error: OnError = "raise", progress: Progress = None, *, ordered: bool = True,
        options: Mapping[str, Any] | None = None, if_match: Mapping[str, str] | None = None,
    ) -> BulkResult:  # fmt: skip
        """As ``delete_many``, for ``async for`` or ``await``."""
        shared = _options(options)

        def jobs() -> Iterator[Job]:
            groups: dict[str, list[tuple[int, Any, str]]] = {}
            for index, item in enumerate(items):
                try:
                    bucket, key = locate(item, self.bucket)
                except MfstoreError as error:
                    yield _BadItem(index, item, error)
                    continue
                group = groups.setdefault(bucket, [])
                group.append((index, item, key))
                if len(group) == KEYS_PER_DELETE:
                    yield DeleteJob(bucket, groups.pop(bucket), shared, if_match)
            for bucket, group in groups.items():
                yield DeleteJob(bucket, group, shared, if_match)

        return self._bulk("delete_many", jobs(), on_error, progress, ordered, items)

    def copy(
        self, pairs: Mapping[str, str] | Iterable[tuple[str, str]], on_error: OnError = "raise",
        progress: Progress = None, *,
        stream: bool = False, ordered: bool = True, options: Mapping[str, Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """Copy objects within the service: ``(from, to)`` pairs or a mapping. The bytes do not pass through this
        machine.
        """
        result = self.acopy(pairs, on_error, progress, ordered=ordered, options=options)
        return result if stream else result.wait()

    def acopy(
        self, pairs: Mapping[str, str] | Iterable[tuple[str, str]], on_error: OnError = "raise",
        progress: Progress = None, *,
        ordered: bool = True, options: Mapping[str, Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """As ``copy``, for ``async for`` or ``await``."""
        shared = _options(options)

        def job(index: int, pair: Any) -> Job:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise InvalidKey("an item to copy is (from, to)", found=f"{pair!r:.80}")
            return CopyJob(index, pair, locate(pair[0], self.bucket), *locate(pair[1], self.bucket), shared)

        items = pairs.items() if isinstance(pairs, Mapping) else pairs
        return self._bulk("copy", _jobs(items, job), on_error, progress, ordered, items)

    def list(
        self, prefixes: str | Iterable[str] = "", *, recursive: bool = True, start_after: str | None = None,
        page: int = 1000,
        options: Mapping[str, Any] | None = None,
    ) -> Iterator[ListingEntry]:  # fmt: skip
        """The objects under one prefix or many (keys or URLs), many prefixes at a time, each prefix's in key order and
        one prefix after the other; pages are read as you iterate. ``recursive=False`` stops at the next ``/``: what
        goes on there is listed as one entry with ``is_prefix``. NotFound when the bucket does not exist,
        AccessDenied when it may not be listed.
        """
        result = self._listing(prefixes, recursive, start_after, page, options)
        for outcome in result:
            yield from _entries(outcome)

    def list_each(self, prefixes: Sequence[str], *, recursive: bool = True) -> Iterator[tuple[int, ListingEntry]]:
        """As ``list``, with the position among ``prefixes`` of the one that each entry lies under."""
        for outcome in self._listing([*prefixes], recursive, None, 1000, None):
            for entry in _entries(outcome):
                yield outcome.index, entry

    async def alist(
        self, prefixes: str | Iterable[str] = "", *, recursive: bool = True, start_after: str | None = None,
        page: int = 1000,
        options: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[ListingEntry]:  # fmt: skip
        """As ``list``, for ``async for``."""
        async for outcome in self._listing(prefixes, recursive, start_after, page, options):
            for entry in _entries(outcome):
                yield entry

    def _listing(
        self,
        prefixes: str | Iterable[str],
        recursive: bool,
        start_after: str | None,
        page: int,
        options: Mapping[str, Any] | None,
    ) -> BulkResult:
        shared = _options(options)

        def job(index: int, item: Any) -> Job:
            if item.startswith("s3://"):
                bucket, prefix = split_url(item)
            elif self.bucket is None:
                raise InvalidKey(
                    "no bucket", found=repr(item), hint='Give BulkClient(bucket="…") or s3://bucket/prefix'
                )
            else:
                bucket, prefix = self.bucket, item
            delimiter = None if recursive else "/"
            return ListJob(index, item, bucket, prefix, shared, delimiter=delimiter, start_after=start_after, page=page)

        items = [prefixes] if isinstance(prefixes, str) else prefixes
        return self._bulk("list", _jobs(items, job), "raise", None, len(items) > 1 if isinstance(items, list) else True)

    def ask(self, operation: str) -> dict[str, Any]:
        """The answer, by botocore's names, to an operation that takes nothing but the client's bucket, such as
        GetBucketLifecycleConfiguration. NotFound when nothing of the kind is configured.
        """
        if self.bucket is None:
            raise InvalidKey("no bucket", hint='Give BulkClient(bucket="…")')
        job = ConfigurationJob(0, operation, self.bucket, operation)
        answer: dict[str, Any] = self.run("ask", job).data
        return answer

    # ---- the handle -------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """What moves the bytes, chosen when first used. Unsupported when "native" was demanded and cannot serve this
        configuration.
        """
        if self._engine is None:
            from mfstore.s3.engines.choice import choose

            self._engine = choose(self._knobs.engine, self.control)
        return self._engine

    def _bulk(
        self, operation: str, jobs: Iterator[Job], on_error: OnError, progress: Progress, ordered: bool,
        items: Iterable[Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        several(items)
        total = len(items) if isinstance(items, Sized) else None
        stats = BulkStats(self.engine.name, operation)

        def start() -> Scheduler:
            limiter = Limiter(fixed=self._knobs.concurrency)
            admission = Admission(jobs, limiter, self._knobs.memory, self._pace)
            retries = Retries(self.control, self.policy, self.quota)
            return Scheduler(self.engine.channel(), admission, retries, stats)

        return BulkResult(start, stats, ordered=ordered, on_error=on_error, progress=progress, total=total)

    def run(self, operation: str, job: Job) -> Outcome:
        """Internal: the outcome of one job, under the name of an operation. Raises its error."""
        (outcome,) = self._bulk(operation, iter([job]), "raise", None, True)
        return outcome

    def beside(self, bucket: str, memory: int) -> Self:
        """A client for ``bucket`` with a memory budget of its own, that shares connections and all that is learned."""
        arguments = {**self._arguments, "bucket": bucket, "memory": memory}
        other = copy(self)
        other.bucket, other._arguments, other._engine = bucket, arguments, self.engine
        other._knobs = replace(self._knobs, memory=memory)
        return other

    def close(self) -> None:
        """Close the connections. Using the client again opens new ones."""
        if self._engine is not None:
            self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.close)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._arguments.get("session") is not None or self._arguments.get("client") is not None:
            raise TypeError(
                "a BulkClient made from a session or client does not pickle: describe it by profile, region and so on"
            )
        return _reopen, (self._arguments,)

    def __repr__(self) -> str:
        where = f"s3://{self.bucket}" if self.bucket else "any bucket"
        return f"<BulkClient {where}>"


def _reopen(arguments: dict[str, Any]) -> BulkClient:
    return BulkClient(**arguments)


def _entries(outcome: Outcome) -> Iterator[ListingEntry]:
    """What a page of a listing says."""
    bucket, page = outcome.bucket, outcome.data
    for found in page.objects:
        modified = found.modified.timestamp() if found.modified is not None else None
        etag = found.etag.strip('"') if found.etag else None
        yield ListingEntry(bucket, found.key, found.size, modified, etag, found.storage_class, False)
    for prefix in page.prefixes:
        yield ListingEntry(bucket, prefix, 0, None, None, None, True)


def _options(options: Mapping[str, Any] | None) -> Options:
    return Options(options) if options else NO_OPTIONS


def _jobs(items: Iterable[Any], make: Callable[[int, Any], Job]) -> Iterator[Job]:
    """A job for each item; of an item that names nothing, one that fails."""
    for index, item in enumerate(items):
        try:
            job = make(index, item)
        except MfstoreError as error:
            job = _BadItem(index, getattr(item, "key", item), error)
        yield job


def _file_for(dest: Destinations, place: Address) -> Path:
    return Path(dest(place.key)) if callable(dest) else local_path(Path(dest), place.key)
