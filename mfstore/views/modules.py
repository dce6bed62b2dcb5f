"""Modules of torch by their symbols: what their attributes are, which their state holds a level deeper."""

from __future__ import annotations

from typing import Any

from mfstore.pickling.symbols import Made, called

_HELD_IN = ("_parameters", "_buffers", "_modules")
"""Where a module finds what is asked of it as an attribute, in torch's order."""


def module_attributes(state: dict[str, Any]) -> dict[str, Any]:
    """The parameters, buffers and modules of a module, by name, and then what else its state has; the state itself of
    what is no module, or has two of one name."""
    held = [state.get(name) for name in _HELD_IN]
    if not all(map(_is_dict, held)):
        return state
    items = [item for part in held if part is not None for item in part.items()]
    items += [(name, value) for name, value in state.items() if name not in _HELD_IN]
    found = {name: value for name, value in items if type(name) is str}
    return found if len(found) == len(items) else state


def _is_dict(node: Any) -> bool:
    return isinstance(node, dict) or (type(node) is Made and called(node) == "collections.OrderedDict")
