"""Turns a JSON file of benchmarks into the tables of docs/performance.md: ``python -m benchmarks.report FILE``."""

import json
import sys
from typing import Any

from benchmarks.core.cutting import Rate, cutting_table
from benchmarks.core.everyday import Cost, everyday_table
from benchmarks.core.table import Measured, tables, unrelated
from benchmarks.core.unrelated import Unrelated
from benchmarks.index.table import tables as index_tables
from benchmarks.instructions import table as instructions_table

WANTED = {
    "save 256 MiB float32": "wall and CPU seconds",
    "load 256 MiB float32": "wall and CPU seconds",
    "save 1000 small artifacts": "wall and CPU seconds",
    "load 1000 small artifacts": "wall and CPU seconds",
}


def main(path: str) -> None:
    with open(path) as file:
        found = json.load(file)
    if "core" in found:
        tables([Measured(**one) for one in found["core"]])
        unrelated([Unrelated(**one) for one in found["unrelated"]])
    elif "cutting" in found:
        cutting_table([Rate(**one) for one in found["cutting"]])
    elif "everyday" in found:
        everyday_table([Cost(**one) for one in found["everyday"]])
    elif "instructions" in found:
        instructions_table(found["instructions"])
    elif "index" in found:
        index_tables(found)
    else:
        benchmarks(found["benchmarks"])


def benchmarks(runs: list[dict[str, Any]]) -> None:
    """The tables of what pytest-benchmark measured."""
    if any(run["group"] in WANTED for run in runs):
        stores(runs)
    if any("s3" in run["extra_info"] for run in runs):
        s3(runs)
    if any("metaflow" in run["extra_info"] for run in runs):
        metaflow([run["extra_info"] for run in runs if "metaflow" in run["extra_info"]])
    client([run["extra_info"] for run in runs if "client" in run["extra_info"]])


def stores(runs: list[dict[str, Any]]) -> None:
    print("| | peer | wall | CPU | against Metaflow (wall) |\n|---|---|--:|--:|--:|")
    for group in WANTED:
        rows = [run for run in runs if run["group"] == group]
        base = next(run["stats"]["median"] for run in rows if run["name"] == "test_metaflow")
        for number, run in enumerate(rows):
            wall, cpu = run["stats"]["median"], run["extra_info"]["cpu"]
            label = run["name"].removeprefix("test_").replace("_", " ")
            first = group if number == 0 else ""
            print(f"| {first} | {label} | {seconds(wall)} | {seconds(cpu)} | {base / wall:.1f} x |")
    found = {(run["group"], run["name"]): run["extra_info"] for run in runs}
    stored = found["bytes of the flights series", "test_stored_bytes"]
    base = stored["really_changed"]
    print("\n| flights series, stored | bytes | against what really changed |\n|---|--:|--:|")
    for name in ("really_changed", "mfstore", "fastcdc_256k_in_band", "whole_object_gzip3"):
        print(f"| {name.replace('_', ' ')} | {stored[name] / 1e6:.1f} MB | {stored[name] / base:.2f} x |")
    print("\n| also measured | |\n|---|--:|")
    for kind in ("noise", "compressible"):
        extra = found["extra memory for 2 GiB", f"test_extra_memory[{kind}]"]
        print(f"| extra memory to save, load 2 GiB ({kind}) | {extra['save_mib']}, {extra['load_mib']} MiB |")
    for (group, name), extra in found.items():
        if group == "extra memory for 48 parts of 12 MiB":
            kind = name.removeprefix("test_extra_memory_of_many_parts[").removesuffix("]")
            print(f"| extra memory to save, load 48 {kind} of 12 MiB | {extra['save_mib']}, {extra['load_mib']} MiB |")
    for at, (put, get) in found["cost per artifact in one store", "test_cost_per_artifact"].items():
        print(f"| CPU to put, get one small artifact among {at.removeprefix('at_')} | {put}, {get} us |")
    print(f"| import | {found['import', 'test_import']['ms']} ms |")


S3_OBJECTS = {4 << 10: "4 KiB", 64 << 20: "64 MiB"}


