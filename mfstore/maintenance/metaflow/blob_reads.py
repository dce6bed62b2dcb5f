"""Blobs of a Metaflow root read to their ends, many at once, long ones block by block."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject, MfstoreError
from mfstore.maintenance.reading import spread
from mfstore.metaflow.roots import layout
from mfstore.metaflow.stock import encoding
from mfstore.metaflow.stock.blob_storage import METADATA_SUFFIX, parsed_metadata

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.maintenance.metaflow.listed_blobs import BlobName
    from mfstore.maintenance.metaflow.root import Root


LONG_BYTES = 32 << 20
"""Of a blob of more bytes only BLOCK_BYTES are held at a time. To read one by parts takes more requests."""
BLOCK_BYTES = 8 << 20


class LongBlob:
    """The bytes of a stored object, of which a block is in memory. For one thread."""

    def __init__(self, root: Root, path: str, size: int, again: bool = False) -> None:
        self._root = root
        self._path = path
        self._size = size
        self._again = again
        self._start = 0
        self._block = b""

    def again(self) -> LongBlob:
        """The same, read anew, past what may be kept of it."""
        return LongBlob(self._root, self._path, self._size, True)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        if stop <= start:
            return b""
        if not self._start <= start < stop <= self._start + len(self._block):
            length = min(max(BLOCK_BYTES, stop - start), self._size - start)
            backend = self._root.backend
            read = backend.read_again if self._again else backend.get_range
            self._block = b""  # gone before there is another
            self._start, self._block = start, bytes(read(self._path, start, length))
        return self._block[start - self._start : stop - self._start]


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob as it is stored."""

    flow: str
    key: str
    data: bytes | LongBlob
    metadata: Any
    """What Metaflow stored with it; None when it has none."""

    def content(self, limit: int) -> bytes:
        """What it holds, by its metadata. CorruptObject when it is damaged, or more than ``limit`` bytes."""
        raw = isinstance(self.metadata, dict) and self.metadata.get("cas_raw")
        parts: list[bytes] = []
        size = 0
        if raw and len(self.data) > limit:
            raise CorruptObject(f"more than {limit} bytes", key=layout.blob_path(self.flow, self.key))
        for part in [self.data[:]] if raw else encoding.pieces(self.data):
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
    listed: Mapping[BlobName, ObjectInfo],
) -> None:
    """``work(name, the blob or the error it met)`` on the root's threads, in any order. ``described`` are those with a
    metadata file, ``listed`` tells how long they are."""

    def size_of(name: BlobName) -> int:
        return listed[name].size if name in listed else 0

    def one(item: tuple[BlobName, StoredBlob | MfstoreError | None]) -> None:
        name, arrived = item
        work(name, _read(root, name, name in described, size_of(name)) if arrived is None else arrived)

    def weight(item: tuple[BlobName, StoredBlob | MfstoreError | None]) -> int:
        return len(item[1].data) if isinstance(item[1], StoredBlob) else 0

    spread(root.workers, _arrivals(root, names, size_of), one, weight, 16 * root.workers.threads)


def read_objects(
    root: Root, paths: Iterable[str], work: Callable[[str, bytes | LongBlob | MfstoreError], None],
    size_of: Callable[[str], int] = lambda path: 0,
) -> None:  # fmt: skip
    """``work(path, the object or the error it met)`` on the root's threads, in any order. ``size_of`` says how long
    objects were when they were listed: long ones are read block by block."""

    def arrivals() -> Iterator[tuple[str, bytes | MfstoreError | None]]:
        asked = [path for path in paths if size_of(path) <= LONG_BYTES] if root.remote else []
        for number, data, _ in root.backend.get_described(iter(asked)) if asked else ():
            yield asked[number], data
        yield from ((path, None) for path in paths if not root.remote or size_of(path) > LONG_BYTES)

    def one(item: tuple[str, bytes | MfstoreError | None]) -> None:
        path, arrived = item
        data: bytes | LongBlob | MfstoreError | None = arrived
        if data is None:
            try:
                long = size_of(path) > LONG_BYTES
                data = LongBlob(root, path, root.backend.head(path).size) if long else root.backend.get(path)
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


def _arrivals(
    root: Root, names: Iterable[BlobName], size_of: Callable[[BlobName], int]
) -> Iterator[tuple[BlobName, StoredBlob | MfstoreError | None]]:
    """What S3 sends, as it comes; of a directory, and of what is long, the names alone: those are read where they are
    worked on."""
    if not root.remote:
        yield from ((name, None) for name in names)
        return
    asked: list[BlobName] = []
    long: list[BlobName] = []

    def paths() -> Iterator[str]:
        for name in names:
            if size_of(name) > LONG_BYTES:
                long.append(name)
                continue
            asked.append(name)
            yield layout.blob_path(*name)

    for number, data, metadata in root.backend.get_described(paths()):
        flow, key = asked[number]
        blob = data if isinstance(data, MfstoreError) else StoredBlob(flow, key, data, _user_attributes(metadata))
        yield (flow, key), blob
    yield from ((name, None) for name in long)


def _read(root: Root, name: BlobName, described: bool, size: int) -> StoredBlob | MfstoreError:
    path = layout.blob_path(*name)
    try:
        if root.remote:
            size, metadata = root.backend.described(path)
            return StoredBlob(*name, LongBlob(root, path, size), _user_attributes(metadata))
        metadata = parsed_metadata(root.backend.get(path + METADATA_SUFFIX) if described else None)
        # As it is now: one that is shorter than it was listed would look damaged.
        size = root.backend.head(path).size if size > LONG_BYTES else size
        data = LongBlob(root, path, size) if size > LONG_BYTES else root.backend.get(path)
        return StoredBlob(name[0], name[1], data, metadata)
    except MfstoreError as error:
        return error


def read_again(root: Root, blob: StoredBlob) -> StoredBlob:
    """A blob that seemed damaged, with its bytes read once more by another way."""
    if isinstance(blob.data, LongBlob):
        return replace(blob, data=blob.data.again())
    return replace(blob, data=root.backend.read_again(layout.blob_path(blob.flow, blob.key)))


def _user_attributes(metadata: Any) -> Any:
    from mfstore.s3.datatools.objects import ATTRIBUTES

    return parsed_metadata(metadata.get(ATTRIBUTES))
