"""Tables as files, by the libraries that they are of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfstore.errors import Unsupported
from mfstore.exporting.formats import CSV, PARQUET, node_of, unfit
from mfstore.views.arrow import arrow_table
from mfstore.views.frames import frame_of, series_of
from mfstore.views.polars_frames import polars_frame

if TYPE_CHECKING:
    from mfstore.views.view import View


def write_parquet(view: View, path: Path) -> None:
    """A frame or a table as its own library writes it, with index and types."""
    node = node_of(view)
    if frame_of(node) is not None:
        _by(view, PARQUET, lambda table: table.to_parquet(str(path), engine="pyarrow"))
    elif polars_frame(node) is not None:
        _by(view, PARQUET, lambda table: table.write_parquet(path))
    elif arrow_table(node) is not None:
        _by(view, PARQUET, lambda table: _arrow_parquet(table, path))
    else:
        raise unfit(view, PARQUET, f"it is a {view.type}, and no table")


def write_csv(view: View, path: Path) -> None:
    """A frame, a series or a table as its own library writes it."""
    node = node_of(view)
    if frame_of(node) is not None or series_of(node) is not None:
        _by(view, CSV, lambda table: table.to_csv(str(path), compression=None))
    elif polars_frame(node) is not None:
        _by(view, CSV, lambda table: table.write_csv(path))
    elif arrow_table(node) is not None:
        _by(view, CSV, lambda table: _arrow_csv(table, path))
    else:
        raise unfit(view, CSV, f"it is a {view.type}, and no table")


def _by(view: View, called: str, write: Any) -> None:
    table = view.load()
    try:
        write(table)
    except ImportError as error:
        raise Unsupported(f"to write {called} takes a library that is missing: {error}",
                          hint="pip install pyarrow") from error  # fmt: skip
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # Of whatever class: each library has its own for what the format cannot say.
        raise unfit(view, called, f"{type(error).__name__}: {error}") from error


def _arrow_parquet(table: Any, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(table if isinstance(table, pa.Table) else pa.Table.from_batches([table]), path)


def _arrow_csv(table: Any, path: Path) -> None:
    from pyarrow import csv

    csv.write_csv(table, path)
