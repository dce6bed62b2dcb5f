"""What was loaded from far away is on this host, and whatever becomes of it there, loads give what is stored."""

import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
import uuid
import warnings
from functools import partial

import numpy as np
import pytest

import mfstore
from mfstore.errors import InvalidKey, NotFound, NotSigned, UnsafeObject
from mfstore.format.recipes import recipe_path
from mfstore.host import cache as host_cache
from mfstore.host import ranges
from mfstore.host.ranges import RangeCache
from tests.rigs.far_stores import far_store
from tests.servers.base import client_options

ARRAY = np.random.default_rng(0).integers(1 << 63, size=200_000)
"""1.6 MB that nothing shrinks: raw, in more than one read."""
TEXTS = [f"{number} {number * number}" for number in range(100_000)]
"""Groups: 0.3 MB encoded."""


@pytest.fixture
def cache(tmp_path):
    path = tmp_path / "cache"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def far(cache):
    """Open another handle of one store, as another process would."""
    name = uuid.uuid4().hex
    return lambda **more: far_store(name, more.pop("cache", cache), **more)


@pytest.fixture(scope="module")
def stored():
    """The name of a store that nobody changes, and its keys: an array and texts."""
    name = uuid.uuid4().hex
    return name, *far_store(name, None).put_many([ARRAY, TEXTS])


@pytest.fixture
def reading(stored, cache):
    """As ``far``, of the store that nobody changes."""
    return lambda **more: far_store(stored[0], more.pop("cache", cache), **more)


def entries(cache):
    return sorted(path for path in (cache / "contents" / "packs").rglob("*") if path.is_file())


def same(found, expected):
    return np.array_equal(found, expected) if isinstance(expected, np.ndarray) else found == expected


def loaded_once(far, value=ARRAY):
    """A key whose contents are in the cache."""
    key = far().put(value)
    assert same(far().get(key), value)
    return key


# ---- what is asked for --------------------------------------------------------------------


@pytest.mark.parametrize("value", [ARRAY, TEXTS, np.sqrt(np.arange(2e5))], ids=["raw", "groups", "shuffled"])
def test_a_second_load_asks_for_the_recipe_alone(far, value):
    key = loaded_once(far, value)
    second = far()
    assert same(second.get(key), value)
    assert second.backend.since() == {"recipes": 1}


def test_by_a_ref_it_asks_for_the_ref_alone(far):
    far().put(ARRAY, "models/one")
    assert same(far().get("models/one"), ARRAY)
    second = far()
    assert same(second.get("models/one"), ARRAY)
    assert second.backend.since() == {"refs": 1}
    second.put(TEXTS, "models/one")
    assert same(far().get("models/one"), TEXTS)
    assert same(far().get("models/one@1"), ARRAY)


def test_parts_many_and_bundles_are_found_there(far):
    store = far()
    bundle = store.save({"a": ARRAY, "b": TEXTS})
    keys = [store.put(ARRAY + number) for number in range(3)]
    assert same(far().load(bundle, "a"), ARRAY)
    assert same(far().view(bundle)["a"][1000:2000], ARRAY[1000:2000])
    list(far().get_many(keys))
    second = far()
    assert same(second.load(bundle, "a"), ARRAY)
    assert [same(found, ARRAY + number) for number, (_, found) in enumerate(second.get_many(keys))] == [True] * 3
    assert same(second.view(bundle)["a"][3:5], ARRAY[3:5])
    assert "packs" not in second.backend.since()
    assert same(second.load(bundle, "b"), TEXTS)
    assert second.backend.since()["packs"] >= 1


def test_small_artifacts_make_no_files(far, cache):
    store = far()
    keys = [store.put(list(range(number, number + 1000))) for number in range(20)]
    assert [found[0] for _, found in far().get_many(keys)] == list(range(20))
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_what_was_deleted_is_not_served(far):
    key = loaded_once(far)
    far().put(ARRAY, "one")
    assert same(far().get("one"), ARRAY)
    store = far()
    store.backend.delete(recipe_path(key))
    with pytest.raises(NotFound):
        far().get(key)
    del store.refs["one"]
    with pytest.raises(NotFound):
        far().get("one")


