"""Whether two parts are the same, as far as their symbols and the ids of their chunks tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mfstore.pickling.evaluation import PLAIN
from mfstore.pickling.symbols import SET, Made, Slot, Symbol
from mfstore.records import NamedTuple
from mfstore.views.parts import BODY

if TYPE_CHECKING:
    from mfstore.views.parts import ArtifactParts


class Place(NamedTuple):
    """A part, and the artifact that it lies in."""

    parts: ArtifactParts
    node: Any

    def of(self, node: Any) -> Place:
        """Another node of the same artifact."""
        return Place(self.parts, node)


class Span(NamedTuple):
    """Bytes ``start`` to ``end`` of a part's data, which are the same wherever the same ``id`` is."""

    start: int
    end: int
    id: bytes


def spans_of(parts: ArtifactParts, data: Slot | bytes) -> list[Span]:
    """The chunks that data lies in, counted from its first byte; the first one may begin before it, and the last end
    behind it. Bytes that lie in the pickle are one span, and their own id."""
    if not isinstance(data, Slot):
        return [Span(0, len(data), data)] if data else []
    artifact = parts.artifact
    if data.number == BODY and artifact.literal is not None:
        literal = artifact.literal[data.start : data.end]
        return [Span(0, len(literal), literal)] if literal else []
    found, at = [], -data.start
    for number in range(*parts.chunks_of(data.number)):
        chunk = artifact.chunks[number]
        if at >= len(data):
            break
        if at + chunk.usize > 0:
            found.append(Span(at, at + chunk.usize, chunk.id))
        at += chunk.usize
    return found


def same_bytes(left: Place, right: Place) -> bool:
    """Whether two slots are of the same chunks. Chunks are cut by what is in them and by the size of their items: of
    the same kind of data, other chunks are other bytes."""
    if len(left.node) != len(right.node) or left.node.kind != right.node.kind:
        return False
    return spans_of(left.parts, left.node) == spans_of(right.parts, right.node)


def same(left: Place, right: Place) -> bool:
    """Whether two nodes stand for the same. Nothing is read for it. Not a number is the same as not a number."""
    stack = [(left.node, right.node)]
    seen = set()
    while stack:
        a, b = stack.pop()
        if type(a) in PLAIN or type(b) in PLAIN:
            if not same_plain(a, b):
                return False
            continue
        if (id(a), id(b)) in seen:
            continue
        seen.add((id(a), id(b)))
        if isinstance(a, Symbol) or isinstance(b, Symbol):
            if not (isinstance(a, Symbol) and isinstance(b, Symbol) and a.full_name == b.full_name):
                return False
        elif type(a) is not type(b):
            return False
        elif isinstance(a, Slot):
            if not same_bytes(left.of(a), right.of(b)):
                return False
        elif isinstance(a, Made):
            pairs = _made(a, b)
            if pairs is None:
                return False
            stack += pairs
        elif isinstance(a, dict):
            ours, theirs = by_name(left.parts, a.items()), by_name(right.parts, b.items())
            if ours.keys() != theirs.keys():
                return False
            stack += [(ours[name][1], theirs[name][1]) for name in ours]
        elif isinstance(a, (list, tuple)):
            if len(a) != len(b):
                return False
            stack += zip(a, b, strict=True)
        elif isinstance(a, (set, frozenset)):
            if {token(left.parts, item) for item in a} != {token(right.parts, item) for item in b}:
                return False
        elif a != b:
            return False
    return True


def _made(a: Made, b: Made) -> list[tuple[Any, Any]] | None:
    """What has to be the same for two of them to be."""
    if (a.new, len(a.args), a.keywords.keys()) != (b.new, len(b.args), b.keywords.keys()):
        return None
    if [step.kind for step in a.steps] != [step.kind for step in b.steps]:
        return None
    pairs = [(a.function, b.function), *zip(a.args, b.args, strict=True)]
    pairs += [(value, b.keywords[name]) for name, value in a.keywords.items()]
    pairs += [(ours.value, theirs.value) for ours, theirs in zip(a.steps, b.steps, strict=True)]
    return pairs


def rest_of(node: Made) -> tuple[Any, ...]:
    """What makes an object, but for its parts: its class, what that is called with, and state that is no attribute."""
    attributes = not _has_items(node)
    steps = [
        (step.kind, step.value)
        for step in node.steps
        if step.kind not in (SET, "extend") and not (attributes and _is_attributes(step.value))
    ]
    return node.function, node.args, node.keywords, node.new, steps


def _has_items(node: Made) -> bool:
    return any(step.kind in (SET, "extend") for step in node.steps)


def _is_attributes(state: Any) -> bool:
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    return all(part is None or isinstance(part, dict) for part in parts)


def same_plain(a: Any, b: Any) -> bool:
    """Whether two plain values are the same: of one type, and equal or both not a number."""
    return type(a) is type(b) and (a == b or (a != a and b != b))


def by_name(parts: ArtifactParts, items: Iterable[tuple[Any, Any]]) -> dict[Any, tuple[Any, Any]]:
    """Pairs of name and value by what makes names the same."""
    return {token(parts, name): (name, value) for name, value in items}


def token(parts: ArtifactParts, node: Any) -> Any:
    """Something that is equal for nodes that stand for the same, and can be the key of a dict. For what names are:
    it is not made for what is nested deeply."""
    kind = type(node)
    if kind in PLAIN:
        return (kind, node) if node == node else (kind, "nan")
    if isinstance(node, Symbol):
        return Symbol, node.full_name
    if kind is Slot:
        return Slot, node.kind, tuple(spans_of(parts, node))
    if kind is Made:
        steps = tuple((step.kind, token(parts, step.value)) for step in node.steps)
        keywords = token(parts, node.keywords)
        return Made, token(parts, node.function), token(parts, node.args), keywords, node.new, steps
    if kind is dict:
        return dict, frozenset((token(parts, name), token(parts, value)) for name, value in node.items())
    if kind in (set, frozenset):
        return kind, frozenset(token(parts, item) for item in node)
    if kind in (list, tuple):
        return kind, tuple(token(parts, item) for item in node)
    return kind, bytes(node) if kind is bytearray else repr(node)
