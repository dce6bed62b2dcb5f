"""The S3 client and a program that is slow, interrupted, cancelled or killed: cases A42 to A44 of the scoreboard, on
both engines."""

import asyncio
import contextlib
import itertools
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.rigs.s3_faults import KIB, MIB, Held, fault

pytestmark = pytest.mark.usefixtures("quick")

DATA = random.Random(2).randbytes(6 * MIB)
SMALL = DATA[: 100 * KIB]
LARGE = DATA[: 4 * MIB]


# ---- a slow program ------------------------------------------------------------------------------


def test_a42_a_slow_consumer_is_not_taken_for_a_slow_server(rig):
    """Bodies wait unread for longer than both time-outs, and none is asked for again."""
    rig.store("k", LARGE)
    client = rig.client(memory=4 * MIB, first_byte_timeout=4.0, stall_timeout=4.0, attempts=1)
    for number, outcome in enumerate(client.get_many(["k"] * 6)):
        assert outcome.data == LARGE
        if number == 1:
            time.sleep(5.0)


def test_a42_an_event_loop_that_is_blocked_fails_nothing(rig):
    rig.store("k", LARGE)
    client = rig.client(first_byte_timeout=4.0, stall_timeout=4.0, attempts=1)

    async def main():
        getting = asyncio.ensure_future(client.aget_many(["k"] * 6)._await())
        putting = asyncio.ensure_future(client.aput_many({"p": DATA, "q": SMALL})._await())
        await asyncio.sleep(0.05)
        time.sleep(5.0)  # what user code should not do
        assert [outcome.data for outcome in await getting] == [LARGE] * 6
        assert all(outcome.ok for outcome in await putting)

    asyncio.run(main())
    assert rig.stored("p") == DATA


# ---- ending early --------------------------------------------------------------------------------


PROGRAM = """
import os, sys
from pathlib import Path
from mfstore.s3 import BulkClient

def main():
    client = BulkClient({bucket!r}, **{options!r})
    print("ready", flush=True)
    {work}

try:
    main()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
WORK = {
    "get": "list(client.get_many(['k'] * 200))",
    "files": "client.get_many((f'k' for _ in range(200)), into='files', dest=lambda key: Path(sys.argv[1]) / str(os.urandom(8).hex()))",
    "put": "client.put_many((f'p{number}', bytes(6 << 20)) for number in range(100))",
}


def start(rig, proxy, work, folder):
    code = PROGRAM.format(bucket=rig.bucket, options=rig.options(proxy.url), work=WORK[work])
    command = [sys.executable, "-c", textwrap.dedent(code), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    limit = time.monotonic() + 120
    while not proxy.requests() and time.monotonic() < limit:
        time.sleep(0.02)
    time.sleep(0.3)
    return process


@pytest.mark.parametrize("work", WORK)
def test_a43_ctrl_c_ends_everything(rig, work, tmp_path):
    rig.store("k", LARGE)
    proxy = rig.proxy(bandwidth=3e6)
    process = start(rig, proxy, work, tmp_path)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert out == "interrupted\n" and process.returncode == 0
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".mfstore")]


class Cancelled:
    """Awaits ``work`` and cancels it where it waits for the n-th time. ``reached`` tells whether it came to that."""

    def __init__(self, work, number):
        self.work, self.number, self.reached = work, number, False

    def __await__(self):
        steps, thrown = self.work.__await__(), None
        for count in itertools.count():
            if count == self.number:
                self.reached, thrown = True, asyncio.CancelledError()
            try:
                waited_for = next(steps) if thrown is None else steps.throw(thrown)
            except StopIteration as end:
                return end.value
            try:
                thrown = None
                yield waited_for
            except BaseException as error:  # a time-out of the work's own
                thrown = error


@pytest.mark.parametrize("work", ["get", "files", "put", "list"])
def test_a43_cancelled_wherever_it_waits(rig, work, tmp_path):
    rig.store("k", LARGE)
    client = rig.client()
    names = itertools.count()
    begin = {
        "get": lambda: client.aget_many(["k", "k"]),
        "files": lambda: client.aget_many(["k"], into="files", dest=lambda key: tmp_path / str(next(names))),
        "put": lambda: client.aput_many({"p": DATA, "q": SMALL}),
        "list": lambda: collected(client.alist()),
    }[work]

    async def collected(entries):
        return [entry async for entry in entries]

    async def main():
        for number in range(1, 200):
            attempt = Cancelled(begin(), number)
            with contextlib.suppress(asyncio.CancelledError):
                await attempt
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert not [path for path in tmp_path.iterdir() if path.name.startswith(".mfstore")]
            if not attempt.reached:
                break
        assert number > 1
        assert [o.data async for o in client.aget_many(["k"])] == [LARGE]

    asyncio.run(main())
    assert rig.uploads() == []


@pytest.mark.parametrize("where", ["opening", "giving up"])
def test_a43_a_cancelled_task_gives_its_uploads_up_while_the_loop_goes_on(rig, where):
    opening = where == "opening"
    held, parts = Held(answer=opening), Held()
    proxy = rig.proxy(
        fault(held, query="uploads", method="POST") if opening else fault(held, method="DELETE"),
        fault(parts, query="partNumber", method="PUT"),
    )
    client = rig.client(proxy)

    async def main():
        task = asyncio.ensure_future(client.aput_many({"k": DATA}))
        await asyncio.to_thread((held if opening else parts).seen.wait)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.to_thread(held.seen.wait)
        assert not task.done()
        held.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    parts.go.set()
    assert rig.uploads() == [] and rig.keys() == []


def test_a44_a_killed_program_leaves_nothing_half_written(rig, tmp_path):
    proxy = rig.proxy(bandwidth=20e6)
    process = start(rig, proxy, "put", tmp_path)
    process.kill()
    process.communicate()
    proxy.reset_connections()
    for key in rig.keys():
        assert rig.stored(key) == bytes(6 * MIB)
    client = rig.client()
    client.put_many({f"p{number}": SMALL for number in range(100)})
    assert len(rig.keys()) == 100
    # What is open belongs to nobody any more: the bucket's lifecycle rule, or this, removes it.
    for upload in rig.uploads():
        rig.boto.abort_multipart_upload(Bucket=rig.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