def test_what_is_here_has_to_be_signed_and_safe_as_well(far):
    key = loaded_once(far)
    store = far(trusted=(bytes(range(32)),))
    with pytest.raises(NotSigned):
        store.get(key)
    unsafe = far().put([TEXTS, partial(print)])
    far().get(unsafe)
    with pytest.raises(UnsafeObject):
        far(safe=True).get(unsafe)


def test_a_recipe_that_was_rewritten_is_read_where_its_places_are_not_here(far, cache):
    far().put(ARRAY, "one")
    assert same(far().get("one"), ARRAY)
    for path in entries(cache):
        path.unlink()
    store = far()
    assert same(store.get("one"), ARRAY)
    assert store.backend.since().keys() == {"refs", "recipes", "packs"}


@pytest.mark.filterwarnings("ignore:.*is gone")
def test_a_recipe_from_before_a_collection_leads_to_what_is_stored_too(far, cache):
    """Where what is here is damaged, and the index, which knows where it lies now, is lost."""
    far().put_many([ARRAY, *(ARRAY ^ number for number in range(1, 4))])
    far().put(ARRAY, "one")
    far().get("one")
    for _ in range(3):
        far().plan_gc(grace=0).execute(yes_really=True)
    store = far()
    for path in entries(cache):
        path.write_bytes(bytes(path.stat().st_size))
    for info in list(store.backend.list("index/")):
        store.backend.delete(info.key)
    assert same(store.get("one"), ARRAY)
    assert store.backend.since()["recipes"] == 1
    assert same(far().get("one"), ARRAY)
    last = far()
    assert same(last.get("one"), ARRAY)
    assert last.backend.since() == {"refs": 1}


def test_what_a_save_relies_on_is_what_is_stored(far):
    key = loaded_once(far)
    store = far()
    for info in list(store.backend.list("")):
        if info.key.startswith(("packs/", "index/", "recipes/")):
            store.backend.delete(info.key)
    assert far().put(ARRAY) == key
    assert same(far(cache="").get(key), ARRAY)


def test_counts_are_of_the_handle_and_of_the_host(far, cache):
    key = loaded_once(far)
    store = far()
    store.get(key)
    metrics = store.metrics()
    assert (metrics.cached_reads, metrics.fetched_reads, metrics.cached_bytes) == (1, 0, ARRAY.nbytes)
    assert f'mfstore_cache_read_bytes_total{{store="{store.url}"}} {ARRAY.nbytes}' in metrics.prometheus()
    assert "1 of 1 read" in str(metrics)
    usage = RangeCache(cache / "contents", 1 << 40).usage()
    assert usage.hits == 1 and usage.misses >= 1 and usage.served == metrics.cached_bytes
    assert usage.entries == len(entries(cache)) and usage.size >= ARRAY.nbytes and usage.unfinished == 0


@pytest.mark.server
def test_in_s3_a_second_load_is_one_request(radosgw, unhedged, cache):
    url = f"s3://{radosgw.create_bucket(f'cache-{uuid.uuid4().hex[:16]}')}/store"

    def requests(name, value):
        with mfstore.open(url, cache=cache, **client_options(radosgw)) as store:
            before = sum(store.metrics().s3.requests.values())
            assert same(store.get(name), value)
            return sum(store.metrics().s3.requests.values()) - before

    with mfstore.open(url, **client_options(radosgw)) as store:
        key = store.put(ARRAY, "models/one")
    assert requests("models/one", ARRAY) > 2
    assert requests(key, ARRAY) == requests("models/one", ARRAY) == 1


@pytest.mark.server
def test_commands_that_read_contents_take_a_cache(radosgw, cache, tmp_path, monkeypatch):
    from tests.rigs.command_line import mfstore as command

    url = f"s3://{radosgw.create_bucket(f'cache-{uuid.uuid4().hex[:16]}')}/store"
    with mfstore.open(url, **client_options(radosgw)) as store:
        keys = store.put_many([ARRAY, ARRAY + 1])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", radosgw.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", radosgw.secret_key)
    how = ("-s", url, "--endpoint-url", radosgw.url, "--region", radosgw.region)
    command("get", *how, "--cache", str(cache), "-o", str(tmp_path / "one"), keys[0])
    first = entries(cache)
    assert first and same(pickle.loads((tmp_path / "one").read_bytes()), ARRAY)
    command("diff", *how, "--cache", str(cache), *keys)
    assert len(entries(cache)) > len(first)


