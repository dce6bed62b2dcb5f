"""A plan and results as text for a terminal or a log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

from mfstore.bench.compare import EQUAL, FASTER, SAME, SLOWER, UNSURE, Comparison
from mfstore.bench.intervals import CONFIDENCE
from mfstore.bench.mixes import MIXED
from mfstore.bench.plan import BenchPlan, Prices, summary
from mfstore.bench.run import RunSettings
from mfstore.bench.scenarios import ARTIFACTS, OPERATIONS, size_text
from mfstore.s3.urls import SCHEMES

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, column heads, rows of cells."""
COUNTED = {"list": "entries", "save": "bundles", "load": "bundles"}
TAKEN = 0.05
"""Of the cores, by other programs: from here it is worth a word."""
TIMES = (
    ("first_byte", "first ms", ("p50", "p99")),
    ("latency", "ms", ("p50", "p90", "p99", "p999", "max")),
)
"""Columns of milliseconds: until the first byte, and in all."""
HEADS = {"p999": "p99.9"}


def plan_lines(plan: BenchPlan, prices: Prices, settings: RunSettings, *, cloud: bool) -> list[str]:
    """What a run will do, before it does it."""
    forecast = plan.forecast
    measured = sum(step.measured for step in plan.steps)
    often, limit = plan.repeat, settings.limit
    turns = f", {often} times" if often > 1 else ""
    turns += f", by {plan.clients} machines at once" if plan.clients > 1 else ""
    if plan.lasting:
        each = limit * len({(step.number, step.operation) for step in plan.steps if step.operation != "delete"})
        lines = [
            f"{summary(plan.steps)}{turns}, each of {limit:g} s: {duration(each * often)}, and as long as to delete",
            f"bytes     as many as move in that time, at most {size(plan.peak)} stored at once, nothing afterwards",
        ]
        return [*lines, "requests  as many as fit: what they cost is not known before"] if cloud else lines
    lines = [
        f"{summary(plan.steps)}{turns}, each of at most {limit:g} s: at most {duration(measured * limit * often)}",
    ]
    lines.append(
        f"bytes     {size(forecast.sent)} written, {size(forecast.received)} read, "
        f"at most {size(plan.peak)} stored at once, nothing afterwards"
    )
    if not cloud:
        return lines
    fewest, most = sum(forecast.fewest.values()), sum(forecast.most.values())
    names = ", ".join(
        f"{between(forecast.fewest.get(name, 0), count)} {name}"
        for name, count in sorted(forecast.most.items(), key=lambda item: -item[1])
    )
    lines.append(f"requests  {between(fewest, most)} without retries: {names}")
    cost = prices.cost(forecast)
    if cost is None:
        lines.append("cost      not known: give --price-put, --price-get, --price-gb")
    else:
        lines.append(
            f"cost      at most {cost:.4f}: {forecast.priced('put')} requests at the price of PUT, "
            f"{forecast.priced('get')} at that of GET, {size(forecast.received)} read"
        )
    return lines


def head_lines(document: Mapping[str, Any]) -> list[str]:
    """Where and when it ran."""
    run = document["run"]
    machine = f"mfstore {run['version']}  Python {run['python']}  {run['cpus']} CPUs  {run['system']}"
    facts = [f"{run.get('service') or run['kind']} {run['url']}", f"seed {run['seed']}", run["started"]]
    if run.get("endpoint"):
        server = f" ({run['server']})" if run.get("server") else ""
        facts.insert(1, f"endpoint {run['endpoint']}{server}")
    if any(cell["scenario"]["failure"] for cell in document["cells"]):
        by = "a proxy: real HTTP 500" if run.get("failures_by") == "proxy" else "the client, before it sends"
        facts.append(f"failures injected by {by}")
    if run.get("clients"):
        facts.append(f"from {len(run['clients'])} clients: {', '.join(found['client'] for found in run['clients'])}")
    if run.get("ended"):
        facts.append(f"ENDED EARLY: {run['ended']}")
    if run.get("clock_skew") is not None:
        facts.insert(2, f"clock skew {run['clock_skew']:+d} s")
    return [machine, *host_lines(run.get("host") or {}), "  ".join(facts)]


def host_lines(host: Mapping[str, Any]) -> list[str]:
    """The machine and the libraries; nothing for results of versions that did not tell."""
    if not host:
        return []
    group = host["cgroup"]
    limits = [f"{group['cpus']:g} CPUs"] if group["cpus"] else []
    limits += [size(group["memory"])] if group["memory"] else []
    parts = [f"{host['cpu'] or 'unknown CPU'}, {host['cores']} cores", f"{size(host['memory'] or 0)} of memory"]
    parts += [f"container limited to {' and '.join(limits)}"] if limits else []
    parts += [f"on {host['file_system']}"] if host["file_system"] else []
    known = ", ".join(f"{name} {version}" for name, version in host["libraries"].items() if name != "mfstore")
    return ["  ".join([*parts, host["kernel"]]), known]


