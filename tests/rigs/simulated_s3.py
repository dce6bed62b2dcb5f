"""S3 as a dict, behind the engine's interface: for what the scheduler does, call by call, without a network.

``plan`` maps the number of a call (from 1) to a failure word, an HTTP status, or a function of the call; ``lost``
numbers are carried out and their answer is lost.
"""

from __future__ import annotations

import functools
import hashlib
import random
import time
from email.utils import formatdate
from urllib.parse import parse_qsl, quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from mfstore._core import crc
from mfstore.s3.calls import CANCELLED, RESET, SHORT_BODY, WHOLE, FileRange, Reply
from mfstore.s3.engines.interface import Channel, Engine
from mfstore.s3.transfers.copies import DESCRIBED, ENCRYPTED, PLACED
from tests.rigs.control_planes import control_plane

CODES = {
    400: "InvalidRequest", 403: "AccessDenied", 404: "NoSuchKey", 409: "OperationAborted", 412: "PreconditionFailed",
    501: "NotImplemented", 503: "SlowDown",
}  # fmt: skip
SAID = {**DESCRIBED, **ENCRYPTED, **PLACED}
MIB = 1 << 20
BIG = random.Random(7).randbytes(40 * MIB)


class SimulatedS3(Engine):
    name = "simulated"

    def __init__(self, objects=None, plan=None, lost=(), body_faults=None, checksums=True, clock=None, ranges=True):
        self.objects = dict(objects or {})
        self.metadata = {}
        self.said = {}
        """By key: what else was said of it, by the names of PutObject's parameters."""
        self.tags = {}
        self.uploads = {}
        self.parts = {}
        self.plan = dict(plan or {})
        self.lost = set(lost)
        self.body_faults = dict(body_faults or {})
        self.checksums = checksums
        self.ranges = ranges
        """Whether it knows ranges and conditions of GETs; else the whole comes for each."""
        self.clock = clock
        """Tells the time of what is put; None: all objects are of one day."""
        self.modified = {}
        self.count = 0
        self.log = []
        self.most = 0
        self.first_byte = 0.03
        """Seconds after which answers say that they began."""
        self.rate = None
        """Bytes per second that bodies say they came with; None: as long as it really took."""
        self.nap = 0.02
        """Seconds after which who waits is told, at most, that nothing came."""
        self._begun = 0  # multipart uploads

    def channel(self):
        return SimulatedChannel(self)

    def close(self):
        pass

    # ---- what S3 does ----

    def etag(self, key):
        data = self.objects[key]
        sizes = self.parts.get((key, data), (len(data),))
        if len(sizes) == 1:
            return f'"{hashlib.md5(data).hexdigest()}"'
        joined, at = b"", 0
        for size in sizes:
            joined += hashlib.md5(data[at : at + size]).digest()
            at += size
        return f'"{hashlib.md5(joined).hexdigest()}-{len(sizes)}"'

    def answer(self, call):
        """(status, headers, body)"""
        handler = getattr(self, f"_{call.operation}")
        return handler(call)

    def _error(self, status, code):
        return status, {}, f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()

    def _headers(self, key):
        data = self.objects[key]
        headers = {"etag": self.etag(key), "content-length": str(len(data)), "x-amz-request-id": "R1"}
        if self.checksums:
            headers["x-amz-checksum-crc64nvme"] = crc.encode("CRC64NVME", crc.update("CRC64NVME", data))
        if key in self.modified:
            headers["last-modified"] = formatdate(self.modified[key], usegmt=True)
        headers.update({f"x-amz-meta-{k}": v for k, v in self.metadata.get(key, {}).items()})
        said = {name: header for header, name in SAID.items()}
        headers.update({said[name]: value for name, value in self.said.get(key, {}).items()})
        if key in self.tags:
            headers["x-amz-tagging-count"] = str(len(self.tags[key]))
        return headers

    def _HeadObject(self, call):
        return (200, self._headers(call.key), b"") if call.key in self.objects else (404, {}, b"")

    def _GetObject(self, call):
        if call.key not in self.objects:
            return self._error(404, "NoSuchKey")
        data, headers = self.objects[call.key], self._headers(call.key)
        if not self.ranges:
            return 200, headers, data
        if call.if_match is not None and call.if_match != headers["etag"]:
            return self._error(412, "PreconditionFailed")
        if call.start is None and call.stop is None:
            return 200, headers, data
        headers.pop("x-amz-checksum-crc64nvme", None)
        start = call.start or 0
        start = max(len(data) + start, 0) if start < 0 else start
        stop = len(data) if call.stop is None else min(call.stop, len(data))
        if start >= len(data):
            return self._error(416, "InvalidRange")
        headers["content-range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        headers["content-length"] = str(stop - start)
        return 206, headers, data[start:stop]

    def _body(self, call):
        if isinstance(call.body, FileRange):
            import os

            return os.pread(call.body.fd, call.body.length, call.body.offset)
        return b"".join(call.body)

    def _precondition(self, call):
        if call.if_none_match and call.key in self.objects:
            return self._error(412, "PreconditionFailed")
        if call.if_match is not None and (call.key not in self.objects or self.etag(call.key) != call.if_match):
            return self._error(412, "PreconditionFailed")
        return None

    def _PutObject(self, call):
        refused = self._precondition(call)
        if refused:
            return refused
        self.objects[call.key] = self._body(call)
        self._written(call.key)
        self.metadata[call.key] = dict(call.metadata or {})
        self._say(call.key, call.options)
        return 200, {"etag": self.etag(call.key)}, b""

    def _written(self, key):
        if self.clock is not None:
            self.modified[key] = float(int(self.clock()))

    def _CreateMultipartUpload(self, call):
        self._begun += 1
        name = f"u{self._begun}"
        self.uploads[name] = (call.key, {}, dict((call.params or {}).get("Metadata", {})))
        self._say(call.key, {**call.options, **(call.params or {})})
        body = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
        return 200, {}, body.encode()

    def _UploadPart(self, call):
        if call.upload not in self.uploads:
            return self._error(404, "NoSuchUpload")
        data = self._body(call)
        self.uploads[call.upload][1][call.part] = data
        return 200, {"etag": f'"{hashlib.md5(data).hexdigest()}"'}, b""

    def _CompleteMultipartUpload(self, call):
        name = call.params["UploadId"]
        if name not in self.uploads:
            return self._error(404, "NoSuchUpload")
        refused = self._precondition(call)
        if refused:
            return refused
        key, parts, metadata = self.uploads.pop(name)
        numbers = [part["PartNumber"] for part in call.params["MultipartUpload"]["Parts"]]
        assert numbers == sorted(parts)
        self.objects[key] = b"".join(parts[number] for number in numbers)
        self._written(key)
        self.metadata[key] = metadata
        self.parts[key, self.objects[key]] = tuple(len(parts[number]) for number in numbers)
        return 200, {}, b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"

    def _AbortMultipartUpload(self, call):
        self.uploads.pop(call.params["UploadId"], None)
        return 204, {}, b""

    def _say(self, key, params):
        self.said[key] = {name: value for name, value in params.items() if name in SAID.values()}
        if "Tagging" in params:
            self.tags[key] = dict(parse_qsl(params["Tagging"]))

    def _UploadPartCopy(self, call):
        source = self.objects[call.params["CopySource"]["Key"]]
        first, last = map(int, call.params["CopySourceRange"].removeprefix("bytes=").split("-"))
        data = source[first : last + 1]
        self.uploads[call.params["UploadId"]][1][call.params["PartNumber"]] = data
        return 200, {}, f'<CopyPartResult><ETag>"{hashlib.md5(data).hexdigest()}"</ETag></CopyPartResult>'.encode()

    def _GetObjectTagging(self, call):
        rows = "".join(
            f"<Tag><Key>{escape(name)}</Key><Value>{escape(value)}</Value></Tag>"
            for name, value in self.tags.get(call.key, {}).items()
        )
        return 200, {}, f"<Tagging><TagSet>{rows}</TagSet></Tagging>".encode()

    def _CopyObject(self, call):
        """As S3 has it: a copy has its source's tags and, unless they are replaced, headers and metadata. Encryption
        and storage class are those that are asked for."""
        source, params = call.params["CopySource"]["Key"], {**call.options, **call.params}
        replaced = params.get("MetadataDirective") == "REPLACE"
        if source == call.key and not replaced:
            return self._error(400, "InvalidRequest")
        said = {} if replaced else {name: self.said.get(source, {}).get(name) for name in DESCRIBED.values()}
        self.objects[call.key] = self.objects[source]
        self._written(call.key)
        self.metadata[call.key] = dict(params.get("Metadata", {}) if replaced else self.metadata.get(source, {}))
        if source in self.tags:
            self.tags[call.key] = self.tags[source]
        self._say(call.key, {**{name: value for name, value in said.items() if value is not None}, **params})
        return 200, {}, f"<CopyObjectResult><ETag>{self.etag(call.key)}</ETag></CopyObjectResult>".encode()

    def _DeleteObject(self, call):
        if call.if_match is not None and call.key in self.objects and self.etag(call.key) != call.if_match:
            return self._error(412, "PreconditionFailed")
        self.objects.pop(call.key, None)
        return 204, {}, b""

    def _DeleteObjects(self, call):
        for entry in call.params["Delete"]["Objects"]:
            try:
                ElementTree.fromstring(f"<Key>{escape(entry['Key'])}</Key>")
            except ElementTree.ParseError:
                return self._error(400, "MalformedXML")
        for entry in call.params["Delete"]["Objects"]:
            self.objects.pop(entry["Key"], None)
        return 200, {}, b"<DeleteResult></DeleteResult>"

    def _GetBucketLifecycleConfiguration(self, call):
        return self._error(404, "NoSuchLifecycleConfiguration")

    def _GetBucketVersioning(self, call):
        return 200, {}, b"<VersioningConfiguration/>"

    def _day(self, key):
        if key not in self.modified:
            return "2026-01-01T00:00:00.000Z"
        return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(self.modified[key]))

    def _names_from(self, first):
        """The keys from this one on, in their order."""
        return sorted(key for key in self.objects if key >= first)

    def _ListObjectsV2(self, call):
        prefix, size = call.params["Prefix"], call.params["MaxKeys"]
        after = call.params.get("ContinuationToken") or call.params.get("StartAfter") or ""
        delimiter = call.params.get("Delimiter")
        page, folders, last, more = [], [], "", False
        for key in self._names_from(max(prefix, after)):
            if not key.startswith(prefix) or key <= after or (folders and key.startswith(folders[-1])):
                if key > prefix and not key.startswith(prefix):
                    break
                continue
            if delimiter and after.endswith(delimiter) and key.startswith(after):
                continue  # a folder that an earlier page ended with
            if len(page) + len(folders) == size:
                more = True
                break
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                folders.append(key[: cut + 1])
                last = folders[-1]
            else:
                page.append(key)
                last = key
        rows = "".join(
            f"<Contents><Key>{escape(quote(key))}</Key><Size>{len(self.objects[key])}</Size>"
            f"<LastModified>{self._day(key)}</LastModified><ETag>{self.etag(key)}</ETag></Contents>"
            for key in page
        ) + "".join(f"<CommonPrefixes><Prefix>{escape(quote(name))}</Prefix></CommonPrefixes>" for name in folders)
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        body = (
            f"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{token}{rows}</ListBucketResult>"
        )
        ElementTree.fromstring(body)
        return 200, {}, body.encode()


