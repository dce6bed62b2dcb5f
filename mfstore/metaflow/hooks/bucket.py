"""What ``BucketStorage`` does once it is used. A module of its own: local flows need not import what a bucket takes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, count, islice
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from metaflow.datastore.datastore_storage import CloseAfterUse
from metaflow.metaflow_config import ARTIFACT_LOCALROOT

from mfstore.errors import NotFound
from mfstore.metaflow.errors import errors_at
from mfstore.metaflow.hooks import marks
from mfstore.metaflow.hooks.task_data import cache_task_data
from mfstore.metaflow.roots.attempts import DATA, DONE
from mfstore.metaflow.stock.bucket_blobs import BucketBlobs
from mfstore.s3.bulk.items import PutItem
from mfstore.s3.datatools.objects import ATTRIBUTES
from mfstore.s3.datatools.places import lease_at
from mfstore.s3.datatools.uploading import Upload, attributes, store
from mfstore.s3.urls import split_url

if TYPE_CHECKING:
    from mfstore.s3.bulk.client import BulkClient
    from mfstore.s3.transfers.outcomes import Outcome


class ObjectsOfStorage:
    """The objects of one ``BucketStorage``, whose methods' parameters, results and errors these are."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.blobs = BucketBlobs(self._root_now, marks.wait_for_marks)

    def _root_now(self) -> str:
        return str(self._storage.url)

    @contextmanager
    def _client(self) -> Iterator[tuple[BulkClient, str]]:
        """A client, and what paths are prefixed with. What this thread sent there is answered by then."""
        root = f"{self._root_now().rstrip('/')}/"
        with errors_at(root):
            marks.wait_for_marks(root)
            with self.blobs.client() as found:
                yield found

    def _heads(self, paths: Iterable[str]) -> list[Outcome]:
        with self._client() as (client, root):
            return [_answer(found) for found in client.head_many([root + path for path in paths], on_error="return")]

    def is_file(self, paths: Iterable[str]) -> list[bool]:
        """Whether each is an object, all asked at once."""
        return [found.error is None for found in self._heads(paths)]

    def info_file(self, path: str) -> tuple[bool, Any]:
        """Whether it is an object, and its metadata."""
        (found,) = self._heads([path])
        return found.error is None, _metadata(found)

    def size_file(self, path: str) -> int | None:
        """Bytes, None when there is no such object."""
        (found,) = self._heads([path])
        return found.size if found.error is None else None

    def list_content(self, paths: Iterable[str]) -> list[Any]:
        """What is directly under each of ``paths``."""
        with self._client() as (client, root):
            skip = len(split_url(root)[1])
            folders = [f"{root}{path.rstrip('/')}/" for path in paths]
            return [
                self._storage.list_content_result(path=entry.key[skip:].rstrip("/"), is_file=not entry.is_prefix)
                for _, entry in (client.list_each(folders, recursive=False) if folders else ())
            ]

    def save_bytes(
        self, path_and_bytes_iter: Iterable[tuple[str, Any]], overwrite: bool = False, len_hint: int = 0
    ) -> None:
        """Store objects in parallel; each arrives whole or not at all, ``DONE.lock`` after all others. A mark that
        nobody waits for is on its way when this returns (see ``marks``)."""
        with errors_at(self._root_now()):
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
        root = f"{self._root_now().rstrip('/')}/"
        lease = lease_at(root)
        try:
            item = _upload(root, path, value).item()
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
        folder = _Folder(mkdtemp(dir=ARTIFACT_LOCALROOT, prefix=f"metaflow.{self._storage.TYPE}."))
        try:
            with self._client() as (client, root):
                # Names that one may move about; `overwrite` avoids hard links, which some file systems lack.
                found = client.get_many(
                    [root + path for path in paths], into="files", dest=folder.new_path, on_error="return",
                    overwrite=True, stream=True,
                )  # fmt: skip
                answers = [(path, _answer(one)) for path, one in zip(paths, found, strict=True)]
        except BaseException:
            folder.close()
            raise
        loaded = [(path, one.path if one.error is None else None, _metadata(one)) for path, one in answers]
        return CloseAfterUse(iter(loaded), closer=folder)


class _Folder:
    """Where files are until whoever asked for them is done."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)  # noqa: PTH100
        self._names = count()

    def new_path(self, key: str) -> str:
        """A path that nobody has. It ends as the key does: programs look at that."""
        return f"{self._path}/{next(self._names):x}-{quote(key.rpartition('/')[2], safe='')[-150:]}"

    def close(self) -> None:
        """Remove it, with what was not moved elsewhere."""
        shutil.rmtree(self._path, ignore_errors=True)


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


def _answer(found: Outcome) -> Outcome:
    """The outcome of who was asked for; raises what kept us from seeing whether it is there."""
    if found.error is not None and not isinstance(found.error, NotFound):
        raise found.error
    return found


def _metadata(found: Outcome) -> Any:
    text = found.metadata.get(ATTRIBUTES) if found.error is None else None
    return None if text is None else json.loads(text)


def _upload(root: str, path: str, value: Any) -> Upload:
    file, metadata = _file_and_metadata(value)
    return Upload(path, root + path, root + path, file, None, attributes(metadata))


def _file_and_metadata(value: Any) -> tuple[Any, Any]:
    """The file, and the metadata or None, of what Metaflow gives to be stored."""
    return value if isinstance(value, tuple) else (value, None)
