"""Verify a store: by listing, by headers and trailers, or by every byte."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from mfstore._core.codec import NONE
from mfstore.backends.base import RangeRead
from mfstore.errors import CorruptObject, InvalidKey, MfstoreError, NotFound, Unsupported
from mfstore.format import fragments, recipes
from mfstore.format.digests import digest_function
from mfstore.format.packs import ENTRY, FOOTER, HEADER, PackEntry, decode_footer, decode_trailer, pack_path
from mfstore.format.progress import SHARDS
from mfstore.format.recipes import INLINE, Recipe, placed_chunks, recipe_path
from mfstore.format.refs import decode_ref
from mfstore.maintenance.reading import read_each, scratch
from mfstore.maintenance.report import LEVELS, Level, Progress, Step, VerifyReport
from mfstore.maintenance.store import checks, progress
from mfstore.maintenance.store.checks import PackState, fingerprint
from mfstore.maintenance.store.findings import find
from mfstore.maintenance.store.inventory import Inventory, shard_of, take_inventory

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Backend
    from mfstore.format.digests import Digest
    from mfstore.handle import StoreAccess
    from mfstore.host.workers import Workers

TAIL = 64 << 10
"""Bytes read from the end of a pack: the trailer of 1100 chunks, which is a pack of 280 MB with the usual cuts."""
WINDOW = 256
"""Packs or recipes looked at together: bounds what is held of them."""
REFUSALS = 100
"""After so many objects that could not be read, the storage is taken to be at fault and the error is raised."""
BLOCK = 2 << 20
"""Bytes read at a time where a request costs little: what was read is then still in the processor's cache when it is
hashed. Against 8 MiB a sixth less CPU time."""
KEPT = 1 << 17
"""Chunks of trailers kept from the first reading for the second: 20 MB. Beyond that they are read twice."""
RELISTINGS = 5
"""How often the index is listed anew when it seems to lack something."""
NOTE_SECONDS = 30.0
"""Progress is noted at most so often: a request each time."""


class Verifier:
    """One pass over a store; afterwards its attributes say what is known, for the report and for repair."""

    def __init__(
        self, backend: Backend, workers: Workers, digest: Digest, progress_to: Progress = lambda step: None
    ) -> None:
        self.backend = backend
        self.workers = workers
        self.digest = digest
        self._tell = progress_to
        self._lock = threading.Lock()
        self.inventory = Inventory()
        self.fragments: list[fragments.Fragment] = []
        self.packs: dict[bytes, PackState] = {}
        self.ref_keys: dict[str, bytes] = {}
        """Value of each ref that could be read."""
        self.ref_errors: dict[str, MfstoreError] = {}
        self.fragment_errors: dict[str, MfstoreError] = {}
        self.unreadable: dict[str, MfstoreError] = {}
        """Objects the storage did not give: nothing is known of them."""
        self.unknown: dict[str, MfstoreError] = {}
        """Objects of a version unknown to this mfstore, or damaged to look so: nobody touches them."""
        self._kept: dict[bytes, list[PackEntry]] = {}
        self._room = KEPT
        self.suspects: set[bytes] = set()
        """Recipes that may not be readable whole."""
        self.checked = self.chunks = 0
        self.packs_checked = 0
        self.complete = True
        self.remembered = True
        self.times: dict[str, float] = {}

    # ---- the levels -------------------------------------------------------------------

    def run(self, level: Level, sample: tuple[int, int] | None, older_than: float | None, budget: float | None) -> None:
        """Look at everything the level asks for."""
        end = None if budget is None else time.monotonic() + budget
        self.inventory = take_inventory(self.backend, self._tell)
        for name, info in self.inventory.packs.items():
            self.packs[name] = PackState(info.size, info.modified)
        self._read_refs()
        self._read_fragments()
        self.times = progress.load(self.backend)
        if level == "list":
            return
        self._read_trailers()
        self._read_recipes()
        if level == "full":
            self._read_data(progress.choose(self.times, sample, older_than, time.time()), end)

    def _read_refs(self) -> None:
        paths = list(self.inventory.refs.items())
        for (name, path), (_, data) in zip(paths, self.backend.get_many([path for _, path in paths]), strict=True):
            try:
                if isinstance(data, MfstoreError):
                    raise data
                self.ref_keys[name] = bytes.fromhex(decode_ref(data, path)[-1].key)
            except NotFound:
                continue  # deleted since it was listed
            except CorruptObject as error:
                self.ref_errors[name] = error
            except MfstoreError as error:
                self._refused(path, error)

    def _read_fragments(self) -> None:
        for key, data in self.backend.get_many(list(self.inventory.fragments)):
            try:
                if isinstance(data, MfstoreError):
                    raise data
                if self.digest(data).hex() != key.removeprefix(fragments.PREFIX):
                    raise CorruptObject("index fragment is not the one its name says", key=key)
                self.fragments.append(fragments.decode_fragment(data, key))
            except NotFound:
                continue  # merged with others since it was listed
            except CorruptObject as error:
                self.fragment_errors[key] = error
            except MfstoreError as error:
                self._refused(key, error)

    def unlisted(self) -> list[bytes]:
        """The packs of which some chunk is placed by a recipe and not in the index, as it is now."""
        names = [name for name, state in self.packs.items() if state.placed and not state.listed]
        # Fragments may have been merged, and the merged one missed, while they were listed and read.
        for _ in range(RELISTINGS):
            if not names:
                break
            fresh = Inventory()
            fresh.add(self.backend.list(fragments.PREFIX))
            if fresh.fragments.keys() == self.inventory.fragments.keys():
                break
            self.inventory.fragments = fresh.fragments
            self.fragments, self.fragment_errors = [], {}
            self._read_fragments()
            self.each_trailer(names, self._learn)
            names = [name for name in names if not self.packs[name].listed]
        return names

    # ---- packs: headers and trailers ----------------------------------------------------

    def _read_trailers(self) -> None:
        names = list(self.packs)
        done = 0
        for window in _windows(names, WINDOW):
            self._tell(Step("headers", done, len(names)))
            self.each_trailer(window, self._learn)
            done += len(window)
        self._tell(Step("headers", done, len(names)))
        broken = frozenset(name for name, state in self.packs.items() if state.kind == "damaged")
        if broken:
            for name, entry in checks.listed_in(self.fragments, broken):
                self.packs[name].claimed[fingerprint(entry)] = entry

    def _learn(self, name: bytes, found: list[PackEntry] | MfstoreError) -> None:
        state = self.packs[name]
        if isinstance(found, MfstoreError):
            state.detail = found.message
            state.kind = self._kind(found, pack_path(name.hex()))
            return
        state.prints = array("Q", sorted(map(fingerprint, found)))
        if len(found) <= self._room:
            self._room -= len(found)
            self._kept[name] = found
        state.listed = checks.all_listed(self.fragments, [entry.id for entry in found])

    def _kind(self, error: MfstoreError, path: str) -> str:
        if isinstance(error, NotFound):
            return "missing"
        if isinstance(error, CorruptObject):
            return "damaged"
        self._refused(path, error)
        return "unknown" if isinstance(error, Unsupported) else "unreadable"

    def _refused(self, path: str, error: MfstoreError) -> None:
        if isinstance(error, Unsupported):
            self.unknown[path] = error
            return
        with self._lock:
            self.unreadable[path] = error
            if len(self.unreadable) >= REFUSALS:
                raise error

    def each_trailer(
        self, names: Sequence[bytes], got: Callable[[bytes, list[PackEntry] | MfstoreError], None]
    ) -> None:
        """``got(name, chunks or what is wrong)`` for each pack, in this thread; the header is checked too."""
        sizes = {name: self.packs[name].size for name in names}
        by_path = {pack_path(name.hex()): name for name in names}
        errors: dict[bytes, MfstoreError] = {}
        footers: dict[bytes, bytes] = {}
        trailers: dict[bytes, list[PackEntry]] = {}
        longer: list[RangeRead] = []

        def ends(read: RangeRead, data: Buffer | MfstoreError) -> None:
            name = by_path[read.key]
            try:
                if isinstance(data, MfstoreError):
                    raise data
                view = memoryview(data)
                if read.start == 0:
                    checks.check_header(bytes(view[: HEADER.size]))
                if read.start + read.length < sizes[name]:
                    return
                footer = bytes(view[-FOOTER.size :])
                at, count = decode_footer(footer, sizes[name])
                footers[name] = footer
                if at < read.start:
                    longer.append(RangeRead(read.key, at, count * ENTRY.size))
                else:
                    trailers[name] = self._trailer(name, bytes(view[at - read.start : -FOOTER.size]), footer, at)
            except MfstoreError as error:
                errors.setdefault(name, error)

        def trailer(read: RangeRead, data: Buffer | MfstoreError) -> None:
            name = by_path[read.key]
            try:
                if isinstance(data, MfstoreError):
                    raise data
                trailers[name] = self._trailer(name, bytes(data), footers[name], read.start)
            except MfstoreError as error:
                errors.setdefault(name, error)

        def reads() -> Iterator[RangeRead]:
            for path, name in by_path.items():
                size = sizes[name]
                if size < HEADER.size + FOOTER.size:
                    errors[name] = CorruptObject("pack is too short", found=size)
                    continue
                if size > TAIL:
                    yield RangeRead(path, 0, HEADER.size)
                yield RangeRead(path, max(0, size - TAIL), min(size, TAIL))

        read_each(self.backend, self.workers, reads(), ends)
        read_each(self.backend, self.workers, longer, trailer)
        for name in names:
            got(name, errors.get(name) or trailers[name])

    def _trailer(self, name: bytes, trailer: bytes, footer: bytes, at: int) -> list[PackEntry]:
        entries = list(decode_trailer(trailer, footer, at))
        if self.digest(trailer) != name:
            raise CorruptObject("pack is not the one its name says", offset=at)
        return entries

    def scan_trailers(self, got: Callable[[bytes, list[PackEntry] | MfstoreError], None]) -> None:
        """``each_trailer`` of every pack."""
        for window in _windows(list(self.packs), WINDOW):
            self.each_trailer([name for name in window if self.packs[name].kind not in ("missing", "unreadable")], got)

    # ---- recipes ------------------------------------------------------------------------

    def _read_recipes(self) -> None:
        for key, recipe, bad_inline in self.each_recipe(self.inventory.recipes, "recipes"):
            if isinstance(recipe, CorruptObject):
                self.suspects.add(key)
                continue
            if not checks.settle(recipe, self.packs) or bad_inline:
                self.suspects.add(key)

    def each_recipe(
        self, keys: Iterable[bytes], phase: str
    ) -> Iterator[tuple[bytes, Recipe | CorruptObject, frozenset[int]]]:
        """Every recipe that is still stored, or what is wrong with it, and the numbers of inline chunks that are not
        whole."""
        names = sorted(keys)
        for done in range(0, len(names), WINDOW):
            self._tell(Step(phase, done, len(names)))
            window = names[done : done + WINDOW]
            found = [data for _, data in self.backend.get_many([recipe_path(name.hex()) for name in window])]
            total = sum(len(data) for data in found if isinstance(data, bytes))
            decoded = self.workers.map(self._decode, list(zip(window, found, strict=True)), total)
            for name, data, (recipe, bad) in zip(window, found, decoded, strict=True):
                if isinstance(recipe, (Recipe, CorruptObject)):
                    yield name, recipe, bad
                elif not isinstance(data, NotFound):  # else it was collected since it was listed
                    self._refused(recipe_path(name.hex()), recipe)
        self._tell(Step(phase, len(names), len(names)))

    def _decode(self, task: tuple[bytes, bytes | MfstoreError]) -> tuple[Recipe | MfstoreError, frozenset[int]]:
        name, data = task
        if isinstance(data, MfstoreError):
            return data, frozenset()
        try:
            recipe = recipes.decode(data, self.workers.codec, name)
        except MfstoreError as error:
            return error, frozenset()
        bad = []
        count = 0
        for number, (chunk, place) in enumerate(placed_chunks(recipe)):
            if place.pack == INLINE:
                entry = PackEntry(chunk.id, place.offset, place.csize, chunk.usize, place.codec, place.width)
                count += 1
                if not self.whole(entry, memoryview(recipe.inline)[place.offset : place.offset + place.csize]):
                    bad.append(number)
        with self._lock:
            self.chunks += count
        return recipe, frozenset(bad)

    # ---- packs: data --------------------------------------------------------------------

    def _read_data(self, shards: Sequence[str], end: float | None) -> None:
        by_shard: dict[str, list[bytes]] = {shard: [] for shard in shards}
        for name in self.packs:
            if shard_of(name) in by_shard:
                by_shard[shard_of(name)].append(name)
        # Those without a sound trailer are read in any case: their chunks are in doubt.
        broken = [name for name, state in self.packs.items() if state.claimed and shard_of(name) not in by_shard]
        total = sum(self.packs[name].size for names in by_shard.values() for name in names)
        done: dict[str, float] = {}
        noted = time.monotonic()
        position = 0

        def tell(size: int) -> None:
            nonlocal position
            with self._lock:
                position += size
                self._tell(Step("data", position, total))

        try:
            self.check_packs(broken)
            for shard, names in by_shard.items():
                begun = time.time()
                for window in _windows(names, WINDOW):
                    if end is not None and time.monotonic() > end:
                        self.complete = False
                        return
                    self.check_packs(window, tell)
                if not any(self.packs[name].kind or self.packs[name].bad for name in names):
                    done[shard] = begun
                if time.monotonic() - noted > NOTE_SECONDS:
                    self.remembered = progress.save(self.backend, done)
                    noted = time.monotonic()
        finally:
            if done:
                self.remembered = progress.save(self.backend, done)
                self.times.update(done)

    def check_packs(self, names: Sequence[bytes], tell: Callable[[int], None] = lambda size: None) -> None:
        """Compare every chunk of these packs with its digest; what is not whole is noted in the packs' states."""
        plans: dict[tuple[str, int], tuple[bytes, checks.Span]] = {}
        limit = self.backend.capabilities.span if self.backend.capabilities.remote else BLOCK

        def plan(name: bytes, found: list[PackEntry] | MfstoreError) -> None:
            state = self.packs[name]
            if isinstance(found, MfstoreError):
                if not state.claimed:
                    self._learn(name, found)  # damaged or gone since its trailer was read
                    return
                found = list(state.claimed.values())
            beyond = {fingerprint(entry): entry for entry in found if entry.offset + entry.csize > state.size}
            state.bad.update(beyond)
            for span in checks.plan_spans((e for e in found if e.offset + e.csize <= state.size), limit):
                plans[pack_path(name.hex()), span.start] = name, span

        def check(read: RangeRead, data: Buffer | MfstoreError) -> None:
            name, span = plans[read.key, read.start]
            self._check_span(name, span, data)
            tell(read.length)

        sound = [name for name in names if not self.packs[name].claimed]
        for name in sound:
            if name in self._kept:
                plan(name, self._kept[name])
        self.each_trailer([name for name in sound if name not in self._kept], plan)
        for name in names:
            if self.packs[name].claimed:
                plan(name, CorruptObject("its trailer is damaged"))
        read_each(
            self.backend,
            self.workers,
            (RangeRead(path, span.start, span.end - span.start) for (path, _), (_, span) in list(plans.items())),
            check,
        )
        for name in names:
            self.packs[name].checked = True
            self.packs_checked += self.packs[name].kind not in ("missing", "unreadable")

    def _check_span(self, name: bytes, span: checks.Span, data: Buffer | MfstoreError) -> None:
        state = self.packs[name]
        if isinstance(data, MfstoreError):
            kind = self._kind(data, pack_path(name.hex()))
            with self._lock:
                if kind in ("missing", "unreadable"):
                    state.kind, state.detail, state.prints = kind, data.message, None
                else:
                    state.bad.update((fingerprint(entry), entry) for entry in span.entries)
            return
        view = memoryview(data).cast("B")
        bad = [
            entry for entry in span.entries
            if not self.whole(entry, view[entry.offset - span.start : entry.offset - span.start + entry.csize])
        ]  # fmt: skip
        with self._lock:
            self.checked += len(view)
            self.chunks += len(span.entries)
            state.bad.update((fingerprint(entry), entry) for entry in bad)

    def whole(self, entry: PackEntry, stored: memoryview) -> bool:
        """Whether these encoded bytes are that chunk."""
        if entry.codec == NONE and not entry.width:
            return entry.csize == entry.usize and self.digest(stored) == entry.id
        target = scratch("chunk", entry.usize)
        try:
            self.workers.codec.decode(stored, target, [(0, entry.csize, entry.codec, entry.width, 0, entry.usize)])
        except (CorruptObject, Unsupported):
            return False
        return self.digest(target) == entry.id

    # ---- what it means ------------------------------------------------------------------

    def state_of(self, name: bytes) -> PackState:
        """What is known of a pack, looked at now if it was not listed: it may have been stored since."""
        state = self.packs.get(name)
        if state is None:
            path = pack_path(name.hex())
            state = self.packs[name] = PackState(0)
            try:
                info = self.backend.head(path)
                state.size, state.modified = info.size, info.modified
                self.each_trailer([name], self._learn)
            except MfstoreError as error:
                state.kind, state.detail = self._kind(error, path), error.message
        return state

    def readable_elsewhere(self, placed: checks.Placed) -> bool:
        """Whether the index knows another place of a chunk that holds it, as far as is known."""
        chunk = recipes.ChunkRef(placed.entry.id, placed.entry.usize)
        return any(
            self.state_of(pack).holds(entry) for pack, entry in checks.listed_places(self.fragments, chunk)
            if (pack, entry) != (placed.pack, placed.entry)
        )  # fmt: skip

    def doubtful_recipes(self) -> Iterator[tuple[bytes, Recipe | CorruptObject, frozenset[int]]]:
        """The recipes that may not be readable whole, read again: what changed meanwhile is not damage."""
        everything = any(state.bad or state.kind for state in self.packs.values())
        keys = self.inventory.recipes if everything else self.suspects
        return self.each_recipe(keys, "looking for what is touched") if keys else iter(())


