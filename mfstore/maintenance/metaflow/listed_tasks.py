"""The tasks that a listing shows, of which there may be millions: beyond some, the files of a run are kept as a few
bytes each, perhaps in a temporary file, and the tasks are made of them when they are asked for."""

from __future__ import annotations

import marshal
import zlib
from array import array
from collections.abc import Container, ItemsView, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.spill import Spill
from mfstore.metaflow.roots.layout import MARKERS, ParsedPath, Task

TaskName = tuple[str, str, str, str]
"""Flow, run, step and task."""
Run = tuple[str, str]
OPEN_FILES = 100_000
"""Files that are kept as they are, 0.4 kB each."""
_ETAG_DIGITS = 32
OPEN_RUNS = 64
"""Of the runs that came last some stay open: a listing of many parts goes on with one or the other."""
Row: TypeAlias = "tuple[str, str, int | None, str, int, float, str]"
"""One file of a run: step, task, attempt, name, size, time and ETag."""
Packed = bytes | int
"""Rows of a run as bytes, or where these are kept."""
Files: TypeAlias = "list[Row | Packed] | tuple[Packed, ...] | Packed"
OfRun = dict[tuple[str, str], Task]
"""The tasks of a run, by step and task."""
_NO_RUN: tuple[Run, OfRun] = ("", ""), {}
_NO_FILES: tuple[Run, dict[tuple[str, str, int | None, str], Row]] = ("", ""), {}


class TaskTable(Mapping[TaskName, Task]):
    """Tasks by name, flow by flow and run by run in the order in which these were first seen. A task that is taken out
    of it and changed is not changed in it."""

    __slots__ = ("_files", "_flows", "_found", "_last", "_open", "_unmarked", "spill")

    def __init__(self, spill: Spill | None = None) -> None:
        self.spill = spill
        """Where packed rows are kept; None: in memory."""
        self._flows: dict[str, dict[str, Files]] = {}
        """The files of each run; those of one that is not open are packed, mostly once."""
        self._open: dict[Run, None] = {}
        """The runs of which not all rows are bytes."""
        self._files = 0
        """Rows of these."""
        self._unmarked: set[Run] = set()
        """Other runs that may have tasks without a mark."""
        self._last = _NO_RUN
        """The run that was made last, to be asked for its next task."""
        self._found = _NO_FILES
        """The run that a file was looked for in last."""

    @property
    def runs(self) -> list[Run]:
        """Every run that has tasks."""
        return list(self._each)

    @property
    def _each(self) -> Iterator[Run]:
        return ((flow, run) for flow, runs in self._flows.items() for run in runs)

    @property
    def flows(self) -> list[str]:
        """Every flow that has tasks."""
        return list(self._flows)

    def runs_of(self, flow: str) -> list[str]:
        """Every run of a flow that has tasks."""
        return list(self._flows.get(flow, ()))

    def add(self, path: ParsedPath, info: ObjectInfo) -> None:
        """Count one file of a task."""
        _, flow, run, step, task, attempt, name = path
        self.add_rows((flow, run), [(step, task, attempt, name, info.size, info.modified, info.etag)])

    def add_files(self, name: TaskName, files: Mapping[tuple[int | None, str], ObjectInfo]) -> None:
        """Count these files of a task."""
        self.add_rows(
            name[:2], [(*name[2:], *file, info.size, info.modified, info.etag) for file, info in files.items()]
        )

    def add_rows(self, run: Run, rows: Sequence[Row]) -> None:
        """Count these files of a run."""
        self._opened(run).extend(rows)
        self._files += len(rows)
        if self._files > OPEN_FILES:
            self._close()

    def _opened(self, run: Run) -> list[Row | Packed]:
        self._last, self._found = _NO_RUN, _NO_FILES  # it may change from here on
        runs = self._flows.get(run[0])
        if runs is None:
            runs = self._flows[run[0]] = {}
        stored = runs.get(run[1])
        if not isinstance(stored, list):
            stored = [] if stored is None else list(stored) if isinstance(stored, tuple) else [stored]
            runs[run[1]] = stored
            self._open[run] = None
        return stored

    def _close(self) -> None:
        kept = OPEN_RUNS if len(self._open) > 2 * OPEN_RUNS else 0
        for run in list(self._open)[: len(self._open) - kept]:
            stored = self._flows[run[0]][run[1]]
            assert isinstance(stored, list)
            packed = [row for row in stored if not isinstance(row, tuple)]
            rows = list({row[:4]: row for row in stored if isinstance(row, tuple)}.values())
            if rows:
                packed.append(self._packed(rows))
            if _unmarked(rows):
                self._unmarked.add(run)
            self._flows[run[0]][run[1]] = packed[0] if len(packed) == 1 else tuple(packed)
            del self._open[run]
        self._files = sum(map(len, map(self._opened, self._open)))

    def rows(self, run: Run) -> list[Row]:
        """The files of a run, each once."""
        stored = self._flows[run[0]][run[1]]
        if isinstance(stored, bytes | int):
            return self._unpacked(stored)
        rows: list[Row] = []
        for row in stored:
            if isinstance(row, tuple):
                rows.append(row)
            else:
                rows += self._unpacked(row)
        return list({row[:4]: row for row in rows}.values())

    def _packed(self, rows: Sequence[Row]) -> Packed:
        encoded = encode_rows(rows)
        return encoded if self.spill is None else self.spill.put(encoded)

    def _unpacked(self, packed: Packed) -> list[Row]:
        if isinstance(packed, bytes):
            return decode_rows(packed)
        assert self.spill is not None
        return decode_rows(self.spill.get(packed))

    def _has(self, run: Run) -> bool:
        return run[1] in self._flows.get(run[0], ())

    def of_run(self, run: Run) -> OfRun:
        """The tasks of a run, by step and task; none where there is no such run."""
        last = self._last  # threads may ask
        if last[0] != run:
            last = run, made_of(run, self.rows(run)) if self._has(run) else {}
            self._last = last
        return last[1]

    def of_flows(self, flows: Container[str]) -> Iterator[tuple[TaskName, Task]]:
        """Every task of some flows with its name."""
        for run in self._each:
            if run[0] in flows:
                for place, task in self.of_run(run).items():
                    yield run + place, task

    def take_unmarked(self) -> Iterator[ObjectInfo]:
        """Take out the tasks without any attempt's mark: their files."""
        for run in sorted({*self._open, *self._unmarked}):
            rows = self.rows(run)
            unmarked = _unmarked(rows)
            if not unmarked:
                continue
            # All of a run at once: there may be a million of them.
            kept = [row for row in rows if row[:2] not in unmarked]
            self._open.pop(run, None)
            if kept:
                self._flows[run[0]][run[1]] = self._packed(kept)
            else:
                del self._flows[run[0]][run[1]]
                if not self._flows[run[0]]:
                    del self._flows[run[0]]
            yield from (info_of(run, row) for row in rows if row[:2] in unmarked)
        self._unmarked.clear()
        self._last, self._found = _NO_RUN, _NO_FILES

    def find(self, path: ParsedPath) -> ObjectInfo | None:
        """What was listed of one file."""
        _, flow, run, step, task, attempt, name = path
        last = self._found
        if last[0] != (flow, run):
            rows = self.rows((flow, run)) if self._has((flow, run)) else []
            last = self._found = (flow, run), {row[:4]: row for row in rows}
        row = last[1].get((step, task, attempt, name))
        return None if row is None else info_of(last[0], row)

    def __getitem__(self, name: TaskName) -> Task:
        return self.of_run(name[:2])[name[2:]]

    def __iter__(self) -> Iterator[TaskName]:
        for run in self._each:
            for place in self.of_run(run):
                yield run + place

    def __len__(self) -> int:
        return sum(len(self.of_run(run)) for run in self._each)

    def __bool__(self) -> bool:
        return bool(self._flows)

    def items(self) -> ItemsView[TaskName, Task]:
        """Every task with its name."""
        return _Items(self)


