"""What a recipe says of its artifacts beside what they are: types, the user's note, and who made it with what
(docs/format.md, "Description of a recipe").

None of it is part of the key. Readers ignore members that they do not know, and who rewrites a recipe keeps all of
them: so what is stored is handed on as bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mfstore.errors import CorruptObject, InvalidNote
from mfstore.records import NamedTuple

NOTE_LIMIT = 16 << 10
"""Longest note, in bytes of JSON: it is read with every recipe, and stands in the history of each ref that is set with
it."""


class Made(NamedTuple):
    """What mfstore records by itself of how something was stored."""

    by: str
    """Who: ``user@host``, or the pathspec of a task of Metaflow."""
    python: str
    """Version of the Python that stored it."""
    mfstore: str
    """Version of the mfstore that did."""
    libraries: Mapping[str, str]
    """Versions of the libraries whose classes or functions the pickles name, by top-level module."""
    time: float
    """Seconds since the epoch, on the clock of who stored it. 0 where it is not said."""


class About(NamedTuple):
    """A decoded description."""

    types: tuple[str, ...]
    """Python type of each artifact, for people."""
    note: dict[str, Any] | None
    """What a user attached."""
    made: Made | None
    """None: whoever stored it recorded nothing."""


def encode_about(types: Sequence[str], note: bytes | None = None, made: Made | None = None) -> bytes:
    """A description. ``note``: as ``encode_note`` gives it."""
    if made is None:
        return begin_about(types, note, None) + b"}"
    return begin_about(types, note, made) + time_of(made.time)


def begin_about(types: Sequence[str], note: bytes | None, made: Made | None) -> bytes:
    """A description up to its time, which ``time_of`` ends; without ``made`` it lacks the last brace."""
    parts = [b'{"types":', _json(list(types))]
    if note is not None:
        parts += (b',"note":', note)
    if made is not None:
        fields = {"by": made.by, "python": made.python, "mfstore": made.mfstore, "libraries": dict(made.libraries)}
        parts += (b',"made":', _json(fields)[:-1], b',"time":')
    return b"".join(parts)


def time_of(seconds: float) -> bytes:
    """How a description ends that has a time: to the millisecond."""
    return b"%.3f}}" % seconds


def with_note(about: bytes, note: bytes) -> bytes:
    """A description with this note: itself, if it has it. All else stays, also what this mfstore does not know.
    CorruptObject for what is no description."""
    try:
        fields = dict(json.loads(about).items())
    except (ValueError, AttributeError, RecursionError):
        raise CorruptObject("recipe description is not the JSON it should be") from None
    if _json(fields.get("note")) == note:
        return about
    fields["note"] = json.loads(note)
    return _json(fields)


def decode_about(data: bytes, count: int) -> About:
    """The description of a recipe of ``count`` artifacts; CorruptObject when it is none."""
    try:
        fields: Any = json.loads(data)
        types, note, made = fields["types"], fields.get("note"), fields.get("made")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CorruptObject("recipe description is not the JSON it should be") from None
    if not isinstance(types, list) or len(types) != count or not all(isinstance(name, str) for name in types):
        raise CorruptObject("recipe description does not match its artifacts", expected=count)
    if not (note is None or isinstance(note, dict)):
        raise CorruptObject("the note in a recipe is no JSON object", found=type(note).__name__)
    return About(tuple(types), note, None if made is None else _decode_made(made))


def _decode_made(made: Any) -> Made:
    try:
        libraries, time = made.get("libraries", {}), made.get("time", 0)
        words = [made.get(name, "") for name in ("by", "python", "mfstore")]
        if (
            all(type(word) is str for word in (*words, *libraries, *libraries.values()))
            and type(time) in (int, float)
            and math.isfinite(time)
        ):
            return Made(words[0], words[1], words[2], libraries, float(time))
    except (AttributeError, TypeError, OverflowError):
        pass
    raise CorruptObject("what a recipe says of how it was made is not as it should be", found=f"{made!r:.80}")


def encode_note(note: Mapping[str, object]) -> bytes:
    """A note as JSON. InvalidNote, which names the part, for what JSON cannot say, and for what is too long.

    Scalars of numpy and torch, which metrics often are, are written as the numbers that they are; tuples as lists.
    """
    if not isinstance(note, Mapping):
        raise InvalidNote(
            "a note is a dict", found=f"{type(note).__name__}", hint="Write note={'tags': ['trial'], 'auc': 0.91}"
        )
    encoded = _json(_plain(note, "note", 0))
    if len(encoded) > NOTE_LIMIT:
        raise InvalidNote(
            "the note is too long", expected=f"at most {NOTE_LIMIT} bytes of JSON", found=len(encoded),
            hint="Store what is long as an artifact, and its key in the note",
        )  # fmt: skip
    return encoded


def _plain(value: object, path: str, depth: int) -> object:
    """The value as JSON has it. ``path`` leads to it."""
    if value is None or type(value) in (bool, int, str):
        return _checked(value, path)
    if depth > 32:
        raise InvalidNote(f"{path[:80]}… in the note lies too deep", expected="at most 32 levels")
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise InvalidNote(
                    f"{path} has a key that is no text", found=f"{name!r:.80}", hint="Keys of notes are texts"
                )
        return {
            _checked(str(name), path): _plain(inner, f"{path}[{name[:80]!r}]", depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(inner, f"{path}[{number}]", depth + 1) for number, inner in enumerate(value)]
    # Subclasses, such as enumerations of texts and numpy.float64, by their value.
    if isinstance(value, str):
        return _checked(str.__str__(value), path)
    if isinstance(value, int):
        return _checked(int.__int__(value), path)
    if isinstance(value, float):
        return _checked(float.__float__(value), path)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return _plain(value.item(), path, depth + 1)
    raise InvalidNote(
        f"{path} is nothing that JSON can say", found=type(value).__qualname__,
        hint="A note holds texts, numbers, True, False, None, lists and dicts: write str(...) or float(...)",
    )  # fmt: skip


def _checked(value: Any, path: str) -> Any:
    if type(value) is float and not math.isfinite(value):
        raise InvalidNote(f"{path} is not finite", found=value, hint="Write None, or a text")
    if type(value) is int and value.bit_length() > 1024:
        raise InvalidNote(f"{path} is a number that others cannot read", expected="at most 1024 bits")
    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidNote(f"{path} holds a text that is not valid Unicode", found=f"{value!r:.80}") from None
    return value


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
