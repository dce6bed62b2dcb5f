"""Plays a trace of the model (protocol_model.py) on the real code: each actor is a thread that stops before each call
of its backend that is a step of the model, and goes on when the trace says so.

Steps that are no calls ("find", "confirm") need no stop. Where the code does something else than the trace says, as it
should where rules have changed, it is left to do so. In the end everybody goes on to his end. Nobody sleeps: time
passes when the trace says so or, in the end, as somebody waits for it.
"""

import threading
import time

from mfstore import errors
from mfstore.backends.memory import MemoryBackend
from mfstore.format import recipes
from mfstore.testing import FaultyBackend
from tests.rigs.gc import noise, same, store_on
from tests.rigs.protocol_model import NAMES, OVER, Collector

GRACE = 24 * 3600.0
CONTENT = {
    "A": {"shared": noise(1, 40_000)},
    "B": {"shared": noise(1, 40_000), "more": 2},
}  # too long to lie in a recipe
CHANGED = noise(1, 40_000)
CHANGED[:8] += 1
WITH_DELTAS = CONTENT | {"B": {"shared": CHANGED}}
"""Where B is stored as deltas against what A has in its pack."""
SLEEP = "sleep"
CALLS = ("plan", "claim", "hold", "delete", "send", "put")
"""How the steps begin that are calls of a backend."""


class Stopped(FaultyBackend):
    """An actor's backend: stops before each step, and lets deletions be late."""

    def __init__(self, inner, actor):
        super().__init__(inner)
        self.actor = actor

    def _run(self, operation, key, work):
        step = self.actor.step_of(operation, key)
        if step is not None:
            self.actor.stop(step)
        fate, self.actor.fate = self.actor.fate, None
        if operation != "delete_unchanged" or fate is None:
            return work()
        self.actor.late.append((key, self.inner.head(key).etag))
        if fate == "send":
            raise errors.BackendError("no answer")
        return work()

    def delete_unchanged(self, objects):
        if self.inner.deletes_conditionally():
            return super().delete_unchanged(objects)
        # Of one object: a look, and a deletion that no longer minds what is there.
        ((key, etag),) = objects.items()
        self.actor.stop(f"hold {key}")
        if not self.inner.exists_many([key])[0]:
            return [True]
        if self.inner.head(key).etag != etag:
            return [False]
        return self._run("delete_unchanged", key, lambda: [self.inner.delete(key) is None])


class Actor:
    """One thread, which does ``work`` with a backend of its own."""

    def __init__(self, kind, work, inner, paths):
        self.kind, self.answer, self.fate = kind, None, None
        self.late = []
        """Deletions that were sent and may still be carried out: where, and the etag that was looked at."""
        self.pause = 0.0
        self.at = None
        """The step it has stopped before; OVER in the end."""
        self._names = {path: name for name, path in paths.items()}
        self._claims, self._planned = 0, set()
        self._may_run, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._backend = Stopped(inner, self)
        self.thread = threading.Thread(target=self._live, args=(work,), daemon=True)

    def _live(self, work):
        self._may_run.acquire()
        try:
            self.answer = work(self)
        except errors.MfstoreError as error:
            self.answer = error
        self.at = OVER
        self._stopped.release()

    def store(self):
        """The store by a new handle, as each run of a collector has one."""
        self._claims, self._planned = 0, set()
        return store_on(self._backend)

    def stop(self, step, seconds=0.0):
        self.at, self.pause = step, seconds
        self._stopped.release()
        self._may_run.acquire()

    def resume(self):
        """Let it run to where it stops next."""
        if self.thread.ident is None:
            self.thread.start()
        self._may_run.release()
        assert self._stopped.acquire(timeout=60), "an actor hangs"

    def play(self, step):
        """Run it until it has done a step; or, if that is no call, as far as it comes without waiting."""
        if step == "find" and self.thread.ident is None:
            self.resume()  # it has looked, and comes to what it does about it
        called = step.startswith(CALLS)
        wanted = step.replace("send", "delete").removesuffix(" twice")
        if step == "hold" and not str(self.at).startswith("hold"):
            return
        patience = 10.0 if step in ("checked", "waited") else 0.0
        while self.at != OVER and (called or step in ("confirm", "checked", "waited", "refused", "give up")):
            if self.at == wanted or (step == "hold" and self.at.startswith("hold")):
                self.fate = "send" if step.startswith("send") else "twice" if step.endswith(" twice") else None
                self.resume()
                return
            if self.at == SLEEP:
                patience -= self.pause
                if patience < 0:
                    return
            self.resume()

    def step_of(self, operation, key):
        if self.kind == "collect":
            if (operation == "list" or key == "gc/clock") and not self._claims:
                step = {"gc": "plan refs", "recipes": "plan"}.get(key.partition("/")[0])
                new = step not in self._planned
                self._planned.add(step)
                return step if new else None
            if (operation, key) == ("put_if", "gc/state"):
                self._claims += 1
                return "claim" if self._claims == 1 else None
            return f"delete {self._names.get(key, key)}" if operation == "delete_unchanged" else None
        if operation in ("put", "batch.put") and key in self._names:
            return f"put {self._names[key]}"
        return "put ref" if operation == "put_if" and key.startswith("refs/") else None