# ---- maps ---------------------------------------------------------------------------------


def mapped(cache):
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return str(cache) in maps.read()


def test_a_large_raw_array_is_mapped_and_stays(far, cache):
    key = loaded_once(far)
    store = far()
    found, other = store.get(key), store.get(key, writable=False)
    assert mapped(cache)
    assert found.flags.aligned and found.flags.writeable and not other.flags.writeable
    found[:] = 0  # of its own
    assert same(store.get(key), ARRAY)
    for path in entries(cache):
        path.unlink()
    assert same(other, ARRAY)
    del found, other
    assert same(store.get(key, map=False), ARRAY) and not mapped(cache)


def test_nothing_is_mapped_from_a_network_file_system(far, cache, monkeypatch):
    key = loaded_once(far)
    monkeypatch.setattr(ranges, "on_network", lambda path: True)
    found = far().get(key)
    assert same(found, ARRAY) and not mapped(cache)
    found = far().get(key, map=True)
    assert same(found, ARRAY) and mapped(cache)


def test_a_map_is_compared_once_in_a_process(far, monkeypatch):
    key = loaded_once(far)
    store = far()
    reader = store.handle._shared().cached._reader
    checked, original = [], reader.check
    monkeypatch.setattr(reader, "check", lambda *what: (checked.append(1), original(*what)))
    store.get(key)
    first = len(checked)
    store.get(key)
    assert first > 2 and len(checked) - first <= 2  # its body is no map


# ---- damage -------------------------------------------------------------------------------


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def as_after_a_power_loss(path):
    path.write_bytes(bytes(path.stat().st_size))


def grow(path):
    path.write_bytes(path.read_bytes() + b"x")


def to_a_link(path):
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


def to_a_directory(path):
    path.unlink()
    path.mkdir()


def to_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGE = [
    flip, as_after_a_power_loss, grow, to_a_link, to_a_directory, to_a_pipe, lambda path: os.truncate(path, 100),
    lambda path: path.write_bytes(b""),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("which", ["raw", "groups"])
@pytest.mark.parametrize("verify", [True, False])
def test_whatever_becomes_of_an_entry_it_costs_a_read(reading, stored, cache, damage, which, verify):
    key, value = (stored[1], ARRAY) if which == "raw" else (stored[2], TEXTS)
    reading().get(key)
    for path in entries(cache):
        damage(path)
    store = reading()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(store.get(key, verify=verify), value)
    assert store.backend.since()["packs"] >= 1
    if damage is not to_a_directory:
        again = reading()
        assert same(again.get(key), value)
        assert "packs" not in again.backend.since()


def test_recipes_that_are_damaged_are_read(far, cache):
    far().put(ARRAY, "one")
    far().get("one")
    for path in (cache / "contents" / "recipes").rglob("0-*"):
        flip(path)
    store = far()
    assert same(store.get("one"), ARRAY)
    assert store.backend.since() == {"refs": 1, "recipes": 1}


def test_damage_of_deltas_is_found_as_well(far, cache):
    rng = np.random.default_rng(1)
    old = rng.bytes(2 << 20)
    new = bytearray(old)
    new[1_000_000:1_000_010] = b"0123456789"
    base = far().put(old)
    key = far().put(bytes(new), base=base)
    assert far().get(key) == new
    for path in entries(cache):
        as_after_a_power_loss(path)
    assert far().get(key) == new
    assert far().get(key) == new


# ---- a cache that cannot be used ----------------------------------------------------------


def test_a_directory_that_others_may_use_is_refused(tmp_path):
    path = tmp_path / "open"
    path.mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(path)
    hints = {path: f"chmod 700 {path}", tmp_path / "link": f"leads: {path}"}
    if not os.geteuid():
        other = tmp_path / "other"
        other.mkdir(mode=0o700)
        os.chown(other, 65534, 65534)
        hints[other] = "Name a directory of user 0"
    for bad, hint in hints.items():
        with pytest.raises(InvalidKey, match="of this user's") as refused:
            mfstore.open("s3://nobody/asks", cache=bad)
        assert refused.value.hint.endswith(hint)


def test_a_directory_that_was_removed_is_this_users_alone_again(far, cache):
    store = far()
    shutil.rmtree(cache)
    store.get(store.put(ARRAY))
    assert entries(cache)
    assert {path.stat().st_mode & 0o777 for path in [cache, *cache.rglob("*")] if path.is_dir()} == {0o700}
    assert host_cache.open_cache(str(cache), 0) is not None


def test_a_place_is_the_same_wherever_a_program_goes(far, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = far(cache="kept")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    store.get(store.put(ARRAY))
    assert entries(tmp_path / "kept") and not list((tmp_path / "other").iterdir())


def test_what_is_not_of_a_cache_is_never_removed(far, cache, tmp_path):
    """By somebody who names a wrong directory."""
    names = [
        "packs/ab/0-9", "recipes/soup/2020-2021", "metaflow/plugins/__init__.py", "index/a/b", "contents/packs/ab/notes",
        "contents/page.html",
    ]  # fmt: skip
    for name in names:
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).touch()
    store = far(limit=2_000_000)
    for number in range(3):
        store.get(store.put(ARRAY ^ number))
    host_cache.open_cache(str(cache), 0).clear()
    assert sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()) == sorted(
        [*names, "contents/.room"]
    )
    own = tmp_path / "store"
    own.mkdir(mode=0o700)
    mfstore.open(own).put(1)
    with pytest.raises(InvalidKey, match="where a store is"):
        host_cache.open_cache(str(own), 0)


