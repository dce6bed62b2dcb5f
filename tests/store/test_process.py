"""Import, fork, threads and memory: what a runtime that imports mfstore everywhere relies on."""

import multiprocessing
import os
import pickle
import sys
import time

import numpy as np
import pytest

import mfstore
from tests.rigs.concurrency import in_a_child, in_threads


def test_import_is_light(python):
    out = python(
        "import sys, threading, mfstore\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'boto3', 'asyncio', 'rich', 'click', 'metaflow', 'torch'} & set(sys.modules)\n"
        "print(sorted(heavy), threading.active_count())"
    )
    assert out == "[] 1\n"


def test_import_needs_few_modules(python):
    """A budget on counts, not on time: modules beyond the interpreter's own start."""
    out = python("import sys; before = len(sys.modules); import mfstore; print(len(sys.modules) - before)")
    assert int(out) < 170


def test_completion_offers_what_is_imported_at_its_first_use(python):
    out = python(
        "import mfstore; print({*mfstore.__all__} == {n for n in dir(mfstore) if n[:2] != '__'} | {'__version__'}, 'mfstore.store' in __import__('sys').modules)"
    )
    assert out == "True False\n"


def test_saving_plain_objects_imports_no_numpy(python, root):
    """Nor what shows them to people."""
    out = python(
        "import sys, mfstore; s = mfstore.open(sys.argv[1]); s.get(s.put([1], ref='a')); s.refs.log('a'); s.stat('a')\n"
        "print(sorted({'numpy', 'html', 'mfstore.display.html', 'mfstore.display.cards', 'mfstore.overview'} & set(sys.modules)))",
        root,
    )
    assert out == "[]\n"


@pytest.mark.second
def test_a_forked_child_that_ends_by_an_exception_leaves_what_its_parent_is_storing(root):
    store = mfstore.open(root, fsync="batch", threads=1, memory=32 << 20)  # so that packs are staged early
    values = list(np.random.default_rng(1).random((4, 1_500_000)))

    def forking():
        for value in values:
            yield value
            if not (pid := os.fork()):
                raise SystemExit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3

    parent = os.getpid()
    try:
        keys = store.put_many(forking())
    except SystemExit as error:
        if os.getpid() == parent:
            raise
        os._exit(error.code)
    assert all(np.array_equal(store.get(key), value) for key, value in zip(keys, values, strict=True))


def test_fork_after_use(store):
    array = np.random.default_rng(0).random(1_000_000)
    key = store.put(array)  # threads are running now
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, store.put({"child": array}).encode() + str(np.array_equal(store.get(key), array)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    assert text[64:] == "True"
    np.testing.assert_array_equal(store.get(text[:64])["child"], array)


def test_a_forked_child_does_not_wait_for_locks_of_the_parent(store):
    key = store.put(1)
    with store.backend._exclusive():  # as when another thread is changing a ref
        pid = os.fork()
        if pid == 0:
            time.sleep(250)
            os._exit(0)
    store.refs["free"] = key
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)  # it has all that time been there
    os.kill(pid, 9)
    os.waitpid(pid, 0)


@pytest.mark.second
def test_a_forked_child_goes_on_with_its_parents_iterators(store):
    data = np.random.default_rng(0).bytes(24 << 20)
    key = store.put_bytes(data)
    objects = (value for _, value in store.get_many([key, key]))
    for begun, everything in ((store.iter_bytes(key), data), (objects, 2 * data)):
        first = next(begun)  # threads are running now, and only in the parent
        assert in_a_child(lambda begun=begun: list(begun)) == 0
        assert b"".join([first, *begun]) == everything


