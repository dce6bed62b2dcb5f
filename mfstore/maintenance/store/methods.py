"""The methods of a store for administrators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from mfstore.errors import NotFound
from mfstore.maintenance.access import Place

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.maintenance.report import Level, Progress, RepairReport, VerifyReport
    from mfstore.maintenance.store.gc import GcPlan
    from mfstore.store import Store, _Runtime

DAY = 24 * 3600.0


class Maintained:
    """What ``Store`` inherits."""

    if TYPE_CHECKING:
        url: str
        backend: Backend

        def _prepare_read(self) -> None: ...

        def _runtime(self) -> _Runtime: ...

    def verify(
        self, level: Level = "headers", *, sample: str | tuple[int, int] | None = None,
        older_than: float | None = None, budget: float | None = None, progress: Progress | None = None,
    ) -> VerifyReport:  # fmt: skip
        """Check what is stored; changes nothing but a note of what was checked. Never raises for damage: it reports it.

        ``list``: sizes, by listing, and what refs name. ``headers``: recipes whole, headers and trailers of packs,
        and that chunks lie where recipes say. ``full``: every chunk is read, decoded and compared with its digest; of
        the packs only a ``sample`` ("3/10": the third tenth), or those not read whole for ``older_than`` seconds, the
        longest ago first and until ``budget`` seconds have passed. NotFound when there is no store.
        """
        from mfstore.maintenance.store.verify import verify

        return verify(self._place("read"), level, sample, older_than, budget, tell=progress)[0]

    def repair(
        self, level: Level = "full", *, dry_run: bool = False, drop_lost: bool = False, progress: Progress | None = None
    ) -> RepairReport:
        """Verify and mend: whole chunks of damaged packs are stored again, recipes pointed at whole copies, the index
        rebuilt; what is damaged moves to ``quarantine/``. Nothing is deleted. May be stopped and run again.

        ``drop_lost`` moves recipes there too whose chunks are nowhere, so that ``exists`` tells the truth.
        """
        from mfstore.maintenance.store.repair import repair

        return repair(self._place("read", "write", "delete"), level, dry_run, drop_lost, progress)

    def _place(self, *operations: str) -> Place:
        self._prepare_read()
        state = self._runtime()
        if state.description is None:
            raise NotFound("no store there", backend=self.backend.url)
        for operation in operations:
            state.description.require(operation, self.url)
        return Place(self.backend, state.workers, state.description.algorithm, state.guard)

    def plan_gc(
        self, live: Iterable[str] | None = None, grace: float | timedelta = DAY, *, keep_last: int | None = None,
        keep_age: float | timedelta | None = None, pinned: Iterable[str] = (), series: Iterable[str] = (),
        repack: float = 0.1, progress: Callable[[str, int], None] | None = None,
    ) -> GcPlan:  # fmt: skip
        """What garbage collection would do; ``execute`` of the result does it. Nothing is condemned or deleted here.

        Kept are the keys that refs name, those in ``live``, and everything younger than ``grace`` (seconds or a
        timedelta). What is garbage is first condemned, and deleted by an execution at least ``grace`` later. By default
        refs keep their whole history; see ``mfstore.maintenance.store.retention`` for ``keep_last``, ``keep_age``,
        ``pinned`` and ``series``. Packs that are mostly dead are rewritten, up to the share ``repack`` of the stored
        bytes. Raises when anything that is needed cannot be read, and Refused when the store's clock cannot be trusted.
        """
        from mfstore.maintenance.store.gc import make_plan
        from mfstore.maintenance.store.retention import Retention

        retention = Retention(keep_last, None if keep_age is None else _seconds(keep_age), tuple(pinned), tuple(series))
        return make_plan(cast("Store", self), live, _seconds(grace), retention, repack, progress)


def _seconds(duration: float | timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
