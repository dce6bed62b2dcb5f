"""URLs of what is in stores."""

import fsspec
import pytest

from mfstore.errors import Unsupported
from mfstore.filesystem.urls import Place, of_path, parse


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("mfstore:///data/store!/models/churn", Place("/data/store", "models/churn")),
        ("mfstore:///data/store!", Place("/data/store", "")),
        ("mfstore:///data/store", Place("/data/store", "")),
        ("mfstore:///data/a!b/store!/x!/y", Place("/data/a!b/store", "x!/y")),
        ("mfstore://~/store!/x", Place("~/store", "x")),
        ("mfstore+s3://bucket/prefix!/runs/1/", Place("s3://bucket/prefix", "runs/1")),
        ("mfstore+s3://bucket!/x", Place("s3://bucket", "x")),
        ("mfstore+s3://bucket/prefix", Place("s3://bucket/prefix", "")),
        ("mfstore+az://container/prefix!/x", Place("az://container/prefix", "x")),
        ("mfstore+abfss://c@account.dfs.core.windows.net/p!/x", Place("abfss://c@account.dfs.core.windows.net/p", "x")),
        ("mfstore+gs://bucket/prefix!/x/y", Place("gs://bucket/prefix", "x/y")),
        ("mfstore://s3://bucket/prefix!/x", Place("s3://bucket/prefix", "x")),
        ("mfstore://memory://name!/x", Place("memory://name", "x")),
        ("mfstore://models/churn", Place(None, "models/churn")),
        ("mfstore://models/churn@1", Place(None, "models/churn@1")),
        ("mfstore://", Place(None, "")),
        ("/models/churn", Place(None, "models/churn")),
        ("a!/b", Place(None, "a!/b")),
        ("s3://bucket!/x", Place(None, "s3://bucket!/x")),
    ],
)
def test_what_a_url_says(url, place):
    assert parse(url) == place
    if place.store and "://" in url and not place.store.startswith("~"):
        assert parse(of_path(place.store, place.path)) == place


def test_a_file_url_of_a_store_is_its_path():
    assert of_path("file:///data/my%20store", "x") == "mfstore:///data/my store!/x"


def test_fsspec_takes_them_apart(fs, tmp_path):
    fs.pipe("a/b.txt", b"text")
    url = f"mfstore://{tmp_path}/store!/a/b.txt"
    with fsspec.open(url) as file:
        assert file.read() == b"text" and file.full_name == url
    with fsspec.open("mfstore://a/b.txt", store=f"{tmp_path}/store") as file:
        assert file.read() == b"text"
    kept = {"cache_storage": str(tmp_path / "cache")}
    with fsspec.open(f"simplecache::{url}", "rt", simplecache=kept) as file:
        assert file.read() == "text"
    found, path = fsspec.url_to_fs(url)
    assert path == "a/b.txt" and found.unstrip_protocol(path) == url
    assert fsspec.open_files(f"mfstore://{tmp_path}/store!/a/*")[0].full_name == url


def test_the_store_may_be_that_of_the_command_line(fs, tmp_path, monkeypatch):
    fs.pipe("x", b"1")
    monkeypatch.setenv("MFSTORE_STORE", f"{tmp_path}/store")
    assert fsspec.open("mfstore://x").fs.cat("x") == b"1"
    monkeypatch.delenv("MFSTORE_STORE")
    with pytest.raises(Unsupported, match="which store"):
        fsspec.filesystem("mfstore", skip_instance_cache=True).cat("x")


def test_a_store_is_no_file_of_another_file_system():
    with pytest.raises(Unsupported, match=r"mfstore\+s3://bucket/prefix!/name"):
        fsspec.open("mfstore://x::memory://store")
