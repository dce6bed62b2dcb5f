"""From runs to packs: in which parts, which of them have to be stored, and whose memory is read until when."""

from itertools import pairwise

import numpy as np
import pytest

from mfstore._core.codec import NONE
from mfstore.format.packs import pack_path
from mfstore.saving.context import SessionStats
from mfstore.saving.dedup import StoredChunks
from mfstore.saving.guard import Condemned
from mfstore.saving.packing import PackWriter
from mfstore.saving.pipeline import (
    INLINE_DELTAS,
    INLINE_REST,
    TASK_BYTES,
    ChunkPipeline,
    RunPart,
    plan_stores,
    plan_tasks,
)
from tests.rigs.parts import DIGEST, KIB, MIB, listed_pack, noise, parts, run_of


class Pipe:
    """A pipeline, with what it leads to."""

    def __init__(self, **options):
        self.parts = parts(**options)
        context, batch = self.parts.context, self.parts.backend.batch()
        self.written = SessionStats()
        self.stored = StoredChunks(context, batch, Condemned())
        self.packs = PackWriter(context, batch, self.stored.located, self.written)
        self.pipeline = ChunkPipeline(context, self.stored, self.packs, self.written)

    def chunk(self, chunk_id):
        """A stored chunk that lies raw."""
        at = self.stored.located[chunk_id]
        return self.parts.backend.get(pack_path(at.pack.value.hex()))[at.offset : at.offset + at.csize]


# ---- plans --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "parts"), [(1, [1]), (5, [5]), (6, [3, 3]), (8, [4, 4]), (9, [5, 4]), (10, [5, 5]), (11, [4, 4, 3])]
)
def test_a_run_is_handed_out_in_equal_parts_of_some_mebibytes(chunks, parts):
    size = TASK_BYTES // 4
    run = run_of(bytes(chunks * size), *range(size, (chunks + 1) * size, size))
    starts = np.cumsum([0, *parts]).tolist()
    expected = [(RunPart(run, one, other), (other - one) * size) for one, other in pairwise(starts)]
    assert list(plan_tasks(run)) == expected


def test_a_run_without_chunks_is_no_task():
    run = run_of(b"")
    run.ends = []
    assert list(plan_tasks(run)) == []


def test_each_chunk_is_stored_once_and_not_when_it_is_located():
    a, b, c = noise(1, 10), noise(2, 20), noise(3, 30)
    one = run_of(a + b + a + c, 10, 30, 40, 70, hashed=True)
    two = run_of(c + b, 30, 50, hashed=True)
    known = {DIGEST(b): None}
    stores, duplicate = plan_stores([RunPart(one, 0, 4), RunPart(two, 0, 2)], known)
    assert stores == [RunPart(one, 0, 1), RunPart(one, 3, 4)]
    assert duplicate == 20 + 10 + 30 + 20


def test_neighbours_are_stored_together():
    run = run_of(noise(1, 50), 10, 20, 30, 40, 50, hashed=True)
    stores, duplicate = plan_stores([RunPart(run, 1, 4)], {run.ids[0]: None})
    assert stores == [RunPart(run, 1, 4)]
    assert duplicate == 0


# ---- the pipeline -------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_flushed_lies_in_packs(threads):
    pipe = Pipe(threads=threads)
    data = [noise(seed, 5 * MIB) for seed in range(2)]
    for one in data:
        pipe.pipeline.submit(run_of(one, MIB, 3 * MIB, 5 * MIB, held=False))
    pipe.pipeline.flush()
    pipe.packs.close()
    for one in data:
        for start, end in ((0, MIB), (MIB, 3 * MIB), (3 * MIB, 5 * MIB)):
            assert pipe.chunk(DIGEST(one[start:end])) == one[start:end]
    assert pipe.written.codecs == {"raw": 10 * MIB}


def test_a_full_window_is_flushed_without_being_asked():
    pipe = Pipe(memory=8 * MIB)  # windows of 1 MiB
    pipe.pipeline.submit(run_of(noise(1, 600 * KIB)))
    assert pipe.stored.located == {}
    pipe.pipeline.submit(run_of(noise(2, 600 * KIB)))
    assert len(pipe.stored.located) == 2


