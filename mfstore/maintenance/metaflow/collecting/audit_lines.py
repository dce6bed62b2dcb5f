"""What the log says of a collection of a root: what it is about to do, and what it did. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mfstore.maintenance.audit import Account

if TYPE_CHECKING:
    from mfstore.format.audit import Line
    from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
    from mfstore.maintenance.metaflow.collecting.removal import Removed


def policy_of(plan: MetaflowGcPlan) -> dict[str, Any]:
    """The policy as JSON has it; what it does not say is left out."""
    return {name: value for name, value in asdict(plan.policy).items() if value not in (None, (), [])}


def about(plan: MetaflowGcPlan) -> Account:
    """How much is about to go, and each run that is about to be removed or condemned."""
    facts = {
        "runs": len(plan.remove), "condemned": len(plan.condemn), "objects": plan.freed.objects,
        "bytes": plan.freed.bytes,
    }  # fmt: skip
    lines = [
        {
            verb: entry.name, "began": entry.began, "files": entry.files, "bytes": entry.size,
            "why": plan.dropped.get((entry.flow, entry.run), ""),
        }
        for verb, entries in (("remove", plan.remove), ("condemn", plan.condemn))
        for entry in entries
    ]  # fmt: skip
    return Account(facts, lines)


def did(removed: Removed, condemned: int) -> Account:
    """How much went, each run that did, and each flow of which nothing more may go."""
    facts = {
        "runs": len(removed.runs), "condemned": condemned, "objects": removed.amount.objects,
        "bytes": removed.amount.bytes,
    }  # fmt: skip
    lines: list[Line] = [{"remove": name} for name in removed.runs]
    lines += [{"held": flow, "why": why} for flow, why in removed.held.items()]
    return Account(facts, [*lines, *({"locked": name, "why": why} for name, why in removed.locked.items())])
