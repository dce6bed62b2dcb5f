"""Artifacts of a Metaflow root from one profile's form to the other's, by what the profiles themselves save and load
with: equal content gets the key it would have got from a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject, MfstoreError, NotFound, NotSerializable, Unsupported
from mfstore.maintenance.metaflow.migrating.changes import EndedAttempt, StoredArtifact
from mfstore.maintenance.metaflow.migrating.report import MigrationFailure
from mfstore.maintenance.metaflow.packed_store import open_packed_store
from mfstore.metaflow.roots.migration_record import Form
from mfstore.metaflow.roots.packed_keys import bundle_of, inline_pickle
from mfstore.settings import resolve

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.s3.bulk.client import BulkClient
    from mfstore.store import Store

FETCHED_TOGETHER = 64 << 20
"""Bytes of a task's blobs that are fetched together; what is beyond is fetched one by one."""


class Conversion:
    """Converts the artifacts of one attempt after the other; several threads may."""

    def __init__(self, root: Root, to: str) -> None:
        try:
            # Also where the extension is switched off: this process reads both forms.
            from mfstore.metaflow.hooks.rebinding import install
        except ImportError as error:
            raise Unsupported(
                f"migrating needs Metaflow: {error}", hint="pip install 'mfstore[metaflow]'", backend=root.url
            ) from error
        install()
        self._root = root
        self._to = to
        self.store: Store = open_packed_store(root, create=to == "packed")
        """Of the packed profile."""

    def convert(
        self, attempt: EndedAttempt, artifacts: Mapping[StoredArtifact, dict[str, Any]]
    ) -> tuple[dict[StoredArtifact, Form], list[MigrationFailure]]:
        """Convert these artifacts, given with their infos: what they are now, durably, and what could not be."""
        return _AttemptConversion(self, self._root, attempt, artifacts).run(self._to)

    def close(self) -> None:
        """End threads and connections."""
        self.store.close()


