"""Processes of one host that begin together read what they share of an index in S3 once, whatever becomes of the cache."""

import os
import shutil
import signal
import time
import uuid
from collections import Counter

import numpy as np
import pytest

import mfstore
from mfstore.format.tree import ROOT_KEY, node_name
from mfstore.host import cache
from mfstore.host.cache import HostCache
from mfstore.testing import FaultProxy
from tests.rigs.small_trees import small_trees
from tests.rigs.together import in_children
from tests.servers.base import client_options

TOGETHER = 16
LATENCY = 0.05
"""Seconds that each answer takes, so that those that begin together are still there together."""


class Shared:
    """A store in S3 with a tree, and a fragment beside it, behind a proxy that counts."""

    def __init__(self, server):
        self.server, self.proxy = server, None
        self.url = f"s3://{server.create_bucket(f'host-{uuid.uuid4().hex[:16]}')}/store"
        rng = np.random.default_rng(0)
        with small_trees():
            for _ in range(10):
                self.open(server.url, "").put(rng.bytes(300_000))
        self.open(server.url, "").put(rng.bytes(300_000))  # stays beside the tree
        infos = list(self.open(server.url, "").backend.list("index/"))
        self.chunk = bytes(32)
        assert ROOT_KEY in [info.key for info in infos]
        assert sum(node_name(info.key) is None for info in infos) == 1

    def open(self, url, directory):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MFSTORE_CACHE", str(directory))
            return mfstore.open(self.url, **{**client_options(self.server), "endpoint_url": url})

    def look(self, directory):
        """As a save that looks for a chunk that nobody has stored."""
        with self.open(self.proxy.url, directory) as store:
            assert store.handle.index.find_all(self.chunk, False) == []

    def reads(self):
        """How often each part that all need was read since the last call: of the tree only the root is."""
        found = Counter(entry.path.partition("/store/")[2] for entry in self.proxy.requests() if entry.method == "GET")
        self.proxy.clear()
        index = {key: count for key, count in found.items() if key.startswith("index/")}
        return {key: count for key, count in index.items() if key == ROOT_KEY or node_name(key) is None}


@pytest.fixture(scope="module")
def stored(radosgw):
    return Shared(radosgw)


@pytest.fixture
def shared(stored, s3_env, unhedged):
    with FaultProxy(stored.server.url, latency=LATENCY) as stored.proxy:
        yield stored


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PATIENCE", 1e9)  # however slow the machine is
    path = tmp_path / "cache"
    path.mkdir(mode=0o700)
    return path


@pytest.mark.server
def test_what_all_of_them_need_is_read_once(shared, directory):
    shared.look("")
    alone = shared.reads()
    assert len(alone) == 2
    assert in_children(TOGETHER, lambda number: shared.look(directory)) == [0] * TOGETHER
    assert shared.reads() == alone
    shared.look(directory)
    assert shared.reads() == {}


@pytest.mark.server
def test_what_becomes_of_the_cache_is_no_matter(shared, directory):
    shared.look(directory)
    alone = shared.reads()
    entries = [path for path in directory.rglob("*") if path.is_file()]
    for path in entries:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    for harm in (lambda: None, lambda: shutil.rmtree(directory / "index"), lambda: shutil.rmtree(directory)):
        harm()
        shared.look(directory)
        assert shared.reads() == alone
        shared.look(directory)
        assert shared.reads() == {}
    shutil.rmtree(directory / "index")
    (directory / "index").write_bytes(b"no directory")
    shared.look(directory)
    shared.look(directory)
    assert shared.reads() == dict.fromkeys(alone, 2)


class Counted:
    """Reads that leave a line in a file, whichever process they are of."""

    def __init__(self, path):
        self.path = path
        path.touch()

    def __call__(self):
        with self.path.open("a") as file:
            file.write("read\n")
        time.sleep(LATENCY)
        return b"data"

    def __len__(self):
        return len(self.path.read_text().splitlines())


def expect(directory, read):
    assert HostCache(str(directory)).get_or_read("name", read) == b"data"


def test_of_many_processes_one_reads(directory, tmp_path):
    read = Counted(tmp_path / "reads")
    assert in_children(TOGETHER, lambda number: expect(directory, read)) == [0] * TOGETHER
    assert len(read) == 1


def test_who_is_killed_while_the_others_wait_for_it_does_not_stop_them(directory, tmp_path):
    read, reading = Counted(tmp_path / "reads"), os.pipe()

    def forever():
        os.write(reading[1], b".")
        time.sleep(1e6)

    holder = os.fork()
    if holder == 0:
        try:
            HostCache(str(directory)).get_or_read("name", forever)
        finally:
            os._exit(1)
    os.read(reading[0], 1)

    def work(number):
        if number == 0:
            os.kill(holder, signal.SIGKILL)
        else:
            expect(directory, read)

    assert in_children(TOGETHER, work) == [0] * TOGETHER
    assert os.waitpid(holder, 0)[1] == signal.SIGKILL
    assert len(read) == 1


def test_a_cache_that_is_deleted_again_and_again_gives_what_is_read(directory, tmp_path):
    read = Counted(tmp_path / "reads")

    def work(number):
        for _ in range(50):
            if number < 2:
                shutil.rmtree(directory, ignore_errors=True)
            else:
                expect(directory, read)

    assert in_children(6, work) == [0] * 6
