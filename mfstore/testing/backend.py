"""The conformance suite of the backend contract, and of a whole store on top of the backend."""

from __future__ import annotations

import os
import pickle
import threading
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest

from mfstore.backends.base import Backend, ObjectEnd
from mfstore.errors import Conflict, CorruptObject, NotFound
from mfstore.settings import resolve
from mfstore.store import Store


class BackendTests:
    """Subclass, implement ``make_backend``, and pytest runs every test on your backend.

    ``raw_set`` and ``raw_get`` should bypass the methods under test where the storage allows it. The fixture
    ``backend`` makes one and closes it.
    """

    @abstractmethod
    def make_backend(self, tmp_path: Path) -> Backend:
        """A backend on an empty place; another call with the same path is another handle on the same place.

        Args:
            tmp_path: A directory of the test's own, which also tells tests apart where the place is somewhere else.
        """
        raise NotImplementedError

    def raw_set(self, backend: Backend, key: str, data: bytes) -> None:
        """Store bytes without the method under test."""
        backend.put(key, [data])

    def raw_get(self, backend: Backend, key: str) -> bytes:
        """Read bytes without the method under test."""
        return backend.get(key)

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        backend = self.make_backend(tmp_path)
        yield backend
        backend.close()

    # ---- single objects -----------------------------------------------------------------

    def test_put_stores_the_joined_parts(self, backend: Backend) -> None:
        backend.put("packs/ab/one", [b"abc", memoryview(b"defg")[1:3], bytearray(b""), b"h"])
        assert self.raw_get(backend, "packs/ab/one") == b"abcefh"

    def test_put_of_nothing_stores_an_empty_object(self, backend: Backend) -> None:
        backend.put("packs/ab/empty", [])
        assert self.raw_get(backend, "packs/ab/empty") == b""
        assert backend.head("packs/ab/empty").size == 0

    def test_put_replaces(self, backend: Backend) -> None:
        self.raw_set(backend, "packs/ab/one", b"first")
        backend.put("packs/ab/one", [b"second"])
        assert self.raw_get(backend, "packs/ab/one") == b"second"

    def test_put_of_many_parts(self, backend: Backend) -> None:
        parts = [bytes([number % 251]) * (number % 7) for number in range(5000)]
        backend.put("packs/ab/parts", parts)
        assert self.raw_get(backend, "packs/ab/parts") == b"".join(parts)

    def test_put_does_not_retain_the_callers_buffer(self, backend: Backend) -> None:
        data = bytearray(b"before")
        backend.put("packs/ab/one", [data])
        data[:] = b"after!"
        assert backend.get("packs/ab/one") == b"before"

    def test_read_again_gives_what_is_stored(self, backend: Backend) -> None:
        data = bytes(range(256)) * 40
        self.raw_set(backend, "packs/ab/one", data)
        for start, length in ((0, None), (5, 4096), (4096, 100), (10_000, 240), (10_000, None)):
            end = len(data) if length is None else start + length
            assert backend.read_again("packs/ab/one", start, length) == data[start:end]
        with pytest.raises(CorruptObject):
            backend.read_again("packs/ab/one", 10_000, 241)
        with pytest.raises(NotFound):
            backend.read_again("packs/ab/none")

    def test_move_unchanged_moves_the_version_that_is_meant(self, backend: Backend) -> None:
        backend.put("packs/ab/one", [b"first"])
        old = backend.head("packs/ab/one").etag
        backend.put("packs/ab/one", [b"second one"])
        assert not backend.move_unchanged("packs/ab/one", "quarantine/packs/ab/one.1", old)
        assert self.raw_get(backend, "packs/ab/one") == b"second one"
        assert not list(backend.list("quarantine/"))
        assert backend.move_unchanged("packs/ab/one", "quarantine/packs/ab/one.1", backend.head("packs/ab/one").etag)
        assert self.raw_get(backend, "quarantine/packs/ab/one.1") == b"second one"
        assert not list(backend.list("packs/"))
        with pytest.raises(NotFound):
            backend.move_unchanged("packs/ab/one", "quarantine/packs/ab/one.2", old)

    def test_move_unchanged_replaces_only_what_it_may(self, backend: Backend) -> None:
        backend.put("quarantine/packs/ab/one.1", [b"damaged"])
        backend.put("packs/ab/one", [b"whole"])
        etag = backend.head("quarantine/packs/ab/one.1").etag
        with pytest.raises(Conflict):
            backend.move_unchanged("quarantine/packs/ab/one.1", "packs/ab/one", etag, replace=False)
        assert self.raw_get(backend, "packs/ab/one") == b"whole"
        assert self.raw_get(backend, "quarantine/packs/ab/one.1") == b"damaged"
        assert not backend.move_unchanged("quarantine/packs/ab/one.1", "packs/ab/two", "other", replace=False)
        assert backend.move_unchanged("quarantine/packs/ab/one.1", "packs/ab/two", etag, replace=False)
        assert self.raw_get(backend, "packs/ab/two") == b"damaged"
        assert not list(backend.list("quarantine/"))

    def test_get_of_nothing_is_not_found(self, backend: Backend) -> None:
        with pytest.raises(NotFound) as caught:
            backend.get("recipes/ab/none")
        assert caught.value.key == "recipes/ab/none"
        assert isinstance(caught.value, KeyError)

    @pytest.mark.parametrize(("start", "length"), [(0, 0), (0, 1), (3, 4), (9, 1), (0, 10), (10, 0)])
    def test_get_range(self, backend: Backend, start: int, length: int) -> None:
        self.raw_set(backend, "packs/ab/one", b"0123456789")
        assert bytes(backend.get_range("packs/ab/one", start, length)) == b"0123456789"[start : start + length]

    @pytest.mark.parametrize(("start", "length"), [(0, 11), (10, 1), (50, 1), (5, 6)])
    def test_get_range_beyond_the_end_raises(self, backend: Backend, start: int, length: int) -> None:
        self.raw_set(backend, "packs/ab/one", b"0123456789")
        with pytest.raises(CorruptObject):
            backend.get_range("packs/ab/one", start, length)

    def test_get_range_of_nothing_is_not_found(self, backend: Backend) -> None:
        with pytest.raises(NotFound):
            backend.get_range("packs/ab/none", 0, 1)

    def test_read_into_fills_the_target(self, backend: Backend) -> None:
        self.raw_set(backend, "packs/ab/one", b"0123456789")
        target = bytearray(b"..........")
        backend.read_into("packs/ab/one", 2, memoryview(target)[1:5])
        assert target == b".2345....."

    def test_read_into_beyond_the_end_raises(self, backend: Backend) -> None:
        self.raw_set(backend, "packs/ab/one", b"0123")
        with pytest.raises(CorruptObject):
            backend.read_into("packs/ab/one", 2, memoryview(bytearray(3)))

    @pytest.mark.parametrize("length", [1, 4, 10, 11, 1000])
    def test_read_ends(self, backend: Backend, length: int) -> None:
        self.raw_set(backend, "packs/ab/one", b"0123456789")
        self.raw_set(backend, "packs/ab/two", b"ab")
        keys = ["packs/ab/one", "packs/ab/none", "packs/ab/two", "packs/ab/one"]
        found = dict(backend.read_ends(keys, length))
        assert isinstance(found.pop(1), NotFound)
        told = {
            number: (bytes(memoryview(end.data).cast("B")), end.size, end.vouched)
            for number, end in found.items() if isinstance(end, ObjectEnd)
        }  # fmt: skip
        one = b"0123456789"[-length:], 10, False
        assert told == {0: one, 2: (b"ab"[-length:], 2, False), 3: one}
        assert list(backend.read_ends([], length)) == []

    def test_read_ends_tells_what_vouch_does(self, backend: Backend) -> None:
        backend.put("packs/ab/one", [b"0123456789"])
        ((_, end),) = backend.read_ends(["packs/ab/one"], 4)
        assert isinstance(end, ObjectEnd)
        vouches = not backend.capabilities.cheap_reads and bool(backend.vouch(["packs/ab/one"]))
        assert end.vouched == vouches

    def test_head(self, backend: Backend) -> None:
        self.raw_set(backend, "packs/ab/one", b"12345")
        info = backend.head("packs/ab/one")
        assert (info.key, info.size) == ("packs/ab/one", 5)
        with pytest.raises(NotFound):
            backend.head("packs/ab/two")

    def test_etag_changes_with_the_bytes(self, backend: Backend) -> None:
        self.raw_set(backend, "refs/one", b"12345")
        before = backend.head("refs/one").etag
        assert backend.head("refs/one").etag == before
        self.raw_set(backend, "refs/one", b"54321")
        assert backend.head("refs/one").etag != before

    def test_identity_changes_with_the_bytes(self, backend: Backend) -> None:
        self.raw_set(backend, "packs/ab/one", b"12345")
        before = backend.identity("packs/ab/one")
        assert backend.identity("packs/ab/one") == before
        hash(before)
        self.raw_set(backend, "packs/ab/one", b"54321")
        assert backend.identity("packs/ab/one") != before
        with pytest.raises(NotFound):
            backend.identity("packs/ab/none")

    def test_delete(self, backend: Backend) -> None:
        self.raw_set(backend, "packs/ab/one", b"1")
        backend.delete("packs/ab/one")
        with pytest.raises(NotFound):
            backend.get("packs/ab/one")
        backend.delete("packs/ab/one")
        backend.delete("never/there/at/all")

    # ---- several objects ----------------------------------------------------------------

    def test_list_shows_what_is_there(self, backend: Backend) -> None:
        keys = ["packs/ab/one", "packs/ab/two", "packs/ac/three", "recipes/ab/one", "mfstore.json"]
        for key in keys:
            self.raw_set(backend, key, key.encode())
        assert sorted(info.key for info in backend.list("")) == sorted(keys)
        assert sorted(info.key for info in backend.list("packs/")) == keys[:3]
        assert sorted(info.key for info in backend.list("packs/ab/")) == keys[:2]
        assert sorted(info.key for info in backend.list("packs/a")) == keys[:3]
        assert [info.key for info in backend.list("packs/ab/o")] == ["packs/ab/one"]
        assert list(backend.list("index/")) == []
        assert {info.key: info.size for info in backend.list("packs/ab/")} == {keys[0]: 12, keys[1]: 12}

    def test_list_many_shows_each_prefix(self, backend: Backend) -> None:
        keys = ["packs/ab/one", "packs/ac/two", "recipes/ab/one"]
        for key in keys:
            self.raw_set(backend, key, b"")
        assert sorted(info.key for info in backend.list_many(["packs/ac", "recipes/", "index/"])) == keys[1:]
        assert list(backend.list_many([])) == []

    def test_list_first_shows_the_first_by_their_keys(self, backend: Backend) -> None:
        for name in ("c", "a", "d", "b"):
            self.raw_set(backend, f"index/{name}", b"")
        self.raw_set(backend, "gc/state", b"")
        for count in range(1, 6):
            assert sorted(info.key[-1] for info in backend.list_first("index/", count)) == list("abcd")[:count]
        assert list(backend.list_first("packs/", 3)) == []

    def test_copy(self, backend: Backend) -> None:
        for number, data in enumerate((b"", b"bytes" * 1000)):
            self.raw_set(backend, f"packs/ab/{number}", data)
            backend.copy(f"packs/ab/{number}", "quarantine/packs/ab/copy")
            backend.delete(f"packs/ab/{number}")
            assert self.raw_get(backend, "quarantine/packs/ab/copy") == data
        with pytest.raises(NotFound):
            backend.copy("packs/ab/none", "quarantine/packs/ab/copy")

    def test_exists_many(self, backend: Backend) -> None:
        self.raw_set(backend, "packs/ab/one", b"")
        keys = ["packs/ab/one", "packs/ab/two", "packs/ab/one"]
        assert backend.exists_many(keys) == [True, False, True]
        assert backend.exists_many([]) == []

    def test_get_many_keeps_order_and_reports_each(self, backend: Backend) -> None:
        self.raw_set(backend, "packs/ab/one", b"1")
        self.raw_set(backend, "packs/ab/two", b"2")
        found = list(backend.get_many(["packs/ab/two", "packs/ab/none", "packs/ab/one", "packs/ab/two"]))
        assert [key for key, _ in found] == ["packs/ab/two", "packs/ab/none", "packs/ab/one", "packs/ab/two"]
        assert [data for _, data in found if isinstance(data, bytes)] == [b"2", b"1", b"2"]
        assert isinstance(found[1][1], NotFound)

    # ---- conditions and batches -----------------------------------------------------------

    def test_put_if_creates_once(self, backend: Backend) -> None:
        etag = backend.put_if("refs/one", b"first", None)
        assert backend.head("refs/one").etag == etag
        with pytest.raises(Conflict):
            backend.put_if("refs/one", b"second", None)
        assert self.raw_get(backend, "refs/one") == b"first"

    def test_put_if_replaces_only_what_was_seen(self, backend: Backend) -> None:
        first = backend.put_if("refs/one", b"first", None)
        second = backend.put_if("refs/one", b"second", first)
        with pytest.raises(Conflict):
            backend.put_if("refs/one", b"third", first)
        with pytest.raises(Conflict):
            backend.put_if("refs/none", b"third", first)
        assert backend.head("refs/one").etag == second
        assert self.raw_get(backend, "refs/one") == b"second"

    def test_put_if_has_one_winner(self, backend: Backend, tmp_path: Path) -> None:
        etag = backend.put_if("refs/one", b"start", None)
        won: list[int] = []
        barrier = threading.Barrier(8)

        def race(number: int) -> None:
            barrier.wait()
            try:
                backend.put_if("refs/one", f"winner {number}".encode(), etag)
                won.append(number)
            except Conflict:
                pass

        threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert self.raw_get(backend, "refs/one") == f"winner {won[0]}".encode()

    def test_delete_unchanged_removes_only_what_was_seen(self, backend: Backend) -> None:
        keys = ["packs/ab/one", "packs/ab/two", "recipes/ab/three"]
        for key in keys:
            self.raw_set(backend, key, b"first")
        seen = {key: backend.head(key).etag for key in keys}
        self.raw_set(backend, keys[1], b"second")
        assert backend.delete_unchanged({**seen, "packs/ab/none": seen[keys[0]]}) == [True, False, True, True]
        assert [info.key for info in backend.list("")] == [keys[1]]
        assert self.raw_get(backend, keys[1]) == b"second"
        assert backend.delete_unchanged({keys[1]: backend.head(keys[1]).etag}) == [True]
        assert backend.delete_unchanged({}) == []
        listed = {info.key: info.etag for info in backend.list("packs/")}
        assert listed == {}
        self.raw_set(backend, keys[0], b"third")
        assert backend.delete_unchanged({info.key: info.etag for info in backend.list("packs/")}) == [True]

    def test_delete_unchanged_is_atomic_where_it_says_so(self, backend: Backend) -> None:
        if not backend.deletes_conditionally():
            pytest.skip("deletions take no condition")
        data = [b"first", b"second"]
        for _ in range(20):
            self.raw_set(backend, "gc/state", b"{}")
            self.raw_set(backend, "packs/ab/one", data[0])
            etag = backend.head("packs/ab/one").etag
            threads = [
                threading.Thread(target=backend.put, args=("packs/ab/one", [data[1]])),
                threading.Thread(target=backend.delete_unchanged, args=({"packs/ab/one": etag},)),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert backend.get("packs/ab/one") == data[1]

    def test_batch_is_visible_after_commit(self, backend: Backend) -> None:
        with backend.batch() as batch:
            for number in range(100):
                batch.put(f"packs/{number % 40:02x}/{number}", [b"x" * number])
            batch.commit()
        assert sum(1 for _ in backend.list("packs/")) == 100
        assert backend.get("packs/07/47") == b"x" * 47

    def test_abandoned_batch_shows_nothing_partial(self, backend: Backend) -> None:
        with pytest.raises(ZeroDivisionError), backend.batch() as batch:
            batch.put("packs/ab/one", [b"1234"])
            raise ZeroDivisionError
        found = list(backend.list(""))
        assert [info.size for info in found] in ([], [4])

    def test_batch_does_not_retain_buffers(self, backend: Backend) -> None:
        data = bytearray(b"before")
        with backend.batch() as batch:
            batch.put("packs/ab/one", [data])
            data[:] = b"after!"
            batch.commit()
        assert backend.get("packs/ab/one") == b"before"

    # ---- maps ---------------------------------------------------------------------------

    def test_map_is_private_and_outlives_the_object(self, backend: Backend) -> None:
        if not backend.capabilities.map:
            pytest.skip("the backend does not map")
        data = os.urandom(3 * 4096)
        self.raw_set(backend, "packs/ab/one", data)
        for start, length in ((0, len(data)), (4096, 4096), (100, 5000)):
            view = memoryview(backend.map("packs/ab/one", start, length))
            assert view == data[start : start + length]
            assert not view.readonly
            view[0] ^= 0xFF
            assert self.raw_get(backend, "packs/ab/one") == data
        backend.put("packs/ab/one", [b"short"])
        assert view[1:] == data[101:5100]
        backend.delete("packs/ab/one")
        assert view[1:] == data[101:5100]
        with pytest.raises(NotFound):
            backend.map("packs/ab/one", 0, 1)

    # ---- handles ------------------------------------------------------------------------

    def test_handles_pickle(self, backend: Backend) -> None:
        self.raw_set(backend, "packs/ab/one", b"1")
        assert pickle.loads(pickle.dumps(backend)).get("packs/ab/one") == b"1"

    def test_works_after_close(self, backend: Backend) -> None:
        self.raw_set(backend, "packs/ab/one", b"1")
        backend.close()
        assert backend.get("packs/ab/one") == b"1"

    def test_threads(self, backend: Backend) -> None:
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(20):
                    key = f"packs/{number:02x}/{turn}"
                    backend.put(key, [bytes([number]) * 1000])
                    assert backend.get(key) == bytes([number]) * 1000
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert sum(1 for _ in backend.list("packs/")) == 160

    # ---- a store on top -------------------------------------------------------------------

    def store(self, backend: Backend) -> Store:
        """A store on this backend."""
        knobs = resolve(threads=2)
        return Store(backend.url, backend, knobs, create=True, algorithm="blake3")

    def test_store_round_trip(self, backend: Backend, tmp_path: Path) -> None:
        store = self.store(backend)
        large = os.urandom(3 << 20)
        objects = [
            None,
            1,
            "text",
            large,
            {"nested": [1, 2, {"deep": (3, 4)}]},
            bytearray(large[:100_000]),
            "ü" * 70_000,
        ]
        keys = store.put_many(objects)
        with self.store(self.make_backend(tmp_path)) as other:
            assert [obj for _, obj in other.get_many(keys)] == objects
            assert other.exists_many(keys) == [True] * len(keys)
        bundle = store.save({"large": large, "small": 1})
        assert store.load(bundle, ["small"]) == {"small": 1}
        assert store.load(bundle) == {"large": large, "small": 1}
        assert store.put_many(objects) == keys

    def test_store_repairs_what_was_damaged(self, backend: Backend, tmp_path: Path) -> None:
        store = self.store(backend)
        data = os.urandom(1 << 20)
        key = store.put(data)
        info = next(iter(backend.list("packs/")))
        pack = bytearray(backend.get(info.key))
        pack[300_000] ^= 1
        self.raw_set(backend, info.key, bytes(pack))
        with self.store(self.make_backend(tmp_path)) as reader, pytest.raises(CorruptObject):
            reader.get(key)
        with self.store(self.make_backend(tmp_path)) as writer:
            assert writer.put(data) == key
        with self.store(self.make_backend(tmp_path)) as reader:
            assert reader.get(key) == data

    def test_store_refs(self, backend: Backend) -> None:
        store = self.store(backend)
        first, second = store.put(1), store.put(2)
        store.refs["models/churn"] = first
        store.refs["models/churn"] = second
        assert store.refs["models/churn"] == second
        assert [entry.key for entry in store.refs.history("models/churn")] == [second, first]
        assert list(store.refs) == ["models/churn"]
        del store.refs["models/churn"]
        with pytest.raises(NotFound):
            store.refs["models/churn"]
