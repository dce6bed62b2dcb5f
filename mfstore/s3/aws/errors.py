"""What an answer means that is not what was asked for: from status, S3's code and the engine's word to a ``Verdict``,
whether and how to ask again, and to an error that says what to do next. Pure."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from enum import Enum
from xml.etree import ElementTree

from mfstore.errors import (
    AccessDenied,
    BackendError,
    Conflict,
    InvalidKey,
    InvalidRange,
    MfstoreError,
    NotFound,
    OutOfSpace,
    Unsupported,
)
from mfstore.records import dataclass
from mfstore.s3 import calls
from mfstore.s3.calls import Call, Reply

ERROR_BYTES = 1 << 16  # of an error body looked at
MESSAGE_CHARACTERS = 500  # characters of the server's words repeated


@dataclass(frozen=True, slots=True)
class Fault:
    """What the body of an error says; empty where it says nothing."""

    code: str = ""
    message: str = ""
    region: str = ""
    endpoint: str = ""
    request_id: str = ""


_USER_INFO = re.compile(r"(?<=//)[^/\s'\"]*@")


def without_passwords(text: str) -> str:
    """``text`` with no user name and password in any URL that it holds."""
    return _USER_INFO.sub("", text) if "@" in text else text


def tree(body: bytes) -> ElementTree.Element:
    """The XML of a reply. Raises ElementTree.ParseError, also for a document type: S3 sends none, bombs need one."""
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise ElementTree.ParseError("document type declarations are refused")
    # The encoding is fixed, or a declaration could hide what was just looked for.
    parser = ElementTree.XMLParser(encoding="utf-8")
    parser.feed(body)
    root = parser.close()
    assert isinstance(root, ElementTree.Element)
    return root


ROOTS: Mapping[str, str] = {
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "CopyObject": "CopyObjectResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetObjectTagging": "Tagging",
    "UploadPartCopy": "CopyPartResult",
}
"""By operation: the element that its answer is. A 200 with another is a proxy's, a portal's or a broken service's, and
says nothing of what was done."""


def is_answer(operation: str, tag: str) -> bool:
    """Whether an element with this tag can be the answer to an operation."""
    return bare(tag) == ROOTS[operation] if operation in ROOTS else bare(tag).lower() not in ("error", "html")


def bare(tag: str) -> str:
    """A tag without its namespace."""
    return tag.rpartition("}")[2]


def fault(body: bytes | None) -> Fault:
    """What an error body says. Never raises: proxies send HTML, servers send nothing."""
    if not body or b"<" not in body[:64]:
        return Fault()
    try:
        root = tree(body[:ERROR_BYTES])
    except (ElementTree.ParseError, ValueError, LookupError):
        return Fault()
    found = root
    if root.tag != "Error":
        found = next((node for node in root.iter() if bare(node.tag) == "Error"), root)
    texts = {bare(node.tag): (node.text or "").strip() for node in found if isinstance(node.tag, str)}
    return Fault(
        texts.get("Code", "")[:100],
        texts.get("Message", "")[:MESSAGE_CHARACTERS],
        texts.get("Region", ""),
        texts.get("Endpoint", "")[:300],
        (texts.get("RequestId") or texts.get("RequestID", ""))[:100],
    )


FOREIGN = "ForeignAnswer"
"""Our code for an answer that is not the service's."""
FOREIGN_TRIES = 3
"""After so many another will not be the service's either: what answers is no accident of the network."""
CLAIMS = (304, 404, 409, 410, 412, 416)
"""Statuses, besides those of success, that say something of an object, which is believed of its service alone."""


def disown(reply: Reply) -> None:
    """Make a failure of an answer that is not the service's, but a proxy's, or of whoever the endpoint is: that it says
    "done", or "absent", means nothing."""
    reply.fault = Fault(FOREIGN, f"HTTP {reply.status}")
    reply.status = 502


def disowned(reply: Reply) -> Verdict | None:
    """What to do about an answer that is not the service's; None for any other."""
    if reply.fault is None or reply.fault.code != FOREIGN:
        return None
    return Verdict.TRANSIENT if getattr(reply.call.tag, "attempts", 0) < FOREIGN_TRIES else Verdict.FATAL


