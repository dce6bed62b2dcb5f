"""What a measurement is bound by, and what to try next. Pure: numbers in, advice out.

``LOOKS`` are what is looked at, strongest first; the first that finds something decides. What was counted (refusals, a
quota that stopped the process, its own CPU time) comes before what was compared (rates of the same scenario at other
concurrencies, plain loops on this machine), that before what is inferred from times (an empty request's against an
object's), and all of it before what merely went on at the same time: that other programs kept the CPUs busy does not
say that they were in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import log
from statistics import fmean

from mfstore.bench.ceilings import Ceilings
from mfstore.bench.link import Link
from mfstore.bench.results import SHORT_RUN, Cell, Verdict
from mfstore.bench.scenarios import OBJECTS
from mfstore.s3.urls import SCHEMES

NEAR = 0.7
"""Of a ceiling: at two thirds of a rate that a plain loop reaches there is little left to win."""
BUSY = 0.85
"""Of all CPUs, or of one: the rest is other programs and waiting for the last object."""
TROUBLED = 0.01
"""Of requests that had to be repeated: from here they cost more time than they carry."""
HELD_BACK = 0.25
"""Of the periods of a quota: where Kubernetes' own rules (kubernetes-mixin, CPUThrottlingHigh) raise an alarm."""
GROWS = 1.15
"""More throughput with more requests at once by this factor says that waiting for each was the limit."""
STEEP = 0.7
"""Throughput that grows as this power of the requests at once still waits for each more than for anything they share:
with twice as many it is 1.6 times as much. Behind what is shared it grows as the power 0."""
EXPLAINED = 0.5
"""Of the median time of an object, what an empty request takes: by Little's law the rate is the number at once by that
time, so where most of it passes before anything queues, more at once bring more."""
MOSTLY = 0.7
"""The same where more at once brought no more: only if hardly anything queued at this number can it have been it."""
QUEUED = 0.25
"""Of the median time of an object, what an empty request takes, below which something queues."""
FLOWS = 0.7
"""Of an object's time, what passes between its first byte and its last: its connection is what it takes."""
SAME_RATE = 1.5
"""Rates of one connection within this factor, with objects of different sizes, are called the same."""
FLOW_BYTES = 64 << 10
"""Objects below this come with the first packets: there is nothing that could flow."""
UNTROUBLED = 0.1
"""Of the time: who waited for a CPU for less than this was not kept from it."""
REFUSED_PER_SECOND = 10
"""Times that memory had to be won back, from which on a limit is named when nothing else is found."""
FEWEST_STEPS = 4
"""Slices of a run whose requests at once differ, for their rates to tell anything."""
SMALL_OBJECT = 256 << 10
"""Objects below this cost by number rather than by size, on disks and on S3 alike."""
WRITES, READS = ("put", "save"), ("get", "load")


