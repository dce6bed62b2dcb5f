"""The places that commands work on, opened as their options say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from mfstore.cli.options import Connection
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.s3.bulk.client import BulkClient
    from mfstore.store import Store

Compression: TypeAlias = Literal["fast", "balanced", "small", "off"]


def opened(
    url: str, connection: Connection, *, create: bool = False, compress: Compression | None = None,
    cache: str | None = None,
) -> Store:  # fmt: skip
    """The store of a command. Unless it may ``create`` one, NotFound where there is none: a misspelt bucket is not an
    empty store."""
    from mfstore.opening import open_store  # here, as the doctor runs where the core does not load

    options = connection.options_for(url)
    store = open_store(url, create=create, compress=False if compress == "off" else compress, cache=cache, **options)
    if not create and store.handle.description is None:
        raise store.handle.no_store()
    return store


def opened_root(url: str, connection: Connection) -> Root:
    """The datastore root of Metaflow that a command works on; the command closes it."""
    from mfstore.maintenance.metaflow.root import Root

    return Root(url, **connection.options_for(url))


def bulk_client(url: str, connection: Connection, *, attempts: int) -> BulkClient:
    """A client for the bucket of a place, reached as it is; the command closes it."""
    from mfstore.backends import said_of
    from mfstore.s3.bulk.client import BulkClient
    from mfstore.s3.urls import split_url

    options = said_of(url, connection.options_for(url))
    options.pop("single_writer", None)
    # Elsewhere than in S3 what stands before the first slash may name more than the bucket: an account.
    bucket = split_url(url)[0] if url.startswith("s3://") else url[: (url + "/").index("/", url.index("://") + 3)]
    return BulkClient(bucket, attempts=attempts, **options)
