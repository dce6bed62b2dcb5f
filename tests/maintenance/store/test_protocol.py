"""The rules of docs/protocol.md on the real code: what was acknowledged stays, whatever a collector is doing."""

import dataclasses
import threading
import time

import pytest

from mfstore import errors
from mfstore.backends.local import LocalBackend
from mfstore.backends.memory import MemoryBackend
from mfstore.backends.s3.backend import S3Backend
from mfstore.format import collection, recipes
from mfstore.maintenance.store.collecting import deletion, ownership
from mfstore.saving import guard
from tests.rigs import protocol_model as model
from tests.rigs.deltas import recipe_of
from tests.rigs.gc import (
    DAY,
    Hooked,
    RemoteMemory,
    Unconditional,
    condemned_store,
    noise,
    objects,
    same,
    store_on,
)
from tests.rigs.replay import Replay
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client
from tests.rigs.soak import in_soaks


class RemoteUnconditional(RemoteMemory):
    delete_unchanged = Unconditional.delete_unchanged
    deletes_conditionally = Unconditional.deletes_conditionally


SHARED = {"old": noise(1), "new": 2}


# ---- the model -------------------------------------------------------------------------------------------------------

LONG = (model.PACK, model.BASE)
QUICK = [case for case in model.CASES if case not in LONG]
SERVICES = {"s3": model.S3, "without conditional deletions": model.PLAIN_S3, "local": model.LOCAL}
LOSSES = [
    (model.PACK, "local"), (model.NAMED, "s3"), (model.WRITTEN, "without conditional deletions"), (model.TWO, "local"),
    (model.SHARED, "without conditional deletions"), (model.TWO, "s3"),
]  # fmt: skip


def lost_or_dangling(world):
    return world.lost() or world.dangles()


@pytest.mark.slow
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_no_interleaving_loses_what_was_acknowledged(case, service):
    """And no ref ever names what is not there, wherever its setting ends."""
    found = case.explore(model.RULES, SERVICES[service], lost_or_dangling)
    assert found.trace is None
    assert found.states > (100 if case is model.DAMAGED else 500)


@in_soaks
@pytest.mark.slow
@pytest.mark.parametrize("case", LONG, ids=lambda case: case.name)
def test_no_interleaving_loses_a_pack_that_keys_share(case):
    found = case.explore(model.RULES, model.LOCAL, lost_or_dangling)
    assert found.trace is None
    assert found.states > 50_000


@pytest.mark.second
@pytest.mark.parametrize(("case", "service"), LOSSES)
def test_the_rules_of_0_1_0_lose(case, service):
    assert case.explore(model.RULES_0_1_0, SERVICES[service]).trace


@pytest.mark.second
@pytest.mark.parametrize(
    ("rule", "case", "service"),
    [
        ("refs_check_packs", model.PACK, "local"), ("sent_once", model.WRITTEN, "without conditional deletions"),
        ("unanswered_waits", model.NAMED, "s3"), ("repair_waits", model.DAMAGED, "without conditional deletions"),
        ("bases_named", model.BASE, "local"), ("bases_relied", model.BASE_GOES, "local"),
    ],
)  # fmt: skip
def test_no_rule_can_be_left_out(rule, case, service):
    assert case.explore(dataclasses.replace(model.RULES, **{rule: False}), SERVICES[service]).trace


@pytest.mark.second
@pytest.mark.parametrize("service", SERVICES)
def test_a_ref_that_is_not_marked_dangles_when_its_setting_is_killed(service):
    unmarked = dataclasses.replace(model.RULES, marked=False)
    assert model.NAMED.explore(unmarked, SERVICES[service]).trace is None
    assert model.NAMED.explore(unmarked, SERVICES[service], model.World.dangles).trace[-2:] == (
        "2.hold",
        "2.delete A",
    )


REF_MODELS = {"s3": model.RefModel(), "local": model.RefModel(replaced=False, late=False)}


