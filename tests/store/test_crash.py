"""Nothing acknowledged is lost: failing calls, killed processes, full disks, interrupted puts."""

import errno
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.backends import local
from mfstore.backends.local import SWEPT, TEMPORARY, LocalBackend
from mfstore.backends.memory import MemoryBackend
from mfstore.errors import CorruptObject
from mfstore.settings import resolve
from mfstore.store import Store
from mfstore.testing import Fault
from tests.rigs.changes import Noting
from tests.rigs.soak import points, soaking

NOISE = np.random.default_rng(0).random(50_000)
LITTLE = NOISE[:12_000]
"""Of which a pack is written too, where a workload is run hundreds of times."""


def temporaries(root):
    return [path for path in Path(root).rglob("*") if path.name.startswith(TEMPORARY)]


def wrapped(backend):
    return Store(backend.url, backend, resolve(threads=1, fsync="batch"), create=True, algorithm="blake3")


def workload(store, acknowledged):
    for number in range(3):
        value = {"n": number, "array": LITTLE + number, "zeros": np.zeros(20_000)}
        acknowledged.append((store.put(value), number))
    for key, number in zip(store.put_many([10, 11, {"array": LITTLE}]), (10, 11, None), strict=True):
        acknowledged.append((key, number))
    key = store.save({"a": 1, "b": LITTLE})
    acknowledged.append((key, None))
    store.refs["latest"] = key


def check_everything(backend, acknowledged):
    reader = wrapped(backend)
    for key, number in acknowledged:
        value = reader.get(key)
        if number is not None and isinstance(value, dict):
            np.testing.assert_array_equal(value["array"], LITTLE + number)
    for key in reader.keys():
        reader.get(key)  # visible means whole
    for name in reader.refs:
        reader.get(reader.refs[name])


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after the effect"])
@pytest.mark.parametrize("forever", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("kind", ["local", "memory"])
def test_fail_the_nth_call(tmp_path, after, forever, kind):
    seen = set()
    for n in points(1 + 2 * after + forever, 4):
        inner = LocalBackend(str(tmp_path / str(n))) if kind == "local" else MemoryBackend()
        faulty = Noting(inner, Fault(at=n, after=after, forever=forever))
        acknowledged = []
        try:
            workload(wrapped(faulty), acknowledged)
            survived = True
        except errors.BackendError:
            survived = False
        if kind == "local":
            assert temporaries(inner.root) == []
        left = tuple(acknowledged), faulty.left()
        if left not in seen:
            seen.add(left)
            check_everything(inner, acknowledged)
            # Doing it again always converges.
            again = []
            workload(wrapped(inner), again)
            check_everything(inner, again)
            assert again[: len(acknowledged)] == acknowledged
        if survived and faulty.calls < n:
            break
    assert n > 20
    assert any(key.startswith("packs/") for _, key in faulty.log)


KILLED = """
import sys, numpy as np, mfstore
store = mfstore.open(sys.argv[1], fsync=sys.argv[2])
rng = np.random.default_rng(int(sys.argv[3]))
n = 0
while True:
    values = [rng.random(rng.integers(1, 60_000)) for _ in range(3)]
    for key, value in zip(store.put_many(values), values):
        print(key, len(value), repr(float(value.sum())), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("fsync", ["batch", "none", "always"])
def test_kill_in_the_middle_of_puts(root, fsync):
    acknowledged = []
    for turn in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, root, fsync, str(turn)], stdout=subprocess.PIPE, text=True
        )
        lines = [process.stdout.readline() for _ in range(3 + 7 * turn)]
        time.sleep(0.003 * turn)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdout.close()
        acknowledged += [line.split() for line in lines if line.endswith("\n")]
    store = mfstore.open(root)
    assert len(acknowledged) > 60
    for key, size, total in acknowledged:
        value = store.get(key)
        assert (len(value), repr(float(value.sum()))) == (int(size), total)
    for key in store.keys():
        store.get(key)
    # What the dead left behind is swept, once it is old.
    left = len(temporaries(root))
    assert store.backend.sweep(3600) == 0
    assert store.backend.sweep(0) == left
    assert temporaries(root) == []


STRACE = ("openat", "write", "writev", "fsync", "rename", "renameat", "mkdirat")


@pytest.mark.slow
@pytest.mark.fuzz
def test_kill_at_every_system_call(tmp_path):
    """SIGKILL at the n-th file operation of a put, for every n in soaks, else for every other one; then everything
    visible is whole and a put heals it."""
    import shutil

    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    code = (
        "import random, sys, mfstore\n"
        "store = mfstore.open(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "store.put_many([{'noise': random.Random(1).randbytes(240_000), 'n': 1}, 1, 2])\n"
        "print('done', flush=True)\n"
    )
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    probe = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("strace may not trace here")
    expected = {"noise": random.Random(1).randbytes(240_000), "n": 1}
    finished, killed = False, 0
    for call in ("renameat", "rename", "writev", "fsync", "mkdirat"):
        for n in points(1, 2):
            root = tmp_path / f"{call}-{n}"
            done = subprocess.run(
                ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={n}",
                 sys.executable, "-c", code, str(root)],
                capture_output=True, text=True, env=env,
            )  # fmt: skip
            killed += "done" not in done.stdout
            if root.exists():
                store = mfstore.open(root)
                for key in store.keys():
                    assert store.get(key) in (expected, 1, 2)
                key, *_ = store.put_many([expected, 1, 2])
                assert mfstore.open(root).get(key) == expected
            if "done" in done.stdout:
                finished = True
                break
            assert n < 60
    assert finished and killed > (10 if soaking() else 5)


def test_keyboard_interrupt_leaves_nothing_partial(root):
    store = mfstore.open(root)
    key = store.put(1)

    def objects():
        yield NOISE
        yield np.random.default_rng(1).random(9_000_000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put_many(objects())
    assert temporaries(root) == []
    assert list(store.keys()) == [key]
    assert store.get(store.put(NOISE)).shape == NOISE.shape


def test_a_full_disk_is_a_clear_error_and_nothing_is_lost(root, tmp_path):
    """On a real file system with a real limit where mounting is allowed, else through a file-size limit."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small file system")
    try:
        store = mfstore.open(disk / "store")
        key = store.put(NOISE)
        with pytest.raises(errors.OutOfSpace, match="free some space") as caught:
            store.put(np.random.default_rng(1).random(600_000))
        assert isinstance(caught.value, OSError)
        with pytest.raises(errors.OutOfSpace):
            store.put_many([np.random.default_rng(n).random(20_000) for n in range(100)])
        assert temporaries(disk) == []
        np.testing.assert_array_equal(mfstore.open(disk / "store").get(key), NOISE)
        assert store.get(store.put("a small thing still fits")) == "a small thing still fits"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_file_size_limit(root, python):
    code = (
        "import resource, signal, sys, numpy as np, mfstore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "store = mfstore.open(sys.argv[1]); key = store.put('before')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: store.put(np.random.default_rng(0).random(100_000))\n"
        "except mfstore.errors.OutOfSpace: print('out of space')\n"
        "print(store.get(key), store.get(store.put('after')))\n"
    )
    assert python(code, root).split("\n")[:2] == ["out of space", "before after"]
    assert temporaries(root) == []


