"""The packed profile's store in a bucket: few requests for what the tasks of a flow read again and again.

A module of its own, because local flows need not import what S3 takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mfstore.backends.s3.backend import S3Backend
from mfstore.format.description import PATH
from mfstore.format.recipes import recipe_path
from mfstore.metaflow.process_state import process_state
from mfstore.s3.datatools.clients import Lease, client_arguments
from mfstore.s3.datatools.settings import ClientSettings, settings
from mfstore.saving.guard import KNOWLEDGE_SECONDS
from mfstore.settings import resolve
from mfstore.store import Store

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.s3.bulk.client import BulkClient


class StoreInBucket:
    """The store at ``url``, and its backend. It is made when something is stored and it is not there."""

    def __init__(self, url: str, writing: bool) -> None:
        knobs = resolve()
        found = settings()
        options = {
            **client_arguments(ClientSettings(found)),
            "memory": knobs.memory // 4,
            "encryption": found.encryption,
        }
        self.backend = CachedS3Backend(url, writing, **options)
        self.store = Store(self.backend.url, self.backend, knobs, create=True, algorithm="blake3")


class CachedS3Backend(S3Backend):
    """Small recipes are remembered on this host, and for a while the store's description: the tasks of a flow read the
    same few. A recipe is checked against its key by whoever reads it; who writes does not take the description from
    the cache, as the store may have been removed meanwhile."""

    def __init__(self, url: str, writing: bool, **options: Any) -> None:
        super().__init__(url, **options)
        self._writing = writing
        self._ahead: dict[str, bytes] = {}

    def make_client(self, options: Mapping[str, Any]) -> BulkClient:
        """That of the storage beside it, for as long as the process lives: its connections are open, what it had to
        find out is known."""
        self._lease = Lease(ClientSettings(settings()))
        return self._lease.client.beside(self.bucket, options["memory"])

    def load_ahead(self, bundles: Iterable[str]) -> None:
        """Fetch the recipes of ``bundles`` at once, and keep them. What fails is met again by who needs it."""
        paths = [recipe_path(bundle) for bundle in bundles]
        found = self.get_many([path for path in paths if path not in self._ahead])
        self._ahead.update((path, data) for path, data in found if isinstance(data, bytes))

    def get(self, key: str) -> bytes:
        if key in self._ahead:
            return self._ahead[key]
        name = f"{self.url}/{key}"
        cache = process_state().host_cache
        if key.startswith("recipes/"):
            # The tasks of a foreach begin together, and each reads the bundle of the task before them.
            return cache.get_or_read(name, partial(super().get, key))
        if key != PATH:
            return super().get(key)
        cached = cache.get(name)
        if cached is not None:
            written, _, data = cached.partition(b"\n")
            if not self._writing and 0 <= time.time() - float(written) < KNOWLEDGE_SECONDS:
                return data
        data = super().get(key)
        cache.put(name, b"%f\n%b" % (time.time(), data))
        return data

    def put_all(self, objects: Iterable[tuple[str, Sequence[Buffer]]]) -> None:
        """Store objects in parallel, and remember the small recipes among them."""
        sent = list(objects)
        super().put_all(sent)
        for key, parts in sent:
            if key.startswith("recipes/"):
                process_state().host_cache.put(f"{self.url}/{key}", b"".join(parts))
