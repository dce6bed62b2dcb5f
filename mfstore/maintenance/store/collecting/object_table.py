"""The recipes, or the packs, of a store as a listing tells them, in columns: there may be millions."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from mfstore.format.collection import seal_etag
from mfstore.format.packs import pack_path
from mfstore.format.recipes import recipe_path

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

ObjectKind = Literal["recipes", "packs"]


class ObjectTable:
    """The objects of one kind, by their names of 32 bytes."""

    def __init__(self, kind: ObjectKind) -> None:
        self.kind = kind
        self.rows: dict[bytes, int] = {}
        """Row by name."""
        self.sizes = array("Q")
        """Bytes, by row."""
        self.modified = array("d")
        """When it was written, on the store's clock, by row."""
        self.versions = array("Q")
        """Which version it is, by ``seal_etag``, by row."""

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, name: bytes, size: int, modified: float, etag: str) -> None:
        """Count one object."""
        self.rows[name] = len(self.sizes)
        self.sizes.append(size)
        self.modified.append(modified)
        self.versions.append(seal_etag(etag))

    def path(self, name: bytes) -> str:
        """Where it is stored."""
        return (recipe_path if self.kind == "recipes" else pack_path)(name.hex())

    def size(self, name: bytes) -> int:
        """Its bytes."""
        return self.sizes[self.rows[name]]

    def version(self, name: bytes) -> int:
        """Which version it is."""
        return self.versions[self.rows[name]]


def list_objects(backend: Backend, kind: ObjectKind) -> Iterator[tuple[bytes, int, float, str]]:
    """Name, size, time and etag of each object of a kind. What is not named like one is left alone."""
    # Where a listing comes in pages, sixteen at a time.
    digits = "0123456789abcdef" if backend.capabilities.remote else [""]
    for info in backend.list_many([f"{kind}/{digit}" for digit in digits]):
        folder, _, text = info.key.rpartition("/")
        try:
            name = bytes.fromhex(text)
        except ValueError:
            continue
        if len(name) == 32 and text == name.hex() and folder == f"{kind}/{text[:2]}":
            yield name, info.size, info.modified, info.etag


def read_table(backend: Backend, kind: ObjectKind) -> ObjectTable:
    """Every object of a kind."""
    found = ObjectTable(kind)
    for row in list_objects(backend, kind):
        found.add(*row)
    return found
