"""What backends in S3, Azure and Google Cloud have in common: few, large and parallel requests.

Objects of a bulk operation are sent in parallel, and what refers to others only after those are stored. Mutable
objects (refs, the store's description) need conditional writes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from mfstore._core.memory import FreshBytes
from mfstore.backends.base import (
    DELETION_WINDOW,
    Backend,
    Batch,
    Capabilities,
    ObjectEnd,
    ObjectInfo,
    ObjectLock,
    RangeRead,
    needs_refresh,
)
from mfstore.backends.locks import locked, speaks_of_locks, words
from mfstore.backends.ranges import KeyRange, RangePage, list_ranges
from mfstore.errors import (
    AccessDenied,
    BackendError,
    Conflict,
    CorruptObject,
    InvalidKey,
    InvalidRange,
    Locked,
    MfstoreError,
    NotFound,
    Unsupported,
)
from mfstore.format.refs import LONGEST as LONGEST_REF
from mfstore.host.elapsed import moment, since
from mfstore.progress import METER
from mfstore.s3.bulk.client import BulkClient
from mfstore.s3.calls import NO_OPTIONS, Options
from mfstore.s3.encryption import with_default
from mfstore.s3.headers import checked_metadata
from mfstore.s3.transfers.copies import CopyJob, put_again
from mfstore.s3.transfers.deletions import delete_jobs
from mfstore.s3.transfers.downloads import GetJob, ReadJob
from mfstore.s3.transfers.jobs import RefusedJob, check_key, jobs_of
from mfstore.s3.transfers.listings import ListJob, entries
from mfstore.s3.transfers.metadata import HeadJob
from mfstore.s3.transfers.outcomes import abandoning
from mfstore.s3.transfers.retry import RetryPolicy
from mfstore.s3.transfers.uploads import PutJob, UploadSource
from mfstore.s3.urls import bucket_url, split_url

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Answers
    from mfstore.s3.transfers.jobs import Job
    from mfstore.s3.transfers.outcomes import ListingEntry, Outcome
    from mfstore.s3.transfers.scheduler import Traffic

STANDARD = "STANDARD"
"""The storage class of what names none."""
COALESCED_GAP = 1 << 20
"""Reading 1 MiB that nobody wants costs 20 ms of one connection, another request 30 ms before its first byte (the
constants of scheduler.py) and its price; object_store's readers use the same."""
COALESCED_SPAN = 16 << 20
"""Per byte a request of 16 MiB costs half of one of 8 MiB, and 256 of them fill 75 Gbit/s (Durner, Leis, Neumann, VLDB
2023); longer ones only make the last one end later."""
INLINE_BYTES = 256 << 10
"""So few bytes are sent while one request is being answered, and to keep them for a month costs half as much as two
more PUTs ($0.023 per GB and month, $0.005 per 1000 PUTs)."""
SENT_ALONE = 4 << 20
"""A bulk operation sends objects of this size at once, from the caller's memory; smaller ones are copied and sent
together."""
STAGED_BYTES = 32 << 20
"""Bytes copied before they are sent."""
COMMIT_ORDER = ("packs/", "index/", "recipes/")
"""What is referred to comes before what refers to it."""
PACKS = 0
"""Which of them packs are: what an object's bytes are counted by, while they are sent."""
LENGTH_METADATA = "mfstore-bytes"
"""Metadata of a pack: its length, as evidence that nobody but mfstore wrote the object."""
CONFLICT_TRIES = 5
AGING_NOTED = 1 << 17
"""Objects near their end that are remembered until something relies on them, far more than one look asks about."""
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
LOOKED_AT_TOGETHER = 100
"""Objects looked at and then deleted together where a deletion takes no condition: few, so that the look is recent."""


