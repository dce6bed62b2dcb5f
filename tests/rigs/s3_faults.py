"""What the fault tests of the S3 client share: one server, one engine, one bucket, and proxies between them."""

import asyncio
import threading
import uuid

from mfstore._core import crc
from mfstore.s3 import BulkClient
from mfstore.testing import FaultProxy, NetworkFault
from mfstore.testing.actions import Action

KIB, MIB = 1 << 10, 1 << 20
PART = 5 * MIB  # the shortest that servers accept


def fault(action, **where):
    return NetworkFault(action=action, **where)


class Held(Action):
    """Holds a request, or with ``answer`` what is said to it, until it is let go."""

    def __init__(self, answer=False):
        self.answer = answer
        self.seen, self.go = threading.Event(), threading.Event()

    async def hold(self):
        self.seen.set()
        while not self.go.is_set():
            await asyncio.sleep(0.01)

    async def before(self, flow):
        if not self.answer:
            await self.hold()

    async def after(self, flow):
        if self.answer:
            await self.hold()


class Rig:
    """A server with a bucket of its own, and clients of one engine."""

    def __init__(self, server, engine):
        self.server = server
        self.engine = engine
        self.boto = server.boto
        self.bucket = f"faults-{uuid.uuid4().hex[:16]}"
        self.boto.create_bucket(Bucket=self.bucket)
        self._clients = []
        self._proxies = []

    def proxy(self, *faults, **options):
        server = self.server
        proxy = FaultProxy(
            server.url, faults, **{"credentials": (server.access_key, server.secret_key, server.region), **options}
        )
        self._proxies.append(proxy.start())
        return proxy

    def options(self, url, **options):
        """How to reach the server, by ``url``."""
        keys = {"aws_access_key_id": self.server.access_key, "aws_secret_access_key": self.server.secret_key}
        if "session" in options or options.get("anonymous"):
            keys = {}
        return {
            "endpoint_url": url, "engine": self.engine, "region_name": self.server.region, "attempts": 6,
            "first_byte_timeout": 10.0, "stall_timeout": 10.0, **keys, **options,
        }  # fmt: skip

    def client(self, proxy=None, **options):
        """A client that goes through the proxy, or straight to the server."""
        client = BulkClient(self.bucket, **self.options((proxy or self.server).url, **options))
        self._clients.append(client)
        return client

    # ---- what is there, by another client than ours ---------------------------------------------

    def store(self, key, data):
        """Put an object, with the checksum that S3 keeps of each."""
        value = crc.encode("CRC64NVME", crc.update("CRC64NVME", data))
        self.boto.put_object(Bucket=self.bucket, Key=key, Body=data, ChecksumCRC64NVME=value)
        return data

    def stored(self, key):
        return self.boto.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def keys(self):
        return [found["Key"] for found in self.boto.list_objects_v2(Bucket=self.bucket).get("Contents", ())]

    def uploads(self):
        """Open multipart uploads."""
        return self.boto.list_multipart_uploads(Bucket=self.bucket).get("Uploads") or []

    def close(self):
        for client in self._clients:
            client.close()
        for proxy in self._proxies:
            proxy.close()
        left = self.uploads()
        self.boto.close()
        assert not left


def check_error(error, kind, rig, key, *words):
    """An error of this kind that says where, and what to do next."""
    assert isinstance(error, kind), error
    assert error.key == key and error.backend == f"s3://{rig.bucket}", error
    for word in words:
        assert word in str(error), error
