"""What ``data.json`` remembers of a migration: the forms that each migrated artifact had before.

It stands in the document that a migration replaces (``"mfstore": {"former": {name: [{"key": …, "info": …}]}}``), so
that it is known from the very write that makes the new form count. Metaflow reads ``objects`` and ``info`` alone. It
tells

* garbage collection which blobs a migration left behind, and with ``"recorded": true`` that the records of the
  artifacts in local metadata were brought up to date: without it, a metadata service may name these blobs for ever,
* a client whose metadata names the key of an earlier form what the artifact is now,
* a migration back which blob the artifact was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIELD = "mfstore"
EARLIER = "former"
"""Of ``FIELD``: names of artifacts to their earlier forms."""
RECORDED = "recorded"
"""Of ``FIELD``: records elsewhere follow, so that nobody without mfstore looks for an earlier form."""
Form = tuple[str, dict[str, Any]]
"""Key and info of an artifact, as ``data.json`` has them."""


def earlier_forms(document: Mapping[str, Any]) -> dict[str, list[Form]]:
    """What the artifacts of a ``data.json`` were before, by name, the latest form last. ValueError when it makes no
    sense."""
    found = (document.get(FIELD) or {}).get(EARLIER) or {}
    try:
        return {str(name): [(str(form["key"]), dict(form["info"])) for form in forms] for name, forms in found.items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"what artifacts were before makes no sense: {error}") from None


def is_recorded(document: Mapping[str, Any]) -> bool:
    """Whether the records of the migrated artifacts were brought up to date."""
    return (document.get(FIELD) or {}).get(RECORDED) is True


def with_new_forms(document: Mapping[str, Any], new: Mapping[str, Form], recorded: bool = False) -> dict[str, Any]:
    """The ``data.json`` in which these artifacts have another form: all else stays, in its order. ``recorded``: so will
    their records say."""
    objects: dict[str, str] = dict(document["objects"])
    infos: dict[str, Any] = dict(document["info"])
    earlier = earlier_forms(document)
    for name, (key, info) in new.items():
        before = earlier.setdefault(name, [])
        before.append((objects[name], infos[name]))
        # What it is now it was not before: so going to and fro remembers two forms and not each turn.
        earlier[name] = [form for number, form in enumerate(before) if form[0] != key and _is_last(before, number)]
        objects[name], infos[name] = key, info
    record = {name: [{"key": key, "info": info} for key, info in forms] for name, forms in earlier.items()}
    field = {EARLIER: record, **({RECORDED: True} if recorded else {})}
    return {**document, "objects": objects, "info": infos, FIELD: field}


def _is_last(forms: list[Form], number: int) -> bool:
    """Whether no later form has the same key."""
    return all(key != forms[number][0] for key, _ in forms[number + 1 :])


def current_form(document: Mapping[str, Any], name: str, key: str | None) -> Form | None:
    """What an artifact is now that had ``key`` before; None when it never had."""
    if all(before != key for before, _ in earlier_forms(document).get(name, ())):
        return None
    return document["objects"][name], document["info"][name]
