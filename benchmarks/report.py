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
    print()
    for run in runs:
        if run["group"] not in WANTED:
            facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in run["extra_info"].items())
            print(f"* {run['group']} ({run['name'].removeprefix('test_')}): {facts}")


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1000:.1f} ms"


if __name__ == "__main__":
    main(sys.argv[1])
