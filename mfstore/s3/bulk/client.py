"""The bulk client: many objects at once, in parallel, with an outcome for each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from mfstore.errors import InvalidKey, Unsupported
from mfstore.records import dataclass, field
from mfstore.s3.aws.interface import ControlPlane
from mfstore.s3.bulk.items import (
    Address,
    PutItem,
    address_of,
    locate,
    locate_prefix,
    plan_ranges,
    put_item,
    several,
    source_of,
    warn_of_files,
)
from mfstore.s3.bulk.results import (
    BulkResult,
    Effort,
    Listing,
    OnError,
    Progress,
    Single,
    asynchronous,
    asynchronous_single,
    single,
)
from mfstore.s3.bulk.services import control_plane, settings_of
from mfstore.s3.bulk.stats import BulkStats
from mfstore.s3.calls import MOST_SHARED, NO_OPTIONS, Options, Plain, shared_options
from mfstore.s3.encryption import parameters_of, with_default
from mfstore.s3.engines.interface import Engine
from mfstore.s3.headers import checked_metadata, header_value
from mfstore.s3.service import S3, Service
from mfstore.s3.transfers import downloads, uploads
from mfstore.s3.transfers.copies import CopyJob
from mfstore.s3.transfers.deletions import delete_jobs
from mfstore.s3.transfers.destinations import Destination, FolderDestination, local_path
from mfstore.s3.transfers.downloads import GetJob, RangesJob, ReadJob
from mfstore.s3.transfers.jobs import Job, PlainJobs, RefusedJob, jobs_of, unforeseen
from mfstore.s3.transfers.listings import ListJob, entries
from mfstore.s3.transfers.metadata import ConfigurationJob, HeadJob
from mfstore.s3.transfers.outcomes import ListingEntry, Outcome
from mfstore.s3.transfers.retry import RetryPolicy, RetryQuota
from mfstore.s3.transfers.scheduler import Scheduler, Transfers
from mfstore.s3.transfers.uploads import PutJob, UploadSource
from mfstore.s3.urls import bucket_of, bucket_url, scheme_of
from mfstore.settings import EncryptionKnobs, bandwidth, payload_signing, resolve_encryption, resolve_place, resolve_s3

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from mfstore.s3.bulk.metrics import ClientMetrics


Destinations = str | os.PathLike[str] | Callable[[str], str | os.PathLike[str]]
Checksum = Literal["CRC64NVME", "CRC32C", "CRC32"]
PayloadSigning = Literal["auto", "always", "never"]
LARGE = ("put_many", "delete_many", "copy", "list")
"""Operations that read files, read and write large XML, or have botocore prepare each request: more work than an event
loop may do itself."""
INERT = (list, tuple, dict, set, frozenset)
"""Kinds of items that are there already: iterating over them runs no code of the caller's."""
RANGES_TOGETHER = 10_000
"""Items get_ranges looks at together for ranges that lie close to each other."""


# ---- options: each with the defaults of the method that makes it ---------------------------


@dataclass(frozen=True, eq=False, slots=True)
class ClientOptions:
    """What a client was made with, as it was given: the environment is not in it. Pickles as ``connection`` does."""

    bucket: str | None
    connection: Any
    """How the service is reached: settings of its kind."""
    engine: str | None
    concurrency: int | None
    memory: int | None
    max_bandwidth: float | None
    policy: RetryPolicy
    checksum: Checksum | None
    encryption: EncryptionKnobs = EncryptionKnobs()


@dataclass(frozen=True, slots=True)
class GetOptions:
    """How all objects of one ``get_many`` are got. ValueError for what does not go together."""

    into: str
    dest: Destinations | None
    verify: bool
    overwrite: bool
    resume: bool
    parameters: Options
    placed: dict[Path, object] = field(default_factory=dict)
    """The files that this call has made, with the addresses of their objects."""

    def __post_init__(self) -> None:
        if self.into not in ("bytes", "files"):
            raise ValueError(f'into must be "bytes" or "files", not {self.into!r}')
        if (self.into == "files") != (self.dest is not None):
            raise ValueError('dest goes with into="files"')

    def job(self, index: int, item: Any, address: Address) -> GetJob:
        """The job of one item. InvalidKey for a key that is no safe file name."""
        destination = None
        if self.dest is not None:
            key = address.key
            if callable(self.dest):
                destination = self._file(Path(self.dest(key)), address)
            elif key.endswith("/") and address.start is address.stop is None:
                destination = FolderDestination(local_path(Path(self.dest), key[:-1]), key)
            else:
                destination = self._file(local_path(Path(self.dest), key), address)
        return GetJob(
            index, item, address.bucket, address.key, self.parameters, start=address.start, stop=address.stop,
            verify=self.verify, destination=destination,
        )  # fmt: skip

    def _file(self, path: Path, address: Address) -> Destination:
        if self.overwrite:
            return Destination(path, True, self.resume)
        return Destination(path, False, self.resume, self.placed, address)


