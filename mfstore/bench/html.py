"""The report as one page that needs nothing else: no script, no style sheet, no picture from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mfstore.bench import plots
from mfstore.bench.cloud_peers import PEERS_OF
from mfstore.bench.compare import missed
from mfstore.bench.report import (
    client_lines,
    duration,
    head_lines,
    number,
    of_mix,
    pace_lines,
    rate,
    size,
    tables,
    verdicts,
    wholes,
)

ALL_PEERS = {name for peers in PEERS_OF.values() for name in peers}
STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #5f6368; --line: #d9dce0; --card: #f6f7f9;
  --accent: #0072b2; --bad: #c0392b; --paper: #fff;
  --plot-0: #0072b2; --plot-1: #d55e00; --plot-2: #009e73; --plot-3: #cc79a7; --plot-4: #e69f00; --plot-5: #56b4e9;
  --plot-6: #7f7f7f; --plot-7: #000; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --soft: #a0a5ab; --line: #3a3f45; --card: #1f2327; --accent: #6db8e8; --bad: #ff8a78;
    --paper: #14171a;
    --plot-0: #4da3e0; --plot-1: #f58b4c; --plot-2: #2cc79a; --plot-3: #e3a3c7; --plot-4: #f2c14e; --plot-5: #9ad4f5;
    --plot-6: #a6a6a6; --plot-7: #fff; }
}
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 1180px; padding: 2rem 1.5rem; }
h1 { font-size: 1.7rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p.meta, .note { color: var(--soft); margin: .3rem 0; font-size: .9rem; }
.tiles { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); margin: 1.4rem 0; }
.tile { background: var(--card); border-radius: 8px; padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; line-height: 1.25; }
.tile span { color: var(--soft); font-size: .85rem; }
.bad b { color: var(--bad); }
ol.verdicts { list-style: none; margin: 0; padding: 0; }
ol.verdicts li { border-left: 4px solid var(--accent); background: var(--card); border-radius: 0 8px 8px 0;
  margin: .6rem 0; padding: .6rem 1rem; }
ol.verdicts small { color: var(--soft); display: block; }
p, li, dd { overflow-wrap: anywhere; }
figure { border: 1px solid var(--line); border-radius: 8px; margin: .6rem 0; overflow-x: auto; padding: .6rem; }
figure svg { display: block; height: auto; min-width: 640px; width: 100%; }
figure svg text { fill: var(--ink); }
@media (max-width: 600px) { body { padding: 1rem .8rem; } th:first-child, td:first-child { min-width: 8rem; } }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem .3rem 0; text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: pre-line; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 12rem; }
th.text, td.text { text-align: left; }
dt { font-weight: 600; margin-top: .5rem; } dd { margin: 0; color: var(--soft); }
"""
TITLES = {
    "put": "Storing objects", "get": "Reading objects", "head": "Asking for sizes", "list": "Listing",
    "delete": "Deleting objects", "save": "Saving artifacts", "load": "Loading artifacts", "mixed": "Mixed operations",
}  # fmt: skip
TERMS = (
    ("MB/s, objects/s", "Of the whole measurement, from the first start to the last end. 1 MB is 10⁶ bytes."),
    ("slices", "Throughput of each second (each tenth when it took less than 3 s): slowest, median, fastest."),
    (
        "service",
        "Of an open loop: from when operations really began. Their other times count from when they should have.",
    ),
    (
        "first byte, total",
        "Of each object: until the answer's first byte (S3 only), and from its first try to its end.",
    ),
    ("p50, p99, …", "Linear interpolation between objects; - where too few objects lie beyond to say."),
    ("mean, 95 %", "Geometric mean of all repetitions, and where it lies; the rest of the line is of the median one."),
    (
        "steady",
        "Whether the rates of the thirds of the duration are within 10 % of their mean; if not, the three rates.",
    ),
    ("tail", "Share of the time spent waiting for the last objects, when there was nothing left to start."),
    ("again, 503", "Requests that were repeated, and answers that asked to slow down."),
    (
        "CPU, RSS",
        "Of the measuring process: 100 % is one core; most memory at once, payload of the benchmark included.",
    ),
    ("verified", "Share of the bytes that were compared, by digest, with what was stored; of a put, when read back."),
)