def test_a_fork_waits_for_imports_at_a_first_use(python, root):
    """A child can never see the end of what another thread was importing."""
    code = (
        "import os, signal, sys, threading, importlib.abc, mfstore\n"
        "begun, go = threading.Event(), threading.Event()\n"
        "class Slow(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'mfstore.store': begun.set(); go.wait(30)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "thread = threading.Thread(target=lambda: mfstore.open(sys.argv[1]).put(1)); thread.start()\n"
        "begun.wait(); threading.Timer(0.1, go.set).start()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    signal.alarm(60); mfstore.open(sys.argv[1]).put(2); os._exit(0)\n"
        "thread.join(); print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert python(code, root) == "0\n"


@pytest.mark.second
@pytest.mark.parametrize("kind", ["directory", "memory"])
@pytest.mark.parametrize("warm", [True, False])
def test_a_signal_handler_saves_while_its_own_thread_does(tmp_path, kind, warm):
    """At every call, one after the other: nothing waits for itself, and nothing acknowledged is lost."""
    at, depth, seen = 1, 0, 0
    acknowledged = {}

    def handler():
        acknowledged["handler"] = store.put(["handler", at])
        store.refs["both"] = acknowledged["handler"]

    def trace(frame, event, argument):
        nonlocal seen, depth
        if "mfstore" in frame.f_code.co_filename and event in ("call", "return") and not depth:
            seen += 1
            if seen == at:
                depth += 1
                handler()
                depth -= 1
        return

    while True:
        store = mfstore.open(f"memory://at-{at}-{warm}" if kind == "memory" else tmp_path / f"{at}", fsync="none")
        if warm:
            store.refs["both"] = store.put(0)
        seen = 0
        sys.setprofile(trace)
        try:
            store.refs["both"] = key = store.put(["main", at])
        finally:
            sys.setprofile(None)
        if seen < at:
            break
        assert store.get(key) == ["main", at]
        assert store.get(acknowledged["handler"]) == ["handler", at]
        values = {entry.key for entry in store.refs.history("both")}
        assert {key, acknowledged["handler"]} <= values, at
        at += 7


def test_nothing_counted_is_lost(store):
    key = store.put(b"0123456789")
    size, before = store.stat(key).size, store.session.loaded
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(lambda _: [store.get(key) for _ in range(300)], range(4))
    finally:
        sys.setswitchinterval(interval)
    assert store.session.loaded - before == 1200 * size


@pytest.mark.second
def test_more_maps_than_descriptors(python, root):
    code = (
        "import resource, sys, numpy as np, mfstore\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
        "store = mfstore.open(sys.argv[1], fsync='none')\n"
        "noise = np.random.default_rng(0)\n"
        "key = store.save({str(n): noise.random(140_000) for n in range(150)})\n"
        "print(len(store.load(key)))\n"
    )
    assert python(code, root) == "150\n"


def _work(store, number):
    return store.put({"n": number, "a": np.full(100_000, number)}), os.getpid()


@pytest.mark.second
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_handles_work_in_pools(store, method):
    store.put(np.random.default_rng(0).random(500_000))
    with multiprocessing.get_context(method).Pool(2) as pool:
        done = pool.starmap(_work, [(store, number) for number in range(6)])
    for number, (key, _) in enumerate(done):
        assert store.get(key)["n"] == number


def test_no_traceback_at_exit(python, root):
    code = (
        "import sys, threading, numpy as np, mfstore\n"
        "store = mfstore.open(sys.argv[1])\n"
        "store.put(np.random.default_rng(0).random(1_000_000))\n"
        "threading.Thread(target=store.put, args=(np.ones(5_000_000),)).start()\n"
    )
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-W", "error", "-c", code, root], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


PEAK = """
import resource, sys, numpy as np, mfstore
def peak():
    return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024
def reset():
    open('/proc/self/clear_refs', 'w').write('5')
def rss(kind):
    return int(open('/proc/self/status').read().split(kind + ':')[1].split()[0]) * 1024
root, what, size, memory = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
store = mfstore.open(root, fsync='none', memory=memory)
store.put(np.random.default_rng(0).random(300_000))
if what == 'noise':
    obj = np.random.default_rng(0).random(size // 8)
elif what == 'zeros':
    obj = np.repeat(np.arange(size // 8192.0), 1024)
elif what == 'bytes':
    obj = np.random.default_rng(0).bytes(size)
elif what == 'strided':
    obj = np.random.default_rng(0).random((size // 16, 2))[:, 0]
elif what == 'text':
    obj = 'some text ' * (size // 10)
elif what == 'graph':
    obj = [{'id': n, 'value': n * 0.5, 'name': f'number {n}'} for n in range(size // 250)]
reset(); before = rss('VmRSS'); key = store.put(obj); print(peak() - before)
kind = type(obj); small = what in ('graph', 'text')
del obj
reset(); before = rss('VmRSS'); back = store.get(key); print(peak() - rss('VmRSS') - (size if what == 'text' else 0) if small else peak() - before - size)
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["noise", "zeros", "bytes", "strided", "text", "graph"])
def test_extra_memory_is_bounded(python, root, what):
    """Beyond the object itself, whatever its size."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs /proc/self/clear_refs")
    budget = 64 << 20
    save, load = map(int, python(PEAK, root, what, 4 * budget, budget).split())
    # What the unpickler itself remembers of a graph takes all of it; pages of the interpreter come on top.
    assert save <= budget + (16 << 20), "saving"
    assert load <= budget + (16 << 20), "loading"


