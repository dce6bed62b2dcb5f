"""Lifecycle rules of a bucket, and what they would do to a store.

A rule looks at the age of an object, which is not that of what relies on it: a pack may be years old and hold half of
what was saved today. Writers make such objects young again when they rely on them, but nothing can protect what is only
read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mfstore.errors import AccessDenied, MfstoreError

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

PARTS = {
    "mfstore.json": "the store's description, without which nothing can be read",
    "refs/": "refs that were not set since",
    "recipes/": "keys that were not saved again since, also when refs name them",
    "packs/": "data that was not saved again since, also when refs name it",
}
"""What an expiration takes, by where it is. Index fragments and `latest/` cost deduplication only."""
FROZEN = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes that cannot be read without restoring first. GLACIER_IR can."""


def lifecycle_warnings(backend: Backend) -> list[str]:
    """What the bucket's rules do to this store, in sentences; nothing where there are no such rules."""
    try:
        rules = backend.lifecycle_rules()
    except AccessDenied:
        return ["the bucket's lifecycle rules may not be read (s3:GetLifecycleConfiguration): check them yourself"]
    except MfstoreError:
        return []  # a service without lifecycle rules says so in many ways
    return [] if rules is None else explain(rules, backend.prefix)


def explain(rules: Sequence[Mapping[str, Any]], prefix: str) -> list[str]:
    """The same for rules in the words of S3's GetBucketLifecycleConfiguration. Pure."""
    found = []
    for rule in rules:
        scope, tagged = _scope(rule)
        touched = [part for part in PARTS if _overlap(scope, prefix + part)]
        # mfstore tags nothing.
        if rule.get("Status") != "Enabled" or tagged or not touched:
            continue
        name = f"lifecycle rule {rule.get('ID') or scope or 'of the whole bucket'!s}"
        expiration = rule.get("Expiration") or {}
        when = _when(expiration)
        if when:
            taken = "; ".join(PARTS[part] for part in touched)
            found.append(
                f"{name} removes objects {when}: {taken}. Let it leave out {prefix or 'this bucket'} and run mfstore gc"
            )
        for transition in rule.get("Transitions") or ():
            if transition.get("StorageClass") in FROZEN and {"packs/", "recipes/"} & set(touched):
                found.append(
                    f"{name} moves objects to {transition['StorageClass']} {_when(transition)}: reading them then "
                    "fails until they are restored"
                )
    return found


def _scope(rule: Mapping[str, Any]) -> tuple[str, bool]:
    """The prefix a rule is about, and whether it is only about objects with certain tags."""
    where = rule.get("Filter") or {}
    both = where.get("And") or {}
    prefix = rule.get("Prefix") or where.get("Prefix") or both.get("Prefix") or ""
    return prefix, bool(where.get("Tag") or both.get("Tags"))


def _overlap(one: str, two: str) -> bool:
    return one.startswith(two) or two.startswith(one)


def _when(action: Mapping[str, Any]) -> str:
    if action.get("Days") is not None:
        return f"{action['Days']} days after they were stored"
    if action.get("Date") is not None:
        return f"on {action['Date']:%Y-%m-%d}" if hasattr(action["Date"], "strftime") else f"on {action['Date']}"
    return ""
