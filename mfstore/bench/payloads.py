"""The bytes that are moved: the same for the same seed, as compressible and as often stored before as is asked."""

from __future__ import annotations

from random import Random

from mfstore.bench.scenarios import Scenario

UNIT = 4096
"""Each so many bytes begin with random ones and end with zeros, as fio does it: every chunk, whatever its size and
the codec, then shrinks to about the same share."""
DISTINCT = 64 << 20
"""Bytes of different contents kept for one scenario; more objects take turns with them. It bounds the memory the
benchmark itself needs, beside one object of the largest size."""


def payload(size: int, compressible: int, *name: object) -> bytes:
    """``size`` bytes that depend on all arguments, of which a compressor can remove ``compressible`` per cent."""
    random = Random("/".join(map(str, name)))
    noise = UNIT * (100 - compressible) // 100
    if noise == UNIT:
        return random.randbytes(size)
    head = random.randbytes(min(size, 16))  # so that no two are equal
    units = range(len(head), size, UNIT)
    block = random.randbytes(noise * len(units))
    zeros = bytes(UNIT - noise)
    body = b"".join(block[at : at + noise] + zeros for at in range(0, noise * len(units), noise or 1)) if noise else b""
    return (head + (body or bytes(size)))[:size]


def contents(scenario: Scenario, seed: int) -> list[list[bytes]]:
    """For each of the scenario's sizes the different contents of its objects; object n has content n modulo their
    number."""
    return [
        [
            payload(size, scenario.compressible, seed, size, number)
            for number in range(max(1, min(count, DISTINCT // size)))
        ]
        for size, count in scenario.sizes
    ]


def bundle(scenario: Scenario, seed: int, number: int) -> dict[str, bytes]:
    """The artifacts of bundle ``number``, of which the scenario's share equals those of bundle 0, the first ones of
    many, or the beginning of each of a few."""
    many = scenario.count >= 10
    share = scenario.duplicate if number else 0
    artifacts: dict[str, bytes] = {}
    for size, count in scenario.sizes:
        for position in range(count):
            name = f"artifact_{size}_{position}"
            same = size * share // 100
            if many:
                same = size if position < count * share // 100 else 0
            data = b""
            if same:
                data = payload(size, scenario.compressible, seed, name, 0)[:same]
            if same < size:
                data += payload(size - same, scenario.compressible, seed, name, number)
            artifacts[name] = data
    return artifacts


def new_bytes(scenario: Scenario) -> int:
    """Of one bundle, how many bytes no other has."""
    if scenario.count >= 10:
        return sum(size * (count - count * scenario.duplicate // 100) for size, count in scenario.sizes)
    return sum(count * (size - size * scenario.duplicate // 100) for size, count in scenario.sizes)
