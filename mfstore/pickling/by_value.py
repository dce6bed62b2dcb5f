"""Functions and classes as what they are, not as where they are found: cloudpickle's part of a pickle.

cloudpickle says what a function of a notebook, a lambda or a class of ``__main__`` is made of; all else, large arrays
in them too, is written as of any other object. Whoever loads it needs cloudpickle, and a Python of the same minor
version.
"""

from __future__ import annotations

import io
from types import FunctionType
from typing import TYPE_CHECKING, Any

from mfstore.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def by_value_reducers() -> tuple[Mapping[type, Callable[[Any], Any]], Mapping[type, Callable[[Any], Any]]]:
    """For one pickle: what reduces instances of these very classes, and what those of these and of their subclasses.
    Unsupported when cloudpickle is not installed."""
    try:
        import cloudpickle
    except ImportError as error:
        raise Unsupported("cloudpickle is not installed", hint="pip install cloudpickle") from error
    # It remembers which globals functions share, so that they share them when they are loaded.
    theirs = cloudpickle.Pickler(io.BytesIO(), protocol=5)
    exact = {kind: reduce for kind, reduce in theirs.dispatch_table.items() if kind.__module__ != "copyreg"}
    return {**exact, FunctionType: theirs.reducer_override}, {type: theirs.reducer_override}
