"""How a bucket is configured, and what that means for what is stored in it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mfstore.backends.s3.locks import default_retention
from mfstore.display.amounts import count
from mfstore.doctor.findings import Finding, bare
from mfstore.doctor.operations import action_of
from mfstore.errors import AccessDenied, MfstoreError, NotFound, Unsupported
from mfstore.maintenance.lifecycle import Part, aborts_uploads, endangered, merged
from mfstore.maintenance.versions import RULE_DAYS, VersionsKept, removed_after, rule_id
from mfstore.s3.calls import Call
from mfstore.s3.transfers.metadata import ConfigurationJob
from mfstore.s3.transfers.uploads import SingleCallJob
from mfstore.s3.urls import bucket_url, scheme_of

if TYPE_CHECKING:
    from mfstore.backends.buckets import BucketBackend

VERSIONING, LOCK, LIFECYCLE = "GetBucketVersioning", "GetObjectLockConfiguration", "GetBucketLifecycleConfiguration"
ENCRYPTION, BLOCK = "GetBucketEncryption", "GetPublicAccessBlock"
POLICY, ACL = "GetBucketPolicyStatus", "GetBucketAcl"
QUESTIONS = (VERSIONING, LOCK, LIFECYCLE, ENCRYPTION, BLOCK, POLICY, ACL)
TOLD = {"s3": QUESTIONS, "gs": (VERSIONING, LOCK, LIFECYCLE)}
"""What is asked, by service: what it tells those who store."""
OPEN_SECONDS = 86400.0
"""An upload that is open for longer is most likely abandoned."""
EVERYBODY = (
    "http://acs.amazonaws.com/groups/global/AllUsers",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
)
BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")

Answers = Mapping[str, "Mapping[str, Any] | MfstoreError"]
"""By question: what was answered, nothing where there is no such configuration, or why it is not known."""


def ask(backend: BucketBackend) -> Answers:
    """How the bucket is configured."""
    if scheme_of(backend.bucket) == "az":  # by one blob of the place: a role may be limited to its prefix
        try:
            return {VERSIONING: {"Status": backend.versioning()}}
        except MfstoreError as refusal:
            return {VERSIONING: refusal}
    questions = TOLD[scheme_of(backend.bucket)]
    jobs = (ConfigurationJob(number, name, backend.bucket, name) for number, name in enumerate(questions))
    found: dict[str, Mapping[str, Any] | MfstoreError] = {}
    for outcome in backend.client.transfers.run(jobs):
        error = outcome.error
        absent = isinstance(error, NotFound) and error.service_code != "NoSuchBucket"
        found[outcome.item] = outcome.data if error is None else {} if absent else error
    return found


def open_uploads(backend: BucketBackend) -> list[float] | MfstoreError:
    """Since when uploads are open below the place, of the first thousand."""
    call = Call("ListMultipartUploads", backend.bucket, params={"Prefix": backend.prefix})
    try:
        answer = backend.client.transfers.one(SingleCallJob(call)).data
    except MfstoreError as error:
        return error
    return [
        row["Initiated"].timestamp()
        for row in answer.get("Uploads") or ()
        if hasattr(row.get("Initiated"), "timestamp")
    ]


def versioned(answers: Answers) -> bool | None:
    """Whether the bucket keeps versions; None: that may not be asked."""
    found = answers.get(VERSIONING)
    if isinstance(found, AccessDenied):
        return None
    return isinstance(found, Mapping) and found.get("Status") in ("Enabled", "Suspended")


def retention(answers: Answers) -> str:
    """The retention that every new object gets, in words; empty: none, as far as is known."""
    found = answers.get(LOCK)
    told = default_retention(found) if isinstance(found, Mapping) else ""
    return "" if told == "Enabled" else told


def findings(
    bucket: str, prefix: str, parts: Mapping[str, Part], answers: Answers, uploads: Sequence[float] | MfstoreError,
    *, aws: bool, now: float, expires: bool = False,
) -> Iterator[Finding]:  # fmt: skip
    """What to think of it. Pure.

    Args:
        bucket: Its name.
        prefix: Where in it the place is.
        parts: What lies where below it, and what is lost with it: ``maintenance.lifecycle``.
        answers: As of ``ask``.
        uploads: As of ``open_uploads``.
        aws: Whether the service is AWS's.
        now: Seconds since the epoch.
        expires: Whether writers know that objects are removed by age (``MFSTORE_EXPIRE_DAYS``).
    """
    fix = _fix(bucket, prefix, parts, answers)
    yield from _versions(prefix, answers, fix)
    yield from _lock(answers)
    yield from _lifecycle(bucket, prefix, parts, answers, fix, expires)
    yield from _uploads(uploads, now)
    yield from _encryption(answers)
    yield from _public(bucket, answers, aws)


def findings_elsewhere(
    bucket: str, prefix: str, parts: Mapping[str, Part], answers: Answers, *, expires: bool = False
) -> Iterator[Finding]:  # fmt: skip
    """The same in Azure or Google Cloud. Pure."""
    if scheme_of(bucket) == "gs":
        yield from _versions(prefix, answers, rules_of_google(bucket, prefix), bucket)
        yield from _lock(answers, bucket)
        told = f"gcloud storage buckets describe {shlex.quote(bucket_url(bucket))} --raw --format='json(lifecycle)'"
        yield from _lifecycle(bucket, prefix, parts, answers, told, expires)
        return
    from mfstore.doctor.azure import settings_not_told

    found = answers[VERSIONING]
    if isinstance(found, MfstoreError):
        yield _unknown("versioning", VERSIONING, found, bucket)
    elif found.get("Status"):
        text = "blobs have versions: what is deleted stays as one, until a lifecycle rule of the account removes it"
        yield Finding("versioning", text, facts={"status": found["Status"]})
    else:
        yield Finding("versioning", "no blob that was seen has a version", facts={"status": None})
    yield from settings_not_told(bucket)


def rules_of_google(bucket: str, prefix: str) -> str:
    """The commands that give a bucket of Google the rules for a place, beside those that it has."""
    url = shlex.quote(bucket_url(bucket, prefix.rstrip("/")) if prefix else bucket_url(bucket))
    of_bucket = shlex.quote(bucket_url(bucket))
    return (
        f"gcloud storage buckets describe {of_bucket} --raw --format='json(lifecycle)' > present.json\n"
        f"mfstore policy collector {url} --lifecycle --present present.json > rules.json\n"
        f"gcloud storage buckets update {of_bucket} --lifecycle-file rules.json"
    )


def _fix(bucket: str, prefix: str, parts: Mapping[str, Part], answers: Answers) -> str:
    """The command for the rules that the bucket should have; empty where those that there are are not known."""
    found = answers[LIFECYCLE]
    if isinstance(found, MfstoreError):
        return ""
    rules = proposed(found.get("Rules", ()), prefix, parts, bool(versioned(answers)))
    document = json.dumps({"Rules": rules}, default=lambda value: value.isoformat())
    smallest = str(found.get("TransitionDefaultMinimumObjectSize") or "")
    # What the request leaves out is set back, as the rules are.
    kept = f" --transition-default-minimum-object-size {shlex.quote(smallest)}" if smallest else ""
    return (
        f"aws s3api put-bucket-lifecycle-configuration --bucket {shlex.quote(bucket)}{kept} "
        f"--lifecycle-configuration {shlex.quote(document)}"
    )


def proposed(
    rules: Sequence[Mapping[str, Any]], prefix: str, parts: Mapping[str, Part], keeps_versions: bool
) -> list[Mapping[str, Any]]:  # fmt: skip
    """The rules that a bucket should have: those that there are, of which what endangers the place is switched off, and
    one that gives up uploads and removes versions. Pure."""
    wanted = [
        {**rule, "Status": "Disabled"} if any(not one.spare for one in endangered([rule], prefix, parts)) else rule
        for rule in rules
    ]
    if keeps_versions and removed_after(wanted, prefix) is None:
        return merged(wanted, VersionsKept(prefix=prefix).rule)
    if aborts_uploads(wanted, prefix):
        return merged(wanted)
    abort = {
        "ID": rule_id("abandoned-uploads", prefix),
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": RULE_DAYS},
    }
    return merged(wanted, abort)


def _unknown(name: str, question: str, error: MfstoreError, bucket: str = "") -> Finding:
    if isinstance(error, AccessDenied) and not error.rights and error.status is not None:
        return Finding(name, "not known: the credentials are not accepted", "refused")
    if isinstance(error, AccessDenied):
        action = action_of(scheme_of(bucket), question)
        return Finding(name, f"may not be asked ({action})", "refused", facts={"missing": action})
    if isinstance(error, Unsupported):
        return Finding(name, "not offered here", "absent")
    return Finding(name, f"could not be asked: {bare(error)}", "doubtful", error.hint or "")


def _versions(prefix: str, answers: Answers, fix: str, bucket: str = "") -> Iterator[Finding]:
    found = answers[VERSIONING]
    if isinstance(found, MfstoreError):
        yield _unknown("versioning", VERSIONING, found, bucket)
        return
    state = str(found.get("Status") or "")
    facts = {"status": state or None}
    if state not in ("Enabled", "Suspended"):
        yield Finding("versioning", "off: what is deleted is gone", facts=facts)
        return
    rules = answers[LIFECYCLE]
    days = removed_after(rules.get("Rules", ()), prefix) if isinstance(rules, Mapping) else None
    text = f"{state.lower()}: what is deleted stays as a version"
    if days is not None:
        yield Finding(
            "versioning", f"{text}, and goes {count(days, 'day')} later by a rule", facts={**facts, "days": days}
        )
        return
    if not isinstance(rules, Mapping):
        yield Finding("versioning", f"{text}; whether a rule removes it is not known", "doubtful", facts=facts)
        return
    yield Finding(
        "versioning", f"{text}, and costs as before: no rule removes it", "doubtful",
        "Collections free nothing then. A rule that removes versions in time, beside those that there are:",
        fix, facts,
    )  # fmt: skip


def _lock(answers: Answers, bucket: str = "") -> Iterator[Finding]:
    found = answers[LOCK]
    if isinstance(found, MfstoreError):
        yield _unknown("object lock", LOCK, found, bucket)
        return
    told = default_retention(found)
    facts = {"retention": told or None}
    if kept := retention(answers):
        yield Finding(
            "object lock", f"everything that is stored is locked: {kept}", "doubtful",
            "Collections delete nothing before; nothing was put to try it", facts=facts,
        )  # fmt: skip
    else:
        yield Finding("object lock", "on, without a retention by default" if told else "off", facts=facts)


def _lifecycle(
    bucket: str, prefix: str, parts: Mapping[str, Part], answers: Answers, fix: str, expires: bool
) -> Iterator[Finding]:  # fmt: skip
    found = answers[LIFECYCLE]
    if isinstance(found, MfstoreError):
        yield _unknown("lifecycle", LIFECYCLE, found, bucket)
        return
    rules: Sequence[Mapping[str, Any]] = found.get("Rules", ())
    # Google's rules have no names and cannot be switched off.
    named = scheme_of(bucket) == "s3"
    which = "it" if named else "its matchesPrefix"
    then = ". The rules with this one switched off, which replace those that there are:" if named else ""
    dangers = endangered(rules, prefix, parts)
    for danger in dangers:
        facts = {"rule": danger.rule, "parts": list(danger.parts), "action": danger.action}
        if danger.spare:
            yield Finding(
                "lifecycle", danger.text, "doubtful", "No run is lost by that: it may be meant so", facts=facts
            )
            continue
        yield Finding(
            "lifecycle", danger.text, "doubtful" if expires else "broken",
            f"A rule of age does not know what relies on an object. Have {which} leave out "
            f"{bucket_url(bucket, prefix)}, and let mfstore gc remove what nobody needs{then}",
            fix, facts,
        )  # fmt: skip
    if not dangers:
        told = f"{count(len(rules), 'rule')}, none that takes what is still needed" if rules else "no rules"
        yield Finding("lifecycle", told, facts={"rules": len(rules)})
    if not named:  # uploads that nobody ends go by themselves
        return
    if aborts_uploads(rules, prefix):
        yield Finding("abandoned uploads", "a rule gives them up")
    else:
        yield Finding(
            "abandoned uploads", "no rule gives them up: parts of uploads that died stay, unseen, and cost", "doubtful",
            "A rule that does, beside those that there are:", fix,
        )  # fmt: skip


def _uploads(uploads: Sequence[float] | MfstoreError, now: float) -> Iterator[Finding]:
    if isinstance(uploads, MfstoreError):
        yield _unknown("open uploads", "ListMultipartUploads", uploads)
        return
    old = sum(1 for begun in uploads if begun < now - OPEN_SECONDS)
    facts = {"open": len(uploads), "older_than_a_day": old}
    if old:
        yield Finding(
            "open uploads", f"{count(old, 'upload')} begun more than a day ago, of {len(uploads)} that are open",
            "doubtful", "Whoever began them is most likely gone. A rule for abandoned uploads gives them up",
            facts=facts,
        )  # fmt: skip
    else:
        yield Finding("open uploads", f"{len(uploads)}" if uploads else "none", facts=facts)


def _encryption(answers: Answers) -> Iterator[Finding]:
    found = answers[ENCRYPTION]
    if isinstance(found, MfstoreError):
        yield _unknown("encryption", ENCRYPTION, found)
        return
    rules = (found.get("ServerSideEncryptionConfiguration") or {}).get("Rules") or ()
    said = [rule.get("ApplyServerSideEncryptionByDefault") or {} for rule in rules]
    algorithm = next((one["SSEAlgorithm"] for one in said if one.get("SSEAlgorithm")), "")
    key = next((one["KMSMasterKeyID"] for one in said if one.get("KMSMasterKeyID")), "")
    facts = {"algorithm": algorithm or None, "key": key or None}
    if not algorithm:
        yield Finding("encryption", "none is set for the bucket", facts=facts)
    else:
        yield Finding("encryption", f"{algorithm} by default{f', with {key}' if key else ''}", facts=facts)


def _public(bucket: str, answers: Answers, aws: bool) -> Iterator[Finding]:
    """Whether others than those who are named may read or write."""
    everybody = _opened_by(answers)
    if everybody:
        writes = any("write" in one or "full_control" in one for one in everybody)
        hint = "Anybody who may write can make those run code who load" if writes else "Anybody may read what is stored"
        yield Finding(
            "public access", "; ".join(everybody), "broken" if writes else "doubtful", hint, _block(bucket),
            {"public": True},
        )  # fmt: skip
        return
    found = answers[BLOCK]
    if isinstance(found, MfstoreError):
        yield _unknown("public access", BLOCK, found)
        return
    block = found.get("PublicAccessBlockConfiguration") or {}
    if all(block.get(name) for name in BLOCKS):
        yield Finding("public access", "blocked", facts={"public": False, "blocked": True})
    elif aws:
        yield Finding(
            "public access", "none, and nothing keeps somebody from opening the bucket", "doubtful",
            "Unless the account blocks it already:", _block(bucket), {"public": False, "blocked": False},
        )  # fmt: skip
    else:
        yield Finding("public access", "none", facts={"public": False, "blocked": False})


def _opened_by(answers: Answers) -> list[str]:
    found = []
    policy = answers[POLICY]
    if isinstance(policy, Mapping) and (policy.get("PolicyStatus") or {}).get("IsPublic"):
        found.append("the service says that the bucket's policy is public")
    acl = answers[ACL]
    if isinstance(acl, Mapping):
        for grant in acl.get("Grants") or ():
            if (grant.get("Grantee") or {}).get("URI") in EVERYBODY:
                found.append(f"the bucket's ACL gives everybody {str(grant.get('Permission')).lower()}")
    return found


def _block(bucket: str) -> str:
    return (
        f"aws s3api put-public-access-block --bucket {shlex.quote(bucket)} --public-access-block-configuration "
        + ",".join(f"{name}=true" for name in BLOCKS)
    )