def test_home_is_where_a_shell_has_it(far, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    store = far(cache="~/kept")
    store.get(store.put(ARRAY))
    assert entries(tmp_path / "kept")
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in entries(tmp_path / "kept"))


@pytest.mark.parametrize("broken", ["a file", "a file in its way", "no room", "a limit of files"])
def test_a_cache_that_cannot_be_used_costs_nothing_but_speed(far, cache, tmp_path, monkeypatch, broken):
    more = {}
    if broken == "a file":
        (tmp_path / "file").touch()
        more["cache"] = tmp_path / "file" / "cache"
    elif broken == "a file in its way":
        (cache / "contents").touch()
    elif broken == "no room":
        more["limit"] = 100_000
    else:
        monkeypatch.setattr(ranges.os, "pwrite", lambda *what: (_ for _ in ()).throw(OSError(28, "no space")))
    key = far().put(ARRAY)
    for _ in range(2):
        store = far(**more)
        assert same(store.get(key), ARRAY)
        assert store.backend.since()["packs"] >= 1
    assert [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size > 100] == []


def test_no_cache_by_the_empty_text_and_by_a_limit_of_nothing(far, cache):
    key = far().put(ARRAY)
    for more in ({"cache": ""}, {"cache": None}, {"limit": 0}):
        far(**more).get(key)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("call", ["open", "listdir", "truncate", "pwrite", "preadv", "rename", "fstat", "utime"])
def test_a_failure_of_any_call_costs_nothing_but_speed(reading, stored, cache, monkeypatch, call):
    """Each time that the call is made, from the first on, alone and with all that follow."""
    far, key = reading, stored[1]
    original = getattr(os, call)

    class Failing:
        def __init__(self, number, following):
            self.number, self.following, self.calls = number, following, 0

        def __call__(self, *arguments, **more):
            here = sys._getframe(1).f_code.co_filename == ranges.__file__
            self.calls += here
            if here and (self.calls == self.number or (self.following and self.calls > self.number)):
                raise OSError(5, "as a broken disk says")
            return original(*arguments, **more)

    for following in (False, True):
        number = 0
        while True:
            number += 1
            failing = Failing(number, following)
            with monkeypatch.context() as patch:
                patch.setattr(os, call, failing)
                RangeCache(cache / "contents", 0).clear()
                assert same(far().get(key), ARRAY)
                assert same(far().get(key), ARRAY)
            assert same(far().get(key), ARRAY)
            assert RangeCache(cache / "contents", 0).usage().unfinished == 0 or call in ("open", "rename")
            if failing.calls < number or number == 12:
                break


