"""An artifact on its way in: runs cover its stream in order, and its key is of its content alone."""

import numpy as np

from mfstore._core.chunk import CUT_MAX, CUT_MIN, LONG_ROW, cut
from mfstore.format import cuts
from mfstore.format.digests import BLAKE3
from mfstore.format.recipes import LITERAL_LIMIT, RAW
from mfstore.pickling.arrays import COPY
from mfstore.saving import drafts
from mfstore.saving.drafts import Draft, DraftSink, draft_of
from tests.rigs.parts import DIGEST, MIB, noise, run_of


def drafted(obj, name=""):
    """The draft of an object and the runs that it submitted."""
    submitted = []
    return draft_of(name, obj, submitted.append), submitted


def raw(*blocks):
    draft, submitted = Draft("", "bytes", RAW), []
    sink = DraftSink(draft, submitted.append)
    for block in blocks:
        sink.body(block)
    sink.finish()
    return draft, submitted


def hashed(draft):
    for run in draft.runs():
        run.ids = run.hash(DIGEST)
    return draft


# ---- runs ---------------------------------------------------------------------------


def test_a_run_has_the_id_of_each_chunk():
    data = noise(1, 100)
    run = run_of(data, 30, 70, 100)
    ids = [DIGEST(data[:30]), DIGEST(data[30:70]), DIGEST(data[70:])]
    assert run.hash(DIGEST) == ids
    assert run.hash(DIGEST, 1) == ids[1:]
    assert run.hash(DIGEST, 1, 2) == ids[1:2]
    run.ids = ids
    assert list(run.chunks()) == list(zip(ids, [30, 40, 30], strict=True))


def test_a_run_that_owns_its_memory_is_not_changed_by_its_lender():
    memory = bytearray(b"before")
    borrowed, held = run_of(memory, held=False), run_of(memory)
    held_view = held.view
    borrowed.own()
    held.own()
    memory[:] = b"after "
    assert bytes(borrowed.view) == b"before"
    assert borrowed.held
    assert held.view is held_view


# ---- drafts -------------------------------------------------------------------------


def test_a_small_object_is_a_literal():
    draft, submitted = drafted({"a": 1})
    assert draft.literal is not None
    assert submitted == []
    assert draft.size == len(draft.literal)
    assert draft.type == "dict"


def test_the_longest_literal_and_the_shortest_chunk():
    for length in (LITERAL_LIMIT, LITERAL_LIMIT + 1, CUT_MIN):
        draft, submitted = raw(noise(1, length))
        assert (draft.literal is not None) == (length <= LITERAL_LIMIT)
        assert [run.ends for run in submitted] == ([] if length <= LITERAL_LIMIT else [[length]])
        assert draft.size == length


def test_a_body_is_cut_the_same_however_it_came_in_blocks():
    data = noise(1, drafts.BODY_STREAM + 3 * MIB)
    whole, _ = raw(data)
    steps, submitted = raw(*(data[at : at + 300_001] for at in range(0, len(data), 300_001)))
    assert b"".join(run.view for run in submitted) == data
    assert hashed(whole).artifact().chunks == hashed(steps).artifact().chunks


def test_a_long_body_is_submitted_while_it_comes():
    draft, submitted = Draft("", "bytes", RAW), []
    sink = DraftSink(draft, submitted.append)
    sink.body(bytes(drafts.BODY_STREAM))
    assert submitted == []
    sink.body(bytes(2 * CUT_MAX))
    assert submitted


def test_a_long_body_is_encoded_in_long_runs():
    """Each has a choice of its own, and is in groups of its own."""
    data = noise(1, drafts.BODY_STREAM + 3 * drafts.BODY_PIECE)
    _, submitted = raw(*(data[at : at + MIB] for at in range(0, len(data), MIB)))
    assert b"".join(run.view for run in submitted) == data
    assert [len(run.view) // drafts.BODY_PIECE for run in submitted[:-1]] == [2, 1, 1]


def test_an_array_is_one_segment_of_the_callers_own_memory():
    array = np.arange(10 * CUT_MAX // 8, dtype="<i8")
    draft, submitted = drafted(array)
    (segment,) = draft.segments
    (run,) = segment.runs
    assert submitted[0] is run
    assert (segment.length, segment.itemsize, segment.row) == (array.nbytes, 8, 0)
    assert run.ends == cut(array.tobytes(), 8, 0, True)
    assert np.shares_memory(np.frombuffer(run.view, "<i8"), array)
    assert not run.held
    assert draft.size == array.nbytes + draft.body_length


def test_long_rows_choose_their_codecs_apart_unless_there_are_many():
    row = LONG_ROW
    for rows, runs in ((3, 3), (drafts.ROW_TRIALS, drafts.ROW_TRIALS), (drafts.ROW_TRIALS + 1, 1)):
        draft, _ = drafted(np.zeros((rows, row // 8)))
        (segment,) = draft.segments
        assert len(segment.runs) == runs
        assert sum(len(run.ends) for run in segment.runs) == rows


def test_an_array_with_gaps_is_copied_a_part_at_a_time_and_cut_as_if_it_had_none():
    wide = np.frombuffer(noise(1, 40 * MIB), np.uint8)
    for array in (
        wide.view("<i4")[::2],
        wide[::2],
        wide.reshape(-1, 640)[:, :300],
        wide.view("<f8").reshape(8, -1)[:, 100:500_000],
        wide.view([("a", "<u4"), ("b", "u1"), ("c", "V3"), ("d", "<f8")])[::2],
    ):
        assert array.nbytes > COPY
        with_gaps, _ = drafted(array)
        without, _ = drafted(array.copy())
        (one,), (two,) = with_gaps.segments, without.segments
        assert all(run.held and len(run.view) <= cuts.WINDOW for run in one.runs)
        assert not any(run.held for run in two.runs)
        assert hashed(with_gaps).artifact().chunks == hashed(without).artifact().chunks


def test_opaque_bytes_choose_a_codec_for_each_window():
    data = noise(1, 2 * cuts.WINDOW)
    draft, _ = drafted(data)
    (segment,) = draft.segments
    assert len(segment.runs) == 3
    ends = [run.at + end for run in segment.runs for end in run.ends]
    assert ends == cut(data, 1, 0, True)


def test_the_key_is_of_content_not_of_name_or_type():
    data = noise(1, 10_000)
    one, two = hashed(drafted(data, "one")[0]), hashed(drafted(data, "two")[0])
    assert one.artifact().name == "one"
    assert one.key(DIGEST, BLAKE3) == two.key(DIGEST, BLAKE3)
    assert one.key(DIGEST, BLAKE3) != hashed(drafted(data + b"!")[0]).key(DIGEST, BLAKE3)