def write_report(document: Mapping[str, Any], path: Path) -> None:
    """Write the page. OSError when it cannot be written."""
    path.write_text(page(document), "utf-8")


def page(document: Mapping[str, Any]) -> str:
    """The page for a results document."""
    run, cells = document["run"], document["cells"]
    title = f"mfstore bench: {run['url']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p class=meta>{escape(line.replace('  ', ' · '))}</p>" for line in head_lines(document)),
        _tiles(document), *(f"<p>{escape(line)}</p>" for line in [*pace_lines(cells), *client_lines(wholes(cells))]),
        _verdicts(cells), _errors(cells),
        *_plots(cells),
        "<h2>All measurements</h2>",
        *(_measurements(*table) for table in tables(document)),
        "<h2>What this machine can do at most</h2>", _ceilings(document["ceilings"]),
        "<h2>Requests and bytes</h2>", _asked(document),
        "<h2>How to read this</h2>", "<dl>",
        *(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in TERMS), "</dl>",
    ]  # fmt: skip
    return (
        f"<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>"
        f"<meta name=viewport content='width=device-width, initial-scale=1'><style>{STYLE}</style></head>\n"
        f"<body>{''.join(part for part in parts if part)}</body></html>\n"
    )


def _tiles(document: Mapping[str, Any]) -> str:
    cells = document["cells"]
    tiles = []
    for operation, text in (("put", "stored"), ("get", "read"), ("save", "saved"), ("load", "loaded")):
        found = [
            cell
            for cell in cells
            if cell["operation"] == operation
            and cell["bytes"]
            and cell["scenario"]["engine"] not in ALL_PEERS
            and not of_mix(cell)
        ]
        if found:
            best = max(found, key=lambda cell: cell["bytes_per_second"])
            tiles.append((f"{rate(best['bytes_per_second'])} MB/s", f"{text}, at best", False))
        if found and operation in ("put", "get"):
            most = max(found, key=lambda cell: cell["objects_per_second"])
            tiles.append((f"{number(most['objects_per_second'])}/s", f"objects {text}, at best", False))
    cells = wholes(cells)
    for cell in cells:
        if cell.get("pace"):
            found = cell["pace"]
            bad = missed(cell)
            text = f"asked, {found['done'] / max(found['scheduled'], 1):.1%} done{': not reached' if bad else ''}"
            tiles.append((f"{found['rate']:g}/s", text, bad))
    done, failed = (sum((cell.get("repeats") or cell)[name] for cell in cells) for name in ("objects", "failed"))
    moved, verified = (sum(cell[name] for cell in cells) for name in ("bytes", "verified"))
    tiles.append((f"{done / (done + failed):.3%}" if done + failed else "-", "of operations succeeded", failed > 0))
    # Of a mix a put is verified only if a get draws its object: that it was not is no fault.
    fewer = any(cell["verified"] < cell["bytes"] for cell in cells if not of_mix(cell))
    if moved:
        tiles.append((f"{verified / moved:.0%}", f"of {size(moved)} verified", fewer))
    boxes = (
        f"<div class='tile{' bad' if bad else ''}'><b>{escape(value)}</b><span>{escape(text)}</span></div>"
        for value, text, bad in tiles
    )
    return f"<div class=tiles>{''.join(boxes)}</div>"


def _verdicts(cells: Sequence[Mapping[str, Any]]) -> str:
    items = []
    for bound, because, advice, names in verdicts(cells):
        where = "; ".join(names[:4]) + (f"; and {len(names) - 4} more" if len(names) > 4 else "")
        reason = because if len(names) == 1 else f"such as: {because}"
        items.append(
            f"<li><b>{escape(bound.capitalize())}</b>: {escape(advice)}.<small>{escape(reason)}</small>"
            f"<small>{escape(where)}</small></li>"
        )
    title = "<h2>What it is bound by, and what to try next</h2>"
    return f"{title}<ol class=verdicts>{''.join(items)}</ol>" if items else ""


