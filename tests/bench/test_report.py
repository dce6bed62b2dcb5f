"""What a benchmark says: verdicts, reports, comparisons, files. On results made up here."""

import copy
import functools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from mfstore.bench import peers
from mfstore.bench.ceilings import Ceilings, measure_ceilings
from mfstore.bench.html import page
from mfstore.bench.measure import Row, Usage, slices, spread, tail
from mfstore.bench.report import summary_lines, tables, verdict_lines
from mfstore.bench.results import Cell, Results, read_results
from mfstore.bench.scenarios import ARTIFACTS, OBJECTS, Scenario
from mfstore.bench.verdict import Site, judge
from mfstore.cli import main
from mfstore.cli.bench import PEERS
from mfstore.errors import CorruptObject, NotFound, Unsupported

MIB = 1 << 20
CEILINGS = Ceilings(4, 5e9, 18e9, 3e9, 1e9, 2e9, 3e9, 1e9, 10e9)
S3, NEAR, DIRECTORY = Site("s3", loopback=False), Site("s3", loopback=True), Site("directory", loopback=False)


def cell(operation="get", size=MIB, count=2000, seconds=10.0, cpu=1.0, machine=None, engine="native", **more):
    """One cell of ``count`` objects, one after the other."""
    scenario = Scenario(OBJECTS, ((size, count),), (operation,))
    fields = {name: more.pop(name) for name in [*more] if name in ("concurrency", "failure", "layer", "engine")}
    scenario = replace(scenario, **fields)
    numbers = {
        "retries": 0,
        "throttled": 0,
        "failures": 0,
        "requests": {"GetObject": count},
        "failed": 0,
        "errors": (),
        **more,
    }
    return Cell(
        scenario=scenario, number=0, operation=operation, engine=engine, objects=count, wanted=count,
        bytes=size * count, usage=Usage(seconds, cpu, machine, 100 << 20), verified=size * count, stored=None,
        **measured(size, count, seconds), **numbers,
    )  # fmt: skip


@functools.cache  # most cells have the same rows
def measured(size, count, seconds):
    rows = [
        Row(number, number * seconds / count, seconds / count, 0.001, size, 1, size, None) for number in range(count)
    ]
    return {
        "latency": spread([row.seconds for row in rows]), "first_byte": spread([row.first_byte for row in rows]),
        "slices": slices(rows, 0, seconds), "tail": tail(rows, 0),
    }  # fmt: skip


@pytest.mark.slow
def test_ceilings_are_plausible(tmp_path):
    found = measure_ceilings(tmp_path)
    for name in (
        "hash_one",
        "hash_all",
        "encode_lz4",
        "encode_zstd",
        "decode_zstd",
        "loopback",
        "disk_write",
        "disk_read",
    ):
        assert 1e6 < getattr(found, name) < 1e13, name
    assert list(tmp_path.iterdir()) == []
    assert measure_ceilings().disk_write is None


# ---- documents -----------------------------------------------------------------------------------------


def document(*cells, **run):
    about = {
        "version": "0.1.0", "python": "3.11.7", "cpus": 4, "system": "Linux x86_64", "kind": "s3", "url": "s3://b/p",
        "endpoint": "https://s3.example.org", "server": None, "clock_skew": 0, "seed": 0, "seconds": 4.0,
        "started": "2026-01-01T00:00:00+00:00", **run,
    }  # fmt: skip
    plan = {"requests_fewest": {"GetObject": 1}, "requests_most": {"GetObject": 2000}, "bytes_sent": 1, "bytes_received": 2,
            "bytes_stored": 3, "cost": 0.5}  # fmt: skip
    judged = [replace(found, verdict=judge(found, CEILINGS, S3, cells)) for found in cells]
    results = Results(about, plan, {name: getattr(CEILINGS, name) for name in CEILINGS.__slots__}, judged)
    return json.loads(json.dumps(results.to_dict()))


ALL = [
    cell("put", concurrency=4), cell("put", concurrency=16, seconds=5.0), cell("get", concurrency=4),
    cell("get", concurrency=16, seconds=3.0), cell("head", size=1), cell("list", count=1), cell("delete", size=1),
    cell("save", layer=ARTIFACTS, engine="store"), cell("load", layer=ARTIFACTS, engine="store", count=2),
]  # fmt: skip


