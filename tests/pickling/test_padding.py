"""Bytes of an array that belong to no field decide nothing: they are written as zeros."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mfstore
from mfstore.format import cuts
from mfstore.pickling import arrays
from tests.rigs.pickles import dumps
from tests.rigs.soak import lasting

ALIGNED = np.dtype([("a", "i1"), ("b", "f8"), ("c", "S3")], align=True)


def gapped(fields):
    """A dtype of these (dtype, gap before it) with a gap at its end."""
    at, names, formats, offsets = 0, [], [], []
    for dtype, gap in fields:
        names.append(f"f{len(names)}")
        formats.append(dtype)
        offsets.append(at + gap)
        at += gap + np.dtype(dtype).itemsize
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": at + len(names) % 3})


leaves = st.sampled_from(["?", "i1", "<i2", ">i4", "<f4", "<f8", "c8", "S3", "U2", "V3", "M8[s]", "i8", "V0", "g"])
aligned = st.lists(leaves, min_size=1, max_size=4).map(
    lambda kinds: np.dtype([(f"a{n}", kind) for n, kind in enumerate(kinds)], align=True)
)
padded = st.recursive(
    leaves | aligned,
    lambda inner: (
        st.lists(st.tuples(inner, st.integers(0, 5)), min_size=1, max_size=3).map(gapped)
        | st.tuples(inner.filter(lambda kind: np.dtype(kind).itemsize), st.sampled_from([(2,), (2, 3)])).map(np.dtype)
    ),
    max_leaves=6,
).map(lambda kind: gapped([(kind, 1)]))


def copy_content(source, target):
    """Field by field, without what lies between."""
    if source.dtype.names is None:
        raw = source.dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63
        if raw:  # numpy copies a long double whole
            width = np.dtype(np.longdouble).itemsize
            numbers, into = (np.frombuffer(a.tobytes(), "u1").reshape(-1, width).copy() for a in (source, target))
            into[:, :10] = numbers[:, :10]
            target[...] = into.reshape(-1).view(source.dtype).reshape(source.shape)
        elif source.dtype.itemsize:
            target[...] = source
        return
    for name in source.dtype.names:
        copy_content(source[name], target[name])


@pytest.mark.second
@settings(max_examples=lasting(150), deadline=None)
@given(
    dtype=padded, shape=st.sampled_from([(), (1,), (7,), (3, 2)]), seed=st.integers(0, 9), order=st.sampled_from("CF")
)
def test_equal_fields_have_equal_pickles(dtype, shape, seed, order):
    rng = np.random.default_rng(seed)

    def noise():
        raw = rng.integers(0, 256, math.prod(shape) * dtype.itemsize, dtype=np.uint8)
        return raw, raw.view(dtype).reshape(shape, order=order)

    (memory, one), (_, two), empty = noise(), noise(), np.zeros(shape, dtype, order=order)
    copy_content(one, two)
    copy_content(one, empty)
    before = memory.tobytes()
    one.flags.writeable = False
    stream = dumps(one)
    assert stream == dumps(two)
    assert memory.tobytes() == before
    back = pickle.loads(stream)
    assert back.dtype == dtype and back.shape == shape
    assert back.tobytes("A") == empty.tobytes("A")
    # The record of an item, if it is one, likewise.
    if one.size and dtype.names:
        assert dumps(one.reshape(-1)[0]) == dumps(two.reshape(-1)[0])


def dirty(count, dtype=ALIGNED, seed=0):
    """Equal fields, and chance where there are none."""
    array = np.random.default_rng(seed).integers(0, 256, count * dtype.itemsize, dtype=np.uint8).view(dtype)
    for name in dtype.names:
        array[name] = np.arange(count).astype(dtype[name])
    return array


def test_padding_of_subclasses_and_records():
    def kinds(seed):
        array = dirty(100, seed=seed)
        yield array.view(np.recarray)
        yield array.view(np.recarray)[3]
        yield np.ma.masked_array(array, False)
        yield array[::3]
        yield array[5]
        yield {"in": [array, array[:7]]}
        yield np.insert(dirty(30, seed=seed), 7, dirty(1, seed=seed + 10)[0])

    for one, two in zip(kinds(1), kinds(2), strict=True):
        stream = dumps(one)
        assert dumps(two) == stream
        assert type(pickle.loads(stream)) is type(one)
    back = pickle.loads(dumps(dirty(100).view(np.recarray)))
    np.testing.assert_array_equal(back.b, np.arange(100.0))


@pytest.mark.skipif(np.finfo(np.longdouble).nmant != 63, reason="a long double has no unused bytes here")
def test_unused_bytes_of_long_doubles():
    for kind in ("g", "G", ">g"):
        clean = np.arange(1, 9).astype(kind)
        one = clean.copy()
        raw = one.view(np.uint8).reshape(-1, 16)
        raw[:, slice(10, None) if one.dtype.isnative else slice(None, 6)] = 0xEE
        assert dumps(one) == dumps(clean)
        np.testing.assert_array_equal(pickle.loads(dumps(one)), clean)
        assert dumps(one[3]) == dumps(clean[3])
        assert (raw == 0xEE).any()


def test_fields_that_overlap_are_content():
    union = np.dtype({"names": ["all", "low"], "formats": ["u4", "u2"], "offsets": [0, 0], "itemsize": 6})
    array = np.full(5, 255, "u1").repeat(6).view(union)
    back = pickle.loads(dumps(array))
    assert (back["all"] == 0xFFFFFFFF).all() and back.view(np.uint8).reshape(-1, 6)[:, 4:].max() == 0


def test_what_has_no_padding_is_not_copied():
    reduce = arrays.array_reducers(np, np.ma)[np.ndarray]
    whole = np.zeros(9000, [("a", "i4"), ("b", "f4", (2,)), ("c", [("d", "u1"), ("e", "V3")])])
    for array in (np.arange(10_000.0), whole, whole.reshape(90, 100).T):
        assert np.shares_memory(reduce(array).args[0].data, array)
    # Neither is an array with objects, which is a list to pickle.
    objects = np.zeros(3, np.dtype([("a", "i1"), ("b", "O")], align=True))
    assert pickle.loads(dumps(objects)).tolist() == objects.tolist()


def test_large_padded_arrays_are_read_in_pieces(tmp_path, monkeypatch):
    """And have the keys of those that are copied at once."""
    store = mfstore.open(tmp_path / "store", fsync="none")
    wide = dirty(80_000).reshape(400, 200)
    cases = [wide, wide.T, wide[:, 3:190], dirty(80_000)[::-2]]
    keys = [store.put(array) for array in cases]
    pieces = []
    read = arrays.Strided.read

    def noted(self, start, end):
        pieces.append(end - start)
        return read(self, start, end)

    monkeypatch.setattr(arrays, "COPY", 1 << 16)
    monkeypatch.setattr(cuts, "WINDOW", 1 << 19)
    monkeypatch.setattr(arrays.Strided, "read", noted)
    others = dirty(80_000, seed=5)
    cases = [others.reshape(400, 200), others.reshape(400, 200).T, others.reshape(400, 200)[:, 3:190], others[::-2]]
    assert [store.put(array) for array in cases] == keys
    assert len(pieces) > 8 and max(pieces) < 1 << 20
    for key, array in zip(keys, cases, strict=True):
        np.testing.assert_array_equal(store.get(key), array)
