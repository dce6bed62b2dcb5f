"""Policies judged as AWS judges them, and what requests ask of them.

radosgw judges them too, and is asked in the tests. But it does not know all of AWS's conditions, and each policy with
one thing left out would be a run of its own there. So what a role asks for is taken from the log of a proxy, once, and
judged here as often as wanted. The rules are those of the IAM User Guide ("Policy evaluation logic", "Condition
operators"), for identity policies and bucket policies of one account.
"""

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import parse_qs, unquote

import pytest

from mfstore.s3.aws.rights import LISTING, READS, arn, needed
from mfstore.s3.calls import Call
from mfstore.s3.transfers.deletions import DeleteJob


@dataclass(frozen=True)
class Asked:
    """A right that a request asks for."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...] = field(default=())

    def __str__(self):
        return " ".join([self.action, self.resource, *(f"{key}={value}" for key, value in self.context)])


def allows(documents, asked, principal=None):
    """Whether policies allow what is asked: something does, and nothing denies it."""
    effects = {
        statement["Effect"]
        for document in documents
        for statement in document["Statement"]
        if _concerns(statement, principal)
        and any(_like(pattern, asked.action, ignore_case=True) for pattern in _several(statement["Action"]))
        and any(_like(pattern, asked.resource) for pattern in _several(statement["Resource"]))
        and _holds(statement.get("Condition", {}), {**dict(asked.context), "aws:PrincipalArn": principal})
    }
    return effects == {"Allow"}


def _several(value):
    return value if isinstance(value, (list, tuple)) else [value]


def _concerns(statement, principal):
    named = statement.get("Principal", "*")
    return named == "*" or principal in _several(named["AWS"])


def _like(pattern, text, ignore_case=False):
    """``*`` and ``?`` stand for others; ``${*}`` for itself."""
    return _pattern(pattern, ignore_case).fullmatch(text) is not None


@cache
def _pattern(pattern, ignore_case):
    parts = re.split(r"(\$\{[*?$]\}|[*?])", pattern)
    meaning = {"*": ".*", "?": "."}
    found = "".join(meaning.get(part) or re.escape(re.sub(r"^\$\{(.)\}$", r"\1", part)) for part in parts)
    return re.compile(found, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _holds(condition, context):
    """Every operator, every key; of several values one."""
    for operator, keys in condition.items():
        for key, values in keys.items():
            value = context.get(key)
            if operator == "Null":
                holds = (value is None) == (values == "true")
            elif operator in ("ArnNotEquals", "ArnNotLike"):  # true where the key is not there
                holds = value is None or not any(_like(one, value) for one in _several(values))
            elif operator == "StringLike":
                holds = value is not None and any(_like(one, value) for one in _several(values))
            else:
                raise NotImplementedError(operator)
            if not holds:
                return False
    return True


# ---- what requests ask for --------------------------------------------------------------------

OPERATIONS = {
    ("GET", True): "GetObject", ("HEAD", True): "HeadObject", ("PUT", True): "PutObject", ("DELETE", True): "DeleteObject",
    ("HEAD", False): "HeadBucket", ("GET", False): "ListObjectsV2",
}  # fmt: skip
"""By method, and whether there is a key; with no parameter that says more."""
MORE = {
    ("POST", "uploads"): "CreateMultipartUpload", ("PUT", "partNumber"): "UploadPart",
    ("POST", "uploadId"): "CompleteMultipartUpload", ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("GET", "versions"): "ListObjectVersions", ("GET", "uploads"): "ListMultipartUploads", ("GET", "versioning"): "GetBucketVersioning",
    ("GET", "lifecycle"): "GetBucketLifecycleConfiguration", ("GET", "object-lock"): "GetObjectLockConfiguration",
    ("GET", "retention"): "GetObjectRetention", ("POST", "delete"): "DeleteObjects", ("GET", "location"):
    "GetBucketLocation", ("GET", "encryption"): "GetBucketEncryption", ("GET", "publicAccessBlock"):
    "GetPublicAccessBlock", ("GET", "policyStatus"): "GetBucketPolicyStatus", ("GET", "acl"): "GetBucketAcl",
}  # fmt: skip


def asked_by(exchanges, by_radosgw=False):
    """What the requests in a proxy's log ask for, each once, as mfstore's table of rights has it. Which objects a
    request about many is about is not in the log: see ``deletions``. ``by_radosgw``: as release 16 understands it."""
    found = {}
    for exchange in exchanges:
        bucket, _, key = unquote(exchange.path).lstrip("/").partition("/")
        if not bucket:  # who asks: no right of S3
            continue
        said = {name: value[0] for name, value in parse_qs(exchange.query, keep_blank_values=True).items()}
        operation = next((MORE[exchange.method, name] for name in said if (exchange.method, name) in MORE), None)
        operation = operation or OPERATIONS[exchange.method, bool(key)]
        if operation == "DeleteObjects":
            continue
        params = {}
        if copied := exchange.headers.get("x-amz-copy-source"):
            source, _, name = unquote(copied).lstrip("/").partition("/")
            operation, params = "CopyObject", {"CopySource": {"Bucket": source, "Key": name}}
        call = Call(operation, bucket, key or None, params=params, if_match=exchange.headers.get("if-match"))
        context = ()
        if operation in ("ListObjectsV2", "ListObjectVersions", "ListMultipartUploads"):
            context = (("s3:prefix", said["prefix"]),) if said.get("prefix") else ()
            if "max-keys" in said or by_radosgw:
                context = (*context, ("s3:max-keys", said.get("max-keys", "1000")))
        rights = needed(call)
        assert rights, f"the table of rights does not know {operation}"
        for right in rights:
            found[Asked(right.action, right.resource, context)] = None
        if exchange.status == 404 and operation in READS:
            found[Asked(LISTING, arn(bucket), () if by_radosgw else (("s3:prefix", key),))] = None
    return list(found)


@contextmanager
def deletions():
    """What this process asks for meanwhile by requests about many objects."""
    found = {}

    def begin(job):
        for _, _, key in job._items:
            found[Asked("s3:DeleteObject", arn(job.bucket, key))] = None
        return whole(job)

    whole = DeleteJob.begin
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeleteJob, "begin", begin)
        yield found


def parts_left_out(document):
    """A policy with one thing less, and what is left out: each statement, and each of its actions and resources."""
    for number, statement in enumerate(document["Statement"]):
        others = [other for at, other in enumerate(document["Statement"]) if at != number]
        yield statement["Sid"], {**document, "Statement": others}
        for name in ("Action", "Resource"):
            for one in _several(statement[name]):
                left = [other for other in _several(statement[name]) if other != one]
                if left:
                    yield f"{statement['Sid']}: {one}", {**document, "Statement": [*others, {**statement, name: left}]}