def test_tables_name_every_cell_once():
    found = tables(document(*ALL))
    assert [title for title, _, _ in found] == ["put", "get", "head", "list", "delete", "save", "load"]
    assert [len(rows) for _, _, rows in found] == [2, 2, 1, 1, 1, 1, 1]
    for _, columns, rows in found:
        assert all(len(row) == len(columns) for row in rows)
    (_, columns, rows) = found[0]
    row = dict(zip(columns, rows[0], strict=True))
    assert (row["what"], row["objects/s"], row["MB/s"], row["ms\np50"], row["veri-\nfied"]) == (
        "2000 x 1 MiB, at 4", "200", "210", "5.0", "100%",
    )  # fmt: skip
    assert (row["ms\np99.9"], row["first ms\np99"], row["CPU"]) == ("5.0", "1.0", "10%")
    few = dict(zip(found[-1][1], found[-1][2][0], strict=True))
    assert (few["ms\np50"], few["ms\np90"]) == ("5,000", "-")


def test_failures_stand_out():
    bad = cell("get", failed=7, errors=("HTTP 500",))
    lines = summary_lines(document(bad))
    assert lines[0].startswith("success   99.651%: 7 of 2007 failed")
    assert any("HTTP 500" in line for line in lines)
    assert "7 FAILED" in tables(document(bad))[0][2][0][0]
    short = replace(cell("get"), wanted=5000)
    assert "time limit after 2000 of 5000" in tables(document(short))[0][2][0][0]


def test_verdict_lines_bring_equal_advice_together():
    lines = verdict_lines(document(*[cell("get")] * 5)["cells"])
    assert len([line for line in lines if line.startswith("bound by")]) == 1
    assert "and 2 more" in lines[0]


class Checked(HTMLParser):
    """Notes what a browser would fetch or run, and whether tags close."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "iframe", "img", "object"), tag
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.fetched.append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "br"):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.slow
def test_the_page_needs_nothing_else_and_escapes_what_it_shows():
    evil = "<script>alert('x')</script>"
    shown = document(*ALL, cell("get", errors=(evil,), failed=1), url=f"s3://b/{evil}", server=evil)
    text = page(shown)
    checked = Checked()
    checked.feed(text)
    assert checked.open == []
    assert checked.fetched == []
    used = re.findall(r'(?:xlink:)?href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert {first or second for first, second in used} <= set(checked.ids)
    assert text.count("<svg") == text.count("<figure>") >= 6
    assert len(checked.ids) == len(set(checked.ids)), "two plots share an id"
    assert text == page(copy.deepcopy(shown)), "the same results give the same page"
    for word in (
        "What it is bound by",
        "Throughput over time",
        "How to read this",
        "Cost at the prices given: at most 0.5000",
    ):
        assert word in text


@pytest.mark.second
@pytest.mark.parametrize("cells", [[], [cell("list", count=1)], [cell("get", size=1, count=1)]])
def test_pages_of_little(cells):
    assert "</html>" in page(document(*cells))


def test_files_that_are_no_results(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(NotFound):
        read_results(path)
    for text in ("{", "[]", '{"format": "other"}', "\udcff"):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(CorruptObject):
            read_results(path)
    path.write_text('{"format": "mfstore-bench", "schema": 99}')
    with pytest.raises(Unsupported, match="newer"):
        read_results(path)
    path.write_text(json.dumps(document(cell())))
    assert read_results(path) == document(cell())


def test_results_that_lack_a_field_are_told_so(tmp_path, capsys):
    """At every place: written by hand, or by something else."""
    document = json.loads(json.dumps(Results({"url": "u"}, {}, {}, [cell()]).to_dict()))
    whole = document["cells"][0]
    for missing in [*whole, None]:
        document["cells"] = [{name: value for name, value in whole.items() if name != missing}]
        if missing is None:
            del document["cells"]
        path = tmp_path / "results.json"
        path.write_text(json.dumps(document))
        for arguments in (["--from", str(path)], ["--compare", str(path), str(path)]):
            code = 0
            try:
                main(["bench", *arguments])
            except SystemExit as ended:
                code = ended.code
            said = capsys.readouterr().err
            assert code in (0, 1) and "Traceback" not in said
            assert code == 0 or ("results lack something" in said and str(path) in said)


def test_help_names_the_peers_there_are():
    assert PEERS.split(", ") == list(peers.PEERS)
