"""What this process knows to be whole, and what an acknowledgement may rely on because of it."""

import pytest

from mfstore.backends.local import LocalBackend
from mfstore.format.packs import PackEntry, pack_path
from mfstore.format.recipes import ChunkRef
from mfstore.loading import pack_layouts, reliance, verified
from mfstore.loading.pack_layouts import PackLayouts
from mfstore.loading.reads import PlacedChunk
from tests.rigs.parts import DIGEST, CountingBackend, damage, noise, parts, stored_pack

A, B = noise(1, 1000), noise(2, 2000)


class Vouching(CountingBackend):
    """A remote backend that vouches for what it has, and counts how often it is asked."""

    def __init__(self):
        super().__init__(remote=True, cheap_reads=False)
        self.asked = []

    def vouch(self, keys):
        self.asked += keys
        return {info.key: info.size for info in self.list("packs/") if info.key in keys}


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets."""
    now = [1000.0]
    monkeypatch.setattr(verified, "monotonic", lambda: now[0])
    return now


# ---- ranges -------------------------------------------------------------------------


def test_a_range_is_known_by_its_start_length_and_tag():
    made = parts()
    name, _ = stored_pack(made.backend, [A])
    known = made.verified
    known.add(name, [(64, 1000, b"tag")])
    assert known.has(name, 64, 1000, b"tag")
    assert not known.has(name, 64, 999, b"tag")
    assert not known.has(name, 65, 1000, b"tag")
    assert not known.has(name, 64, 1000, b"other")
    assert not known.has("00" * 32, 64, 1000, b"tag")


def test_a_file_is_looked_at_once_for_many_ranges(monkeypatch):
    made = parts()
    name, _ = stored_pack(made.backend, [A, B])
    made.verified.add(name, [(64, 1000, b"one"), (1064, 2000, b"two")])
    identity, asked = made.backend.identity, []
    monkeypatch.setattr(made.backend, "identity", lambda key: asked.append(key) or identity(key))
    has = made.verified.has_now()
    assert has(name, 64, 1000, b"one") and has(name, 1064, 2000, b"two") and not has(name, 64, 1000, b"two")
    assert asked == [pack_path(name)]
    damage(made.backend, name, 70)
    assert not made.verified.has_now()(name, 1064, 2000, b"two")


@pytest.mark.parametrize("where", ["memory", "directory"])
def test_a_file_that_changed_is_not_known_any_more(where, tmp_path):
    backend = CountingBackend() if where == "memory" else LocalBackend(str(tmp_path), fsync="none")
    known = verified.VerifiedRanges(backend)
    name, _ = stored_pack(backend, [A])
    known.add(name, [(64, 1000, b"tag")])
    assert known.has(name, 64, 1000, b"tag")
    damage(backend, name, 70)
    assert not known.has(name, 64, 1000, b"tag")
    backend.delete(pack_path(name))
    assert not known.has(name, 64, 1000, b"tag")
    known.add(name, [(64, 1000, b"tag")])  # nothing to know
    assert not known.has(name, 64, 1000, b"tag")


def test_what_was_found_damaged_is_forgotten():
    made = parts()
    name, _ = stored_pack(made.backend, [A])
    made.verified.add(name, [(64, 1000, b"tag")])
    made.verified.forget(name)
    assert not made.verified.has(name, 64, 1000, b"tag")


def test_far_away_a_range_is_known_for_a_quarter_of_an_hour(clock):
    known = verified.VerifiedRanges(Vouching())
    clock[0] = 0.0
    known.add("aa", [(64, 1000, b"tag")])
    clock[0] = verified.REMOTE_SECONDS - 1
    assert known.has("aa", 64, 1000, b"tag")
    clock[0] = verified.REMOTE_SECONDS
    assert not known.has("aa", 64, 1000, b"tag")


def test_memory_is_bounded(monkeypatch):
    made = parts()
    monkeypatch.setattr(verified.VerifiedRanges, "LIMIT", 2)
    names = [stored_pack(made.backend, [noise(seed, 10)])[0] for seed in range(5)]
    for name in names:
        made.verified.add(name, [(64, 10, b"tag")])
    assert [made.verified.has(name, 64, 10, b"tag") for name in names] == [False, False, False, True, True]


# ---- vouching -----------------------------------------------------------------------


def test_a_pack_is_asked_about_once_and_after_a_while_again(clock):
    backend = Vouching()
    known = verified.VerifiedRanges(backend)
    name, _ = stored_pack(backend, [A])
    size = backend.head(pack_path(name)).size
    assert known.vouched({name: 1000, "00" * 32: 1}) == {name}
    assert known.vouched({name: size}) == {name}
    assert known.vouched({name: size + 1}) == set()
    assert backend.asked == [pack_path(name), pack_path("00" * 32)]
    clock[0] += verified.REMOTE_SECONDS
    known.vouched({name: 1})
    assert backend.asked[2:] == [pack_path(name)]


def test_what_this_process_wrote_is_not_asked_about(clock):
    backend = Vouching()
    known = verified.VerifiedRanges(backend)
    known.written("aa", 500)
    assert known.vouched({"aa": 500}) == {"aa"}
    assert backend.asked == []
    known.clear()  # a collector has been at work
    assert known.vouched({"aa": 500}) == set()


def test_what_was_found_damaged_is_not_vouched_for_until_it_is_stored_again(clock):
    backend = Vouching()
    known = verified.VerifiedRanges(backend)
    name, _ = stored_pack(backend, [A])
    known.forget(name)
    assert known.vouched({name: 1}) == set()
    assert backend.asked == []
    known.written(name, 1)
    assert known.vouched({name: 1}) == {name}


# ---- reliance -----------------------------------------------------------------------


def there(located, *chunks):
    return [
        PlacedChunk(ChunkRef(DIGEST(data), len(data)), at.pack.value.hex(), at.placement())
        for data in chunks if (at := located[DIGEST(data)])
    ]  # fmt: skip


def test_where_reads_are_cheap_a_chunk_is_read_once_and_then_known():
    made = parts()
    _, located = stored_pack(made.backend, [A, B])
    rely = made.context.reliance
    assert rely.reliable(there(located, A, B)) == {DIGEST(A), DIGEST(B)}
    assert made.backend.reads
    made.backend.reads.clear()
    assert rely.reliable(there(located, A, B)) == {DIGEST(A), DIGEST(B)}
    assert made.backend.reads == []


@pytest.mark.parametrize("remote", [False, True])
def test_damage_beside_a_chunk_does_not_matter(remote):
    made = parts(remote=remote, cheap_reads=not remote)
    name, located = stored_pack(made.backend, [A, B])
    damage(made.backend, name, located[DIGEST(B)].offset)
    assert made.context.reliance.reliable(there(located, A, B)) == {DIGEST(A)}
    made.backend.delete(pack_path(name))
    made.verified.clear()
    assert made.context.reliance.reliable(there(located, A, B)) == set()


def test_far_away_what_is_vouched_for_is_not_read():
    backend = Vouching()
    made = parts()
    known = verified.VerifiedRanges(backend)
    reader = type(made.reader)(backend, made.workers, DIGEST)
    name, located = stored_pack(backend, [A, B])
    rely = reliance.Reliance(reader, known)
    for _ in range(2):
        assert rely.reliable(there(located, A, B)) == {DIGEST(A), DIGEST(B)}
        # But for its trailer, once.
        assert backend.reads == [(pack_path(name), 0, backend.head(pack_path(name)).size)]


WRONG = {
    "offset": lambda at, other: at._replace(offset=at.offset + 1),
    "another's": lambda at, other: at._replace(offset=other.offset),
    "length": lambda at, other: at._replace(csize=at.csize - 1),
    "codec": lambda at, other: at._replace(codec=2),
    "width": lambda at, other: at._replace(width=4),
}


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("how", WRONG)
def test_far_away_a_place_is_compared_with_the_trailer_of_its_pack(how, long):
    """Of a pack whose trailer comes with the first read, and of one whose does not."""
    backend = Vouching()
    reader = type(parts().reader)(backend, parts().workers, DIGEST)
    rest = [noise(seed, 20) for seed in range(3, 1500)] if long else []
    name, located = stored_pack(backend, [A, B, *rest])
    rely = reliance.Reliance(reader, verified.VerifiedRanges(backend))
    wrong = located | {DIGEST(A): WRONG[how](located[DIGEST(A)], located[DIGEST(B)])}
    assert rely.reliable(there(wrong, A, B)) == {DIGEST(B)}
    assert rely.reliable(there(located, A, B)) == {DIGEST(A), DIGEST(B)}
    # A chunk that is said to lie in two places must lie in both.
    assert rely.reliable([*there(wrong, A, B), *there(located, A)]) == {DIGEST(B)}
    assert rely.whole([*there(wrong, A, B), *there(located, A)]) == {DIGEST(B)}
    # What this process wrote it need not ask about.
    fresh = reliance.Reliance(reader, verified.VerifiedRanges(backend))
    fresh.written(name, backend.head(pack_path(name)).size, [PackEntry(i, *at[1:]) for i, at in located.items()])
    backend.reads.clear()
    backend.asked.clear()
    assert fresh.reliable(there(located, A, B)) == {DIGEST(A), DIGEST(B)}
    assert backend.reads == backend.asked == []


def test_far_away_a_damaged_trailer_is_not_relied_on():
    backend = Vouching()
    reader = type(parts().reader)(backend, parts().workers, DIGEST)
    name, located = stored_pack(backend, [A, B])
    damage(backend, name, -100)
    rely = reliance.Reliance(reader, verified.VerifiedRanges(backend))
    assert rely.reliable(there(located, A, B)) == {DIGEST(A), DIGEST(B)}  # by their own bytes
    assert len(backend.reads) > 1


def test_many_doubtful_chunks_are_read_some_at_a_time():
    made = parts(gap=0)
    chunks = [noise(seed, 10) for seed in range(reliance.PROBED_TOGETHER + 1)]
    _, located = stored_pack(made.backend, chunks)
    assert made.context.reliance.reliable(there(located, *chunks)) == {DIGEST(data) for data in chunks}


def test_far_away_the_trailer_of_another_pack_says_nothing():
    backend = Vouching()
    name, _ = stored_pack(backend, [A])
    other, located = stored_pack(backend, [B])
    backend.put(pack_path(name), [backend.get(pack_path(other))])
    layouts = PackLayouts(backend, DIGEST)
    for pack in (name, other):
        layouts.read([pack])
        assert layouts.holds(pack, PackEntry(DIGEST(B), *located[DIGEST(B)][1:])) is (pack == other)


def test_layouts_are_learnt_by_several_threads():
    layouts = PackLayouts(CountingBackend(), DIGEST)

    others = ["other"]

    class Slow(list):
        def __len__(self):
            """Meanwhile another thread learns one."""
            if layouts.entries(["first"]) and others:
                layouts.add(others.pop(), [])
            return super().__len__()

    layouts.add("first", Slow())
    layouts.add("second", [])
    assert layouts.entries(["first", "second", "other"]).keys() == {"first", "second", "other"}


# ---- ends of packs that were read with their trailers -----------------------------------


@pytest.mark.parametrize(("seconds", "read_again"), [(0.0, False), (4.9, False), (5.1, True)])
def test_what_was_read_with_a_trailer_is_checked_without_being_read_again(monkeypatch, seconds, read_again):
    now = [1000.0]
    monkeypatch.setattr(pack_layouts, "monotonic", lambda: now[0])
    made = parts()
    name, located = stored_pack(made.backend, [A, B])
    rely = made.context.reliance
    assert rely.trailers([name]).keys() == {name}
    made.backend.reads.clear()
    now[0] += seconds
    assert rely.reliable(there(located, A, B)) == {DIGEST(A), DIGEST(B)}
    assert bool(made.backend.reads) == read_again
    made.backend.put(pack_path(name), [b"gone"])
    assert rely.reliable(there(located, A, B)) == set()  # it was seen once


@pytest.mark.parametrize("gone", [True, False])
def test_what_was_read_with_a_trailer_says_nothing_of_a_pack_that_is_gone_or_replaced_since(gone):
    """As by repair, or by whoever stores it again: what is relied on is what is stored now."""
    made = parts()
    name, located = stored_pack(made.backend, [A, B])
    made.context.reliance.trailers([name])
    if gone:
        made.backend.delete(pack_path(name))
    else:
        damage(made.backend, name, 70)
    assert made.context.reliance.reliable(there(located, A, B)) == (set() if gone else {DIGEST(B)})


@pytest.mark.parametrize("at", [70, 1100])
def test_damage_is_seen_in_what_was_read_with_a_trailer(at):
    made = parts()
    name, located = stored_pack(made.backend, [A, B])
    damage(made.backend, name, at)
    made.context.reliance.trailers([name])
    assert made.context.reliance.reliable(there(located, A, B)) == {DIGEST(B if at == 70 else A)}
    assert made.verified.met_damage


def test_what_lies_before_the_end_that_was_read_is_read(monkeypatch):
    monkeypatch.setattr(pack_layouts, "READ_WITH", 2000 + 112 + 64)
    made = parts(gap=0)
    name, located = stored_pack(made.backend, [A, B])
    made.context.reliance.trailers([name])
    made.backend.reads.clear()
    assert made.context.reliance.reliable(there(located, B)) == {DIGEST(B)}
    assert made.backend.reads == []
    made.context.reliance.trailers([name])
    assert made.context.reliance.reliable(there(located, A)) == {DIGEST(A)}
    assert [key for key, _, _ in made.backend.reads] == [pack_path(name)]


def test_what_is_read_for_its_neighbours_is_not_kept():
    made = parts()
    name, located = stored_pack(made.backend, [A, B])
    made.context.reliance.layouts([name])
    made.backend.put(pack_path(name), [b"gone"])
    assert made.context.reliance.reliable(there(located, A, B)) == set()


def test_chunks_side_by_side_are_checked_by_one_read_and_each_by_itself_where_that_ends_early():
    made = parts()
    name, located = stored_pack(made.backend, [A, B])
    made.backend.reads.clear()
    assert made.context.reliance.reliable(there(located, A, B)) == {DIGEST(A), DIGEST(B)}
    assert made.backend.reads == [(pack_path(name), 64, len(A) + len(B))]
    made.verified.clear()
    made.backend.put(pack_path(name), [made.backend.get(pack_path(name))[: 64 + len(A)]])
    assert made.context.reliance.reliable(there(located, A, B)) == {DIGEST(A)}
