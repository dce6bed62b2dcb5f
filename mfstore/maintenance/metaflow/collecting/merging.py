"""Plans of some flows of a root each, as one of all of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import chain
from typing import Any

from mfstore.maintenance.metaflow.collecting.amounts import RootAmount
from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
from mfstore.maintenance.metaflow.collecting.policy import Run, RunPolicy, unmatched
from mfstore.maintenance.metaflow.collecting.run_table import Reasons, RunTable, SomeRuns

_OF_ALL = ("url", "policy", "now", "liveness", "versions", "metadata", "as_of", "unmatched", "others")
"""What is not put together from the parts."""
_OF_RUNS = ("runs", "kept", "dropped", "condemn")
"""What is of each run."""


def merged(plans: Sequence[MetaflowGcPlan], policy: RunPolicy, others: bool) -> MetaflowGcPlan:
    """The plan of all flows that these are of, no flow in two of them, under the policy that each was made by.
    ``others``: whether there are flows that none of them is of."""
    first = plans[0]
    together = {
        field.name: _together([getattr(plan, field.name) for plan in plans])
        for field in fields(MetaflowGcPlan)
        if field.name not in (*_OF_ALL, *_OF_RUNS)
    }
    runs = RunTable(chain.from_iterable(plan.runs for plan in plans))
    condemned = ((entry.flow, entry.run) for plan in plans for entry in plan.condemn)
    return replace(
        first,
        **together,
        runs=runs,
        kept=_reasons(runs, [plan.kept for plan in plans]),
        dropped=_reasons(runs, [plan.dropped for plan in plans]),
        condemn=SomeRuns(runs, map(runs.number_of, condemned)),
        policy=policy,
        now=min(plan.now for plan in plans),
        as_of=min((plan.as_of for plan in plans if plan.as_of is not None), default=None),
        unmatched=unmatched(policy.pinned, runs.names),
        others=others,
    )


def _reasons(runs: RunTable, parts: Iterable[Mapping[Run, str]]) -> Reasons:
    found = Reasons(runs)
    for part in parts:
        found.update(part)
    return found


def _together(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, bool):
        return all(parts)
    if isinstance(first, RootAmount):
        return sum(parts[1:], first)
    if isinstance(first, Mapping):
        return {name: value for part in parts for name, value in part.items()}
    if isinstance(first, frozenset):
        return first.union(*parts)
    if isinstance(first, tuple):
        return tuple(one for part in parts for one in part)
    return sum(parts)
