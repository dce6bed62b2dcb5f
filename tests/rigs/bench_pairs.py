"""How often ``mfstore bench --compare`` calls runs of the same different.

::

    for n in $(seq -w 20); do mfstore bench DIRECTORY -y --repeat 5 --match KiB -o runs/$n.json; done
    python -m tests.rigs.bench_pairs runs/*.json

It compares each run with the next, and every two, and prints the words; once as it is, and once as if nothing were
allowed for what other programs took.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from mfstore.bench.compare import FASTER, SLOWER, compare
from mfstore.bench.results import read_results

Pair = tuple[Mapping[str, Any], Mapping[str, Any]]


def alone(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The results as if nobody knew of other programs."""
    unknown = {"machine": None, "pressure": None, "waited": None}
    cells = [{**cell, "usage": {**cell["usage"], **unknown}} for cell in document["cells"]]
    return {**document, "cells": cells}


def told(pairs: Iterable[Pair]) -> str:
    """The words of all pairs, and how many pairs have a wrong one."""
    words: Counter[str] = Counter()
    number = alarms = 0
    for pair in pairs:
        found = Counter(change.word for change in compare(*pair).changes)
        words += found
        number += 1
        alarms += bool(found[FASTER] or found[SLOWER])
    return f"{alarms} of {number} pairs; {', '.join(f'{count} {word}' for word, count in sorted(words.items()))}"


def main(paths: list[str]) -> None:
    documents = [read_results(Path(path)) for path in paths]
    for title, shown in (("", documents), (", nothing allowed for others", [*map(alone, documents)])):
        print(f"each with the next{title}: {told(pairwise(shown))}")
        print(f"every two{title}: {told(combinations(shown, 2))}")


if __name__ == "__main__":
    main(sys.argv[1:])