CONDITIONS = frozenset(("IfMatch", "IfNoneMatch"))
"""Parameters that an item says."""
ALGORITHM = "ChecksumAlgorithm"
"""The option of a put that chooses another checksum than the client's."""
SAYS_CHECKSUM = "Checksum"
"""What the names of parameters begin with that are about checksums."""


def checked_checksum(name: str, value: Any) -> Checksum:
    """``value``, which ``name`` says, if uploads can carry such a checksum. InvalidKey otherwise."""
    if value not in get_args(Checksum):
        raise InvalidKey(
            f"{name} is none that uploads carry", found=f"{value!r:.40}", hint=f"One of {', '.join(get_args(Checksum))}"
        )
    return cast("Checksum", value)


def carried(checksum: Checksum | None, service: Service) -> Checksum | None:
    """What uploads to a service carry, by the argument ``checksum``. InvalidKey for what is none, Unsupported for what
    the service does not know."""
    if checksum is None:
        return None
    checked_checksum("checksum", checksum)
    if checksum in service.checksums:
        return checksum
    if checksum != S3.checksum:
        raise Unsupported(f"{service.name} knows no {checksum}", hint=f"One of {', '.join(service.checksums)}")
    return cast("Checksum", service.checksum)


@dataclass(frozen=True, slots=True)
class PutOptions:
    """How the objects of one ``put_many`` are put whose items say nothing else."""

    content_type: str | None
    metadata: Mapping[str, str] | None
    encryption: str | None
    kms_key: str | None
    parameters: Mapping[str, Any] | None
    checksum: Checksum | None
    default: Mapping[str, Any]
    """The client's encryption, of items of which nothing else is said."""
    shared: dict[Any, Options]
    """The client's: of the few different settings each is one ``Options``, for which an engine prepares one request."""
    known: dict[Any, Options] = field(default_factory=dict)
    """The same of this call, by what the items say."""

    def job(self, index: int, item: PutItem, bucket: str, key: str) -> PutJob:
        """The job of one item. InvalidKey for metadata and conditions, NotSerializable for data that cannot be sent."""
        # A put whose answer was lost is told from a lost race only where its job knows of the condition.
        for name in CONDITIONS & (self.parameters or {}).keys():
            raise InvalidKey(f"{name} is no option of put_many", hint="PutItem(if_none_match=True) or if_match=ETAG")
        if item.if_match is not None:
            header_value("if_match", item.if_match)
        return PutJob(
            index, item.key, bucket, key, self._parameters(item), source=UploadSource(*source_of(item.data)),
            metadata=checked_metadata(item.metadata if item.metadata is not None else self.metadata),
            if_none_match=item.if_none_match, if_match=item.if_match, checksum=self._checksum(item),
        )  # fmt: skip

    def _checksum(self, item: PutItem) -> Checksum | None:
        """What the item's body carries. InvalidKey for what options say of checksums that cannot be kept to."""
        chosen = self.checksum
        for name, value in (*_mapping(self.parameters).items(), *_mapping(item.options).items()):
            if not str(name).startswith(SAYS_CHECKSUM) or value is None:
                continue
            if name != ALGORITHM:
                raise InvalidKey(
                    f"{name} is no option of put_many", hint=f"Checksums are made as it is sent: {ALGORITHM}"
                )
            chosen = checked_checksum(name, value)
        return chosen

    @property
    def given(self) -> Options:
        """The parameters of items that say nothing of their own."""
        return self._parameters(PutItem("", b""))

    def _parameters(self, item: PutItem) -> Options:
        own = (item.content_type, item.encryption, item.kms_key)
        if item.options is None and own in self.known:
            return self.known[own]
        found = self._chosen(item)
        if item.options is None and len(self.known) < MOST_SHARED:
            self.known[own] = found
        return found

    def _chosen(self, item: PutItem) -> Options:
        kms_key = item.kms_key or self.kms_key
        encryption = item.encryption or self.encryption or ("aws:kms" if kms_key else None)
        named = {
            "ContentType": item.content_type or self.content_type,
            "ServerSideEncryption": encryption,
            "SSEKMSKeyId": kms_key,
        }
        chosen = {
            **_mapping(self.parameters),
            **{name: value for name, value in named.items() if value is not None},
            **_mapping(item.options),
        }
        chosen = {name: value for name, value in chosen.items() if value is not None and name != ALGORITHM}
        chosen = with_default(chosen, self.default)
        # Further parameters may be secrets, and are not remembered for longer than the call.
        return shared_options(chosen, self.known if self.parameters or item.options else self.shared)


