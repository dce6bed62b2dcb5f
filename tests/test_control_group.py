"""The limits of a container, read from trees of files as Linux shows them."""

import math
from pathlib import Path

import pytest

from mfstore import settings
from mfstore.host.control_group import ControlGroup, GroupCounts, control_group

GIB = 1 << 30


def tree(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    return str(root / "own"), str(root / "fs")


STAT = "usage_usec 5\nnr_periods {}\nnr_throttled {}\nthrottled_usec {}"
V1_STAT = "nr_periods {}\nnr_throttled {}\nthrottled_time {}"


@pytest.mark.parametrize(
    ("files", "cpus", "memory", "counts"),
    [
        ({"own": "0::/a/b", "fs/a/b/cpu.max": "max 100000", "fs/a/b/memory.max": "max"}, None, None, GroupCounts()),
        (
            {"own": "0::/a/b", "fs/a/b/cpu.max": "150000 100000", "fs/a/b/cpu.stat": STAT.format(40, 30, 2_500_000)},
            1.5, None, GroupCounts(40, 30, 2.5),
        ),
        # The group above has the least quota: its counts are those that tell.
        (
            {"own": "0::/a/b", "fs/a/b/cpu.max": "400000 100000", "fs/a/b/cpu.stat": STAT.format(9, 0, 0),
             "fs/a/cpu.max": "50000 100000", "fs/a/cpu.stat": STAT.format(9, 8, 1_000_000)},
            0.5, None, GroupCounts(9, 8, 1.0),
        ),
        # A container: the path is the host's, its own group is shown as the root.
        (
            {"own": "0::/kubepods/pod1/c1", "fs/cpu.max": "200000 100000", "fs/cpu.stat": STAT.format(3, 1, 0),
             "fs/memory.max": str(GIB), "fs/memory.events": "low 0\nhigh 2\nmax 5\noom 0\noom_kill 0"},
            2.0, GIB, GroupCounts(3, 1, 0.0, 7),
        ),
        ({"own": "0::/../c", "fs/cpu.max": "200000 100000"}, 2.0, None, GroupCounts()),
        ({"own": "0::/a", "fs/a/memory.max": str(2 * GIB), "fs/a/memory.high": str(GIB)}, None, GIB, GroupCounts()),
        # Version 1.
        (
            {"own": "4:memory:/d/c\n2:cpu,cpuacct:/d/c\n0::/d/c", "fs/cpu,cpuacct/d/c/cpu.cfs_quota_us": "150000",
             "fs/cpu,cpuacct/d/c/cpu.cfs_period_us": "100000",
             "fs/cpu,cpuacct/d/c/cpu.stat": V1_STAT.format(7, 5, 3_000_000_000),
             "fs/memory/d/c/memory.limit_in_bytes": str(GIB), "fs/memory/d/c/memory.failcnt": "11"},
            1.5, GIB, GroupCounts(7, 5, 3.0, 11),
        ),
        # Version 1 in a container, and without limits.
        (
            {"own": "2:cpu:/docker/1", "fs/cpu/cpu.cfs_quota_us": "50000", "fs/cpu/cpu.cfs_period_us": "100000"},
            0.5, None, GroupCounts(),
        ),
        (
            {"own": "4:memory:/\n2:cpu:/", "fs/cpu/cpu.cfs_quota_us": "-1", "fs/cpu/cpu.cfs_period_us": "100000",
             "fs/memory/memory.limit_in_bytes": "9223372036854771712"},
            None, None, GroupCounts(),
        ),
        ({}, None, None, GroupCounts()),
        ({"own": "nonsense\n\n0:", "fs/cpu.max": "nonsense", "fs/memory.max": "-"}, None, None, GroupCounts()),
        ({"own": "0::/", "fs/cpu.max": "1000 0", "fs/cpu.stat": "nr_periods many"}, None, None, GroupCounts()),
    ],
)  # fmt: skip
def test_limits_and_counts(tmp_path, files, cpus, memory, counts):
    own, groups = tree(tmp_path, files)
    found = control_group(own, groups)
    assert (found.cpus, found.memory, found.counts()) == (cpus, memory, counts)
    threads = settings._cpus_by_quota.__wrapped__(own, groups)
    assert threads == (1 << 16 if cpus is None else max(1, math.ceil(cpus)))


def test_what_has_come_between_two_readings(tmp_path):
    own, groups = tree(tmp_path, {"own": "0::/", "fs/cpu.max": "1 1", "fs/cpu.stat": STAT.format(10, 4, 500_000)})
    found = control_group(own, groups)
    before = found.counts()
    Path(groups, "cpu.stat").write_text(STAT.format(16, 9, 800_000))
    since = found.counts() - before
    assert (since.periods, since.throttled) == (6, 5)
    assert since.throttled_seconds == pytest.approx(0.3)


def test_of_this_process():
    found = control_group()
    assert isinstance(found, ControlGroup)
    assert found.cpus is None or found.cpus > 0
    assert found.counts().throttled <= found.counts().periods
