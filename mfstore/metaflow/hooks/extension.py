"""What the Metaflow extension loads: the storages, and, by being imported, the rest."""

from mfstore.metaflow.hooks.flows import install
from mfstore.metaflow.hooks.storages import LocalStorage, S3Storage

__all__ = ["LocalStorage", "S3Storage"]

install()
