"""What files of a store in S3 cost: budgets on requests and on bytes."""

import threading
import uuid
from functools import partial

import fsspec
import numpy as np
import pandas as pd
import pytest
from fsspec.callbacks import Callback

from mfstore.errors import PathNotFound
from mfstore.filesystem import StoreFileSystem


@pytest.fixture(scope="module")
def s3(radosgw):
    bucket = radosgw.create_bucket(f"fsspec-{uuid.uuid4().hex[:12]}")
    options = {
        "endpoint_url": radosgw.url, "region_name": radosgw.region, "aws_access_key_id": radosgw.access_key,
        "aws_secret_access_key": radosgw.secret_key,
    }  # fmt: skip
    fs, _ = fsspec.url_to_fs(f"mfstore+s3://{bucket}/place!/", skip_instance_cache=True, **options)
    fs.pipe("warm", b"")
    yield fs
    fs.store.close()
    StoreFileSystem.clear_instance_cache()


class Spent:
    """What is asked for within a block, by operation, and how many bytes of packs are read."""

    def __init__(self, fs, monkeypatch):
        self.fs, self.read = fs, 0
        backend, read_many = fs.store.backend, fs.store.backend.read_many

        def watched(reads):
            listed = [*reads]
            self.read += sum(read.length for read in listed)
            return read_many(listed)

        monkeypatch.setattr(backend, "read_many", watched)

    def __enter__(self):
        self.before, self.read = self.fs.store.metrics().s3.requests, 0
        return self

    def __exit__(self, *_):
        now = self.fs.store.metrics().s3.requests
        self.requests = {}
        for (operation, _), count in now.items():
            self.requests[operation] = self.requests.get(operation, 0) + count
        for (operation, _), count in self.before.items():
            self.requests[operation] -= count
        self.requests = {name: count for name, count in self.requests.items() if count}
        self.total = sum(self.requests.values())


@pytest.fixture
def spent(s3, monkeypatch):
    return Spent(s3, monkeypatch)


def test_a_range_is_read_alone(s3, spent):
    data = np.random.default_rng(3).bytes(8 << 20)
    s3.pipe("large", data)
    with spent:
        assert s3.cat_file("large", 5_000_000, 5_000_100) == data[5_000_000:5_000_100]
    assert spent.total == 3 and 100 <= spent.read <= 256 << 10  # the ref, the recipe, the chunk
    starts = [1_000_000, 1_100_000, 7_000_000, 1_000_000]
    with spent:
        found = s3.cat_ranges(["large"] * 4, starts, [start + 10 for start in starts])
    assert found == [data[start : start + 10] for start in starts]
    assert spent.total <= 5 and spent.read <= 1 << 20
    with spent:
        assert s3.info("large")["size"] == len(data)
    assert spent.total <= 2 and spent.read == 0
    with spent, s3.open("large", block_size=1 << 20) as file:
        for at in (100, 200, 4_000_000):
            file.seek(at)
            assert file.read(10) == data[at : at + 10]
    assert spent.total <= 2 + 4 and spent.read <= 6 << 20


def test_what_was_read_stays_on_this_host(s3, tmp_path, monkeypatch):
    data = np.random.default_rng(6).bytes(1 << 20)
    s3.pipe("read/twice", data)
    options = s3.storage_options | {"cache": str(tmp_path / "cache")}
    fs = StoreFileSystem(skip_instance_cache=True, **options)
    assert fs.cat("read/twice") == data
    with (spent := Spent(fs, monkeypatch)):
        assert fs.cat("read/twice") == data
    assert spent.total == 2  # the ref and its recipe
    fs.store.close()


def test_a_file_in_a_tree_is_read_alone(s3, spent, tmp_path):
    generator = np.random.default_rng(7)
    for number in range(20):
        (tmp_path / f"{number:02}").write_bytes(generator.bytes(100_000))
    s3.store.put_tree(tmp_path, "tree")
    with spent:
        assert s3.cat_file("tree/07", 10, 20) == (tmp_path / "07").read_bytes()[10:20]
    assert spent.total <= 6 and spent.read <= 512 << 10
    with spent:
        found = s3.cat_ranges(["tree/03", "tree/04"], [0, 0], [None, None])
    assert found == [(tmp_path / name).read_bytes() for name in ("03", "04")]
    assert spent.total <= 6


