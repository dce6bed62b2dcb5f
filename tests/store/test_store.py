"""The front door: what the docstrings of Store promise."""

import asyncio
import contextlib
import ctypes
import errno
import gc
import inspect
import io
import os
import pickle
import random
import re
import socket
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.backends import open_backend
from mfstore.backends.base import Capabilities
from mfstore.backends.memory import MemoryBackend
from mfstore.errors import NotSerializable
from mfstore.host import pipes
from mfstore.loading import artifacts
from mfstore.maintenance.store.gc import GcPlan
from mfstore.saving import drafts
from mfstore.settings import resolve
from mfstore.store import Store
from tests.rigs.concurrency import in_threads


def test_keys_are_strings(store):
    key = store.put({"a": 1})
    assert isinstance(key, str)
    assert len(key) == 64
    assert key == str(key)
    assert store.get(str(key)) == {"a": 1}
    assert pickle.loads(pickle.dumps(key)) == key


def test_put_many_keeps_order_and_duplicates(store):
    objs = [3, 1, 2, 1, np.arange(50_000), np.arange(50_000)]
    keys = store.put_many(iter(objs))
    assert keys[1] == keys[3]
    assert keys[4] == keys[5]
    assert keys == [store.put(obj) for obj in objs]
    assert store.put_many([]) == []


@pytest.mark.second
@pytest.mark.parametrize("size", [100, 50_000, 300_000, 5_000_000])
def test_a_generator_may_reuse_its_memory(store, size):
    def generate():
        array = np.empty(size)
        for seed in range(5):
            array[:] = np.random.default_rng(seed).random(size)
            yield array
        array[:] = 0

    for seed, (_, array) in enumerate(store.get_many(store.put_many(generate()))):
        np.testing.assert_array_equal(array, np.random.default_rng(seed).random(size))


def test_get_many(store):
    keys = store.put_many(list(range(200)))
    assert list(store.get_many(keys)) == list(zip(keys, range(200), strict=True))
    assert list(store.get_many(iter(keys + keys[:3])))[-1] == (keys[2], 2)
    assert sorted(obj for _, obj in store.get_many(keys, ordered=False)) == list(range(200))
    assert list(store.get_many([])) == []


def test_get_many_on_error(store):
    keys = store.put_many([1, 2])
    asked = [keys[0], "0" * 64, keys[1]]
    found = store.get_many(asked)
    assert next(found) == (keys[0], 1)
    with pytest.raises(errors.NotFound):
        next(found)
    assert list(store.get_many(asked, on_error="omit")) == [(keys[0], 1), (keys[1], 2)]
    returned = list(store.get_many(asked, on_error="return"))
    assert [key for key, _ in returned] == asked
    assert isinstance(returned[1][1], errors.NotFound)
    with pytest.raises(ValueError, match="on_error"):
        list(store.get_many(asked, on_error="ignore"))


def test_progress_is_called_for_each(store):
    ticks = []
    keys = store.put_many([1, 2, 3], progress=ticks.append)
    assert ticks == [1, 1, 1]
    list(store.get_many(keys, progress=ticks.append))
    assert sum(ticks) == 6


def test_bundles(store):
    artifacts = {"x": 1, "df": np.arange(100_000.0), "text": "t" * 5000, "ü": None, "": [1], "big": b"b" * 200_000}
    key = store.save(artifacts)
    assert store.save(dict(reversed(artifacts.items()))) == key
    loaded = store.load(key)
    assert set(loaded) == set(artifacts)
    np.testing.assert_array_equal(loaded["df"], artifacts["df"])
    assert {name: loaded[name] for name in loaded if name != "df"} == {n: v for n, v in artifacts.items() if n != "df"}
    assert store.load(key, ["x", "ü"]) == {"x": 1, "ü": None}
    assert store.load(key, names=iter(["x", "x"])) == {"x": 1}
    assert store.load(key, []) == {}
    assert store.get(key)["x"] == 1
    assert store.load(store.save({})) == {}