@dataclass(frozen=True, slots=True)
class Site:
    """What matters of where it ran."""

    kind: str
    loopback: bool
    """The endpoint is on this machine."""
    link: Link | None = None
    """To the endpoint, as it was before the run."""
    quota: float | None = None
    """CPUs that the control group may use."""
    memory: int | None = None
    """Bytes that it may use."""
    cores: int | None = None
    """Of the machine, of which this process may be allowed only some; None: as many as it may use."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One cell, and what it is held against."""

    cell: Cell
    ceilings: Ceilings
    site: Site
    cells: tuple[Cell, ...] = ()
    """All of the run."""

    @property
    def small(self) -> bool:
        """Whether objects cost by their number."""
        return self.cell.scenario.size < self.cell.scenario.count * SMALL_OBJECT

    @property
    def machine_full(self) -> bool:
        """Whether all cores of the machine were at work, for whomever."""
        machine = self.cell.machine_share
        return machine is not None and machine >= BUSY * (self.site.cores or self.ceilings.cpus)

    @property
    def queued(self) -> bool:
        """Whether objects took much longer than an empty request and their bytes do: they waited for each other."""
        link, whole = self.site.link, self.cell.latency.p50
        if link is None or link.request is None or not whole:
            return False
        return link.request < QUEUED * whole and self.flow()[0] < FLOWS

    def siblings(self) -> list[Cell]:
        """The cells that differ in concurrency alone."""
        mine = self.cell.scenario.concurrency
        if mine is None or not self.cell.objects_per_second:
            return []
        return [
            other
            for other in self.cells
            if other.operation == self.cell.operation
            and other.objects_per_second
            and other.scenario.concurrency is not None
            and other.scenario.concurrency != mine
            and replace(other.scenario, concurrency=mine) == self.cell.scenario
        ]

    def more(self) -> tuple[Cell | None, float]:
        """Of the cells that differ only by a higher concurrency, the fastest, and how many times as fast it is."""
        found = [other for other in self.siblings() if _at_once(other) > _at_once(self.cell)]
        best = max(found, key=lambda other: other.objects_per_second, default=None)
        return best, best.objects_per_second / self.cell.objects_per_second if best else 0.0

    def fewer(self) -> tuple[Cell | None, float]:
        """Of those with a lower one, the next; and the power of the number at once with which the rate grew since."""
        found = [other for other in self.siblings() if _at_once(other) < _at_once(self.cell)]
        next_ = max(found, key=_at_once, default=None)
        if next_ is None:
            return None, 0.0
        grown = self.cell.objects_per_second / next_.objects_per_second
        return next_, log(grown) / log(_at_once(self.cell) / _at_once(next_))

    def flow(self) -> tuple[float, float]:
        """Of an object's median time, the share in which its bytes flow; and their bytes per second, of one
        connection. By the first byte, where an answer has a body; else by smaller objects, or an empty request."""
        cell, whole = self.cell, self.cell.latency.p50
        size = _mean_size(cell)
        if not whole or size < FLOW_BYTES or cell.operation not in ("put", "get"):
            return 0.0, 0.0
        waited, moved = None, size
        if cell.operation == "get" and cell.first_byte.p50 is not None:
            waited = cell.first_byte.p50
        elif (smaller := self._smaller()) is not None:
            waited, moved = smaller.latency.p50, size - _mean_size(smaller)
        elif self.site.link is not None:
            waited = self.site.link.request
        if waited is None or waited >= whole:
            return 0.0, 0.0
        sent = sum(cell.requests.values())
        if sent > 1.5 * max(cell.objects, 1) and cell.in_flight is not None and cell.in_flight.mean:
            return 1 - waited / whole, cell.bytes_per_second / cell.in_flight.mean  # in parts, each a connection
        return 1 - waited / whole, moved / (whole - waited)

    def _smaller(self) -> Cell | None:
        """The largest objects, moved likewise, of a quarter of the size or less."""
        found = [other for other in self._other_sizes() if _mean_size(other) * 4 <= _mean_size(self.cell)]
        return max(found, key=_mean_size, default=None)

    def larger(self) -> Cell | None:
        """The largest objects, moved likewise, of four times the size or more."""
        found = [other for other in self._other_sizes() if _mean_size(other) >= 4 * _mean_size(self.cell)]
        return max(found, key=_mean_size, default=None)

    def _other_sizes(self) -> list[Cell]:
        mine = self.cell.scenario
        return [
            other
            for other in self.cells
            if other.operation == self.cell.operation
            and other.latency.p50
            and other.scenario.sizes != mine.sizes
            and len(other.scenario.sizes) == len(mine.sizes) == 1
            and replace(other.scenario, sizes=mine.sizes) == mine
        ]


Look = Callable[[Evidence], Verdict | None]


def judge(cell: Cell, ceilings: Ceilings, site: Site, cells: Iterable[Cell] = ()) -> Verdict:
    """The verdict on one cell; ``cells`` are all of the run, for those that differ in concurrency or size alone."""
    evidence = Evidence(cell, ceilings, site, tuple(cells))
    return next(found for look in LOOKS if (found := look(evidence)) is not None)


def _refusals(found: Evidence) -> Verdict | None:
    """Requests that failed."""
    cell = found.cell
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


def _paced(found: Evidence) -> Verdict | None:
    """An open loop asks for no more than it was told to."""
    pace = found.cell.pace
    if pace is None or not pace.reached:
        return None
    return Verdict("rate", f"{pace.rate:g}/s were asked for and done", "A higher --rate, until it is not reached")


