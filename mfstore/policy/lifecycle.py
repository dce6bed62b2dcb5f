"""The lifecycle rules that a bucket or an account should have for a place, in the words of each service. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mfstore.errors import InvalidKey
from mfstore.maintenance.lifecycle import merged
from mfstore.maintenance.versions import RULE_DAYS, VersionsKept, rule_id
from mfstore.policy.places import Place


def lifecycle(prefix: str, present: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The rules of a bucket, for PutBucketLifecycleConfiguration, which replaces all there are.

    The one of the place aborts uploads that nobody ends, and removes versions that are not current. It expires nothing
    that is current: that somebody may need.

    Args:
        prefix: What the keys of all objects of the place begin with.
        present: The rules that the bucket has. They mean what they did, but for one with the ID of ours.
    """
    return {"Rules": merged(present, VersionsKept(prefix=prefix).rule)}


def azure_lifecycle(place: Place, present: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The same of an account of Azure, for ``az storage account management-policy create --policy``, which replaces
    all there are. Blocks of uploads that nobody ends go there by themselves."""
    ours = {
        "enabled": True,
        "name": re.sub(r"[^A-Za-z0-9-]", "-", rule_id("mfstore-versions-of", f"{place.name}/{place.prefix}")),
        "type": "Lifecycle",
        "definition": {
            "filters": {"blobTypes": ["blockBlob"], "prefixMatch": [f"{place.name}/{place.prefix}"]},
            "actions": {"version": {"delete": {"daysAfterCreationGreaterThan": RULE_DAYS}}},
        },
    }
    return {"rules": [*(rule for rule in present if rule.get("name") != ours["name"]), ours]}


def google_lifecycle(place: Place, present: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The same of a bucket of Google, for ``gcloud storage buckets update --lifecycle-file``, which replaces all there
    are. Rules have no names there: one that is there already is not added again."""
    where = {"matchesPrefix": [place.prefix]} if place.prefix else {}
    ours = (
        {"action": {"type": "Delete"}, "condition": {"daysSinceNoncurrentTime": RULE_DAYS, **where}},
        {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": RULE_DAYS, **where}},
    )
    return {"rule": [*(rule for rule in present if rule not in ours), *ours]}


# ---- what is there, in S3's words, by which dangers are told -----------------------------------


def rules_of(place: Place, document: Any) -> list[dict[str, Any]]:
    """The rules in what a service's own tool prints of them. InvalidKey when there are none to be found in it."""
    found = document
    for name in ("policy", "lifecycle", "lifecycle_config"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if isinstance(found, dict):
        found = found.get({"s3": "Rules", "az": "rules", "gs": "rule"}[place.scheme], [] if not found else None)
    if not isinstance(found, list) or not all(isinstance(rule, dict) for rule in found):
        raise InvalidKey("no lifecycle rules as this service has them", hint=f"Print them by: {printed_by(place)}")
    return found


def printed_by(place: Place) -> str:
    """The command that prints the rules that are there."""
    if place.scheme == "az":
        account = place.account or "ACCOUNT"
        return f"az storage account management-policy show --account-name {account} -g GROUP --query policy"
    if place.scheme == "gs":
        return f"gcloud storage buckets describe gs://{place.name} --raw --format='json(lifecycle)'"
    return f"aws s3api get-bucket-lifecycle-configuration --bucket {place.name}"


def in_words_of_s3(place: Place, rules: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What rules do to what is current there, as rules of S3."""
    if place.scheme == "s3":
        return [*rules]
    numbered = enumerate(rules, 1)
    if place.scheme == "gs":
        from mfstore.gcs.answers import lifecycle_rule

        return [one for number, rule in numbered for one in lifecycle_rule(rule, number)]
    return [one for number, rule in numbered for one in _of_azure(place, rule, number)]


def _of_azure(place: Place, rule: Mapping[str, Any], number: int) -> Iterator[Mapping[str, Any]]:
    definition = rule.get("definition") or {}
    filters = definition.get("filters") or {}
    base = (definition.get("actions") or {}).get("baseBlob") or {}
    if "blockBlob" not in (filters.get("blobTypes") or ["blockBlob"]):
        return
    for named in filters.get("prefixMatch") or [""]:
        container, slash, prefix = named.partition("/")
        # Without a slash it is of all containers that begin so.
        if container != place.name and (slash or not place.name.startswith(container)):
            continue
        found: dict[str, Any] = {
            "ID": rule.get("name") or f"number {number}",
            "Status": "Enabled" if rule.get("enabled", True) else "Disabled",
            "Filter": {"Prefix": prefix},
        }
        if filters.get("blobIndexMatch"):
            found["Filter"] = {"And": {"Prefix": prefix, "Tags": filters["blobIndexMatch"]}}
        if (days := _days(base.get("delete"))) is not None:
            found["Expiration"] = {"Days": days}
        if (days := _days(base.get("tierToArchive"))) is not None:
            found["Transitions"] = [{"Days": days, "StorageClass": "GLACIER"}]
        yield found


def _days(action: Mapping[str, Any] | None) -> int | None:
    """After how many days: of several conditions the first that can hold."""
    found = [value for value in (action or {}).values() if isinstance(value, int | float)]
    return int(min(found)) if found else None