@pytest.mark.parametrize("service", REF_MODELS)
def test_a_ref_stays_as_it_was_acknowledged(service):
    assert model.explore(REF_MODELS[service], model.RefWorld(), model.RefWorld.lost).trace is None


@pytest.mark.parametrize(
    ("service", "rules", "end"),
    [
        ("s3", {"replaced": False}, "late"), ("s3", {"nonces": False}, "late"),
        ("local", {"locked": False}, "trim: rename"),
    ],
)  # fmt: skip
def test_the_rules_of_0_1_0_lose_refs(service, rules, end):
    trace = model.explore(
        dataclasses.replace(REF_MODELS[service], **rules), model.RefWorld(), model.RefWorld.lost
    ).trace
    assert trace[-1] == end


class OnS3(S3Backend):
    """The S3 backend on a simulated service, without conditional deletions."""

    def __init__(self, url="s3://b/store"):
        self.world = SimulatedS3(clock=time.time)
        super().__init__(url)

    def make_client(self, options):
        return simulated_client(self.world)


REPLAYED = [
    (case, service, kind)
    for case, service in LOSSES
    for kind in {"s3": [RemoteMemory], "local": [MemoryBackend], "without conditional deletions": [
        RemoteUnconditional, OnS3
    ]}[service]
]  # fmt: skip


@pytest.mark.parametrize(("case", "service", "kind"), REPLAYED)
def test_the_traces_of_the_model_lose_nothing_in_the_code(case, service, kind, clock, monkeypatch):
    """What the rules of 0.1.0 lose, played on the code as it is."""
    monkeypatch.setattr(ownership, "QUIET_SECONDS", 70.0)
    monkeypatch.setattr(ownership, "QUIET_SECONDS_LOCAL", 10.0)
    replay = Replay(case, kind(), clock, monkeypatch)
    replay.play(case.explore(model.RULES_0_1_0, SERVICES[service]).trace)
    assert replay.lost() == []


@pytest.mark.parametrize(("rule", "case", "kind"), [
    ("bases_named", model.BASE, MemoryBackend), ("bases_relied", model.BASE_GOES, MemoryBackend),
    ("bases_relied", model.BASE_GOES, RemoteMemory), ("bases_relied", model.BASE_GOES, RemoteUnconditional),
])  # fmt: skip
def test_what_is_lost_without_the_rules_of_bases_is_not_lost_in_the_code(rule, case, kind, clock, monkeypatch):
    monkeypatch.setattr(ownership, "QUIET_SECONDS", 70.0)
    monkeypatch.setattr(ownership, "QUIET_SECONDS_LOCAL", 10.0)
    service = {MemoryBackend: "local", RemoteMemory: "s3", RemoteUnconditional: "without conditional deletions"}[kind]
    inner = kind()
    replay = Replay(case, inner, clock, monkeypatch)
    replay.play(case.explore(dataclasses.replace(model.RULES, **{rule: False}), SERVICES[service]).trace)
    assert replay.lost() == []
    # Where the base was not condemned it was relied on, and stayed: nothing else needs it.
    bases = recipe_of(inner, replay.keys["B"]).bases
    assert bool(bases) == (rule == "bases_named")
    assert replay.paths["A"] not in objects(inner, "recipes")


# ---- a pack goes last ------------------------------------------------------------------------------------------------


def store_with_a_shared_pack(clock, backend):
    """A key nobody names has a pack; after the plan that finds both garbage, another key shares the pack. Both are
    condemned, and the next collection may delete the first."""
    store = store_on(backend)
    store.refs["anchor"] = store.put(1)
    store.put(noise(1))
    clock.advance(2 * DAY)
    plan = store_on(backend).plan_gc()
    key = store_on(backend).save(SHARED)
    plan.execute()
    clock.advance(2 * DAY)
    return key


