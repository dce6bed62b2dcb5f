"""What verifying a store and verifying a Metaflow root have in common: options, shards, and what is remembered."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfstore.errors import AccessDenied, InvalidKey, NotFound, OutOfSpace
from mfstore.format.progress import SHARDS, decode_progress, encode_progress
from mfstore.maintenance.report import LEVELS, Level

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

REFUSALS = 100
"""After so many objects that could not be read, the storage is taken to be at fault and the error is raised."""
NOTE_SECONDS = 30.0
"""Progress is noted at most so often: a request each time."""


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How closely to look, and at how much of the data."""

    level: Level = "headers"
    sample: tuple[int, int] | None = None
    """(n, t): only every t-th shard, beginning with the n-th."""
    older_than: float | None = None
    """Only shards that were not read whole for so many seconds."""
    budget: float | None = None
    """Seconds after which no further data is read."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise InvalidKey("unknown level", expected=", ".join(LEVELS), found=repr(self.level))
        if self.level != "full" and (self.sample, self.older_than, self.budget) != (None, None, None):
            raise InvalidKey("only the level full can read a part of the data", found=self.level)


def verify_options(
    level: Level, sample: str | tuple[int, int] | None, older_than: float | None, budget: float | None
) -> VerifyOptions:
    """The options as callers give them. InvalidKey when they make no sense."""
    return VerifyOptions(level, None if sample is None else parse_sample(sample), older_than, budget)


def parse_sample(text: str | tuple[int, int]) -> tuple[int, int]:
    """``n/t`` as numbers. InvalidKey when it is not a share of the shards."""
    try:
        first, every = (int(part) for part in text.split("/")) if isinstance(text, str) else text
    except (ValueError, TypeError):
        raise InvalidKey("a sample is n/t, such as 1/10", found=repr(text)) from None
    if not 1 <= first <= every <= len(SHARDS):
        raise InvalidKey("a sample is n/t", expected=f"1 <= n <= t <= {len(SHARDS)}", found=f"{first}/{every}")
    return first, every


def shard_of(name: bytes) -> str:
    """The shard of a pack or recipe."""
    return name[:1].hex()


def choose_shards(times: Mapping[str, float], options: VerifyOptions, now: float) -> list[str]:
    """The shards to verify, those that waited longest first. Pure."""
    sample, older_than = options.sample, options.older_than
    chosen = SHARDS if sample is None else SHARDS[sample[0] - 1 :: sample[1]]
    if older_than is not None:
        chosen = tuple(shard for shard in chosen if now - times.get(shard, 0.0) > older_than)
    return sorted(chosen, key=lambda shard: times.get(shard, 0.0))


class ShardPass:
    """A pass over the data of a store or root, shard by shard: which ones, for how long, and what is remembered of it
    in the object ``path``, if there is one."""

    def __init__(self, backend: Backend, path: str | None, options: VerifyOptions) -> None:
        self._backend = backend
        self._path = path
        self._options = options
        self._end = None if options.budget is None else time.monotonic() + options.budget
        self._done: dict[str, float] = {}
        self._noted = 0.0
        self.times: dict[str, float] = {}
        """When each shard was last verified, in seconds since the epoch."""
        self.complete = True
        """Whether the time allowed was enough."""
        self.remembered = True
        """Whether what was verified could be noted."""

    def load(self) -> None:
        """Read what earlier passes noted."""
        if self._path is not None:
            self.times = read_progress(self._backend, self._path)

    def shards(self) -> list[str]:
        """The shards to verify now, in this order."""
        return choose_shards(self.times, self._options, time.time())

    def expired(self) -> bool:
        """Whether the time allowed has passed: then what is left to read is left to another pass."""
        if self._end is not None and time.monotonic() > self._end:
            self.complete = False
            return True
        return False

    @contextmanager
    def noting(self) -> Iterator[None]:
        """In this context shards are verified. However it ends, those that were are noted."""
        self._noted = time.monotonic()
        try:
            yield
        finally:
            if self._done:
                self._note()
                self.times.update(self._done)

    def verified(self, shard: str, whole: bool, begun: float) -> None:
        """A shard was read, beginning at this time in seconds since the epoch. One with damage is not remembered, so
        that the next pass tells the damage again."""
        if whole:
            self._done[shard] = begun
        if time.monotonic() - self._noted > NOTE_SECONDS:
            self._note()
            self._noted = time.monotonic()

    def _note(self) -> None:
        if self._path is not None:
            self.remembered = note_progress(self._backend, self._path, self._done)


def read_progress(backend: Backend, path: str) -> dict[str, float]:
    """When each shard was verified, in seconds since the epoch."""
    try:
        return decode_progress(backend.get(path))
    except NotFound:
        return {}


def note_progress(backend: Backend, path: str, times: Mapping[str, float]) -> bool:
    """Note these too; what others noted meanwhile stays. False when this place cannot be written to.

    A full disk costs the note and not what was found. Two that note at once may lose one's notes: then those shards are
    verified again, which is all it costs.
    """
    try:
        merged = read_progress(backend, path)
        for shard, verified_at in times.items():
            merged[shard] = max(verified_at, merged.get(shard, 0.0))
        backend.put(path, [encode_progress(merged)])
        return True
    except (AccessDenied, OutOfSpace):
        return False
