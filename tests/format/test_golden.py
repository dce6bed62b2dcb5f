"""Stores written by every release are read for ever, and what they hold still has the same keys and bytes."""

import json
import shutil

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore._core.codec import DELTAS, GROUP, Codec, delta_seal_is_right
from mfstore.format import packs, recipes
from mfstore.format.about import encode_about
from mfstore.format.digests import digest_function
from mfstore.format.tree import node_name
from tests import ROOT
from tests.golden.write import directory, noted, objects, versions, write
from tests.rigs.deltas import recipe_of

HERE = ROOT / "tests" / "golden"
STORES = sorted(HERE.glob("store-*"))


def same(one, two):
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and one.flags.f_contiguous == two.flags.f_contiguous and np.array_equal(one, two)
    return type(one) is type(two) and one == two


def read_versions(store, keys):
    for name, (old, new) in versions().items():
        read = store.load if isinstance(old, dict) else store.get
        for kind, obj in (("older", old), ("delta", new)):
            found = read(keys[f"({kind}) {name}"], verify=True)
            pairs = [(found[one], obj[one]) for one in obj] if isinstance(obj, dict) else [(found, obj)]
            assert all(same(*pair) for pair in pairs), name


def test_the_writer_makes_deltas_of_both_codecs_groups_and_a_tree(tmp_path):
    """So that the store of the next release has them: groups in packs and in recipes, bases in groups, and a tree of all
    levels."""
    keys = write(tmp_path / "store")
    store = mfstore.open(tmp_path / "store")
    made, inline, parts, grouped, bases = {}, set(), set(), set(), set()
    for name in versions():
        recipe = recipe_of(store.backend, keys[f"(delta) {name}"])
        deltas = [place for place in recipe.placements if place.pieces]
        made[name] = {place.codec for place in deltas}
        inline |= {name for place in deltas if place.pack == recipes.INLINE}
        parts |= {len(place.pieces) for place in deltas}
        grouped |= {place.pack == recipes.INLINE for place in recipe.placements if place.codec == GROUP}
        bases |= {base.codec for base in recipe.bases}
    assert [name for name, codecs in made.items() if not codecs] == ["notes"]
    assert inline == {"in the recipe"} and max(parts) > 1
    nodes = [node_name(info.key) for info in store.backend.list("index/")]
    assert {node.level for node in nodes if node is not None} == {0, 1, 2}
    assert set.union(*made.values()) == set(DELTAS)
    assert grouped == {False, True} and GROUP in bases
    read_versions(store, keys)


def test_there_are_golden_stores():
    assert STORES


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.name)
def test_golden_stores_are_read(path, tmp_path):
    keys = json.loads((HERE / f"{path.name.replace('store', 'keys')}.json").read_text())
    store = mfstore.open(path)
    for name, obj in objects().items():
        assert same(store.get(keys[name]), obj), name
    bundle = store.load(store.refs["golden/bundle"])
    assert all(same(bundle[name], obj) for name, obj in objects().items())
    assert store.get_bytes(keys["(bytes)"]) == b"raw bytes " * 20_000
    assert store.refs["golden/bundle"] == keys["(bundle)"]
    assert set(store.keys()) == set(keys.values())
    if path.name in ("store-0.1.0", "store-0.2.0.dev0"):  # which recorded nothing
        stat = store.stat("golden/bundle")
        assert (stat.note, stat.created, stat.creator, stat.libraries) == (None, None, "", {})
        assert [found.note for found in store.find("golden/")] == [None]
    if "(delta) edited" in keys:
        read_versions(store, keys)
    if "(noted)" in keys:
        read_noted(store, keys["(noted)"])
    if "(tree)" in keys:
        read_tree(store, keys["(tree)"], tmp_path)


def read_tree(store, key, scratch):
    scratch.mkdir(exist_ok=True)
    source, to = directory(scratch / "source"), scratch / "to"
    store.get_tree(key, to)
    names = [sorted(str(path.relative_to(top)) for path in top.rglob("*")) for top in (source, to)]
    assert names[0] == names[1]
    for path in source.rglob("*"):
        other = to / path.relative_to(source)
        assert (path.lstat().st_mode, path.lstat().st_mtime_ns) == (other.lstat().st_mode, other.lstat().st_mtime_ns)
        assert not path.is_file() or path.read_bytes() == other.read_bytes()


def read_noted(store, key):
    obj, note = noted()
    stat, (entry,) = store.stat(key), store.refs.log("golden/noted")
    assert stat.note == note and entry.note == {**note, "auc": 0.75} and entry.key == key
    assert (stat.creator, list(stat.libraries)) == ("golden@example", ["numpy"])
    assert stat.mfstore in store.url and stat.created > 0
    body, *segment = [at.pack == recipes.INLINE for at in store.handle.recipe(key).placements]
    assert body and not any(segment)
    assert same(store.get(key)["column"], obj["column"])
    assert same(store.view(key)["column"][3:5], obj["column"][3:5])


