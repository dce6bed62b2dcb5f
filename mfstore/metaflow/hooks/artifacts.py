"""What mfstore changes of how ``TaskDataStore`` saves and loads artifacts: the packed profile, and what errors name.

What the packed profile needs is imported where it is used: half the time of importing all of mfstore's Metaflow side,
in every process of a flow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any

from metaflow import metaflow_config
from metaflow.datastore.exceptions import DataException, UnpicklableArtifactException
from metaflow.exception import MetaflowException
from metaflow.plugins.datastores.serializers.pickle_serializer import PickleSerializer

from mfstore.errors import NotSerializable
from mfstore.metaflow.hooks.failures import data_errors
from mfstore.metaflow.hooks.marks import settle
from mfstore.metaflow.hooks.openings import parsed
from mfstore.metaflow.hooks.runtime import runtime
from mfstore.metaflow.packed.keys import ENCODING, bundle_of, is_packed
from mfstore.metaflow.roots.attempts import DATA, STARTED
from mfstore.metaflow.stock import blobs

if TYPE_CHECKING:
    from mfstore.store import Store


def save_artifacts(original: Any) -> Any:
    """``TaskDataStore.save_artifacts`` that knows the packed profile."""

    @wraps(original)
    def save_artifacts(self: Any, artifacts_iter: Iterable[tuple[str, Any]], len_hint: int = 0) -> None:
        if self._mode != "w" or self._is_done_set:
            original(self, artifacts_iter, len_hint)
            return
        to_pack = runtime().knobs.profile == "packed" and _has_objects(self)
        artifacts_iter = _changed(self, artifacts_iter, to_pack)
        if not to_pack:
            original(self, artifacts_iter, len_hint)
            return
        from mfstore.metaflow.packed import bundles

        others: list[tuple[str, Any]] = []
        known = {
            key: self._info[name]
            for name, key in self._objects.items()
            if is_packed(self._info.get(name)) and self._ca_store.is_stored(key)
        }
        with data_errors():
            try:
                saved = bundles.save(lambda: _store(self, writing=True), _pickled(self, artifacts_iter, others), known)
            except NotSerializable as error:
                raise _unpicklable(error) from error
        for name, (key, info) in saved.items():
            self._objects[name], self._info[name] = key, info
        if others:
            original(self, iter(others), len(others))

    return save_artifacts


def _changed(task: Any, artifacts: Iterable[tuple[str, Any]], to_pack: bool) -> Iterator[tuple[str, Any]]:
    """All but those that an input has in the other format and with equal content: these keep their key, so that
    ``merge_artifacts`` finds them equal in branches of which only one has read them."""
    for name, obj in artifacts:
        info = task._info.get(name) if name in task._objects else None
        if info is None or is_packed(info) == to_pack or not _has_key(task._objects[name], info, obj):
            yield name, obj


def _has_key(key: str, info: Any, obj: Any) -> bool:
    try:
        if is_packed(info):
            from mfstore.metaflow.packed import bundles

            return bundles.key_of(obj) == key
        if not str(info.get("encoding", "")).endswith("pickle-v4"):
            return False
        return blobs.key_of(PickleSerializer.serialize(obj)[0][0].value) == key
    except Exception:
        return False  # what cannot be serialized says so when it is saved


def _pickled(
    task: Any, artifacts: Iterable[tuple[str, Any]], others: list[tuple[str, Any]]
) -> Iterator[tuple[str, Any]]:
    """What Metaflow would pickle; what a serializer of an extension claims goes to ``others``."""
    for name, obj in artifacts:
        if claimant(task, obj) is PickleSerializer:
            yield name, obj
        else:
            others.append((name, obj))


def claimant(task: Any, obj: Any) -> Any:
    for serializer in task._serializers:
        try:
            if serializer.can_serialize(obj):
                return serializer
        except Exception:
            return None  # Metaflow warns of it where it asks
    return None


def _unpicklable(error: NotSerializable) -> Any:
    if isinstance(error.__cause__, MetaflowException):
        return error.__cause__
    new = UnpicklableArtifactException(error.key or "")
    new.message = str(error)
    return new


def load_artifacts(original: Any) -> Any:
    """``TaskDataStore.load_artifacts`` that knows the packed profile, finds what was migrated, and whose errors name
    artifact and task."""

    @wraps(original)
    def load_artifacts(self: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
        names = list(names)
        siblings = getattr(self, "mfstore_siblings", None)
        left = dict.fromkeys(names)
        try:
            if siblings is not None:
                with data_errors():
                    siblings.expect(self, names)
            for name, obj in _loaded(original, self, names):
                left.pop(name, None)
                yield name, obj
        except DataException as error:
            if not _migrated(self, [*left]):
                raise _named(self, names, error) from error
            # Once: what it is now is in the data.json just read.
            try:
                yield from _loaded(original, self, [*left])
            except DataException as again:
                raise _named(self, [*left], again) from again

    return load_artifacts


def _loaded(original: Any, task: Any, names: list[str]) -> Iterator[tuple[str, Any]]:
    packed = [name for name in names if is_packed((task._info or {}).get(name))]
    others = [name for name in names if name not in set(packed)]
    if packed:
        from mfstore.metaflow.packed import bundles

        with data_errors():
            yield from bundles.load(lambda: _store(task), [_placed(task, name) for name in packed])
    if others or not names:
        yield from original(task, others)


def _migrated(task: Any, names: list[str]) -> bool:
    """Whether some of these artifacts have another form by now, by which they are known from here on: metadata, or a
    data.json read a while ago, may name the one they had before."""
    from mfstore.metaflow.roots.former import now

    if task._mode != "r" or not _has_objects(task):
        return False
    found = {}
    documents = []
    with suppress(DataException):
        documents = _documents(task)
    for document in documents:
        with suppress(ValueError, KeyError):
            found.update({name: new for name in names if (new := now(document, name, task._objects.get(name)))})
    for name, (key, info) in found.items():
        task._objects[name], task._info[name] = key, info
    return bool(found)


def _documents(task: Any) -> list[dict[str, Any]]:
    """The data.json of each attempt of a task."""
    paths = [f"{task._path}/{number}.{DATA}" for number in range(metaflow_config.MAX_ATTEMPTS)]
    return [parsed(path, found.data) for path, found in task._storage_impl.objects.read(paths) if found is not None]


def _placed(task: Any, name: str) -> tuple[str, str, str | None]:
    return name, task._objects[name], bundle_of(task._info[name])


def _named(task: Any, names: Sequence[str], error: DataException) -> DataException:
    key = getattr(error, "key", None)
    of = [name for name in names if key and task._objects.get(name) == key] or (names if len(names) == 1 else [])
    if not of:
        return error
    new = DataException(f"Artifact {', '.join(sorted(of))} of task {task._path}: {error.message}")
    new.key = key
    return new


def transfer_artifacts(original: Any) -> Any:
    """``TaskDataStore.transfer_artifacts`` that saves anew what another root has in the packed format."""

    @wraps(original)
    def transfer_artifacts(self: Any, other_datastore: Any, names: Sequence[str] | None = None) -> None:
        places = [(task.TYPE, task._parent.datastore_root) for task in (self, other_datastore)]
        wanted = [name for name in (other_datastore._objects if names is None else names) if name in other_datastore]
        packed = [name for name in wanted if is_packed(other_datastore._info.get(name))]
        if packed and places[0] != places[1]:
            self.save_artifacts(other_datastore.load_artifacts(packed), len(packed))
            names = [name for name in wanted if name not in packed]
        original(self, other_datastore, names)

    return transfer_artifacts


def get(original: Any) -> Any:
    """``TaskDataStore.get`` that gives the default for an artifact the task does not have, and for no other reason:
    Metaflow asks it whether a run may go on, and a refusal or damage is no answer to that."""

    @wraps(original)
    def get(self: Any, name: str, default: Any = None) -> Any:
        return self[name] if self._info and name in (self._objects or {}) else default

    return get


def _has_objects(task: Any) -> bool:
    return getattr(task._storage_impl, "objects", None) is not None


def _store(task: Any, writing: bool = False) -> Store:
    if not _has_objects(task):
        raise DataException(f"Artifacts in the format {ENCODING} cannot lie in a datastore of type {task.TYPE}")
    from mfstore.metaflow.packed.store import packed_store

    if writing:
        settle(f"{task._storage_impl.datastore_root.rstrip('/')}/", name=STARTED)
    return packed_store(task._storage_impl, writing)
