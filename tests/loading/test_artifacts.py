"""Byte ranges of an artifact's stream, whose segments are spliced into the middle of chunks of its body."""

import random

import pytest

from mfstore.errors import CorruptObject
from mfstore.format.recipes import PICKLE, RAW, Artifact, ChunkRef, Recipe, Segment
from mfstore.loading.artifacts import ArtifactReader, Loading, first_chunks, interleave, load_artifacts, load_many
from mfstore.loading.segments import SegmentLoader
from mfstore.saving.drafts import draft_of
from tests.rigs.parts import DIGEST, damage, noise, parts, stored_pack


def segment(at, length, chunks=1):
    return Segment(1, at, length, 1, 0, chunks)


def loading(made, verify=True, writable=True):
    return Loading(made.fetcher, SegmentLoader(made.reader, made.verified), verify, writable, None, 1 << 28)


def placed(located, *artifacts, kind=1):
    """A recipe of artifacts whose chunks are located, all in one pack."""
    placements = [located[chunk.id].placement(0) for artifact in artifacts for chunk in artifact.chunks]
    packs = tuple({at.pack.value for at in located.values()})
    return Recipe(kind, 1, b"", artifacts, packs=packs, placements=placements)


# ---- plans --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "segments", "stream"),
    [
        (0, [], []),
        (5, [], [(-1, 0, 5)]),
        (5, [segment(0, 3)], [(0, 0, 3), (-1, 0, 5)]),
        (5, [segment(5, 3)], [(-1, 0, 5), (0, 0, 3)]),
        (5, [segment(2, 3), segment(2, 4), segment(4, 1)],
         [(-1, 0, 2), (0, 0, 3), (1, 0, 4), (-1, 2, 4), (2, 0, 1), (-1, 4, 5)]),
        (0, [segment(0, 3)], [(0, 0, 3)]),
    ],
)  # fmt: skip
def test_body_and_segments_take_turns(body, segments, stream):
    assert list(interleave(body, segments)) == stream


def test_chunks_are_numbered_through_a_recipe():
    chunks = [ChunkRef(bytes(32), 1)] * 5
    artifacts = (
        Artifact("a", RAW, 2, None, (), chunks[:2]),
        Artifact("b", RAW, 1, b"b"),
        Artifact("c", RAW, 3, None, (), chunks[2:]),
    )
    assert first_chunks(Recipe(2, 1, b"", artifacts)) == {"a": 0, "b": 2, "c": 2}


# ---- ranges -------------------------------------------------------------------------


def test_every_range_is_what_the_whole_stream_has_there():
    """Two segments in the middle of one chunk of the body, two at one place, one at each end."""
    made = parts()
    random.seed(1)
    body = [noise(seed, size) for seed, size in enumerate((50, 70, 30))]
    spliced = [(0, [noise(10, 40)]), (20, [noise(11, 60), noise(12, 15)]), (20, [noise(13, 1)]), (150, [noise(14, 25)])]
    everything = [*body, *(chunk for _, chunks in spliced for chunk in chunks)]
    _, located = stored_pack(made.backend, everything)
    segments = tuple(segment(at, sum(map(len, chunks)), len(chunks)) for at, chunks in spliced)
    artifact = Artifact("", PICKLE, 150, None, segments, [ChunkRef(DIGEST(data), len(data)) for data in everything])
    stream, last = b"", 0
    for at, chunks in spliced:
        stream += b"".join(body)[last:at] + b"".join(chunks)
        last = at
    reader = ArtifactReader(loading(made), placed(located, artifact), 0)
    assert reader.size == len(stream)
    for _ in range(300):
        start = random.randint(0, len(stream))
        end = random.randint(start, len(stream))
        assert reader.read(start, end) == stream[start:end]


def test_a_range_reads_only_the_chunks_that_hold_it():
    made = parts(gap=0)
    chunks = [noise(seed, 100) for seed in range(5)]
    _, located = stored_pack(made.backend, chunks)
    artifact = Artifact("", RAW, 500, None, (), [ChunkRef(DIGEST(data), 100) for data in chunks])
    reader = ArtifactReader(loading(made), placed(located, artifact), 0)
    assert reader.read(150, 250) == chunks[1][50:] + chunks[2][:50]
    assert [(start, length) for _, start, length in made.backend.reads] == [(164, 200)]


def test_a_literal_has_ranges_too():
    reader = ArtifactReader(loading(parts()), Recipe(1, 1, b"", (Artifact("", RAW, 5, b"01234"),)), 0)
    assert (reader.size, reader.read(1, 3)) == (5, b"12")


# ---- objects ------------------------------------------------------------------------


def drafted(made, objs):
    """A recipe of objects whose chunks lie in one pack, by way of their drafts."""
    drafts = [draft_of(name, obj, lambda run: None) for name, obj in objs.items()]
    chunks = []
    for draft in drafts:
        for run in draft.runs():
            run.ids = run.hash(DIGEST)
            chunks += [bytes(run.view[start:end]) for start, end in zip([0, *run.ends], run.ends, strict=False)]
    name, located = stored_pack(made.backend, chunks)
    return name, placed(located, *(draft.artifact() for draft in drafts))


OBJS = {
    "a": list(range(1000)),
    "b": noise(1, 200_000),
    "c": 7,
    "d": bytearray(noise(2, 100_000)),
    "e": "long " * 50_000,
}


def test_objects_come_in_the_order_they_are_wanted_and_their_chunks_together():
    made = parts()
    _, recipe = drafted(made, OBJS)
    assert list(load_artifacts(loading(made), recipe, recipe.artifacts)) == list(OBJS.values())
    assert len(made.backend.reads) == 1
    by_name = {artifact.name: artifact for artifact in recipe.artifacts}
    assert list(load_artifacts(loading(made), recipe, [by_name["d"], by_name["a"]])) == [OBJS["d"], OBJS["a"]]


def test_only_small_objects_need_no_read():
    made = parts()
    _, recipe = drafted(made, {"a": 1, "b": "two"})
    made.backend.reads.clear()
    assert list(load_artifacts(loading(made), recipe, recipe.artifacts)) == [1, "two"]
    assert made.backend.reads == []


def test_of_many_recipes_the_damaged_one_alone_fails():
    made = parts()
    whole = drafted(made, OBJS)[1]
    name, broken = drafted(made, {"x": noise(3, 100_000)})
    damage(made.backend, name, 5000)
    found = list(load_many(loading(made), [(recipe, recipe.artifacts) for recipe in (whole, broken, whole)]))
    assert found[0] == found[2] == list(OBJS.values())
    assert isinstance(found[1], CorruptObject)
