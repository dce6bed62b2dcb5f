"""Damaged, hostile and unexpected stored bytes: a clear error or the right bytes, never wrong ones; then repair."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore._core.chunk import cut
from mfstore._core.codec import Codec
from mfstore._core.memory import xxh3
from mfstore.format import fragments, packs, recipes
from tests.rigs.damage import DAMAGE

NOISE = np.random.default_rng(0).random(60_000)
OBJ = {"array": NOISE, "zeros": np.zeros(90_000), "text": "x" * 5000}


def only(root, kind):
    return next(path for path in Path(root, kind).rglob("*") if path.is_file())


def check_value(value):
    np.testing.assert_array_equal(value["array"], OBJ["array"])
    np.testing.assert_array_equal(value["zeros"], OBJ["zeros"])
    assert value["text"] == OBJ["text"]


def fresh(root):
    return mfstore.open(root, fsync="none")


@pytest.mark.parametrize("kind", ["recipes", "packs"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_reported_and_repaired(root, kind, damage):
    key = fresh(root).put(OBJ)
    path = only(root, kind)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    try:
        check_value(fresh(root).get(key))
        # Only bytes no read needs may be damaged without an error.
        assert kind == "packs"
        assert damage in ("one short", "one long", "first byte", "last byte")
    except errors.CorruptObject as error:
        assert path.name in str(error)
        assert error.offset is not None
        assert error.backend is not None
    assert fresh(root).put(OBJ) == key
    check_value(fresh(root).get(key))


@pytest.mark.slow
def test_every_flip_and_cut_of_a_recipe_is_noticed(root):
    value = [1, 2.5, "text" * 300, np.arange(500)]
    key = fresh(root).put(value)
    path = only(root, "recipes")
    data = path.read_bytes()
    codec = Codec(errors)
    inline = len(recipes.decode(data, codec).inline)
    unread = 0
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 1 << (at % 8)
        path.write_bytes(bad)
        try:
            found = fresh(root).get(key)
        except (errors.CorruptObject, errors.Unsupported):
            pass
        else:
            # Some bits of what is encoded are none that are decoded.
            np.testing.assert_equal(found, value)
            assert at >= len(data) - inline
            unread += 1
        with pytest.raises((errors.CorruptObject, errors.Unsupported)):
            recipes.decode(data[:at], codec, bytes.fromhex(key))
    assert unread <= 8


def test_missing_packs_are_reported_and_repaired(root):
    key = fresh(root).put(OBJ)
    only(root, "packs").unlink()
    with pytest.raises(errors.CorruptObject, match="pack is missing"):
        fresh(root).get(key)
    assert fresh(root).put(OBJ) == key
    check_value(fresh(root).get(key))


def test_a_handle_that_wrote_it_notices_damage_too(root):
    store = fresh(root)
    key = store.put(OBJ)
    path = only(root, "packs")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert store.put(OBJ) == key
    check_value(store.get(key))


def test_a_deduplicated_chunk_that_is_damaged_is_stored_again(root):
    fresh(root).put({"array": NOISE, "n": 1})
    path = only(root, "packs")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    key = fresh(root).put({"array": NOISE, "n": 2})
    np.testing.assert_array_equal(fresh(root).get(key)["array"], NOISE)


def test_one_repair_heals_every_artifact_that_shares_the_chunk(root):
    first = fresh(root).put({"array": NOISE, "n": 1})
    second = fresh(root).put({"array": NOISE, "n": 2})
    path = max((p for p in Path(root, "packs").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.CorruptObject):
        fresh(root).get(first)
    fresh(root).put({"array": NOISE, "n": 3})
    for key in (first, second):
        with pytest.warns(RuntimeWarning, match="mfstore repair"):
            np.testing.assert_array_equal(fresh(root).get(key)["array"], NOISE)


def test_mapped_segments_are_verified(root):
    big = np.random.default_rng(0).random(400_000)
    key = fresh(root).put(big)
    path = only(root, "packs")
    data = bytearray(path.read_bytes())
    data[1_000_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.CorruptObject, match=r"chunk differs from its digest.*offset"):
        fresh(root).get(key)
    lazy = fresh(root).get(key, verify=False)
    assert (lazy != big).sum() == 1


def test_losing_the_index_loses_no_data(root):
    keys = [fresh(root).put({"array": NOISE, "n": n}) for n in range(3)]
    shutil.rmtree(Path(root, "index"))
    for key in keys:
        np.testing.assert_array_equal(fresh(root).get(key)["array"], NOISE)
    assert fresh(root).put({"array": NOISE, "n": 0}) == keys[0]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_costs_only_dedup(root, damage):
    key = fresh(root).put(OBJ)
    path = only(root, "index")
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    check_value(fresh(root).get(key))
    other = fresh(root).put({**OBJ, "more": 1})
    check_value(fresh(root).get(other))


def test_an_index_that_lies_is_not_believed(root):
    # The same ids, pointing at other places: a hit must be checked before it is trusted.
    fresh(root).put(OBJ)
    path = only(root, "index")
    fragment = fragments.decode_fragment(path.read_bytes(), "index/x")
    entries = [
        packs.PackEntry(fields[0], fields[3] + 64, fields[2], fields[4], fields[5], fields[6])
        for fields in fragments.decode_rows(fragment.entries)
    ]
    path.unlink()
    path.write_bytes(fragments.encode_fragment([(fragment.packs[0].value, entries)], 1))
    for recipe in list(Path(root, "recipes").rglob("*")):
        if recipe.is_file():
            recipe.unlink()
    key = fresh(root).put(OBJ)
    check_value(fresh(root).get(key))


def reseal(data):
    header = bytearray(data[:64])
    stored = int.from_bytes(header[32:40], "little")
    seal = xxh3(bytes(header[:56]) + xxh3(data[64 : 64 + stored]).to_bytes(8, "little"))
    return bytes(header[:56]) + seal.to_bytes(8, "little") + data[64:]


@pytest.mark.parametrize(("at", "size"), [(8, 4), (12, 4), (16, 4), (20, 4), (24, 8), (32, 8), (40, 8)])
@pytest.mark.parametrize("claim", [0, 1, 2**31, 2**32 - 1, 2**62, 2**64 - 1])
def test_oversized_claims_are_refused_before_allocation(root, at, size, claim, monkeypatch):
    key = fresh(root).put("x" * 3000)
    path = only(root, "recipes")
    data = bytearray(path.read_bytes())
    value = claim % 2 ** (8 * size)
    if int.from_bytes(data[at : at + size], "little") == value:
        pytest.skip("that is the true value")
    data[at : at + size] = value.to_bytes(size, "little")
    path.write_bytes(reseal(bytes(data)))
    with pytest.raises(errors.CorruptObject):
        fresh(root).get(key)


@pytest.mark.parametrize(("at", "value"), [(4, 2), (5, 128), (4, 255)])
def test_newer_recipes_are_refused_by_name(root, at, value):
    key = fresh(root).put("x" * 3000)
    path = only(root, "recipes")
    data = bytearray(path.read_bytes())
    data[at] = value
    path.write_bytes(reseal(bytes(data)))
    with pytest.raises(errors.Unsupported):
        fresh(root).get(key)


def test_a_recipe_under_another_key_is_refused(root):
    store = fresh(root)
    one, two = store.put("one"), store.put("two")
    shutil.copy(Path(root, recipes.recipe_path(one)), Path(root, recipes.recipe_path(two)))
    with pytest.raises(errors.CorruptObject, match="not the one its key names"):
        fresh(root).get(two)
    assert fresh(root).put("two") == two
    assert fresh(root).get(two) == "two"


@pytest.mark.usefixtures("whole_chunks")
def test_trust_is_in_chunks_not_in_places(root):
    """A recipe that places A's chunk where B's lies must not be believed because B was verified there."""
    store = fresh(root)
    one = np.random.default_rng(1).random(500_000)
    two = one.copy()
    # Other chunks of the same lengths: at its start nothing decides where one ends.
    two[[end // 8 for end in (0, *cut(one.tobytes(), 8, 0, True)[:-1])]] += 1.0
    first, second = store.put(one), store.put(two)
    lying, true = Path(root, recipes.recipe_path(first)), Path(root, recipes.recipe_path(second))
    decoded = [recipes.decode(path.read_bytes(), Codec(errors)) for path in (lying, true)]
    parts = recipes.encode(
        1, decoded[0].content, decoded[0].about, decoded[1].packs, decoded[1].placements, [], Codec(errors)
    )
    lying.unlink()
    lying.write_bytes(b"".join(parts))
    reader = fresh(root)
    np.testing.assert_array_equal(reader.get(second), two)
    with pytest.warns(RuntimeWarning, match="mfstore repair"):
        np.testing.assert_array_equal(reader.get(first), one)


def test_damage_that_restores_the_time_is_noticed(root):
    store = fresh(root)
    big = np.random.default_rng(0).random(400_000)
    key = store.put(big)
    np.testing.assert_array_equal(store.get(key), big)
    path = only(root, "packs")
    info = path.stat()
    data = bytearray(path.read_bytes())
    data[1_000_000] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    with pytest.raises(errors.CorruptObject):
        store.get(key)
    assert store.put(big) == key
    np.testing.assert_array_equal(store.get(key), big)


def test_an_index_with_nonsense_in_it_fails_no_put(root):
    fresh(root).put(OBJ)
    path = only(root, "index")
    fragment = fragments.decode_fragment(path.read_bytes(), "index/x")
    rows = list(fragments.ENTRY.iter_unpack(fragment.entries))
    for number in range(20):
        bad = [fragments.ENTRY.pack(r[0], 7, 2**32 - 1, r[3], 2**32 - 1 - number, *r[5:]) for r in rows]
        data = fragments._seal([fragment.packs[0].value], bad, 1)
        path.with_name(f"{number:064x}").write_bytes(data)
    path.unlink()
    for number in range(3):
        key = fresh(root).put({**OBJ, "n": number})
        check_value(fresh(root).get(key))


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, '{"version": 1, "history": [["' + "0" * 64 + '", 1' + "0" * 400 + "]]}"]
)
def test_a_damaged_ref_can_be_set_and_deleted(root, text):
    store = fresh(root)
    key = store.put(1)
    for repair in (lambda: store.refs.__setitem__("r", key), lambda: store.refs.__delitem__("r")):
        store.refs["r"] = key
        Path(root, "refs", "r").write_text(text)
        with pytest.raises(errors.CorruptObject):
            store.refs["r"]
        repair()
    assert "r" not in store.refs


# ---- places that are not stores -------------------------------------------------------------


def test_a_file_is_not_a_store(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(errors.NotAStore):
        mfstore.open(path)


def test_a_directory_with_other_files_is_not_a_store(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "thesis.tex").write_text("x")
    with pytest.raises(errors.NotAStore, match="not an mfstore store"):
        mfstore.open(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sub"]


def test_an_empty_directory_becomes_a_store(tmp_path):
    assert mfstore.open(tmp_path).put(1)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"format": "mfstore", "version": 2, "uuid": "", "hash": "blake3", "features": {}}', errors.Unsupported),
        ('{"format": "mfstore", "version": 1, "uuid": "", "hash": "md5", "features": {}}', errors.Unsupported),
        ('{"format": "other"}', errors.NotAStore),
        ("{}", errors.CorruptObject),
        ("", errors.CorruptObject),
        ("[1]", errors.CorruptObject),
        ("\x00\xff", errors.CorruptObject),
        ('{"format": "mfstore", "version": 1, "uuid": "", "hash": "blake3", "features": 5}', errors.CorruptObject),
    ],
)
def test_unusable_configurations(root, text, error):
    fresh(root).put(1)
    Path(root, "mfstore.json").write_text(text, encoding="latin-1")
    with pytest.raises(error):
        mfstore.open(root)


def test_features_are_checked_per_operation(root):
    key = fresh(root).put(1)
    path = Path(root, "mfstore.json")
    path.write_text(path.read_text().replace('"write": []', '"write": ["tombstones"]'))
    store = fresh(root)
    assert store.get(key) == 1
    with pytest.raises(errors.Unsupported, match="needs tombstones to write"):
        store.put(2)
    with pytest.raises(errors.Unsupported, match="needs tombstones to write"):
        store.refs["x"] = key


@pytest.mark.parametrize("url", ["", "s3x://bucket", "ftp://host/x", "file://host/x", "file://", "a\0b"])
def test_bad_urls(url):
    with pytest.raises((errors.Unsupported, errors.InvalidKey)):
        mfstore.open(url)


def test_unknown_options_are_refused(root):
    with pytest.raises(TypeError, match="region"):
        mfstore.open(root, region="eu")


@pytest.mark.parametrize("key", ["", "/x", "../" * 21 + "a", "x" * 300, None, 5, b"0" * 64])
def test_malformed_keys(store, key):
    for call in (store.get, store.load, store.stat, store.exists, store.get_bytes, store.delete, store.resolve):
        with pytest.raises(errors.InvalidKey):
            call(key)


def test_unknown_keys(store):
    store.put(1)
    for call in (store.get, store.load, store.stat, store.get_bytes):
        with pytest.raises(errors.NotFound) as caught:
            call("0" * 64)
        assert caught.value.key == "0" * 64
        assert isinstance(caught.value, KeyError)
        assert "nothing is stored" in str(caught.value)


# ---- links and other planted things -----------------------------------------------------------


def test_planted_links_are_refused(root, tmp_path):
    store = fresh(root)
    key = store.put(OBJ)
    outside = tmp_path / "outside"
    outside.mkdir()
    for kind in ("recipes", "packs"):
        path = only(root, kind)
        target = outside / kind
        shutil.move(path, target)
        path.symlink_to(target)
        with pytest.raises(errors.CorruptObject):
            fresh(root).get(key)
        path.unlink()
        shutil.move(target, path)
    check_value(fresh(root).get(key))


def test_writes_do_not_follow_planted_directories(root, tmp_path):
    fresh(root).put(1)
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(Path(root, "recipes"))
    Path(root, "recipes").symlink_to(outside)
    with pytest.raises(errors.CorruptObject, match="links are refused"):
        fresh(root).put("another")
    assert list(outside.iterdir()) == []


def test_planted_fifo_does_not_hang(root):
    key = fresh(root).put(OBJ)
    path = only(root, "recipes")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(errors.CorruptObject, match="not a regular file"):
        fresh(root).get(key)


def test_planted_directory(root):
    key = fresh(root).put(OBJ)
    path = only(root, "packs")
    path.unlink()
    path.mkdir()
    with pytest.raises(errors.CorruptObject):
        fresh(root).get(key)


# ---- no permission ------------------------------------------------------------------------------


def as_nobody(root, work):
    """Run ``work`` in a forked child without root's rights; returns what it returned, as text."""
    for parent in Path(root).parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:  # of the directories that pytest makes for its own user, however deep
            parent.chmod(mode | 0o055)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            text = repr(work())
        except BaseException as error:
            text = f"failed: {type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


