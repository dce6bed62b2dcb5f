"""Which runs of each group a policy counts out: the last ones, and those of the calendar. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.run_table import Reasons, RunTable
from mfstore.maintenance.periods import NOUNS, last_of_periods


def counted_out(runs: RunTable, policy: RunPolicy, now: float) -> Reasons:
    """The runs that their group keeps, each with the first reason. What is over its own time counts for nothing."""
    kept = Reasons(runs)
    if policy.last or policy.last_successful or any(policy.periods.values()):
        for group in _grouped(runs, policy, now).values():
            for number, why in _of_group(runs, group, policy):
                if kept.at(number) is None:
                    kept.put(number, why)
    return kept


@dataclass(frozen=True, slots=True)
class _Group:
    """Runs with the same flow, branch, user or origin, by their numbers."""

    runs: array[int] = field(default_factory=lambda: array("q"))
    counting: array[int] = field(default_factory=lambda: array("q"))
    """Those among them that count."""


def _grouped(runs: RunTable, policy: RunPolicy, now: float) -> dict[tuple[str, ...], _Group]:
    names = sorted(policy.group_by)
    found: dict[tuple[str, ...], _Group] = {}
    for number, facts in enumerate(runs):
        if not policy.judges(facts.flow) or (policy.ttl and facts.expired(now)):
            continue
        group = found.setdefault(tuple([getattr(facts, name) for name in names]), _Group())
        group.runs.append(number)
        if facts.counts:
            group.counting.append(number)
    return found


def _of_group(runs: RunTable, group: _Group, policy: RunPolicy) -> Iterator[tuple[int, str]]:
    def newest_first(numbers: array[int]) -> array[int]:
        return array("q", sorted(numbers, key=lambda number: (runs.began(number), *runs.run(number)), reverse=True))

    counting = newest_first(group.counting)
    if policy.last:
        counted = {*counting[: policy.last]}
        for at, number in enumerate(newest_first(group.runs)):
            # Down to the last-th that counts, or to the last one where fewer do; so many of any kind at least. For a
            # flow that always fails it is not endless.
            if at >= policy.last and not counted:
                break
            counts = runs[number].counts
            counted.discard(number)
            yield number, f"among the last {policy.last}" if counts else f"newer than the last {policy.last}"
    if policy.last_successful:
        for number in counting[: policy.last_successful]:
            yield number, f"among the last {policy.last_successful} successful"
    for at, kind in last_of_periods(map(runs.began, counting), policy.periods).items():
        yield counting[at], f"last of its {NOUNS[kind]}"
