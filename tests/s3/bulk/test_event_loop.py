"""What an event loop is not held up by: everything that may take long is done in other threads."""

import asyncio
import contextlib
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.credentials import RefreshableCredentials
from botocore.session import Session

from mfstore.errors import BackendError, InvalidKey
from mfstore.s3 import BulkClient
from mfstore.s3.aws import control, express, prepared
from mfstore.s3.engines import choice
from mfstore.s3.transfers import destinations, scheduler
from tests.rigs.directory_bucket import DirectoryBuckets
from tests.rigs.raw_server import Server

PAGE = b"<ListBucketResult><Contents><Key>k</Key><Size>1</Size></Contents></ListBucketResult>"
GONE = b"<DeleteResult></DeleteResult>"
COPIED = b'<CopyObjectResult><ETag>"e"</ETag></CopyObjectResult>'


def answer(connection, request):
    body = b""
    if request.method == "GET":
        body = PAGE if "list-type" in request.path else b"data"
    elif request.method == "POST":
        body = GONE
    elif "x-amz-copy-source" in request.headers:
        body = COPIED
    connection.reply("200 OK", ['ETag: "e"', f"Content-Length: {len(body)}"], body)


@pytest.fixture
def client(engine, s3_env):
    server = Server(answer)
    with BulkClient("bucket", engine=engine, endpoint_url=server.origin, region_name="us-east-1") as client:
        yield client
    server.close()


@pytest.fixture
def threads(monkeypatch):
    """By name of what may take long: the threads that it ran in."""
    found = {}

    def watch(place, name):
        real = getattr(place, name)

        def watched(*arguments, **named):
            found.setdefault(name, set()).add(threading.get_ident())
            return real(*arguments, **named)

        monkeypatch.setattr(place, name, watched)

    watch(choice, "choose")
    watch(prepared.RequestPreparer, "route")
    watch(control.ProcessState, "__init__")
    watch(control, "page")
    watch(destinations.Destination, "finish")
    watch(destinations.Destination, "create")
    watch(scheduler.Scheduler, "close")
    return found


WORK = {
    "put": lambda client, path: client.aput_many({"k": b"data"}),
    "get": lambda client, path: client.aget_many(["k"]),
    "files": lambda client, path: client.aget_many(["k"], into="files", dest=path),
    "generated": lambda client, path: client.aget_many((key for key in ["k"]), into="files", dest=path),
    "head": lambda client, path: client.ahead_many(["k"]),
    "delete": lambda client, path: client.adelete_many(["k"]),
    "copy": lambda client, path: client.acopy({"k": "l"}),
}


@pytest.mark.second
@pytest.mark.parametrize("work", [*WORK, "list"])
def test_what_takes_long_is_done_elsewhere(client, threads, tmp_path, work):
    async def main():
        if work == "list":
            assert [entry.key async for entry in client.alist()] == ["k"]
        else:
            result = await WORK[work](client, tmp_path)
            assert [outcome.ok for outcome in result] == [True] and result.engine == client.engine.name
        return threading.get_ident()

    here = asyncio.run(main())
    ended = threads.pop("close")
    if work == "generated":
        threads.pop("route", None)  # what is asked for is known only by the caller's code
    assert here in ended, "what has nothing more to wait for ends at once"
    assert set(threads) >= {"choose", "__init__"}
    assert all(here not in found for found in threads.values()), (here, threads)


class Renewals:
    """Of keys, while objects are got one by one in an event loop."""

    def __init__(self):
        self.loop = None
        self.seen = []
        """For each whether the loop went on meanwhile."""

    def asked(self):
        """Others are asked for."""
        if self.loop is not None:
            turned = threading.Event()
            self.loop.call_soon_threadsafe(turned.set)
            self.seen.append(turned.wait(20))

    def run(self, client, generated, come_to_an_end):
        """Renew them once: on the way they ``come_to_an_end``."""

        async def main():
            keys = ["k"] * 8
            count = 0
            async for outcome in client.aget_many((key for key in keys) if generated else keys):
                assert outcome.ok
                count += 1
                if count == 4:
                    self.loop = asyncio.get_running_loop()
                    come_to_an_end()
            assert count == 8

        asyncio.run(main())
        assert self.seen == [True]


