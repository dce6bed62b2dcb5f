"""The storage classes that replace Metaflow's ``s3`` and ``local``: the same layout, parallel and atomic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

from metaflow.datastore.datastore_storage import CloseAfterUse, DataStoreStorage
from metaflow.metaflow_config import ARTIFACT_LOCALROOT, DATASTORE_SYSROOT_S3
from metaflow.plugins.datastores.local_storage import LocalStorage as StockLocal

from mfstore.metaflow.hooks import marks
from mfstore.metaflow.hooks.openings import remember
from mfstore.metaflow.hooks.runtime import runtime
from mfstore.metaflow.roots.attempts import DATA, DONE
from mfstore.metaflow.stock.local_objects import LocalObjects
from mfstore.metaflow.stock.objects import NewObject
from mfstore.metaflow.stock.s3_objects import S3Objects
from mfstore.s3.bulk.items import PutItem
from mfstore.s3.datatools.clients import Lease, Wish
from mfstore.s3.datatools.exceptions import metaflow_errors
from mfstore.s3.datatools.s3 import S3
from mfstore.s3.datatools.settings import settings
from mfstore.s3.datatools.uploading import Upload, attributes, store


class S3Storage(DataStoreStorage):  # type: ignore[misc]
    """Objects below ``datastore_root`` (``s3://bucket/prefix``); opens nothing before it is used, works from several
    threads and after fork. Errors are those of ``mfstore.S3``."""

    TYPE = "s3"

    @classmethod
    def get_datastore_root_from_config(cls, echo: Any, create_on_absent: bool = True) -> str | None:
        """``METAFLOW_DATASTORE_SYSROOT_S3``."""
        return DATASTORE_SYSROOT_S3  # type: ignore[no-any-return]

    @cached_property
    def objects(self) -> S3Objects:
        """The objects below the root, in memory."""
        return S3Objects(self._root_now)

    @cached_property
    def s3_client(self) -> Any:
        """Metaflow's own client, which other extensions use."""
        from metaflow.plugins.datatools.s3.s3util import S3Client

        return S3Client()

    def _root_now(self) -> str:
        return str(self.datastore_root)

    def _s3(self) -> S3:
        marks.settle(f"{self._root_now().rstrip('/')}/")
        return S3(s3root=self.datastore_root, tmproot=ARTIFACT_LOCALROOT)

    def is_file(self, paths: Iterable[str]) -> list[bool]:
        """Whether each is an object, all asked at once."""
        with self._s3() as s3:
            return [found.exists for found in s3.info_many(paths, return_missing=True)]

    def info_file(self, path: str) -> tuple[bool, Any]:
        """Whether it is an object, and its metadata."""
        with self._s3() as s3:
            found = s3.info(path, return_missing=True)
            return found.exists, found.metadata

    def size_file(self, path: str) -> int | None:
        """Bytes, None when there is no such object."""
        with self._s3() as s3:
            return s3.info(path, return_missing=True).size

    def list_content(self, paths: Iterable[str]) -> list[Any]:
        """What is directly under each of ``paths``."""
        skip = len(self.datastore_root.rstrip("/")) + 1
        with self._s3() as s3:
            return [
                self.list_content_result(path=found.url[skip:], is_file=found.exists) for found in s3.list_paths(paths)
            ]

    def save_bytes(
        self, path_and_bytes_iter: Iterable[tuple[str, Any]], overwrite: bool = False, len_hint: int = 0
    ) -> None:
        """Store objects in parallel; each arrives whole or not at all, ``DONE.lock`` after all others. A mark that
        nobody waits for is on its way when this returns (see ``marks``)."""
        given = iter(path_and_bytes_iter)
        first = [*islice(given, 1)]
        if overwrite and first and marks.goes_ahead(first[0][0]):
            first += given
            if len(first) == 1:
                with metaflow_errors():
                    self._send(*first[0])
                return
        path_and_bytes_iter = chain(first, given)
        with metaflow_errors(), self.objects.client() as (client, root):
            if not overwrite:
                store(client, [_upload(root, path, value) for path, value in path_and_bytes_iter], False, None)
                return
            last: list[PutItem] = []
            files: list[Any] = []
            records: dict[int, tuple[str, bytes]] = {}

            def items() -> Iterator[PutItem]:
                sent = 0
                for path, value in path_and_bytes_iter:
                    item = _upload(root, path, value).item(None, False)
                    if isinstance(item.data, Path):
                        files.append(value)  # sent by its descriptor, which has to stay open
                    if path.endswith(DONE):  # tells that all the rest is there
                        last.append(item)
                        continue
                    if path.endswith(f".{DATA}"):
                        records[sent] = path, item.data
                    sent += 1
                    yield item

            for outcome in client.put_many(items(), stream=True):
                if outcome.index in records:
                    path, data = records.pop(outcome.index)
                    remember(root.rstrip("/"), path, outcome.etag, data)
            marks.settle(root)
            client.put_many(last)

    def _send(self, path: str, value: Any) -> None:
        lease = Lease(Wish(), settings())
        try:
            item = _upload(f"{self._root_now().rstrip('/')}/", path, value).item(None, False)
            marks.sent(str(item.key), lease.client.put_many([item], stream=True).begin(), lease.release)
        except BaseException:
            lease.release()
            raise

    def load_bytes(self, paths: Sequence[str]) -> Any:
        """Objects as files that are gone after the ``with`` block."""
        if not paths:
            return CloseAfterUse(iter(()))
        s3 = self._s3()
        try:
            found = s3.get_many(paths, return_missing=True)
        except BaseException:
            s3.close()
            raise
        return CloseAfterUse(iter([(one.key, one.path, one.metadata) for one in found]), closer=s3)


def _upload(root: str, path: str, value: Any) -> Upload:
    file, metadata = _divided(value)
    return Upload(path, root + path, root + path, file, None, attributes(metadata), settings().encryption)


def _divided(value: Any) -> tuple[Any, Any]:
    """The file, and the metadata or None, of what Metaflow gives to be stored."""
    return value if isinstance(value, tuple) else (value, None)


class _SharedRoot(type(StockLocal)):  # type: ignore[misc]
    """Setting ``datastore_root`` of the class sets the stock class's, where it is then inherited from: Metaflow's
    metadata, cards and tags look there."""

    def __setattr__(cls, name: str, value: Any) -> None:
        if name == "datastore_root" and cls is LocalStorage:
            setattr(StockLocal, name, value)
        else:
            super().__setattr__(name, value)


class LocalStorage(StockLocal, metaclass=_SharedRoot):  # type: ignore[misc]
    """Files below ``datastore_root``, each written whole, after its metadata, with ordinary permissions."""

    TYPE = "local"

    @cached_property
    def objects(self) -> LocalObjects:
        """The objects below the root, in memory."""
        return LocalObjects(self._root_now, runtime().knobs.fsync)

    def _root_now(self) -> str:
        return str(self.datastore_root)

    def save_bytes(
        self, path_and_bytes_iter: Iterable[tuple[str, Any]], overwrite: bool = False, len_hint: int = 0
    ) -> None:
        """Store files; those that exist stay as they are unless ``overwrite``."""
        self.objects.put(self._new(path_and_bytes_iter, overwrite))

    def _new(self, items: Iterable[tuple[str, Any]], overwrite: bool) -> Iterator[NewObject]:
        for path, value in items:
            file, metadata = _divided(value)
            if overwrite or not self.is_file([path])[0]:
                yield NewObject(path, [file.read()], metadata)