def test_golden_keys_still_name_the_same_content(tmp_path):
    """If this fails, what users stored is stored again under other keys, and their references by key break. They are
    not those of 0.1.0, which cut at other places and was not released."""
    keys = json.loads((HERE / "keys.json").read_text())
    store = mfstore.open(tmp_path / "new")
    for name, obj in objects().items():
        assert store.put(obj) == keys[name], name
    assert store.save(objects()) == keys["(bundle)"]
    assert store.put_bytes(b"raw bytes " * 20_000) == keys["(bytes)"]
    assert store.put_tree(directory(tmp_path / "source")) == keys["(tree)"]
    read_tree(store, keys["(tree)"], tmp_path / "again")


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.name)
def test_golden_stores_take_new_artifacts(path, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    store = mfstore.open(copy)
    old = dict(store.load(store.refs["golden/bundle"]))
    store.save(objects())
    before = store.stats().stored
    key = store.save({**objects(), "new": 1})
    assert store.stats().stored - before < 5000
    assert store.load(key)["new"] == 1
    assert all(same(store.load(store.refs["golden/bundle"])[name], obj) for name, obj in old.items())


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.name)
def test_packs_describe_themselves(path):
    """Each chunk of each golden pack, found through the pack's own trailer alone."""
    digest, codec = digest_function(1), Codec(errors)
    for pack in (path / "packs").rglob("*"):
        if not pack.is_file():
            continue
        data = pack.read_bytes()
        at, count = packs.decode_footer(data[-packs.FOOTER.size :], len(data))
        trailer = data[at : -packs.FOOTER.size]
        assert digest(trailer).hex() == pack.name
        entries = list(packs.decode_trailer(trailer, data[-packs.FOOTER.size :], at))
        assert len(entries) == count
        for entry in entries:
            if entry.codec in DELTAS:
                assert delta_seal_is_right(data[entry.offset : entry.offset + entry.csize])
                continue
            out = bytearray(entry.usize)
            codec.decode(data, out, [(entry.offset, entry.csize, entry.codec, entry.width, 0, entry.usize)])
            assert digest(out) == entry.id


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.name)
def test_an_artifact_is_readable_with_the_format_page_alone(path):
    """A reader written from docs/format.md with struct, zlib-free codecs and pickle: no mfstore code but the codecs."""
    import pickle
    import struct

    keys = json.loads((HERE / f"{path.name.replace('store', 'keys')}.json").read_text())
    codec = Codec(errors)

    def decode(data, number, width, size):
        out = bytearray(size)
        codec.decode(data, out, [(0, len(data), number, width, 0, size)])
        return bytes(out)

    for name, obj in objects().items():
        recipe = (path / "recipes" / keys[name][:2] / keys[name]).read_bytes()
        content_length, about, n_packs, n_places = struct.unpack_from("<4I", recipe, 8)
        inline_length, stored, size = struct.unpack_from("<3Q", recipe, 24)
        tables = decode(recipe[64 : 64 + stored], 2, 0, size) if recipe[5] & 1 else recipe[64 : 64 + stored]
        inline = recipe[64 + stored :]
        assert len(inline) == inline_length
        at = content_length + about
        names = [tables[at + 32 * n : at + 32 * n + 32].hex() for n in range(n_packs)]
        at += 32 * n_packs
        places = [struct.unpack_from("<IBBHQII", tables, at + 24 * n) for n in range(n_places)]
        _, encoding, flags, n_segments, n_chunks, body_length = struct.unpack_from("<HBBIIQ", tables, 12)
        at = 32
        assert encoding == 1
        if flags & 1:
            assert same(pickle.loads(tables[at : at + body_length]), obj)
            continue
        segments = [struct.unpack_from("<QQQIBBH", tables, at + 32 * n) for n in range(n_segments)]
        at += 32 * n_segments
        sizes = [struct.unpack_from("<32sI", tables, at + 36 * n)[1] for n in range(n_chunks)]
        chunks = []
        for (pack, number, width, _, offset, length, start), usize in zip(places, sizes, strict=True):
            source = inline if pack == 0xFFFFFFFF else (path / "packs" / names[pack][:2] / names[pack]).read_bytes()
            chunks.append(decode(source[offset : offset + length], number, start if number == GROUP else width, usize))
        count = n_chunks - sum(segment[3] for segment in segments)
        body, position, stream, last = b"".join(chunks[:count]), count, [], 0
        for splice, _, _, many, *_ in segments:
            stream += [body[last:splice], *chunks[position : position + many]]
            position, last = position + many, splice
        joined = b"".join([*stream, body[last:]])
        assert same(pickle.loads(joined), obj), name


def test_golden_encodings():
    """Bytes written once by each codec decode to the same data for ever."""
    for path in sorted((HERE / "encodings").glob("*.bin")):
        number, width, size = map(int, path.stem.split("-"))
        data = path.read_bytes()
        out = bytearray(size)
        Codec(errors).decode(data, out, [(0, len(data), number, width, 0, size)])
        expected = b"".join((n * n).to_bytes(8, "little") for n in range(size // 8 + 1))[:size]
        assert bytes(out) == expected
    assert len(list((HERE / "encodings").glob("*.bin"))) == 12


def test_recipe_bytes_are_stable():
    """Header and tables of a fixed recipe, byte for byte: what older readers will find."""
    content = recipes.encode_content(recipes.ONE, 1, [recipes.Artifact("", 1, 4, b"\x80\x05N.")])
    assert content.hex() == "4d465343010100000100000000000101000000000000000004000000000000008005" + "4e2e"
    parts = recipes.encode(1, content, encode_about(["NoneType"]), [], [], [], Codec(errors))
    assert len(b"".join(parts)) == 64 + len(content) + len('{"types":["NoneType"]}')
