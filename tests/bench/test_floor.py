"""The minimal client that benchmarks compare with, and the tables of S3: a floor that skips work would flatter nobody."""

import pytest

from benchmarks import report
from benchmarks.floor import floor
from benchmarks.instructions import table
from benchmarks.test_s3 import place_of

COUNT, EXIST = 10, 5


@pytest.mark.slow
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("size", [1, 4096, 3 << 20])
def test_the_floor_moves_what_it_is_asked_for(nginx, secure, size):
    bucket = f"floor-{size}-{secure:d}"
    nginx.create_bucket(bucket)
    where = {**place_of(nginx, secure), "bucket": bucket}
    found = floor(where, "put", size, EXIST, COUNT, rounds=1, threads=2)
    assert 0 <= found.kernel <= found.cpu
    objects = nginx.root / bucket / "put" / str(size)
    stored = [(objects / str(number)).read_bytes() for number in range(EXIST)]
    assert [len(data) for data in stored] == [size] * EXIST
    assert len(set(stored)) == 1
    (nginx.root / bucket / "put").rename(nginx.root / bucket / "get")
    floor(where, "get", size, EXIST, COUNT, rounds=1)
    with pytest.raises(RuntimeError, match="404"):  # each is asked for, so that one is missing shows
        floor(where, "get", size, EXIST + 1, COUNT, rounds=1)


@pytest.mark.slow
def test_the_floor_signs(radosgw):
    where = {**place_of(radosgw, False), "bucket": radosgw.create_bucket("floor")}
    floor(where, "put", 4096, EXIST, EXIST, rounds=1)
    with pytest.raises(RuntimeError, match="403"):
        floor({**where, "secret_key": "wrong"}, "put", 4096, EXIST, EXIST, rounds=1)


def cell(peer, cpu, s3=True, **more):
    info = {
        "peer": peer, "operation": "get", "size": 4096, "secure": True, "server": "nginx", "cpu": cpu,
        "wall": cpu, "main": cpu / 4, "signs": False, "checksums": "none",
    }  # fmt: skip
    return {"name": "test_nginx", "group": None, "extra_info": {**info, **more, **({"s3": True} if s3 else {})}}


def test_the_table_of_s3_compares_with_the_best_peer_and_with_the_floor(capsys):
    report.benchmarks([cell("mfstore", 20e-6), cell("obstore", 80e-6), cell("boto3", 1e-3), cell("floor", 16e-6)])
    lines = capsys.readouterr().out.splitlines()
    assert "| **mfstore against the best of the others** | **0.25 x** |" in lines
    assert "| **mfstore against the floor** | **1.25 x** |" in lines
    assert "| of mfstore's, the thread that asks | 5 |" in lines


def test_the_tables_of_threads_and_of_what_is_not_signed(capsys):
    threads = {"threads": 2, "size": 64 << 20, "cpu": 0.05, "wall": 0.067108864}
    runs = [
        cell("mfstore", 20e-6),
        {"name": "t", "group": None, "extra_info": {**threads, "floor": {"cpu": 0.02, "wall": 0.033554432}}},
        cell("floor", 15e-6, unsigned="floor, with CRC64NVME", operation="put", secure=False, s3=False),
    ]
    report.s3(runs)
    lines = capsys.readouterr().out.splitlines()
    assert "| 2 | 1.00 GB/s, 0.75 s/GB | 2.00 GB/s, 0.30 s/GB |" in lines
    assert "| floor, with CRC64NVME | 15 |" in lines


def test_the_table_of_instructions(capsys):
    where = {"url": "https://127.0.0.1:1"}
    calls = {"recvfrom": 1.0, "sendmsg": 2.0, "openat": 0.001}
    table(
        [{"operation": "get", "size": 4096, "where": where, "main": 1e4, "others": 2e4, "floor": 15e3, "calls": calls}]
    )
    row = "| GET 4 KiB https, thousands | 10.0 | 20.0 | 30.0 | 15.0 | 3.0: sendmsg 2.00, recvfrom 1.00 |"
    assert row in capsys.readouterr().out.splitlines()
