"""What an artifact is made of: a body and the large payloads spliced into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PICKLE = 1
"""Encoding: the body with its segments spliced in is a pickle (protocol 5)."""
RAW = 2
"""Encoding: the body is the artifact, byte for byte."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One large payload of an artifact."""

    kind: int
    """What it loads as: ``pickler.BUFFER``, ``BYTES``, ``TEXT`` or ``BYTEARRAY``."""
    at: int
    """Where in the body it belongs: this many body bytes come before it."""
    length: int
    """Bytes."""
    itemsize: int
    """Bytes per element; 1 for opaque bytes, 0 for elements of unknown size."""
    row: int
    """Bytes per row of an array of two dimensions or more, else 0."""
    chunks: int
    """How many chunks it was cut into."""


def interleave(body_length: int, segments: Sequence[Segment]) -> Iterator[tuple[int, int, int]]:
    """The artifact's byte stream as ``(source, start, end)`` pieces, in order.

    ``source`` is -1 for the body or the index of a segment; ``start`` and ``end`` are offsets in it.
    """
    last = 0
    for number, segment in enumerate(segments):
        if segment.at > last:
            yield -1, last, segment.at
            last = segment.at
        yield number, 0, segment.length
    if last < body_length:
        yield -1, last, body_length
