"""Chunks in groups: verify, repair and collections read a group once, and know its chunks one by one."""

from itertools import count

import numpy as np
import pytest

from mfstore import errors
from mfstore._core.codec import GROUP, ZSTD
from mfstore.backends.memory import MemoryBackend
from mfstore.format import recipes
from mfstore.format.about import encode_about
from mfstore.format.groups import group_length
from mfstore.format.packs import FOOTER, PackBuilder, PackEntry, pack_path
from mfstore.format.recipes import INLINE, Artifact, ChunkRef, Placement, placed_chunks, recipe_path
from mfstore.maintenance.store import groups
from mfstore.maintenance.store.checking import chunk_check
from mfstore.maintenance.store.checking.delta_reads import DeltaReader
from mfstore.maintenance.store.checking.pack_state import plan_spans
from mfstore.testing import Fault, FaultyBackend
from tests.rigs.damage import unreadable, wrapped
from tests.rigs.delta_stores import versions
from tests.rigs.deltas import CODEC, DIGEST, flip, recipe_of
from tests.rigs.gc import DAY, RemoteMemory, objects
from tests.rigs.group_stores import frame, grouped, lines, store_in_groups
from tests.rigs.stored import entries_of_pack, part_of, stored_again

pytestmark = pytest.mark.usefixtures("whole_chunks")

backends = pytest.mark.parametrize("kind", [MemoryBackend, RemoteMemory])


@pytest.fixture
def memory():
    return MemoryBackend()


@pytest.fixture
def decoded(monkeypatch):
    """The groups that verify decodes."""
    seen = []
    real = groups.decode_group

    def noted(codec, stored, *rest):
        seen.append(bytes(stored))
        return real(codec, stored, *rest)

    monkeypatch.setattr(chunk_check, "decode_group", noted)
    return seen


def data_findings(report):
    return [finding for finding in report.findings if finding.harm == "data"]


# ---- verify ----------------------------------------------------------------------------------------------------------


@backends
def test_each_group_is_read_and_decoded_once(kind, decoded):
    found = grouped(kind())
    assert len(found.groups) > 1 and len(found.parts) > 2 * len(found.groups)
    for level in ("list", "headers"):
        assert wrapped(found.backend).verify(level).findings == () and not decoded
    report = wrapped(found.backend).verify("full")
    places = {(at.offset, at.csize) for at in recipe_of(found.backend, found.key).placements}
    assert report.findings == () and report.chunks == len(found.parts) and report.packs_checked == 1
    assert report.checked == sum(csize for _, csize in places)
    assert sorted(map(len, decoded)) == sorted(csize for _, csize in places)


@pytest.mark.parametrize("at", [0, 5, 0.3, 0.7, -1])
def test_what_verify_calls_broken_is_what_cannot_be_read(memory, at):
    """Whichever byte of a group is damaged: its first, which makes it a frame, breaks all of it; others what comes after
    them, and an artifact whose chunks are whole is not among the keys."""
    found = grouped(memory)
    place = found.at(found.groups[1][0])
    flip(memory, found.pack, place.offset + (int(at * place.csize) if isinstance(at, float) else at % place.csize))
    lost = unreadable(memory, found.values())
    mates = {found.parts[number] for number in found.groups[1]}
    assert found.key in lost and lost - {found.key} <= mates
    assert at != 0 or lost > mates
    assert at != 0.7 or not lost >= mates
    (finding,) = data_findings(wrapped(memory).verify("full"))
    assert finding.object == found.pack and set(finding.keys) == lost
    assert finding.detail.startswith(f"{len(lost) - 1} of {len(found.parts)} chunks differ")


def read_badly_once(backend, path, offset):
    """The next read of the group there has one bit flipped."""

    class BadOnce(type(backend)):
        def get_range(self, key, start, length):
            data = super().get_range(key, start, length)
            if self.bad and key == path and start <= offset < start + length:
                self.bad = False
                data = bytearray(data)
                data[offset - start + 9] ^= 8
            return bytes(data)

    backend.__class__, backend.bad = BadOnce, True


