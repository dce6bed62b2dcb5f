"""How long an event loop is held, told so that a busy machine is not taken for it."""

import asyncio
import threading
import time
from contextlib import suppress

RUNS = 5


def held(work, runs=RUNS, enough=0.0):
    """Seconds for which ``work``, a function that makes a coroutine, holds the event loop at a stretch.

    A loop that does nothing but turn is asked for at every turn how much CPU each thread of the process has used since
    the turn before: the loop's own thread in a callback, or another that keeps the interpreter's lock. That is not the
    time by the clock, which passes also while the machine does something else. What the loop's thread waited for a CPU
    meanwhile (the kernel counts it) is taken off, since another thread may have worked then without holding anything.
    Of several runs the least greatest is told: what holds the loop does so in every run, and chance does not. No
    further run once one is ``enough``.
    """
    least = float("inf")
    for _ in range(runs):
        least = min(least, asyncio.run(_greatest(work)))
        if least <= enough:
            break
    return least


async def _greatest(work):
    before, greatest = _used(), 0.0
    task = asyncio.ensure_future(work())
    while not task.done():
        await asyncio.sleep(0)
        now = _used()
        greatest = max(greatest, *(used - before.get(thread, 0.0) for thread, used in now.items()))
        before = now
    await task
    return greatest


def _used():
    """CPU seconds by thread."""
    found = {}
    for thread in threading.enumerate():
        with suppress(OSError, TypeError):  # it has just ended
            found[thread.native_id] = time.clock_gettime(_clock_of(thread.native_id))
    return found


def _clock_of(thread):
    """Linux's clock of a thread's CPU time, by its number in the kernel, which refuses one that has ended.
    ``pthread_getcpuclockid`` reads the memory of such a thread, which may be gone."""
    return (~thread << 3) | 6
