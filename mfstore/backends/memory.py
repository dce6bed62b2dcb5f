"""The in-memory backend: for tests, notebooks and as the model other backends are compared with."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mfstore.backends.base import Backend, Capabilities, ObjectInfo
from mfstore.errors import Conflict, CorruptObject, NotFound

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Answers

_spaces: dict[str, dict[str, tuple[bytes, float, str]]] = {}
_locks: dict[tuple[str, int], threading.Lock] = {}
_names = itertools.count(1)
_versions = itertools.count(1)


class MemoryBackend(Backend):
    """Objects in a dict. ``memory://`` is a new one each time, ``memory://name`` is shared within the process.

    A pickled handle finds its objects again in the same process only; elsewhere it is empty.
    """

    capabilities = Capabilities(cheap_reads=True)

    def __init__(self, url: str = "memory://") -> None:
        name = url.removeprefix("memory://") or f"unnamed-{next(_names)}"
        self.url = f"memory://{name}"
        self._objects = _spaces.setdefault(name, {})

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
        with self._exclusive():
            self._objects[key] = (b"".join(parts), time.time(), str(next(_versions)))

    def put_if(self, key: str, data: Buffer, etag: str | None) -> str:
        with self._exclusive():
            current = self._objects.get(key)
            if (current[2] if current else None) != etag:
                raise Conflict("the object changed", key=key, backend=self.url)
            new = str(next(_versions))
            self._objects[key] = (bytes(data), time.time(), new)
            return new

    def _exclusive(self) -> threading.Lock:
        # One per process: a child forked while another thread held it must not wait for ever.
        return _locks.setdefault((self.url, os.getpid()), threading.Lock())

    def delete_unchanged(self, objects: Mapping[str, str]) -> Answers:
        answers = []
        for key, etag in objects.items():
            with self._exclusive():
                current = self._objects.get(key)
                if current is not None and current[2] == etag:
                    del self._objects[key]
                    current = None
                answers.append(current is None)
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
