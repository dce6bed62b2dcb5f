"""What an answer of Azure means that is not what was asked for: a verdict, and an error that says what to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

from mfstore.azure import rights
from mfstore.azure.answers import said_code
from mfstore.azure.requests import VERSION
from mfstore.azure.settings import Account
from mfstore.errors import (
    AccessDenied,
    BackendError,
    Conflict,
    InvalidKey,
    MfstoreError,
    NotFound,
    Unsupported,
)
from mfstore.s3 import calls
from mfstore.s3.aws import errors as shared
from mfstore.s3.aws.errors import ERROR_BYTES, MESSAGE_CHARACTERS, Verdict, bare, tree
from mfstore.s3.calls import Call, Reply
from mfstore.s3.urls import bucket_url

BUSY = ("ServerBusy", "TooManyRequests", "OperationTimedOut", "IngressLimitExceeded", "EgressLimitExceeded")
PASSING = ("InternalError", "Md5Mismatch", "Crc64Mismatch", "IncompleteBody")
"""Among them what says that our bytes did not arrive as sent: sending them again may do."""
NOT_NOW = "not valid in the specified time frame"

MISSING: Mapping[str, tuple[str, str | None]] = {
    "BlobNotFound": ("no such object", shared.KEY_HINT),
    "ContainerNotFound": ("no such container", "Check its name, the account and the endpoint"),
    "ContainerBeingDeleted": ("the container is being deleted", "Its name is free again after a minute"),
    "InvalidBlockList": ("no such multipart upload: its blocks are gone", "Somebody else wrote the blob meanwhile"),
}
CONFLICTS: Mapping[str, str] = {
    "ConditionNotMet": shared.CONFLICTS["PreconditionFailed"],
    "TargetConditionNotMet": shared.CONFLICTS["PreconditionFailed"],
    "SourceConditionNotMet": "the object to copy is not what the condition asked for",
    "BlobAlreadyExists": "there is such an object already",
    "InvalidBlobType": "the blob is an append blob or a page blob: nothing of mfstore's",
    "BlobOperationNotSupported": "the blob was made by the Data Lake API, and takes no blocks: delete it first",
}
KEPT: Mapping[str, str] = {
    "BlobImmutableDueToPolicy": "retention by an immutability policy",
    "BlobImmutableDueToLegalHold": "legal hold",
    "LeaseIdMissing": "a lease (az storage blob lease break)",
    "LeaseIdMismatchWithBlobOperation": "a lease (az storage blob lease break)",
    "SnapshotsPresent": "snapshots of it (az storage blob delete --delete-snapshots only)",
}
"""Why a blob cannot be written over or deleted, though one may."""
DENIED: Mapping[str, tuple[str, str | None]] = {
    "AuthorizationFailure": (
        "the account refuses where this comes from, or how",
        "Its firewall may let in only some networks, or its keys may be switched off. Azurite says so of a wrong key",
    ),
    "AuthorizationSourceIPMismatch": ("the signature is for other addresses", "sip= of the shared access signature"),
    "AuthorizationProtocolMismatch": ("the signature is for https", "Use an endpoint of https"),
    "AuthorizationServiceMismatch": ("the signature is for another service", "It must be for blobs (ss=b)"),
    "AuthorizationResourceTypeMismatch": (
        "the signature is for another kind of resource", "It must be for containers and objects (srt=co)"
    ),
    "KeyBasedAuthenticationNotPermitted": (
        "the account does not let keys and signatures in",
        "Use Microsoft Entra: leave out the key, and log in by az login or a managed identity",
    ),
    "PublicAccessNotPermitted": (
        "the account lets nobody in without credentials", "Give credentials, and leave out anonymous=True"
    ),
    "ResourceNotFound": (
        "the container is not public, or there is none",
        "Give credentials: without them one is not told from the other",
    ),
    "NoAuthenticationInformation": ("the request says not who asks", "Give credentials: the container is not public"),
    "InvalidAuthenticationInfo": (
        "the token is not valid, or has expired",
        "Log in again (az login); the token must be of the tenant that the account belongs to",
    ),
    "AccountIsDisabled": ("the account is disabled", "Ask whoever pays for the subscription"),
    "InsufficientAccountPermissions": ("the account may not do that", None),
    "BlobArchived": (
        "the blob is archived", "Bring it back first: az storage blob set-tier --tier Hot, which takes hours"
    ),
    "BlobBeingRehydrated": ("the blob is on its way back from the archive", "That takes hours: try again later"),
    "BlobUsesCustomerSpecifiedEncryption": ("the blob is encrypted with a key that its writer has", None),
}  # fmt: skip
UNREACHED = {
    calls.DNS: "Check the name of the account, and the endpoint if one is given",
    calls.TLS: "For a private certificate authority set REQUESTS_CA_BUNDLE, or give BulkClient verify='bundle.pem'",
}
"""What to do where no answer came, for what means something else than with S3."""
CLOCK_HINT = "the clock of this machine is {seconds:.0f} s {way} Azure's: set it"


def verdict(reply: Reply, by_token: bool, by_key: bool) -> Verdict:
    """What to do about a reply. ``by_token``, ``by_key``: what the request said of who asks was a token, or made with a
    key: both can be had anew."""
    if reply.failure is not None or 200 <= reply.status < 300:
        return shared.classify(reply)
    if (found := shared.disowned(reply)) is not None:
        return found
    status, code = reply.status, said_code(reply.headers, reply.data)
    if status == 401 and by_token:
        return Verdict.REFRESH
    if code == "AuthenticationFailed":
        if by_token:
            return Verdict.REFRESH
        return Verdict.SKEWED if by_key else Verdict.FATAL
    if code in BUSY or status in (429, 503):
        return Verdict.THROTTLED
    if (status >= 500 and status not in (501, 505)) or code in PASSING or status == 408:
        return Verdict.TRANSIENT
    return Verdict.FATAL


def problem(call: Call, reply: Reply, account: Account, by_token: bool, skew: float | None) -> MfstoreError:
    """The error that a reply stands for; not raised. It names account, container and key, Azure's code and the request.
    ``skew``: seconds that the server's clock is ahead of ours, by this answer, where it says so."""
    where = f"{account.name or account.origin}"
    if reply.error is not None or reply.failure is not None:
        error = shared.problem(call, reply, lambda call: account.origin)
        error.backend = bucket_url(call.bucket)
        if (hint := UNREACHED.get(reply.failure or "")) is not None:
            error.hint = hint
        return error
    code = said_code(reply.headers, reply.data)
    text, detail = words(reply.data)
    error = _refusal(call, reply, code, text, detail, account, by_token, skew)
    error.message += f" (account {where})"
    if isinstance(error, AccessDenied):
        error.operation = call.operation
    return error.where(
        key=call.key,
        backend=bucket_url(call.bucket),
        status=reply.status or None,
        service_code=code or None,
        request_id=reply.headers.get("x-ms-request-id") or None,
    )