class BucketBackend(Backend):
    """Objects under a prefix of a bucket. ``options`` are those of ``BulkClient``."""

    capabilities = Capabilities(remote=True, gap=COALESCED_GAP, span=COALESCED_SPAN, inline=INLINE_BYTES, told=True)

    def __init__(self, url: str, *, expire_days: float | None = None, **options: Any) -> None:
        self.bucket, prefix = split_url(url)
        prefix = prefix.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self.url = f"{bucket_url(self.bucket)}/{prefix}".rstrip("/")
        self._in_directories = False
        """Whether listings show keys in no order, and only prefixes that end in ``/``."""
        self._expire_days = expire_days
        self._options = options
        self.aging: set[str] = set()
        """Internal: objects near their end that nothing has relied on yet."""
        self.client = self.make_client(options)
        self._transfers = self.client.transfers
        self._checksum = self.client.checksum
        self._put_options = NO_OPTIONS

    def make_client(self, options: Mapping[str, Any]) -> BulkClient:
        """The client of this backend, with the options it was opened with. A kind of backend that shares one makes
        another."""
        return BulkClient(self.bucket, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        self.client.__reduce__()  # refuses what does not pickle
        return _reopen, (type(self), self.url, self._kept(), self.bare_options())

    def _kept(self) -> dict[str, Any]:
        """Arguments that are not the client's, by which it is opened again."""
        return {"expire_days": self._expire_days}

    def bare_options(self) -> dict[str, Any]:
        """The client's options, without what is secret."""
        return dict(self._options)

    # ---- conditions -----------------------------------------------------------------

    def of_new(self) -> Any:
        """Make sure that a write can be told to replace nothing. Unsupported when it cannot."""

    def of_match(self) -> Callable[[str], str]:
        """How the etag that a write is to replace is written. Unsupported when such a condition is not kept."""
        return str

    def of_delete(self) -> Callable[[str], str]:
        """How the etag of a deletion is written. Unsupported when such a condition is not kept."""
        return str

    # ---- reading --------------------------------------------------------------------

    def get(self, key: str) -> bytes:
        return self._one(key, self._get(0, key)).data  # type: ignore[no-any-return]

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        outcome = self._one(key, self._get(0, key))
        return outcome.data, outcome.etag or self.head(key).etag

    def _one(self, key: str, job: Job) -> Outcome:
        (outcome,) = self._transfers.run(iter((job,)))
        if outcome.error is not None:
            raise self._located(outcome.error, key)
        return outcome

    def _get(self, index: int, key: str) -> Job:
        job = GetJob(index, key, self.bucket, self._name(key))
        if key.startswith("refs/"):
            job.largest = LONGEST_REF
        return job

    def _head(self, index: int, key: str) -> Job:
        return HeadJob(index, key, self.bucket, self._name(key))

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | MfstoreError]]:
        for outcome in self._transfers.run(jobs_of(keys, self._get), ordered=True):
            key: str = outcome.item
            self._note(key, outcome)
            yield key, outcome.data if outcome.error is None else self._located(outcome.error, key)

    def get_range(self, key: str, start: int, length: int) -> Buffer:
        (found,) = list(self.read_many([RangeRead(key, start, length)]))
        if isinstance(found[1], MfstoreError):
            raise found[1]
        return found[1]

    def read_into(self, key: str, start: int, target: memoryview) -> None:
        (found,) = list(self.read_many([RangeRead(key, start, len(target), target)]))
        if isinstance(found[1], MfstoreError):
            raise found[1]

    def read_many(self, reads: Iterable[RangeRead]) -> Iterator[tuple[int, Buffer | MfstoreError]]:
        empty: list[tuple[int, RangeRead]] = []

        def jobs() -> Iterator[Job]:
            for number, read in enumerate(reads):
                if not read.length:
                    empty.append((number, read))
                    continue
                try:
                    name = self._name(read.key)
                except MfstoreError as error:
                    yield RefusedJob(number, read.key, error)
                    continue
                yield ReadJob(
                    number, read.key, self.bucket, name, start=read.start, length=read.length, target=read.target
                )

        for outcome in self._transfers.run(jobs(), told=True):
            error = outcome.error
            yield outcome.index, outcome.data if error is None else self._unread(error, outcome.item)
        for number, read in empty:
            yield number, self._nothing(read)

    def _unread(self, error: MfstoreError, key: str) -> MfstoreError:
        if isinstance(error, InvalidRange):
            error = CorruptObject("object is shorter than expected", expected=error.expected, found=error.found)
        return self._located(error, key)

    def _nothing(self, read: RangeRead) -> Buffer | MfstoreError:
        """The answer to a range of no bytes, which S3 does not have."""
        try:
            info = self.head(read.key)
        except MfstoreError as error:
            return error
        if read.start > info.size:
            return CorruptObject(
                "object is shorter than expected", key=read.key, backend=self.url, expected=read.start, found=info.size
            )
        return FreshBytes(0).value

    def head(self, key: str) -> ObjectInfo:
        outcome = self._one(key, self._head(0, key))
        return ObjectInfo(key, outcome.size, outcome.modified or 0.0, outcome.etag or "")

    def identity(self, key: str) -> Any:
        info = self.head(key)
        return info.etag, info.size

    def _heads(self, keys: Iterable[str]) -> Sequence[Outcome]:
        return list(self._transfers.run(jobs_of(keys, self._head), ordered=True))

    def _locks_in(
        self, outcomes: Iterable[Outcome], lock_in: Callable[[Outcome], ObjectLock]
    ) -> dict[str, ObjectLock]:  # fmt: skip
        """The objects that are locked now, by what was answered of each, and ``lock_in``, which reads one answer."""
        found: dict[str, ObjectLock] = {}
        for outcome in outcomes:
            if isinstance(outcome.error, NotFound):
                continue
            if outcome.error is not None:
                raise self._located(outcome.error, outcome.item)
            lock = lock_in(outcome)
            if lock.holds(time.time()):
                found[outcome.item] = lock
        return found

    def exists_many(self, keys: Sequence[str]) -> Answers:
        answers = []
        for outcome in self._heads(keys):
            if outcome.error is not None and not isinstance(outcome.error, NotFound):
                raise self._located(outcome.error, outcome.item)
            answers.append(outcome.error is None)
        return answers

    def vouch(self, keys: Sequence[str]) -> dict[str, int]:
        outcomes = self._heads(keys)
        for outcome in outcomes:
            self._note(outcome.item, outcome)
        return {
            outcome.item: outcome.size
            for outcome in outcomes
            if outcome.error is None and outcome.metadata.get(LENGTH_METADATA) == str(outcome.size)
        }

    def read_ends(self, keys: Sequence[str], length: int) -> Iterator[tuple[int, ObjectEnd | MfstoreError]]:
        def job(index: int, key: str) -> Job:
            return GetJob(index, key, self.bucket, self._name(key), start=-length)

        for outcome in self._transfers.run(jobs_of(keys, job)):
            if outcome.error is not None:
                yield outcome.index, self._unread(outcome.error, outcome.item)
                continue
            self._note(outcome.item, outcome)
            # A service that knows no ranges has sent the whole object.
            told = outcome.headers.get("content-range", "").rpartition("/")[2] or outcome.headers.get(
                "content-length", ""
            )
            size = int(told) if told.isdigit() else 0
            yield outcome.index, ObjectEnd(outcome.data, size, outcome.metadata.get(LENGTH_METADATA) == str(size))

    def get_described(self, keys: Iterable[str]) -> Iterator[tuple[int, bytes | MfstoreError, Mapping[str, str]]]:
        """The number of each key, its object or the error it met, and its user metadata, in any order."""
        for outcome in self._transfers.run(jobs_of(keys, self._get)):
            error = outcome.error
            yield (
                outcome.index,
                outcome.data if error is None else self._located(error, outcome.item),
                outcome.metadata,
            )

    def described(self, key: str) -> tuple[int, Mapping[str, str]]:
        """Size and user metadata of an object. NotFound when there is none."""
        outcome = self._one(key, self._head(0, key))
        return outcome.size, outcome.metadata

    def put_described(self, key: str, data: Buffer, metadata: Mapping[str, str]) -> None:
        """``put``, with user metadata."""
        self._all(jobs_of([key], lambda index, key: self._put(index, key, [data], metadata)))

    def folders(self, prefixes: Sequence[str]) -> list[str]:
        """What lies directly below each prefix and goes on, with a slash at its end."""
        found = self._listed(prefixes, "/")
        return [entry.key.removeprefix(self._prefix) for entry in found if entry.is_prefix]

    def first_folders(self, prefix: str, pages: int) -> tuple[list[str], bool]:
        """As ``folders`` of one prefix, in at most so many requests; and whether there is more than they have shown."""
        found: list[str] = []
        more = False
        for outcome in self._each(iter([self._range_job(0, KeyRange(prefix), pages, "/")])):
            found += [name.removeprefix(self._prefix) for name in outcome.data.prefixes]
            more = outcome.data.next_token is not None
        return found, more

    def _note(self, key: str, outcome: Outcome) -> None:
        """Remember what a lifecycle rule will take before what is saved now."""
        if outcome.error is None and near_its_end(outcome.headers, self._expire_days):
            if len(self.aging) >= AGING_NOTED:
                self.aging.clear()
            self.aging.add(key)

    def refresh(self, keys: Iterable[str]) -> None:
        """Make those of the objects young again that were found to be near their end. Conflict when one is gone."""
        for key in keys:
            if key not in self.aging:
                continue
            (outcome,) = self._transfers.run(iter((self._copy(key, key),)))
            if isinstance(outcome.error, NotFound):
                raise Conflict("an object was removed that this operation relied on", key=key, backend=self.url)
            if outcome.error is not None:
                # Some policies allow no copies, some services do not know them.
                self._copy_through_here(key, key)
            self.aging.discard(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self.list_many([prefix])

    def list_classes(self, prefix: str) -> Iterator[tuple[int, str | None]]:
        """In as many requests as ``list``."""
        for entry in self._listed([prefix]):
            if not entry.key.rpartition("/")[2].startswith("."):
                yield entry.size, entry.storage_class or STANDARD

    def list_many(self, prefixes: Sequence[str]) -> Iterator[ObjectInfo]:
        return self._objects(self._listed(prefixes))

    def list_ranges(self, ranges: Sequence[KeyRange]) -> Iterator[ObjectInfo]:
        """What ``list`` shows in each of several ranges of keys, in any order: in about as many requests as there are
        thousands of objects, many at a time where there are many."""
        if self._in_directories:  # keys come in no order
            for wanted in ranges:
                yield from (info for info in self.list(wanted.prefix) if wanted.holds(info.key))
            return
        yield from list_ranges(ranges, self._range_pages, self._range_folders)

    def _range_job(
        self, index: int, wanted: KeyRange, most: int | None, delimiter: str | None = None, after: str | None = None
    ) -> Job:
        stop = None if wanted.stop is None else self._prefix + wanted.stop
        after = after or (self._prefix + wanted.after if wanted.after else None)
        return ListJob(
            index, wanted, self.bucket, self._prefix + wanted.prefix, delimiter=delimiter, start_after=after, stop=stop,
            most=most,
        )  # fmt: skip

    def _range_pages(self, ranges: Sequence[KeyRange], most: int | None) -> Iterator[RangePage]:
        jobs = jobs_of(ranges, lambda index, wanted: self._range_job(index, wanted, most))
        for outcome in self._each(jobs, ordered=len(ranges) > 1):
            wanted, page = ranges[outcome.index], outcome.data
            infos = [info for info in self._objects(entries(outcome)) if wanted.holds(info.key)]
            last = page.last.removeprefix(self._prefix)
            goes_on = outcome.last and page.next_token is not None and (wanted.stop is None or last < wanted.stop)
            yield RangePage(outcome.index, infos, last if goes_on else None)

    def _range_folders(self, wanted: KeyRange, most: int) -> Sequence[str] | None:
        found: list[str] = []
        # A folder that the range begins in is one of those that were passed: from its beginning on.
        after = wanted.after if wanted.after.startswith(wanted.prefix) else ""
        inner = after[len(wanted.prefix) :].partition("/")[0]
        start = self._prefix + wanted.prefix + inner if inner else None
        for outcome in self._each(iter([self._range_job(0, wanted, most, "/", start)])):
            page = outcome.data
            if len(page.objects) > len(page.prefixes) and page.next_token is not None:
                return None
            names = [name.removeprefix(self._prefix) for name in page.prefixes]
            found += [name for name in names if wanted.stop is None or name < wanted.stop]
            stopped = wanted.stop is not None and page.last.removeprefix(self._prefix) >= wanted.stop
            if outcome.last and page.next_token is not None and not stopped:
                return None
        return found

    def _objects(self, found: Iterable[ListingEntry]) -> Iterator[ObjectInfo]:
        for entry in found:
            key = entry.key.removeprefix(self._prefix)
            if not key.rpartition("/")[2].startswith("."):
                yield ObjectInfo(key, entry.size, entry.modified or 0.0, (entry.etag or "").strip('"'))

    def list_first(self, prefix: str, count: int) -> Sequence[ObjectInfo]:
        """Keys come in their order, so that the first pages have them; but for directory buckets."""
        if self._in_directories:
            return super().list_first(prefix, count)
        return list(islice(self.list(prefix), count))

    def _listed(self, prefixes: Sequence[str], delimiter: str | None = None) -> Iterator[ListingEntry]:
        def job(index: int, prefix: str) -> Job:
            asked = self._prefix + prefix
            if self._in_directories:
                asked = asked[: asked.rfind("/") + 1]
            return ListJob(index, prefix, self.bucket, asked, delimiter=delimiter)

        for outcome in self._each(jobs_of(prefixes, job), ordered=len(prefixes) > 1):
            if self._in_directories:
                wanted = self._prefix + prefixes[outcome.index]
                yield from (found for found in entries(outcome) if found.key.startswith(wanted))
            else:
                yield from entries(outcome)

    # ---- writing --------------------------------------------------------------------

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        self.put_all([(key, parts)])

    def put_all(self, objects: Iterable[tuple[str, Sequence[Buffer]]], told: bool = False) -> None:
        """Store objects in parallel. ``told``: whoever asked for progress hears of their bytes."""
        self._all(jobs_of(objects, self._put_object), told)

    def _put_object(self, index: int, given: tuple[str, Sequence[Buffer]]) -> Job:
        key, parts = given
        metadata = None
        if key.startswith(COMMIT_ORDER[0]):
            metadata = {LENGTH_METADATA: str(sum(memoryview(part).nbytes for part in parts))}
        return self._put(index, key, parts, metadata)

    def _put(
        self, index: int, key: str, parts: Sequence[Buffer], metadata: Mapping[str, str] | None,
        said: Mapping[str, Any] | None = None, **condition: Any,
    ) -> Job:  # fmt: skip
        options = Options(with_default(self._put_options, said)) if said else self._put_options
        return PutJob(
            index, key, self.bucket, self._name(key), options, source=UploadSource(parts, None),
            metadata=checked_metadata(metadata) if metadata else None, checksum=self._checksum, **condition,
        )  # fmt: skip

    def _each(self, jobs: Iterator[Job], ordered: bool = True, told: bool = False) -> Iterator[Outcome]:
        """The outcomes of jobs; the first error is raised, as this store's, and what follows abandoned."""
        try:
            for done, outcome in enumerate(self._transfers.run(jobs, ordered, told)):
                if outcome.error is not None:
                    raise abandoning(outcome.error, done)
                yield outcome
        except MfstoreError as error:
            self._relocate(error)
            raise

    def _all(self, jobs: Iterator[Job], told: bool = False) -> None:
        for _ in self._each(jobs, told=told):
            pass

    def batch(self) -> Batch:
        return BucketBatch(self)

    def put_if(self, key: str, data: Buffer, etag: str | None) -> str:
        try:
            if etag is None:
                self.of_new()
            outcome = self._conditional(key, data, None if etag is None else self.of_match()(etag))
        except NotFound as error:
            if etag is None or error.service_code in NO_BUCKET:
                self._relocate(error)
                raise
            raise Conflict("the object was deleted since it was read", key=key, backend=self.url) from None
        except MfstoreError as error:
            raise self._located(error, key) from None
        return outcome.etag or self.head(key).etag

    def _conditional(
        self, key: str, data: Buffer, match: str | None, metadata: Mapping[str, str] | None = None,
        said: Mapping[str, Any] | None = None,
    ) -> Outcome:  # fmt: skip
        for attempt in range(1, CONFLICT_TRIES + 1):
            try:
                job = self._put(0, key, [data], metadata, said, if_none_match=match is None, if_match=match)
                return self._transfers.one(job)
            except Conflict as error:
                # Another write is still going on: only its end decides.
                if error.service_code != "ConditionalRequestConflict" or attempt == CONFLICT_TRIES:
                    raise
                time.sleep(0.02 * 2**attempt)
        raise AssertionError

    def copy(self, source: str, target: str) -> None:
        try:
            self._transfers.one(self._copy(source, target))
        except Unsupported:
            self._copy_through_here(source, target)
        except MfstoreError as error:
            self._relocate(error)
            raise

    def copy_many(self, pairs: Sequence[tuple[str, str]]) -> Answers:
        """``copy`` of each (source, target), many at a time; False for each source that is not there."""
        answers = []
        jobs = jobs_of(pairs, lambda index, pair: self._copy(pair[0], pair[1], index))
        for (source, target), outcome in zip(pairs, list(self._transfers.run(jobs, ordered=True)), strict=True):
            if isinstance(outcome.error, Unsupported):
                self._copy_through_here(source, target)
                answers.append(True)
                continue
            if outcome.error is not None and not isinstance(outcome.error, NotFound):
                raise self._located(outcome.error, source)
            answers.append(outcome.error is None)
        return answers

    def _copy_through_here(self, source: str, target: str) -> None:
        """Copy where the service does not: radosgw 16 copies nothing that is encrypted."""
        found = self._one(source, self._get(0, source))
        self._all(iter((self._put(0, target, [found.data], found.metadata, put_again(found.headers)),)))

    def _copy(self, source: str, target: str, index: int = 0) -> Job:
        return CopyJob(
            index, target, (self.bucket, self._name(source)), self.bucket, self._name(target), self._put_options
        )

    def move_unchanged(self, source: str, target: str, etag: str, *, replace: bool = True) -> bool:
        if replace:
            return super().move_unchanged(source, target, etag, replace=replace)
        # Read and put, since copies take no condition everywhere; with all that the storage keeps of it.
        found = self._one(source, self._get(0, source))
        if found.etag != etag:
            return False
        try:
            self.of_new()
            self._conditional(target, found.data, None, found.metadata, put_again(found.headers))
        except MfstoreError as error:
            raise self._located(error, target) from None
        return all(self.delete_unchanged({source: etag}))

    @property
    def _together(self) -> int:
        return self.client.service.keys_per_delete

    def delete(self, key: str) -> None:
        self.delete_many([key])

    def delete_many(self, keys: Sequence[str]) -> None:
        refused: dict[str, AccessDenied] = {}
        for outcome in self._transfers.run(delete_jobs(keys, self._place, together=self._together), ordered=True):
            if isinstance(outcome.error, AccessDenied):
                refused[outcome.item] = outcome.error
            elif outcome.error is not None:
                raise self._located(outcome.error, outcome.item)
        if refused:
            raise self._refusal(refused, frozenset())

    def _refusal(self, refused: Mapping[str, AccessDenied], changed: frozenset[str]) -> AccessDenied:
        """The error for deletions that were refused: Locked when locks are the reason of all of them."""
        try:
            told = self.locks([*refused])
        except MfstoreError:
            told = {}
        locks = {
            key: words(told[key]) if key in told else self._kept_by(error) for key, error in refused.items()
            if key in told or speaks_of_locks(error)
        }  # fmt: skip
        for key, error in refused.items():
            if key not in locks:
                self._located(error, key)
                return error
        return locked(locks, changed, self.url)

    def _kept_by(self, error: AccessDenied) -> str:
        """What keeps an object, by the refusal to delete it, where the object itself does not tell."""
        return words(ObjectLock())

    def _place(self, key: str) -> tuple[str, str]:
        return self.bucket, self._name(key)

    def delete_unchanged(self, objects: Mapping[str, str]) -> Answers:
        keys = [*objects]
        begun = moment()
        if self.deletes_conditionally():
            form = self.of_delete()
            match = {self._name(key): form(etag) for key, etag in objects.items()}
            return self._delete_once(keys, begun, match)
        answers: list[bool] = []
        locks: dict[str, str] = {}
        for at in range(0, len(keys), LOOKED_AT_TOGETHER):
            window = keys[at : at + LOOKED_AT_TOGETHER]
            if at:
                begun = moment()
            looks = self._heads(window)
            for key, look in zip(window, looks, strict=True):
                if look.error is not None and not isinstance(look.error, NotFound):
                    raise self._located(look.error, key)
            same = [key for key, look in zip(window, looks, strict=True) if look.etag == objects[key]]
            if same:
                try:
                    self._delete_once(same, begun, None)
                except Locked as error:
                    locks.update(error.locks)
            answers += [key in same or look.error is not None for key, look in zip(window, looks, strict=True)]
        if locks:
            raise locked(locks, frozenset(key for key, gone in zip(keys, answers, strict=True) if not gone), self.url)
        return answers

    def _delete_once(self, keys: Sequence[str], begun: tuple[float, float], match: Mapping[str, str] | None) -> Answers:
        """Send deletions within ``DELETION_WINDOW`` seconds since ``begun``, each once and with an answer by then: one
        that is repeated for minutes would take what was stored again meanwhile, or was named."""
        left = DELETION_WINDOW - since(begun)
        if left < DELETION_WINDOW / 2:
            raise BackendError("looking took so long that deleting is not safe", backend=self.url, hint="Try again")
        policy = RetryPolicy(attempts=1, seconds=left, first_byte=left, stall=left)
        jobs = delete_jobs(keys, self._place, match=match, fresh=True, together=self._together)
        # All of them, whatever becomes of the first.
        outcomes = list(self._transfers.with_parts(policy=policy).run(jobs, ordered=True))
        refused: dict[str, AccessDenied] = {}
        for key, outcome in zip(keys, outcomes, strict=True):
            if isinstance(outcome.error, AccessDenied):
                refused[key] = outcome.error
            elif outcome.error is not None and not isinstance(outcome.error, Conflict):
                raise self._located(outcome.error, key)
        if refused:
            changed = (key for key, outcome in zip(keys, outcomes, strict=True) if isinstance(outcome.error, Conflict))
            raise self._refusal(refused, frozenset(changed))
        return [outcome.error is None for outcome in outcomes]

    def deletes_conditionally(self) -> bool:
        try:
            self.of_delete()
        except (Unsupported, AccessDenied):
            return False
        except MfstoreError as error:
            self._relocate(error)
            raise
        return True

    @property
    def prefix(self) -> str:
        """What the keys of the bucket's objects that belong to this store begin with."""
        return self._prefix

    @property
    def put_options(self) -> Options:
        """What is said of each object that is put."""
        return self._put_options

    @property
    def traffic(self) -> Traffic:
        """What its requests come to."""
        return self._transfers.traffic

    def close(self) -> None:
        self.client.close()

    # ---- names and errors -------------------------------------------------------------

    def _name(self, key: str) -> str:
        # Keys are made by mfstore; the check keeps a mistake of ours from leaving the prefix.
        if key.startswith("/") or ".." in key.split("/"):
            raise BackendError("key would leave the store", key=key, backend=self.url)
        name = self._prefix + key
        if len(name) > 1024 or not name or not name.isascii():
            try:
                check_key(name)
            except InvalidKey as error:
                raise self._located(error, key) from None
        return name

    def _located(self, error: MfstoreError, key: str) -> MfstoreError:
        """The error of a request, as this store's."""
        error.key, error.backend = key, self.url
        return error

    def _relocate(self, error: MfstoreError) -> None:
        """As ``_located``, where only the error says which object it was."""
        key = (error.key or "").removeprefix(bucket_url(self.bucket, "")).removeprefix(self._prefix)
        error.key, error.backend = key or None, self.url


class BucketBatch(Batch):
    """Collects small objects and sends them together, class by class; large ones go at once, after those they need."""

    backend: BucketBackend

    def __init__(self, backend: BucketBackend) -> None:
        self.backend = backend
        self._staged: list[list[tuple[str, list[bytes]]]] = [[] for _ in range(len(COMMIT_ORDER) + 1)]
        self._bytes = 0
        self._relied: set[str] = set()

    def ensure(self, keys: Iterable[str]) -> None:
        self._relied.update(key for key in keys if key in self.backend.aging)

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        rank = next((number for number, start in enumerate(COMMIT_ORDER) if key.startswith(start)), len(COMMIT_ORDER))
        size = sum([memoryview(part).nbytes for part in parts])
        if size >= SENT_ALONE:
            self._send(rank)
            self.backend.put_all([(key, parts)], told=rank == PACKS)
            return
        self._staged[rank].append((key, [b"".join(parts)]))
        self._bytes += size
        if self._bytes >= STAGED_BYTES:
            self.commit()

    def commit(self) -> None:
        self.backend.refresh(self._relied)
        self._relied.clear()
        self._send(len(self._staged))
        self._bytes = 0
        if (meter := METER.get()) is not None:
            meter.settle()

    def _send(self, below: int) -> None:
        """Store what is staged of the first ``below`` classes, each before the next."""
        for rank, staged in enumerate(self._staged[:below]):
            if staged:
                self.backend.put_all(staged, told=rank == PACKS)
                self._bytes -= sum([len(data) for _, (data,) in staged])
                staged.clear()

    def abort(self) -> None:
        for staged in self._staged:
            staged.clear()
        self._bytes = 0


def _reopen(kind: type[BucketBackend], url: str, kept: dict[str, Any], options: dict[str, Any]) -> BucketBackend:
    return kind(url, **kept, **options)


# ---- objects near their end: pure ---------------------------------------------------------

_EXPIRY = re.compile(r'expiry-date="([^"]+)"')


def near_its_end(headers: Mapping[str, str], expire_days: float | None) -> bool:
    """Whether an object that a save relies on has to be made young again: a lifecycle rule will take it
    (``x-amz-expiration``), or what is older than ``expire_days`` is taken, before what is saved now."""
    modified = _time(headers.get("last-modified"))
    if modified is None:
        return False
    said = _EXPIRY.search(headers.get("x-amz-expiration", ""))
    expires = _time(said[1]) if said else None
    life = expires - modified if expires is not None else None
    if expire_days is not None:
        life = min(life or float("inf"), expire_days * 86400)
    # The service's clock against the service's clock.
    now = _time(headers.get("date"))
    return life is not None and needs_refresh((time.time() if now is None else now) - modified, life)


def _time(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, TypeError):
        return None
