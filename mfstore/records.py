"""``dataclass``, ``field`` and ``NamedTuple`` of the standard library, in a tenth of what those take to define a class.

A process that opens a store defines about 70 records. By callgrind a frozen dataclass with slots and three fields takes
3.4 million instructions (each of its methods is compiled, from text, by itself), and a typed named tuple 0.75 (each
annotation is compiled): two thirds of what it took to import ``mfstore.store``. Here a dataclass takes 0.3, since only
its ``__init__`` is compiled, and a named tuple 0.35. What a type checker sees is the standard library's. They are for
modules with ``from __future__ import annotations``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from typing import NamedTuple as NamedTuple
else:
    from collections import namedtuple
    from operator import attrgetter

    _ABSENT = object()
    _NO_FIELDS = ("ClassVar", "InitVar", "KW_ONLY")
    _NOT_OF_THE_RECORD = frozenset(("__new__", "__slots__", "__module__", "__qualname__", "__annotations__", "__doc__"))

    class _Field:
        __slots__ = ("default", "default_factory", "repr")

        def __init__(self, default, default_factory, repr):  # noqa: A002
            self.default = default
            self.default_factory = default_factory
            self.repr = repr

    def field(*, default=_ABSENT, default_factory=_ABSENT, repr=True):  # noqa: A002
        """As ``dataclasses.field``, with those of its arguments."""
        return _Field(default, default_factory, repr)

    def dataclass(cls=None, /, *, frozen=False, slots=False, eq=True, repr=True, kw_only=False):  # noqa: A002
        """As ``dataclasses.dataclass``, with those of its arguments, for a class that inherits no fields.
        TypeError for annotations that are no field's. Its ``dataclasses.fields`` are made when they are asked for."""
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen, slots=slots, eq=eq, repr=repr, kw_only=kw_only)
        fields = {}
        contents = dict(cls.__dict__)
        for name, kind in contents.get("__annotations__", {}).items():
            if kind.startswith(_NO_FIELDS):
                raise TypeError(f"{kind} is for dataclasses.dataclass")
            given = contents.pop(name, _ABSENT)
            fields[name] = given if isinstance(given, _Field) else _Field(given, _ABSENT, True)
        made = _without_defaults(cls, contents, fields, slots)
        made.__init__ = _init(made, fields, frozen, slots, kw_only)
        made.__match_args__ = () if kw_only else tuple(fields)
        made.__dataclass_fields__ = _Fields(
            {"frozen": frozen, "slots": False, "eq": eq, "repr": repr, "kw_only": kw_only}, fields
        )
        values = _values(tuple(fields))
        if eq:
            _add_eq(made, values, frozen)
        if repr and "__repr__" not in contents:
            _add_repr(made, tuple(name for name, one in fields.items() if one.repr))
        if frozen:
            _add_frozen(made, tuple(fields), values)
        return made

    def _without_defaults(cls, contents, fields, slots):
        """The class without what its fields are given in its body. Slots need another one."""
        if not slots:
            for name, one in fields.items():
                if name in cls.__dict__:
                    delattr(cls, name)
                if one.default is not _ABSENT:
                    setattr(cls, name, one.default)
            return cls
        contents.pop("__dict__", None)
        contents.pop("__weakref__", None)
        contents["__slots__"] = tuple(fields)
        made = type(cls)(cls.__name__, cls.__bases__, contents)
        made.__qualname__ = cls.__qualname__
        return made

    def _init(cls, fields, frozen, slots, kw_only):
        known = {"_new": _ABSENT, "_set": object.__setattr__}
        parameters, body = ["self", *(("*",) if kw_only and fields else ())], []
        for name, one in fields.items():
            value = name
            if one.default_factory is not _ABSENT:
                known[f"_make_{name}"] = one.default_factory
                parameters.append(f"{name}=_new")
                value = f"_make_{name}() if {name} is _new else {name}"
            elif one.default is not _ABSENT:
                known[f"_default_{name}"] = one.default
                parameters.append(f"{name}=_default_{name}")
            else:
                parameters.append(name)
            if not frozen:
                body.append(f"  self.{name} = {value}\n")
            elif slots:
                known[f"_set_{name}"] = cls.__dict__[name].__set__
                body.append(f"  _set_{name}(self, {value})\n")
            else:
                body.append(f"  _set(self, '{name}', {value})\n")
        if hasattr(cls, "__post_init__"):
            body.append("  self.__post_init__()\n")
        source = f"def __init__({', '.join(parameters)}):\n{''.join(body) or '  pass'}"
        made = {}
        exec(source, known, made)
        init = made["__init__"]
        init.__qualname__ = f"{cls.__qualname__}.__init__"
        init.__module__ = cls.__module__
        return init

    def _values(names):
        if len(names) > 1:
            return attrgetter(*names)
        return (lambda self: (getattr(self, names[0]),)) if names else (lambda self: ())

    def _add_eq(cls, values, frozen):
        def equal(self, other):
            return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

        if "__eq__" not in cls.__dict__:
            cls.__eq__ = equal
        cls.__hash__ = (lambda self: hash(values(self))) if frozen else None

    def _add_repr(cls, names):
        def told(self):
            parts = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
            return f"{self.__class__.__qualname__}({parts})"

        cls.__repr__ = told

    def _add_frozen(cls, names, values):
        def restore(self, state):
            for name, value in zip(names, state, strict=True):
                object.__setattr__(self, name, value)

        cls.__setattr__ = _set_frozen
        cls.__delattr__ = _delete_frozen
        cls.__getstate__ = lambda self: [*values(self)]
        cls.__setstate__ = restore

    def _set_frozen(self, name, value):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def _delete_frozen(self, name):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")

    class _Fields:
        """The standard library's fields of a class, made by itself when somebody asks for them."""

        __slots__ = ("_fields", "_made", "_options")

        def __init__(self, options, fields):
            self._options = options
            self._fields = fields
            self._made = None

        def __get__(self, instance, owner):
            if self._made is None:
                import dataclasses

                body = {"__annotations__": dict(owner.__annotations__)}
                for name, one in self._fields.items():
                    given = {"default": one.default, "default_factory": one.default_factory}
                    given = {what: value for what, value in given.items() if value is not _ABSENT}
                    body[name] = dataclasses.field(repr=one.repr, **given)
                like = dataclasses.dataclass(type(owner.__name__, (), body), **self._options)
                self._made = like.__dataclass_fields__
            return self._made

    class _NamedTupleType(type):
        def __new__(cls, name, _bases, contents):
            fields = tuple(contents.get("__annotations__", ()))
            defaults = [contents[field] for field in fields if field in contents]
            made = namedtuple(name, fields, defaults=defaults, module=contents["__module__"])
            made.__annotations__ = contents.get("__annotations__", {})
            made.__qualname__ = contents["__qualname__"]
            if "__doc__" in contents:
                made.__doc__ = contents["__doc__"]
            for key, value in contents.items():
                if key not in fields and key not in _NOT_OF_THE_RECORD:
                    setattr(made, key, value)
            return made

    NamedTuple = type.__new__(_NamedTupleType, "NamedTuple", (), {})
    """As ``typing.NamedTuple``, of which a class inherits nothing else."""
