"""Rules of Python's own types that are data: numbers, times, paths and containers."""

from __future__ import annotations

import array
import datetime
import re
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from mfstore.pickling.safe.rules import NO_STATE, Given, Rule, check, growing, is_listed, value_of, whole
from mfstore.pickling.symbols import EXTEND, SET

_CLASSES = ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range",
            "set", "slice", "str", "tuple")  # fmt: skip
FACTORIES = frozenset((bool, bytearray, bytes, complex, dict, float, frozenset, int, list, set, str, tuple))
"""What a defaultdict may call: they make an empty one."""
_RATIO = re.compile(r"-?\d+(/\d+)?", re.ASCII)
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,3}", re.ASCII)


def are(kinds: type | tuple[type, ...], values: Any) -> bool:
    """Whether all are of these very types."""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    return all(type(value) in kinds for value in values)


def is_memory(value: Any) -> bool:
    """Whether it is bytes, or memory of a segment, and not of something that has bytes as well: of an array of objects
    they are addresses."""
    return type(value) in (bytes, bytearray, memoryview) or type(value).__module__.startswith("mfstore._core.")


def called(given: Given, name: str, least: int, most: int) -> tuple[Any, ...]:
    """The arguments of a plain call, of which there are so many."""
    check(least <= len(given.args) <= most, name, "wrong number of arguments")
    check(not given.keywords and given.state is NO_STATE, name, "keywords or a state")
    return given.args


def _complex(given: Given) -> complex:
    args = called(given, "complex", 0, 2)
    check(are((float, int), args), "complex", "no numbers")
    return complex(*args)


def _bytearray(given: Given) -> bytearray:
    args = called(given, "bytearray", 0, 2)
    if len(args) == 2:
        check(type(args[0]) is str and args[1] == "latin-1", "bytearray", "no text in Latin-1")
        return bytearray(args[0], "latin-1")
    # A number would be a length.
    check(are((bytes, bytearray, list), args), "bytearray", "no bytes")
    return bytearray(*args)


def _bytes(given: Given) -> bytes:
    called(given, "bytes", 0, 0)
    return b""


def _encoded(given: Given) -> bytes:
    text, encoding = called(given, "_codecs.encode", 2, 2)
    check(type(text) is str and encoding == "latin1", "_codecs.encode", "no text in Latin-1")
    return bytes(text, "latin-1")


def _range(given: Given) -> range:
    args = called(given, "range", 3, 3)
    check(are(int, args), "range", "no integers")
    return range(*args)


def _slice(given: Given) -> slice:
    return slice(*called(given, "slice", 3, 3))


def _set_of(kind: Any) -> Any:
    def make(given: Given) -> Any:
        args = called(given, kind.__name__, 0, 1)
        check(are((list, tuple), args), kind.__name__, "no list")
        return kind(*args)

    return make


def _type(given: Given) -> Any:
    (one,) = called(given, "type", 1, 1)
    check(one is None or one is Ellipsis or one is NotImplemented, "type", "not None, Ellipsis or NotImplemented")
    return type(one)


def _of_time(kind: Any, most: int) -> Any:
    """Dates and times: from their bytes, or from numbers; with a time zone."""
    name = f"datetime.{kind.__name__}"

    def make(given: Given) -> Any:
        args = called(given, name, 0, most)
        zones = (datetime.tzinfo, datetime.timedelta)
        plain = [arg for arg in args if not isinstance(arg, zones)]
        check(are((bytes, str, int, float, type(None)), plain), name, "no numbers")
        made = kind(*args)
        if args and type(args[0]) in (bytes, str):
            _checked_time(made)
        return made

    return make


def _checked_time(made: Any) -> None:
    """From bytes, of which datetime looks at few: ValueError for what is no time."""
    if isinstance(made, datetime.date):
        datetime.date(made.year, made.month, made.day)
    if isinstance(made, (datetime.datetime, datetime.time)):
        datetime.time(made.hour, made.minute, made.second, made.microsecond)


def _decimal(given: Given) -> Decimal:
    args = called(given, "decimal.Decimal", 1, 1)
    check(are(str, args), "decimal.Decimal", "no text")
    return Decimal(*args)


def _fraction(given: Given) -> Fraction:
    args = called(given, "fractions.Fraction", 1, 2)
    # 1e1000000000 would be written out.
    is_text = len(args) == 1 and type(args[0]) is str and _RATIO.fullmatch(args[0])
    check(is_text or are(int, args), "fractions.Fraction", "neither integers nor their ratio")
    return Fraction(*args)


def _uuid(given: Given) -> Any:
    import uuid

    state = given.state
    check(given.new and not given.args and type(state) is dict, "uuid.UUID", "no state")
    check(state.keys() <= {"int", "is_safe"} and type(state.get("int")) is int, "uuid.UUID", "no number")
    safety = {one.value: one for one in uuid.SafeUUID}.get(state.get("is_safe"), uuid.SafeUUID.unknown)
    return uuid.UUID(int=state["int"], is_safe=safety)


def _path(name: str) -> Any:
    def make(given: Given) -> Any:
        import pathlib

        args = called(given, f"pathlib.{name}", 0, 1 << 16)
        check(are(str, args), f"pathlib.{name}", "no texts")
        return getattr(pathlib, name)(*args)

    return make


