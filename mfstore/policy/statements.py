"""What each role needs at a place, and what it is denied there: one statement for each thing. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from mfstore.errors import InvalidKey
from mfstore.format import (
    audit,
    collection,
    description,
    fragments,
    holds,
    latest,
    progress,
    quarantine,
    refs,
    signatures,
)
from mfstore.metaflow.roots.layout import LOG_FOLDER, MAINTENANCE_FOLDER
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER
from mfstore.policy.places import Place

Role = Literal["writer", "reader", "signer", "collector", "auditor", "benchmark"]
ROLES: Mapping[Role, str] = {
    "writer": "tasks and programs that save, load and set refs",
    "reader": "who only loads",
    "signer": "who vouches for what others stored",
    "collector": "who runs gc, repair, migrate and verify, and sets holds",
    "auditor": "who runs verify, du and doctor, and changes nothing",
    "benchmark": "who runs bench",
}
"""Each role, and who has it."""

PROBES = ".mfstore-probe-*"
"""Of what conditions are tried on (mfstore/backends/s3/conditions.py)."""
SCRATCH = "mfstore-bench-*"
"""Of what a benchmark stores (mfstore/bench/targets.py)."""
CONTENT = ("packs/*", "recipes/*", f"{fragments.PREFIX}*")
COLLECTORS = ("gc/*", f"{quarantine.PREFIX}*", f"{progress.PATH.partition('/')[0]}/*")
"""Of a store: by what collections decide, what repair set aside, and what verification need not read again."""
PUT = ("s3:PutObject", "s3:AbortMultipartUpload")
CHANGE = ("s3:PutObject*", "s3:DeleteObject*", "s3:AbortMultipartUpload")
"""Also of ACLs, tags, retention and legal holds, which open an object to others, have a lifecycle rule take it, or keep
it from being deleted. Patterns, since radosgw 16 refuses a policy that names an action that it does not know, and S3 is
given new ones."""
REMOVE = ("s3:DeleteObject", "s3:DeleteObjectVersion")
RETENTION = ("s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration", "s3:GetLifecycleConfiguration")
"""What tells how long a bucket keeps what is stored and what is deleted."""
EXPOSURE = (
    "s3:GetEncryptionConfiguration", "s3:GetBucketPublicAccessBlock", "s3:GetBucketPolicyStatus", "s3:GetBucketAcl",
)  # fmt: skip
"""What tells how a bucket encrypts, and who else may read it."""
_KEY = re.compile(r"arn:[\w-]+:kms:(?P<region>[\w-]+):\d+:key/[\w-]+")
"""One key: a pattern would be of many."""
UNKNOWN_TO_RADOSGW = ("s3:GetEncryptionConfiguration",)
"""Release 16 refuses a policy that names an action that it does not know."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a policy, and the reason for it."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    purpose: str
    """What it is for."""
    without: str
    """What becomes of it if the statement is left out."""
    effect: Literal["Allow", "Deny"] = "Allow"
    condition: Mapping[str, Mapping[str, str | tuple[str, ...]]] = field(default_factory=dict)


def statements(role: Role, place: Place, *, kms_key: str | None = None, radosgw: bool = False) -> list[Statement]:
    """What a role needs at a place.

    Args:
        role: Which.
        place: Where.
        kms_key: The ARN of the key by which S3 encrypts objects there.
        radosgw: Ceph's gateway is to understand it: some statements more, without which it refuses what S3 allows.

    Raises:
        InvalidKey: ``kms_key`` is not the ARN of a key.
    """
    found = [*_of_role[role](place)]
    if radosgw:
        found = [_known_to_radosgw(one) for one in found]
        found += _for_radosgw(role, place)
    if kms_key is not None:
        found.append(key_statement(role, kms_key))
    return found


def key_statement(role: Role, kms_key: str) -> Statement:
    """What a role needs of the key by which S3 encrypts. InvalidKey when this is not the ARN of one."""
    found = _KEY.fullmatch(kms_key)
    if found is None:
        raise InvalidKey(
            "not the ARN of a KMS key", found=repr(kms_key),
            hint="It is arn:aws:kms:REGION:ACCOUNT:key/ID, as aws kms describe-key prints it: a policy names keys, "
            "not their aliases",
        )  # fmt: skip
    writes = role not in ("reader", "auditor")
    return Statement(
        "UseKey",
        ("kms:Decrypt", *["kms:GenerateDataKey"] * writes),
        (kms_key,),
        "read and write what S3 encrypts with this key" if writes else "read what S3 encrypts with this key",
        "every read of an encrypted object is refused, and every upload" if writes else "every read is refused",
        # Of the service's own domain in each partition.
        condition={"StringLike": {"kms:ViaService": f"s3.{found['region']}.amazonaws.com*"}},
    )


