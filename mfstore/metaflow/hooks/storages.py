"""The storage classes that replace Metaflow's ``s3``, ``azure``, ``gs`` and ``local``: the same layout, parallel and
atomic.

Every process that imports Metaflow imports this module. So what a storage does is imported when it is used, and all
that is rebound in Metaflow is rebound when the first storage is made: Metaflow's datastores make theirs before they
make or do anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from metaflow.datastore.datastore_storage import DataStoreStorage
from metaflow.metaflow_config import DATASTORE_SYSROOT_AZURE, DATASTORE_SYSROOT_GS, DATASTORE_SYSROOT_S3
from metaflow.plugins.datastores.local_storage import LocalStorage as StockLocal

if TYPE_CHECKING:
    from mfstore.metaflow.hooks.bucket import ObjectsOfStorage
    from mfstore.metaflow.stock.blob_storage import NewBlob
    from mfstore.metaflow.stock.bucket_blobs import BucketBlobs
    from mfstore.metaflow.stock.local_blobs import LocalBlobs


class BucketStorage(DataStoreStorage):  # type: ignore[misc]
    """Objects below ``datastore_root``; opens nothing before it is used, works from several threads and after fork."""

    def __init__(self, root: str | None = None) -> None:
        _rebind()
        super().__init__(root)

    @property
    def url(self) -> str:
        """The root as mfstore calls it."""
        return str(self.datastore_root)

    @cached_property
    def _objects(self) -> ObjectsOfStorage:
        from mfstore.metaflow.hooks.bucket import ObjectsOfStorage

        return ObjectsOfStorage(self)

    @property
    def blobs(self) -> BucketBlobs:
        """Blobs and other small files below the root, in memory."""
        return self._objects.blobs

    def is_file(self, paths: Iterable[str]) -> list[bool]:
        """Whether each is an object, all asked at once."""
        return self._objects.is_file(paths)

    def info_file(self, path: str) -> tuple[bool, Any]:
        """Whether it is an object, and its metadata."""
        return self._objects.info_file(path)

    def size_file(self, path: str) -> int | None:
        """Bytes, None when there is no such object."""
        return self._objects.size_file(path)

    def list_content(self, paths: Iterable[str]) -> list[Any]:
        """What is directly under each of ``paths``."""
        return self._objects.list_content(paths)

    def save_bytes(
        self, path_and_bytes_iter: Iterable[tuple[str, Any]], overwrite: bool = False, len_hint: int = 0
    ) -> None:
        """Store objects in parallel; each arrives whole or not at all, ``DONE.lock`` after all others. A mark that
        nobody waits for is on its way when this returns (see ``marks``)."""
        self._objects.save_bytes(path_and_bytes_iter, overwrite)

    def load_bytes(self, paths: Sequence[str]) -> Any:
        """Objects as files that are gone after the ``with`` block."""
        return self._objects.load_bytes(paths)


class S3Storage(BucketStorage):
    """In S3, below ``s3://bucket/prefix``. Errors are those of ``mfstore.S3``."""

    TYPE = "s3"

    @classmethod
    def get_datastore_root_from_config(cls, echo: Any, create_on_absent: bool = True) -> str | None:
        """``METAFLOW_DATASTORE_SYSROOT_S3``."""
        return DATASTORE_SYSROOT_S3  # type: ignore[no-any-return]

    @cached_property
    def s3_client(self) -> Any:
        """Metaflow's own client, which other extensions use."""
        from metaflow.plugins.datatools.s3.s3 import S3Client

        return S3Client()


class AzureStorage(BucketStorage):
    """On Azure, below ``container/prefix``. Errors are DataException."""

    TYPE = "azure"

    @classmethod
    def get_datastore_root_from_config(cls, echo: Any, create_on_absent: bool = True) -> str | None:
        """``METAFLOW_DATASTORE_SYSROOT_AZURE``."""
        return DATASTORE_SYSROOT_AZURE  # type: ignore[no-any-return]

    @property
    def url(self) -> str:
        """``az://container/prefix``."""
        from mfstore.s3.datatools.places import root_url

        return root_url(self.TYPE, str(self.datastore_root))


class GSStorage(BucketStorage):
    """On Google Cloud, below ``gs://bucket/prefix``. Errors are DataException."""

    TYPE = "gs"

    @classmethod
    def get_datastore_root_from_config(cls, echo: Any, create_on_absent: bool = True) -> str | None:
        """``METAFLOW_DATASTORE_SYSROOT_GS``."""
        return DATASTORE_SYSROOT_GS  # type: ignore[no-any-return]


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
    fsync: str | None = None
    """How durable what is stored is; None: as the settings say."""

    def __init__(self, root: str | None = None) -> None:
        _rebind()
        super().__init__(root)

    @property
    def url(self) -> str:
        """The directory."""
        return str(self.datastore_root)

    @cached_property
    def blobs(self) -> LocalBlobs:
        """Blobs and other small files below the root, in memory."""
        from mfstore.metaflow.process_state import process_state
        from mfstore.metaflow.stock.local_blobs import LocalBlobs

        return LocalBlobs(self._root_now, self.fsync or process_state().knobs.fsync)

    def _root_now(self) -> str:
        return str(self.datastore_root)

    def save_bytes(
        self, path_and_bytes_iter: Iterable[tuple[str, Any]], overwrite: bool = False, len_hint: int = 0
    ) -> None:
        """Store files; those that exist stay as they are unless ``overwrite``."""
        self.blobs.put(self._new(path_and_bytes_iter, overwrite))

    def _new(self, items: Iterable[tuple[str, Any]], overwrite: bool) -> Iterator[NewBlob]:
        from mfstore.metaflow.stock.blob_storage import NewBlob

        for path, value in items:
            file, metadata = value if isinstance(value, tuple) else (value, None)
            if overwrite or not self.is_file([path])[0]:
                yield NewBlob(path, [file.read()], metadata)


def _rebind() -> None:
    from mfstore.metaflow.hooks.rebinding import install

    install()