def said(reply: Reply) -> Fault:
    """What the body of a reply that is an error says. It is read once."""
    if reply.fault is None:
        reply.fault = fault(reply.data)
    found: Fault = reply.fault
    return found


# ---- whether to ask again -----------------------------------------------------------------


class Verdict(Enum):
    """What a reply calls for."""

    FINE = "fine"
    FREE = "free"
    """Try again at once, once, at no cost: a kept-alive connection had been closed by the server."""
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    REFRESH = "refresh"
    """The credentials expired: get new ones, then again."""
    SKEWED = "skewed"
    """Our clock is, or may be, wrong: learn the offset, then again if there is any."""
    MOVED = "moved"
    """The bucket is in another region: learn it, then again."""
    FATAL = "fatal"


PASSING = (Verdict.TRANSIENT, Verdict.THROTTLED, Verdict.FREE)
"""What the same call, made again later, may not meet."""

_RETRIED_FAILURES = {
    calls.CONNECT, calls.DNS, calls.RESET, calls.TRUNCATED, calls.FIRST_BYTE, calls.STALL, calls.PROTOCOL,
    calls.PROXY, calls.WHOLE,
}  # fmt: skip
_TRANSIENT_CODES = {
    "InternalError", "InternalServerError", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict",
    "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody", "UnknownError",
}  # fmt: skip
"""Among them what says that our bytes did not arrive as sent: sending them again may do. UnknownError is radosgw's
internal error, as when two requests delete one object."""
_THROTTLE_CODES = {
    "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests",
    "RequestThrottled", "BandwidthLimitExceeded", "503 SlowDown",
}  # fmt: skip
_EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "RequestExpired"}
_MOVED_CODES = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IncorrectEndpoint",
    "Redirect",
}
_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9 ]{1,64})\s*</Code>")


def _code_within(body: bytes | None) -> str | None:
    """The <Code> of what is no XML: an answer that was cut, or that a proxy wrapped in its own."""
    found = _CODE.search(body[:8192]) if body else None
    return found.group(1).decode("ascii") if found else None


def classify(reply: Reply) -> Verdict:
    """What to do about a reply. A 403 or 404 is an answer, not a failure to retry."""
    if reply.failure is not None:
        if reply.failure == calls.RESET and reply.reused and not reply.first_byte:
            return Verdict.FREE
        return Verdict.TRANSIENT if reply.failure in _RETRIED_FAILURES else Verdict.FATAL
    status = reply.status
    if 200 <= status < 300:
        return Verdict.FINE
    code = said(reply).code or _code_within(reply.data)
    if code in _EXPIRED_CODES:
        return Verdict.REFRESH
    if code == "RequestTimeTooSkewed":
        return Verdict.SKEWED
    if status in (301, 302, 307, 308) or code in _MOVED_CODES:
        return Verdict.MOVED
    if code in _THROTTLE_CODES or status in (429, 503):
        return Verdict.THROTTLED
    if status >= 500 and status != 501:
        return Verdict.TRANSIENT
    if code in _TRANSIENT_CODES or status == 408:
        return Verdict.TRANSIENT
    if status == 400 and reply.call.operation == "HeadObject":
        # The answer to a HEAD has no body, so no code: an expired token and a wrong region look like this.
        return Verdict.MOVED if "x-amz-bucket-region" in reply.headers else Verdict.REFRESH
    if status == 403 and not code and reply.call.operation.startswith("Head"):
        return Verdict.SKEWED  # if the answer's date says so, which whoever has the clock finds out
    return Verdict.FATAL


def retryable_code(code: str | None) -> bool:
    """Whether an error inside a 200 answer is worth another try."""
    return code in _TRANSIENT_CODES or code in _THROTTLE_CODES


# ---- the error it stands for --------------------------------------------------------------