def _windows(names: Sequence[bytes], size: int) -> Iterator[list[bytes]]:
    rest = iter(names)
    while window := list(islice(rest, size)):
        yield window


def verify(
    place: StoreAccess,
    level: Level = "headers",
    sample: str | tuple[int, int] | None = None,
    older_than: float | None = None,
    budget: float | None = None,
    packs: Sequence[bytes] = (),
    tell: Progress | None = None,
) -> tuple[VerifyReport, Verifier]:
    """A pass over a store: the report of ``Store.verify``, and what repair needs to know besides. ``packs`` are read
    whole at any level."""
    if level not in LEVELS:
        raise InvalidKey("unknown level", expected=", ".join(LEVELS), found=repr(level))
    if level != "full" and (sample, older_than, budget) != (None, None, None):
        raise InvalidKey("only the level full can read a part of the packs", found=level)
    share = None if sample is None else parse_sample(sample)
    begun = time.monotonic()
    verifier = Verifier(place.backend, place.workers, digest_function(place.algorithm), tell or (lambda step: None))
    verifier.run(level, share, older_than, budget)
    verifier.check_packs(packs)
    findings = find(verifier, level)
    times = [verifier.times.get(shard_of(name)) for name in verifier.packs]
    known = [moment for moment in times if moment is not None]
    report = VerifyReport(
        url=place.backend.url,
        level=level,
        findings=findings,
        objects=dict(verifier.inventory.counts),
        stored=verifier.inventory.stored,
        checked=verifier.checked,
        chunks=verifier.chunks,
        packs_checked=verifier.packs_checked,
        complete=verifier.complete,
        oldest=min(known) if len(known) == len(times) and known else None,
        remembered=verifier.remembered,
        seconds=time.monotonic() - begun,
    )
    return report, verifier


def parse_sample(text: str | tuple[int, int]) -> tuple[int, int]:
    """``n/t`` as numbers. InvalidKey when it is not a share of the shards."""
    try:
        first, every = (int(part) for part in text.split("/")) if isinstance(text, str) else text
    except (ValueError, TypeError):
        raise InvalidKey("a sample is n/t, such as 1/10", found=repr(text)) from None
    if not 1 <= first <= every <= len(SHARDS):
        raise InvalidKey("a sample is n/t", expected=f"1 <= n <= t <= {len(SHARDS)}", found=f"{first}/{every}")
    return first, every
