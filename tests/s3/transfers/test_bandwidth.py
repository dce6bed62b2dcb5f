"""``max_bandwidth``: so many bytes per second, both directions and all threads of a client together."""

import contextlib
import ctypes
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfstore._core import transfer
from mfstore.s3 import BulkClient
from mfstore.s3.calls import Call
from mfstore.s3.transfers.retry import RetryPolicy
from tests.rigs.raw_server import Server

RATE = 4_000_000
BURST = 0.05
"""Seconds that may be had at once."""

OBJECTS = {"large": bytes(1_200_000), **{f"small{number}": bytes(4_000) for number in range(250)}}
SMALL = [key for key in OBJECTS if key != "large"]


@pytest.fixture
def client(engine, s3_env):
    """It has a connection and has botocore loaded already."""

    def answer(connection, request):
        data = OBJECTS.get(request.path.rpartition("/")[2], b"") if request.method == "GET" else b""
        connection.reply("200 OK", [f"Content-Length: {len(data)}", 'ETag: "e"'], data)
        return True

    server = Server(answer)
    with contextlib.closing(server), BulkClient(
        "bucket", engine=engine, endpoint_url=server.origin, region_name="us-east-1", max_bandwidth=RATE, concurrency=16
    ) as client:  # fmt: skip
        list(client.get_many(["none"]))
        client.put_many({"none": b""})
        yield client


def get(client, keys):
    assert [len(outcome.data) for outcome in client.get_many(keys)] == [len(OBJECTS[key]) for key in keys]


def put(client, keys):
    client.put_many({key: OBJECTS[key] for key in keys})


def put_files(client, keys):
    with tempfile.TemporaryDirectory() as directory:
        files = {key: Path(directory, key) for key in keys}
        for key, path in files.items():
            path.write_bytes(OBJECTS[key])
        client.put_many(files)


@pytest.mark.parametrize(
    "work",
    [
        [(get, ["large"])],
        [(put, ["large"])],
        [(put_files, ["large"])],
        [(get, SMALL)],
        [(put, SMALL)],
        [(get, ["large"]), (put, ["large"])],
        [(get, SMALL[:150]), (get, SMALL[150:]), (put, SMALL[:150])],
    ],
    ids=["a large one", "a large one up", "a large file up", "small ones", "small ones up", "both ways", "threads"],
)
def test_never_faster(client, work):
    threads = [threading.Thread(target=act, args=(client, keys)) for act, keys in work]
    size = sum(len(OBJECTS[key]) for _, keys in work for key in keys)
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun >= size / RATE - BURST


@contextlib.contextmanager
def slowed(engine, data, rate):
    """A server that has ``data`` for everybody, and a client of so many bytes per second."""
    server = Server(lambda connection, request: connection.reply("200 OK", [f"Content-Length: {len(data)}"], data))
    with contextlib.closing(server), BulkClient(
        "bucket", engine=engine, endpoint_url=server.origin, region_name="us-east-1", max_bandwidth=rate
    ) as client:  # fmt: skip
        yield server, client


def test_waiting_for_its_time_is_no_stall(engine, s3_env):
    """All bytes are here when the first are read: what they wait for is us."""
    data = bytes(9_000)
    with slowed(engine, data, 3_000) as (_, client):
        hasty = client.with_parts(policy=RetryPolicy(attempts=1, stall=0.5))
        assert next(iter(hasty.get_many(["k"]))).data == data


def test_those_that_wait_are_cancelled(engine, s3_env):
    data = bytes(100_000)
    with slowed(engine, data, 2_000) as (server, client):
        calls = [Call("GetObject", "bucket", f"k{number}") for number in range(8)]
        with contextlib.closing(client.transfers.engine.channel()) as channel:
            channel.submit(calls)
            while not server.requests:
                time.sleep(0.01)
            for call in calls[1::2]:
                channel.cancel(call)
            replies = []
            while len(replies) < 4:
                replies += channel.poll(1.0)
            assert {reply.call for reply in replies} == set(calls[1::2])
            assert {reply.failure for reply in replies} == {"cancelled"}


# ---- the bucket -----------------------------------------------------------------------------

LIBRARY = ctypes.CDLL(transfer.__file__)
LIBRARY.mf_pace_take.restype = ctypes.c_size_t
LIBRARY.mf_pace_when.restype = ctypes.c_uint64
SECOND = 1_000_000_000


class Bucket(ctypes.Structure):
    _fields_ = (
        ("byte_ns", ctypes.c_double), ("burst_ns", ctypes.c_uint64), ("piece", ctypes.c_size_t),
        ("paid_ns", ctypes.c_uint64),
    )  # fmt: skip

    def __init__(self, rate):
        super().__init__()
        LIBRARY.mf_pace_begin(ctypes.byref(self), ctypes.c_double(rate))

    def take(self, size, now):
        return LIBRARY.mf_pace_take(ctypes.byref(self), ctypes.c_size_t(size), ctypes.c_uint64(now))

    def give_back(self, size):
        LIBRARY.mf_pace_return(ctypes.byref(self), ctypes.c_size_t(size))

    def when(self):
        return LIBRARY.mf_pace_when(ctypes.byref(self))


@given(
    rate=st.floats(1, 1e11),
    steps=st.lists(st.tuples(st.integers(0, SECOND), st.integers(1, 1 << 22), st.floats(0, 1)), max_size=60),
)
def test_what_a_bucket_gives_out(rate, steps):
    bucket, now, moved = Bucket(rate), 5 * SECOND, 0
    begun, full = now, max(rate * BURST, 4096)
    for pause, size, used in steps:
        now += pause
        got = bucket.take(size, now)
        assert got <= size
        if not got:
            assert bucket.when() > now
            now = bucket.when()
            got = bucket.take(size, now)
            assert got >= min(size, bucket.piece)
        unused = int(got * used)
        bucket.give_back(unused)
        moved += got - unused
        # Each time is cut to whole nanoseconds.
        assert moved <= full + rate * (now - begun + 3 * len(steps)) / SECOND + 1


def test_a_bucket_without_a_rate():
    bucket = Bucket(0)
    assert [bucket.take(1 << 40, 0) for _ in range(3)] == [1 << 40] * 3
