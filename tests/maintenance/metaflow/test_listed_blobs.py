"""Blobs of a listing, kept in few bytes: whatever is asked of them, it is as if they were kept as they are."""

import random
import tracemalloc

import pytest

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.metaflow.listed_blobs import BlobTable
from mfstore.metaflow.roots.layout import blob_path

GENERATOR = random.Random(9)


def digest(size=20):
    return GENERATOR.randbytes(size).hex()


@pytest.mark.parametrize("suffix", ["", "_meta"])
def test_it_is_a_dict_of_blobs(suffix):
    table, model = BlobTable(suffix), {}
    keys = [digest() for _ in range(50)] + [f"r_{digest()}" for _ in range(5)] + [digest(32) for _ in range(5)]
    for number, key in enumerate(keys):
        flow = f"Größe{number % 3}"
        etag = [digest(16), digest(16), "12-7", digest(16).upper(), digest(8), f"{digest(16)}-2", ""][number % 7]
        place = blob_path(flow, key) + suffix
        table[flow, key] = model[flow, key] = ObjectInfo(place, number << 33, number + 0.25, etag)
    assert (
        dict(table.items()) == model
        and len(table) == len(model)
        and list(table) == sorted(model, key=list(table).index)
    )
    for name, info in model.items():
        assert table[name] == info and name in table and table.get(name) == info
    assert table.keys() - list(model)[:10] == set(list(model)[10:])
    for name in (("Größe0", digest()), ("Other", keys[0]), ("Größe0", "no digest")):
        assert name not in table and table.get(name) is None
        with pytest.raises(KeyError):
            table[name]
    for name in [name for name in model if name[0] == "Größe1"]:
        assert table.pop(name) == model.pop(name)
    assert dict(table.items()) == model and table.flows == {"Größe0", "Größe2"}
    first = next(iter(model))
    table[first] = model[first] = model[first]._replace(etag=digest(16))
    assert dict(table.items()) == model


def test_a_blob_takes_few_bytes():
    infos = []
    for _ in range(20_000):
        key = digest()
        infos.append((("Flow", key), ObjectInfo(blob_path("Flow", key), 5000, 1.7e9, digest(16))))
    tracemalloc.start()
    table = BlobTable()
    for name, info in infos:
        table[name] = info
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / len(infos) < 240
