"""The objects that a mixed workload works on: which are there, which are being read, which may be deleted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from random import Random

TRIES = 64
"""Objects looked at for one that nobody reads, before none is deleted. Of a pool that is larger than the number of
threads half may be being read, so 64 in a row never are."""


class Pool:
    """Objects by number. Safe from several threads. An object is never read while it is stored or deleted: whoever
    finds it missing then has found a fault of the place."""

    def __init__(self, numbers: Iterable[int], seed: int) -> None:
        self._there = list(numbers)
        self._readers: Counter[int] = Counter()
        self._random = Random(f"{seed}/pool")
        self._next = max(self._there, default=-1) + 1
        self._lock = threading.Lock()
        self._doubtful: set[int] = set()

    def __len__(self) -> int:
        return len(self._there)

    def new(self) -> int:
        """The number of an object to be stored."""
        with self._lock:
            self._next += 1
            self._doubtful.add(self._next - 1)
            return self._next - 1

    def stored(self, number: int) -> None:
        """It is there."""
        with self._lock:
            self._doubtful.discard(number)
            self._there.append(number)

    def read(self) -> int:
        """An object, which stays until ``left``."""
        with self._lock:
            found = self._random.choice(self._there)
            self._readers[found] += 1
            return found

    def left(self, number: int) -> None:
        """It was read."""
        with self._lock:
            self._readers[number] -= 1
            if not self._readers[number]:
                del self._readers[number]

    def take(self) -> int | None:
        """An object to be deleted, which nobody reads, now or later; None where there is none, or only one object."""
        with self._lock:
            for _ in range(TRIES if len(self._there) > 1 else 0):
                at = self._random.randrange(len(self._there))
                found = self._there[at]
                if found not in self._readers:
                    self._there[at] = self._there[-1]
                    self._there.pop()
                    self._doubtful.add(found)
                    return found
            return None

    def deleted(self, number: int) -> None:
        """It is gone."""
        with self._lock:
            self._doubtful.discard(number)

    def left_over(self) -> list[int]:
        """What is there, or may be: a request that failed may have been carried out."""
        with self._lock:
            return [*self._there, *self._doubtful]
