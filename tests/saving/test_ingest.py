"""What lies in a recipe and what goes on to packs, and where a recipe says that its chunks lie."""

from mfstore.format import recipes
from mfstore.format.about import encode_about
from mfstore.format.fragments import Location
from mfstore.format.packs import PackName
from mfstore.format.recipes import INLINE, INLINE_LIMIT, PICKLE, Placement
from mfstore.saving import ingest
from mfstore.saving.context import SessionStats
from mfstore.saving.drafts import Draft, Stream
from mfstore.saving.ingest import InlineTrial, SmallArtifact, lay_out_recipe
from tests.rigs.parts import DIGEST, KIB, MIB, noise, parts, run_of


def draft_with(*runs, literal=None):
    length = sum(len(run.view) for run in runs) if literal is None else len(literal)
    return Draft("", "bytes", PICKLE, length, literal, list(runs))


# ---- small artifacts ----------------------------------------------------------------


def test_a_small_artifact_waits_to_its_end():
    submitted = []
    small = SmallArtifact(submitted.append)
    runs = [run_of(noise(seed, INLINE_LIMIT // 2)) for seed in range(2)]
    for run in runs:
        small.take(run)
    assert submitted == []
    assert small.runs == runs


def test_one_byte_more_and_all_of_it_is_submitted_in_order():
    submitted = []
    small = SmallArtifact(submitted.append)
    runs = [run_of(noise(0, INLINE_LIMIT)), run_of(b"!"), run_of(b"?")]
    for run in runs:
        small.take(run)
    assert submitted == runs
    assert small.runs == []


# ---- trials -------------------------------------------------------------------------


def trial(inline=256 * KIB):
    submitted = []
    return InlineTrial(parts(inline=inline).context, submitted.append), submitted


def test_what_is_small_enough_encoded_lies_in_the_recipe():
    tried, submitted = trial()
    run = run_of(bytes(MIB), 512 * KIB, MIB)  # zeros: a few bytes encoded
    tried.take(run)
    tried.finish()
    assert submitted == []
    assert run.ids == run.hash(DIGEST)
    assert len(run.inline) == 2
    assert sum(len(chunk.data) for chunk in run.inline) < 256 * KIB


def test_what_lies_in_the_recipe_is_a_copy():
    tried, _ = trial()
    memory = bytearray(noise(1, KIB))
    run = run_of(memory, held=False)
    tried.take(run)
    tried.finish()
    before = bytes(memory)
    memory[:] = bytes(len(memory))
    assert run.inline[0].data == before
    assert bytes(run.view) == before


def test_what_is_too_large_encoded_is_submitted_as_if_never_tried():
    tried, submitted = trial()
    runs = [run_of(noise(seed, 200 * KIB)) for seed in range(2)]
    for run in runs:
        tried.take(run)
    tried.finish()
    assert submitted == runs
    assert [run.inline for run in runs] == [None, None]


def test_too_many_bytes_are_not_tried_and_the_rest_follows_at_once():
    tried, submitted = trial()
    runs = [run_of(bytes(ingest.INLINE_TRIAL)), run_of(b"!"), run_of(b"?")]
    tried.take(runs[0])
    assert submitted == []
    tried.take(runs[1])
    assert submitted == runs[:2]
    tried.take(runs[2])
    assert submitted == runs
    assert not tried.holds(runs[:1])
    tried.finish()
    tried.take(next_recipe := run_of(b"next"))
    assert tried.holds([next_recipe])


def test_what_is_dropped_makes_room():
    tried, submitted = trial()
    known, new = run_of(bytes(ingest.INLINE_TRIAL)), run_of(b"!")
    tried.take(known)
    assert tried.holds([known])
    tried.drop([known])
    assert not tried.holds([known])
    tried.take(new)
    tried.finish()
    assert submitted == []
    assert new.inline is not None
    assert known.inline is None


# ---- bodies of what is too large ----------------------------------------------------


def body_of(data, *, segments=1, length=None):
    run = run_of(data)
    run.stream = Stream("x", -1, length=len(data) if length is None else length, segments=segments)
    return run


def large(seed=0):
    return run_of(noise(seed, 300 * KIB))


def finished(tried, *runs):
    for run in runs:
        tried.take(run)
    tried.finish()


def test_the_body_of_what_goes_to_packs_lies_in_the_recipe():
    for first in (large(), run_of(bytes(ingest.INLINE_TRIAL + 1))):  # found too large encoded, and by its length
        tried, submitted = trial()
        body = body_of(noise(1, ingest.BODY_INLINE))
        finished(tried, first, body)
        assert submitted == [first]
        assert body.inline[0].data == body.view and body.ids == body.hash(DIGEST)
        tried.take(next_recipe := body_of(b"next"))
        assert tried.holds([next_recipe])


def test_bodies_that_are_long_or_whole_artifacts_or_not_whole_go_to_packs():
    tried, submitted = trial()
    others = [
        body_of(noise(1, ingest.BODY_INLINE + 1)),
        body_of(bytes(ingest.BODY_TRIAL + 1)),
        body_of(noise(2, KIB), segments=0),
        body_of(noise(3, KIB), length=2 * KIB),
    ]
    finished(tried, first := large(), *others)
    assert {id(run) for run in submitted} == {id(run) for run in [first, *others]}
    assert all(run.inline is None for run in others)


def test_bodies_lie_in_the_recipe_as_long_as_there_is_room():
    tried, submitted = trial(inline=40 * KIB)
    bodies = [body_of(noise(seed, 16 * KIB)) for seed in range(4)]
    finished(tried, first := large(), *bodies)
    assert submitted == [first, *bodies[2:]]
    assert [run.inline is not None for run in bodies] == [True, True, False, False]


# ---- layouts ------------------------------------------------------------------------


def lay_out(drafts, located):
    written = SessionStats()
    codec = parts().workers.thread.codec
    return lay_out_recipe(drafts, located, codec, True, written), written


def test_chunks_lie_where_they_are_located_and_each_pack_is_named_once():
    run = run_of(noise(1, 300), 100, 200, 300, hashed=True)
    packs = [PackName(bytes([number]) * 32) for number in range(2)]
    located = {
        chunk_id: Location(packs[number % 2], 64 + number, 100, 100, 2, 8) for number, chunk_id in enumerate(run.ids)
    }
    layout, written = lay_out([draft_with(run)], located)
    assert layout.packs == [pack.value for pack in packs]
    assert layout.placements == [Placement(0, 64, 100, 2, 8), Placement(1, 65, 100, 2, 8), Placement(0, 66, 100, 2, 8)]
    assert layout.inline == []
    assert written.codecs == {}


def test_what_is_nowhere_else_lies_in_the_recipe_equal_ones_once():
    data = noise(1, 100)
    run = run_of(data + noise(2, 50) + data, 100, 150, 250, hashed=True)
    layout, written = lay_out([draft_with(run)], {})
    first, second, third = layout.placements
    assert first == third == Placement(INLINE, 0, 100, 0, 0)
    assert second == Placement(INLINE, 100, 50, 0, 0)
    assert b"".join(layout.inline) == bytes(run.view[:150])
    assert written.duplicate == 100
    assert written.codecs == {"raw": 150}


def test_a_chunk_that_was_tried_is_not_encoded_again():
    tried, _ = trial()
    run = run_of(bytes(100 * KIB))
    tried.take(run)
    tried.finish()
    encoded = run.inline[0].data
    layout, written = lay_out([draft_with(run)], {})
    assert layout.inline[0] is encoded
    assert sum(written.codecs.values()) == 100 * KIB


def test_a_literal_has_no_placement_and_counts_as_raw():
    layout, written = lay_out([draft_with(literal=b"12345")], {})
    assert layout == ([], [], [], [])
    assert written.codecs == {"raw": 5}


def test_a_layout_makes_a_recipe_that_says_where_everything_is():
    made = parts()
    codec = made.workers.thread.codec
    draft = draft_with(run_of(noise(1, 3000) + bytes(5000), 3000, 8000, hashed=True))
    layout, _ = lay_out([draft], {})
    content = recipes.encode_content(recipes.ONE, 1, [draft.artifact()])
    stored = recipes.encode(
        1, content, encode_about([draft.type]), layout.packs, layout.placements, layout.inline, codec
    )
    recipe = recipes.decode(b"".join(stored), codec, DIGEST(content))
    memory = bytearray(8000)
    view = memoryview(memory)
    wanted = [(0, draft.artifact().chunks[0], view[:3000]), (1, draft.artifact().chunks[1], view[3000:])]
    made.fetcher.fill(recipe, wanted, verify=True)
    assert memory == noise(1, 3000) + bytes(5000)