def s3(runs: list[dict[str, Any]]) -> None:
    """A table of CPU and one of wall time, the peers below each other; then what the PUTs did, and single numbers."""
    found = [run["extra_info"] for run in runs if "s3" in run["extra_info"] and "cpu" in run["extra_info"]]
    cells = {(where_of(info), info["peer"]): info for info in found}
    columns = list(dict.fromkeys(where for where, _ in cells))
    peers = list(dict.fromkeys(peer for _, peer in cells))
    for title, value in (("CPU", "cpu"), ("wall", "wall")):
        print(f"\n| {title} |" + "".join(f" {heading(*column)} |" for column in columns))
        print("|---|" + "--:|" * len(columns))
        for peer in peers:
            numbers = (s3_number(cells.get((column, peer)), value) for column in columns)
            print(f"| {peer} |" + "".join(f" {number} |" for number in numbers))
        if value == "cpu":
            here = [{peer: cells.get((column, peer)) for peer in peers} for column in columns]
            for name, ratio in (("the best of the others", against_best), ("the floor", against_floor)):
                print(f"| **mfstore against {name}** |" + "".join(f" {ratio(column)} |" for column in here))
            mains = (s3_number(column.get("mfstore"), "main") for column in here)
            print("| of mfstore's, the thread that asks |" + "".join(f" {main} |" for main in mains))
    puts = [info for info in found if info["operation"] == "put"]
    for secure, scheme in ((False, "http"), (True, "https")):
        signers = dict.fromkeys(info["peer"] for info in puts if info["secure"] == secure and info["signs"])
        if any(info["secure"] == secure for info in puts):
            print(f"\nPUTs over {scheme} sign their payload's SHA-256: {', '.join(signers) or 'none'}.")
    sums = dict.fromkeys(f"{info['peer']} ({info['checksums']})" for info in puts if info["checksums"] != "none")
    print(f"\nPUTs carry a checksum: {', '.join(sums) or 'none'}.")
    unsigned([run["extra_info"] for run in runs if "unsigned" in run["extra_info"]])
    threads([run["extra_info"] for run in runs if "threads" in run["extra_info"]])
    named = {run["name"]: run["extra_info"] for run in runs}
    print("\n| also measured, S3 | |\n|---|--:|")
    if "many" in (one := named.get("test_single_object", {})):
        many, single = one["many"], one["single"]
        print(f"| get_many of one object, CPU and wall | {many[0] * 1e6:.0f}, {many[1] * 1e6:.0f} us |")
        print(f"| one GET by boto3, CPU and wall | {single[0] * 1e6:.0f}, {single[1] * 1e6:.0f} us |")
    if "aes" in (kernel := named.get("test_kernel", {})):
        print(
            f"| the kernel's part of a 4 KiB GET, of a GB got | {kernel['small'] * 1e6:.0f} us, {kernel['big']:.2f} s |"
        )
        print(f"| SHA-256, AES-256-GCM of a GB by OpenSSL | {kernel['sha256']:.2f}, {kernel['aes']:.2f} s |")
    for operation in ("get", "put"):
        if equal := named.get(f"test_metaflow_at_equal_counts[{operation}]"):
            both = f"{equal['metaflow.S3'] * 1e6:.0f}, {equal['mfstore'] * 1e6:.0f} us"
            print(f"| {operation.upper()} {equal['count']} x 4 KiB, CPU a request: metaflow.S3, mfstore | {both} |")
    if "into_bytes" in (memory := named.get("test_memory", {})):
        sizes = ", ".join(f"{memory[name] / (1 << 20):.0f}" for name in ("into_bytes", "into_files"))
        print(f"| RSS growth, 2 GiB into bytes, into files | {sizes} MiB |")
    far_away([run["extra_info"] for run in runs if "distance" in run["extra_info"]])


def far_away(found: list[dict[str, Any]]) -> None:
    """What came over each network, of what the formula predicts."""
    if not found:
        return
    print("\n| far away | the formula | mfstore, the median and all | share | not delayed | CPU: client, server |")
    print("|---|--:|--:|--:|--:|--:|")
    for info in found:
        distance, size = info["distance"], info["distance"]["size"]
        per, unit = (1e6, "MB/s") if size >= 1 << 20 else (size, "a second")
        limit = f"{distance['bandwidth'] / 1e6:.0f} MB/s a connection" if distance["bandwidth"] else "no limit"
        what = f"{distance['count']} x {S3_OBJECTS[size]}, {distance['latency'] * 1e3:.0f} ms, {limit}"
        rates = ", ".join(f"{rate / per:.0f}" for rate in info["rates"])
        share = f"{info['rate'] / info['predicted'] * 100:.0f} %"
        free = f"{info['free'] / per:.0f}" if info["free"] else "-"
        print(
            f"| {what} | {info['predicted'] / per:.0f} {unit} | {info['rate'] / per:.0f} ({rates}) | {share} "
            f"| {free} | {info['cpu']:.2f}, {info['others']:.2f} s |"
        )


def where_of(info: dict[str, Any]) -> tuple[str, str, int, bool]:
    return info["server"], info["operation"], info["size"], info["secure"]


def heading(server: str, operation: str, size: int, secure: bool) -> str:
    scheme = "https" if secure else "http"
    unit = "s/GB" if size >= 1 << 20 else "us"
    return f"{operation.upper()} {S3_OBJECTS[size]} {scheme}{'' if server == 'nginx' else f', {server}'}, {unit}"


def s3_number(info: dict[str, Any] | None, value: str) -> str:
    if info is None:
        return "-"
    return f"{info[value] * 1e9 / info['size']:.2f}" if info["size"] >= 1 << 20 else f"{info[value] * 1e6:.0f}"


