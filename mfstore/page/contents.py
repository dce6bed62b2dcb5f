"""What recipes say of what is stored under their keys, as a page tells it. Without I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mfstore._core.memory import xxh3
from mfstore.format.recipes import BUNDLE, INLINE, Artifact, Recipe, encode_content
from mfstore.page.facts import Content, Part

Chunks = Mapping[bytes, int]
"""Lengths of chunks by what tells them apart."""


def content_of(recipe: Recipe) -> Content:
    """What is stored under the recipe's key."""
    about = recipe.described
    placed = {(at.pack, at.offset): at.csize for at in recipe.placements if at.pack != INLINE}
    parts = tuple(
        Part(artifact.name, kind, artifact.size, mark_of(artifact, recipe.algorithm))
        for artifact, kind in zip(recipe.artifacts, about.types, strict=True)
    )
    return Content(
        kind="bundle" if recipe.kind == BUNDLE else "artifact",
        size=sum(part.size or 0 for part in parts),
        stored=recipe.stored + sum(placed.values()),
        created=about.made.time or None if about.made else None,
        creator=about.made.by if about.made else "",
        note=note_json(about.note),
        parts=parts,
    )


def mark_of(artifact: Artifact, algorithm: int) -> bytes:
    """Equal for artifacts of equal content, whatever their names."""
    content = encode_content(1, algorithm, [artifact._replace(name="")])
    return xxh3(content).to_bytes(8, "little")


def chunks_of(recipe: Recipe) -> Chunks:
    """The chunks of a recipe. A literal is one: it is stored with its recipe."""
    found: dict[bytes, int] = {}
    for artifact in recipe.artifacts:
        if artifact.literal is not None:
            found[b"literal" + artifact.literal] = len(artifact.literal)
        for chunk in artifact.chunks:
            found[chunk.id] = chunk.usize
    return found


def fresh_bytes(new: Chunks, old: Chunks) -> int:
    """Bytes of the chunks that only the new one has."""
    return sum(length for name, length in new.items() if name not in old)


def note_json(note: Mapping[str, Any] | None) -> str:
    """A note as the page has it: JSON, which people read; empty where there is none."""
    return "" if note is None else json.dumps(note, ensure_ascii=False)


def by_day(objects: Iterable[tuple[int, float]]) -> tuple[tuple[str, int, int], ...]:
    """Day (UTC), bytes and number of objects, each given with its size and time, in the order of days."""
    days: dict[int, tuple[int, int]] = {}
    for size, modified in objects:
        day = int(modified // 86400)
        stored, number = days.get(day, (0, 0))
        days[day] = stored + size, number + 1
    return tuple((iso_day(day), *days[day]) for day in sorted(days))


def iso_day(day: int) -> str:
    """A day, by its number since the epoch."""
    from datetime import date, timedelta

    try:
        return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
    except OverflowError:
        return "9999-12-31"  # a clock that no calendar has
