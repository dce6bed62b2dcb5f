"""Many at once: what is asked for together, and what becomes of each."""

import asyncio

import numpy as np
import pytest

import mfstore
from mfstore import getting
from mfstore.errors import InvalidKey, MfstoreError, NotFound, NotLoadable, Unsupported, WrongArgument
from mfstore.settings import resolve
from mfstore.store import Store
from tests.store.test_store import FarAway

RUNS = 200


class Rounds(FarAway):
    """Tells in how many rounds it was asked, each of which takes a network as long as one request, and for how much."""

    def __init__(self):
        super().__init__()
        self.rounds = []
        self.read = 0

    def get(self, key):
        self.rounds.append("get")
        return super().get(key)

    def get_range(self, key, start, length):
        self.rounds.append("range")
        return super().get_range(key, start, length)

    def list(self, prefix):
        self.rounds.append("list")
        return super().list(prefix)

    def get_many(self, keys):
        for number, key in enumerate(keys):
            if not number:
                self.rounds.append("get_many")
            try:
                yield key, super().get(key)
            except MfstoreError as error:
                yield key, error

    def read_many(self, reads):
        self.rounds.append("read_many")
        for number, read in enumerate(reads):
            self.read += read.length
            data = super().get_range(read.key, read.start, read.length)
            if read.target is not None:
                read.target[:] = data
            yield number, data if read.target is None else read.target


def far():
    return Store("far", Rounds(), resolve(), create=True, algorithm="blake3")


@pytest.fixture(params=["near", "far"])
def store(request, tmp_path):
    return mfstore.open(tmp_path / "store", fsync="none") if request.param == "near" else far()


@pytest.fixture(scope="module")
def runs():
    """A store far away with so many runs, each with a model that is loaded and a frame that is not."""
    store = far()
    frame = np.random.default_rng(0).random(20_000)
    for number in range(RUNS):
        model = np.full(10_000, float(number)) + frame[:10_000]
        store.save({"model": model, "frame": frame + number, "score": number}, ref=f"runs/{number:03}")
    return store


@pytest.fixture
def asked(runs):
    """Of the store with the runs, what it was asked in this test."""
    runs.backend.rounds.clear()
    runs.backend.read = 0
    return runs.backend


def test_many_runs_in_three_rounds(runs, asked):
    refs = [f"runs/{number:03}" for number in range(RUNS)]
    scores = dict(runs.load_many(refs, "score"))
    assert scores == dict(zip(refs, range(RUNS), strict=True))
    assert asked.rounds == ["get_many", "get_many"]  # refs, recipes: what is small lies there
    asked.rounds.clear()
    found = dict(runs.load_many(refs, ["model", "score"]))
    assert [found[ref]["score"] for ref in refs] == list(range(RUNS))
    frame = np.random.default_rng(0).random(20_000)
    assert (found[refs[7]]["model"] == frame[:10_000] + 7).all()
    assert asked.rounds == ["get_many", "get_many", "read_many"]
    assert 80_000 * RUNS <= asked.read < 81_000 * RUNS  # nothing of the frames


def test_what_is_loaded_together_is_bounded(runs, asked, monkeypatch):
    monkeypatch.setattr(getting, "LOADED_TOGETHER", 80_000 * 50 + 50_000)
    keys = list(runs.refs.values())
    asked.rounds.clear()
    assert sum(1 for _ in runs.load_many(keys, "model")) == RUNS
    assert asked.rounds == ["get_many"] + ["read_many"] * 4  # by what is wanted, not by what a bundle has


def test_refs_and_stats_of_many(runs, asked):
    items = dict(runs.refs.items())
    assert len(items) == RUNS and asked.rounds == ["list", "get_many"]
    asked.rounds.clear()
    stats = dict(runs.stat_many(items))
    assert asked.rounds == ["get_many", "get_many"] and asked.read == 0
    assert list(stats) == list(items)
    assert stats["runs/007"] == runs.stat("runs/007") and stats["runs/007"].key == items["runs/007"]
    asked.rounds.clear()
    assert [stat.key for _, stat in runs.stat_many(items.values())] == list(items.values())
    assert asked.rounds == ["get_many"]


