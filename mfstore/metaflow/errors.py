"""mfstore's errors as Metaflow's users know them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from metaflow.datastore.exceptions import DataException

from mfstore.errors import MfstoreError


def blob_error(message: str, key: str) -> DataException:
    """A DataException about the blob of ``key``, which it carries for those who know the artifact's name."""
    error = DataException(message)
    error.key = key
    return error


@contextmanager
def data_errors() -> Iterator[None]:
    """mfstore's errors are raised as DataException, with all they say."""
    try:
        yield
    except MfstoreError as error:
        new = DataException(f"{type(error).__name__}: {error}")
        new.key = (error.key or "").rpartition("/")[2]
        raise new from error
