"""What each role needs in Azure: a custom role, and the condition under which it is assigned, which binds it to a
place. Pure.

Azure has no denials that a user can make: what must not be is left out of the condition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mfstore.errors import InvalidKey, Refused
from mfstore.policy.needs import ROLES, Keys, Need, Right, Role, explanations, keys_of, needs
from mfstore.policy.places import Place

STORAGE = "Microsoft.Storage/storageAccounts"
CONTAINERS = f"{STORAGE}/blobServices/containers"
READ, WRITE, DELETE = f"{CONTAINERS}/blobs/read", f"{CONTAINERS}/blobs/write", f"{CONTAINERS}/blobs/delete"
LIST = "Blob.List"
"""The part of ``blobs/read`` that is listing, which has a prefix and no path."""
CONDITION_LIMIT = 8 << 10
"""Characters of a condition."""
ACTIONS: Mapping[Right, tuple[str, ...]] = {"exposure": (f"{CONTAINERS}/read",)}
"""What is asked of the container, which is no data, by right."""
DATA: Mapping[Right, str] = {"list": READ, "read": READ, "write": WRITE, "delete": DELETE}
"""What is done with blobs, by right. Blocks that nobody puts together go by themselves: ``parts`` needs nothing."""
BOUND: Mapping[str, tuple[Right, ...]] = {READ: ("read",), WRITE: ("write",), DELETE: ("delete",)}
_SCOPE = re.compile(r"/subscriptions/[0-9a-fA-F-]{36}(/resourceGroups/[\w.()-]+(/providers/[\w./$-]+)?)?")


def role_name(role: Role, place: Place) -> str:
    """What the custom role is called: it is the same for all places of this kind."""
    return f"mfstore {role} ({place.title})"


def role_definition(role: Role, place: Place, scope: str) -> dict[str, Any]:
    """The custom role, as ``az role definition create`` takes it. It holds nowhere until it is assigned.

    Args:
        role: Which.
        place: Where.
        scope: What it can be assigned in: a subscription, or a resource group.

    Raises:
        InvalidKey: ``scope`` is none.
    """
    if not _SCOPE.fullmatch(scope):
        raise InvalidKey(
            "no scope of a custom role", found=repr(scope),
            hint="It is /subscriptions/ID or /subscriptions/ID/resourceGroups/NAME: az group show --query id prints it",
        )  # fmt: skip
    found = needs(role, place)
    return {
        "Name": role_name(role, place),
        "IsCustom": True,
        "Description": f"mfstore: {ROLES[role]}. Assign it under the condition that mfstore policy --binding prints.",
        "Actions": _named(found, ACTIONS),
        "NotActions": [],
        "DataActions": _named(found, {right: (action,) for right, action in DATA.items()}),
        "NotDataActions": [],
        "AssignableScopes": [scope],
    }


def _named(found: Iterable[Need], names: Mapping[Right, Sequence[str]]) -> list[str]:
    rights = [right for need in found if not need.denies for right in need.rights]
    return [*dict.fromkeys(name for right in rights for name in names.get(right, ()))]


def explained(role: Role, place: Place) -> list[tuple[str, str, str, str]]:
    """Each thing that the role may do there: its name, whether it is allowed or left out, what it is for, and what
    breaks without it."""
    return explanations(role, place, {*DATA, *ACTIONS}, "Azure")


def condition(role: Role, place: Place) -> str:
    """The condition under which the role is assigned (version 2.0): of this container, and of these keys alone.

    Raises:
        InvalidKey: the prefix has a character that no text of a condition can have.
        Refused: it is longer than Azure takes.
    """
    for character in "'\\\n":
        if character in place.prefix:
            raise InvalidKey(
                f"a condition cannot name a prefix with {character!r}", found=repr(place.prefix),
                hint="Take another prefix, or a container of its own and a role without a condition",
            )  # fmt: skip
    text = "\nAND\n".join(_clauses(needs(role, place), place))
    if len(text) > CONDITION_LIMIT:
        raise Refused(
            f"a condition has at most {CONDITION_LIMIT} characters, and this one has {len(text)}",
            hint="Name fewer flows and assign the role several times, or take a shorter prefix",
        )
    return text


def _clauses(found: Sequence[Need], place: Place) -> Iterator[str]:
    listed = keys_of(found, "list")
    for action, rights in BOUND.items():
        keys = keys_of(found, *rights)
        if action == READ:
            matches = f"ActionMatches{{'{READ}'}} AND NOT SubOperationMatches{{'{LIST}'}}"
        else:
            matches = f"ActionMatches{{'{action}'}}"
        if keys:
            yield _clause(matches, place, f"@Resource[{CONTAINERS}/blobs:path]", keys)
    if listed:
        matches = f"ActionMatches{{'{READ}'}} AND SubOperationMatches{{'{LIST}'}}"
        yield _clause(matches, place, f"@Request[{CONTAINERS}/blobs:prefix]", listed)


def _clause(matches: str, place: Place, attribute: str, keys: Keys) -> str:
    tests = [f"@Resource[{CONTAINERS}:name] StringEquals '{place.name}'", *_tests(attribute, place.prefix, keys)]
    joined = "\n  AND\n  ".join(tests)
    return f"(\n (\n  !({matches})\n )\n OR\n (\n  {joined}\n )\n)"


def _tests(attribute: str, prefix: str, keys: Keys) -> Iterator[str]:
    if len(keys.these) == 1 and keys.these[0].endswith("*"):
        if begin := prefix + keys.these[0][:-1]:
            yield f"{attribute} StringStartsWith '{begin}'"
    else:
        yield f"{attribute} ForAnyOfAnyValues:StringLike {_texts(prefix, keys.these)}"
    if keys.but:
        yield f"{attribute} ForAllOfAllValues:StringNotLike {_texts(prefix, keys.but)}"


def _texts(prefix: str, keys: Sequence[str]) -> str:
    literal = re.sub(r"[*?]", lambda found: f"\\{found[0]}", prefix)
    return "{" + ", ".join(f"'{literal}{key}'" for key in keys) + "}"
