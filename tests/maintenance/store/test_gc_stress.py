"""Eight writers, four readers and a collector on one store, all at once, for a while; then everything is looked at."""

import random
import threading
import time

import numpy as np
import pytest

import mfstore
from mfstore import errors, handle
from mfstore.saving import guard
from tests.rigs.gc import check_all, noise, objects
from tests.rigs.soak import lasting

SECONDS = lasting(2)
ENOUGH = {"deleted": 10, "saves": 50, "loads": 50}
"""More than these is wanted of each, for however long the machine takes to do it."""


class Crowd:
    def __init__(self, open_store, grace):
        self.open = open_store
        self.grace = grace
        self.end = time.monotonic() + SECONDS
        self.failures = []
        self.counts = dict.fromkeys(("saves", "loads", "conflicts", "collections", "deleted", "repacked"), 0)
        self.lock = threading.Lock()

    def count(self, what, more=1):
        with self.lock:
            self.counts[what] += more

    def goes_on(self):
        return time.monotonic() < self.end or any(self.counts[what] <= count for what, count in ENOUGH.items())

    def run(self, *jobs):
        def guarded(job, number):
            try:
                with self.open() as store:
                    while self.goes_on() and not self.failures:
                        job(store, random.Random(f"{number} {time.monotonic()}"), number)
            except BaseException as error:
                self.failures.append(error)

        threads = [threading.Thread(target=guarded, args=(job, number)) for number, job in enumerate(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for failure in self.failures:
            raise failure

    def write(self, store, rng, number):
        time.sleep(self.grace / 5)  # what each does beside the others counts, not how often
        contents = {name: rng.randrange(12) for name in rng.sample("abcdef", rng.randint(1, 4))}
        value = {name: noise(seed, 9_000) for name, seed in contents.items()}
        begun = time.monotonic()
        try:
            key = store.save(value)
            self.count("saves")
            name = f"writer{number}/{rng.randrange(3)}"
            if rng.random() < 0.7:
                store.refs[name] = key
                mine = store.load(key)
                assert all((mine[part] == value[part]).all() for part in value)
            elif name in store.refs:
                del store.refs[name]
        except errors.Conflict:
            self.count("conflicts")
        except errors.NotFound as error:
            # Only what nobody named within the grace period may be gone.
            assert time.monotonic() - begun > self.grace / 2, error

    def read(self, store, rng, number):
        for name in rng.sample(names := list(store.refs), min(4, len(names))):
            try:
                key = store.refs[name]
            except errors.NotFound:
                continue
            try:
                found = store.load(key)
            except (errors.NotFound, errors.CorruptObject):
                # Somebody may have dropped the ref long ago, by the standards of this test; what it names is there.
                if name not in store.refs or store.refs[name] != key:
                    continue
                found = store.load(key)
            assert all(isinstance(part, np.ndarray) and len(part) == 9_000 for part in found.values())
            self.count("loads")
        time.sleep(self.grace / 5)

    def collect(self, store, rng, number):
        result = store.plan_gc(grace=self.grace, keep_last=2, repack=1).execute(yes_really=True)
        self.count("collections")
        self.count("deleted", result.deleted.packs + result.deleted.recipes)
        self.count("repacked", result.repacked)
        time.sleep(self.grace / 4)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["local", pytest.param("radosgw", marks=pytest.mark.server)])
def test_a_crowd(kind, root, request, monkeypatch):
    if kind == "local":
        grace = 0.5

        def open_store():
            return mfstore.open(root, fsync="none", threads=1)

    else:
        server, bucket = request.getfixturevalue("radosgw"), f"crowd-{random.randrange(10**9)}"
        server.create_bucket(bucket)
        # The times of production, two hundred times as fast; the service tells time in whole seconds.
        grace = 4.0
        monkeypatch.setattr(guard, "KNOWLEDGE_SECONDS", 1.0)
        monkeypatch.setattr(handle, "DESCRIPTION_SECONDS", 0.3)
        monkeypatch.setattr(guard, "DELETION_WINDOW", 1.0)

        def open_store():
            return mfstore.open(
                f"s3://{bucket}/crowd", threads=1, endpoint_url=server.url, aws_access_key_id=server.access_key,
                aws_secret_access_key=server.secret_key, region_name=server.region,
            )  # fmt: skip

    crowd = Crowd(open_store, grace)
    with open_store() as store:
        store.refs["anchor"] = store.save({"a": noise(99, 9_000)})
    crowd.run(*[crowd.write] * 8, *[crowd.read] * 4, crowd.collect)
    print(crowd.counts)
    assert all(crowd.counts[what] > count for what, count in ENOUGH.items())
    with open_store() as store:
        check_all(store)
        for _ in range(3):
            store.plan_gc(grace=0, keep_last=1).execute()
        check_all(store)
        named = {store.refs[name] for name in store.refs}
        assert set(store.keys()) == named
        assert objects(store.backend, "gc/condemned") == []
