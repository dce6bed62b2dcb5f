"""Which runs of a Metaflow root a policy keeps, and why. Pure: docs/gc.md says the same in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from mfstore.display.amounts import duration
from mfstore.maintenance.metaflow.collecting.facts import RunFacts
from mfstore.maintenance.metaflow.collecting.groups import counted_out
from mfstore.maintenance.metaflow.collecting.policy import Run, RunPolicy, matches
from mfstore.maintenance.metaflow.collecting.run_table import Reasons, RunTable


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """Which runs the policy keeps."""

    kept: Reasons
    """Why each is kept."""
    dropped: Reasons
    """Why each of the others goes."""


def decide_runs(runs: RunTable, policy: RunPolicy, now: float) -> PolicyDecision:
    """Keep or drop each run."""
    counted = counted_out(runs, policy, now)
    judged = (facts for facts in _timed(runs, policy, now) if policy.judges(facts.flow))
    last_deployed = newest_of_deployments(judged, now) if policy.deployed else set()
    decision = PolicyDecision(Reasons(runs), Reasons(runs))
    for number, facts in enumerate(_timed(runs, policy, now)):
        reason = _held(facts, policy) or _wanted(facts, policy, now, counted.at(number) or "")
        if not reason and (facts.flow, facts.run) in last_deployed:
            reason = "what its deployment last ran"
        if not reason and now - facts.touched < policy.grace:
            reason = "written to within the grace period"
        if reason:
            decision.kept.put(number, reason)
        else:
            decision.dropped.put(number, _why_dropped(facts, policy, now))
    return decision


def _timed(runs: Iterable[RunFacts], policy: RunPolicy, now: float) -> Iterator[RunFacts]:
    """The runs; where none goes by its own time, as if none had one that is over."""
    if policy.ttl:
        return iter(runs)
    return (replace(facts, expires=None) if facts.expired(now) else facts for facts in runs)


def _held(facts: RunFacts, policy: RunPolicy) -> str:
    """What keeps a run even if its own time is over."""
    if not policy.judges(facts.flow):
        return "of another flow"
    if facts.held:
        return facts.held
    if matches(facts.name, policy.pinned):
        return "pinned"
    if facts.running:
        return "running"
    if policy.tags:
        if facts.tags is None:
            return "its tags are not known"
        if any(matches(tag, policy.tags) for tag in facts.tags):
            return "tagged"
    return ""


def _wanted(facts: RunFacts, policy: RunPolicy, now: float, counted: str) -> str:
    """What else keeps a run: its own time, and unless that is over the rules of the policy."""
    if facts.unclear:
        return "what its tag ttl says cannot be understood"
    if facts.expires is not None:
        return "" if facts.expired(now) else "its ttl is not over"
    if counted:
        return counted
    return "young" if policy.age is not None and now - facts.began <= policy.age else ""


def _why_dropped(facts: RunFacts, policy: RunPolicy, now: float) -> str:
    if facts.expired(now):
        return "its ttl is over"
    began = f"began {duration(now - facts.began)} ago"
    return began if facts.counts else f"{began}, {facts.state}"


def source(facts: RunFacts) -> tuple[str, str, str, str]:
    """The deployment that started a run: all with the same flow, branch, scheduler, and name there."""
    return facts.flow, facts.branch, facts.origin, facts.deployment


def newest_of_deployments(runs: Iterable[RunFacts], now: float) -> set[Run]:
    """The newest run that counts of each deployment of a scheduler. What is over its own time is none."""
    return _newest(facts for facts in runs if facts.origin and facts.counts and not facts.expired(now))


def deployed(runs: Iterable[RunFacts]) -> set[Run]:
    """The newest run of each deployment, and of each flow and branch from terminals: what is deployed there needs its
    code package even when the run goes."""
    return _newest(runs)


def _newest(runs: Iterable[RunFacts]) -> set[Run]:
    newest: dict[tuple[str, str, str, str], RunFacts] = {}
    for facts in runs:
        of = source(facts)
        if of not in newest or (newest[of].began, newest[of].run) < (facts.began, facts.run):
            newest[of] = facts
    return {(facts.flow, facts.run) for facts in newest.values()}
