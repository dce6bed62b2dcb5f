"""What differs between the services whose objects these are: S3, Azure's Blob Storage, Google Cloud Storage.

All else that is specific to one lies in its control plane (``mfstore/s3/aws/``, ``mfstore/azure/``, ``mfstore/gcs/``).
"""

from __future__ import annotations

from mfstore.records import dataclass
from mfstore.s3.urls import scheme_of


@dataclass(frozen=True, slots=True)
class Service:
    """One kind of service, as far as jobs have to know which it is."""

    scheme: str
    """What URLs of its objects begin with: ``s3``, ``az`` or ``gs``."""
    name: str
    """For people."""
    keys_per_delete: int = 1000
    """Keys that one request deletes, at most; 0: there is no such request, each key has its own."""
    ordered_parts: bool = False
    """The parts of an upload are sent one after the other."""
    suffixes: bool = True
    """It takes ranges that are counted from the end."""
    checksum: str = "CRC64NVME"
    """What uploads carry unless somebody says otherwise."""
    checksums: tuple[str, ...] = ("CRC64NVME", "CRC32C", "CRC32")
    """What they may carry."""
    largest_copy: int | None = None
    """Bytes of the longest object that one request copies; None: as S3's. Longer ones are copied in parts."""
    drops_parts: bool = False
    """Whoever makes an object drops the parts that others have sent of it: they have to send them again."""
    copies_whole: bool = False
    """Objects of any size are copied by requests that go on where the one before ended, and not in parts."""


S3 = Service("s3", "S3")
AZURE = Service(
    "az", "Azure Blob Storage", keys_per_delete=0, suffixes=False, checksums=("CRC64NVME",), largest_copy=256 << 20,
    drops_parts=True,
)  # fmt: skip
GCS = Service(
    "gs", "Google Cloud Storage", keys_per_delete=0, ordered_parts=True, checksum="CRC32C", checksums=("CRC32C",),
    copies_whole=True,
)  # fmt: skip
_SERVICES = {one.scheme: one for one in (S3, AZURE, GCS)}


def service_of(bucket: str) -> Service:
    """The service that a bucket is in: for who has no control plane yet, which says it as well."""
    return _SERVICES[scheme_of(bucket)]
