"""A store as a file system of fsspec: ``mfstore://`` and ``mfstore+s3://``."""

from mfstore.filesystem.stores import StoreFileSystem

__all__ = ["StoreFileSystem"]
