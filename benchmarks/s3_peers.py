"""S3 clients behind one interface, and the process that measures one of them: ``python -m benchmarks.s3_peers JOB``.

``get(keys)`` reads each object whole into memory (Metaflow: into files, the only way it has) and returns the bytes
seen; ``put(items)`` stores ``(key, bytes)`` pairs. No server here keeps checksums, so a GET is verified by nobody. PUT
carries no checksum; its payload is signed (SHA-256) over http by all who can, and by none over https. ``signs`` and
``checksums`` say who differs.
"""

import asyncio
import contextlib
import gc
import itertools
import json
import os
import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

THREADS = 16
TASKS = 64


class Peer:
    """A client of ``where``: url, bucket, ca_file, region, access_key, secret_key."""

    share = 1.0
    """Of the small objects, how many it gets, for those so slow that all of them would take minutes."""
    checksums = "none"

    def __init__(self, where):
        self.where = where
        self.secure = where["url"].startswith("https")
        self.verify = where["ca_file"] if self.secure else None
        self.keys = {"aws_access_key_id": where["access_key"], "aws_secret_access_key": where["secret_key"]}
        self.signs = not self.secure
        self.open()

    def open(self):
        pass

    def close(self):
        pass

    def config(self, kind=None):
        if kind is None:
            from botocore.config import Config as kind  # noqa: N813
        return kind(
            s3={"addressing_style": "path", "payload_signing_enabled": self.signs},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=TASKS,
        )

    def named(self):
        """What boto3, aiobotocore and mfstore take alike."""
        return {
            "endpoint_url": self.where["url"],
            "region_name": self.where["region"],
            "verify": self.verify,
            **self.keys,
        }


class Mfstore(Peer):
    engine, checksum = "native", None

    def open(self):
        from mfstore.s3.client import BulkClient

        self.client = BulkClient(
            self.where["bucket"], engine=self.engine, checksum=self.checksum, config=self.config(), **self.named()
        )

    def get(self, keys):
        return sum(len(outcome.data) for outcome in self.client.get_many(keys, ordered=False))

    def put(self, items):
        self.client.put_many(items, ordered=False)

    def close(self):
        self.client.close()


class MfstoreDefault(Mfstore):
    """With the checksum that is the default. Only PUT differs."""

    checksum = "CRC64NVME"
    checksums = "CRC64NVME"


class MfstoreAio(Mfstore):
    engine = "aiobotocore"
    share = 0.05


class Boto3(Peer):
    share = 0.05

    def open(self):
        import boto3

        self.client = boto3.session.Session().client("s3", config=self.config(), **self.named())
        self.pool = ThreadPoolExecutor(THREADS)

    def get(self, keys):
        bucket = self.where["bucket"]
        read = lambda key: len(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())  # noqa: E731
        return sum(self.pool.map(read, keys))

    def put(self, items):
        store = lambda item: self.client.put_object(Bucket=self.where["bucket"], Key=item[0], Body=item[1])  # noqa: E731
        for _ in self.pool.map(store, items):
            pass


class Looped(Peer):
    """One that needs an event loop: the same one all the time. No more than ``limit`` objects at once."""

    limit = TASKS

    def open(self):
        self.runner = asyncio.Runner()
        self.runner.run(self.aopen())

    async def aopen(self):
        pass

    async def _all(self, work, items):
        source = iter(items)

        async def worker():
            return sum([await work(item) for item in source])

        return sum(await asyncio.gather(*(worker() for _ in range(self.limit))))

    def get(self, keys):
        return self.runner.run(self._all(self.aget, keys))

    def put(self, items):
        self.runner.run(self._all(self.aput, items))


class Aiobotocore(Looped):
    share = 0.05

    async def aopen(self):
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session

        self.context = get_session().create_client("s3", config=self.config(AioConfig), **self.named())
        self.client = await self.context.__aenter__()

    async def aget(self, key):
        answer = await self.client.get_object(Bucket=self.where["bucket"], Key=key)
        async with answer["Body"] as body:
            return len(await body.read())

    async def aput(self, item):
        await self.client.put_object(Bucket=self.where["bucket"], Key=item[0], Body=item[1])
        return 0

    def close(self):
        self.runner.run(self.context.__aexit__(None, None, None))


class S3fs(Peer):
    share = 0.05

    def open(self):
        import s3fs

        named = {"endpoint_url": self.where["url"], "region_name": self.where["region"], "verify": self.verify}
        config = {
            "s3": {"addressing_style": "path", "payload_signing_enabled": self.signs},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "max_pool_connections": TASKS,
        }
        self.files = s3fs.S3FileSystem(
            key=self.where["access_key"], secret=self.where["secret_key"], client_kwargs=named, config_kwargs=config
        )

    def get(self, keys):
        found = self.files.cat([f"{self.where['bucket']}/{key}" for key in keys])
        return sum(map(len, found.values()))

    def put(self, items):
        self.files.pipe({f"{self.where['bucket']}/{key}": data for key, data in items})


class Obstore(Looped):
    share = 0.3

    def make(self):
        from obstore.store import S3Store

        options = {"allow_http": True, "timeout": "600s"}
        if self.secure:
            options["root_certificate"] = Path(self.where["ca_file"]).read_bytes()
        self.store = S3Store(
            self.where["bucket"], endpoint=self.where["url"], region=self.where["region"],
            access_key_id=self.where["access_key"], secret_access_key=self.where["secret_key"],
            virtual_hosted_style_request=False, unsigned_payload=not self.signs, client_options=options,
        )  # fmt: skip

    async def aopen(self):
        self.make()

    async def aget(self, key):
        return len(await (await self.store.get_async(key)).bytes_async())

    async def aput(self, item):
        await self.store.put_async(item[0], item[1], use_multipart=False)
        return 0


