"""What an event loop is not held up by: everything of a store is done in other threads, which let it have its turn."""

import numpy as np
import pytest

import mfstore
from tests.rigs.heartbeat import held

MOST = 0.02
SIZE = 40_000_000


@pytest.fixture
def store(root):
    with mfstore.open(root, fsync="none", threads=2, compress=False) as store:
        store.get(store.put([np.arange(100_000), "é" * 100_000]))  # what is imported at a first use
        yield store


def texts(word):
    return [f"{number}{word * (SIZE // len(word.encode()))}" for number in range(4)]


LARGE = {
    "latin": lambda: texts("söme text "),
    "wide": lambda: texts("s一me text "),
    "bytearray": lambda: [bytearray(SIZE)] * 13,
    "numbers": lambda: [list(range(1_000_000))] * 13,
}


@pytest.mark.second
@pytest.mark.parametrize("kind", LARGE)
def test_nothing_large_holds_a_loop(store, kind):
    values = LARGE[kind]()
    key = store.put(values[0])
    store.close()
    fresh = iter(values[1:])  # a text knows its hash, once that was asked for

    async def put():
        await store.aput(next(fresh))

    async def get():
        await store.aget(key)

    assert held(put, len(values) - 1, MOST) <= MOST
    assert held(get, enough=MOST) <= MOST
    assert store.get(key) == values[0]


def test_the_meter_tells_what_holds_a_loop():
    import asyncio
    import time

    def spin(turn):
        end = time.thread_time() + 0.03
        while time.thread_time() < end:
            turn()

    async def in_the_loop():
        spin(lambda: None)

    async def aside():
        await asyncio.to_thread(spin, lambda: None)

    async def keeping_the_lock():
        await asyncio.to_thread(lambda: sum(range(4_000_000)))  # one call, in which no other thread has a turn

    assert held(in_the_loop, 2) >= 0.03
    assert held(keeping_the_lock, 2) >= 0.02
    assert held(aside, enough=MOST) <= MOST


def test_a_store_is_opened_in_another_thread(python, root):
    """With what is imported for it, what it asks, and what it waits for at its end."""
    code = (
        "import asyncio, importlib.abc, sys, threading, mfstore\n"
        "seen = {}\n"
        "class Watch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.startswith('mfstore'): seen[name] = threading.get_ident()\n"
        "sys.meta_path.insert(0, Watch())\n"
        "async def main():\n"
        "    async with await mfstore.aopen(sys.argv[1], threads=2) as store:\n"
        "        assert await store.aget(await store.aput('é' * 3_000_000)) == 'é' * 3_000_000\n"
        "        print(await mfstore.aopen(sys.argv[1], create=False) is not store, store.knobs.threads)\n"
        "    try: await mfstore.aopen('nothing://x')\n"
        "    except mfstore.errors.Unsupported: print('no such scheme')\n"
        "    return threading.get_ident()\n"
        "here = asyncio.run(main())\n"
        "print('mfstore.store' in seen, here in seen.values())"
    )
    assert python(code, root).split("\n") == ["True 2", "no such scheme", "True False", ""]
