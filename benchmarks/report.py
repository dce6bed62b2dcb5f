"""Turns a pytest-benchmark JSON file into the README's tables: ``python -m benchmarks.report FILE``."""

import json
import sys
from typing import Any

WANTED = {
    "save 256 MiB float32": "wall and CPU seconds",
    "load 256 MiB float32": "wall and CPU seconds",
    "save 1000 small artifacts": "wall and CPU seconds",
    "load 1000 small artifacts": "wall and CPU seconds",
}


def main(path: str) -> None:
    with open(path) as file:
        runs = json.load(file)["benchmarks"]
    if any(run["group"] in WANTED for run in runs):
        stores(runs)
    if any("s3" in run["extra_info"] for run in runs):
        s3(runs)


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
    for at, (put, get) in found["cost per artifact in one store", "test_cost_per_artifact"].items():
        print(f"| CPU to put, get one small artifact among {at.removeprefix('at_')} | {put}, {get} us |")
    print(f"| import | {found['import', 'test_import']['ms']} ms |")


S3_OBJECTS = {4 << 10: "4 KiB", 64 << 20: "64 MiB"}


def s3(runs: list[dict[str, Any]]) -> None:
    """One table per server, operation and size, http beside https."""
    cells = {}
    for run in runs:
        info = run["extra_info"]
        if "s3" in info and "cpu" in info:
            cells[info["server"], info["operation"], info["size"], info["secure"], info["peer"]] = info
    for server, operation, size in dict.fromkeys(key[:3] for key in cells):
        big = size >= 1 << 20
        unit = "CPU-s/GB" if big else "CPU us/request"
        scale = 1e9 / size if big else 1e6
        here = {key[3:]: info for key, info in cells.items() if key[:3] == (server, operation, size)}
        best = {
            secure: min(
                (info["cpu"] for (s, peer), info in here.items() if s == secure and not peer.startswith("mfstore")),
                default=None,
            )
            for secure in (False, True)
        }
        print(f"\n{operation.upper()} {S3_OBJECTS[size]}, {server}\n")
        does = " signs payload | checksum |" if operation == "put" else ""
        print(f"| peer | http {unit} | of best peer | http wall | https {unit} | of best peer | https wall |{does}")
        print("|---|--:|--:|--:|--:|--:|--:|" + ("---|---|" if does else ""))
        for peer in dict.fromkeys(peer for _, peer in here):
            line = f"| {peer} |"
            for secure in (False, True):
                info = here.get((secure, peer))
                if info is None:
                    line += " - | - | - |"
                    continue
                cpu = info["cpu"] * scale
                number = f"{cpu:.2f}" if big else f"{cpu:.0f}"
                line += f" {number} | {info['cpu'] / best[secure]:.2f} x |" if best[secure] else f" {number} | - |"
                line += f" {size / info['wall'] / 1e9:.2f} GB/s |" if big else f" {info['wall'] * 1e6:.0f} us |"
            if does:
                signs = [here[secure, peer]["signs"] for secure in (False, True) if (secure, peer) in here]
                which = " and ".join(name for name, sign in zip(("http", "https"), signs, strict=False) if sign)
                line += f" {which or 'no'} | {here.get((False, peer), here.get((True, peer)))['checksums']} |"
            print(line)
    named = {run["name"]: run["extra_info"] for run in runs}
    print("\n| also measured, S3 | |\n|---|--:|")
    if "many" in (one := named.get("test_single_object", {})):
        many, single = one["many"], one["single"]
        print(f"| get_many of one object, CPU and wall | {many[0] * 1e6:.0f}, {many[1] * 1e6:.0f} us |")
        print(f"| one GET by boto3, CPU and wall | {single[0] * 1e6:.0f}, {single[1] * 1e6:.0f} us |")
    if "into_bytes" in (memory := named.get("test_memory", {})):
        sizes = ", ".join(f"{memory[name] / (1 << 20):.0f}" for name in ("into_bytes", "into_files"))
        print(f"| RSS growth, 2 GiB into bytes, into files | {sizes} MiB |")
    if "rate" in (far := named.get("test_far_away", {})):
        print(f"| 30 ms, 90 MB/s a connection, 2 GiB: measured | {far['rate'] / 1e6:.0f} MB/s |")
        print(f"| - the formula's {far['calls']} calls would bring | {far['predicted'] / 1e6:.0f} MB/s |")
        print(f"| - this machine's ceiling through the proxy | {far['ceiling'] / 1e6:.0f} MB/s |")
        print(f"| - the lower of the two | {min(far['predicted'], far['ceiling']) / 1e6:.0f} MB/s |")


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1000:.1f} ms"


if __name__ == "__main__":
    main(sys.argv[1])
