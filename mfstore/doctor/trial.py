"""Every operation that mfstore makes in a bucket, tried once for real in a place, on an object of its own that is
removed again. What it means is decided in ``rights``; what is otherwise in Azure and Google Cloud is in
``cloud_trial``."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

from mfstore.doctor.tried import SCRATCH, Trial, Tried
from mfstore.errors import AccessDenied, BackendError, MfstoreError, NotFound, Unsupported
from mfstore.s3.calls import NO_OPTIONS, Call, Options
from mfstore.s3.transfers.copies import CopyJob
from mfstore.s3.transfers.deletions import DeleteJob, DeleteOneJob
from mfstore.s3.transfers.downloads import GetJob
from mfstore.s3.transfers.listings import ListJob, entries
from mfstore.s3.transfers.metadata import HeadJob
from mfstore.s3.transfers.uploads import PutJob, SingleCallJob, UploadSource
from mfstore.s3.urls import bucket_url, scheme_of

if TYPE_CHECKING:
    from mfstore.backends.buckets import BucketBackend
    from mfstore.backends.s3.backend import S3Backend
    from mfstore.s3.transfers.jobs import Job
    from mfstore.s3.transfers.outcomes import Outcome

logger = logging.getLogger("mfstore.doctor")
LATE_SECONDS = 0.5
"""After which it is looked once more for what an interruption has left."""
BODY = b"mfstore doctor was here; this object may be deleted\n"


PARTS: Sequence[str] = (
    "multipart-part", "multipart-list-parts", "multipart-list-uploads", "multipart-complete", "multipart-abort",
)  # fmt: skip


def tried(
    backend: BucketBackend, *, may_put: str = "", versioned: bool | None = False, folders: Sequence[str] = (),
    shared: str = "", by: type[Run] | None = None,
) -> Trial:  # fmt: skip
    """Try every operation below a place.

    Args:
        backend: The place.
        may_put: Why nothing is to be put there; empty: it may be.
        versioned: Whether the bucket keeps versions, which are removed as well; None: that is not known.
        folders: Where below the place to put, should it be refused right there: a policy may be of one flow.
        shared: The folder from which a collection deletes; empty: there is none yet.
        by: How it is tried; None: as in S3.
    """
    run = (by or Run)(backend, versioned, folders, shared)
    try:
        run.everything(may_put)
    except BaseException:
        run.clean()
        run.clean_late()
        raise
    run.clean()
    return run.trial


class Run:
    """One trial, in S3."""

    puts: Sequence[str] = ("put", "put-if-none-match", "put-if-match", "copy", "multipart-create", *PARTS)
    """What puts something, by name: the first is tried before the others."""
    deletes: Sequence[str] = ("delete", "delete-many", "delete-if-match")

    def __init__(self, backend: BucketBackend, versioned: bool | None, folders: Sequence[str], shared: str) -> None:
        self.trial = Trial(backend.bucket, backend.prefix)
        self._folders = folders
        self._shared = shared
        self._backend = backend
        self._transfers = backend.client.transfers
        self._bucket = backend.bucket
        self._versioned = versioned
        self._options: Options = self._in_s3.put_options if scheme_of(backend.bucket) == "s3" else NO_OPTIONS
        self._name = f"{SCRATCH}{os.urandom(8).hex()}"
        self._key = f"{backend.prefix}{self._name}"
        self._there = False
        """Whether the object may be there."""
        self._uploads: list[str] = []
        self._markers: list[tuple[str, str]] = []
        """Keys and versions of markers that deletions have left."""

    # ---- what is tried ----------------------------------------------------------------

    def everything(self, may_put: str) -> None:
        """Try all that there is; ``may_put`` as of ``tried``."""
        sample = self._list()
        if self.trial.unreachable is not None:
            return
        if may_put:
            for name in (*self.puts, *self.deletes):
                self._untried(name, may_put)
        else:
            self._put()
        put = self.trial.allows("put")
        self._read(self._key if put else sample)
        if put:
            self._change()
            self._checksums()
            self._in_parts()
            self._delete()
        elif not may_put:
            for name in self.puts[1:]:
                self._untried(name, "nothing could be put")
            self._delete_nothing("delete", self._key)
            for name in self.deletes[1:]:
                self._as(name, "delete")
        if self._shared:
            self._delete_nothing("delete-shared", f"{self._backend.prefix}{self._shared}{self._name}")

    def _list(self) -> str | None:
        """An object that is there."""
        found: list[str] = []

        def look() -> None:
            job = ListJob(0, "", self._bucket, self._backend.prefix, page=10, most=1)
            for outcome in self._transfers.run(iter((job,))):
                if outcome.error is not None:
                    raise outcome.error
                found.extend(entry.key for entry in entries(outcome) if entry.size)

        listed = self._try("list", look)
        error = listed.error
        if error is not None:
            keys_refused = isinstance(error, AccessDenied) and not error.rights
            if error.status is None or keys_refused or isinstance(error, NotFound):
                self.trial.unreachable = error
        return next((key for key in found if SCRATCH not in key), None)

    def _put(self) -> None:
        self._there = True  # a request that is not answered may have been carried out
        put = self._try("put", lambda: self._note(self._one(self._put_job())))
        for folder in self._folders if put.answer == "refused" else ():
            above, self._key = self._key, f"{self._backend.prefix}{folder}{self._name}"
            below = self._attempt("put", lambda: self._note(self._one(self._put_job())))
            if below.answer == "allowed":
                put = self.trial.tried["put"] = below
                put.note = f"in {folder}, and not beside it"
                break
            self._key = above
        status = None if put.error is None else put.error.status
        self._there = put.answer == "allowed" or (put.answer == "failed" and (status is None or status >= 500))
        if self._versioned is None and put.answer == "allowed":
            self._versioned = "x-amz-version-id" in self.trial.headers

    def _read(self, key: str | None) -> None:
        """Look at, get, and get a range of an object; of none, where that alone tells."""
        absent = key is None
        where = self._key if key is None else key

        def asked(job: Job) -> Callable[[], None]:
            def ask() -> None:
                (outcome,) = self._transfers.run(iter((job,)))
                if absent and isinstance(outcome.error, NotFound):
                    return  # who may not is not told
                if outcome.error is not None:
                    raise outcome.error
                self._note(outcome)
                if key == self._key and isinstance(job, GetJob) and bytes(outcome.data) not in (BODY, BODY[:6]):
                    raise BackendError("other bytes came back than were put", found=f"{bytes(outcome.data)[:80]!r}")

            return ask

        self._try("head", asked(HeadJob(0, where, self._bucket, where)))
        self._try("range", asked(GetJob(0, where, self._bucket, where, start=0, stop=6)))
        if key == self._key or absent:
            self._try("get", asked(GetJob(0, where, self._bucket, where)))
        else:  # it may be large
            self._as("get", "range")

    def _change(self) -> None:
        conditions = self._in_s3.conditions
        for name, kind in (("put-if-none-match", "new"), ("put-if-match", "match")):
            self._try(name, lambda kind=kind: conditions.tried(kind, self._key))  # type: ignore[misc]
        place = (self._bucket, self._key)
        self._try("copy", lambda: self._one(CopyJob(0, self._key, place, *place, self._options)))

    def _checksums(self) -> None:
        found = self.trial.checksums
        for algorithm in ("CRC64NVME", "CRC32C", "CRC32"):
            found[algorithm] = self._attempt(algorithm, lambda of=algorithm: self._kept(self._put_job(checksum=of)))  # type: ignore[misc]
        digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
        found["SHA256"] = self._attempt("SHA256", lambda: self._put_with(ChecksumSHA256=digest))
        self._look_for_checksums()
        # No error: it was taken.
        found["wrong"] = self._attempt("wrong", lambda: self._put_with(ChecksumCRC32C="AAAAAA=="))

    def _put_with(self, **checksum: str) -> None:
        """Put the object with a checksum that is given: the engines send none but those that they compute."""
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        from mfstore.s3.aws import sessions
        from mfstore.s3.aws.errors import local
        from mfstore.s3.aws.settings import KEY_OPTIONS

        settings = self._backend.client.options.connection
        found = self._transfers.control.credentials()
        values = () if found is None else (found.access_key, found.secret_key, found.token)
        keys = {name: value for name, value in zip(KEY_OPTIONS, values, strict=False) if value}
        config = sessions.config_for(settings).merge(Config(retries={"total_max_attempts": 2}))
        client = sessions.client_for(settings, sessions.session_for(settings), config, keys)
        try:
            client.put_object(Bucket=self._bucket, Key=self._key, Body=BODY, **self._options, **checksum)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            kind = Unsupported if status in (405, 501) else BackendError
            raise kind(str(error)[:300], status=status) from None
        except BotoCoreError as error:
            raise local(error) from None
        finally:
            client.close()

    def _kept(self, job: Job) -> None:
        self._one(job)
        self._look_for_checksums()

    def _look_for_checksums(self) -> None:
        got = self._one(GetJob(0, self._key, self._bucket, self._key))
        prefix = "x-amz-checksum-"
        told = {name.removeprefix(prefix).upper() for name in got.headers if name.startswith(prefix)} - {"TYPE"}
        self.trial.kept = tuple(dict.fromkeys((*self.trial.kept, *sorted(told))))

    def _in_parts(self) -> None:
        created = self._upload("multipart-create")
        if created is None:
            for name in PARTS:
                self._untried(name, "no upload could be begun")
            return
        parts: list[dict[str, Any]] = []
        self._try("multipart-part", lambda: parts.append(self._send_part(created)))
        self._try("multipart-list-parts", lambda: self._call("ListParts", {"UploadId": created}))
        prefix = {"Prefix": self._key}
        self._try("multipart-list-uploads", lambda: self._call("ListMultipartUploads", prefix, key=False))
        if parts:
            self._try("multipart-complete", lambda: self._complete(created, parts))
        else:
            self._untried("multipart-complete", "no part could be sent")
        second = created if created in self._uploads else self._upload("")
        if second is None:
            self._untried("multipart-abort", "no upload could be begun")
            return

        def abort() -> None:
            self._call("AbortMultipartUpload", {"UploadId": second})
            self._uploads.remove(second)

        self._try("multipart-abort", abort)
        if second in self._uploads and parts:  # then let it become the object, which can be removed, or is one anyway
            with suppress(MfstoreError):
                self._complete(second, [self._send_part(second)])

    def _send_part(self, upload: str) -> dict[str, Any]:
        """Send what is put as the only part of an upload, which is named as completing it does."""
        call = Call("UploadPart", self._bucket, self._key, self._options, body=[BODY], part=1, upload=upload)
        return {"PartNumber": 1, "ETag": self._one(SingleCallJob(call)).headers["etag"]}

    def _complete(self, upload: str, parts: Sequence[dict[str, Any]]) -> None:
        self._call("CompleteMultipartUpload", {"UploadId": upload, "MultipartUpload": {"Parts": parts}})
        self._uploads.remove(upload)

    def _upload(self, name: str) -> str | None:
        opened: list[str] = []

        def begin() -> None:
            opened.append(self._call("CreateMultipartUpload", {})["UploadId"])
            self._uploads.append(opened[0])

        (self._try if name else self._attempt)(name, begin)
        return opened[0] if opened else None

    def _delete(self) -> None:
        if self._try("delete", self._delete_one).answer != "allowed":
            for name in self.deletes[1:]:
                self._as(name, "delete")
            return
        self._try("delete-if-match", lambda: self._in_s3.conditions.tried("delete", self._key))
        self._try("delete-many", lambda: self._one(DeleteJob(self._bucket, [(0, "", self._key)])))

    def _delete_one(self) -> None:
        self._one(DeleteOneJob(0, "", self._bucket, self._key))

    def _delete_nothing(self, name: str, key: str) -> None:
        """Whether something may be deleted, by a name that nobody has. A marker that it leaves is removed."""

        def delete() -> None:
            headers = self._one(DeleteOneJob(0, "", self._bucket, key)).headers
            if headers.get("x-amz-delete-marker") == "true" and headers.get("x-amz-version-id"):
                self._markers.append((key, headers["x-amz-version-id"]))

        self._try(name, delete)

    # ---- nothing stays ------------------------------------------------------------------

    def clean(self) -> None:
        """Remove what is left, and note what cannot be removed."""
        url = bucket_url(self._bucket, self._key)
        self.trial.left.clear()
        for upload in self._uploads:
            given = self._attempt("", lambda of=upload: self._call("AbortMultipartUpload", {"UploadId": of}))  # type: ignore[misc]
            if given.error is not None and not isinstance(given.error, NotFound):
                self._left_open(url, upload)
        if self._there and self._attempt("", self._delete_one).error is not None and self._is_there():
            self.trial.left.append(url)
        for key, version in self._markers:
            call = Call("DeleteObject", self._bucket, key, Options(VersionId=version))
            if self._attempt("", lambda call=call: self._one(SingleCallJob(call))).error is not None:  # type: ignore[misc]
                self.trial.left.append(f"{bucket_url(self._bucket, key)} (version {version})")
        if self._versioned and self._there:
            self._remove_versions(url)

    def _left_open(self, url: str, upload: str) -> None:
        self.trial.left.append(f"{url} (upload {upload})")

    def clean_late(self) -> None:
        """Once more, after an interruption: a request that was let go is carried out a moment later, and nobody has
        heard which upload it began."""
        sleep(LATE_SECONDS)
        with suppress(MfstoreError):
            answer = self._call("ListMultipartUploads", {"Prefix": self._key}, key=False)
            rows = answer.get("Uploads") or ()
            self._uploads = [row["UploadId"] for row in rows if row.get("Key") == self._key]
        self._there = True
        self.clean()
        for left in self.trial.left:  # there will be no report
            logger.warning("left behind: %s", left)

    def _is_there(self) -> bool:
        (outcome,) = self._transfers.run(iter((HeadJob(0, self._key, self._bucket, self._key),)))
        return not isinstance(outcome.error, NotFound)

    def _remove_versions(self, url: str) -> None:
        found: list[str] = []

        def look() -> None:
            answer = self._call("ListObjectVersions", {"Prefix": self._key}, key=False)
            rows = (*answer.get("Versions", ()), *answer.get("DeleteMarkers", ()))
            found.extend(row["VersionId"] for row in rows if row["Key"] == self._key)

        def remove() -> None:
            for version in list(found):
                self._one(SingleCallJob(Call("DeleteObject", self._bucket, self._key, Options(VersionId=version))))
                found.remove(version)

        listed = self._try("list-versions", look)
        if listed.answer == "refused":
            self._untried("delete-version", "versions may not be listed")
            self.trial.left.append(f"{url} (its versions)")
            return
        self._try("delete-version", remove)
        self.trial.left += [f"{url} (version {version})" for version in found]

    @property
    def _in_s3(self) -> S3Backend:
        found: Any = self._backend
        return found  # type: ignore[no-any-return]

    # ---- how -----------------------------------------------------------------------------

    def _put_job(self, **more: Any) -> Job:
        source = UploadSource([BODY], None)
        return PutJob(0, self._key, self._bucket, self._key, self._options, source=source, **more)

    def _one(self, job: Job) -> Outcome:
        return self._transfers.one(job)

    def _call(self, operation: str, params: dict[str, Any], *, key: bool = True) -> dict[str, Any]:
        call = Call(operation, self._bucket, self._key if key else None, self._options, params)
        found: dict[str, Any] = self._one(SingleCallJob(call)).data
        return found

    def _note(self, outcome: Outcome) -> None:
        self.trial.headers |= dict(outcome.headers)

    def _try(self, name: str, act: Callable[[], Any]) -> Tried:
        self.trial.tried[name] = found = self._attempt(name, act)
        return found

    def _as(self, name: str, other: str) -> None:
        """It takes the same right as another, which was tried."""
        found = self.trial.tried[other]
        self.trial.tried[name] = Tried(name, found.answer, found.error, found.seconds, found.note)

    def _untried(self, name: str, why: str) -> None:
        self.trial.tried.setdefault(name, Tried(name, "untried", note=why))

    def _attempt(self, name: str, act: Callable[[], Any]) -> Tried:
        begin = perf_counter()
        try:
            act()
        except AccessDenied as error:
            return Tried(name, "refused", error, perf_counter() - begin)
        except Unsupported as error:
            return Tried(name, "absent", error, perf_counter() - begin)
        except MfstoreError as error:
            return Tried(name, "failed", error, perf_counter() - begin)
        return Tried(name, "allowed", None, perf_counter() - begin)
