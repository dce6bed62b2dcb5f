"""The storage classes that the Metaflow extension offers; by being made, these install the rest as well.

The files of ``metaflow_extensions`` name this module, and lie in the code packages of flows that were deployed with
other releases of mfstore. So its name stays, and so do those in it.
"""

from metaflow.datastore.datastore_storage import DataStoreStorage

from mfstore.metaflow.hooks.storages import AzureStorage, GSStorage, LocalStorage, S3Storage

__all__ = ["AzureStorage", "GSStorage", "LocalStorage", "S3Storage"]

STORAGE = {
    "is_file": ("self", "paths"),
    "info_file": ("self", "path"),
    "size_file": ("self", "path"),
    "list_content": ("self", "paths"),
    "save_bytes": ("self", "path_and_bytes_iter", "overwrite", "len_hint"),
    "load_bytes": ("self", "keys"),
}
"""What Metaflow calls of a storage, and with which arguments."""


def check_storage(base: type) -> None:
    """TypeError where a release of Metaflow calls storages in another way: its own classes are used then."""
    for name, parameters in STORAGE.items():
        code = getattr(getattr(base, name, None), "__code__", None)
        if code is None or code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] != parameters:
            raise TypeError(f"this release of Metaflow calls a storage's {name} otherwise than mfstore knows")


check_storage(DataStoreStorage)
