"""mfstore page as a person and as a script use it."""

import json
import re

import pytest

import mfstore as library
from tests.rigs.command_line import mfstore
from tests.rigs.metaflow_trees import task


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with library.open("store", fsync="none") as store:
        for number in range(3):
            store.save({"a": number, "b": "same"}, ref="models/a")
        store.put(1, "other")
    return "store"


def held(path):
    return json.loads(re.search('id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])


def test_a_page_is_written_whole(place, tmp_path):
    file = tmp_path / "store.html"
    file.write_text("before")
    done = mfstore("page", place, "-o", file)
    assert done.stdout.startswith(f"{file}: ") and done.stdout.endswith("kB\n")
    found = held(file)
    assert (found["place"], found["title"]) == ("store", "store") and found["entries"]["name"] == ["models/a", "other"]
    told = json.loads(mfstore("page", place, "-o", file, "--json").stdout)
    assert told == {"output": str(file), "bytes": file.stat().st_size}
    assert len(found["compared"]) == 1 and str(tmp_path) not in file.read_text()
    mfstore(
        "page",
        "-o",
        file,
        "--prefix",
        "models/",
        "--history",
        2,
        "--no-diff",
        "--title",
        "<T>",
        env={"MFSTORE_STORE": place},
    )
    found = held(file)
    assert (found["title"], found["entries"]["n"], found["entries"]["total"]) == ("<T>", [2], [3])
    assert not found["compared"] and "<title>&lt;T&gt;</title>" in file.read_text()
    assert [*tmp_path.glob(".mfstore-*")] == []


def test_what_was_there_stays_when_it_fails(place, tmp_path):
    file = tmp_path / "store.html"
    file.write_text("before")
    assert "no store there yet" in mfstore("page", "elsewhere", "-o", file, code=1).stderr
    (tmp_path / "file").write_text("no folder")
    mfstore("page", place, "-o", "no/folder/x.html", code=1)
    assert "replaced by one: choose another file" in mfstore("page", place, "-o", "/dev/null", code=1).stderr
    assert file.read_text() == "before" and sorted(path.name for path in tmp_path.iterdir()) == [
        "file",
        "store",
        "store.html",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("store",), "'-o' / '--output'"),
        (("-o", "x"), "Missing argument 'URL'"),
        (("store", "-s", "other", "-o", "x"), "several places"),
        (("store", "-o", "x", "--history", "0"), "--history"),
        (("store", "-o", "."), "is a directory"),
        (("store", "-o", "x", "--region", "nowhere"), "only for places in S3"),
    ],
)
def test_wrong_usage(place, arguments, says):
    assert says in mfstore("page", *arguments, code=2, env={"MFSTORE_STORE": ""}).stderr


def test_in_python(place, tmp_path):
    with library.open(place) as store:
        library.write_page(store, tmp_path / "of-store.html", title="Mine")
        assert store.refs["other"], "it is still open"
    library.write_page(place, "of-url.html", history=1)
    assert held(tmp_path / "of-store.html")["title"] == "Mine"
    assert held(tmp_path / "of-url.html")["entries"]["n"] == [1, 1]
    with pytest.raises(library.errors.InvalidRange):
        library.write_page(place, "x.html", history=0)


def test_of_a_root_of_metaflow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task(tmp_path / "root", "Flow", "1", "start", 1, {"x": 1})
    mfstore("page", "--metaflow", "root", "-o", "root.html", "--prefix", "Flow/", env={"MFSTORE_STORE": "elsewhere"})
    text = (tmp_path / "root.html").read_text()
    found = held(tmp_path / "root.html")
    assert (found["kind"], found["place"], found["entries"]["name"]) == ("root", "root", ["Flow/start"])
    assert str(tmp_path) not in text
    assert "--diff: only of a store" in mfstore("page", "--metaflow", "root", "-o", "x", "--diff", code=2).stderr
    assert "several places" in mfstore("page", "root", "--metaflow", "root", "-o", "x", code=2).stderr
    assert not (tmp_path / "x").exists()