def protection(place: Place) -> Statement:
    """What nobody but a collector may change at a place."""
    return _protection(place, _protected(place))


def _protection(place: Place, patterns: tuple[str, ...]) -> Statement:
    return Statement(
        "ProtectCollector",
        CHANGE,
        place.objects(*patterns),
        "keep what collections decide by out of reach, whatever other policies allow",
        "who may write there, or set ACLs, tags or locks, can have a collection let go of what is needed, or stop it",
        "Deny",
    )


# ---- roles ----------------------------------------------------------------------------------


def _reader(place: Place) -> Iterator[Statement]:
    yield _list(place)
    yield _read(place)


def _writer(place: Place) -> Iterator[Statement]:
    yield _list(place)
    yield _read(place)
    yield Statement(
        "Write", PUT, place.objects(*_written(place)), "save, and end uploads that failed", "every save is refused"
    )
    if place.kind != "stock":
        yield Statement(
            "RemoveProbes",
            ("s3:DeleteObject",),
            place.objects(PROBES if place.kind == "store" else f"{STORE_FOLDER}/{PROBES}"),
            "remove the object on which it was tried whether the service keeps conditions",
            "each process that tries it leaves one small object, until a collection",
        )
    yield _protection(place, _denied_to_tasks(place))


def _signer(place: Place) -> Iterator[Statement]:
    yield _list(place)
    yield _read(place)
    below = "" if place.kind == "store" else f"{STORE_FOLDER}/"
    yield Statement(
        "Sign",
        ("s3:PutObject",),
        place.objects(f"{below}{signatures.PREFIX}*"),
        "store signatures beside what they are of",
        "nothing can be signed",
    )


def _collector(place: Place) -> Iterator[Statement]:
    yield _list(place)
    yield _read(place)
    yield _settings(place)
    yield Statement(
        "ReadLocks",
        ("s3:GetObjectRetention", "s3:GetObjectLegalHold"),
        place.objects("*"),
        "see what Object Lock keeps from being deleted",
        "a plan in a bucket with Object Lock says that it does not know what is locked",
    )
    yield Statement(
        "Collect",
        PUT,
        place.objects(*_kept_up(place)),
        "write what is condemned, the log, holds, what is repacked, repaired, set aside or put back",
        "a collection ends before it changes anything",
    )
    yield Statement(
        "Delete",
        ("s3:DeleteObject",),
        place.objects(*_deleted(place)),
        "delete what a list has named for a grace period, holds that were released, what is quarantined",
        "a collection condemns, and deletes nothing",
    )
    yield Statement(
        "KeepLog",
        REMOVE,
        place.objects(*_logs(place)),
        "keep the log of collections, whatever other policies allow",
        "who collects can remove the record of it",
        "Deny",
    )


def _auditor(place: Place) -> Iterator[Statement]:
    yield _list(place)
    yield _read(place)
    yield _settings(place)
    yield Statement(
        "ReadExposure",
        EXPOSURE,
        (place.bucket,),
        "see how the bucket encrypts, and whether anybody else may read it",
        "the doctor says that it does not know, and warns of no bucket that is open to everybody",
    )
    yield _uploads(place)


def _benchmark(place: Place) -> Iterator[Statement]:
    yield Statement(
        "ListScratch",
        ("s3:ListBucket", "s3:ListBucketVersions"),
        (place.bucket,),
        "list what the benchmark stored, also as versions, and be told of what is absent",
        "the benchmark ends at its first listing, and leaves what it stored",
        condition=_prefixes(place, SCRATCH),
    )
    yield _uploads(place)
    yield Statement(
        "UseScratch",
        ("s3:GetObject", *PUT, *REMOVE),
        place.objects(SCRATCH),
        "store, read and remove objects of its own, in a folder that it names anew each time",
        "the benchmark is refused its first object",
    )
    yield Statement(
        "ReadVersioning",
        ("s3:GetBucketVersioning",),
        (place.bucket,),
        "know whether what the benchmark deletes stays as versions, which it removes then",
        "in a bucket that keeps versions all that it stored stays, and costs",
    )


_of_role = {
    "reader": _reader, "writer": _writer, "signer": _signer, "collector": _collector, "auditor": _auditor,
    "benchmark": _benchmark,
}  # fmt: skip


# ---- what several roles need ----------------------------------------------------------------


def _list(place: Place) -> Statement:
    return Statement(
        "List",
        ("s3:ListBucket",),
        (place.bucket,),
        "list below this place, and be told of what is absent that it is",
        "S3 answers 403 also where nothing is: no store can be opened or created",
        condition=_prefixes(place, "*"),
    )


