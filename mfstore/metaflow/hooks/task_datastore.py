"""What is rebound of Metaflow's ``TaskDataStore``: how a task's artifacts are saved and loaded, for the packed profile
and after a migration, and what errors name.

Each function here takes the original method and gives what takes its place. What the packed profile needs is imported
where it is used: half the time of importing all of mfstore's Metaflow side, in every process of a flow.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from io import BytesIO
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from metaflow import metaflow_config
from metaflow.datastore.exceptions import DataException, UnpicklableArtifactException
from metaflow.exception import MetaflowException

from mfstore.metaflow.errors import data_errors
from mfstore.metaflow.process_state import process_state
from mfstore.metaflow.roots.packed_keys import ENCODING, STORE_FOLDER, PackedArtifact, bundle_of, is_inline, is_packed

if TYPE_CHECKING:
    from mfstore.errors import NotSerializable
    from mfstore.metaflow.hooks.client_reads import ClientReads
    from mfstore.metaflow.packed.previous import PreviousBundle
    from mfstore.metaflow.roots.migration_record import Form
    from mfstore.store import Store


FOREACH = "_foreach_stack"
TOLD = 5
"""Names in a message."""
KEY_DIGITS = 64
"""Of a key of what lies in a bundle, and of no other."""

# ---- saving -----------------------------------------------------------------------------


def save_artifacts(original: Any) -> Any:
    """``TaskDataStore.save_artifacts`` that writes in the form of the profile."""

    @wraps(original)
    def save_artifacts(self: Any, artifacts_iter: Iterable[tuple[str, Any]], len_hint: int = 0) -> None:
        if self._mode != "w" or self._is_done_set:
            original(self, artifacts_iter, len_hint)
            return
        packs = process_state().knobs.profile == "packed" and _has_blobs(self)
        splits: list[Any] = []
        artifacts = _not_inherited(self, _noting_splits(artifacts_iter, splits), packs)
        if not packs:
            original(self, artifacts, len_hint)
            _tell_taken_over(self)
            return
        claimed: list[tuple[str, Any]] = []
        _save_packed(self, _unclaimed(self, artifacts, claimed), splits)
        if claimed:
            original(self, iter(claimed), len(claimed))

    return save_artifacts


def _save_packed(task: Any, artifacts: Iterator[tuple[str, Any]], splits: list[Any]) -> None:
    """``splits`` is the task's foreach stack once ``artifacts`` have been taken."""
    from mfstore.metaflow.packed.plain import LITERAL_BYTES, content_key, plain_info, plain_pickle
    from mfstore.metaflow.roots.packed_keys import INLINE_PICKLE_BYTES, inline_key

    plain: dict[str, tuple[str, Any]] = {}
    small: list[tuple[str, Any, bytes]] = []
    begun = False

    def others() -> Iterator[tuple[str, Any]]:
        for name, obj in artifacts:
            pickled = plain_pickle(obj)
            if pickled is not None and len(pickled) <= INLINE_PICKLE_BYTES:
                key = inline_key(pickled)
                plain[name] = key, plain_info(obj, len(pickled), None)
            elif pickled is not None and _has_stored(task, name) and task._objects[name] == content_key(pickled):
                continue
            elif begun or pickled is None or len(pickled) > LITERAL_BYTES:
                yield name, obj
            else:
                small.append((name, obj, pickled))

    left = others()
    first = [*islice(left, 1)]
    if first or (small and not _save_small(task, small)):
        begun = True
        _save_bundle(task, chain(_taken(first), ((name, obj) for name, obj, _ in small), left), splits)
    for name, (key, info) in plain.items():
        task._objects[name], task._info[name] = key, info


