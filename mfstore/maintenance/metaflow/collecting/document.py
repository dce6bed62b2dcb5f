"""A collection of a Metaflow root as JSON (docs/schema/gc-metaflow.json)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mfstore.maintenance.metaflow.collecting.planned import fates, policy_text

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.facts import RunFacts
    from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
    from mfstore.maintenance.metaflow.collecting.result import MetaflowGcResult


def gc_document(plan: MetaflowGcPlan, result: MetaflowGcResult | None) -> dict[str, Any]:
    """The plan, and what was done; None: nothing was. Times are in seconds since the epoch."""
    return {
        "root": plan.url, "now": plan.now,
        "policy": {**asdict(plan.policy), "text": policy_text(plan.policy)}, "refusal": plan.refusal,
        "runs": [_run(plan, entry, fate, why) for entry, fate, why in fates(plan)],
        "keep": {"/".join(run): why for run, why in sorted(plan.kept.items())},
        "condemn": [entry.name for entry in plan.condemn], "remove": [entry.name for entry in plan.remove],
        "wait": {"/".join(run): ready for run, ready in sorted(plan.waiting.items())}, "held": dict(plan.held),
        "busy": dict(plan.busy),
        "blobs": len(plan.blobs), "includes": len(plan.includes), "freed": asdict(plan.freed),
        "later": asdict(plan.later), "shared": asdict(plan.shared), "unreferred": asdict(plan.unreferred),
        "left": asdict(plan.migrated), "former": asdict(plan.former), "user": asdict(plan.user),
        "bundles": sorted(plan.bundles), "metadata": plan.metadata, "listed_on": plan.listed_on, "as_of": plan.as_of,
        "unknown": plan.unknown, "unreadable": dict(plan.unreadable),
        "locked": {"/".join(run): lock for run, lock in sorted(plan.locked.items())},
        "versions": {**asdict(plan.versions), "notes": plan.storage_notes},
        "foreign": {name: asdict(amount) for name, amount in plan.foreign.items()},
        "below": plan.below, "unmatched": plan.unmatched, "executed": None if result is None else asdict(result),
    }  # fmt: skip


def _run(plan: MetaflowGcPlan, entry: RunFacts, fate: str, why: str) -> dict[str, Any]:
    return {
        "run": entry.name, "fate": fate, "why": why, "ready": plan.waiting.get((entry.flow, entry.run)),
        "began": entry.began, "ended": entry.ended, "state": entry.state, "touched": entry.touched,
        "tasks": entry.tasks, "files": entry.files, "size": entry.size,
        "user": entry.user, "branch": entry.branch, "origin": entry.origin, "deployment": entry.deployment,
        "expires": entry.expires, "tags": None if entry.tags is None else sorted(entry.tags),
    }  # fmt: skip
