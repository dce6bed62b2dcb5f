"""Writers, a collector, clocks and crashes in any order Hypothesis can think of, against a dict.

The model knows for every key until when it must read back: what a ref or the caller names for ever, everything else for
a grace period since it was last acknowledged.
"""

import time
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from mfstore import errors
from mfstore.backends.memory import MemoryBackend
from mfstore.testing import Fault, FaultyBackend
from tests.rigs.gc import HOUR, RemoteMemory, Unconditional, noise, objects, store_on
from tests.rigs.group_stores import lines
from tests.rigs.soak import lasting

GRACE = 24 * HOUR
names = st.sampled_from(["a", "b", "runs/1", "runs/2", "runs/3"])
parts = st.dictionaries(st.sampled_from("xyz"), st.integers(0, 6), min_size=1, max_size=3)


def content(seed):
    """Numbers, or text whose chunks lie in a group."""
    return noise(seed, 9_000) if seed % 2 else np.frombuffer(lines(seed), np.uint8).copy()


def same(one, two):
    return one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)


class Collected(RuleBasedStateMachine):
    keys = Bundle("keys")

    @initialize(kind=st.sampled_from([MemoryBackend, RemoteMemory, Unconditional]))
    def begin(self, kind):
        self.now = time.time()
        self.patch = mock.patch("time.time", lambda: self.now)
        self.patch.start()
        self.inner = kind()
        self.writers = [store_on(self.inner) for _ in range(2)]
        self.writers[0].put("a store is there once something was put")
        self.values = {}
        self.until = {}
        self.refs = {}
        self.live = set()
        self.plan = None
        self.named = set()

    def teardown(self):
        self.patch.stop()

    def acknowledged(self, key):
        self.until[key] = self.now + GRACE

    @rule(target=keys, writer=st.integers(0, 1), contents=parts)
    def save(self, writer, contents):
        value = {name: content(seed) for name, seed in contents.items()}
        key = self.writers[writer].save(value)
        self.values[key] = value
        self.acknowledged(key)
        return key

    @rule(target=keys, writer=st.integers(0, 1), base=keys, changed=st.integers(1, 3))
    def save_a_change(self, writer, base, changed):
        """What has changed is stored as deltas, if the base is there still; others may be made against the same."""
        value = {name: array.copy() for name, array in self.values[base].items()}
        for array in value.values():
            array[:: len(array) // changed] += 1
        key = self.writers[writer].save(value, base=base)
        self.values[key] = value
        self.acknowledged(key)
        return key

    @rule()
    def everything_is_whole(self):
        report = store_on(self.inner).verify("full")
        assert not [finding for finding in report.findings if finding.harm == "data"]

    @rule(target=keys, contents=parts, at=st.integers(1, 12), after=st.booleans())
    def save_and_crash(self, contents, at, after):
        value = {name: content(seed) for name, seed in contents.items()}
        faulty = FaultyBackend(self.inner, Fault(at=at, after=after, forever=True))
        try:
            key = store_on(faulty).save(value)
        except errors.BackendError:
            key = self.writers[0].save(value)
        self.values[key] = value
        self.acknowledged(key)
        return key

    @rule(name=names, key=keys, writer=st.integers(0, 1))
    def set_ref(self, name, key, writer):
        try:
            self.writers[writer].refs[name] = key
        except errors.NotFound:
            assert not self.must_be_there(key)
            return
        self.refs.setdefault(name, []).append(key)

    @rule(name=names)
    def remove_ref(self, name):
        keys = self.refs.pop(name, ())
        for key in keys:  # others may have been collected long ago
            self.until[key] = max(self.until[key], self.now)
        if keys:
            del self.writers[0].refs[name]

    @rule(key=keys)
    def name_outside(self, key):
        """Somebody notes the key; from now on it is handed to the collector."""
        if self.must_be_there(key):
            self.live.add(key)
            self.plan = None  # a plan is made with what is known then

    @rule(key=keys)
    def forget_outside(self, key):
        self.live.discard(key)

    @rule(hours=st.sampled_from([0.1, 1, 13, 25]))
    def time_passes(self, hours):
        self.now += hours * HOUR

    @rule()
    def look(self):
        self.plan = self.make()

    def make(self, backend=None):
        return store_on(backend or self.inner).plan_gc(self.live, GRACE, keep_last=2, series=["runs/*"], repack=1)

    @rule()
    def collect_as_planned(self):
        """The plan may be days old: writers and refs have gone on since."""
        if self.plan is None:
            return
        named = {change.name: [e.key for e in change.kept] for change in self.plan.decision.refs}
        try:
            self.plan.execute(yes_really=True, take_over=True)
        except errors.Conflict:
            pass
        self.after(named)
        self.plan = None

    @rule()
    def collect(self):
        self.look()
        self.collect_as_planned()

    @rule(at=st.integers(1, 120), after=st.booleans())
    def collect_and_crash(self, at, after):
        faulty = FaultyBackend(self.inner, Fault(at=at, after=after, forever=True))
        named = {}
        try:
            plan = self.make(faulty)
            named = {change.name: [e.key for e in change.kept] for change in plan.decision.refs}
            plan.execute(yes_really=True, take_over=True)
        except errors.BackendError:
            pass
        self.plan = None
        self.after(named)

    def after(self, named):
        """What the policy dropped of refs, it may have; nothing else."""
        found = {name: [e.key for e in self.writers[0].refs.history(name)][::-1] for name in self.writers[0].refs}
        for name, keys in list(self.refs.items()):
            if found.get(name) != keys:
                assert found.get(name, []) == named[name]
                if found.get(name):
                    self.refs[name] = found[name]
                else:
                    del self.refs[name]

    @rule(writer=st.integers(0, 1))
    def reopen(self, writer):
        self.writers[writer] = store_on(self.inner)

    def must_be_there(self, key):
        held = key in self.live or any(key in keys for keys in self.refs.values())
        return held or self.until.get(key, 0) >= self.now

    @invariant()
    def nothing_is_lost(self):
        if not hasattr(self, "inner"):
            return
        reader = store_on(self.inner)
        for key, value in self.values.items():
            if self.must_be_there(key):
                assert same(reader.load(key), value)
        for key in reader.keys():
            if key in self.values:
                assert same(reader.load(key), self.values[key])

    @rule()
    def in_the_end_only_what_is_needed_is_left(self):
        for _ in range(3):
            self.collect()
            self.now += 25 * HOUR
        self.collect()
        left = set(store_on(self.inner).keys())
        needed = self.live | {key for keys in self.refs.values() for key in keys}
        assert left == {key for key in left if self.must_be_there(key)} == needed
        assert not needed or objects(self.inner, "packs")


TestCollected = pytest.mark.fuzz(Collected.TestCase)
TestCollected.settings = settings(
    max_examples=lasting(30), stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
