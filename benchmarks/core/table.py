"""What was measured of series, as lines and as the tables of docs/performance.md."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.core.unrelated import LIMIT, Unrelated

WORST = 8
"""Rows that are shown again, of each kind."""
NOTHING_TO_SAVE = 1.02


@dataclass(frozen=True)
class Measured:
    """One series: bytes by version, first to last, and by peer."""

    name: str
    description: str
    sizes: list[int]
    """Of the pickles."""
    changed: list[int]
    """What truly changed, before any codec."""
    data: dict[str, list[int]]
    index: dict[str, list[int]]
    cpu: dict[str, float]
    """Seconds by peer."""

    @property
    def own(self) -> str:
        """mfstore as it stores a series: each version based on the one before, where it can be told so."""
        return "mfstore based" if "mfstore based" in self.data else "mfstore"

    def later(self, peer: str) -> int:
        """Bytes that all versions but the first add."""
        return sum(self.data[peer][1:])

    def against(self, peer: str, own: str = "") -> float:
        """Bytes of mfstore for all versions but the first, as a share of the peer's; of nothing by both, 1."""
        return share(self.later(own or self.own), self.later(peer))

    def against_all(self, peer: str, own: str = "") -> float:
        """The same of all versions."""
        return share(sum(self.data[own or self.own]), sum(self.data[peer]))

    def worst_version(self) -> float:
        """Of the version that does worst, mfstore's bytes as a share of those of zstd of the whole pickle."""
        return max(share(own, whole) for own, whole in zip(self.data[self.own], self.data["whole"], strict=True))


def share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0 if not part else float("inf")


def line(one: Measured) -> str:
    """One series in one line, as it is measured."""
    cells = "  ".join(f"{peer} {megabytes(one.later(peer))}" for peer in one.data)
    return (
        f"{one.name:24} {one.against('fastcdc'):6.2f} x fastcdc, worst version {one.worst_version():.2f} x whole;  "
        f"later, MB: {cells};  CPU {sum(one.cpu.values()):.1f} s"
    )


def tables(found: list[Measured]) -> None:
    """Everything, the tables one after the other."""
    based = "mfstore based" in found[0].data
    own = ("mfstore based", "mfstore") if based else ("mfstore",)
    others = ("fastcdc", "restic", "whole", "changed")
    titles = {
        "mfstore based": "mfstore",
        "mfstore": "without a base" if based else "mfstore",
        "fastcdc": "FastCDC 64 KiB",
        "restic": "chunks of 1 MiB",
        "whole": "whole, zstd-3",
        "changed": "truly changed",
    }
    heads = [titles[peer] for peer in (*own, *others)]
    ends = ["against FastCDC", "all ten: mfstore", "FastCDC", "against", "index", "worst version against whole"]
    print("Bytes that versions 2 to 10 add, in MB; then of all ten; *truly changed* is compressed by zstd-3 too.\n")
    print("| series | " + " | ".join([*heads, *ends]) + " |\n|---|" + "--:|" * len([*heads, *ends]))
    for one in found:
        cells = [megabytes(one.later(peer)) for peer in (*own, *others)]
        cells += [times(one.against("fastcdc")), megabytes(sum(one.data[one.own])), megabytes(sum(one.data["fastcdc"]))]
        cells += [times(one.against_all("fastcdc")), megabytes(sum(one.index.get(one.own, [0])))]
        cells += [times(one.worst_version())]
        print(f"| {one.name}: {one.description} | " + " | ".join(cells) + " |")
    summary(found, own)
    shuffled(found)
    worst("Worst against FastCDC, versions 2 to 10", found, lambda one: one.against("fastcdc"))
    worst("Worst version against whole", found, Measured.worst_version)
    if based:
        worst(
            "Most CPU with a base against without", found, lambda one: one.cpu[one.own] / max(one.cpu["mfstore"], 1e-3)
        )
    worst("Most CPU against zstd of whole versions", found, lambda one: one.cpu[one.own] / max(one.cpu["whole"], 1e-3))


def summary(found: list[Measured], own: tuple[str, ...]) -> None:
    """Medians and how many series are worse than what is promised."""
    rows = {"mfstore based": "mfstore, told of the version before", "mfstore": "mfstore, told of nothing"}
    print("\n| of all series | median | worse than 1.00 | worse than 1.02 | worst |\n|---|--:|--:|--:|--:|")
    for way in own:
        for text, values in (
            ("versions 2 to 10 against FastCDC", [one.against("fastcdc", way) for one in found]),
            ("all versions against FastCDC", [one.against_all("fastcdc", way) for one in found]),
            ("versions 2 to 10 against chunks of 1 MiB", [one.against("restic", way) for one in found]),
        ):
            cells = [times(statistics.median(values)), counted(values, 1.0), counted(values, NOTHING_TO_SAVE)]
            print(f"| {rows[way]}: {text} | " + " | ".join([*cells, times(max(values))]) + " |")
    values = [one.worst_version() for one in found]
    cells = [
        times(statistics.median(values)),
        counted(values, 1.0),
        counted(values, NOTHING_TO_SAVE),
        times(max(values)),
    ]
    print("| the worst version of each series against zstd-3 of it whole | " + " | ".join(cells) + " |")


def shuffled(found: list[Measured]) -> None:
    """Weights beside shuffle and zstd-3 of every version."""
    rows = [one for one in found if "shuffled" in one.data]
    if not rows:
        return
    print("\n| weights, all versions | mfstore | shuffle and zstd-3 | against |\n|---|--:|--:|--:|")
    for one in rows:
        both = megabytes(sum(one.data[one.own])), megabytes(sum(one.data["shuffled"]))
        print(f"| {one.name} | {both[0]} | {both[1]} | {times(one.against_all('shuffled'))} |")


def unrelated(found: list[Unrelated]) -> None:
    """What a base costs that has nothing of what is saved."""
    print("\nA save that names a base which has nothing of it: CPU of the process, the least of five saves.\n")
    print("| first version, and that of another seed | without, ms | with a base, ms | against | bytes |")
    print("|---|--:|--:|--:|--:|")
    for one in found:
        cells = [f"{one.without * 1e3:.1f}", f"{one.based * 1e3:.1f}", times(one.based / one.without)]
        print(f"| {one.name} | " + " | ".join([*cells, times(share(one.bytes_based, one.bytes_without))]) + " |")
    if found:
        ratios = [one.based / one.without for one in found]
        print(f"\n{counted(ratios, LIMIT)} beyond {LIMIT} x; median {times(statistics.median(ratios))}.")


def worst(title: str, found: list[Measured], value: Callable[[Measured], float]) -> None:
    print(f"\n| {title} | |\n|---|--:|")
    for one in sorted(found, key=value, reverse=True)[:WORST]:
        print(f"| {one.name} | {times(value(one))} |")


def counted(values: list[float], limit: float) -> str:
    return f"{sum(value > limit for value in values)} of {len(values)}"


def megabytes(value: int) -> str:
    return f"{value / 1e6:.3f}" if value < 10e6 else f"{value / 1e6:.1f}"


def times(value: float) -> str:
    return f"{value:.2f} x"
