"""Headers of safetensors files, compared with the package that has defined the format."""

import json
from math import prod

import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mfstore.errors import CorruptObject
from mfstore.safetensors.dtypes import CODES, TYPES
from mfstore.safetensors.header import LONGEST, Header, Tensor, decode, encode, header_length, laid_out

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__")
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
TENSORS = st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(CODES.values())), SHAPES), max_size=5)


def of(text, data=b""):
    """A file with this header, as far as one can be told by its parts."""
    raw = text.encode()
    return len(raw).to_bytes(8, "little") + raw + data


def read(file):
    length = header_length(file[:8], len(file))
    return decode(file[8 : 8 + length], len(file) - 8 - length)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TENSORS, st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=1))
def test_files_are_the_ones_that_the_package_writes(tensors, metadata):
    header = laid_out([(name, *one) for name, one in tensors.items()], metadata)
    data = bytes(range(256)) * (header.nbytes // 256 + 1)
    specs = {}
    import numpy as np

    buffers = {}
    for tensor in header.tensors:
        buffers[tensor.name] = np.frombuffer(data[tensor.start : tensor.end] or b"\0", "u1").copy()
        specs[tensor.name] = safetensors.TensorSpec(
            dtype=TYPES[tensor.code].name, shape=list(tensor.shape), data_ptr=buffers[tensor.name].ctypes.data,
            data_len=tensor.end - tensor.start,
        )  # fmt: skip
    expected = bytes(safetensors.serialize(specs, metadata=metadata or None))
    assert encode(header) + data[: header.nbytes] == expected
    assert read(expected) == header


ONE = '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}%s}'
ACCEPTED = {
    "spaces at the end": (ONE % "" + "     ", b"x"),
    "no tensors": ("{}", b""),
    "no metadata": ('{"__metadata__":null}', b""),
    "something else of a tensor": (ONE.replace("[0,1]", '[0,1],"more":[1]') % "", b"x"),
    "tensors in another order": (ONE.replace("[0,1]", "[1,2]") % ',"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}', b"xy"),
    "nothing before something": (ONE % ',"b":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}', b"x"),
    "two in a byte": ('{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}', b"x"),
    "a scalar": ('{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', b"x"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_others_write_is_read_as_the_package_reads_it(name):
    file = of(*ACCEPTED[name])
    expected = {
        tensor: (one["dtype"], one["shape"], bytes(one["data"])) for tensor, one in safetensors.deserialize(file)
    }
    data = file[8 + header_length(file[:8], len(file)) :]
    found = {one.name: (one.code, list(one.shape), data[one.start : one.end]) for one in read(file).tensors}
    assert found == expected


REFUSED = {
    "nothing": (b"", "shorter"),
    "too short for a length": (b"\0" * 7, "shorter"),
    "a header that is too long": ((LONGEST + 1).to_bytes(8, "little") + b"{}", "at most"),
    "a header of all memory": (b"\xff" * 8 + b"{}", "at most"),
    "a header beyond the end": (of("{}")[:-1], "ends before"),
    "no header": (of(""), "begin as one"),
    "a list": (of("[]"), "begin as one"),
    "no JSON": (of('{"a":'), "not JSON"),
    "no UTF-8": ((3).to_bytes(8, "little") + b'{"\xff', "not JSON"),
    "more after it": (of("{}{}"), "not JSON"),
    "half a character": (of(ONE.replace('"a"', '"\\ud800"') % "", b"x"), "no text"),
    "a type that is none": (of(ONE.replace("U8", "U9") % "", b"x"), "a type that is none"),
    "no shape": (of('{"a":{"dtype":"U8","data_offsets":[0,1]}}', b"x"), "lacks"),
    "a tensor that is a number": (of('{"a":1}'), "lacks"),
    "a negative size": (of(ONE.replace("[1]", "[-1]") % "", b"x"), "a shape"),
    "a broken size": (of(ONE.replace("[1]", "[1.0]") % "", b"x"), "a shape"),
    "a size beyond 64 bits": (of(ONE.replace("[1]", "[1,18446744073709551616]") % "", b"x"), "a shape"),
    "sizes that overflow": (of(ONE.replace("[1]", "[4294967296,4294967296,4]") % "", b"x"), "a shape"),
    "a place that ends before it begins": (of(ONE.replace("[0,1]", "[1,0]") % "", b"x"), "a place"),
    "three ends": (of(ONE.replace("[0,1]", "[0,1,2]") % "", b"x"), "a place"),
    "a place beyond the end": (of(ONE.replace("[0,1]", "[0,2]").replace("[1]", "[2]") % "", b"x"), "follow the header"),
    "fewer bytes than its shape": (of(ONE.replace("[1]", "[2]") % "", b"x"), "another number"),
    "half a byte": (of('{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}', b"x"), "another number"),
    "a hole": (of(ONE.replace("[0,1]", "[1,2]") % "", b"xy"), "does not begin"),
    "bytes of nobody": (of(ONE % "", b"xy"), "follow the header"),
    "two tensors in one place": (of(ONE % ',"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}', b"x"), "overlaps"),
    "metadata that are numbers": (of('{"__metadata__":{"a":1}}'), "not texts"),
    "metadata within metadata": (of('{"__metadata__":{"a":{"b":"c"}}}'), "not texts"),
}  # fmt: skip
STRICTER = {
    "a name twice": (of(ONE % ',"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}', b"x"), "twice"),
    "a size twice": (of(ONE.replace('"shape":[1]', '"shape":[1],"shape":[1]') % "", b"x"), "twice"),
    "spaces before it": (of(" {}"), "begin as one"),
    "axes that numpy has not": (of(ONE.replace("[1]", json.dumps([1] * 65)) % "", b"x"), "a shape"),
    "axes that nobody multiplies": (of(ONE.replace("[1]", "[0,4294967296,4294967296]").replace("[0,1]", "[0,0]") % ""), "a shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_package_refuses_is_refused(name):
    file, why = REFUSED[name]
    with pytest.raises(safetensors.SafetensorError):
        safetensors.deserialize(file)
    with pytest.raises(CorruptObject, match=why):
        read(file)


@pytest.mark.parametrize("name", STRICTER)
def test_what_two_readers_may_read_differently_is_refused(name):
    file, why = STRICTER[name]
    with pytest.raises(CorruptObject, match=why):
        read(file)


def test_what_is_nested_without_end_is_refused():
    with pytest.raises(CorruptObject, match="not JSON"):
        read(of('{"a":' * 100_000))
    with pytest.raises(CorruptObject, match="not JSON"):
        read(of(ONE.replace("[1]", f"[{'9' * 5000}]") % "", b"x"))
    with pytest.raises(CorruptObject, match="NaN"):
        read(of(ONE.replace("[1]", "[NaN]") % "", b"x"))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TENSORS, st.data())
def test_damage_is_read_as_the_package_reads_it_or_refused(tensors, drawn):
    header = laid_out([(name, *one) for name, one in tensors.items()], {"a": "b"})
    file = bytearray(encode(header) + bytes(header.nbytes))
    for _ in range(drawn.draw(st.integers(1, 3))):
        at = drawn.draw(st.integers(0, len(file) - 1))
        file[at] = drawn.draw(st.sampled_from(b'\0\x01 "0129{}[],:aU8F'))
    file = bytes(file[: len(file) - drawn.draw(st.integers(0, 2))])
    try:
        found = read(file)
    except CorruptObject:
        return
    expected = {name: (one["dtype"], tuple(one["shape"])) for name, one in safetensors.deserialize(file)}
    assert {one.name: (one.code, one.shape) for one in found.tensors} == expected
    assert sum(prod(one.shape) * TYPES[one.code].bits // 8 for one in found.tensors) == found.nbytes


def test_headers_end_where_eight_bytes_do():
    found = encode(Header((Tensor("a", "U8", (1,), 0, 1),), {}))
    assert len(found) % 8 == 0 and found[8:].rstrip(b" ") == (ONE % "").encode()
