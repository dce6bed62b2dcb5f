"""What differs between the services whose objects these are: S3, Azure's Blob Storage, Google Cloud Storage.

All else that is specific to one lies in its control plane (``mfstore/s3/aws/``, ``mfstore/azure/``, ``mfstore/gcs/``).
"""

from __future__ import annotations

from mfstore.records import dataclass


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
    conditional: bool = False
    """Writes and deletions take conditions, which has not to be tried."""
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
    absent_codes: tuple[str, ...] = ("NoSuchKey", "NotFound")
    """What a condition on an object that is not there is answered with."""


S3 = Service("s3", "S3")
AZURE = Service(
    "az", "Azure Blob Storage", keys_per_delete=0, conditional=True, checksums=("CRC64NVME",), largest_copy=256 << 20,
    drops_parts=True,
)  # fmt: skip
GCS = Service(
    "gs", "Google Cloud Storage", keys_per_delete=0, ordered_parts=True, conditional=True, checksum="CRC32C",
    checksums=("CRC32C",), copies_whole=True,
)  # fmt: skip
