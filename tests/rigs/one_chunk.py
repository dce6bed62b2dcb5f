"""One chunk through the core's codec, there and back."""

from mfstore import errors
from mfstore._core.codec import Codec


def encode(data, codec, width, level, keep):
    """The chunk as it is stored; nothing when it does not shrink to ``keep``."""
    arena, sizes = Codec(errors).encode(data, [len(data)], codec, width, level, keep)
    assert len(arena) == sizes[0]
    return bytes(arena)


def decode(encoded, codec, width, size):
    """``size`` bytes of it."""
    target = bytearray(size)
    Codec(errors).decode(encoded, target, [(0, len(encoded), codec, width, 0, size)])
    return bytes(target)
