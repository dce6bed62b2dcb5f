"""Clients of Azure's Blob Storage or of Google Cloud Storage side by side: ``python -m benchmarks.clouds azure`` (or
``gcs``).

What counts is the CPU that a client takes, in a process of its own: emulators are slow, and share the machine. Azurite
and fake-gcs-server speak to all; nginx, which looks at nothing and answers what it must, is the fast server of both
dialects. A row is the median of ``--rounds``. Requests are counted by a proxy in a run of their own.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.cloud_peers import PEERS
from mfstore.testing.proxy import FaultProxy
from tests.servers.azurite import Azurite
from tests.servers.gcs import FakeGcs
from tests.servers.nginx import Nginx

ROOT = Path(__file__).parent.parent
SMALL, LARGE = 4 << 10, 64 << 20
EXIST = {SMALL: 1000, LARGE: 4, 0: 0}
CELLS = (
    ("get", SMALL), ("put", SMALL), ("get", LARGE), ("put", LARGE), ("list", 0), ("delete", 0),
)  # fmt: skip
AT_ONCE = {"azure": 32, "gcs": 32}
PATIENCE = 60
"""Seconds for all rounds of a client."""
OWN = "mfstore"
COUNTED = "counted"


def places(service):
    """The servers that are measured, by name: a context manager, and what gives a place in it."""
    if service == "azure":
        return {"nginx": (Nginx, lambda server: nginx_place(server, service)), "Azurite": (Azurite, azure_place)}
    return {"nginx": (Nginx, lambda server: nginx_place(server, service)), "fake-gcs-server": (FakeGcs, google_place)}


def azure_place(server):
    """A new container, and a signature for it: so nobody signs each request."""
    from mfstore.azure.credentials import shared_access_signature
    from mfstore.azure.settings import Account

    account = Account(server.account, server.url, key=server.key)
    sas = shared_access_signature(account, time.time() - 600, time.time() + 12 * 3600)
    return {"endpoint": server.endpoint, "account": server.account, "bucket": server.new_container("bench"), "sas": sas}


def google_place(server):
    """A new bucket."""
    return {"endpoint": server.url, "bucket": server.new_bucket("bench"), "token": "bench"}


def nginx_place(server, service):
    """A directory."""
    if service == "azure":
        (server.root / "account").mkdir(exist_ok=True)
        (server.root / "account" / "bench").mkdir()
        return {"endpoint": f"{server.url}/account", "account": "account", "bucket": "bench", "sas": "sig=none"}
    server.create_bucket("bench")
    return {"endpoint": server.url, "bucket": "bench", "token": "bench"}


def child(job):
    """What a process of its own measured."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cloud_peers", json.dumps(job)], capture_output=True, text=True, cwd=ROOT,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else "died"}
    return json.loads(done.stdout.splitlines()[-1])


def fill(job, server, name, listed):
    """Put what is got, listed and deleted: by mfstore, or as files."""
    from benchmarks.cloud_peers import Work

    wanted = [(f"get/{size}/{n}", os.urandom(size)) for size in (SMALL, LARGE) for n in range(EXIST[size])]
    if name == "nginx":
        root = server.root / "account" / "bench" if job["service"] == "azure" else server.root / "bench"
        for key, data in wanted:
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_bytes(data)
        return
    peer = Work({**job, "peer": OWN, "size": 0, "operation": "put", "exist": 1}).peer
    peer.put(wanted, lambda *_: None)
    peer.put([(f"list/{n:05}", b"") for n in range(listed)], lambda *_: None)
    peer.close()


def fill_deleted(job, peer, rounds, count):
    """What one peer is to delete."""
    from benchmarks.cloud_peers import Work

    own = Work({**job, "peer": OWN, "size": 0, "operation": "put", "exist": 1}).peer
    own.put([(f"delete/{peer}/{turn}/{n}", b"") for turn in range(rounds) for n in range(count)], lambda *_: None)
    own.close()


def missing(peer):
    """The modules that a peer lacks."""

    def there(module):
        try:
            return importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            return False

    return [module for module in peer.needs if not there(module)]


def number_of(given, operation, size):
    """Objects of a round."""
    if size == LARGE:
        return given.large
    return {"list": given.listed, "delete": given.deleted}.get(operation, given.count)