@pytest.mark.parametrize("how", ["a small disk", "a limit of files"])
def test_a_full_disk_costs_nothing_but_speed(reading, stored, cache, monkeypatch, how):
    """While others fill it: by what is looked at first there was room."""
    monkeypatch.setattr(RangeCache, "_make_room", lambda self, size: True)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    if how == "a small disk":
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", cache], capture_output=True
        )
        if mounted.returncode:
            pytest.skip("may not mount a small file system")
    try:
        if how == "a limit of files":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
        for _ in range(2):
            store = reading()
            assert same(store.get(stored[1]), ARRAY)
            assert store.backend.since()["packs"] >= 1
        assert RangeCache(cache / "contents", 1 << 30).usage()[:2] == (0, 0)
        assert reading().get(stored[2]) == TEXTS
        store = reading()
        assert store.get(stored[2]) == TEXTS
        assert "packs" not in store.backend.since()  # what fits is kept all the same
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        if how == "a small disk":
            subprocess.run(["umount", cache], check=True)


def test_a_part_of_the_disk_stays_free(cache, monkeypatch):
    monkeypatch.setattr(ranges, "FREE_SHARE", 1)  # all of it
    held = RangeCache(cache / "contents", 1 << 30)
    assert held.add([("packs/aa", 0, 1000, 1)]) == [None]


# ---- room ---------------------------------------------------------------------------------


def arrays(far, count):
    store = far()
    return [store.put(ARRAY[:150_000] ^ number) for number in range(count)]


def test_what_was_used_longest_ago_goes_first(far, cache):
    keys = arrays(far, 4)  # of 1.2 MB each
    limit = 4_000_000
    for number, key in enumerate(keys[:3]):
        far(limit=limit).get(key)
        for path in entries(cache):
            if path.stat().st_mtime > 1e9 + 10:
                os.utime(path, (1e9 + number, 1e9 + number))
    far(limit=limit).get(keys[0])  # now it is not the oldest
    far(limit=limit).get(keys[3])
    assert RangeCache(cache / "contents", limit).usage().size <= limit
    second = far(limit=limit)
    second.get(keys[0])
    second.get(keys[3])
    assert "packs" not in second.backend.since()
    second.get(keys[1])
    assert second.backend.since()["packs"] >= 1


def test_who_makes_room_for_long_is_waited_for_once(cache, monkeypatch):
    waits, locked = [], ranges._locked
    monkeypatch.setattr(ranges, "ROOM_SECONDS", 0.0)
    monkeypatch.setattr(ranges, "_locked", lambda *what: (waits.append(what), locked(*what))[1])
    held = RangeCache(cache, 1 << 30)
    with locked(f"{cache}/{ranges.ROOM_LOCK}", 0.0) as alone:
        assert alone
        assert held.add([("packs/aa", start, start + 9, 1) for start in range(0, 90, 10)]) == [None] * 9
        assert held.add([("packs/bb", 0, 9, 1)]) == [None] and len(waits) == 1
    other = RangeCache(cache, 1 << 30)
    assert other.add([("packs/bb", 0, 9, 1)]) != [None]


def test_a_time_is_written_once_an_hour_at_most(far, cache):
    key = loaded_once(far)
    before = [path.stat().st_mtime_ns for path in entries(cache)]
    far().get(key)
    assert [path.stat().st_mtime_ns for path in entries(cache)] == before


def test_who_reads_has_it_to_the_end(cache):
    held = RangeCache(cache / "contents", 1 << 30)
    (new,) = held.add([("packs/aa", 100, 1100, 1)])
    new.write(100, bytes(range(250)) * 4)
    with held.find("packs/aa", 200, 300) as kept:
        view = memoryview(kept.map(200, 100))
        held.clear()
        assert held.find("packs/aa", 200, 300) is None
        assert kept.read(200, 100) == bytes(view) == bytes(range(100, 200))


def test_an_entry_takes_the_place_of_those_in_it(cache):
    held = RangeCache(cache / "contents", 1 << 30)
    for start, end in [(0, 10), (5, 25), (20, 30), (0, 20)]:
        (new,) = held.add([("packs/aa", start, end, 1)])
        new.write(start, bytes(range(start, end)))
    names = {path.name for path in entries(cache)}
    assert names == {"5-25", "20-30", "0-20"}
    assert held.covers("packs/aa", [(0, 7), (6, 24), (20, 30)]) and not held.covers("packs/aa", [(0, 25)])


def test_what_a_killed_process_left_goes(cache, monkeypatch):
    held = RangeCache(cache / "contents", 1 << 30)
    held.add([("packs/aa", 0, 1000, 2)])[0].write(0, b"half")
    assert held.usage().unfinished == 1
    monkeypatch.setattr(ranges, "LEFTOVER_SECONDS", -1.0)
    RangeCache(cache / "contents", 1 << 30).add([("packs/bb", 0, 1000, 1)])[0].write(0, bytes(1000))
    assert held.usage()[:2] == (1, 1000)


