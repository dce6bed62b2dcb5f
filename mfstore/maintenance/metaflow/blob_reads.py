"""Blobs of a Metaflow root read whole, many at once."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject, MfstoreError
from mfstore.maintenance.reading import spread
from mfstore.metaflow.roots import layout
from mfstore.metaflow.stock import encoding
from mfstore.metaflow.stock.blob_storage import METADATA_SUFFIX, parsed_metadata

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.holdings import BlobName
    from mfstore.maintenance.metaflow.root import Root


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob as it is stored."""

    flow: str
    key: str
    data: bytes
    metadata: Any
    """What Metaflow stored with it; None when it has none."""

    def content(self, limit: int) -> bytes:
        """What it holds, by its metadata. CorruptObject when it is damaged, or more than ``limit`` bytes."""
        raw = isinstance(self.metadata, dict) and self.metadata.get("cas_raw")
        parts: list[bytes] = []
        size = 0
        for part in [self.data] if raw else encoding.pieces(self.data):
            size += len(part)
            if size > limit:
                raise CorruptObject(f"more than {limit} bytes", key=layout.blob_path(self.flow, self.key))
            parts.append(part)
        return b"".join(parts)


def read_blobs(
    root: Root,
    names: Iterable[BlobName],
    described: Container[BlobName],
    work: Callable[[BlobName, StoredBlob | MfstoreError], None],
) -> None:
    """``work(name, the blob or the error it met)`` on the root's threads, in any order. ``described`` are those with a
    metadata file."""

    def one(item: tuple[BlobName, StoredBlob | MfstoreError | None]) -> None:
        name, arrived = item
        work(name, _read(root, name, name in described) if arrived is None else arrived)

    def weight(item: tuple[BlobName, StoredBlob | MfstoreError | None]) -> int:
        return len(item[1].data) if isinstance(item[1], StoredBlob) else 0

    spread(root.workers, _arrivals(root, names), one, weight, 16 * root.workers.threads)


def read_objects(root: Root, paths: Iterable[str], work: Callable[[str, bytes | MfstoreError], None]) -> None:
    """``work(path, the object or the error it met)`` on the root's threads, in any order."""

    def arrivals() -> Iterator[tuple[str, bytes | MfstoreError | None]]:
        asked = [*paths]
        if not root.remote:
            yield from ((path, None) for path in asked)
            return
        for number, data, _ in root.backend.get_described(iter(asked)):
            yield asked[number], data

    def one(item: tuple[str, bytes | MfstoreError | None]) -> None:
        path, data = item
        if data is None:
            try:
                data = root.backend.get(path)
            except MfstoreError as error:
                data = error
        work(path, data)

    def weight(item: tuple[str, bytes | MfstoreError | None]) -> int:
        return len(item[1]) if isinstance(item[1], bytes) else 0

    spread(root.workers, arrivals(), one, weight, 16 * root.workers.threads)


def drop_stored(root: Root, problems: dict[BlobName, tuple[str, str]], path_of: Callable[[str, str], str]) -> None:
    """Take out of ``problems``, each a kind and a detail, what is called missing there and is stored now. ``path_of``
    says where."""
    missing = [name for name, (kind, _) in problems.items() if kind == "missing"]
    answers = root.backend.exists_many([path_of(*name) for name in missing])
    for name, there in zip(missing, answers, strict=True):
        if there:
            del problems[name]


def _arrivals(root: Root, names: Iterable[BlobName]) -> Iterator[tuple[BlobName, StoredBlob | MfstoreError | None]]:
    """What S3 sends, as it comes; of a directory the names alone: files are read where they are worked on."""
    if not root.remote:
        yield from ((name, None) for name in names)
        return
    asked: list[BlobName] = []

    def paths() -> Iterator[str]:
        for name in names:
            asked.append(name)
            yield layout.blob_path(*name)

    for number, data, metadata in root.backend.get_described(paths()):
        flow, key = asked[number]
        blob = data if isinstance(data, MfstoreError) else StoredBlob(flow, key, data, _user_attributes(metadata))
        yield (flow, key), blob


def _read(root: Root, name: BlobName, described: bool) -> StoredBlob | MfstoreError:
    path = layout.blob_path(*name)
    try:
        metadata = parsed_metadata(root.backend.get(path + METADATA_SUFFIX) if described else None)
        return StoredBlob(name[0], name[1], root.backend.get(path), metadata)
    except MfstoreError as error:
        return error


def read_again(root: Root, blob: StoredBlob) -> StoredBlob:
    """A blob that seemed damaged, with its bytes read once more by another way."""
    return replace(blob, data=root.backend.read_again(layout.blob_path(blob.flow, blob.key)))


def _user_attributes(metadata: Any) -> Any:
    from mfstore.s3.datatools.objects import ATTRIBUTES

    return parsed_metadata(metadata.get(ATTRIBUTES))
