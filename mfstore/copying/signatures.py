"""Signatures of keys, from one store to another: they are of keys, which are the same in both."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

from mfstore.backends.base import decode_read
from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.signatures import PREFIX, decode_signature, signed_key

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.digests import Key

LISTED_APART = 16
"""Up to so many keys are asked for one by one; of more all signatures are listed, a thousand with a request."""


def copy_signatures(source: Backend, target: Backend, keys: Collection[Key], dry_run: bool) -> int:
    """Copy the signatures of these keys that the destination does not have; how many these are. Whether they are good
    is for those to say who trust somebody; one that is damaged stays behind."""
    if not keys or not source.list_first(PREFIX, 1):
        return 0
    there = _listed(target, keys)
    missing = sorted(_listed(source, keys) - there)
    if not missing:
        return 0
    copied = 0
    with target.batch() as batch:
        for path, data in source.get_many(missing):
            if isinstance(data, NotFound):
                continue
            if isinstance(data, MfstoreError):
                raise data
            try:
                decode_read(source, path, data, partial(decode_signature, path=path))
            except (CorruptObject, Unsupported):
                continue
            copied += 1
            if not dry_run:
                batch.put(path, [data])
        if not dry_run:
            batch.commit()
    return copied


def _listed(backend: Backend, keys: Collection[Key]) -> set[str]:
    """Where signatures of these keys are stored."""
    if len(keys) <= LISTED_APART:
        infos = backend.list_many([f"{PREFIX}{key[:2]}/{key}/" for key in sorted(keys)])
    else:
        infos = backend.list(PREFIX)
    return {info.key for info in infos if (signed := signed_key(info.key)) is not None and signed[0] in keys}