def test_bundle_errors(store):
    key = store.save({"x": 1})
    with pytest.raises(errors.NotFound, match="no artifact 'y'.*x"):
        store.load(key, ["y"])
    with pytest.raises(errors.Unsupported, match="not a bundle"):
        store.load(store.put(1))
    with pytest.raises(errors.Unsupported, match="name one of its artifacts"):
        store.get_bytes(key)
    with pytest.raises(errors.InvalidKey):
        store.save({1: 2})
    assert pickle.loads(store.get_bytes(key, name="x")) == 1


def test_loading_names_reads_only_their_bytes(root):
    writer = mfstore.open(root)
    noise = np.random.default_rng(0)
    key = writer.save({"small": 1, **{f"array{n}": noise.integers(1 << 63, size=60_000) for n in range(20)}})
    reader = mfstore.open(root)
    read = []
    original = reader.backend.read_into
    reader.backend.read_into = lambda path, start, target: (read.append(len(target)), original(path, start, target))[1]
    range_ = reader.backend.get_range
    reader.backend.get_range = lambda path, start, length: (read.append(length), range_(path, start, length))[1]
    assert reader.load(key, ["small"]) == {"small": 1}
    assert read == []
    reader.load(key, ["array3"])
    assert 480_000 <= sum(read) < 600_000


def test_a_bundle_of_small_artifacts_is_few_objects(root):
    store = mfstore.open(root)
    before = store.session.objects
    key = store.save({f"a{n}": list(range(n)) for n in range(20)})
    assert store.session.objects - before <= 2
    key = store.save({f"a{n}": list(range(5000 + n)) for n in range(20)})
    stats = store.stats()
    assert (stats.packs, stats.recipes, stats.index_fragments) == (1, 2, 1)
    assert store.load(key)["a19"] == list(range(5019))


def test_large_raw_arrays_are_mapped(store, root):
    key = store.put(np.random.default_rng(0).integers(1 << 63, size=1_000_000))

    def mapped():
        with open("/proc/self/maps") as maps:
            return [line for line in maps if root in line]

    assert mapped() == []
    array = store.get(key)
    assert len(mapped()) == 1
    assert " rw-p " in mapped()[0]
    del array
    assert mapped() == []


