"""What whoever asks may do in a place, by what came of trying it. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence

from mfstore.doctor.findings import Finding, State, bare, failure
from mfstore.doctor.operations import action_of
from mfstore.doctor.tried import SCRATCH, Trial, Tried
from mfstore.records import NamedTuple
from mfstore.s3.aws.rights import ACTIONS, arn, literal
from mfstore.s3.urls import bucket_url, scheme_of, split_url


class Operation(NamedTuple):
    """What was tried."""

    call: str
    """S3's name."""
    use: str
    """What it is needed for."""


TRIED: Mapping[str, Operation] = {
    "list": Operation("ListObjectsV2", "to list, to deduplicate, to tell an absent object from a refused one"),
    "head": Operation("HeadObject", "to ask whether and how long something is"),
    "get": Operation("GetObject", "to load"),
    "range": Operation("GetObject", "to load parts, and large artifacts in pieces"),
    "put": Operation("PutObject", "to save"),
    "put-if-none-match": Operation("PutObject", "to create a store, and refs"),
    "put-if-match": Operation("PutObject", "to change refs, and for collections"),
    "copy": Operation("CopyObject", "to make what a save relies on young again; else it is read and put"),
    "multipart-create": Operation("CreateMultipartUpload", "to save what one request does not take"),
    "multipart-part": Operation("UploadPart", "the same"),
    "multipart-complete": Operation("CompleteMultipartUpload", "the same"),
    "multipart-abort": Operation("AbortMultipartUpload", "to give up uploads that fail: without it they stay and cost"),
    "multipart-list-parts": Operation("ListParts", "nothing that mfstore does; to look into open uploads"),
    "multipart-list-uploads": Operation("ListMultipartUploads", "nothing that mfstore does; to find open uploads"),
    "delete": Operation("DeleteObject", "to remove what was tried; to collect, to remove holds"),
    "delete-many": Operation("DeleteObjects", "to collect"),
    "delete-shared": Operation("DeleteObject", "to collect what nobody needs, where it lies"),
    "delete-if-match": Operation("DeleteObject", "to collect without a look before each deletion"),
    "list-versions": Operation("ListObjectVersions", "nothing that mfstore does; to remove versions by hand"),
    "delete-version": Operation("DeleteObject", "nothing that mfstore does; to remove versions by hand"),
}
NAMED: Mapping[tuple[str, str], str] = {
    ("s3", "delete-version"): "s3:DeleteObjectVersion", ("gs", "put-if-match"): "storage.objects.delete",
    ("gs", "copy"): "storage.objects.delete",
}  # fmt: skip
"""The right that is special about it, where that is not the operation's first: in Google who replaces deletes."""
OPTIONAL = frozenset(
    ("copy", "multipart-list-parts", "multipart-list-uploads", "delete-if-match", "list-versions", "delete-version")
)
"""What mfstore can do without."""
WORDS = {"allowed": "allowed", "refused": "refused", "absent": "not offered here", "untried": "not tried"}
LOAD = ("head", "get", "range")
SAVE = ("put", "multipart-create", "multipart-part", "multipart-complete")
NAME = ("put-if-none-match", "put-if-match")
COLLECT = ("delete", "delete-many", "delete-shared")


def rights(trial: Trial) -> Iterator[Finding]:
    """What may be done there, operation by operation, then as a whole."""
    if trial.unreachable is not None:
        yield failure("place", trial.unreachable)
        return
    for name in TRIED:
        if name in trial.tried:
            yield _operation(trial.tried[name], scheme_of(trial.bucket))
    yield from _kms(trial)
    yield _as_a_whole(trial)
    for left in trial.left:
        yield Finding("left behind", left, "doubtful", "It may not be removed by this identity", _removal(left))


