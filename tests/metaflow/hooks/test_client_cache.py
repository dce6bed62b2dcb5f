"""The files that Metaflow's Client keeps."""

import errno
import os

import pytest
from metaflow.client.filecache import FileBlobCache, FileCache, FileCacheException

from mfstore.metaflow.hooks import client_cache
from tests.rigs.metaflow_stores import local_datastore

LEFT_OPEN = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
"""Metaflow leaves its own temporary file open, of which Python 3.14 warns."""


@pytest.fixture
def cache(tmp_path):
    local_datastore(tmp_path).storage()  # which has it rebound
    assert FileCache.create_file.__wrapped__
    return FileCache(str(tmp_path / "client"), max_size=1)


def files(cache):
    return sorted(
        os.path.relpath(os.path.join(at, one), cache.cache_dir)
        for at, _, found in os.walk(cache.cache_dir)
        for one in found
    )


def test_what_was_kept_is_found(cache):
    blobs = FileBlobCache(cache, "s3._bucket.Flow")
    for _ in range(2):  # the second time it is there
        blobs.store_key("ab12", b"x" * 1000)
    blobs.store_key("ab34", b"")
    assert (blobs.load_key("ab12"), blobs.load_key("ab34"), blobs.load_key("cd")) == (b"x" * 1000, b"", None)
    assert files(cache) == ["s3._bucket.Flow/ab/ab12.blob", "s3._bucket.Flow/ab/ab34.blob"]
    assert os.stat(blobs._path("ab12")).st_mode & 0o777 == 0o600
    assert [size for _, size, _ in cache._objects] == [1000, 1000, 0] and cache._total == 2000


def test_the_oldest_go_when_it_is_full(cache, monkeypatch):
    monkeypatch.setattr("metaflow.client.filecache.NEW_FILE_QUARANTINE", -1)
    blobs = FileBlobCache(cache, "s3._bucket.Flow")
    for number in range(4):
        blobs.store_key(f"ab{number}", bytes(400_000))
    assert [blobs.load_key(f"ab{number}") is not None for number in range(4)] == [False, False, True, True]


@LEFT_OPEN
@pytest.mark.parametrize("call", ["open", "write", "rename"])
def test_what_fails_metaflow_does(cache, monkeypatch, call):
    def fails(*_, **__):
        raise OSError(errno.EIO, "broken")

    broken = type("Os", (), {**vars(os), call: staticmethod(fails)})
    monkeypatch.setattr(client_cache, "os", broken)
    blobs = FileBlobCache(cache, "s3._bucket.Flow")
    blobs.store_key("ab12", b"abc")
    assert blobs.load_key("ab12") == b"abc" and files(cache) == ["s3._bucket.Flow/ab/ab12.blob"]
    assert cache._total == 3


@LEFT_OPEN
def test_what_was_written_in_part_is_written_whole(cache, monkeypatch):
    broken = type("Os", (), {**vars(os), "write": staticmethod(lambda fd, data: os.write(fd, data[:2]))})
    monkeypatch.setattr(client_cache, "os", broken)
    blobs = FileBlobCache(cache, "s3._bucket.Flow")
    blobs.store_key("ab12", b"abc")
    assert blobs.load_key("ab12") == b"abc" and files(cache) == ["s3._bucket.Flow/ab/ab12.blob"]


def test_a_file_where_a_directory_should_be(cache):
    blobs = FileBlobCache(cache, "s3._bucket.Flow")
    os.makedirs(cache.cache_dir)
    with open(f"{cache.cache_dir}/s3._bucket.Flow", "w"):
        pass
    with pytest.raises(FileCacheException, match="Could not create directory"):
        blobs.store_key("ab12", b"abc")
