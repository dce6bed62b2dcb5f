"""Other S3 clients behind one interface, with the integrity of all alike.

``get`` reads each object whole into memory (Metaflow's into a file, the only way it has, and from there), ``put``
stores ``(key, bytes)`` pairs. No upload carries a checksum; its payload is signed (SHA-256) over http by all who can,
and by none over https: ``signs`` and ``checksums`` say who differs. What was read, the caller compares.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

from mfstore.bench.measure import Row
from mfstore.bench.movers import DIFFERS, BulkMover, Check, Mover, Rows

THREADS = 16
TASKS = 64
"""Objects at once, of clients with threads and of those with an event loop, unless the caller says how many."""
Take = Callable[[int, Any, float | None], None]
"""Called for each object, from any thread: its number, its bytes (None of a put), and the seconds it took if known."""


@dataclass(frozen=True, slots=True)
class Where:
    """An endpoint, and who asks it."""

    url: str
    bucket: str
    region: str
    access_key: str
    secret_key: str
    token: str | None = None
    ca_file: str | None = None
    concurrency: int | None = None

    @property
    def secure(self) -> bool:
        """Whether it is https."""
        return self.url.startswith("https")


class Peer:
    """A client, connected to ``where``."""

    needs: tuple[str, ...] = ()
    """Modules that have to be installed."""
    checksums = "none"

    def __init__(self, where: Any) -> None:
        self.where = where
        self.verify = where.ca_file if where.secure else None
        self.signs = not where.secure
        self.open()

    def open(self) -> None:
        """Make the client."""
        raise NotImplementedError

    def get(self, keys: Iterable[str], take: Take) -> None:
        """Read objects."""
        raise NotImplementedError

    def put(self, items: Iterable[tuple[str, bytes]], take: Take) -> None:
        """Store objects."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of it."""

    def config_options(self) -> dict[str, Any]:
        """What every client that is made of botocore gets."""
        return {
            "s3": {"addressing_style": "path", "payload_signing_enabled": self.signs},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "max_pool_connections": max(TASKS, self.where.concurrency or 0),
        }

    def named(self) -> dict[str, Any]:
        """What boto3, aiobotocore and mfstore take alike."""
        return {
            "endpoint_url": self.where.url, "region_name": self.where.region, "verify": self.verify,
            "aws_access_key_id": self.where.access_key, "aws_secret_access_key": self.where.secret_key,
            "aws_session_token": self.where.token,
        }  # fmt: skip


class Threaded(Peer):
    """One whose calls block: a thread for each object under way."""

    def get_one(self, key: str) -> Any:
        """Read one object."""
        raise NotImplementedError

    def put_one(self, key: str, data: bytes) -> None:
        """Store one object."""
        raise NotImplementedError

    def get(self, keys: Iterable[str], take: Take) -> None:
        self._each(keys, self.get_one, take)

    def put(self, items: Iterable[tuple[str, bytes]], take: Take) -> None:
        """As Peer's."""
        self._each(items, lambda item: self.put_one(*item), take)

    def _each(self, items: Iterable[Any], work: Callable[[Any], Any], take: Take) -> None:
        source, lock = enumerate(items), threading.Lock()
        wrong: list[BaseException] = []

        def serve() -> None:
            try:
                while not wrong:
                    with lock:
                        found = next(source, None)
                    if found is None:
                        return
                    begin = monotonic()
                    data = work(found[1])
                    take(found[0], data, monotonic() - begin)
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=serve, daemon=True) for _ in range(self.where.concurrency or THREADS)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException as error:
            wrong.append(error)
        if wrong:
            for thread in threads:
                if thread.is_alive():  # one that has not begun finds that it is to stop
                    thread.join()
            raise wrong[0]


class Looped(Peer):
    """One that needs an event loop: the same one all the time."""

    def open(self) -> None:
        """As Peer's."""
        self.runner = asyncio.Runner()
        self.runner.run(self.aopen())

    async def aopen(self) -> None:
        """Make the client."""
        raise NotImplementedError

    async def aget(self, key: str) -> Any:
        """Read one object."""
        raise NotImplementedError

    async def aput(self, item: tuple[str, bytes]) -> None:
        """Store one object."""
        raise NotImplementedError

    async def _all(self, work: Callable[[Any], Awaitable[Any]], items: Iterable[Any], take: Take) -> None:
        source = enumerate(items)

        async def worker() -> None:
            for number, item in source:
                begin = monotonic()
                data = await work(item)
                take(number, data, monotonic() - begin)

        await asyncio.gather(*(worker() for _ in range(self.where.concurrency or TASKS)))

    def get(self, keys: Iterable[str], take: Take) -> None:
        self.runner.run(self._all(self.aget, keys, take))

    def put(self, items: Iterable[tuple[str, bytes]], take: Take) -> None:
        """As Peer's."""
        self.runner.run(self._all(self.aput, items, take))

    def close(self) -> None:
        self.runner.close()


