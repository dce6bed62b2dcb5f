"""S3 clients side by side, and the process that measures one of them: ``python -m benchmarks.s3_peers JOB``.

The clients are those of ``mfstore.bench.peers``, with mfstore's and awscrt's beside them. No server here keeps
checksums, so a GET is verified by nobody, and what is read is only counted.
"""

import functools
import gc
import importlib.metadata
import itertools
import json
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

from mfstore.bench import peers
from mfstore.bench.peers import Peer, Where


class Mfstore(Peer):
    engine, checksum, payload_signing = "native", None, "auto"

    def open(self):
        from botocore.config import Config

        from mfstore.s3.bulk.client import BulkClient

        self.config = Config(**self.config_options())
        self.client = BulkClient(
            self.where.bucket, engine=self.engine, checksum=self.checksum, payload_signing=self.payload_signing,
            config=self.config, concurrency=self.where.concurrency, **self.named(),
        )  # fmt: skip

    def get(self, keys, take):
        for outcome in self.client.get_many(keys, ordered=False):
            take(outcome.index, outcome.data, None)

    def put(self, items, take):
        self.client.put_many(items, ordered=False)

    def close(self):
        self.client.close()


class MfstoreThreads(Mfstore):
    """With as many threads for transfers as its name says, whatever the machine has. There is no knob for it."""

    threads = 1

    def open(self):
        from mfstore.s3.aws import sessions

        sessions.os.cpu_count = lambda: self.threads
        super().open()


class MfstoreTwoThreads(MfstoreThreads):
    threads = 2


class MfstoreFourThreads(MfstoreThreads):
    threads = 4


class MfstoreDefault(Mfstore):
    """With the checksum that is the default. Only PUT differs."""

    checksum = "CRC64NVME"
    checksums = "CRC64NVME"


class MfstoreUnsigned(Mfstore):
    """Signs no payload over http either."""

    payload_signing = "never"

    def open(self):
        self.signs = False
        super().open()


class MfstoreUnsignedDefault(MfstoreUnsigned):
    checksum = checksums = "CRC64NVME"


class MfstoreCurrent(Mfstore):
    """With the OpenSSL and libcurl that ``pycurl``'s wheel brings, in place of the system's: what mfstore built against
    current ones does. ``environment`` has the loader find them."""

    def open(self):
        import ctypes

        library = ctypes.CDLL("libcrypto.so.3")
        library.OpenSSL_version.restype = ctypes.c_char_p
        self.libraries = library.OpenSSL_version(0).decode()
        super().open()
        self.client.head_many(["nothing"], on_error="return")
        if "pycurl.libs/libssl" not in Path("/proc/self/maps").read_text():
            raise RuntimeError(f"{self.libraries} is not pycurl's")


class Awscrt(Peer):
    def open(self):
        from awscrt import auth, io, s3

        self.signs = False  # its way
        bootstrap = io.ClientBootstrap.get_or_create_static_default()
        keys = auth.AwsCredentialsProvider.new_static(self.where.access_key, self.where.secret_key)
        tls = None
        if self.where.secure:
            options = io.TlsContextOptions()
            options.override_default_trust_store_from_path(None, self.where.ca_file)
            tls = io.ClientTlsContext(options).new_connection_options()
        self.client = s3.S3Client(
            bootstrap=bootstrap, region=self.where.region, credential_provider=keys, tls_connection_options=tls,
            tls_mode=s3.S3RequestTlsMode.ENABLED if self.where.secure else s3.S3RequestTlsMode.DISABLED,
            throughput_target_gbps=100,
        )  # fmt: skip
        self.host = self.where.url.split("//")[1]

    def _request(self, method, key, data=None, count=None):
        from awscrt import http, s3

        headers = http.HttpHeaders([("Host", self.host)])
        stream = None
        if data is not None:
            import io

            headers.add("Content-Length", str(len(data)))
            stream = io.BytesIO(data)
        request = http.HttpRequest(method, f"/{self.where.bucket}/{key}", headers, stream)
        kind = s3.S3RequestType.GET_OBJECT if data is None else s3.S3RequestType.PUT_OBJECT
        return self.client.make_request(type=kind, request=request, on_body=count)

    def _all(self, begin, items):
        room = threading.Semaphore(256)
        wrong = []

        def done(future):
            if future.exception() is not None:
                wrong.append(future.exception())
            room.release()

        for item in items:
            room.acquire()
            begin(item).finished_future.add_done_callback(done)
        for _ in range(256):
            room.acquire()
        if wrong:
            raise wrong[0]

    def get(self, keys, take):
        def begin(item):
            parts = []  # in order, as the callback delivers them
            request = self._request("GET", item[1], count=lambda chunk, offset, **_: parts.append(chunk))
            request.finished_future.add_done_callback(lambda _: take(item[0], b"".join(parts), None))
            return request

        self._all(begin, enumerate(keys))

    def put(self, items, take):
        self._all(lambda item: self._request("PUT", item[0], item[1]), items)