LIST_HINT = "Without s3:ListBucket on {bucket} a key that is absent is refused like this as well"
ABSENT_HINT = "Most likely the key is absent, which only who may list is told"
ALLOW_HINT = "Allow it in a policy of whoever asks, or of the bucket"
DENY_HINT = "A policy denies it, which no other that allows it outweighs: change that one"
HEAD_HINT = "A HEAD is told no reason: check credentials, region and clock, or get the object to learn it"
KEY_HINT = "Check the key: a listing of its prefix shows what there is"
PLAIN_HTTP_HINT = "Many services encrypt only what comes over https: check endpoint_url="
SIZE_HINT = "Ask for its size first"
ENDPOINT_HINT = "Check the endpoint; a proxy or a portal on the way may answer in its place"
BUCKET_HINT = "Check the bucket's name, the account and the endpoint"

DENIED: Mapping[str, tuple[str, str | None]] = {
    "SignatureDoesNotMatch": (
        "the signature does not match",
        "The secret access key is wrong, or a proxy changes the requests",
    ),
    "InvalidAccessKeyId": (
        "the access key id is not known",
        "Check AWS_ACCESS_KEY_ID, the profile and the endpoint; temporary keys need their session token",
    ),
    "ExpiredToken": ("the session token has expired", "Log in again, for instance with aws sso login"),
    "TokenRefreshRequired": ("the session token has expired", "Log in again, for instance with aws sso login"),
    "InvalidToken": ("the session token is not valid", "Check AWS_SESSION_TOKEN: it belongs to its key id"),
    "RequestTimeTooSkewed": ("the clock differs too much from the server's", "Set the clock of this machine"),
    "InvalidObjectState": (
        "the object is archived",
        "Restore it first: aws s3api restore-object --bucket … --key … --restore-request Days=1",
    ),
    "AllAccessDisabled": ("access to the bucket is disabled", None),
    "AccountProblem": ("there is a problem with the AWS account", None),
    "NotSignedUp": ("the account is not signed up for S3", None),
    "InvalidPayer": ("access to the bucket is disabled", None),
    "KMS.DisabledException": ("the KMS key is disabled", None),
    "KMS.NotFoundException": ("the KMS key does not exist", "Check its ARN and region"),
}

MISSING: Mapping[str, tuple[str, str | None]] = {
    "NoSuchKey": ("no such object", KEY_HINT),
    "NoSuchBucket": ("no such bucket", BUCKET_HINT),
    "NoSuchUpload": ("no such multipart upload", None),
    "NoSuchVersion": ("no such version of the object", None),
}

CONFLICTS = {
    "PreconditionFailed": "the object is not what the condition asked for",
    "ConditionalRequestConflict": "another request wrote the same key at the same time",
    "OperationAborted": "another request changes the same thing",
    "BucketAlreadyExists": "the bucket name is taken",
    "BucketAlreadyOwnedByYou": "the bucket exists already",
    "BucketNotEmpty": "the bucket is not empty",
}

FAILURE_TEXTS = {
    calls.DNS: "the host name could not be resolved",
    calls.CONNECT: "no connection",
    calls.RESET: "the connection broke",
    calls.TRUNCATED: "the answer ended early",
    calls.FIRST_BYTE: "no answer in time",
    calls.STALL: "the transfer stalled",
    calls.OVERFLOW: "more bytes came than were asked for",
    calls.PROTOCOL: "the answer is not HTTP",
    calls.PROXY: "the proxy refused",
    calls.CANCELLED: "cancelled",
    calls.INTERNAL: "internal failure",
    calls.WHOLE: "something other than the service answered a range",
}

FAILURE_HINTS = {
    calls.DNS: "Check the endpoint, the region and the name of the bucket",
    calls.CONNECT: "Check the endpoint, its port, and whether a proxy is needed",
    calls.PROXY: "Check HTTPS_PROXY, its user and password, and NO_PROXY",
}


def problem(call: Call, reply: Reply, host: Callable[[Call], str]) -> MfstoreError:
    """The error that a reply stands for; not raised. Its fields tell status, S3's code and the request id. ``host`` is
    asked, where people are told it, where the request went."""
    if reply.error is not None:
        return copied(reply.error)
    what = said(reply)
    headers = reply.headers
    error = _failure(reply, host(call)) if reply.failure is not None else _refusal(call, reply, what, headers, host)
    if isinstance(error, AccessDenied):
        error.operation = call.operation
    return error.where(
        key=call.key,
        backend=f"s3://{call.bucket}",
        status=reply.status or None,
        service_code=what.code or None,
        request_id=headers.get("x-amz-request-id") or what.request_id or None,
    )


