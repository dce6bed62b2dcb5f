"""Objects from pickles of whoever may write: a pickle is read as symbols, all of which are looked at, and only then is
anything made, by rules and by what the caller has listed.

CPython's unpickler never sees a class or a function that the pickle names, and what is made is made here: of each name
the rule looks at the very objects that it is handed. So two readers cannot take one pickle for two.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mfstore._core.pickler import BUFFER, BYTEARRAY
from mfstore.allow import MACHINERY
from mfstore.errors import MfstoreError, UnsafeObject
from mfstore.pickling.evaluation import PLAIN, Evaluation, parts_of, within
from mfstore.pickling.safe.opcodes import look_through, no_pickle
from mfstore.pickling.safe.rules import NO_STATE, Given, Rule, canonical, rule_of, value_of
from mfstore.pickling.streams import placeholders
from mfstore.pickling.symbols import STATE, Made, Slot, Symbol, read_placed

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.allow import Allow
    from mfstore.format.recipes import Segment

_GETATTR = "builtins", "getattr"
_METHODS = {("zoneinfo", "ZoneInfo", "_unpickle")}
"""What pickles take from a class by getattr: its module, its name and the attribute."""
_MAKERS = {("copyreg", "_reconstructor"), ("copyreg", "__newobj__"), ("copyreg", "__newobj_ex__")}
"""Functions that make an instance of a class among their arguments: of one that the caller has listed."""
_BASES = (object, dict, list, tuple, set, frozenset, int, float, complex, str, bytes, bytearray)
_SHOWN = 5


def load(
    allow: Allow, body: Iterable[Buffer], segments: Sequence[Segment], payloads: Iterable[Any], *, writable: bool = True
) -> Any:
    """As ``streams.load``, of data, and of what is on the list. UnsafeObject, which names it, for what takes anything
    else: then nothing was run or imported, and none of ``payloads`` was taken."""
    root, plain = safe_symbols(allow, body, segments)
    if plain:
        return root
    memory = _Payloads(payloads)
    return SafeEvaluation(allow, lambda slot: memory.take(slot.number), writable).of(root)


def safe_symbols(allow: Allow, body: Iterable[Buffer], segments: Sequence[Segment]) -> tuple[Any, bool]:
    """What a pickle would make, as ``read_symbols`` gives it, of which all is allowed; and whether it is that already,
    as it has nothing but plain values in it. UnsafeObject, CorruptObject."""
    data = b"".join(placeholders(body, segments) if segments else body)
    looked_through = look_through(data)
    symbols: dict[tuple[str, str], Symbol] = {}
    try:
        # As far as it was looked through: where it breaks off, that shows, and so does what it would run before.
        root = read_placed(iter([memoryview(data)[:looked_through]]), segments, symbols)
    except Exception as error:
        # Broken, and maybe so that it runs something before that shows.
        _refuse(allow, symbols, None)
        if isinstance(error, (MfstoreError, MemoryError)):
            raise
        raise no_pickle(f"{type(error).__name__}: {error}") from None
    _refuse(allow, symbols, root)
    if not symbols and not segments:
        return root, True
    _check(allow, root, segments)
    return root, False


def _refuse(allow: Allow, symbols: Iterable[tuple[str, str]], root: Any) -> None:
    """UnsafeObject for what a pickle names and is neither data nor listed."""
    names = []
    for module, name in symbols:
        place = canonical(module, name)
        listed = ".".join(place) in allow.names or rule_of(*place) is not None or place in _MAKERS
        if not listed and not (place == _GETATTR and _is_known(root)):
            names.append(".".join(place))
    if names:
        raise unsafe(sorted(names))


def unsafe(names: Sequence[str]) -> UnsafeObject:
    """What is said of names that are refused."""
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    machinery = any(name.partition(".")[0] in MACHINERY for name in names)
    hint = (
        "No data needs that: somebody wants it to be run, or has stored functions. get_bytes gives its bytes"
        if machinery
        else "If you know that it is harmless, whatever it is called with: "
        f"safe=mfstore.Allow({names[0]!r}, ...), or its name in MFSTORE_SAFE"
    )
    error = UnsafeObject(f"to load it would take {shown}{more}, which is not on the list", hint=hint)
    error.names = tuple(names)
    return error


def _is_known(root: Any) -> bool:
    """Whether getattr is called nowhere but for methods that are known."""
    return root is not None and not any(
        isinstance(node, Symbol) and canonical(node.module, node.name) == _GETATTR for node in _reached(root)
    )


def _reached(root: Any, shared: set[int] | None = None) -> Iterator[Any]:
    """All that is within a node and is no plain value, each once; not how a known method is found that is called.
    ``shared`` gets the ids of what is met again."""
    seen: set[int] = set()
    left = [root]
    while left:
        node = left.pop()
        if type(node) in PLAIN:
            continue
        if id(node) in seen:
            if shared is not None:
                shared.add(id(node))
            continue
        seen.add(id(node))
        yield node
        if type(node) is Made and _method(node.function) is None:
            left.append(node.function)
        left += parts_of(node)


def _method(node: Any) -> tuple[str, str] | None:
    """Of what gets a known method of a class: the module, and the names of both."""
    if type(node) is not Made or not isinstance(node.function, Symbol) or node.steps or len(node.args) != 2:
        return None
    if canonical(node.function.module, node.function.name) != _GETATTR:
        return None
    owner, attribute = node.args
    if not isinstance(owner, Symbol) or type(attribute) is not str:
        return None
    found = owner.module, owner.name, attribute
    return (owner.module, f"{owner.name}.{attribute}") if found in _METHODS else None


def _place(node: Made) -> tuple[str, str] | None:
    """By what something is made; None where that is no name."""
    if isinstance(node.function, Symbol):
        return canonical(node.function.module, node.function.name)
    return _method(node.function)


def _is_ours(function: Any) -> bool:
    """Whether a view calls it, by its name or as what such a call gives; no pickle does."""
    return (isinstance(function, Symbol) and function.ours) or (type(function) is Made and _is_ours(function.function))


def _check(allow: Allow, root: Any, segments: Sequence[Segment]) -> None:
    """UnsafeObject for what is not made as its rule has it. What it is made from the rules look at."""
    taken: set[int] = set()
    shared: set[int] = set()
    memory: list[Any] = []
    for node in _reached(root, shared):
        if isinstance(node, Slot):
            if node.start or node.end != segments[node.number].length or node.number in taken:
                raise no_pickle("segments are not taken as they are stored")
            taken.add(node.number)
        if type(node) is not Made:
            continue
        place = _place(node)
        if place is None:
            raise UnsafeObject("it calls what it has made itself", hint="No data needs that")
        place = (_data_class(node) or place) if place in _MAKERS else place
        rule = rule_of(*place)
        if rule is not None:
            memory += filter(_is_memory, node.args)
            _check_steps(".".join(place), rule, node)
        elif ".".join(place) not in allow.names and place not in _MAKERS:
            raise unsafe([".".join(place)])
    if any(id(one) in shared for one in memory):
        # Who writes to the one would change what was found to be whole in the other.
        raise no_pickle("what it makes shares memory with other parts of it")


def _check_steps(name: str, rule: Rule, node: Made) -> None:
    """A state once, as numpy frees what an array had before; and items of what has some."""
    if rule.make is None:
        raise _only_a_value(name)
    kinds = [step.kind for step in node.steps]
    if {*kinds} - {STATE, *rule.steps}:
        raise UnsafeObject(f"it changes what {name} makes in a way that no library does")
    if kinds.count(STATE) > 1:
        raise no_pickle("a state is set twice")
    if STATE in kinds and rule.steps and rule.set_state is None:
        error = UnsafeObject(f"a {name} that has attributes of its own is not on the list")
        error.names = (name,)
        raise error


def _only_a_value(name: str) -> UnsafeObject:
    error = UnsafeObject(
        f"it calls {name}, which is data as a class, and is not called by any", hint="No data needs that"
    )
    error.names = (name,)
    return error


def _is_memory(node: Any) -> bool:
    """Whether it is memory that may be written to."""
    return type(node) is bytearray or (type(node) is Slot and node.kind in (BUFFER, BYTEARRAY))


def _data_class(node: Made) -> tuple[str, str] | None:
    """The class of data that protocols 0 and 1 make an instance of by a function; None where it is another one."""
    if not node.args or not isinstance(node.args[0], Symbol) or _place(node) == ("copyreg", "__newobj_ex__"):
        return None
    owner = canonical(node.args[0].module, node.args[0].name)
    return None if rule_of(*owner) is None else owner


class _Payloads:
    """What segments became, in any order: they are read in theirs, a part at a time."""

    def __init__(self, payloads: Iterable[Any]) -> None:
        self._payloads = iter(payloads)
        self._read: dict[int, Any] = {}
        self._next = 0

    def take(self, number: int) -> Any:
        while number not in self._read:
            payload = next(self._payloads, None)
            if payload is None:
                raise no_pickle("not enough segments")
            self._read[self._next] = payload
            self._next += 1
        return self._read.pop(number)


class SafeEvaluation(Evaluation):
    """Makes what ``safe_symbols`` has let through, and what views make of that."""

    def __init__(self, allow: Allow, memory: Callable[[Slot], Any], writable: bool = True) -> None:
        super().__init__(self._value, memory)
        self._allow = allow
        self._writable = writable
        self._begun: set[int] = set()
        self._filled: dict[int, Any] = {}
        """What has no state yet, by the id of its node."""
        self._kept: list[Made] = []
        """Nodes of its own, whose ids would else be those of others."""
        self._unready: dict[int, Any] = {}
        """What of it something has got, by its own id: a rule would look at what it is not going to be."""

    def _value(self, module: str, name: str) -> Any:
        """What a symbol stands for where it is a value."""
        module, name = canonical(module, name)
        rule = rule_of(module, name)
        if rule is not None and rule.value is not None:
            return rule.value()
        if f"{module}.{name}" in self._allow.names:
            return self._allow.find(module, name)
        raise unsafe([f"{module}.{name}"])

    def _make(self, node: Made) -> Generator[Any, Any, Any]:
        if _is_ours(node.function):
            if isinstance(node.function, Symbol):
                self._known[id(node.function)] = value_of(node.function.module, node.function.name)()
            return (yield from super()._make(node))
        place = _place(node)
        if place is None:
            raise UnsafeObject("it calls what it has made itself", hint="No data needs that")
        rule = rule_of(*place)
        if rule is None:
            if ".".join(place) in self._allow.names:
                return (yield from super()._make(node))
            if place in _MAKERS:
                return (yield from self._make_listed(place, node))
            raise unsafe([".".join(place)])
        if rule.make is None:
            raise _only_a_value(".".join(place))
        if id(node) in self._filled:
            # It is within itself. What has no state yet is for containers alone.
            made = self._filled[id(node)]
            self._unready[id(made)] = made
            return made
        if id(node) in self._begun:
            raise no_pickle("what it makes refers to itself before it is there")
        self._begun.add(id(node))
        args = []
        for arg in node.args:
            args.append((yield arg))
        keywords = {}
        for key, arg in node.keywords.items():
            keywords[key] = yield arg
        self._begun.discard(id(node))
        if not rule.steps:
            return (yield from self._make_whole(node, rule, args, keywords))
        if id(node) in self._known:  # made meanwhile, by what it refers to
            made = self._known[id(node)]
        else:
            made = rule.make(Given((*args,), keywords, NO_STATE, node.new, self._allow))
            if rule.set_state is None:
                self._known[id(node)] = made
            else:
                self._filled[id(node)] = made
        for step in node.steps:
            if step.kind == STATE:
                assert rule.set_state is not None
                rule.set_state(made, (yield step.value))
            else:
                yield from self._take(made, step)
        self._known[id(node)] = made
        self._filled.pop(id(node), None)
        self._unready.pop(id(made), None)
        return made

    def _make_whole(
        self, node: Made, rule: Rule, args: list[Any], keywords: dict[str, Any]
    ) -> Generator[Any, Any, Any]:  # fmt: skip
        self._begun.add(id(node))
        states = []
        for step in node.steps:
            states.append((yield step.value))
        self._begun.discard(id(node))
        if len(states) > 1:
            raise no_pickle("a state is set twice")
        assert rule.make is not None
        state = states[0] if states else NO_STATE
        if self._unready and any(id(one) in self._unready for one in within(*args, *keywords.values(), state)):
            raise no_pickle("what it makes refers to itself before it is there")
        made = rule.make(Given((*args,), keywords, state, node.new, self._allow))
        if not self._writable and hasattr(made, "flags") and type(made).__name__ == "ndarray":
            made.flags.writeable = False
        self._known[id(node)] = made
        return made

    def _make_listed(self, place: tuple[str, str], node: Made) -> Generator[Any, Any, Any]:
        """An instance of a class that the caller has listed, as protocols 0 and 1 make it."""
        made: Any
        if _data_class(node) is not None:
            # As later protocols write it.
            rest = node.args[1:] if place[1] == "__newobj__" else ()
            again = Made(node.args[0], rest, new=True, steps=node.steps)
            self._kept.append(again)
            made = yield again
            self._known[id(node)] = made
            return made
        args = []
        for arg in node.args:
            args.append((yield arg))
        kind = args[0] if args else None
        listed = {id(self._allow.find(*name)) for name in _listed(self._allow, node.args[:1])}
        if not isinstance(kind, type) or id(kind) not in listed:
            raise unsafe([".".join(place)])
        if place[1] == "_reconstructor":
            if len(args) != 3 or args[1] not in _BASES:
                raise no_pickle("an instance is not made as Python does")
            made = copyreg._reconstructor(*args)  # type: ignore[attr-defined]
        elif place[1] == "__newobj__":
            made = kind.__new__(kind, *args[1:])
        else:
            made = kind.__new__(kind, *args[1], **args[2])
        self._known[id(node)] = made
        for step in node.steps:
            yield from self._take(made, step)
        return made


def _listed(allow: Allow, nodes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """The names of symbols that are on the list."""
    for node in nodes:
        if isinstance(node, Symbol) and ".".join(place := canonical(node.module, node.name)) in allow.names:
            yield place