def _operation(found: Tried, scheme: str) -> Finding:
    call, use = TRIED[found.name]
    action = NAMED.get((scheme, found.name)) or action_of(scheme, call)
    facts = {"answer": found.answer, "operation": call, "action": action, "use": use}
    if found.answer == "failed":
        assert found.error is not None
        state: State = "doubtful" if found.name in OPTIONAL else "broken"
        return Finding(found.name, f"failed: {bare(found.error)}", state, found.error.hint or "", facts=facts)
    text = f"{WORDS[found.answer]:17}{action:32}{use}"
    if found.answer == "untried":
        return Finding(found.name, f"{text} ({found.note})", "absent", facts=facts)
    if found.answer == "absent":
        needed = found.name not in OPTIONAL
        said = f" ({found.error.message})" if found.error is not None else ""
        state = "doubtful" if needed else "absent"
        hint = (found.error.hint or "") if needed and found.error is not None else ""
        if found.name in NAME:
            hint = "Open the store with single_writer=True if one process alone writes to it, or take another service"
        return Finding(found.name, text + said, state, hint, facts=facts)
    if found.answer == "refused":
        missing = [list(right) for right in found.missing]
        return Finding(found.name, text, "refused", facts={**facts, "missing": missing})
    text += f" ({found.note})" if found.note else ""
    return Finding(found.name, text, facts={**facts, "milliseconds": round(1000 * found.seconds)})


def _kms(trial: Trial) -> Iterator[Finding]:
    """What a key of KMS has to do with it, where there is one."""
    missing = sorted(
        {right for tried in trial.tried.values() for right in tried.missing if right[0].startswith("kms:")}
    )
    if missing:
        told = " and ".join(f"{action} on {resource}" for action, resource in missing)
        yield Finding(
            "kms", f"refused          {told}", "refused",
            "The policy of the key has to allow it too, not only that of whoever asks",
            facts={"missing": [list(right) for right in missing]},
        )  # fmt: skip
    elif trial.headers.get("x-amz-server-side-encryption", "").startswith("aws:kms"):
        key = trial.headers.get("x-amz-server-side-encryption-aws-kms-key-id", "the account's own key")
        allowed = [
            action for action, name in (("kms:GenerateDataKey", "put"), ("kms:Decrypt", "range")) if trial.allows(name)
        ]
        uses = "; ".join(f"{action} {ACTIONS[action].use}" for action in allowed)
        yield Finding("kms", f"allowed          {uses}: {key}", facts={"key": key, "allowed": allowed})


def _as_a_whole(trial: Trial) -> Finding:
    """What the identity is good for."""
    can = {
        "load": _all(trial, LOAD),
        "list": _all(trial, ("list",)),
        "save": _all(trial, SAVE),
        "set refs": _all(trial, ("put", *NAME)),
        "collect": _all(trial, ("list", *LOAD, *SAVE, *NAME, *COLLECT)),
    }
    may = [what for what, answer in can.items() if answer]
    not_may = [what for what, answer in can.items() if answer is False]
    unknown = [what for what, answer in can.items() if answer is None]
    sentences = []
    if may:
        sentences.append(f"you can {_and(may)}")
    if not_may:
        sentences.append(f"you cannot {_and(not_may, 'or')}")
    if unknown:
        sentences.append(f"whether you can {_and(unknown, 'or')} was not tried")
    facts = {what.replace(" ", "-"): answer for what, answer in can.items()}
    text = "; ".join(sentences)
    missing = sorted({right for tried in trial.tried.values() if tried.name not in OPTIONAL for right in tried.missing})
    if can["load"] is False:
        hint = "Nothing can be loaded here" + (". To load it takes:" if missing else "")
        return Finding("you", text, "broken", hint, statement(missing, trial), facts)
    if not_may and missing:
        return Finding(
            "you",
            text,
            "refused",
            "If that is not meant, this is missing (mfstore policy prints all that a role needs):",
            statement(missing, trial),
            facts,
        )
    return Finding("you", text, facts=facts)


