"""Two results side by side. Pure: documents in, lines out.

A difference is one only if it is larger than what the same measurement differs by when nothing has changed. How much
that is, repetitions say; without them the time course of each measurement, cut into batches whose means count as
repetitions (the method of batch means); where neither is known nothing is claimed. What other programs took of the
machine during either of them may have been in its way, or not: the ratio lies anywhere between. All comparisons of
two results share one confidence (Bonferroni): of twenty cells one would be called different by chance otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from mfstore.bench.intervals import CONFIDENCE, Interval, ratio_interval
from mfstore.s3.urls import SCHEMES, on_loopback

SAME = 0.10
"""Differences below this are called none, however sure they are: where a program lies in memory, and what else its
environment changes, makes as much (Mytkowicz and others, "Producing Wrong Data Without Doing Anything Obviously
Wrong!", ASPLOS 2009)."""
MOST_TAKEN = 0.9
"""Of a machine that others took whole nothing is known: ten times is all that is allowed for."""
FEWEST_SLICES, BATCHES = 4, 10
FASTER, SLOWER, EQUAL, UNSURE = "faster", "slower", "same", "unsure"
HOST = ("cpu", "cores", "usable_cpus", "memory", "kernel", "cgroup", "file_system", "libraries")
PLACE = ("url", "kind", "endpoint", "version", "python", "cpus", "system", "seed", "seconds", "duration", "repeat")
WARNED = ("host", "version", "python", "cpus", "system", "kind", "endpoint")
"""What makes figures incomparable rather than different."""


@dataclass(frozen=True, slots=True)
class Change:
    """One cell, before and after. Ratios are after / before; None when either is not known."""

    name: str
    engine: str
    before: float
    """Objects (bundles, entries) per second; of repetitions their geometric mean."""
    after: float
    p50: float | None
    p99: float | None
    cpu: float | None
    """CPU seconds per object."""
    low: float | None = None
    high: float | None = None
    """Between these the ratio of rates lies, with a confidence that all changes of the comparison share, whatever other
    programs took. None: nobody knows, as they were too short, and not repeated."""
    basis: str | None = None
    """What says so: ``repetitions``, or ``slices`` of the time."""
    missed: bool = False
    """It could not keep up with the rate that was asked for any more: an open loop does what it is asked to, however
    slow the service, until it cannot."""

    @property
    def ratio(self) -> float:
        """Of objects per second: above 1 is faster."""
        return self.after / self.before

    @property
    def word(self) -> str:
        """``faster``, ``slower``, ``same``, or ``unsure``: it differs, and nobody knows by how much it does anyway."""
        if self.missed or not self.after:
            return SLOWER
        if 1 / (1 + SAME) <= self.ratio <= 1 + SAME:
            return EQUAL
        if self.low is None or self.high is None:
            return UNSURE
        return FASTER if self.low > 1 else SLOWER if self.high < 1 else EQUAL


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of two runs."""

    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    different: tuple[str, ...]
    """What else was not the same, and may explain a change: place, machine, seed, version."""
    warnings: tuple[str, ...] = ()
    """Those of them by which the figures can hardly be compared: machine, libraries, versions, service."""
    others: tuple[float, float] = (0.0, 0.0)
    """Of the time of a run, what other programs may have taken from it, before and after."""

    @property
    def slower(self) -> bool:
        """Whether anything is."""
        return any(change.word == SLOWER for change in self.changes)


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """Cells with the same scenario, operation and engine are compared; the rest is named. Where nothing succeeded
    before there is nothing to compare with; where nothing does after, it is slower."""
    old, new = _cells(before), _cells(after)
    shared = [key for key in old if key in new and _rate(old[key])]
    confidence = 1 - (1 - CONFIDENCE) / max(len(shared), 1)
    others = _others(before), _others(after)
    different = _different(before["run"], after["run"])
    return Comparison(
        tuple(_change(key, old[key], new[key], confidence, others) for key in shared),
        tuple(_text(key) for key in old if key not in new),
        tuple(_text(key) for key in new if key not in shared and _rate(new[key])),
        tuple(text for _, text in different), tuple(text for name, text in different if name in WARNED),
        others,
    )  # fmt: skip


Key = tuple[str, str]


def _cells(document: Mapping[str, Any]) -> dict[Key, Mapping[str, Any]]:
    return {(cell["name"], cell["engine"]): cell for cell in document["cells"]}


def _text(key: Key) -> str:
    return f"{key[0]} ({key[1]})"


def _different(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is not the same, each with the name that it is judged by. Of older versions it is not known."""
    found = [
        (name, f"{name}: {before.get(name)} and {after.get(name)}")
        for name in PLACE
        if before.get(name) != after.get(name)
    ]
    old, new = before.get("host") or {}, after.get("host") or {}
    for name in HOST if old and new else ():
        one, other = old.get(name), new.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            names = [part for part in {**one, **other} if one.get(part) != other.get(part)]
            found += [("host", f"{part}: {one.get(part)} and {other.get(part)}") for part in names]
        elif one != other:
            found.append(("host", f"{name}: {one} and {other}"))
    return found


def _others(document: Mapping[str, Any]) -> float:
    """At most, of the whole run: a single measurement may be too short to tell. It is no more than the share of the
    cores that they kept busy, nor than that of the time in which anybody had to wait for one; nor, where all that is
    waited for is this process or far away, than that in which this process had to."""
    run, cells = document["run"], document["cells"]
    cores = (run.get("host") or {}).get("cores") or run.get("cpus") or 1
    found = [_share(cells, "machine", cores), _share(cells, "pressure", 1)]
    if run.get("kind") in SCHEMES and not on_loopback(run.get("endpoint")):
        found.append(_share(cells, "waited", 1))
    return min([share for share in found if share is not None], default=0.0)


def _share(cells: Sequence[Mapping[str, Any]], name: str, cores: int) -> float | None:
    """Of so many cores, over all measurements that tell; of the machine's without this process's own."""
    known = [cell["usage"] for cell in cells if cell["usage"].get(name) is not None]
    wall = sum(usage["wall"] for usage in known)
    taken = sum(usage[name] - (usage["cpu"] if name == "machine" else 0.0) for usage in known)
    return min(max(taken / (wall * cores), 0.0), MOST_TAKEN) if wall else None


def _rate(cell: Mapping[str, Any]) -> float:
    repeats = cell.get("repeats")
    return float(repeats["mean"] if repeats and repeats["mean"] else cell["objects_per_second"])


def _samples(cell: Mapping[str, Any]) -> tuple[str, Sequence[float]]:
    """Rates that say how much this measurement differs from itself, and what they are of; none where nobody knows."""
    if repeats := cell.get("repeats"):
        return "repetitions", repeats["rates"]
    slices = cell["slices"]
    rates = slices["bytes"] if any(slices["bytes"]) else slices["objects"]
    if len(rates) < FEWEST_SLICES:
        return "slices", ()
    number = min(BATCHES, len(rates))
    edges = [len(rates) * batch // number for batch in range(number + 1)]
    return "slices", [fmean(rates[begin:end]) for begin, end in pairwise(edges)]


def _change(
    key: Key, old: Mapping[str, Any], new: Mapping[str, Any], confidence: float, others: tuple[float, float]
) -> Change:
    before, after = _rate(old), _rate(new)
    found, basis = _interval(old, new, after / before, confidence)
    if found is not None:
        found = Interval(found.mean, found.low * (1 - others[0]), found.high / (1 - others[1]))
    return Change(
        *key, before, after,
        _ratio(old["latency"]["p50"], new["latency"]["p50"]), _ratio(old["latency"]["p99"], new["latency"]["p99"]),
        _ratio(_cpu(old), _cpu(new)),
        found.low if found else None, found.high if found else None, basis if found else None,
        not missed(old) and missed(new),
    )  # fmt: skip


def _interval(
    old: Mapping[str, Any], new: Mapping[str, Any], ratio: float, confidence: float
) -> tuple[Interval | None, str]:
    """Around the ratio of the whole rates, from which that of batches may differ a little."""
    (basis, first), (other, second) = _samples(old), _samples(new)
    found = ratio_interval(first, second, confidence) if first and second else None
    if found is None:
        return None, basis
    shift = ratio / found.mean
    return Interval(ratio, found.low * shift, found.high * shift), basis if basis == other else "slices"


def _cpu(cell: Mapping[str, Any]) -> float | None:
    return cell["usage"]["cpu"] / cell["objects"] if cell["objects"] else None


def missed(cell: Mapping[str, Any]) -> bool:
    """Whether an open loop fell behind, in any of its rounds."""
    pace, repeats = cell.get("pace") or {}, cell.get("repeats") or {}
    return bool(repeats.get("missed", 0)) or not pace.get("reached", True)


def _ratio(old: float | None, new: float | None) -> float | None:
    return new / old if old and new is not None else None
