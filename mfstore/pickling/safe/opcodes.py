"""A pickle looked through, opcode by opcode, before anything reads it.

Refused are opcodes that reach for what is in the process (the extension registry, whose cache hands out objects, and
persistent ids), lengths beyond the end, entries of the memo beyond any that a pickle of this length has (CPython makes
room for all below), and tuples that are nested so deeply, or share so much, that to hash one would run out of stack or
never end. It is an abstract machine: of each value it knows how much a hash of it looks at, and how deep that goes.
"""

from __future__ import annotations

import pickletools
from copyreg import _inverted_registry  # type: ignore[attr-defined]
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject, UnsafeObject

if TYPE_CHECKING:
    from collections.abc import Callable

    Weight = tuple[int, int]
    """What a hash of a value looks at, and how many tuples deep."""

DEEPEST = 1000
"""Tuples within tuples. To hash one takes some of C's stack for each, of which not every thread has much."""
HEAVIEST = 1 << 20
"""Values that a hash may look at beyond as many as the pickle has opcodes: what tuples share doubles with each one."""

_PLAIN = 1, 0
_SIZED_1, _SIZED_4, _SIZED_8 = -4, -5, -6
_LINES = {"stringnl_noescape_pair": 2}
_SIZED = {pickletools.TAKEN_FROM_ARGUMENT1: _SIZED_1, pickletools.TAKEN_FROM_ARGUMENT4: _SIZED_4,
          pickletools.TAKEN_FROM_ARGUMENT4U: _SIZED_4, pickletools.TAKEN_FROM_ARGUMENT8U: _SIZED_8}  # fmt: skip
_REACHING = frozenset(("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"))
_ELSEWHERE = frozenset(("READONLY_BUFFER",))
"""What is written beside buffers of other programs' own, which an artifact has none of."""


def _argument(opcode: pickletools.OpcodeInfo) -> int:
    """Bytes of its argument, or less a number of lines, or how its length is written."""
    if opcode.arg is None:
        return 0
    if opcode.arg.n == pickletools.UP_TO_NEWLINE:
        return -_LINES.get(opcode.arg.name, 1)
    return _SIZED.get(opcode.arg.n, opcode.arg.n)


_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_ARGUMENTS = {ord(opcode.code): _argument(opcode) for opcode in pickletools.opcodes}


class _Machine:
    """The stack of a pickle's reader, of weights."""

    __slots__ = ("bound", "marks", "memo", "stack")

    def __init__(self, size: int) -> None:
        self.stack: list[Weight] = []
        self.marks: list[int] = []
        self.memo: dict[int, Weight] = {}
        self.bound = size
        """What no number in the memo exceeds."""

    def cut(self) -> list[Weight]:
        """What was pushed since the last mark."""
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def take(self, count: int) -> list[Weight]:
        """The last ones of the stack."""
        if len(self.stack) < count:
            raise IndexError
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def within(self, length: int) -> None:
        """CPython makes room for a frame before it reads any of it."""
        if length > self.bound:
            raise IndexError

    def remember(self, number: int) -> None:
        """The last value gets a number."""
        if not 0 <= number <= self.bound:
            raise UnsafeObject("the memo of the pickle is larger than the pickle", found=number)
        self.memo[number] = self.stack[-1]


def _tuple_of(machine: _Machine, items: list[Weight]) -> None:
    machine.stack.append((1 + sum(weight for weight, _ in items), 1 + max((deep for _, deep in items), default=0)))