def _save_small(task: Any, artifacts: Iterable[tuple[str, Any, bytes]]) -> bool:
    """Whether these are stored."""
    if not _is_local(task) or process_state().knobs.fsync != "none":
        return False
    from mfstore.metaflow.packed.plain import content_key, plain_info
    from mfstore.metaflow.packed.small import save_small

    pickles = {name: pickled for name, _, pickled in artifacts}
    types = {name: type(obj).__name__ for name, obj, _ in artifacts}
    bundle = save_small(task._storage_impl.datastore_root, pickles, types)
    if bundle is None:
        return False
    for name, obj, pickled in artifacts:
        task._objects[name], task._info[name] = content_key(pickled), plain_info(obj, len(pickled), bundle)
    return True


def rely_on_bundles(task: Any) -> None:
    """What a task in a directory has in bundles is known to be stored since it ended, as a listing tells of S3: who has
    it of this task, and saves it as it is, need not look for it. Not what the task took over from another run's."""
    if getattr(task, "_mode", None) != "r" or process_state().knobs.profile != "packed":
        return
    keys = [key for key in (task._objects or {}).values() if len(key) == KEY_DIGITS]
    if not keys:
        return
    from mfstore.metaflow.roots.attempts import BEGAN, DATA, PARAMETERS, RESUMED

    storage, path = task._storage_impl, task._path
    if task._step_name == PARAMETERS:
        ran = not any(storage.is_file([f"{path}/{name}" for name in RESUMED]))
    else:
        ran = all(storage.is_file([f"{path}/{task._attempt}.{BEGAN}"]))
    if ran:
        with suppress(OSError):
            written = os.stat(storage.full_uri(f"{path}/{task._attempt}.{DATA}")).st_mtime  # noqa: PTH116
            task._ca_store.rely_on(keys, abs(time.time() - written))


def _has_stored(task: Any, name: str) -> bool:
    """Whether the task has an artifact of this name, of an input, that is known to be stored in a bundle."""
    key = task._objects.get(name)
    return key is not None and is_packed(task._info.get(name)) and task._ca_store.is_stored(key)


