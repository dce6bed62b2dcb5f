"""Turns a pytest-benchmark JSON file into the README's tables: ``python -m benchmarks.report FILE``."""

import json
import sys

WANTED = {
    "save 256 MiB float32": "wall and CPU seconds",
    "load 256 MiB float32": "wall and CPU seconds",
    "save 1000 small artifacts": "wall and CPU seconds",
    "load 1000 small artifacts": "wall and CPU seconds",
}


def main(path: str) -> None:
    with open(path) as file:
        runs = json.load(file)["benchmarks"]
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


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1000:.1f} ms"


if __name__ == "__main__":
    main(sys.argv[1])
