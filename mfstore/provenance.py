"""What mfstore records by itself of how something was stored: by whom, and with which versions of what.

All of it is known to this process, and asked for once: nothing is looked up for each object that is stored. Nothing
else of mfstore is imported here: a small task of Metaflow has nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

PYTHON = ".".join(map(str, sys.version_info[:3]))
OWN = ("__main__", "__mp_main__")
"""Modules whose classes and functions another program does not find."""

_told: set[str] = set()
"""Of what this program defines, what was warned of."""


def warn_of_own(modules: Iterable[str]) -> None:
    """Warn, once for each, of classes and functions that this program defines itself, in its main module or in a
    notebook: a pickle says no more of them than where they are, and no other program has them there."""
    own = sorted({module for module in modules if ":" in module} - _told)
    if not own:
        return
    from mfstore.host.callers import warn_caller

    _told.update(own)
    names = ", ".join(name.partition(":")[2] for name in own[:5])
    warn_caller(
        f"what is stored needs {names} from __main__, which another program or notebook does not have: "
        "it will not load there. Put the definition into a module and import it, or store with pickler='cloudpickle'"
    )


def task() -> str | None:
    """The pathspec of the task of Metaflow that this process is; None where it is none."""
    # Only where Metaflow's module is there, this process may be one.
    current: Any = getattr(sys.modules.get("metaflow.metaflow_current"), "current", None)
    found = getattr(current, "pathspec", None)
    return found if isinstance(found, str) else None


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
