"""What mfstore records by itself of how something was stored: by whom, and with which versions of what.

All of it is known to this process, and asked for once: nothing is looked up for each object that is stored.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

from mfstore.format.about import Made, begin_about

PYTHON = ".".join(map(str, sys.version_info[:3]))
OWN = ("__main__", "__mp_main__")
"""Modules whose classes and functions another program does not find."""


def made_here(modules: Iterable[str], by: str | None = None) -> Made:
    """The record of something that is stored by this process, still without a time. ``modules``: of the classes and
    functions inside, as ``dump`` gives them; ``by``: who, if it is not the user of this process."""
    import mfstore

    libraries = {}
    for top in sorted({module.partition(":")[0].partition(".")[0] for module in modules}):
        version = version_of(top)
        if version is not None:
            libraries[top] = version
    return Made(by or user(), PYTHON, mfstore.__version__, libraries, 0.0)


def begin_description(
    record: bool, types: str | tuple[str, ...], modules: tuple[str, ...], note: bytes | None, by: str | None
) -> bytes:  # fmt: skip
    """The description of what this process stores up to its end, as ``begin_about`` gives it. ``types``: of one
    artifact, or of all; ``record``: whether more is said than types and note."""
    made = made_here(modules, by) if record else None
    return begin_about((types,) if isinstance(types, str) else types, note, made)


remembered_description = lru_cache(256)(begin_description)
"""As ``begin_description``. Of many small objects most are of few types: to make one takes 8 us, which is as long as a
``put_many`` takes for a small dict."""


@cache
def user() -> str:
    """Who runs this process: ``user@host``."""
    name = os.environ.get("LOGNAME") or os.environ.get("USER")
    if not name:
        try:
            from pwd import getpwuid

            name = getpwuid(os.getuid()).pw_name
        except (ImportError, KeyError):
            name = str(os.getuid())  # of a container, whose users have no names
    return f"{name}@{os.uname().nodename}"


@cache
def version_of(top: str) -> str | None:
    """The version of a library by its top-level module. None of Python's own modules, and of what has no version, such
    as a module beside the program."""
    if top in sys.stdlib_module_names or top in OWN:
        return None
    module: Any = sys.modules.get(top)
    version = getattr(module, "__version__", None)
    if isinstance(version, str):
        return version
    place = str(getattr(module, "__file__", None) or "")
    if "site-packages" not in place and "dist-packages" not in place:
        return None  # to look for its metadata would take 20 ms
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_by_metadata

    try:
        return version_by_metadata(top)
    except PackageNotFoundError:
        return None
