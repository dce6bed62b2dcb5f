"""Blobs, and other small files of flows, of a datastore root in a bucket: of S3, Azure or Google Cloud."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from mfstore.errors import Conflict, InvalidRange, NotFound, Unsupported
from mfstore.metaflow.roots.attempts import STARTED
from mfstore.metaflow.stock.blob_storage import BlobStorage, NewBlob, StoredBlob, parsed_metadata
from mfstore.metaflow.stock.encoding import GZIP_TRAILER_BYTES
from mfstore.s3.bulk.items import PutItem
from mfstore.s3.datatools.objects import ATTRIBUTES
from mfstore.s3.datatools.places import lease_at
from mfstore.s3.datatools.uploading import attributes
from mfstore.s3.urls import split_url

if TYPE_CHECKING:
    from mfstore.metaflow.stock.blob_storage import Metadata
    from mfstore.s3.bulk.client import BulkClient
    from mfstore.s3.transfers.outcomes import ListingEntry, Outcome


class WaitForMarks(Protocol):
    """Waits for marks that were sent before and not waited for."""

    def __call__(self, *below: str, name: str = "") -> None:
        """Those whose URLs begin with one of ``below`` and end with ``name``. Raises what they met."""


class BucketBlobs(BlobStorage):
    """``root`` tells the URL of the root now: Metaflow changes it while it runs. Marks that were sent before a call are
    answered when it ends."""

    remote = True

    def __init__(self, root: Callable[[], str], wait_for_marks: WaitForMarks) -> None:
        self._root = root
        self._wait_for_marks = wait_for_marks

    @property
    def unordered(self) -> bool:
        """Whether listings come in no order."""
        return split_url(self._root())[0].endswith("--x-s3")

    @contextmanager
    def client(self) -> Iterator[tuple[BulkClient, str]]:
        """A client, and what paths are prefixed with."""
        root = self._root().rstrip("/") + "/"
        lease = lease_at(root)
        try:
            yield lease.client, root
        finally:
            lease.release()

    def read(self, paths: Sequence[str]) -> Iterator[tuple[str, StoredBlob | None]]:
        with self.client() as (client, root):
            items = [root + path for path in paths]
            for outcome in client.get_many(items, on_error="return", ordered=False):
                yield paths[outcome.index], _found(outcome)
        self._wait_for_marks(root)

    def tails(self, paths: Sequence[str]) -> list[StoredBlob | None]:
        with self.client() as (client, root):
            items = [(root + path, -GZIP_TRAILER_BYTES, None) for path in paths]
            return [_found(outcome) for outcome in client.get_many(items, on_error="return")]

    def put(self, blobs: Iterable[NewBlob]) -> list[NewBlob]:
        conditional: dict[int, NewBlob] = {}
        there: list[NewBlob] = []
        with self.client() as (client, root):
            self._wait_for_marks(root, name=STARTED)

            def items() -> Iterator[PutItem]:
                for number, new in enumerate(blobs):
                    if not new.replace:
                        conditional[number] = new
                    yield PutItem(
                        root + new.path, list(new.parts), attributes(new.metadata),
                        if_none_match=not new.replace,
                    )  # fmt: skip

            for outcome in client.put_many(items(), on_error="return", stream=True):
                new = conditional.pop(outcome.index, None)
                # Unsupported: a service without conditional writes. Looking at the blob tells the rest.
                if new is not None and isinstance(outcome.error, (Conflict, Unsupported)):
                    there.append(new)
                elif outcome.error is not None:
                    raise outcome.error
        self._wait_for_marks(root)
        return there

    def list(self, prefixes: Sequence[str]) -> Iterator[tuple[int, ListingEntry, str]]:
        """What lies under each prefix: its number, the entry, and the entry's path below the root."""
        with self.client() as (client, root):
            self._wait_for_marks(*(root + prefix for prefix in prefixes), name=STARTED)
            skip = len(split_url(root)[1])
            for number, entry in client.list_each([root + prefix for prefix in prefixes]):
                yield number, entry, entry.key[skip:]
        self._wait_for_marks(root)


def _found(outcome: Outcome) -> StoredBlob | None:
    if isinstance(outcome.error, NotFound) and outcome.error.service_code != "NoSuchBucket":
        return None
    if isinstance(outcome.error, InvalidRange):
        return StoredBlob(b"", 0, None)  # an empty object has no last bytes
    if outcome.error is not None:
        raise outcome.error
    return StoredBlob(outcome.data, outcome.object_size or 0, _metadata(outcome))


def _metadata(outcome: Outcome) -> Metadata:
    return parsed_metadata(outcome.metadata.get(ATTRIBUTES))