def test_too_many_open_files(root, python):
    code = (
        "import resource, sys, numpy as np, mfstore\n"
        "store = mfstore.open(sys.argv[1]); store.put(0)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))\n"
        "keys = store.put_many(range(1000))\n"
        "print([obj for _, obj in store.get_many(keys)] == list(range(1000)))\n"
    )
    assert python(code, root) == "True\n"


def test_no_descriptors_leak(root):
    store = mfstore.open(root)
    keys = store.put_many([NOISE, *range(50)])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        list(store.get_many(keys))
        store.put_many([NOISE, *range(50)])
        with pytest.raises(errors.NotFound):
            store.get("0" * 64)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_old_temporary_files_are_swept_by_the_next_writer(root):
    store = mfstore.open(root)
    store.put(1)
    old, young = Path(root, "packs", TEMPORARY + "old"), Path(root, "recipes", TEMPORARY + "young")
    old.parent.mkdir(exist_ok=True)
    for path in (old, young):
        path.write_bytes(b"partial")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    marker = Path(root, SWEPT)
    if marker.exists():
        os.utime(marker, (time.time() - 2 * 86400,) * 2)
    assert set(mfstore.open(root).keys()) == set(store.keys())
    mfstore.open(root).put(2)
    assert not old.exists()
    assert young.exists()


WRITER = """
import sys, numpy as np, mfstore
store = mfstore.open(sys.argv[1])
rng = np.random.default_rng(7)
for n in range(40):
    shared = rng.random(30_000)
    key = store.put({'shared': shared, 'n': n})
    store.refs[f'run/{n}'] = key
    assert (store.get(key)['shared'] == shared).all()
print('ok')
"""


@pytest.mark.slow
def test_many_processes_on_one_store(root):
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, root], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    reader = mfstore.open(root)
    while any(process.poll() is None for process in processes):
        for name in list(reader.refs):
            assert reader.get(reader.refs[name])["shared"].shape == (30_000,)
    assert [process.communicate()[0] for process in processes] == ["ok\n"] * 4
    store = mfstore.open(root)
    assert len(store.refs) == 40
    assert store.stats().recipes == 40
    assert all(len(store.refs.history(name)) == 4 for name in store.refs)


CREATOR = """
import sys, time, mfstore
time.sleep(max(float(sys.argv[2]) - time.time() - 0.02, 0))
while time.time() < float(sys.argv[2]): pass
store = mfstore.open(sys.argv[1])
print(store.get(store.put(int(sys.argv[3]))), store.handle.description.uuid)
"""


@pytest.mark.slow
def test_a_store_is_created_once_however_many_begin_with_it(tmp_path):
    for turn in range(2):
        root, start = tmp_path / str(turn), str(time.time() + 1.5)
        processes = [
            subprocess.Popen([sys.executable, "-c", CREATOR, root, start, str(n)], stdout=subprocess.PIPE, text=True)
            for n in range(6)
        ]
        printed = [process.communicate()[0].split() for process in processes]
        assert [int(line[0]) for line in printed] == list(range(6))
        assert len({line[1] for line in printed}) == 1


