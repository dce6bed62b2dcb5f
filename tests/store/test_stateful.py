"""A store against a dict, with a second process writing into the same directory, reopening, damage and index loss."""

import pickle
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

import mfstore
from mfstore import errors
from tests.rigs.group_stores import lines
from tests.rigs.soak import lasting

OTHER = """
import pickle, sys, mfstore
store = mfstore.open(sys.argv[1], fsync="none")
while True:
    objs = pickle.load(sys.stdin.buffer)
    pickle.dump(store.put_many(objs), sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""

noise = st.builds(
    lambda seed, size: np.random.default_rng(seed).random(size),
    st.integers(0, 5),
    st.sampled_from([10, 9000, 70_000, 200_000]),
)
ramp = st.builds(lambda step, size: np.arange(0, size * step, step), st.integers(1, 3), st.sampled_from([100, 50_000]))
small = st.none() | st.integers() | st.text(max_size=20) | st.lists(st.integers(), max_size=50)
values = (
    small
    | noise
    | ramp
    | st.binary(min_size=60_000, max_size=70_000)
    | st.builds(lines, st.integers(0, 2))  # in groups
    | st.dictionaries(st.text(max_size=3), small | noise, max_size=4)
)
names = st.sampled_from(["a", "b/c", "b/d", "models/churn"])


def same(one, two):
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and one.dtype == two.dtype and np.array_equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    return type(one) is type(two) and one == two


class StoreMachine(RuleBasedStateMachine):
    keys = Bundle("keys")

    def __init__(self):
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="mfstore-machine-")
        self.store = mfstore.open(self.root, fsync="none", memory=32 << 20)
        self.model = {}
        self.refs = {}
        self.saved_as_bundle = set()
        self.other = None

    def teardown(self):
        self.store.close()
        if self.other:
            self.other.kill()
            self.other.communicate()
        shutil.rmtree(self.root)

    @rule(target=keys, value=values)
    def put(self, value):
        key = self.store.put(value)
        assert self.model.setdefault(key, value) is value or same(self.model[key], value)
        return key

    @rule(target=keys, base=keys, at=st.integers(0, 10**9), size=st.sampled_from([0, 70_000]))
    def put_a_change(self, base, at, size):
        """What is an array, with a number changed and some more of them, is stored as deltas where that pays."""
        value = self.model[base]
        if not isinstance(value, np.ndarray):
            return base
        changed = np.concatenate([value, np.zeros(size, value.dtype)])
        changed[at % len(changed)] += 1
        key = self.store.put(changed, base=base)
        self.model.setdefault(key, changed)
        return key

    @rule(target=keys, objs=st.lists(values, min_size=1, max_size=4))
    def put_many(self, objs):
        found = self.store.put_many(objs)
        assert len(found) == len(objs)
        self.model.update(zip(found, objs, strict=True))
        return found[0]

    @rule(target=keys, artifacts=st.dictionaries(st.text(max_size=5), values, max_size=5))
    def save(self, artifacts):
        key = self.store.save(artifacts)
        self.model[key] = artifacts
        self.saved_as_bundle.add(key)
        for name in artifacts:
            assert same(self.store.load(key, [name])[name], artifacts[name])
        return key

    @rule(target=keys, objs=st.lists(values, min_size=1, max_size=3))
    def other_process_puts(self, objs):
        if self.other is None:
            self.other = subprocess.Popen(
                [sys.executable, "-c", OTHER, self.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        pickle.dump(objs, self.other.stdin)
        self.other.stdin.flush()
        found = pickle.load(self.other.stdout)
        self.model.update(zip(found, objs, strict=True))
        return found[0]

    @rule(key=keys, verify=st.booleans())
    def get(self, key, verify):
        assert same(self.store.get(key, verify=verify), self.model[key])

    @rule(key=keys)
    def put_again(self, key):
        value = self.model[key]
        before = self.store.session.stored
        assert (self.store.save if key in self.saved_as_bundle else self.store.put)(value) == key
        assert self.store.session.stored == before

    @rule(name=names, key=keys)
    def set_ref(self, name, key):
        self.store.refs[name] = key
        self.refs.setdefault(name, []).insert(0, key)

    @rule(name=names)
    def delete_ref(self, name):
        if name in self.refs:
            del self.store.refs[name]
            del self.refs[name]
        else:
            try:
                del self.store.refs[name]
            except errors.NotFound:
                return
            raise AssertionError("a ref that is not there was deleted")

    @rule()
    def reopen(self):
        self.store.close()
        self.store = mfstore.open(self.root, fsync="none", memory=32 << 20)

    @rule()
    def lose_the_index(self):
        shutil.rmtree(Path(self.root, "index"), ignore_errors=True)

    @rule(key=consumes(keys), at=st.integers(0, 10**9), bit=st.integers(0, 7), which=st.integers(0, 10**9))
    def damage_and_repair(self, key, at, bit, which):
        packs = sorted(path for path in Path(self.root, "packs").rglob("*") if path.is_file())
        if not packs:
            return
        path = packs[which % len(packs)]
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= 1 << bit
        new = path.with_name(".damaged")
        new.write_bytes(data)
        new.replace(path)
        with mfstore.open(self.root, fsync="none") as fresh, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", RuntimeWarning)
            for known, value in self.model.items():
                try:
                    assert same(fresh.get(known), value)
                    assert same(fresh.get(known, verify=False), value)
                except errors.CorruptObject:
                    assert (fresh.save if known in self.saved_as_bundle else fresh.put)(value) == known
                    assert same(fresh.get(known), value)
            if told:  # a read was healed: do what it says
                fresh.repair()

    @invariant()
    def refs_agree(self):
        assert dict(self.store.refs) == {name: keys[0] for name, keys in self.refs.items()}
        for name, keys in self.refs.items():
            assert [entry.key for entry in self.store.refs.history(name)] == keys

    @invariant()
    def keys_agree(self):
        assert set(self.store.keys()) == set(self.model)


TestStore = pytest.mark.fuzz(StoreMachine.TestCase)
TestStore.settings = settings(
    max_examples=lasting(10), stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
