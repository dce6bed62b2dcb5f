"""Paths of universal_pathlib in a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fsspec import get_filesystem_class
from upath import UPath

from mfstore.filesystem import urls

for _protocol in urls.PROTOCOLS:
    get_filesystem_class(_protocol)  # so that universal_pathlib takes apart paths as the file system does


class StorePath(UPath):
    """A path in a store. As text it is the URL with its store, which opens anywhere."""

    __slots__ = ()

    def __str__(self) -> str:
        store: Any = self.storage_options.get("store")
        return super().__str__() if store is None or not self.is_absolute() else urls.of_path(str(store), self.path)

    @property
    def parts(self) -> Sequence[str]:
        """The words of the path: a store has no root of its own."""
        found = super().parts
        return found[1:] if found and found[0] == "/" else found