def _all(trial: Trial, names: Sequence[str]) -> bool | None:
    answers = {trial.tried[name].answer for name in names if name in trial.tried}
    if answers - {"allowed", "untried"}:
        return False
    return None if "untried" in answers else True


def _and(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def statement(missing: Sequence[tuple[str, str]], trial: Trial) -> str:
    """The policy that allows it, as JSON: for the object of the trial all those beside it, for another all of the
    place; of Azure and Google Cloud the command that prints what a role needs. Empty for nothing."""
    if missing and scheme_of(trial.bucket) != "s3":
        return f"mfstore policy writer {shlex.quote(bucket_url(trial.bucket, trial.prefix.rstrip('/')))} --explain"
    actions: dict[str, set[str]] = {}
    for action, resource in missing:
        actions.setdefault(_pattern(resource, trial), set()).add(action)
    found = [
        {"Effect": "Allow", "Action": sorted(names), "Resource": where} for where, names in sorted(actions.items())
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": found}) if found else ""


def _pattern(resource: str, trial: Trial) -> str:
    """What a statement names for what a request was about."""
    place = arn(trial.bucket, trial.prefix).removeprefix("arn:aws:")
    begin, found, key = resource.partition(place)
    if not found:  # the bucket, or a key of KMS
        return resource
    folder = f"{key.rpartition('/')[0]}/".lstrip("/") if SCRATCH in key else ""
    bucket = begin + found.removesuffix(trial.prefix)
    return f"{bucket}{literal(trial.prefix + folder)}*"


def _removal(left: str) -> str:
    url, _, more = left.rpartition(" (") if left.endswith(")") else (left, "", "")
    bucket, key = split_url(url)
    if scheme_of(bucket) == "gs":
        return f"gcloud storage rm {shlex.quote(url)}" if not more else ""
    if scheme_of(bucket) != "s3":
        named = f"--container-name {shlex.quote(bucket)} --name {shlex.quote(key)}"
        return f"az storage blob delete --account-name ACCOUNT {named}" if not more else ""
    kind, _, name = more.rstrip(")").partition(" ")
    where = f"--bucket {shlex.quote(bucket)} --key {shlex.quote(key)}"
    if kind == "upload":
        return f"aws s3api abort-multipart-upload {where} --upload-id {name}"
    if kind == "version":
        return f"aws s3api delete-object {where} --version-id {name}"
    if kind:  # its versions, which may not be listed here
        return f"aws s3api list-object-versions --bucket {shlex.quote(bucket)} --prefix {shlex.quote(key)}"
    return f"aws s3 rm {shlex.quote(url)}"


def checksums(trial: Trial) -> Iterator[Finding]:
    """What the service does with checksums."""
    if not trial.checksums:
        return
    taken = [name for name, found in trial.checksums.items() if name != "wrong" and found.answer == "allowed"]
    facts = {"taken": taken, "told": list(trial.kept)}
    told = f"{', '.join(trial.kept)} come back with what is got" if trial.kept else "none comes back with what is got"
    if trial.kept:
        yield Finding("checksums", f"{', '.join(taken)} taken with what is put; {told}", facts=facts)
    else:
        yield Finding(
            "checksums", f"{', '.join(taken) or 'none'} taken with what is put; {told}", "absent",
            "The transport alone protects what is got; digests of a store find damage in any case", facts=facts,
        )  # fmt: skip
    wrong = trial.checksums.get("wrong")
    if wrong is None:  # only who speaks to S3 can send one
        return
    refused = wrong.answer == "failed" and wrong.error is not None and wrong.error.status is not None
    compared = {"refused": refused}
    if wrong.answer == "allowed":
        yield Finding(
            "wrong checksum", "taken: the service does not compare", "doubtful",
            "What is damaged on its way there is found when it is read, not when it is put", facts=compared,
        )  # fmt: skip
    elif refused:
        yield Finding("wrong checksum", "refused, as it should be", facts=compared)
    else:
        yield Finding("wrong checksum", "not known here", "absent", facts=compared)