def _taken(first: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """``first``, which is emptied: nobody else keeps a large object while it is saved."""
    while first:
        yield first.pop()


def _save_bundle(task: Any, artifacts: Iterable[tuple[str, Any]], splits: list[Any]) -> None:
    from mfstore.errors import NotSerializable
    from mfstore.metaflow.packed import bundles
    from mfstore.metaflow.packed.previous import PreviousBundle, is_first_split

    previous = PreviousBundle(task._parent.flow_name, task._step_name)
    known = {
        key: task._info[name]
        for name, key in task._objects.items()
        if is_packed(task._info.get(name)) and task._ca_store.is_stored(key)
    }
    with data_errors():
        try:
            given = _noting_read(task, artifacts, previous)
            saved = bundles.save(lambda: _store_to_write(task), given, known, previous)
        except NotSerializable as error:
            raise _unpicklable(error) from error
        hint = previous.hint()
        if hint is not None and is_first_split(splits):
            # Sent, and waited for when the attempt is done.
            task._storage_impl.save_bytes([(f"{STORE_FOLDER}/{previous.path}", BytesIO(hint))], overwrite=True)
    for name, (key, info) in saved.items():
        task._objects[name], task._info[name] = key, info


def _noting_read(
    task: Any, artifacts: Iterable[tuple[str, Any]], previous: PreviousBundle
) -> Iterator[tuple[str, Any]]:
    """All of them; of those that are still what the task read, ``previous`` learns the bundle it came from."""
    for name, obj in artifacts:
        info = task._info.get(name)
        if is_packed(info) and _was_read(name, task._objects.get(name), obj):
            bundle = bundle_of(info)
            if bundle is not None:
                previous.was_read(name, bundle)
        yield name, obj


def _noting_splits(artifacts: Iterable[tuple[str, Any]], splits: list[Any]) -> Iterator[tuple[str, Any]]:
    """All of them; the frames of the foreach stack, which is among what Metaflow saves of a task, go to ``splits``."""
    for name, obj in artifacts:
        if name == FOREACH:
            splits += obj
        yield name, obj


def _not_inherited(task: Any, artifacts: Iterable[tuple[str, Any]], packs: bool) -> Iterator[tuple[str, Any]]:
    """All but those that an input has in the other profile's form and with equal content: these keep their key, so that
    ``merge_artifacts`` finds them equal in branches of which only one has read them.

    What a task in the default profile has set itself is not among these, and neither is what is Metaflow's own: that is
    written so that a Metaflow without mfstore reads it.
    """
    for name, obj in artifacts:
        key = task._objects.get(name)
        info = task._info.get(name) if key is not None else None
        own = not packs and (name.startswith("_") or not _was_read(name, key, obj))
        if info is None or own or is_packed(info) == packs or not _has_key(key, info, obj):
            yield name, obj


def _was_read(name: str, key: str | None, obj: Any) -> bool:
    """Whether this very object was read under this name. One that was set to an equal number or text may be taken for
    it, as Python has those once."""
    return key is not None and process_state().packed_read.get((name, key)) == id(obj)


def _tell_taken_over(task: Any) -> None:
    """Say once for each task what it has of its inputs that a Metaflow without mfstore cannot read."""
    names = sorted(name for name, info in task._info.items() if is_packed(info))
    if names and not getattr(task, "mfstore_told", False):
        task.mfstore_told = True
        more = "" if len(names) <= TOLD else f" and {len(names) - TOLD} more"
        sys.stderr.write(
            f"mfstore: {task._path} takes over artifacts in the packed profile, which Metaflow without mfstore cannot "
            f"read: {', '.join(names[:TOLD])}{more}\n"
        )


def _has_key(key: str, info: Any, obj: Any) -> bool:
    try:
        if is_packed(info):
            from mfstore.metaflow.packed import bundles

            return bundles.key_of(obj) == key
        if not str(info.get("encoding", "")).endswith("pickle-v4"):
            return False
        from mfstore.metaflow.stock.encoding import key_of
        from mfstore.metaflow.stock.pickles import pickle_of

        return key_of(pickle_of(obj)[0]) == key
    except Exception:
        return False  # what cannot be serialized says so when it is saved


def _unclaimed(
    task: Any, artifacts: Iterable[tuple[str, Any]], claimed: list[tuple[str, Any]]
) -> Iterator[tuple[str, Any]]:
    """What Metaflow would pickle; what a serializer of an extension claims goes to ``claimed``."""
    for name, obj in artifacts:
        if is_pickled(task, obj):
            yield name, obj
        else:
            claimed.append((name, obj))


def is_pickled(task: Any, obj: Any) -> bool:
    """Whether Metaflow would pickle ``obj`` in this task's datastore, as it does all before 2.19.26. No: a serializer
    of an extension claims it, or one of them fails, of which Metaflow warns where it asks."""
    serializers = getattr(task, "_serializers", None)
    if serializers is None:
        return True
    from metaflow.plugins.datastores.serializers.pickle_serializer import PickleSerializer

    for serializer in serializers:
        try:
            if serializer.can_serialize(obj):
                return serializer is PickleSerializer
        except Exception:
            return False
    return False


def _unpicklable(error: NotSerializable) -> Any:
    if isinstance(error.__cause__, MetaflowException):
        return error.__cause__
    new = UnpicklableArtifactException(error.key or "")
    new.message = str(error)
    return new


def transfer_artifacts(original: Any) -> Any:
    """``TaskDataStore.transfer_artifacts`` that saves anew what another root has in the packed form."""

    @wraps(original)
    def transfer_artifacts(self: Any, other_datastore: Any, names: Sequence[str] | None = None) -> None:
        roots = [(task.TYPE, task._parent.datastore_root) for task in (self, other_datastore)]
        wanted = [name for name in (other_datastore._objects if names is None else names) if name in other_datastore]
        packed = [name for name in wanted if is_packed(other_datastore._info.get(name))]
        if packed and roots[0] != roots[1]:
            self.save_artifacts(other_datastore.load_artifacts(packed), len(packed))
            names = [name for name in wanted if name not in packed]
        original(self, other_datastore, names)

    return transfer_artifacts


# ---- loading ----------------------------------------------------------------------------


def load_artifacts(original: Any) -> Any:
    """``TaskDataStore.load_artifacts`` that reads every form, finds what was migrated, and whose errors name artifact
    and task."""

    @wraps(original)
    def load_artifacts(self: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
        names = list(names)
        inputs = getattr(self, "mfstore_join_inputs", None)
        left = dict.fromkeys(names)
        try:
            if inputs is not None:
                with data_errors():
                    inputs.expect(self, names)
            elif len(names) == 1 and _is_the_clients(self) and names[0] in self._objects:
                _reads_of_client(self._parent).expect(self, names[0])
            for name, obj in _loaded(original, self, names):
                left.pop(name, None)
                yield name, obj
        except DataException as error:
            documents = _documents_now(self)
            if not _learn_migrated(self, [*left], documents or ()):
                told = _told_of_removal(self, error) if documents == [] else error
                raise _named(self, names, told) from error
            # Once: what it is now is in the data.json just read.
            try:
                yield from _loaded(original, self, [*left])
            except DataException as again:
                raise _named(self, [*left], again) from again

    return load_artifacts


def _is_the_clients(task: Any) -> bool:
    """Whether Metaflow's Client has opened a task, far away: it alone has a cache of what tasks have."""
    cached = getattr(task._parent, "_metadata_cache", None) is not None  # before 2.19 there was none
    return cached and task._mode == "r" and _has_blobs(task) and not _is_local(task)


def _reads_of_client(flow: Any) -> ClientReads:
    reads: ClientReads | None = getattr(flow, "mfstore_client_reads", None)
    if reads is None:
        from mfstore.metaflow.hooks.client_reads import ClientReads

        reads = flow.mfstore_client_reads = ClientReads()
    return reads


def _loaded(original: Any, task: Any, names: list[str]) -> Iterator[tuple[str, Any]]:
    infos = task._info or {}
    packed = [
        PackedArtifact(name, task._objects[name], bundle_of(infos[name]))
        for name in names
        if is_packed(infos.get(name))
    ]
    stock = [name for name in names if not is_packed(infos.get(name))]
    if packed:
        with data_errors():
            read = process_state().packed_read
            for name, obj in _loaded_packed(task, packed):
                read[name, task._objects[name]] = id(obj)
                yield name, obj
    safe = process_state().knobs.safe
    if stock and safe is not None:
        from mfstore.metaflow.stock.safe_pickles import load_safely

        with data_errors():
            found = ((name, task._objects[name], infos.get(name, {})) for name in stock)
            yield from load_safely(found, task._ca_store.load_blobs, safe)
    elif stock or not names:
        yield from original(task, stock)


def _loaded_packed(task: Any, packed: Sequence[PackedArtifact]) -> Iterator[tuple[str, Any]]:
    from mfstore.metaflow.packed.plain import load_inline

    safe = process_state().knobs.safe
    in_bundles = []
    for artifact in packed:
        if is_inline(artifact.key):
            yield artifact.name, load_inline(artifact.key, safe)
        else:
            in_bundles.append(artifact)
    found: dict[str | None, dict[str, bytes]] = {}
    for artifact in [*in_bundles] if _is_local(task) and safe is None else ():
        from mfstore.metaflow.packed.small import load_small

        if artifact.bundle not in found:
            found[artifact.bundle] = load_small(task._storage_impl.datastore_root, artifact.bundle or "")
        pickled = found[artifact.bundle].get(artifact.name)
        if pickled is not None:
            try:
                obj = pickle.loads(pickled)
            except Exception:
                break  # the store says what it is
            in_bundles.remove(artifact)
            yield artifact.name, obj
    if in_bundles:
        from mfstore.metaflow.packed import bundles

        yield from bundles.load(lambda: _store_to_read(task), in_bundles)


def _documents_now(task: Any) -> list[dict[str, Any]] | None:
    """The data.json of each attempt of a task that is read, as they are now: artifacts may have another form by now, or
    the run may be gone. None where that is not known."""
    if task._mode != "r" or not _has_blobs(task):
        return None
    from mfstore.metaflow.hooks.task_data import parsed_task_data
    from mfstore.metaflow.roots.attempts import DATA

    paths = [f"{task._path}/{number}.{DATA}" for number in range(metaflow_config.MAX_ATTEMPTS)]
    try:
        found = task._storage_impl.blobs.read(paths)
        return [parsed_task_data(path, stored.data) for path, stored in found if stored is not None]
    except DataException:
        return None


def _learn_migrated(task: Any, names: list[str], documents: Iterable[dict[str, Any]]) -> bool:
    """Whether some of these artifacts have another form by now, by which they are known from here on: metadata, or a
    data.json read a while ago, may name the one they had before."""
    from mfstore.metaflow.roots.migration_record import current_form

    found: dict[str, Form] = {}
    for document in documents:
        with suppress(ValueError, KeyError):
            found.update(
                (name, form) for name in names if (form := current_form(document, name, task._objects.get(name)))
            )
    for name, (key, info) in found.items():
        task._objects[name], task._info[name] = key, info
    return bool(found)


def _told_of_removal(task: Any, error: DataException) -> DataException:
    """The error about an artifact of a task that has no data.json any more."""
    if task._mode != "r" or not _has_blobs(task):
        return error
    from mfstore.metaflow.hooks.removed_runs import told_of_removal

    return told_of_removal(task._storage_impl, f"{task._parent.flow_name}/{task._run_id}", error)


def _named(task: Any, names: Sequence[str], error: DataException) -> DataException:
    key = getattr(error, "key", None)
    of = [name for name in names if key and task._objects.get(name) == key] or (names if len(names) == 1 else [])
    if not of:
        return error
    new = DataException(f"Artifact {', '.join(sorted(of))} of task {task._path}: {error.message}")
    new.key = key
    return new


def get(original: Any) -> Any:
    """``TaskDataStore.get`` that gives the default for an artifact the task does not have, and for no other reason:
    Metaflow asks it whether a run may go on, and a refusal or damage is no answer to that."""

    @wraps(original)
    def get(self: Any, name: str, default: Any = None) -> Any:
        return self[name] if self._info and name in (self._objects or {}) else default

    return get


# ---- the packed profile's store ---------------------------------------------------------


def _is_local(task: Any) -> bool:
    return _has_blobs(task) and not task._storage_impl.blobs.remote


def _has_blobs(task: Any) -> bool:
    return getattr(task._storage_impl, "blobs", None) is not None


def _store_to_read(task: Any) -> Store:
    if not _has_blobs(task):
        raise DataException(f"Artifacts in the format {ENCODING} cannot lie in a datastore of type {task.TYPE}")
    # A migration has it open, reached as its root is.
    if (opened := getattr(task._storage_impl, "packed_store", None)) is not None:
        return opened  # type: ignore[no-any-return]
    from mfstore.metaflow.packed.store import packed_store

    return packed_store(task._storage_impl.url)


def _store_to_write(task: Any) -> Store:
    from mfstore.metaflow.packed.store import packed_store

    root = task._storage_impl.url
    if not _is_local(task):
        from mfstore.metaflow.hooks.marks import wait_for_marks
        from mfstore.metaflow.roots.attempts import STARTED

        wait_for_marks(f"{root.rstrip('/')}/", name=STARTED)
    return packed_store(root, writing=True)
