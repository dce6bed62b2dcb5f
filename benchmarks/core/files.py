"""Bytes of files: CSV, Parquet, Arrow, npz and SQLite."""

import io
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pandas as pd

from benchmarks.core.series import STEPS, Version, scaled, series
from benchmarks.core.tables import appended, cells, sales


def csv(frame: pd.DataFrame, header: bool = True) -> bytes:
    return frame.to_csv(index=False, header=header).encode()


@series("CSV text of sales, 1 % lines appended")
def csv_appended(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    rows = scaled(50_000, scale)
    text, count = csv(sales(rng, rows)), rows
    yield Version(text)
    for _ in STEPS:
        more = csv(sales(rng, max(rows // 100, 1), count), header=False)
        count += rows // 100
        text += more
        yield Version(text, more)


@series("CSV text of sales, 20 cells edited and the first line dropped")
def csv_edited(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    lines = csv(sales(rng, scaled(50_000, scale, 100))).splitlines(keepends=True)
    yield Version(b"".join(lines))
    for _ in STEPS:
        del lines[1]
        new = b""
        for at in rng.choice(np.arange(1, len(lines)), 20, replace=False):
            parts = lines[at].split(b",")
            parts[3] = f"{rng.lognormal(3, 1):.2f}".encode()
            lines[at], new = b",".join(parts), new + parts[3]
        yield Version(b"".join(lines), new)


@series("Parquet file of sales, written anew with 1 % rows appended", needs="pyarrow")
def parquet_appended(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    rows = scaled(80_000, scale)
    frame = sales(rng, rows)
    yield Version(frame.to_parquet(row_group_size=16_000))
    for _ in STEPS:
        more = sales(rng, max(rows // 100, 1), len(frame))
        frame = appended(frame, more)
        yield Version(frame.to_parquet(row_group_size=16_000), cells(more))


@series("Arrow IPC file of sales in batches of 8192, the first 100 rows dropped", needs="pyarrow")
def arrow_ipc_dropped(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    frame = sales(rng, scaled(60_000, scale, 2000))
    yield Version(ipc(frame))
    for _ in STEPS:
        frame = frame.iloc[100:].reset_index(drop=True)
        yield Version(ipc(frame), b"")


@series("Arrow IPC file of sales in batches of 8192, 1 % rows appended", needs="pyarrow")
def arrow_ipc_appended(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    rows = scaled(60_000, scale)
    frame = sales(rng, rows)
    yield Version(ipc(frame))
    for _ in STEPS:
        more = sales(rng, max(rows // 100, 1), len(frame))
        frame = appended(frame, more)
        yield Version(ipc(frame), cells(more))


def ipc(frame: pd.DataFrame) -> bytes:
    import pyarrow

    table, sink = pyarrow.Table.from_pandas(frame), io.BytesIO()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=8192)
    return sink.getvalue()


@series("npz file of six arrays, one replaced")
def npz_replaced(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    size = scaled(150_000, scale)
    arrays = {f"array {number}": rng.normal(size=size) for number in range(6)}
    yield Version(npz(arrays))
    for step in STEPS:
        arrays = {**arrays, f"array {step % 6}": rng.normal(size=size)}
        yield Version(npz(arrays), arrays[f"array {step % 6}"].tobytes())


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    """As ``numpy.savez`` writes it, but for the time of each member, which is the same in each run."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, values in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as file:
                np.lib.format.write_array(file, values)
    return sink.getvalue()


@contextmanager
def database(rng: np.random.Generator, rows: int) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE article (id INTEGER PRIMARY KEY, name TEXT, price REAL, note TEXT)")
        connection.execute("CREATE INDEX by_name ON article (name)")
        insert(connection, rng, rows, 0)
        yield connection


def insert(connection: sqlite3.Connection, rng: np.random.Generator, rows: int, first: int) -> bytes:
    new = [
        (first + number, f"article {rng.integers(0, 1 << 40):x}", round(rng.lognormal(3, 1), 2), rng.bytes(30).hex())
        for number in range(rows)
    ]
    with connection:
        connection.executemany("INSERT INTO article VALUES (?, ?, ?, ?)", new)
    return "".join(f"{number}{name}{price}{note}" for number, name, price, note in new).encode()


@series("SQLite file, one row changed")
def sqlite_row_changed(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    rows = scaled(40_000, scale)
    with database(rng, rows) as connection:
        yield Version(connection.serialize())
        for _ in STEPS:
            note = rng.bytes(30).hex()
            with connection:
                connection.execute("UPDATE article SET note = ? WHERE id = ?", (note, int(rng.integers(0, rows))))
            yield Version(connection.serialize(), note.encode())


@series("SQLite file with an index, 1 % rows appended")
def sqlite_appended(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    rows = scaled(40_000, scale)
    count = rows
    with database(rng, rows) as connection:
        yield Version(connection.serialize())
        for _ in STEPS:
            new = insert(connection, rng, max(rows // 100, 1), count)
            count += max(rows // 100, 1)
            yield Version(connection.serialize(), new)
