"""The content-addressed store of Metaflow's datastore, in the format of stock Metaflow.

Saving hashes and compresses in parallel while earlier blobs are being sent, and asks for a blob's existence only where
that can save something: not for blobs that the task's inputs refer to, nor, on S3, for small ones, whose PUT carries
the condition. What is there already is looked at before it is relied on, and replaced when it is damaged. Loading
checks every blob against its key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from metaflow.datastore.content_addressed_store import ContentAddressedStore as Stock
from metaflow.datastore.exceptions import DataException

from mfstore.host.elapsed import moment, since
from mfstore.metaflow.errors import blob_error, data_errors, is_mfstores
from mfstore.metaflow.process_state import process_state
from mfstore.metaflow.roots.packed_keys import is_inline
from mfstore.metaflow.stock.blob_storage import UNREADABLE, NewBlob, StoredBlob
from mfstore.metaflow.stock.encoding import GZIP_TRAILER_BYTES, decode, encode, fits_key, key_of, tail_fits
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.host.workers import Workers
    from mfstore.metaflow.stock.blob_storage import BlobStorage

SENT_UNSEEN_BYTES = 256 << 10
"""Of a blob that is sent to S3 without looking first, and read back as a whole when it is there already: so much is
sent while one request is being answered. Of larger ones the last bytes are looked at."""
LOOKED_AT_BYTES = 32 << 20
LOOKED_AT_BLOBS = 128
"""Blobs are looked at together, until they are so many bytes or so many."""
TINY_BLOB_BYTES = 4096
"""Of a blob that is remembered on this host."""
RELIED_ON = 3600.0
"""Seconds for which a blob that was stored, or looked at, is taken to be still there, also by those who find it in the
data.json of the task that did. Later a lifecycle rule or somebody else may have removed it: then it costs a conditional
PUT, or a look, to know."""
CAS_VERSION = 1
"""Of the encoding of blobs, as their metadata names it."""
_SHA1 = re.compile(r"[0-9a-f]{40}\Z")


class _NamedBlob(NamedTuple):
    path: str
    key: str
    data: bytes
    raw: bool


class _KnownBlobs:
    """What is known of stored blobs, by their keys, without asking."""

    def __init__(self) -> None:
        self._stored: dict[str, tuple[tuple[float, float], float]] = {}
        """Each with a moment, and how long before that it was known to be stored."""
        self._damaged: set[str] = set()

    def add(self, keys: Iterable[str], age: float) -> None:
        self._stored.update(dict.fromkeys(keys, (moment(), age)))

    def is_stored(self, key: str) -> bool:
        known = self._stored.get(key)
        return known is not None and since(known[0]) + known[1] < RELIED_ON

    def is_damaged(self, key: str) -> bool:
        return key in self._damaged

    def found_missing(self, key: str) -> None:
        self._stored.pop(key, None)

    def found_damaged(self, key: str) -> None:
        self._stored.pop(key, None)
        self._damaged.add(key)

    def repaired(self, key: str) -> None:
        self._damaged.discard(key)


def _transfer(is_transfer: bool) -> tuple[bool, ...]:
    """As an argument; before Metaflow 2.19 there was none."""
    return (True,) if is_transfer else ()


class ContentStore(Stock):  # type: ignore[misc]
    """What ``FlowDataStore`` makes instead of Metaflow's own, for storages that have ``blobs``."""

    def __init__(self, prefix: str, storage_impl: Any) -> None:
        super().__init__(prefix, storage_impl)
        self._blobs: BlobStorage | None = getattr(storage_impl, "blobs", None)
        self._known = _KnownBlobs()
        self._ahead: dict[str, bytes] = {}

    def rely_on(self, keys: Iterable[str], age: float = 0.0) -> None:
        """These were stored ``age`` seconds ago."""
        self._known.add(keys, age)

    def is_stored(self, key: str) -> bool:
        """Whether that is known without asking."""
        return self._known.is_stored(key)

    # ---- saving -----------------------------------------------------------------------

    def save_blobs(
        self, blob_iter: Iterable[Any], raw: bool = False, len_hint: int = 0, is_transfer: bool = False
    ) -> list[Any]:
        """As Metaflow's. DataException for what the storage refuses; every blob was stored, or found whole."""
        if self._blobs is None:
            return super().save_blobs(blob_iter, raw, len_hint, *_transfer(is_transfer))  # type: ignore[no-any-return]
        results: list[Any] = []
        named = self._transferred(blob_iter, results) if is_transfer else self._named(blob_iter, raw, results)
        with data_errors():
            there = self._blobs.put(self._wanted(self._blobs, named))
            damaged = list(self._not_whole(self._blobs, there))
            if damaged:
                self._blobs.put(damaged)
        self.rely_on([result.key for result in results if not self.is_stored(result.key)])
        return results

    def _transferred(self, blobs: Iterable[Any], results: list[Any]) -> Iterator[_NamedBlob]:
        for key, data, _ in blobs:
            results.append(self.save_blobs_result(uri=self._storage_impl.full_uri(self._path(key)), key=key))
            yield _NamedBlob(self._path(key), key, data, True)

    def _named(self, blobs: Iterable[bytes], raw: bool, results: list[Any]) -> Iterator[_NamedBlob]:
        seen: set[str] = set()
        for data in blobs:
            key = key_of(data)
            path = self._path(key)
            results.append(self.save_blobs_result(uri=self._storage_impl.full_uri(path) if raw else None, key=key))
            # Raw objects have to be the blob itself, which that a key is stored does not tell.
            if key in seen or (self.is_stored(key) and not raw):
                continue
            seen.add(key)
            if len(data) <= TINY_BLOB_BYTES:
                self._remember(key, data)
            yield _NamedBlob(path, key, data, raw)

    def _wanted(self, storage: BlobStorage, blobs: Iterator[_NamedBlob]) -> Iterator[NewBlob]:
        """What has to be stored, as far as that can be told beforehand."""
        for window in _windows(blobs):
            doubtful = [blob for blob in window if self._look_first(storage, blob)]
            is_whole = self._looked_at(storage, doubtful)
            for blob in window:
                if blob.path not in is_whole:
                    yield _new(blob, replace=self._known.is_damaged(blob.key))
                elif not is_whole[blob.path]:
                    yield _new(blob, replace=True)
                self._known.repaired(blob.key)

    def _look_first(self, storage: BlobStorage, blob: _NamedBlob) -> bool:
        if self._known.is_damaged(blob.key):
            return False
        return blob.raw or not storage.remote or len(blob.data) > SENT_UNSEEN_BYTES

    def _looked_at(self, storage: BlobStorage, blobs: list[_NamedBlob]) -> dict[str, bool]:
        """Whether each is stored as it should be, by its path. Small files are read at once, of others the end."""
        small = {blob.path: blob for blob in blobs if len(blob.data) <= SENT_UNSEEN_BYTES and not storage.remote}
        others = [blob for blob in blobs if blob.path not in small]
        tails = storage.tails([blob.path for blob in others]) if others else []
        found = {blob.path: self._is_whole(storage, blob, tail) for blob, tail in zip(others, tails, strict=True)}
        for path, stored in storage.read([*small]) if small else ():
            found[path] = self._is_whole(storage, small[path], stored)
        return found

    def _is_whole(self, storage: BlobStorage, blob: _NamedBlob, part: StoredBlob | None) -> bool:
        """``part`` is what is stored, or its end."""
        if part is None:
            return False
        raw = _is_raw(part)
        if (blob.raw and not raw) or (part.metadata is not None and part.metadata.get("cas_version") != CAS_VERSION):
            return False
        if not tail_fits(part.data[-GZIP_TRAILER_BYTES:], part.size, raw, blob.data):
            return False
        if len(blob.data) > SENT_UNSEEN_BYTES:
            return True
        if len(part.data) == part.size:
            return self._fits(blob.path, part)
        return all(found is not None and self._fits(path, found) for path, found in storage.read([blob.path]))

    def _not_whole(self, storage: BlobStorage, there: list[NewBlob]) -> Iterator[NewBlob]:
        left = {new.path: new for new in there}
        for path, found in storage.read([*left]) if left else ():
            if found is None or not self._fits(path, found):
                yield NewBlob(path, left[path].parts, left[path].metadata)

    def _fits(self, path: str, found: StoredBlob) -> bool:
        try:
            return fits_key(_key_at(path), self._decoded(path, found, False))
        except Exception as error:
            if not isinstance(error, DataException) and not is_mfstores(error):
                raise
            return False

    # ---- loading ----------------------------------------------------------------------

    def load_blobs(self, keys: Iterable[str], force_raw: bool = False, is_transfer: bool = False) -> Iterator[Any]:
        """As Metaflow's. DataException, naming the key, for a blob that is not there, not whole or not what its key
        promises, and for formats of newer versions; a refusal is never taken for absence."""
        if self._blobs is None:
            yield from super().load_blobs(keys, force_raw, *_transfer(is_transfer))
            return
        wanted: dict[str, list[str]] = {}
        for key in keys:
            if is_inline(key):
                # Metaflow prefetches by key what it then loads by name, which takes another way.
                continue
            blob = None if force_raw else self._cached(key)
            if blob is not None:
                yield (key, blob, {"cas_raw": False, "cas_version": CAS_VERSION}) if is_transfer else (key, blob)
            else:
                wanted.setdefault(self._path(key), []).append(key)
        if not wanted:
            return
        with data_errors():
            for path, found in self._blobs.read([*wanted]):
                for key in wanted[path]:
                    if found is None and len(key) != 40:
                        continue  # as above, of the packed profile: no blob
                    blob = self._loaded(key, path, found, force_raw)
                    yield (key, blob, found and found.metadata) if is_transfer else (key, blob)

    def load_ahead(self, keys: Iterable[str]) -> None:
        """Load blobs at once, and keep them for ``load_blobs``. What fails is met again by who needs it."""
        with suppress(DataException):
            self._ahead.update(self.load_blobs([key for key in keys if key not in self._ahead]))

    def _loaded(self, key: str, path: str, found: StoredBlob | None, force_raw: bool) -> bytes:
        where = self._storage_impl.full_uri(path)
        if found is None:
            self._known.found_missing(key)
            raise blob_error(f"Nothing is stored at {where}. The object was deleted, or never written", key)
        try:
            blob = self._as_promised(key, path, found, force_raw)
        except Exception as error:
            if not is_mfstores(error) or error.code != "corrupt":
                raise
            self._known.found_damaged(key)
            raise blob_error(f"{where} is damaged: {error}. Running the task again stores it anew", key) from None
        if self._blob_cache is not None:
            self._blob_cache.store_key(key, blob)  # on this host, too
        elif len(blob) <= TINY_BLOB_BYTES and not force_raw:
            self._remember(key, blob)
        return blob

    def _as_promised(self, key: str, path: str, found: StoredBlob, force_raw: bool) -> bytes:
        blob = self._decoded(path, found, force_raw)
        # As it is stored, a compressed blob is not what its key is the digest of.
        if not process_state().knobs.verify or (force_raw and not _is_raw(found)):
            return blob
        if not fits_key(key, blob):
            from mfstore.errors import CorruptObject

            raise CorruptObject("the content is not what its key promises", found=key_of(blob), expected=key)
        if _SHA1.match(key) and not self.is_stored(key):
            self.rely_on([key])
        return blob

    def _decoded(self, path: str, found: StoredBlob, force_raw: bool) -> bytes:
        if force_raw or _is_raw(found):
            return found.data
        key = _key_at(path)
        if found.metadata is None:
            # Metaflow of long ago stored none; and its local storage writes a raw object before its metadata.
            if _SHA1.match(key) and key_of(found.data) == key:
                return found.data
        elif (version := _version(found.metadata)) != CAS_VERSION:
            raise blob_error(
                f"{self._storage_impl.full_uri(path)} is in encoding version {version}, this version reads "
                f"{CAS_VERSION}: it was written by a newer Metaflow, or is damaged",
                key,
            )
        return decode(found.data, _workers)

    # ---- tiny blobs -------------------------------------------------------------------

    def _cached(self, key: str) -> bytes | None:
        blob = self._blob_cache.load_key(key) if self._blob_cache is not None else None
        if blob is not None or self._blobs is None or not self._blobs.remote:
            return blob
        state = process_state()
        blob = self._ahead.get(key, state.tiny_blobs.get(key))
        if blob is None and _SHA1.match(key):
            blob = state.host_cache.get(key)
            if blob is not None and key_of(blob) != key:
                return None
        return blob

    def _remember(self, key: str, blob: bytes) -> None:
        if self._blobs is None or not self._blobs.remote or not _SHA1.match(key):
            return
        state = process_state()
        if key not in state.tiny_blobs:
            state.tiny_blobs.add(key, blob)
            state.host_cache.put(key, blob)

    def _path(self, key: str) -> str:
        return str(self._storage_impl.path_join(self._prefix, key[:2], key))


def _key_at(path: str) -> str:
    return path.rpartition("/")[2]


def _is_raw(found: StoredBlob) -> bool:
    return bool(found.metadata and found.metadata.get("cas_raw", False))


def _version(metadata: Mapping[str, Any]) -> Any:
    return "unreadable" if metadata is UNREADABLE else metadata.get("cas_version")


def _new(blob: _NamedBlob, replace: bool) -> NewBlob:
    parts = [blob.data] if blob.raw else encode(blob.data, _workers)
    return NewBlob(blob.path, parts, {"cas_raw": blob.raw, "cas_version": CAS_VERSION}, replace)


def _workers() -> Workers:
    return process_state().workers


def _windows(blobs: Iterator[_NamedBlob]) -> Iterator[list[_NamedBlob]]:
    window: list[_NamedBlob] = []
    size = 0
    for blob in blobs:
        window.append(blob)
        size += len(blob.data)
        if size >= LOOKED_AT_BYTES or len(window) >= LOOKED_AT_BLOBS:
            yield window
            window, size = [], 0
    if window:
        yield window