@backends
def test_a_group_that_is_read_badly_once_is_whole(kind):
    found = grouped(kind())
    at = found.at(0)

    read_badly_once(found.backend, found.pack, at.offset)
    assert wrapped(found.backend).verify("headers").clean  # it reads both ends, and what lies there
    read_badly_once(found.backend, found.pack, at.offset)
    report = wrapped(found.backend).verify("full")
    assert not found.backend.bad and report.clean
    assert [finding.kind for finding in report.findings] == ["unsteady"]


@pytest.mark.parametrize("limit", [1, 150, 1000])
def test_a_group_is_in_one_read_however_long(limit):
    entries = [PackEntry(bytes([n]) * 32, 100 * (n // 3), 100, 50, GROUP, 50 * (n % 3)) for n in range(9)]
    spans = list(plan_spans(reversed(entries), limit))
    assert [entry for span in spans for entry in span.entries] == entries
    assert [(span.start, span.end, len(span.entries)) for span in spans] == (
        [(0, 300, 9)] if limit == 1000 else [(0, 100, 3), (100, 200, 3), (200, 300, 3)]
    )


@pytest.mark.parametrize("what", ["start", "place"])
def test_a_recipe_that_places_a_chunk_elsewhere_in_its_group_is_told(memory, what):
    found = grouped(memory)
    recipe = recipe_of(memory, found.key)
    places = [*recipe.placements]
    places[1] = places[1]._replace(width=places[1].width + 1) if what == "start" else places[5]
    stored_again(memory, found.key, placements=places)
    memory.delete(objects(memory, "index")[0])
    (finding,) = data_findings(wrapped(memory).verify("headers"))
    assert (finding.object, finding.keys) == (recipe_path(found.key), (found.key,))
    assert finding.detail == "it places a chunk where another lies, or none"


@pytest.mark.parametrize("at", [0, 0.7])
def test_damage_in_a_group_that_lies_in_a_recipe_is_told(memory, at, decoded):
    found = grouped(memory, inline=True)
    report = wrapped(memory).verify("headers")
    own = len(memory.get(recipe_path(found.key))) - len(recipe_of(memory, found.key).inline)
    assert report.clean and len(decoded) == len(found.groups) + len(found.parts)
    place = found.at(found.groups[1][0])
    flip(memory, recipe_path(found.key), own + place.offset + int(at * place.csize))
    (finding,) = data_findings(wrapped(memory).verify("headers"))
    assert (finding.object, finding.keys) == (recipe_path(found.key), (found.key,))
    count = int(finding.detail.split()[0])
    of = len(found.groups[1])
    assert count == of if at == 0 else 0 < count < of


def test_a_group_in_a_recipe_is_decoded_once_however_many_chunks_lie_there(memory, decoded, monkeypatch):
    """And of those that lie in the same bytes of it one is compared: few bytes could list thousands of the longest."""
    wrapped(memory).put("x")
    content = bytes(100_000)
    encoded = frame([content])
    chunks = [ChunkRef(DIGEST(content[start:]), len(content) - start) for start in range(500)]
    artifact = Artifact("", recipes.RAW, sum(chunk.usize for chunk in chunks), None, (), chunks)
    section = recipes.encode_content(recipes.ONE, 1, [artifact])
    places = [Placement(INLINE, 0, len(encoded), GROUP, start) for start in range(500)]
    key = DIGEST(section)
    memory.put(
        recipe_path(key.hex()), recipes.encode(1, section, encode_about(["bytes"]), [], places, [encoded], CODEC)
    )
    hashed = []
    broken = chunk_check.ChunkCheck.broken
    monkeypatch.setattr(
        chunk_check.ChunkCheck, "broken", lambda self, *rest: hashed.extend(rest[0]) or broken(self, *rest)
    )
    (finding,) = data_findings(wrapped(memory).verify())
    assert finding.detail == "499 chunks in it differ from their digests"
    assert len(decoded) == len(hashed) == 4  # and once more, read again; and all that for what it costs


def grouped_bases(backend):
    """A version whose chunks are bases in groups; the place of the first group, and the bases that lie there. Of the
    older version nothing is left but its packs."""
    found = versions(backend, grouped=True)
    backend.delete(recipe_path(found.old))
    bases = recipe_of(backend, found.new).bases
    first = min(bases)
    mates = [base for base in bases if base.offset == first.offset]
    assert 1 < len(mates) < len(bases)
    return found, first.offset, mates


@backends
def test_bases_in_groups_are_read_once_for_their_deltas_too(kind, decoded):
    found, _, _ = grouped_bases(kind())
    report = wrapped(found.backend).verify("full")
    groups = {base.offset for base in recipe_of(found.backend, found.new).bases}
    packs = 1 + len(groups)  # and one with the older version's body
    assert report.clean and report.deltas and len(decoded) in (2 * len(groups), packs + len(groups))


def test_bases_that_are_lost_with_a_group_are_told(memory):
    found, offset, mates = grouped_bases(memory)
    flip(memory, found.base_pack, offset)
    (finding,) = data_findings(wrapped(memory).verify("full"))
    assert (finding.object, finding.keys) == (found.base_pack, (found.new,))
    assert finding.bases == tuple(sorted(base.id.hex() for base in mates))


def before_deltas_are_decoded(monkeypatch, action):
    decode = DeltaReader.read

    def acted_before(self, recipes):
        action()
        return decode(self, recipes)

    monkeypatch.setattr(DeltaReader, "read", acted_before)


def test_a_group_of_bases_that_is_read_badly_once_is_whole(memory, monkeypatch):
    found, offset, _ = grouped_bases(memory)
    before_deltas_are_decoded(monkeypatch, lambda: read_badly_once(memory, found.base_pack, offset))
    report = wrapped(memory).verify("full")
    assert not memory.bad and report.clean and [finding.kind for finding in report.findings] == ["unsteady"]


def test_a_group_of_bases_that_is_damaged_between_two_reads_is_told(memory, monkeypatch):
    """After its pack was found whole."""
    found, offset, mates = grouped_bases(memory)
    before_deltas_are_decoded(monkeypatch, lambda: flip(memory, found.base_pack, offset))
    (finding,) = data_findings(wrapped(memory).verify("full"))
    assert set(finding.bases) == {base.id.hex() for base in mates}


# ---- repair ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 0.45, 0.7])
@backends
def test_repair_rescues_whole_groups_and_what_is_whole_of_a_broken_one(kind, at):
    """That is moved by itself when it is little."""
    found = grouped(kind())
    values = found.values()
    broken = found.groups[1]
    place = found.at(broken[0])
    flip(found.backend, found.pack, place.offset + int(at * place.csize))
    lost = unreadable(found.backend, values)
    report = wrapped(found.backend).repair()
    assert set(report.lost) == lost and unreadable(found.backend, values) == lost
    entries = [entry for path in objects(found.backend, "packs") for entry in entries_of_pack(found.backend, path)]
    intact = len(found.groups[0])
    assert len(entries) == len(values) - len(lost) and (at == 0) is (len(entries) == intact)
    whole = [entry.codec for entry in entries[intact:]]
    assert [entry.codec for entry in entries[:intact]] == [GROUP] * intact
    assert whole == [GROUP if at == 0.7 else ZSTD] * len(whole)
    # What is lost is stored again by a put, and everything is whole.
    assert wrapped(found.backend).put_bytes(found.value) == found.key
    assert not unreadable(found.backend, {found.key: found.value})
    for number in broken:
        assert wrapped(found.backend).put_bytes(values[found.parts[number]]) == found.parts[number]
    assert wrapped(found.backend).verify("full").clean and not unreadable(found.backend, values)


def test_a_pack_with_a_damaged_frame_keeps_its_groups_and_its_name(memory):
    found = grouped(memory)
    before = entries_of_pack(memory, found.pack)
    flip(memory, found.pack, -FOOTER.size + 9)
    assert not wrapped(memory).repair().lost
    assert objects(memory, "packs") == [found.pack] and entries_of_pack(memory, found.pack) == before
    assert wrapped(memory).verify("full").clean and not unreadable(memory, found.values())


def test_what_is_whole_of_a_damaged_pack_is_listed_in_the_order_in_which_it_came(memory):
    """What lies between the chunks of a group too."""
    chosen = np.random.default_rng(1)
    numbers = [chosen.integers(0, 1 << 20, 30_000).astype("int64").tobytes() for _ in range(3)]
    value = b"".join(lines(n, 150_000) + data for n, data in enumerate(numbers))
    key = wrapped(memory).put_bytes(value)
    (path,) = objects(memory, "packs")
    before = entries_of_pack(memory, path)
    assert before != sorted(before, key=lambda entry: entry.offset)
    flip(memory, path, before[-1].offset)
    wrapped(memory).repair()
    (after,) = objects(memory, "packs")
    assert [entry.id for entry in entries_of_pack(memory, after)] == [entry.id for entry in before[:-1]]
    assert wrapped(memory).put_bytes(value) == key and not unreadable(memory, {key: value})


def test_an_index_that_is_rebuilt_lists_the_chunks_of_groups(memory):
    found = grouped(memory)
    (path,) = objects(memory, "index")
    before = memory.get(path)
    memory.delete(path)
    assert not wrapped(memory).verify("headers").clean
    wrapped(memory).repair("headers")
    assert [memory.get(path) for path in objects(memory, "index")] == [before]
    store = wrapped(memory)
    store.put_bytes(found.value + found.value)
    assert store.session.stored < 40_000


def test_a_lost_group_with_a_copy_in_others_is_replaced(memory):
    """By groups of another size, in another pack."""
    found = grouped(memory)
    index, here = ({key: memory.get(key) for key in objects(memory, kind)} for kind in ("index", "recipes"))
    for key in [*index, *here]:
        memory.delete(key)
    wrapped(memory).put_bytes(found.value)
    store_in_groups(memory, found.key, 3)
    (copy,) = {*objects(memory, "packs")} - {found.pack}
    for key, data in [*index.items(), *here.items()]:
        memory.put(key, [data])
    flip(memory, found.pack, found.at(0).offset)
    report = wrapped(memory).repair()
    assert not report.lost and not unreadable(memory, found.values()) and wrapped(memory).verify("full").clean
    assert pack_path(recipe_of(memory, found.parts[0]).packs[0].hex()) == copy


def test_a_recipe_with_a_damaged_group_gives_way_to_a_copy(memory):
    """What of it is whole stays where it is, and the group is not stored once for each of its chunks."""
    found = grouped(memory, inline=True)
    stored = memory.get(recipe_path(found.key))
    memory.delete(recipe_path(found.key))
    wrapped(memory).put_many([found.value.decode(), found.value.decode()[:-1]])
    store = wrapped(memory)
    store.put_bytes(found.value)
    copy = recipe_of(memory, found.key)
    assert INLINE not in {at.pack for at in copy.placements}
    memory.put(recipe_path(found.key), [stored])
    inline = len(recipe_of(memory, found.key).inline)
    place = found.at(found.groups[1][0])
    flip(memory, recipe_path(found.key), len(stored) - inline + place.offset)
    assert not wrapped(memory).repair().lost
    recipe = recipe_of(memory, found.key)
    assert len(recipe.inline) == inline - place.csize
    assert not unreadable(memory, found.values()) and wrapped(memory).verify("full").clean


@pytest.mark.parametrize("copies", [True, False])
def test_bases_of_a_damaged_group_give_way_to_copies(memory, copies):
    found, offset, mates = grouped_bases(memory)
    before = recipe_of(memory, found.new)
    if copies:
        here = memory.get(recipe_path(found.new))
        memory.delete(recipe_path(found.new))
        index = objects(memory, "index")
        listed = [memory.get(path) for path in index]
        for path in index:
            memory.delete(path)
        assert wrapped(memory).put(found.values[found.old]) == found.old
        memory.put(recipe_path(found.new), [here])
        for path, data in zip(index, listed, strict=True):
            memory.put(path, [data])
    flip(memory, found.base_pack, offset)
    done = wrapped(memory).repair()
    assert done.lost == (() if copies else (found.new,))
    after = recipe_of(memory, found.new)
    assert [at.codec for at in after.placements if at.pieces] == [at.codec for at in before.placements if at.pieces]
    if copies:
        assert not unreadable(memory, found.values)
        lost = {base.id for base in mates}
        assert {base.codec == GROUP for base in after.bases if base.id not in lost} == {True}
        assert GROUP not in {base.codec for base in after.bases if base.id in lost}
        assert wrapped(memory).verify("full").clean


# ---- collections -----------------------------------------------------------------------------------------------------


def collected(backend, clock, times=3):
    for _ in range(times):
        clock.advance(2 * DAY)
        wrapped(backend).plan_gc(repack=1).execute()


def keep(found, *numbers):
    """Nothing but the artifacts that are these chunks is needed."""
    values = found.values()
    for number in numbers:
        wrapped(found.backend).refs[f"part/{number}"] = found.parts[number]
    return {found.parts[number]: values[found.parts[number]] for number in numbers}


@pytest.mark.parametrize("kind", [MemoryBackend, RemoteMemory])
def test_repacking_keeps_groups_that_are_mostly_needed(kind, clock):
    found = grouped(kind())
    first, second = found.groups[:2]
    kept = keep(found, *first[:3], second[2])
    frames = {found.at(first[0]).csize}
    collected(found.backend, clock)
    (path,) = objects(found.backend, "packs")
    assert path != found.pack and sorted(objects(found.backend, "recipes")) == sorted(map(recipe_path, kept))
    entries = {entry.id: entry for entry in entries_of_pack(found.backend, path)}
    assert len(entries) == 4
    forms = [entries[placed_chunks(recipe_of(found.backend, key))[0][0].id] for key in kept]
    assert [entry.codec for entry in forms] == [GROUP, GROUP, GROUP, ZSTD]
    assert {entry.csize for entry in forms[:3]} == frames
    for key, entry in zip(kept, forms, strict=True):
        (at,) = recipe_of(found.backend, key).placements
        assert (at.offset, at.csize, at.codec, at.width) == entry[1:3] + entry[4:]
    assert not unreadable(found.backend, kept)
    assert wrapped(found.backend).verify("full").clean
    # Half of the pack lives by now; and what moved is in the index.
    assert not wrapped(found.backend).plan_gc(repack=1, grace=0).decision.repacks
    store = wrapped(found.backend)
    store.put_bytes(b"".join(kept.values()))
    assert store.session.stored < 200_000


@backends
def test_repacking_makes_a_group_of_the_few_that_are_needed_of_one(kind, clock):
    """With nothing in it that nobody needs."""
    found = grouped(kind(), size=6)
    kept = keep(found, *found.groups[0][1:3], found.groups[1][-1])
    collected(found.backend, clock)
    (path,) = objects(found.backend, "packs")
    entries = entries_of_pack(found.backend, path)
    assert path != found.pack and [entry.codec for entry in entries] == [GROUP, GROUP, ZSTD]
    one, other, _ = entries
    assert (one.offset, one.csize, one.width, other.width) == (other.offset, other.csize, 0, one.usize)
    stored = found.backend.get_range(path, one.offset, one.csize)
    assert group_length(stored) == one.usize + other.usize
    assert not unreadable(found.backend, kept) and wrapped(found.backend).verify("full").clean


def test_repacking_keeps_the_order_in_which_chunks_came(memory, clock):
    """What lies between the chunks of a group too, so that a later save finds what lay beside what."""
    chosen = np.random.default_rng(1)
    numbers = [chosen.normal(size=30_000).tobytes() for _ in range(6)]
    value = b"".join(lines(n, 150_000) + data for n, data in enumerate(numbers))
    key = wrapped(memory).put_bytes(value)
    (path,) = objects(memory, "packs")
    before = entries_of_pack(memory, path)
    numbers = range(0, len(before), 2)
    for number in numbers:
        wrapped(memory).refs[f"part/{number}"] = part_of(memory, recipe_of(memory, key), [number])
    ids = [before[number].id for number in numbers]
    places = [before[number].offset for number in numbers]
    assert places != sorted(places)
    collected(memory, clock)
    (after,) = objects(memory, "packs")
    assert after != path and [entry.id for entry in entries_of_pack(memory, after)] == ids
    assert wrapped(memory).verify("full").clean


def test_groups_that_are_needed_from_their_starts_are_moved_apart(memory, clock):
    """They lie back to back, and their first chunks start at the same place in them."""
    found = grouped(memory, size=3)
    kept = keep(found, *found.groups[0], found.groups[1][0])
    collected(memory, clock)
    assert objects(memory, "packs") != [found.pack] and not unreadable(memory, kept)


@pytest.mark.parametrize(("of_each", "moved"), [(1, True), (3, False)])
@backends
def test_of_a_group_so_much_is_alive_as_of_its_content(kind, clock, of_each, moved):
    """One chunk of each would keep all of them."""
    found = grouped(kind())
    keep(found, *(number for group in found.groups for number in group[-of_each:]))
    clock.advance(2 * DAY)
    assert [entry.pack.hex() for entry in wrapped(found.backend).plan_gc(repack=1).decision.repacks] == (
        [found.pack[-64:]] if moved else []
    )


def test_groups_of_a_pack_that_cannot_be_read_count_whole(memory, clock):
    found = grouped(memory)
    keep(found, *(group[0] for group in found.groups))
    clock.advance(2 * DAY)
    assert wrapped(memory).plan_gc(repack=1).decision.repacks
    flip(memory, found.pack, -1)
    assert not wrapped(memory).plan_gc(repack=1).decision.repacks


def test_a_trailer_that_says_a_group_is_empty_stops_no_collection(memory, clock):
    found = grouped(memory)
    kept = keep(found, found.groups[0][0])
    (key,) = kept
    recipe = recipe_of(memory, key)
    at = entries_of_pack(memory, found.pack)[0]
    stored = memory.get(found.pack)
    builder = PackBuilder(recipe.algorithm)
    builder.add_group(stored[at.offset : at.offset + at.csize], [(at.id, 0, 0)])
    name, parts = builder.close(DIGEST)
    memory.put(pack_path(name), parts)
    moved = [bytes.fromhex(name)], [recipe.placements[0]._replace(offset=64)]
    memory.put(recipe_path(key), recipes.encode(recipe.algorithm, recipe.content, recipe.about, *moved, [], CODEC))
    assert not unreadable(memory, kept)
    clock.advance(2 * DAY)
    assert name not in {entry.pack.hex() for entry in wrapped(memory).plan_gc(repack=1).decision.repacks}
    collected(memory, clock)
    assert not unreadable(memory, kept)


def test_a_damaged_group_is_not_repacked(memory, clock):
    found = grouped(memory)
    kept = keep(found, found.groups[0][1], found.groups[1][0])
    flip(memory, found.pack, found.at(found.groups[1][0]).offset)
    collected(memory, clock)
    assert found.pack in objects(memory, "packs")
    assert unreadable(memory, kept) == {found.parts[found.groups[1][0]]}


@pytest.mark.parametrize("after", [False, True])
def test_a_collector_that_dies_at_any_step_of_a_repack_loses_nothing(memory, clock, after):
    found = grouped(memory)
    kept = keep(found, *found.groups[0][:3], found.groups[1][2])
    clock.advance(2 * DAY)
    before = dict(memory._objects)
    for step in count(1):
        memory._objects = dict(before)
        faulty = FaultyBackend(memory)
        collection = wrapped(faulty).plan_gc(repack=1)
        assert collection.decision.repacks
        faulty.fault = Fault(at=faulty.calls + step, after=after, forever=True)
        try:
            collection.execute()
            break
        except errors.BackendError:
            assert not unreadable(memory, kept)
            assert not data_findings(wrapped(memory).verify("full"))
    assert step > 12 and found.pack[-64:] not in {recipe_of(memory, key).packs[0].hex() for key in kept}


def test_chunks_of_groups_are_alive_once(memory):
    found = grouped(memory)
    assert wrapped(memory).plan_gc(grace=0, live=[found.key]).chunks == len(found.parts)
    assert wrapped(memory).plan_gc(grace=0, live=found.parts[:3]).chunks == 3


def test_stat_counts_a_group_once(memory):
    found = grouped(memory)
    recipe = recipe_of(memory, found.key)
    places = {(at.offset, at.csize) for at in recipe.placements}
    assert wrapped(memory).stat(found.key).stored == recipe.stored + sum(csize for _, csize in places)