def _failure(reply: Reply, host: str) -> MfstoreError:
    failure = reply.failure
    words = f": {without_passwords(reply.message)}" if reply.message else ""
    if failure == calls.DISK:
        text = os.strerror(reply.errno) if reply.errno else reply.message
        if reply.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutOfSpace(f"writing a local file failed: {text}", hint="Free space, or write elsewhere")
        return BackendError(f"reading or writing a local file failed: {text}", hint="Check the file and its disk")
    if failure == calls.TLS:
        return BackendError(
            f"the TLS connection to {host} was refused{words}",
            hint="For a private certificate authority give verify='bundle.pem' or set AWS_CA_BUNDLE",
        )
    known = FAILURE_TEXTS.get(failure or "", failure)
    return BackendError(f"{known} ({host}){words}", hint=FAILURE_HINTS.get(failure or ""))


def _refusal(
    call: Call, reply: Reply, what: Fault, headers: Mapping[str, str], host: Callable[[Call], str]
) -> MfstoreError:
    status, code, text = reply.status, what.code, what.message
    if code in MISSING:
        message, hint = MISSING[code]
        return NotFound(message, hint=hint)
    if code in CONFLICTS:
        return Conflict(CONFLICTS[code])
    if code in DENIED:
        message, hint = DENIED[code]
        return AccessDenied(f"{call.operation} was refused: {message}", hint=hint)
    if code in ("InvalidRange",) or status == 416:
        return out_of_range(headers)
    if code in ("NotImplemented", "MethodNotAllowed") or status in (405, 501):
        return Unsupported(text or "the server does not support this request")
    if code in ("InvalidBucketName", "KeyTooLongError"):
        return InvalidKey(text or code)
    if code in ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"):
        return BackendError(f"the bytes changed on their way to {host(call)}", hint=text or None)
    silent = call.operation.startswith("Head") and not code
    moved = code == "AuthorizationHeaderMalformed" or code.startswith("IllegalLocation")
    if moved or status in (301, 302, 307, 308) or (silent and status == 400 and "x-amz-bucket-region" in headers):
        region = headers.get("x-amz-bucket-region") or what.region
        there = f"the bucket is in region {region}" if region else "the bucket is in another region"
        return BackendError(there, hint="Give region=, or check endpoint_url=")
    if status in (409, 412):
        return Conflict(text or CONFLICTS["PreconditionFailed"])
    if status == 404:
        # HEAD has no body: whether key or bucket is missing cannot be told.
        if call.key is None:
            return NotFound("no such bucket", hint=BUCKET_HINT)
        return NotFound("no such object (or bucket)", hint=KEY_HINT)
    if status == 407:
        return BackendError(f"the proxy for {host(call)} wants authentication", hint=FAILURE_HINTS[calls.PROXY])
    if status in (401, 403) or "AccessDenied" in code:
        return _denied(call, what, host(call))
    if 200 <= status < 300:
        return BackendError(f"the answer is not what S3 sends{f': {text}' if text else ''}")
    said_what = f": {text}" if text else ""
    if status < 500:
        hint = HEAD_HINT if silent else None
        if code == "InvalidRequest" and any(map(_is_of_encryption, call.options)) and host(call).startswith("http:"):
            hint = PLAIN_HTTP_HINT
        return BackendError(f"the server refused the request{said_what}", hint=hint)
    return BackendError(f"the server failed{said_what}")


def out_of_range(headers: Mapping[str, str]) -> InvalidRange:
    """The error for a range that an object does not have, which may say how long that is: ``bytes */123``."""
    size = headers.get("content-range", "").rpartition("/")[2]
    found = f"an object of {size} bytes" if size.isdecimal() else None
    return InvalidRange("the object has no such bytes", found=found, hint=SIZE_HINT)


def _is_of_encryption(parameter: str) -> bool:
    return parameter.startswith(("ServerSideEncryption", "SSE"))