# ---- bytes and files ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 65_536, 65_537, 3_000_000])
def test_bytes_and_ranges(store, size):
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    key = store.put_bytes(data)
    assert store.get_bytes(key) == data
    assert store.get(key) == data
    assert store.stat(key).size == size
    for start, end in [
        (0, 0),
        (0, 1),
        (size // 2, size),
        (size // 3, size // 2),
        (size, None),
        (0, size + 100),
        (size // 2, None),
    ]:
        assert store.get_bytes(key, start, end) == data[start : size if end is None else end]


def test_ranges_of_a_pickle_with_segments(store):
    obj = {"a": np.arange(30_000.0), "t": "text", "b": b"x" * 100_000, "c": np.random.default_rng(1).random((40, 9000))}
    key = store.put(obj)
    joined = store.get_bytes(key)
    assert pickle.loads(joined)["t"] == "text"
    rng = np.random.default_rng(2)
    for _ in range(100):
        start, end = sorted(rng.integers(0, len(joined) + 1, 2).tolist())
        assert store.get_bytes(key, start, end) == joined[start:end]


@pytest.mark.parametrize(("start", "end"), [(-1, None), (11, None), (5, 4), (0, -1)])
def test_bad_ranges(store, start, end):
    key = store.put_bytes(b"0123456789")
    with pytest.raises(errors.InvalidRange):
        store.get_bytes(key, start, end)


@pytest.mark.parametrize("data", [memoryview(b"abcdef"), bytearray(b"abcdef"), np.frombuffer(b"abcdef", np.uint16)])
def test_put_bytes_takes_buffers(store, data):
    assert store.put_bytes(data) == store.put_bytes(b"abcdef")


def test_put_bytes_refuses_non_contiguous(store):
    with pytest.raises((TypeError, BufferError, ValueError)):
        store.put_bytes(np.arange(10)[::2])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (np.array([object(), "a"]), "addresses"),
        (np.zeros(2, [("a", "i4"), ("O", "O")]), "addresses"),
        ((ctypes.py_object * 1)(1), "addresses"),
        ((ctypes.c_void_p * 2)(), "addresses"),
        ((ctypes.c_char_p * 1)(b"a"), "addresses"),
        ((ctypes.c_wchar_p * 1)("a"), "addresses"),
        ((ctypes.POINTER(ctypes.c_int) * 1)(), "addresses"),
        (np.array([1], "M8[s]"), "as bytes"),
        (np.ones((2, 3), order="F"), "one piece"),
    ],
)
def test_put_bytes_refuses_what_is_not_content(store, data, why):
    with pytest.raises(TypeError, match=why):
        store.put_bytes(data)
    assert list(store.keys()) == []


@pytest.mark.parametrize(
    "data",
    [np.zeros(2, [("O", "i4"), ("z", "c16")]), np.array([1 + 2j]), np.array(["ab"]), np.float16([1]), np.void(b"abc"),
     (ctypes.c_int * 3)(1), np.ones((2, 0))],
)  # fmt: skip
def test_put_bytes_takes_every_kind_of_content(store, data):
    assert store.get(store.put_bytes(data)) == memoryview(data).tobytes()


def test_a_pickle_refuses_buffers_of_addresses(store):
    """Also a class's own, which plain pickle takes for bytes."""

    class Buffered:
        def __reduce_ex__(self, protocol):
            return bytes, (pickle.PickleBuffer(np.array([object()])),)

    with pytest.raises(NotSerializable, match="addresses"):
        store.put(Buffered())


def test_files(store, tmp_path):
    data = np.random.default_rng(0).random(2_000_000).tobytes()
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(data)
    key = store.put_file(source)
    assert key == store.put_bytes(data)
    store.get_file(key, target)
    assert target.read_bytes() == data
    store.get_file(store.put_bytes(b""), str(target))
    assert target.read_bytes() == b""
    with pytest.raises(FileNotFoundError):
        store.put_file(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no such directory: '.*/no'"):
        store.get_file(key, tmp_path / "no" / "directory")
    with pytest.raises(IsADirectoryError, match=re.escape(repr(str(tmp_path)))):
        store.get_file(key, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(errors.Unsupported, match="no regular file"):
        store.get_file(key, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo() and not (tmp_path / "pipe").unlink()
    with pytest.raises(errors.NotFound):
        store.get_file("0" * 64, target)
    assert target.read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "store"]


@pytest.mark.parametrize("opened", [False, True], ids=["a writer that comes", "a writer that waits"])
def test_a_pipe_is_stored_to_its_end(store, tmp_path, opened):
    pipe, data = tmp_path / "pipe", random.Random(1).randbytes(300_000)
    os.mkfifo(pipe)
    ahead = os.open(pipe, os.O_RDWR) if opened else None

    def write():
        with open(pipe, "wb") as file:  # comes back when there is a reader
            file.write(data)  # more than a pipe holds: it is being read when this returns
            if ahead is not None:
                os.close(ahead)

    writer = threading.Thread(target=write)
    writer.start()
    key = store.put_file(pipe)
    writer.join()
    assert store.get_bytes(key) == data


def test_a_pipe_that_nobody_writes_to_is_told(store, tmp_path, monkeypatch):
    monkeypatch.setattr(pipes, "WRITER_SECONDS", 0.0)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(errors.NotFound, match="nobody writes to this pipe"):
        store.put_file(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        server = socket.socket(socket.AF_UNIX)
        with server, contextlib.chdir(tmp_path):
            server.bind("socket")
            store.put_file("socket")
    assert store.get_bytes(store.put_file("/dev/null")) == b""
    reader, writer = os.pipe()
    os.close(writer)  # it is done, and has written nothing
    assert store.get_bytes(store.put_file(f"/dev/fd/{reader}")) == b""
    os.close(reader)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_file_that_there_is_no_room_for(store, tmp_path, monkeypatch, code):
    key, target = store.put_bytes(b"data"), tmp_path / "out"
    target.write_bytes(b"old")

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr("mfstore.loading.files.open", lambda path, mode, **_: Full(path, mode), raising=False)
    with pytest.raises(errors.OutOfSpace) as caught:
        store.get_file(key, target)
    assert str(target) in str(caught.value) and caught.value.hint and caught.value.__cause__.errno == code
    assert target.read_bytes() == b"old" and sorted(path.name for path in tmp_path.iterdir()) == ["out", "store"]


# ---- what fails for one item ------------------------------------------------------------------


class Fails:
    """Cannot be unpickled: with an error of any class."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return fail, (self.error,)


def fail(error):
    raise error


def saved_with_failures(store):
    """Keys, and the classes of the errors that they end with."""
    errors_of = {}
    for wrong in (ModuleNotFoundError("gone"), ZeroDivisionError(), MemoryError(), OSError("odd"), KeyError("k")):
        kind = MemoryError if isinstance(wrong, MemoryError) else errors.NotLoadable
        errors_of[store.put(Fails(wrong))] = kind
        errors_of[store.save({"fine": 1, "bad": Fails(wrong)})] = kind
    errors_of["0" * 64] = errors.NotFound
    errors_of["no//name"] = errors.InvalidKey
    errors_of["no ref"] = errors.NotFound
    return errors_of


def check_failures(store):
    wrong = saved_with_failures(store)
    fine = store.put("fine")
    for verify in (True, False):
        for asked in ([*wrong, fine], [fine, *wrong], list(wrong), ["no//name", "no ref", fine]):
            done = []
            got = list(store.get_many(asked, on_error="return", progress=done.append, verify=verify))
            assert [key for key, _ in got] == asked and sum(done) == len(asked)
            for key, value in got:
                if key == fine:
                    assert value == "fine"
                    continue
                assert type(value) is wrong[key]
                if wrong[key] in (errors.NotLoadable, MemoryError):
                    said = str(value) + " ".join(getattr(value, "__notes__", ()))
                    assert key in said and store.backend.url in said
            assert list(store.get_many(asked, on_error="omit")) == [(key, "fine") for key in asked if key == fine]
    for key, kind in wrong.items():
        with pytest.raises(kind):
            list(store.get_many([key]))
        with pytest.raises(kind):
            store.get(key)


class FarAway(MemoryBackend):
    """Asked as S3 is: for everything together."""

    capabilities = Capabilities(remote=True)


def test_every_exception_of_one_item_is_its_outcome(store):
    check_failures(store)
    check_failures(Store("far", FarAway(), resolve(), create=True, algorithm="blake3"))


def test_what_could_not_be_loaded_is_named(store):
    key = store.save({"fine": [1], "model": Fails(ModuleNotFoundError("gone"))})
    assert store.load(key, ["fine"]) == {"fine": [1]}
    for load in (store.get, store.load, lambda key: store.load(key, ["model"], writable=False)):
        with pytest.raises(errors.NotLoadable, match="artifact 'model'.*: ModuleNotFoundError: gone") as caught:
            load(key)
        assert (caught.value.key, caught.value.artifact, caught.value.backend) == (key, "model", store.backend.url)
        assert caught.value.__cause__.__notes__ == [
            "in artifact 'model'", f"while loading {key} from {store.backend.url}",
        ]  # fmt: skip


def test_put_many_says_which_item_could_not_be_pickled(store):
    with pytest.raises(NotSerializable, match=r"objs\[2\]: the object cannot be pickled at obj\['f'\]"):
        store.put_many(iter([1, 2, {"f": (i for i in ())}]))
    with pytest.raises(NotSerializable, match=r"^the object cannot"):
        store.put(i for i in ())


def test_a_damaged_pickle_that_is_read_unverified_is_told_as_damage(root):
    """Whatever the unpickler makes of it: a MemoryError, for a length that became huge."""
    store = mfstore.open(root, fsync="none", compress=False)
    key = store.put(["x" * 3000, list(range(30_000))])
    (pack,) = Path(root, "packs").glob("*/*")
    data = bytearray(pack.read_bytes())
    at = data.index(b"X\xb8\x0b\x00\x00xxx")
    data[at] = 0x8D  # BINUNICODE8, of a length that the text itself says
    pack.write_bytes(data)
    with pytest.raises(errors.CorruptObject):
        store.get(key, verify=False)
    (outcome,) = store.get_many([key], on_error="return", verify=False)
    assert isinstance(outcome[1], errors.CorruptObject)


def test_an_artifact_whose_body_is_no_pickle(store, monkeypatch):
    """As a program that writes stores by itself could store."""
    for body in (b"no pickle at all", b"\x80\x05", b"\x00" * 70_000):
        with monkeypatch.context() as patch:
            patch.setattr(drafts, "dump", lambda obj, sink, *_, body=body: sink.body(body))
            key = store.put(1)
        for load in (store.get, lambda key: store.get(key, writable=False)):
            with pytest.raises(errors.CorruptObject, match="no pickle"):
                load(key)
        assert store.get_bytes(key) == body


LONG = np.random.default_rng(2).bytes(1_000_000)


@pytest.mark.parametrize(
    "value",
    [
        [LONG, list(range(60_000))], [LONG.hex(), list(range(60_000))], (bytearray(LONG), list(range(60_000))), LONG,
        list(range(60_000)), [int.from_bytes(LONG), list(range(60_000))],
    ],
    ids=["bytes", "text", "bytearray", "alone", "frames", "number"],
)  # fmt: skip
def test_another_picklers_long_body_is_read_in_blocks(root, monkeypatch, value):
    """CPython's writes what is long outside of its frames, so the first block may look like mfstore's own."""
    monkeypatch.setattr(artifacts, "BODIES_TOGETHER", 64 << 10)
    store = mfstore.open(root, fsync="none", compress=False)
    with monkeypatch.context() as patch:
        patch.setattr(drafts, "dump", lambda obj, sink, *_: sink.body(pickle.dumps(obj, 5)))
        key = store.put(value)
    for writable in (True, False):
        assert store.get(key, writable=writable) == value
    assert store.get(store.put(value)) == value


# ---- questions ------------------------------------------------------------------------------


def test_exists(store):
    key = store.put(1)
    assert store.exists(key)
    assert not store.exists("0" * 64)
    assert store.exists_many([key, "0" * 64, key]) == [True, False, True]
    assert store.exists_many([]) == []


def test_stat(store):
    stat = store.stat(store.put(np.zeros(1_000_000)))
    assert stat.type == "numpy.ndarray"
    assert 8_000_000 <= stat.size < 8_001_000
    assert 0 < stat.stored < 100_000
    assert stat.chunks > 20
    assert stat.segments == 1
    assert store.stat(store.put(1)).type == "int"
    assert store.stat(store.put_bytes(b"x")).type == "bytes"
    bundle = store.stat(store.save({"a": 1, "b": "x"}))
    assert bundle.type == "bundle"
    assert bundle.artifacts == {"a": "int", "b": "str"}


def test_stats_and_keys(store):
    keys = store.put_many([1, np.random.default_rng(0).random(50_000)])
    store.refs["a"] = keys[0]
    stats = store.stats()
    assert (stats.recipes, stats.packs, stats.index_fragments, stats.refs) == (2, 1, 1, 1)
    assert stats.stored == sum(stats.by_kind.values())
    assert stats.session.artifacts == 2
    assert stats.session.logical > 400_000
    assert set(store.keys()) == set(keys)
    store.put_many([1])
    assert store.session.duplicate > 0


def test_unchanged_content_is_stored_once(store):
    array = np.random.default_rng(0).random(500_000)
    store.put(array)
    before = store.stats().stored
    store.put({"other": "artifact", "array": array})
    assert store.stats().stored - before < 3300  # of it 200 are what the recipe says of who stored it


# ---- refs -----------------------------------------------------------------------------------


def test_refs(store, root):
    one, two = store.put(1), store.put(2)
    store.refs["models/churn"] = one
    store.refs["models"] = two
    store.refs["models/churn"] = two
    assert mfstore.open(root).refs["models/churn"] == two
    assert dict(store.refs) == {"models": two, "models/churn": two}
    assert "models" in store.refs
    assert "other" not in store.refs
    assert len(store.refs) == 2
    assert [entry.key for entry in store.refs.history("models/churn")] == [two, one]
    assert store.refs.get("none") is None
    del store.refs["models"]
    assert list(store.refs) == ["models/churn"]
    with pytest.raises(errors.NotFound):
        del store.refs["models"]
    with pytest.raises(errors.NotFound, match="can only name what is stored"):
        store.refs["x"] = "0" * 64
    with pytest.raises(errors.NotFound, match="no ref 'not a key'"):
        store.refs["x"] = "not a key"


def test_refs_compare_and_set(store):
    one, two = store.put(1), store.put(2)
    store.refs.set_if("r", one, None)
    with pytest.raises(errors.Conflict):
        store.refs.set_if("r", two, None)
    store.refs.set_if("r", two, one)
    with pytest.raises(errors.Conflict):
        store.refs.set_if("r", one, one)
    assert store.refs["r"] == two


def test_concurrent_refs_lose_no_history(store):
    keys = store.put_many(range(24))

    def work(part):
        for key in part:
            store.refs["shared"] = key

    threads = [threading.Thread(target=work, args=(keys[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry.key for entry in store.refs.history("shared")) == sorted(keys)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/abs",
        "a//b",
        "a/",
        "..",
        "../x",
        "a/../../b",
        ".",
        "a/./b",
        "a\\b",
        "a\0b",
        "a\nb",
        "x" * 300,
        "\ud800",
        5,
    ],
)
def test_bad_ref_names(store, root, tmp_path, name):
    key = store.put(1)
    with pytest.raises(errors.InvalidKey):
        store.refs[name] = key
    with pytest.raises(errors.InvalidKey):
        store.refs[name]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(
    "name", ["a.b", ".hidden", "%2e%2e", "é", "日本/x", "a b", "C:", "con", "x" * 200, "?q#f;", ".tmp-1"]
)
def test_unusual_ref_names(store, name):
    key = store.put(1)
    store.refs[name] = key
    assert store.refs[name] == key
    assert list(store.refs) == [name]


# ---- the handle -------------------------------------------------------------------------------


def test_context_manager_and_reuse_after_close(root):
    with mfstore.open(root) as store:
        key = store.put(np.random.default_rng(0).random(400_000))
    assert store.get(key).shape == (400_000,)
    store.close()
    store.close()


def test_handles_pickle(store):
    key = store.put([1, 2])
    other = pickle.loads(pickle.dumps(store))
    assert isinstance(other, Store)
    assert other.get(key) == [1, 2]
    assert other.knobs == store.knobs


def test_file_urls_and_paths(root, tmp_path):
    key = mfstore.open(root).put(1)
    assert mfstore.open(f"file://{root}").get(key) == 1
    assert mfstore.open(tmp_path / "store").get(key) == 1


@pytest.mark.parametrize(
    "url",
    [Path("s3://bucket/prefix"), "s3:bucket/x", "s3:/bucket/x", "memory:", "file:/x", "ab+c:x", "~nobody-called-so/x"],
)
def test_a_url_that_is_none_makes_no_directory(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.InvalidKey, match=r"\./") as caught:
        mfstore.open(url)
    assert str(url) in str(caught.value)
    mfstore.open(f"./{url}").put(1)
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["~/store", Path("~/store")])
def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch, path):
    monkeypatch.setenv("HOME", str(tmp_path))
    mfstore.open(path).put(1)
    assert (tmp_path / "store" / "mfstore.json").exists()


@pytest.mark.parametrize("url", [None, 123, b"store", ["store"]])
def test_where_a_store_is_must_be_text(url):
    with pytest.raises(TypeError, match="url is"):
        mfstore.open(url)


def test_a_store_is_opened():
    with pytest.raises(TypeError, match=r"mfstore.open\('models'\)"):
        Store("models")


def test_an_empty_directory_becomes_a_store(tmp_path):
    store = mfstore.open(tmp_path)
    assert not list(tmp_path.iterdir()) and not list(store) and not list(store.keys()) and store.stats().recipes == 0
    for call in (lambda: store.get("models/churn"), lambda: store.get("0" * 64), lambda: store.delete("models/churn")):
        with pytest.raises(errors.NotFound, match="no store there yet .*The first put makes one"):
            call()
    with pytest.raises(errors.NotFound, match=r"no store there yet \(in [^ ]*\)$"):
        mfstore.open(tmp_path, create=False).get("0" * 64)
    assert store.get(store.put(1)) == 1


def test_memory_stores():
    one = mfstore.open("memory://")
    key = one.put(np.arange(100_000))
    assert not mfstore.open("memory://").exists(key)
    shared = mfstore.open("memory://team")
    assert mfstore.open("memory://team").exists(shared.put(1))
    assert pickle.loads(pickle.dumps(one)).exists(key)
    # Without a name nobody can open it again: it goes with its last handle.
    kept = weakref.ref(one.backend._space)
    del one
    gc.collect()
    assert kept() is None


def test_reading_creates_nothing(root, tmp_path):
    store = mfstore.open(root)
    assert not store.exists("0" * 64)
    assert list(store.keys()) == []
    assert list(store.refs) == []
    assert store.stats().stored == 0
    with pytest.raises(errors.NotFound):
        store.get("0" * 64)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(errors.NotFound, match="create=True"):
        mfstore.open(root, create=False).put(1)
    assert list(tmp_path.iterdir()) == []


def test_sha256_stores(tmp_path):
    store = mfstore.open(tmp_path / "sha", hash="sha256")
    data = np.random.default_rng(0).random(300_000)
    key = store.put(data)
    other = mfstore.open(tmp_path / "sha")
    np.testing.assert_array_equal(other.get(key), data)
    assert other.put(data) == key
    assert mfstore.open("memory://").put(data) != key


def test_uncompressed_stores_have_the_same_keys(tmp_path):
    data = np.zeros(500_000)
    raw, packed = mfstore.open(tmp_path / "raw", compress=False), mfstore.open(tmp_path / "packed")
    assert raw.put(data) == packed.put(data)
    assert raw.stats().stored > 100 * packed.stats().stored


def test_asynchronous_methods(store, tmp_path):
    (tmp_path / "file").write_bytes(b"bytes")

    async def work():
        key = await store.aput({"a": 1})
        assert await store.aget(key) == {"a": 1}
        keys = await store.aput_many(range(100))
        assert [obj async for _, obj in store.aget_many(keys)] == list(range(100))
        with pytest.raises(errors.NotFound):
            await store.aget("0" * 64)
        bundle = await store.asave({"x": 1, "y": 2})
        assert await store.aload(bundle, ["y"]) == {"y": 2}
        raw = await store.aput_bytes(b"bytes")
        assert await store.aput_file(tmp_path / "file") == raw
        assert await store.aget_bytes(raw, 1, 3) == b"yt"
        assert b"".join([block async for block in store.aiter_bytes(raw)]) == b"bytes"
        await store.aget_file(raw, tmp_path / "copy")
        assert (await store.aexists(raw), await store.aexists_many([raw, "0" * 64])) == (True, [True, False])
        assert (await store.astat(raw)).size == 5
        assert {found async for found in store.akeys()} == set(store.keys())
        assert (await store.astats()).recipes == len(set(store.keys()))
        assert not (await store.averify("full")).damage
        assert not (await store.arepair(dry_run=True)).actions
        assert type(await store.aplan_gc()) is GcPlan
        return await asyncio.gather(*(store.aput([n]) for n in range(20)))

    keys = asyncio.run(work())
    assert (tmp_path / "copy").read_bytes() == b"bytes"
    assert [obj for _, obj in store.get_many(keys)] == [[n] for n in range(20)]


NO_IO = {"close", "handle", "cache", "metrics"}


@pytest.mark.parametrize("name", [name for name, _ in inspect.getmembers(mfstore.Store, inspect.isfunction)])
def test_every_method_has_an_asynchronous_one_with_the_same_parameters(name):
    if (
        name.startswith("_")
        or name in NO_IO
        or (hasattr(mfstore.Store, name.removeprefix("a")) and name.startswith("a"))
    ):
        return
    blocking, twin = getattr(mfstore.Store, name), getattr(mfstore.Store, f"a{name}")
    assert inspect.signature(twin) == inspect.signature(blocking)
    assert inspect.iscoroutinefunction(twin) != inspect.isasyncgenfunction(twin)
    assert inspect.isasyncgenfunction(twin) == inspect.isgeneratorfunction(blocking)
    assert twin.__name__ == f"a{name}"
    assert inspect.cleandoc(blocking.__doc__) in twin.__doc__


def test_an_asynchronous_method_calls_that_of_a_subclass(root):
    class Counting(mfstore.Store):
        puts = 0

        def put(self, obj):
            self.puts += 1
            return super().put(obj)

    plain = mfstore.open(root)
    store = Counting(root, plain.backend, plain.knobs, create=True, algorithm="blake3")
    asyncio.run(store.aput(1))
    assert store.puts == 1


def test_an_iteration_that_is_left_early_is_closed_off_the_loop(root):
    """Its end may have to wait for what reads ahead."""
    ended = []

    class Told(Store):
        def keys(self):
            try:
                yield from super().keys()
            finally:
                ended.append(threading.get_ident())

    async def work():
        store = Told(root, mfstore.open(root).backend, resolve(), create=True, algorithm="blake3")
        await store.aput_many([1, 2, 3])
        iteration = store.akeys()
        async for _ in iteration:
            break
        await iteration.aclose()

    asyncio.run(work())
    assert len(ended) == 1 and ended[0] != threading.get_ident()


def test_secrets_do_not_travel_with_a_pickled_store(s3_env, monkeypatch):
    """What is unpickled says what it needs."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    secrets = {f"aws_{name}": f"the-{name}" for name in ("access_key_id", "secret_access_key", "session_token")}
    backend = open_backend("s3://bucket/p", resolve(), region_name="us-east-1", **secrets)
    store = Store("s3://bucket/p", backend, resolve(), create=True, algorithm="blake3")
    data = pickle.dumps({"store": store})
    assert not [name for name in secrets if secrets[name].encode() in data]
    with pytest.raises(errors.AccessDenied, match="aws_secret_access_key"):
        pickle.loads(data)["store"].get("0" * 64)


def test_threads_share_a_handle(store):
    arrays = [np.random.default_rng(n).random(200_000) for n in range(4)]

    def work(n):
        for turn in range(5):
            key = store.put({"a": arrays[(n + turn) % 4], "n": n})
            np.testing.assert_array_equal(store.get(key)["a"], arrays[(n + turn) % 4])

    assert not in_threads(work, range(6))


# ---- knobs --------------------------------------------------------------------------------------


def test_knobs(monkeypatch, root):
    monkeypatch.setenv("MFSTORE_THREADS", "3")
    monkeypatch.setenv("MFSTORE_FSYNC", "none")
    monkeypatch.setenv("MFSTORE_VERIFY", "0")
    knobs = mfstore.open(root).knobs
    assert (knobs.threads, knobs.fsync, knobs.verify) == (3, "none", False)
    knobs = mfstore.open(root, threads=1, fsync="always", verify=True).knobs
    assert (knobs.threads, knobs.fsync, knobs.verify) == (1, "always", True)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MFSTORE_THREADS", "many"), ("MFSTORE_THREADS", "0"), ("MFSTORE_FSYNC", "often"), ("MFSTORE_VERIFY", "2")],
)
def test_bad_knobs_name_their_source(monkeypatch, root, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(errors.InvalidKey, match=variable):
        mfstore.open(root)
    monkeypatch.undo()
    with pytest.raises(errors.InvalidKey, match="fsync"):
        mfstore.open(root, fsync="sometimes")


class Refusing:
    """Pickles, and cannot be unpickled."""

    def __reduce__(self):
        return int, ("no number",)


def test_what_is_loaded_together_is_what_each_is(root):
    """Literals, a bundle, bytes and what lies in packs, in one order; and it is counted as much."""
    store = mfstore.open(root)
    values = [1, "text" * 100, b"x" * 5000, np.arange(20_000), np.zeros(3), None, list(range(300))]
    keys = [*store.put_many(values), store.save({"a": 1}), store.put_bytes(b"raw"), store.put(Refusing())]
    apart, together = mfstore.open(root), mfstore.open(root)
    for key, found in together.get_many(keys, on_error="return"):
        try:
            alone = apart.get(key)
        except errors.NotLoadable as error:
            assert type(found.__cause__) is type(error.__cause__) is ValueError
            assert (str(found), found.__cause__.__notes__) == (str(error), error.__cause__.__notes__)
        else:
            np.testing.assert_equal(found, alone)
            assert type(found) is type(alone)
    assert together.session.loaded == apart.session.loaded > 0
    for _, array in together.get_many([keys[4]], writable=False):
        assert not array.flags.writeable
