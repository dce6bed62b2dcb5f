"""How much of a Metaflow root something is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfstore.display.amounts import count, size

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo


@dataclass(frozen=True, slots=True)
class RootAmount:
    """How much of a root."""

    objects: int = 0
    bytes: int = 0
    """Of these objects."""

    def __add__(self, other: RootAmount) -> RootAmount:
        return RootAmount(self.objects + other.objects, self.bytes + other.bytes)

    def __str__(self) -> str:
        return f"{size(self.bytes)} in {count(self.objects, 'object')}"


def total(infos: Iterable[ObjectInfo]) -> RootAmount:
    """Number and bytes of objects."""
    sizes = [info.size for info in infos]
    return RootAmount(len(sizes), sum(sizes))