def measure(given, name, server_class, place_of, peers):
    """Cells of one server: (operation, size, peer) and what came of it."""
    service, rounds = given.service, given.rounds
    found = {}
    with server_class() as server:
        where = {**place_of(server), "concurrency": AT_ONCE[service]}
        job = {"service": service, "where": where, "rounds": rounds}
        fill(job, server, name, given.listed)
        for operation, size in CELLS:
            count = number_of(given, operation, size)
            if name == "nginx" and operation in ("list", "delete"):
                continue
            for peer in peers:
                if lacks := missing(PEERS[service][peer]):
                    found[operation, size, peer] = {"failed": f"not installed: {', '.join(lacks)}"}
                    continue
                if operation == "delete":
                    fill_deleted(job, peer, rounds, count)
                    fill_deleted(job, COUNTED, 1, count)
                one = {**job, "operation": operation, "size": size, "count": count, "peer": peer, "name": peer,
                       "exist": EXIST[size]}  # fmt: skip
                try:
                    cell = child(one)
                except subprocess.TimeoutExpired:
                    cell = {"failed": f"no end within {PATIENCE} s"}
                if "cpu" in cell and name != "nginx":
                    cell["requests"] = counted({**one, "name": COUNTED}, server)
                cell["count"] = count
                found[operation, size, peer] = cell
                print(f"{name}: {operation} {size} {peer}: {cell}", file=sys.stderr, flush=True)
    return found


def counted(job, server):
    """Requests of an object, by a round that begins cold; None where a proxy is not borne."""
    count = job["count"]
    with FaultProxy(server.url) as proxy:
        where = {**job["where"], "endpoint": job["where"]["endpoint"].replace(server.url, proxy.url)}
        try:
            told = child({**job, "where": where, "rounds": 1, "warm": False})
        except subprocess.TimeoutExpired:
            return None
        return None if "failed" in told else round(len(proxy.log) / count, 3)


def number(cell, size):
    """What a cell says: us an object, or s a GB; requests an object."""
    if cell is None:
        return "-"
    if "failed" in cell:
        return "*"
    used = statistics.median(cell["cpu"]) / cell["count"]
    text = f"{used * 1e9 / size:.2f}" if size == LARGE else f"{used * 1e6:.1f}"
    return f"{text} ({cell['requests']:g})" if cell.get("requests") is not None else text


def table(found):
    """A row for each peer, a column for each operation; then how mfstore compares with obstore, and what failed."""
    heads = {"get": "GET", "put": "PUT", "list": "LIST", "delete": "DELETE"}
    for name, cells in found.items():
        peers = list(dict.fromkeys(peer for _, _, peer in cells))
        columns = [(op, size) for op, size in CELLS if (op, size, OWN) in cells]
        titles = [
            f"{heads[op]} {'64 MiB, s/GB' if size == LARGE else '4 KiB, us' if size else 'us an object'}"
            for op, size in columns
        ]
        print(f"\n| {name}: CPU of the client (requests an object) |" + "".join(f" {title} |" for title in titles))
        print("|---|" + "--:|" * len(columns))
        for peer in peers:
            print(f"| {peer} |" + "".join(f" {number(cells.get((*column, peer)), column[1])} |" for column in columns))
        print("| **mfstore against obstore** |" + "".join(f" {ratio(cells, *column)} |" for column in columns))
        failed = {
            (peer, cell["failed"]): [*ops] for (op, size, peer), cell in cells.items() if "failed" in cell
            for ops in [[heads[o] for o, _, p in cells if p == peer and "failed" in cells[o, _, p]]]
        }  # fmt: skip
        for (peer, why), ops in failed.items():
            print(f"\n`*` {peer}, {', '.join(dict.fromkeys(ops))}: {why}")


def ratio(cells, operation, size):
    """mfstore's CPU of the cheaper obstore's."""
    own = cells.get((operation, size, OWN), {})
    others = [cells.get((operation, size, peer), {}) for peer in ("obstore", "obstore-async")]
    used = [statistics.median(cell["cpu"]) for cell in others if "cpu" in cell]
    return f"**{statistics.median(own['cpu']) / min(used):.2f} x**" if used and "cpu" in own else "-"


def main():
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("service", choices=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000, help="Objects of 4 KiB.")
    parser.add_argument("--large", type=int, default=4, help="Objects of 64 MiB.")
    parser.add_argument("--listed", type=int, default=10_000)
    parser.add_argument("--deleted", type=int, default=1000)
    parser.add_argument("--servers", help="Only these, with commas between.")
    parser.add_argument("--peers", help="Only these, with commas between (no names with a comma).")
    given = parser.parse_args()
    peers = [peer for peer in PEERS[given.service] if given.peers is None or peer in given.peers.split(",")]
    found = {}
    for name, (server, place_of) in places(given.service).items():
        # The clouds' own libraries ask for more than nginx says: a range of each GET, a status of each PUT.
        here = peers if name != "nginx" else [peer for peer in peers if peer.startswith(("mfstore", "obstore"))]
        if given.servers is None or name in given.servers.split(","):
            found[name] = measure(given, name, server, place_of, here)
    table(found)


if __name__ == "__main__":
    main()
