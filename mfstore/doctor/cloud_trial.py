"""What is tried otherwise in Azure and Google Cloud than in S3: conditions are theirs and need no finding out, objects
are deleted one by one, and uploads that nobody ends go by themselves."""

from __future__ import annotations

from functools import partial
from typing import Any

from mfstore.doctor.trial import BODY, Run
from mfstore.errors import BackendError, Conflict, Unsupported
from mfstore.s3.calls import Call
from mfstore.s3.transfers.copies import CopyJob
from mfstore.s3.transfers.deletions import DeleteOneJob
from mfstore.s3.transfers.metadata import HeadJob
from mfstore.s3.transfers.uploads import SingleCallJob

PARTS = ("multipart-part", "multipart-complete")


class CloudRun(Run):
    """One trial, in Azure or Google Cloud."""

    puts = ("put", "put-if-none-match", "put-if-match", "copy", "multipart-create", *PARTS)
    deletes = ("delete", "delete-if-match")

    @property
    def _service(self) -> Any:
        return self._backend.client.service

    def _put_job(self, **more: Any) -> Any:
        return super()._put_job(**{"checksum": self._service.checksum, **more})

    def _change(self) -> None:
        self._try("put-if-none-match", self._put_what_is_there)
        self._try("put-if-match", self._put_on_a_condition)
        place = (self._bucket, self._key)
        self._try("copy", lambda: self._one(CopyJob(0, self._key, place, *place, self._options)))

    def _put_what_is_there(self) -> None:
        self._refused(self._put_job(if_none_match=True), "writes of what is to be new")

    def _put_on_a_condition(self) -> None:
        old = self._stored()
        new = self._one(self._put_job(if_match=old)).etag
        self._refused(self._put_job(if_match=old), "writes of what is to replace something")
        if new == old:
            raise Unsupported("the service gives the same tag to what is stored twice: changes cannot be noticed")

    def _stored(self) -> str:
        etag = self._one(self._put_job()).etag
        if not etag:
            raise Unsupported("the service gives no tags, so that changes cannot be noticed")
        return etag

    def _refused(self, job: Any, what: str) -> None:
        """What is done on a condition that does not hold. Unsupported when it is done all the same."""
        try:
            self._one(job)
        except Conflict:
            return
        raise Unsupported(f"the service does not heed conditions of {what}: it would overwrite what others wrote")

    def _checksums(self) -> None:
        for name in self._service.checksums:
            job = self._put_job(checksum=name)
            self.trial.checksums[name] = self._attempt(name, partial(self._kept, job))

    def _in_parts(self) -> None:
        created = self._upload("multipart-create")
        if created is None:
            for name in PARTS:
                self._untried(name, "no upload could be begun")
            return
        if self._service.ordered_parts:  # the last part ends it
            self._try("multipart-part", lambda: self._last_part(created))
            self._as("multipart-complete", "multipart-part")
        else:
            parts: list[dict[str, Any]] = []
            self._try("multipart-part", lambda: parts.append(self._send_part(created)))
            if parts:
                self._try("multipart-complete", lambda: self._complete(created, parts))
            else:
                self._untried("multipart-complete", "no part could be sent")

    def _last_part(self, upload: str) -> None:
        params = {"Offset": 0, "Length": len(BODY), "Before": 0, "Total": len(BODY)}
        call = Call("UploadPart", self._bucket, self._key, self._options, params, body=[BODY], part=1, upload=upload)
        self._one(SingleCallJob(call))
        self._uploads.remove(upload)

    def _left_open(self, url: str, upload: str) -> None:
        """Both let go of it after a week. Who has the name of an upload to Google may write to it: it is not shown."""

    def _delete(self) -> None:
        if self._try("delete", self._delete_one).answer != "allowed":
            self._as("delete-if-match", "delete")
            return
        self._try("delete-if-match", self._delete_on_a_condition)

    def _delete_on_a_condition(self) -> None:
        old, new = self._stored(), self._stored()
        self._refused(self._deletion(old), "deletions")
        (there,) = self._transfers.run(iter((HeadJob(0, self._key, self._bucket, self._key),)))
        if there.error is not None:
            raise BackendError("what a deletion was refused for was deleted") from there.error
        self._one(self._deletion(new))

    def _deletion(self, etag: str) -> DeleteOneJob:
        return DeleteOneJob(0, "", self._bucket, self._key, match=etag)
