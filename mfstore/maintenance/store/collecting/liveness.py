"""What is stored, and what live recipes need of it: the reading half of garbage collection.

A million chunks take about 100 MB here: objects are columns, and a chunk that is needed is one number in a set.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from mfstore._core.codec import Codec
from mfstore.errors import CorruptObject, MfstoreError, NotFound
from mfstore.format import recipes
from mfstore.format.collection import seal_etag
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, Recipe, recipe_path
from mfstore.format.refs import PREFIX, decode_ref, ref_name
from mfstore.maintenance.store.collecting.retention import RefVersion

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

BATCH = 256
"""Recipes asked for together: they are decoded while the next ones are on their way."""
OFFSET_BITS = 48


class Objects:
    """The objects of one kind, "recipes" or "packs", by their names of 32 bytes."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.rows: dict[bytes, int] = {}
        self.sizes = array("Q")
        self.modified = array("d")
        self.versions = array("Q")

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


def list_objects(backend: Backend, kind: str) -> Iterator[tuple[bytes, int, float, str]]:
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


def read_objects(backend: Backend, kind: str) -> Objects:
    """Every object of a kind."""
    found = Objects(kind)
    for row in list_objects(backend, kind):
        found.add(*row)
    return found


def read_refs(backend: Backend) -> dict[str, RefVersion]:
    """Every ref. Raises for one that cannot be read: then nobody knows what is needed."""
    found = {}
    for path in [info.key for info in backend.list(PREFIX)]:
        try:
            data, etag = backend.get_tagged(path)
            found[ref_name(path)] = RefVersion(etag, tuple(decode_ref(data, path)))
        except NotFound:
            continue  # removed since it was listed
        except MfstoreError as error:
            raise stopped(error.where(backend=backend.url), "a ref cannot be read") from None
    return found


def stopped(error: MfstoreError, why: str) -> MfstoreError:
    """The same error, as the reason why nothing is collected."""
    error.message = f"garbage collection stops: {why}: {error.message}"
    error.hint = "Nothing was changed. Repair the store, or drop what cannot be read, and try again"
    return error


def read_recipes(
    backend: Backend, keys: Iterable[bytes], codec: Codec, missing_ok: bool = False
) -> Iterator[tuple[bytes, Recipe]]:
    """The recipe of each key. Raises for one that cannot be read or, unless ``missing_ok``, is missing."""
    wanted = iter(keys)
    while window := list(islice(wanted, BATCH)):
        found = backend.get_many([recipe_path(key.hex()) for key in window])
        for key, (path, data) in zip(window, found, strict=True):
            if missing_ok and isinstance(data, NotFound):
                continue
            try:
                if isinstance(data, MfstoreError):
                    raise data
                yield key, recipes.decode(data, codec, key)
            except MfstoreError as error:
                raise stopped(
                    error.where(key=path, backend=backend.url), "a recipe that is needed cannot be read"
                ) from None


class Marks:
    """How many bytes of each pack are needed."""

    def __init__(self, packs: Objects, exists: Callable[[str], bool]) -> None:
        self._packs = packs
        self._exists = exists
        self.live = array("Q", bytes(8 * len(packs)))
        """Needed bytes by row of ``packs``; each chunk once."""
        self.needed = bytearray(len(packs))
        """Whether a recipe names the pack, by row."""
        self.lasting = bytes(len(packs))
        """The same for recipes that are kept for another reason than their youth."""
        self._seen: set[int] = set()

    def add(self, key: bytes, recipe: Recipe) -> None:
        """A recipe is live. CorruptObject when a pack it needs is missing or too short."""
        packs = self._packs
        rows = []
        for name in recipe.packs:
            row = packs.rows.get(name, -1)
            # One stored since the packs were listed is no concern of this collection.
            if row < 0 and not self._exists(pack_path(name.hex())):
                raise stopped(
                    CorruptObject("a pack is missing", key=pack_path(name.hex())), f"the key {key.hex()} needs it"
                )
            rows.append(row)
            if row >= 0:
                self.needed[row] = 1
        seen, live, sizes = self._seen, self.live, packs.sizes
        for number, offset, csize, _, _ in recipe.placements:
            if number == INLINE:
                continue
            row = rows[number]
            if row < 0:
                continue
            if offset + csize > sizes[row]:
                raise stopped(
                    CorruptObject(
                        "a pack is too short", key=pack_path(recipe.packs[number].hex()), expected=offset + csize,
                        found=sizes[row],
                    ), f"the key {key.hex()} needs it",
                )  # fmt: skip
            place = row << OFFSET_BITS | offset
            if place not in seen:
                seen.add(place)
                live[row] += csize

    @property
    def chunks(self) -> int:
        """Different chunks needed."""
        return len(self._seen)

    def forget_chunks(self) -> None:
        """Free the memory that only further ``add`` would need."""
        self._seen.clear()


def mark(
    backend: Backend, lasting: Iterable[bytes], young: Iterable[bytes], packs: Objects, codec: Codec,
    progress: Callable[[int], None],
) -> Marks:  # fmt: skip
    """What the recipes of these keys need. Raises when one of them, or a pack, cannot be relied on."""
    marks = Marks(packs, lambda path: backend.exists_many([path])[0])

    def add(keys: Iterable[bytes]) -> None:
        for key, recipe in read_recipes(backend, keys, codec):
            try:
                marks.add(key, recipe)
            except CorruptObject as error:
                raise error.where(backend=backend.url) from None
            progress(1)

    add(lasting)
    marks.lasting = bytes(marks.needed)
    add(young)
    return marks
