"""All series, by subject."""

from benchmarks.core import arrays, files, models, objects, tables
from benchmarks.core.series import REGISTERED, Series

SUBJECTS = [module.__name__ for module in (tables, arrays, models, files, objects)]
"""The modules that register series when they are imported, in the order in which their series are shown."""


def catalogue() -> list[Series]:
    """Every series that the installed packages can make."""
    return [entry for entry in known() if entry.available]


def missing() -> list[Series]:
    """Series whose package is not installed."""
    return [entry for entry in known() if not entry.available]


def known() -> list[Series]:
    return sorted(REGISTERED, key=lambda entry: SUBJECTS.index(entry.make.__module__))
