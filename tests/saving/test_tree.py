"""The index's tree: what is put into it is found, with few requests, whoever writes at the same time."""

import hashlib
import random
from dataclasses import replace

import pytest

from mfstore.backends.base import Capabilities
from mfstore.backends.memory import MemoryBackend
from mfstore.errors import AccessDenied, Conflict, CorruptObject, Unsupported
from mfstore.format import tree
from mfstore.format.fragments import MERGED, Fragment, decode_fragment, encode_fragment, fragment_key
from mfstore.format.packs import PackEntry
from mfstore.host.cache import HostCache
from mfstore.saving import folding, index
from mfstore.saving.tree import MarkedPacks, find, find_all, look_up
from tests.rigs.parts import DIGEST, listed_pack, parts


def ids_of(seed, count):
    """Chunk ids: digests."""
    return [hashlib.blake2b(f"{seed}-{number}".encode(), digest_size=32).digest() for number in range(count)]


def marks_of(seed, count):
    return {tree.mark(one, b"p" * 6) for one in ids_of(seed, count)}


@pytest.fixture
def small(monkeypatch):
    """Nodes that are full soon."""
    monkeypatch.setattr(folding, "ROOT_MARKS", 100)
    monkeypatch.setattr(folding, "NODE_LEAST", 24)
    monkeypatch.setattr(folding, "NODE_MOST", 24)
    monkeypatch.setattr(folding, "TREE_FROM", 40)
    monkeypatch.setattr(index, "CARRIED", 8)


# ---- the format ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [tree.ROOT, tree.NodeName(1, 0), tree.NodeName(1, 63), tree.NodeName(2, 0), tree.NodeName(2, 4095)]
)
def test_a_node_is_read_as_it_was_written(name):
    marks = marks_of(name, 500)
    sizes = bytes(range(256)) * 16 + bytes(64) if name == tree.ROOT else b""
    data = tree.encode_node(name, tree.divided(name, marks), 1, sizes)
    node = tree.decode_node(data, name)
    assert {mark for bucket in node.buckets for mark in bucket.split()} == marks
    assert (len(node), node.sizes) == (500, sizes)
    for number in range(tree.FANOUT):
        start, length = tree.bucket_range(number, node.code, name == tree.ROOT)
        assert tree.decode_bucket(data[start : start + length], name, number).split() == node.buckets[number].split()
        for mark in node.buckets[number].split():
            assert name.bucket(mark) == number
    assert tree.node_name(name.key) == name


@pytest.mark.parametrize("key", ["index/~", "index/~0", "index/~08", "index/~000", "index/" + "0" * 64, "index/--tree"])
def test_other_objects_are_no_nodes(key):
    assert tree.node_name(key) is None


def test_no_byte_of_a_node_can_change_unseen():
    """But for what fills its buckets, which nobody reads."""
    name = tree.NodeName(1, 7)
    buckets = tree.divided(name, marks_of(1, 70))
    data = tree.encode_node(name, buckets, 1)
    size = tree.size_of_code(tree.decode_node(data, name).code)
    for at in range(len(data)):
        number, inside = divmod(at - tree.HEADER.size, size)
        if at >= tree.HEADER.size and inside >= tree.BUCKET.size + len(buckets[number]) * tree.MARK:
            continue
        if at >= tree.HEADER.size and 4 <= inside < 8:
            continue
        wrong = bytearray(data)
        wrong[at] ^= 1
        with pytest.raises((CorruptObject, Unsupported)):
            tree.decode_node(bytes(wrong), name)
    with pytest.raises(CorruptObject):
        tree.decode_node(data, tree.NodeName(1, 8))
    with pytest.raises(CorruptObject):
        tree.decode_node(data[:-1], name)


def test_a_bucket_is_of_one_node_at_one_place():
    name = tree.NodeName(1, 7)
    data = tree.encode_node(name, tree.divided(name, marks_of(1, 70)), 1)
    start, length = tree.bucket_range(3, tree.decode_code(data, name))
    bucket = data[start : start + length]
    tree.decode_bucket(bucket, name, 3)
    for other, number in [(name, 4), (tree.NodeName(1, 8), 3), (tree.NodeName(2, 7), 3)]:
        with pytest.raises(CorruptObject):
            tree.decode_bucket(bucket, other, number)
    for cut in (0, 15, 16 + 5):
        with pytest.raises(CorruptObject):
            tree.decode_bucket(bucket[:cut], name, 3)


