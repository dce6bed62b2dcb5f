"""Which file goes where when many are copied, got or put: fsspec's rules for names, without asking S3. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from fsspec.core import has_magic
from fsspec.implementations.local import trailing_sep
from fsspec.utils import other_paths

from mfstore.errors import InvalidKey


def placed(
    sources: Sequence[str], source: str | list[str], destination: str | list[str], into: bool, before: str | None = None
) -> list[str]:  # fmt: skip
    """The paths that ``sources`` come to lie at; ``source`` is what the caller gave: a path that was expanded, or
    several. ``into``: the destination is a directory, or is to be one. ``before``: what is behind this in ``source`` is
    no pattern."""
    one = isinstance(source, str)
    magic = isinstance(source, str) and has_magic(source.partition(before)[0] if before else source)
    exists = isinstance(source, str) and (
        (magic and len(sources) == 1) or (not magic and into and not trailing_sep(source))
    )
    return [str(path) for path in other_paths(list(sources), destination, exists=exists, flatten=not one)]


def without_directories(source: str | list[str], recursive: bool, maxdepth: int | None) -> bool:
    """Whether directories that were found are no part of what is meant: of a pattern that is not recursive."""
    return isinstance(source, str) and (not recursive or maxdepth is not None)


def check_distinct(destinations: Iterable[str]) -> None:
    """InvalidKey, a ValueError, when several files would become one: all but one of them would be lost."""
    seen: set[str] = set()
    for one in destinations:
        if one in seen:
            raise InvalidKey("several files would become one", found=one, hint="Give a list of paths, one for each")
        seen.add(one)


def check_apart(pairs: Sequence[tuple[str, str]]) -> None:
    """The same, and for a file that is copied while another is copied over it: all are copied at once, and what is
    moved is deleted afterwards, also where something else has come to lie."""
    check_distinct(other for _, other in pairs)
    written = {other for _, other in pairs}
    for one, other in pairs:
        if one in written and one != other:
            raise InvalidKey(
                "a file would be copied, and written over by another", found=one, hint="Copy to another directory first"
            )


def check_within(root: str, paths: Iterable[str]) -> None:
    """InvalidKey, a ValueError, when a local path lies outside of ``root``: it came of a key with ``..`` in it."""
    top = os.path.abspath(root)  # noqa: PTH100 - of text alone, without a look at links
    for path in paths:
        whole = os.path.abspath(path)  # noqa: PTH100
        if whole != top and not whole.startswith(top.rstrip(os.sep) + os.sep):
            raise InvalidKey(
                "a key would be written outside of the directory that was given", found=path, expected=root,
                hint="Give a list of local paths, one for each file",
            )  # fmt: skip
