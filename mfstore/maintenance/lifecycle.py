"""Lifecycle rules of a bucket, and what they would do to a store, or to a datastore root of Metaflow.

A rule looks at the age of an object, which is not that of what relies on it: a pack may be years old and hold half of
what was saved today. Writers make such objects young again when they rely on them, but nothing can protect what is only
read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mfstore.errors import AccessDenied, MfstoreError
from mfstore.metaflow.roots.layout import MAINTENANCE_FOLDER
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER

if TYPE_CHECKING:
    from mfstore.backends.base import Backend


class Part(NamedTuple):
    """What lies in one folder of a place."""

    lost: str
    """What an expiration takes."""
    data: bool = False
    """Whether objects there are large enough to be moved to another class of storage."""
    spare: bool = False
    """Whether nothing that is stored relies on them, so that somebody may mean to have them expire."""


PARTS: Mapping[str, Part] = {
    "mfstore.json": Part("the store's description, without which nothing can be read"),
    "refs/": Part("refs that were not set since"),
    "recipes/": Part("keys that were not saved again since, also when refs name them", True),
    "packs/": Part("data that was not saved again since, also when refs name it", True),
    "gc/": Part("holds, and what collections remember"),
    "signatures/": Part("who vouches for what is stored"),
}
"""Of a store, by where it is. Index fragments and `latest/` cost deduplication only."""
SHOWN = 5
"""Flows that are named."""


def root_parts(flows: Sequence[str], packed: bool) -> Mapping[str, Part]:
    """The same of a datastore root of Metaflow, with these flows, and with what the packed profile has stored."""
    parts: dict[str, Part] = {}
    for flow in sorted(flows):
        parts[f"{flow}/data/"] = Part(f"artifacts of {flow}, also those that younger runs share", True)
        parts[f"{flow}/"] = Part(f"records of {flow}, without which its runs cannot be read")
    parts["data/"] = Part("files of IncludeFile and of S3(run=self), and code packages", True)
    if packed:
        parts[f"{STORE_FOLDER}/"] = Part(
            "artifacts of all flows in the packed profile, also those that runs share", True
        )
    parts[f"{MAINTENANCE_FOLDER}/"] = Part("what collections remember, and holds")
    parts["mf.cards/"] = Part("cards, which the UI then does not show", spare=True)
    # Metaflow uploads a package once: those that a project's manifest of environments names are not looked for again.
    parts["conda/"] = Part(
        "packages of environments: tasks that need one fail, until a run with --force-rebuild-environments", spare=True
    )
    return parts


class Danger(NamedTuple):
    """What one rule would do."""

    rule: str
    """Its name."""
    action: Literal["expire", "freeze"]
    parts: tuple[str, ...]
    """The prefixes that it touches, below the place."""
    text: str
    spare: bool = False
    """Whether nothing that is stored relies on what is lost."""


FROZEN = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes that cannot be read without restoring first. GLACIER_IR can."""


def lifecycle_warnings(backend: Backend) -> list[str]:
    """What the bucket's rules do to this store, in sentences; nothing where there are no such rules."""
    try:
        rules = backend.lifecycle_rules()
    except AccessDenied as error:
        right = error.rights[0][0] if error.rights else "s3:GetLifecycleConfiguration"
        return [f"the bucket's lifecycle rules may not be read ({right}): check them yourself"]
    except MfstoreError:
        return []  # a service without lifecycle rules says so in many ways
    return [] if rules is None else explain(rules, backend.prefix)


def explain(rules: Sequence[Mapping[str, Any]], prefix: str) -> list[str]:
    """The same for rules in the words of S3's GetBucketLifecycleConfiguration. Pure."""
    advice = f". Let it leave out {prefix or 'this bucket'} and run mfstore gc"
    return [
        danger.text + (advice if danger.action == "expire" else "") for danger in endangered(rules, prefix, PARTS)
    ]  # fmt: skip


def endangered(
    rules: Sequence[Mapping[str, Any]], prefix: str, parts: Mapping[str, Part] = PARTS
) -> list[Danger]:  # fmt: skip
    """What such rules would do to a place below ``prefix`` that has these parts. Pure."""
    found = []
    for rule in rules:
        scope, tagged = _scope(rule)
        touched = [part for part in parts if _overlap(scope, prefix + part)]
        # mfstore tags nothing.
        if rule.get("Status") != "Enabled" or tagged or not touched:
            continue
        ident = str(rule.get("ID") or scope or "of the whole bucket")
        when = _when(rule.get("Expiration") or {})
        if when:
            told = [parts[part].lost for part in touched]
            more = f"; and {len(told) - 2 * SHOWN} more" if len(told) > 2 * SHOWN else ""
            taken = "; ".join(told[: 2 * SHOWN]) + more
            text = f"lifecycle rule {ident} removes objects {when}: {taken}"
            spare = all(parts[part].spare for part in touched)
            found.append(Danger(ident, "expire", tuple(touched), text, spare))
        data = tuple(part for part in touched if parts[part].data)
        for transition in rule.get("Transitions") or ():
            if transition.get("StorageClass") in FROZEN and data:
                text = (
                    f"lifecycle rule {ident} moves objects to {transition['StorageClass']} {_when(transition)}: "
                    "reading them then fails until they are restored"
                )
                found.append(Danger(ident, "freeze", data, text))
    return found


def aborts_uploads(rules: Sequence[Mapping[str, Any]], prefix: str) -> bool:
    """Whether one of such rules gives up uploads below ``prefix`` that nobody ends. Pure."""
    for rule in rules:
        scope, tagged = _scope(rule)
        aborts = (rule.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation") is not None
        if aborts and rule.get("Status") == "Enabled" and not tagged and prefix.startswith(scope):
            return True
    return False


def merged(rules: Sequence[Mapping[str, Any]], *ours: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Our rules beside those of a bucket, as PutBucketLifecycleConfiguration takes them together: for one that has the
    ID of ours, ours; and all in the newer form, since S3 takes no ``Prefix`` of a rule beside a ``Filter``. Pure."""
    replaced = {rule["ID"] for rule in ours}
    return [*(_newer(rule) for rule in rules if rule.get("ID") not in replaced), *ours]


def _newer(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    if "Prefix" not in rule or "Filter" in rule:
        return rule
    return {**{name: value for name, value in rule.items() if name != "Prefix"}, "Filter": {"Prefix": rule["Prefix"]}}


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
