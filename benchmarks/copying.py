"""A store in one bucket to a store in another: ``python -m benchmarks.copying``, on Ceph's gateway.

Three ways: ``copy_to``; all objects as they are, which a listing tells and the destination lacks, got and put by
``BulkClient``, as ``aws s3 sync`` does (in fewer requests); and each artifact got and put. Requests, bytes of bodies
that came and went, and CPU of this process. What each way leaves at the destination is compared with the source.
"""

import argparse
import os
import time
import uuid

import numpy as np

import mfstore
from mfstore.copying import places
from mfstore.s3 import BulkClient
from tests.servers import Radosgw
from tests.servers.base import client_options

SMALL, MIDDLE, VERSIONS = 400, 40, 10


def fill(store):
    """Small artifacts, arrays of 2 MB, ten versions of one of 40 MB."""
    rng = np.random.default_rng(0)
    for number in range(SMALL):
        store.put({"n": number, "text": "x" * (100 + number)}, ref=f"runs/{number}")
    for number in range(MIDDLE):
        store.put(rng.standard_normal(250_000), ref=f"arrays/{number}")
    array = rng.standard_normal(5_000_000)
    for number in range(VERSIONS):
        array[number * 100_000 : number * 100_000 + 1000] += 1
        store.put(array, ref="models/churn", base="models/churn")


class Measured:
    """What one way took, by the counters of the stores and the client that it used."""

    def __init__(self, stores, client=None):
        self.stores, self.client = stores, client

    def __enter__(self):
        self.before = self.now()
        self.cpu = time.process_time()
        return self

    def __exit__(self, *error):
        self.cpu = time.process_time() - self.cpu
        self.requests, self.came, self.sent = (
            now - before for now, before in zip(self.now(), self.before, strict=True)
        )

    def now(self):
        counts = [
            (one.requests, one.moved - one.sent, one.sent) for one in (s.backend.traffic.now() for s in self.stores)
        ]
        if self.client is not None:
            found = self.client.metrics()
            counts.append((found.begun, found.received, found.sent))
        return tuple(map(sum, zip(*counts, strict=True)))

    def row(self, what, way):
        print(
            f"| {what} | {way} | {self.requests:,} | {self.came / 1e6:.1f} | {self.sent / 1e6:.1f} | {self.cpu:.2f} |",
            flush=True,
        )


def objects(client, prefix):
    """What a sync compares: sizes by name."""
    return {entry.key.removeprefix(prefix): entry.size for entry in client.list(prefix)}


def sync(client, source, target, wanted=None):
    """Each object that the other one lacks, or has with another size, through this process."""
    there = objects(client, target)
    missing = [name for name, size in objects(client, source).items() if there.get(name) != size]
    found = client.get_many([source + name for name in missing], stream=True)
    client.put_many((target + outcome.item.removeprefix(source), outcome.data) for outcome in found)


def one_by_one(source, target, names):
    """Every value of these refs, loaded and stored."""
    for name in names:
        for entry in reversed(source.refs.log(name)):
            target.put(source.get(entry.key), ref=name)


def packs(opened):
    """One pack of 60 MB, of whose artifacts some are wanted: as it is, and by ranges."""
    rng = np.random.default_rng(0)
    source = opened("packed")
    keys = source.put_many([rng.standard_normal(65_000) for _ in range(120)])
    rng.shuffle(keys)
    print("| wanted | way | requests | MB in | MB out | CPU s |\n|---|---|--:|--:|--:|--:|")
    for share in (100, 95, 90, 75, 50):
        for way, least in (("as it is", 0.0), ("by ranges", 2.0)):
            places.WHOLE_SHARE = least
            source, target = opened("packed"), opened(f"packed-{share}-{least}")
            with Measured([source, target]) as took:
                source.copy_to(target, keys[: len(keys) * share // 100])
            took.row(f"{share} %", way)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packs", action="store_true", help="only what packs cost as they are, and by ranges")
    chosen = parser.parse_args()
    with Radosgw() as server:
        os.environ |= {"AWS_EC2_METADATA_DISABLED": "true"}
        options = client_options(server)
        bucket = server.create_bucket(f"copying-{uuid.uuid4().hex[:8]}")

        def opened(name):
            return mfstore.open(f"s3://{bucket}/{name}", **options)

        if chosen.packs:
            packs(opened)
            return
        fill(opened("source"))
        print("| | way | requests | MB in | MB out | CPU s |\n|---|---|--:|--:|--:|--:|")
        number = 0

        def ways(what, names, prepare=lambda store: None, again=False):
            nonlocal number
            for way in ("`copy_to`", "objects as they are", "get and put"):
                if names != ["*"] and way == "objects as they are":
                    continue  # it cannot tell which objects these need
                number += 1
                place = f"to-{number}"
                prepare(opened(place))
                for measured in (False, True) if again else (True,):
                    source, target, client = opened("source"), opened(place), BulkClient(bucket, **options)
                    with Measured([source, target], client) as took:
                        if way == "`copy_to`":
                            source.copy_to(target, names)
                        elif way == "get and put":
                            found = [name for one in names for name in source.refs.list(one)]
                            one_by_one(source, target, found)
                        else:
                            sync(client, "source/", f"{place}/")
                    if measured:
                        took.row(what, way)
                    check(source, opened(place), names)

        def check(source, target, names):
            for one in names:
                for name in source.refs.list(one):
                    assert target.refs[name] == source.refs[name], name

        nine = [f"models/churn@{back}" for back in range(1, VERSIONS)]
        ways("all of it", ["*"])
        ways("again, nothing is new", ["*"], again=True)
        ways("the ten versions", ["models/*"])
        ways("the last one, where nine are", ["models/*"], lambda store: opened("source").copy_to(store, nine))


if __name__ == "__main__":
    main()
