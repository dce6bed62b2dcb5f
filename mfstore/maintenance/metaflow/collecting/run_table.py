"""What decides about each run, in columns: of millions of runs there is no room for an object each."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from operator import eq
from typing import Any, overload

from mfstore.maintenance.metaflow.collecting.facts import RunFacts
from mfstore.maintenance.metaflow.collecting.policy import Run

_TIMES = ("began", "touched", "heartbeat", "ended", "expires")
_AMOUNTS = ("tasks", "files", "size", "cards", "cards_size")
_SHARED = ("flow", "running", "held", "state", "user", "branch", "deployment", "unclear", "recorded")
"""What many runs have in common: each combination is kept once, and each set of tags."""
_NO_TIME = float("nan")


class _Words:
    """Values that many runs share, by number."""

    __slots__ = ("_numbers", "values")

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.values)
            self.values.append(value)
        return found


class _Facts(Sequence[RunFacts]):
    """Made when they are asked for."""

    __slots__ = ()

    def _at(self, number: int) -> RunFacts:
        raise NotImplementedError

    @overload
    def __getitem__(self, number: int) -> RunFacts: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[RunFacts, ...]: ...

    def __getitem__(self, number: int | slice) -> RunFacts | tuple[RunFacts, ...]:
        if isinstance(number, slice):
            return tuple([self._at(one) for one in range(*number.indices(len(self)))])
        return self._at(range(len(self))[number])

    def __iter__(self) -> Iterator[RunFacts]:
        return map(self._at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr([*self])


class RunTable(_Facts):
    """The facts of runs, each once, in the order in which they came."""

    __slots__ = ("_amounts", "_index", "_names", "_of_shared", "_of_tags", "_shared", "_tags", "_times")

    def __init__(self, facts: Iterable[RunFacts] = ()) -> None:
        self._names: list[str] = []
        self._times = {name: array("d") for name in _TIMES}
        self._amounts = {name: array("q") for name in _AMOUNTS}
        self._of_shared, self._of_tags = array("i"), array("i")
        self._shared, self._tags = _Words(), _Words()
        self._index: dict[str, dict[str, int]] = {}
        for one in facts:
            self._add(one)

    def _add(self, facts: RunFacts) -> None:
        self._index.setdefault(facts.flow, {})[facts.run] = len(self._names)
        self._names.append(facts.run)
        for name, times in self._times.items():
            moment = getattr(facts, name)
            times.append(_NO_TIME if moment is None else moment)
        for name, amounts in self._amounts.items():
            amounts.append(getattr(facts, name))
        self._of_shared.append(self._shared.number(tuple([getattr(facts, name) for name in _SHARED])))
        self._of_tags.append(self._tags.number(facts.tags))

    def __len__(self) -> int:
        return len(self._names)

    def _at(self, number: int) -> RunFacts:
        facts: dict[str, Any] = dict(zip(_SHARED, self._shared.values[self._of_shared[number]], strict=True))
        for name, times in self._times.items():
            moment = times[number]
            facts[name] = None if moment != moment else moment
        for name, amounts in self._amounts.items():
            facts[name] = amounts[number]
        return RunFacts(run=self._names[number], tags=self._tags.values[self._of_tags[number]], **facts)

    def run(self, number: int) -> Run:
        """The flow and the run of that number."""
        flow: str = self._shared.values[self._of_shared[number]][0]
        return flow, self._names[number]

    def began(self, number: int) -> float:
        """When it began."""
        return self._times["began"][number]

    def number(self, run: object) -> int | None:
        """Which number a run has; None: it is not among them, or no run."""
        if not isinstance(run, tuple) or len(run) != 2:
            return None
        of_flow = self._index.get(run[0])
        return None if of_flow is None else of_flow.get(run[1])

    def number_of(self, run: Run) -> int:
        """Which number a run has. KeyError where it is not among them."""
        number = self.number(run)
        if number is None:
            raise KeyError(run)
        return number

    def of(self, run: Run) -> RunFacts:
        """The facts of a run. KeyError where it is not among them."""
        return self._at(self.number_of(run))

    @property
    def names(self) -> Collection[str]:
        """Of all runs, as Metaflow writes them."""
        return _Names(self)

    @property
    def heartbeats(self) -> Mapping[Run, float]:
        """The last sign of life of each run of which one is known."""
        return _Heartbeats(self)

    def heartbeat(self, number: int) -> float | None:
        """The last sign of life of that run."""
        moment = self._times["heartbeat"][number]
        return None if moment != moment else moment


class SomeRuns(_Facts):
    """Some of the runs of a table, by their numbers."""

    __slots__ = ("_numbers", "_table")

    def __init__(self, table: RunTable, numbers: Iterable[int]) -> None:
        self._table = table
        self._numbers = array("q", numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def _at(self, number: int) -> RunFacts:
        return self._table[self._numbers[number]]


class _Names(Collection[str]):
    """Of the runs of a table."""

    __slots__ = ("_table",)

    def __init__(self, table: RunTable) -> None:
        self._table = table

    def __contains__(self, name: object) -> bool:
        flow, _, run = str(name).partition("/")
        return self._table.number((flow, run)) is not None

    def __iter__(self) -> Iterator[str]:
        return map("/".join, map(self._table.run, range(len(self._table))))

    def __len__(self) -> int:
        return len(self._table)


class _Heartbeats(Mapping[Run, float]):
    """Of the runs of a table."""

    __slots__ = ("_table",)

    def __init__(self, table: RunTable) -> None:
        self._table = table

    def __getitem__(self, run: Run) -> float:
        number = self._table.number(run)
        moment = None if number is None else self._table.heartbeat(number)
        if moment is None:
            raise KeyError(run)
        return moment

    def __iter__(self) -> Iterator[Run]:
        table = self._table
        return (table.run(number) for number in range(len(table)) if table.heartbeat(number) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Reasons(MutableMapping[Run, str]):
    """Why runs of a table stay, or go: of some of them, in the order of the table."""

    __slots__ = ("_count", "_of", "_words", "table")

    def __init__(self, table: RunTable) -> None:
        self.table = table
        self._words = _Words()
        self._of = array("i", bytes(4 * len(table)))
        """The number of the reason, from 1 on; 0: there is none."""
        self._count = 0

    def put(self, number: int, why: str) -> None:
        """Note why, of the run of that number."""
        self._count += not self._of[number]
        self._of[number] = self._words.number(why) + 1

    def at(self, number: int) -> str | None:
        """Why, of the run of that number; None: it is none of them."""
        word = self._of[number]
        return self._words.values[word - 1] if word else None

    @property
    def numbers(self) -> Iterator[int]:
        """Those of its runs."""
        return (number for number, word in enumerate(self._of) if word)

    def __getitem__(self, run: Run) -> str:
        why = self.at(self.table.number_of(run))
        if why is None:
            raise KeyError(run)
        return why

    def __setitem__(self, run: Run, why: str) -> None:
        self.put(self.table.number_of(run), why)

    def __delitem__(self, run: Run) -> None:
        number = self.table.number_of(run)
        if not self._of[number]:
            raise KeyError(run)
        self._of[number] = 0
        self._count -= 1

    def __contains__(self, run: object) -> bool:
        number = self.table.number(run)
        return number is not None and bool(self._of[number])

    def __iter__(self) -> Iterator[Run]:
        return map(self.table.run, self.numbers)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return repr(dict(self))
