"""A wrong index makes nothing unreadable: what it says of a pack far away is compared with the pack."""

import numpy as np
import pytest

from mfstore import errors
from mfstore.backends.base import Capabilities
from mfstore.backends.memory import MemoryBackend
from mfstore.format.digests import BLAKE3, digest_function
from mfstore.format.fragments import decode_fragment, encode_fragment
from mfstore.format.packs import PackEntry
from mfstore.loading.pack_layouts import PackLayouts
from tests.rigs.damage import NOISE, wrapped
from tests.rigs.gc import objects

SHARED = NOISE[0]


class FarAway(MemoryBackend):
    """As S3: it vouches for packs, and reading costs a request."""

    capabilities = Capabilities(remote=True)

    def vouch(self, keys):
        return {key: self.head(key).size for key in keys if self.exists_many([key])[0]}


@pytest.fixture
def backend():
    """Holds an array, and an index that is wrong about where it lies."""
    backend = FarAway()
    key = wrapped(backend).put(SHARED)
    (path,) = objects(backend, "index")
    fragment = decode_fragment(backend.get(path), path)
    places = [fragment.location(number) for number in range(len(fragment))]
    entries = [
        PackEntry(bytes(fragment.entries[number * 56 : number * 56 + 32]), at.offset + 8, *at[2:])
        for number, at in enumerate(places)
    ]
    backend.delete(path)
    wrong = encode_fragment([(places[0].pack.value, entries)], BLAKE3)
    backend.put("index/" + digest_function(BLAKE3)(wrong).hex(), [wrong])
    assert np.array_equal(wrapped(backend).get(key), SHARED)
    return backend


def test_what_is_stored_with_a_wrong_index_is_readable(backend):
    value = {"other": 1, "shared": SHARED}
    key = wrapped(backend).put(value)
    assert np.array_equal(wrapped(backend).get(key)["shared"], SHARED)


def test_what_the_first_release_stored_with_a_wrong_index_is_healed_by_putting_it_again(backend, monkeypatch):
    value = {"other": 1, "shared": SHARED}
    with monkeypatch.context() as patch:
        patch.setattr(PackLayouts, "holds", lambda self, pack, entry: True)
        key = wrapped(backend).put(value)
    with pytest.raises(errors.CorruptObject):
        for path in objects(backend, "index"):
            backend.delete(path)
        wrapped(backend).get(key)
    assert wrapped(backend).put(value) == key
    assert np.array_equal(wrapped(backend).get(key)["shared"], SHARED)


def test_a_wrong_index_is_told_and_rebuilt(backend):
    (path,) = objects(backend, "index")
    report = wrapped(backend).verify()
    (found,) = (finding for finding in report.damage if finding.object == path)
    assert found.kind == "damaged" and found.harm == "dedup" and "where others lie" in found.detail
    done = wrapped(backend).repair("headers")
    assert done.after.clean and path not in objects(backend, "index")
    store = wrapped(backend)
    store.put({"x": SHARED})
    assert store.session.duplicate == SHARED.nbytes
