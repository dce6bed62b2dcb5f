"""What could not be read, as a page tells it: damage to one thing does not keep the rest from being shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mfstore.errors import AccessDenied, BackendError, CorruptObject, NotFound, OutOfSpace
from mfstore.page.facts import Space

if TYPE_CHECKING:
    from mfstore.maintenance.usage import Usage

TROUBLES = 200
"""Damaged things that are told by name."""


class Said:
    """What is told of errors: never where a directory is that the caller named otherwise."""

    def __init__(self, found_at: str, place: str, command: str) -> None:
        self._found_at = [found_at, found_at.removeprefix("file://")]
        self._place = place
        self._command = command
        self._troubles: list[str] = []
        self._more = 0

    def text(self, told: object) -> str:
        """What an error says, or a sentence about some."""
        words = str(told)
        for name in self._found_at:
            words = words.replace(name, self._place)
        return words

    def add(self, what: str, error: BaseException) -> str:
        """Note down an error; what it says."""
        words = self.text(error)
        if len(self._troubles) < TROUBLES:
            self._troubles.append(f"{what}: {words}")
        else:
            self._more += 1
        return words

    def add_notes(self, notes: Sequence[str]) -> None:
        """Note down sentences."""
        self._troubles += map(self.text, notes)

    @property
    def troubles(self) -> tuple[str, ...]:
        """All of it, and where the rest is told."""
        more = (f"and {self._more:,} more: {self._command} tells all",) if self._more else ()
        return (*self._troubles, *more)


def spaces_of(ways: Sequence[str], ask: Callable[[str], Usage], said: Said) -> tuple[Space, ...]:
    """Who holds how much, in each of these ways; without those that cannot be told, of which it is said why."""
    found: list[Space] = []
    for by in ways:
        try:
            usage = ask(by)
        except (AccessDenied, BackendError, CorruptObject, NotFound, OutOfSpace) as error:
            said.add(f"bytes by {by} are not known", error)
            continue
        if not found:
            said.add_notes(usage.notes)
        groups = tuple((usage.name_of(group), group.own, group.shared) for group in usage.groups)
        found.append(Space(usage.by, groups, usage.own, usage.shared, usage.unheld))
    return tuple(found)
