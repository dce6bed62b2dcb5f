"""Which stored chunks and recipes a save may rely on."""

import pytest

from mfstore._core.codec import CHUNK_LIMIT, PREFIX, ZSTD
from mfstore.errors import AccessDenied, NotFound
from mfstore.format import recipes
from mfstore.format.about import encode_about
from mfstore.format.collection import ListRef, State, decode_list, encode_list
from mfstore.format.digests import BLAKE3
from mfstore.format.packs import PackBuilder, PackPiece, pack_path
from mfstore.format.recipes import PICKLE, recipe_path
from mfstore.saving.context import SessionStats
from mfstore.saving.dedup import StoredChunks
from mfstore.saving.drafts import Draft
from mfstore.saving.guard import Condemned
from mfstore.saving.ingest import lay_out_recipe
from tests.rigs.parts import DIGEST, damage, listed_pack, noise, parts, run_of


class Ensured:
    """A batch that only notes what a save relies on."""

    def __init__(self):
        self.keys = []

    def ensure(self, keys):
        self.keys += keys


def condemned(recipes_there=(), packs=()):
    listed = decode_list(encode_list(dict.fromkeys(recipes_there, 1), dict.fromkeys(packs, 1)), "list")
    return Condemned(State(1, lists=(ListRef("list", 0.0, len(recipes_there), len(packs), 0),)), (listed,))


def stored(made, view=None, batch=None):
    return StoredChunks(made.context, batch or Ensured(), view or Condemned())


A, B = noise(1, 1000), noise(2, 2000)


def test_a_chunk_that_is_stored_is_located_and_its_pack_relied_on():
    made = parts()
    name, located = listed_pack(made, [A, B])
    batch = Ensured()
    chunks = stored(made, batch=batch)
    chunks.look_up([DIGEST(A), DIGEST(b"new")])
    assert chunks.located == {DIGEST(A): located[DIGEST(A)]}
    assert chunks.relied.packs == bytes.fromhex(name)
    assert batch.keys == [pack_path(name)]


def test_what_is_located_is_not_asked_for_again():
    made = parts()
    listed_pack(made, [A])
    chunks = stored(made)
    chunks.look_up([DIGEST(A)])
    made.backend.reads.clear()
    made.verified.clear()
    chunks.look_up([DIGEST(A)])
    assert made.backend.reads == []


@pytest.mark.parametrize("damaged", [0, 1])
def test_a_damaged_chunk_is_found_in_another_pack(damaged):
    """Whichever of the two the index names first."""
    made = parts()
    packs = [listed_pack(made, [A]), listed_pack(made, [B, A])]
    name, located = packs[damaged]
    damage(made.backend, name, located[DIGEST(A)].offset)
    chunks = stored(made)
    chunks.look_up([DIGEST(A)])
    assert chunks.located == {DIGEST(A): packs[1 - damaged][1][DIGEST(A)]}


def test_a_chunk_that_is_damaged_everywhere_is_a_miss():
    made = parts()
    name, located = listed_pack(made, [A])
    damage(made.backend, name, located[DIGEST(A)].offset)
    chunks = stored(made)
    chunks.look_up([DIGEST(A)])
    assert chunks.located == {}
    assert chunks.relied.packs == b""


def test_a_condemned_pack_is_not_relied_on():
    made = parts()
    name, _ = listed_pack(made, [A])
    view = condemned(packs=[bytes.fromhex(name)])
    chunks = stored(made, view)
    chunks.look_up([DIGEST(A)])
    assert chunks.located == {}
    copy, _ = listed_pack(made, [B, A])
    chunks = stored(made, view)
    chunks.look_up([DIGEST(A)])
    assert chunks.located[DIGEST(A)].pack.value.hex() == copy


def test_a_copy_in_a_condemned_pack_does_not_make_up_for_damage():
    made = parts()
    going, _ = listed_pack(made, [A])
    name, located = listed_pack(made, [B, A])
    damage(made.backend, name, located[DIGEST(A)].offset)
    chunks = stored(made, condemned(packs=[bytes.fromhex(going)]))
    chunks.look_up([DIGEST(A)])
    assert chunks.located == {}


# ---- deltas that trailers tell --------------------------------------------------------


def told_delta(made, bases, data, told=True):
    """Store these base chunks, whole, and a pack with ``data`` as a delta against the first bytes of each, as its trailer
    tells, unless it is not ``told``; the name of that pack."""
    codec = made.workers.thread.codec
    builder = PackBuilder(BLAKE3)
    for base in bases:
        encoded, _ = codec.encode(base, [len(base)], ZSTD, 0, 1, 1.0)
        builder.add(bytes(encoded), [(DIGEST(base), len(encoded), len(base))], ZSTD, 0, True)
    packs = [builder]
    encoded = codec.encode_delta(data, b"".join([base[:1000] for base in bases]), PREFIX, 0, 3)
    builder = PackBuilder(BLAKE3)
    if told:
        builder.pieces[builder.length] = tuple(PackPiece(DIGEST(base), 0, 1000) for base in bases)
    builder.add(bytes(encoded), [(DIGEST(data), len(encoded), len(data))], PREFIX, 0, True)
    packs.append(builder)
    for one in packs:
        name, stored_parts = one.close(DIGEST)
        made.backend.put(pack_path(name), stored_parts)
        key, fragment = made.index.make_fragment([(one.name.value, one.entries)])
        made.backend.put(key, [fragment])
    made.index.forget()
    return name