def _errors(cells: Iterable[Mapping[str, Any]]) -> str:
    errors = list(dict.fromkeys(error for cell in cells for error in cell["errors"]))[:10]
    if not errors:
        return ""
    return "<h2>What went wrong</h2><ul>" + "".join(f"<li>{escape(error)}</li>" for error in errors) + "</ul>"


def _plots(cells: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    mixes = plots.mixed(cells)
    if mixes is not None:
        yield f"<h2>{TITLES['mixed']}</h2><figure>{mixes}</figure>"
    cells = [cell for cell in cells if not of_mix(cell)]
    for operation in ("put", "get", "save", "load"):
        found = [
            (plots.scaling(cells, operation), "By number of requests at once"),
            (plots.throughput(cells, operation), "Throughput; the line spans the slowest and the fastest slice"),
            (plots.latency(cells, operation), "Latency of single objects"),
        ]
        # The bars of many concurrencies say again what the lines say.
        if found[0][0] is not None:
            del found[1]
        shown = [(svg, text) for svg, text in found if svg is not None]
        if shown:
            yield f"<h2>{TITLES[operation]}</h2>"
        for svg, text in shown:
            yield f"<h3>{text}</h3><figure>{svg}</figure>"
    series = plots.over_time(cells)
    if series is not None:
        yield f"<h2>Throughput over time</h2><figure>{series}</figure>"


def _measurements(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"<h3>{TITLES[title]} ({title})</h3>" + _table(columns, rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = [name == "engine" for name in columns]

    def line(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if flag else ''}>{escape(value)}</{tag}>"
            for value, flag in zip(values, text, strict=True)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<div class=scroll><table><tr>{line('th', columns)}</tr>{body}</table></div>"


def _ceilings(ceilings: Mapping[str, Any]) -> str:
    names = {
        "hash_one": "BLAKE3, one core", "hash_all": f"BLAKE3, all {ceilings['cpus']} CPUs",
        "encode_lz4": "lz4 encoding, one core", "encode_zstd": "zstd encoding, one core",
        "decode_zstd": "zstd decoding, one core", "loopback": "TCP within this machine",
        "disk_write": "one file of 64 MiB, written and synced", "disk_read": "the same file, read from the page cache",
    }  # fmt: skip
    rows = [(text, rate(ceilings[name])) for name, text in names.items() if ceilings.get(name)]
    return _table(("ceiling", "MB/s"), rows)


def _asked(document: Mapping[str, Any]) -> str:
    plan, cells = document["plan"], document["cells"]
    moved: dict[str, int] = {}
    for cell in cells:
        for name, count in cell["requests"].items():
            moved[name] = moved.get(name, 0) + count
    text = (
        f"<p>Planned: {size(plan['bytes_sent'])} to write and {size(plan['bytes_received'])} to read, at most "
        f"{size(plan['bytes_stored'])} stored at once. The measurements together took "
        f"{duration(sum(cell['seconds'] for cell in wholes(cells)))}.</p>"
    )
    if (rounds := document["run"].get("repeat") or 1) > 1:
        text += f"<p>Planned is for all of {rounds} rounds; time and requests measured are those of one.</p>"
    if plan["cost"] is not None:
        text += f"<p>Cost at the prices given: at most {plan['cost']:.4f}, without retries.</p>"
    if not moved:
        return text
    rows = [
        (name, f"{plan['requests_fewest'].get(name, 0):,}", f"{plan['requests_most'].get(name, 0):,}",
         f"{moved.get(name, 0):,}")
        for name in plan["requests_most"]
    ]  # fmt: skip
    return (
        text
        + _table(("request", "planned, at least", "at most", "in measurements"), rows)
        + (
            "<p class=note>Planned: with setting up, warming up and removing, without retries. In measurements: "
            "what was timed, with retries.</p>"
        )
    )