class Boto3(Threaded):
    """boto3's client in threads."""

    needs = ("boto3",)

    def open(self) -> None:
        """As Peer's."""
        import boto3
        from botocore.config import Config

        config = Config(**self.config_options())
        self.client = boto3.session.Session().client("s3", config=config, **self.named())

    def get_one(self, key: str) -> Any:
        """As Threaded's."""
        return self.client.get_object(Bucket=self.where.bucket, Key=key)["Body"].read()

    def put_one(self, key: str, data: bytes) -> None:
        """As Threaded's."""
        self.client.put_object(Bucket=self.where.bucket, Key=key, Body=data)


class Aiobotocore(Looped):
    """aiobotocore's client."""

    needs = ("aiobotocore",)

    async def aopen(self) -> None:
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session

        config = AioConfig(**self.config_options())
        self.context = get_session().create_client("s3", config=config, **self.named())
        self.client = await self.context.__aenter__()

    async def aget(self, key: str) -> Any:
        answer = await self.client.get_object(Bucket=self.where.bucket, Key=key)
        async with answer["Body"] as body:
            return await body.read()

    async def aput(self, item: tuple[str, bytes]) -> None:
        await self.client.put_object(Bucket=self.where.bucket, Key=item[0], Body=item[1])

    def close(self) -> None:
        self.runner.run(self.context.__aexit__(None, None, None))
        super().close()


class S3fs(Peer):
    """s3fs' bulk calls, which take all objects at once."""

    needs = ("s3fs",)

    def open(self) -> None:
        """As Peer's."""
        import s3fs

        named = {"endpoint_url": self.where.url, "region_name": self.where.region, "verify": self.verify}
        self.files = s3fs.S3FileSystem(
            key=self.where.access_key, secret=self.where.secret_key, token=self.where.token, client_kwargs=named,
            config_kwargs=self.config_options(),
        )  # fmt: skip

    def get(self, keys: Iterable[str], take: Take) -> None:
        names = [f"{self.where.bucket}/{key}" for key in keys]
        # Neither takes no objects, and of one it returns the bytes alone.
        found = self.files.cat(names) if len(names) > 1 else {name: self.files.cat_file(name) for name in names}
        for number, name in enumerate(names):
            take(number, found[name], None)

    def put(self, items: Iterable[tuple[str, bytes]], take: Take) -> None:
        """As Peer's."""
        stored = {f"{self.where.bucket}/{key}": data for key, data in items}
        self.files.pipe(stored)
        for number in range(len(stored)):
            take(number, None, None)


def obstore_store(where: Where, *, signs: bool) -> Any:
    """obstore's store of a bucket."""
    from obstore.store import S3Store

    options: Any = {"allow_http": True, "timeout": "600s"}
    keys: Any = {"session_token": where.token} if where.token else {}
    if where.ca_file and where.secure:
        options["root_certificate"] = Path(where.ca_file).read_bytes()
    return S3Store(
        where.bucket, endpoint=where.url, region=where.region, access_key_id=where.access_key,
        secret_access_key=where.secret_key, virtual_hosted_style_request=False,
        unsigned_payload=not signs, client_options=options, **keys,
    )  # fmt: skip


class Obstore(Threaded):
    """obstore's blocking calls in threads."""

    needs = ("obstore",)

    def open(self) -> None:
        """As Peer's."""
        self.store = obstore_store(self.where, signs=self.signs)

    def get_one(self, key: str) -> Any:
        """As Threaded's."""
        return self.store.get(key).bytes()

    def put_one(self, key: str, data: bytes) -> None:
        """As Threaded's."""
        self.store.put(key, data, use_multipart=False)


class ObstoreAsync(Looped):
    """obstore's coroutines."""

    needs = ("obstore",)

    async def aopen(self) -> None:
        self.store = obstore_store(self.where, signs=self.signs)

    async def aget(self, key: str) -> Any:
        return await (await self.store.get_async(key)).bytes_async()

    async def aput(self, item: tuple[str, bytes]) -> None:
        await self.store.put_async(item[0], item[1], use_multipart=False)


