"""What ``data.json`` remembers of a migration: the key and info that each migrated artifact had before.

It stands in the document that a migration replaces (``"mfstore": {"former": {name: [{"key": …, "info": …}]}}``), so
that it is known from the very write that makes the new form count. Metaflow reads ``objects`` and ``info`` alone. It
tells

* garbage collection which blobs a migration left behind,
* a client whose metadata names a former key what the artifact is now,
* a migration back which blob the artifact was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIELD = "mfstore"
Entry = tuple[str, dict[str, Any]]
"""Key and info of an artifact, as ``data.json`` has them."""


def formers(document: Mapping[str, Any]) -> dict[str, list[Entry]]:
    """What the artifacts of a ``data.json`` were before, by name, the latest form last. ValueError when it makes no
    sense."""
    found = (document.get(FIELD) or {}).get("former") or {}
    try:
        return {
            str(name): [(str(entry["key"]), dict(entry["info"])) for entry in entries]
            for name, entries in found.items()
        }
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"what artifacts were before makes no sense: {error}") from None


def changed(document: Mapping[str, Any], new: Mapping[str, Entry]) -> dict[str, Any]:
    """The ``data.json`` in which these artifacts have another form: all else stays, in its order."""
    objects: dict[str, str] = dict(document["objects"])
    infos: dict[str, Any] = dict(document["info"])
    former = formers(document)
    for name, (key, info) in new.items():
        before = former.setdefault(name, [])
        before.append((objects[name], infos[name]))
        # What it is now it was not before: so going to and fro remembers two forms and not each turn.
        former[name] = [entry for number, entry in enumerate(before) if entry[0] != key and _last(before, number)]
        objects[name], infos[name] = key, info
    remembered = {name: [{"key": key, "info": info} for key, info in before] for name, before in former.items()}
    return {**document, "objects": objects, "info": infos, FIELD: {"former": remembered}}


def _last(entries: list[Entry], number: int) -> bool:
    """Whether no later entry has the same key."""
    return all(key != entries[number][0] for key, _ in entries[number + 1 :])


def now(document: Mapping[str, Any], name: str, key: str) -> Entry | None:
    """What an artifact is now that was ``key`` before; None when it never was."""
    if all(before != key for before, _ in formers(document).get(name, ())):
        return None
    return document["objects"][name], document["info"][name]