@pytest.mark.parametrize("named", ["after the deletion", "during the deletion"])
def test_a_pack_goes_only_after_every_stored_recipe_that_names_it(clock, named):
    inner = MemoryBackend()
    key = store_with_a_shared_pack(clock, inner)
    backend = Hooked(inner)
    naming = threading.Thread(target=lambda: store_on(inner).refs.update(late=key))
    if named == "during the deletion":
        backend.on("delete_unchanged", "", naming.start)
    result = store_on(backend).plan_gc().execute()
    assert (result.deleted.recipes, result.deleted.packs) == (1, 0)
    if named == "during the deletion":
        naming.join(60)  # it waited for the end of the deletion
        assert store_on(inner).refs["late"] == key
    store_on(inner).refs["late"] = key
    assert store_on(inner).load(key)["new"] == 2
    for _ in range(2):
        clock.advance(2 * DAY)
        store_on(inner).plan_gc().execute()
    assert same(store_on(inner), key, SHARED)


def test_a_shared_pack_goes_with_the_last_recipe(clock):
    inner = MemoryBackend()
    store_with_a_shared_pack(clock, inner)
    store_on(inner).plan_gc().execute()
    clock.advance(2 * DAY)
    assert store_on(inner).plan_gc().execute().deleted.packs == 1
    assert objects(inner, "packs") == []
    assert len(objects(inner, "recipes")) == 1


def test_a_recipe_that_nobody_needs_and_that_cannot_be_read_keeps_the_packs_until_it_goes(clock):
    inner = MemoryBackend()
    key = store_with_a_shared_pack(clock, inner)
    path = recipes.recipe_path(key)
    inner._objects[path] = (b"damaged", *inner._objects[path][1:])
    plan = store_on(inner).plan_gc()
    assert any("no pack is deleted now" in warning for warning in plan.warnings)
    assert plan.execute().deleted.packs == 0
    clock.advance(2 * DAY)
    assert store_on(inner).plan_gc().execute().deleted.packs == 1
    assert objects(inner, "packs") == []


@pytest.mark.parametrize("kind", [MemoryBackend, RemoteMemory])
def test_a_ref_is_not_set_to_what_lacks_a_pack(kind):
    inner = kind()
    key = store_on(inner).put(noise(1))
    inner.delete(objects(inner, "packs")[0])
    for set_it in (
        lambda refs: refs.update(broken=key),
        lambda refs: refs.set_if("broken", key, None),
    ):
        with pytest.raises(errors.CorruptObject, match="a pack is missing.*Store the content"):
            set_it(store_on(inner).refs)
        assert "broken" not in store_on(inner).refs


# ---- nothing that was read widens what the grace period allows --------------------------------------------------------


def backdate(backend, **changes):
    """The state says that its lists are as old as the epoch."""
    state, etag = guard.read_state(backend)
    lists = tuple(collection.ListRef(e.key, 0.0, e.recipes, e.packs, e.bytes) for e in state.lists)
    backend.put_if(collection.STATE, collection.encode_state(collection.State(state.epoch + 1, lists=lists)), etag)


def test_a_list_counts_from_when_it_was_stored_whatever_the_state_says(clock):
    inner = MemoryBackend()
    store = store_on(inner)
    store.refs["anchor"] = store.put(1)
    key = store.put(noise(1))
    clock.advance(2 * DAY)
    store_on(inner).plan_gc().execute()
    backdate(inner)
    clock.advance(DAY / 2)
    assert not store_on(inner).plan_gc().execute().deleted
    assert same(store_on(inner), key, noise(1))
    clock.advance(DAY)
    assert store_on(inner).plan_gc().execute().deleted.packs == 1


def test_a_young_pack_is_not_deleted_though_a_list_names_it(clock):
    inner = MemoryBackend()
    store = store_on(inner)
    store.refs["anchor"] = store.put(1)
    store.put(noise(1))
    clock.advance(2 * DAY)
    store_on(inner).plan_gc().execute()
    clock.advance(2 * DAY)
    (pack,) = objects(inner, "packs")
    data, _, etag = inner._objects[pack]
    inner._objects[pack] = data, guard.time.time(), etag  # made young again
    assert store_on(inner).plan_gc().execute().deleted.packs == 0
    assert objects(inner, "packs") == [pack]