class ObstoreUnsigned(peers.Obstore):
    """Signs no payload over http either."""

    def open(self):
        self.signs = False
        super().open()


CURRENT = "mfstore, current OpenSSL"
PEERS = {
    "mfstore": Mfstore,
    "mfstore with CRC64NVME": MfstoreDefault,
    CURRENT: MfstoreCurrent,
    "boto3, threads": peers.Boto3,
    "aiobotocore": peers.Aiobotocore,
    "s3fs": peers.S3fs,
    "obstore": peers.Obstore,
    "obstore async": peers.ObstoreAsync,
    "awscrt": Awscrt,
}
"""The rows of the table."""
OTHERS = {
    "metaflow.S3": peers.Metaflow,
    "mfstore, 1 thread": MfstoreThreads,
    "mfstore, 2 threads": MfstoreTwoThreads,
    "mfstore, 4 threads": MfstoreFourThreads,
    "mfstore, unsigned": MfstoreUnsigned,
    "mfstore, unsigned, with CRC64NVME": MfstoreUnsignedDefault,
    "obstore, unsigned": ObstoreUnsigned,
}
"""Of single measurements."""
SHARES = {
    "boto3, threads": 0.05, "aiobotocore": 0.05, "s3fs": 0.05, "obstore": 0.3,
    "obstore async": 0.3, "awscrt": 0.2, "metaflow.S3": 0.01,
}  # fmt: skip
"""Of the small objects, how many a peer gets, for those so slow that all of them would take minutes."""


def made(name, where):
    """The peer of that name, at a place as JSON has it."""
    return {**PEERS, **OTHERS}[name](Where(**where))


@functools.cache
def current_libraries():
    """Where the loader finds pycurl's libraries by their usual names; None where its wheel brings none."""
    brought = Path(importlib.metadata.distribution("pycurl").locate_file("pycurl.libs"))
    names = {"libcurl.so.4": "libcurl-*", "libssl.so.3": "libssl-*", "libcrypto.so.3": "libcrypto-*"}
    found = {name: list(brought.glob(pattern)) for name, pattern in names.items()}
    if not all(found.values()):
        return None
    folder = tempfile.TemporaryDirectory(prefix="mfstore-libraries-")  # until the process ends
    for name, (path,) in found.items():
        os.symlink(path, os.path.join(folder.name, name))
    return folder, f"{folder.name}:{brought}"


def environment(where, peer=None):
    """For the process of a peer: nobody's configuration but this."""
    libraries = {"LD_LIBRARY_PATH": current_libraries()[1]} if peer == CURRENT else {}
    return {
        **os.environ, **peers.environment(Where(**where)), **libraries,
        "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip


def cpu():
    """User and system seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Work:
    """What a job asks of a peer, in portions: the same names again and again, for they exist and nobody here caches."""

    def __init__(self, job):
        self.job, self.seen = job, []
        self.peer = made(job["peer"], job["where"])
        self._numbers, self._data = itertools.count(), os.urandom(job["size"])

    def portion(self, count):
        """What the peer is given for ``count`` objects: made beforehand, for it is no part of the work."""
        name = f"{self.job['operation']}/{self.job['size']}"
        keys = [f"{name}/{next(self._numbers) % self.job['exist']}" for _ in range(count)]
        return keys if self.job["operation"] == "get" else [(key, self._data) for key in keys]

    def __call__(self, portion):
        """Moves them. What is got is counted, and let go."""
        if self.job["operation"] == "put":
            self.peer.put(portion, lambda *_: None)
            return
        self.seen.clear()
        self.peer.get(portion, lambda _, found, __: self.seen.append(len(found)))
        if sum(self.seen) != len(portion) * self.job["size"]:
            raise AssertionError(f"{sum(self.seen)} bytes instead of {len(portion) * self.job['size']}")


def run(job):
    """Warm up, then the best and the median of some rounds."""
    work = Work(job)
    share = SHARES.get(job["peer"], 1.0) if job["size"] < (1 << 20) else 1
    count = max(1, round(job["count"] * share))
    work(work.portion(max(1, count // 10)))
    gc.collect()
    rounds = []
    for _ in range(job["rounds"]):
        portion = work.portion(count)
        begin, before, main = time.perf_counter(), cpu(), time.thread_time()
        work(portion)
        rounds.append((cpu() - before, time.perf_counter() - begin, time.thread_time() - main))
    peer = work.peer
    peer.close()
    best = sorted(rounds)
    return {
        "cpu": best[0][0] / count, "median": best[len(best) // 2][0] / count,
        "wall": min(wall for _, wall, _ in rounds) / count, "main": min(main for _, _, main in rounds) / count,
        "count": count, "signs": peer.signs, "checksums": peer.checksums, "libraries": getattr(peer, "libraries", None),
    }  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(json.loads(sys.argv[1]))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # awscrt's and obstore's threads may take their time
