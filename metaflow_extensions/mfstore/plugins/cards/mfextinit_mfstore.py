"""``@card(type="mfstore")``: what a task stored, and how it differs from the run before."""

from metaflow.plugins.cards.card_modules.card import MetaflowCard

from ...switch import load


class PageCard(MetaflowCard):
    """A page of ``mfstore page`` for one task. Options: ``history``, so many runs of its step that it is beside."""

    type = "mfstore"

    def __init__(self, options=None, components=(), graph=None, flow=None):
        self._options = dict(options or {})

    def render(self, task):
        """The whole file."""
        from mfstore.page.card import card_of

        return card_of(task, **self._options)


CARDS = [PageCard] if load("mfstore.metaflow.needs") is not None else []
del load
