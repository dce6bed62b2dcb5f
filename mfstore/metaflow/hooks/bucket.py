"""What ``S3Storage`` does once it is used. A module of its own: local flows need not import what S3 takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaflow.datastore.datastore_storage import CloseAfterUse
from metaflow.metaflow_config import ARTIFACT_LOCALROOT

from mfstore.metaflow.hooks import marks
from mfstore.metaflow.hooks.task_data import cache_task_data
from mfstore.metaflow.roots.attempts import DATA, DONE
from mfstore.metaflow.stock.s3_blobs import S3Blobs
from mfstore.s3.bulk.items import PutItem
from mfstore.s3.datatools.clients import Lease
from mfstore.s3.datatools.exceptions import metaflow_errors
from mfstore.s3.datatools.s3 import S3
from mfstore.s3.datatools.settings import ClientSettings, settings
from mfstore.s3.datatools.uploading import Upload, attributes, store

if TYPE_CHECKING:
    from mfstore.s3.transfers.outcomes import Outcome


class ObjectsOfStorage:
    """The objects of one ``S3Storage``, whose methods' parameters, results and errors these are."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.blobs = S3Blobs(self._root_now, marks.wait_for_marks)

    def _root_now(self) -> str:
        return str(self._storage.datastore_root)

    def _s3(self) -> S3:
        marks.wait_for_marks(f"{self._root_now().rstrip('/')}/")
        return S3(s3root=self._storage.datastore_root, tmproot=ARTIFACT_LOCALROOT)

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
        skip = len(self._storage.datastore_root.rstrip("/")) + 1
        with self._s3() as s3:
            return [
                self._storage.list_content_result(path=found.url[skip:], is_file=found.exists)
                for found in s3.list_paths(paths)
            ]

    def save_bytes(
        self, path_and_bytes_iter: Iterable[tuple[str, Any]], overwrite: bool = False, len_hint: int = 0
    ) -> None:
        """Store objects in parallel; each arrives whole or not at all, ``DONE.lock`` after all others. A mark that
        nobody waits for is on its way when this returns (see ``marks``)."""
        with metaflow_errors():
            if not overwrite:
                self._save_new(path_and_bytes_iter)
                return
            given = iter(path_and_bytes_iter)
            first = [*islice(given, 1)]
            if first and marks.is_not_waited_for(first[0][0]):
                first += given
                if len(first) == 1:
                    self._send_mark(*first[0])
                    return
            self._replace(chain(first, given))

    def _save_new(self, items: Iterable[tuple[str, Any]]) -> None:
        with self.blobs.client() as (client, root):
            store(client, [_upload(root, path, value) for path, value in items], False)

    def _send_mark(self, path: str, value: Any) -> None:
        lease = Lease(ClientSettings(settings()))
        try:
            item = _upload(f"{self._root_now().rstrip('/')}/", path, value).item()
            marks.wait_later(str(item.key), lease.client.put_many([item], stream=True).begin(), lease.release)
        except BaseException:
            lease.release()
            raise

    def _replace(self, items: Iterable[tuple[str, Any]]) -> None:
        with self.blobs.client() as (client, root):
            saving = _Saving(root)
            for outcome in client.put_many(saving.first_ones(items), stream=True):
                saving.stored(outcome)
            marks.wait_for_marks(root)
            client.put_many(saving.last)

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


class _Saving:
    """The order in which objects may be stored, and what is remembered of them."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.last: list[PutItem] = []
        """What tells that all the rest is there."""
        self._files: list[Any] = []
        self._task_data: dict[int, tuple[str, bytes]] = {}

    def first_ones(self, items: Iterable[tuple[str, Any]]) -> Iterator[PutItem]:
        """What may be stored in any order; the rest goes to ``last``."""
        sent = 0
        for path, value in items:
            item = _upload(self._root, path, value).item()
            if isinstance(item.data, Path):
                self._files.append(value)  # sent by its descriptor, which has to stay open
            if path.endswith(DONE):
                self.last.append(item)
                continue
            if path.endswith(f".{DATA}"):
                self._task_data[sent] = path, item.data
            sent += 1
            yield item

    def stored(self, outcome: Outcome) -> None:
        """One of the first ones is stored."""
        if outcome.index in self._task_data:
            path, data = self._task_data.pop(outcome.index)
            cache_task_data(self._root.rstrip("/"), path, outcome.etag, data)


def _upload(root: str, path: str, value: Any) -> Upload:
    file, metadata = _file_and_metadata(value)
    return Upload(path, root + path, root + path, file, None, attributes(metadata))


def _file_and_metadata(value: Any) -> tuple[Any, Any]:
    """The file, and the metadata or None, of what Metaflow gives to be stored."""
    return value if isinstance(value, tuple) else (value, None)
