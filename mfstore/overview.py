"""What a notebook shows of a store and its refs. It asks the storage, which ``repr`` never does: one page of a listing,
and the refs that are shown, together."""

from __future__ import annotations

from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from mfstore.display.amounts import count
from mfstore.display.cards import Card, Cell, Grid, age_cell, code_cell, key_cell
from mfstore.display.words import note_text
from mfstore.errors import MfstoreError
from mfstore.format.refs import PREFIX, is_ref, ref_name
from mfstore.ref_objects import read_refs

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.handle import Handle

SHOWN = 20
"""Refs that are shown."""
NEWEST = 8
"""Refs that are shown of a store."""
PAGE = 1000
"""Refs that are looked at: one page of a listing in S3."""


def refs_card(backend: Backend) -> Card:
    """The first refs by name, with their keys and when they were set; or what the storage said instead."""
    try:
        names, more = _listed(backend)
        grid = _grid(backend, sorted(names)[:SHOWN], len(names))
    except MfstoreError as error:
        return Card("refs of", backend.url, notes=(str(error),))
    return Card(f"{_number(len(names), more)} of", backend.url, grids=(grid,) if names else ())


def store_card(handle: Handle) -> Card:
    """Where a store is, and the refs that were set last."""
    backend = handle.backend
    try:
        handle.require_read()
        if handle.description is None:
            return Card("store", backend.url, notes=("There is no store yet: the first put creates it.",))
        names, more = _listed(backend)
        grid = _grid(backend, list(names)[:NEWEST], len(names))
    except MfstoreError as error:
        return Card("store", backend.url, notes=(str(error),))
    return Card(f"store with {_number(len(names), more)}", backend.url, grids=(grid,) if names else ())


def _listed(backend: Backend) -> tuple[dict[str, float], bool]:
    """The refs of the first page, those set last first, each with when the storage had it last; and whether there may
    be more."""
    found = [*islice(backend.list(PREFIX), PAGE)]
    infos = sorted(found, key=attrgetter("modified"), reverse=True)
    return {ref_name(info.key): info.modified for info in infos if is_ref(info.size)}, len(found) == PAGE


def _number(refs: int, more: bool) -> str:
    return f"{refs:,} refs or more" if more else count(refs, "ref")


def _grid(backend: Backend, names: list[str], total: int) -> Grid:
    rows: list[tuple[Cell | str, ...]] = []
    noted = False
    for name, stored in zip(names, read_refs(backend, names), strict=True):
        if isinstance(stored, MfstoreError):
            rows.append((code_cell(name), Cell(stored.message, look="bad"), "", ""))
        elif stored.entries:
            entry = stored.entries[-1]
            noted = noted or entry.note is not None
            note = Cell("" if entry.note is None else note_text(entry.note, 60), note_text(entry.note or ""), "code")
            rows.append((code_cell(name), key_cell(entry.key), age_cell(entry.time), note))
    columns: tuple[str, ...] = ("ref", "key", "set", "note")
    if not noted:
        columns, rows = columns[:3], [row[:3] for row in rows]
    return Grid(columns, tuple(rows), more=total - len(names))