def _refusal(
    call: Call, reply: Reply, code: str, text: str, detail: str, account: Account, by_token: bool, skew: float | None
) -> MfstoreError:  # fmt: skip
    status = reply.status
    if reply.fault is not None and reply.fault.code == shared.FOREIGN:
        return BackendError(
            "what answers is no Blob service of Azure", found=reply.fault.message, hint=shared.ENDPOINT_HINT
        )
    if code in KEPT:
        kept = AccessDenied(f"{call.operation} was refused: {KEPT[code]} keeps the blob")
        kept.reason = KEPT[code]
        return kept
    if code in MISSING:
        message, hint = MISSING[code]
        return NotFound(message, hint=hint)
    if code in CONFLICTS:
        return Conflict(CONFLICTS[code])
    if code == "CannotVerifyCopySource":
        if status == 412:
            return Conflict(CONFLICTS["SourceConditionNotMet"])
        # Whoever asks for a copy has looked at the original, and so may read it through here.
        return Unsupported(f"Azure could not read the object to copy{f': {text}' if text else ''}")
    if code == "AuthenticationFailed":
        return _unauthentic(call, detail, account, by_token, skew)
    if code == "AuthorizationPermissionMismatch":
        return _unauthorized(call, account, by_token)
    if code in DENIED:
        message, hint = DENIED[code]
        return AccessDenied(f"{call.operation} was refused: {message}", hint=hint)
    if code == "InvalidRange" or status == 416:
        return shared.out_of_range(reply.headers)
    if code in ("InvalidResourceName", "OutOfRangeInput", "InvalidUri"):
        return InvalidKey(f"Azure takes no such name: {text or code}")
    if code in ("Md5Mismatch", "Crc64Mismatch"):
        return BackendError(f"the bytes changed on their way to {account.origin}")
    if code in ("InvalidBlobOrBlock", "InvalidBlockId"):
        return BackendError(
            "the block was refused: somebody has begun another upload of the same blob, with ids of another length",
            hint="Delete the blob, or wait a week: then what was begun ends by itself",
        )  # fmt: skip
    if code in ("UnsupportedHttpVerb", "FeatureNotSupported", "NotImplemented") or status in (405, 501):
        return Unsupported(text or "Azure does not support this request")
    if code == "InvalidHeaderValue" and detail == VERSION:
        return Unsupported(f"this service does not speak version {VERSION} of the protocol")
    said_what = f": {text}" if text else ""
    if status in (401, 403):
        hint = rights.role_hint(call, account.name) if by_token else rights.permission_hint(call)
        error = AccessDenied(f"access denied: {call.operation}{said_what}", hint=hint)
        error.rights = rights.needed(call, account.name)
        return error
    if status == 404:
        return NotFound(f"no such {'object' if call.key is not None else 'container'}", hint=shared.KEY_HINT)
    if status in (409, 412):
        return Conflict(text or CONFLICTS["ConditionNotMet"])
    if status == 304:
        return Conflict(CONFLICTS["ConditionNotMet"])
    if status == 407:
        return BackendError("the proxy wants authentication", hint=shared.FAILURE_HINTS[calls.PROXY])
    if status in (301, 302, 307, 308) or 200 <= status < 300:
        return BackendError(f"the answer is not what Azure sends{said_what}", hint=shared.ENDPOINT_HINT)
    return BackendError(f"the server {'refused the request' if status < 500 else 'failed'}{said_what}")


