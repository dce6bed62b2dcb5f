"""CPU of objects that are no large arrays, in and out of mfstore and of what does as much: zstd of the pickle and one
BLAKE3 pass. ``python -m benchmarks.core.everyday build/bench-everyday.json``."""

import argparse
import datetime
import decimal
import json
import pickle
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import zstandard
from blake3 import blake3

import mfstore

ROUNDS = 3
"""Each way is measured so often, one after the other, and the best one counts: what else a machine does takes CPU time
too, through its caches."""
LEVEL = 1
"""Of zstd, for the peer."""
PICKLE = 5
AFTER = 2000
"""Lists that are made after each call, so that a search for cycles that it put off is in its time."""
PEER = "peer"
COMPRESS = ("balanced", "fast")
"""mfstore's default, and what shows how much of that is the codec."""


@dataclass
class Point:
    """A dataclass as people write them."""

    name: str
    when: int
    values: tuple[float, float]
    labels: list[str]


class Everyday(NamedTuple):
    """One object of the table."""

    name: str
    make: Callable[[random.Random, float], object]


REGISTERED: list[Everyday] = []


def everyday(
    name: str,
) -> Callable[[Callable[[random.Random, float], object]], Callable[[random.Random, float], object]]:
    """Of a function that makes it, a row of the table."""

    def register(make: Callable[[random.Random, float], object]) -> Callable[[random.Random, float], object]:
        REGISTERED.append(Everyday(name, make))
        return make

    return register


@everyday("200 000 sets of 5 numbers")
def sets(rng: random.Random, scale: float) -> object:
    return [{rng.randrange(10**6) for _ in range(5)} for _ in range(round(200_000 * scale))]


@everyday("10 000 arrays of 100 values")
def arrays(rng: random.Random, scale: float) -> object:
    numbers = np.random.default_rng(rng.randrange(1 << 30))
    return [numbers.random(100) for _ in range(round(10_000 * scale))]


@everyday("500 000 dicts of 3 keys")
def dicts(rng: random.Random, scale: float) -> object:
    return [{"id": number, "name": f"n{number}", "v": rng.random()} for number in range(round(500_000 * scale))]


@everyday("a text that is not ASCII, 5 000 000 letters")
def text(rng: random.Random, scale: float) -> object:
    return "".join([chr(rng.randrange(0x400, 0x450)) for _ in range(round(5_000_000 * scale))])


@everyday("a random forest of 60 trees")
def forest(rng: random.Random, scale: float) -> object:
    from sklearn.ensemble import RandomForestRegressor

    table = np.random.default_rng(rng.randrange(1 << 30)).random((max(60, round(3000 * scale)), 8))
    return RandomForestRegressor(60, n_jobs=1, random_state=0).fit(table, table.sum(1))


@everyday("a frame of texts, categories and floats, 300 000 rows")
def frame(rng: random.Random, scale: float) -> object:
    import pandas as pd

    rows = round(300_000 * scale)
    return pd.DataFrame(
        {
            "name": [f"name {rng.randrange(50_000)}" for _ in range(rows)],
            "kind": pd.Categorical([rng.choice("abcdef") for _ in range(rows)]),
            "value": np.random.default_rng(rng.randrange(1 << 30)).random(rows),
        }
    )


@everyday("30 MB of random bytes")
def noise(rng: random.Random, scale: float) -> object:
    return rng.randbytes(round(30_000_000 * scale))


@everyday("100 000 dataclasses")
def dataclasses(rng: random.Random, scale: float) -> object:
    return [
        Point(f"point {number}", number, (rng.random(), rng.random()), [rng.choice("abc"), "seen"])
        for number in range(round(100_000 * scale))
    ]


@everyday("5000 dicts of dicts of floats")
def nested(rng: random.Random, scale: float) -> object:
    return {
        f"run {run}": {part: {f"epoch {epoch}": rng.random() for epoch in range(30)} for part in ("train", "test")}
        for run in range(round(5_000 * scale))
    }


@everyday("500 000 tuples")
def tuples(rng: random.Random, scale: float) -> object:
    return [(number, f"word {rng.randrange(9999)}", rng.random()) for number in range(round(500_000 * scale))]


