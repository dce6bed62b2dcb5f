"""Which runs of each group a policy counts out: the last ones, and those of the calendar. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mfstore.maintenance.metaflow.collecting.facts import RunFacts
from mfstore.maintenance.metaflow.collecting.policy import Run, RunPolicy
from mfstore.maintenance.periods import NOUNS, last_of_periods

Group = tuple[str, ...]


def counted_out(runs: Collection[RunFacts], policy: RunPolicy, now: float) -> dict[Run, str]:
    """The runs that their group keeps, each with the first reason. What is over its own time counts for nothing."""
    kept: dict[Run, str] = {}
    for group in grouped([facts for facts in runs if not facts.expired(now)], policy.group_by).values():
        for facts, why in _of_group(group, policy):
            kept.setdefault((facts.flow, facts.run), why)
    return kept


def grouped(runs: Collection[RunFacts], by: Collection[str]) -> dict[Group, list[RunFacts]]:
    """Runs with the same flow, branch, user or origin, the newest first."""
    names = sorted(by)
    found: dict[Group, list[RunFacts]] = {}
    for facts in sorted(runs, key=lambda facts: (facts.began, facts.flow, facts.run), reverse=True):
        found.setdefault(tuple(getattr(facts, name) for name in names), []).append(facts)
    return found


def _of_group(group: list[RunFacts], policy: RunPolicy) -> Iterator[tuple[RunFacts, str]]:
    counting = [facts for facts in group if facts.counts]
    if policy.last:
        for facts in group[: _stretch(group, policy.last)]:
            yield facts, f"among the last {policy.last}" if facts.counts else f"newer than the last {policy.last}"
    if policy.last_successful:
        for facts in counting[: policy.last_successful]:
            yield facts, f"among the last {policy.last_successful} successful"
    for number, kind in last_of_periods((facts.began for facts in counting), policy.periods).items():
        yield counting[number], f"last of its {NOUNS[kind]}"


def _stretch(group: list[RunFacts], last: int) -> int:
    """How many of the newest runs reach down to the ``last``-th that counts, or to the last one where fewer do; so many
    of any kind at least. For a flow that always fails it is not endless."""
    counting = [number for number, facts in enumerate(group) if facts.counts]
    return max([last, *(number + 1 for number in counting[:last])])
