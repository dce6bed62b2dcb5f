"""Libraries that take filesystems of fsspec, each by its own door, on radosgw."""

import asyncio

import fsspec
import pytest

from mfstore.s3.filesystem import S3FileSystem
from tests.s3.filesystem.conftest import arguments

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")


@pytest.fixture(scope="module", autouse=True)
def protocol():
    """As the entry point has it, also where mfstore was installed without it."""
    fsspec.register_implementation("mfs3", S3FileSystem, clobber=True)


@pytest.fixture
def options(radosgw):
    return arguments(radosgw)


@pytest.fixture
def table():
    return pd.DataFrame({"a": range(1000), "b": [f"text {number}" for number in range(1000)]})


def test_pandas(options, place, table):
    url = f"mfs3://{place}/table"
    table.to_parquet(f"{url}.parquet", storage_options=options)
    assert pd.read_parquet(f"{url}.parquet", columns=["a"], storage_options=options).equals(table[["a"]])
    table.to_csv(f"{url}.csv.gz", index=False, storage_options=options)
    assert pd.read_csv(f"{url}.csv.gz", storage_options=options).equals(table)


def test_pyarrow_datasets(files, place, table):
    from pyarrow import dataset

    written = pa.table(table.assign(part=table["a"] % 2))
    dataset.write_dataset(
        written, f"{place}/set", filesystem=files, format="parquet", partitioning=["part"],
        existing_data_behavior="overwrite_or_ignore",
    )  # fmt: skip
    found = dataset.dataset(f"{place}/set", filesystem=files, partitioning=["part"])
    assert len(found.files) == 2
    assert found.to_table(filter=dataset.field("part") == 1, columns=["a"]).num_rows == 500


def test_polars(files, place, table):
    pl = pytest.importorskip("polars")
    with files.open(f"{place}/t.parquet", "wb") as file:
        pl.DataFrame({"a": table["a"].to_list()}).write_parquet(file)
    with files.open(f"{place}/t.parquet") as file:
        assert pl.read_parquet(file)["a"].sum() == table["a"].sum()


@pytest.mark.parametrize("by_url", [True, False])
def test_zarr(options, place, by_url):
    zarr = pytest.importorskip("zarr")
    np = pytest.importorskip("numpy")
    if by_url:
        store = zarr.storage.FsspecStore.from_url(f"mfs3://{place}/group", storage_options=options)
    else:
        store = zarr.storage.FsspecStore(S3FileSystem(**options, asynchronous=True), path=f"{place}/group")
    group = zarr.open_group(store, mode="w")
    array = group.create_array("x", shape=(100, 100), chunks=(10, 100), dtype="i4")
    array[:] = np.arange(10_000).reshape(100, 100)
    found = zarr.open_group(store, mode="r")
    assert list(found.array_keys()) == ["x"]
    assert (found["x"][5:25] == np.arange(500, 2500).reshape(20, 100)).all()
    del zarr.open_group(store, mode="a")["x"]
    assert not list(zarr.open_group(store, mode="r").array_keys())


def test_universal_pathlib(options, place, registered):
    upath = pytest.importorskip("upath")
    root = upath.UPath(f"s3://{place}", **options)
    assert isinstance(root.fs, S3FileSystem)
    (root / "d" / "a.txt").write_text("here")
    assert (root / "d" / "a.txt").read_text() == "here"
    assert [path.name for path in (root / "d").iterdir()] == ["a.txt"]
    assert (root / "d").is_dir() and not (root / "none").exists()
    (root / "d" / "a.txt").unlink()
    assert not (root / "d" / "a.txt").exists()


def test_duckdb(files, place, table):
    duckdb = pytest.importorskip("duckdb")
    files.pipe(f"{place}/t.csv", table.to_csv(index=False).encode())
    with duckdb.connect() as connection:
        connection.register_filesystem(files)
        url = f"mfs3://{place}/t.csv"
        assert connection.execute(f"select sum(a) from read_csv('{url}')").fetchall() == [(499_500,)]


def test_coroutines_share_operations(options, place, monkeypatch):
    """What is asked for in one turn of the loop."""
    made = S3FileSystem(**options, asynchronous=True, skip_instance_cache=True)
    started, real = [], made.client.aget_many

    def counted(items, **how):
        started.append(len(items))
        return real(items, **how)

    monkeypatch.setattr(made.client, "aget_many", counted)

    async def run():
        await asyncio.gather(*(made._pipe_file(f"{place}/{number}", b"%d" % number) for number in range(20)))
        found = await asyncio.gather(
            *(made._cat_file(f"{place}/{number}") for number in range(20)),
            made._cat_file(f"{place}/12", -1),
            made._cat_file(f"{place}/none"), return_exceptions=True,
        )  # fmt: skip
        assert found[:21] == [b"%d" % number for number in range(20)] + [b"2"]
        assert isinstance(found[21], FileNotFoundError)
        assert (await made._info(f"{place}/1"))["size"] == 1 and (await made._info(place))["type"] == "directory"
        assert await made._exists(f"{place}/1") and not await made._exists(f"{place}/none")
        assert len(await made._find(place)) == len(await made._ls(place)) == 20
        assert await made._cat_ranges([f"{place}/12"] * 2, [0, 1], [1, 2]) == [b"1", b"2"]
        await made._rm(place, recursive=True)
        assert not await made._exists(place)

    asyncio.run(run())
    made.client.close()
    assert started[0] == 22
