"""A pickle as what it would make, without making it.

Dicts, lists, tuples, sets, numbers and texts are what they are. What a class or a function would make is a ``Made``,
which says how; the class or function is a ``Symbol``, which says its name; a segment of the artifact is a ``Slot``. No
code of anything that the pickle names runs.

CPython's own unpickler does this: classes that it looks up are stand-ins, and whatever it calls, or sets the state of,
notes that.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mfstore._core.cycles import without_search
from mfstore.pickling.streams import block_stream, placeholders
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.format.recipes import Segment

STATE = "state"
"""A step: the object gets its state, as ``__setstate__`` or its ``__dict__`` takes it."""
EXTEND = "extend"
"""A step: a list of items is appended."""
ADD = "add"
"""A step: an item is added, as to a set."""
SET = "set"
"""A step: an item is set, a pair of key and value."""


class Step(NamedTuple):
    """What happens to an object after it was made."""

    kind: str
    """One of STATE, EXTEND, ADD and SET."""
    value: Any


class Slot:
    """Where the bytes of a segment are taken, by its number in the artifact: those from ``start`` to ``end``. ``kind``
    is what it loads as, as of a segment."""

    __slots__ = ("end", "kind", "number", "start")

    def __init__(self, number: int, kind: int, start: int, end: int) -> None:
        self.number = number
        self.kind = kind
        self.start = start
        self.end = end

    def __len__(self) -> int:
        return self.end - self.start

    def part(self, start: int, end: int) -> Slot:
        """Bytes ``start`` to ``end`` of these."""
        return Slot(self.number, self.kind, self.start + start, self.start + end)

    def __repr__(self) -> str:
        return f"<segment {self.number}[{self.start}:{self.end}]>"


class Made:
    """What a call of ``function`` makes, or of its ``__new__`` where ``new`` is set; then ``steps``, in order."""

    __slots__ = ("args", "function", "keywords", "new", "steps")

    def __init__(
        self, function: Any, args: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None, new: bool = False,
        steps: Sequence[Step] = (),
    ) -> None:  # fmt: skip
        self.function = function
        self.args = args
        self.keywords = keywords or {}
        self.new = new
        self.steps: list[Step] = list(steps)

    def __call__(self, *args: Any, **keywords: Any) -> Made:
        return Made(self, args, keywords)

    def __setstate__(self, state: Any) -> None:
        self.steps.append(Step(STATE, state))

    def extend(self, items: list[Any]) -> None:
        """The unpickler appends items."""
        self.steps.append(Step(EXTEND, items))

    def add(self, item: Any) -> None:
        """The unpickler adds an item."""
        self.steps.append(Step(ADD, item))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.steps.append(Step(SET, (key, value)))

    def __repr__(self) -> str:
        return f"<{self.function!r} made{' new' if self.new else ''}>"

    @property
    def state(self) -> Any:
        """What its state is set to, None if it never is."""
        return next((step.value for step in reversed(self.steps) if step.kind == STATE), None)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """What is set in it, as in a dict."""
        return (step.value for step in self.steps if step.kind == SET)

    def appended(self) -> list[Any]:
        """What is appended to it, as to a list."""
        return [item for step in self.steps if step.kind == EXTEND for item in step.value]


class Symbol(type):
    """The class of stand-ins for what is found by name. It is itself a class, since the unpickler makes objects of
    nothing else."""

    module: str
    name: str
    ours: bool
    """Whether mfstore calls it to make a part of an artifact. No pickle can name such a one."""

    def __call__(cls, *args: Any, **keywords: Any) -> Any:
        return Made(cls, args, keywords)

    def __repr__(cls) -> str:
        return cls.full_name

    def __setattr__(cls, name: str, value: Any) -> None:
        # A pickle may set the state of what it names: it would then have another name.
        raise TypeError("a symbol is not changed")

    @property
    def full_name(cls) -> str:
        """Module and name, as types are named in recipes."""
        return f"{cls.module}.{cls.name}".removeprefix("builtins.")


class _Named(metaclass=Symbol):
    __slots__ = ()

    def __new__(cls, *args: Any, **keywords: Any) -> Any:
        return Made(cls, args, keywords, new=True)


def symbol(module: str, name: str, ours: bool = False) -> Symbol:
    """A stand-in for what a module has under a name, which may have dots in it."""
    # No name of a class is all that a pickle may name.
    return Symbol("symbol", (_Named,), {"__slots__": (), "module": module, "name": name, "ours": ours})


def called(node: object) -> str:
    """The name, with its module, of what a ``Made`` is made by; "" for what has none, and for what is no ``Made``."""
    return node.function.full_name if type(node) is Made and isinstance(node.function, Symbol) else ""


def call(module: str, name: str, *args: Any, **keywords: Any) -> Made:
    """What a call of a function makes, for what no pickle says itself."""
    return Made(symbol(module, name, ours=True), args, keywords)


def item_of(node: Any, index: Any) -> Made:
    """What ``node[index]`` is, once all of the node is made."""
    return call("operator", "getitem", node, index)


class _Symbolic(pickle.Unpickler):
    symbols: dict[tuple[str, str], Symbol]

    def find_class(self, module: str, name: str) -> Any:
        found = self.symbols.get((module, name))
        if found is None:
            found = self.symbols[module, name] = symbol(module, name)
        return found


def read_symbols(body: Iterable[Buffer], segments: Sequence[Segment]) -> Any:
    """What the body of an artifact, given in blocks, would make. UnpicklingError or EOFError where it is no pickle;
    other errors, of whatever class, where only what has really been made lets the pickle go on (a class made while it
    is read)."""
    return read_placed(placeholders(body, segments) if segments else iter(body), segments, {})


def read_placed(
    body: Iterator[Buffer], segments: Sequence[Segment], symbols: dict[tuple[str, str], Symbol]
) -> Any:  # fmt: skip
    """As ``read_symbols``, of a body in which segments are placeholders. ``symbols`` gets all that it names, by module
    and name, also where it then turns out to be no pickle."""
    slots = [Slot(number, segment.kind, 0, segment.length) for number, segment in enumerate(segments)]
    unpickler = _Symbolic(block_stream(body), buffers=slots)
    unpickler.symbols = symbols
    return without_search(unpickler.load)
