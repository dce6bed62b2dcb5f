"""Which objects a destination seems to have, in few requests."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

LISTED_EACH = 64
"""Objects that are listed for each that is looked for: a page of a thousand is a request, and each that is asked for
alone is one. So what the listing costs is at most a fifteenth of the rest."""
PAGE = 1000
"""Objects that are listed with one request."""
ASKED_ALONE = 4
"""Up to so many nothing is listed."""


def present(backend: Backend, prefix: str, paths: Collection[str]) -> set[str] | None:
    """Which of these objects are listed below a prefix; None: there are so many more that it is cheaper to ask for
    each."""
    if not backend.capabilities.remote:
        wanted = list(paths)
        return {path for path, one in zip(wanted, backend.exists_many(wanted), strict=True) if one}
    if len(paths) <= ASKED_ALONE:
        return None
    wanted_paths, found, left = set(paths), set(), max(PAGE, LISTED_EACH * len(paths))
    for info in backend.list(prefix):
        if info.key in wanted_paths:
            found.add(info.key)
        left -= 1
        if not left:
            return None
    return found