def _too_short(found: Evidence) -> Verdict | None:
    """Nothing can be said."""
    if found.cell.seconds >= SHORT_RUN:
        return None
    took = f"it took {found.cell.seconds * 1000:.0f} ms"
    return Verdict("unknown", took, "More objects: --count, --duration, or --profile admin")


def _quota(found: Evidence) -> Verdict | None:
    """The control group stopped this process."""
    group, quota = found.cell.usage.group, found.site.quota
    stopped = group.throttled >= max(2, HELD_BACK * group.periods)
    if not stopped and (quota is None or found.cell.cpu_share < BUSY * quota):
        return None
    because = (
        f"{found.cell.cpu_share:.2f} CPUs were at work, of {quota or found.ceilings.cpus:g} that the container has"
    )
    if stopped:
        because += f"; in {group.throttled} of {group.periods} periods they were used up, and it was stopped for "
        because += f"{group.throttled_seconds:.1f} s in all"
    return Verdict(
        "cpu quota", because,
        "A higher CPU limit for the container (cpu.max; Kubernetes: resources.limits.cpu), or none",
    )  # fmt: skip


def _all_cores(found: Evidence) -> Verdict | None:
    """This process kept them all busy."""
    cell, cpus = found.cell, found.ceilings.cpus
    if cell.cpu_share < BUSY * cpus:
        return None
    advice = "More or faster cores"
    if cell.engine == "aiobotocore":
        advice = "Use the native engine, which takes a fraction of the CPU"
    elif found.small:
        advice = "Fewer and larger objects, or bundles: below 256 KiB their number costs, not their size"
    return Verdict("cpu", f"{cell.cpu_share:.1f} of {cpus} cores were at work", advice)


def _one_core(found: Evidence) -> Verdict | None:
    """What can only be done by one core, did nothing else."""
    cell, cpus = found.cell, found.ceilings.cpus
    if found.site.kind in SCHEMES:
        thread = (cell.usage.thread or 0.0) / cell.seconds
        if max(thread, 0.0 if cell.engine == "native" else cell.cpu_share) < BUSY:
            return None
        advice = "Use the native engine" if cell.engine == "aiobotocore" else "Several processes"
        if found.small and cell.engine == "native":
            advice = "Fewer and larger objects, bundles (store.save), or several processes"
        return Verdict(
            "one core", f"{cell.cpu_share:.2f} of {cpus} cores were at work, most of it one interpreter", advice
        )
    if cell.cpu_share < BUSY or found.more()[1] >= GROWS:
        return None
    advice = "Several processes, or more artifacts at a time" if cell.engine == "store" else "Several processes"
    if found.small and cell.engine != "store":
        advice = "Bundles (store.save) instead of single objects: each object is a file to open"
    return Verdict("one core", f"{cell.cpu_share:.1f} cores were at work", advice)


def _ceiling(found: Evidence) -> Verdict | None:
    """What a plain loop on this machine does not do much faster either."""
    cell, ceilings, site = found.cell, found.ceilings, found.site
    if found.more()[1] > 1 / NEAR:
        return None  # it was no ceiling
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


def _scaling(found: Evidence) -> Verdict | None:
    """The same at other concurrencies: whether more at once brought more."""
    cell = found.cell
    if cell.scenario.layer != OBJECTS and found.site.kind not in SCHEMES:
        return None  # there the number is of threads that compute
    higher, better = found.more()
    if higher is not None:
        if better < GROWS:
            return None
        return _waiting(found, f"with {_at_once(higher)} at once it was {better:.1f} times as fast")
    lower, power = found.fewer()
    if lower is None or power < STEEP:
        return None
    grown = cell.objects_per_second / lower.objects_per_second
    return _waiting(
        found, f"it was still {grown:.1f} times as fast as with {_at_once(lower)} at once: more would bring more"
    )


