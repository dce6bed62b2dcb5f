"""What the log says of a collection of a store that is about to begin. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

from mfstore.maintenance.audit import Account

if TYPE_CHECKING:
    from mfstore.format.audit import Line
    from mfstore.maintenance.store.collecting.plan import GcDecision, GcOptions

KEYS_LISTED = 100_000
"""Keys that are told one by one, 7 MB; of more only the number is."""
KEYS_IN_A_LINE = 1000


def policy_of(options: GcOptions) -> dict[str, Any]:
    """The policy as JSON has it; what it does not say is left out."""
    retention = {name: value for name, value in asdict(options.retention).items() if value not in (None, ())}
    return {"grace": options.grace, "repack": options.repack, **retention}


def about(decision: GcDecision) -> Account:
    """How much is about to go, and each ref and key that is about to be shortened, removed, deleted or condemned. What
    a ref loses is told whole: it can be put back from here."""
    facts = {
        "keys": decision.deletes.amount.recipes, "packs": decision.deletes.amount.packs,
        "bytes": decision.deletes.bytes, "condemned": decision.condemns.amount.recipes, "refs": len(decision.refs),
    }  # fmt: skip
    refs: list[Line] = [
        {
            "ref": change.name, "kept": len(change.kept),
            "dropped": [[entry.key, entry.time, *([entry.note] if entry.note else ())] for entry in change.dropped],
        } for change in decision.refs
    ]  # fmt: skip
    lines = [*refs, *_keys("delete", decision.deletes.recipes), *_keys("condemn", decision.condemns.recipes)]
    return Account(facts, lines)


def _keys(verb: str, names: Iterable[bytes]) -> Iterator[Line]:
    listed = [name.hex() for name in islice(names, KEYS_LISTED)]
    for at in range(0, len(listed), KEYS_IN_A_LINE):
        yield {verb: listed[at : at + KEYS_IN_A_LINE]}
