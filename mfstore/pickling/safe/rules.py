"""How what a pickle names is made safely: by rules that look at what it is made from."""

from __future__ import annotations

import _compat_pickle
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject
from mfstore.pickling.symbols import STATE
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.allow import Allow

NO_STATE = object()
"""In the place of a state that is not set."""


class Given(NamedTuple):
    """What something is made from: all of it data, or made by rules itself."""

    args: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = {}
    state: Any = NO_STATE
    new: bool = False
    """Whether only an instance is made (``__new__``)."""
    allow: Allow | None = None
    """What the caller vouches for."""


class Rule(NamedTuple):
    """How one class or function of a pickle is treated."""

    make: Callable[[Given], Any] | None = None
    """Makes what a call of it would; raises ``refused`` for what it does not take. None: it is not called."""
    steps: tuple[str, ...] = ()
    """What may happen to it after it was made (``symbols.STATE`` and so on). Without any, its state is given to
    ``make``: then nothing that it is made from can refer to it."""
    set_state: Callable[[Any, Any], None] | None = None
    """Gives it its state, where STATE is one of the steps."""
    value: Callable[[], Any] | None = None
    """What it is itself, where it may stand as a value: a class that arrays are of, Ellipsis. None: it may not."""


def whole(make: Callable[[Given], Any]) -> Rule:
    """Of what is made from its arguments and its state at once."""
    return Rule(make)


def growing(
    make: Callable[[Given], Any], *steps: str, set_state: Callable[[Any, Any], None] | None = None
) -> Rule:  # fmt: skip
    """Of what is there first, and then gets items or a state that may refer to it."""
    return Rule(make, (*steps, STATE) if set_state is not None else steps, set_state)


def value_of(module: str, name: str) -> Callable[[], Any]:
    """Finds something of a library when it is needed."""

    def find() -> Any:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found

    return find


def refused(name: str, why: str) -> CorruptObject:
    """What a rule raises for arguments or a state that no program writes."""
    return CorruptObject(
        f"{name} cannot be made safely from what is stored: {why}",
        hint="No library writes it so. get_bytes gives its bytes as they are",
    )


def check(holds: object, name: str, why: str) -> None:
    """Raises ``refused`` unless something holds."""
    if not holds:
        raise refused(name, why)


def is_listed(found: Any, given: Given) -> bool:
    """Whether the caller vouches for a class or a function, by the name that it has itself."""
    name = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    return given.allow is not None and name in given.allow.names


def canonical(module: str, name: str) -> tuple[str, str]:
    """A name as Python 3 has it: pickles of protocol 2 and less have those of Python 2."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        return _compat_pickle.NAME_MAPPING[module, name]
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


_LIBRARIES = {
    "__main__": "flows", "metaflow": "flows", "ml_dtypes": "arrays", "numpy": "arrays", "pandas": "frames",
    "pyarrow": "arrow",
}  # fmt: skip
_PLAIN = "plain"


def rule_of(module: str, name: str) -> Rule | None:
    """The rule of a name; None if there is none."""
    library = _LIBRARIES.get(module.partition(".")[0], _PLAIN)
    rules: Mapping[str, Rule] = import_module(f"mfstore.pickling.safe.{library}").RULES
    return rules.get(f"{module}.{name}")
