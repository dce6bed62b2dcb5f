"""What mfstore pickles, as one stream."""

from mfstore._core.pickler import Joined
from mfstore.pickling.streams import dump

REMEMBERED = 131072
"""Texts that are remembered at a time."""


def dumps(obj):
    """The stream of an object."""
    joined = Joined()
    dump(obj, joined)
    return joined.all()