# ---- processes ----------------------------------------------------------------------------


def test_of_those_that_load_the_same_at_once_one_fetches(far):
    key = far().put(ARRAY)
    start, stores, found = threading.Barrier(6), [far() for _ in range(6)], []

    def load(store):
        start.wait()
        found.append(same(store.get(key), ARRAY))

    threads = [threading.Thread(target=load, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 6
    assert sum("packs" in store.backend.since() for store in stores) == 1


@pytest.mark.parametrize("set_back", [0, 86400])
def test_who_waits_for_one_that_hangs_fetches_too(far, cache, monkeypatch, set_back):
    monkeypatch.setattr(ranges, "PATIENCE", 0.05)
    key = far().put(ARRAY)
    store = far()
    original = store.backend.get_range

    def hanging(*arguments):
        for lock in (cache / "contents" / "locks").iterdir():
            os.utime(lock, (lock.stat().st_mtime + set_back,) * 2)  # of before the clock was set back
        assert same(far().get(key), ARRAY)  # as another process, in the middle of this one's
        return original(*arguments)

    monkeypatch.setattr(store.backend, "get_range", hanging)
    assert same(store.get(key), ARRAY)
    assert not list((cache / "contents" / "locks").iterdir())


def test_handles_pickle_and_fork(far):
    key = loaded_once(far)
    store = far()
    store.get(key)
    assert pickle.loads(pickle.dumps(store)).knobs.cache == store.knobs.cache
    child = os.fork()
    if not child:
        os._exit(0 if same(store.get(key), ARRAY) else 1)
    assert os.waitpid(child, 0)[1] == 0


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from mfstore.host import ranges
cache = ranges.RangeCache(Path(sys.argv[2]), 1 << 30)
left = int(sys.argv[3])
def dying(name):
    original = getattr(os, name)
    def call(*arguments, **more):
        global left
        if sys._getframe(1).f_code.co_filename == ranges.__file__:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **more)
    setattr(os, name, call)
for name in ("open", "truncate", "pwrite", "rename", "close", "unlink"):
    dying(name)
with cache.alone("token"):
    (new,) = cache.add([("packs/aa", 0, 8, 2)])
    new.write(0, b"abcd")
    new.write(4, b"efgh")
"""


def test_a_process_that_is_killed_leaves_no_half_of_an_entry(cache):
    """At each call, in one process each that a fork makes: one interpreter starts."""
    code = compile(KILLED, "<killed>", "exec")
    states = set()
    for left in range(40):
        child = os.fork()
        if not child:
            sys.argv = ["-", ".", str(cache / "contents"), str(left)]
            try:
                exec(code, {})
            finally:
                os._exit(0)
        status = os.waitpid(child, 0)[1]
        held = RangeCache(cache / "contents", 1 << 30)
        kept = held.find("packs/aa", 0, 8)
        states.add(kept is not None)
        if kept is not None:
            assert kept.read(0, 8) == b"abcdefgh"
            kept.close()
        with held.alone("token"):  # nobody is waited for
            assert held.add([("packs/bb", 0, 1, 1)])[0] is not None
        held.clear()
        if not status:
            break
    assert states == {True, False} and not status


# ---- the command --------------------------------------------------------------------------


def test_the_command_shows_and_clears(far, cache, monkeypatch):
    from click.testing import CliRunner

    from mfstore.cli import main

    key = loaded_once(far)
    far().get(key)
    host_cache.HostCache(str(cache / host_cache.INDEX)).put("part", b"small")
    monkeypatch.setenv("MFSTORE_CACHE", str(cache))

    def said(*arguments):
        done = CliRunner().invoke(main, ["cache", *arguments])
        assert not done.exit_code, done.output
        return done.output

    text = said()
    assert f"{cache}\n" in text and "1.6 MB of 10.7 GB in 1 entry" in text and "1 of 3 answered" in text
    assert "37 B in 1 file" in text
    assert "0 B of 10.7 GB in 0 entries" in said("--clear")
    assert not entries(cache)
    assert '"entries": 0' in said("--json") and '"small_objects": 0' in said("--json")
    assert "none" in said("--cache", "")
