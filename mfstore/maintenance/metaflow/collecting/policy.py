"""Which runs of a Metaflow root are kept, and why. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mfstore.errors import InvalidKey
from mfstore.maintenance.clock import DAY

Run = tuple[str, str]
"""Flow and run."""


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """What to keep of every flow. A run goes only if nothing keeps it; times are in seconds."""

    last: int | None = None
    """The newest so many runs of each flow."""
    age: float | None = None
    """Runs that began within this time."""
    tags: tuple[str, ...] = ()
    """Runs with a tag that matches one of these patterns."""
    pinned: tuple[str, ...] = ()
    """Runs, as flow/run, that match one of these patterns."""
    flows: tuple[str, ...] = ()
    """Only runs of flows that match one of these patterns may go; none given: of any."""
    grace: float = DAY
    """Nothing is removed before it was condemned for so long, and no run with a file younger than this."""
    running: float = 7 * DAY
    """An attempt that began within this time and has not ended is taken to be running."""

    def check(self) -> None:
        """InvalidKey when the policy does not say what may go."""
        if self.last is None and self.age is None:
            raise InvalidKey("say how much to keep", hint="Give --keep-last, --keep-age or both")
        if (self.last is not None and self.last < 0) or min(self.grace, self.running, self.age or 0) < 0:
            raise InvalidKey("a policy has no negative numbers")
        for pattern in self.pinned:
            if "/" not in pattern:
                raise InvalidKey("a pinned run is flow/run", found=repr(pattern))


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What decides about one run."""

    flow: str
    run: str
    began: float
    """Seconds since the epoch."""
    touched: float
    """When its youngest file was written."""
    running: bool
    tags: frozenset[str] | None = None
    """None when nothing below the root tells them."""
    held: str = ""
    """Why it stays whatever the policy says; nothing: it need not."""
    heartbeat: float | None = None
    """The last sign of life that Metaflow's metadata tells; None: it tells none."""
    tasks: int = 0
    files: int = 0
    size: int = 0
    """Bytes of its own files: what tasks wrote besides blobs, local metadata and cards."""

    @property
    def name(self) -> str:
        """As Metaflow writes it."""
        return f"{self.flow}/{self.run}"


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """Which runs the policy keeps."""

    kept: Mapping[Run, str] = field(default_factory=dict)
    """Why each is kept."""
    dropped: tuple[RunFacts, ...] = ()


def decide_runs(runs: Collection[RunFacts], policy: RunPolicy, now: float) -> PolicyDecision:
    """Keep or drop each run."""
    kept: dict[Run, str] = {}
    dropped: list[RunFacts] = []
    for flow in sorted({facts.flow for facts in runs}):
        of_flow = sorted((facts for facts in runs if facts.flow == flow), key=lambda facts: (facts.began, facts.run))
        newest = {facts.run for facts in of_flow[len(of_flow) - (policy.last or 0) :]}
        for facts in of_flow:
            reason = _reason(facts, policy, now, facts.run in newest)
            if reason:
                kept[facts.flow, facts.run] = reason
            else:
                dropped.append(facts)
    return PolicyDecision(kept, tuple(dropped))


def _reason(facts: RunFacts, policy: RunPolicy, now: float, newest: bool) -> str:
    if policy.flows and not matches(facts.flow, policy.flows):
        return "of another flow"
    if facts.held:
        return facts.held
    if newest and policy.last:
        return f"among the last {policy.last}"
    if policy.age is not None and now - facts.began <= policy.age:
        return "young"
    if matches(facts.name, policy.pinned):
        return "pinned"
    if policy.tags:
        if facts.tags is None:
            return "its tags are not known"
        if any(matches(tag, policy.tags) for tag in facts.tags):
            return "tagged"
    if facts.running:
        return "running"
    if now - facts.touched < policy.grace:
        return "written to within the grace period"
    return ""


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the shell patterns matches."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def unmatched(patterns: Iterable[str], names: Collection[str]) -> tuple[str, ...]:
    """The patterns that none of these names matches. Most are a name, which costs no look at all others."""
    return tuple(
        pattern
        for pattern in patterns
        if pattern not in names and not ({*"*?["} & {*pattern} and any(fnmatchcase(name, pattern) for name in names))
    )


def origin(run: str) -> str:
    """What started a run, by its id: ``argo`` and ``sfn`` and the like, or nothing for one from a terminal."""
    prefix, dash, _ = run.partition("-")
    return prefix if dash and not prefix.isdigit() else ""


def deployed(runs: Iterable[RunFacts]) -> set[Run]:
    """The newest run of each flow and origin: what is deployed there needs its code package even when the run goes."""
    newest: dict[tuple[str, str], RunFacts] = {}
    for facts in runs:
        source = facts.flow, origin(facts.run)
        if source not in newest or newest[source].began <= facts.began:
            newest[source] = facts
    return {(facts.flow, facts.run) for facts in newest.values()}
