"""A store as a file system of fsspec: ``mfstore://``, and ``mfstore+s3://``, ``mfstore+az://``, ``mfstore+gs://``."""

from mfstore.filesystem.stores import StoreFileSystem

__all__ = ["StoreFileSystem"]
