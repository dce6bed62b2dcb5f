"""How much of a pack's groups is live, where a collection's plan depends on it: recipes tell where live chunks lie in a
group, and the trailer of its pack where all of them do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfstore._core.codec import GROUP
from mfstore.errors import MfstoreError
from mfstore.maintenance.store.checking.known_packs import pack_windows
from mfstore.maintenance.store.checking.trailers import read_trailers
from mfstore.maintenance.store.checking.unread import Unread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mfstore.format.digests import Digest
    from mfstore.handle import StoreAccess
    from mfstore.maintenance.store.collecting.liveness import Liveness
    from mfstore.maintenance.store.collecting.object_table import ObjectTable


def share_out_groups(
    access: StoreAccess, digest: Digest, packs: ObjectTable, names: Iterable[bytes], liveness: Liveness
) -> None:
    """Tell how long the groups of these packs are. Those of a pack whose trailer cannot be read still count whole."""
    for window in pack_windows(names):
        sizes = {name: packs.size(name) for name in window}
        for name, found in read_trailers(access.backend, access.workers, digest, sizes, Unread()):
            if isinstance(found, MfstoreError):
                continue
            lengths: dict[int, int] = {}
            for entry in found:
                if entry.codec == GROUP:
                    lengths[entry.offset] = max(lengths.get(entry.offset, 0), entry.width + entry.usize)
            liveness.share_out(name, lengths)