def raised(call, *args):
    try:
        call(*args)
    except errors.MfstoreError as error:
        return type(error).__name__
    return "nothing"


def test_permission_denied_is_not_absent(root):
    key = fresh(root).put(OBJ)
    path = only(root, "recipes")
    path.parent.chmod(0o000)
    try:
        store = fresh(root)
        calls = (store.get, store.exists, store.stat)
        assert as_nobody(root, lambda: {raised(call, key) for call in calls}) == "{'AccessDenied'}"
    finally:
        path.parent.chmod(0o755)


def test_a_read_only_store_can_be_read(root):
    key = fresh(root).put(OBJ)
    everything = [Path(root), *Path(root).rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)

    def work():
        store = fresh(root)
        return raised(store.put, "new"), len(store.get(key)["text"]), store.exists(key), dict(store.refs)

    try:
        assert as_nobody(root, work) == "('AccessDenied', 5000, True, {})"
    finally:
        for path in everything:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_umask_is_respected(root, mask):
    before = os.umask(mask)
    try:
        fresh(root).put(OBJ)
    finally:
        os.umask(before)
    for path in Path(root).rglob("*"):
        expected = (0o777 if path.is_dir() else 0o666) & ~mask
        assert path.stat().st_mode & 0o777 == expected, path


@pytest.mark.parametrize("size", [(1 << 33) + 1, 1 << 43])
def test_a_record_that_claims_to_be_huge_is_damage(root, size):
    """A file with a hole takes no room, and is read by nobody."""
    store = fresh(root)
    key = store.put([1])
    store.refs["name"] = key
    os.truncate(Path(root, "recipes", key[:2], key), size)
    os.truncate(Path(root, "refs", "name"), size)
    for ask in (lambda: store.get(key), lambda: store.refs["name"]):
        with pytest.raises(errors.CorruptObject, match="larger than any record"):
            ask()
    assert f"recipes/{key[:2]}/{key}" in str(store.verify("headers").findings)
    assert store.put([1]) == key
    assert store.get(key) == [1]


@pytest.mark.parametrize("size", [(1 << 20) + 1, 1 << 33, 1 << 43])
def test_a_ref_that_claims_to_be_huge_can_be_set_anew(root, size):
    """Of it its beginning is kept, which is more than any ref has."""
    store = fresh(root)
    key = store.put([1])
    store.refs["name"] = key
    before = Path(root, "refs", "name").read_bytes()
    os.truncate(Path(root, "refs", "name"), size)
    with pytest.raises(errors.CorruptObject, match="larger than any record"):
        store.refs["name"]
    store.refs["name"] = key
    assert store.refs["name"] == key and [entry.key for entry in store.refs.history("name")] == [key]
    (kept,) = Path(root, "quarantine").rglob("name*")
    assert kept.read_bytes() == before + bytes((1 << 20) - len(before))


def test_no_memory_for_an_object_is_told_as_such(root):
    store = fresh(root)
    store.backend.put("packs/ab/hole", [])
    os.truncate(Path(root, "packs", "ab", "hole"), 1 << 43)
    for ask in (
        lambda: store.backend.get("packs/ab/hole"),
        lambda: store.backend.get_range("packs/ab/hole", 1, 1 << 42),
    ):
        with pytest.raises(errors.BackendError, match="no memory"):
            ask()