class Metaflow(Peer):
    """metaflow.S3, with files and worker processes."""

    needs = ("metaflow",)

    def open(self) -> None:
        """As Peer's."""
        stock = import_module("metaflow.plugins.datatools.s3")
        make: Any = getattr(stock, "StockS3", stock.S3)  # where mfstore's extension has replaced it
        self.signs = True
        self.scratch = tempfile.mkdtemp(prefix="mfstore-bench-")
        self.make: Callable[[], Any] = lambda: make(s3root=f"s3://{self.where.bucket}", tmproot=self.scratch)

    def get(self, keys: Iterable[str], take: Take) -> None:
        names = list(keys)
        with self.make() as s3:
            for number, found in enumerate(s3.get_many(names)):
                take(number, Path(found.path).read_bytes(), None)

    def put(self, items: Iterable[tuple[str, bytes]], take: Take) -> None:
        """As Peer's."""
        with self.make() as s3:
            for number, _ in enumerate(s3.put_many(list(items), overwrite=True)):
                take(number, None, None)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self.scratch)  # noqa: PTH106


PEERS: Mapping[str, type[Peer]] = {
    "boto3": Boto3, "aiobotocore-client": Aiobotocore, "s3fs": S3fs, "obstore": Obstore, "obstore-async": ObstoreAsync,
    "metaflow": Metaflow,
}  # fmt: skip
"""By the names that ``--peers`` takes."""


def environment(where: Where) -> dict[str, str]:
    """What Metaflow's worker processes find out about the endpoint, and need to be as strict as the others."""
    found = {
        "AWS_ACCESS_KEY_ID": where.access_key, "AWS_SECRET_ACCESS_KEY": where.secret_key,
        "AWS_DEFAULT_REGION": where.region, "AWS_REGION": where.region, "METAFLOW_USER": "bench",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "METAFLOW_S3_ENDPOINT_URL": where.url, "METAFLOW_DEFAULT_METADATA": "local",
    }  # fmt: skip
    if where.token:
        found["AWS_SESSION_TOKEN"] = where.token
    if where.concurrency:
        found["METAFLOW_S3_WORKER_COUNT"] = str(where.concurrency)
    if where.secure and where.ca_file:
        found["METAFLOW_S3_VERIFY_CERTIFICATE"] = where.ca_file
    return found


@contextlib.contextmanager
def surroundings(where: Where) -> Iterator[None]:
    """``environment`` in this process, for as long as the block."""
    new = environment(where)
    old = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class PeerMover(Mover):
    """A peer that puts and gets; the rest, which is not measured, is mfstore's."""

    essential = False

    def __init__(self, name: str, peer: Peer, rest: BulkMover) -> None:
        self.engine = name
        self._rest = rest
        self._peer = peer

    def put(self, items: Iterable[tuple[str, bytes]]) -> Rows:
        sizes: list[int] = []

        def counted() -> Iterator[tuple[str, bytes]]:
            for key, data in items:
                sizes.append(len(data))
                yield key, data

        return self._rows(lambda take: self._peer.put(counted(), take), lambda number, _: (sizes[number], 0, None))

    def get(self, keys: Iterable[str], check: Check) -> Rows:
        def seen(number: int, data: Any) -> tuple[int, int, str | None]:
            size = len(data)
            return (size, size, None) if check(number, data) else (0, 0, DIFFERS)

        return self._rows(lambda take: self._peer.get(keys, take), seen)

    def _rows(self, work: Callable[[Take], None], seen: Callable[[int, Any], tuple[int, int, str | None]]) -> Rows:
        rows: list[Row] = []
        begun = monotonic()

        def take(number: int, data: Any, seconds: float | None) -> None:
            size, verified, error = seen(number, data)
            end = monotonic()
            # Of one that takes all at once nobody knows when an object began: its row has no duration.
            start = end if seconds is None else end - seconds
            rows.append(Row(number, max(start, begun), end - max(start, begun), None, size, 1, verified, error))

        try:
            work(take)
        except Exception as error:
            # Whatever these clients raise is a finding about them, and no reason to lose the rest of the run.
            found = f"{self.engine}: {type(error).__name__}: {error}"
            rows.append(Row(len(rows), begun, monotonic() - begun, None, 0, 1, 0, found[:500]))
        yield from rows

    def list(self, prefix: str) -> Rows:
        return self._rest.list(prefix)

    def delete(self, keys: Iterable[str]) -> Rows:
        """As Mover's."""
        return self._rest.delete(keys)

    def close(self) -> None:
        self._peer.close()
        self._rest.close()
