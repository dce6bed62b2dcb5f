"""A root that is too large for memory is planned and collected like any other: what is listed of it, and what runs
refer to, is then in a temporary file; on a simulated S3."""

import copy
import errno
import heapq
import os
import random
import resource
import subprocess
import tempfile
from operator import itemgetter
from unittest import mock

import pytest

from mfstore import errors
from mfstore.backends.base import ObjectInfo
from mfstore.maintenance import spill
from mfstore.maintenance.metaflow import known_files, listed_blobs, listed_files, listed_tasks
from mfstore.maintenance.metaflow.collecting import listed_runs, marks
from mfstore.maintenance.metaflow.collecting.blob_fates import blob_fates
from mfstore.maintenance.metaflow.collecting.marks import BlobMarks
from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.run_table import RunTable, SomeRuns
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.holdings import Holdings
from mfstore.maintenance.metaflow.listed_blobs import BlobTable
from mfstore.maintenance.metaflow.listed_digests import packed_key, unpacked_key
from mfstore.maintenance.spill import Spill
from mfstore.metaflow.roots.layout import blob_path
from tests.rigs.simulated_roots import SimulatedRoot

DAY = 86400.0
UNORDERED = tuple | frozenset | RunTable | SomeRuns
KEEP = RunPolicy(last=2, grace=0.0)


@pytest.fixture
def little_memory(monkeypatch):
    """So little that nearly all of it is in the temporary file."""
    for module, name, most in (
        (listed_tasks, "OPEN_FILES", 7), (listed_tasks, "OPEN_RUNS", 1), (listed_blobs, "OPEN_BLOBS", 3),
        (marks, "OPEN_MARKS", 3), (listed_runs, "RUNS_TOGETHER", 1), (listed_files, "OPEN_FILES", 1), (known_files, "WANTED_TOGETHER", 5),
        (spill, "BLOCK_ROWS", 2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, most)
    spilled = []
    put = Spill.put

    def counted(self, data):
        spilled.append(len(data))
        return put(self, data)

    monkeypatch.setattr(Spill, "put", counted)
    return spilled


@pytest.fixture
def rig():
    rig = SimulatedRoot()
    for number, flow in enumerate(("Alpha", "Beta", "Größe")):
        for run in range(4 + number):
            rig.run(flow, f"argo-x{run}", age=(30 - 2 * run) * DAY, well=run != 3)
        rig.put(f"{flow}/data/ab/ab{number:038}", b"nobody's", 30 * DAY)
    return rig


def collected(rig, monkeypatch):
    """Two collections, and a plan after the first: what they say, and what they leave."""
    found = []
    for number in range(2):
        with rig.opened(monkeypatch) as root:
            plan, done = collect_metaflow(root, KEEP, metadata="none")
        found.append([told(plan), sorted(done.removed), done.deleted, done.held])
        if not number:
            with rig.opened(monkeypatch) as root:
                found.append(told(plan_metaflow_gc(root, KEEP, metadata="none")))
    return found, stored(rig)


def stored(rig):
    return {key for key in rig.world.objects if "/mf.maintenance/" not in key}


def told(plan):
    return {
        name: sorted(value, key=repr) if isinstance(value := getattr(plan, name), UNORDERED) else value
        for name in plan.__slots__ if name not in ("now", "liveness")
    }  # fmt: skip


def test_what_is_planned_and_done_is_the_same(rig, monkeypatch, request):
    other = copy.deepcopy(rig)
    expected = collected(other, monkeypatch)
    spilled = request.getfixturevalue("little_memory")
    assert collected(rig, monkeypatch) == expected
    assert expected[0][1]["remove"] and expected[0][1]["blobs"] and expected[0][1]["unreferred"].objects == 3
    assert len(spilled) > 100


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for little, as the folder for temporary files: none that is mounted where that is not
    allowed, but a limit for files."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder], capture_output=True
    ).returncode
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limit[1]))
        with mock.patch.object(tempfile, "tempdir", str(folder)):
            yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.usefixtures("little_memory")
def test_a_full_disk_changes_nothing(rig, monkeypatch, small_disk):
    before = dict(rig.world.objects)
    with rig.opened(monkeypatch) as root, pytest.raises(errors.OutOfSpace, match="no room for a temporary") as told:
        collect_metaflow(root, KEEP, metadata="none")
    assert str(small_disk) in told.value.found and "TMPDIR" in told.value.hint
    assert told.value.found.endswith(str(small_disk)) == os.path.ismount(small_disk)
    assert rig.world.objects == before


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("fails", ["write", "read", "other bytes", "cut off"])
def test_a_disk_that_fails_changes_nothing(rig, monkeypatch, fails):
    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before, read = dict(rig.world.objects), os.pread
    calls = {
        "write": ("pwrite", failing), "read": ("pread", failing),
        "other bytes": ("pread", lambda *given: bytes([read(*given)[0] ^ 1]) + read(*given)[1:]),
        "cut off": ("pread", lambda *given: read(*given)[:-3]),
    }  # fmt: skip
    monkeypatch.setattr(os, *calls[fails])
    with rig.opened(monkeypatch) as root, pytest.raises(errors.BackendError, match="temporary file failed") as told:
        collect_metaflow(root, KEEP, metadata="none")
    assert "TMPDIR" in told.value.hint and tempfile.gettempdir() in told.value.found
    assert rig.world.objects == before


