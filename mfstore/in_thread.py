"""Asynchronous methods made of blocking ones: the same work in another thread, so that no event loop stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from inspect import cleandoc
from threading import Lock
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


def in_thread(method: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The asynchronous method for a blocking one, with its parameters, result and errors, under its name with an ``a``
    before it.

    It runs in the default executor of the event loop. When its task is cancelled, the work goes on to its end: what it
    reads may not change until then.
    """
    name = method.__name__

    @wraps(method)
    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        import asyncio

        owner, *rest = args
        # By name, so that a subclass's own method is what runs.
        return await asyncio.to_thread(getattr(owner, name), *rest, **kwargs)

    return _named(run, method, "without blocking the event loop")


def each_in_thread(method: Callable[P, Iterator[R]]) -> Callable[P, AsyncIterator[R]]:
    """Likewise for a method that returns an iterator of things that are not None: each step runs in a thread, not
    always in the same one. When its task is cancelled, the step that has begun goes on to its end, and there is no
    further one."""
    name = method.__name__

    @wraps(method)
    async def run(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        import asyncio

        owner, *rest = args
        steps: Iterator[R] = await asyncio.to_thread(getattr(owner, name), *rest, **kwargs)
        one_at_a_time = Lock()

        def step() -> R | None:
            with one_at_a_time:
                return next(steps, None)

        def close() -> None:
            with one_at_a_time:
                getattr(steps, "close", int)()

        try:
            while (item := await asyncio.to_thread(step)) is not None:
                yield item
        finally:
            # What has to be waited for when it is left early, such as threads that read ahead, is no work for the loop;
            # and a step that a cancelled task left behind comes to its end first.
            asyncio.get_running_loop().run_in_executor(None, close)

    return _named(run, method, "for ``async for``, without blocking the event loop")


def _named(run: F, method: Callable[..., Any], how: str) -> F:
    run.__name__ = f"a{method.__name__}"
    run.__qualname__ = f"{method.__qualname__.rpartition('.')[0]}.{run.__name__}"
    run.__doc__ = f"As ``{method.__name__}``, {how}.\n\n{cleandoc(method.__doc__ or '')}"
    return run
