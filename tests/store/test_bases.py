"""Saves that name an older version: what is stored then, and that nothing else depends on it."""

import time
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mfstore
from mfstore._core.codec import GROUP
from mfstore.errors import InvalidKey, MfstoreError, OutOfSpace
from mfstore.format import recipes
from mfstore.format.digests import BLAKE3, digest_function
from mfstore.format.fragments import encode_fragment, fragment_key
from mfstore.format.packs import PackBuilder, decode_footer, decode_trailer, pack_path
from mfstore.format.recipes import DELTAS, recipe_path
from tests.rigs.damage import wrapped
from tests.rigs.gc import RemoteMemory
from tests.rigs.parts import KIB, noise
from tests.rigs.stored import entries_of_pack

CELLS = 1 << 16


def table(seed=1):
    return np.round(np.random.default_rng(seed).normal(100, 10, CELLS), 2)


def edited(array, seed, cells=50):
    chosen = np.random.default_rng(seed)
    changed = array.copy()
    changed[chosen.integers(0, len(array), cells)] = np.round(chosen.normal(100, 10, cells), 2)
    return changed


def deltas_of(store, key):
    """Numbers of the chunks of a key that are deltas."""
    return [number for number, at in enumerate(store.handle.recipe(key).placements) if at.codec in DELTAS]


def stored_by(store, save):
    before = store.stats().stored
    return save(), store.stats().stored - before


# ---- what is stored -----------------------------------------------------------------


def test_scattered_edits_cost_what_they_are(store):
    old = table()
    base, whole = stored_by(store, lambda: store.put(old))
    key, more = stored_by(store, lambda: store.put(edited(old, 2), base=base))
    assert more < whole / 15
    assert len(deltas_of(store, key)) > 0
    assert np.array_equal(store.get(key), edited(old, 2))


def test_what_the_base_has_is_not_stored_again_without_an_index(store):
    old = {"a": table(1), "b": table(2)}
    base = store.put(old)
    for info in list(store.backend.list("index/")):
        store.backend.delete_many([info.key])
    with mfstore.open(store.url) as other:
        _, more = stored_by(other, lambda: other.put({**old, "c": 1}, base=base))
    assert more < 3 * KIB


def test_ten_versions_of_a_table_are_ten_versions_again(store):
    version, keys, versions = table(), [], []
    sizes = []
    for number in range(10):
        base = keys[-1] if keys else None
        key, more = stored_by(store, lambda version=version, base=base: store.put(version, base=base))
        keys.append(key)
        sizes.append(more)
        versions.append(version)
        version = edited(version, number, 650)  # a cell in a hundred
    assert sum(sizes[1:]) < 2.5 * sizes[0]
    for key, version in zip(keys, versions, strict=True):
        assert np.array_equal(store.get(key), version)
        recipe = store.handle.recipe(key)
        assert all(base.codec not in DELTAS for base in recipe.bases)


def stored_over_versions(versions, based):
    """Bytes that all versions but the first take."""
    with mfstore.open(f"memory://{uuid4()}") as store:
        key = store.put(versions[0])
        first = store.stats().stored
        for version in versions[1:]:
            key = store.put(version, base=key if based else None)
        return store.stats().stored - first


def rows_dropped(chosen):
    rows = chosen.normal(size=5 * CELLS)
    for _ in range(10):
        yield rows
        rows = np.delete(rows, chosen.choice(len(rows), 50, replace=False))


def text_edited(chosen):
    words = [bytes(chosen.integers(97, 123, chosen.integers(2, 9), np.uint8)) for _ in range(3000)]
    text = [words[number] for number in chosen.integers(0, len(words), 200_000)]
    for _ in range(10):
        yield b" ".join(text)
        for _ in range(5):
            at, gone = chosen.integers(0, len(text), 2)
            text[at:at] = [words[number] for number in chosen.integers(0, len(words), 150)]
            del text[gone : gone + 140]


@pytest.mark.parametrize("changing", [rows_dropped, text_edited])
def test_what_moves_and_is_cut_anew_is_found_in_each_of_ten_versions(changing):
    versions = list(changing(np.random.default_rng(1)))
    based = stored_over_versions(versions, True)
    assert based < 0.1 * memoryview(versions[0]).nbytes
    assert based < 1.02 * stored_over_versions(versions, False) + 10_000


