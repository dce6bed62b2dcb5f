"""What people are told of a collection: the command prints it, and notebooks show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfstore.display.amounts import count, duration, size
from mfstore.display.cards import Card, Cell, Grid
from mfstore.maintenance.periods import NOUNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mfstore.maintenance.store.collecting.plan import GcDecision, StoreAmount
    from mfstore.maintenance.store.collecting.retention import Retention


def plan_card(url: str, found: GcDecision, warnings: Sequence[str], notes: Sequence[str]) -> Card:
    """What a collection would do."""
    does = "execute() does this." if found.does_something else "There is nothing to do."
    warned = (f"Warning: {warning}" for warning in warnings)
    return Card("collection of", url, (), (plan_grid(found),), (*plan_notes(found), *notes, *warned, does))


def retention_text(retention: Retention) -> str:
    """What is kept of refs, in words."""
    counted = [] if retention.keep_last is None else [f"the last {count(retention.keep_last, 'value')}"]
    counted += [
        f"the last of each of {count(number, NOUNS[kind])}" for kind, number in retention.periods.items() if number
    ]
    if retention.keep_age is not None:
        counted.append(f"what was current within {duration(retention.keep_age)}")
    kept = f"of each ref {', '.join(counted)}" if counted else "all values of refs"
    series = f"; refs like {', '.join(retention.series)} go by this too" if retention.series else ""
    pinned = f"; all of refs like {', '.join(retention.pinned)}" if retention.pinned else ""
    return f"keep {kept}{series}; no value for longer than its ttl{pinned}"


def plan_grid(found: GcDecision) -> Grid:
    """What stays, waits and goes, and why."""
    grace = duration(found.grace)
    rows = [_row("keep", amount, why) for why, amount in found.kept.items()]
    if found.waiting:
        ready = max(0.0, (found.ready_at or found.now) - found.now)
        rows.append(
            _row("wait", found.waiting, f"condemned less than {grace} ago; may be deleted in {duration(ready)}")
        )
    if found.condemns.amount:
        deletable = f"may be deleted {grace} later" if found.grace else "the next run deletes it"
        rows.append(_row("condemn", found.condemns.amount, f"needed by nobody; {deletable}"))
    if found.deletes.amount:
        when = f"at least {grace} ago" if found.grace else "by an earlier run"
        rows.append(_row("delete", found.deletes.amount, f"condemned {when}, and still needed by nobody"))
    rows.append(_row("in all", found.stored, ""))
    return Grid(("", "keys", "packs", "bytes", "why"), tuple(rows), (1, 2, 3))


def plan_notes(found: GcDecision) -> list[str]:
    """What else becomes of what is stored, in sentences."""
    notes = []
    if found.rescued:
        notes.append(f"{keys_and_packs(found.rescued)} condemned before are needed again and stay")
    dropped = sum(len(change.dropped) for change in found.refs)
    if dropped:
        removed = sum(not change.kept for change in found.refs)
        notes.append(
            f"{count(dropped, 'old value')} of {count(len(found.refs), 'ref')} forgotten; "
            f"{count(removed, 'ref')} removed altogether"
        )
    if found.repacks:
        live = sum(entry.live for entry in found.repacks)
        dead = sum(entry.size for entry in found.repacks) - live
        notes.append(f"{count(len(found.repacks), 'pack')} mostly dead: moving {size(live)} frees {size(dead)} later")
    return notes


def _row(what: str, amount: StoreAmount, why: str) -> tuple[Cell | str, ...]:
    looks = {"delete": "bad", "in all": "quiet"}
    numbers = (f"{amount.recipes:,}", f"{amount.packs:,}", size(amount.bytes))
    return Cell(what, look=looks.get(what, "")), *(Cell(number, look="number") for number in numbers), why


def keys_and_packs(amount: StoreAmount) -> str:
    """How much it is."""
    return f"{count(amount.recipes, 'key')} and {count(amount.packs, 'pack')}"