class BulkClient:
    """Parallel transfers with S3 and what speaks its protocol, Azure's Blob Storage, or Google Cloud Storage: which of
    them, the URL ``bucket`` says.

    Credentials, region, endpoint, proxies and so on are found as boto3 finds them, or come from ``session``, ``client``
    or ``client_options``; for Azure and Google as their own libraries find them. Safe to use from several threads;
    works after fork; pickles (without ``session`` and ``client``), but for what is secret: keys that were given, and
    passwords in URLs, are to be found where it is unpickled. Opens no connection before it is used. ``with`` and
    ``async with`` close it.

    Every method that asks the service has an asynchronous twin with the same parameters, whose name begins with ``a``.

    Args:
        bucket: What plain keys refer to. Items may always be ``s3://bucket/key``. ``az://container``,
            ``abfss://container@account…`` and ``gs://bucket`` make a client of that service, whose own arguments go in
            place of those of S3: docs/azure.md, docs/gcs.md.
        session: A boto3 or botocore session. It is read, never changed.
        endpoint_url: Where the service is, unless it is AWS or the environment says it.
        engine: "native", "aiobotocore" or "auto", which is native. ``MFSTORE_S3_ENGINE``; default "auto".
        concurrency: The number of parallel requests, which otherwise follows size, goodput and throttling.
            ``MFSTORE_S3_CONCURRENCY``.
        memory: Bytes that results may take which wait for the caller, and the most that an object in memory may have
            whose length the service does not say. ``MFSTORE_MEMORY``; default 256 MiB.
        max_bandwidth: Bytes per second, at most, that all operations of this client together receive and send.
        attempts: How often one request is sent, at most.
        retry_seconds: No new try of a request is begun this long after its first.
        first_byte_timeout: Seconds from the last byte sent to the first of the answer.
        stall_timeout: Seconds without progress, in either direction, before a try fails.
        expected_bucket_owner: Account id; requests to a bucket of another are refused.
        request_payer: "requester" where the caller pays.
        client: A boto3 client, whose credentials, configuration and endpoint are used. It is read, never changed.
        checksum: What uploads carry; None for none. CRC64NVME means CRC32C on Google's service, which knows no other.
        payload_signing: Whether the SHA-256 of what is sent is signed: "always", "never" (then the checksum alone
            protects it: for private networks, where it saves two thirds of what a large upload over http costs) or
            "auto": as AWS's SDKs do, over http and not over https. ``MFSTORE_S3_PAYLOAD_SIGNING``; default "auto".
        encryption: ServerSideEncryption of what is put and copied where nothing else is said: "AES256", "aws:kms" or
            "aws:kms:dsse"; "": as the bucket says. ``MFSTORE_ENCRYPTION``; default: as the bucket says.
        kms_key: SSEKMSKeyId of it: id, ARN or alias of a key of KMS; alone it means "aws:kms". ``MFSTORE_KMS_KEY``.
        bucket_key: BucketKeyEnabled of "aws:kms": whether one data key serves many objects. ``MFSTORE_BUCKET_KEY``;
            default: as the bucket says.
        client_options: Whatever else ``boto3.client`` takes: ``region_name``, ``profile_name``, ``config``, ``verify``,
            ``aws_access_key_id``, …

    Raises:
        InvalidKey: a setting is out of range, or ``bucket`` is no bucket.
    """

    def __init__(
        self, bucket: str | None = None, *, session: Any = None, endpoint_url: str | None = None,
        engine: str | None = None,
        concurrency: int | None = None, memory: int | None = None, max_bandwidth: float | None = None,
        attempts: int = 10,
        retry_seconds: float = 180.0, first_byte_timeout: float = 30.0, stall_timeout: float = 20.0,
        expected_bucket_owner: str | None = None, request_payer: str | None = None, client: Any = None,
        checksum: Checksum | None = "CRC64NVME", payload_signing: PayloadSigning | None = None,
        encryption: str | None = None, kms_key: str | None = None, bucket_key: bool | None = None,
        **client_options: Any,
    ) -> None:  # fmt: skip
        scheme = "s3" if bucket is None else scheme_of(bucket_of(bucket))
        if bucket is not None and session is None and client is None:
            said = resolve_place(_place(bucket)).options(scheme)
            of_place = said.pop("endpoint_url", None)
            endpoint_url, client_options = endpoint_url or of_place, {**said, **client_options}
        asked = {"encryption": encryption or None, "kms_key": kms_key or None, "bucket_key": bucket_key}
        arguments = {
            "session": session, "endpoint_url": endpoint_url, "client": client,
            "expected_bucket_owner": expected_bucket_owner, "request_payer": request_payer,
            "payload_signing": payload_signing, **client_options,
        }  # fmt: skip
        connection = settings_of(scheme, bucket, arguments if scheme == "s3" else {**arguments, **asked})
        policy = RetryPolicy(
            attempts=attempts, seconds=retry_seconds, first_byte=first_byte_timeout, stall=stall_timeout
        )
        encrypted = EncryptionKnobs(encryption, kms_key, bucket_key)
        self._make(
            ClientOptions(
                bucket, connection, engine, concurrency, memory, max_bandwidth, policy, checksum, encrypted
            )
        )  # fmt: skip

    def _make(self, options: ClientOptions) -> None:
        bucket = options.bucket
        self.options = options
        self.bucket = None if bucket is None else bucket_of(bucket)
        place = None if bucket is None else _place(bucket)
        scheme = "s3" if self.bucket is None else scheme_of(self.bucket)
        control = control_plane(scheme, options.connection)
        self.service = control.service
        knobs = resolve_s3(options.engine, options.concurrency, options.memory, place)
        self.checksum = carried(options.checksum, self.service)
        """What uploads carry."""
        self._encryption: Mapping[str, Any] = {}
        if scheme == "s3":
            payload_signing(options.connection.payload_signing)  # the control plane asks when it is first used
            algorithm, key, one = options.encryption
            self._encryption = parameters_of(resolve_encryption(algorithm, key, one, place))
        elif options.engine in (None, "auto"):
            knobs = knobs._replace(engine="native")  # the environment means the engine of S3
        self.transfers = Transfers(control, knobs, options.policy, bandwidth(options.max_bandwidth))
        """Internal: what runs this client's jobs, for what lies above in mfstore, measurements and tests."""

    # ---- getting ----------------------------------------------------------------------

    def get_many(
        self, items: Iterable[Any], into: Literal["bytes", "files"] = "bytes", dest: Destinations | None = None,
        on_error: OnError = "raise", verify: bool = True, progress: Progress = None, *, ordered: bool = True,
        overwrite: bool = False, resume: bool = False, stream: bool = False, options: Mapping[str, Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """Get objects, or parts of them, into memory (``outcome.data``) or files (``outcome.path``).

        Into memory it runs while you iterate; what an outcome holds is yours from then on. Into files it runs at once,
        and writes each under a temporary name that changes when the file is whole.

        Args:
            items: Keys, URLs and ``(key, start, length)``; ``length`` None means to the end, a negative
                ``start`` (then ``length`` is None) counts from it. May be a generator and hold duplicates.
            into: "bytes" or "files".
            dest: For files: a directory, below which each key is a path, or a function from key to path.
            on_error: What becomes of an item that failed. "raise" its error and abandon the rest; "return" it in its
                outcome; "omit" it.
            verify: Compare with the checksum that the service keeps, if it keeps one of the whole object.
            progress: True for a bar with items and with bytes, which move within one large object too: in a terminal on
                stderr or in a notebook, and nothing elsewhere. "tqdm" for the bar of that library. Or a function that
                is told how many items finished since its last call.
            ordered: Outcomes in the order of the items; else as they come.
            overwrite: Replace files that exist.
            resume: An interrupted download leaves what it has (hidden files beside the destination), and the next one
                with ``resume`` fetches only the rest, of the same version.
            stream: Into files, too, run while you iterate.
            options: Further parameters of GetObject by their botocore names.

        Raises:
            NotFound: no such object or bucket.
            AccessDenied: refused, or no credentials; never taken for absence.
            InvalidRange: a range begins beyond the object's end.
            CorruptObject: the bytes differ from the object's checksum.
            Conflict: the destination exists, or the object keeps changing.
            OutOfSpace: the local disk is full.
            InvalidKey: an item names no object, or its key is no safe file name.
            BackendError: anything else, after the retries.
        """
        how = GetOptions(into, dest, verify, overwrite, resume, _parameters(options))
        bucket = self.bucket

        def job(index: int, item: Any) -> Job:
            return how.job(index, item, address_of(item, bucket))

        files = into == "files"
        plain = None if files else Plain("GetObject", bucket, how.parameters, verify)
        jobs = self._jobs(plain, items, job)
        result = self.run_jobs("get_many", jobs, on_error, progress, ordered, items, files)
        return result if into == "bytes" or stream else result.wait()

    aget_many = asynchronous(get_many)
    """As ``get_many``, for ``async for`` or ``await``."""

    def get_ranges(
        self, items: Iterable[tuple[str, int, int]], on_error: OnError = "raise", progress: Progress = None, *,
        gap: int = 1 << 20, span: int = 16 << 20, ordered: bool = True, options: Mapping[str, Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """Get many ranges, those that lie close to each other in one request. Runs while you iterate.

        Each outcome's ``data`` is a memoryview; those fetched together share memory. A range that passes the object's
        end is cut there; one that begins beyond it is InvalidRange. Other parameters and errors as ``get_many``.

        Args:
            items: ``(key, start, length)`` in bytes.
            gap: Ranges of one object that lie within so many bytes of each other are fetched as one…
            span: …of up to so many bytes.
        """
        parameters = _parameters(options)

        def jobs() -> Iterator[Job]:
            numbered = enumerate(items)
            while window := tuple(islice(numbered, RANGES_TOGETHER)):
                wanted: list[tuple[int, Any, Address]] = []
                for index, item in window:
                    try:
                        address = address_of(item, self.bucket)
                        if address.start is None or address.start < 0 or address.stop is None:
                            raise InvalidKey("get_ranges takes (key, start ≥ 0, length)", found=f"{item!r:.80}")
                        wanted.append((index, item, address))
                    except Exception as error:
                        yield RefusedJob(index, item, unforeseen(error))
                for bucket, key, ranges in plan_ranges(wanted, gap, span):
                    yield RangesJob(bucket, key, ranges, parameters, verify=True)

        return self.run_jobs("get_ranges", jobs(), on_error, progress, ordered, items)

    aget_ranges = asynchronous(get_ranges)
    """As ``get_ranges``, for ``async for`` or ``await``."""

    @single
    def get_into(self, item: tuple[str, int, int], target: memoryview) -> Single[int]:
        """Fill the caller's memory with a range of one object; the bytes are received in place. Returns how many.

        Args:
            item: ``(key, start, length)``. The object must not change meanwhile.
            target: ``length`` writable bytes, which nobody may touch before the call returns. When it raises, some of
                them may have been written; none is any more.

        Raises:
            InvalidRange: the object ends within the range. Others as ``get_many``.
        """
        address = address_of(item, self.bucket)
        job = GetJob(
            0, item, address.bucket, address.key, start=address.start, stop=address.stop, target=target.cast("B")
        )
        return self._one("get_into", job, attrgetter("size"))

    aget_into = asynchronous_single(get_into)
    """As ``get_into``, for ``await``."""

    def read_many(
        self, items: Iterable[tuple[str, int, int, memoryview | None]], on_error: OnError = "raise", *,
        ordered: bool = False,
    ) -> BulkResult:  # fmt: skip
        """Many ranges of known length, each in requests of up to 16 MiB. Runs while you iterate.

        Args:
            items: ``(key, start, length, target)``: received in place where there is a target of ``length`` writable
                bytes, which is nobody else's until its outcome is there or the result is closed; else into
                ``outcome.data``. Consumed as there is room for more.

        Raises:
            InvalidRange: an object is shorter. Others as ``get_many``.
        """
        bucket = self.bucket

        def job(index: int, item: Any) -> Job:
            address = address_of(item[:3], bucket)
            if address.start is None or address.stop is None:
                raise InvalidKey("read_many takes (key, start ≥ 0, length, target)", found=f"{item!r:.80}")
            length = address.stop - address.start
            return ReadJob(index, item, address.bucket, address.key, start=address.start, length=length, target=item[3])

        plain = Plain("GetObject", bucket, targets=True, longest=downloads.SHORTEST_PIECE)
        return self.run_jobs("read_many", self._jobs(plain, items, job), on_error, None, ordered, items)

    aread_many = asynchronous(read_many)
    """As ``read_many``, for ``async for`` or ``await``."""

    # ---- putting ----------------------------------------------------------------------

    def put_many(
        self, items: Mapping[str, Any] | Iterable[Any], on_error: OnError = "raise", progress: Progress = None, *,
        content_type: str | None = None, metadata: Mapping[str, str] | None = None, encryption: str | None = None,
        kms_key: str | None = None, ordered: bool = True, stream: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """Store objects, each whole or not at all.

        Each is checked against its CRC where the service can; large ones go in parts, which are given up if the upload
        fails. Returns when all is stored. Buffers are sent without a copy, and must not change before their outcomes
        are there.

        Args:
            items: A mapping from key to data, or an iterable of ``(key, data)`` and ``PutItem``, which tells what data
                may be. A text is stored itself, and a ``pathlib.Path`` stands for the file: a text that a file is
                called as is warned of.
            on_error: As of ``get_many``.
            progress: As of ``get_many``.
            content_type: This and what follows holds for items that say nothing else: the Content-Type,
            metadata: user metadata,
            encryption: ServerSideEncryption,
            kms_key: SSEKMSKeyId, alone it means ``aws:kms``, and
            options: further parameters of PutObject and CreateMultipartUpload by their botocore names;
                ``ChecksumAlgorithm`` takes the place of the client's ``checksum``.
            ordered: As of ``get_many``.
            stream: Run while you iterate.

        Raises:
            Conflict: a condition of a ``PutItem`` did not hold.
            NotFound: no such bucket, or no such local file.
            AccessDenied: refused, or no credentials.
            InvalidKey: an item is none, or metadata cannot be sent.
            NotSerializable: data of a type that cannot be sent (a TypeError).
            BackendError: anything else, after the retries. Its hint says when it is unknown whether the object was
                stored.
        """
        warn_of_files(items)
        how = PutOptions(
            content_type, metadata, encryption, kms_key, options, self.checksum, self._encryption,
            self.transfers.options,
        )  # fmt: skip
        bucket = self.bucket

        def job(index: int, given: Any) -> Job:
            item = put_item(given)
            return how.job(index, item, *locate(item.key, bucket))

        pairs = items.items() if isinstance(items, Mapping) else items
        plain = None
        if not metadata and not any(
            name in CONDITIONS or str(name).startswith(SAYS_CHECKSUM) for name in options or ()
        ):
            longest = uploads.longest_single_put(self.service)
            plain = Plain("PutObject", bucket, how.given, checksum=how.checksum, longest=longest)
        result = self.run_jobs("put_many", self._jobs(plain, pairs, job), on_error, progress, ordered, items)
        return result if stream else result.wait()

    aput_many = asynchronous(put_many)
    """As ``put_many``, for ``async for`` or ``await``."""

    # ---- the rest ---------------------------------------------------------------------

    def head_many(
        self, items: Iterable[str], on_error: OnError = "raise", progress: Progress = None, *, ordered: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """Size, ETag, metadata and so on of each object, without its data. Runs while you iterate.

        Parameters and errors as ``get_many``; ``items`` are keys and URLs, ``options`` parameters of HeadObject.
        """
        parameters, bucket = _parameters(options), self.bucket
        plain = Plain("HeadObject", bucket, parameters)
        jobs = self._jobs(plain, items, lambda index, item: HeadJob(index, item, *locate(item, bucket), parameters))
        return self.run_jobs("head_many", jobs, on_error, progress, ordered, items)

    ahead_many = asynchronous(head_many)
    """As ``head_many``, for ``async for`` or ``await``."""

    def delete_many(
        self, items: Iterable[str], on_error: OnError = "raise", progress: Progress = None, *, stream: bool = False,
        ordered: bool = True, options: Mapping[str, Any] | None = None, if_match: Mapping[str, str] | None = None,
    ) -> BulkResult:  # fmt: skip
        """Delete objects, 1000 per request. An object that does not exist counts as deleted.

        Other parameters and errors as ``put_many``; ``options`` are parameters of DeleteObjects.

        Args:
            items: Keys and URLs.
            if_match: By key, the ETag that an object must still have, else Conflict. Not every service heeds it.
        """
        parameters = _parameters(options)

        jobs = delete_jobs(
            items, lambda item: locate(item, self.bucket), parameters, if_match, together=self.service.keys_per_delete
        )
        result = self.run_jobs("delete_many", jobs, on_error, progress, ordered, items)
        return result if stream else result.wait()

    adelete_many = asynchronous(delete_many)
    """As ``delete_many``, for ``async for`` or ``await``."""

    def copy(
        self, pairs: Mapping[str, str] | Iterable[tuple[str, str]], on_error: OnError = "raise",
        progress: Progress = None, *,
        stream: bool = False, ordered: bool = True, options: Mapping[str, Any] | None = None,
    ) -> BulkResult:  # fmt: skip
        """Copy objects within the service, with all that was said of them: headers, metadata, tags, storage class
        (but GLACIER and DEEP_ARCHIVE, of which the copy could not be read), encryption (of AES256, which all objects
        have, another bucket makes its own default), unless the client has one of its own. The bytes do not pass through
        this machine.

        Other parameters and errors as ``put_many``; ``options`` are parameters of CopyObject.

        Args:
            pairs: ``(from, to)`` or a mapping: keys and URLs.
        """
        parameters, bucket = _parameters(with_default(_mapping(options), self._encryption)), self.bucket

        def job(index: int, pair: Any) -> Job:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise InvalidKey("an item to copy is (from, to)", found=f"{pair!r:.80}")
            return CopyJob(index, pair, locate(pair[0], bucket), *locate(pair[1], bucket), parameters)

        items = pairs.items() if isinstance(pairs, Mapping) else pairs
        result = self.run_jobs("copy", jobs_of(items, job), on_error, progress, ordered, pairs)
        return result if stream else result.wait()

    acopy = asynchronous(copy)
    """As ``copy``, for ``async for`` or ``await``."""

    def list(
        self, prefixes: str | Iterable[str] = "", *, recursive: bool = True, start_after: str | None = None,
        page: int = 1000,
        options: Mapping[str, Any] | None = None,
    ) -> Listing[ListingEntry]:  # fmt: skip
        """The objects under one prefix or many, many prefixes at a time; pages are read as you iterate.

        Each prefix's entries come in key order, one prefix after the other.

        Args:
            prefixes: What keys begin with, or URLs that do.
            recursive: False stops at the next ``/``: what goes on there is one entry with ``is_prefix``.
            start_after: Leave out the keys up to this one.
            page: Keys per request, at most 1000.
            options: Further parameters of ListObjectsV2 by their botocore names.

        Raises:
            NotFound: the bucket does not exist.
            AccessDenied: it may not be listed.
        """
        return Listing(lambda: self._list(prefixes, recursive, start_after, page, options), entries)

    alist = asynchronous(list)  # noqa: A003 - the method above is meant
    """As ``list``, for ``async for``."""

    def list_each(self, prefixes: Sequence[str], *, recursive: bool = True) -> Listing[tuple[int, ListingEntry]]:
        """As ``list``, with the position among ``prefixes`` of the one that each entry lies under."""

        def numbered(outcome: Outcome) -> Iterator[tuple[int, ListingEntry]]:
            return ((outcome.index, entry) for entry in entries(outcome))

        return Listing(lambda: self._list([*prefixes], recursive, None, 1000, None), numbered)

    alist_each = asynchronous(list_each)
    """As ``list_each``, for ``async for``."""

    def _list(
        self, prefixes: str | Iterable[str], recursive: bool, start_after: str | None, page: int,
        options: Mapping[str, Any] | None,
    ) -> BulkResult:  # fmt: skip
        parameters, delimiter = _parameters(options), None if recursive else "/"

        def job(index: int, item: Any) -> Job:
            bucket, prefix = locate_prefix(item, self.bucket)
            return ListJob(
                index, item, bucket, prefix, parameters, delimiter=delimiter, start_after=start_after, page=page
            )

        items = [prefixes] if isinstance(prefixes, str) else prefixes
        ordered = len(items) > 1 if isinstance(items, list) else True
        return self.run_jobs("list", jobs_of(items, job), "raise", None, ordered, items)

    @single
    def ask(self, operation: str) -> Single[dict[str, Any]]:
        """The answer, by botocore's names, to an operation that takes nothing but the client's bucket.

        Args:
            operation: Its name, such as GetBucketLifecycleConfiguration.

        Raises:
            NotFound: nothing of the kind is configured.
            AccessDenied: it may not be asked.
            InvalidKey: the client has no bucket.
        """
        if self.bucket is None:
            raise InvalidKey("no bucket", hint='Give BulkClient(bucket="…")')
        return self._one("ask", ConfigurationJob(0, operation, self.bucket, operation), attrgetter("data"))

    aask = asynchronous_single(ask)
    """As ``ask``, for ``await``."""

    # ---- the handle -------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """What moves the bytes, chosen when first used. Unsupported when it cannot serve this configuration."""
        return self.transfers.engine

    def metrics(self) -> ClientMetrics:
        """What all operations of this client came to so far, those under way too: requests by operation and by how they
        ended, bytes, retries. For one operation there is ``stats`` of its result."""
        from mfstore.s3.bulk.metrics import client_metrics

        return client_metrics(self.transfers.traffic.now())

    def close(self) -> None:
        """Close the connections. Using the client again opens new ones."""
        self.transfers.close()

    async def aclose(self) -> None:
        """As ``close``, for ``await``."""
        import asyncio

        await asyncio.to_thread(self.close)

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
        await self.aclose()

    def __reduce__(self) -> tuple[Any, ...]:
        connection = self.options.connection
        if self.service is S3 and (connection.session is not None or connection.client is not None):
            raise TypeError(
                "a BulkClient made from a session or client does not pickle: describe it by profile, region and so on"
            )
        return _reopen, (self.options,)

    def __repr__(self) -> str:
        where = bucket_url(self.bucket) if self.bucket else "any bucket"
        return f"<BulkClient {where}>"

    # ---- internal: for what lies above in mfstore, for measurements and for tests -------------

    def run_jobs(
        self, operation: str, jobs: Iterator[Job], on_error: OnError = "raise", progress: Progress = None,
        ordered: bool = True, items: Iterable[Any] | None = None, files: bool = False,
    ) -> BulkResult:  # fmt: skip
        """Internal: the outcomes of ``jobs``, which are taken as there is room, under the name of an operation.
        ``items`` are what they were made of, to be counted and checked; ``files``: outcomes are files."""
        several(items)
        total = len(items) if isinstance(items, Sized) else None
        # In an event loop the engine is chosen when the operation begins, in a thread: that takes a tenth of a second.
        stats = BulkStats("" if _in_event_loop() else self.engine.name, operation)

        def start() -> Scheduler:
            stats.engine = self.engine.name
            return self.transfers.scheduler(jobs, stats, ordered)

        calls_back = items is not None and type(items) not in INERT
        effort = Effort(large=files or operation in LARGE, calls_back=calls_back)
        return BulkResult(start, stats, on_error=on_error, progress=progress, total=total, effort=effort)

    def _jobs(self, plain: Plain | None, items: Iterable[Any], make: Callable[[int, Any], Job]) -> Iterator[Job]:
        """A job for each item. With ``plain`` many may be requests without one."""
        several(items)
        return jobs_of(items, make) if plain is None else PlainJobs(plain, items, make)

    def _one(self, operation: str, job: Job, answer: Callable[[Outcome], Any]) -> Single[Any]:
        return Single(self.run_jobs(operation, iter([job])), answer)

    def run(self, operation: str, job: Job) -> Outcome:
        """Internal: the outcome of one job, under the name of an operation. Raises its error."""
        (outcome,) = self.run_jobs(operation, iter([job]))
        return outcome

    def with_parts(
        self, *, control: ControlPlane | None = None, engine: Engine | None = None, policy: RetryPolicy | None = None,
        quota: RetryQuota | None = None,
    ) -> Self:  # fmt: skip
        """Internal: the same client with other parts, one that was not used yet. ``control`` is made from
        ``options.connection``, ``engine`` mostly around this client's; None leaves a part as it is. Pickles as a
        client without them."""
        return self._with(self.transfers.with_parts(control=control, engine=engine, policy=policy, quota=quota))

    def beside(self, bucket: str, memory: int) -> Self:
        """Internal: a client for ``bucket`` with ``memory`` bytes of its own, that shares connections and all that is
        learned."""
        other = self._with(self.transfers.with_parts(engine=self.engine, memory=memory))
        other.bucket = bucket
        other.options = replace(self.options, bucket=bucket, memory=memory)
        return other

    def options_of_writes(self, parameters: Mapping[str, Any]) -> Options:
        """Internal: parameters of a request that writes, with the client's encryption where they say none."""
        return shared_options(with_default(parameters, self._encryption), self.transfers.options)

    def _with(self, transfers: Transfers) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)  # copy() would make one anew from its options, as pickle does
        other.transfers = transfers
        return other


def _place(bucket: str) -> str:
    """A bucket as settings of places name it."""
    return bucket if "://" in bucket else bucket_url(bucket)


def _in_event_loop() -> bool:
    """Whether an event loop runs in this thread."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _reopen(options: ClientOptions) -> BulkClient:
    client = object.__new__(BulkClient)
    client._make(options)
    return client


def _parameters(options: Mapping[str, Any] | None) -> Options:
    if isinstance(options, Options):
        return options  # of a caller that shares them between calls, for which requests are prepared once
    return Options(_mapping(options)) if options else NO_OPTIONS


def _mapping(options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if options is not None and not isinstance(options, Mapping):
        raise InvalidKey("options are a mapping of botocore's names to values", found=f"{options!a:.80}")
    return options or {}