def test_what_is_in_the_store_is_not_stored_again():
    pipe = Pipe()
    old, new = noise(1, 2000), noise(2, 2000)
    listed_pack(pipe.parts, [old])
    pipe.pipeline.submit(run_of(old + new, 2000, 4000))
    pipe.pipeline.flush()
    pipe.packs.close()
    assert pipe.written.duplicate == 2000
    ((_, entries),) = pipe.packs.take_closed()
    assert [entry.id for entry in entries] == [DIGEST(new)]


@pytest.mark.parametrize("length", [INLINE_REST, INLINE_REST + 1])
def test_a_little_beside_what_is_stored_lies_in_the_recipe(length):
    pipe = Pipe()
    old, new = noise(1, 2000), noise(2, length)
    listed_pack(pipe.parts, [old])
    pipe.pipeline.submit(run_of(old + new, 2000, 2000 + length))
    pipe.pipeline.flush()
    pipe.packs.close()
    inline = {chunk_id: bytes(chunk.data) for chunk_id, chunk in pipe.stored.inline.items()}
    assert inline == ({DIGEST(new): new} if length == INLINE_REST else {})
    assert bool(pipe.packs.take_closed()) == (length > INLINE_REST)


def test_a_little_beside_what_goes_to_packs_goes_there_too():
    pipe = Pipe()
    pipe.pipeline.submit(run_of(noise(1, 2000)))
    pipe.pipeline.flush()
    pipe.pipeline.submit(run_of(noise(2, 100)))
    pipe.pipeline.flush()
    assert pipe.stored.inline == {}


def test_windows_that_bring_a_little_each_do_not_all_lie_in_the_recipe():
    pipe = Pipe()
    for seed in range(20):
        pipe.pipeline.submit(run_of(noise(seed, INLINE_REST)))
        pipe.pipeline.flush()
    assert len(pipe.stored.inline) == INLINE_DELTAS // INLINE_REST


def test_a_stored_recipe_drops_the_runs_it_has():
    pipe = Pipe()
    known, new = run_of(noise(1, 2000)), run_of(noise(2, 2000))
    pipe.pipeline.submit(known)
    pipe.pipeline.submit(new)
    pipe.pipeline.hash_pending()
    assert known.ids == known.hash(DIGEST)
    pipe.pipeline.drop({id(known)})
    pipe.pipeline.flush()
    assert pipe.stored.located.keys() == set(new.ids)


@pytest.mark.parametrize("length", [2000, TASK_BYTES])
def test_lent_memory_may_change_once_it_is_copied(length):
    pipe = Pipe()
    memory = bytearray(noise(1, length))
    before = bytes(memory)
    pipe.pipeline.submit(run_of(memory, held=False))
    pipe.pipeline.copy_borrowed()
    memory[:] = bytes(length)
    pipe.pipeline.flush()
    pipe.packs.close()
    assert pipe.chunk(DIGEST(before)) == before


def test_records_of_one_length_are_tried_once_and_each_is_stored_as_it_takes_least():
    """As the nodes of a forest's trees are; unless the longest of them does not shrink, or one is something else."""
    nodes = np.zeros(3000, [("left", "<i8"), ("at", "<f8"), ("count", "<f8")])
    nodes["left"], nodes["count"] = np.arange(3000), np.random.default_rng(1).integers(0, 9, 3000)

    def records(data, itemsize=24):
        run = run_of(data)
        run.itemsize = itemsize
        return run

    like = [nodes[at:].tobytes() for at in range(5)]
    for runs, tried, raw in (
        ([*map(records, like), records(nodes[7:].tobytes(), 8)], 2, []),
        ([records(noise(1, 80_000)), records(like[0]), records(like[1])], 3, [0]),
        ([records(noise(1, 70_000)), records(like[0])], 1, [0]),
    ):
        pipe, chosen = Pipe(), []
        choose = pipe.pipeline._choose
        pipe.pipeline._choose = lambda run, choose=choose, chosen=chosen: (chosen.append(run), choose(run))
        for run in runs:
            pipe.pipeline.submit(run)
        pipe.pipeline.flush()
        assert len(chosen) == tried
        assert [at for at, run in enumerate(runs) if pipe.stored.located[run.ids[0]].codec == NONE] == raw
