"""Stores every series by every peer: ``python -m benchmarks.core.run build/bench-core.json``."""

import argparse
import fnmatch
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from benchmarks.core.catalogue import catalogue, missing
from benchmarks.core.peers import Added, peers, pickled
from benchmarks.core.series import SEED, VERSIONS, Series
from benchmarks.core.table import Measured, line
from benchmarks.core.unrelated import Unrelated, measure_unrelated, pairs_of_kinds, pairs_of_series


def measure(entry: Series, scale: float, seed: int, count: int, options: dict[str, object]) -> Measured:
    """One series by all peers."""
    ways = peers(entry.itemsize, options)
    added: dict[str, list[Added]] = {way.name: [] for way in ways}
    sizes: list[int] = []
    changed: list[int] = []
    for version in entry.versions(scale, seed, count):
        stream = pickled(version.value)
        sizes.append(len(stream))
        changed.append(len(stream) if version.changed is None else len(version.changed))
        for way in ways:
            added[way.name].append(way.add(version, stream))
    for way in ways:
        way.close()
    return Measured(
        name=entry.name,
        description=entry.description,
        sizes=sizes,
        changed=changed,
        data={name: [one.data for one in rows] for name, rows in added.items()},
        index={name: [one.index for one in rows] for name, rows in added.items() if any(one.index for one in rows)},
        cpu={way.name: round(way.cpu, 3) for way in ways},
    )


def chosen(patterns: Iterable[str]) -> list[Series]:
    """The series that one of the patterns (as a shell's) fits; without patterns, all."""
    known, wanted = catalogue(), list(patterns)
    for pattern in wanted:
        if not fnmatch.filter([entry.name for entry in known], pattern):
            raise SystemExit(f"no series is called {pattern}; there are {', '.join(entry.name for entry in known)}")
    return [entry for entry in known if not wanted or any(fnmatch.fnmatch(entry.name, one) for one in wanted)]


def save(found: list[Measured], unrelated: list[Unrelated], path: Path) -> None:
    """As ``benchmarks.report`` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"core": [asdict(one) for one in found], "unrelated": [asdict(one) for one in unrelated]}
    path.write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core.run", description=__doc__)
    parser.add_argument("output", type=Path, help="the JSON file that python -m benchmarks.report shows")
    parser.add_argument("--series", default="", help="names or patterns with commas between them; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="times the rows of each series")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--versions", type=int, default=VERSIONS)
    parser.add_argument("--compress", default="", help="mfstore's codecs, as mfstore.open takes them; default: its own")
    given = parser.parse_args()
    options: dict[str, object] = {"compress": given.compress} if given.compress else {}
    for entry in missing():
        print(f"{entry.name} is left out: {entry.needs} is not installed", file=sys.stderr)
    found: list[Measured] = []
    entries = chosen(filter(None, given.series.split(",")))
    for entry in entries:
        found.append(measure(entry, given.scale, given.seed, given.versions, options))
        print(line(found[-1]), file=sys.stderr, flush=True)
    unrelated = [measure_unrelated(*pair) for pair in pairs_of_kinds(given.seed)] if not given.series else []
    unrelated += [measure_unrelated(*pair) for pair in pairs_of_series(entries, given.scale, given.seed)]
    save(found, [one for one in unrelated if one is not None], given.output)


if __name__ == "__main__":
    main()