def test_a_store_deleted_under_an_open_handle_is_made_again(root):
    import shutil

    store = mfstore.open(root)
    store.put(NOISE)
    shutil.rmtree(root)
    key = store.put(NOISE)
    np.testing.assert_array_equal(mfstore.open(root).get(key), NOISE)


@pytest.fixture
def synced(monkeypatch):
    """Paths given to fsync, and the times syncfs ran, in order."""
    from mfstore.backends import local

    seen = []
    fsync, everything = os.fsync, local.sync_file_system
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1])
    monkeypatch.setattr(local, "sync_file_system", lambda fd: (seen.append("syncfs"), everything(fd))[1])
    return seen


@pytest.mark.parametrize("policy", ["batch", "always"])
def test_a_put_syncs_its_files_and_their_directories(root, synced, policy):
    store = mfstore.open(root, fsync=policy)
    key = store.put(NOISE)
    recipe = Path(root, "recipes", key[:2])
    pack = next(path for path in Path(root, "packs").iterdir())
    for directory in (recipe, pack, Path(root, "index")):
        # Its file, while it still had its temporary name; then the directory that names it.
        files = [at for at, path in enumerate(synced) if path.startswith(f"{directory}/{TEMPORARY}")]
        names = [at for at, path in enumerate(synced) if path == str(directory)]
        assert len(files) == 1
        assert max(names) > files[0]
    # Directories made on the way are named in their parents.
    assert {root, f"{root}/recipes", f"{root}/packs", str(Path(root).parent)} <= set(synced)


def test_without_syncing_nothing_is_synced(root, synced):
    mfstore.open(root, fsync="none").put(NOISE)
    assert synced == []


def test_a_bulk_operation_is_one_pass(root, synced):
    """A budget on counts: not one sync per object, but one for the files and one for the directories."""
    store = mfstore.open(root)
    store.put_many(range(2000))
    synced.clear()
    store.put_many(range(2000, 4000))
    assert synced == ["syncfs", "syncfs"]


def test_what_others_left_unsynced_is_synced_before_it_is_relied_on(root, monkeypatch):
    """A dedup hit on another process's unsynced pack and recipe is as durable as one's own write."""
    mfstore.open(root, fsync="none").put(NOISE)
    synced = []
    original = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), original(fd))[1])
    store = mfstore.open(root, fsync="batch")
    before = store.session.stored
    store.put(NOISE)
    assert store.session.stored == before
    kinds = {Path(path).relative_to(root).parts[0] for path in synced if path != root}
    assert {"packs", "recipes"} <= kinds
    synced.clear()
    store.put(NOISE)
    assert synced == []


def test_objects_changed_while_being_stored_are_noticed(root, monkeypatch):
    """The buffer is hashed, changed, then written: the store never returns bytes it did not hash."""
    from mfstore.saving.packing import PackWriter

    array = np.random.default_rng(0).integers(1 << 63, size=300_000)  # raw: what is encoded is read but once
    original = PackWriter.add

    def changed(self, *args):
        array[1000] = 5
        return original(self, *args)

    monkeypatch.setattr(PackWriter, "add", changed)
    key = mfstore.open(root).put(array)
    with pytest.raises(errors.CorruptObject):
        mfstore.open(root).get(key)


@pytest.mark.parametrize("fsync", ["none", "batch", "always"])
def test_links_of_directories_are_followed_where_that_is_wanted(tmp_path, fsync):
    (tmp_path / "real").mkdir()
    (tmp_path / "root" / "packs").mkdir(parents=True)
    (tmp_path / "root" / "packs" / "ab").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "root")
    followed = LocalBackend(str(tmp_path / "root"), fsync=fsync, sweep=False, follow_links=True)
    for backend in (followed, pickle.loads(pickle.dumps(followed))):
        backend.put("packs/ab/one", [b"data"])
        assert (tmp_path / "real" / "one").read_bytes() == b"data"
        assert backend.get("packs/ab/one") == b"data"
        assert "packs/ab/one" in [info.key for info in backend.list("packs/")]
        assert not (tmp_path / "root" / ".swept").exists()
    strict = LocalBackend(str(tmp_path / "root"), fsync=fsync)
    assert list(strict.list("packs/")) == []
    with pytest.raises(CorruptObject):
        strict.put("packs/ab/two", [b"data"])


def test_a_sync_goes_to_the_disk_itself_where_that_has_a_name_of_its_own(tmp_path, monkeypatch):
    """As on macOS, whose fsync leaves the data in the drive's cache."""
    asked = []

    def control(fd, what, *rest):
        asked.append(what)
        if len(asked) > 4:
            raise OSError(errno.ENOTSUP, "a network file system")

    monkeypatch.setattr(local, "FULL_SYNC", 51)
    monkeypatch.setattr(local.fcntl, "fcntl", control)
    for number in range(3):
        LocalBackend(str(tmp_path / "root"), fsync="always").put(f"packs/ab/{number}", [b"data"])
    assert set(asked) == {51} and len(asked) > 4
