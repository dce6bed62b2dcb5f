"""Libraries that open URLs by fsspec, each as its users call it."""

import pickle

import fsspec
import numpy as np
import pandas as pd
import pytest

import mfstore

FRAME = pd.DataFrame({"day": np.arange(1000), "sales": np.linspace(0.0, 1.0, 1000)})


def test_pandas(url, tmp_path):
    FRAME.to_parquet(f"{url}sales.parquet")
    assert pd.read_parquet(f"{url}sales.parquet", columns=["sales"]).equals(FRAME[["sales"]])
    options = {"store": str(tmp_path / "store")}
    FRAME.to_csv("mfstore://days/sales.csv", index=False, storage_options=options)
    assert pd.read_csv("mfstore://days/sales.csv", storage_options=options)["day"].equals(FRAME["day"])
    mfstore.open(tmp_path / "store").put(FRAME, "frames/sales")
    assert pd.read_pickle(f"{url}frames/sales").equals(FRAME)


def test_polars(url):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    with fsspec.open(f"{url}a.parquet", "wb") as file:
        frame.write_parquet(file)
    with fsspec.open(f"{url}a.parquet") as file:
        assert pl.read_parquet(file, columns=["b"]).equals(frame[["b"]])
    with fsspec.open(f"{url}a.parquet") as file:
        assert pl.scan_parquet(file).filter(pl.col("a") > 1).collect().height == 2


def test_pyarrow(url):
    pa, ds = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.dataset")
    from pyarrow.fs import FileType, FSSpecHandler, PyFileSystem

    fs, _ = fsspec.url_to_fs(url)
    arrow = PyFileSystem(FSSpecHandler(fs))
    table = pa.table({"k": ["x", "y"] * 50, "v": range(100)})
    ds.write_dataset(table, "data", filesystem=arrow, format="parquet", partitioning=["k"])
    dataset = ds.dataset("data", filesystem=arrow, partitioning=["k"])
    assert dataset.files == ["data/x/part-0.parquet", "data/y/part-0.parquet"]
    assert dataset.to_table(filter=ds.field("k") == "x", columns=["v"]).num_rows == 50
    assert ds.dataset("data", filesystem=fs, partitioning=["k"]).count_rows() == 100
    arrow.move("data/x", "moved")
    kinds = [info.type for info in arrow.get_file_info(["moved/part-0.parquet", "moved", "data/x"])]
    assert kinds == [FileType.File, FileType.Directory, FileType.NotFound]
    arrow.delete_dir("data")
    assert fs.find("") == ["moved/part-0.parquet"]


@pytest.fixture
def zarr():
    zarr = pytest.importorskip("zarr")
    from zarr.core.sync import cleanup_resources

    yield zarr
    cleanup_resources()  # its thread, which would go on until the process ends


def test_zarr(zarr, url):
    from zarr.storage import FsspecStore

    data = np.arange(10_000.0).reshape(100, 100)
    array = zarr.create_array(FsspecStore.from_url(f"{url}a.zarr"), shape=(100, 100), chunks=(40, 50), dtype="f8")
    array[:] = data
    assert np.array_equal(zarr.open_array(f"{url}a.zarr", mode="r")[30:60, 7], data[30:60, 7])
    zarr.open_group(f"{url}g.zarr", mode="w").create_array("inner/x", shape=(4,), dtype="i4")[:] = 3
    group = zarr.open_group(f"{url}g.zarr", mode="r")
    assert list(group.keys()) == ["inner"] and group["inner/x"][:].sum() == 12


def test_universal_pathlib(url, tmp_path):
    UPath = pytest.importorskip("upath").UPath  # noqa: N806
    root = UPath(url)
    path = root / "a" / "b" / "c.txt"
    path.write_text("text")
    assert str(path) == f"{url}a/b/c.txt" and path.parts == ("a", "b", "c.txt") and path.suffix == ".txt"
    assert UPath(str(path)).read_text() == pickle.loads(pickle.dumps(path)).read_text() == "text"
    assert path.stat().st_size == 4 and path.is_file() and path.parent.is_dir() and not (root / "x").exists()
    assert list(root.iterdir()) == [root / "a"] and [str(one) for one in root.rglob("*.txt")] == [str(path)]
    assert path.relative_to(root / "a") == (root / "a/b/c.txt").relative_to(root / "a")
    moved = path.rename(root / "d.txt")
    assert moved.read_bytes() == b"text" and not path.exists()
    moved.unlink()
    assert not moved.exists()
    assert UPath("a/b", protocol="mfstore", store=str(tmp_path / "store")) == root / "a/b"


def test_duckdb(url):
    duckdb = pytest.importorskip("duckdb")
    FRAME.to_parquet(f"{url}data/1.parquet")
    fs, _ = fsspec.url_to_fs(url)
    with duckdb.connect() as connection:
        connection.register_filesystem(fs)
        assert connection.sql("select count(*) from 'mfstore://data/*.parquet' where day < 10").fetchall() == [(10,)]
        assert connection.sql(f"select count(*) from '{url}data/1.parquet'").fetchall() == [(1000,)]
        connection.sql("copy (select 1 as a) to 'mfstore://out.parquet'")
        assert connection.sql("from 'mfstore://out.parquet'").fetchall() == [(1,)]


@pytest.mark.filterwarnings("ignore::Warning")  # dask's own, of what pandas gives up
def test_dask(url):
    dask, dd = pytest.importorskip("dask"), pytest.importorskip("dask.dataframe")
    with dask.config.set(scheduler="sync"):
        dd.from_pandas(FRAME, npartitions=2).to_parquet(f"{url}frame")
        assert dd.read_parquet(f"{url}frame")["sales"].sum().compute() == pytest.approx(500.0)


@pytest.mark.slow
def test_distributed_checkpoints_of_torch(url):
    torch = pytest.importorskip("torch")
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    from torch.distributed.checkpoint import _fsspec_filesystem as of_fsspec

    model = {"w": torch.arange(1000.0), "inner": {"b": torch.ones(5)}}
    empty = {"w": torch.zeros(1000), "inner": {"b": torch.zeros(5)}}
    with pytest.warns(UserWarning):  # that nothing is distributed, and that there is no fsync
        dcp.save(model, storage_writer=of_fsspec.FsspecWriter(f"{url}steps/1"))
        dcp.load(empty, storage_reader=of_fsspec.FsspecReader(f"{url}steps/1"))
    assert torch.equal(empty["w"], model["w"]) and torch.equal(empty["inner"]["b"], model["inner"]["b"])
