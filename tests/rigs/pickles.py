"""What mfstore pickles, as one stream, and back."""

import pickle
from functools import partial

from mfstore._core.pickler import Joined
from mfstore._core.unpickler import Unpickler
from mfstore.pickling.arrays import flat_arrays
from mfstore.pickling.streams import dump, finder

REMEMBERED = 131072
"""Texts that are remembered at a time."""


def dumps(obj):
    """The stream of an object."""
    joined = Joined()
    dump(obj, joined)
    return joined.all()


def unpickler(kind=pickle.Unpickler, buffers=None):
    """An unpickler of mfstore's that finds classes as ``kind`` does."""
    return Unpickler(partial(finder, kind), buffers, flat_arrays)


def loads(stream, kind=pickle.Unpickler, buffers=None):
    """What mfstore's unpickler makes of a stream that it does not leave to CPython's."""
    own = unpickler(kind, buffers)
    assert own.looks_through([stream])
    return own.load([stream])


def loads_in_parts(stream, kind=pickle.Unpickler, parts=1, buffers=None):
    """As it reads a stream that is not there as a whole, but comes in pieces of ``parts`` bytes."""
    own = unpickler(kind, buffers)
    assert own.begins(stream[:2])
    return own.load(stream[at : at + parts] for at in range(0, len(stream), parts))