class Replay:
    """A store in the state in which a case begins, and its actors."""

    def __init__(self, case, inner, clock, monkeypatch):
        self.case, self.inner, self.clock = case, inner, clock
        store = store_on(inner)
        store.refs["anchor"] = store.put(1)
        self.content = WITH_DELTAS if case.start.deltas else CONTENT
        self.keys = {"A": store.save(self.content["A"]), "B": store_on(MemoryBackend()).save(self.content["B"])}
        (pack,) = [info.key for info in inner.list("packs/")]
        self.paths = {name: recipes.recipe_path(key) for name, key in self.keys.items()} | {"P": pack}
        clock.advance(GRACE + 1)
        if case.start.state.listed:
            store_on(inner).plan_gc(grace=GRACE, repack=0).execute()
            clock.advance(GRACE + 1)
        self.actors = [self._actor(actor) for actor in case.actors]
        real = time.sleep

        def sleep(seconds):
            actor = next((a for a in self.actors if a.thread is threading.current_thread()), None)
            if actor is None:
                real(seconds)
                return
            actor.stop(SLEEP, seconds)
            clock.advance(seconds)

        monkeypatch.setattr(time, "sleep", sleep)

    def _actor(self, actor):
        def collect(me):
            for _ in range(actor.runs):
                me.store().plan_gc(grace=GRACE, repack=0).execute(yes_really=True, take_over=True)

        if isinstance(actor, Collector):
            return Actor("collect", collect, self.inner, self.paths)
        name = NAMES[actor.key]
        base = self.keys["A"] if self.case.start.deltas and name == "B" else None
        work = {
            "write": lambda me: me.store().save(self.content[name], base=base),
            "name": lambda me: me.store().refs.update(late=self.keys[name]),
            "unname": lambda me: me.store().refs.pop("late"),
        }[actor.kind]
        return Actor(actor.kind, work, self.inner, self.paths)

    def play(self, trace):
        for label in trace:
            who, _, step = label.partition(".")
            if label == "grace":
                self.clock.advance(GRACE + 1)
            elif label == "window":
                self.clock.advance(10.0)
            elif who == "late":
                self._arrives(self.paths[step])
            else:
                self.actors[int(who)].play(step)
        while left := [actor for actor in self.actors if actor.at != OVER]:
            for actor in left:
                actor.resume()

    def _arrives(self, path):
        for actor in self.actors:
            for key, etag in actor.late:
                if key != path:
                    continue
                if self.inner.deletes_conditionally():
                    self.inner.delete_unchanged({key: etag})
                else:
                    self.inner.delete(key)

    def lost(self):
        """What was acknowledged and cannot be read."""
        lost = []
        for planned, actor in zip(self.case.actors, self.actors, strict=True):
            if actor.kind in ("write", "name") and not isinstance(actor.answer, errors.MfstoreError):
                name = NAMES[planned.key]
                if not same(store_on(self.inner), self.keys[name], self.content[name]):
                    lost.append((actor.kind, name))
        return lost