def _unauthentic(call: Call, detail: str, account: Account, by_token: bool, skew: float | None) -> AccessDenied:
    """Azure does not believe who asks."""
    hint: str | None = None
    if by_token:
        message = f"the token was not accepted{f': {detail}' if detail else ''}"
        hint = "Log in again (az login); the token must be of the tenant that the account belongs to"
    elif NOT_NOW in detail:
        message = "the shared access signature has ended, or does not count yet"
        hint = "Get another"
    elif account.key is not None:
        message, hint = "the account key is wrong", "Keys may have been rotated: az storage account keys list"
    elif account.sas is not None:
        message, hint = "the shared access signature does not count", "It has ended, was cut, or its key was rotated"
    else:
        message = "the request says not who asks"
    if skew is not None and abs(skew) > 60:
        way = "behind" if skew > 0 else "ahead of"
        hint = f"{hint}. Or {CLOCK_HINT.format(seconds=abs(skew), way=way)}" if hint else None
    return AccessDenied(f"{call.operation} was refused: {message}", hint=hint)


def _unauthorized(call: Call, account: Account, by_token: bool) -> AccessDenied:
    """Azure knows who asks, and does not let him."""
    needs = rights.OPERATIONS.get(call.operation)
    if by_token:
        what = f" needs the role {needs.role}" if needs else ""
        hint = rights.role_hint(call, account.name)
    else:
        what, hint = " is not among what the signature allows", rights.permission_hint(call)
    error = AccessDenied(f"access denied: {call.operation}{what}", hint=hint)
    error.rights = rights.needed(call, account.name)
    return error


def words(body: bytes | None) -> tuple[str, str]:
    """What the body of an error says to people, and in detail. Never raises: proxies send HTML, servers nothing."""
    if not body or b"<" not in body[:64]:
        return "", ""
    try:
        root = tree(body[:ERROR_BYTES])
    except (ElementTree.ParseError, ValueError, LookupError):
        return "", ""
    if bare(root.tag) != "Error":
        return "", ""
    texts = {bare(node.tag): " ".join((node.text or "").split()) for node in root if isinstance(node.tag, str)}
    # The message ends with the id of the request and the time, which are told apart.
    text = texts.get("Message", "").partition(" RequestId:")[0][:MESSAGE_CHARACTERS]
    detail = texts.get("AuthenticationErrorDetail") or texts.get("HeaderValue") or ""
    # What was signed is no secret, but the detail of a wrong signature repeats all of it.
    return text, "" if "string to sign" in detail.lower() else detail[:MESSAGE_CHARACTERS]
