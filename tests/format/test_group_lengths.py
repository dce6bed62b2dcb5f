"""How long a group is, from the header of its frame: compared with another implementation."""

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mfstore._core.codec import GROUP_LIMIT
from mfstore.errors import CorruptObject
from mfstore.format.groups import group_length

LENGTHS = st.one_of(st.integers(0, 300), st.sampled_from([255, 256, 257, 65_535, 65_791, 65_792, 1 << 20, GROUP_LIMIT]))


def frame(length, window=0, **options):
    parameters = zstandard.ZstdCompressionParameters(compression_level=1, window_log=window, **options)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(bytes(length))


@given(length=LENGTHS, window=st.sampled_from([0, 10, 20]), checksum=st.booleans())
def test_any_frame_that_tells_its_length(length, window, checksum):
    encoded = frame(length, window, write_checksum=checksum)
    assert group_length(memoryview(encoded)) == zstandard.frame_content_size(encoded) == length


def test_a_frame_with_a_dictionary_id():
    encoded = frame(70_000)
    head = bytes([encoded[4] | 1]) + encoded[5:5] + b"\x07"  # its id, of one byte, comes before the length
    changed = encoded[:4] + head + encoded[5:]
    assert zstandard.frame_content_size(changed) == 70_000 == group_length(changed)


@pytest.mark.parametrize(
    "encoded",
    [
        b"", b"\x28\xb5\x2f", b"\x28\xb5\x2f\xfd", frame(70_000)[:8], bytes(20), frame(9, write_content_size=False),
        frame(GROUP_LIMIT + 1),
    ],
    ids=["nothing", "half a magic", "no descriptor", "cut short", "zeros", "no length", "too long"],
)  # fmt: skip
def test_what_is_no_group(encoded):
    with pytest.raises(CorruptObject, match="group (does not begin|claims too much)"):
        group_length(encoded)
