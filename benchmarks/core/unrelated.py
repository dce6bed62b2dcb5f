"""What naming a base costs where it has nothing of what is saved: the same kind of data, from another seed."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd

import mfstore
from benchmarks.core.series import SEED, Series

REPEATED = 5
"""The least of so many is taken: other work on the machine only adds. Medians of three differed by up to 2.4 times."""
BYTES = 8 << 20
LIMIT = 1.3
"""What a save with a base may take of one without, where nothing is gained."""

INTEGERS = ("int8", "uint8", "int16", "int32", "int64", "uint64")
FLOATS = ("float16", "float32", "float64", "complex128")


@dataclass(frozen=True)
class Unrelated:
    """CPU seconds of the process for one save, the least, and what it stored."""

    name: str
    without: float
    based: float
    bytes_without: int
    bytes_based: int


Kind = tuple[str, Callable[[np.random.Generator], object]]
Pair = tuple[str, object, object]


def plain_kinds() -> Iterator[Kind]:
    """Arrays of one kind each, bytes and text: 8 MiB."""
    for dtype in INTEGERS:
        most = min(1000, np.iinfo(dtype).max)
        yield (
            f"{dtype}, 0 to {most - 1}",
            lambda rng, dtype=dtype, most=most: rng.integers(0, most, count(dtype), dtype),
        )
        yield f"{dtype}, any", lambda rng, dtype=dtype: np.frombuffer(rng.bytes(BYTES), dtype)
    for dtype in FLOATS:
        yield f"{dtype}, normal", lambda rng, dtype=dtype: rng.normal(size=count(dtype)).astype(dtype)
    yield "float64, 2 decimals", lambda rng: np.round(rng.normal(100, 10, count("float64")), 2)
    yield "float64, running sum", lambda rng: np.cumsum(rng.normal(size=count("float64")))
    yield "datetime64, about one a minute", minutes
    yield "bool, one in ten", lambda rng: rng.random(count("bool")) < 0.1
    yield "categories", lambda rng: pd.Categorical.from_codes(rng.integers(0, 12, BYTES), [f"c{n}" for n in range(12)])
    yield "bytes, random", lambda rng: rng.bytes(BYTES)
    yield "bytes, few", lambda rng: rng.integers(0, 9, BYTES, np.uint8).tobytes()
    yield "text of 5 000 words", text
    yield "1 MB of text", lambda rng: text(rng)[:1_000_000]
    yield "1 MB of float64", lambda rng: rng.normal(size=125_000)
    yield "200 kB of int64, 0 to 999", lambda rng: rng.integers(0, 1000, 25_000)
    yield "2 000 arrays of 500 float64", lambda rng: list(rng.normal(size=(2000, 500)))


def count(dtype: str) -> int:
    return BYTES // np.dtype(dtype).itemsize


def minutes(rng: np.random.Generator) -> object:
    return np.datetime64("2026-01-01") + np.cumsum(rng.integers(30, 90, count("int64"))).astype("timedelta64[s]")


def text(rng: np.random.Generator) -> str:
    words = np.array(["".join(map(chr, rng.integers(97, 123, rng.integers(2, 10)))) for _ in range(5000)], object)
    return " ".join(words[np.minimum(rng.geometric(1 / 400, BYTES // 7) - 1, 4999)])


def pairs_of_kinds(seed: int = SEED, kinds: Iterable[Kind] | None = None) -> Iterator[Pair]:
    """Of each kind of data one object, and one that has nothing of it."""
    for name, make in plain_kinds() if kinds is None else kinds:
        yield name, make(np.random.default_rng(seed)), make(np.random.default_rng(seed + 1))


def pairs_of_series(entries: Iterable[Series], scale: float, seed: int = SEED) -> Iterator[Pair]:
    """The first versions of each series by two seeds."""
    for entry in entries:
        old, new = (next(entry.versions(scale, number)).value for number in (seed, seed + 1))
        yield entry.name, old, new


def measure_unrelated(name: str, old: object, new: object) -> Unrelated | None:
    """A save of ``new`` into a store that has ``old``, told of it and not; None if most of it is there already."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    stored = {}
    for number in range(REPEATED + 1):
        for based in (False, True):
            root = Path(tempfile.mkdtemp(prefix="mfstore-bench-"))
            try:
                key = mfstore.open(root, fsync="none").put(old)
                store = mfstore.open(root, fsync="none")
                begin = process_time()
                store.put(new, base=key if based else None)
                if number:  # the first warms up
                    seconds[based].append(process_time() - begin)
                saved = store.session
            finally:
                shutil.rmtree(root)
            if saved.duplicate > saved.logical / 2:
                return None
            stored[based] = saved.stored
    without, with_base = (min(seconds[based]) for based in (False, True))
    return Unrelated(name, without, with_base, stored[False], stored[True])