def against_best(here: dict[str, dict[str, Any] | None]) -> str:
    """What mfstore's CPU is of the cheapest of the clients that are not mfstore."""
    own = here.get("mfstore")
    others = [info["cpu"] for peer, info in here.items() if info and not peer.startswith(("mfstore", "floor"))]
    return f"**{own['cpu'] / min(others):.2f} x**" if own and others else "-"


def against_floor(here: dict[str, dict[str, Any] | None]) -> str:
    """What mfstore's CPU is of a minimal client's."""
    own, floor = here.get("mfstore"), here.get("floor")
    return f"**{own['cpu'] / floor['cpu']:.2f} x**" if own and floor else "-"


def unsigned(found: list[dict[str, Any]]) -> None:
    """PUTs over http whose payload is not signed."""
    if not found:
        return
    columns = list(dict.fromkeys(where_of(info) for info in found))
    print("\n| payload not signed, CPU |" + "".join(f" {heading(*column)} |" for column in columns))
    print("|---|" + "--:|" * len(columns))
    cells = {(where_of(info), info["unsigned"]): info for info in found}
    for name in dict.fromkeys(info["unsigned"] for info in found):
        numbers = (s3_number(cells.get((column, name)), "cpu") for column in columns)
        print(f"| {name} |" + "".join(f" {number} |" for number in numbers))


def threads(found: list[dict[str, Any]]) -> None:
    """How throughput grows with threads for transfers, mfstore's beside the floor's."""
    if not found:
        return
    sizes = list(dict.fromkeys(one["size"] for one in found))
    print("\n| threads |" + "".join(f" GET {S3_OBJECTS[size]} https: rate, CPU | floor |" for size in sizes))
    print("|--:|" + "--:|--:|" * len(sizes))
    cells = {(one["threads"], one["size"]): one for one in found}
    for count in dict.fromkeys(one["threads"] for one in found):
        here = [cells.get((count, size)) for size in sizes]
        both = (f" {rate(one, one)} | {rate(one, one['floor'])} |" if one else " - | - |" for one in here)
        print(f"| {count} |" + "".join(both))


def rate(one: dict[str, Any], info: dict[str, Any]) -> str:
    """Throughput, and what it cost."""
    unit, number = ("GB/s", one["size"] / 1e9) if one["size"] >= 1 << 20 else ("a second", 1)
    moved = f"{number / info['wall']:.2f}" if number != 1 else f"{1 / info['wall']:.0f}"
    what = "s/GB" if one["size"] >= 1 << 20 else "us"
    return f"{moved} {unit}, {s3_number({**info, 'size': one['size']}, 'cpu')} {what}"


METHODS = ("GET", "HEAD", "PUT")


def metaflow(rows: list[dict[str, Any]]) -> None:
    """One table per scenario: stock Metaflow is the peer that comes first at each place."""
    for scenario in dict.fromkeys(row["metaflow"] for row in rows):
        print(f"\n{scenario[0].upper()}{scenario[1:]}\n")
        print("| | | wall | CPU | in datastore calls | against Metaflow | requests | GET, HEAD, PUT | sent | stored |")
        print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
        here = [row for row in rows if row["metaflow"] == scenario]
        for place in dict.fromkeys(row["place"] for row in here):
            peers = [row for row in here if row["place"] == place]
            for row in peers:
                requests = row.get("requests", {})
                others = sum(requests.values()) - sum(requests.get(method, 0) for method in METHODS)
                counts = ", ".join(str(requests.get(method, 0)) for method in METHODS)
                counts += f" and {others}" if others else ""
                print(
                    f"| {place if row is peers[0] else ''} | {row['peer']} | {seconds(row['wall'])} | "
                    f"{seconds(row['cpu'])} | {seconds(row['inside'])} | {peers[0]['inside'] / row['inside']:.1f} x | "
                    f"{sum(requests.values()) or '-'} | {counts if requests else '-'} | "
                    f"{size(row['sent']) if requests else '-'} | {size(row['stored'])} |"
                )


def client(rows: list[dict[str, Any]]) -> None:
    """What Metaflow's Client takes for many artifacts that are far away: medians, and the time of each round."""
    if not rows:
        return
    print("\n| artifacts, 20 ms away | | wall (all) | until the first | CPU | in datastore calls | Metaflow's own |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for row in rows:
        walls = ", ".join(f"{wall:.2f}" for wall in row["walls"])
        times = " | ".join(seconds(row[name]) for name in ("first", "cpu", "inside", "own"))
        print(f"| {row['client']} | {row['peer']} | {seconds(row['wall'])} ({walls}) | {times} |")


def size(value: int) -> str:
    return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1000:.1f} ms"


if __name__ == "__main__":
    main(sys.argv[1])
