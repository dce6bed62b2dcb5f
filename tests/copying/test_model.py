"""Two stores that are written to, collected and copied in any order, beside a model of what their refs say."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mfstore import errors
from tests.copying.stores import empty, noise
from tests.rigs.soak import soaking

REFS = st.sampled_from(["a", "b/x", "b/y"])
SIDES = st.sampled_from([0, 1])


class Stores(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.stores = empty(), empty()
        self.model = {}, {}  # the values of each ref, oldest first
        self.keys = set(), set()

    def value(self, number):
        return noise(number) if number % 3 == 0 else {"n": number, "of": noise(number // 2, 1000 * (number % 3))}

    @rule(side=SIDES, ref=REFS, number=st.integers(0, 8))
    def put(self, side, ref, number):
        key = self.stores[side].put(self.value(number), ref=ref, base=ref)
        self.model[side].setdefault(ref, []).append(key)
        self.keys[side].add(key)

    @rule(side=SIDES, ref=REFS)
    def remove(self, side, ref):
        if self.model[side].pop(ref, None):
            del self.stores[side].refs[ref]

    @rule(
        side=SIDES, names=st.sampled_from([None, "b/", "*", "a"]), how=st.sampled_from(["raise", "skip", "overwrite"]),
        dry=st.booleans(),
    )  # fmt: skip
    def copy(self, side, names, how, dry):
        source, target = self.stores[side], self.stores[1 - side]
        logs = [{name: store.refs.log(name)[::-1] for name in store.refs} for store in (source, target)]
        wanted = [name for name in logs[0] if names in (None, "*") or name.startswith(names)]
        if names is not None and not wanted:
            return
        behind = [name for name in wanted if name in logs[1] and logs[1][name][-1] not in logs[0][name]]
        if not list(source.backend.list("")):
            return
        try:
            done = source.copy_to(target, names, on_conflict=how, dry_run=dry)
        except errors.Conflict:
            assert how == "raise" and behind
            return
        assert not (how == "raise" and behind) and done.done is not dry
        if dry:
            return
        for name in wanted:
            if name in behind and how == "skip":
                continue
            mine = self.model[1 - side].setdefault(name, [])
            old, new = logs[1].get(name, []), logs[0][name]
            added = new[new.index(old[-1]) + 1 :] if old and old[-1] in new else [e for e in new if e not in old]
            if name in behind and (not added or added[-1] != new[-1]):
                added = [*added, new[-1]]
            mine += [entry.key for entry in added]
        self.keys[1 - side].update(key for key in self.keys[side] if names is None or target.exists(key))

    @invariant()
    def as_the_model_says(self):
        for store, model, keys in zip(self.stores, self.model, self.keys, strict=True):
            if not list(store.backend.list("")):
                assert not model
                continue
            assert {name: [entry.key for entry in store.refs.log(name)][::-1] for name in store.refs} == model
            assert set(store.keys()) == keys

    def teardown(self):
        for store, keys in zip(self.stores, self.keys, strict=True):
            if keys:
                assert store.verify("full").clean
                for key in keys:
                    assert store.get_bytes(key)


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=500 if soaking() else 12, stateful_step_count=20)
