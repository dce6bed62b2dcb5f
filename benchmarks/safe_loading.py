"""What ``safe=True`` costs: ``python -m benchmarks.safe_loading``. CPU time of a load with and without, of objects that
lie in memory: the best of several.
"""

import time

import numpy as np
import pandas as pd
import pyarrow as pa

import mfstore

OBJECTS = {
    "a million floats in a list": lambda: [number / 7 for number in range(1_000_000)],
    "300,000 dicts of two": lambda: [{"a": number, "b": str(number)} for number in range(300_000)],
    "an array of 1,000 floats": lambda: np.arange(1000.0),
    "a frame of 3 columns, 100 rows": lambda: pd.DataFrame(
        {"a": np.arange(100), "b": np.arange(100.0), "c": [str(number) for number in range(100)]}
    ),
    "an array of 128 MB": lambda: np.arange(16_000_000.0),
    "a frame of 128 MB": lambda: pd.DataFrame(np.random.default_rng(1).random((1_000_000, 16))),
    "an Arrow table of 64 MB": lambda: pa.table({"a": np.arange(8_000_000.0)}),
}
SECONDS = 2.0
"""For each object, with and without: small ones are loaded often, large ones at least three times."""


def best(load):
    """The least CPU time of a load, in seconds."""
    found, times = 0.0, []
    while found < SECONDS or len(times) < 3:
        before = time.process_time()
        load()
        times.append(time.process_time() - before)
        found += times[-1]
    return min(times)


def main():
    with mfstore.open("memory://") as store:
        print(f"{'':32} {'without':>10} {'safe':>10}")
        for name, make in OBJECTS.items():
            key = store.put(make())
            plain, safe = (best(lambda key=key, safe=safe: store.get(key, safe=safe)) for safe in (False, True))
            print(f"{name:32} {plain * 1000:7.2f} ms {safe * 1000:7.2f} ms")


if __name__ == "__main__":
    main()