def _address(name: str) -> Any:
    def make(given: Given) -> Any:
        import ipaddress

        args = called(given, f"ipaddress.{name}", 1, 1)
        check(are((int, str), args), f"ipaddress.{name}", "no address")
        return getattr(ipaddress, name)(*args)

    return make


def _zone(given: Given) -> Any:
    import zoneinfo

    key, cached = called(given, "zoneinfo.ZoneInfo", 2, 2)
    check(type(key) is str and _ZONE.fullmatch(key), "zoneinfo.ZoneInfo", "no name of a zone")
    return zoneinfo.ZoneInfo(key) if cached else zoneinfo.ZoneInfo.no_cache(key)


def _ordered(given: Given) -> Any:
    args = called(given, "collections.OrderedDict", 0, 1)
    check(are(list, args), "collections.OrderedDict", "no list of pairs")
    return OrderedDict(*args)


def _note_ordered(made: Any, state: Any) -> None:
    """Attributes, as tensors from a file of safetensors have them, and as torch notes versions in a ``state_dict``.
    None takes the place of a method."""
    name = "collections.OrderedDict"
    check(type(state) is dict and are(str, state), name, "no dict of attributes")
    check(not any(hasattr(OrderedDict, attribute) for attribute in state), name, "an attribute that is a method")
    made.__dict__.update(state)


def _defaulting(given: Given) -> Any:
    args = called(given, "collections.defaultdict", 0, 1)
    for factory in args:
        known = factory is None or (isinstance(factory, type) and factory in FACTORIES)
        check(known or is_listed(factory, given), "collections.defaultdict", "its factory is no plain type")
    return defaultdict(*args)


def _counter(given: Given) -> Any:
    args = called(given, "collections.Counter", 0, 1)
    check(are(dict, args), "collections.Counter", "no dict")
    return Counter(*args)


def _deque(given: Given) -> Any:
    args = called(given, "collections.deque", 0, 2)
    check(are((tuple, list), args[:1]) and are((int, type(None)), args[1:]), "collections.deque", "no items")
    return deque(*args)


def _array(given: Given) -> Any:
    kind, code, form, data = called(given, "array.array", 4, 4)
    check(kind is array.array and type(code) is str and type(form) is int, "array.array", "no type")
    check(type(data) is bytes, "array.array", "no bytes")
    return array._array_reconstructor(kind, code, form, data)  # type: ignore[attr-defined]


def _listed_array(given: Given) -> Any:
    code, items = called(given, "array.array", 2, 2)
    check(type(code) is str and len(code) == 1, "array.array", "no type")
    check(type(items) in (list, str) and are((int, float, str), items), "array.array", "no numbers")
    return array.array(code, items)


def _namespace(given: Given) -> SimpleNamespace:
    called(given, "types.SimpleNamespace", 0, 0)
    return SimpleNamespace()


def _fill_namespace(made: SimpleNamespace, state: Any) -> None:
    check(type(state) is dict and are(str, state), "types.SimpleNamespace", "no dict of attributes")
    made.__dict__.update(state)


_PATHS = ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")

RULES: dict[str, Rule] = {
    **{
        f"builtins.{name}": Rule(value=value_of("builtins", name)) for name in (*_CLASSES, "Ellipsis", "NotImplemented")
    },
    "array.array": Rule(_listed_array, value=value_of("array", "array")),
    "zoneinfo.ZoneInfo": Rule(),
    "builtins.complex": Rule(_complex, value=lambda: complex),
    "builtins.bytearray": Rule(_bytearray, value=lambda: bytearray),
    "builtins.bytes": Rule(_bytes, value=lambda: bytes),
    "builtins.range": Rule(_range, value=lambda: range),
    "builtins.slice": Rule(_slice, value=lambda: slice),
    "builtins.set": Rule(_set_of(set), value=lambda: set),
    "builtins.frozenset": Rule(_set_of(frozenset), value=lambda: frozenset),
    "builtins.type": whole(_type),
    "_codecs.encode": whole(_encoded),
    "datetime.date": whole(_of_time(datetime.date, 3)),
    "datetime.time": whole(_of_time(datetime.time, 5)),
    "datetime.datetime": whole(_of_time(datetime.datetime, 8)),
    "datetime.timedelta": whole(_of_time(datetime.timedelta, 3)),
    "datetime.timezone": whole(_of_time(datetime.timezone, 2)),
    "decimal.Decimal": whole(_decimal),
    "fractions.Fraction": whole(_fraction),
    "uuid.UUID": whole(_uuid),
    **{f"{module}.{name}": whole(_path(name)) for name in _PATHS for module in ("pathlib", "pathlib._local")},
    **{f"ipaddress.{name}": whole(_address(name)) for name in ("IPv4Address", "IPv6Address")},
    "zoneinfo.ZoneInfo._unpickle": whole(_zone),
    "collections.OrderedDict": growing(_ordered, SET, set_state=_note_ordered),
    "collections.defaultdict": growing(_defaulting, SET),
    "collections.Counter": growing(_counter, SET),
    "collections.deque": growing(_deque, EXTEND),
    "array._array_reconstructor": whole(_array),
    "types.SimpleNamespace": growing(_namespace, set_state=_fill_namespace),
}
"""By name, with the module."""