class ObstoreSync(Obstore):
    def open(self):
        self.make()
        self.pool = ThreadPoolExecutor(THREADS)

    def get(self, keys):
        return sum(self.pool.map(lambda key: len(self.store.get(key).bytes()), keys))

    def put(self, items):
        for _ in self.pool.map(lambda item: self.store.put(item[0], item[1], use_multipart=False), items):
            pass


class Awscrt(Peer):
    share = 0.2

    def open(self):
        from awscrt import auth, io, s3

        self.signs = False  # its way
        bootstrap = io.ClientBootstrap.get_or_create_static_default()
        keys = auth.AwsCredentialsProvider.new_static(self.where["access_key"], self.where["secret_key"])
        tls = None
        if self.secure:
            options = io.TlsContextOptions()
            options.override_default_trust_store_from_path(None, self.where["ca_file"])
            tls = io.ClientTlsContext(options).new_connection_options()
        self.client = s3.S3Client(
            bootstrap=bootstrap, region=self.where["region"], credential_provider=keys, tls_connection_options=tls,
            tls_mode=s3.S3RequestTlsMode.ENABLED if self.secure else s3.S3RequestTlsMode.DISABLED,
            throughput_target_gbps=100,
        )  # fmt: skip
        self.host = self.where["url"].split("//")[1]

    def _request(self, method, key, data=None, count=None):
        from awscrt import http, s3

        headers = http.HttpHeaders([("Host", self.host)])
        stream = None
        if data is not None:
            import io

            headers.add("Content-Length", str(len(data)))
            stream = io.BytesIO(data)
        request = http.HttpRequest(method, f"/{self.where['bucket']}/{key}", headers, stream)
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

    def get(self, keys):
        got = []

        def begin(key):
            parts = []  # in order, as the callback delivers them

            def body(chunk, offset, **_):
                parts.append(chunk)
                got.append(len(chunk))

            request = self._request("GET", key, count=body)
            request.finished_future.add_done_callback(lambda _: (b"".join(parts), parts.clear()))
            return request

        self._all(begin, keys)
        return sum(got)

    def put(self, items):
        self._all(lambda item: self._request("PUT", item[0], item[1]), items)


class Metaflow(Peer):
    share = 0.01

    def open(self):
        from metaflow import S3

        self.signs = True
        self.scratch = tempfile.mkdtemp(prefix="mfstore-bench-")
        self.make = lambda: S3(s3root=f"s3://{self.where['bucket']}", tmproot=self.scratch)

    def get(self, keys):
        with self.make() as s3:
            return sum(Path(found.path).stat().st_size for found in s3.get_many(list(keys)))

    def put(self, items):
        with self.make() as s3:
            s3.put_many(list(items), overwrite=True)

    def close(self):
        with contextlib.suppress(OSError):
            os.rmdir(self.scratch)


PEERS = {
    "mfstore": Mfstore,
    "mfstore with CRC64NVME": MfstoreDefault,
    "mfstore, aiobotocore engine": MfstoreAio,
    "boto3, threads": Boto3,
    "aiobotocore": Aiobotocore,
    "s3fs": S3fs,
    "obstore": ObstoreSync,
    "obstore async": Obstore,
    "awscrt": Awscrt,
    "metaflow.S3": Metaflow,
}


def environment(where):
    """For the process of a peer: nobody's configuration but this."""
    return {
        **os.environ,
        "AWS_ACCESS_KEY_ID": where["access_key"], "AWS_SECRET_ACCESS_KEY": where["secret_key"],
        "AWS_DEFAULT_REGION": where["region"], "AWS_REGION": where["region"], "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true", "METAFLOW_USER": "bench",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "METAFLOW_S3_ENDPOINT_URL": where["url"], "METAFLOW_DEFAULT_METADATA": "local",
        **({"METAFLOW_S3_VERIFY_CERTIFICATE": where["ca_file"]} if where["url"].startswith("https") else {}),
    }  # fmt: skip


def cpu():
    """User and system seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def run(job):
    """Warm up, then the best and the median of some rounds."""
    where, size = job["where"], job["size"]
    peer = PEERS[job["peer"]](where)
    count = max(1, round(job["count"] * (peer.share if size < (1 << 20) else 1)))
    numbers = itertools.count()
    data = os.urandom(size)
    if job["operation"] == "get":
        # the same names again and again: they exist, and nobody here caches
        work = lambda n: peer.get([f"get/{size}/{i % job['exist']}" for i in range(n)])  # noqa: E731
    else:
        work = lambda n: peer.put([(f"put/{size}/{next(numbers) % job['exist']}", data) for _ in range(n)])  # noqa: E731
    work(max(1, count // 10))
    gc.collect()
    rounds = []
    for _ in range(job["rounds"]):
        begin, before = time.perf_counter(), cpu()
        moved = work(count)
        rounds.append((cpu() - before, time.perf_counter() - begin))
        if job["operation"] == "get" and moved != count * size:
            raise AssertionError(f"{moved} bytes instead of {count * size}")
    peer.close()
    best = sorted(rounds)
    return {
        "cpu": best[0][0] / count, "median": best[len(best) // 2][0] / count, "wall": min(w for _, w in rounds) / count,
        "count": count, "signs": peer.signs, "checksums": peer.checksums,
    }  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(json.loads(sys.argv[1]))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # awscrt's and obstore's threads may take their time
