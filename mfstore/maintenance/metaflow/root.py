"""A datastore root of Metaflow, in a directory or in a bucket, opened for maintenance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfstore.host.workers import Workers
from mfstore.s3.datatools.places import arguments_at
from mfstore.s3.urls import names_object
from mfstore.settings import EncryptionKnobs, resolve

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.known_files import KnownFiles


class Root:
    """A root, opened by its directory or URL; its owner closes it. Nothing in it is created.

    A project's directory stands for the ``.metaflow`` in it. Metaflow's own settings say how a bucket is reached,
    and how what is written is encrypted, unless ``reached``, arguments of ``BulkClient``, say it.
    """

    def __init__(self, url: str, **reached: Any) -> None:
        self.given = url
        """As the caller called it."""
        self.remote = names_object(url)
        self.reached = reached
        self.backend: Any = remote_backend(url, reached) if self.remote else _local_backend(url)
        """A backend of a directory or of a bucket, with what only that one can do."""
        self.url: str = self.backend.url
        self.workers = Workers(resolve().threads)
        self.known: KnownFiles | None = None
        """Small files that are remembered, within ``remembering``."""

    def close(self) -> None:
        """End threads and connections."""
        self.workers.close()
        self.backend.close()


def _local_backend(url: str) -> Any:
    from mfstore.backends import local_path
    from mfstore.backends.local import LocalBackend

    path = Path(url.removeprefix("file://") if url.startswith("file://") else local_path(url))
    inner = path / ".metaflow"
    return LocalBackend(str(inner if inner.is_dir() else path), fsync=resolve().fsync, sweep=False)


def remote_backend(url: str, reached: Mapping[str, Any]) -> Any:
    """A backend for what lies in a bucket, reached as Metaflow's settings say, unless ``reached`` does."""
    from mfstore.backends import bucket_backend, said_of

    options = {**arguments_at(url, url), "memory": resolve(place=url).memory // 4}
    if not options.get("encryption") or "encryption" in reached or "kms_key" in reached:
        for name in EncryptionKnobs._fields:
            options.pop(name, None)
    return bucket_backend(url)(url, **said_of(url, {**options, **reached}))
