"""Long listings of S3 in few requests, many of them at a time.

A page of a thousand keys tells where the next one begins, so a listing is one request after the other, unless somebody
knows where in the middle it could begin as well. A listing for each folder asks far too often where folders are small.
So listing begins as one, and what turns out to be long is cut where folders begin: of those that were passed one knows
how many make a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mfstore.backends.base import ObjectInfo

FIRST_PAGES = 4
"""Pages after which a listing is taken to be long."""
MORE_PAGES = 16
"""The same of its parts. They are made for half as many, so that few are cut again; each has a last page, of which half
is empty: a request in sixteen."""
FOLDER_PAGES = 1000
"""Pages of folders that are read to find where to cut: a million folders."""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys with a prefix that come after one key and before another, in the order of their characters."""

    prefix: str = ""
    """A folder, with its slash, or nothing."""
    after: str = ""
    """"" for none: from the first one on."""
    stop: str | None = None
    """None: to the last one."""

    def holds(self, key: str) -> bool:
        """Whether the key is one of them."""
        return key.startswith(self.prefix) and key > self.after and (self.stop is None or key < self.stop)


class RangePage(NamedTuple):
    """A page of one of several ranges."""

    number: int
    """Which range."""
    objects: Sequence[ObjectInfo]
    rest: str | None
    """The last key, where the range goes on and no more pages come."""


Pages = Callable[[Sequence[KeyRange], "int | None"], Iterable[RangePage]]
"""The pages of ranges, so many of each at most."""
Folders = Callable[[KeyRange, int], "Sequence[str] | None"]
"""The folders in a range directly below its prefix, from so many pages at most; None: there are more, or so many
objects beside them that this is no way to find any."""


def without(prefix: str, folders: Iterable[str]) -> list[KeyRange]:
    """The ranges of all keys with this prefix but those in some folders, which end with a slash."""
    ranges: list[KeyRange] = []
    after = ""
    for folder in sorted(folders):
        ranges.append(KeyRange(prefix, after, folder))
        # The first key that is not in it; a key that is just this has no folder's name.
        after = folder[:-1] + chr(ord("/") + 1)
    ranges.append(KeyRange(prefix, after))
    return [found for found in ranges if found.stop is None or found.stop > max(found.after, found.prefix)]


def list_ranges(ranges: Iterable[KeyRange], pages: Pages, folders: Folders) -> Iterator[ObjectInfo]:
    """The objects in some ranges, in any order."""
    pending = [*ranges]
    most = FIRST_PAGES
    while pending:
        long: list[KeyRange] = []
        endless: list[KeyRange] = []
        for number, objects, rest in pages(pending, most):
            yield from objects
            if rest is not None:
                parts = cut(pending[number], rest, most, folders)
                if len(parts) > 1:
                    long += parts
                else:
                    endless += parts
        for _, objects, _ in pages(endless, None) if endless else ():
            yield from objects
        pending, most = long, MORE_PAGES


def cut(listed: KeyRange, rest: str, pages: int, folders: Folders) -> list[KeyRange]:
    """What is left of a range after the key ``rest``, which so many pages led to, in parts; one part where there is
    nothing to cut it at."""
    left = replace(listed, after=rest)
    parent = _common_folder(rest, listed.stop, listed.prefix)
    while True:
        found = folders(replace(listed, prefix=parent), FOLDER_PAGES)
        if found is None:
            return [left]
        passed = sum(name <= rest for name in found)
        coming = sorted(name for name in found if name > rest)
        if coming:
            together = max(1, passed * MORE_PAGES // (2 * pages))
            # What is left of the folder that the listing stands in may be the longest of all.
            bounds = [name for at, name in enumerate(coming) if at % together == 0]
            starts = [rest, *bounds]
            return [
                replace(left, after=after, stop=stop)
                for after, stop in zip(starts, [*bounds, listed.stop], strict=True)
            ]
        child = rest[len(parent) :].partition("/")
        if not child[1]:
            return [left]
        parent += f"{child[0]}/"


def _common_folder(key: str, stop: str | None, prefix: str) -> str:
    """The lowest folder, with its slash, in which both ends of a range are; the prefix's where nothing stops it."""
    both = zip(key, stop or "", strict=False)
    common = next((at for at, (mine, other) in enumerate(both) if mine != other), min(len(key), len(stop or "")))
    return max(prefix, key[: key.rfind("/", 0, common) + 1], key=len)
