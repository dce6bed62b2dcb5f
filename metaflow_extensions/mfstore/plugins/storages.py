"""The classes behind Metaflow's ``s3``, ``azure``, ``gs`` and ``local``: mfstore's, or where that cannot be loaded
Metaflow's own.

This file travels in the code package to machines that may not have mfstore, or an older one. There Metaflow has to run
on, on the same data, with one warning.
"""

from ..switch import load

_storages = load("mfstore.metaflow.extension")

if _storages is not None:
    S3Storage = _storages.S3Storage
    LocalStorage = _storages.LocalStorage
else:
    from metaflow.plugins.datastores.local_storage import LocalStorage  # noqa: F401
    from metaflow.plugins.datastores.s3_storage import S3Storage  # noqa: F401

if hasattr(_storages, "AzureStorage"):
    AzureStorage = _storages.AzureStorage
    GSStorage = _storages.GSStorage
else:
    from metaflow.plugins.datastores.azure_storage import AzureStorage  # noqa: F401
    from metaflow.plugins.datastores.gs_storage import GSStorage  # noqa: F401
