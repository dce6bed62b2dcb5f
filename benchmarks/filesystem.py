"""S3 as a filesystem of fsspec: mfstore's beside s3fs and obstore, on radosgw: ``python -m benchmarks.filesystem``.

Each client does each job in a process of its own, after one request that nobody counts. CPU is that of the client's
process, user and system; requests are those that a proxy saw in a run of their own; wall is information, as server
and client share the machine. Each figure is the median of the rounds; s3fs, which would take minutes, has one.
"""

import argparse
import asyncio
import importlib.metadata
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.servers import Radosgw

ROOT = Path(__file__).parent.parent
BUCKET = "bench"
LISTED, SMALL, SIZE = 10_000, 1000, 4 << 10
LARGE = 256 << 20
COLUMNS = ["f3", "f7"]
TABLE = f"{BUCKET}/table.parquet"


class Fsspec:
    """A client that is a filesystem of fsspec."""

    def __init__(self, where):
        self.where = where
        self.files = self.open()
        self.files.cat_file(f"{BUCKET}/get/0")

    def list(self):
        return len(self.files.find(f"{BUCKET}/list", detail=True))

    def cat(self):
        return sum(map(len, self.files.cat([f"{BUCKET}/get/{n}" for n in range(SMALL)]).values()))

    def columns(self):
        import pyarrow.parquet as pq

        with self.files.open(TABLE, "rb") as file:
            return pq.read_table(file, columns=COLUMNS).num_rows

    def pipe(self):
        self.files.pipe({f"{BUCKET}/put/{n}": self.where["small"] for n in range(SMALL)})

    def write(self):
        block = bytes(1 << 20)
        with self.files.open(f"{BUCKET}/large", "wb") as file:
            for _ in range(LARGE >> 20):
                file.write(block)


class Mfstore(Fsspec):
    def open(self):
        from mfstore.s3.filesystem import S3FileSystem

        return S3FileSystem(**s3fs_options(self.where))


class S3fs(Fsspec):
    def open(self):
        from s3fs import S3FileSystem

        return S3FileSystem(**s3fs_options(self.where))


class ObstoreFsspec(Fsspec):
    def open(self):
        from obstore.fsspec import FsspecStore

        return FsspecStore("s3", **obstore_options(self.where))


def s3fs_options(where):
    return {
        "endpoint_url": where["url"], "key": where["key"], "secret": where["secret"],
        "client_kwargs": {"region_name": where["region"]}, "use_listings_cache": False,
    }  # fmt: skip


def obstore_options(where):
    return {
        "endpoint": where["url"], "region": where["region"], "access_key_id": where["key"],
        "secret_access_key": where["secret"], "virtual_hosted_style_request": False,
        "client_options": {"allow_http": True, "timeout": "600s"},
    }  # fmt: skip


class Obstore:
    """obstore by hand."""

    def __init__(self, where):
        from obstore.store import S3Store

        self.where = where
        self.store = S3Store(BUCKET, **obstore_options(where))
        self.store.get("get/0").bytes()

    def list(self):
        return len(self.store.list("list").collect())

    def cat(self):
        async def get(number):
            return len((await (await self.store.get_async(f"get/{number}")).bytes_async()).to_bytes())

        async def all_of_them():
            return sum(await asyncio.gather(*(get(number) for number in range(SMALL))))

        return asyncio.run(all_of_them())

    def columns(self):
        import obstore
        import pyarrow.parquet as pq

        return pq.read_table(Reading(obstore.open_reader(self.store, "table.parquet")), columns=COLUMNS).num_rows

    def pipe(self):
        async def all_of_them():
            await asyncio.gather(*(self.store.put_async(f"put/{n}", self.where["small"]) for n in range(SMALL)))

        asyncio.run(all_of_them())

    def write(self):
        import obstore

        block = bytes(1 << 20)
        with obstore.open_writer(self.store, "large") as file:
            for _ in range(LARGE >> 20):
                file.write(block)


class Reading(io.RawIOBase):
    """obstore's reader as pyarrow takes files."""

    def __init__(self, file):
        self.file = file

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        return self.file.seek(offset, whence)

    def tell(self):
        return self.file.tell()

    def readinto(self, buffer):
        data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


PEERS = {"mfstore": Mfstore, "obstore by hand": Obstore, "obstore.fsspec": ObstoreFsspec, "s3fs": S3fs}
JOBS = {
    "list": f"find {LISTED:,} files", "cat": f"cat {SMALL:,} files of 4 KiB",
    "columns": "2 of 20 columns of a Parquet file", "pipe": f"pipe {SMALL:,} files of 4 KiB",
    "write": "write a file of 256 MiB",
}  # fmt: skip


SLOW = ("s3fs",)
"""Those that do each job once."""


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def one(peer, job, where, rounds):
    """In a process of its own: CPU and wall seconds of each round."""
    where["small"] = os.urandom(SIZE)
    client = PEERS[peer](where)
    if job == "columns":
        import pyarrow.parquet  # noqa: F401
    found = []
    for _ in range(rounds):
        before, begun = cpu(), time.perf_counter()
        getattr(client, job)()
        found.append((cpu() - before, time.perf_counter() - begun))
    print(json.dumps(found), flush=True)
    os._exit(0)  # obstore's threads may end a process that ends by itself


def child(peer, job, where, rounds):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.filesystem", "--one", peer, job, json.dumps(where), str(rounds)],
        capture_output=True, text=True, cwd=ROOT, timeout=900, check=False,
        env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def filled(server):
    """What is listed and read."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mfstore.s3 import BulkClient

    server.create_bucket(BUCKET)
    client = BulkClient(
        BUCKET, endpoint_url=server.url, region_name=server.region, aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )  # fmt: skip
    client.put_many((f"list/part={n % 20}/file-{n:05}.parquet", b"") for n in range(LISTED))
    client.put_many((f"get/{n}", os.urandom(SIZE)) for n in range(SMALL))
    numbers = np.random.default_rng(7)
    table = pa.table({f"f{n}": numbers.random(1_000_000) for n in range(20)})
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=250_000)
    client.put_many({"table.parquet": out.getbuffer()})
    return out.tell()


def main(peers, jobs, rounds):
    from mfstore.testing import FaultProxy

    with Radosgw() as server:
        parquet = filled(server)
        where = {
            "url": server.url, "region": server.region, "key": server.access_key, "secret": server.secret_key
        }  # fmt: skip
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("s3fs", "obstore", "fsspec"))
        print(f"{os.cpu_count()} cores, {versions}; the Parquet file has {parquet >> 20} MiB\n")
        print("| job | client | CPU s | requests | wall s |\n|---|---|--:|--:|--:|")
        for job in jobs:
            for peer in peers:
                found = child(peer, job, where, 1 if peer in SLOW else rounds)
                with FaultProxy(server.url) as proxy:
                    child(peer, job, {**where, "url": proxy.url}, 1)
                    requests = len(proxy.requests()) - 1
                used, wall = (statistics.median(column) for column in zip(*found, strict=True))
                print(f"| {JOBS[job]} | {peer} | {used:.3f} | {requests:,} | {wall:.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=4)
    parser.add_argument("--peers", nargs="+", default=[*PEERS])
    parser.add_argument("--jobs", nargs="+", default=[*JOBS])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.one:
        one(given.one[0], given.one[1], json.loads(given.one[2]), int(given.one[3]))
    else:
        main(given.peers, given.jobs, given.rounds)