def test_a_state_that_names_other_objects_as_lists_is_damaged():
    entry = collection.ListRef("refs/kept", 0.0, 1, 1, 1)
    with pytest.raises(errors.CorruptObject, match="damaged"):
        collection.decode_state(collection.encode_state(collection.State(lists=(entry,))))


# ---- deletions that are late -----------------------------------------------------------------------------------------


@pytest.fixture
def waits(monkeypatch, clock):
    """Whoever waits passes the time; the real durations."""
    monkeypatch.setattr(ownership, "QUIET_SECONDS", guard.DELETION_WAIT)
    monkeypatch.setattr(ownership, "QUIET_SECONDS_LOCAL", 10.0)
    passed = []

    def sleep(seconds):
        passed.append(seconds)
        clock.advance(seconds)
        while actions and sum(passed) >= actions[0][0]:
            actions.pop(0)[1]()

    actions = []
    for module in (guard, ownership, deletion):
        monkeypatch.setattr(module.time, "sleep", sleep)
    sleep.actions = actions
    sleep.passed = passed
    return sleep


def remote_condemned(kind, clock):
    inner = condemned_store(kind)
    clock.advance(3600)
    return inner


def key_of_garbage(inner):
    return next(key for key in store_on(inner).keys() if key != store_on(inner).refs["anchor"])


@pytest.mark.parametrize("kind", [RemoteMemory, RemoteUnconditional])
@pytest.mark.parametrize("action", ["name", "store"])
@pytest.mark.parametrize("fate", ["late", "late and twice"])
def test_what_was_sent_and_not_answered_keeps_writers_waiting(kind, action, fate, clock, waits, monkeypatch):
    """The deletion of a recipe is not answered and carried out 50 s later, whatever the collector did meanwhile."""
    inner = remote_condemned(kind, clock)
    key = key_of_garbage(inner)
    late, answers = [], []
    real = kind.delete_unchanged

    def delete_unchanged(self, seen):
        (path,) = seen
        if path.startswith("recipes/") and not late:
            late.append(dict(seen))
            waits.actions.append((sum(waits.passed) + 0.2, act))
            waits.actions.append((sum(waits.passed) + 50, arrives))
            if fate == "late":
                monkeypatch.setattr(deletion, "DELETION_TRIES", 1)
            raise errors.BackendError("no answer")
        return real(self, seen)

    def arrives():
        if inner.deletes_conditionally():
            real(inner, late[0])
        else:
            inner.delete(*late[0])

    def act():
        try:
            if action == "name":
                store_on(inner).refs["late"] = key
            else:
                assert store_on(inner).put(noise(1)) == key
            answers.append("done")
        except (errors.Conflict, errors.NotFound) as error:
            answers.append(error)

    monkeypatch.setattr(kind, "delete_unchanged", delete_unchanged)
    plan = store_on(inner).plan_gc(grace=0)
    try:
        plan.execute()
    except errors.BackendError:
        assert fate == "late"
    assert not guard.read_state(inner)[0].deleting
    assert not waits.actions
    if answers == ["done"]:
        assert same(store_on(inner), key, noise(1))
    elif action == "name":
        assert "late" not in store_on(inner).refs
    assert len(answers) == 1


