"""Deleting what was condemned long enough ago, each object only in the version that was meant."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from mfstore.backends.base import decode_read
from mfstore.errors import AccessDenied, BackendError, CorruptObject, Locked, NotFound, OutOfSpace
from mfstore.format.collection import seal_etag
from mfstore.format.digests import digest_function
from mfstore.format.fragments import PREFIX as INDEX
from mfstore.format.fragments import decode_fragment, fragment_key, without_packs
from mfstore.format.signatures import PREFIX as SIGNATURES
from mfstore.format.signatures import signed_key
from mfstore.format.tree import HALF, ROOT, node_name
from mfstore.holding import held_keys, store_holds
from mfstore.maintenance.clock import DAY
from mfstore.maintenance.store.collecting.liveness import read_recipes, read_refs
from mfstore.maintenance.store.collecting.object_table import ObjectTable, list_objects
from mfstore.maintenance.store.collecting.plan import GcDecision, GcSnapshot, StoreAmount
from mfstore.saving.folding import packs_in, without

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.format.tree import NodeName
    from mfstore.handle import StoreAccess
    from mfstore.maintenance.pace import DeletionPace
    from mfstore.maintenance.store.collecting.ownership import Ownership

DELETED_TOGETHER = 1000
"""Objects deleted between two looks at whether this collector still is the one: one request of S3's."""
LOOKED_AT_TOGETHER = 100
"""The same where each is looked at first: few, so that look and deletion lie in one window."""
DELETION_TRIES = 8
DELETION_PAUSE = 0.5
"""A deletion that is not answered is made again, after a pause that grows from this many seconds, with a new look: a
service that asks to slow down for half a minute does not end a collection."""
LEFT_SECONDS = 7 * DAY
"""A signature so old is not of a recipe that was stored after the recipes were listed."""
LISTED_BETWEEN_PULSES = 10_000
"""Objects listed between two signs of life."""


SHARES = 64
"""Parts of the index's tree of which a collection goes through one, and the next through the next: 32 MB of 2 GB at 10
TB. In that one it finds the marks too that others have left. Marks of packs that are gone are misses, and cost a
listing where their chunk is saved again."""
SHARES_OF_ALL = 8
"""Of a collection that deletes one pack in so many, all parts are due: what is read then is a thousandth of what is
deleted."""


