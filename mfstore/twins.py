"""The async twins of a store's methods: the same work in another thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Literal

from mfstore.format.digests import Key

OnError = Literal["raise", "return", "omit"]
Progress = Callable[[int], None]
"""Called with the number of artifacts finished since the last call."""


class AsyncTwins(ABC):
    """``aput``, ``aget``, ``aput_many`` and ``aget_many`` for a class that has the methods without ``a``."""

    @abstractmethod
    def get(self, key: str, *, verify: bool | None = None, writable: bool = True) -> Any:
        """What ``aget`` calls."""

    @abstractmethod
    def put_many(self, objs: Iterable[object], progress: Progress | None = None) -> list[Key]:
        """What ``aput_many`` calls."""

    @abstractmethod
    def get_many(
        self, keys: Iterable[str], ordered: bool = True, on_error: OnError = "raise", progress: Progress | None = None,
        *, verify: bool | None = None, writable: bool = True,
    ) -> Iterator[tuple[Key, Any]]:  # fmt: skip
        """What ``aget_many`` calls."""

    async def aput(self, obj: object) -> Key:
        """Call ``put`` without blocking the event loop."""
        return (await self.aput_many([obj]))[0]

    async def aget(self, key: str, *, verify: bool | None = None, writable: bool = True) -> Any:
        """Call ``get`` without blocking the event loop."""
        import asyncio

        return await asyncio.to_thread(self.get, key, verify=verify, writable=writable)

    async def aput_many(self, objs: Iterable[object], progress: Progress | None = None) -> list[Key]:
        """Call ``put_many`` without blocking the event loop. ``objs`` is consumed in another thread."""
        import asyncio

        return await asyncio.to_thread(self.put_many, objs, progress)

    async def aget_many(
        self, keys: Iterable[str], ordered: bool = True, on_error: OnError = "raise", progress: Progress | None = None,
        *, verify: bool | None = None, writable: bool = True,
    ) -> AsyncIterator[tuple[Key, Any]]:  # fmt: skip
        """Iterate as ``get_many`` without blocking the event loop."""
        import asyncio

        found = self.get_many(keys, ordered, on_error, progress, verify=verify, writable=writable)
        while (item := await asyncio.to_thread(next, found, None)) is not None:
            yield item