@pytest.mark.parametrize("kind", [RemoteMemory, RemoteUnconditional, MemoryBackend])
def test_who_takes_over_a_deletion_lets_what_was_sent_pass(kind, clock, waits):
    """A collector stops with its request sent; another one takes over and finds that the key is needed."""
    inner = remote_condemned(kind, clock)
    key = key_of_garbage(inner)
    backend = Hooked(inner)
    plan = store_on(backend).plan_gc(grace=0)

    def die():
        raise KeyboardInterrupt

    backend.on("delete_unchanged", "recipes/", die)
    backend.on("put_if", collection.STATE, lambda: backend.on("put_if", collection.STATE, die), after=True)
    with pytest.raises(KeyboardInterrupt):
        plan.execute()
    assert guard.read_state(inner)[0].deleting
    path = recipes.recipe_path(key)
    waits.actions.append((sum(waits.passed) + 5, lambda: inner.delete(path)))
    store_on(inner).plan_gc(live=[key], grace=0).execute(take_over=True)
    assert not guard.read_state(inner)[0].deleting
    # What this machine takes meanwhile counts too, so that the sum is below ten; what was sent has arrived by then.
    assert sum(waits.passed) > 5 and not waits.actions
    with pytest.raises(errors.NotFound):
        store_on(inner).refs["late"] = key
    # A silent one has been dead for longer than anything it sent.
    passed = sum(waits.passed)
    assert store_on(inner).put(noise(1)) == key
    store_on(inner).refs["late"] = key
    assert sum(waits.passed) == passed


def killed_collector(inner):
    """It died at its first deletion."""
    backend = Hooked(inner)
    plan = store_on(backend).plan_gc(grace=0)

    def die():
        raise KeyboardInterrupt

    backend.on("delete_unchanged", "recipes/", die)
    backend.on("put_if", collection.STATE, lambda: backend.on("put_if", collection.STATE, die), after=True)
    with pytest.raises(KeyboardInterrupt):
        plan.execute()
    assert guard.read_state(inner)[0].deleting


@pytest.mark.parametrize("kind", [RemoteMemory, RemoteUnconditional, MemoryBackend])
def test_what_a_killed_collector_was_about_to_delete_can_be_stored_again_and_named(kind, clock, waits):
    inner = remote_condemned(kind, clock)
    key = key_of_garbage(inner)
    killed_collector(inner)
    with pytest.raises(errors.Conflict, match=r"Store the content again, or run mfstore gc --execute"):
        store_on(inner).refs["late"] = key
    assert "late" not in store_on(inner).refs
    assert store_on(inner).put(noise(1)) == key
    waits.passed.clear()
    store_on(inner).refs["late"] = key
    assert sum(waits.passed) == 0 or not inner.deletes_conditionally()
    store_on(inner).plan_gc(grace=0).execute(take_over=True)
    assert same(store_on(inner), store_on(inner).refs["late"], noise(1))


@pytest.mark.parametrize("kind", [RemoteMemory, RemoteUnconditional, MemoryBackend])
@pytest.mark.parametrize("before", [True, False])
def test_a_ref_whose_setting_was_killed_names_what_it_named_before(kind, before, clock, monkeypatch):
    """It is set between the collector's look and its deletion."""
    inner = remote_condemned(kind, clock)
    key = key_of_garbage(inner)
    anchor = store_on(inner).refs["anchor"]
    if before:
        store_on(inner).refs["r"] = anchor
    backend = Hooked(inner)

    def killed(*names):
        raise KeyboardInterrupt

    def set_it():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(guard.Guard, "confirm", killed)
            store_on(inner).refs["r"] = key

    backend.on("delete_unchanged", "recipes/", set_it)
    assert store_on(backend).plan_gc(grace=0).execute().deleted.recipes == 1
    assert not backend.waiting
    store = store_on(inner)

    def found():
        return [entry.key for entry in store.refs.history("r")] if before else store.refs.get("r")

    assert found() == ([anchor] if before else None)
    assert store.verify("full").clean
    clock.advance(DAY / 2)
    assert not store_on(inner).plan_gc().decision.refs
    clock.advance(DAY)
    (change,) = store_on(inner).plan_gc().decision.refs
    assert [entry.key for entry in change.dropped] == [key]
    store_on(inner).plan_gc().execute()
    assert found() == ([anchor] if before else None)
    assert ("r" in store.refs) == before
    assert not store_on(inner).plan_gc().decision.refs
    store.refs["r"] = anchor
    assert store.refs["r"] == anchor