def shares_due(deleted: int, stored: int) -> int:
    """How many parts of the tree a collection goes through that deletes so many of the packs that are stored."""
    return min(SHARES, 1 + SHARES * SHARES_OF_ALL * deleted // max(stored, 1))


def number_of(beginning: bytes) -> int:
    """The beginning of a name, to compare millions of them in 8 bytes each."""
    return int.from_bytes(beginning, "big")


class Deletion:
    """Carries out what a decision deletes. The state must tell already that something is being deleted."""

    def __init__(
        self, access: StoreAccess, ownership: Ownership, snapshot: GcSnapshot, decision: GcDecision,
        live: Mapping[bytes, str], pace: DeletionPace, tell: Callable[[str, int], None],
    ) -> None:  # fmt: skip
        self._access = access
        self._backend = access.backend
        self._ownership = ownership
        self._snapshot = snapshot
        self._decision = decision
        self._live = live
        self._pace = pace
        self._tell = tell
        self._gone: set[bytes] = set()
        """How the names of packs begin that some nodes of the index have marks of, and that are not stored."""
        self.deleted = StoreAmount()
        self.changed = 0
        """Objects left alone because they were stored again, or are needed again, since they were condemned."""

        self.locked = 0
        """Objects that the storage's locks keep."""

    def run(self) -> None:
        """Recipes, then packs, each only in the version that was condemned, and not what somebody has needed since."""
        recipes, packs = dict(self._decision.deletes.recipes), dict(self._decision.deletes.packs)
        # Listed before recipes are: of each of these the recipe was there when it was signed.
        listed = ((signed_key(info.key), info) for info in self._backend.list(SIGNATURES))
        signatures = [(place[0], info) for place, info in listed if place is not None]
        recipe_etags, pack_etags = self.look_again(recipes, packs)
        self.rewrite_index(set(packs))
        staying = self.remove(self._snapshot.recipes, recipes, recipe_etags)
        for key in staying:
            del recipes[key]  # counted already
        self.spare(staying, recipes, packs)
        self.remove(self._snapshot.packs, packs, pack_etags)
        self.remove_signatures(signatures, {key.hex() for key in recipes if key in recipe_etags})

    def remove_signatures(self, signatures: Iterable[tuple[str, ObjectInfo]], gone: Container[str]) -> None:
        """Delete the signatures, each listed with the key that it is of, of recipes that are gone, and those that a
        collection has left which was stopped here. What is stored again is signed again."""
        known, old = self._snapshot.recipes.rows, self._snapshot.now - LEFT_SECONDS
        doomed = {
            info.key: info.etag for key, info in signatures
            if key in gone or (info.modified < old and bytes.fromhex(key) not in known)
        }  # fmt: skip
        if doomed:
            with suppress(AccessDenied):  # who may not, or where they are locked: they harm nobody
                self._delete(doomed)

    def look_again(
        self, recipes: dict[bytes, int], packs: dict[bytes, int]
    ) -> tuple[dict[bytes, str], dict[bytes, str]]:
        """From now on writers know that objects are being deleted. Spare what became needed before they knew; returns
        the etags of the rest."""
        planned = {change.name: {entry.key for entry in change.kept} for change in self._decision.refs}
        named: set[bytes] = set()
        for name, ref in read_refs(self._backend).items():
            values = {entry.key for entry in (*ref.entries, ref.unconfirmed) if entry is not None}
            if ref.etag != self._snapshot.ref_etags.get(name) and values != planned.get(name):
                named.update(map(bytes.fromhex, values))
        named.update(held_keys(store_holds(self._backend, self._snapshot.now)))
        recipe_etags: dict[bytes, str] = {}
        fresh: set[bytes] = set()
        known = self._snapshot.recipes
        for number, (key, _, _, etag) in enumerate(list_objects(self._backend, "recipes")):
            if number % LISTED_BETWEEN_PULSES == 0:
                self._ownership.pulse()
            row = known.rows.get(key)
            if row is None or known.versions[row] != seal_etag(etag):
                fresh.add(key)
            elif key in recipes:
                recipe_etags[key] = etag
        self.spare(fresh | (named - self._live.keys()), recipes, packs)
        # A mark is stored after its pack: one that was there before the listing is of a pack that is listed, or gone.
        marked = array("Q", map(number_of, packs_in(self._backend, self._nodes(self._shares(1)))))
        pack_etags = {}
        stored = array("Q")
        for pack, _, _, etag in list_objects(self._backend, "packs"):
            stored.append(number_of(pack[:HALF]))
            if packs.get(pack) == seal_etag(etag):
                pack_etags[pack] = etag
        stored = array("Q", sorted(stored))
        self._gone = {
            number.to_bytes(HALF, "big") for number in marked
            if (at := bisect_left(stored, number)) == len(stored) or stored[at] != number
        }  # fmt: skip
        return recipe_etags, pack_etags

    def _shares(self, count: int) -> frozenset[int]:
        """So many parts of the index's tree, whose turn it is."""
        turn = self._ownership.state.deletions
        return frozenset((turn + number) % SHARES for number in range(count))

    def _nodes(self, shares: frozenset[int]) -> list[NodeName]:
        """The root, and the nodes below it in these parts of the tree."""
        names = filter(None, map(node_name, (info.key for info in self._backend.list(INDEX))))
        return [name for name in names if name == ROOT or name.bits % SHARES in shares]

    def spare(self, keys: Iterable[bytes], recipes: dict[bytes, int], packs: dict[bytes, int]) -> None:
        """These keys are needed, with their packs."""
        for key, recipe in read_recipes(self._backend, keys, self._access.workers.thread.codec, missing_ok=True):
            if recipes.pop(key, None) is not None:
                self.changed += 1
            for name in recipe.packs:
                packs.pop(name, None)

    def remove(self, table: ObjectTable, doomed: Mapping[bytes, int], etags: Mapping[bytes, str]) -> list[bytes]:
        """Delete objects; returns the names of those that are another version by now, or are locked."""
        names = [name for name in doomed if name in etags]
        replaced = []
        most = DELETED_TOGETHER if self._backend.deletes_conditionally() else LOOKED_AT_TOGETHER
        together = self._pace.at_once(most)
        for at in range(0, len(names), together):
            batch = names[at : at + together]
            self._pace.wait(len(batch))
            paths = [table.path(name) for name in batch]
            kept: Mapping[str, str] = {}
            try:
                answers = self._delete(dict(zip(paths, map(etags.__getitem__, batch), strict=True)))
            except Locked as error:
                kept = error.locks
                answers = [path not in kept and path not in error.changed for path in paths]
            gone = [name for name, answer in zip(batch, answers, strict=True) if answer]
            replaced += [name for name, answer in zip(batch, answers, strict=True) if not answer]
            self.locked += len(kept)
            self.changed += len(batch) - len(gone) - len(kept)
            size = sum(table.size(name) for name in gone)
            recipes = table.kind == "recipes"
            self.deleted += StoreAmount(len(gone) * recipes, len(gone) * (not recipes), size)
            self._tell(f"deleted {table.kind}", len(gone))
        return replaced

    def _delete(self, objects: Mapping[str, str]) -> list[bool]:
        """Delete these versions. What is not answered may be carried out later: that is noted, and done again."""
        remote = self._backend.capabilities.remote
        for number in range(1, DELETION_TRIES + 1):
            self._ownership.hold()
            if not self._ownership.still_held():
                continue  # this process, or the service, stood still: whether it is the one must be asked anew
            try:
                return self._backend.delete_unchanged(objects)
            except AccessDenied:
                raise
            except BaseException as error:
                self._ownership.unanswered()
                if number == DELETION_TRIES or not remote or not isinstance(error, BackendError):
                    raise
                time.sleep(DELETION_PAUSE * 2 ** min(number - 1, 4))
        raise BackendError(
            "asking whether this collector still is the one took so long that deleting is not safe",
            backend=self._backend.url, hint="Try again",
        )  # fmt: skip

    def rewrite_index(self, packs: set[bytes]) -> None:
        """Store each fragment that names one of ``packs`` without it, before the first of them is deleted; and some
        nodes of the index's tree without marks of packs that are not stored."""
        if not packs:
            return
        algorithm = self._access.algorithm
        digest = digest_function(algorithm)
        gone = self._gone | {pack[:HALF] for pack in packs}
        for name in self._nodes(self._shares(shares_due(len(packs), len(self._snapshot.packs)))):
            self._ownership.hold()
            with suppress(OutOfSpace):
                self._tell("rewrote index", without(self._backend, algorithm, [name], gone.__contains__))
        for key in [info.key for info in self._backend.list(INDEX)]:
            if node_name(key) is not None:
                continue
            try:
                fragment = decode_read(self._backend, key, self._backend.get(key), partial(decode_fragment, key=key))
            except (NotFound, CorruptObject):
                continue  # merged away by a writer; or damaged, so that nobody goes by it
            if packs.isdisjoint(name.value for name in fragment.packs):
                continue
            self._ownership.hold()
            data = without_packs(fragment, packs, algorithm)
            if data is not None:
                # Without room for it the index learns to do without: it is a hint, and what follows makes room.
                with suppress(OutOfSpace):
                    self._backend.put(fragment_key(digest(data), time.time()), [data])
            self._backend.delete(key)
            self._tell("rewrote index", 1)