def tables(document: Mapping[str, Any]) -> list[Table]:
    """The measurements, one table per operation."""
    cloud = document["run"]["kind"] in SCHEMES
    by_operation: dict[str, list[Mapping[str, Any]]] = {}
    for cell in document["cells"]:
        if of_mix(cell):
            continue
        by_operation.setdefault(cell["operation"], []).append(cell)
    order = [name for names in OPERATIONS.values() for name in names]
    found: list[Table] = [
        (operation, *_table(by_operation[operation], cloud=cloud)) for operation in order if operation in by_operation
    ]
    if mixes := [cell for cell in document["cells"] if of_mix(cell)]:
        found.append((MIXED, *_table(mixes, cloud=cloud)))
    return found


def of_mix(cell: Mapping[str, Any]) -> bool:
    """Whether it is of a mixed workload. Results of older versions say nothing of it."""
    return bool(cell["scenario"].get("mix"))


def wholes(cells: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The cells that count: of a mix, the one of all its operations."""
    return [cell for cell in cells if cell.get("whole", True)]


def _table(cells: Sequence[Mapping[str, Any]], *, cloud: bool) -> tuple[list[str], list[list[str]]]:
    """Columns that say nothing about any of the cells are left out."""
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("what", label),
        ("engine", lambda cell: str(cell["engine"])),
        (f"{COUNTED.get(cells[0]['operation'], 'objects')}/s", lambda cell: number(cell["objects_per_second"])),
    ]
    if any(cell.get("repeats") for cell in cells):
        columns.append(("mean, 95 %", mean_text))
    if any(cell.get("steadiness") for cell in cells):
        columns.append(("steady", steady_text))
    if any(cell["bytes"] for cell in cells):
        columns.append(("MB/s", lambda cell: rate(cell["bytes_per_second"])))
    if any(len(cell["slices"]["bytes"]) > 2 and cell["bytes"] for cell in cells):
        columns.append(("slices MB/s\nmin-median-max", lambda cell: slow_fast(cell["slices"]["bytes"])))
    for kind, title, names in TIMES:
        if any(cell[kind]["count"] for cell in cells):
            columns += [(f"{title}\n{HEADS.get(name, name)}", partial(_time_of, kind, name)) for name in names]
    if any(cell.get("pace") for cell in cells):
        columns += [(f"service\n{name}", partial(_service, name)) for name in ("p50", "p99")]
    columns.append(("tail", lambda cell: f"{cell['tail']['share']:.0%}"))
    if cloud:
        columns.append(("again", lambda cell: str(cell["retries"])))
        columns.append(("503", lambda cell: str(cell["throttled"])))
    columns.append(("CPU", lambda cell: f"{cell['cpu_share']:.0%}"))
    columns.append(("RSS\nMB", lambda cell: f"{cell['usage']['rss'] / 1e6:.0f}"))
    if any(cell["bytes"] for cell in cells):
        columns.append(("veri-\nfied", lambda cell: f"{share(cell):.0%}"))
    if any(cell["stored"] is not None for cell in cells):
        columns.append(("stored", lambda cell: size(cell["stored"]) if cell["stored"] is not None else "-"))
    return [name for name, _ in columns], [[show(cell) for _, show in columns] for cell in cells]


def _time_of(kind: str, name: str, cell: Mapping[str, Any]) -> str:
    return time(cell[kind][name])


def _service(name: str, cell: Mapping[str, Any]) -> str:
    return time(cell["pace"]["service"][name]) if cell.get("pace") else "-"


def label(cell: Mapping[str, Any]) -> str:
    """A scenario in a few words, from its dictionary; with what went wrong."""
    scenario = cell["scenario"]
    parts = [mix(scenario)]
    if of_mix(cell):
        name = "all" if cell["operation"] == MIXED else cell["operation"]
        pace = f", {scenario['mix']['rate']:g}/s {scenario['mix']['arrivals']}" if scenario["mix"]["rate"] else ""
        parts = [f"{name} of {parts[0]}{pace}"]
    parts += [f"at {scenario['concurrency']}"] if scenario["concurrency"] else []
    parts += [f"{scenario['compressible']} % compressible"] if scenario["compressible"] else []
    parts += [f"{scenario['duplicate']} % duplicate"] if scenario["duplicate"] else []
    parts += [f"{scenario['failure']} % failing"] if scenario["failure"] else []
    done = cell["objects"] + cell["failed"]
    limited = done < cell["wanted"] and not of_mix(cell)
    parts += [f"time limit after {done} of {cell['wanted']}"] if limited else []
    failed = (cell.get("repeats") or cell)["failed"]
    parts += [f"{failed} FAILED"] if failed else []
    return ", ".join(parts)


def mean_text(cell: Mapping[str, Any]) -> str:
    """Of repetitions, the mean and where it lies: ``205 (198-212)``."""
    repeats = cell.get("repeats")
    if not repeats or repeats["mean"] is None:
        return "-"
    return f"{number(repeats['mean'])} ({number(repeats['low'])}-{number(repeats['high'])})"


def steady_text(cell: Mapping[str, Any]) -> str:
    """``yes``, or the rates of the three thirds of the time; ``?`` when too few objects ended to say."""
    steadiness = cell.get("steadiness")
    if not steadiness:
        return "-"
    if steadiness["steady"]:
        return "yes"
    return f"no: {'-'.join(map(number, steadiness['thirds']))}" if steadiness["thirds"] else "?"


def mix(scenario: Mapping[str, Any]) -> str:
    """What is moved: ``300 x 4 KiB``."""
    text = " + ".join(f"{count} x {size_text(size)}" for size, count in scenario["sizes"])
    return text if scenario["layer"] != ARTIFACTS else f"{scenario['bundles']} x ({text})"


def share(cell: Mapping[str, Any]) -> float:
    """Of the bytes that were moved, how many were compared."""
    return float(cell["verified"] / cell["bytes"]) if cell["bytes"] else 1.0


def summary_lines(document: Mapping[str, Any]) -> list[str]:
    """What holds for the whole run: success, verification, ceilings, what it is bound by."""
    cells = wholes(document["cells"])
    done, failed = (sum((cell.get("repeats") or cell)[name] for cell in cells) for name in ("objects", "failed"))
    moved = sum(cell["bytes"] for cell in cells)
    verified = sum(cell["verified"] for cell in cells)
    ratio = done / (done + failed) if done + failed else 1.0
    lines = [
        f"success   {ratio:.3%}: {failed} of {done + failed} failed",
        f"verified  {verified / moved:.0%} of {size(moved)} by digest" if moved else "verified  nothing was moved",
    ]
    lines += pace_lines(cells)
    lines += client_lines(cells)
    errors = dict.fromkeys(error for cell in cells for error in cell["errors"])
    lines += [f"          {error}" for error in list(errors)[:5]]
    ceilings = document["ceilings"]
    parts = [
        f"hash {rate(ceilings['hash_one'])} (one core), {rate(ceilings['hash_all'])} (all)",
        f"lz4 {rate(ceilings['encode_lz4'])}", f"zstd {rate(ceilings['encode_zstd'])}",
        f"loopback {rate(ceilings['loopback'])}",
    ]  # fmt: skip
    if ceilings["disk_write"]:
        parts.append(f"disk {rate(ceilings['disk_write'])} written and synced, {rate(ceilings['disk_read'])} read")
    lines.append(f"ceilings  MB/s: {', '.join(parts)}")
    names = {"connect": "TCP connection", "tls": "TLS", "request": "empty request"}
    link = document["run"].get("link") or {}
    if found := [f"{name} {time(link[field])} ms" for field, name in names.items() if link.get(field) is not None]:
        lines.append(f"link      {', '.join(found)}")
    return lines


def pace_lines(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """What became of the schedules of open loops."""
    lines = []
    for cell in cells:
        found = cell.get("pace")
        if not found:
            continue
        repeats = cell.get("repeats") or {}
        missed = repeats.get("missed", 0)
        word = f"NOT REACHED in {missed} of {len(repeats['rates'])} rounds" if missed else "reached"
        if not found["reached"] and not repeats:
            word = "NOT REACHED"
        done = found["done"] / found["scheduled"] if found["scheduled"] else 1.0
        lines.append(
            f"rate      {found['rate']:g}/s {found['arrivals']} of {mix(cell['scenario'])}: {word}; "
            f"{found['done']} of {found['scheduled']} scheduled were done ({done:.1%}), {found['failed']} failed, "
            f"{found['not_begun']} never begun"
        )
        lines.append(
            f"          at most {found['waiting']} waited at once, {found['waiting_at_end']} at the end of the "
            f"schedule; at most {found['under_way']} were under way; they began {time(found['lateness']['p50'])} ms "
            f"late (median), {time(found['lateness']['max'])} ms at most"
        )
    return lines


def client_lines(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """What each of several machines did."""
    lines = []
    for cell in cells:
        shares = cell.get("clients") or ()
        if not shares:
            continue
        window = cell.get("window")
        when = (
            f"all at work for {window['seconds']:.2f} s" if window else "never all at work: the rate is of all the time"
        )
        each = "; ".join(
            f"{share['client']} {number(share['objects'] / share['seconds'] if share['seconds'] else 0.0)}/s, "
            f"p99 {time(share['p99'])} ms" + (f", {share['failed']} FAILED" if share["failed"] else "")
            for share in shares
        )
        name = label(cell) if of_mix(cell) else f"{cell['operation']} {label(cell)}"
        lines.append(f"clients   {name}: {when}; {each}")
    return lines


def verdicts(cells: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str, list[str]]]:
    """(bound by, why, advice, which cells), equal advice together, the most frequent first and the unknown last."""
    found: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for cell in cells:
        verdict = cell["verdict"]
        if verdict is not None:
            key = verdict["bound"], verdict["advice"]
            engine = f", {cell['engine']}" if cell["scenario"]["engine"] else ""
            name = f"{cell['operation']} {label(cell)}{engine}"
            found.setdefault(key, (verdict["because"], []))[1].append(name)
    ordered = sorted(found.items(), key=lambda item: (item[0][0] == "unknown", -len(item[1][1])))
    return [(bound, because, advice, names) for (bound, advice), (because, names) in ordered]


def verdict_lines(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """The verdicts, for a terminal."""
    lines = []
    for bound, because, advice, names in verdicts(cells):
        lines.append(
            f"bound by  {bound}: {'; '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        )
        lines.append(f"          {because if len(names) == 1 else f'such as: {because}'}")
        lines.append(f"          next: {advice}")
    return lines


def slow_fast(series: Sequence[float]) -> str:
    """Slowest, median and fastest slice; ``-`` for fewer than three, and where nothing moved."""
    if len(series) < 3 or not any(series):
        return "-"
    return f"{rate(min(series))}-{rate(median(series))}-{rate(max(series))}"


def between(low: int, high: int) -> str:
    """A count that is known, or its limits."""
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def number(value: float) -> str:
    """A rate of objects."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def rate(value: float) -> str:
    """Bytes per second in MB."""
    megabytes = value / 1e6
    return f"{megabytes:,.0f}" if megabytes >= 100 else f"{megabytes:.1f}" if megabytes >= 1 else f"{megabytes:.3f}"


def time(value: float | None) -> str:
    """Seconds as a number of milliseconds; ``-`` for too few rows."""
    if value is None:
        return "-"
    milliseconds = value * 1000
    if milliseconds >= 100:
        return f"{milliseconds:,.0f}"
    return f"{milliseconds:.1f}" if milliseconds >= 1 else f"{milliseconds:.3f}"


def duration(seconds: float) -> str:
    """For people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def comparison(found: Comparison) -> tuple[Table, list[str]]:
    """Two results side by side, and what to know about it."""
    rows = [
        (
            change.name, change.engine, number(change.before), number(change.after), f"{change.ratio:.2f} x",
            "-" if change.low is None or change.high is None else f"{change.low:.2f}-{change.high:.2f}",
            *("-" if ratio is None else f"{ratio:.2f} x" for ratio in (change.p50, change.p99, change.cpu)),
            change.word,
        )
        for change in found.changes
    ]  # fmt: skip
    columns = ("what", "engine", "before /s", "after /s", "rate", "between", "p50", "p99", "CPU", "")
    words = [change.word for change in found.changes]
    counts = ", ".join(f"{words.count(word)} {word}" for word in (FASTER, SLOWER, EQUAL, UNSURE))
    lines = [
        f"{counts}; ratios are after / before: more is better for rates, less for the rest",
        f"same: within {SAME:.0%}, or not told from chance: all rates lie between these with {CONFIDENCE:.0%}",
    ]
    if max(found.others) >= TAKEN:
        lines.append(
            f"other programs may have taken {found.others[0]:.0%} of the time before and {found.others[1]:.0%} after: "
            "that is allowed for"
        )
    if UNSURE in words:
        lines.append("unsure: too short to say how much it differs anyway; --repeat or a longer --duration tells")
    lines += [f"not the same: {text}" for text in found.different if text not in found.warnings]
    lines += [f"only before: {name}" for name in found.only_before]
    lines += [f"only after: {name}" for name in found.only_after]
    return ("compare", columns, rows), lines
