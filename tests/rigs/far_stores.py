"""A store that is far away, in this process: what is asked of its backend is counted, and so may be what a cache saves."""

from collections import Counter

from mfstore.backends.base import Capabilities
from mfstore.backends.memory import MemoryBackend
from mfstore.settings import resolve
from mfstore.store import Store


class FarBackend(MemoryBackend):
    """Objects in a dict, as far away as S3: each object, or range of one, is a request."""

    capabilities = Capabilities(remote=True, gap=1 << 20, span=1 << 20, inline=256 << 10)

    def __init__(self, url):
        super().__init__(url)
        self.asked = Counter()

    def get(self, key):
        self.asked[key.partition("/")[0]] += 1
        return super().get(key)

    def get_range(self, key, start, length):
        self.asked[key.partition("/")[0]] += 1
        return super().get_range(key, start, length)

    def since(self):
        """What was asked for since the last call, by kind of object."""
        found, self.asked = dict(self.asked), Counter()
        return found


def far_store(name, cache, limit=1 << 40, trusted=(), **knobs):
    """A handle of the store of that name, as another process on this host would have it."""
    backend = FarBackend(f"memory://{name}")
    settings = resolve(threads=2, cache=None if cache is None else str(cache), cache_size=limit, **knobs)
    store = Store(backend.url, backend, settings, trusted=trusted)
    store.handle.require_read()
    backend.since()
    return store
