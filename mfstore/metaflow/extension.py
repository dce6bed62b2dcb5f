"""The storage classes that the Metaflow extension offers; by being made, these install the rest as well.

The files of ``metaflow_extensions`` name this module, and lie in the code packages of flows that were deployed with
other releases of mfstore. So its name stays, and so do the two in it.
"""

from mfstore.metaflow.hooks.storages import LocalStorage, S3Storage

__all__ = ["LocalStorage", "S3Storage"]