def _prefixes(place: Place, pattern: str) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """The condition that a listing is of nothing but this. S3 takes the key that is asked for as the prefix when
    something is absent. In the whole of a bucket there is none."""
    found = place.listed[:-1] + pattern
    return {} if found == "*" else {"StringLike": {"s3:prefix": (found,)}}


def _read(place: Place) -> Statement:
    return Statement("Read", ("s3:GetObject",), place.objects("*"), "read below this place", "every load is refused")


def _settings(place: Place) -> Statement:
    return Statement(
        "ReadSettings",
        RETENTION,
        (place.bucket,),
        "see whether versions, Object Lock or lifecycle rules keep or take what is stored",
        "plans and the doctor say that they do not know, and warn of no rule that removes shared data",
    )


def _uploads(place: Place) -> Statement:
    return Statement(
        "ListUploads",
        ("s3:ListBucketMultipartUploads",),
        (place.bucket,),
        "find uploads that were cut off; S3 has no narrower right than that of the whole bucket",
        "what was uploaded in part is not seen: it costs until a lifecycle rule takes it",
    )


def _known_to_radosgw(statement: Statement) -> Statement:
    known = tuple(action for action in statement.actions if action not in UNKNOWN_TO_RADOSGW)
    return statement if known == statement.actions else replace(statement, actions=known)


def _for_radosgw(role: Role, place: Place) -> Iterator[Statement]:
    if place.prefix or role == "benchmark":
        yield Statement(
            "TellAbsentOnRadosgw",
            ("s3:ListBucket",),
            (place.bucket,),
            "be told of what is absent: radosgw does not take the key for the prefix, and names max-keys of listings",
            "radosgw answers 403 where nothing is: no store can be opened or created",
            condition={"Null": {"s3:prefix": "true", "s3:max-keys": "true"}},
        )
    if role in ("collector", "benchmark") or (role == "writer" and place.kind != "stock"):
        yield Statement(
            "DeleteTogetherOnRadosgw",
            ("s3:DeleteObject",),
            (place.bucket,),
            "delete by a request that lists objects, for which radosgw asks for the right on the bucket as well",
            "radosgw refuses every deletion",
        )


# ---- what lies where ------------------------------------------------------------------------


def _written(place: Place) -> tuple[str, ...]:
    """What tasks write."""
    if place.kind == "store":
        return (description.PATH, *CONTENT, f"{refs.PREFIX}*", PROBES)
    if not place.flows:
        return ("*",)
    own = [f"{folder}{flow}/*" for flow in place.flows for folder in ("", "data/", "mf.cards/")]
    if place.kind == "stock":
        return tuple(own)
    steps = [f"{latest.PREFIX}{flow}.*" for flow in place.flows]
    return (*own, *(f"{STORE_FOLDER}/{name}" for name in (description.PATH, *CONTENT, PROBES, *steps)))


def _protected(place: Place) -> tuple[str, ...]:
    """What none but a collector may change. Of a root it is the same for both profiles: tasks of either may write
    there."""
    if place.kind == "store":
        return COLLECTORS
    # Refs of the store in a root keep bundles; its tasks set none.
    return (f"{MAINTENANCE_FOLDER}/*", *(f"{STORE_FOLDER}/{name}" for name in (*COLLECTORS, f"{refs.PREFIX}*")))


def _denied_to_tasks(place: Place) -> tuple[str, ...]:
    """That, and what else a task of this profile does not write, though it lies below what it may."""
    if place.kind == "stock":
        return (f"{MAINTENANCE_FOLDER}/*", f"{STORE_FOLDER}/*")
    # A policy that names flows allows no signatures anyway, and leaves it open to add a signer's.
    everywhere = place.kind == "packed" and not place.flows
    return (*_protected(place), *[f"{STORE_FOLDER}/{signatures.PREFIX}*"] * everywhere)


def _kept_up(place: Place) -> tuple[str, ...]:
    """What collections, repairs and holds write."""
    if place.kind == "store":
        return (description.PATH, *CONTENT, f"{refs.PREFIX}*", *COLLECTORS, PROBES)
    return ("*",)  # blobs are put back and migrated, and files repaired, anywhere


def _deleted(place: Place) -> tuple[str, ...]:
    """What collections and repairs delete."""
    if place.kind == "store":
        folders = (refs.PREFIX, collection.LISTS, holds.STORE_HOLDS, quarantine.PREFIX, signatures.PREFIX)
        return (*CONTENT, *(f"{folder}*" for folder in folders), PROBES)
    return ("*",)


def _logs(place: Place) -> tuple[str, ...]:
    if place.kind == "store":
        return (f"{audit.STORE_LOG}*",)
    return (f"{LOG_FOLDER}*", f"{STORE_FOLDER}/{audit.STORE_LOG}*")
