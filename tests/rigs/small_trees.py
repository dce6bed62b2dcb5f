"""An index tree that stores of a few packs have, with all three levels."""

from collections.abc import Iterator
from contextlib import contextmanager

from pytest import MonkeyPatch

from mfstore.saving import folding, index


@contextmanager
def small_trees() -> Iterator[None]:
    """Who saves meanwhile makes one, and pushes marks down to its leaves soon."""
    with MonkeyPatch.context() as patch:
        patch.setattr(folding, "TREE_FROM", 8)
        patch.setattr(folding, "ROOT_MARKS", 16)
        patch.setattr(folding, "NODE_LEAST", 1)
        patch.setattr(folding, "NODE_MOST", 1)
        patch.setattr(index, "CARRIED", 4)
        patch.setattr(index, "PUSHED", 1)
        yield
