"""Handles of what is stored: what is in it is told without reading its data, and what is asked for is read alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from mfstore.display.shown import Shown
from mfstore.errors import NotFound, Unsupported, WrongArgument
from mfstore.format.recipes import BUNDLE
from mfstore.handle import Wishes
from mfstore.loading.artifacts import first_chunks
from mfstore.pickling.evaluation import is_at_hand, slots_of
from mfstore.pickling.symbols import Made, Slot, item_of
from mfstore.progress import METER, Progress, shown
from mfstore.records import NamedTuple
from mfstore.views.arrays import array_of, indexed, is_all, is_number, split
from mfstore.views.arrow import Edges, TableSymbols, arrow_array, arrow_table, chunked_array, planned
from mfstore.views.data import (
    ARRAY,
    SEQUENCE,
    TABLE,
    VALUE,
    PartSummary,
    dtype_of,
    entries_of,
    is_plain,
    kind_of,
    nbytes_of,
    shape_of,
    type_of,
)
from mfstore.views.frames import FrameColumns, FrameSymbols, SeriesSymbols, frame_of, rows_of_labels, series_of
from mfstore.views.ipc import StreamLayout
from mfstore.views.parts import ArtifactParts
from mfstore.views.polars_frames import PolarsSymbols, polars_frame
from mfstore.views.tensors import sparse_tensor, tensor_of

if TYPE_CHECKING:
    from mfstore.allow import Allow
    from mfstore.display.cards import Card
    from mfstore.format.digests import Key
    from mfstore.format.recipes import Recipe
    from mfstore.handle import Handle

BUNDLE_KIND = "bundle"
"""Kind of a view of several artifacts, by name."""
OF_FRAMES = ("builtins", "datetime", "numpy", "pandas", "pyarrow")
"""Libraries that make the names of a frame's columns: showing a view imports nothing, and runs nothing of others."""
READ_TO_SHOW = 1 << 20
"""Longest body that is read when a view is shown."""
NAMES_TOLD = 20
"""Names that an error tells of."""


class _Stored(NamedTuple):
    """What a view is of."""

    handle: Callable[[], Handle]
    key: Key
    recipe: Recipe
    verify: bool | None
    safe: bool | Allow | None
    called: str
    """What it was asked for by."""
    artifacts: dict[int, ArtifactParts]
    """Those of a bundle that were asked for, by number."""
    first: dict[str, int]
    """``first_chunks`` of the recipe, once it is needed."""


