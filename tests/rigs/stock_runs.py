"""Runs of stock Metaflow as they write to a datastore root, one operation at a time: each can be paused or killed
between any two. They know nothing of collections."""

import gzip
import json
from types import MappingProxyType

from mfstore.errors import Conflict
from mfstore.format.recipes import recipe_path
from mfstore.metaflow.roots.outcome import FALSE_KEYS, NONE_KEYS, TRUE_KEYS
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER, bundle_of, encoding_in
from tests.rigs.clocked_roots import blob_key

STEPS = ("start", "train", "end")
STOCK = "pickle-v4"
NAMED = 5
"""A bundle with this value is named by a ref, too."""


def bundle_path(bundle):
    """Where a bundle is found below a root."""
    return f"{STORE_FOLDER}/{recipe_path(bundle)}"


class Attempt:
    """One attempt of a task."""

    def __init__(self, place):
        self.place = place
        self.ended = False


class StockRun:
    """A run. ``names`` are the paths of blobs and IncludeFiles that what it wrote refers to: they have to be there from
    then on.

    ``values`` are the artifacts of each step, ``fails``: the number of the step in which it fails; ``retries``: of the
    step whose first attempt dies after as many operations; ``local``: whether it keeps local metadata below the root;
    ``code`` and ``include``: the content of its code package and its IncludeFile; ``last``: the name of its last step;
    ``packed``: whether artifacts of its steps go to ``mf.store``, as in the packed profile.
    """

    def __init__(
        self, root, flow, run, values, *, tags=(), local=True, cards=False, fails=None, retries=None, origin=None,
        code=None, include=None, last="end", packed=False,
    ):  # fmt: skip
        self.root, self.flow, self.run = root, flow, run
        self.steps = (*STEPS[:-1], last)
        self.values, self.tags, self.local, self.cards = values, frozenset(tags), local, cards
        self.fails, self.retries, self.origin = fails, retries, origin
        self.packed = packed
        self.code = None if code is None else blob_key(code)
        self.code_data = code
        self.include, self.include_data = None if include is None else blob_key(include), include
        self.description = None
        """The artifact that stands for its IncludeFile."""
        self.alive = True
        self.ended_well = None
        """Whether its last task did; None: that one has not ended."""
        self.files = {}
        """When each of its files was written, by its path."""
        self.names = {}
        """When each was first named."""
        self.tainted = False
        """Whether it resumed a run that a collection might remove at that time: what it took over may be gone."""
        self.outlived = False
        """Whether it went on while a collection might remove it: what it stored then may be left."""
        self.shown = None
        """The run whose cards it shows, because it resumed that one."""
        self.cloned = set()
        """Those that it took over from the run that it resumed."""
        self.attempt = None
        self.last_sign = root.now
        self.told = {}
        """When each of its attempts began, by what its file says, by the path of that."""
        self._script = self._whole()

    @property
    def name(self):
        return f"{self.flow}/{self.run}"

    @property
    def record(self):
        """Where its local metadata is, with its tags."""
        return f"{self.name}/_meta/_self.json"

    @property
    def running(self):
        """Whether an attempt of it has begun and not ended."""
        return self.attempt is not None and not self.attempt.ended

    def go_on(self, operations):
        """Do the next so many operations; how many there were."""
        done = 0
        while self.alive and done < operations:
            try:
                next(self._script)
            except StopIteration:
                self.alive = False
            done += 1
        return done

    def tag(self, tags):
        """As ``run.replace_tags`` does in local metadata."""
        self.tags = frozenset(tags)
        self._record()

    # ---- what it does -------------------------------------------------------------------

    def _whole(self):
        taken = None
        if self.origin is not None:
            # Metaflow reads what it takes over before it begins a task of its own.
            taken = self.origin.readable()
            yield
        if self.include is not None:
            yield from self._stored(self.include_path, gzip.compress(self.include_data, mtime=0))
        if self.code is not None:
            yield from self._blob(self.code_data)
        if self.local:
            self._record()
            yield
        yield from self._parameters(taken)
        for number, step in enumerate(self.steps):
            if taken is not None and (step, str(number + 1)) in taken:
                yield from self._clone(step, number, taken[step, str(number + 1)])
                if step == self.steps[-1]:
                    return
                continue
            attempt = 0
            if self.retries is not None and self.retries[0] == number:
                task = self._task(step, number, 0)
                for _ in range(self.retries[1]):
                    if next(task, "over") == "over":
                        break
                    yield
                attempt = 1
            yield from self._task(step, number, attempt)
            if self.fails == number:
                return

    def _parameters(self, taken):
        place = f"{self.flow}/{self.run}/_parameters/0/0."
        self._begin_attempt(place)
        yield
        if self.origin is not None:
            if self.local:
                self.shown = self.origin
                folder = f"{self.flow}/{self.run}/_parameters/0"
                self._json(f"{folder}/_meta/sysmeta_origin-run-id_1.json", {"value": self.origin.run})
            self._write(f"{self.flow}/{self.run}/_parameters/0/_resume_leader", b"")
            yield
        if taken is not None and ("_parameters", "0") in taken:
            self._take_over(place, taken["_parameters", "0"])
        else:
            keys = yield from self._blobs([["parameters", self.flow]])
            if self.include is not None:
                described = json.dumps({"type": "uploader-v2", "url": f"s3://elsewhere/{self.include_path}"}).encode()
                self.description = yield from self._blob(described, gzipped=self.root.remote)
                keys.append(self.description)
            self._data(place, keys)
        yield
        self._write(f"{place}DONE.lock", b"")
        self.attempt.ended = True
        yield

    def _clone(self, step, number, document):
        place = f"{self.flow}/{self.run}/{step}/{number + 1}/0."
        self._begin_attempt(place)
        yield
        self._take_over(place, document)
        yield
        self._write(f"{place}DONE.lock", b"")
        self.attempt.ended = True
        if step == self.steps[-1]:
            self.ended_well = document["objects"]["_success"] in TRUE_KEYS
        yield

    def _begin_attempt(self, place):
        self.attempt = Attempt(place)
        self.told[f"{place}attempt.json"] = self.root.here
        self._json(f"{place}attempt.json", {"time": self.root.here})

    def _take_over(self, place, document):
        before = {*self.names}
        if any("IncludedFile" in info["type"] for info in document["info"].values()):
            self.include, self.description = self.origin.include, self.origin.description
        packed = {name: info["encoding"] for name, info in document["info"].items() if info["encoding"] != STOCK}
        self._data(place, document["objects"], packed=packed)
        self.cloned |= self.names.keys() - before

    def _task(self, step, number, attempt):
        place = f"{self.flow}/{self.run}/{step}/{number + 1}/{attempt}."
        self._begin_attempt(place)
        yield
        self._json(f"{place}task_begin", {"code_package_sha": self.code})
        if self.code is not None:
            self._name(self.blob_path(self.code))
        yield
        self._write(f"{place}task_stdout.log", b"it runs")
        yield
        if self.cards:
            card = f"mf.cards/{self.flow}/runs/{self.run}/steps/{step}/tasks/{number + 1}/cards/default-x.html"
            self._write(card, b"a card")
            yield
        well, last = self.fails != number, step == self.steps[-1]
        if self.packed and self.values[number]:
            # Within seconds: what is stored stays for a grace period until it is named.
            try:
                packed = self._bundle(self.values[number])
            except Conflict:  # with what is being deleted; or that was killed
                self.alive = False
                yield
                return
            self._data(place, [blob_key(name.encode()) for name in packed], well, last, packed)
        else:
            keys = yield from self._blobs(self.values[number])
            self._data(place, keys, well, last)
        yield
        self._write(f"{place}runtime_stdout.log", b"")
        yield
        self._write(f"{place}DONE.lock", b"")
        self.attempt.ended = True
        if step == self.steps[-1]:
            self.ended_well = well
        yield

    def _blobs(self, values):
        """Store artifacts as Metaflow does: it asks which are there, and stores the others."""
        keys = []
        for value in values:
            keys.append((yield from self._blob(json.dumps(value).encode())))
        return keys

    def _blob(self, data, gzipped=False):
        key = blob_key(data)
        path = self.blob_path(key)
        described = None if self.root.remote else b'{"cas_raw": true, "cas_version": 1}'
        yield from self._stored(path, gzip.compress(data, mtime=0) if gzipped else data, described)
        return key

    def _stored(self, path, data, described=None):
        """It asks whether something is there, and stores it if not."""
        if not self.root.there(path):
            yield
            self.root.write(path, data)
            self.root.stored_by[path] = self
            if described is not None:
                self.root.write(f"{path}_meta", described)
        yield

    def _bundle(self, values):
        """Store artifacts as a bundle, that of some in a ref too; the encoding of each by its name."""
        named = any(value[-1] == NAMED for value in values)
        with self.root.packed_store() as store:
            artifacts = {f"artifact{number}": json.dumps(value) * 40 for number, value in enumerate(values)}
            bundle = store.save(artifacts, ref=f"kept/{self.flow}" if named else None)
        if named:
            self.root.named.add(bundle)
        return dict.fromkeys(artifacts, encoding_in(bundle))

    def _data(self, place, keys, well=True, last=False, packed=MappingProxyType({})):
        if not isinstance(keys, dict):
            keys = {f"artifact{number}": key for number, key in enumerate(keys)}
            keys["_success"] = keys["_task_ok"] = min(TRUE_KEYS if well else FALSE_KEYS)
            keys["_transition"] = min(NONE_KEYS) if last or not well else blob_key(b"the next step")
        kinds = {name: "metaflow.includefile.IncludedFile" for name, key in keys.items() if key == self.description}
        infos = {
            name: {"size": 4, "type": f"<class '{kinds.get(name, 'list')}'>", "encoding": packed.get(name, STOCK)}
            for name in keys
        }  # fmt: skip
        self._json(f"{place}data.json", {"objects": keys, "info": infos})
        for name, key in keys.items():
            if name in packed:
                self._name(bundle_path(bundle_of(infos[name])))
            elif not name.startswith("_"):
                self._name(self.blob_path(key))
        if kinds:
            self._name(self.include_path)

    def blob_path(self, key):
        """Where a blob of its flow is."""
        return f"{self.flow}/data/{key[:2]}/{key}"

    @property
    def include_path(self):
        """Where its IncludeFile is."""
        return f"data/{self.flow}/{self.include}"

    @property
    def of_deployment(self):
        """What the next run of its deployment needs, too."""
        found = {self.blob_path(key) for key in (self.code, self.description) if key is not None}
        return found if self.include is None else found | {self.include_path}

    def _name(self, path):
        self.names.setdefault(path, self.root.now)

    def _record(self):
        document = {
            "flow_id": self.flow, "run_number": self.run, "ts_epoch": int(self.root.here * 1000),
            "tags": sorted(self.tags), "system_tags": ["user:ann"], "user_name": "ann",
        }  # fmt: skip
        self._json(self.record, document)

    def _json(self, path, document):
        self._write(path, json.dumps(document).encode())

    def _write(self, path, data):
        self.root.write(path, data)
        self.files[path] = self.root.now
        if self.attempt is not None and path.startswith(self.attempt.place):
            self.last_sign = self.root.now

    # ---- what others do -----------------------------------------------------------------

    def readable(self):
        """What is there of its finished tasks, as a run reads it that resumes this one."""
        found = {}
        for number, step in enumerate(("_parameters", *self.steps)):
            for attempt in (1, 0):
                place = f"{self.flow}/{self.run}/{step}/{number}/{attempt}."
                if self.root.there(f"{place}attempt.json"):
                    data = self.root.read(f"{place}data.json")
                    if data is not None and self.root.there(f"{place}DONE.lock"):
                        found[step, str(number)] = json.loads(data)
                    break
        return found