class _Items(ItemsView[TaskName, Task]):
    """As any mapping's, without a look for each name."""

    _mapping: TaskTable

    def __iter__(self) -> Iterator[tuple[TaskName, Task]]:
        for run in self._mapping._each:
            for place, task in self._mapping.of_run(run).items():
                yield run + place, task


def _unmarked(rows: Sequence[Row]) -> set[tuple[str, str]]:
    """The tasks that none of these files is a mark of."""
    return {row[:2] for row in rows} - {row[:2] for row in rows if row[3] in MARKERS}


def encode_rows(rows: Sequence[Row]) -> bytes:
    """The files of a run in few bytes, column by column."""
    steps, tasks, attempts, names, sizes, moments, etags = zip(*rows, strict=True)
    known: dict[str, str] = {}  # what is one object is written once

    def once(words: Sequence[str]) -> tuple[str, ...]:
        return tuple([known.setdefault(word, word) for word in words])

    columns = (
        once(steps), once(tasks), attempts, once(names), array("q", sizes).tobytes(), array("d", moments).tobytes(),
        _encoded_etags(etags),
    )  # fmt: skip
    return zlib.compress(marshal.dumps(columns), 1)


def _encoded_etags(etags: tuple[str, ...]) -> bytes | tuple[str, ...]:
    """As bytes, where all are digests."""
    text = "".join(etags)
    if {*map(len, etags)} == {_ETAG_DIGITS}:
        with suppress(ValueError):
            digests = bytes.fromhex(text)
            if digests.hex() == text:
                return digests
    return etags


def _decoded_etags(etags: bytes | Sequence[str]) -> Sequence[str]:
    if not isinstance(etags, bytes):
        return etags
    text = etags.hex()
    return [text[at : at + _ETAG_DIGITS] for at in range(0, len(text), _ETAG_DIGITS)]


def decode_rows(data: bytes) -> list[Row]:
    """What ``encode_rows`` was given."""
    steps, tasks, attempts, names, sizes, moments, etags = marshal.loads(zlib.decompress(data))
    return list(
        zip(
            steps, tasks, attempts, names, array("q", sizes), array("d", moments), _decoded_etags(etags), strict=True
        )
    )  # fmt: skip


def info_of(run: Run, row: Row) -> ObjectInfo:
    """What was listed of one file."""
    step, task, attempt, name, size, modified, etag = row
    dot = "" if attempt is None else f"{attempt}."
    key = f"{run[0]}/{run[1]}/{step}/{task}/{dot}{name}"
    return ObjectInfo(key, size, modified, etag)


def made_of(run: Run, rows: Sequence[Row]) -> OfRun:
    """The tasks that have these files."""
    tasks: OfRun = {}
    place = "", ""
    for row in rows:
        if row[:2] != place:
            place = row[:2]
            task = tasks.setdefault(place, Task())
        task.add(row[2], row[3], info_of(run, row))
    return tasks
