"""mfstore's errors as Metaflow's users know them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from metaflow.datastore.exceptions import DataException

if TYPE_CHECKING:
    from typing import TypeGuard

    from mfstore.errors import MfstoreError


def blob_error(message: str, key: str) -> DataException:
    """A DataException about the blob of ``key``, which it carries for those who know the artifact's name."""
    error = DataException(message)
    error.key = key
    return error


def is_mfstores(error: Exception) -> TypeGuard[MfstoreError]:
    """Whether it is one of mfstore's errors, which a task that meets none does not import: 2 million instructions."""
    from mfstore.errors import MfstoreError

    return isinstance(error, MfstoreError)


def errors_at(url: str) -> AbstractContextManager[None]:
    """mfstore's errors are raised as those of ``metaflow.S3``, which Metaflow's users catch, where ``url`` is of S3.
    Of elsewhere they are DataException."""
    if not url.startswith("s3://"):
        return data_errors()
    from mfstore.s3.datatools.exceptions import metaflow_errors

    return metaflow_errors()


@contextmanager
def data_errors() -> Iterator[None]:
    """mfstore's errors are raised as DataException, with all they say."""
    try:
        yield
    except Exception as error:
        if not is_mfstores(error):
            raise
        new = DataException(f"{type(error).__name__}: {error}")
        new.key = (error.key or "").rpartition("/")[2]
        raise new from error
