"""What garbage collection has come to in a place: when it last ran, what waits, who is at it, what is held; and how
many objects the index of a store has."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from mfstore.display.amounts import age, count, size
from mfstore.doctor.findings import Finding, failure
from mfstore.errors import AccessDenied, MfstoreError, NotFound
from mfstore.format.audit import BEGIN, END, STORE_LOG, AuditRecord
from mfstore.format.collection import STATE
from mfstore.format.fragments import MERGED, PREFIX
from mfstore.format.holds import STORE_HOLDS
from mfstore.format.tree import node_name
from mfstore.holding import read_holds
from mfstore.maintenance.audit import read_log
from mfstore.maintenance.metaflow.collecting.state import LEASE_SECONDS, STATE_PATH, StateFile
from mfstore.maintenance.metaflow.holds import FOLDER as ROOT_HOLDS
from mfstore.metaflow.roots.layout import LOG_FOLDER
from mfstore.records import dataclass
from mfstore.saving.guard import COLLECTOR_SILENCE, read_state

if TYPE_CHECKING:
    from mfstore.backends.base import Backend, ObjectInfo

RECORDS = 64
"""Of the log that are looked at, the latest."""
LISTED = 20_000
"""Objects of the index that are counted."""
MANY_FRAGMENTS = 256
"""Writers merge sixteen at a time. Where so many wait, nobody who may has come for long."""
LONG = 7 * 86400.0
"""Seconds after which what is condemned should have gone, with a collection a day."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What is known of collections."""

    command: str
    """That collects here, without a policy."""
    owner: str = ""
    """Who collects, or died at it."""
    silent: float = 0.0
    """Seconds since its last sign of life."""
    lease: float = 0.0
    """So long a collector may be silent."""
    half_done: str = ""
    """What was begun to be deleted by somebody who is gone."""
    waiting: str = ""
    """What is condemned, in words; empty: nothing."""
    since: float | None = None
    """The oldest of it."""
    records: Sequence[AuditRecord] = ()
    """The latest first."""
    holds: int = 0


def of_store(backend: Backend, url: str) -> Collected:
    """What a store's collections have come to."""
    state, _ = read_state(backend)
    written = _modified(backend, STATE) if state.epoch else None
    recipes, packs = sum(one.recipes for one in state.lists), sum(one.packs for one in state.lists)
    told = f"{count(recipes, 'key')} and {count(packs, 'pack')}, {size(sum(one.bytes for one in state.lists))}"
    return Collected(
        f"mfstore gc -s {url}", state.owner, time.time() - written if written is not None else 0.0,
        COLLECTOR_SILENCE, "a deletion" if state.deleting else "", told if recipes or packs else "",
        min((one.time for one in state.lists if one.recipes or one.packs), default=None),
        _records(backend, STORE_LOG), _holds(backend, STORE_HOLDS),
    )  # fmt: skip


def of_root(backend: Backend, url: str) -> Collected:
    """What the collections of a datastore root have come to."""
    file = StateFile(backend)
    state = file.load()
    written = _modified(backend, STATE_PATH)
    condemned = file.condemned_since()
    return Collected(
        f"mfstore gc --metaflow {url}", state.owner, time.time() - written if written is not None else 0.0,
        LEASE_SECONDS, count(len(state.removing), "run") if state.removing else "",
        count(len(condemned), "run") if condemned else "", min(condemned.values(), default=None),
        _records(backend, LOG_FOLDER), _holds(backend, ROOT_HOLDS),
    )  # fmt: skip


def _modified(backend: Backend, key: str) -> float | None:
    try:
        return backend.head(key).modified
    except NotFound:
        return None


def _records(backend: Backend, folder: str) -> list[AuditRecord]:
    return list(islice(read_log(backend, folder), RECORDS))


def _holds(backend: Backend, folder: str) -> int:
    return sum(hold.in_force(time.time()) for hold in read_holds(backend, folder).values())


