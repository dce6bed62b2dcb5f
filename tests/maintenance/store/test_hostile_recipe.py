"""A recipe of a few hundred bytes that says much costs verify and repair little."""

from mfstore import errors
from mfstore._core.codec import ZSTD, Codec
from mfstore.backends.memory import MemoryBackend
from mfstore.format import recipes
from mfstore.format.about import encode_about
from mfstore.format.digests import BLAKE3, digest_function
from mfstore.format.recipes import INLINE, Artifact, ChunkRef, Placement
from mfstore.maintenance.store.checking.chunk_check import ChunkCheck
from tests.rigs.damage import wrapped

CHUNKS, USIZE = 100_000, 16 << 20


def test_a_place_is_decoded_once_however_many_chunks_lie_there(monkeypatch):
    memory, codec, digest = MemoryBackend(), Codec(errors), digest_function(BLAKE3)
    store = wrapped(memory)
    store.put("x")
    data = bytes(USIZE)
    packed = codec.encode(data, [USIZE], ZSTD, 0, 3, 1.0)[0]
    chunk = ChunkRef(digest(data), USIZE)
    artifact = Artifact("", recipes.RAW, CHUNKS * USIZE, None, (), [chunk] * CHUNKS)
    content = recipes.encode_content(recipes.ONE, BLAKE3, [artifact])
    places = [Placement(INLINE, 0, len(packed), ZSTD, 0)] * CHUNKS
    stored = b"".join(recipes.encode(BLAKE3, content, encode_about(["bytes"]), [], places, [packed], codec))
    assert len(stored) < 20_000
    memory.put(recipes.recipe_path(digest(content).hex()), [stored])
    decoded = []
    whole = ChunkCheck.whole
    monkeypatch.setattr(ChunkCheck, "whole", lambda self, *rest: decoded.append(1) or whole(self, *rest))
    report = store.verify()
    assert report.clean and report.chunks >= CHUNKS
    assert len(decoded) < 10