def test_lengths_of_buckets_have_codes():
    assert [tree.code_of_size(tree.size_of_code(code)) for code in range(1, 256)] == list(range(1, 256))
    for size in range(1, 5000):
        assert size <= tree.size_of_code(tree.code_of_size(size)) <= max(128, size * 9 // 8 + 1)


# ---- growing ----------------------------------------------------------------------------


def marks_in(backend):
    """Every mark of a tree, by level."""
    found = {}
    for info in backend.list("index/"):
        name = tree.node_name(info.key)
        if name is not None:
            node = tree.decode_node(backend.get(info.key), name)
            found.setdefault(name.level, set()).update(mark for bucket in node.buckets for mark in bucket.split())
    return found


def everything(backend):
    return set().union(*marks_in(backend).values())


def test_what_is_folded_in_is_in_the_tree_and_goes_down(small):
    backend = MemoryBackend()
    expected = set()
    for number in range(80):
        more = marks_of(number, 50)
        expected |= more
        root = folding.fold(backend, 1, more, 80)
        assert len(root) <= 2 * folding.ROOT_MARKS
        assert root == tree.decode_node(backend.get(tree.ROOT_KEY), tree.ROOT)
    levels = marks_in(backend)
    assert everything(backend) == expected
    assert sum(map(len, levels.values())) == len(expected)  # nothing lies twice
    assert len(levels[0]) <= 100
    for info in backend.list("index/"):
        name = tree.node_name(info.key)
        if name.level:
            assert root.sizes[name.size_number] == tree.decode_node(backend.get(info.key), name).code
    for mark in random.Random(1).sample(sorted(expected), 300):
        hits = look_up(root, [mark[:6] + bytes(26)], [1, 2], backend)
        assert hits or mark in levels[0]


def test_a_fold_makes_few_requests(small):
    class Counting(MemoryBackend):
        calls = 0

        def get_tagged(self, key):
            self.calls += 1
            return super().get_tagged(key)

        def put_if(self, key, data, etag):
            self.calls += 1
            return super().put_if(key, data, etag)

    backend = Counting()
    for number in range(150):
        before = backend.calls
        folding.fold(backend, 1, marks_of(number, 20), 1)
        assert backend.calls - before <= 6  # root, a node of level 1, a leaf: each read and written
    assert marks_in(backend).keys() == {0, 1, 2}


@pytest.mark.parametrize("when", range(1, 7))
def test_writers_at_the_same_moment_lose_nothing(small, when):
    """Another writer folds just before one of the requests."""

    class Interrupted(MemoryBackend):
        left = 0

        def put_if(self, key, data, etag):
            self.left -= 1
            if self.left == 0:
                folding.fold(self, 1, marks_of("other", 60), 3)
            return super().put_if(key, data, etag)

    backend = Interrupted()
    expected = set()
    for number in range(40):
        expected |= marks_of(number, 40)
        folding.fold(backend, 1, marks_of(number, 40), 3)
    backend.left = when
    root = folding.fold(backend, 1, marks_of("mine", 60), 3)
    while backend.left > 0:
        root = folding.fold(backend, 1, marks_of(f"more {backend.left}", 60), 3)
    assert root is not None
    assert everything(backend) >= expected | marks_of("mine", 60) | marks_of("other", 60)


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_writer_that_dies_leaves_all_that_was_there(small, stop):
    class Dies(MemoryBackend):
        left = 0

        def put_if(self, key, data, etag):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return super().put_if(key, data, etag)

    backend = Dies()
    expected = set()
    for number in range(60):
        expected |= marks_of(number, 40)
        folding.fold(backend, 1, marks_of(number, 40), 3)
    backend.left = stop
    with pytest.raises(KeyboardInterrupt):
        while True:
            folding.fold(backend, 1, marks_of("more", 600), 9)
    assert everything(backend) >= expected
    folding.fold(backend, 1, marks_of("more", 600), 9)
    assert everything(backend) >= expected | marks_of("more", 600)


def fragments_of(numbers):
    """Of one pack each."""
    made = []
    for number in numbers:
        entries = [PackEntry(one, 64, 9, 9, 0, 0) for one in ids_of(number, 300)]
        made.append(decode_fragment(encode_fragment([(b"p" * 32, entries)], 1), str(number)))
    return made


@pytest.mark.parametrize(("each", "levels"), [(None, {0, 1}), (1, {0, 1, 2})])
def test_many_fragments_go_below_the_root_at_once(small, each, levels):
    backend = MemoryBackend()
    before = marks_of("before", 50)
    folding.fold(backend, 1, before, 0)
    fragments = fragments_of(range(4))
    puts = []
    put_if = backend.put_if
    backend.put_if = lambda key, data, etag: puts.append(key) or put_if(key, data, etag)
    root = folding.fold_all(backend, 1, fragments, each)
    assert root == tree.decode_node(backend.get(tree.ROOT_KEY), tree.ROOT)
    assert len(puts) == len(set(puts))  # each node once
    assert len(puts) <= 1 + tree.FANOUT or each
    expected = {mark for fragment in fragments for mark in fragment.marks()}
    assert everything(backend) == expected | before
    assert marks_in(backend).keys() == levels
    for mark in random.Random(1).sample(sorted(expected), 100):
        assert look_up(root, [mark[:6] + bytes(26)], [1, 2], backend)


def test_the_marks_of_a_fragment_by_buckets():
    (fragment,) = fragments_of([1])
    parts = [set(fragment.marks_in(number)) for number in range(tree.FANOUT)]
    assert set().union(*parts) == set(fragment.marks())
    assert parts == tree.divided(tree.ROOT, fragment.marks())
    assert list(Fragment("", (), memoryview(b"")).marks_in(63)) == []


def test_who_puts_many_fragments_into_a_tree_beside_others_loses_nothing(small):
    """Another writer is faster once, and then all the time."""
    backend = MemoryBackend()
    fragments = fragments_of(range(2))
    put_if, others = backend.put_if, iter(range(100))

    def faster(key, data, etag):
        if (number := next(others, None)) is not None and (always or number == 3):
            name = tree.node_name(key)
            before = backend.get(key) if backend.exists_many([key])[0] else b""
            sizes = tree.decode_node(before, name).sizes if before and name == tree.ROOT else bytes(tree.SIZES)
            backend.put(key, [tree.encode_node(name, [[]] * tree.FANOUT, 1, sizes if name == tree.ROOT else b"")])
        return put_if(key, data, etag)

    backend.put_if = faster
    always = False
    assert folding.fold_all(backend, 1, fragments, None) is not None
    assert everything(backend) == {mark for fragment in fragments for mark in fragment.marks()}
    always = True
    assert folding.fold_all(backend, 1, fragments, None) is None


@pytest.mark.parametrize("at_once", [False, True])
def test_the_root_goes_on_telling_what_another_writer_has_made_of_a_node_meanwhile(small, at_once):
    backend = MemoryBackend()
    folding.fold(backend, 1, marks_of("before", 50), 0)
    put_if, others = backend.put_if, [True]

    def slower(key, data, etag):
        if key == tree.ROOT_KEY and others:
            others.clear()
            folding.fold_all(backend, 1, fragments_of(range(20, 80)), None)
        return put_if(key, data, etag)

    backend.put_if = slower
    if at_once:
        root = folding.fold_all(backend, 1, fragments_of([1]), None)
    else:
        root = folding.fold(backend, 1, marks_of("more", 120), 80)
    for info in backend.list("index/"):
        name = tree.node_name(info.key)
        if name != tree.ROOT:
            assert root.sizes[name.size_number] == tree.decode_code(backend.get(info.key), name)


def test_who_is_always_too_late_gives_up(small):
    class Busy(MemoryBackend):
        def put_if(self, key, data, etag):
            raise Conflict("another", key=key)

    assert folding.fold(Busy(), 1, marks_of(1, 10), 1) is None


def test_a_damaged_node_is_begun_anew(small):
    backend = MemoryBackend()
    for number in range(60):
        folding.fold(backend, 1, marks_of(number, 40), 3)
    backend.put(tree.ROOT_KEY, [b"damaged"])
    root = folding.fold(backend, 1, marks_of("new", 10), 3)
    assert {mark for bucket in root.buckets for mark in bucket.split()} == marks_of("new", 10)


def test_a_node_holds_twice_what_its_leaves_hold():
    """So that leaves have nearly everything, whatever the store's size."""
    assert folding.limit_of(bytes(tree.SIZES), 3) == folding.NODE_LEAST
    code = tree.code_of_size(16 + 40 * tree.MARK)
    sizes = bytearray(tree.SIZES)
    sizes[64 + 3 * 64 : 64 + 4 * 64] = bytes([code]) * 64
    marks = tree.size_of_code(code) * 64 // tree.MARK
    assert folding.limit_of(bytes(sizes), 3) in (2 * marks, 2 * marks + 1)
    assert folding.limit_of(bytes(sizes), 4) == folding.NODE_LEAST
    assert folding.limit_of(bytes([200]) * tree.SIZES, 3) == folding.NODE_MOST


# ---- looking up -------------------------------------------------------------------------


class Store:
    """A tree over memory, and packs that exist by their trailers alone."""

    def __init__(self):
        self.backend = MemoryBackend()
        self.trailers = {}
        self.looked = []
        self.requests = []
        inner = self.backend.get_range

        def get_range(key, start, length):
            self.requests.append((key, length))
            return inner(key, start, length)

        self.backend.get_range = get_range
        self.packs = MarkedPacks(self.backend, self.read)

    def read(self, sizes):
        self.looked += sizes
        return {name: self.trailers[name] for name in sizes}

    def add(self, ids):
        """A pack of these chunks."""
        name = DIGEST(b"".join(ids))
        self.trailers[name.hex()] = [PackEntry(one, 64 + at, 10, 20, 0, 0) for at, one in enumerate(ids)]
        self.backend.put(f"packs/{name.hex()[:2]}/{name.hex()}", [b"pack"])
        self.root = folding.fold(self.backend, 1, {tree.mark(one, name) for one in ids}, 8)
        return name

    def find(self, ids, **options):
        self.requests.clear()
        return find(self.root, ids, self.backend, self.packs, **options)


@pytest.fixture(scope="module")
def grown():
    """One with a tree of three levels, that takes two seconds to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "ROOT_MARKS", 100)
        patch.setattr(folding, "NODE_LEAST", 24)
        patch.setattr(folding, "NODE_MOST", 24)
        made = Store()
        made.names = {number: made.add(ids_of(number, 20)) for number in range(160)}
    assert marks_in(made.backend).keys() == {0, 1, 2}
    return made


@pytest.fixture
def store(grown, small):
    made = Store()
    made.backend._objects.update(grown.backend._objects)
    made.trailers, made.names, made.root = dict(grown.trailers), dict(grown.names), grown.root
    return made


def test_packs_are_looked_into_by_several_threads():
    store = Store()
    first, second, third = (store.add(ids_of(number, 20)) for number in range(3))
    beginnings = [third[: tree.HALF]]

    class Slow(dict):
        def __len__(self):
            """Meanwhile another thread looks into one."""
            if beginnings:
                store.packs.read([beginnings.pop()])
            return super().__len__()

    store.packs.read([first[: tree.HALF]])
    store.packs._recent[first[: tree.HALF]] = Slow(store.packs._recent[first[: tree.HALF]])
    store.packs.read([second[: tree.HALF]])
    assert len(store.packs.known(one for number in range(3) for one in ids_of(number, 20))) == 60


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_of_few_chunks_nearly_every_one_is_found_alone(store, count):
    found = total = 0
    for seed in range(0, 160, 3):
        ids = [ids_of(seed + at, 20)[at] for at in range(count) if seed + at < 160]
        hits = store.find(ids)
        assert len(store.requests) <= 2 * count
        for chunk_id, location in hits.items():
            assert location.pack.value in store.names.values()
            entries = store.trailers[location.pack.value.hex()]
            assert entries[location.offset - 64].id == chunk_id
        found, total = found + len(hits), total + len(ids)
    assert found >= 0.95 * total


def test_one_find_brings_what_was_stored_with_it(store):
    for seed in (3, 80, 159):
        store.packs.forget()
        ids = ids_of(seed, 20)
        assert store.find(ids).keys() == set(ids)
        assert len(store.requests) <= 16
        assert store.find(ids).keys() == set(ids)
        assert store.requests == []


def test_an_array_among_few_is_found_by_its_first_chunk(store):
    """Of more than a few chunks not each is looked for, but one of each array."""
    for seed in range(0, 120, 8):
        store.packs.forget()
        known, new = sorted(ids_of(seed, 20))[:4], ids_of(f"new {seed}", 4)
        found = store.find([*known, *new], leading={min(known), min(new)})
        assert found.keys() == set(known)
        assert len(store.requests) <= 6


def test_what_is_found_in_the_tree_needs_nothing_fresh(store):
    asked = []

    def fresh(ids):
        asked.append(set(ids))
        return {one: "fresh" for one in ids if one in new[:1]}

    known, new = sorted(ids_of(3, 20)), ids_of("new", 3)
    assert find(store.root, known, store.backend, store.packs, fresh=fresh).keys() == set(known)
    assert asked == []
    assert find(store.root, [*known, *new], store.backend, store.packs, small=new, fresh=fresh).keys() == set(known)
    assert asked == []  # for small ones nothing more is asked
    found = find(store.root, [*known, *new], store.backend, store.packs, fresh=fresh)
    assert asked == [set(new)]
    assert found.keys() == {*known, new[0]}
    assert find(store.root, new, store.backend, store.packs, small=new, fresh=fresh).keys() == {new[0]}


def test_the_level_above_the_leaves_is_asked_where_these_have_nothing(store):
    """One request for each chunk that its leaf has."""
    at_once = others = 0
    for seed in range(160):
        chunk_id = ids_of(seed, 20)[7]
        store.packs.forget()
        if store.find([chunk_id]):
            nodes = [tree.node_name(key).level for key, _ in store.requests]
            assert nodes in ([], [2], [1], [2, 1])
            at_once += nodes == [2]
            others += nodes == [2, 1]
    assert at_once > others > 0


def test_a_small_chunk_is_found_beside_others_and_not_looked_for(store):
    ids = sorted(ids_of(50, 20), key=lambda one: bool(list(store.root.buckets[tree.ROOT.bucket(one)].packs(one))))[:3]
    assert store.find(ids[:1], small=ids[:1]) == {}
    assert store.requests == []
    assert store.find(ids[:2], small=ids[:1]).keys() == set(ids[:2])


def test_what_is_new_costs_a_sample(store):
    assert store.find(ids_of("new", 320)) == {}
    assert len(store.requests) <= 2 * 20 + 22
    assert store.looked == []


def test_what_lies_in_no_pack_any_more_is_not_found(store):
    ids = ids_of(5, 20)
    name = store.names[5].hex()
    store.backend.delete(f"packs/{name[:2]}/{name}")
    assert store.find(ids) == {}
    assert find_all(store.root, ids[0], store.backend, store.packs) == []


def test_each_pack_that_has_a_chunk_is_told(store):
    chunk_id = ids_of(7, 20)[3]
    other = store.add([chunk_id, *ids_of("more", 3)])
    found = find_all(store.root, chunk_id, store.backend, store.packs)
    assert {location.pack.value for location in found} == {store.names[7], other}


def test_a_node_that_has_grown_is_found_by_its_own_header(store):
    old = store.root
    # As if it had been written with other buckets since.
    sizes = bytes(code and code + 1 for code in old.sizes)
    ids = [one for seed in range(40) for one in ids_of(seed, 1) if look_up(old, [one], [2], store.backend)]
    wrong = replace(old, sizes=sizes)
    assert look_up(wrong, ids, [2], store.backend) == look_up(old, ids, [2], store.backend)


def test_damaged_nodes_cost_deduplication_only(store):
    for info in list(store.backend.list("index/~")):
        store.backend.put(info.key, [bytes(100)])
    found = store.find([one for seed in range(50) for one in ids_of(seed, 20)])
    assert len(found) < 1000


def test_deltas_are_found_by_what_a_trailer_says(store):
    ids = ids_of(9, 20)
    name = store.names[9].hex()
    store.trailers[name] = [entry._replace(codec=3) for entry in store.trailers[name]]
    found = store.find(ids)
    assert found.keys() == set(ids)
    assert {at.codec for at in found.values()} == {3}


def test_what_is_no_delta_is_found_rather(store):
    """Whichever pack was looked into first."""
    ids = ids_of(9, 20)
    other = store.add([*ids, b"more" * 8])
    store.trailers[other.hex()] = [entry._replace(codec=3) for entry in store.trailers[other.hex()]]
    for names in ((store.names[9], other), (other, store.names[9])):
        store.packs.forget()
        for name in names:
            store.packs.read([name[:6]])
        assert {at.pack.value for at in store.packs.known(ids).values()} == {store.names[9]}


def test_marks_of_removed_packs_are_taken_out(store):
    names = [tree.node_name(info.key) for info in store.backend.list("index/")]
    gone = {store.names[number] for number in range(0, 160, 2)}
    before = everything(store.backend)
    beginnings = {name[:6] for name in gone}
    assert folding.without(store.backend, 1, names, beginnings.__contains__) > 10
    assert everything(store.backend) == {mark for mark in before if mark[6:] not in beginnings}
    assert folding.without(store.backend, 1, names, beginnings.__contains__) == 0
    store.root = tree.decode_node(store.backend.get(tree.ROOT_KEY), tree.ROOT)
    store.packs.forget()
    assert store.find(ids_of(1, 20)).keys() == set(ids_of(1, 20))
    assert store.find(ids_of(2, 20)) == {}


# ---- the index of one process --------------------------------------------------------------


def test_a_store_that_has_grown_makes_a_tree(small):
    made = parts()
    contents = [[f"{number} {part}".encode() * 9 for part in range(3)] for number in range(60)]
    for chunks in contents:
        listed_pack(made, chunks)
        made.index.compact()
    listing = [info.key for info in made.backend.list("index/")]
    assert tree.ROOT_KEY in listing
    assert len([key for key in listing if tree.node_name(key) is None]) <= 2
    for chunks in contents:
        made.index.forget()
        assert made.index.find([DIGEST(data) for data in chunks]).keys() == {DIGEST(data) for data in chunks}


class NoDeletes(MemoryBackend):
    """May write, and not remove."""

    def delete(self, key):
        raise AccessDenied("no", key=key)


class Process(MemoryBackend):
    """A process's way to what others store too; counts what it reads."""

    def __init__(self, shared):
        super().__init__()
        self.gets = []
        self.url = shared.url
        self.put, self.put_if, self.delete, self.list = shared.put, shared.put_if, shared.delete, shared.list
        self.head, self.get_range, self._get = shared.head, shared.get_range, shared.get
        self.index = index.ChunkIndex(self, DIGEST, 1, lambda sizes: {})
        self.capabilities = Capabilities(remote=True)

    def get(self, key):
        self.gets.append(key)
        return self._get(key)


def saved(shared, numbers):
    """Processes one after the other that each store a pack of three chunks; how many objects each reads before."""
    reads = []
    for number in numbers:
        process = Process(shared)
        ids = ids_of(number, 3)
        process.index.find(ids)
        reads.append(len(process.gets))
        entries = [PackEntry(chunk_id, 64 + part, 9, 9, 0, 0) for part, chunk_id in enumerate(ids)]
        key, data = process.index.make_fragment([(DIGEST(f"pack {number}".encode()), entries)])
        shared.put(key, [data])
        process.index.add(key, data)
        process.index.compact()
    return reads


@pytest.mark.parametrize("kind", [MemoryBackend, NoDeletes])
def test_many_writers_leave_little_to_read_whether_or_not_they_may_delete(small, kind):
    backend = kind()
    reads = saved(backend, range(300))
    assert max(reads[-100:]) <= 1 + index.FRESH
    assert sum(reads[-100:]) <= 2.5 * 100
    live = [info for info in backend.list("index/") if info.size > len(MERGED)]
    assert sum(tree.node_name(info.key) is None for info in live) <= 2
    assert len(everything(backend)) >= 300 * 3 - index.CARRIED
    assert sum(map(len, marks_in(backend).values())) == len(everything(backend))


@pytest.mark.parametrize("own", [2, index.FOLDED, index.FOLDED + 1])
def test_who_has_many_fragments_of_its_own_puts_few_of_others_beside_them(small, monkeypatch, own):
    monkeypatch.setattr(index, "is_folders_turn", lambda count, lot: True)
    shared = MemoryBackend()
    saved(shared, range(30))
    keys = []
    for number in range(100, 100 + own + 40):
        data = encode_fragment([(DIGEST(b"%d" % number), [PackEntry(ids_of(number, 1)[0], 64, 9, 9, 0, 0)])], 1)
        keys.append(fragment_key(DIGEST(data), 1000.0 + number))
        shared.put(keys[-1], [data])
    process = Process(shared)
    process.index.find(ids_of("new", 1))
    root = tree.decode_node(shared.get(tree.ROOT_KEY), tree.ROOT)
    fragments = tuple(decode_fragment(shared.get(key), key) for key in keys[40:])
    process.gets.clear()
    process.index._fold(index.View(fragments, tuple(keys[:40]), root))
    left = {info.key for info in shared.list("index/")} & set(keys)
    assert left == set(keys[: 40 - max(0, index.FOLDED - own)])
    assert len(set(process.gets) & set(keys)) == max(0, index.FOLDED - own)


def test_processes_of_one_host_read_the_root_and_fragments_once(small, tmp_path):
    shared = MemoryBackend()
    saved(shared, range(30))
    reads = []
    for number in range(3):
        process = Process(shared)
        process.index = index.ChunkIndex(
            process, DIGEST, 1, lambda sizes: {}, lambda: HostCache(str(tmp_path), 1 << 20)
        )
        process.index.find(ids_of(number, 1))
        reads.append(len(process.gets))
    assert reads[0] >= 2
    assert reads[1:] == [0, 0]
    saved(shared, range(30, 50))  # another root
    process = Process(shared)
    process.index = index.ChunkIndex(process, DIGEST, 1, lambda sizes: {}, lambda: HostCache(str(tmp_path), 1 << 20))
    process.index.find(ids_of(1, 1))
    assert process.gets


@pytest.mark.parametrize(("remote", "known"), [(False, False), (True, False), (True, True)])
def test_what_the_tree_has_is_found_without_a_listing_where_it_is_known(small, remote, known):
    """Near, a file that is not there costs nothing; far away the description tells."""
    shared = MemoryBackend()
    packs = {}
    told = []
    for number in range(40):
        process = Process(shared)
        ids = ids_of(number, 3)
        entries = [PackEntry(chunk_id, 64 + part, 9, 9, 0, 0) for part, chunk_id in enumerate(ids)]
        name = DIGEST(f"pack {number}".encode())
        packs[name.hex()] = entries
        shared.put(f"packs/{name.hex()[:2]}/{name.hex()}", [b"pack"])
        process.index._tell_of_tree = lambda number=number: told.append(number)
        process.index.find(ids)
        key, data = process.index.make_fragment([(name, entries)])
        shared.put(key, [data])
        process.index.add(key, data)
        process.index.compact()
        assert bool(told) == any(info.key == tree.ROOT_KEY for info in shared.list("index/"))
    assert len(told) == 1
    listed = []
    process = Process(shared)
    process.capabilities = Capabilities(remote=remote)
    process.index = index.ChunkIndex(
        process, DIGEST, 1, lambda names: {name: packs[name] for name in names}, has_tree=lambda: known
    )
    process.list = lambda prefix: listed.append(prefix) or shared.list(prefix)
    ids = ids_of(2, 3)
    assert process.index.find(ids).keys() == set(ids)
    assert sum(prefix.startswith("index/") for prefix in listed) == (remote and not known)
    assert process.gets == [tree.ROOT_KEY]
    # Whoever looks further, or adds to the index, reads the newest fragments.
    newest = process.index.find(ids_of(39, 3))
    assert newest.keys() == set(ids_of(39, 3))
    assert sum(prefix.startswith("index/") for prefix in listed) == 1
    assert len(process.gets) > 1


def test_a_tree_that_is_not_there_any_more_is_listed(small):
    """What the description says of it is a hint."""
    process = Process(MemoryBackend())
    process.index = index.ChunkIndex(process, DIGEST, 1, lambda names: {}, has_tree=lambda: True)
    ids = ids_of(1, 3)
    data = encode_fragment([(b"p" * 32, [PackEntry(one, 64, 9, 9, 0, 0) for one in ids])], 1)
    process.put(fragment_key(DIGEST(data), 1.0), [data])
    assert process.index.find(ids).keys() == set(ids)


def test_hosts_that_know_of_a_tree_read_its_root_once_and_notice_another(small, tmp_path):
    shared = MemoryBackend()
    saved(shared, range(30))

    def reads():
        process = Process(shared)
        process.index = index.ChunkIndex(
            process, DIGEST, 1, lambda names: {}, lambda: HostCache(str(tmp_path), 1 << 20), lambda: True
        )
        process.index.find(ids_of(1, 1), ids_of(1, 1))
        return process.gets.count(tree.ROOT_KEY)

    assert [reads() for _ in range(3)] == [1, 0, 0]
    saved(shared, range(30, 50))
    assert [reads() for _ in range(3)] == [1, 0, 0]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    assert [reads() for _ in range(2)] == [1, 0]
