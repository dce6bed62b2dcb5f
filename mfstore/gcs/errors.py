"""What an answer of Google Cloud Storage means that is not what was asked for: whether to ask again, and the error that
says what to do next. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from html import unescape

from mfstore.errors import (
    AccessDenied,
    BackendError,
    Conflict,
    InvalidKey,
    MfstoreError,
    NotFound,
    Unsupported,
)
from mfstore.gcs import rights
from mfstore.s3 import calls
from mfstore.s3.aws import errors as shared
from mfstore.s3.aws.errors import MESSAGE_CHARACTERS, Fault, Verdict, said
from mfstore.s3.calls import Call, Reply
from mfstore.s3.urls import bucket_url

REASONS: Mapping[str, str] = {
    "conditionNotMet": "PreconditionFailed",
    "Precondition Failed": "PreconditionFailed",
    "requestedRangeNotSatisfiable": "InvalidRange",
    "forbidden": "AccessDenied",
    "insufficientPermissions": "AccessDenied",
    "rateLimitExceeded": "SlowDown",
    "userRateLimitExceeded": "SlowDown",
    "quotaExceeded": "SlowDown",
    "notFound": "NotFound",
    "Not Found": "NotFound",
}
"""What the JSON API calls a reason, and what S3 and the XML API call it."""
LOCKS = ("retentionPolicyNotMet", "objectUnderActiveHold", "RetentionPolicyNotMet", "ObjectUnderActiveHold")
"""Refusals by a retention policy, a retention of the object's own, or a hold."""
_DETAILS = re.compile(rb"<Details>([^<]*)</Details>")
_MISMATCH = re.compile(r"doesn't match calculated|does not match", re.IGNORECASE)

LIST_HINT = "Without storage.objects.list on the bucket a key that is absent is refused like this as well"
GRANT_HINT = "Grant {roles} on the bucket, or on a managed folder of it, to whoever asks"
REPLACE_HINT = "To replace an object takes storage.objects.delete besides"
ANONYMOUS_HINT = "No credentials were sent: give none of anonymous=True and STORAGE_EMULATOR_HOST, or make it public"
TOKEN_HINT = "Get another token; gcloud auth application-default login renews those of a user"
BUCKET_HINT = "Check the bucket's name and the project"
KEY_HINT = "Check the key: a listing of its prefix shows what there is"
BILLING_HINT = "Whoever asks pays for requests to this bucket: give user_project="
TLS_HINT = "For a private certificate authority set REQUESTS_CA_BUNDLE, or give BulkClient verify='bundle.pem'"


def fault(reply: Reply) -> Fault:
    """What the body of an error says, in S3's words. Never raises."""
    body = (reply.data or b"")[: shared.ERROR_BYTES]
    request = reply.headers.get("x-amz-request-id", "")
    if body.lstrip()[:1] == b"<":
        found = shared.fault(body.lstrip())
        details = _DETAILS.search(body)  # which name the permission
        message = " ".join(
            filter(None, (found.message, unescape(details[1].decode("utf-8", "replace")) if details else ""))
        )
        message = message[:MESSAGE_CHARACTERS]
        return Fault(_code(found.code, message, reply.status), message, request_id=request)
    try:
        error = json.loads(body)["error"]
        if isinstance(error, str):  # of the service that issues tokens
            return Fault("", error[:MESSAGE_CHARACTERS], request_id=request)
        reason = str((error.get("errors") or [{}])[0].get("reason") or "")
        message = str(error.get("message") or "")[:MESSAGE_CHARACTERS]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        text = body.decode("utf-8", "replace").strip()[:MESSAGE_CHARACTERS]
        code = "NotFound" if reply.status == 404 and text else ""
        return Fault(code, "" if code else text, request_id=request)
    return Fault(_code(reason, message, reply.status), message, request_id=request)


def _code(reason: str, message: str, status: int) -> str:
    if status == 404:
        if "bucket does not exist" in message:
            return "NoSuchBucket"
        if message.startswith("No such object"):
            return "NoSuchKey"
    if status == 400 and _MISMATCH.search(message):
        return "BadDigest"
    return REASONS.get(reason, reason)[:100]


def verdict(reply: Reply) -> Verdict:
    """What a reply calls for, as Google documents it (408, 429 and 5xx are tried again, with growing delays)."""
    status = reply.status
    if reply.failure is not None or 200 <= status < 300:
        return shared.classify(reply)
    if (found := shared.disowned(reply)) is not None:
        return found
    code = said(reply).code
    if status == 401:
        return Verdict.REFRESH
    if status in (429, 503) or code == "SlowDown":
        return Verdict.THROTTLED
    if status == 408 or (status >= 500 and status != 501) or code == "BadDigest":
        return Verdict.TRANSIENT
    return Verdict.FATAL