def _ramp(found: Evidence) -> Verdict | None:
    """The same within the measurement, where mfstore chose how many were under way and tried several numbers."""
    cell = found.cell
    steps = _steps(cell)
    if cell.scenario.concurrency is not None or len(steps) < FEWEST_STEPS or found.queued:
        return None
    least, most = min(steps), max(steps)
    if most[0] < 2 * least[0] or _power(steps) < STEEP:
        return None
    return _waiting(found, f"the rate grew with the requests under way, from {least[0]:.0f} to {most[0]:.0f} at once")


def _empty_request(found: Evidence) -> Verdict | None:
    """What passes before anything is moved, or queues."""
    cell, link, whole = found.cell, found.site.link, found.cell.latency.p50
    if link is None or link.request is None or not whole or cell.operation not in ("put", "get", "head"):
        return None
    higher, better = found.more()
    if link.request < (EXPLAINED if higher is None else MOSTLY) * whole:
        return None
    because = f"of {_ms(whole)} that an object took, an empty request takes {_ms(link.request)}"
    if higher is not None:
        # Nothing queues yet; what does with more at once is told there.
        because += f"; {_at_once(higher)} at once were no faster ({better:.2f} times)"
        return Verdict("latency", because, f"{_at_once(cell)} at once are as many as bring anything here")
    if link.connect is not None and link.connect < link.request / 4:
        because += f", and the way there {_ms(link.connect)}: the service takes the rest"
    return _waiting(found, because)


def _one_at_a_time(found: Evidence) -> Verdict | None:
    """Nothing else was under way."""
    cell = found.cell
    if found.site.kind not in SCHEMES or cell.scenario.concurrency != 1 or found.more()[0] is not None:
        return None
    if found.machine_full and cell.cpu_share < (cell.machine_share or 0.0) / 2:
        return None  # who it waits for may be these
    return Verdict("latency", "one request at a time", "More at once: leave --concurrency out")


def _waiting(found: Evidence, because: str) -> Verdict:
    """More at once brings more: for what each waits decides the word."""
    cell = found.cell
    share, rate = found.flow()
    if found.site.kind in SCHEMES and share >= FLOWS and _constant(found, rate):
        return Verdict(
            "per-connection rate",
            f"{because}; one connection brings {rate / 1e6:.3g} MB/s, which {share:.0%} of an object's time go to",
            "More connections: more objects at a time, without a fixed concurrency; large ones go in parts anyway",
        )  # fmt: skip
    if found.site.kind not in SCHEMES:
        return Verdict("latency", because, "More threads, or bundles (store.save): each file is waited for")
    if cell.scenario.concurrency is not None:
        advice = "More objects at a time; without a fixed concurrency mfstore finds the number itself"
        return Verdict("latency", because, advice)
    at_once = cell.in_flight.most if cell.in_flight is not None else 0
    settled = f"; mfstore had {at_once} requests under way at most, by its own choice" if at_once else ""
    if at_once and at_once >= cell.scenario.count * BUSY:
        return Verdict("latency", f"{because}{settled}", "More objects in one call: there were no more to ask for")
    advice = f"A machine nearer to the service, or --concurrency {2 * at_once or 256}"
    if found.small:
        advice = f"Fewer and larger objects, or bundles (store.save). {advice}"
    return Verdict("latency", f"{because}{settled}", advice)


def _constant(found: Evidence, rate: float) -> bool:
    """Whether the rate of a connection is that of larger objects too, if there are any."""
    larger = found.larger()
    if larger is None:
        return True
    other = replace(found, cell=larger).flow()[1]
    return not other or max(other, rate) <= SAME_RATE * min(other, rate)


def _others(found: Evidence) -> Verdict | None:
    """Other programs kept the CPUs busy, and nothing says that they were not in the way."""
    cell, usage = found.cell, found.cell.usage
    machine = cell.machine_share
    if machine is None or not found.machine_full or cell.cpu_share >= machine / 2:
        return None
    if usage.pressure is not None and usage.pressure < UNTROUBLED * cell.seconds:
        return None  # nobody on the whole machine waited for one
    if not found.site.loopback and usage.waited is not None and usage.waited < UNTROUBLED * cell.seconds:
        return None
    advice = "Repeat it when nothing else runs"
    if found.site.loopback:
        advice = "The server shares this machine: run the benchmark from another one"
    because = f"of {machine:.1f} cores at work mfstore used {cell.cpu_share:.1f}"
    if usage.waited is not None and usage.waited >= UNTROUBLED * cell.seconds:
        because += f", and waited for one for {usage.waited:.1f} s"
    return Verdict("other programs", because, advice)


