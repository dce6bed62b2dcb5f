"""What a measurement is bound by, and what to try next. Pure: numbers in, advice out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mfstore.bench.ceilings import Ceilings
from mfstore.bench.results import SHORT_RUN, Cell, Verdict

NEAR = 0.7
"""Of a ceiling: at two thirds of a rate that a plain loop reaches there is little left to win."""
BUSY = 0.85
"""Of all CPUs, or of one: the rest is other programs and waiting for the last object."""
TROUBLED = 0.01
"""Of requests that had to be repeated: from here they cost more time than they carry."""
GROWS = 1.15
"""More throughput with more requests at once by this factor says that latency was the limit."""
SMALL_OBJECT = 256 << 10
"""Objects below this cost by number rather than by size, on disks and on S3 alike."""
WRITES, READS = ("put", "save"), ("get", "load")


@dataclass(frozen=True, slots=True)
class Site:
    """What matters of where it ran."""

    kind: str
    loopback: bool
    """The endpoint is on this machine."""


def judge(cell: Cell, ceilings: Ceilings, site: Site, cells: Iterable[Cell] = ()) -> Verdict:
    """The verdict on one cell; ``cells`` are all of the run, for those that differ in concurrency alone."""
    found = _trouble(cell) or _busy(cell, ceilings, site) or _ceiling(cell, ceilings, site)
    if found is not None:
        return found
    if cell.seconds < SHORT_RUN:
        return Verdict("unknown", f"it took {cell.seconds * 1000:.0f} ms", "More objects: --count, or --profile admin")
    if site.kind == "s3":
        return _far(cell, ceilings, site, cells)
    return _near(cell)


def _trouble(cell: Cell) -> Verdict | None:
    """Requests that failed."""
    sent = sum(cell.requests.values())
    if cell.throttled > TROUBLED * sent:
        return Verdict(
            "throttling", f"{cell.throttled} of {sent} requests were answered 503 or 429",
            "Spread keys over more prefixes, lower the concurrency, or ask the service's operator for a higher limit",
        )  # fmt: skip
    if cell.retries > TROUBLED * sent:
        advice = "They were injected on purpose: compare with the scenario without"
        if not cell.scenario.failure:
            advice = "Look for the errors of this time in the service's log"
        return Verdict("failures", f"{cell.retries} of {sent} requests were repeats", advice)
    return None


def _busy(cell: Cell, ceilings: Ceilings, site: Site) -> Verdict | None:
    """The CPUs of this machine."""
    if cell.cpu_share >= BUSY * ceilings.cpus:
        advice = "More or faster cores"
        if cell.engine == "aiobotocore":
            advice = "Use the native engine, which takes a fraction of the CPU"
        elif cell.scenario.size < cell.scenario.count * SMALL_OBJECT:
            advice = "Fewer and larger objects, or bundles: below 256 KiB their number costs, not their size"
        return Verdict("cpu", f"{cell.cpu_share:.1f} of {ceilings.cpus} cores were at work", advice)
    machine = cell.machine_share
    if machine is not None and machine >= BUSY * ceilings.cpus and cell.cpu_share < machine / 2:
        advice = "Repeat it when nothing else runs"
        if site.loopback:
            advice = "The server shares this machine: run the benchmark from another one"
        return Verdict(
            "other programs",
            f"of {machine:.1f} cores at work mfstore used {cell.cpu_share:.1f}",
            advice,
        )
    return None


def _ceiling(cell: Cell, ceilings: Ceilings, site: Site) -> Verdict | None:
    """What a plain loop on this machine does not do much faster either."""
    rate = cell.bytes_per_second
    disk = {**dict.fromkeys(WRITES, ceilings.disk_write), **dict.fromkeys(READS, ceilings.disk_read)}
    reached = disk.get(cell.operation) if site.kind == "directory" else None
    if reached and rate >= NEAR * reached:
        return Verdict("disk", f"{rate / reached:.0%} of what one plain file reaches here", "A faster disk")
    if cell.operation in READS and rate >= NEAR * ceilings.hash_all:
        return Verdict(
            "hash", f"{rate / ceilings.hash_all:.0%} of the rate at which this machine can hash",
            "More or faster cores; verify=False reads without hashing",
        )  # fmt: skip
    if site.loopback and rate >= NEAR * ceilings.loopback:
        return Verdict(
            "loopback", f"{rate / ceilings.loopback:.0%} of TCP on this machine", "Run it from another machine"
        )
    return None


def _far(cell: Cell, ceilings: Ceilings, site: Site, cells: Iterable[Cell]) -> Verdict:
    """Waiting for a service."""
    higher, better = _more(cell, cells)
    if higher is not None and better >= GROWS:
        return Verdict(
            "latency", f"with {higher.scenario.concurrency} at once it was {better:.1f} times as fast",
            "More objects at a time; without a fixed concurrency mfstore finds the number itself",
        )  # fmt: skip
    if higher is None and cell.scenario.concurrency == 1:
        return Verdict("latency", "one request at a time", "More at once: leave --concurrency out")
    if cell.cpu_share >= BUSY and cell.engine != "native":
        return Verdict(
            "one core", f"{cell.cpu_share:.2f} of {ceilings.cpus} cores were at work, most of it one interpreter",
            "Use the native engine" if cell.engine == "aiobotocore" else "Several processes",
        )  # fmt: skip
    because = f"{1 - min(cell.cpu_share / ceilings.cpus, 1):.0%} of this machine's CPU time was left"
    if higher is not None:
        because = f"{higher.scenario.concurrency} at once were no faster ({better:.2f} times)"
    if site.loopback:
        return Verdict("network or service", because, "The server shares this machine: measure from another one")
    if cell.scenario.size < cell.scenario.count * SMALL_OBJECT:
        return Verdict("network or service", because, "Fewer and larger objects, or bundles (store.save)")
    return Verdict("network or service", because, "A machine nearer to the service, or with a faster network")


def _near(cell: Cell) -> Verdict:
    """A directory, or memory."""
    small = cell.scenario.size < cell.scenario.count * SMALL_OBJECT
    if cell.cpu_share >= BUSY:
        advice = "Several processes, or more artifacts at a time" if cell.engine == "store" else "Several processes"
        if small and cell.engine != "store":
            advice = "Bundles (store.save) instead of single objects: each object is a file to open"
        return Verdict("one core", f"{cell.cpu_share:.1f} cores were at work", advice)
    if cell.operation in WRITES:
        return Verdict(
            "disk", "waiting for the file system to make files durable",
            'Bundles (store.save), which sync once for all; fsync="none" where a power cut may lose the last ones',
        )  # fmt: skip
    return Verdict(
        "disk", "waiting for the file system", "A faster disk, or larger objects" if small else "A faster disk"
    )


def _more(cell: Cell, cells: Iterable[Cell]) -> tuple[Cell | None, float]:
    """Of the cells that differ only by a higher concurrency, the fastest, and how many times as fast it is."""
    mine = cell.scenario.concurrency
    if mine is None or not cell.objects_per_second:
        return None, 0.0
    found = [
        other
        for other in cells
        if other.operation == cell.operation
        and (other.scenario.concurrency or 0) > mine
        and replace(other.scenario, concurrency=mine) == cell.scenario
    ]
    best = max(found, key=lambda other: other.objects_per_second, default=None)
    return best, best.objects_per_second / cell.objects_per_second if best else 0.0
