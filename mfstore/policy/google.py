"""What each role needs in Google Cloud: custom roles, and bindings of them in a bucket's policy, each under a condition
that binds it to a place. Pure.

Google's deny policies know no names of objects: what must not be is left out of the conditions. A condition tells no
permission from another, so there is a custom role for each thing that is done with other objects than the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mfstore.errors import InvalidKey, Refused
from mfstore.policy.needs import Keys, Right, Role, explanations, keys_of, needs
from mfstore.policy.places import Place

PERMISSIONS: Mapping[str, tuple[str, ...]] = {
    "mfstoreRead": ("storage.objects.get", "storage.objects.list"),
    "mfstoreCreate": ("storage.objects.create",),
    "mfstoreDelete": ("storage.objects.delete",),
    "mfstoreSettings": ("storage.buckets.get",),
}
"""The custom roles, by id, and what they may do. They are the same for all places."""
TITLES: Mapping[str, str] = {
    "mfstoreRead": "mfstore: read and list objects",
    "mfstoreCreate": "mfstore: create objects",
    "mfstoreDelete": "mfstore: replace and delete objects",
    "mfstoreSettings": "mfstore: see how a bucket is set up",
}
OF_OBJECTS: Mapping[str, tuple[Right, ...]] = {
    "mfstoreRead": ("read",),
    "mfstoreCreate": ("write",),
    # Whoever replaces an object deletes the one before: Google has no right to the first without the second.
    "mfstoreDelete": ("write", "delete"),
}
SETTINGS: frozenset[Right] = frozenset(("settings", "versioning", "exposure"))
SERVED: frozenset[Right] = frozenset(("list", "read", "write", "delete", *SETTINGS))
"""Rights that there is something of."""
LISTED = 'api.getAttribute("storage.googleapis.com/objectListPrefix", "")'
OPERATORS = 12
"""Logical operators in a condition, at most."""
BINDINGS = 20
"""Bindings of one role to one principal in a policy, at most, under different conditions."""
_MEMBER = re.compile(r"(user|serviceAccount|group|domain|principal|principalSet|deleted):\S+")
_PROJECT = re.compile(r"[a-z][a-z0-9:.-]{4,}[a-z0-9]")


def custom_roles(role: Role, place: Place) -> dict[str, dict[str, Any]]:
    """The custom roles that the role is made of, by id: each as ``gcloud iam roles create`` takes it."""
    return {
        name: {
            "title": TITLES[name],
            "description": "Bind it under the condition that mfstore policy --binding prints.",
            "stage": "GA",
            "includedPermissions": [*PERMISSIONS[name]],
        }
        for name in _roles(role, place)
    }


def bindings(role: Role, place: Place, project: str, members: Sequence[str]) -> dict[str, Any]:
    """The policy of the bucket that gives the role to these members, as ``gcloud storage buckets set-iam-policy`` takes
    it, which replaces the one that is there.

    Args:
        role: Which.
        place: Where.
        project: That has the custom roles.
        members: Who has the role: ``serviceAccount:NAME@PROJECT.iam.gserviceaccount.com``, ``user:…``, ``group:…``.

    Raises:
        InvalidKey: a member or the project is none.
        Refused: it has more bindings than Google takes.
    """
    for member in members:
        if not _MEMBER.fullmatch(member):
            raise InvalidKey(
                "no principal of a policy", found=repr(member),
                hint="Name serviceAccount:NAME@PROJECT.iam.gserviceaccount.com, user:MAIL or group:MAIL; a policy for "
                "allUsers is everybody's",
            )  # fmt: skip
    if not _PROJECT.fullmatch(project):
        raise InvalidKey("no id of a project", found=repr(project), hint="Name the one that has the custom roles")
    found = []
    for name, conditions in _roles(role, place).items():
        if len(conditions) > BINDINGS:
            raise Refused(
                f"a policy has at most {BINDINGS} bindings of one role, and {name} needs {len(conditions)}",
                hint="Name fewer flows, or none",
            )
        for number, expression in enumerate(conditions, 1):
            binding: dict[str, Any] = {"role": f"projects/{project}/roles/{name}", "members": [*members]}
            if expression:
                more = f" {number} of {len(conditions)}" if len(conditions) > 1 else ""
                title = f"mfstore {role} {name.removeprefix('mfstore').lower()}{more}"
                binding["condition"] = {"title": title, "description": place.url, "expression": expression}
            found.append(binding)
    return {"version": 3, "bindings": found}


def explained(role: Role, place: Place) -> list[tuple[str, str, str, str]]:
    """Each thing that the role may do there: its name, whether it is allowed or left out, what it is for, and what
    breaks without it."""
    return explanations(role, place, SERVED, "Google")


def _roles(role: Role, place: Place) -> dict[str, list[str]]:
    """The custom roles that the role is made of, by id: for each the conditions under which it is bound; an empty one
    is of the whole bucket."""
    found = needs(role, place)
    roles: dict[str, list[str]] = {}
    for name, rights in OF_OBJECTS.items():
        if keys := keys_of(found, *rights):
            listed = keys_of(found, "list") if name == "mfstoreRead" else Keys(())
            roles[name] = [*_expressions(place, keys, listed)]
    if any(right in SETTINGS for need in found for right in need.rights):
        roles["mfstoreSettings"] = [""]
    return roles


def _expressions(place: Place, keys: Keys, listed: Keys) -> Iterator[str]:
    """Conditions that together are of these keys; an empty one is of the whole bucket."""
    if not place.prefix and keys == Keys(("*",)):
        yield ""
        return
    tests = [(key, _test(place, key)) for key in keys.these]
    tests += [("", f"{LISTED}.startsWith({_text(place.prefix + key.rstrip('*'))})") for key in listed.these]
    chunk: list[tuple[str, str]] = []
    for one in tests:
        if chunk and _operators(_joined(place, [*chunk, one], keys)) > OPERATORS:
            yield _joined(place, chunk, keys)
            chunk = []
        chunk.append(one)
    yield _joined(place, chunk, keys)


def _joined(place: Place, tests: Sequence[tuple[str, str]], keys: Keys) -> str:
    any_of = " || ".join(test for _, test in tests)
    but = [one for one in keys.but if any(_met(one, key) for key, _ in tests if key)]
    if not but:
        return any_of
    none_of = " || ".join(_test(place, one) for one in but)
    these = f"({any_of})" if len(tests) > 1 else any_of
    return f"{these} && !({none_of})"


def _met(one: str, two: str) -> bool:
    return one.startswith(two.rstrip("*")) or two.startswith(one.rstrip("*"))


def _operators(expression: str) -> int:
    return len(re.findall(r"\|\||&&|!\(", expression))


def _test(place: Place, key: str) -> str:
    name = f"projects/_/buckets/{place.name}/objects/{place.prefix}{key.rstrip('*')}"
    if key.endswith("*"):
        return f"resource.name.startsWith({_text(name)})"
    return f"resource.name == {_text(name)}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