def _denied(call: Call, what: Fault, host: str) -> AccessDenied:
    """The error for a request that a policy does not allow: which, on what, and which right it needs."""
    from mfstore.s3.aws import rights  # the table is for who is refused

    partition = rights.partition_of(host)
    refusal = rights.lacking(call, what.message, what.code, partition)
    told = " and ".join(map(str, refusal.rights))
    message = f"access denied: {call.operation}" + (f" needs {told}" if told else "")
    hints = [DENY_HINT if refusal.denied else ALLOW_HINT]
    if call.operation in rights.READS and call.key is not None:
        if not refusal.named:
            hints.append(LIST_HINT.format(bucket=rights.arn(call.bucket, None, partition)))
        elif refusal.rights[0].action == rights.LISTING:
            hints.append(ABSENT_HINT)
    if call.operation.startswith("Head") and not what.code:
        hints.append(HEAD_HINT)
    error = AccessDenied(message + (f": {refusal.words}" if refusal.words else ""), hint=". ".join(hints))
    error.rights, error.reason = refusal.rights, "" if refusal.named else refusal.words
    return error


CREDENTIAL_SOURCES = (
    "arguments; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; {profile} of ~/.aws/credentials and ~/.aws/config (keys, "
    "role, SSO, credential_process); web identity; container; EC2 instance metadata (IMDS)"
)


def no_credentials(profile: str | None, withheld: Sequence[str] = ()) -> AccessDenied:
    """No credentials anywhere. ``withheld``: what a client was given that did not travel with it."""
    sources = CREDENTIAL_SOURCES.format(
        profile=f"profile {profile!r}" if profile else "the profile (AWS_PROFILE or default)"
    )
    hint = f"Looked at: {sources}. For a public bucket give anonymous=True"
    if withheld:
        left = ", ".join(withheld)
        hint = f"It was pickled, and what is secret does not travel: {left}. Set them where it is used. {hint}"
    return AccessDenied("no AWS credentials found", hint=hint)


def copied(error: MfstoreError) -> MfstoreError:
    """For one of several items that failed alike: each error names its own key."""
    found = copy(error)
    found.__cause__ = error.__cause__
    return found


def local(error: Exception, profile: str | None = None) -> MfstoreError:
    """The error for one of botocore's that came before anything was sent."""
    if isinstance(error, MfstoreError):
        return error
    name = type(error).__name__
    text = without_passwords(str(error))[:MESSAGE_CHARACTERS]
    if name == "NoCredentialsError":
        return no_credentials(profile)
    if name == "ProfileNotFound":
        return AccessDenied(
            text, hint="Check profile= and AWS_PROFILE; aws configure list-profiles shows what there is"
        )
    if "SSO" in name or name in (
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
        "PendingAuthorizationExpiredError",
    ):
        login = "aws sso login" + (f" --profile {profile}" if profile else "")
        return AccessDenied(f"the SSO login is missing or has expired: {text}", hint=f"Run: {login}")
    if name == "InvalidConfigError" and "CA bundle" in text:
        return Unsupported(text, hint="Unset what names it, or have it name a file")
    if name in (
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "ConfigParseError",
        "InvalidConfigError",
        "MetadataRetrievalError",
        "RefreshWithMFAUnsupportedError",
        "UnknownCredentialError",
        "InfiniteLoopConfigError",
    ):
        return AccessDenied(f"the AWS credentials could not be had: {text}")
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # ClientError: STS or SSO said no
        code = str(response.get("Error", {}).get("Code", ""))
        return AccessDenied(f"the AWS credentials could not be had: {text}", service_code=code or None)
    if name in ("NoRegionError", "InvalidRegionError"):
        return Unsupported(text, hint="Give region= or set AWS_DEFAULT_REGION")
    if name.startswith("ParamValidation") or name in ("InvalidS3AddressingStyleError",):
        return InvalidKey(text)
    if name in ("MissingDependencyException", "UnknownSignatureVersionError"):
        return Unsupported(
            "this signature cannot be made here", found=text, hint="For multi-region access points: pip install awscrt"
        )
    if name.startswith(("Unsupported", "InvalidEndpoint", "EndpointProvider", "UnknownEndpoint")):
        return Unsupported(text)
    if isinstance(error, ValueError | TypeError):
        return InvalidKey(text)
    if isinstance(error, OSError):
        return BackendError(f"AWS configuration or credentials could not be read: {text}")
    return BackendError(f"{name}: {text}")
