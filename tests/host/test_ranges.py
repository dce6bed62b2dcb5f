"""Ranges on a host against a model: several processes add, find, damage and remove at will."""

import os
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mfstore.host.ranges import PAGE, UNSEEN_SHARE, RangeCache
from tests.rigs.soak import lasting

LIMIT = 100_000
NAMES = ["packs/aa/one", "packs/aa/two", "packs/bb/three"]
CONTENT = {name: bytes((number + 7 * seed) % 251 for number in range(60_000)) for seed, name in enumerate(NAMES)}
HANDLES = 3
"""Of processes: they share nothing but the directory."""

names = st.sampled_from(NAMES)
handles = st.integers(0, HANDLES - 1)
bounds = st.tuples(st.integers(0, 60_000), st.integers(0, 60_000)).map(sorted).filter(lambda two: two[0] < two[1])


class Ranges(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.root = Path(tempfile.mkdtemp())
        self.handles = [RangeCache(self.root, LIMIT) for _ in range(HANDLES)]
        self.begun, self.held, self.damaged = [], [], set()

    def files(self):
        return [path for path in self.root.glob("packs/*/*/*") if not path.name.startswith(".")]

    @rule(handle=handles, name=names, bounds=bounds, pieces=st.integers(1, 3))
    def begin(self, handle, name, bounds, pieces):
        start, end = bounds
        (new,) = self.handles[handle].add([(name, start, end, pieces)])
        if new is not None:
            cuts = [start + (end - start) * number // pieces for number in range(pieces + 1)]
            self.begun.append((new, name, list(pairwise(cuts))))

    @rule(data=st.data())
    def write(self, data):
        if self.begun:
            new, name, left = self.begun[data.draw(st.integers(0, len(self.begun) - 1))]
            low, high = left.pop(data.draw(st.integers(0, len(left) - 1)))
            new.write(low, CONTENT[name][low:high])
            if not left:
                self.begun = [one for one in self.begun if one[0] is not new]

    @rule(data=st.data(), killed=st.booleans())
    def end(self, data, killed):
        if self.begun:
            new, _, _ = self.begun.pop(data.draw(st.integers(0, len(self.begun) - 1)))
            if not killed:
                new.abandon()

    @rule(handle=handles, name=names, bounds=bounds, hold=st.booleans())
    def find(self, handle, name, bounds, hold):
        start, end = bounds
        kept = self.handles[handle].find(name, start, end)
        if kept is None:
            return
        with kept:
            assert kept.start <= start < end <= kept.end
            found = kept.read(start, end - start)
            if (kept.path, os.stat(kept.path).st_ino) not in self.damaged:
                assert found == CONTENT[name][start:end]
                if hold:
                    self.held.append((kept.map(start, end - start), found))
            elif found != CONTENT[name][start:end]:
                kept.drop()  # as who compares it does

    @rule(data=st.data(), how=st.sampled_from(["shorter", "longer", "other", "gone"]))
    def damage(self, data, how):
        """As a power loss or another program would; not of what is mapped, as nobody could stand that."""
        files = sorted(self.files())
        if not files or self.held:
            return
        path = files[data.draw(st.integers(0, len(files) - 1))]
        content = path.read_bytes()
        if how == "gone":
            path.unlink()
            return
        path.write_bytes({"shorter": content[:-1], "longer": content + b"x", "other": bytes(len(content))}[how])
        self.damaged.add((str(path), path.stat().st_ino))

    @rule()
    def let_go(self):
        self.held.clear()

    @rule(handle=handles, name=names)
    def drop(self, handle, name):
        self.handles[handle].drop(name)

    @rule(handle=handles)
    def clear(self, handle):
        self.handles[handle].clear()

    @invariant()
    def within_its_limit(self):
        usage = self.handles[0].usage()
        # Each may add an eighth of what it saw left, and what others have added since it looked it has not seen.
        assert usage.size <= LIMIT + HANDLES * (LIMIT // UNSEEN_SHARE + PAGE)

    @invariant()
    def what_is_mapped_stays(self):
        assert all(bytes(memoryview(view)) == content for view, content in self.held)

    def teardown(self):
        if hasattr(self, "root"):
            shutil.rmtree(self.root)


TestRanges = Ranges.TestCase
TestRanges.settings = settings(
    max_examples=lasting(15), stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