def test_what_is_found_in_many(runs, asked):
    assert [found.ref for found in runs.find("runs/00", where={"auc": (">", 0)})] == []
    assert asked.rounds == ["list", "get_many", "get_many"]  # refs; the keys' notes, where the refs have none
    asked.rounds.clear()
    assert list(runs.table("runs/")["ref"]) == list(runs.refs)
    assert asked.rounds[:3] == ["list", "get_many", "get_many"]


def test_each_bundle_is_told_by_itself(store):
    first = store.save({"a": 1, "b": np.arange(5_000)}, ref="runs/1")
    second = store.save({"a": [2]})
    single = store.put(3)
    keys = ["runs/1", second, first]
    assert [(key, found) for key, found in store.load_many(keys, "a")] == list(zip(keys, [1, [2], 1], strict=True))
    assert dict(store.load_many([second, second])) == {second: {"a": [2]}}
    assert list(store.load_many(iter(["runs/1"]), ())) == [("runs/1", {})]
    asked = [second, "runs/1", "runs/2", single, "0" * 64, first]
    done = []
    got = list(store.load_many(iter(asked), ["b", "a", "b"], on_error="return", progress=done.append))
    assert [key for key, _ in got] == asked and done == [1] * 6
    assert [type(found) for _, found in got] == [NotFound, dict, NotFound, Unsupported, NotFound, dict]
    assert list(got[1][1]) == ["b", "a"] and got[1][1]["b"][-1] == 4999
    assert "no artifact 'b'" in str(got[0][1]) and got[0][1].key == second
    assert f"get({single!r})" in str(got[3][1])
    assert [key for key, _ in store.load_many(asked, "b", on_error="omit")] == ["runs/1", first]
    for wrong in asked[0], asked[2], asked[3], asked[4]:
        with pytest.raises((NotFound, Unsupported)):
            list(store.load_many([first, wrong], ["b"]))
    with pytest.raises(ValueError, match="on_error"):
        next(store.load_many([], on_error="ignore"))


class Fails:
    def __reduce__(self):
        return fail, ()


def fail():
    raise ModuleNotFoundError("gone", name="gone")


def test_only_what_is_named_is_unpickled(store):
    bad = store.save({"model": Fails(), "score": 1})
    good = store.save({"model": "fine", "score": 2})
    assert dict(store.load_many([bad, good], "score")) == {bad: 1, good: 2}
    got = dict(store.load_many([bad, good], on_error="return"))
    assert isinstance(got[bad], NotLoadable) and got[bad].artifact == "model" and got[bad].missing == "gone"
    assert got[good] == {"model": "fine", "score": 2}


def test_stats_of_what_is_not_there(store):
    one = store.put(np.arange(9_000), ref="one")
    asked = [one, "two", "0" * 64, "/"]
    got = list(store.stat_many(asked, on_error="return"))
    assert [key for key, _ in got] == asked
    assert got[0][1] == store.stat("one")
    assert [type(found) for _, found in got[1:]] == [NotFound, NotFound, InvalidKey]
    with pytest.raises(NotFound):
        list(store.stat_many([one, "two"]))
    assert list(store.stat_many(["two", "one"], on_error="omit")) == [("one", store.stat(one))]


@pytest.mark.parametrize("method", ["get_many", "load_many", "stat_many", "exists_many"])
def test_one_key_is_not_many(store, method):
    with pytest.raises(WrongArgument, match=r"Give a list: \['models/churn'\]"):
        list(getattr(store, method)("models/churn"))


def test_many_without_blocking(store):
    key = store.save({"a": 1})

    async def ask():
        found = [item async for item in store.aload_many([key], "a")]
        return found + [(name, stat.type) async for name, stat in store.astat_many([key])]

    assert asyncio.run(ask()) == [(key, 1), (key, "bundle")]
