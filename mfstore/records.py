"""``dataclass``, ``field`` and ``NamedTuple`` of the standard library, in a tenth of what those take to define a class.

A process that opens a store defines about 70 records. By callgrind a frozen dataclass with slots and five fields takes
4.0 million instructions (each of its methods is compiled, from text, by itself), and a typed named tuple 1.0 (each
annotation is compiled): two thirds of what it took to import ``mfstore.store``. Here classes share the code of their
methods, in which only the names of fields are replaced: 0.2 and 0.12 million. What a type checker sees is the standard
library's. They are for modules with ``from __future__ import annotations``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from typing import NamedTuple as NamedTuple
else:
    from _collections import _tuplegetter
    from functools import cache
    from operator import attrgetter
    from types import FunctionType

    _ABSENT = object()
    _NO_FIELDS = ("ClassVar", "InitVar", "KW_ONLY")

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
        """As ``dataclasses.dataclass``, with those of its arguments, for a class that inherits no fields. Compared as
        tuples are, in which an object is itself (Python 3.13 compares each field: there a NaN is no other one).
        TypeError for one that does, and for annotations that are no field's. ``dataclasses.fields`` of it are made when
        they are asked for."""
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen, slots=slots, eq=eq, repr=repr, kw_only=kw_only)
        if hasattr(cls, "__dataclass_fields__"):
            raise TypeError(f"{cls.__name__} inherits fields: it is for dataclasses.dataclass")
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
        made.__dataclass_fields__ = _Fields(cls.__name__, contents.get("__annotations__", {}), fields, kw_only)
        values = _values(tuple(fields))
        made.__replace__ = _replaced  # for copy.replace, from Python 3.13 on
        if eq:
            _add_eq(made, values, frozen)
        if repr and "__repr__" not in contents:
            _add_repr(made, tuple(name for name, one in fields.items() if one.repr))
        if frozen:
            _add_frozen(made, tuple(fields), values)
        return made

    def _replaced(self, /, **changed):
        from dataclasses import replace

        return replace(self, **changed)

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
        known = {"_new": _ABSENT, "_set": object.__setattr__, "__builtins__": {}}
        defaults, shape = {}, []
        for number, (name, one) in enumerate(fields.items()):
            if one.default_factory is not _ABSENT:
                known[f"_make{number}"] = one.default_factory
                defaults[name] = _ABSENT
            elif one.default is not _ABSENT:
                defaults[name] = one.default
            if frozen and slots:
                known[f"_set{number}"] = cls.__dict__[name].__set__
            shape.append(one.default_factory is not _ABSENT)
        how = "slot" if frozen and slots else "frozen" if frozen else "plain"
        code = _renamed(_init_code(tuple(shape), how, kw_only, hasattr(cls, "__post_init__")), tuple(fields))
        init = FunctionType(code, known, "__init__")
        if kw_only:
            init.__kwdefaults__ = defaults
        else:
            init.__defaults__ = tuple(defaults.values())
        init.__qualname__ = f"{cls.__qualname__}.__init__"
        init.__module__ = cls.__module__
        return init

    @cache
    def _init_code(shape, how, kw_only, is_finished):
        """Of fields ``_0``, ``_1`` and so on, of which those that ``shape`` says are made anew by default."""
        set_one = {"slot": "_set{0}(self, {1})", "frozen": "_set(self, '_{0}', {1})", "plain": "self._{0} = {1}"}[how]
        body = [
            set_one.format(number, f"_make{number}() if _{number} is _new else _{number}" if made else f"_{number}")
            for number, made in enumerate(shape)
        ]
        body.append("self.__post_init__()" if is_finished else "pass")
        star = ["*"] if kw_only and shape else []
        parameters = ", ".join(["self", *star, *(f"_{number}" for number in range(len(shape)))])
        made = {}
        exec(f"def __init__({parameters}):\n " + "\n ".join(body), made)
        return made["__init__"].__code__

    _new = tuple.__new__
    _NEW = (
        lambda _cls: _new(_cls, ()),
        lambda _cls, _0: _new(_cls, (_0,)),
        lambda _cls, _0, _1: _new(_cls, (_0, _1)),
        lambda _cls, _0, _1, _2: _new(_cls, (_0, _1, _2)),
        lambda _cls, _0, _1, _2, _3: _new(_cls, (_0, _1, _2, _3)),
        lambda _cls, _0, _1, _2, _3, _4: _new(_cls, (_0, _1, _2, _3, _4)),
        lambda _cls, _0, _1, _2, _3, _4, _5: _new(_cls, (_0, _1, _2, _3, _4, _5)),
        lambda _cls, _0, _1, _2, _3, _4, _5, _6: _new(_cls, (_0, _1, _2, _3, _4, _5, _6)),
        lambda _cls, _0, _1, _2, _3, _4, _5, _6, _7: _new(_cls, (_0, _1, _2, _3, _4, _5, _6, _7)),
        lambda _cls, _0, _1, _2, _3, _4, _5, _6, _7, _8: _new(_cls, (_0, _1, _2, _3, _4, _5, _6, _7, _8)),
    )
    """``__new__`` of named tuples, by how many fields they have. To compile one takes 0.3 million instructions, as much
    as to import a module; a task's records have four lengths."""

    @cache
    def _new_code(count):
        if count < len(_NEW):
            return _NEW[count].__code__
        fields = "".join(f"_{number}, " for number in range(count))
        return eval(f"lambda _cls, {fields}: _new(_cls, ({fields}))").__code__

    def _renamed(code, names):
        """The code of a function with these names in place of ``_0``, ``_1`` and so on: to compile it takes longer."""
        known = {f"_{number}": name for number, name in enumerate(names)}
        old, constants = code.co_varnames, code.co_consts
        return code.replace(
            co_varnames=tuple([known.get(name, name) for name in old]),
            co_names=tuple([known.get(name, name) for name in code.co_names]),
            co_consts=tuple([known.get(one, one) if type(one) is str else one for one in constants]),
        )

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

        __slots__ = ("_annotations", "_fields", "_kw_only", "_made", "_name")

        def __init__(self, name, annotations, fields, kw_only):
            self._name = name
            self._annotations = annotations
            self._fields = fields
            self._kw_only = kw_only
            self._made = None

        def __get__(self, instance, owner):
            if self._made is None:
                import dataclasses

                body = {"__annotations__": self._annotations}
                for name, one in self._fields.items():
                    given = {"default": one.default, "default_factory": one.default_factory}
                    given = {what: value for what, value in given.items() if value is not _ABSENT}
                    body[name] = dataclasses.field(repr=one.repr, **given)
                like = dataclasses.dataclass(type(self._name, (), body), kw_only=self._kw_only)
                self._made = like.__dataclass_fields__
            return self._made

    def _make(cls, iterable):
        made = tuple.__new__(cls, iterable)
        if len(made) != len(cls._fields):
            raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
        return made

    def _replace(self, /, **changed):
        made = self._make(map(changed.pop, self._fields, self))
        if changed:
            raise ValueError(f"Got unexpected field names: {list(changed)!r}")
        return made

    def _tell(self):
        parts = ", ".join([f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True)])
        return f"{self.__class__.__name__}({parts})"

    _OF_EVERY_TUPLE = {
        "__slots__": (),
        "__repr__": _tell,
        "__getnewargs__": lambda self: tuple(self),
        "_make": classmethod(_make),
        "_replace": _replace,
        "__replace__": _replace,
        "_asdict": lambda self: dict(zip(self._fields, self, strict=True)),
    }

    class _NamedTupleType(type):
        def __new__(cls, name, _bases, contents):
            fields = tuple(contents.get("__annotations__", ()))
            defaults = {field: contents[field] for field in fields if field in contents}
            code = _renamed(_new_code(len(fields)), fields)
            new = FunctionType(code, {"_new": _new, "__builtins__": {}}, "__new__", tuple(defaults.values()))
            made = {
                **_OF_EVERY_TUPLE, **contents, "__new__": new, "_fields": fields, "_field_defaults": defaults,
                "__match_args__": fields,
            }  # fmt: skip
            for number, field in enumerate(fields):
                made[field] = _tuplegetter(number, "")
            return type(name, (tuple,), made)

    NamedTuple = type.__new__(_NamedTupleType, "NamedTuple", (), {})
    """As ``typing.NamedTuple``, of which a class inherits nothing else."""