def findings(found: Collected, now: float) -> Iterator[Finding]:
    """What to think of it. Pure."""
    ends = [record for record in found.records if record.event == END and record.action == "gc"]
    facts = {"time": ends[0].time if ends else None, "outcome": ends[0].facts.get("outcome") if ends else None}
    if not ends:
        yield Finding("last collection", "none: what nobody needs any more stays", facts=facts)
    else:
        last = ends[0]
        text = f"{age(last.time, now)}, by {last.user}: {last.facts.get('outcome')}"
        if last.facts.get("outcome") == "done":
            yield Finding("last collection", text, facts=facts)
        else:
            yield Finding(
                "last collection", f"{text}: {last.facts.get('error')}", "doubtful",
                "The next one goes on where it ended", f"{found.command} --log", facts,
            )  # fmt: skip
    yield from _at_work(found, now)
    facts = {"waiting": found.waiting or None, "since": found.since}
    if not found.waiting:
        yield Finding("condemned", "nothing", facts=facts)
    else:
        since = "" if found.since is None else f", the oldest since {age(found.since, now).removesuffix(' ago')}"
        text = f"{found.waiting}, to go with a later collection{since}"
        if found.since is not None and now - found.since > LONG:
            hint = "Let a collection run each day, with the policy that you collect by"
            yield Finding("condemned", text, "doubtful", hint, f"{found.command} … --execute", facts)
        else:
            yield Finding("condemned", text, facts=facts)
    yield Finding("holds", count(found.holds, "hold") if found.holds else "none", facts={"holds": found.holds})


def _at_work(found: Collected, now: float) -> Iterator[Finding]:
    facts = {"owner": found.owner or None, "silent": round(found.silent), "half_done": found.half_done or None}
    if found.owner and found.silent < found.lease:
        yield Finding(
            "collector", f"{found.owner} is at work, {age(now - found.silent, now)} by its last sign", facts=facts
        )
    elif found.owner or found.half_done:
        what = f" in the middle of {found.half_done}" if found.half_done else ""
        yield Finding(
            "collector", f"{found.owner or 'one'} stopped{what}, {age(now - found.silent, now)}", "doubtful",
            "Nothing is lost. The next collection goes on, with the policy that you collect by",
            f"{found.command} … --execute", facts,
        )  # fmt: skip
    else:
        unended = _unended(found.records)
        if unended is not None:
            yield Finding(
                "collector", f"none; the {unended.action} of {unended.user} {age(unended.time, now)} did not end",
                "doubtful", "It was stopped, or its log could not be written", f"{found.command} --log", facts,
            )  # fmt: skip
        else:
            yield Finding("collector", "none is at work", facts=facts)


def _unended(records: Sequence[AuditRecord]) -> AuditRecord | None:
    """The latest execution, if it began and did not end."""
    for record in records:
        ended = any(one.event == END and one.execution == record.execution for one in records)
        return record if record.event == BEGIN and not ended else None
    return None


# ---- the index ----------------------------------------------------------------------------


def index(backend: Backend, url: str, folder: str = "") -> Finding:
    """How many objects the index of a store has, which lies in this folder of the place."""
    infos = (info._replace(key=info.key.removeprefix(folder)) for info in backend.list(f"{folder}{PREFIX}"))
    return of_index(islice(infos, LISTED + 1), url)


def of_index(infos: Iterable[ObjectInfo], url: str) -> Finding:
    """What to think of these objects of an index. Pure."""
    nodes = merged = fragments = amount = 0
    for info in infos:
        amount += info.size
        if node_name(info.key) is not None:
            nodes += 1
        elif info.size == len(MERGED):
            merged += 1
        else:
            fragments += 1
    more = "at least " if nodes + merged + fragments > LISTED else ""
    parts = [f"{more}{count(fragments, 'fragment')}"]
    if nodes:
        parts.append(f"a tree of {count(nodes, 'node')}")
    if merged:
        parts.append(f"{merged:,} merged that wait to be removed")
    text = f"{', '.join(parts)}, {size(amount)}"
    facts = {"fragments": fragments, "nodes": nodes, "merged": merged, "bytes": amount}
    if fragments > MANY_FRAGMENTS or merged > MANY_FRAGMENTS:
        return Finding(
            "index", text, "doubtful",
            "Each process that saves lists them, and reads some. A collection, with the policy that you collect by, "
            "puts them together and removes what was merged", f"mfstore gc -s {url} … --execute", facts,
        )  # fmt: skip
    return Finding("index", text, facts=facts)


def refused(error: MfstoreError, name: str) -> Finding:
    """What cannot be told."""
    if isinstance(error, AccessDenied):
        rights = ", ".join(action for action, _ in error.rights)
        return Finding(name, f"may not be read{f' ({rights})' if rights else ''}", "refused")
    return failure(name, error)