class SimulatedChannel(Channel):
    def __init__(self, world):
        self._world = world
        self._queue = []
        self._waiting = {}
        self.closed = False

    def submit(self, calls):
        self._queue += [(call, time.monotonic()) for call in calls]
        self._world.most = max(self._world.most, len(self._queue) + len(self._waiting))

    def _carry_out(self, call, at):
        world = self._world
        world.count += 1
        number = world.count
        world.log.append((call.operation, call.key))
        reply = Reply(call, submitted=at)
        planned = world.plan.get(number)
        if callable(planned):
            planned = planned(call)
        if isinstance(planned, str):
            return self._end(reply, failure=planned)
        if isinstance(planned, int):
            status, _, body = world._error(planned, CODES.get(planned, "InternalError"))
            return self._end(reply, status=status, data=body)
        status, headers, body = world.answer(call)
        if number in world.lost:
            return self._end(reply, failure=RESET)
        reply.status, reply.headers, reply.first_byte = status, headers, at + world.first_byte
        fault = world.body_faults.get(number)
        if fault is not None and body:
            body, reply.failure = fault(body)
        if status >= 300 or call.operation != "GetObject":
            reply.checksum = (
                self._sum(call.checksum, world._body(call)) if call.body is not None and call.checksum else None
            )
            return self._end(reply, data=body)
        name = "CRC64NVME" if "x-amz-checksum-crc64nvme" in headers else call.checksum
        if call.target is None and len(body) > SHORT_BODY:
            self._waiting[id(call)] = call, reply, name, body
            return Reply(call, status, headers=headers, announced=True, submitted=at, first_byte=reply.first_byte)
        if call.target is None:
            reply.checksum = self._sum(name, body)
            return self._end(reply, data=body, received=len(body))
        if (call.start is not None or call.stop is not None) and status == 200:
            if not call.cut:
                return self._end(reply, failure=WHOLE)
            name, body = call.checksum, body[call.start or 0 : call.stop]
        return self._land(call, reply, name, body, call.target)

    def _sum(self, name, data):
        return (name, crc.update(name, data)) if name else None

    def _land(self, call, reply, name, body, target):
        if isinstance(target, FileRange):
            import os

            os.pwrite(target.fd, body, target.offset)
        else:
            assert len(body) <= len(target)
            target[: len(body)] = body
        reply.checksum = self._sum(name, body)
        return self._end(reply, received=len(body))

    def _end(self, reply, **fields):
        for name, value in fields.items():
            setattr(reply, name, value)
        reply.finished = time.monotonic()
        if self._world.rate and reply.first_byte:
            reply.finished = max(reply.first_byte, reply.call.tag.flows) + reply.received / self._world.rate
        return reply

    def poll(self, timeout):
        if not self._queue and timeout:
            time.sleep(min(timeout, self._world.nap))
        queue, self._queue = self._queue, []
        return [item if isinstance(item, Reply) else self._carry_out(*item) for item in queue]

    def resume(self, call, target, stop=None, skip=0):
        call, reply, name, body = self._waiting.pop(id(call))
        self._queue.append(self._land(call, reply, name, body[skip:][:stop], target))

    def cancel(self, call):
        if self._waiting.pop(id(call), None):
            self._queue.append(self._end(Reply(call), failure=CANCELLED))
            return
        for place, entry in enumerate(self._queue):
            if not isinstance(entry, Reply) and entry[0] is call:
                self._queue[place] = self._end(Reply(call), failure=CANCELLED)

    def flowing(self):
        return 0

    def fileno(self):
        raise NotImplementedError

    def close(self):
        self.closed = True
        self._queue.clear()
        self._waiting.clear()


def simulated_client(world, **arguments):
    """A BulkClient on a simulated S3."""
    from mfstore.s3 import BulkClient

    arguments.setdefault("attempts", 5)
    return BulkClient("b", **arguments).with_parts(control=_control(), engine=world)


@functools.cache
def _control():
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "s"}
    return control_plane(endpoint_url="http://127.0.0.1:1", region="us-east-1", **keys)
