"""Of processes that begin together one reads, and the others have it from the cache of their host."""

import threading

import pytest

from mfstore.errors import NotFound
from mfstore.host import cache
from mfstore.host.cache import HostCache, index_cache


def test_of_many_that_begin_together_one_reads(tmp_path):
    start = threading.Barrier(8)
    reads, found = [], []

    def read():
        reads.append(1)
        return b"data"

    def work():
        start.wait()
        found.append(HostCache(str(tmp_path)).get_or_read("name", read))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"data"] * 8
    assert len(reads) == 1
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(".lock")] == []


def test_who_waits_too_long_reads_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PATIENCE", 0.05)
    inner = HostCache(str(tmp_path))
    got = inner.get_or_read("name", lambda: b"outer " + inner.get_or_read("name", lambda: b"inner"))
    assert got == b"outer inner"


def test_what_is_too_large_is_read_by_each_without_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PATIENCE", 1e9)
    one, large = HostCache(str(tmp_path)), bytes(cache.LARGEST + 1)
    assert one.get_or_read("name", lambda: large) == large
    together = one.get_or_read("name", lambda: b"outer " + one.get_or_read("name", lambda: large))
    assert together == b"outer " + large


def test_what_cannot_be_read_is_not_remembered(tmp_path):
    one = HostCache(str(tmp_path))

    def refuse():
        raise NotFound("no")

    with pytest.raises(NotFound):
        one.get_or_read("name", refuse)
    assert one.get_or_read("name", lambda: b"data") == b"data"
    assert one.get_or_read("name", refuse) == b"data"


def test_a_cache_that_cannot_be_used_is_none(tmp_path):
    assert HostCache(None).get_or_read("name", lambda: b"data") == b"data"
    (tmp_path / "file").write_bytes(b"")
    assert HostCache(str(tmp_path / "file")).get_or_read("name", lambda: b"data") == b"data"


def test_parts_of_an_index_are_larger(tmp_path):
    tmp_path.chmod(0o700)
    held = index_cache(str(tmp_path))
    held.put("root", bytes(500_000))
    assert held.get("root") == bytes(500_000)
    held.put("more", bytes(cache.INDEX_LARGEST + 1))
    assert held.get("more") is None
    assert index_cache("").get_or_read("root", lambda: b"x") == b"x"