def test_large_work_runs_on_several_threads(root):
    """Hashing, encoding and reading each meet at a barrier that one thread alone would never pass."""
    import threading

    from mfstore.loading.fetch import Fetcher
    from mfstore.saving.pipeline import ChunkPipeline

    data = np.repeat(np.arange(4_000.0), 1024)  # 31 MiB that compress: several tasks of every kind
    met = {}

    def meeting(original, name):
        barrier = threading.Barrier(2)
        met[name] = []

        def meet(self, *args):
            if len(met[name]) < 2 and threading.current_thread().name.startswith("mfstore"):
                met[name].append(threading.get_ident())
                barrier.wait(60)
            return original(self, *args)

        return meet

    with mfstore.open(root, threads=2, fsync="none") as store, pytest.MonkeyPatch.context() as patch:
        for owner, name in ((ChunkPipeline, "_hash"), (ChunkPipeline, "_encode"), (Fetcher, "_read")):
            patch.setattr(owner, name, meeting(getattr(owner, name), name))
        np.testing.assert_array_equal(store.get(store.put(data)), data)
    assert all(len(set(threads)) == 2 for threads in met.values())


@pytest.mark.slow
def test_a_task_runs_once_even_when_threads_cannot_be_started(store, monkeypatch):
    """Queued before the failure shows, a task must not run again later, over memory already handed out."""
    import threading

    zeros = np.repeat(np.arange(8_000.0), 1024)
    key = store.put(zeros)
    store.close()
    start, failed = threading.Thread.start, []

    def fail_once(self):
        if not failed:
            failed.append(1)
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", fail_once)
    array = store.get(key)
    np.testing.assert_array_equal(array, zeros)
    array[:] = -1
    store.get(key)
    assert failed
    assert (array == -1).all()


def test_errors_pickle():
    error = mfstore.errors.CorruptObject("damaged", key="k", offset=5, expected=1, found=2, hint="do this")
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), back.offset) == (type(error), str(error), 5)
    for cls in vars(mfstore.errors).values():
        if isinstance(cls, type) and issubclass(cls, mfstore.errors.MfstoreError):
            back = pickle.loads(pickle.dumps(cls("text", key="k")))
            assert type(back) is cls
            assert str(back) == "text (key k)"
            assert cls.code


def test_the_error_tree():
    e = mfstore.errors
    assert issubclass(e.NotFound, KeyError)
    assert issubclass(e.AccessDenied, PermissionError)
    assert issubclass(e.InvalidKey, ValueError)
    assert issubclass(e.InvalidRange, ValueError)
    assert issubclass(e.OutOfSpace, OSError)
    assert issubclass(e.NotSerializable, TypeError)
    assert issubclass(e.WrongArgument, TypeError)
    codes = [cls.code for cls in e.MfstoreError.__subclasses__() if cls.__module__ == e.__name__]
    assert len(codes) == len(set(codes)) <= 16
