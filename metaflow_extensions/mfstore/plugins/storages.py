"""The classes behind Metaflow's ``s3`` and ``local``: mfstore's, or where that cannot be loaded Metaflow's own.

This file travels in the code package to machines that may not have mfstore. There Metaflow has to run on, on the same
data, with one warning.
"""

from ..switch import load

_storages = load("mfstore.metaflow.extension")

if _storages is not None:
    S3Storage = _storages.S3Storage
    LocalStorage = _storages.LocalStorage
else:
    from metaflow.plugins.datastores.local_storage import LocalStorage  # noqa: F401
    from metaflow.plugins.datastores.s3_storage import S3Storage  # noqa: F401
