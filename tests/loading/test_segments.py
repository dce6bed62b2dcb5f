"""The memory that segments land in: fresh, or a map of the pack itself."""

import pytest

from mfstore._core.memory import FreshText
from mfstore._core.pickler import BUFFER, BYTEARRAY, BYTES, TEXT
from mfstore.backends.local import LocalBackend
from mfstore.format.recipes import PICKLE, Artifact, ChunkRef, Recipe, Segment
from mfstore.host.workers import Workers
from mfstore.loading.pack_reader import PackReader
from mfstore.loading.segments import MAP_FROM, SegmentLoader
from mfstore.loading.verified import VerifiedRanges
from tests.rigs.parts import DIGEST, KIB, damage, noise, stored_pack


class Mapping(LocalBackend):
    """A directory that counts its maps."""

    maps = 0

    def map(self, key, start, length):
        self.maps += 1
        return super().map(key, start, length)


class Loader:
    """A loader over a directory, with a pack of raw chunks in it."""

    def __init__(self, root, chunks):
        self.backend = Mapping(str(root), fsync="none")
        self.verified = VerifiedRanges(self.backend)
        self.loader = SegmentLoader(PackReader(self.backend, Workers(1), DIGEST), self.verified)
        self.pack, self.located = stored_pack(self.backend, chunks)
        self.refs = [ChunkRef(DIGEST(data), len(data)) for data in chunks]

    def prepare(self, kind, verify=True):
        """The memory of one segment that is all of the chunks."""
        length = sum(ref.usize for ref in self.refs)
        artifact = Artifact("", PICKLE, 0, None, (Segment(kind, 0, length, 8, 0, len(self.refs)),), self.refs)
        placements = [self.located[ref.id].placement(0) for ref in self.refs]
        recipe = Recipe(1, 1, b"", (artifact,), packs=(bytes.fromhex(self.pack),), placements=placements)
        (memory,) = self.loader.prepare(recipe, artifact, 0, verify)
        return memory


LARGE = [noise(1, MAP_FROM - 100 * KIB), noise(2, 100 * KIB)]
SMALL = [noise(3, 1000), noise(4, 24)]


def fill(memory, chunks):
    for (_, _, target), data in zip(memory.wanted, chunks, strict=True):
        target[:] = data


def test_a_large_raw_buffer_is_mapped_and_wants_nothing(tmp_path):
    made = Loader(tmp_path, LARGE)
    memory = made.prepare(BUFFER)
    assert memory.wanted == ()
    assert memory.value(True) == b"".join(LARGE)
    assert made.backend.maps == 1


def test_a_map_is_private(tmp_path):
    made = Loader(tmp_path, LARGE)
    view = made.prepare(BUFFER).value(True)
    view[0] ^= 1
    assert made.prepare(BUFFER).value(True) == b"".join(LARGE)


def test_a_map_is_verified_once(tmp_path):
    made = Loader(tmp_path, LARGE)
    assert not made.verified.has(made.pack, 64, MAP_FROM, DIGEST(b"".join(ref.id for ref in made.refs)))
    made.prepare(BUFFER)
    assert made.verified.has(made.pack, 64, MAP_FROM, DIGEST(b"".join(ref.id for ref in made.refs)))


def test_a_damaged_map_is_read_instead_which_says_why(tmp_path):
    made = Loader(tmp_path, LARGE)
    damage(made.backend, made.pack, 5000)
    assert len(made.prepare(BUFFER).wanted) == 2
    assert made.prepare(BUFFER, verify=False).wanted == ()


@pytest.mark.parametrize("kind", [BYTES, TEXT, BYTEARRAY])
def test_only_buffers_are_mapped(tmp_path, kind):
    made = Loader(tmp_path, LARGE)
    assert len(made.prepare(kind).wanted) == 2
    assert made.backend.maps == 0


@pytest.mark.parametrize(("kind", "type_"), [(BUFFER, memoryview), (BYTES, bytes), (BYTEARRAY, bytearray)])
def test_small_segments_are_filled_and_become_what_they_were(tmp_path, kind, type_):
    memory = Loader(tmp_path, SMALL).prepare(kind)
    assert [number for number, _, _ in memory.wanted] == [0, 1]
    fill(memory, SMALL)
    found = memory.value(True)
    assert type(found) is type_
    assert found == b"".join(SMALL)


def test_text_may_have_lone_surrogates(tmp_path):
    text = "x" * 999 + "\udc80"
    data = text.encode("utf-8", "surrogatepass")
    memory = Loader(tmp_path, [data]).prepare(TEXT)
    fill(memory, [data])
    assert memory.value(True) == text


def test_a_buffer_is_read_only_when_that_is_asked_for(tmp_path):
    memory = Loader(tmp_path, SMALL).prepare(BUFFER)
    assert not memory.value(True).readonly
    assert memory.value(False).readonly


@pytest.mark.parametrize("text", ["a" * 100_001, "ü" * 50_000, "a" * 99_999 + "é", "\ud800" * 30_000])
def test_a_text_is_its_own_memory_if_it_is_ascii(text):
    encoded = text.encode("utf-8", "surrogatepass")
    fresh = FreshText(len(encoded))
    memoryview(fresh).cast("B")[:] = encoded
    assert fresh.value == text
    assert (fresh.value is fresh.value) == text.isascii()