def _memory(found: Evidence) -> Verdict | None:
    """The control group was at its limit."""
    refused = found.cell.usage.group.memory_refused
    if refused < REFUSED_PER_SECOND * found.cell.seconds:
        return None
    limit = f" of {found.site.memory / 1e9:.3g} GB" if found.site.memory is not None else ""
    return Verdict(
        "memory limit", f"the container was at its limit{limit}: memory had to be won back {refused} times",
        "A higher memory limit for the container (memory.max; Kubernetes: resources.limits.memory)",
    )  # fmt: skip


def _rest(found: Evidence) -> Verdict:
    """What is left when nothing of it is on this machine."""
    cell, site = found.cell, found.site
    if site.kind not in SCHEMES:
        if cell.operation in WRITES:
            return Verdict(
                "disk", "waiting for the file system to make files durable",
                'Bundles (store.save), which sync once for all; fsync="none" where a power cut may lose the last ones',
            )  # fmt: skip
        advice = "A faster disk, or larger objects" if found.small else "A faster disk"
        return Verdict("disk", "waiting for the file system", advice)
    higher, better = found.more()
    because = f"{1 - min(cell.cpu_share / found.ceilings.cpus, 1):.0%} of this machine's CPU time was left"
    if higher is not None:
        because = f"{_at_once(higher)} at once were no faster ({better:.2f} times)"
    elif (fewer := found.fewer())[0] is not None:
        because = f"it was {cell.objects_per_second / fewer[0].objects_per_second:.2f} times as fast as with "
        because += f"{_at_once(fewer[0])} at once"
    link, whole = site.link, cell.latency.p50
    if link is not None and link.request is not None and whole and link.request < EXPLAINED * whole:
        because += f"; an object took {_ms(whole)}, an empty request {_ms(link.request)}"
    if site.loopback:
        return Verdict("network or service", because, "The server shares this machine: measure from another one")
    if found.small:
        return Verdict("network or service", because, "Fewer and larger objects, or bundles (store.save)")
    if cell.scenario.concurrency is None and found.flow()[0] >= FLOWS:
        advice = "--concurrency 4,64 tells whether it is a limit of each connection or of all together"
        return Verdict("network or service", because, advice)
    return Verdict("network or service", because, "A machine nearer to the service, or with a faster network")


LOOKS: tuple[Look, ...] = (
    _refusals, _paced, _too_short, _quota, _all_cores, _one_core, _ceiling, _scaling, _ramp, _empty_request,
    _one_at_a_time, _others, _memory, _rest,
)  # fmt: skip
"""Strongest first; the last always finds something."""


def _at_once(cell: Cell) -> int:
    return cell.scenario.concurrency or 0


def _mean_size(cell: Cell) -> float:
    return cell.scenario.size / cell.scenario.count


def _steps(cell: Cell) -> list[tuple[float, float]]:
    """Of each slice in which there was more to start: requests under way, and what they brought per second."""
    if cell.in_flight is None:
        return []
    width = cell.slices.seconds
    full = int(cell.tail.first_done / width)
    # What is sent brings something only when its time has passed.
    late = int(2 * (cell.latency.p50 or 0.0) / width) if (cell.latency.p50 or 0.0) > width / 2 else 0
    rates = cell.slices.bytes if any(cell.slices.bytes) else cell.slices.objects
    pairs = zip(cell.in_flight.slices[late:full], rates[late:full], strict=False)
    return [(number, rate) for number, rate in pairs if number > 0 and rate > 0]


def _power(steps: list[tuple[float, float]]) -> float:
    """With which power of the number under way the rate grows, by least squares."""
    logs = [(log(number), log(rate)) for number, rate in steps]
    middle, mean = fmean(number for number, _ in logs), fmean(rate for _, rate in logs)
    spread = sum((number - middle) ** 2 for number, _ in logs)
    return sum((number - middle) * (rate - mean) for number, rate in logs) / spread if spread else 0.0


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
