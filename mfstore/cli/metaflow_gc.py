"""``mfstore gc --metaflow``: the plan for people, and its execution."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mfstore.cli.maintenance import DAMAGE
from mfstore.cli.output import print_json, print_table
from mfstore.cli.reports import steps
from mfstore.display.amounts import count, size
from mfstore.display.words import printable
from mfstore.maintenance.metaflow.collecting.plan import RootAmount, plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.record_sources import default_metadata
from mfstore.maintenance.metaflow.collecting.service_tags import REMOVED_TAG
from mfstore.maintenance.metaflow.gc import MetaflowGcResult, collect_metaflow
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.told import SHOWN

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.facts import RunFacts
    from mfstore.maintenance.metaflow.collecting.plan import MetaflowGcPlan
    from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
    from mfstore.maintenance.store.collecting.plan import StoreAmount
    from mfstore.maintenance.store.gc import GcResult


def run(
    url: str, policy: RunPolicy, *, metadata: str | None, inventory: str | None, trust_known: bool, execute: bool,
    yes_really: bool, take_over: bool, deletes_per_second: float | None, as_json: bool, long: bool,
) -> None:  # fmt: skip
    """Plan, and with ``execute`` carry out; print what would be done or was."""
    source = metadata or default_metadata()
    root = Root(url)
    result = None
    try:
        with steps() as tell:
            if execute:
                plan, result = collect_metaflow(
                    root, policy, metadata=source, inventory=inventory, trust_known=trust_known,
                    yes_really=yes_really, take_over=take_over, deletes_per_second=deletes_per_second, tell=tell,
                )  # fmt: skip
            else:
                plan = plan_metaflow_gc(
                    root, policy, tell, metadata=source, trust_known=trust_known, inventory=inventory
                )
    finally:
        root.close()
    if as_json:
        print_json(_document(plan, result))
        _exit(plan)
        return
    _show(plan, long)
    if result is not None:
        _show_result(plan, result)
    else:
        does = plan.condemn or plan.remove or plan.blobs
        click.echo("Nothing was changed." + (" --execute does this." if does else ""))
        if plan.drops_everything:
            click.echo("The policy drops every run: --execute refuses that without --yes-really.")
    _exit(plan)


def _exit(plan: MetaflowGcPlan) -> None:
    """Let what is run from cron tell of damage."""
    if plan.unreadable:
        sys.exit(DAMAGE)


def _show(plan: MetaflowGcPlan, long: bool) -> None:
    click.echo(printable(f"{plan.url}: {count(len(plan.runs), 'run')} of {_flows(plan.runs)}"))
    if plan.as_of is not None:
        click.echo(f"by the inventory of {_moment(plan.as_of)}: what was written since is not judged")
    facts = {(entry.flow, entry.run): entry for entry in plan.runs}
    by_flow: dict[str, Counter[str]] = {}
    for run, entry in facts.items():
        state = by_flow.setdefault(entry.flow, Counter())
        state["runs"] += 1
        state["keep"] += run in plan.kept
        state["wait"] += run in plan.waiting
    for kind, entries in (("condemn", plan.condemn), ("remove", plan.remove)):
        for entry in entries:
            by_flow[entry.flow][kind] += 1
    columns = ("runs", "keep", "condemn", "wait", "remove")
    rows = [
        (flow, *(str(state[name]) for name in columns), plan.held.get(flow, ""))
        for flow, state in sorted(by_flow.items())
    ]
    print_table(("flow", *columns, "held because"), rows, right=(1, 2, 3, 4, 5))
    why = Counter(_general(reason) for reason in plan.kept.values())
    click.echo("kept: " + (", ".join(f"{number} {reason}" for reason, number in why.most_common()) or "none"))
    for pattern in plan.unmatched[:SHOWN]:
        click.echo(printable(f"no run matches --pin {pattern}"))
    if len(plan.unmatched) > SHOWN:
        click.echo(f"and {len(plan.unmatched) - SHOWN} more patterns and names that no run matches")
    if long:
        for run, reason in sorted(plan.kept.items()):
            click.echo(printable(f"keep     {'/'.join(run)}  {_day(facts[run].began)}  {reason}"))
        for run, ready in sorted(plan.waiting.items()):
            click.echo(printable(f"wait     {'/'.join(run)}  {_day(facts[run].began)}  until {_moment(ready)}"))
        for verb, chosen in (("condemn", plan.condemn), ("remove", plan.remove)):
            for entry in chosen:
                click.echo(printable(f"{verb:<8} {entry.name}  {_day(entry.began)}  {count(entry.tasks, 'task')}"))
    if plan.remove or plan.blobs or plan.includes:
        click.echo(
            f"now: {_amount(plan.freed)} go: files and cards of {count(len(plan.remove), 'run')}, "
            f"{count(len(plan.blobs), 'blob')}, {count(len(plan.includes), 'IncludeFile')}"
        )
    if plan.listed_on:
        click.echo(f"{count(plan.listed_on, 'run')} of these are listed on by {_source(plan.metadata)}, without data")
    if plan.migrated.objects:
        click.echo(f"{_amount(plan.migrated)} of that are what migrated artifacts were before")
    if plan.condemn or plan.waiting or plan.later.objects:
        click.echo(f"once the grace period of the others has passed: {_amount(plan.later)} more")
    for amount, what in (
        (plan.shared, "blobs of these runs stay: kept runs refer to them"),
        (plan.unreferred, "blobs that no run refers to are left alone: a deployment may need them"),
        (plan.former, "what migrated artifacts were before is left alone: a metadata service may name it"),
        (plan.user, "objects that these runs stored by S3(run=self) are left alone"),
    ):
        if amount.objects:
            click.echo(f"{_amount(amount)}: {what}")
    if plan.unknown:
        click.echo(f"{count(plan.unknown, 'file')} of these runs cannot be read: what only they refer to is left alone")
    for run, lock in sorted(plan.locked.items())[:SHOWN]:
        click.echo(printable(f"locked   {'/'.join(run)}: {lock}"))
    if len(plan.locked) > SHOWN:
        click.echo(f"and {len(plan.locked) - SHOWN} more runs that are locked; --json lists all")
    for note in plan.storage_notes:
        click.echo(printable(note))
    for flow, damage in sorted(plan.unreadable.items()):
        click.echo(printable(f"DAMAGED: {damage}. Nothing of {flow} goes until this is mended or the run is removed"))
    if plan.unreadable:
        click.echo("IncludeFiles and mf.store are left alone: what is not read there may need them")
    for flow in sorted(plan.spared):
        click.echo(printable(f"cards of {flow} stay: a kept run resumed another, and nothing here tells which"))
    _show_foreign(plan)
    if plan.bundles:
        click.echo(f"{count(len(plan.bundles), 'bundle')} of the store in mf.store are needed")


def _show_foreign(plan: MetaflowGcPlan) -> None:
    if plan.foreign:
        click.echo(f"left alone: {_amount(sum(plan.foreign.values(), RootAmount()))} that are not Metaflow's")
        for name, amount in [*plan.foreign.items()][:SHOWN]:
            click.echo(printable(f"  {name}: {_amount(amount)}"))
        if len(plan.foreign) > SHOWN:
            click.echo(f"  and {len(plan.foreign) - SHOWN} more; --json lists all")
    for name in plan.below[:SHOWN]:
        click.echo(printable(f"{name} looks like a datastore root of its own: give that as --metaflow to collect it"))


def _show_result(plan: MetaflowGcPlan, result: MetaflowGcResult) -> None:
    if not (result.condemned or result.removed or result.deleted.objects or _worked(result.store)):
        click.echo("There was nothing to do.")
    if result.deleted.objects and not result.removed:
        click.echo(f"removed {_amount(result.deleted)}")
    if result.removed:
        click.echo(f"removed {count(len(result.removed), 'run')}: {_amount(result.deleted)}")
        for name in result.removed[:SHOWN]:
            click.echo(printable(f"  {name}"))
        if len(result.removed) > SHOWN:
            click.echo(f"  and {len(result.removed) - SHOWN} more")
    if result.tagged:
        click.echo(f"{count(result.tagged, 'run')} got the tag {REMOVED_TAG} in the metadata service")
    if result.tags_refused:
        click.echo(
            printable(f"not all of them got the tag {REMOVED_TAG} in the metadata service: {result.tags_refused}")
        )
    for flow, why in result.held.items():
        if flow not in plan.held:
            click.echo(printable(f"{flow} was left alone after all: {why}"))
    if result.store is not None and _worked(result.store):
        deleted, condemned = _keys_and_packs(result.store.deleted), _keys_and_packs(result.store.condemned)
        click.echo(f"mf.store: deleted {deleted}, condemned {condemned}")
    if result.store_left:
        click.echo(printable(f"mf.store was left alone: {result.store_left}"))
    if result.condemned:
        ready = _moment(plan.now + plan.policy.grace)
        click.echo(f"condemned {count(result.condemned, 'run')}. Run this again after {ready} to remove them.")


def _keys_and_packs(amount: StoreAmount) -> str:
    return f"{count(amount.recipes, 'key')} and {count(amount.packs, 'pack')} ({size(amount.bytes)})"


def _worked(result: GcResult | None) -> bool:
    return result is not None and bool(result.deleted or result.condemned or result.repacked)


def _document(plan: MetaflowGcPlan, result: MetaflowGcResult | None) -> dict[str, Any]:
    return {
        "root": plan.url, "now": plan.now, "policy": asdict(plan.policy),
        "keep": {"/".join(run): why for run, why in sorted(plan.kept.items())},
        "condemn": [entry.name for entry in plan.condemn], "remove": [entry.name for entry in plan.remove],
        "wait": {"/".join(run): ready for run, ready in sorted(plan.waiting.items())}, "held": dict(plan.held),
        "blobs": len(plan.blobs), "includes": len(plan.includes), "freed": asdict(plan.freed),
        "later": asdict(plan.later), "shared": asdict(plan.shared), "unreferred": asdict(plan.unreferred),
        "left": asdict(plan.migrated), "former": asdict(plan.former), "user": asdict(plan.user),
        "bundles": sorted(plan.bundles), "metadata": plan.metadata, "listed_on": plan.listed_on,
        "unknown": plan.unknown, "unreadable": dict(plan.unreadable),
        "locked": {"/".join(run): lock for run, lock in sorted(plan.locked.items())},
        "versions": {**asdict(plan.versions), "notes": plan.storage_notes},
        "foreign": {name: asdict(amount) for name, amount in plan.foreign.items()},
        "below": plan.below, "unmatched": plan.unmatched, "executed": None if result is None else asdict(result),
    }  # fmt: skip


def _general(reason: str) -> str:
    """A reason without the run it names, or who holds it."""
    if reason.startswith("held"):
        return "held"
    return "resumed by a kept run that shows their cards" if "shows its cards" in reason else reason


def _source(metadata: str) -> str:
    return "the metadata service" if metadata == "service" else f"the metadata in {metadata.partition(':')[2]}"


def _flows(runs: tuple[RunFacts, ...]) -> str:
    return count(len({entry.flow for entry in runs}), "flow")


def _amount(amount: RootAmount) -> str:
    return f"{size(amount.bytes)} in {count(amount.objects, 'object')}"


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _moment(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