class View(Shown):
    """A stored artifact, or a part of one, of which only what is asked for is read.

    Of a container (a bundle, a dict, a list, an object of a class) an index gives the view of a part. Of data (an
    array, a frame, a series, a tensor, a table) it gives data: rows, columns, or what else the index means there.
    ``load`` gives all of the part. Each reads anew, and what comes is the caller's.

    What is in it is known from its recipe and its pickle; nothing is unpickled before something is loaded, or names
    are asked for that are objects themselves, as dates. Then only what the part needs is made. Unpickles: only for
    stores whose writers you trust.

    Views may be used from several threads. Where an event loop runs, ``await asyncio.to_thread(view.load)``.
    """

    __slots__ = ("_columns", "_layout", "_made", "_parts", "_steps", "_stored")

    def __init__(
        self, stored: _Stored, parts: ArtifactParts | None, steps: tuple[Any, ...], made: tuple[Any] | None
    ) -> None:
        self._stored = stored
        self._parts = parts
        self._steps = steps
        self._made = made
        self._columns: FrameColumns | None = None
        self._layout: StreamLayout | None = None

    # ---- what it is -------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """What an index means: "bundle", "mapping", "sequence" and "object" have parts; "table" and "array" are data;
        "value" is what has neither."""
        return BUNDLE_KIND if self._parts is None else kind_of(self._node)

    @property
    def key(self) -> Key:
        """The key of what this is a part of."""
        return self._stored.key

    @property
    def type(self) -> str:
        """Name of the type of the part; of a whole artifact as ``stat`` tells it."""
        if self._parts is None:
            return BUNDLE_KIND
        if self._made is None:
            return self._type_of(self._parts)
        return type_of(self._node)

    @property
    def shape(self) -> tuple[int | None, ...] | None:
        """Lengths of the axes of an array or a table; None in it for one that cannot be told without reading data, and
        None for what has no axes. Of a frame of polars a little is read for it."""
        if self._parts is None:
            return None
        polars = polars_frame(self._node)
        layout = None if polars is None else self._stream_layout(polars)
        return self._shape(self._node) if layout is None else (layout.rows, len(layout.columns))

    @property
    def dtype(self) -> Any:
        """The type of an array's elements, of numpy, Arrow or torch; None of anything else."""
        node = None if self._parts is None else dtype_of(self._node)
        return None if node is None else self._objects([node])[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the data in it. Numbers and short texts that lie among Python's objects are not counted."""
        if self._parts is None:
            return sum(artifact.size for artifact in self._stored.recipe.artifacts)
        return nbytes_of(self._node)

    @property
    def columns(self) -> list[Any]:
        """The names of a table's columns. TypeError for what has none."""
        return self._column_names(self._table())

    def summary(self) -> list[PartSummary]:
        """What is known of each part, in order, without reading data."""
        return self._first_parts(None)

    def _first_parts(self, count: int | None) -> list[PartSummary]:
        if self._parts is None:
            types = self._stored.recipe.described.types
            parts = zip(self._artifacts(count), types, strict=False)
            return [part._summary_of_artifact(name, kind) for (name, part), kind in parts]
        if self.kind == TABLE:
            return self._summary_of_table()[:count]
        entries = entries_of(self._node)
        return [
            PartSummary(name, type_of(part), shape_of(part), nbytes_of(part), _text_of(part))
            for name, part in zip(self._names(entries.names[:count]), entries.nodes[:count], strict=True)
        ]

    def _summary_of_table(self) -> list[PartSummary]:
        table = self._table()
        names = self._column_names(table)
        if isinstance(table, TableSymbols):
            return [
                PartSummary(name, type_of(column), None, nbytes_of(column), "")
                for name, column in zip(names, table.columns, strict=True)
            ]
        if isinstance(table, PolarsSymbols):
            return [PartSummary(name, "", None, 0, "") for name in names]
        told: dict[int, tuple[str, int]] = {}
        for block, places in zip(table.blocks, self._frame_columns(table).places, strict=True):
            values = block.args[0]
            array = array_of(values)
            kind = type_of(values) if array is None else str(self._object(array.dtype))
            told |= dict.fromkeys(places, (kind, nbytes_of(values) // max(len(places), 1)))
        return [PartSummary(name, told[at][0], None, told[at][1], "") for at, name in enumerate(names)]

    def _summary_of_artifact(self, name: str, kind: str) -> PartSummary:
        assert self._parts is not None
        parts = self._parts
        shape = self._shape(parts.root) if parts.is_here else None
        return PartSummary(name, kind, shape, parts.artifact.size, "")

    def _type_of(self, parts: ArtifactParts) -> str:
        recipe = self._stored.recipe
        return recipe.described.types[parts.number]

    def _shape(self, node: Any) -> tuple[int | None, ...] | None:
        frame = frame_of(node)
        if frame is None or self._columns is None:
            return shape_of(node)
        return frame.length, len(self._columns.names)

    # ---- its parts --------------------------------------------------------------------

    def keys(self) -> list[Any]:
        """The names of the parts: of a table its columns, of a sequence numbers; none of what has no parts."""
        if self._parts is None:
            return [artifact.name for artifact in self._stored.recipe.artifacts]
        if self.kind == TABLE:
            return self.columns
        return self._names(entries_of(self._node).names)

    def __len__(self) -> int:
        """How many parts; of data, how many rows."""
        kind = self.kind
        if kind in (TABLE, ARRAY):
            shape = self.shape
            if shape and shape[0] is not None:
                return shape[0]
            return len(self.load())
        if kind == VALUE:
            raise TypeError(f"{self._called()} has no parts")
        return len(self.keys())

    def __bool__(self) -> bool:
        """True: whether there is anything in it is for ``len``."""
        return True

    def __iter__(self) -> Iterator[Any]:
        """The names of parts, as of a dict or a frame; of a sequence the views of its items; of an array its rows, for
        which it is loaded whole."""
        kind = self.kind
        if kind == SEQUENCE:
            return iter(self.values())
        if kind == ARRAY:
            return iter(self.load())
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        if self.kind in (SEQUENCE, ARRAY, VALUE):
            raise TypeError(f"{self._called()} has no names. Load it first")
        return name in self.keys()

    def values(self) -> list[Any]:
        """The views of the parts; of a table its columns, loaded."""
        return [part for _, part in self.items()]

    def items(self) -> list[tuple[Any, Any]]:
        """Names with what ``values`` gives."""
        if self._parts is None:
            return self._artifacts()
        if self.kind == TABLE:
            return [(name, self[name]) for name in self.keys()]
        entries = entries_of(self._node)
        names = self._names(entries.names)
        return [(name, self._part(name, part)) for name, part in zip(names, entries.nodes, strict=True)]

    def __getitem__(self, index: Any) -> Any:
        """The view of a part, or data.

        Raises:
            NotFound: there is no part, or no column, of that name. It is a KeyError.
            IndexError: a number that is out of range.
            TypeError: an index that means nothing there.
            NotLoadable: what was stored cannot be made here, as for a class that is missing.
            CorruptObject: bytes differ from what was stored, and there is no whole copy.
        """
        if self._parts is None:
            return self._artifact(index)
        kind = self.kind
        if kind == TABLE:
            return self._of_table(index)
        if kind == ARRAY:
            return self._of_array(index)
        if kind == VALUE:
            raise TypeError(f"{self._called()} has no parts: load() gives it")
        if kind == SEQUENCE:
            entries = entries_of(self._node)
            if isinstance(index, slice):
                return [self._part(number, entries.nodes[number]) for number in range(len(entries.nodes))[index]]
            if not hasattr(index, "__index__"):
                raise TypeError(f"parts of {self._called()} have numbers, not {index!r:.80}")
            return self._part(index.__index__(), entries.nodes[index.__index__()])
        node = self._node
        if isinstance(node, dict) and _is_key(index) and index in node:
            return self._part(index, node[index])
        entries = entries_of(node)
        for name, part in zip(self._names(entries.names), entries.nodes, strict=True):
            if name == index:
                return self._part(name, part)
        raise self._missing(index)

    def _artifact(self, name: Any) -> View:
        for number, artifact in enumerate(self._stored.recipe.artifacts):
            if artifact.name == name:
                return View(self._stored, self._parts_of(number), (name,), None)
        raise self._missing(name)

    def _artifacts(self, count: int | None = None) -> list[tuple[Any, View]]:
        """Names with their views, of a bundle: of the first ones, or of all."""
        return [
            (artifact.name, View(self._stored, self._parts_of(number), (artifact.name,), None))
            for number, artifact in enumerate(self._stored.recipe.artifacts[:count])
        ]

    def _parts_of(self, number: int) -> ArtifactParts:
        stored = self._stored
        if not stored.first:
            stored.first.update(first_chunks(stored.recipe))
        made = ArtifactParts(
            stored.handle().loading(stored.verify, True, None, stored.safe), stored.recipe, number, stored.first
        )
        return stored.artifacts.setdefault(number, made)

    def _part(self, name: Any, node: Any) -> View:
        return View(self._stored, self._parts, (*self._steps, name), (node,))

    def _names(self, names: Sequence[Any]) -> list[Any]:
        """Names of parts as they are in Python."""
        made = list(names)
        odd = [at for at, name in enumerate(made) if not is_plain(name)]
        for at, name in zip(odd, self._objects([made[at] for at in odd]) if odd else (), strict=True):
            made[at] = name
        return made

    def _missing(self, name: Any) -> NotFound:
        names = ", ".join(map(str, self.keys()[:NAMES_TOLD])) or "none"
        return NotFound(
            f"{self._called()} has no {'column' if self.kind == TABLE else 'part'} {name!r:.80}", key=self.key,
            hint=f"It has {names}",
        )  # fmt: skip

    # ---- data -------------------------------------------------------------------------

    def load(
        self, rows: slice | None = None, columns: Iterable[Any] | None = None, *, progress: Progress = None
    ) -> Any:  # fmt: skip
        """The object of the whole part; of data, of some rows or columns of it.

        Args:
            rows: Of an array or a table, these rows, by their numbers.
            columns: Of a table, the columns of these names, as a table of them.
            progress: True shows how many bytes are done, while they are: in a terminal on stderr, in a notebook below
                the cell. A function is called with how many more are.

        Raises:
            NotFound: there is no such column.
            TypeError: rows of what has none, or columns of what is no table.
            NotLoadable: what was stored cannot be made here, as for a class that is missing.
            CorruptObject: bytes differ from what was stored, and there is no whole copy.
        """
        with shown(progress, "load"):
            return self._load(rows, columns)

    def _load(self, rows: slice | None, columns: Iterable[Any] | None) -> Any:
        if columns is not None:
            if isinstance(columns, str):
                raise WrongArgument("columns is a list of names, and this is one", found=repr(columns),
                                    hint=f"Write columns=[{columns!r}]")  # fmt: skip
            return self._chosen(self._table(), list(columns), rows)
        if rows is not None:
            if not isinstance(rows, slice) or self.kind not in (ARRAY, TABLE):
                raise TypeError(f"rows are a slice, of an array or a table, not {rows!r:.80} of {self._called()}")
            return self._chosen(self._table(), None, rows) if self.kind == TABLE else self._of_array(rows)
        stored = self._stored
        if self._parts is None or self._made is None:
            named = self._parts is None
            wanted = stored.recipe.artifacts if self._parts is None else [self._parts.artifact]
            how = Wishes(stored.verify, safe=stored.safe)
            return stored.handle().load(stored.key, stored.recipe, wanted, how, named=named)
        tensor = tensor_of(self._node)
        alone = None if tensor is None else tensor.alone()
        return self._object(self._node if alone is None else alone)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        return np.asarray(self.load(), dtype)

    def _of_array(self, index: Any) -> Any:
        node = self._node
        if isinstance(node, Slot):
            return self._of_bytes(node, index)
        array = array_of(node)
        if array is not None:
            part, left = indexed(array, index)
            return self._object(part)[left]
        series = series_of(node)
        if series is not None and not _is_slice(index):
            return self._of_series(series, index)
        # Which indices a sparse tensor takes is for torch to say.
        length = (self.shape or (None,))[0] if sparse_tensor(node) is None else None
        found = split(index, length) if length is not None else None
        if found is None:
            return self._object(node)[index]
        start, stop, within = found
        made = self._object(self._planned(lambda edges: self._rows(node, start, stop, edges)))
        return made if is_all(within) else made[within]

    def _rows(self, node: Any, start: int, stop: int, edges: Edges) -> Any:
        rows = None
        if (series := series_of(node)) is not None:
            rows = series.rows(start, stop, edges)
        elif (arrow := chunked_array(node) or arrow_array(node)) is not None:
            rows = arrow.rows(start, stop, edges)
        elif (tensor := tensor_of(node)) is not None:
            rows = tensor.rows(start, stop)
        return item_of(node, slice(start, stop)) if rows is None else rows

    def _of_bytes(self, node: Slot, index: Any) -> Any:
        assert self._parts is not None
        found = split(index, len(node))
        if found is None:
            return self._object(node)[index]
        start, stop, within = found
        return self._object(node.part(start, stop))[within]

    def _of_series(self, series: SeriesSymbols, index: Any) -> Any:
        """An item by its label, as pandas takes it; what else an index may be needs the whole series."""
        if not isinstance(index, (str, int, float, bytes)) or series.length is None:
            return self._object(series.node)[index]
        (labels,) = self._objects([series.index])
        try:
            at = labels.get_loc(index)
        except KeyError:
            raise NotFound(f"{self._called()} has no row {index!r:.80}", key=self.key) from None
        if not isinstance(at, int):
            return self._object(series.node)[index]
        rows = self._planned(lambda edges: series.rows(at, at + 1, edges))
        return self._object(rows).iloc[0]

    # ---- tables -----------------------------------------------------------------------

    def _table(self) -> FrameSymbols | TableSymbols | PolarsSymbols:
        node = None if self._parts is None else self._node
        found = frame_of(node) or arrow_table(node) or polars_frame(node)
        if found is None:
            raise TypeError(f"{self._called()} is no table: it has no columns")
        return found

    def _of_table(self, index: Any) -> Any:
        table = self._table()
        if isinstance(table, PolarsSymbols):
            return self._of_polars(table, index)
        if isinstance(index, slice):
            return self._chosen(table, None, index)
        if isinstance(index, list) and not _is_mask(index):
            return self._chosen(table, index, None)
        if (
            isinstance(index, list)
            or callable(index)
            or (hasattr(index, "__array__") and getattr(index, "ndim", 1) > 0)
        ):
            return self._object(table.node)[index]
        return self._column(table, index)

    def _column(self, table: FrameSymbols | TableSymbols, name: Any) -> Any:
        positions = self._positions(table, [name])
        if isinstance(table, TableSymbols):
            return self._object(table.columns[positions[0]])
        places = self._frame_columns(table).places
        made = self._planned(lambda edges: table.chosen(places, positions, None, edges))
        return self._object(made)[name]

    def _of_polars(self, table: PolarsSymbols, index: Any) -> Any:
        if _is_slice(index):
            return self._part_of_polars(table, None, index)
        names = [index] if isinstance(index, str) else index
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            return self._object(table.node)[index]
        made = self._part_of_polars(table, names, None)
        return made[index] if isinstance(index, str) else made

    def _part_of_polars(self, table: PolarsSymbols, columns: list[Any] | None, rows: slice | None) -> Any:
        layout = self._stream_layout(table)
        if layout is None or (columns is None and rows is None):
            made = self._object(table.node)
            made = made if columns is None else made.select(columns)
            return made if rows is None else made[rows]
        there = {column.name: at for at, column in enumerate(layout.columns)}
        for name in columns or ():
            if name not in there:
                raise self._missing(name)
        positions = list(there.values()) if columns is None else [there[name] for name in columns]
        if rows is None:
            return self._object(table.chosen(layout, positions))
        found = split(rows, layout.rows)
        assert found is not None
        start, stop, within = found
        return self._object(self._planned(lambda edges: table.rows(layout, positions, start, stop, edges)))[within]

    def _stream_layout(self, table: PolarsSymbols) -> StreamLayout | None:
        if self._layout is None:
            parts = self._parts
            assert parts is not None
            try:
                self._layout = table.layout(lambda slot: bytes(parts.read([slot])[id(slot)]))
            except Exception as error:
                self._fail(error)
        return self._layout

    def _chosen(
        self, table: FrameSymbols | TableSymbols | PolarsSymbols, columns: list[Any] | None, rows: slice | None
    ) -> Any:
        if isinstance(table, PolarsSymbols):
            return self._part_of_polars(table, columns, rows)
        positions = None if columns is None else self._positions(table, columns)
        places = self._frame_columns(table).places if isinstance(table, FrameSymbols) else ()
        if rows is None:
            return self._object(self._planned(lambda edges: _part_of(table, places, positions, None, edges)))
        length = table.length
        if length is None:
            length = len(self._object(table.index if isinstance(table, FrameSymbols) else table.node))
        if isinstance(table, FrameSymbols) and not _is_slice(rows):
            (labels,) = self._objects([table.index])
            rows = rows_of_labels(labels, rows)
        found = split(rows, length)
        assert found is not None
        start, stop, within = found
        made = self._planned(lambda edges: _part_of(table, places, positions, (start, stop), edges))
        loaded = self._object(made)
        return loaded if is_all(within) else loaded[within]

    def _positions(self, table: FrameSymbols | TableSymbols, names: list[Any]) -> list[int]:
        places = self._frame_columns(table) if isinstance(table, FrameSymbols) else table
        try:
            return places.positions(names)
        except (KeyError, IndexError) as error:
            raise self._missing(error.args[0] if isinstance(error, KeyError) else names) from None

    def _frame_columns(self, frame: FrameSymbols) -> FrameColumns:
        if self._columns is None:
            self._columns = FrameColumns(frame, self._objects)
        return self._columns

    def _column_names(self, table: FrameSymbols | TableSymbols | PolarsSymbols) -> list[Any]:
        if isinstance(table, PolarsSymbols):
            layout = self._stream_layout(table)
            return self._object(table.node).columns if layout is None else [one.name for one in layout.columns]
        return list(table.names if isinstance(table, TableSymbols) else self._frame_columns(table).names)

    # ---- reading ----------------------------------------------------------------------

    def symbols(self) -> tuple[ArtifactParts, Any] | None:
        """Internal: the artifact that it is, or is part of, and of what it would be made; None for a bundle."""
        return None if self._parts is None else (self._parts, self._node)

    @property
    def artifact(self) -> str | None:
        """Internal: the name of the artifact that it is all of, "" where that has none; None for a part, and for a
        bundle."""
        return self._parts.artifact.name if self._parts is not None and self._made is None else None

    @property
    def is_raw(self) -> bool:
        """Internal: whether it is all of an artifact that was stored as bytes, without pickle."""
        return self._parts is not None and self._made is None and self._parts.is_raw

    @property
    def _node(self) -> Any:
        if self._made is not None:
            return self._made[0]
        assert self._parts is not None
        try:
            return self._parts.root
        except Exception as error:
            self._fail(error)

    def _planned(self, plan: Callable[[Edges], Any]) -> Any:
        assert self._parts is not None
        return planned(plan, self._parts.read)

    def _object(self, node: Any) -> Any:
        return self._objects([node])[0]

    def _objects(self, nodes: Sequence[Any]) -> list[Any]:
        assert self._parts is not None
        size = sum(map(len, slots_of(*nodes)))
        if (meter := METER.get()) is not None:
            meter.expect(size)
        try:
            made = self._parts.objects(nodes)
        except Exception as error:
            self._fail(error)
        self._stored.handle().count(size)
        return made

    def _fail(self, error: Exception) -> NoReturn:
        raise self._stored.handle().located(error, self._stored.key) from error.__cause__

    def __reduce__(self) -> tuple[Any, ...]:
        stored = self._stored
        return _opened_again, (stored.handle, stored.key, stored.called, stored.verify, self._steps, stored.safe)

    # ---- for people -------------------------------------------------------------------

    def _called(self) -> str:
        return f"the view {self._name()}"

    def _name(self) -> str:
        return self._stored.called + "".join([f"[{step!r}]" for step in self._steps])

    def _ipython_key_completions_(self) -> list[Any]:
        return [name for name in self.keys() if isinstance(name, (str, int))] if self.kind != ARRAY else []

    def _card(self) -> Card:
        from mfstore.views.showing import SHOWN, card_of

        name = self._name()
        if self._parts is not None and self._made is None and not self._can_tell(self._parts):
            return card_of(name, self.type, None, self._parts.artifact.size, ())
        kind = self.kind
        if kind == TABLE:
            table = self._table()
            told = not isinstance(table, FrameSymbols) or is_at_hand(*table.names_and_types(), libraries=OF_FRAMES)
            told = told and (not isinstance(table, PolarsSymbols) or self._layout is not None)
            parts = self.summary() if told else ()
            shape = self.shape if told else shape_of(self._node)
            return card_of(name, self.type, shape, self.nbytes, parts, table.describe(), of="column")
        # Only what is shown is looked at: each part's size takes a look at all that is in it.
        parts = self._first_parts(SHOWN) if kind not in (ARRAY, VALUE) and self._are_named() else ()
        more = len(self) - len(parts) if parts else 0
        value = _text_of(self._node) if kind == VALUE else ""
        return card_of(name, self.type, self.shape, self.nbytes, parts, value=value, more=more)

    def _can_tell(self, parts: ArtifactParts) -> bool:
        """Whether it is known what there is: a body is read for that if it is short, and if it can be."""
        if parts.is_here:
            return True
        with suppress(Exception):
            return parts.artifact.body_length <= READ_TO_SHOW and parts.root is not None
        return False

    def _are_named(self) -> bool:
        """Whether the names of all parts are told without making anything."""
        return self._parts is None or all(map(is_plain, entries_of(self._node).names))


def _part_of(
    table: FrameSymbols | TableSymbols, places: Sequence[Sequence[int]], positions: Sequence[int] | None,
    rows: tuple[int, int] | None, edges: Edges,
) -> Made:  # fmt: skip
    if isinstance(table, TableSymbols):
        return table.chosen(positions, rows, edges)
    return table.chosen(places, positions, rows, edges)


def _is_slice(index: Any) -> bool:
    """Whether it is a slice of row numbers."""
    ends = (index.start, index.stop, index.step) if isinstance(index, slice) else (index,)
    return isinstance(index, slice) and all(end is None or is_number(end) for end in ends)


def _is_key(index: Any) -> bool:
    """Whether it is found in a dict of symbols if it is a key there: a plain value, or a tuple of such."""
    return is_plain(index) or (type(index) is tuple and all(map(_is_key, index)))


def _is_mask(index: list[Any]) -> bool:
    """Whether a list says of each row whether it is taken, as pandas understands one."""
    return bool(index) and all(type(one).__name__ in ("bool", "bool_") for one in index)


def _text_of(node: Any) -> str:
    return f"{node!r:.60}" if is_plain(node) and len(repr(node)) <= 60 else ""


def _opened_again(
    handle: Callable[[], Handle],
    key: Key,
    called: str,
    verify: bool | None,
    steps: Sequence[Any],
    safe: bool | Allow | None = None,
) -> View:
    """A view from a pickle: of another process, where its store is opened again."""
    view = open_view(handle, key, called, verify, safe)
    for step in steps:
        view = view[step]
    return view


def open_view(
    handle: Callable[[], Handle], key: Key, called: str, verify: bool | None = None, safe: bool | Allow | None = None
) -> View:  # fmt: skip
    """The view of what is stored under a key, which was asked for as ``called``. It pickles if ``handle`` does."""
    handle().require_signed([key])
    stored = _Stored(handle, key, handle().recipe(key), verify, safe, called, {}, {})
    if stored.recipe.is_tree:
        raise Unsupported("this is a tree, and no object", key=key, hint="store.tree(key) shows and reads it")
    if stored.recipe.kind == BUNDLE:
        return View(stored, None, (), None)
    parts = ArtifactParts(handle().loading(verify, True, None, safe), stored.recipe, 0)
    return View(stored, parts, (), None)