@everyday("a frame of object columns, 200 000 rows")
def object_frame(rng: random.Random, scale: float) -> object:
    import pandas as pd

    rows = range(round(200_000 * scale))
    return pd.DataFrame(
        {
            "mixed": pd.Series([rng.choice((None, rng.random(), "x")) for _ in rows], dtype=object),
            "list": pd.Series([[rng.randrange(99)] for _ in rows], dtype=object),
            "flag": pd.Series([rng.random() < 0.5 for _ in rows], dtype=object),
        }
    )


@everyday("200 000 datetimes")
def datetimes(rng: random.Random, scale: float) -> object:
    first = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    return [first + datetime.timedelta(seconds=rng.randrange(10**8)) for _ in range(round(200_000 * scale))]


@everyday("200 000 Decimals")
def decimals(rng: random.Random, scale: float) -> object:
    return [decimal.Decimal(rng.randrange(10**7)) / 100 for _ in range(round(200_000 * scale))]


@everyday("a sparse matrix of 2 000 000 values")
def sparse(rng: random.Random, scale: float) -> object:
    import scipy.sparse

    numbers = np.random.default_rng(rng.randrange(1 << 30))
    return scipy.sparse.random(20_000, 10_000, density=0.01 * scale, format="csr", random_state=numbers)


@everyday("1000 frames of 20 rows")
def frames(rng: random.Random, scale: float) -> object:
    import pandas as pd

    return {
        f"part {part}": pd.DataFrame(
            {"key": [f"k{key}" for key in range(20)], "value": [rng.random() for _ in range(20)]}
        )
        for part in range(round(1_000 * scale))
    }


@dataclass(frozen=True)
class Cost:
    """One object, in CPU seconds: there and back."""

    name: str
    size: int
    """Of the pickle, in bytes."""
    peer: tuple[float, float]
    """zstd of the pickle and BLAKE3 over it."""
    plain: tuple[float, float]
    """The pickle alone, without a file, without a digest."""
    own: dict[str, tuple[float, float]]
    """mfstore's, by its setting ``compress``."""
    stored: dict[str, int]
    """Bytes that are stored then, by ``PEER`` and those settings."""

    def share(self, back: bool, compress: str = COMPRESS[0]) -> float:
        """mfstore's CPU as a share of the peer's, on the way in or ``back``."""
        return self.own[compress][back] / self.peer[back]


def peer_in(value: object) -> bytes:
    data = pickle.dumps(value, PICKLE)
    blake3(data).digest()
    return zstandard.ZstdCompressor(LEVEL).compress(data)


def peer_out(stored: bytes) -> object:
    data = zstandard.ZstdDecompressor().decompress(stored)
    blake3(data).digest()
    return pickle.loads(data)


def mfstore_in(value: object, root: Path, compress: str) -> tuple[Path, str]:
    path = Path(tempfile.mkdtemp(dir=root)) / "store"
    return path, mfstore.open(path, fsync="none", compress=compress).put(value)


def taken(stored: bytes | tuple[Path, str]) -> int:
    """Bytes of what the peer holds, or of a store's files, but what a store of any size has."""
    if isinstance(stored, bytes):
        return len(stored)
    return sum(path.stat().st_size for path in stored[0].rglob("[!.]*") if path.is_file())


def moved(stored: tuple[Path, str]) -> tuple[Path, str]:
    """The same in another place, of which this process remembers nothing to be whole."""
    path, key = stored
    return path.rename(path.with_name("moved")), key


def mfstore_out(stored: tuple[Path, str]) -> object:
    return mfstore.open(stored[0]).get(stored[1])


def timed(call: Callable[..., Any], *args: object) -> tuple[float, Any]:
    begin = process_time()
    result = call(*args)
    # What was made may be searched for cycles only when more is made.
    [[] for _ in range(AFTER)]
    return process_time() - begin, result


