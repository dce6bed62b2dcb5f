"""What versions of an object take, of small members of the series that are nearest to the limits: a ratio that is lost
fails here before anybody runs ``make bench-core``.

The limits are those of all series (docs/performance.md), or a tenth above what a member takes where that is far less:
what is lost then is what it is a member for.
"""

from typing import NamedTuple

import pytest

from benchmarks.core.catalogue import known
from benchmarks.core.peers import Chunked, Mfstore, Shuffled, Whole, pickled
from benchmarks.core.series import SEED
from tests.rigs.soak import IN_SOAKS

KIB = 1 << 10
WHOLE = 1.02
"""Of zstd-3 of any version's ordinary pickle."""


class Member(NamedTuple):
    """A series, smaller than it is."""

    name: str
    scale: float
    versions: int
    told: float
    """What versions but the first may take of FastCDC of 64 KiB, each told of the one before."""
    untold: float
    """The same, told of nothing."""


MEMBERS = [
    Member("dataclasses-edited", 1.0, 2, 1.0, 1.0),
    Member("boosting-continued", 0.5, 2, 0.4, 0.4),
    Member("forest-grown", 0.3, 5, 0.65, 0.65),
    Member("images-appended", 0.15, 6, 0.64, 0.64),
    Member("csv-appended", 0.25, 8, 0.33, 0.54),
    Member("documents-edited", 0.3, 2, 0.05, 0.05),
    Member("small-arrays", 0.1, 4, 0.25, 1.0),
    Member("embeddings-dict", 0.1, 4, 0.05, 0.05),
    Member("rows-filtered", 0.3, 4, 0.01, 0.05),
    Member("records-inserted", 0.3, 3, 0.13, 1.0),
]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_versions_take_no_more_than_they_did(member):
    (entry,) = [entry for entry in known() if entry.name == member.name]
    fast, whole = Chunked("fastcdc", 16 * KIB, 64 * KIB, 256 * KIB), Whole()
    told, untold = Mfstore("told", True, {}), Mfstore("untold", False, {})
    ways = (fast, whole, told, untold)
    added = {way.name: [] for way in ways}
    for version in entry.versions(member.scale, SEED, member.versions):
        stream = pickled(version.value)
        for way in ways:
            added[way.name].append(way.add(version, stream).data)
    for way in ways:
        way.close()
    for way, limit in ((told, member.told), (untold, member.untold)):
        assert sum(added[way.name][1:]) <= limit * sum(added[fast.name][1:])
        assert all(own <= WHOLE * size for own, size in zip(added[way.name], added[whole.name], strict=True))


@pytest.mark.parametrize(
    ("scale", "share"),
    [
        (0.25, 0.24),  # of five steps between checkpoints: a tenth above what it takes
        # As in the benchmark, with a hundred: the network is trained for ten seconds of CPU.
        pytest.param(1.0, 0.35, marks=IN_SOAKS),
    ],
)
def test_ten_checkpoints_of_a_fine_tuning_take_a_third_of_their_shuffled_bytes(scale, share):
    (entry,) = [entry for entry in known() if entry.name == "finetuning-bfloat16"]
    told, shuffled = Mfstore("told", True, {}), Shuffled(entry.itemsize)
    added = [
        [way.add(version, pickled(version.value)).data for way in (told, shuffled)]
        for version in entry.versions(scale, SEED, 10)
    ]
    for way in (told, shuffled):
        way.close()
    own, whole = map(sum, zip(*added, strict=True))
    assert own <= share * whole
