"""What a class inherits to be shown to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mfstore.display.cards import Card


class Shown:
    """A value that is shown as a card: in a terminal by ``repr`` and ``print``, in a notebook as HTML. A class says in
    ``_card`` what is on it. That asks nobody and changes nothing: debuggers call ``repr`` of whatever they see."""

    __slots__ = ()

    def _card(self) -> Card:
        raise NotImplementedError

    def __repr__(self) -> str:
        from mfstore.display.text import text_of

        return text_of(self._card())

    def _repr_html_(self) -> str:
        from mfstore.display.html import html_of

        return html_of(self._card())
