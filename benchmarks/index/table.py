"""The tables of docs/performance.md that ``make bench-index`` makes."""

from typing import Any

KINDS = {"new": "new", "same": "an array of another artifact", "parts": "halves of two others"}


def tables(found: dict[str, Any]) -> None:
    """What a save reads, what it does for the index, and what it adds to memory."""
    print("| | store | chunks | saved is | requests | looks | read | CPU | found |")
    print("|---|---|--:|---|--:|--:|--:|--:|--:|")
    for row in found["index"]:
        print(
            f"| {row['place']} | {row['store']} | {row['chunks'] / 1e6:.1f} M | {KINDS[row['kind']]} "
            f"| {row['requests']} | {row['looks'] or ''} | {row['bytes'] / 1e6:.2f} MB "
            f"| {row['cpu'] * 1000:.0f} ms | {share(row)} |"
        )
    print("\n| store | requests for the index: most | mean | written | read to merge | fragments left |")
    print("|---|--:|--:|--:|--:|--:|")
    for row in found["merging"]:
        print(
            f"| {row['store']} | {row['most']} | {row['mean']:.2f} | {row['written'] / 1e3:.1f} kB "
            f"| {row['read'] / 1e3:.1f} kB | {row['fragments']} |"
        )
    print("\n| store | memory a save adds |\n|---|--:|")
    for name, added in found["memory"].items():
        print(f"| {name} | {added} MiB |")


def share(row: dict[str, Any]) -> str:
    """Of what a complete index would find."""
    return "" if row["kind"] == "new" else f"{row['found']:.0%}"