@pytest.mark.parametrize("generated", [False, True], ids=["listed", "generated"])
def test_the_loop_goes_on_while_credentials_are_renewed(engine, generated):
    renewals = Renewals()

    def fresh():
        renewals.asked()
        until = datetime.now(UTC) + timedelta(hours=1)
        return {"access_key": "a", "secret_key": "b", "token": None, "expiry_time": until.isoformat()}

    session = Session()
    session._credentials = found = RefreshableCredentials.create_from_metadata(fresh(), fresh, "test")

    def come_to_an_end():
        found._expiry_time = datetime.now(found._expiry_time.tzinfo) + timedelta(minutes=5)

    with contextlib.closing(Server(answer)) as server:
        more = {"session": session, "endpoint_url": server.origin, "region_name": "us-east-1"}
        with BulkClient("bucket", engine=engine, concurrency=1, **more) as client:
            renewals.run(client, generated, come_to_an_end)


@pytest.mark.parametrize("generated", [False, True], ids=["listed", "generated"])
@pytest.mark.parametrize("way", ["ends", "refused"])
def test_the_loop_goes_on_while_a_session_is_renewed(s3_env, monkeypatch, way, generated):
    renewals, real = Renewals(), express.BucketSessions._begun

    def begun(*arguments):
        renewals.asked()
        return real(*arguments)

    monkeypatch.setattr(express.BucketSessions, "_begun", begun)
    with DirectoryBuckets() as service, service.client(concurrency=1) as client:
        service.objects["k"] = b"1"

        def come_to_an_end():
            sessions = client.transfers.control.process().sessions
            ((bucket, session),) = sessions._sessions.items()
            sessions._sessions[bucket] = replace(session, begun=0.0, ends=time.monotonic() + express.ENDING_SECONDS)
            assert way == "ends" or sessions.refused(bucket)

        renewals.run(client, generated, come_to_an_end)


@pytest.mark.slow
def test_the_callers_code_runs_in_his_own_thread(client, tmp_path):
    async def main():
        here = threading.get_ident()

        def keys():
            for _ in range(3):
                assert threading.get_ident() == here
                yield "k"

        result = await client.aget_many(keys(), into="files", dest=tmp_path)
        assert [outcome.ok for outcome in result] == [True] * 3
        result = await client.aput_many((key, b"x") for key in keys())
        assert [outcome.ok for outcome in result] == [True] * 3
        result = await client.aread_many(((key, 0, 4, None) for key in keys()), on_error="return")
        assert len(result) == 3

        class Keys(list):
            def __iter__(self):
                return keys()

        assert len(await client.adelete_many(Keys(["k"]))) == 3

    asyncio.run(main())


def test_a_task_that_is_cancelled_while_it_begins_lets_go(client, monkeypatch):
    begun, going_on, closed = threading.Event(), threading.Event(), threading.Event()
    real, end = scheduler.Scheduler.prepare, scheduler.Scheduler.close

    def prepare(*arguments):
        begun.set()
        going_on.wait(30)
        return real(*arguments)

    def close(*arguments):
        end(*arguments)
        closed.set()

    monkeypatch.setattr(scheduler.Scheduler, "prepare", prepare)
    monkeypatch.setattr(scheduler.Scheduler, "close", close)

    async def main():
        async def get():
            await client.aget_many(["k"])

        task = asyncio.create_task(get())
        while not begun.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        going_on.set()
        while not closed.is_set():
            await asyncio.sleep(0.01)

    asyncio.run(main())


def test_errors_come_out_of_threads_as_they_are(client, tmp_path):
    async def main():
        (tmp_path / "k").write_bytes(b"old")
        with pytest.raises(InvalidKey):
            await client.aget_many(["../k"], into="files", dest=tmp_path)
        with pytest.raises(ZeroDivisionError):
            await client.aput_many((1 // 0, b"") for _ in range(1))
        bad = BulkClient("bucket", endpoint_url="http://127.0.0.1:1", region_name="us-east-1", attempts=1)
        with pytest.raises(BackendError):
            await bad.aget_many(["k"])
        await bad.aclose()

    asyncio.run(main())
