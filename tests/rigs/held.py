"""What the artifacts of a recipe hold in packs, and what usage tells, for models of who holds what."""

from collections import Counter

from mfstore.format.recipes import INLINE


def parts_of(recipe):
    """Of each artifact of a recipe the parts of packs that it needs, by pack and offset, with their lengths."""
    number = 0
    for artifact in recipe.artifacts:
        parts = {}
        for place in recipe.placements[number : number + len(artifact.chunks)]:
            if place.pack != INLINE:
                parts[recipe.packs[place.pack], place.offset] = place.csize
            for piece in place.pieces:
                base = recipe.bases[piece.chunk]
                parts[recipe.packs[base.pack], base.offset] = base.csize
        number += len(artifact.chunks)
        yield artifact, parts


def own_and_shared(sizes, needed_by):
    """The bytes of parts that one name needs alone, and those that others need as well, by name."""
    own, shared = Counter(), Counter()
    for part, names in needed_by.items():
        for name in names:
            (shared if len(names) > 1 else own)[name] += sizes[part]
    return own, shared


def told(usage):
    """The same as usage tells it."""
    return {group.name: group.own for group in usage.groups if group.own}, {
        group.name: group.shared for group in usage.groups if group.shared
    }
