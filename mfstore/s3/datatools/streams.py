"""The files that ``mfstore.S3`` opens: what goes wrong with them is raised as Metaflow's users know it."""

from __future__ import annotations

from typing import Any

from mfstore.s3.datatools.exceptions import raises_metaflows
from mfstore.s3.datatools.readers import ObjectReader
from mfstore.s3.datatools.writers import ObjectWriter


class Reader(ObjectReader):
    """See ``S3.open_read``."""

    @raises_metaflows
    def readinto(self, buffer: Any) -> int:
        """As of any raw file."""
        return super().readinto(buffer)

    @raises_metaflows
    def readall(self) -> bytes:
        """As of any raw file."""
        return super().readall()


class Writer(ObjectWriter):
    """See ``S3.open_write``."""

    @raises_metaflows
    def write(self, data: Any) -> int:
        """As of any binary file."""
        return super().write(data)

    @raises_metaflows
    def close(self) -> None:
        super().close()