def problem(
    call: Call, reply: Reply, host: Callable[[Call], str], project: str | None, anonymous: bool
) -> MfstoreError:
    """The error that a reply stands for; not raised. ``project`` is of whose bucket it is, if somebody has said so."""
    if reply.error is not None:
        return shared.copied(reply.error)
    if reply.failure is not None:
        error = shared.problem(call, reply, host)
        error.backend = bucket_url(call.bucket)
        if reply.failure == calls.TLS:
            error.hint = TLS_HINT
        return error
    what = said(reply)
    error = _refusal(call, reply, what, host, anonymous)
    if isinstance(error, AccessDenied):
        error.operation = call.operation
    if project and isinstance(error, NotFound | AccessDenied) and error.hint:
        error.hint += f". The project is {project}"
    return error.where(
        key=call.key,
        backend=bucket_url(call.bucket),
        status=reply.status or None,
        service_code=what.code or None,
        request_id=reply.headers.get("x-amz-request-id") or what.request_id or None,
    )


def _refusal(call: Call, reply: Reply, what: Fault, host: Callable[[Call], str], anonymous: bool) -> MfstoreError:
    status, code, text = reply.status, what.code, what.message
    if code == shared.FOREIGN:
        return BackendError("what answers is not Google Cloud Storage", found=text, hint=shared.ENDPOINT_HINT)
    if code == "NoSuchBucket":
        return NotFound("no such bucket", hint=BUCKET_HINT)
    if status == 404 or status == 410:
        if call.operation == "UploadPart" and code != "NoSuchKey":
            return NotFound("the upload is not known any more", found=text or None)
        if call.key is None:
            return NotFound("no such bucket", hint=BUCKET_HINT)
        known = "no such object" if code == "NoSuchKey" else "no such object (or bucket)"
        return NotFound(known, hint=KEY_HINT)
    if status in (409, 412):
        return Conflict("the object is not what the condition asked for" if status == 412 else text or "a conflict")
    if status == 416 or code == "InvalidRange":
        return shared.out_of_range(reply.headers)
    if status == 401:
        words = f": {text}" if text else ""
        return AccessDenied(
            f"{call.operation} was refused: the credentials are missing, expired or not valid{words}",
            hint=ANONYMOUS_HINT if anonymous else TOKEN_HINT,
        )
    if status == 403:
        return _denied(call, what, anonymous)
    if status == 407:
        return BackendError(f"the proxy for {host(call)} wants authentication", hint=shared.FAILURE_HINTS[calls.PROXY])
    if code in ("userProjectMissing", "UserProjectMissing"):
        return AccessDenied(f"{call.operation} was refused: {text}", hint=BILLING_HINT)
    if code == "BadDigest":
        return BackendError(f"the bytes changed on their way to {host(call)}", hint=text or None)
    if status in (405, 501):
        return Unsupported(text or "the service does not support this request")
    if status == 400 and ("object name" in text or "bucket name" in text.lower()):
        return InvalidKey(text)
    words = f": {text}" if text else ""
    if 200 <= status < 300:
        return BackendError(f"the answer is not what Google Cloud Storage sends{words}")
    if status < 500:
        return BackendError(f"the service refused the request{words}")
    return BackendError(f"the service failed{words}")


def _denied(call: Call, what: Fault, anonymous: bool) -> AccessDenied:
    """The error for a request that nobody allows: which, on what, and which permission and role it needs."""
    if what.code in LOCKS:
        kept = "retention" if "etention" in what.code else "hold"
        error = AccessDenied(f"{call.operation} was refused: the object is under {kept}: {what.message}")
        # What a lock is told by: backends/locks.py.
        error.reason = f"object lock ({kept}): {what.message}"
        return error
    refusal = rights.lacking(call, what.message)
    told = " and ".join(map(str, refusal.rights))
    words = f": {what.message}" if what.message else ""
    hints = []
    if roles := rights.roles(refusal.rights):
        hints.append(GRANT_HINT.format(roles=roles))
    writes = any(needs.replaces for needs in rights.OPERATIONS.get(call.operation, ()))
    if writes and call.if_match is None and not refusal.named:
        hints.append(REPLACE_HINT)
    if call.operation in rights.READS:
        hints.append(LIST_HINT)
    if anonymous:
        hints.append(ANONYMOUS_HINT)
    message = f"access denied: {call.operation}" + (f" needs {told}" if told else "") + words
    error = AccessDenied(message, hint=". ".join(hints) or None)
    error.rights, error.reason = refusal.rights, "" if refusal.named else what.message
    return error