def test_weights_that_all_move_are_stored_as_how_they_moved(store):
    chosen = np.random.default_rng(1)
    weights = chosen.normal(0, 0.02, CELLS).astype(np.float32)
    base, whole = stored_by(store, lambda: store.put(weights))
    moved = weights * (1 + chosen.normal(0, 1e-4, CELLS).astype(np.float32))
    key, more = stored_by(store, lambda: store.put(moved, base=base))
    assert more < 0.7 * whole
    assert np.array_equal(store.get(key), moved)


def test_rows_dropped_and_cells_edited_are_found_where_they_went(store):
    old = table()
    base = store.put(old)
    new = edited(old, 3)[100:]
    key, more = stored_by(store, lambda: store.put(new, base=base))
    assert more < 60 * KIB
    assert np.array_equal(store.get(key), new)


def test_bytes_and_files_have_bases_too(store, tmp_path):
    old = bytes(noise(1, 400 * KIB))
    new = bytearray(old)
    new[100_000:100_004] = b"....."
    base = store.put_bytes(old)
    key, more = stored_by(store, lambda: store.put_bytes(bytes(new), base=base))
    assert more < 4 * KIB
    (tmp_path / "file").write_bytes(new[:-9])
    other, more = stored_by(store, lambda: store.put_file(tmp_path / "file", base=key))
    assert more < 6 * KIB
    assert store.get_bytes(key) == new
    assert store.get_bytes(other) == new[:-9]


def test_artifacts_of_a_bundle_are_compared_by_name(store):
    old = {"a": table(1), "b": table(2)}
    base = store.save(old)
    new = {"a": edited(old["a"], 3), "b": edited(old["b"], 4), "0": 1}
    key, more = stored_by(store, lambda: store.save(new, base=base))
    assert more < 20 * KIB
    loaded = store.load(key)
    assert all(np.array_equal(loaded[name], new[name]) for name in new)


# ---- what it does not change ----------------------------------------------------------


