"""The listings that a filesystem remembers, in fsspec's ``DirCache``. Safe to use from several threads."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fsspec.dircache import DirCache

from mfstore.s3.filesystem.infos import Info
from mfstore.s3.filesystem.paths import parent


class Listings:
    """What was listed, until something below it is written. A listing that was under way when something was written is
    not kept: it may be older."""

    def __init__(self, cache: DirCache) -> None:
        self.cache = cache
        self._written = 0
        """How often something was forgotten."""

    def begin(self) -> int:
        """Before a listing is asked for: what ``keep`` is to be told."""
        return self._written

    def keep(self, begun: int, directories: Mapping[str, list[Info]]) -> None:
        """Remember what lies in each directory."""
        if not self.cache.use_listings_cache or begun != self._written:
            return
        for path, infos in directories.items():
            self.cache[path] = infos
        if begun != self._written:  # by another thread: whoever counts forgets afterwards, so one of the two does
            for path in directories:
                self._drop(path)

    def of(self, path: str) -> list[Info] | None:
        """What lies in a directory; None where that is not known."""
        try:
            found: list[Info] = self.cache[path]
        except KeyError:
            return None
        return found

    def info(self, path: str) -> Info | None:
        """What is said of one path; None where that is not known, which does not mean that it is absent."""
        beside = self.of(parent(path))
        if beside is None:
            return None
        # They are sorted by name.
        at = bisect_left(beside, path, key=_name)
        return beside[at] if at < len(beside) and beside[at]["name"] == path else None

    def forget(self, *paths: str) -> None:
        """Something was written or deleted at, or below, these paths."""
        self._written += 1
        for known in {above for path in paths for above in _above(path)}:
            self._drop(known)

    def forget_below(self, path: str) -> None:
        """All at, below and above a path may have changed."""
        start = f"{path}/"
        self.forget(path)
        for known in [one for one in list(self.cache) if one.startswith(start)]:
            self._drop(known)

    def forget_all(self) -> None:
        """All may have changed."""
        self._written += 1
        self.cache.clear()

    def _drop(self, path: str) -> None:
        with suppress(KeyError):
            del self.cache[path]


def _name(info: Info) -> Any:
    return info["name"]


def _above(path: str) -> list[str]:
    """A path and the directories above it, up to the list of buckets."""
    found = [path]
    while path:
        path = parent(path)
        found.append(path)
    return found
