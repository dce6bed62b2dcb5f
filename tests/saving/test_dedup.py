"""Which stored chunks and recipes a save may rely on."""

import pytest

from mfstore.errors import AccessDenied, NotFound
from mfstore.format import recipes
from mfstore.format.collection import ListRef, State, decode_list, encode_list
from mfstore.format.packs import pack_path
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


# ---- recipes ------------------------------------------------------------------------


def with_recipe(made, located=None):
    """Store a recipe of the chunks A and B, inline where they are not located; its key."""
    draft = Draft("", "bytes", PICKLE, 3000, None, [run_of(A + B, 1000, 3000, hashed=True)])
    codec = made.workers.thread.codec
    layout = lay_out_recipe([draft], located or {}, codec, True, SessionStats())
    content = recipes.encode_content(recipes.ONE, 1, [draft.artifact()])
    data = recipes.encode(1, content, ["bytes"], layout.packs, layout.placements, layout.inline, codec)
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