@pytest.mark.parametrize("set_it", ["item", "set_if"])
def test_a_ref_that_somebody_sets_while_it_is_marked_is_theirs(set_it, clock, monkeypatch):
    inner = condemned_store()
    key = key_of_garbage(inner)
    anchor = store_on(inner).refs["anchor"]
    store_on(inner).refs["r"] = anchor
    other = store_on(inner).put(3)
    real, sets = guard.Guard.confirm, []

    def confirm(self, *names):
        if not sets:
            sets.append(store_on(inner).refs["r"])
            store_on(inner).refs["r"] = other
        return real(self, *names)

    monkeypatch.setattr(guard.Guard, "confirm", confirm)
    store = store_on(inner)
    if set_it == "item":
        store.refs["r"] = key
        expected = [key, other, anchor]
    else:
        with pytest.raises(errors.Conflict, match="changed just now"):
            store.refs.set_if("r", key, anchor)
        expected = [other, anchor]
    assert sets == [anchor]
    assert [entry.key for entry in store.refs.history("r")] == expected


def test_who_took_long_to_find_what_a_ref_is_to_name_looks_again(clock, monkeypatch):
    inner = RemoteMemory()
    store = store_on(inner)
    key, other = store.put(noise(1)), store.put(2)
    store.refs["anchor"] = other
    looks = []
    real = guard.Guard.condemned
    monkeypatch.setattr(guard.Guard, "condemned", lambda self: looks.append(1) or real(self))
    slow = Hooked(inner)
    slow.on("get", "refs/", lambda: clock.advance(101))
    store_on(slow).refs["anchor"] = key
    assert len(looks) == 3  # and once to confirm


def test_a_collector_that_stood_still_asks_again_before_it_deletes(clock, monkeypatch):
    inner = condemned_store()
    backend = Hooked(inner)
    plan = store_on(backend).plan_gc(grace=0)
    real, stood = ownership.Ownership.still_held, []

    def still_held(self):
        if not stood:
            stood.append(True)
            clock.advance(3600)
            store_on(inner).plan_gc(grace=0).execute()  # it is taken for dead, and its work is done
        return real(self)

    monkeypatch.setattr(ownership.Ownership, "still_held", still_held)
    monkeypatch.setattr(deletion, "DELETION_TRIES", 2)
    monkeypatch.setattr(MemoryBackend, "capabilities", RemoteMemory.capabilities)
    with pytest.raises(errors.Conflict, match="taken over"):
        plan.execute()


class Client:
    """An S3 whose deletions fail as ``plan`` says."""

    def __init__(self, answers):
        self.world = SimulatedS3()
        self.answers = answers
        self.sent = []
        real = self.world.answer

        def answer(call):
            if call.operation != "DeleteObjects":
                return real(call)
            self.sent.append(sorted(entry["Key"] for entry in call.params["Delete"]["Objects"]))
            probing = any(".mfstore-probe" in key for key in self.sent[-1])
            status = self.answers.pop(0) if self.answers and not probing else 200
            return real(call) if status == 200 else self.world._error(status, "SlowDown")

        self.world.answer = answer
        client = simulated_client(self.world)

        class Simulated(S3Backend):
            def make_client(self, options):
                return client

        self.backend = Simulated("s3://b/store")


def test_a_deletion_in_s3_is_sent_once():
    s3 = Client([])
    s3.backend.put("recipes/ab/one", [b"1"])
    info = s3.backend.head("recipes/ab/one")
    assert not s3.backend.deletes_conditionally()
    s3.sent.clear()
    s3.answers.append(503)
    with pytest.raises(errors.BackendError):
        s3.backend.delete_unchanged({info.key: info.etag})
    assert s3.sent.count(["store/recipes/ab/one"]) == 1
    assert s3.backend.exists_many([info.key]) == [True]


def test_a_deletion_in_s3_is_not_sent_after_its_window(clock):
    s3 = Client([])
    s3.backend.put("recipes/ab/one", [b"1"])
    info = s3.backend.head("recipes/ab/one")
    real = s3.backend._heads
    s3.backend._heads = lambda keys: (clock.advance(60), real(keys))[1]
    with pytest.raises(errors.BackendError, match="not safe"):
        s3.backend.delete_unchanged({info.key: info.etag})
    assert ["store/recipes/ab/one"] not in s3.sent