def test_columns_of_parquet_are_read_alone(s3, spent):
    generator = np.random.default_rng(4)
    frame = pd.DataFrame({f"c{number}": generator.random(50_000) for number in range(20)})
    with s3.open("table.parquet", "wb") as file:
        frame.to_parquet(file)
    with spent, s3.open("table.parquet", cache_type="none") as file:
        assert pd.read_parquet(file, columns=["c7"]).equals(frame[["c7"]])
    assert spent.total <= 8 and spent.read <= s3.size("table.parquet") / 5


def test_many_small_files(s3, spent):
    files = {f"many/{number:03}": b"%d" % number for number in range(50)}
    s3.pipe(files)
    with spent:
        assert s3.ls("many", detail=False) == [*files]
    assert spent.requests == {"ListObjectsV2": 1}  # of up to a thousand
    with spent:
        assert s3.cat([*files]) == files
    assert spent.requests == {"GetObject": 100}  # refs, and recipes that hold the bytes
    with spent:
        assert s3.du("many") == sum(map(len, files.values()))
    assert spent.total <= 102
    with spent:
        assert len(s3.ls("many")) == 50 == len(s3.find("many"))
    assert spent.total <= 4, "what was seen is not read again"


def test_many_files_come_and_go_at_once(s3, tmp_path, monkeypatch):
    meet = threading.Barrier(2)

    def together(work, *paths, pairs=None, **options):
        if pairs is None:
            meet.wait(timeout=100)  # each waits for the other one
        work(*paths, pairs=pairs, **options)

    monkeypatch.setattr(s3, "put_file", partial(together, s3.put_file))
    monkeypatch.setattr(s3, "get_file", partial(together, s3.get_file))
    files = {"a": b"1", "b": b"2"}
    (tmp_path / "from").mkdir()
    for name, data in files.items():
        (tmp_path / "from" / name).write_bytes(data)
    counted = Callback()
    s3.put(f"{tmp_path}/from/*", "both/", callback=counted)
    assert s3.cat("both", recursive=True) == {f"both/{name}": data for name, data in files.items()}
    s3.get("both/*", f"{tmp_path}/to/", callback=counted)
    assert {path.name: path.read_bytes() for path in (tmp_path / "to").iterdir()} == files
    assert (counted.size, counted.value) == (2, 4)


def test_what_lies_deeper_is_not_read(s3, spent):
    s3.pipe({"deep/a": b"1"} | {f"deep/down/{number}/x": b"%d" % number for number in range(20)})
    with spent:
        assert [(info["name"], info["size"]) for info in s3.ls("deep")] == [("deep/a", 1), ("deep/down", 0)]
        assert s3.glob("deep/*") == ["deep/a", "deep/down"] and len(s3.glob("deep/down/*")) == 20
        assert [*s3.find("deep", maxdepth=2, withdirs=True)] == ["deep", "deep/a", "deep/down", *s3.glob("deep/down/*")]
    assert spent.requests["GetObject"] <= 4 + 8  # a and what it names; what paths of directories name: nothing


def test_what_is_not_there(s3, spent):
    with spent, pytest.raises(PathNotFound):
        s3.cat_file("none")
    assert spent.total == 1
    with spent:
        assert not s3.exists("deep/er/none")
    assert spent.total <= 4  # the ref, what it could lie in, and a listing


def test_names_are_copied_and_not_bytes(s3, spent):
    s3.pipe("a/large", np.random.default_rng(5).bytes(4 << 20))
    with spent:
        s3.cp("a/large", "b/large")
    assert spent.read == 0 and spent.total <= 20
    with spent:
        s3.mv("b/large", "c/large")
    assert spent.read == 0 and spent.total <= 30 and s3.find("b") == []
