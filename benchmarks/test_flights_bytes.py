"""Bytes stored for the flights series, beside what really changed and what other ways of deduplicating store."""

import hashlib
import pickle
import zlib

import numpy as np
import pandas as pd
import pytest
from fastcdc.fastcdc_cy import fastcdc_cy

import mfstore
from mfstore import errors
from mfstore._core.codec import ZSTD, Codec
from mfstore.demo.flights import flights, versions


@pytest.fixture(scope="module")
def series():
    return list(versions(flights()))


def alone(values):
    """Bytes these values take on their own, in a new store: same codecs, nothing to deduplicate against."""
    if len(values) == 0:
        return 0
    store = mfstore.open("memory://")
    store.put(values)
    return store.session.stored


def changed(column, earlier):
    """The cells no earlier column has: all, the appended tail, or those edited in place; None if there are none."""
    best = column
    for other in earlier:
        if other.dtype != column.dtype:
            continue
        n = min(len(other), len(column))
        same = (column.iloc[:n].to_numpy() == other.iloc[:n].to_numpy()) | (
            column.iloc[:n].isna().to_numpy() & other.iloc[:n].isna().to_numpy()
        )
        same = np.asarray(same, dtype=bool)
        if same.all() and len(column) <= len(other):
            return None
        keep = np.ones(len(column), dtype=bool)
        keep[:n] = ~same
        if keep.sum() < len(best) // 2:
            best = column[keep]
    return best


@pytest.mark.benchmark(group="bytes of the flights series")
def test_stored_bytes(benchmark, series):
    """Ratios in extra_info; the claim is at most 1.25 times what really changed."""
    codec = Codec(errors)

    def squeeze(data):
        if not len(data):
            return 0
        _, sizes = codec.encode(data, [len(data)], ZSTD, 0, 1, 1.0)
        return sizes[0] or len(data)

    def ours():
        store = mfstore.open("memory://")
        for _, frame in series:
            store.put(frame)
        return store.session.stored

    stored = benchmark.pedantic(ours, rounds=1)
    bound, whole, cdc, logical = 0, 0, 0, 0
    seen_columns, seen_objects, seen_chunks = {}, set(), set()
    for _, frame in series:
        stream = pickle.dumps(frame, 4)
        logical += len(stream)
        digest = hashlib.sha1(stream).digest()
        if digest not in seen_objects:
            seen_objects.add(digest)
            whole += len(zlib.compress(stream, 3))
        for found in fastcdc_cy(stream, 64 << 10, 256 << 10, 1 << 20, fat=False):
            chunk = stream[found.offset : found.offset + found.length]
            digest = hashlib.sha1(chunk).digest()
            if digest not in seen_chunks:
                seen_chunks.add(digest)
                cdc += squeeze(chunk)
        for name in frame.columns:
            column = frame[name].reset_index(drop=True)
            values = changed(column, seen_columns.get(name, []))
            seen_columns.setdefault(name, []).append(column)
            if values is not None:
                bound += alone(pd.Series(values.to_numpy() if values.dtype.kind in "iufbM" else values.array))
    benchmark.extra_info.update(
        logical=logical, mfstore=stored, really_changed=bound, whole_object_gzip3=whole, fastcdc_256k_in_band=cdc
    )
    assert stored <= 1.25 * bound
    assert stored < cdc < whole
