"""The storage classes that the Metaflow extension offers; by being made, these install the rest as well.

The files of ``metaflow_extensions`` name this module, and lie in the code packages of flows that were deployed with
other releases of mfstore. So its name stays, and so do the two in it.
"""

from importlib.util import find_spec

from mfstore.metaflow.hooks.storages import LocalStorage, S3Storage

__all__ = ["LocalStorage", "S3Storage"]

NEEDED = "metaflow.plugins.datastores.serializers.pickle_serializer"
"""Of Metaflow, and not in the first releases of 2.19. What imports it is imported with the first storage, which is too
late to leave all to Metaflow. The rest of what it imports every release of 2.19 has."""

if find_spec(NEEDED) is None:
    raise ModuleNotFoundError(f"No module named {NEEDED!r}", name=NEEDED)
