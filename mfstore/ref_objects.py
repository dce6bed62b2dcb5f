"""Refs as objects of a backend: read, also many at once, and removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mfstore.backends.base import decode_read
from mfstore.errors import Conflict, CorruptObject, MfstoreError, NotFound
from mfstore.format.refs import (
    PREFIX,
    StoredRef,
    decode_ref,
    encode_removed,
    encoded,
    is_ref,
    is_sealed,
    ref_name,
    ref_path,
)

if TYPE_CHECKING:
    from mfstore.backends.base import Backend


def read_ref(backend: Backend, path: str) -> tuple[str, StoredRef]:
    """The etag of the ref stored there, and what it says; that may be written back. No values: it was removed, or was
    not confirmed yet.

    What one read alone says is not believed when it is damaged, nor when nothing in it could tell (mfstore 0.1.0 wrote
    refs without a seal). NotFound when there is none, CorruptObject when it is damaged, Unsupported for a newer one.
    """
    data, etag = backend.get_tagged(path)
    if is_sealed(data):
        return etag, decode_read(backend, path, data, partial(decode_ref, path=path))
    again = backend.read_again(path)
    if again != data:
        # A bad read, or it was set in between: what is read twice is right, with the etag of the later look.
        data, etag = backend.get_tagged(path)
        if not is_sealed(data) and data != again:
            raise CorruptObject("ref is read otherwise each time", key=path)
    return etag, decode_ref(data, path)


def read_refs(backend: Backend, names: Sequence[str]) -> Iterator[StoredRef | MfstoreError]:
    """What each ref says, in order, or the error it met; all are asked for together."""
    return read_refs_at(backend, [ref_path(name) for name in names])


def read_refs_at(backend: Backend, paths: Sequence[str]) -> Iterator[StoredRef | MfstoreError]:
    """As ``read_refs``, of what is stored at these paths."""
    for path, (_, data) in zip(paths, backend.get_many(paths), strict=True):
        try:
            if isinstance(data, MfstoreError):
                yield data
            elif is_sealed(data):
                yield decode_read(backend, path, data, partial(decode_ref, path=path))
            else:
                yield read_ref(backend, path)[1]
        except MfstoreError as error:
            yield error.where(backend=backend.url)


def read_all_refs(backend: Backend, prefix: str = "") -> Iterator[tuple[str, StoredRef | MfstoreError]]:
    """Every ref whose name begins so with what it says, or the error it met, by name; all are asked for together. One
    that was never confirmed has no value, and one that is removed meanwhile may have none."""
    names = sorted(list_refs(backend, prefix))
    for name, stored in zip(names, read_refs(backend, names), strict=True):
        if not isinstance(stored, NotFound):
            yield name, stored


def list_refs(backend: Backend, prefix: str = "") -> Iterator[str]:
    """The names of the refs that begin so, in any order."""
    return (ref_name(info.key) for info in backend.list(PREFIX + encoded(prefix)) if is_ref(info.size))


def remove_ref(backend: Backend, path: str, etag: str) -> None:
    """Remove the ref stored there, if it still is the one with this etag; else Conflict.

    Where a request may be carried out late the ref is not deleted but replaced: a late deletion would take what was set
    since, and a late write that wants no ref there would bring one back. All that happens to such a ref depends on an
    etag that is never seen again. Garbage collection removes what is left, later.
    """
    if backend.capabilities.remote:
        backend.put_if(path, encode_removed(), etag)
    elif backend.delete_unchanged({path: etag}) != [True]:
        raise Conflict("the ref was set anew", key=path, backend=backend.url)