class _AttemptConversion:
    """Converts one attempt's artifacts."""

    def __init__(
        self,
        conversion: Conversion,
        root: Root,
        attempt: EndedAttempt,
        artifacts: Mapping[StoredArtifact, dict[str, Any]],
    ) -> None:
        self._store = conversion.store
        self._remote = root.remote
        self._attempt = attempt
        self._artifacts = artifacts
        self._failures: dict[StoredArtifact, MigrationFailure] = {}
        document = {
            "objects": {artifact.name: artifact.key for artifact in artifacts},
            "info": {artifact.name: info for artifact, info in artifacts.items()},
        }
        flow, run, step, task = attempt.task
        store = _flow(root, flow, conversion.store)
        self._content = store.ca_store
        self._task = store.get_task_datastore(run, step, task, attempt=attempt.number, data_metadata=document)

    def run(self, to: str) -> tuple[dict[StoredArtifact, Form], list[MigrationFailure]]:
        try:
            done = self._to_packed() if to == "packed" else self._to_stock()
        except Exception as error:
            # What was to be written was not: nothing of the task changes.
            done = {}
            for artifact in self._artifacts:
                self._failures.setdefault(artifact, self._failure("storage", artifact, error))
        return done, [*self._failures.values()]

    def _failure(self, kind: str, artifact: StoredArtifact, error: object) -> MigrationFailure:
        return MigrationFailure(kind, self._attempt.name, artifact.name, artifact.key, described(error))

    # ---- to the packed profile ------------------------------------------------------------

    def _to_packed(self) -> dict[StoredArtifact, Form]:
        from mfstore.metaflow.packed import bundles

        by_name = {artifact.name: artifact for artifact in self._artifacts}
        # Local files are read as fast one by one.
        if self._remote and sum(info.get("size", 0) for info in self._artifacts.values()) <= FETCHED_TOGETHER:
            self._content.load_ahead([artifact.key for artifact in self._artifacts])
        while True:
            given: list[StoredArtifact] = []
            try:
                saved = bundles.save(lambda: self._store, self._loaded(given), {})
            except NotSerializable as error:
                # Of the last one that was asked for: the others are saved without it.
                self._failures[given[-1]] = self._failure("unloadable", given[-1], error)
                continue
            return {by_name[name]: (key, info) for name, (key, info) in saved.items()}

    def _loaded(self, given: list[StoredArtifact]) -> Iterator[tuple[str, Any]]:
        from mfstore.metaflow.hooks.task_datastore import is_pickled

        for artifact in self._artifacts:
            if artifact in self._failures:
                continue
            try:
                ((name, obj),) = self._task.load_artifacts([artifact.name])
            except Exception as error:
                self._failures[artifact] = self._failure(_kind(error), artifact, error)
                continue
            if not is_pickled(self._task, obj):
                self._failures[artifact] = self._failure(
                    "extension", artifact, "a serializer of another extension claims it"
                )
                continue
            given.append(artifact)
            yield name, obj
            del obj

    # ---- to the stock profile -------------------------------------------------------------

    def _to_stock(self) -> dict[StoredArtifact, Form]:
        infos: list[tuple[StoredArtifact, dict[str, Any]]] = []
        results = self._content.save_blobs(self._pickles(infos), len_hint=len(self._artifacts))
        return {artifact: (result.key, info) for (artifact, info), result in zip(infos, results, strict=True)}

    def _pickles(self, infos: list[tuple[StoredArtifact, dict[str, Any]]]) -> Iterator[bytes]:
        for artifact, packed in self._artifacts.items():
            try:
                data, info = self._earlier(artifact, packed) or self._pickled(artifact, packed)
            except Exception as error:
                self._failures[artifact] = self._failure(_kind(error), artifact, error)
                continue
            infos.append((artifact, info))
            yield data
            del data

    def _earlier(self, artifact: StoredArtifact, packed: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]] | None:
        """The blob that an artifact was, if it is whole: so it gets back the very key it had, also where its class
        cannot be imported here, or is pickled otherwise by now."""
        from metaflow.datastore.exceptions import DataException

        from mfstore.metaflow.stock.pickles import pickle_info

        if artifact.earlier_blob is None:
            return None
        try:
            ((_, data),) = self._content.load_blobs([artifact.earlier_blob])
        except DataException:
            return None
        return data, pickle_info(len(data), packed.get("type"))

    def _pickled(self, artifact: StoredArtifact, packed: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """What a task would store. What cannot be unpickled here is a pickle as it lies there, which every Metaflow
        reads: nobody is kept from leaving by a class that is not at hand."""
        from mfstore.metaflow.stock.pickles import pickle_info, pickle_of

        try:
            ((_, obj),) = self._task.load_artifacts([artifact.name])
            return pickle_of(obj)
        except Exception:
            data = self._stream(artifact, packed)
            return data, pickle_info(len(data), packed.get("type"))

    def _stream(self, artifact: StoredArtifact, packed: Mapping[str, Any]) -> bytes:
        bundle = bundle_of(packed)
        if bundle is None:
            return inline_pickle(artifact.key)
        return self._store.get_bytes(bundle, name=artifact.name)


def _flow(root: Root, name: str, packed: Store) -> Any:
    """A flow's datastore. Its blobs are as durable as a store's objects: something durable refers to them next."""
    from metaflow.datastore.flow_datastore import FlowDataStore

    from mfstore.metaflow.hooks.storages import BucketStorage, LocalStorage

    if root.remote:
        from mfstore.metaflow.hooks.marks import wait_for_marks
        from mfstore.metaflow.stock.bucket_blobs import BucketBlobs
        from mfstore.s3.datatools.places import kind_of

        class _BlobsAsReached(BucketBlobs):
            @contextmanager
            def client(self) -> Iterator[tuple[BulkClient, str]]:
                yield root.backend.client, f"{root.url}/"

        class _AsReached(BucketStorage):
            TYPE = kind_of(root.url)
            url = root.url
            # Metaflow's own settings may lead elsewhere than what the root was opened with.
            blobs = _BlobsAsReached(lambda: root.url, wait_for_marks)
            packed_store = packed

        return FlowDataStore(name, storage_impl=_AsReached, ds_root=root.url)

    class _Synced(LocalStorage):
        fsync = resolve().fsync

    return FlowDataStore(name, storage_impl=_Synced, ds_root=root.backend.root)


def described(error: object) -> str:
    """An error in one line."""
    text = str(error).strip() or type(error).__name__
    known = isinstance(error, (str, MfstoreError)) or type(error).__module__.startswith("metaflow")
    return " ".join((text if known else f"{type(error).__name__}: {text}").split())


def _kind(error: BaseException | None) -> str:
    """The kind of failure of an artifact that cannot be loaded."""
    from metaflow.datastore.exceptions import DataException

    while isinstance(error, DataException) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, (CorruptObject, NotFound, DataException)):
        return "damaged"
    return "storage" if isinstance(error, MfstoreError) else "unloadable"
