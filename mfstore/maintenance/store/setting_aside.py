"""Moving damaged recipes and packs to quarantine, while others may store the same content again.

Where a deletion takes a condition, it cannot take what was stored again. Where it takes none, it could: so the damaged
versions are listed first, as what a collection condemns is. Once every writer goes by the list, who stores one of these
again waits for the end of the deletion, and looks (docs/protocol.md, "Repair").
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mfstore.description import enable
from mfstore.errors import NotFound
from mfstore.format.collection import FEATURE, LISTS, ListRef, encode_list
from mfstore.format.packs import pack_path
from mfstore.format.recipes import recipe_path
from mfstore.host.elapsed import moment, since
from mfstore.maintenance.quarantine import quarantine
from mfstore.maintenance.store.collecting.ownership import Ownership, store_time
from mfstore.saving.guard import KNOWLEDGE_SECONDS, read_state

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

KNOWN_SECONDS = KNOWLEDGE_SECONDS
"""So long after a list was published, every writer goes by it."""


def set_aside(
    backend: Backend, recipes: Mapping[bytes, int], packs: Mapping[bytes, int], tell: Callable[[int, int], None]
) -> None:
    """Move these versions (by ``seal_etag``) to quarantine, recipes first. Other versions, stored since, stay.

    Args:
        backend: Where.
        recipes: Versions by key.
        packs: Versions by name.
        tell: Called with the seconds waited until writers know, and of how many.

    Raises:
        Conflict: a collector is at work, and deletions take no condition: nothing was moved. Do it again later.
        AccessDenied: something may not be written.
        BackendError: the storage failed. What was not moved yet stays; do it again.
    """
    leaving = {recipe_path(key.hex()): version for key, version in recipes.items()}
    leaving |= {pack_path(name.hex()): version for name, version in packs.items()}
    if not leaving:
        return
    if backend.deletes_conditionally():
        for path, version in leaving.items():
            quarantine(backend, path, version)
        return
    enable(backend, "write", FEATURE)
    now = store_time(backend)
    ownership = Ownership(backend, read_state(backend)[0])
    ownership.claim(deleting=False, take_over=False)
    try:
        entry = ListRef(f"{LISTS}{ownership.state.epoch + 1}-{os.urandom(8).hex()}", now, len(recipes), len(packs), 0)
        backend.put(entry.key, [encode_list(dict(recipes), dict(packs))])
        ownership.replace(lists=(*ownership.state.lists, entry))
        _wait_until_known(ownership, backend, tell)
        ownership.replace(deleting=True, deletions=ownership.state.deletions + 1)
        for path, version in leaving.items():
            _set_one_aside(ownership, backend, path, version)
        ownership.wait_for_quiet()
        rest = tuple(other for other in ownership.state.lists if other.key != entry.key)
        ownership.replace(owner="", deleting=False, lists=rest)
    except BaseException as error:
        ownership.release(error)
        raise
    backend.delete(entry.key)


def _wait_until_known(ownership: Ownership, backend: Backend, tell: Callable[[int, int], None]) -> None:
    begun = moment()
    seconds = KNOWN_SECONDS if backend.capabilities.remote else 0.0
    while (passed := since(begun)) < seconds:
        tell(int(passed), int(seconds))
        time.sleep(min(1.0, max(0.01, seconds - passed)))
        ownership.pulse()


def _set_one_aside(ownership: Ownership, backend: Backend, path: str, version: int) -> None:
    try:
        etag = backend.head(path).etag
    except NotFound:
        return
    # Copied first, which may take long: look and deletion lie in one window.
    copy = quarantine(backend, path, version, replaced=True)
    if copy is None:
        return
    ownership.hold()
    while not ownership.still_held():
        ownership.hold()  # this process stood still: whether it is the one must be asked anew
    try:
        gone = all(backend.delete_unchanged({path: etag}))
    except BaseException:
        ownership.unanswered()
        raise
    if not gone:
        backend.delete(copy)
