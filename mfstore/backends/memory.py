"""The in-memory backend: for tests, notebooks and as the model other backends are compared with."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from mfstore.backends.base import Backend, Capabilities, ObjectInfo
from mfstore.errors import Conflict, CorruptObject, NotFound
from mfstore.host.forks import anew_in_children

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Answers

UNNAMED = "unnamed-"

_names = itertools.count(1)
_versions = itertools.count(1)


class _Space:
    """The objects of one store, and what changes them one at a time."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float, str]] = {}
        self.forked()
        anew_in_children(self)

    def forked(self) -> None:
        """A lock, anew in a child. Reentrant: a signal handler may save while its own thread does."""
        self.lock = threading.RLock()


_named: dict[str, _Space] = {}
_unnamed: WeakValueDictionary[str, _Space] = WeakValueDictionary()


class MemoryBackend(Backend):
    """Objects in a dict. ``memory://`` is a new one each time, and is freed with its last handle. ``memory://name`` is
    shared within the process and stays as long as it: anybody may open it again.

    A pickled handle finds its objects again in the same process only, while they are there; elsewhere it is empty.
    """

    capabilities = Capabilities(cheap_reads=True)

    def __init__(self, url: str = "memory://") -> None:
        name = url.removeprefix("memory://") or f"{UNNAMED}{next(_names)}"
        self.url = f"memory://{name}"
        spaces: MutableMapping[str, _Space] = _unnamed if name.startswith(UNNAMED) else _named
        self._space = spaces.setdefault(name, _Space())
        self._objects = self._space.objects

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryBackend, (self.url,)

    def get(self, key: str) -> bytes:
        return self._find(key)[0]

    def get_range(self, key: str, start: int, length: int) -> Buffer:
        data = self._find(key)[0]
        if start + length > len(data):
            raise CorruptObject(
                "object is shorter than expected", key=key, backend=self.url, expected=start + length, found=len(data)
            )
        return memoryview(data)[start : start + length]

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        with self._space.lock:
            self._objects[key] = (b"".join(parts), time.time(), str(next(_versions)))

    # What compares and then changes does both without a call in between: a signal handler, which may change the same
    # object, runs after calls only.

    def put_if(self, key: str, data: Buffer, etag: str | None) -> str:
        new = (bytes(data), time.time(), str(next(_versions)))
        objects = self._objects
        with self._space.lock:
            if etag is None:
                if objects.setdefault(key, new) is new:
                    return new[2]
            else:
                with suppress(KeyError):
                    if objects[key][2] == etag:
                        objects[key] = new
                        return new[2]
        raise Conflict("the object changed", key=key, backend=self.url)

    def delete_unchanged(self, objects: Mapping[str, str]) -> Answers:
        mine = self._objects
        answers = []
        for key, etag in objects.items():
            with self._space.lock:
                try:
                    if gone := mine[key][2] == etag:
                        del mine[key]
                except KeyError:
                    gone = True
            answers.append(gone)
        return answers

    def deletes_conditionally(self) -> bool:
        return True

    def delete(self, key: str) -> None:
        self._objects.pop(key, None)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for key, (data, modified, etag) in list(self._objects.items()):
            if key.startswith(prefix):
                yield ObjectInfo(key, len(data), modified, etag)

    def head(self, key: str) -> ObjectInfo:
        data, modified, etag = self._find(key)
        return ObjectInfo(key, len(data), modified, etag)

    def identity(self, key: str) -> Any:
        return self._find(key)[2]

    def _find(self, key: str) -> tuple[bytes, float, str]:
        try:
            return self._objects[key]
        except KeyError:
            raise NotFound("no such object", key=key, backend=self.url) from None