@pytest.mark.parametrize("part", [0.2, 0.6, 0.99], ids=["listing", "planning", "removing"])
def test_a_disk_that_becomes_full_ends_no_collection_for_good(rig, monkeypatch, little_memory, part):
    with rig.opened(monkeypatch) as root:
        collect_metaflow(root, KEEP, metadata="none")
    other, first = copy.deepcopy(rig), len(little_memory)
    with other.opened(monkeypatch) as root:
        collect_metaflow(root, KEEP, metadata="none")
    rest = iter(range(int((len(little_memory) - first) * part)))
    write = os.pwrite

    def some(*given):
        if next(rest, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*given)

    before = stored(rig)
    with monkeypatch.context() as patched, rig.opened(patched) as root:
        patched.setattr(os, "pwrite", some)
        with pytest.raises(errors.OutOfSpace) as told:
            collect_metaflow(root, KEEP, metadata="none")
    assert "Nothing was changed" not in str(told.value)  # nobody knows where the room ended
    assert (stored(rig) == before) == (part < 0.9)
    with rig.opened(monkeypatch) as root:
        collect_metaflow(root, KEEP, metadata="none")
    assert stored(rig) == stored(other) < before


def test_nothing_is_left_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = Spill()
    numbers = [kept.put(bytes([number]) * number * 1000) for number in range(20)]
    assert [kept.get(number) for number in numbers] == [bytes([number]) * number * 1000 for number in range(20)]
    assert not [*tmp_path.iterdir()]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(errors.BackendError, match="nowhere"):
        Spill().put(b"x")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/full"])
    with pytest.raises(errors.OutOfSpace, match="/proc/full"):
        Spill().put(b"x")


@pytest.mark.usefixtures("little_memory")
def test_blobs_in_a_file_are_a_dict_of_blobs():
    generator = random.Random(3)
    table, model = BlobTable(spill=Spill()), {}
    keys = [generator.randbytes(20).hex() for _ in range(40)] + [f"r_{'ab' * 20}", "cd" * 32, "ef" * 40]
    for number, key in enumerate([*keys, *keys[:5]]):
        name = "ÄB"[number % 2], key
        etag = generator.choice([generator.randbytes(16).hex(), "12-7"])
        table[name] = model[name] = ObjectInfo(blob_path(*name), number, number + 0.5, etag)
    assert dict(table.items()) == model and len(table) == len(model) and table.flows == {"Ä", "B"}
    some = generator.sample([*model], 9)
    assert table.some([*some, ("Ä", "00" * 20), ("C", "x")]) == {name: model[name] for name in some}
    assert [key for key, _ in table.sizes("Ä")] == sorted(packed_key(key) for flow, key in model if flow == "Ä")
    assert all(unpacked_key(packed_key(key)) == key for key in [*keys, "", "ff" * 33, "m1.gA", "\ud800"])


@pytest.mark.parametrize("rows", [1, 2, 7, 512])
def test_sorted_lists_are_merged_as_heapq_does(monkeypatch, rows):
    monkeypatch.setattr(spill, "BLOCK_ROWS", rows)
    for seed in range(50):
        generator = random.Random(seed)
        lists = [
            [(bytes([key]), number) for key in sorted({*generator.choices(range(60), k=generator.randrange(30))})]
            for number in range(generator.randrange(6))
        ]  # fmt: skip
        found = spill.merged(spill.in_blocks(iter(rows)) for rows in lists)
        assert [*found] == [*heapq.merge(*lists, key=itemgetter(0))]


@pytest.mark.parametrize("seed", range(6))
def test_what_becomes_of_blobs_is_told_by_sets(seed, request):
    """As it was decided before it was done in the order of keys."""
    if seed % 2:
        request.getfixturevalue("little_memory")
    generator = random.Random(seed)
    names = [(flow, generator.randbytes(20).hex()) for flow in ("A", "B", "Held") for _ in range(40)]
    holdings, found = Holdings(spill=Spill()), BlobMarks()
    sizes = {}
    for name in names:
        for table, suffix, share in ((holdings.blobs, "", 0.8), (holdings.metas, "_meta", 0.6)):
            if generator.random() < share:
                size = generator.randrange(1000)
                table[name] = ObjectInfo(blob_path(*name) + suffix, size, 1.0, "e")
                sizes[*name, suffix] = size
    sets = {bit: set() for bit in (1, 2, 4, 8, 16, 32, 64, 128)}
    for name in names:
        for bit in generator.sample([*sets], generator.choice([0, 1, 1, 1, 2, 3])):
            sets[bit].add(name)
            found.mark(name[0], [name[1]], bit)
    stay, go, later = sets[1] | sets[8], sets[2] | sets[16] | sets[64], sets[4] | sets[32] | sets[128]
    listed = {name for name in names if (*name, "") in sizes}
    there = {name for name in names if {(*name, ""), (*name, "_meta")} & sizes.keys()}
    blobs = {name for name in go - stay - later if name[0] != "Held"} & there

    def amount(names):
        taken = [sizes[*name, suffix] for name in names for suffix in ("", "_meta") if (*name, suffix) in sizes]
        return len(taken), sum(taken)

    fates = blob_fates(holdings, found, {"Held"})
    assert fates.go == blobs
    for what, expected in (
        ("freed", blobs), ("migrated", sets[64] & blobs), ("soon", (go | later) - stay - blobs),
        ("shared", (go | later) & stay), ("unreferred", listed - stay - go - later),
        ("former", (sets[8] | sets[32]) - sets[1] - sets[4] - blobs),
    ):  # fmt: skip
        total = getattr(fates, what).total
        assert (total.objects, total.bytes) == amount(expected), what
    assert found.of(names) == {name: sum(bit for bit, marked in sets.items() if name in marked) for name in names}
