"""What is read of both sides to be compared, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mfstore.comparing.sameness import Place, same
from mfstore.errors import NotLoadable
from mfstore.records import NamedTuple
from mfstore.views.arrow import Edges, planned

if TYPE_CHECKING:
    from mfstore.views.parts import ArtifactParts

BLOCK = 16 << 20
"""Bytes of both sides that are held at a time. In S3 a batch costs two requests, one for each side: at 30 ms and 100
MB/s these take a third as long as the bytes."""


class Job(NamedTuple):
    """Parts that are loaded from both sides together, and compared."""

    left: ArtifactParts
    right: ArtifactParts
    plan: Callable[[Edges, int], list[Any]]
    """Nodes of the left side, 0, or of the right one, 1: as many of both."""
    nbytes: int
    """Of both sides, about."""
    take: Callable[[list[Any], list[Any]], None]
    """Gets the objects of both sides. It is not called where the nodes stand for the same."""
    fail: Callable[[], None]
    """Called instead where objects cannot be made here, as for a library that is missing."""


class Task(Protocol):
    """Something that is compared by reading."""

    def jobs(self) -> Iterable[Job]:
        """What is compared first."""

    def more(self) -> Iterable[Job]:
        """What is compared when that is done."""

    @property
    def rows(self) -> int | None:
        """Rows that changed; None where there are none, or it is not known."""

    @property
    def nbytes(self) -> int | None:
        """Bytes that differ; None where it is not known, and 0 where nothing differs."""


def run(tasks: Sequence[Task]) -> None:
    """Compare everything."""
    _run(job for task in tasks for job in task.jobs())
    _run(job for task in tasks for job in task.more())


def _run(jobs: Iterable[Job]) -> None:
    batch: list[Job] = []
    total = 0
    for job in jobs:
        if batch and total + job.nbytes > BLOCK:
            _run_batch(batch)
            batch, total = [], 0
        batch.append(job)
        total += job.nbytes
    if batch:
        _run_batch(batch)


def _run_batch(batch: list[Job]) -> None:
    lefts = _planned([(job.left, job.plan) for job in batch], 0)
    rights = _planned([(job.right, job.plan) for job in batch], 1)
    differ = [
        number
        for number, job in enumerate(batch)
        if not all(
            same(Place(job.left, a), Place(job.right, b))
            for a, b in zip(lefts[number], rights[number], strict=True)
        )
    ]  # fmt: skip
    try:
        ours = _objects([(batch[number].left, lefts[number]) for number in differ])
        theirs = _objects([(batch[number].right, rights[number]) for number in differ])
    except NotLoadable:
        if len(batch) == 1:
            batch[0].fail()
        else:
            for job in batch:
                _run_batch([job])
        return
    for number, mine, its in zip(differ, ours, theirs, strict=True):
        batch[number].take(mine, its)


def _planned(plans: Sequence[tuple[ArtifactParts, Callable[[Edges, int], list[Any]]]], side: int) -> list[list[Any]]:
    """The nodes of each plan. What they need to know is read together for each artifact."""
    found: list[list[Any]] = [[] for _ in plans]
    for parts, numbers in _by_parts([parts for parts, _ in plans]):
        chosen = [plans[number][1] for number in numbers]
        made = planned(partial(_all_of, chosen, side), parts.read)
        for number, nodes in zip(numbers, made, strict=True):
            found[number] = nodes
    return found


def _all_of(plans: Sequence[Callable[[Edges, int], list[Any]]], side: int, edges: Edges) -> list[list[Any]]:
    return [plan(edges, side) for plan in plans]


def _objects(wanted: Sequence[tuple[ArtifactParts, list[Any]]]) -> list[list[Any]]:
    """The objects of nodes, read together for each artifact."""
    found: list[list[Any]] = [[] for _ in wanted]
    for parts, numbers in _by_parts([parts for parts, _ in wanted]):
        made = iter(parts.objects([node for number in numbers for node in wanted[number][1]]))
        for number in numbers:
            found[number] = [next(made) for _ in wanted[number][1]]
    return found


def _by_parts(parts: Sequence[ArtifactParts]) -> list[tuple[ArtifactParts, list[int]]]:
    grouped: dict[int, tuple[ArtifactParts, list[int]]] = {}
    for number, one in enumerate(parts):
        grouped.setdefault(id(one), (one, []))[1].append(number)
    return list(grouped.values())
