"""What is stored, by listing alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mfstore.format import fragments, packs, recipes
from mfstore.format.collection import seal_etag
from mfstore.format.refs import PREFIX as REFS
from mfstore.format.refs import is_ref, ref_name
from mfstore.format.tree import node_name
from mfstore.maintenance.report import PhaseProgress

if TYPE_CHECKING:
    from mfstore.backends.base import Backend, ObjectInfo
    from mfstore.maintenance.report import PhaseCallback

_NAME = re.compile(r"(packs|recipes)/([0-9a-f]{2})/(\2[0-9a-f]{62})")
SMALLEST = {
    "packs": packs.HEADER.size + packs.ENTRY.size + packs.FOOTER.size,
    "recipes": recipes.HEADER.size + recipes.CONTENT.size + recipes.ARTIFACT.size,
}
"""No pack or recipe is shorter."""


@dataclass(slots=True)
class Inventory:
    """The objects of a store. Names are digests, 32 bytes."""

    recipes: dict[bytes, int] = field(default_factory=dict)
    """Which version of each there is, by ``seal_etag``: of the other objects the ETag tells."""
    packs: dict[bytes, ObjectInfo] = field(default_factory=dict)
    fragments: dict[str, ObjectInfo] = field(default_factory=dict)
    """The index: its fragments and the nodes of its tree."""
    refs: dict[str, str] = field(default_factory=dict)
    """Key of the object by name of the ref."""
    short: list[ObjectInfo] = field(default_factory=list)
    """Packs and recipes too short to be one; they are among these too."""
    foreign: list[ObjectInfo] = field(default_factory=list)
    """Objects beside them that no mfstore put there."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("recipes", "packs", "index", "refs"), 0))
    stored: int = 0
    """Bytes of all of them."""

    def add(self, infos: Iterable[ObjectInfo]) -> None:
        """Sort what a listing tells."""
        for info in infos:
            kind = info.key.partition("/")[0]
            self.counts[kind] += kind != "refs" or is_ref(info.size)
            self.stored += info.size
            match = _NAME.fullmatch(info.key)
            if match is not None:
                if info.size < SMALLEST[kind]:
                    self.short.append(info)
                if kind == "packs":
                    self.packs[bytes.fromhex(match[3])] = info
                else:
                    self.recipes[bytes.fromhex(match[3])] = seal_etag(info.etag)
            elif kind == "refs":
                self.refs[ref_name(info.key)] = info.key
            elif fragments.digest_in_key(info.key) is not None or node_name(info.key) is not None:
                self.fragments[info.key] = info
            else:
                self.foreign.append(info)


def take_inventory(backend: Backend, progress: PhaseCallback) -> Inventory:
    """List the store.

    Recipes are listed before packs: a writer stores packs first, so a recipe seen here has its packs in the later
    listing. Refs come before recipes for the same reason.
    """
    found = Inventory()
    prefixes = (REFS, "recipes/", "packs/", fragments.PREFIX)
    for number, prefix in enumerate(prefixes):
        progress(PhaseProgress("listing", number, len(prefixes)))
        wide = prefix in ("recipes/", "packs/")
        found.add(
            backend.list_many([f"{prefix}{digit}" for digit in "0123456789abcdef"]) if wide else backend.list(prefix)
        )
    progress(PhaseProgress("listing", len(prefixes), len(prefixes)))
    return found