@settings(max_examples=25)
@given(
    data=st.data(),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["float64", "float32", "int16", "uint8"]),
)
def test_any_edit_comes_back_under_the_same_key(data, seed, kind):
    chosen = np.random.default_rng(seed)
    old = chosen.integers(0, 250, 40_000 * (8 // np.dtype(kind).itemsize)).astype(kind)
    with mfstore.open(f"memory://{seed}-{kind}-{data.draw(st.uuids())}") as store:
        versions, keys = [old], [store.put(old)]
        for _ in range(data.draw(st.integers(1, 3))):
            new = versions[-1].copy()
            for _ in range(data.draw(st.integers(0, 4))):
                at = data.draw(st.integers(0, len(new) - 1))
                what = data.draw(st.sampled_from(["edit", "drop", "insert", "scatter"]))
                if what == "edit":
                    new[at : at + 500] = 7
                elif what == "drop":
                    new = np.delete(new, np.s_[at : at + 300])
                elif what == "insert":
                    new = np.insert(new, at, np.arange(200, dtype=kind))
                else:
                    new[chosen.integers(0, len(new), 100)] += 1
            keys.append(store.put(new, base=keys[-1]))
            versions.append(new)
        with mfstore.open(f"memory://{data.draw(st.uuids())}", delta=False) as plain:
            for key, version in zip(keys, versions, strict=True):
                assert np.array_equal(store.get(key), version)
                assert plain.put(version) == key
        assert store.verify("full").clean


def test_one_switch_turns_it_off(root):
    old = table()
    with mfstore.open(root, delta=False) as store:
        base = store.put(old)
        key = store.put(edited(old, 2), base=base)
        assert deltas_of(store, key) == []
    with mfstore.open(root) as store:
        assert deltas_of(store, store.put(edited(old, 3), base=base))
    with mfstore.open(root, delta=False) as store:
        assert deltas_of(store, store.put(np.append(edited(old, 3), 0))) == []


def test_what_is_not_compressed_is_no_delta(root):
    with mfstore.open(root, compress=False) as store:
        base = store.put(table())
        assert deltas_of(store, store.put(edited(table(), 2), base=base)) == []
    with mfstore.open(root) as store:
        base = store.put(edited(table(), 3), base=base)
        assert deltas_of(store, base)
    with mfstore.open(root, compress=False) as store:
        assert deltas_of(store, store.put(np.append(edited(table(), 3), 0), base=base)) == []


# ---- bases that cannot be used --------------------------------------------------------


def test_the_name_of_a_ref_stands_for_its_present_value(store):
    store.refs["tables/prices"] = store.put(table())
    key = store.put(edited(table(), 2), base="tables/prices")
    assert deltas_of(store, key)


@pytest.mark.parametrize("base", ["0" * 64, "nothing/there"])
def test_a_base_that_is_not_there_is_passed_over(store, base):
    assert np.array_equal(store.get(store.put(table(), base=base)), table())


def test_a_damaged_base_is_passed_over(store):
    base = store.put(table())
    store.backend.put(recipe_path(base), [b"damaged"])
    key = store.put(edited(table(), 2), base=base)
    assert np.array_equal(store.get(key), edited(table(), 2))


@pytest.mark.parametrize("base", ["", "a//b", "a\n", 7, b"x"])
def test_what_can_be_neither_key_nor_ref_is_refused(root, base):
    for delta in (True, False):
        with mfstore.open(root, delta=delta) as store:
            with pytest.raises(InvalidKey, match="base is neither a key nor the name of a ref"):
                store.put(1, base=base)
            with pytest.raises(InvalidKey):
                store.save({}, base=base)
            with pytest.raises(InvalidKey):
                store.put_bytes(b"", base=base)


@pytest.mark.parametrize("cut", [slice(12), slice(63)])
def test_a_shortened_key_is_a_base(store, cut):
    base = store.put(table())
    assert deltas_of(store, store.put(edited(table(), 2), base=base[cut]))


def test_a_part_of_a_key_that_names_nothing_is_refused_unless_a_ref_is_called_so(store):
    base = store.put(table())
    for wrong in (base[8:], base[:12].upper(), base.upper(), base[:-1] + ("0" if base[-1] != "0" else "1") + "0"):
        with pytest.raises(InvalidKey, match="base names nothing: no ref"):
            store.put(edited(table(), 2), base=wrong)
    store.refs[base[8:]] = base
    assert deltas_of(store, store.put(edited(table(), 2), base=base[8:]))


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_base_whose_packs_are_not_whole_is_not_relied_on(root, harm):
    with mfstore.open(root) as store:
        base = store.put(table())
        for name in store.handle.recipe(base).packs:
            data = bytearray(store.backend.get(pack_path(name.hex())))
            if harm == "gone":
                store.backend.delete_many([pack_path(name.hex())])
            else:
                data[1000::1000] = bytes(len(data[1000::1000]))
                store.backend.put(pack_path(name.hex()), [bytes(data)])
    with mfstore.open(root) as store:
        key = store.put(edited(table(), 2), base=base)
        assert np.array_equal(store.get(key), edited(table(), 2))


def test_a_base_in_condemned_packs_is_not_relied_on(root):
    with mfstore.open(root) as store:
        base = store.put(table())
        old = set(store.handle.recipe(base).packs)
        store.plan_gc(live=[], grace=0).execute(yes_really=True)
    with mfstore.open(root) as store:
        assert store.handle.guard.condemned()
        key = store.put(edited(table(), 2), base=base)
        assert old.isdisjoint(store.handle.recipe(key).packs)


def test_a_collection_keeps_what_deltas_need(root):
    with mfstore.open(root) as store:
        base = store.put(table())
        key = store.put(edited(table(), 2), base=base)
        for _ in range(2):
            store.plan_gc(live=[key], grace=0).execute()
        assert not store.exists(base)
        assert np.array_equal(store.get(key), edited(table(), 2))


class FailsAtCall:
    """A backend's calls, of which the n-th fails."""

    def __init__(self, backend, number):
        self.left = number
        for name in ("get", "get_range", "read_into", "read_many", "get_many", "put", "exists_many", "list", "head"):
            setattr(backend, name, self._counted(getattr(backend, name)))

    def _counted(self, call):
        def counted(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                raise OutOfSpace("no room")
            return call(*args, **kwargs)

        return counted


def test_whichever_call_fails_the_base_and_the_next_save_are_whole(tmp_path):
    new = edited(table(), 2)
    number, done = 0, False
    while not done:
        number += 1
        root = str(tmp_path / str(number))
        with mfstore.open(root) as store:
            base = store.put(table())
        with mfstore.open(root, fsync="none") as store:
            fails = FailsAtCall(store.backend, number)
            try:
                store.put(new, base=base)
            except MfstoreError:
                pass
            done = fails.left > 0
        with mfstore.open(root) as store:
            assert np.array_equal(store.get(base), table())
            assert np.array_equal(store.get(store.put(new, base=base)), new)
    assert number > 5


# ---- without a base -------------------------------------------------------------------


def test_rows_appended_to_a_wide_table_cost_little(store):
    import pandas

    chosen = np.random.default_rng(1)
    old = pandas.DataFrame(chosen.normal(size=(80_000, 8)))
    new = pandas.concat([old, pandas.DataFrame(chosen.normal(size=(10, 8)))], ignore_index=True)
    store.put(old)
    key, more = stored_by(store, lambda: store.put(new))
    assert more < 50 * KIB
    assert store.get(key).equals(new)


def test_an_edit_is_found_between_its_neighbours(store):
    old = np.concatenate([table(seed) for seed in range(4)])
    new = old.copy()
    new[len(new) // 2] = -1
    store.put(old)
    key, more = stored_by(store, lambda: store.put(new))
    assert more < 4 * KIB
    assert deltas_of(store, key)
    assert np.array_equal(store.get(key), new)


def test_packs_list_chunks_in_the_order_in_which_they_come(store):
    """Also where some lie in a group and what lies between them does not."""
    chosen = np.random.default_rng(1)
    words = [chosen.bytes(3).hex().encode() for _ in range(900)]
    parts = []
    for _ in range(4):
        numbers = chosen.normal(size=50_000).tobytes()
        parts += [b" ".join(words[n] for n in chosen.integers(0, 900, 40_000)), numbers]
    recipe = store.handle.recipe(store.put_bytes(b"".join(parts)))
    (pack,) = recipe.packs
    data = store.backend.get(pack_path(pack.hex()))
    at, _ = decode_footer(data[-64:], len(data))
    listed = list(decode_trailer(bytes(data[at:-64]), bytes(data[-64:]), at))
    assert {entry.codec for entry in listed} > {GROUP}
    assert [entry.id for entry in listed] == [chunk.id for chunk, _ in recipes.placed_chunks(recipe)]


def four_tables():
    return np.concatenate([table(seed) for seed in range(4)])


def changed_at(array, *cells):
    array = array.copy()
    array[list(cells)] = -1
    return array


def places_of(store, key):
    """Where each chunk of a key lies, by its id."""
    recipe = store.handle.recipe(key)
    return {chunk.id: (recipe.packs[at.pack], at.offset) for chunk, at in recipes.placed_chunks(recipe)}


@pytest.fixture(params=["directory", "far away"])
def opened(request, root):
    """Opens one store as another process does."""
    if request.param == "directory":
        return lambda **options: mfstore.open(root, **options)
    backend = RemoteMemory()
    return lambda: wrapped(backend)


def test_a_delta_is_found_again_by_who_names_no_base(opened):
    """A version that grows stores what is between its old and new parts once."""
    old = four_tables()
    edits = len(old) // 2, len(old) // 3
    opened().put(old)
    store = opened()
    second = store.put(changed_at(old, edits[0]))
    third = changed_at(old, *edits)
    with opened() as other:
        key, more = stored_by(other, lambda: other.put(third))
        assert more < 4 * KIB
        assert len(deltas_of(other, key)) == 2
        before, after = places_of(store, second), places_of(other, key)
        assert all(after[one] == before[one] for one in before.keys() & after.keys())
        (number,) = deltas_of(store, second)
        assert store.handle.recipe(second).artifacts[0].chunks[number].id in after
    assert np.array_equal(opened().get(key), third)
    assert opened().verify("full").clean


def test_a_delta_whose_base_is_damaged_is_not_found(store):
    """What is saved then is stored again, and is whole. Far away a save relies on what the storage vouches for."""
    old = four_tables()
    store.put(old)
    second = changed_at(old, len(old) // 2)
    recipe = store.handle.recipe(store.put(second))
    (base,) = recipe.bases
    path = pack_path(recipe.packs[base.pack].hex())
    data = bytearray(store.backend.get(path))
    data[base.offset + base.csize // 2] ^= 1
    store.backend.put(path, [data])
    with mfstore.open(store.url) as other:
        third = np.append(second, 0)
        key = other.put(third)
        assert all(one.id != base.id for one in other.handle.recipe(key).bases)
        assert np.array_equal(other.get(key), third)


def test_a_delta_whose_pack_tells_no_base_is_stored_again(store):
    """As after a collection has moved it."""
    old = four_tables()
    store.put(old)
    second = changed_at(old, len(old) // 2)
    recipe = store.handle.recipe(store.put(second))
    (number,) = [number for number, at in enumerate(recipe.placements) if at.codec in DELTAS]
    at, chunk = recipe.placements[number], recipe.artifacts[0].chunks[number]
    delta = store.backend.get_range(pack_path(recipe.packs[at.pack].hex()), at.offset, at.csize)
    builder = PackBuilder(BLAKE3)
    builder.add(bytes(delta), [(chunk.id, at.csize, chunk.usize)], at.codec, at.width, True)
    name, parts = builder.close(digest_function(BLAKE3))
    store.backend.put(pack_path(name), parts)
    data = encode_fragment([(bytes.fromhex(name), builder.entries)], BLAKE3, True)
    store.backend.put(fragment_key(digest_function(BLAKE3)(data), time.time() + 60), [data])
    with mfstore.open(store.url) as other:
        key = other.put(np.append(second, 0))
        assert places_of(other, key)[chunk.id][0] != bytes.fromhex(name)
        assert np.array_equal(other.get(key), np.append(second, 0))


def test_ten_versions_that_grow_store_nothing_twice(root):
    """Of a text that grows by 2 %, what all versions take is little more than the last one alone does."""
    chosen = np.random.default_rng(1)
    words = [chosen.bytes(3).hex() for _ in range(900)]
    whole = " ".join(words[n] for n in chosen.integers(0, 900, 70_000)).encode()
    lengths = [len(whole) * (50 + number) // 60 for number in range(10)]
    for length in lengths:
        with mfstore.open(root) as store:
            store.put_bytes(whole[:length])
    with mfstore.open(root) as store:
        ids = [entry.id for info in store.backend.list("packs/") for entry in entries_of_pack(store.backend, info.key)]
    assert len(ids) == len(set(ids))


def test_the_layouts_of_packs_are_read_once(root, monkeypatch):
    old = np.concatenate([table(seed) for seed in range(4)])
    with mfstore.open(root) as store:
        store.put(old)
    with mfstore.open(root) as store:
        asked = []
        read_ends = store.backend.read_ends
        monkeypatch.setattr(
            store.backend,
            "read_ends",
            lambda keys, length: read_ends([asked.append(key) or key for key in keys], length),
        )
        for cell in (100, 100_000):
            new = old.copy()
            new[cell] = -1
            store.put(new)
        assert len(asked) == 1


# ---- far away -------------------------------------------------------------------------


class CountedRemote(RemoteMemory):
    """Counts the requests that read."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def get(self, key):
        self.asked.append(key)
        return super().get(key)

    def read_many(self, reads):
        return super().read_many(self.asked.append(read.key) or read for read in reads)


def test_a_base_far_away_is_its_recipe_and_what_is_compared():
    """Besides what a save without a base asks: one recipe, a trailer, and the old chunks in two rounds of a few reads."""
    backend = CountedRemote()
    old = np.concatenate([table(seed) for seed in range(4)])
    new = edited(old, 7, 400)
    base = wrapped(backend).put(old)
    assert wrapped(backend).handle.recipe(base).packs  # too large to lie in its recipe
    backend.asked.clear()
    store = wrapped(backend)
    key = store.put(new, base=base)
    assert deltas_of(store, key)
    assert backend.asked.count(recipe_path(base)) == 1
    assert sum(path.startswith("packs/") for path in backend.asked) <= 6
    assert np.array_equal(wrapped(backend).get(key), new)


def test_a_base_far_away_is_not_read_for_what_lies_in_the_recipe():
    backend = CountedRemote()
    base = wrapped(backend).put(table())
    backend.asked.clear()
    wrapped(backend).put(b"small" * 100, base=base)
    assert recipe_path(base) not in backend.asked


def test_neighbours_far_away_are_found_by_the_trailer_that_hits_need():
    backend = CountedRemote()
    old = np.concatenate([table(seed) for seed in range(4)])
    new = old.copy()
    new[len(new) // 2] = -1
    wrapped(backend).put(old)
    backend.asked.clear()
    store = wrapped(backend)
    key, more = stored_by(store, lambda: store.put(new))
    assert deltas_of(store, key)
    assert more < 4 * KIB
    assert sum(path.startswith("packs/") for path in backend.asked) <= 2  # the trailer, and the old chunk
    assert np.array_equal(wrapped(backend).get(key), new)
