"""Plans of some flows of a root each, as one of all of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from mfstore.maintenance.metaflow.collecting.amounts import RootAmount
from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy, unmatched

_OF_ALL = ("url", "policy", "now", "liveness", "versions", "metadata", "as_of", "unmatched", "others")
"""What is not put together from the parts."""


def merged(plans: Sequence[MetaflowGcPlan], policy: RunPolicy, others: bool) -> MetaflowGcPlan:
    """The plan of all flows that these are of, no flow in two of them, under the policy that each was made by.
    ``others``: whether there are flows that none of them is of."""
    first = plans[0]
    together = {
        field.name: _together([getattr(plan, field.name) for plan in plans])
        for field in fields(MetaflowGcPlan)
        if field.name not in _OF_ALL
    }
    return replace(
        first,
        **together,
        policy=policy,
        now=min(plan.now for plan in plans),
        as_of=min((plan.as_of for plan in plans if plan.as_of is not None), default=None),
        unmatched=unmatched(policy.pinned, {entry.name for plan in plans for entry in plan.runs}),
        others=others,
    )


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