def measure(entry: Everyday, root: Path, scale: float, rounds: int) -> Cost:
    """One row. What is stored goes below ``root``."""
    # Made anew for each way: pickle leaves the UTF-8 of a text inside of it, and dicts the hashes of theirs.
    stream = pickle.dumps(entry.make(random.Random(entry.name), scale), PICKLE)
    best: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}

    def note(way: str, there: float, back: float) -> None:
        known = best.setdefault(way, [there, back])
        best[way] = [min(known[0], there), min(known[1], back)]

    def both(way: str, there: Callable[..., Any], back: Callable[[Any], object], *more: object) -> None:
        value = pickle.loads(stream)
        spent, stored = timed(there, value, *more)
        del value
        sizes[way] = taken(stored)
        if way in COMPRESS:
            stored = moved(stored)
        note(way, spent, timed(back, stored)[0])

    for _ in range(rounds):
        both(PEER, peer_in, peer_out)
        both("plain", pickle.dumps, pickle.loads, PICKLE)
        for compress in COMPRESS:
            both(compress, mfstore_in, mfstore_out, root, compress)
    pairs = {way: (round(there, 4), round(back, 4)) for way, (there, back) in best.items()}
    own = {one: pairs[one] for one in COMPRESS}
    stored = {one: sizes[one] for one in (PEER, *COMPRESS)}
    return Cost(entry.name, len(stream), pairs[PEER], pairs["plain"], own, stored)


def measured(names: str, scale: float, rounds: int) -> Iterator[Cost]:
    """The rows of which one of ``names`` (with commas between them) is part of the function's name; all without."""
    parts = list(filter(None, names.split(",")))
    for entry in REGISTERED:
        if parts and not any(part == entry.make.__name__ for part in parts):
            continue
        root = Path(tempfile.mkdtemp(prefix="mfstore-bench-"))
        try:
            yield measure(entry, root, scale, rounds)
        finally:
            shutil.rmtree(root)


def line(cost: Cost) -> str:
    cells = [
        f"{compress} in {cost.own[compress][0]:.3f}/{cost.peer[0]:.3f} = {cost.share(False, compress):.2f}, "
        f"out {cost.own[compress][1]:.3f}/{cost.peer[1]:.3f} = {cost.share(True, compress):.2f}"
        for compress in COMPRESS
    ]
    cells.append(f"pickle {cost.plain[0]:.3f}, {cost.plain[1]:.3f}")
    cells.append("stored " + ", ".join(f"{way} {size}" for way, size in cost.stored.items()))
    return f"{cost.name:54} {'; '.join(cells)}"


def everyday_table(found: list[Cost]) -> None:
    """As docs/performance.md has it."""
    heads = ["peer in", "mfstore in", "", '"fast"', "pickle", "peer out", "mfstore out", "", '"fast"', "unpickle"]
    print("| CPU seconds | MB | " + " | ".join(heads) + " |\n|---|" + "--:|" * (len(heads) + 1))
    for cost in found:
        cells = [f"{cost.size / 1e6:.1f}"]
        for back in (False, True):
            cells += [f"{cost.peer[back]:.3f}", f"{cost.own[COMPRESS[0]][back]:.3f}"]
            cells += [f"{cost.share(back):.2f} x", f"{cost.share(back, COMPRESS[1]):.2f} x", f"{cost.plain[back]:.3f}"]
        print(f"| {cost.name} | " + " | ".join(cells) + " |")
    print("\n| mfstore against the peer | in | out |\n|---|--:|--:|")
    for name, value in (("median", statistics.median), ("worst", max)):
        cells = [f"{value([cost.share(back) for cost in found]):.2f} x" for back in (False, True)]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print('\n| what they store, MB | peer | mfstore |  | "fast" |  |\n|---|--:|--:|--:|--:|--:|')
    for cost in found:
        cells = [f"{cost.stored[PEER] / 1e6:.2f}"]
        for compress in COMPRESS:
            size = cost.stored[compress]
            cells += [f"{size / 1e6:.2f}", f"{size / cost.stored[PEER]:.2f} x"]
        print(f"| {cost.name} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core.everyday", description=__doc__)
    parser.add_argument("output", type=Path, help="the JSON file that python -m benchmarks.report shows")
    parser.add_argument("--objects", default="", help=f"of {', '.join(one.make.__name__ for one in REGISTERED)}")
    parser.add_argument("--scale", type=float, default=1.0, help="times the items of each object")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    found: list[Cost] = []
    for cost in measured(given.objects, given.scale, given.rounds):
        found.append(cost)
        print(line(cost), file=sys.stderr, flush=True)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps({"everyday": [asdict(one) for one in found]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
