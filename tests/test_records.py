"""Records are what the standard library makes of the same class bodies."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import pickle
import typing

import pytest

from mfstore import records

OPTIONS = [
    {},
    {"frozen": True},
    {"slots": True},
    {"frozen": True, "slots": True},
    {"slots": True, "eq": False},
    {"frozen": True, "slots": True, "eq": False, "repr": False},
    {"slots": True, "kw_only": True},
]


def body(field):
    class Point:
        """A point."""

        x: int
        y: float = 0.5
        seen: list = field(default_factory=list)
        hidden: bytes = field(default=b"h", repr=False)

        def scaled(self):
            return self.x * self.y

        @property
        def twice(self):
            return 2 * self.x

    return Point


def one(field):
    class One:
        """Has one field."""

        only: float

    return One


def none(field):
    class Nothing:
        """Has no fields."""

    return Nothing


def outcome(call):
    """What a call gives, or the kind of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error)


def observed(cls, given, options):
    """All that can be told of a class, and of what it makes of ``given``."""
    a, b = cls(**given), cls(**given)
    parameters = inspect.signature(cls).parameters.values()
    return {
        "parameters": [(one.name, one.kind, one.default is one.empty) for one in parameters],
        "class": (cls.__name__, cls.__qualname__, cls.__doc__, cls.__match_args__, getattr(cls, "__slots__", None)),
        "equal": (a == b, a == a, a != object(), outcome(lambda: hash(b) == hash(a))),
        "hash": outcome(lambda: hash(a) == hash(tuple(given.values()))) if len(given) == len(parameters) else None,
        "repr": repr(a) if options.get("repr", True) else None,
        "refused": [outcome(call) for call in (lambda: cls(1, 2, 3, 4, 5), lambda: cls(**given, more=1))],
        "bare": outcome(lambda: cls() is None),
        "set": [outcome(lambda name=name: setattr(b, name, 5)) for name in given],
        "deleted": [outcome(lambda name=name: delattr(b, name)) for name in given],
        "dict": outcome(lambda: {*a.__dict__}),
        "fields": [(one.name, one.repr, one.init, one.kw_only) for one in dataclasses.fields(cls)],
        "functions": (dataclasses.is_dataclass(a), dataclasses.asdict(a), str(dataclasses.replace(a))[:20]),
    }


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("make", "given"), [(body, {"x": 1}), (one, {"only": math.nan}), (none, {})])
def test_a_dataclass_is_as_that_of_the_standard_library(make, given, options):
    theirs = dataclasses.dataclass(**options)(make(dataclasses.field))
    ours = records.dataclass(**options)(make(records.field))
    expected = observed(theirs, given, options)
    if make is one and options.get("eq", True):
        # Python 3.13 compares field by field, in which a NaN is no other one; records compare tuples, as it did before.
        expected["equal"] = (True, *expected["equal"][1:])
    assert observed(ours, given, options) == expected


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_a_dataclass_has_besides_fields_stays(options):
    cls = records.dataclass(**options)(body(records.field))
    made = cls(x=3, y=2.0)
    assert (made.scaled(), made.twice, made.hidden) == (6.0, 6, b"h")
    assert cls(x=1).seen is not cls(x=1).seen


@records.dataclass(frozen=True, slots=True)
class Frozen:
    """At the level of the module, so that it can be pickled."""

    x: int
    y: tuple[int, ...] = ()


@records.dataclass(slots=True)
class Mutable:
    """The same, not frozen."""

    x: int
    y: list[int] = records.field(default_factory=list)


class Pair(records.NamedTuple):
    """A pair."""

    left: int
    right: str = "r"

    @property
    def both(self):
        return f"{self.left}{self.right}"

    def __str__(self):
        return self.both


@pytest.mark.parametrize("made", [Frozen(1, (2,)), Mutable(1, [2]), Pair(1)], ids=repr)
def test_records_are_copied_and_pickled(made):
    for again in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert again == made and type(again) is type(made)


@pytest.mark.parametrize(
    ("made", "name"), [(Frozen(1, (2,)), "x"), (Mutable(1, [2]), "x"), (Pair(1), "left")], ids=repr
)
def test_records_are_copied_with_changes_as_by_copy_replace(made, name):
    """Which Python has from 3.13 on."""
    changed = made.__replace__(**{name: 5})
    assert type(changed) is type(made) and getattr(changed, name) == 5 and getattr(made, name) == 1
    with pytest.raises((TypeError, ValueError)):
        made.__replace__(other=1)


def test_a_dataclass_is_made_whole_after_its_fields_are_set():
    @records.dataclass(slots=True)
    class Whole:
        x: int

        def __post_init__(self):
            self.x += 1

    assert Whole(1).x == 2


@pytest.mark.parametrize("kind", ["ClassVar[int]", "InitVar[int]", "KW_ONLY"])
def test_annotations_that_are_no_fields_are_refused(kind):
    with pytest.raises(TypeError, match="dataclasses"):
        records.dataclass(type("Other", (), {"__annotations__": {"x": kind}}))


@pytest.mark.parametrize("kind", [dataclasses.dataclass, records.dataclass])
def test_a_class_that_inherits_fields_is_refused(kind):
    base = kind(type("Base", (), {"__annotations__": {"x": "int"}, "__doc__": ""}))
    with pytest.raises(TypeError, match="inherits"):
        records.dataclass(type("Derived", (base,), {"__annotations__": {"y": "int"}}))


def test_own_methods_of_a_dataclass_are_kept():
    @records.dataclass(slots=True)
    class Own:
        x: int

        def __eq__(self, other):
            return True

        def __repr__(self):
            return "own"

    assert Own(1) == object() and repr(Own(1)) == "own"


def test_a_named_tuple_is_as_that_of_the_standard_library():
    class Theirs(typing.NamedTuple):
        """A pair."""

        left: int
        right: str = "r"

    for name in ("_fields", "_field_defaults", "__doc__", "__slots__", "__bases__", "__module__"):
        assert getattr(Pair, name) == getattr(Theirs, name), name
    assert inspect.signature(Pair).parameters.keys() == inspect.signature(Theirs).parameters.keys()
    assert (*Pair(1),) == (*Theirs(1),) == (1, "r") and Pair(1)._replace(right="q") == (1, "q")
    assert (str(Pair(1)), repr(Pair(1)), Pair.__qualname__) == ("1r", "Pair(left=1, right='r')", "Pair")
    for cls in (Pair, Theirs):
        assert cls._make([1, "q"])._asdict() == {"left": 1, "right": "q"}
        for wrong in (lambda cls=cls: cls._make([1]), lambda cls=cls: cls(1)._replace(no=1), lambda cls=cls: cls(a=1)):
            with pytest.raises((TypeError, ValueError)):
                wrong()
        match cls(1, "q"):
            case cls(left, right):
                assert (left, right) == (1, "q")
    with pytest.raises(TypeError):
        Pair()
    with pytest.raises(AttributeError):
        Pair(1).left = 2
