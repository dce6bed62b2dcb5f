"""What is known of an object without its data, and of a bucket without its objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mfstore.s3.calls import Call, Reply
from mfstore.s3.transfers.jobs import NO_CALLS, Job, Try, etag_of, length_of

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane


class HeadJob(Job):
    """Size, ETag, metadata and so on of an object (HeadObject)."""

    __slots__ = ()

    def begin(self) -> Sequence[Call]:
        return (Call("HeadObject", self.bucket, self.key, self.options, tag=Try(self)),)

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        self.outcome = self._outcome(size=length_of(reply), etag=etag_of(reply.headers), headers=reply.headers)
        return NO_CALLS


class ConfigurationJob(Job):
    """How a bucket is configured: ``key`` is the operation that asks, which takes nothing but the bucket. The outcome's
    ``data`` is the answer, by botocore's names."""

    __slots__ = ()

    def begin(self) -> Sequence[Call]:
        return (Call(self.key, self.bucket, None, self.options, tag=Try(self)),)

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        self.outcome = self._outcome(data=control.parse(call, reply), headers=reply.headers)
        return NO_CALLS


class RetentionJob(Job):
    """The retention of an object (GetObjectRetention): the outcome's ``data``, by botocore's names."""

    __slots__ = ()

    def begin(self) -> Sequence[Call]:
        return (Call("GetObjectRetention", self.bucket, self.key, self.options, tag=Try(self)),)

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        self.outcome = self._outcome(data=control.parse(call, reply), headers=reply.headers)
        return NO_CALLS
