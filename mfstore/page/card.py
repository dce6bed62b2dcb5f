"""A task of Metaflow as a card: what it stored, beside what its step stored in the runs before, and what the other
steps of its run did. Which tasks these are is asked of Metaflow's client; what they stored, of the datastore."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import mfstore
from mfstore.errors import InvalidRange, Unsupported
from mfstore.maintenance.metaflow.root import Root
from mfstore.metaflow.roots.attempts import DATA
from mfstore.page.facts import Content, Facts, Space
from mfstore.page.render import page
from mfstore.page.root_facts import ShownTask, entry_of, key_of, read_tasks
from mfstore.page.troubles import Said
from mfstore.s3.datatools.places import root_url

if TYPE_CHECKING:
    from metaflow import Task

NOTE = "Of each other step of the run one task is here; of the step itself one of each of the last runs"
KINDS = ("local", "s3", "azure", "gs")
"""Datastores that have cards, by Metaflow's names."""
RUNS_LOOKED_AT = 50
"""Runs before that are looked at for some that have the step and ended it."""


def card_of(task: Task, history: int = 5) -> str:
    """The card as HTML.

    Args:
        task: The task, as Metaflow's client gives it.
        history: So many runs, this one and those before it, of the task's step.

    Raises:
        InvalidRange: ``history`` is less than 1.
        Unsupported: the datastore is neither a directory nor in a bucket.
    """
    if history < 1:
        raise InvalidRange("history is a number of runs", expected="1 or more", found=history)
    told = task.metadata_dict
    if told.get("ds-type") not in KINDS:
        raise Unsupported("this datastore has no such card", found=told.get("ds-type"), expected=" or ".join(KINDS))
    flow, _, step, _ = task.pathspec.split("/")
    mine = f"{flow}/{step}"
    shown = {mine: [_shown(task), *islice(_before(task), history - 1)]}
    for other in task.parent.parent:
        if other.id != step:
            finished = [_shown(one) for one in islice(other, 1) if one.finished]
            shown |= {f"{flow}/{other.id}": finished} if finished else {}
    with closing(Root(root_url(told["ds-type"], told["ds-root"]))) as root:
        said = Said(root.url, "the datastore", "mfstore verify --metaflow")
        contents = read_tasks(root.backend, shown, said)
    entries = tuple(entry_of(name, tasks, len(tasks)) for name, tasks in shown.items())
    own = contents[key_of(mine, shown[mine][0])]
    facts = Facts(
        "task", f"{told['ds-type']} datastore", task.pathspec, time.time(), mfstore.__version__, _amounts(own), entries,
        contents, _sizes(own), (), (), said.troubles, (NOTE,),
    )  # fmt: skip
    return page(facts)


def _shown(task: Any) -> ShownTask:
    flow, run, step, name = task.pathspec.split("/")
    attempt = task.current_attempt
    return ShownTask(
        run,
        name,
        f"{flow}/{run}/{step}/{name}/{attempt}.{DATA}",
        attempt,
        (task.finished_at or task.created_at).timestamp(),
    )


def _before(task: Any) -> Iterator[ShownTask]:
    """A task of the same step in each of the runs before, the newest first; not of those that did not come so far."""
    run, step = task.parent.parent, task.parent.id
    for other in islice(run.parent, RUNS_LOOKED_AT):
        if other.id != run.id and other.created_at < run.created_at:
            with suppress(KeyError):
                yield from (_shown(one) for one in islice(other[step], 1) if one.finished)


def _amounts(own: Content) -> tuple[tuple[str, int, bool], ...]:
    return (("artifacts", len(own.parts), False), *((("bytes", own.size, True),) if own.size is not None else ()))


def _sizes(own: Content) -> tuple[Space, ...]:
    """The artifacts by their sizes."""
    groups = sorted(
        ((part.name, part.size, 0) for part in own.parts if part.size is not None), key=lambda part: -part[1]
    )
    return (Space("artifact", tuple(groups), sum(size for _, size, _ in groups), 0, 0),) if groups else ()