ONES, TWOS = bytes([1]) * 2000, bytes([2]) * 2000
LIKE = bytes([1]) * 1000 + bytes([2]) * 1000 + b"!"


def test_a_delta_is_located_by_its_trailer_with_what_it_is_against():
    made = parts()
    told_delta(made, [ONES, TWOS], LIKE)
    chunks = stored(made)
    chunks.look_up([DIGEST(LIKE)])
    assert chunks.located.keys() == chunks.pieces.keys() == {DIGEST(LIKE)}
    assert [(piece.id, piece.start, piece.length) for piece in chunks.pieces[DIGEST(LIKE)]] == [
        (DIGEST(ONES), 0, 1000), (DIGEST(TWOS), 0, 1000),
    ]  # fmt: skip


def test_a_delta_in_a_pack_that_may_not_be_read_is_stored_again(monkeypatch):
    """As any other chunk there."""
    made = parts()
    path = pack_path(told_delta(made, [ONES], LIKE))
    get_range = made.backend.get_range

    def refuse(key, *place):
        if key == path:
            raise AccessDenied("no", key=key)
        return get_range(key, *place)

    monkeypatch.setattr(made.backend, "get_range", refuse)
    chunks = stored(made)
    chunks.look_up([DIGEST(LIKE)])
    assert chunks.located == {}
    monkeypatch.setattr(made.backend, "head", lambda key: (_ for _ in ()).throw(AccessDenied("no", key=key)))
    chunks.look_up([DIGEST(LIKE)])
    assert chunks.located == {}


@pytest.mark.parametrize("told", [True, False])
def test_a_pack_that_is_looked_into_has_no_delta_whose_base_is_known_to_recipes_alone(told):
    """Who finds it there looks no further, and a copy elsewhere may be of use."""
    made = parts()
    name = told_delta(made, [ONES], LIKE, told)
    size = made.backend.head(pack_path(name)).size
    (found,) = made.context.reliance.trailers({name: size}).values()
    assert [entry.id for entry in found] == [DIGEST(LIKE)] * told


@pytest.mark.parametrize("chunks_of_a_base", [4, 5])
def test_a_delta_is_not_relied_on_if_no_recipe_could_say_what_it_is_against(chunks_of_a_base):
    made = parts()
    bases = [bytes([number]) * CHUNK_LIMIT for number in range(chunks_of_a_base)]
    told_delta(made, bases, A)
    chunks = stored(made)
    chunks.look_up([DIGEST(A)])
    assert (DIGEST(A) in chunks.located) == (chunks_of_a_base * CHUNK_LIMIT <= recipes.BASE_LIMIT)


# ---- recipes ------------------------------------------------------------------------


def with_recipe(made, located=None):
    """Store a recipe of the chunks A and B, inline where they are not located; its key."""
    draft = Draft("", "bytes", PICKLE, 3000, None, [run_of(A + B, 1000, 3000, hashed=True)])
    codec = made.workers.thread.codec
    layout = lay_out_recipe([draft], located or {}, codec, True, SessionStats())
    content = recipes.encode_content(recipes.ONE, 1, [draft.artifact()])
    data = recipes.encode(1, content, encode_about(["bytes"]), layout.packs, layout.placements, layout.inline, codec)
    made.backend.put(recipe_path(DIGEST(content).hex()), data)
    return DIGEST(content)


def test_a_whole_recipe_is_relied_on_with_its_packs():
    made = parts()
    name, located = listed_pack(made, [A, B])
    key = with_recipe(made, located)
    batch = Ensured()
    chunks = stored(made, batch=batch)
    assert chunks.has_recipe(key, True)
    assert chunks.relied.recipes == key
    assert chunks.relied.packs == bytes.fromhex(name)
    assert set(batch.keys) == {recipe_path(key.hex()), pack_path(name)}


def test_what_was_read_already_is_not_read_again():
    made = parts()
    key = with_recipe(made)
    data = made.backend.get(recipe_path(key.hex()))
    made.backend.delete(recipe_path(key.hex()))
    assert stored(made).has_recipe(key, data)
    assert not stored(made).has_recipe(key, True)


@pytest.mark.parametrize("found", [True, NotFound("no such object")])
def test_a_recipe_that_is_not_there(found):
    made = parts()
    chunks = stored(made)
    assert not chunks.has_recipe(DIGEST(A), found)
    assert chunks.relied.recipes == b""


def test_a_refusal_is_never_absent():
    with pytest.raises(AccessDenied):
        stored(parts()).has_recipe(DIGEST(A), AccessDenied("no"))


def test_a_recipe_with_a_damaged_chunk_is_stored_again():
    made = parts()
    name, located = listed_pack(made, [A, B])
    key = with_recipe(made, located)
    damage(made.backend, name, located[DIGEST(B)].offset)
    assert not stored(made).has_recipe(key, True)


def test_a_recipe_with_a_damaged_inline_chunk_is_stored_again():
    made = parts()
    key = with_recipe(made)
    path = recipe_path(key.hex())
    data = bytearray(made.backend.get(path))
    data[-1] ^= 1
    made.backend.put(path, [data])
    assert not stored(made).has_recipe(key, True)


def test_a_condemned_recipe_or_one_in_a_condemned_pack_is_stored_again():
    made = parts()
    name, located = listed_pack(made, [A, B])
    key = with_recipe(made, located)
    assert not stored(made, condemned(recipes_there=[key])).has_recipe(key, True)
    assert not stored(made, condemned(packs=[bytes.fromhex(name)])).has_recipe(key, True)
    assert stored(made, condemned(packs=[bytes(32)])).has_recipe(key, True)
