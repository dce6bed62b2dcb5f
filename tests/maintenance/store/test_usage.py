"""Who holds what in a store, against what its recipes say one by one."""

import csv
import io
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.backends.s3.backend import S3Backend
from mfstore.format import recipes
from mfstore.format.recipes import recipe_path
from mfstore.format.refs import ref_path
from mfstore.maintenance import holders
from mfstore.maintenance.holders import LabelSets, Tally
from mfstore.maintenance.usage import usage_of
from mfstore.saving import describing
from mfstore.settings import resolve
from mfstore.testing import FaultyBackend
from tests.rigs.group_stores import lines
from tests.rigs.held import own_and_shared, parts_of, told
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client

BY = ("ref", "prefix", "user", "flow", "run", "step", "artifact", "type", "month", "class")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A store with all kinds of chunks, shared in many ways; how large each ref is by itself, by what it names."""
    root = tmp_path_factory.mktemp("usage")
    rng = np.random.default_rng(0)
    with mfstore.open(root, fsync="none") as store:
        large = rng.random(60_000)
        changed = large.copy()
        changed[100:200] = 0
        store.put(large, "models/a")
        store.put(changed, "models/a")
        store.put(large, "other/b")
        store.put(rng.random(30_000), "other/c", base="other/b")
        old = rng.bytes(300_000)
        store.put_bytes(old, ref="plain")
        store.put_bytes(old[:1000] + b"new" + old[1000:], ref="deltas/new", base="plain")
        store.put(lines(0), "groups/lines")
        store.save({"x": large, "y": rng.random(20_000), "tiny": 1}, ref="models/bundle")
        store.put(rng.random(10_000))
        store.put(1, "gone")
        del store.refs["gone"]
    return str(root)


def recipes_of(store):
    """Every recipe by its key, and its size."""
    codec = store.handle.workers.thread.codec
    found = {}
    for key in store.keys():
        data = store.backend.get(recipe_path(key))
        found[key] = recipes.decode(data, codec=codec, expected_key=bytes.fromhex(key)), len(data)
    return found


def model(store, names_of):
    """Own and shared bytes by name, given the names of who needs each artifact of a key."""
    holders_of, sizes = {}, {}
    for key, (recipe, size) in recipes_of(store).items():
        for index, (_, parts) in enumerate(parts_of(recipe)):
            names = names_of(key, recipe, index)
            for part, length in {("recipe", key): size, **parts}.items():
                sizes[part] = length
                holders_of.setdefault(part, set()).update(names)
    return own_and_shared(sizes, holders_of)


@pytest.mark.parametrize("in_memory", [1, 10, 200_000])
def test_by_ref_is_what_recipes_say(full, in_memory, monkeypatch):
    monkeypatch.setattr(holders, "OPEN_CLAIMS", in_memory)
    with mfstore.open(full) as store:
        logs = {name: {entry.key for entry in store.refs.log(name)} for name in store.refs}
        ref_sizes = {name: store.backend.head(ref_path(name)).size for name in logs}
        own, shared = model(store, lambda key, *_: {name for name, keys in logs.items() if key in keys} or {None})
        own.update(ref_sizes)
        usage = store.usage("ref")
        assert told(usage) == (dict(own), dict(shared))
        assert usage.total == store.stats().stored
        assert usage.own == sum(group.own for group in usage.groups)
        assert {group.name for group in usage.groups} == {*logs, None}


@pytest.mark.parametrize("by", ["prefix", "type", "artifact"])
def test_by_other_things_that_recipes_say(full, by):
    with mfstore.open(full) as store:
        logs = {name: {entry.key for entry in store.refs.log(name)} for name in store.refs}
        names = {
            "prefix": lambda key, *_: {name.partition("/")[0] for name, keys in logs.items() if key in keys} or {None},
            "type": lambda key, recipe, index: {recipe.described.types[index]},
            "artifact": lambda key, recipe, index: {recipe.artifacts[index].name or None},
        }[by]
        own, shared = model(store, names)
        if by == "prefix":
            for name in logs:
                own[name.partition("/")[0]] += store.backend.head(ref_path(name)).size
        usage = store.usage(by)
        assert told(usage) == (dict(own), dict(shared))
        assert usage.total == store.stats().stored


def test_all_of_them_come_to_all_that_is_stored(full):
    with mfstore.open(full) as store:
        for by in BY:
            usage = store.usage(by)
            assert usage.total == store.stats().stored, by
            assert usage.by == by and not usage.notes
        assert [group.name for group in store.usage("class").groups] == [None]
        month = store.usage("month")
        assert [group.name for group in month.groups] == [time.strftime("%Y-%m", time.gmtime())]
        assert (month.shared, month.unheld) == (0, 0)
        with pytest.raises(errors.InvalidKey):
            store.usage("colour")


def test_what_goes_when_a_ref_goes_is_its_own(tmp_path):
    """Its own bytes are what a collection frees."""
    rng = np.random.default_rng(1)
    with mfstore.open(tmp_path, fsync="none") as store:
        store.put(rng.random(50_000), "stays")
        store.put(rng.random(40_000), "goes")
        own = {group.name: group.own for group in store.usage("ref").groups}
        ref = store.backend.head(ref_path("goes")).size
        before = store.usage("ref")
        del store.refs["goes"]
        after = store.usage("ref")
        unnamed = next(group for group in after.groups if group.name is None)
        assert unnamed.own == own["goes"] - ref and not unnamed.unknown
        store.plan_gc(grace=0).execute(yes_really=True)
        store.plan_gc(grace=0).execute(yes_really=True)
        freed = before.total - store.usage("ref").total
        assert own["goes"] - ref <= freed <= own["goes"] + before.unheld


def test_tasks_and_users_are_told_apart(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    monkeypatch.setattr(describing, "user", lambda: "anna@host")
    describing.remembered_description.cache_clear()
    with mfstore.open(tmp_path, fsync="none") as store:
        store.put(rng.random(10_000))
        for task in ("Flow/1/start/2", "Flow/2/start/9", "Other/7/end/1"):
            monkeypatch.setattr(describing, "user", lambda task=task: task)
            describing.remembered_description.cache_clear()
            store.put(rng.random(10_000))

        def names(by):
            return {(group.name, group.unknown) for group in store.usage(by).groups}

        assert names("user") == {("anna", False), (None, True)}
        assert names("flow") == {("Flow", False), ("Other", False), (None, False)}
        assert names("run") == {("Flow/1", False), ("Flow/2", False), ("Other/7", False), (None, False)}
        assert names("step") == {("Flow/start", False), ("Other/end", False), (None, False)}
    with mfstore.open(tmp_path, fsync="none", record=False) as store:
        store.put(rng.random(10_000))
        assert (None, True) in {(group.name, group.unknown) for group in store.usage("flow").groups}
    describing.remembered_description.cache_clear()


def test_damage_is_told_and_a_refusal_is_an_error(tmp_path):
    backend = FaultyBackend(mfstore.backends.memory.MemoryBackend())
    with mfstore.Store("mem:", backend, resolve()) as store:
        rng = np.random.default_rng(3)
        store.put(rng.random(20_000), "whole")
        key = store.put(rng.random(20_000), "damaged")
        store.put(1, "broken/ref")
        path = recipe_path(key)
        data = bytearray(backend.get(path))
        data[40] ^= 1
        backend.put(path, [bytes(data)])
        backend.put(ref_path("broken/ref"), [b"MFSX" + bytes(80)])
        usage = store.usage("ref")
        assert usage.total == store.stats().stored
        assert len(usage.notes) == 2 and all("DAMAGED: 1 re" in note for note in usage.notes)
        assert {group.name for group in usage.groups} == {"whole", None, "damaged"}


def test_as_few_requests_as_there_are_things_to_read():
    """A ref and a recipe each take one, a listing one for a thousand, packs none."""
    world = SimulatedS3(clock=time.time)

    class Simulated(S3Backend):
        def make_client(self, options):
            return simulated_client(world)

    with mfstore.Store("s3://b/store", Simulated("s3://b/store"), resolve(), create=True) as store:
        rng = np.random.default_rng(4)
        for number in range(30):
            store.put(rng.random(2000), f"refs/{number}")
        store.save({"large": rng.random(300_000)}, ref="large")
        store.handle.require_read()
        asked = {}
        for by in ("ref", "user", "month", "class"):
            before = len(world.log)
            usage = store.usage(by)
            assert usage.total == store.stats().stored if by in ("month", "class") else usage.total
            asked[by] = Counter(operation for operation, _ in world.log[before:])
    listings = 2 * 16 + 3
    reads = {"ref": 31 + 31, "user": 31, "month": 0, "class": 0}
    for by, found in asked.items():
        assert found["GetObject"] == reads[by], by
        assert sum(found.values()) - found["GetObject"] <= listings, by


def test_classes_have_prices_of_their_own():
    sets = LabelSets()
    tally = Tally(sets)
    for size, name in ((3 << 30, "STANDARD"), (5 << 30, "GLACIER_IR"), (1 << 30, "NEW")):
        tally.add(size, sets.of(name))
    usage = usage_of("s3://b", "class", tally.totals())
    prices = {"": 0.5, "GLACIER_IR": 0.125}
    assert usage.cost(prices) == 3 * 0.5 + 5 * 0.125 + 0.5
    assert usage.cost(0.5) == 4.5 and usage.cost({"NEW": 1}) == 1
    costs = {line.split(",")[0]: float(line.split(",")[3]) for line in usage.csv(price=prices).splitlines()[1:]}
    assert costs == {"STANDARD": 1.5, "GLACIER_IR": 0.625, "NEW": 0.5}


def test_csv_has_every_name_as_it_is():
    sets = LabelSets()
    tally = Tally(sets)
    names = ["a\rb", "a\nb", "a\r\nb", 'a"b', "a,b", "=1+1", "+a", "-a", "@a", "\ta", " a "]
    for name in names:
        tally.add(1, sets.of(name))
    text = usage_of("s3://b", "tag", tally.totals()).csv()
    rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert sorted(name for name, *_ in rows) == sorted(names) and {own for _, own, _ in rows} == {"1"}
    assert '"a\rb",1,0\n' in text and text.endswith("\n") and not text.endswith("\r\n")


def test_for_people_and_programs(full):
    with mfstore.open(full) as store:
        usage = store.usage("prefix")
    text = repr(usage)
    assert "models" in text and "held by nobody" in text and "(no prefix)" in text
    assert "<table" in usage._repr_html_()
    lines = usage.csv(price=0.5).splitlines()
    assert lines[0] == "prefix,own,shared,own_cost,shared_cost" and len(lines) == len(usage.groups) + 1
    name, own, shared, own_cost, _ = lines[1].split(",")
    group = usage.groups[0]
    assert (name, int(own), int(shared)) == (group.name, group.own, group.shared)
    assert float(own_cost) == pytest.approx(group.own / 2**30 * 0.5)
    assert [group.name for group in usage.sorted("name")][-1] is None
    largest = [group.all for group in usage.sorted("all")]
    assert largest == sorted(largest, reverse=True)
    assert Path(full, "mfstore.json").exists()


def test_what_repair_set_aside_is_counted(tmp_path):
    with mfstore.open(tmp_path, fsync="none") as store:
        store.put(b"x" * 1000, ref="a")
        before = {by: store.usage(by=by) for by in ("ref", "type", "month")}
        store.backend.put("quarantine/packs/ab/abc.1", [b"y" * 777])
        for by, usage in before.items():
            assert store.usage(by=by).total == usage.total + 777
        assert store.usage(by="ref").unheld == before["ref"].unheld + 777
