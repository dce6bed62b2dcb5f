"""An export: what is stored, in the format that is meant, at the place that is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mfstore.errors import WrongArgument
from mfstore.exporting import arrays, pickles, tables, tensors, texts
from mfstore.exporting.formats import (
    BYTES,
    CSV,
    JSON,
    NPY,
    NPZ,
    PARQUET,
    PICKLE,
    SAFETENSORS,
    chosen,
    content_of,
    is_empty_of_safetensors,
    node_of,
    unfit,
)
from mfstore.exporting.targets import Write, require_new, require_place, to_bucket, to_file
from mfstore.s3.urls import names_object
from mfstore.safetensors.shards import is_index

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.views.view import View

PickleOf = Callable[["View"], Iterable[bytes]]
"""The stored pickle of a view that is all of an artifact, in blocks."""


def export(
    backend: Backend, view: View, place: str, format: str | None, *,  # noqa: A002
    overwrite: bool, metadata: Mapping[str, str] | None, stored: PickleOf,
) -> None:  # fmt: skip
    """Write what a view is of to a file or an object of a bucket."""
    require_place(place)
    called = chosen(view, place, format)
    if metadata is not None and called != SAFETENSORS:
        raise WrongArgument("metadata are of safetensors alone", hint="format='safetensors', or a path that ends so")

    def put(where: str, write: Write) -> None:
        if names_object(where):
            to_bucket(where, overwrite, write, backend)
        else:
            to_file(where, overwrite, write)

    def look(where: str) -> None:
        if not overwrite:  # before anything is read for it
            require_new(where, backend)

    if called == SAFETENSORS and is_index(place):
        _put_shards(view, place, metadata, put, look)
    else:
        look(place)
        put(place, lambda path: _write(view, called, path, metadata, stored))


def _put_shards(
    view: View, place: str, metadata: Mapping[str, str] | None, put: Callable[[str, Write], None],
    look: Callable[[str], None],
) -> None:  # fmt: skip
    """The files beside the index, and the index when all of them are there. ``look`` at each place comes first."""
    index, files = tensors.shards(view, _named(view) or {})

    def written(write: Callable[[BinaryIO, Mapping[str, str] | None], None], path: Path) -> None:
        with open(path, "xb") as out:
            write(out, metadata)

    directory = place.rpartition("/")[0] + "/" if "/" in place else ""
    for where in (place, *(directory + file for file in files)):
        look(where)
    for file, write in files.items():
        put(directory + file, partial(written, write))
    put(place, lambda path: path.write_bytes(index))


def _write(view: View, called: str, path: Path, metadata: Mapping[str, str] | None, stored: PickleOf) -> None:
    if called == PARQUET:
        tables.write_parquet(view, path)
        return
    if called == CSV:
        tables.write_csv(view, path)
        return
    with open(path, "xb") as out:
        if called == PICKLE:
            _write_pickle(view, out, stored)
        elif called == NPY:
            arrays.write_npy(view, out)
        elif called == NPZ:
            arrays.write_npz(view, out, _named(view))
        elif called == SAFETENSORS:
            tensors.write_safetensors(view, out, _named(view), metadata)
        elif called == JSON:
            texts.write_json(view, out)
        elif called == BYTES:
            texts.write_bytes(view, out)
        else:
            texts.write_text(view, out)


def _write_pickle(view: View, out: BinaryIO, stored: PickleOf) -> None:
    if view.is_raw:
        raise unfit(view, PICKLE, "it was stored as bytes, without pickle")
    if view.artifact is None:
        pickles.write_pickle(view, out)
        return
    for block in stored(view):
        out.write(block)


def _named(view: View) -> dict[Any, Any] | None:
    if content_of(view) is None and view.kind in ("bundle", "mapping"):
        return dict(arrays.named_parts(view))
    return {} if is_empty_of_safetensors(node_of(view)) else None
