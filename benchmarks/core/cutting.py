"""How fast cuts are found, by each implementation that this processor has, beside FastCDC and a pass of BLAKE3:
``python -m benchmarks.core.cutting build/bench-cutting.json``."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
from blake3 import blake3
from fastcdc.fastcdc_cy import fastcdc_cy

from mfstore._core.chunk import cut, implementations

WIDTHS = (1, 2, 4, 8)
"""Bytes of the words that are hashed: as wide as the items of an array, up to 8. Everything else has words of 1."""
SIZES = {"1 MiB": 1 << 20, "256 MiB": 256 << 20}
"""What fits into a second-level cache, and what does not."""
ROUNDS = 5
"""The best one counts: what else the machine does takes CPU time too, through its caches."""
LEAST = 0.2
"""Seconds that a round takes at least."""
KIB = 1 << 10


@dataclass(frozen=True)
class Rate:
    """Of one way to cut noise."""

    name: str
    size: str
    gigabytes: float
    """10^9 bytes for each second of CPU."""


def rate(size: int, call: Callable[[], object]) -> float:
    """GB for each second of CPU."""
    best, calls = float("inf"), 1
    for _ in range(ROUNDS):
        while True:
            begin = process_time()
            for _ in range(calls):
                call()
            spent = process_time() - begin
            if spent >= LEAST:
                break
            calls *= 2
        best = min(best, spent / calls)
    return round(size / best / 1e9, 2)


def ways(data: bytes) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each way to cut this, and what else reads it once."""
    for name in implementations():
        for width in WIDTHS if name != "best" else ():
            yield f"mfstore, {name}, words of {width}", partial(cut, data, width, 0, True, implementation=name)
    yield "FastCDC, 64 KiB", lambda: list(fastcdc_cy(data, 16 * KIB, 64 * KIB, 256 * KIB, fat=False))
    yield "BLAKE3, one thread", lambda: blake3(data, max_threads=1).digest()


def measured() -> Iterator[Rate]:
    """All ways, on noise: what has few cuts and no runs."""
    for size, length in SIZES.items():
        for name, call in ways(np.random.default_rng(59).bytes(length)):
            yield Rate(name, size, rate(length, call))


def cutting_table(found: list[Rate]) -> None:
    """As docs/performance.md has it."""
    rates = {(one.name, one.size): one.gigabytes for one in found}
    print("| GB for each second of CPU | " + " | ".join(SIZES) + " |\n|---|" + "--:|" * len(SIZES))
    for name in dict.fromkeys(one.name for one in found):
        print(f"| {name} | " + " | ".join(f"{rates[name, size]:.1f}" for size in SIZES) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core.cutting", description=__doc__)
    parser.add_argument("output", type=Path, help="the JSON file that python -m benchmarks.report shows")
    given = parser.parse_args()
    found = []
    for one in measured():
        found.append(one)
        print(f"{one.name:30} {one.size:8} {one.gigabytes:6.2f} GB/s", file=sys.stderr, flush=True)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps({"cutting": [asdict(one) for one in found]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
