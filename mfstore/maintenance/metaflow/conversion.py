"""Artifacts of a Metaflow root from one profile's form to the other's, by what the profiles themselves save and load
with: equal content gets the key it would have got from a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject, MfstoreError, NotFound, NotSerializable, Unsupported
from mfstore.maintenance.metaflow.migration import Attempt, Piece
from mfstore.maintenance.metaflow.migration_report import Failure
from mfstore.metaflow.roots.migration_record import Form
from mfstore.metaflow.roots.packed_keys import bundle_of, inline_pickle
from mfstore.settings import resolve

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.store import Store

AHEAD = 64 << 20
"""Bytes of a task's blobs that are fetched together; what is beyond is fetched one by one."""


class Conversion:
    """Converts the artifacts of one attempt after the other; several threads may."""

    def __init__(self, root: Root, to: str) -> None:
        try:
            # Also where the extension is switched off: this process reads both forms.
            import mfstore.metaflow.extension  # noqa: F401
        except ImportError as error:
            raise Unsupported(
                f"migrating needs Metaflow: {error}", hint="pip install 'mfstore[metaflow]'", backend=root.url
            ) from error
        self._root = root
        self._to = to
        self.store: Store = root.store(create=to == "packed")
        """Of the packed profile."""

    def convert(
        self, attempt: Attempt, pieces: Mapping[Piece, dict[str, Any]]
    ) -> tuple[dict[Piece, Form], list[Failure]]:
        """Convert these artifacts, given with their infos: what they are now, durably, and what could not be."""
        return _Task(self, self._root, attempt, pieces).run(self._to)

    def close(self) -> None:
        """End threads and connections."""
        self.store.close()


class _Task:
    """One attempt's artifacts."""

    def __init__(
        self, conversion: Conversion, root: Root, attempt: Attempt, pieces: Mapping[Piece, dict[str, Any]]
    ) -> None:
        self._store = conversion.store
        self._remote = root.remote
        self._attempt = attempt
        self._pieces = pieces
        self._failures: dict[Piece, Failure] = {}
        document = {
            "objects": {piece.name: piece.key for piece in pieces},
            "info": {piece.name: info for piece, info in pieces.items()},
        }
        flow, run, step, task = attempt.task
        store = _flow(root, flow)
        self._content = store.ca_store
        self._task = store.get_task_datastore(run, step, task, attempt=attempt.number, data_metadata=document)

    def run(self, to: str) -> tuple[dict[Piece, Form], list[Failure]]:
        try:
            done = self._to_packed() if to == "packed" else self._to_stock()
        except Exception as error:
            # What was to be written was not: nothing of the task changes.
            done = {}
            for piece in self._pieces:
                self._failures.setdefault(piece, self._failure("storage", piece, error))
        return done, [*self._failures.values()]

    def _failure(self, kind: str, piece: Piece, error: object) -> Failure:
        return Failure(kind, self._attempt.name, piece.name, piece.key, described(error))

    # ---- to the packed profile ------------------------------------------------------------

    def _to_packed(self) -> dict[Piece, Form]:
        from mfstore.metaflow.packed import bundles

        by_name = {piece.name: piece for piece in self._pieces}
        # Local files are read as fast one by one.
        if self._remote and sum(info.get("size", 0) for info in self._pieces.values()) <= AHEAD:
            self._content.load_ahead([piece.key for piece in self._pieces])
        while True:
            given: list[Piece] = []
            try:
                saved = bundles.save(lambda: self._store, self._loaded(given), {})
            except NotSerializable as error:
                # Of the last one that was asked for: the others are saved without it.
                self._failures[given[-1]] = self._failure("unloadable", given[-1], error)
                continue
            return {by_name[name]: (key, info) for name, (key, info) in saved.items()}

    def _loaded(self, given: list[Piece]) -> Iterator[tuple[str, Any]]:
        from metaflow.plugins.datastores.serializers.pickle_serializer import PickleSerializer

        from mfstore.metaflow.hooks.task_datastore import serializer_of

        for piece in self._pieces:
            if piece in self._failures:
                continue
            try:
                ((name, obj),) = self._task.load_artifacts([piece.name])
            except Exception as error:
                self._failures[piece] = self._failure(_kind(error), piece, error)
                continue
            if serializer_of(self._task, obj) is not PickleSerializer:
                self._failures[piece] = self._failure("extension", piece, "a serializer of another extension claims it")
                continue
            given.append(piece)
            yield name, obj
            del obj

    # ---- to the stock profile -------------------------------------------------------------

    def _to_stock(self) -> dict[Piece, Form]:
        infos: list[tuple[Piece, dict[str, Any]]] = []
        results = self._content.save_blobs(self._pickles(infos), len_hint=len(self._pieces))
        return {piece: (result.key, info) for (piece, info), result in zip(infos, results, strict=True)}

    def _pickles(self, infos: list[tuple[Piece, dict[str, Any]]]) -> Iterator[bytes]:
        for piece, packed in self._pieces.items():
            try:
                data, info = self._former(piece, packed) or self._pickled(piece, packed)
            except Exception as error:
                self._failures[piece] = self._failure(_kind(error), piece, error)
                continue
            infos.append((piece, info))
            yield data
            del data

    def _former(self, piece: Piece, packed: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]] | None:
        """The blob that an artifact was, if it is whole: so it gets back the very key it had, also where its class
        cannot be imported here, or is pickled otherwise by now."""
        from metaflow.datastore.exceptions import DataException

        if piece.former is None:
            return None
        try:
            ((_, data),) = self._content.load_blobs([piece.former])
        except DataException:
            return None
        return data, _stock_info(len(data), packed)

    def _pickled(self, piece: Piece, packed: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """What a task would store. What cannot be unpickled here is a pickle as it lies there, which every Metaflow
        reads: nobody is kept from leaving by a class that is not at hand."""
        from metaflow.plugins.datastores.serializers.pickle_serializer import PickleSerializer

        try:
            ((_, obj),) = self._task.load_artifacts([piece.name])
            blobs, metadata = PickleSerializer.serialize(obj)
        except Exception:
            data = self._stream(piece, packed)
            return data, _stock_info(len(data), packed)
        return blobs[0].value, {
            **_stock_info(metadata.size, packed),
            "type": metadata.obj_type,
            "encoding": metadata.encoding,
        }

    def _stream(self, piece: Piece, packed: Mapping[str, Any]) -> bytes:
        bundle = bundle_of(packed)
        if bundle is None:
            return inline_pickle(piece.key)
        return self._store.get_bytes(bundle, name=piece.name)


def _stock_info(size: int, packed: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "size": size,
        "type": packed.get("type"),
        "encoding": "pickle-v4",
        "serializer_info": {"source": "metaflow"},
    }


def _flow(root: Root, name: str) -> Any:
    """A flow's datastore. Its blobs are as durable as a store's objects: something durable refers to them next."""
    from metaflow.datastore.flow_datastore import FlowDataStore

    from mfstore.metaflow.hooks.storages import LocalStorage, S3Storage

    if root.remote:
        return FlowDataStore(name, storage_impl=S3Storage, ds_root=root.url)

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
