"""Conditions on notes: what ``where=`` of ``Store.find`` says, checked, and asked of a note."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mfstore.errors import InvalidKey
from mfstore.records import dataclass

_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
OPERATORS = ("==", "!=", *_ORDERS, "in", "not in", "contains")

_MEANT = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*([-+]?[0-9.]+)\s*$")
"""What was meant for an operator and a number, and would never match."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on one field."""

    field: str
    """Its name; of one inside another with dots, as ``metrics.auc``."""
    operator: str
    """One of ``OPERATORS``."""
    value: Any

    def holds(self, note: Mapping[str, Any]) -> bool:
        """Whether the note has such a field. What it does not have, and what cannot be compared, does not match."""
        return any(self._holds_for(value) for value in values_at(note, self.field))

    def _holds_for(self, found: Any) -> bool:
        if self.operator in ("==", "!="):
            return _equal(found, self.value) is (self.operator == "==")
        if self.operator in ("in", "not in"):
            return any(_equal(found, one) for one in self.value) is (self.operator == "in")
        if self.operator == "contains":
            if isinstance(found, str):
                return isinstance(self.value, str) and self.value in found
            return isinstance(found, (list, dict)) and any(_equal(one, self.value) for one in found)
        alike = (_is_number(found) and _is_number(self.value)) or (isinstance(found, str) and type(self.value) is str)
        return alike and _ORDERS[self.operator](found, self.value)


def conditions(where: Mapping[str, Any] | None) -> list[Condition]:
    """What ``where`` says: of each field a value that it is equal to, ``(operator, value)``, or a list of such pairs.
    InvalidKey for what is none."""
    found = []
    if where is not None and not isinstance(where, Mapping):
        raise InvalidKey("where is a dict", found=f"{where!r:.80}", hint="Write where={'auc': ('>', 0.9)}")
    for field, wanted in (where or {}).items():
        if not isinstance(field, str):
            raise InvalidKey("where names fields by texts", found=f"{field!r:.80}")
        if getattr(wanted, "shape", ()) != ():
            raise InvalidKey(
                f"the condition on {field!r} is an array", found=type(wanted).__name__, hint="Write a list: .tolist()"
            )
        if isinstance(wanted, list) and wanted and all(isinstance(one, tuple) for one in wanted):
            found += [_condition(field, one) for one in wanted]
        elif isinstance(wanted, tuple):
            found.append(_condition(field, wanted))
        elif isinstance(wanted, str) and (meant := _MEANT.match(wanted)):
            raise InvalidKey(
                f"the condition on {field!r} is a text", found=repr(wanted)[:80],
                hint=f"Write ({meant[1]!r}, {meant[2]}); if the text is meant: ('==', {wanted!r:.80})",
            )  # fmt: skip
        else:
            found.append(Condition(field, "==", wanted))
    return found


def _condition(field: str, wanted: tuple[Any, ...]) -> Condition:
    if len(wanted) != 2 or wanted[0] not in OPERATORS:
        raise InvalidKey(
            f"the condition on {field!r} is no pair of an operator and a value", found=f"{wanted!r:.80}",
            hint=f"Operators are {', '.join(OPERATORS)}",
        )  # fmt: skip
    name, value = wanted
    if name in ("in", "not in"):
        if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, set, frozenset)):
            raise InvalidKey(f"{name!r} in the condition on {field!r} needs a list", found=f"{value!r:.80}")
        value = list(value)
    return Condition(field, name, value)


def values_at(note: Any, path: str) -> list[Any]:
    """What a note has there: mostly one value or none. Dots lead into dicts, and by numbers into lists; a name may have
    dots itself."""
    if isinstance(note, list):
        first, _, rest = path.partition(".")
        if not (first.isdecimal() and int(first) < len(note)):
            return []
        return values_at(note[int(first)], rest) if rest else [note[int(first)]]
    if not isinstance(note, Mapping):
        return []
    found = [note[path]] if path in note else []
    at = path.find(".")
    while at >= 0:
        if path[:at] in note:
            found += values_at(note[path[:at]], path[at + 1 :])
        at = path.find(".", at + 1)
    return found


def _is_number(value: Any) -> bool:
    return (isinstance(value, (int, float)) and not isinstance(value, bool)) or _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    """Whether it is a number of numpy's, which thresholds may be."""
    return getattr(value, "shape", None) == () and getattr(getattr(value, "dtype", None), "kind", "") in ("i", "u", "f")


def _equal(one: Any, other: Any) -> bool:
    """As JSON has it: 1 is 1.0, and True is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    return bool(one == other)
