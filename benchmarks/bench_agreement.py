"""Whether ``mfstore bench`` and a program that knows nothing of it find the same figures: put and get of objects of
several sizes, by turns against one radosgw, with equally many requests at once.
``python -m benchmarks.bench_agreement`` prints a table in Markdown. ``--s3-benchmark PATH`` compares with
wasabi-tech/s3-benchmark, built there (docs/bench.md says how), in place of wrk.
Needs one of the two, and what the tests' radosgw needs.

Clients and server share the cores of one machine here, so that the one that takes least CPU looks best. Therefore the
server is put far away: a relay holds its answers back for so long that latency decides, as it does of S3, and much of
the CPU is left. ``--near`` leaves the relay out.

wrk sends requests that were signed before, one key each, and throws answers away: what the server does for a client
that costs nearly nothing. mfstore signs, and compares every byte that it reads. No checksum goes with uploads.
s3-benchmark puts with the Go SDK's upload manager (one request; it signs, and sends an MD5), and gets with the
download manager (ranges of 5 MiB, the first before the others), comparing nothing.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.servers import Radosgw, boto_client

SIZES = {4 << 10: (800, 0.05, 6), 1 << 20: (160, 0.4, 6), 16 << 20: (32, 2.5, 20)}
"""Bytes: objects that there are at first; seconds that the relay holds an answer back; seconds of a measurement."""
BUCKET = "agreement"


@dataclass
class Place:
    """A server, or a relay before it."""

    url: str
    access_key: str
    secret_key: str
    region: str
    ca_file: str | None = None


async def relay(upstream, delay, told):
    """Hand on what comes, in both directions; what the server says, after ``delay`` seconds."""
    loop = asyncio.get_running_loop()

    async def pump(reader, writer, wait):
        def say(data):
            # Who was to hear this may have hung up since.
            if not writer.is_closing():
                writer.write(data)

        try:
            while data := await reader.read(1 << 20):
                if wait:
                    loop.call_later(wait, say, data)
                else:
                    say(data)
                    await writer.drain()
        finally:
            # Also when this side broke off: the other would wait for the rest.
            loop.call_later(wait, writer.close)

    async def connected(reader, writer):
        with contextlib.suppress(OSError):
            inner, outer = await asyncio.open_connection("127.0.0.1", upstream, limit=1 << 22)
            await asyncio.gather(pump(reader, outer, 0.0), pump(inner, writer, delay), return_exceptions=True)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 22)
    told.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _relay(upstream, delay, told):
    asyncio.run(relay(upstream, delay, told))


@contextmanager
def far(server, delay):
    """The server behind a relay, which is a process of its own; itself without a delay."""
    place = Place(server.url, server.access_key, server.secret_key, server.region)
    if not delay:
        yield place
        return
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_relay, args=(int(server.url.rpartition(":")[2]), delay, theirs))
    process.start()
    try:
        place.url = f"http://127.0.0.1:{ours.recv()}"
        yield place
    finally:
        process.terminate()
        process.join()


def mfstore(server, size, count, concurrency, seconds):
    """Objects per second by operation."""
    command = [
        sys.executable, "-m", "mfstore", "bench", f"s3://{BUCKET}/mfstore", "--endpoint-url", server.url, "--yes",
        "--json", "--operation", "put,get", "--size", str(size), "--count", str(count), "--concurrency",
        str(concurrency), "--duration", f"{seconds}s",
    ]  # fmt: skip
    document = json.loads(_run(command, server))
    found = {}
    for cell in document["cells"]:
        if cell["scenario"]["layer"] == "objects":
            assert cell["failed"] == 0
            found[cell["operation"]] = cell["objects_per_second"]
    return found


LUA = """
local requests, at = {}, 0
local body = %(body)s
for line in io.lines("%(listed)s") do
  local path, date, hash, auth = line:match("([^\t]+)\t([^\t]+)\t([^\t]+)\t([^\t]+)")
  local headers = {["x-amz-date"] = date, ["x-amz-content-sha256"] = hash, ["Authorization"] = auth,
                   ["Host"] = "%(host)s"}
  requests[#requests + 1] = wrk.format("%(method)s", path, headers, body)
end
request = function() at = at + 1 return requests[(at - 1) %% #requests + 1] end
"""


def wrk(server, size, count, concurrency, seconds):
    """Likewise, for some seconds. One thread, whose keys are all different until all were taken."""
    body = os.urandom(size)
    hashes = {"PUT": hashlib.sha256(body).hexdigest(), "GET": hashlib.sha256(b"").hexdigest()}
    found = {}
    names = [f"wrk/{number}" for number in range(4 * count)]
    with tempfile.TemporaryDirectory() as folder:
        blob = Path(folder, "body")
        blob.write_bytes(body)
        for operation, method in (("put", "PUT"), ("get", "GET")):
            listed, script = Path(folder, method), Path(folder, f"{method}.lua")
            listed.write_text("".join(_signed(server, method, name, hashes[method]) for name in names))
            script.write_text(LUA % {
                "listed": listed, "method": method, "host": server.url.removeprefix("http://"),
                "body": f'io.open("{blob}", "rb"):read("*a")' if method == "PUT" else "nil",
            })  # fmt: skip
            text = _run(["wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script),
                         server.url], server)  # fmt: skip
            assert "Non-2xx" not in text and "Socket errors" not in text, text
            found[operation] = float(re.search(r"Requests/sec:\s+([0-9.]+)", text)[1])
            # What was put is what there is to get: puts under way at the end may be stored or not.
            names = _names(server, "wrk/")
    _remove(server, names)
    return found


def s3_benchmark(program):
    """The function that measures with s3-benchmark, as ``wrk`` does."""

    def measure(server, size, count, concurrency, seconds):
        with tempfile.TemporaryDirectory() as folder:  # It leaves a log behind.
            text = _run([
                program, "-a", server.access_key, "-s", server.secret_key, "-u", server.url, "-r", server.region, "-b",
                BUCKET, "-p", "-z", f"{size}B", "-t", str(concurrency), "-d", str(seconds), "-l", "1",
            ], server, folder)  # fmt: skip
        found = {}
        for operation in ("put", "get"):
            line = rf"^Loop 1: {operation.upper()} time .* ([0-9.]+) operations/sec\. Slowdowns = 0$"
            match = re.search(line, text, re.MULTILINE)
            assert match and "Failed to" not in text, text[-2000:]
            found[operation] = float(match[1])
        _remove(server, _names(server, "Object-"))
        return found

    return measure


def _names(server, prefix):
    pages = boto_client(server).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


def _remove(server, names):
    client = boto_client(server)
    for at in range(0, len(names), 1000):
        client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": name} for name in names[at : at + 1000]]})


def _signed(server, method, key, content_hash):
    """A request, signed in its headers as mfstore's and s5cmd's are: path, date, hash of the body, authorization."""
    request = AWSRequest(method, f"{server.url}/{BUCKET}/{key}", headers={"x-amz-content-sha256": content_hash})
    request.context["payload_signing_enabled"] = True
    signer = _Hashed(Credentials(server.access_key, server.secret_key), "s3", server.region)
    signer.content_hash = content_hash
    signer.add_auth(request)
    headers = request.headers
    return f"/{BUCKET}/{key}\t{headers['X-Amz-Date']}\t{content_hash}\t{headers['Authorization']}\n"


class _Hashed(S3SigV4Auth):
    """Takes the hash of the body as given: a body of 16 MiB is hashed once."""

    content_hash = ""

    def payload(self, request):
        return self.content_hash


def _run(command, server, folder=None):
    keys = {
        "AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": server.region,
    }  # fmt: skip
    rest = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**rest, **keys}, timeout=900, check=False, cwd=folder
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--sizes", type=lambda text: [int(word) for word in text.split(",")], default=[*SIZES])
    parser.add_argument("--seconds", type=int, help="of a measurement, in place of what its size suggests")
    parser.add_argument("--near", action="store_true")
    parser.add_argument("--s3-benchmark", metavar="PATH", type=os.path.abspath)
    chosen = parser.parse_args()
    peer, measure = ("s3-benchmark", s3_benchmark(chosen.s3_benchmark)) if chosen.s3_benchmark else ("wrk", wrk)
    programs = {"mfstore": mfstore, peer: measure}
    print(f"| size | operation | mfstore bench, per s | {peer}, per s | mfstore / {peer} |")
    print("|---|---|--:|--:|--:|")
    with Radosgw() as server:
        server.create_bucket(BUCKET)
        for size in chosen.sizes:
            rounds = []
            count, delay, seconds = SIZES[size]
            seconds = chosen.seconds or seconds
            for turn in range(chosen.rounds):
                # Who goes first changes: the machine warms up, and others use it too.
                names = [*programs] if turn % 2 == 0 else [*reversed(programs)]
                with far(server, 0 if chosen.near else delay) as place:
                    rounds.append(
                        {name: programs[name](place, size, count, chosen.concurrency, seconds) for name in names}
                    )
                print(rounds[-1], file=sys.stderr)
            for operation in ("put", "get"):
                ours, theirs = ([found[name][operation] for found in rounds] for name in programs)
                ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
                row = [f"{size >> 10:,} KiB", operation, _text(ours), _text(theirs)]
                row.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
                print(f"| {' | '.join(row)} |", flush=True)


def _text(rates):
    digits = 0 if median(rates) >= 100 else 1
    return f"{median(rates):,.{digits}f} ({min(rates):,.{digits}f} to {max(rates):,.{digits}f})"


if __name__ == "__main__":
    main()
