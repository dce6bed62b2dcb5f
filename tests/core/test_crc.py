"""The CRC kernels against arithmetic bit by bit, zlib, and the catalogue's check values."""

import base64
import random
import threading
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore._core import crc
from tests.rigs.soak import lasting

MODELS = {"CRC64NVME": (0xAD93D23594C93659, 64), "CRC32C": (0x1EDC6F41, 32), "CRC32": (0x04C11DB7, 32)}
CHECKS = {"CRC64NVME": 0xAE8B14860A799888, "CRC32C": 0xE3069283, "CRC32": 0xCBF43926}  # of b"123456789"

names = pytest.mark.parametrize("name", crc.NAMES)
implementations = pytest.mark.parametrize("implementation", ["best", "table", "clmul", "vclmul"])


def oracle(name, data):
    """Of every prefix, the empty one first. Long division in normal bit order, as the definition reads: the kernels
    work reflected."""
    poly, width = MODELS[name]
    top, ones = 1 << width, (1 << width) - 1
    state = ones
    found = [0]
    for byte in data:
        state ^= int(f"{byte:08b}"[::-1], 2) << (width - 8)
        for _ in range(8):
            state <<= 1
            if state & top:
                state ^= poly | top
        found.append(int(f"{state:0{width}b}"[::-1], 2) ^ ones)
    return found


def need(implementation):
    if implementation not in crc.implementations():
        pytest.skip(f"this processor has no {implementation}")


@names
@implementations
def test_check_value(name, implementation):
    need(implementation)
    assert crc.update(name, b"123456789", implementation=implementation) == CHECKS[name]
    assert crc.update(name, b"", implementation=implementation) == 0
    assert crc.update(name, b"", CHECKS[name], implementation=implementation) == CHECKS[name]


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [  # RFC 3720, B.4; the NVMe base specification, 64b CRC examples
        ("CRC32C", bytes(32), 0x8A9136AA),
        ("CRC32C", b"\xff" * 32, 0x62A8AB43),
        ("CRC32C", bytes(range(32)), 0x46DD794E),
        ("CRC64NVME", bytes(4096), 0x6482D367EB22B64E),
        ("CRC64NVME", b"\xff" * 4096, 0xC0DDBA7302ECA3AC),
    ],
)
def test_published_values(name, data, expected):
    assert crc.update(name, data) == expected


@names
@implementations
def test_every_length_matches_the_oracle(name, implementation):
    need(implementation)
    data = random.Random(name).randbytes(1300)
    found = [crc.update(name, data[:n], implementation=implementation) for n in range(len(data) + 1)]
    assert found == oracle(name, data)


@names
@implementations
def test_alignment(name, implementation):
    need(implementation)
    data = memoryview(random.Random(1).randbytes(3000))
    for offset in range(18):
        for n in (0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 511, 512, 513, 1024, 2900):
            part = data[offset : offset + n]
            expected = crc.update(name, bytes(part), implementation="table")
            assert crc.update(name, part, implementation=implementation) == expected


@names
@implementations
def test_chaining_at_every_split(name, implementation):
    need(implementation)
    data = random.Random(2).randbytes(600)
    whole = crc.update(name, data, implementation=implementation)
    assert whole == oracle(name, data)[-1]
    for at in range(601):
        first = crc.update(name, data[:at], implementation=implementation)
        assert crc.update(name, data[at:], first, implementation=implementation) == whole


@implementations
@settings(max_examples=lasting(200), deadline=None)
@given(data=st.binary(max_size=5000), value=st.integers(0, 2**32 - 1))
def test_crc32_is_zlibs(implementation, data, value):
    need(implementation)
    assert crc.update("CRC32", data, value, implementation=implementation) == zlib.crc32(data, value)


@pytest.mark.second
@names
@implementations
@pytest.mark.parametrize("size", [65536, 65537, 1_000_003, 8 << 20])
def test_large(name, implementation, size):
    need(implementation)
    data = random.Random(size).randbytes(size)
    found = crc.update(name, data, implementation=implementation)
    assert found == crc.update(name, data, implementation="table")
    if name == "CRC32":
        assert found == zlib.crc32(data)


@names
@settings(max_examples=lasting(200), deadline=None)
@given(a=st.binary(max_size=700), b=st.binary(max_size=700))
def test_combine(name, a, b):
    first, second = crc.update(name, a), crc.update(name, b)
    assert crc.combine(name, first, second, len(b)) == crc.update(name, a + b)


@names
def test_combine_over_lengths_nobody_has(name):
    # Zeros of any length, by doubling: 2**63 bytes cannot be summed, but the halves must agree.
    lengths = {1: crc.update(name, b"\0")}
    for k in range(1, 63):
        half = lengths[1 << (k - 1)]
        lengths[1 << k] = crc.combine(name, half, half, 1 << (k - 1))
    assert lengths[1 << 20] == crc.update(name, bytes(1 << 20))
    one, big = lengths[1], lengths[1 << 62]
    assert crc.combine(name, one, big, 1 << 62) == crc.combine(name, big, one, 1)


@names
@given(data=st.data())
def test_encoding(name, data):
    width = MODELS[name][1] // 8
    value = data.draw(st.integers(0, 2 ** (8 * width) - 1))
    text = crc.encode(name, value)
    assert text == base64.b64encode(value.to_bytes(width, "big")).decode()
    assert crc.decode(name, text) == value


@names
@pytest.mark.parametrize("text", ["", "AAAA", "AAAAAA==-3", "AAAAAAAAAAA=-3", "AAAAAA", "AAAAAAAA", " AAAAAA==", "é"])
def test_what_is_no_checksum_is_refused(name, text):
    with pytest.raises(ValueError):
        crc.decode(name, text)


def test_bad_arguments():
    for call in (
        lambda: crc.update("CRC16", b""),
        lambda: crc.update("crc32", b""),
        lambda: crc.update("CRC32", b"", 1 << 32),
        lambda: crc.update("CRC32", b"", -1),
        lambda: crc.update("CRC32", b"", implementation="neon"),
        lambda: crc.combine("", 0, 0, 0),
        lambda: crc.combine("CRC64NVME", 1 << 64, 0, 0),
        lambda: crc.encode("CRC32", 1 << 32),
        lambda: crc.encode("SHA256", 0),
        lambda: crc.decode("SHA256", "AAAAAA=="),
    ):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(OverflowError):
        crc.combine("CRC32", 0, 0, -1)
    with pytest.raises(TypeError):
        crc.update("CRC32", "text")


def test_threads_share_the_tables():
    data = random.Random(3).randbytes(1 << 20)
    expected = {name: crc.update(name, data, implementation="table") for name in crc.NAMES}
    wrong = []

    def work():
        for _ in range(20):
            wrong.extend(name for name in crc.NAMES if crc.update(name, data) != expected[name])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
