"""What is read of both sides to be compared, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mfstore.comparing.sameness import Place, same
from mfstore.errors import NotLoadable
from mfstore.pickling.evaluation import slots_of
from mfstore.records import NamedTuple
from mfstore.views.arrow import Edges, planned
from mfstore.views.parts import objects_together

if TYPE_CHECKING:
    from mfstore.views.parts import ArtifactParts

BLOCK = 16 << 20
"""Bytes of both sides that are held at a time. In S3 a batch costs two requests, one for each side: at 30 ms and 100
MB/s these take a third as long as the bytes."""
PLANNED = 4 * BLOCK
"""Bytes of both sides that are planned at a time. To plan rows of texts where they begin is read, a quarter of short
texts; of what turns out to be the same no more is read, and what is left is loaded in full batches."""
T = TypeVar("T")


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


def run(tasks: Sequence[Task], loaded: Callable[[int], None]) -> None:
    """Compare everything. ``loaded`` is called with the bytes that were loaded."""
    _run((job for task in tasks for job in task.jobs()), loaded)
    _run((job for task in tasks for job in task.more()), loaded)


def _run(jobs: Iterable[Job], loaded: Callable[[int], None]) -> None:
    for planned_together in _batches(((job, job.nbytes) for job in jobs), PLANNED):
        differ = _differing(planned_together)
        for batch in _batches(((one, one.job.nbytes) for one in differ), BLOCK):
            _load(batch)
            loaded(sum(len(slot) for one in batch for slot in slots_of(one.left, one.right)))


def _batches(sized: Iterable[tuple[T, int]], most: int) -> Iterator[list[T]]:
    """What takes up to ``most`` bytes together, at least one."""
    batch: list[T] = []
    total = 0
    for one, nbytes in sized:
        if batch and total + nbytes > most:
            yield batch
            batch, total = [], 0
        batch.append(one)
        total += nbytes
    if batch:
        yield batch


class _Planned(NamedTuple):
    """A job with the nodes of both sides."""

    job: Job
    left: list[Any]
    right: list[Any]


def _differing(jobs: Sequence[Job]) -> list[_Planned]:
    """Those whose nodes do not stand for the same."""
    lefts = _nodes([(job.left, job.plan) for job in jobs], 0)
    rights = _nodes([(job.right, job.plan) for job in jobs], 1)
    return [
        _Planned(job, left, right)
        for job, left, right in zip(jobs, lefts, rights, strict=True)
        if not all(same(Place(job.left, a), Place(job.right, b)) for a, b in zip(left, right, strict=True))
    ]


def _load(batch: Sequence[_Planned]) -> None:
    try:
        ours = _objects([(one.job.left, one.left) for one in batch])
        theirs = _objects([(one.job.right, one.right) for one in batch])
    except NotLoadable:
        if len(batch) == 1:
            batch[0].job.fail()
        else:
            for one in batch:
                _load([one])
        return
    for one, mine, its in zip(batch, ours, theirs, strict=True):
        one.job.take(mine, its)


def _nodes(plans: Sequence[tuple[ArtifactParts, Callable[[Edges, int], list[Any]]]], side: int) -> list[list[Any]]:
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
    """The objects of nodes, read together for each side."""
    grouped = _by_parts([parts for parts, _ in wanted])
    made = objects_together([
        (parts, [node for number in numbers for node in wanted[number][1]]) for parts, numbers in grouped
    ])  # fmt: skip
    found: list[list[Any]] = [[] for _ in wanted]
    for (_, numbers), objects in zip(grouped, map(iter, made), strict=True):
        for number in numbers:
            found[number] = [next(objects) for _ in wanted[number][1]]
    return found


def _by_parts(parts: Sequence[ArtifactParts]) -> list[tuple[ArtifactParts, list[int]]]:
    grouped: dict[int, tuple[ArtifactParts, list[int]]] = {}
    for number, one in enumerate(parts):
        grouped.setdefault(id(one), (one, []))[1].append(number)
    return list(grouped.values())