def _pop(machine: _Machine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _made_of(count: int) -> Callable[[_Machine, bytes], None]:
    def act(machine: _Machine, _: bytes) -> None:
        machine.take(count)
        machine.stack.append(_PLAIN)

    return act


def _made_from_mark(machine: _Machine, _: bytes) -> None:
    machine.cut()
    machine.stack.append(_PLAIN)


def _dropping(count: int) -> Callable[[_Machine, bytes], None]:
    def act(machine: _Machine, _: bytes) -> None:
        machine.take(count)
        machine.stack[-1]  # what it goes to

    return act


def _dropping_from_mark(machine: _Machine, _: bytes) -> None:
    machine.cut()
    machine.stack[-1]


def _little(argument: bytes) -> int:
    return int.from_bytes(argument, "little")


_ACTS: dict[str, Callable[[_Machine, bytes], None]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: _pop(machine),
    "POP_MARK": lambda machine, _: machine.cut().clear(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": lambda machine, _: _tuple_of(machine, machine.cut()),
    "TUPLE1": lambda machine, _: _tuple_of(machine, machine.take(1)),
    "TUPLE2": lambda machine, _: _tuple_of(machine, machine.take(2)),
    "TUPLE3": lambda machine, _: _tuple_of(machine, machine.take(3)),
    "FROZENSET": lambda machine, _: _tuple_of(machine, machine.cut()),
    "LIST": _made_from_mark,
    "DICT": _made_from_mark,
    "OBJ": _made_from_mark,
    "INST": _made_from_mark,
    "APPEND": _dropping(1),
    "SETITEM": _dropping(2),
    "BUILD": _dropping(1),
    "APPENDS": _dropping_from_mark,
    "SETITEMS": _dropping_from_mark,
    "ADDITEMS": _dropping_from_mark,
    "REDUCE": _made_of(2),
    "NEWOBJ": _made_of(2),
    "NEWOBJ_EX": _made_of(3),
    "STACK_GLOBAL": _made_of(2),
    "GET": lambda machine, argument: machine.stack.append(machine.memo[int(argument)]),
    "BINGET": lambda machine, argument: machine.stack.append(machine.memo[_little(argument)]),
    "LONG_BINGET": lambda machine, argument: machine.stack.append(machine.memo[_little(argument)]),
    "PUT": lambda machine, argument: machine.remember(int(argument)),
    "BINPUT": lambda machine, argument: machine.remember(_little(argument)),
    "LONG_BINPUT": lambda machine, argument: machine.remember(_little(argument)),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "PROTO": lambda _machine, _: None,
    "FRAME": lambda machine, argument: machine.within(_little(argument)),
}
"""What each opcode does to the stack; all others push a value that has no others inside."""
_ACTING = {code: _ACTS[name] for code, name in _NAMES.items() if name in _ACTS}
_STOP = ord(".")


def look_through(data: bytes) -> int:
    """How many of the bytes are opcodes of a pickle: all up to STOP, or fewer than there are where it breaks off.
    Raises UnsafeObject for what is refused. Nothing of it is made."""
    machine = _Machine(len(data))
    stack, memo = machine.stack, machine.memo
    at, before, end, opcodes = 0, 0, len(data), 0
    memoize = ord("\x94")
    try:
        while True:
            before = at
            code = data[at]
            if code == memoize and stack:
                # Every other opcode of most pickles.
                memo[len(memo)] = stack[-1]
                at += 1
                opcodes += 1
                continue
            kind = _ARGUMENTS[code]
            at += 1
            opcodes += 1
            start = at
            if kind >= 0:
                at += kind
            elif kind == _SIZED_1:
                at += 1 + data[at]
            elif kind == _SIZED_4:
                at += 4 + int.from_bytes(data[at : at + 4], "little")
            elif kind == _SIZED_8:
                at += 8 + int.from_bytes(data[at : at + 8], "little")
            else:
                for _ in range(-kind):
                    at = data.index(b"\n", at) + 1
            if at > end:
                raise IndexError
            act = _ACTING.get(code)
            if act is not None:
                act(machine, data[start:at])
                if stack and (stack[-1][1] > DEEPEST or stack[-1][0] > HEAVIEST + opcodes):
                    raise UnsafeObject("tuples are nested too deeply, or share too much, to be made", offset=at)
            elif code == _STOP:
                stack.pop()
                return at
            elif _NAMES[code] in _REACHING:
                raise _reaching(_NAMES[code], data[start:at])
            elif _NAMES[code] in _ELSEWHERE:
                return before
            else:
                stack.append(_PLAIN)
    except (IndexError, KeyError, ValueError):
        return before


def no_pickle(why: str) -> CorruptObject:
    """What is said of a body that is no pickle."""
    return CorruptObject(
        f"the artifact is no pickle that can be read: {why}", hint="get_bytes gives its bytes as they are"
    )


def _reaching(opcode: str, argument: bytes) -> UnsafeObject:
    """An opcode that takes an object from the process, by a number or an id."""
    if opcode in ("PERSID", "BINPERSID"):
        error = UnsafeObject("it has a persistent id, which stands for an object of somebody's own")
        error.names = ("persistent id",)
        return error
    number = _little(argument)
    name = ".".join(_inverted_registry.get(number, ("copyreg", f"extension {number}")))
    error = UnsafeObject(f"it takes {name} from the extension registry of this process")
    error.names = (name,)
    return error
