"""Own and shared bytes against a model that keeps everything in sets."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore.maintenance import holders
from mfstore.maintenance.holders import NONE, Claims, Label, LabelSets, Tally
from mfstore.maintenance.spill import Spill
from mfstore.maintenance.usage import usage_of

LABELS = [NONE, *map(Label, "abcd")]


@st.composite
def worlds(draw):
    """Items with their sizes, and holders with their labels and what they hold, in the order in which it is told."""
    sizes = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=12))
    labels = draw(st.lists(st.frozensets(st.sampled_from(LABELS), min_size=1, max_size=3), min_size=1, max_size=6))
    claims = draw(
        st.lists(
            st.tuples(st.integers(0, len(labels) - 1), st.lists(st.integers(0, len(sizes) + 1), max_size=6)),
            max_size=20,
        )
    )
    return sizes, labels, claims


@settings(max_examples=150, deadline=None)
@given(worlds(), st.sampled_from([1, 2, 5, 1000]))
def test_as_sets_say(world, in_memory):
    sizes, labels, claims = world
    before, holders.OPEN_CLAIMS = holders.OPEN_CLAIMS, in_memory
    try:
        claimed = Claims(Spill())
    finally:
        holders.OPEN_CLAIMS = before
    sets = LabelSets()
    numbers = [sets.number(found) for found in labels]
    for holder, items in claims:
        claimed.claim("here", [bytes([item]) for item in items], numbers[holder])
    tally = Tally(sets)
    tally.add_all(claimed.joined("here", [(bytes([item]), size) for item, size in enumerate(sizes)]))
    found = usage_of("url", "tag", tally.totals())

    held_by = {item: {holder for holder, items in claims if item in items} for item in range(len(sizes))}
    own = dict.fromkeys(LABELS, 0)
    shared = dict(own)
    model = {"own": 0, "shared": 0, "unheld": 0}
    for item, size in enumerate(sizes):
        of_holders = [labels[holder] for holder in held_by[item]]
        everybody = [label for label in LABELS if of_holders and all(label in one for one in of_holders)]
        for label in LABELS:
            if label in everybody:
                own[label] += size
            elif any(label in one for one in of_holders):
                shared[label] += size
        model["own" if everybody else "shared" if of_holders else "unheld"] += size
    assert {"own": found.own, "shared": found.shared, "unheld": found.unheld} == model
    assert found.total == sum(sizes) == tally.counted
    assert {(group.name, group.own, group.shared) for group in found.groups if group.all} == {
        (label.name, own[label], shared[label]) for label in LABELS if own[label] + shared[label]
    }
    if all(len(one) == 1 for one in labels):  # where nobody is in two groups
        assert sum(group.own for group in found.groups) == found.own
    assert [group.own for group in found.groups] == sorted((group.own for group in found.groups), reverse=True)


def test_what_only_some_hold_is_theirs_and_what_all_hold_is_nobodys_own():
    sets = LabelSets()
    tally = Tally(sets)
    run, other = sets.number([Label("prod"), Label("me")]), sets.number([Label("prod")])
    tally.add(10, run)
    tally.add(100, {run, other})
    tally.add(1000, {other, sets.of("trial")})
    tally.add(5, None)
    found = usage_of("url", "tag", tally.totals())
    assert {group.name: (group.own, group.shared) for group in found.groups} == {
        "prod": (110, 1000), "me": (10, 100), "trial": (0, 1000),
    }  # fmt: skip
    assert (found.own, found.shared, found.unheld, found.total) == (110, 1000, 5, 1115)


def test_unions_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr(holders, "KNOWN_UNIONS", 3)
    sets = LabelSets()
    numbers = [sets.of(str(number)) for number in range(20)]
    tally = Tally(sets)
    for first in numbers:
        for second in numbers:
            if first != second:
                tally.add(1, {first, second})
    tally.add(7, set(numbers))
    assert all(found.own == 0 and found.shared == 2 * 19 + 7 for found in tally.totals().labels)
