"""S3 as a filesystem of fsspec: ``S3FileSystem``, which is used as s3fs's is."""

from __future__ import annotations

from mfstore.errors import Unsupported

try:
    import fsspec as _fsspec  # noqa: F401
except ImportError as _error:
    raise Unsupported("mfstore.s3.filesystem needs fsspec", hint="pip install 'mfstore[fsspec]'") from _error

from mfstore.s3.filesystem.filesystem import S3FileSystem, register

__all__ = ["S3FileSystem", "register"]
