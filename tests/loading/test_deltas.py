"""Deltas where they belong: with their bases in the same round, in bounded memory, and never wrong."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore import errors
from mfstore._core.codec import DELTAS, DIFFERENCE, NONE, PREFIX, ZSTD, Codec
from mfstore.backends.local import LocalBackend
from mfstore.backends.memory import MemoryBackend
from mfstore.backends.s3.backend import S3Backend
from mfstore.errors import AccessDenied, CorruptObject
from mfstore.format import recipes
from mfstore.format.about import encode_about
from mfstore.format.digests import BLAKE3
from mfstore.format.packs import PackBuilder, pack_path
from mfstore.format.recipes import INLINE, BaseChunk, ChunkRef, Piece, Placement, Recipe, recipe_path
from mfstore.loading import deltas as deltas_module
from mfstore.loading.deltas import Delta, plan_windows
from mfstore.loading.fetch import targets
from mfstore.loading.reads import BasePart, ChunkRead, PlacedChunk, raw_run
from mfstore.loading.reliance import placed_in_packs
from tests.rigs.damage import wrapped
from tests.rigs.deltas import as_deltas, flip, forget_unneeded, list_base_copies, recipe_of
from tests.rigs.parts import DIGEST, KIB, CountingBackend, listed_pack, noise, parts, stored_pack
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client

pytestmark = pytest.mark.usefixtures("whole_chunks")  # deltas are what each test makes itself

CODEC = Codec(errors)
OLD = noise(1, 40 * KIB)
OTHER = noise(2, 24 * KIB)
BASES = (OLD, OTHER)


def edited(data, *at):
    """``data`` with other bytes at some places."""
    changed = bytearray(data)
    for place in at:
        changed[place] ^= 0x5A
    return bytes(changed)


NEW = [edited(OLD, 7, 9000), edited(OLD, 20_000), edited(OTHER, 1), edited(OTHER[5000:] + OLD[:3000], 4)]
PIECES = [
    (Piece(0, 0, len(OLD)),), (Piece(0, 0, len(OLD)),), (Piece(1, 0, len(OTHER)),),
    (Piece(1, 5000, len(OTHER) - 5000), Piece(0, 0, 3000)),
]  # fmt: skip


class Rounds(CountingBackend):
    """Counts rounds of requests, and what is asked for in each."""

    def __init__(self, **capabilities):
        super().__init__(**capabilities)
        self.rounds = []

    def read_many(self, reads):
        reads = list(reads)
        self.rounds.append([(read.key, read.start, read.length) for read in reads])
        return super().read_many(iter(reads))


class Made:
    """A recipe of deltas over the parts of a handle, and memory for its chunks."""

    def __init__(
        self, monkeypatch, codec=PREFIX, width=0, inline=False, same_pack=False, listed=False, plain=(), **how
    ):
        monkeypatch.setattr("tests.rigs.parts.CountingBackend", Rounds)
        self.parts = parts(**how)
        backend = self.backend = self.parts.backend
        store = listed_pack if listed else lambda made, chunks: stored_pack(made.backend, chunks)
        self.plain = list(plain)
        self.base_pack, located = store(self.parts, [*BASES, *self.plain])
        encoded = [
            CODEC.encode_delta(
                data, b"".join(BASES[p.chunk][p.start : p.start + p.length] for p in own), codec, width, 1
            )
            for data, own in zip(NEW, PIECES, strict=True)
        ]
        builder = PackBuilder(BLAKE3)
        at, placements = 0, []
        for data, delta, own in zip(NEW, encoded, PIECES, strict=True):
            place = Placement(INLINE, at, len(delta), codec, width, own)
            if not inline:
                place = place._replace(pack=1, offset=builder.length)
                builder.add(memoryview(delta), [(DIGEST(data), len(delta), len(data))], codec, width, True)
            placements.append(place)
            at += len(delta)
        bases = [BaseChunk(DIGEST(data), 0, *located[DIGEST(data)][1:3], len(data), NONE, 0) for data in BASES]
        if same_pack:
            bases = [base._replace(pack=1, offset=builder.length + len(OLD) * n) for n, base in enumerate(bases)]
            for data in BASES:
                builder.add(memoryview(data), [(DIGEST(data), len(data), len(data))], NONE, 0, True)
        self.pack, stored = builder.close(DIGEST)
        backend.put(pack_path(self.pack), stored)
        placements += [located[DIGEST(data)].placement(0) for data in self.plain]
        self.chunks = [ChunkRef(DIGEST(data), len(data)) for data in [*NEW, *self.plain]]
        artifact = recipes.Artifact("", recipes.RAW, sum(c.usize for c in self.chunks), None, (), self.chunks)
        content = recipes.encode_content(recipes.ONE, BLAKE3, [artifact])
        packs = [bytes.fromhex(self.base_pack), bytes.fromhex(self.pack)]
        arena = b"".join(encoded) if inline else b""
        self.key = DIGEST(content).hex()
        parts_of_recipe = recipes.encode(
            BLAKE3, content, encode_about(["bytes"]), packs, placements, [arena], CODEC, bases
        )
        backend.put(recipe_path(self.key), [b"".join(parts_of_recipe)])
        self.recipe = recipe_of(backend, self.key)
        backend.reads.clear()

    def load(self, verify=True):
        memory = bytearray(sum(chunk.usize for chunk in self.chunks))
        self.parts.fetcher.fill(self.recipe, list(targets(memory, 0, self.chunks)), verify)
        return bytes(memory)

    @property
    def right(self):
        return b"".join([*NEW, *self.plain])


@pytest.fixture
def make(monkeypatch):
    return lambda **how: Made(monkeypatch, **how)


# ---- ways of reading ----------------------------------------------------------------


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "how",
    [{}, {"codec": DIFFERENCE}, {"codec": DIFFERENCE, "width": 4}, {"inline": True}, {"inline": True, "codec": DIFFERENCE, "width": 8},
     {"same_pack": True}, {"plain": [noise(9, 3000)]}],
    ids=str,
)  # fmt: skip
def test_deltas_are_loaded(make, how, remote, threads):
    made = make(remote=remote, threads=threads, **how)
    assert made.load(True) == made.load(False) == made.right
    made.parts.workers.close()


def test_far_away_bases_take_no_round_of_their_own(make):
    made = make(remote=True, gap=0, plain=[noise(9, 3000)])
    assert made.load() == made.right
    base_pack, pack = pack_path(made.base_pack), pack_path(made.pack)
    length = sum(at.csize for at in made.recipe.placements[:4])
    (asked,) = made.backend.rounds
    # What lies side by side is one request: both base chunks, each once, with the chunk that is no delta.
    assert sorted(asked) == sorted([(base_pack, 64, len(OLD) + len(OTHER) + 3000), (pack, 64, length)])
    assert sorted(made.backend.reads) == sorted(asked)


def test_bases_in_the_same_pack_come_with_the_deltas(make):
    made = make(remote=True, same_pack=True)
    assert made.load() == made.right
    assert [len(asked) for asked in made.backend.rounds] == [1]


def test_inline_deltas_ask_for_their_bases_alone(make):
    made = make(remote=True, inline=True)
    assert made.load() == made.right
    assert made.backend.rounds == [[(pack_path(made.base_pack), 64, len(OLD) + len(OTHER))]]


def test_two_recipes_share_base_chunks(make):
    made = make(remote=True)
    memories = [bytearray(len(made.right)) for _ in range(2)]
    wanted = [(made.recipe, list(targets(memory, 0, made.chunks))) for memory in memories]
    made.parts.fetcher.fill_all(wanted, True)
    assert memories == [made.right, made.right]
    (asked,) = made.backend.rounds
    assert sum(length for key, _, length in asked if key == pack_path(made.base_pack)) == len(OLD) + len(OTHER)


def test_a_load_without_deltas_makes_none_of_it(make, monkeypatch):
    made = make(plain=[noise(9, 3000)])
    monkeypatch.setattr("mfstore.loading.fetch.DeltaWindow", None)
    memory = bytearray(3000)
    made.parts.fetcher.fill(made.recipe, [(4, made.chunks[4], memoryview(memory))], True)
    assert memory == noise(9, 3000)


# ---- memory -------------------------------------------------------------------------


def base_chunk(number, usize):
    return PlacedChunk(ChunkRef(bytes([number]) * 32, usize), "ab", Placement(0, number * 100, 100, ZSTD, 0))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=12),
    st.lists(st.tuples(st.lists(st.integers(0, 11), min_size=1, max_size=4), st.integers(0, 30)), max_size=40),
    st.booleans(),
)
def test_windows_hold_what_they_may(sizes, wanted, inline):
    bases = [base_chunk(number, size) for number, size in enumerate(sizes)]
    planned = [
        Delta(
            ChunkRead("" if inline else "cd", Placement(0, 0, csize, PREFIX, 0), ChunkRef(b"", 1), memoryview(b"")),
            tuple(BasePart(bases[number % len(bases)], 0, 1) for number in numbers), b"", True,
        )
        for numbers, csize in wanted
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deltas_module, "DELTA_WINDOW", 100)
        windows = plan_windows(planned)
    assert sorted(map(id, planned)) == sorted(id(delta) for window in windows for delta in window)
    for window in windows:
        held = sum(base.chunk.usize for base in {part.of for delta in window for part in delta.base})
        held += sum(delta.wanted.placement.csize for delta in window if delta.wanted.pack)
        assert held <= 100 or len(window) == 1
    if sum(sizes) + sum(csize for _, csize in wanted) <= 100:
        assert len(windows) <= 1


def test_a_base_that_the_next_window_needs_is_kept(make, monkeypatch):
    made = make(remote=True, gap=0, plain=[noise(9, 3000)])
    third, fourth = (made.recipe.placements[number].csize for number in (2, 3))
    monkeypatch.setattr(deltas_module, "DELTA_WINDOW", len(OLD) + len(OTHER) + third + fourth)
    assert made.load() == made.right
    assert len(made.backend.rounds) == 2
    asked = [length for asked in made.backend.rounds for key, _, length in asked if key == pack_path(made.base_pack)]
    assert sorted(asked) == [3000, len(OTHER), len(OLD)] or sorted(asked) == [len(OTHER) + 3000, len(OLD)]


def test_no_more_windows_are_held_than_one(make, monkeypatch):
    """What one was decoded from is freed when the next one is read."""
    monkeypatch.setattr(deltas_module, "DELTA_WINDOW", 1)
    held, most = set(), []

    class Watched(deltas_module.FreshBytes):
        def __init__(self, length):
            held.add(id(self))

        def __del__(self):
            held.discard(id(self))

    monkeypatch.setattr(deltas_module, "FreshBytes", Watched)
    made = make(remote=True)
    read_many = made.backend.read_many

    def counted(reads):
        most.append(len(held))
        return read_many(reads)

    made.backend.read_many = counted
    assert made.load() == made.right
    assert len(most) == 4 and max(most) <= 3 + 2 and not held


# ---- damage -------------------------------------------------------------------------


def spoil(made, what):
    if what == "delta":
        flip(made.backend, pack_path(made.pack), made.recipe.placements[0].offset + 5)
    elif what == "base":
        flip(made.backend, pack_path(made.base_pack), 64 + 100)
    elif what == "base where one delta does not look":
        flip(made.backend, pack_path(made.base_pack), 64 + 7)
    elif what == "base pack":
        made.backend.delete(pack_path(made.base_pack))
    elif what == "delta pack":
        made.backend.delete(pack_path(made.pack))
    else:
        for one in what.split(" and "):
            spoil(made, one)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(
    ("what", "message", "blamed"),
    [
        ("delta", "a delta is damaged", "pack"),
        ("delta pack", "a delta is missing", "pack"),
        ("base", "a base of a delta is damaged", "base_pack"),
        ("base pack", "a base of a delta is missing", "base_pack"),
        ("delta and base", "a base of a delta is damaged", "base_pack"),
    ],
)
def test_damage_that_nothing_makes_up_for_is_named(make, what, message, blamed, remote):
    made = make(remote=remote)
    spoil(made, what)
    for verify in (True, False):  # what is known to be damaged is compared, asked for or not
        with pytest.raises(CorruptObject, match=message) as caught:
            made.load(verify)
        assert caught.value.key == pack_path(getattr(made, blamed))
        assert DIGEST(NEW[0]).hex() in str(caught.value)
        assert (DIGEST(OLD).hex() in str(caught.value)) == (blamed == "base_pack")
        assert caught.value.hint == "Store the same content again to repair it"
        assert made.parts.verified.is_damaged(getattr(made, blamed), caught.value.key)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("what", ["delta", "delta pack", "base", "base pack", "delta and base"])
def test_whole_copies_of_the_chunks_make_up_for_it(make, what, remote):
    made = make(remote=remote)
    listed_pack(made.parts, NEW)
    spoil(made, what)
    words = "is gone" if what.endswith("pack") else "is damaged"
    with pytest.warns(RuntimeWarning, match=words) as told:
        assert made.load() == made.right
    assert len(told) == 1
    assert made.load(False) == made.right


def test_a_base_that_is_lost_is_looked_for_once(make):
    """However many deltas need it."""
    made = make()
    listed_pack(made.parts, NEW)
    spoil(made, "base pack")
    with pytest.warns(RuntimeWarning, match="is gone"):
        assert made.load() == made.right
    # Together, each by itself, and once more when it is looked for.
    assert [key for key, *_ in made.backend.reads].count(pack_path(made.base_pack)) == 1 + 2 + 2


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("what", ["base", "base pack"])
def test_whole_copies_of_the_bases_make_up_for_it(make, what, remote):
    made = make(remote=remote)
    copy, _ = listed_pack(made.parts, BASES[::-1])
    spoil(made, what)
    with pytest.warns(RuntimeWarning, match="is gone" if what == "base pack" else "is damaged"):
        assert made.load() == made.right
    # Of one that several deltas share, one copy is read.
    made.backend.rounds.clear()
    made.backend.reads.clear()
    into = []
    read_into = made.backend.read_into
    made.backend.read_into = lambda key, start, target: into.append(key) or read_into(key, start, target)
    assert made.load() == made.right
    assert into.count(pack_path(copy)) <= 2


def test_a_base_that_others_stored_meanwhile_is_found(make):
    """A copy of a chunk is as good as one of its base, and a damaged copy is none."""
    made = make()
    copy, _ = listed_pack(made.parts, BASES[::-1])
    spoil(made, "base pack")
    flip(made.backend, pack_path(copy), 64 + len(OTHER) + 70)
    with pytest.raises(CorruptObject, match="a base of a delta is missing"):
        made.load()
    listed_pack(made.parts, [*NEW[:2], NEW[3]])
    with pytest.warns(RuntimeWarning):
        assert made.load() == made.right


def test_a_pack_that_is_cut_short_is_damage(make):
    made = make()
    whole = made.backend.get(pack_path(made.base_pack))
    made.backend.put(pack_path(made.base_pack), [whole[:1000]])
    with pytest.raises(CorruptObject, match="a base of a delta is damaged"):
        made.load()


@pytest.mark.parametrize("pack", ["pack", "base_pack"])
@pytest.mark.parametrize("remote", [False, True])
def test_one_bad_read_is_no_damage(make, pack, remote):
    made = make(remote=remote, gap=0)
    path = pack_path(getattr(made, pack))
    whole = made.backend.get(path)
    flip(made.backend, path, 70)
    again = made.backend.read_again

    def healthy(*where):
        made.backend.put(path, [whole])
        return again(*where)

    made.backend.read_again = healthy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made.load() == made.right
    assert not made.parts.verified.met_damage


def test_an_inline_delta_is_read_again_with_its_recipe(make):
    made = make(inline=True)
    whole = made.recipe
    damaged = bytearray(whole.inline)
    damaged[3] ^= 1
    made.recipe = Recipe(**{**{f: getattr(whole, f) for f in Recipe.__slots__}, "inline": bytes(damaged)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made.load() == made.right  # the recipe that is stored is whole
    assert not made.parts.verified.met_damage
    made.backend.put(recipe_path(made.key), [made.backend.get(recipe_path(made.key))[:-1]])
    with pytest.raises(CorruptObject, match="a delta is damaged") as caught:
        made.load()
    assert caught.value.key == recipe_path(made.key)
    assert made.parts.verified.is_damaged(made.key, recipe_path(made.key))
    listed_pack(made.parts, NEW)
    with pytest.warns(RuntimeWarning, match="recipes/.* is damaged"):
        assert made.load() == made.right


def test_a_delta_that_was_moved_is_found_by_its_recipe(make):
    """A collector repacked it while a reader held the recipe from before: the index does not list deltas."""
    made = make()
    moved = make(codec=DIFFERENCE, same_pack=True)
    for kind in ("packs/", "recipes/"):
        for info in list(moved.backend.list(kind)):
            made.backend.put(info.key, [moved.backend.get(info.key)])
    made.backend.delete(pack_path(made.pack))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made.load() == made.right


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("pack", ["pack", "base_pack"])
def test_a_refusal_is_no_damage(make, pack, remote):
    made = make(remote=remote)
    listed_pack(made.parts, NEW)
    get_range, read_into = made.backend.get_range, made.backend.read_into

    def refuse(path):
        if path == pack_path(getattr(made, pack)):
            raise AccessDenied("no")

    made.backend.get_range = lambda path, *rest: refuse(path) or get_range(path, *rest)
    made.backend.read_into = lambda path, *rest: refuse(path) or read_into(path, *rest)
    with pytest.raises(AccessDenied):
        made.load()
    assert not made.parts.verified.met_damage


@pytest.mark.parametrize("how", [{}, {"codec": DIFFERENCE, "width": 8}, {"inline": True}], ids=str)
def test_no_wrong_byte_is_ever_returned(make, how):
    """Flips all over both packs, and the recipe: an error, or what was stored."""
    made = make(**how)
    whole = {info.key: made.backend.get(info.key) for info in made.backend.list("packs/")}
    for path, data in whole.items():
        for at in range(3, len(data), max(1, len(data) // 60)):
            made.parts.verified.__init__(made.backend)
            flip(made.backend, path, at)
            try:
                assert made.load() == made.right, (path, at)
            except CorruptObject:
                pass
            made.backend.put(path, [data])


# ---- what may be relied on, and mapped ----------------------------------------------


def test_a_segment_with_a_delta_is_not_mapped():
    raw = Placement(0, 64, 100, NONE, 0)
    delta = Placement(0, 164, 100, PREFIX, 0, (Piece(0, 0, 100),))
    recipe = Recipe(1, 1, b"", (), packs=(b"a" * 32,), placements=[raw, delta])
    assert raw_run(recipe, 0, 1) is not None
    assert raw_run(recipe, 0, 2) is None
    assert raw_run(recipe, 1, 1) is None


@pytest.mark.parametrize("remote", [False, True])
def test_deltas_can_be_relied_on_with_their_bases(make, remote):
    made = make(remote=remote)
    rely = made.parts.context.reliance
    placed = placed_in_packs(made.recipe)
    everything = {DIGEST(data) for data in [*NEW, *BASES]}
    assert rely.whole(placed) == everything
    # What was read is not read again.
    made.backend.reads.clear()
    assert rely.whole(placed) == everything
    assert not made.backend.reads
    # Nor are bases that were read for their deltas.
    made.parts.verified.clear()
    alone = {DIGEST(data) for data in NEW}
    assert rely.whole(placed[:4]) == alone
    made.backend.reads.clear()
    assert rely.whole(placed[:4]) == alone
    assert not made.backend.reads
    # A delta is as good as its base is now.
    spoil(made, "base")
    made.parts.verified.forget(made.base_pack)
    assert rely.whole(placed[:4]) == {DIGEST(NEW[2])}


@pytest.mark.parametrize(
    ("what", "left"),
    [
        ("delta", [NEW[1], NEW[2], NEW[3], OLD, OTHER]),
        ("base", [NEW[2], OTHER]),
        ("base where one delta does not look", [NEW[2], OTHER]),
        ("base pack", []),
        ("delta pack", [OLD, OTHER]),
    ],
)
@pytest.mark.parametrize("remote", [False, True])
def test_what_is_damaged_is_not_relied_on(make, what, left, remote):
    made = make(remote=remote)
    listed_pack(made.parts, [*NEW, *BASES])  # another copy does not count
    spoil(made, what)
    found = made.parts.context.reliance.whole(placed_in_packs(made.recipe))
    assert found == {DIGEST(data) for data in left}
    damaged = set() if what.endswith("pack") else {made.pack if what == "delta" else made.base_pack}
    verified = made.parts.verified
    assert {name for name in (made.pack, made.base_pack) if verified.is_damaged(name, pack_path(name))} == damaged


def test_far_away_listed_deltas_are_relied_on_unread(make):
    made = make(remote=True, cheap_reads=False)
    sizes = {pack_path(name): made.backend.head(pack_path(name)).size for name in (made.pack, made.base_pack)}
    made.backend.vouch = lambda keys: {key: sizes[key] for key in keys if key in sizes}
    rely = made.parts.context.reliance
    placed = placed_in_packs(made.recipe)
    made.backend.rounds.clear()
    made.backend.reads.clear()
    assert rely.reliable(placed) == {DIGEST(data) for data in [*NEW, *BASES]}
    assert not any(made.backend.rounds)
    assert {(key, start + length) for key, start, length in made.backend.reads} == set(sizes.items())  # the trailers
    # A base that nobody vouches for is read, and so is its delta.
    del sizes[pack_path(made.base_pack)]
    made.parts.verified.__init__(made.backend)
    assert rely.reliable(placed) == {DIGEST(data) for data in [*NEW, *BASES]}
    spoil(made, "base")
    made.parts.verified.__init__(made.backend)
    assert rely.reliable(placed) == {DIGEST(NEW[2]), DIGEST(OTHER)}


# ---- stores -------------------------------------------------------------------------


class OnS3(S3Backend):
    def make_client(self, options):
        return simulated_client(self.world)


@pytest.fixture(params=["memory", "local", "s3"])
def backend(request, tmp_path, monkeypatch):
    if request.param == "memory":
        return MemoryBackend()
    if request.param == "local":
        return LocalBackend(str(tmp_path / "store"), fsync="none")
    monkeypatch.setattr(OnS3, "world", SimulatedS3(), raising=False)
    return OnS3("s3://b/store")


ARRAY = np.random.default_rng(3).random(150_000)


def arrays():
    """An array and its next version, of which every chunk changed."""
    later = ARRAY.copy()
    later[::1000] += 1  # at least twice in the shortest chunk
    return ARRAY, later


@pytest.mark.parametrize("how", [{}, {"codec": DIFFERENCE, "width": 8}, {"inline": True}, {"same_pack": True}], ids=str)
def test_every_way_to_read_an_artifact(backend, how, tmp_path):
    old, new = arrays()
    store = wrapped(backend)
    base, key = store.put(old), store.put(new)
    stream = store.get_bytes(key)
    bundle = store.save({"x": old, "y": new})
    raw_base, raw_key = store.put_bytes(old.tobytes()), store.put_bytes(new.tobytes())
    as_deltas(backend, key, base, copies=True, **how)
    as_deltas(backend, bundle, base, copies=True, **how)
    as_deltas(backend, raw_key, raw_base, copies=True, **how)
    forget_unneeded(backend)
    assert any(place.codec in DELTAS for place in recipe_of(backend, bundle).placements)
    store = wrapped(backend)
    for verify in (True, False):
        assert np.array_equal(store.get(key, verify=verify), new)
        assert all(map(np.array_equal, dict(store.get_many([key, base, key], verify=verify)).values(), (new, old)))
        loaded = store.load(bundle, verify=verify)
        assert np.array_equal(loaded["x"], old) and np.array_equal(loaded["y"], new)
        assert np.array_equal(store.load(bundle, names=["y"], verify=verify)["y"], new)
    assert np.array_equal(store.get(key, map=True), new)
    assert store.get_bytes(key) == stream
    assert store.get_bytes(raw_key, start=300_001, end=700_003) == new.tobytes()[300_001:700_003]
    assert b"".join(store.iter_bytes(key)) == stream
    store.get_file(raw_key, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == new.tobytes()


def test_a_lost_base_is_told_with_the_key(backend):
    old, new = arrays()
    store = wrapped(backend)
    base, key = store.put_bytes(old.tobytes()), store.put_bytes(new.tobytes())
    places = as_deltas(backend, key, base)
    backend.delete(pack_path(places.bases[0][0]))
    store = wrapped(backend)
    with pytest.raises(CorruptObject, match="a base of a delta is missing") as caught:
        store.get(key)
    assert caught.value.key == pack_path(places.bases[0][0])
    assert any(key in note for note in caught.value.__notes__)


def test_copies_of_bases_are_found_by_the_index(backend):
    old, new = arrays()
    store = wrapped(backend)
    base, key = store.put_bytes(old.tobytes()), store.put_bytes(new.tobytes())
    places = as_deltas(backend, key, base)
    list_base_copies(backend, key)
    for pack in {pack for pack, _ in places.bases}:
        backend.delete(pack_path(pack))
    store = wrapped(backend)
    with pytest.warns(RuntimeWarning, match="is gone"):
        assert store.get_bytes(key) == new.tobytes()


def test_the_same_content_is_stored_again_when_a_base_is_damaged(backend):
    """And not when it is whole."""
    old, new = arrays()
    store = wrapped(backend)
    base, key = store.put(old), store.put(new)
    places = as_deltas(backend, key, base)
    store = wrapped(backend)
    assert store.put(new) == key
    assert any(place.pieces for place in recipe_of(backend, key).placements)
    flip(backend, pack_path(places.bases[0][0]), places.bases[0][1] + 9)
    store = wrapped(backend)
    with pytest.raises(CorruptObject):
        store.get(key)
    assert store.put(new) == key
    assert np.array_equal(store.get(key), new)
    assert np.array_equal(wrapped(backend).get(key), new)