# ---- refs that are deleted -------------------------------------------------------------------------------------------


def test_a_deletion_does_not_fall_between_the_look_and_the_rename_of_a_conditional_write(tmp_path, monkeypatch):
    backend = LocalBackend(str(tmp_path / "store"))
    etag = backend.put_if("refs/name", b"one", None)
    gone = threading.Event()
    deleting = threading.Thread(target=lambda: (backend.delete("refs/name"), gone.set()))
    real = LocalBackend.head
    looked = []

    def head(self, key):
        found = real(self, key)
        if not looked:
            looked.append(key)
            deleting.start()
            gone.wait(0.05)  # it cannot come
        return found

    monkeypatch.setattr(LocalBackend, "head", head)
    backend.put_if("refs/name", b"two", etag)
    deleting.join(60)
    assert gone.is_set()
    assert backend.exists_many(["refs/name"]) == [False]


def test_late_and_repeated_requests_about_a_ref_in_s3_change_nothing():
    s3 = Client([])
    store = store_on(s3.backend)
    one, two = store.put(1), store.put(2)
    calls = []
    answer = s3.world.answer

    def recorded(call):
        if call.key is not None and "/refs/" in call.key and call.operation not in ("GetObject", "HeadObject"):
            calls.append(call)
        return answer(call)

    s3.world.answer = recorded

    def again():
        for call in calls:
            assert answer(call)[0] == 412

    store.refs["r"] = one
    again()
    del store.refs["r"]
    again()
    assert "r" not in store.refs
    assert list(store.refs) == []
    assert len(store.refs) == 0
    with pytest.raises(errors.NotFound):
        store.refs["r"]
    with pytest.raises(errors.NotFound):
        del store.refs["r"]
    store.refs.set_if("r", two, None)
    again()
    assert store.refs["r"] == two
    assert [entry.key for entry in store.refs.history("r")] == [two]
    assert list(store.refs) == ["r"]


def test_a_ref_that_is_taken_back_meets_no_condition_of_before(monkeypatch):
    """Where an etag is a digest of the bytes, the same bytes would."""
    s3 = Client([])
    store = store_on(s3.backend)
    one, two = store.put(1), store.put(2)
    store.refs["r"] = one
    before = s3.backend.head("refs/r").etag
    calls = []
    answer = s3.world.answer

    def recorded(call):
        if call.operation == "PutObject" and "/refs/" in call.key:
            calls.append(call)
        return answer(call)

    def refuse(*names):
        raise errors.Conflict("garbage collection")

    s3.world.answer = recorded
    with monkeypatch.context() as patch:
        patch.setattr(guard.Guard, "confirm", refuse)
        with pytest.raises(errors.Conflict):
            store.refs["r"] = two
    assert len(calls) == 2
    for call in calls:
        assert answer(call)[0] == 412
    assert store.refs["r"] == one
    assert s3.backend.head("refs/r").etag != before


def test_what_is_left_of_a_removed_ref_is_nobodys_concern_and_goes(clock):
    inner = RemoteMemory()
    store = store_on(inner)
    store.refs["anchor"] = store.put(1)
    store.refs["gone"] = store.put(noise(1))
    del store.refs["gone"]
    assert len(objects(inner, "refs")) == 2
    report = store.verify()
    assert not report.findings and report.objects["refs"] == store.stats().refs == 1
    store_on(inner).plan_gc().execute()
    assert len(objects(inner, "refs")) == 2
    for _ in range(2):
        clock.advance(2 * DAY)
        store_on(inner).plan_gc(series=["g*"], keep_last=1).execute()
    assert objects(inner, "refs") == ["refs/anchor"]
    assert objects(inner, "packs") == []
    assert list(store.refs) == ["anchor"]
